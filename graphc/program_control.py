"""Planning of loops and branches: where their values live, and the steps around their bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc import dims
from graphc.dims import DimLike, Symbol
from graphc.errors import CompileError
from graphc.function import Function
from graphc.graph import Operation, Tensor
from graphc.ops.control import differing, loop_symbols
from graphc.program_function import FunctionPlanner, assign, elements
from graphc.program_steps import (
    Append,
    Bind,
    Branch,
    Call,
    Copy,
    Grow,
    Host,
    HostCall,
    Loop,
    Reserve,
    Rotate,
    Step,
    walk,
)
from graphc.program_updates import overwritten, rotated

QUICK = 1 << 12
"""Work of a turn, in bytes and operations, below which it takes less than a microsecond or so."""

class ControlPlanner(FunctionPlanner):
    """A planner that knows operations with bodies."""

    def plan_control(self, op: Operation) -> None:
        """Append the steps of an operation with bodies, or of a host step."""
        if op.type == "Host":
            plan_host(self, op)
        elif op.type == "While":
            _LoopPlanner(self, op).plan()
        else:
            plan_branch(self, op)


def body_planner(
    planner: FunctionPlanner,
    op: Operation,
    body: Function,
    state: Sequence[int],
    given: Mapping[int, Tensor] | None = None,
) -> ControlPlanner:
    """A planner for a body, whose inputs are where the owner has them."""
    inner = ControlPlanner(body, planner.shared, given)
    for i in body.inputs:
        number = int(i.key)
        if number < len(state):
            inner.where[i.tensor] = state[number]
        else:
            inner.where[i.tensor] = planner.source_slot(op.inputs[number])
    return inner


def depends_on(tensor: Tensor, symbols: set[Symbol]) -> bool:
    """Whether the tensor's sizes change with some of these."""
    return any(dims.symbols_of(s) & symbols for s in tensor.sizes or ())


class _LoopPlanner:
    """The steps of one While.

    A loop variable lives in one slot, which the body updates in place where it can and by a copy at
    the end of the turn otherwise.  One whose size changes from turn to turn has memory of its own.
    """

    def __init__(self, planner: ControlPlanner, op: Operation) -> None:
        self.planner = planner
        self.op = op
        self.test, self.body = op.attrs["bodies"]
        self.carried = self.body.carried
        during, self.last, turns = loop_symbols(op.attrs["symbols"])
        assert turns is not None
        self.symbols: list[Symbol] = list(during)
        self.turns_symbol = turns
        self.updates = [o for o in self.body.outputs if o.kind == "update"]
        self.saved = [o for o in self.body.outputs if o.kind == "result"]
        self.turned = rotated(self.body)

    def plan(self) -> None:
        """Append the steps."""
        planner, op = self.planner, self.op
        sources = [planner.source_slot(t) for t in op.inputs[: len(self.carried)]]
        segment = -1
        if self.symbols:
            segment = planner.shared.segment(self.symbols)
            starts = [self.size_from(s, [t.sizes or () for t in op.inputs]) for s in self.symbols]
            planner.steps.append(Bind(segment, starts))
        self.state = [self.state_slot(k) for k in range(len(self.carried))]
        for slot, source, tensor in zip(self.state, sources, op.inputs, strict=False):
            if slot == source:
                continue
            if planner.shared.slots[slot].kind == "grown":
                planner.steps.append(Grow(slot, elements(tensor)))
            planner.steps.append(Copy(slot, source, elements(tensor)))
        turns = planner.slot(op.outputs[len(self.carried)])
        stacks = [
            self.stack_slot(op.outputs[len(self.carried) + 1 + j]) for j in range(len(self.saved))
        ]
        test = body_planner(planner, op, self.test, self.state)
        test.plan_groups()
        flag = test.source_slot(self.test.outputs[0].tensor)
        body = self.plan_body(turns, stacks, segment)
        quick = self.is_quick([*test.steps, *body])
        planner.steps.append(Loop(test.steps, flag, body, turns, quick))
        ends: list[DimLike] = [dims.Dim((((s,), 1),)) for s in self.symbols]
        after = [size.as_symbol for size in self.last.values() if isinstance(size, dims.Dim)]
        last = planner.shared.segment([*(s for s in after if s is not None), self.turns_symbol])
        planner.steps.append(Bind(last, [*ends, (turns, 0)]))

    def state_slot(self, k: int) -> int:
        """The slot of a loop variable: that of the output, from the first turn on."""
        planner, out = self.planner, self.op.outputs[k]
        apart = planner.lowering.storage(out) is out
        if k in self.turned or (apart and depends_on(self.carried[k], set(self.symbols))):
            planner.where[out] = planner.add_slot("grown", self.carried[k])
        return planner.slot(out)

    def stack_slot(self, out: Tensor) -> int:
        """The slot of the values of all turns."""
        planner = self.planner
        planner.where[out] = planner.add_slot("grown", out)
        return planner.where[out]

    def size_from(self, symbol: Symbol, shapes: Sequence[Sequence[DimLike]]) -> DimLike:
        """The size that stands where the loop variables have a symbol."""
        for tensor, sizes in zip(self.carried, shapes, strict=False):
            for mine, found in zip(tensor.sizes or (), sizes, strict=True):
                if not isinstance(mine, int) and mine.as_symbol is symbol:
                    return found
        raise AssertionError(f"no loop variable has the size {symbol}")

    def plan_body(self, turns: int, stacks: Sequence[int], segment: int) -> list[Step]:
        """The steps of a turn."""
        planner = self.planner
        body = body_planner(planner, self.op, self.body, self.state)
        state = set(self.state)
        # A loop variable is saved before the turn changes it.
        roots = [body.plan.root(o.tensor) for o in self.saved]
        early = [r.op.type == "Placeholder" and body.where.get(r) in state for r in roots]
        behind = []
        for o, stack, first in zip(self.saved, stacks, early, strict=True):
            if first:
                body.steps.append(append(body, o.tensor, stack, turns))
            elif not self.write_row(body, o.tensor, stack, turns):
                behind.append((o.tensor, stack))
        body.plan_groups()
        for tensor, stack in behind:
            body.steps.append(append(body, tensor, stack, turns))
        places = [self.state[self.turned.get(k, k)] for k in range(len(self.state))]
        updates = [(t, o.tensor) for t, o in zip(places, self.updates, strict=True)]
        assign(body, updates, commit=False)
        body.steps += self.rotations()
        if segment >= 0:
            shapes = [o.tensor.sizes or () for o in self.updates]
            ends = [self.size_from(s, shapes) for s in self.symbols]
            body.steps.append(Bind(segment, ends))
        return body.steps

    def rotations(self) -> list[Step]:
        """The steps that give loop variables which change places one another's memory."""
        found: list[Step] = []
        left = dict(self.turned)
        while left:
            cycle = [next(iter(left))]
            while (k := left.pop(cycle[-1])) != cycle[0]:
                cycle.append(k)
            found.append(Rotate([self.state[k] for k in cycle]))
        return found

    def write_row(self, body: ControlPlanner, tensor: Tensor, stack: int, turns: int) -> bool:
        """Let a kernel write what is saved straight to its place, if some kernel computes it."""
        root = body.lowering.storage(tensor)
        computed = {
            t
            for g in body.plan.groups
            if g.template is None or "bodies" not in g.template.attrs
            for t in g.outputs
        }
        if root not in computed or root in body.where or body.plan.root(tensor) is not root:
            return False
        row = body.where[root] = body.add_slot("row", root, (stack, turns))
        body.steps.append(Reserve(stack, row, turns))
        return True

    def is_quick(self, steps: Sequence[Step]) -> bool:
        """Whether a turn takes next to no time."""
        work = 0
        for step in walk(steps):
            if isinstance(step, (Loop, Bind, Append, Reserve, Grow, Host)):
                return False
            if isinstance(step, Call):
                if not isinstance(step.lowered.work, int):
                    return False
                work += step.lowered.work
        return work < QUICK


def plan_branch(planner: ControlPlanner, op: Operation) -> None:
    """The steps of one Case."""
    shared = planner.shared
    selector = planner.source_slot(op.inputs[0])
    symbols = list(op.attrs["symbols"])
    segment = shared.segment(symbols) if symbols else -1
    late = set(symbols)
    targets = [planner.slot(t) for t in op.outputs]
    owned = {k for k, t in enumerate(op.outputs) if planner.lowering.storage(t) is not t}
    cases = []
    for body in op.attrs["bodies"]:
        inputs = {i.key: i.tensor for i in body.inputs}
        olds = {k: inputs[str(overwritten(op.outputs[k]))] for k in owned}
        inner = body_planner(planner, op, body, (), olds)
        given = [o.tensor for o in body.outputs if o.kind == "result"]
        computed = {t for g in inner.plan.groups for t in g.outputs}
        direct = set()
        for k, (target, tensor) in enumerate(zip(targets, given, strict=True)):
            root = inner.lowering.storage(tensor)
            free = root in computed and root not in inner.where and not apart(op.outputs[k], tensor)
            free = free and k not in owned
            if free and not depends_on(op.outputs[k], late) and not has_own_memory(root):
                inner.where[root] = target
                direct.add(k)
        inner.plan_groups()
        if symbols:
            ends = _branch_sizes(op, given)
            inner.steps.append(Bind(segment, ends))
        for k, (target, tensor) in enumerate(zip(targets, given, strict=True)):
            if k not in direct and k not in owned:
                inner.steps.append(_given_to(target, inner, op.outputs[k], tensor))
        assign(inner, [(targets[k], given[k]) for k in sorted(owned)], commit=False)
        cases.append(inner.steps)
    planner.steps.append(Branch(selector, cases))


def has_own_memory(root: Tensor) -> bool:
    """Whether a tensor lives in memory that grows, whatever its size turned out to be."""
    op = root.op
    if op.type == "Host":
        return depends_on(root, set(op.attrs["symbols"]))
    if op.type != "While":
        return False
    body = op.attrs["bodies"][1]
    carried = body.carried
    if root.index >= len(carried):
        return root.index > len(carried)
    if root.index in rotated(body):
        return True
    return depends_on(carried[root.index], set(loop_symbols(op.attrs["symbols"])[0]))


def apart(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have other numbers of elements for sure."""
    left, right = dims.product(a.sizes or ()), dims.product(b.sizes or ())
    return isinstance(left, int) and isinstance(right, int) and left != right


def append(planner: FunctionPlanner, tensor: Tensor, stack: int, turns: int) -> Append:
    """The step that puts a turn's value behind those of the turns before."""
    return Append(stack, planner.source_slot(tensor), elements(tensor), turns)


def _given_to(target: int, planner: FunctionPlanner, out: Tensor, given: Tensor) -> Copy:
    """The copy to an output: where the sizes are apart, a guard has ended the run before."""
    if not apart(out, given):
        return Copy(target, planner.source_slot(given), elements(given))
    shape = tuple(s for s in out.sizes or () if isinstance(s, int))
    zeros = np.zeros(shape, out.dtype.base_dtype.numpy)
    return Copy(target, planner.add_slot("const", out, zeros), elements(out))


def _branch_sizes(op: Operation, given: Sequence[Tensor]) -> list[DimLike | tuple[int, int]]:
    """What a branch gives for the sizes in which the branches differ.

    They have symbols, some of which may have been assumed to be some size.
    """
    symbols, places = op.attrs["symbols"], differing(op.attrs["bodies"])
    if len(symbols) != len(places):
        raise CompileError(f"'{op.name}' has {len(symbols)} sizes for {len(places)}")
    return [(given[k].sizes or ())[d] for k, d in places]


def plan_host(planner: FunctionPlanner, op: Operation) -> None:
    """Append the steps of a Host operation.

    A result whose sizes the call decides has memory of its own; the sizes are then bound from the
    vector of them that the call gives, too.
    """
    shared = planner.shared
    own = frozenset(op.attrs["symbols"])
    inputs = [planner.source_slot(t) for t in op.inputs]
    for t in op.outputs:
        if depends_on(t, set(own)):
            planner.where[t] = planner.add_slot("grown", t)
    outputs = [planner.slot(t) for t in op.outputs]
    given, results = ([t.sizes or () for t in tensors] for tensors in (op.inputs, op.outputs))
    shared.hosts.append(HostCall(op, given, results, own))
    planner.steps.append(Host(len(shared.hosts) - 1, inputs, outputs))
    if own:
        sizes = outputs[-1]
        segment = shared.segment(list(op.attrs["symbols"]))
        planner.steps.append(Bind(segment, [(sizes, k) for k in range(len(own))]))
