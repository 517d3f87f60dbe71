"""What arrays were in a body, before operations that have written rows to them or exchanged them.

A :class:`Step` is such an operation: a write of a row, a loop or a branch in which there are some.
Arrays that change places in a loop or a branch are stepped over together, as only a run tells which
of them is which.  :class:`Undo` goes over steps in a region that goes back.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from graphc import dtypes
from graphc.build import constant, create, single
from graphc.graph import Operation, Region, Tensor, get_default_graph
from graphc.ops.control_build import (
    as_rows,
    make_owner,
    own_operands,
    parameter,
    region,
    save_output,
)
from graphc.ops.control_kept import Kept, row
from graphc.ops.shaping_slice import getitem

WRITES = ("PutRow", "PutRowGrowing")


def _call(name: str, *inputs: object, **attrs: object) -> Tensor:
    return single(create(name, inputs, attrs))


# --- steps ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Step:
    """An operation that has made arrays of as many others.

    Attributes:
      op: what has made them.
      after: the arrays that it gives.
      before: what they were made of, in any order where there are several.
      inner: the steps in its bodies, of a loop in a turn of it.
    """

    op: Operation
    after: tuple[Tensor, ...]
    before: tuple[Tensor, ...]
    inner: tuple[Group, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether a row has been written."""
        return self.op.type in WRITES or any(group.writes for group in self.inner)

    @property
    def changes(self) -> bool:
        """Whether the arrays are any other than they were."""
        return len(self.after) > 1 or self.writes


@dataclass(frozen=True, eq=False)
class Group:
    """Results of a body that belong together: their arrays change places, or have been one.

    Attributes:
      numbers: which results, in order.
      newest: these results.
      steps: what has made them, the last one first.
      oldest: the arrays before all steps, in any order; fewer where results were one array.
    """

    numbers: tuple[int, ...]
    newest: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    oldest: tuple[Tensor, ...]

    @property
    def writes(self) -> bool:
        """Whether a row has been written."""
        return any(step.writes for step in self.steps)

    @property
    def tensors(self) -> set[Tensor]:
        """All values of its arrays in the body."""
        return {*self.newest, *(t for s in self.steps for t in (*s.after, *s.before))}


class _Sets:
    """Disjoint sets of numbers."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, k: int) -> int:
        parent = self._parent
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    def unite(self, numbers: Iterable[int]) -> None:
        first, *rest = (self.root(k) for k in numbers)
        for k in rest:
            self._parent[self.root(k)] = self.root(first)


class _Trace:
    """The results of a body, followed back to what no step has made."""

    def __init__(self, body: Region) -> None:
        self.body = body
        self.sets = _Sets(len(body.results))
        #: For a tensor that was come by, a result whose array it was.
        self.lines: dict[Tensor, int] = {}
        self.steps: list[Step] = []
        self.oldest: list[Tensor] = []
        self._left: list[tuple[int, Operation]] = []
        self._found: set[Operation] = set()
        for k, t in enumerate(body.results):
            self._reach(t, k)
        while self._left:
            # All that reads what an operation gives comes after it.
            self._over(heapq.heappop(self._left)[1])

    def _reach(self, tensor: Tensor, line: int) -> None:
        if tensor in self.lines:
            self.sets.unite((self.lines[tensor], line))
            return
        self.lines[tensor] = line
        if tensor.op not in self._found:
            self._found.add(tensor.op)
            heapq.heappush(self._left, (-tensor.op.serial, tensor.op))

    def _over(self, op: Operation) -> None:
        made: set[Tensor] = set()
        for step in _steps(op) if op.region is self.body else ():
            if all(t in self.lines for t in step.after):
                lines = [self.lines[t] for t in step.after]
                self.sets.unite(lines)
                self.steps.append(step)
                for t in step.before:
                    self._reach(t, lines[0])
                made.update(step.after)
        self.oldest += [t for t in op.outputs if t in self.lines and t not in made]

    def groups(self) -> list[Group]:
        """The results that belong together."""
        root, lines = self.sets.root, self.lines
        numbers: dict[int, list[int]] = {}
        for k in range(len(self.body.results)):
            numbers.setdefault(root(k), []).append(k)
        steps: dict[int, list[Step]] = {k: [] for k in numbers}
        for step in self.steps:
            steps[root(lines[step.after[0]])].append(step)
        oldest: dict[int, list[Tensor]] = {k: [] for k in numbers}
        for t in self.oldest:
            oldest[root(lines[t])].append(t)
        results = self.body.results
        return [
            Group(tuple(n), tuple(results[i] for i in n), tuple(steps[k]), tuple(oldest[k]))
            for k, n in numbers.items()
        ]


def turn_groups(body: Region) -> list[Group]:
    """The loop variables of which a turn makes what they are after it by steps."""
    trace = _Trace(body)
    numbers = {t: k for k, t in enumerate(body.params)}
    for t in trace.oldest:
        if t in numbers:
            # What a turn leaves in one variable was in another one before.
            trace.sets.unite((trace.lines[t], numbers[t]))
    groups = trace.groups()
    return [g for g in groups if {body.params[k] for k in g.numbers} == set(g.oldest)]


def _choice_groups(bodies: Sequence[Region]) -> list[tuple[Group, ...]]:
    """The results of branches that are the same arrays around, whatever branch runs."""
    traces = [_Trace(body) for body in bodies]
    common = _Sets(len(bodies[0].results))
    bases: dict[Tensor, int] = {}
    for trace in traces:
        for k in range(len(trace.body.results)):
            common.unite((k, trace.sets.root(k)))
        for t in trace.oldest:
            common.unite((bases.setdefault(t, trace.lines[t]), trace.lines[t]))
    found = []
    for trace in traces:
        trace.sets = common
    for groups in zip(*(trace.groups() for trace in traces), strict=True):
        oldest = set(groups[0].oldest)
        same = all(set(g.oldest) == oldest for g in groups)
        around = not any(b.encloses(t.op.region) for b in bodies for t in oldest)
        if same and around and len(oldest) == len(groups[0].numbers):
            found.append(groups)
    return found


class _KnownGroups(dict[Operation, list[tuple[Group, ...]]]):
    """The groups in the bodies of operations, which never change."""


def _inner_groups(op: Operation) -> list[tuple[Group, ...]]:
    known = op.graph.scratch.setdefault(_KnownGroups, _KnownGroups())
    assert isinstance(known, _KnownGroups)
    found = known.get(op)
    if found is None:
        bodies = op.attrs["bodies"]
        if op.type == "While":
            found = [(g,) for g in turn_groups(bodies[1])]
        else:
            found = _choice_groups(bodies)
        known[op] = found
    return found


def _steps(op: Operation) -> list[Step]:
    """The steps that an operation is, for different arrays."""
    if op.type in WRITES or (op.type == "Identity" and not op.control_inputs):
        return [Step(op, (op.outputs[0],), (op.inputs[0],))]
    found = []
    for inner in _inner_groups(op) if op.type in ("While", "Case") else ():
        numbers = inner[0].numbers
        after = tuple(op.outputs[k] for k in numbers)
        before = tuple(op.inputs[k] for k in numbers) if op.type == "While" else inner[0].oldest
        found.append(Step(op, after, before, inner))
    return found


def written(body: Region) -> set[int]:
    """The results that a body has made by writes of single rows to another array."""
    return {k for g in _Trace(body).groups() if g.writes for k in g.numbers}


# --- steps back -----------------------------------------------------------------------------------


class Undo:
    """Gives arrays as they were before steps, in a region that goes back.

    Every write of a row hands out the row as it was before, and its number.

    Args:
      home: the region, which recalls a body.
      save: gives, in ``home``, the value that a tensor of the body had.
    """

    def __init__(self, home: Region, save: Callable[[Tensor], Tensor]) -> None:
        assert home.recalled is not None
        self._home = home
        self._body = home.recalled
        self._kept = Kept(home, save)
        #: The steps in whose bodies the current one is, the inner last.
        self._around: list[Step] = []
        #: The numbers of the turns to undo, of loops.
        self._turns: dict[Operation, Tensor] = {}
        #: By the write, one more than the number of the row, and the row as it was.
        self._replaced: dict[Operation, tuple[Tensor, Tensor]] = {}
        #: By the row as it was, all such rows as one vector, and where in it each begins.
        self._parts: dict[Tensor, tuple[Tensor, Tensor]] = {}

    def over(self, steps: Iterable[Step], arrays: dict[Tensor, Tensor]) -> None:
        """Go back over steps, the last one first.

        Args:
          steps: some of the body, or in a loop or a branch of it that is gone through now.
          arrays: what arrays after the steps are in the current region; those before are added.
        """
        for step in steps:
            now = [arrays[t] for t in step.after]
            if not step.changes:
                before = now
            elif step.op.type in WRITES:
                before = [self._put_back(step.op, now[0])]
            elif step.op.type == "While":
                before = self._turns_undone(step, now)
            elif len(now) == 1:
                before = [self._branches_undone(step, now[0])]
            else:
                before = self._choice_undone(step, now)
            arrays.update(zip(step.before, before, strict=True))

    def _put_back(self, write: Operation, array: Tensor) -> Tensor:
        """An array before a row of it was written."""
        place, before = self._row_replaced(write)
        # Neither is computed again: that may take the array itself.
        index = _call("Sub", self._value(place), constant(1, dtypes.int64))
        if any(len(step.after) > 1 and step.op.type == "While" for step in self._around):
            return _call("PutRow", array, index, self._part(before, array))
        return _call("PutRow", array, index, self._value(before))

    def _row_replaced(self, write: Operation) -> tuple[Tensor, Tensor]:
        """One more than the number of the row that was written; the row as it was before.

        Where another branch has run both are zeros, which stands for no row.
        """
        found = self._replaced.get(write)
        if found is None:
            array, index = write.inputs[:2]
            with get_default_graph().within(write.region):
                found = place_of(index), _call("TakeRow", array, index, checked=False)
            self._replaced[write] = found
        return found

    def _turns_undone(self, step: Step, now: Sequence[Tensor]) -> list[Tensor]:
        """Arrays before a loop: one that begins with its last turn."""
        (group,) = step.inner
        loop, graph = step.op, get_default_graph()
        params = [loop.attrs["bodies"][1].params[k] for k in group.numbers]
        turns = self._value(loop.outputs[own_operands(loop)])
        with region("rows are left") as more:
            turn = parameter(more, turns.type, "Parameter")
            for t in params:
                parameter(more, t.type, "Parameter")
            more.results = [_call("Greater", turn, constant(0))]
        with region("rows put back") as back:
            turn = parameter(back, turns.type, "Parameter")
            arrays = {
                t: parameter(back, p.type, "Parameter")
                for t, p in zip(group.newest, params, strict=True)
            }
            self._turns[loop] = turn = _call("Sub", turn, constant(1))
            self._inside(step, group, arrays)
            back.results = [turn, *(arrays[t] for t in params)]
        made = make_owner("While", (more, back), [turns, *now], graph.unique_name("While"))
        return list(made.outputs[1 : 1 + len(now)])

    def _branches_undone(self, step: Step, array: Tensor) -> Tensor:
        """An array before a choice: those branches that have not run put no rows back."""
        for group in step.inner:
            arrays = {group.newest[0]: array}
            self._inside(step, group, arrays)
            array = arrays[group.oldest[0]]
        return array

    def _choice_undone(self, step: Step, now: Sequence[Tensor]) -> list[Tensor]:
        """Arrays before a choice between branches that exchange them: the same choice."""
        bodies = []
        for group in step.inner:
            with region("rows put back") as back:
                arrays = dict(zip(group.newest, now, strict=True))
                self._inside(step, group, arrays)
                back.results = [arrays[t] for t in step.before]
            bodies.append(back)
        selector = self._value(step.op.inputs[0])
        name = get_default_graph().unique_name("Case")
        return list(make_owner("Case", bodies, [selector], name).outputs)

    def _inside(self, step: Step, group: Group, arrays: dict[Tensor, Tensor]) -> None:
        """Go back over the steps in a body of a step."""
        self._around.append(step)
        self.over(group.steps, arrays)
        self._around.pop()

    def _value(self, tensor: Tensor) -> Tensor:
        """The value that a tensor had in the turns that are undone now."""
        if not self._body.encloses(tensor.op.region):
            return tensor
        inside = self._steps_around(tensor)
        # Rows are listed here of single arrays only: see _put_back.
        arrays = {s.op: s.before[0] for s in inside}

        def rows(stack: Tensor, loop: Operation) -> Tensor:
            scalars = tensor.sizes == ()
            return as_rows(stack) if scalars else _call("AsRows", stack, arrays[loop])

        return self._kept.value(tensor, [s.op for s in inside], self._turns, rows)

    def _part(self, before: Tensor, array: Tensor) -> Tensor:
        """The value that a row of one of several arrays had, which is of the size of its rows.

        As the rows of the others may be of another size, all are joined in one vector.
        """
        owners = [s.op for s in self._steps_around(before)]
        found = self._parts.get(before)
        if found is None:
            handed, loop = before, 0
            while owners[loop].type != "While":
                handed, loop = save_output(owners[loop], handed), loop + 1
            with get_default_graph().within(handed.op.region):
                elements = _call("Reshape", handed, constant([-1]))
                count = _call("Size", handed, out_type=dtypes.int64)
            kept, outside = self._kept, owners[loop:]
            values = kept.listed(elements, outside, lambda stack, _: as_rows(stack), joined=True)
            counts = kept.listed(count, outside, lambda stack, _: as_rows(stack))
            with get_default_graph().within(self._home):
                starts = _call("Cumsum", counts, constant(0), exclusive=True)
            found = self._parts[before] = values, starts
        values, starts = found
        start = row(starts, self._kept.place(owners, self._turns))
        sizes = getitem(_call("Shape", array, out_type=dtypes.int64), slice(1, None))
        count = _call("Prod", sizes, constant(0))
        begin, size = (_call("ExpandDims", t, constant(0)) for t in (start, count))
        return _call("Reshape", _call("Slice", values, begin, size), sizes)

    def _steps_around(self, tensor: Tensor) -> list[Step]:
        """The steps in whose bodies a tensor is, the inner first."""
        region_ = tensor.op.region
        return [
            s
            for s in reversed(self._around)
            if any(b.encloses(region_) for b in s.op.attrs["bodies"])
        ]


def place_of(index: Tensor) -> Tensor:
    """One more than the number of a row."""
    if index.dtype.base_dtype is not dtypes.int64:
        index = _call("Cast", index, DstT=dtypes.int64)
    return _call("AddV2", index, constant(1, dtypes.int64))
