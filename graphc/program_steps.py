"""What a program consists of: slots, steps, segments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from graphc.dims import DimLike, Symbol, symbols_of
from graphc.dtypes import DType
from graphc.function import Function, Guard, Input
from graphc.graph import Operation
from graphc.loop.ir import Kernel
from graphc.lower import Lowered, Site
from graphc.ops.host import check_shape
from graphc.passes.plan import Plan

SlotKind = Literal["input", "output", "variable", "const", "temp", "grown", "row"]


@dataclass
class Slot:
    """One buffer of a program.

    ``size`` counts elements.  ``source``: the Input, the constant array, or None; ``block`` is
    the arena block of a temporary.  A ``grown`` slot has memory of its own, as much as it needs.
    A ``row`` is a turn's part of a grown slot, ``source``: (that slot, the slot that counts turns).
    """

    number: int
    kind: SlotKind
    dtype: DType
    size: DimLike
    name: str
    source: Any = None
    block: int = -1


@dataclass
class Call:
    """Run a kernel over slots."""

    lowered: Lowered
    slots: list[int]


@dataclass
class Copy:
    """Copy so many elements of one slot to another: one that grows may have more than it says."""

    target: int
    source: int
    size: DimLike
    commit: bool = False


@dataclass
class Bind:
    """Learn the sizes of a segment: each from a size that is known, or from a slot's element."""

    segment: int
    sources: Sequence[DimLike | tuple[int, int]]


@dataclass
class Grow:
    """Give a grown slot room for so many elements; what it holds may be lost."""

    slot: int
    size: DimLike


@dataclass
class Extend:
    """Make a grown slot longer; what it holds stays, and zeros come behind it."""

    slot: int
    before: DimLike
    size: DimLike


@dataclass
class Rotate:
    """Give each of these grown slots the memory of the next one, and the last that of the first."""

    slots: list[int]


@dataclass
class Append:
    """Put ``size`` elements behind those of ``count`` earlier turns in a grown slot."""

    target: int
    source: int
    size: DimLike
    count: int


@dataclass
class Reserve:
    """Make room in a grown slot for what the turn writes to ``row``."""

    target: int
    row: int
    count: int


@dataclass
class Loop:
    """Run ``test``, and while the bool in ``flag`` is true, ``body`` and ``test`` again.

    ``turns`` is an int32 slot that counts; ``quick`` says that a turn takes so little time that
    looking for an interruption in every one would be most of it.
    """

    test: list[Step]
    flag: int
    body: list[Step]
    turns: int
    quick: bool = False


@dataclass
class Branch:
    """Run one of ``cases``: by a bool (the first if true) or an int32 (the last for the others)."""

    selector: int
    cases: list[list[Step]]


@dataclass
class Publish:
    """Let an output whose sizes a run decides be what another slot holds."""

    output: int
    source: int


@dataclass
class Host:
    """Let Python compute ``outputs`` from ``inputs``: host step ``number`` of the program."""

    number: int
    inputs: list[int]
    outputs: list[int]


Step = (
    Call | Copy | Bind | Grow | Extend | Rotate | Append | Reserve | Loop | Branch | Publish | Host
)


@dataclass(frozen=True, eq=False)
class HostCall:
    """What a host step computes.

    Attributes:
      op: the Host operation of the function.
      inputs, outputs: their shapes; of an output, sizes of ``own`` are what the call decides.
    """

    op: Operation
    inputs: list[tuple[DimLike, ...]]
    outputs: list[tuple[DimLike, ...]]
    own: frozenset[Symbol]

    def fixed(self) -> list[list[DimLike | None]]:
        """The sizes of the outputs; None for what the call decides."""
        return [
            [s if symbols_of(s).isdisjoint(self.own) else None for s in sizes]
            for sizes in self.outputs
        ]


    def stated(self) -> list[DimLike]:
        """The sizes that the call is told: of the operands, then of the results as far as known."""
        found = [s for sizes in self.inputs for s in sizes]
        return found + [s for sizes in self.fixed() for s in sizes if s is not None]


def check_fixed(call: HostCall, results: Sequence[Any], value: Callable[[DimLike], int]) -> None:
    """Refuse results that are not as large as the program takes them to be.

    Args:
      call: the host step.
      results: arrays, or whatever has a shape.
      value: the value of a size in this run.
    """
    source = call.op.attrs["source"]
    for k, (sizes, result) in enumerate(zip(call.fixed(), results, strict=True)):
        wanted = [None if s is None else value(s) for s in sizes]
        check_shape(source, k, result.shape, wanted)


@dataclass
class Segment:
    """Sizes that a run learns together: those of the inputs (number 0), or at a :class:`Bind`.

    ``guards`` are the assumptions about them, checked when they are bound.
    """

    number: int
    symbols: list[Symbol]
    guards: list[Guard] = field(default_factory=list)


@dataclass
class Result:
    """A fetch: where it is and its shape; ``late`` if a run decides the shape."""

    slot: int
    dtype: DType
    sizes: tuple[DimLike, ...]
    late: bool = False


@dataclass
class Program:
    """What the runtime prints and runs; see :mod:`graphc.program`."""

    slots: list[Slot]
    steps: list[Step]
    results: list[Result]
    inputs: list[Input]
    segments: list[Segment]
    blocks: list[tuple[DimLike, int]]
    sites: list[Site]
    updated: list[str]
    plan: Plan
    function: Function
    work: DimLike = 0
    kernels: list[Lowered] = field(default_factory=list)
    hints: dict[Symbol, int] = field(default_factory=dict)
    plans: list[Plan] = field(default_factory=list)
    hosts: list[HostCall] = field(default_factory=list)

    @property
    def loops(self) -> list[Kernel]:
        """Every kernel once, the fast versions among them."""
        found = (k for low in self.kernels for k in (low.kernel, low.fast) if k is not None)
        return list(dict.fromkeys(found))

    @property
    def symbols(self) -> list[Symbol]:
        """The sizes that the inputs bind, in a fixed order."""
        return self.segments[0].symbols

    @property
    def guards(self) -> list[Guard]:
        """What is assumed of the sizes of the inputs."""
        return self.segments[0].guards

    @property
    def all_symbols(self) -> list[Symbol]:
        """Every size, in the order of the segments."""
        return [s for segment in self.segments for s in segment.symbols]

    def segment_of(self, *sizes: DimLike) -> int:
        """The segment from which on sizes are known."""
        known = self._segment_of_symbol
        return max((known[s] for size in sizes for s in symbols_of(size)), default=0)

    @functools.cached_property
    def _segment_of_symbol(self) -> dict[Symbol, int]:
        return {s: g.number for g in self.segments for s in g.symbols}


def walk(steps: Sequence[Step]) -> Iterator[Step]:
    """Every step, those of loops and branches after their owner, in the order of the text."""
    for step in steps:
        yield step
        if isinstance(step, Loop):
            yield from walk(step.test)
            yield from walk(step.body)
        elif isinstance(step, Branch):
            for case in step.cases:
                yield from walk(case)


def slots_of(step: Step) -> list[int]:
    """The slots that a step itself reads or writes."""
    if isinstance(step, Call):
        return step.slots
    if isinstance(step, Copy):
        return [step.source, step.target]
    if isinstance(step, Bind):
        return [s[0] for s in step.sources if isinstance(s, tuple)]
    if isinstance(step, (Grow, Extend)):
        return [step.slot]
    if isinstance(step, Rotate):
        return step.slots
    if isinstance(step, Reserve):
        return [step.target, step.count]
    if isinstance(step, Append):
        return [step.source, step.target, step.count]
    if isinstance(step, Loop):
        return [step.flag, step.turns]
    if isinstance(step, Branch):
        return [step.selector]
    if isinstance(step, Host):
        return [*step.inputs, *step.outputs]
    return [step.source, step.output]
