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

from dataclasses import replace
from typing import Any

from graphc import dims
from graphc.dims import DimLike, Symbol
from graphc.function import Function
from graphc.graph import Tensor
from graphc.loop.cpu_stream import STREAM_BYTES
from graphc.lower import Lowered
from graphc.program_arena import plan_arena
from graphc.program_control import ControlPlanner, has_own_memory
from graphc.program_function import Shared, assign, elements
from graphc.program_steps import (
    Append,
    Bind,
    Branch,
    Call,
    Copy,
    Extend,
    Grow,
    Host,
    HostCall,
    Loop,
    Program,
    Publish,
    Reserve,
    Result,
    Rotate,
    Segment,
    Slot,
    SlotKind,
    Step,
    slots_of,
    walk,
)
from graphc.program_text import format_program, program_key

__all__ = [
    "Append", "Bind", "Branch", "Call", "Copy", "Extend", "Grow", "Host", "HostCall", "Loop",
    "Program", "Publish", "Reserve", "Result", "Rotate", "Segment", "Slot", "Step",
    "build_program", "format_program", "program_key", "walk",
]  # fmt: skip

LOOP_WORK = 1 << 40
"""What a loop counts for as work: nobody knows how long it takes."""


class Planner(ControlPlanner):
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
            free = root in computed and root not in self.where
            direct = free and known and not has_own_memory(root)
            number = self.add_slot("output", o.tensor)
            if direct:
                self.where[root] = number
            found.append((number, o.tensor, direct))
        return found

    def stream_results(self) -> None:
        """Let large results that no step reads again be written past the caches."""
        written: dict[int, list[tuple[Lowered, Tensor]]] = {}
        read: set[int] = set()
        for step in walk(self.steps):
            if not isinstance(step, Call):
                read.update(slots_of(step))
                continue
            for tensor, slot in zip(step.lowered.buffers, step.slots, strict=True):
                if tensor in step.lowered.writes:
                    written.setdefault(slot, []).append((step.lowered, tensor))
                else:
                    read.add(slot)
        for slot, places in written.items():
            found = self.shared.slots[slot]
            size = dims.substitute(found.size, self.shared.hints)
            large = isinstance(size, int) and size * found.dtype.size >= STREAM_BYTES
            if found.kind == "output" and large and slot not in read and len(places) == 1:
                low, tensor = places[0]
                self.shared.leave_twins(low)
                low.stream(tensor)

    def build(self) -> Program:
        """The program."""
        shared = self.shared
        shared.segment(self.symbols())
        self.boundary_slots()
        fetched = self.result_slots()
        self.plan_groups()
        self.stream_results()
        results = []
        bound = set(shared.segments[0].symbols)
        for number, tensor, direct in fetched:
            assert tensor.sizes is not None
            late = any(not dims.symbols_of(s) <= bound for s in tensor.sizes)
            if late:
                self.steps.append(Publish(number, self.source_slot(tensor)))
            elif not direct:
                self.steps.append(Copy(number, self.source_slot(tensor), elements(tensor)))
            results.append(Result(number, tensor.dtype.base_dtype, tensor.sizes, late))
        self.commit()
        self.guard()
        blocks = plan_arena(self.steps, shared.slots)
        return Program(
            shared.slots, self.steps, results, self.fn.inputs, shared.segments, blocks,
            shared.sites, [o.key for o in self.fn.outputs if o.kind == "update"], self.plan,
            self.fn, self.work(), shared.kernels, shared.hints, shared.plans, shared.hosts,
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
        learnt = getattr(self.fn.env, "learnt", {})
        for stated in self.fn.guards:
            left, right = (dims.substitute(s, learnt) for s in (stated.left, stated.right))
            guard = replace(stated, left=left, right=right)
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
        assign(self, updates, commit=True)

    def symbols(self) -> list[Symbol]:
        """The symbols that the inputs bind, in a fixed order."""
        found: dict[Symbol, None] = {}
        for i in self.fn.inputs:
            for s in i.raw:
                found.update(dict.fromkeys(sorted(dims.symbols_of(s), key=lambda x: x.name)))
        return list(found)


def build_program(
    fn: Function, target: Any, hints: dict[Symbol, int] | None = None
) -> Program:
    """Fuse, lower and plan a function; ``hints`` are the sizes that its inputs have at first."""
    return Planner(fn, target, hints or {}).build()
