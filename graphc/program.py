"""Program: kernel calls, copies, loops and branches over planned buffers.

Planning decides where every stored tensor lives.

* A fetch is written straight into the array that the user gets, if some kernel computes it.
* A variable's new value is written in place, into the variable's own buffer, if nobody needs the
  old value any more at that point and nothing that can fail comes after; otherwise it is computed
  aside and copied at the end, so that a run that fails leaves every variable as it was.
* Everything else lives in an arena, blocks of which are used again as soon as their tensor is
  dead.

Sizes that the inputs do not tell are learnt in the course of a run, at a :class:`Bind`: that begins
a *segment* of its own, with memory of its own, whose size is known from there on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import dims
from graphc.dims import DimLike, Symbol
from graphc.function import Function, Late
from graphc.graph import Tensor
from graphc.lower import Lowered, Lowering, Site, lower_group
from graphc.passes.fuse import Fuser
from graphc.passes.pipeline import verifying
from graphc.passes.plan import Plan, is_literal
from graphc.program_arena import plan_arena
from graphc.program_control import plan_control
from graphc.program_steps import (
    Append,
    Bind,
    Branch,
    Call,
    Copy,
    Grow,
    Loop,
    Program,
    Publish,
    Result,
    Segment,
    Slot,
    SlotKind,
    Step,
    walk,
)
from graphc.program_text import format_program, program_key
from graphc.program_updates import Updates

__all__ = [
    "Append", "Bind", "Branch", "Call", "Copy", "Grow", "Loop", "Program", "Publish", "Result",
    "Segment", "Slot", "Step", "build_program", "format_program", "program_key", "walk",
]  # fmt: skip

LOOP_WORK = 1 << 40
"""What a loop counts for as work: nobody knows how long it takes."""


class Shared:
    """What the functions of one program share: slots, segments, kernels."""

    def __init__(self, target: Any, hints: dict[Symbol, int]) -> None:
        self.target = target
        self.hints = hints
        self.slots: list[Slot] = []
        self.segments: list[Segment] = []
        self.sites: list[Site] = []
        self.kernels: list[Lowered] = []
        self.plans: list[Plan] = []
        self.work: DimLike = 0

    def segment(self, symbols: Sequence[Symbol]) -> int:
        """A new segment that binds these sizes."""
        self.segments.append(Segment(len(self.segments), list(symbols)))
        return len(self.segments) - 1

    def add_slot(self, kind: SlotKind, tensor: Tensor, source: Any = None) -> int:
        """A new slot for a storage root."""
        assert tensor.sizes is not None, tensor
        size = dims.product(tensor.sizes)
        slot = Slot(len(self.slots), kind, tensor.dtype.base_dtype, size, tensor.op.name, source)
        self.slots.append(slot)
        return slot.number


class FunctionPlanner:
    """Plans one function, which may be a body: its slots and its steps.

    Attributes:
      where: the slot of each storage root.
    """

    def __init__(self, fn: Function, shared: Shared) -> None:
        self.fn = fn
        self.shared = shared
        fuser = Fuser(fn)
        self.plan = fuser.run()
        shared.plans.append(self.plan)
        self.updates = Updates(fn, fuser, self.plan)
        self.lowering = Lowering(
            self.plan, shared.target, sites=shared.sites, hints=shared.hints, verify=verifying(),
            origin=fn.origin,
        )  # fmt: skip
        self.where: dict[Tensor, int] = {}
        self.steps: list[Step] = []
        self.plan.groups = self.updates.ordered()
        self.lowering.inplace = self.updates.inplace

    def add_slot(self, kind: SlotKind, tensor: Tensor, source: Any = None) -> int:
        """A new slot for a storage root."""
        return self.shared.add_slot(kind, tensor, source)

    def slot(self, tensor: Tensor) -> int:
        """The slot of a tensor's storage, made when it is first needed."""
        root = self.lowering.storage(tensor)
        found = self.where.get(root)
        if found is None:
            if root.op.type == "Const":
                found = self.add_slot("const", root, root.op.attrs["value"])
            else:
                found = self.add_slot("temp", root)
            self.where[root] = found
        return found

    def source_slot(self, tensor: Tensor) -> int:
        """The slot to copy a tensor from; literals get one too."""
        root = self.plan.root(tensor)
        if is_literal(root) and root not in self.where:
            self.where[root] = self.add_slot("const", root, root.op.attrs["value"])
        return self.slot(tensor)

    def plan_groups(self) -> None:
        """The steps of all groups, in order."""
        shared = self.shared
        late: dict[Tensor, list[Late]] = {}
        for s in self.fn.late:
            late.setdefault(self.plan.root(s.tensor), []).append(s)
        for root, sizes in late.items():
            if root.op.type in ("Placeholder", "Const"):
                self.bind(root, sizes)
        for group in self.plan.groups:
            op = group.template
            if op is not None and "bodies" in op.attrs:
                plan_control(self, op, FunctionPlanner)
            else:
                low = lower_group(self.lowering, group, f"k{len(shared.kernels)}")
                shared.kernels.append(low)
                if self.lowering.verify:
                    _ = low.kernel, low.fast
                shared.work = shared.work + low.work
                self.steps.append(Call(low, [self.slot(t) for t in low.buffers]))
            for t in group.outputs:
                root = self.plan.root(t)
                if root in late:
                    self.bind(root, late[root])

    def bind(self, root: Tensor, sizes: Sequence[Late]) -> None:
        """Learn sizes from a tensor that has just been computed."""
        slot = self.source_slot(root)
        segment = self.shared.segment([s.symbol for s in sizes])
        self.steps.append(Bind(segment, [(slot, s.element) for s in sizes]))


class Planner(FunctionPlanner):
    """Builds the program of one function."""

    def __init__(self, fn: Function, target: Any, hints: dict[Symbol, int]) -> None:
        super().__init__(fn, Shared(target, hints))
        self.variables: dict[str, int] = {}

    def boundary_slots(self) -> None:
        """Slots of the inputs."""
        for i in self.fn.inputs:
            kind: SlotKind = "input" if i.kind == "feed" else "variable"
            number = self.add_slot(kind, i.tensor, i)
            self.where[i.tensor] = number
            if i.kind == "variable":
                self.variables[i.key] = number

    def result_slots(self) -> list[tuple[int, Tensor, bool]]:
        """For each fetch its slot, its tensor and whether a kernel writes it there directly."""
        found = []
        computed = {t for g in self.plan.groups for t in g.outputs}
        bound = set(self.shared.segments[0].symbols)
        for o in self.fn.outputs:
            if o.kind in ("update", "check"):
                continue
            root = self.lowering.storage(o.tensor)
            known = all(dims.symbols_of(s) <= bound for s in o.tensor.sizes or ())
            direct = root in computed and root not in self.where and known
            number = self.add_slot("output", o.tensor)
            if direct:
                self.where[root] = number
            found.append((number, o.tensor, direct))
        return found

    def build(self) -> Program:
        """The program."""
        shared = self.shared
        shared.segment(self.symbols())
        self.boundary_slots()
        fetched = self.result_slots()
        self.plan_groups()
        results = []
        bound = set(shared.segments[0].symbols)
        for number, tensor, direct in fetched:
            assert tensor.sizes is not None
            late = any(not dims.symbols_of(s) <= bound for s in tensor.sizes)
            if late:
                self.steps.append(Publish(number, self.source_slot(tensor)))
            elif not direct:
                self.steps.append(Copy(number, self.source_slot(tensor)))
            results.append(Result(number, tensor.dtype.base_dtype, tensor.sizes, late))
        self.commit()
        self.guard()
        blocks = plan_arena(self.steps, shared.slots)
        return Program(
            shared.slots, self.steps, results, self.fn.inputs, shared.segments, blocks,
            shared.sites, [o.key for o in self.fn.outputs if o.kind == "update"], self.plan,
            self.fn, self.work(), shared.kernels, shared.hints, shared.plans,
        )  # fmt: skip

    def work(self) -> DimLike:
        """Roughly the bytes and operations of a run."""
        bound = set(self.shared.segments[0].symbols)
        work = self.shared.work
        unknown = not dims.symbols_of(work) <= bound
        if unknown or any(isinstance(s, Loop) for s in walk(self.steps)):
            return LOOP_WORK
        return work

    def guard(self) -> None:
        """Give every assumption to the segment from which on it can be checked."""
        place = {s: g.number for g in self.shared.segments for s in g.symbols}
        for guard in self.fn.guards:
            symbols = dims.symbols_of(guard.left) | dims.symbols_of(guard.right)
            # Sizes that nothing needs any more are never bound.
            if symbols <= place.keys():
                number = max((place[s] for s in symbols), default=0)
                self.shared.segments[number].guards.append(guard)

    def commit(self) -> None:
        """Copy the new values that were computed aside into their variables, all at the end."""
        updates = [
            (self.variables[o.key], o.tensor) for o in self.fn.outputs if o.kind == "update"
        ]
        commit(self, updates)

    def symbols(self) -> list[Symbol]:
        """The symbols that the inputs bind, in a fixed order."""
        found: dict[Symbol, None] = {}
        for i in self.fn.inputs:
            for s in i.raw:
                found.update(dict.fromkeys(sorted(dims.symbols_of(s), key=lambda x: x.name)))
        return list(found)


def commit(planner: FunctionPlanner, updates: Sequence[tuple[int, Tensor]]) -> None:
    """Copies that give slots their new values, as if all at once."""
    copies = []
    for target, tensor in updates:
        source = planner.source_slot(tensor)
        if target != source:
            copies.append((target, source, tensor))
    targets = {t for t, _, _ in copies}
    staged = []
    for target, source, tensor in copies:
        if source in targets:
            aside = planner.add_slot("temp", tensor)
            planner.steps.append(Copy(aside, source))
            source = aside
        staged.append(Copy(target, source, commit=True))
    planner.steps += staged


def build_program(
    fn: Function, target: Any, hints: dict[Symbol, int] | None = None
) -> Program:
    """Fuse, lower and plan a function; ``hints`` are the sizes that its inputs have at first."""
    return Planner(fn, target, hints or {}).build()
