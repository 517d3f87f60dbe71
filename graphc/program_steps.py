"""What a program consists of: slots, steps, segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from graphc.dims import DimLike, Symbol, symbols_of
from graphc.dtypes import DType
from graphc.function import Function, Guard, Input
from graphc.loop.ir import Kernel
from graphc.lower import Lowered, Site
from graphc.passes.plan import Plan

SlotKind = Literal["input", "output", "variable", "const", "temp", "grown"]


@dataclass
class Slot:
    """One buffer of a program.

    ``size`` counts elements.  ``source``: the Input, the constant array, or None; ``block`` is
    the arena block of a temporary.  A ``grown`` slot has memory of its own, as much as it needs.
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
    """Copy one slot's elements to another's."""

    target: int
    source: int
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
class Append:
    """Put a slot's elements behind those of ``count`` earlier turns in a grown slot."""

    target: int
    source: int
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


Step = Call | Copy | Bind | Grow | Extend | Append | Loop | Branch | Publish


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

    @property
    def loops(self) -> list[Kernel]:
        """Every kernel, the fast versions among them."""
        return [k for low in self.kernels for k in (low.kernel, low.fast) if k is not None]

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
        known = {s: g.number for g in self.segments for s in g.symbols}
        return max((known[s] for size in sizes for s in symbols_of(size)), default=0)


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
    if isinstance(step, Append):
        return [step.source, step.target, step.count]
    if isinstance(step, Loop):
        return [step.flag, step.turns]
    if isinstance(step, Branch):
        return [step.selector]
    return [step.source, step.output]
