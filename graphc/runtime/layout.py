"""The dims table of a program: sizes that its native code looks up, and the kernels that fill it.

Every segment of the program has a kernel of its own, which runs when the segment's sizes are bound.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from graphc.dims import Dim, DimLike, Symbol, lower_bound, symbols_of
from graphc.dtypes import float64
from graphc.loop import ir
from graphc.loop.ir import Buffer, Expr, Kernel, Store, Var
from graphc.program import Append, Bind, Call, Copy, Extend, Grow, Program, Reserve, Step, walk

ALIGN = 64
WORK, BROKEN, ARENA = 0, 1, 2
"""The first entries: the work estimate, whether a guard is broken, the arena's bytes."""

MOST_ELEMENTS = 2.0**56
"""More than any memory has."""

GUARD, NEGATIVE = 1, 2
"""What is wrong with a segment's sizes: a guard is broken, a buffer's size is negative."""


@dataclass
class Layout:
    """Where things stand in the dims table.

    Attributes:
      values: the segment of each entry, and the expression that fills it.
      results: the first size of each result.
      hosts: the first size of each host step: those that it is told of, in order.
      blocks: the offset of each arena block.
      faults, arenas: of each segment but the first, whether its sizes are wrong, and its memory.
      launches: of each parallel kernel, by its name and the symbols of its sizes, the extent,
        then the grain.
      bytes: of each step that moves bytes, how many.
      rows: of each slot that is a turn's part of another one, its bytes.
      sources: of each Bind, the sizes that it takes (-1 for elements of tensors).
      scalars: of each segment, the symbols that its kernel takes, by their numbers.
      inlined: the kernels that the driver wants to inline, by their names.
    """

    values: list[tuple[int, Expr]] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    hosts: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    faults: dict[int, int] = field(default_factory=dict)
    arenas: dict[int, int] = field(default_factory=dict)
    launches: dict[tuple[str, tuple[Symbol, ...]], int] = field(default_factory=dict)
    bytes: dict[int, int] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)
    sources: dict[int, list[int]] = field(default_factory=dict)
    scalars: dict[int, list[int]] = field(default_factory=dict)
    inlined: dict[str, Kernel] = field(default_factory=dict)

    def add(self, value: Expr, segment: int = 0) -> int:
        """Append an entry; its place."""
        self.values.append((segment, value))
        return len(self.values) - 1


class PlanPrinter:
    """Builds the kernels that fill the dims table."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.vars: dict[Symbol, Var] = {
            s: Var(f"y{k}") for k, s in enumerate(program.all_symbols)
        }
        self.layout = Layout()
        self.known = {s: g.number for g in program.segments for s in g.symbols}

    def size(self, value: DimLike) -> Expr:
        """A size over the program's symbols."""
        return ir.dim_expr(value, self.vars)

    def segment(self, *sizes: DimLike) -> int:
        """The segment from which on sizes are known."""
        found = (s for size in sizes if isinstance(size, Dim) for s in size.symbols())
        return max((self.known[s] for s in found), default=0)

    def add(self, *sizes: DimLike, scale: int = 1) -> int:
        """An entry for a size, or for several, one behind the other; the first place."""
        places = [
            self.layout.add(ir.mul(self.size(s), scale), self.segment(s)) for s in sizes
        ]
        return places[0]

    def work(self) -> Expr:
        """The work estimate; -1 when some buffer's size is negative, -2 for a broken guard."""
        work = ir.select(self.negative(0), ir.const(-1), self.size(self.program.work))
        return ir.select(ir.apply("ne", self.guards(0), 0), ir.const(-2), work)

    def negative(self, segment: int) -> Expr:
        """Whether the size of some buffer of a segment is negative, or no 64 bits hold it."""
        found: Expr = ir.FALSE
        for size in self.sizes_of.get(segment, ()):
            bad = []
            if lower_bound(size) < 0:
                bad.append(self.size(size) < 0)
            if self.may_overflow(size):
                bad.append(self.rough(size) > ir.Const(MOST_ELEMENTS, float64))
            for condition in bad:
                found = condition if found is ir.FALSE else ir.apply("or", found, condition)
        return found

    @functools.cached_property
    def sizes_of(self) -> dict[int, list[Dim]]:
        """The different sizes of buffers that only a run tells, by the segment that knows them."""
        found: dict[int, list[Dim]] = {}
        for size in dict.fromkeys(self.buffer_sizes()):
            if isinstance(size, Dim):
                found.setdefault(self.segment(size), []).append(size)
        return found

    def buffer_sizes(self) -> Iterator[DimLike]:
        """The sizes of all that is computed, and of everything that memory is needed for."""
        for slot in self.program.slots:
            yield slot.size
        for result in self.program.results:
            yield from result.sizes
        for step in walk(self.program.steps):
            if isinstance(step, (Grow, Extend)):
                yield step.size
        # What is computed where it is used has no memory; a branch may not be taken.
        for op in self.program.function.operations:
            for t in op.outputs:
                yield from (s for s in t.sizes or () if symbols_of(s) <= self.known.keys())

    def may_overflow(self, size: Dim) -> bool:
        """Whether a size could be too large for 64 bits: those of arrays that exist are not."""
        late = any(not s.positive or self.known[s] for s in size.symbols())
        return late or any(len(mono) > 2 for mono, _ in size.terms)

    def rough(self, size: Dim) -> Expr:
        """The size in floating point, which does not overflow; at least its absolute value."""
        total: Expr = ir.Const(0.0, float64)
        for mono, coef in size.terms:
            term: Expr = ir.Const(float(abs(coef)), float64)
            for atom in mono:
                value = ir.cast(self.size(Dim((((atom,), 1),))), float64)
                term = ir.apply("mul", term, ir.apply("abs", value))
            total = ir.apply("add", total, term)
        return total

    def guards(self, segment: int) -> Expr:
        """1 if some assumption about a segment's sizes does not hold."""
        broken: Expr = ir.ZERO
        for g in self.program.segments[segment].guards:
            differ = ir.apply("ne", self.size(g.left), self.size(g.right))
            broken = ir.select(differ, ir.ONE, broken)
        return broken

    def kernels(self) -> list[Kernel]:
        """One kernel per segment; ``layout`` is complete afterwards."""
        layout, program = self.layout, self.program
        self.head()
        cursors: list[Expr] = [ir.ZERO for _ in program.segments]
        for size, bytes_ in program.blocks:
            at = self.segment(size)
            layout.blocks.append(layout.add(cursors[at], at))
            need = ir.mul(self.size(size), bytes_)
            padded = ir.mul(ir.index_div(ir.add(need, ALIGN - 1), ALIGN), ALIGN)
            cursors[at] = ir.add(cursors[at], padded)
        layout.values[ARENA] = (0, cursors[0])
        for segment in program.segments[1:]:
            k = segment.number
            fault = ir.select(self.negative(k), ir.const(NEGATIVE), self.guards(k))
            layout.faults[k] = layout.add(fault, k)
            layout.arenas[k] = layout.add(cursors[k], k)
        self.steps()
        if len(self.vars) > len(program.all_symbols):
            unbound = [str(s) for s in list(self.vars)[len(program.all_symbols) :]]
            raise AssertionError(f"sizes {unbound} are bound by no input")
        dims = Buffer("dims", ir.int64, ir.const(len(layout.values)))
        numbers = {var: k for k, var in enumerate(self.vars.values())}
        found = []
        entries: list[list[Store]] = [[] for _ in program.segments]
        for k, (number, value) in enumerate(layout.values):
            entries[number].append(Store(dims, ir.const(k), value))
        for segment in program.segments:
            stores = entries[segment.number]
            # Of many segments none would be short if all took all sizes.
            used = {n for s in stores for n in ir.walk_expr(s.value) if isinstance(n, Var)}
            scalars = tuple(v for v in numbers if v in used)
            layout.scalars[segment.number] = [numbers[v] for v in scalars]
            name = plan_name(segment.number)
            found.append(Kernel(name, (dims,), scalars, ir.Block(tuple(stores))))
        return found

    def head(self) -> None:
        """The entries that the call from Python knows of."""
        for value in (self.work(), self.guards(0), ir.ZERO):
            self.layout.add(value)
        for result in self.program.results:
            self.layout.results.append(len(self.layout.values))
            for size in result.sizes:
                self.add(size)
        for call in self.program.hosts:
            self.layout.hosts.append(len(self.layout.values))
            for size in call.stated():
                self.add(size)

    def size_bound(self) -> int:
        """How many entries the table has at most, without building any kernel."""
        program = self.program
        count = len(self.layout.values) + len(program.blocks) + 2 * len(program.segments)
        for step in walk(program.steps):
            count += len(step.sources) if isinstance(step, Bind) else 4
        return count

    def steps(self) -> None:
        """Entries that the steps need."""
        layout, slots = self.layout, self.program.slots
        for step in walk(self.program.steps):
            if isinstance(step, (Copy, Append)):
                width = slots[step.source].dtype.size
                layout.bytes[id(step)] = self.add(step.size, scale=width)
            elif isinstance(step, Grow):
                layout.bytes[id(step)] = self.add(step.size, scale=slots[step.slot].dtype.size)
            elif isinstance(step, Reserve):
                row = slots[step.row]
                layout.rows[step.row] = self.add(row.size, scale=row.dtype.size)
            elif isinstance(step, Extend):
                width = slots[step.slot].dtype.size
                layout.bytes[id(step)] = self.add(step.before, scale=width)
                self.add(step.size, scale=width)
            elif isinstance(step, Bind):
                layout.sources[id(step)] = [
                    -1 if isinstance(s, tuple) else self.add(s) for s in step.sources
                ]
            elif isinstance(step, Call):
                self.launch(step)

    def launch(self, step: Call) -> None:
        """The extents and grains of a call's parallel loops."""
        low = step.lowered
        sizes: Sequence[DimLike] = [Dim((((s,), 1),)) for s in low.symbols]
        binding = {
            var: self.size(size) for var, size in zip(low.kernel.scalars, sizes, strict=True)
        }
        segment = self.segment(*sizes)
        for kernel in (low.kernel, low.fast):
            loop = kernel.parallel if kernel is not None else None
            if kernel is not None and loop is not None:
                place = self.layout.add(ir.substitute(loop.extent, binding), segment)
                self.layout.launches[kernel.name, tuple(low.symbols)] = place
                self.layout.add(ir.substitute(kernel.grain, binding), segment)


def plan_name(segment: int) -> str:
    """The name of the kernel that fills a segment's entries."""
    return "plan_dims" if segment == 0 else f"plan_dims_{segment}"


def cells(program: Program) -> tuple[dict[int, int], int]:
    """The memory cell of each grown slot, and how many cells there are.

    The first ones are the arenas of the segments but the first.
    """
    count = len(program.segments) - 1
    grown = [s.number for s in program.slots if s.kind == "grown"]
    return {number: count + k for k, number in enumerate(grown)}, count + len(grown)


__all__ = ["Layout", "PlanPrinter", "Step", "cells", "plan_name"]
