"""Gradients of While and Case, as loops and choices of their own.

The loop that goes back needs values of the loop that went forward.  What is dear to compute
(products, reductions, transcendental functions, random numbers, the loop variables themselves) is
*saved*: the forward loop hands out its values of all turns, stacked.  What is cheap is computed
again from that.  Of a branch, everything that is not random is computed again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from graphc import dims
from graphc.backward import Backward, between, is_trainable
from graphc.build import constant, create, single
from graphc.dims import Dim
from graphc.errors import GraphError
from graphc.graph import (
    Operation,
    Region,
    Tensor,
    TensorType,
    get_default_graph,
    name_scope,
)
from graphc.loop.scalar import FUNCTIONS
from graphc.op import ElementOp
from graphc.ops.control_arrays import CarriedArrays, added, is_rows
from graphc.ops.control_build import (
    make_owner,
    own_operands,
    parameter,
    region,
    save_output,
)
from graphc.ops.control_copy import copy_control, needed_inside, repeated
from graphc.ops.control_growing import grows, recalls
from graphc.ops.control_undo import written
from graphc.ops.indexing_row import KEEPERS, array_gradient
from graphc.ops.state import assigned_variable, is_assignment

DEAR = 10
"""From this cost on, in additions for an element, a value is saved and not computed again."""

Grads = Sequence[Tensor | None]


def _call(name: str, *inputs: object, **attrs: object) -> Tensor:
    return single(create(name, inputs, attrs))


def is_dear(op: Operation) -> bool:
    """Whether values of the operation are saved for the way back, and not computed again."""
    definition = op.definition
    if op.type == "TakeRow":
        # An array of the body itself would have to be saved as a whole.
        return op.inputs[0].op.region is op.region
    if op.type == "Const":
        return False
    if not isinstance(definition, ElementOp):
        return True
    fn = FUNCTIONS.get(getattr(definition, "fn", ""))
    return fn is not None and fn.cost >= DEAR


def has_effect(op: Operation) -> bool:
    """Whether running the operation again would make a difference."""
    return not op.definition.pure


def variables_assigned(op: Operation) -> set[Operation]:
    """The variables that something in the bodies of an operation assigns."""
    found: set[Operation] = set()
    for body in op.attrs["bodies"]:
        for inner in body.operations:
            if is_assignment(inner):
                found.add(assigned_variable(inner))
            elif "bodies" in inner.attrs:
                found |= variables_assigned(inner)
    return found


def variables_read(op: Operation) -> set[Operation]:
    """The variables whose elements an operation uses."""
    unread = op.definition.shape_operands
    inputs = op.inputs[: own_operands(op)] if "bodies" in op.attrs else op.inputs
    found = set()
    for k, t in enumerate(inputs):
        source = t.op
        if source.type == "Identity" and source.region is None:
            source = source.inputs[0].op
        if source.type == "VariableV2" and k not in unread:
            found.add(source)
    return found


def check_variables(op: Operation, back: Operation) -> None:
    """The way back finds variables as the way forward has left them, not as they were in a turn.

    Raises:
      GraphError: it needs such a value.
    """
    assigned = variables_assigned(op)
    for inner in needed_inside(back) if assigned else ():
        for variable in variables_read(inner) & assigned:
            raise GraphError(
                f"the gradient of '{op.name}' (declared at {op.location}) needs the value that the "
                f"variable '{variable.name}' had, which is assigned in it: take it by read_value() "
                "in the body that uses it"
            )


class Recall:
    """Gives the values that tensors of a forward region had, in the region that goes back.

    Args:
      home: the forward region.
      save: gives a tensor of the region around that has the values of one of ``home``.
      dear: which operations' values are saved.
      changing: variables that the forward operation assigns; what reads them is saved, too.
      arrays: what is not saved, because the operation that goes back carries it.
    """

    def __init__(
        self,
        home: Region,
        save: Callable[[Tensor], Tensor],
        dear: Callable[[Operation], bool],
        changing: set[Operation],
        arrays: CarriedArrays | None = None,
    ) -> None:
        self.home = home
        self.save = save
        self.changing = changing
        self.dear: Callable[[Operation], bool] = lambda op: (
            dear(op) or not changing.isdisjoint(variables_read(op))
        )
        self.known: dict[Tensor, Tensor] = {}
        self.copies: dict[Operation, Operation] = {}
        self.outputs: dict[Operation, dict[Tensor, Tensor]] = {}
        self.starts: dict[Operation, Tensor] = {}
        self.arrays = arrays

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
                        recalls(self.known[t], t)
                continue
            graph = get_default_graph()
            # One from around stays what it is.
            inputs = [self.known.get(t, t) for t in op.inputs]
            name = graph.unique_name(op.name.rsplit("/", 1)[-1])
            types = [t.type for t in op.outputs]
            new = graph.add_operation(
                op.definition, inputs, repeated(op), types, name, op.location
            )
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
            found, outputs = copy_control(op, self.start, self.passing, self.save)
            self.copies[op], self.outputs[op] = found, outputs
        for a, b in self.outputs[op].items():
            self.known.setdefault(a, b)
        return found

    def passing(self, op: Operation) -> bool:
        """Whether an operation only reads a variable that is assigned meanwhile."""
        return op.type == "Identity" and not self.changing.isdisjoint(variables_read(op))

    def start(self, op: Operation) -> Tensor:
        """The counter that a random operation in a nested region of ``home`` began with.

        What counts from a number that ``home`` has began with that.
        """
        if op.type == "CountFrom" and op.inputs[0].op.region is self.home:
            return self(op.inputs[0])
        found = self.starts.get(op)
        if found is None:
            with get_default_graph().within(self.home):
                counter = _call("RandomCounter", of=[op.outputs[0]])
            found = self.starts[op] = self.save(counter)
        return found

    def missing(self, tensor: Tensor) -> tuple[list[Operation], set[Tensor]]:
        """The operations to save or to compute again, producers first; what is wanted of them."""
        found: set[Operation] = set()
        wanted: set[Tensor] = set()
        stack = [tensor]
        while stack:
            t = stack.pop()
            op = t.op
            if self.arrays is not None and t in self.arrays and t not in self.known:
                self.known.update(self.arrays.recalled(t))
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


class BodyBackward(Backward):
    """The walk back through a region, which knows of arrays.

    The gradient of reading a row is added to that row of the array's gradient, without zeros for
    all the others.  The gradient of an array that grows has at least as many rows as the array:
    in a loop it is as long as the array is in the end, and nothing needs its length in between.
    """

    def total(self, tensor: Tensor) -> Tensor | None:
        """The sum of the contributions to one gradient, added up once."""
        parts = self.grads.get(tensor, [])
        if len(parts) > 1:
            rows = [p for p in parts if is_rows(p)]
            rest = [p for p in parts if not is_rows(p)] or [rows.pop()]
            found = rest[0]
            if len(rest) > 1:
                rest[1:] = [self.fit(tensor, p, found) for p in rest[1:]]
                found = single(create("AddN", [rest]))
            for part in rows:
                found = added(
                    found, part, functools.partial(self.fit, tensor), self.is_alone(part)
                )
            parts[:] = [found]
        return super().total(tensor)

    def is_alone(self, part: Tensor) -> bool:
        """Whether a contribution is one to a single gradient: a sum gives it to all its terms."""
        return sum(p is part for parts in self.grads.values() for p in parts) == 1

    def own_gradients(
        self, op: Operation, totals: Sequence[Tensor | None]
    ) -> Sequence[Tensor | None]:
        """Of an operation that runs again, the gradients of what its copy uses from around.

        One that knows nothing of arrays gets a gradient as long as what it gave.
        """
        if op.type not in KEEPERS and op.type != "Identity":
            totals = [
                _call("FitLike", g, t) if g is not None and grows(t) else g
                for t, g in zip(op.outputs, totals, strict=True)
            ]
        target = replayed(op)
        if target is op:
            return super().own_gradients(op, totals)
        graph = get_default_graph()
        here = graph.region
        assert here is not None
        assert isinstance(here.recall, Recall)
        outputs = here.recall.outputs[op]
        given = {outputs[t]: g for t, g in zip(op.outputs, totals, strict=False) if t in outputs}
        found = super().own_gradients(op, [given.get(t) for t in target.outputs])
        count, known = own_operands(op), here.recall.known
        own = own_operands(target)
        captured = dict(zip(target.inputs[own:], found[own:], strict=True))
        there = (known.get(t, graph.visible(t)) for t in op.inputs[count:])
        return [*found[:count], *(captured.get(t) for t in there)]

    def fit(self, tensor: Tensor, part: Tensor, like: Tensor) -> Tensor:
        """A contribution to the gradient of ``tensor``, as long as another one.

        What a loop around has may be such an array: the region does not tell.
        """
        free = grows(tensor) or tensor.op.region not in (self.region, None)
        return _call("FitLike", part, like) if free and not _same_sizes(part, like) else part


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
        types = [t.type for t in start]
        for i, k in enumerate(active):
            types[1 + i] = _any_turn(body.params[k], start[1 + i])
        with region("gradient of " + body.name) as cond:
            params = [parameter(cond, t, "Parameter") for t in types]
            cond.results = [_call("GreaterEqual", params[0], constant(0))]
        with region("gradient of " + body.name) as back:
            arrays = _way_back(op, (cond, back), types, active, outer, saved)
        start += arrays.starts
        name = get_default_graph().unique_name("While")
        loop = make_owner("While", (cond, back), start, name)
        check_variables(op, loop)
    here = get_default_graph().region
    if here is not None and isinstance(here.recall, Recall) and here.recall.arrays is not None:
        first = len(loop.outputs) - 1 - len(arrays.numbers)
        initial = (op.inputs[k] for k in arrays.numbers)
        here.recall.arrays.again.update(zip(initial, loop.outputs[first:], strict=False))
    found: list[Tensor | None] = [None] * len(op.inputs)
    for i, k in enumerate(active):
        found[k] = loop.outputs[1 + i]
        if grows(body.params[k]):
            found[k] = array_gradient(loop.outputs[1 + i], op.inputs[k])
    for i, t in enumerate(outer):
        found[op.inputs.index(t, count)] = loop.outputs[1 + len(active) + i]
    return found


def _same_sizes(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are known to be of the same shape."""
    return a.sizes is not None and a.sizes == b.sizes


def _any_turn(param: Tensor, grad: Tensor) -> TensorType:
    """The type that the gradient of a loop variable has in every turn, not only in the last."""
    sizes, known = grad.sizes, param.sizes
    if sizes is None or known is None:
        return grad.type
    free = [None if isinstance(p, Dim) else s for s, p in zip(sizes, known, strict=True)]
    return TensorType(grad.dtype, tuple(dims.fresh() if s is None else s for s in free))


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
    regions: Sequence[Region],
    types: Sequence[TensorType],
    active: Sequence[int],
    outer: Sequence[Tensor],
    saved: dict[Tensor, Tensor],
) -> CarriedArrays:
    """The body of the loop that goes back, and the arrays it carries."""
    body, back = op.attrs["bodies"][1], regions[1]
    params = [parameter(back, t, "Parameter") for t in types]
    turn, incoming = params[0], params[1 : 1 + len(active)]
    sums = params[1 + len(active) :]

    def save(tensor: Tensor) -> Tensor:
        return _call("TakeRow", save_output(op, tensor), turn, checked=False)

    back.recalled, back.reads = body, op.reads
    arrays = CarriedArrays(op, regions, save)
    back.recall = Recall(body, save, is_dear, variables_assigned(op), arrays)
    seeds = [*incoming, *(_call("TakeRow", g, turn, checked=False) for g in saved.values())]
    ys = [body.results[k] for k in active] + list(saved)
    xs = [body.params[k] for k in active] + list(outer)
    walk = BodyBackward(ys, xs, (), body, replayed)
    walk.walk(seeds)
    results = [_call("Sub", turn, constant(1))]
    for k, grad in zip(active, incoming, strict=True):
        total = walk.total(body.params[k])
        results.append(_zeros(body.params[k], grad) if total is None else total)
    for t, total in zip(outer, sums, strict=True):
        for part in walk.parts(t):
            total = added(total, part, functools.partial(walk.fit, t), walk.is_alone(part))
        results.append(total)
    back.results = results + arrays.results
    return arrays


def _zeros(param: Tensor, grad: Tensor) -> Tensor:
    """The gradient of a loop variable that a turn does not use, beside that of the next turn."""
    known = param.sizes is not None and all(isinstance(s, int) for s in param.sizes)
    if known or grows(param):
        return _call("ZerosLike", grad)
    # The turn may have left another size in it.
    back = get_default_graph().region
    assert back is not None
    assert isinstance(back.recall, Recall)
    return _call("ZerosLike", back.recall(param))


def _fitted(grad: Tensor, result: Tensor, array: bool) -> Tensor:
    """The gradient of a branch's result, of its sizes: another branch may give other ones."""
    sizes = result.sizes
    if sizes is not None and all(isinstance(s, int) for s in sizes) and grad.sizes == sizes:
        return grad
    return array_gradient(grad, result) if array else _call("FitLike", grad, result)


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
        made, changing = [], variables_assigned(op)
        arrays = set().union(*map(written, branches))
        for b in branches:
            with region("gradient of " + b.name) as back:
                back.recalled, back.reads = b, op.reads
                back.recall = Recall(b, lambda t: save_output(op, t), has_effect, changing)
                ys = [b.results[k] for k in active] + [s for s in saved if s.op.region is b]
                seeds = [
                    _fitted(g, b.results[k], k in arrays)
                    for k in active
                    if (g := grads[k]) is not None
                ]
                seeds += [g for s, g in saved.items() if s.op.region is b]
                walk = BodyBackward(ys, outer, (), b, replayed)
                back.results = [
                    _call("ZerosLike", t) if g is None else g
                    for t, g in zip(outer, walk.run(seeds), strict=True)
                ]
                back.results = [
                    array_gradient(g, t) if grows(t) else g
                    for t, g in zip(outer, back.results, strict=True)
                ]
            made.append(back)
        name = get_default_graph().unique_name("Case")
        choice = make_owner("Case", made, [op.inputs[0]], name)
        check_variables(op, choice)
    for t, total in zip(outer, choice.outputs, strict=False):
        found[op.inputs.index(t, 1)] = total
    return found
