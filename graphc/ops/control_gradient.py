"""Gradients of While and Case, as loops and choices of their own.

The loop that goes back needs values of the loop that went forward.  What is dear to compute
(products, reductions, transcendental functions, random numbers, the loop variables themselves) is
*saved*: the forward loop hands out its values of all turns, stacked.  What is cheap is computed
again from that.  Of a branch, everything that is not random is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.backward import Backward, between, is_trainable
from graphc.build import constant, create, single
from graphc.graph import Operation, Region, Tensor, get_default_graph, name_scope
from graphc.loop.scalar import FUNCTIONS
from graphc.op import ElementOp
from graphc.ops.control_build import (
    copy_control,
    make_owner,
    parameter,
    region,
    save_output,
)

DEAR = 10
"""From this cost on, in additions for an element, a value is saved and not computed again."""

Grads = Sequence[Tensor | None]


def _call(name: str, *inputs: object, **attrs: object) -> Tensor:
    return single(create(name, inputs, attrs))


def is_dear(op: Operation) -> bool:
    """Whether values of the operation are saved for the way back, and not computed again."""
    definition = op.definition
    if op.type in ("Const", "TakeRow"):
        return False
    if not isinstance(definition, ElementOp):
        return True
    fn = FUNCTIONS.get(getattr(definition, "fn", ""))
    return fn is not None and fn.cost >= DEAR


def has_effect(op: Operation) -> bool:
    """Whether running the operation again would make a difference."""
    return not op.definition.pure


class Recall:
    """Gives the values that tensors of a forward region had, in the region that goes back.

    Args:
      home: the forward region.
      save: gives a tensor of the region around that has the values of one of ``home``.
      dear: which operations' values are saved.
    """

    def __init__(
        self,
        home: Region,
        save: Callable[[Tensor], Tensor],
        dear: Callable[[Operation], bool] = is_dear,
    ) -> None:
        self.home = home
        self.save = save
        self.dear = dear
        self.known: dict[Tensor, Tensor] = {}
        self.copies: dict[Operation, Operation] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        """The value of ``tensor``, as a tensor of the current region."""
        if tensor in self.known:
            return self.known[tensor]
        ops, wanted = self.missing(tensor)
        for op in ops:
            if all(t in self.known for t in op.outputs if t in wanted):
                continue
            if self.is_replayed(op, wanted):
                self.replayed(op)
                continue
            if op.type == "Parameter" or self.dear(op):
                for t in op.outputs:
                    if t in wanted:
                        self.known[t] = self.save(t)
                continue
            graph = get_default_graph()
            # One from around stays what it is.
            inputs = [self.known.get(t, t) for t in op.inputs]
            attrs = op.attrs
            if op.type == "TakeRow":
                attrs = attrs | {"checked": False}
            name = graph.unique_name(op.name.rsplit("/", 1)[-1])
            types = [t.type for t in op.outputs]
            new = graph.add_operation(op.definition, inputs, attrs, types, name, op.location)
            self.known.update(zip(op.outputs, new.outputs, strict=True))
        return self.known[tensor]

    def is_replayed(self, op: Operation, wanted: set[Tensor]) -> bool:
        """Whether the operation runs again with its bodies: where it is not saved, and of a loop
        that is, if more than its last values is wanted."""
        if op.type not in ("While", "Case"):
            return False
        if op.type == "Case" or not self.dear(op):
            return not self.dear(op)
        count = len(op.attrs["bodies"][1].params)
        return any(t in wanted for t in op.outputs[count:])

    def replayed(self, op: Operation) -> Operation:
        """An operation with bodies run again, once for all that is asked of it."""
        found = self.copies.get(op)
        if found is None:
            found = self.copies[op] = copy_control(op)
        for a, b in zip(op.outputs, found.outputs, strict=False):
            self.known.setdefault(a, b)
        return found

    def missing(self, tensor: Tensor) -> tuple[list[Operation], set[Tensor]]:
        """The operations to save or to compute again, producers first; what is wanted of them."""
        found: set[Operation] = set()
        wanted: set[Tensor] = set()
        stack = [tensor]
        while stack:
            t = stack.pop()
            op = t.op
            if t in self.known or op.region is not self.home or t in wanted:
                continue
            wanted.add(t)
            found.add(op)
            if self.is_replayed(op, wanted) or (op.type != "Parameter" and not self.dear(op)):
                stack += op.inputs
        return sorted(found, key=lambda o: o.serial), wanted


def replayed(op: Operation) -> Operation:
    """The operation to differentiate for ``op`` of a forward region: of a control op, a copy.

    What a nested loop saves would be of another number of turns every time; it runs again.
    """
    here = get_default_graph().region
    if op.type in ("While", "Case") and here is not None and here.recalled is op.region:
        assert isinstance(here.recall, Recall)
        return here.recall.replayed(op)
    return op


def while_gradient(op: Operation, grads: Grads) -> list[Tensor | None]:
    """The gradients of a loop's operands; see the module's text."""
    _, body = op.attrs["bodies"]
    count = len(body.params)
    saved = {
        t: g for t, g in zip(op.attrs["saved"], grads[count + 1 :], strict=False) if g is not None
    }
    active = _active(body, {k for k in range(count) if grads[k] is not None}, list(saved))
    outer = [t for t in dict.fromkeys(op.inputs[count:]) if is_trainable(t)]
    ys = [body.results[k] for k in active] + list(saved)
    outer = [t for t in outer if t in ys or _reaches(body, ys, t)]
    with name_scope(op.name.rsplit("/", 1)[-1] + "_grad"):
        one = constant(1)
        last = _call("Sub", op.outputs[count], one)
        start = [last]
        for k in active:
            grad = grads[k]
            start.append(_call("ZerosLike", op.outputs[k]) if grad is None else grad)
        start += [_call("ZerosLike", t) for t in outer]
        with region("gradient of " + body.name) as cond:
            params = [parameter(cond, t.type, "Parameter") for t in start]
            cond.results = [_call("GreaterEqual", params[0], constant(0))]
        with region("gradient of " + body.name) as back:
            back.results = _way_back(op, body, back, start, active, outer, saved)
        name = get_default_graph().unique_name("While")
        loop = make_owner("While", (cond, back), start, name)
    found: list[Tensor | None] = [None] * len(op.inputs)
    for i, k in enumerate(active):
        found[k] = loop.outputs[1 + i]
    for i, t in enumerate(outer):
        found[op.inputs.index(t, count)] = loop.outputs[1 + len(active) + i]
    return found


def _active(body: Region, start: set[int], saved: list[Tensor]) -> list[int]:
    """The loop variables whose gradients take part: those the differentiated ones depend on."""
    active = {k for k in start if is_trainable(body.params[k])}
    while True:
        ys = [body.results[k] for k in active] + saved
        more = {
            k
            for k, p in enumerate(body.params)
            if k not in active and is_trainable(p) and (p in ys or _reaches(body, ys, p))
        }
        if not more:
            return sorted(active)
        active |= more


def _reaches(body: Region, ys: list[Tensor], x: Tensor) -> bool:
    """Whether some y depends on x by floats, within the body."""
    path = between([y for y in ys if y.op.region is body], [x], body)
    return any(t is x for o in path for t in o.inputs)


def _way_back(
    op: Operation,
    body: Region,
    back: Region,
    start: Sequence[Tensor],
    active: Sequence[int],
    outer: Sequence[Tensor],
    saved: dict[Tensor, Tensor],
) -> list[Tensor]:
    """The body of the loop that goes back: its results."""
    params = [parameter(back, t.type, "Parameter") for t in start]
    turn, incoming = params[0], params[1 : 1 + len(active)]
    sums = params[1 + len(active) :]

    def save(tensor: Tensor) -> Tensor:
        return _call("TakeRow", save_output(op, tensor), turn, checked=False)

    back.recalled = body
    back.recall = Recall(body, save)
    seeds = [*incoming, *(_call("TakeRow", g, turn, checked=False) for g in saved.values())]
    ys = [body.results[k] for k in active] + list(saved)
    xs = [body.params[k] for k in active] + list(outer)
    walk = Backward(ys, xs, (), body, replayed)
    walk.walk(seeds)
    results = [_call("Sub", turn, constant(1))]
    for k, grad in zip(active, incoming, strict=True):
        total = walk.total(body.params[k])
        results.append(_call("ZerosLike", grad) if total is None else total)
    for t, total in zip(outer, sums, strict=True):
        for part in walk.parts(t):
            total = _added(total, part)
        results.append(total)
    return results


def _added(total: Tensor, part: Tensor) -> Tensor:
    """The sum; rows are added in place, without zeros for all the others."""
    row = part.op
    if row.type == "PutRow" and row.attrs["add"] and row.inputs[0].op.type == "ZerosLike":
        return _call("PutRow", total, row.inputs[1], row.inputs[2], add=True)
    return _call("AddV2", total, part)


def _fitted(grad: Tensor, result: Tensor) -> Tensor:
    """The gradient of a branch's result, of its sizes: another branch may give other ones."""
    sizes = result.sizes
    if sizes is not None and all(isinstance(s, int) for s in sizes) and grad.sizes == sizes:
        return grad
    return _call("FitLike", grad, result)


def case_gradient(op: Operation, grads: Grads) -> list[Tensor | None]:
    """The gradients of a choice's operands; see the module's text."""
    branches = op.attrs["bodies"]
    count = len(branches[0].results)
    active = [
        k for k in range(count) if grads[k] is not None and is_trainable(branches[0].results[k])
    ]
    saved = {
        t: g for t, g in zip(op.attrs["saved"], grads[count:], strict=False) if g is not None
    }
    outer = []
    for t in dict.fromkeys(op.inputs[1:]):
        for b in branches:
            ys = [b.results[k] for k in active] + [s for s in saved if s.op.region is b]
            if is_trainable(t) and (t in ys or _reaches(b, ys, t)):
                outer.append(t)
                break
    found: list[Tensor | None] = [None] * len(op.inputs)
    if not outer:
        return found
    with name_scope(op.name.rsplit("/", 1)[-1] + "_grad"):
        made = []
        for b in branches:
            with region("gradient of " + b.name) as back:
                back.recalled = b
                back.recall = Recall(b, lambda t: save_output(op, t), has_effect)
                ys = [b.results[k] for k in active] + [s for s in saved if s.op.region is b]
                seeds = [_fitted(g, b.results[k]) for k in active if (g := grads[k]) is not None]
                seeds += [g for s, g in saved.items() if s.op.region is b]
                totals = Backward(ys, outer, (), b, replayed).run(seeds)
                back.results = [
                    _call("ZerosLike", t) if g is None else g
                    for t, g in zip(outer, totals, strict=True)
                ]
            made.append(back)
        name = get_default_graph().unique_name("Case")
        choice = make_owner("Case", made, [op.inputs[0]], name)
    for t, total in zip(outer, choice.outputs, strict=False):
        found[op.inputs.index(t, 1)] = total
    return found
