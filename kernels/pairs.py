"""Products of bfloat16 (``dot2``; on x86, VDPBF16PS) and of int16 (``madd16``; PMADDWD) by pairs.

The schedule is that of ``panel.py`` over *pairs*: two steps of the innermost dimension of ``k``, as
one float32 or int32 that has the bits of both.  A pair of the left operand goes to all lanes, a
vector has the pairs of several columns.  The left operand's rows, where they do not lie as they are
read, are packed as elements, whole vectors at a time.

Of bfloat16 the instruction rounds after each of the two products, as a chain of fused multiply-adds
does, but takes subnormal numbers for zero, in operands and in sums.  Of integers sums wrap modulo
2**32, so that they are exact; 8-bit ones are widened when they are packed, or where ``k`` is two
dimensions, pairs and the two bytes of each, when they are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from graphc.dtypes import DType, bfloat16, float32, int8, int16, int32, uint8
from graphc.kernels import emit, index, tiling
from graphc.kernels.pack import Packed
from graphc.kernels.panel import BlockOf, Builder
from graphc.kernels.problem import Contraction, Indices, Target
from graphc.kernels.tiles import RowTile, Steps
from graphc.kernels.tiling import Depth, Schedule, known
from graphc.kernels.words import K_WORDS, WORD_BYTES, block_of, operations_of, reading
from graphc.loop import ir
from graphc.loop.ir import Alloc, Block, Buffer, Expr, Guard, Load, LoopKind, Stmt, Store

FEW_COLUMNS = 8
"""Fewer columns would leave more than half of a vector empty."""
FEW_STEPS = 8
"""Fewer products are over before they are faster."""


@dataclass(frozen=True)
class _Kind:
    """What there are pairs of.

    Attributes:
      element: what both operands' elements become.
      pack, dot: the scalar functions that make a pair, and add the products of two.
      few_rows: for so few, panels take longer to make than they save: of rows that lie side by
        side, as vectors, and of columns that lie along ``k``, pair by pair.
    """

    element: DType
    pack: str
    dot: str
    few_rows: tuple[int, int]


FLOATS = _Kind(bfloat16, "pack2", "dot2", (12, 24))
INTEGERS = _Kind(int16, "pack16", "madd16", (4, 16))
_SHORT = (int8, uint8, int16)


def _kind(problem: Contraction, target: Target) -> _Kind | None:
    batch, m, k = (_variables(e) for e in (problem.batch, problem.m, problem.k))
    found = {problem.lhs(batch, m, k).dtype, problem.rhs(batch, k, ir.Var("n")).dtype}
    if target.has_bf16 and problem.acc is float32 and found == {bfloat16}:
        return FLOATS
    if target.has_madd and problem.acc is int32 and found <= set(_SHORT):
        return INTEGERS
    return None


def in_pairs(problem: Contraction) -> bool:
    """Whether ``k`` is pairs and the elements of each."""
    return len(problem.k) == 2 and emit.is_const(problem.k[1], 2)


def applies(problem: Contraction, target: Target) -> bool:
    """Whether this schedule computes the problem, and does it better than the general ones."""
    kind = _kind(problem, target)
    if kind is None:
        return False
    batch, m, k = (_variables(e) for e in (problem.batch, problem.m, problem.k))
    n = ir.Var("n")
    lhs, rhs = problem.lhs(batch, m, k), problem.rhs(batch, k, n)
    in_a_run = index.strides(lhs, k[-1]) <= {1}
    if not in_a_run and (len(m) > 1 or not index.strides(lhs, m[-1]) <= {1}):
        return False
    if kind is INTEGERS and in_pairs(problem):
        return True
    last = known(problem.k[-1])
    if last is not None and 3 * (last + last % 2) > 4 * last:
        return False  # one of two products would be with zero
    sizes = (tiling.volume(problem.m), known(problem.n), tiling.volume(problem.k))
    few_rows = kind.few_rows[0 if index.strides(rhs, n) <= {1} else 1]
    least = (few_rows + 1, FEW_COLUMNS, FEW_STEPS)
    return all(s is None or s >= few for s, few in zip(sizes, least, strict=True))


def build(problem: Contraction, target: Target) -> tuple[Block, Expr]:
    """The kernel's body, and the grain of its parallel loop."""
    kind = _kind(problem, target)
    assert kind is not None
    pairs = _Pairs(problem, kind)
    return _Builder(pairs, pairs.schedule(target), target).kernel()


def _variables(extents: Indices) -> tuple[ir.Var, ...]:
    return tuple(ir.Var("i") for _ in extents)


class _Pairs:
    """A problem and the same over pairs.

    Attributes:
      apart: ``k`` is pairs and their elements already.
      ready: the right operand's pairs lie as the register tile reads them.
    """

    def __init__(self, problem: Contraction, kind: _Kind) -> None:
        self.elements = problem
        self.kind = kind
        self.apart = kind is INTEGERS and in_pairs(problem)
        last = problem.k[0] if self.apart else problem.k[-1]
        self.size = ir.mul(last, 2) if self.apart else last
        self.count = last if self.apart else emit.ceil_div(last, 2)
        self.whole = self.count if self.apart else ir.index_div(last, ir.const(2))
        self.even = self.apart or emit.is_const(ir.index_mod(last, ir.const(2)), 0)
        b, m, k = (_variables(e) for e in (problem.batch, problem.m, problem.k))
        n = ir.Var("n")
        left, right = problem.lhs(b, m, k), problem.rhs(b, k, n)
        self.in_a_run = index.strides(left, k[-1]) <= {1}
        if self.apart:
            self.in_a_run &= index.strides(left, k[0]) <= {2}
        self.lhs_plain = isinstance(left, Load)
        self.lhs_size = left.dtype.size
        side_by_side = index.strides(right, k[-1]) == {1} and index.strides(right, n) == {2}
        self.ready = self.apart and isinstance(right, Load) and side_by_side
        nonzero = problem.nonzero
        outer = () if self.apart else problem.k[:-1]
        self.problem = replace(
            problem,
            k=(*outer, self.count),
            lhs=self.left,
            rhs=self.right,
            nonzero=nonzero and (lambda b, m, k: nonzero(b, m, self.at(k, ir.ZERO))),
        )

    def at(self, k: Indices, half: Expr) -> Indices:
        """The step of an element of a pair."""
        if self.apart:
            return (*k, half)
        return (*k[:-1], ir.add(ir.mul(k[-1], 2), half))

    def step(self, outer: Indices, place: Expr) -> Indices:
        """The step of an element by its place in its row."""
        if self.apart:
            return (ir.index_div(place, ir.const(2)), ir.index_mod(place, ir.const(2)))
        return (*outer, place)

    def left(self, batch: Indices, m: Indices, k: Indices) -> Expr:
        """A pair of the left operand."""
        return self._pair(k, lambda at: self.elements.lhs(batch, m, at))

    def right(self, batch: Indices, k: Indices, n: Expr) -> Expr:
        """A pair of the right operand."""
        return self._pair(k, lambda at: self.elements.rhs(batch, at, n))

    def _pair(self, k: Indices, value: Callable[[Indices], Expr]) -> Expr:
        """Two elements; one that does not exist is zero."""
        low, high = (value(self.at(k, ir.const(half))) for half in range(2))
        whole = ir.apply(self.kind.pack, low, high)
        if self.even:
            return whole
        alone = ir.apply(self.kind.pack, low, ir.const(0, low.dtype))
        return Guard(ir.apply("lt", k[-1], self.whole), whole, alone)

    def schedule(self, target: Target) -> Schedule:
        """Tiles and blocks."""
        p, lanes = self.problem, target.vector_bytes // WORD_BYTES
        vectors = tiling.vectors_of_panel(p, lanes, target)
        rows = tiling.row_tile(p.m, tiling.max_rows(target, vectors))
        width = lanes * vectors
        tiles, steps = tiling.tile_count(p.m, rows), tiling.volume(p.k)
        # What is widened is so a vector at a time, which costs less than pair by pair.
        as_they_lie = self.even and self.lhs_plain and self.lhs_size == self.kind.element.size
        pack_lhs = not (as_they_lie and self.in_a_run)
        depth = Depth(0, None, steps or 0)
        if steps is None or (steps > 2 * K_WORDS and (pack_lhs or not self.ready)):
            depth = tiling.blocks(p.k, K_WORDS)
        single = self.ready and tiles is not None and rows.count == 1
        panels, block = block_of(p, rows.count, width, None if single else tiles, depth)
        if single:
            panels = 1
        operations = operations_of(p, steps)
        serial = operations is not None and operations <= tiling.SERIAL_FLOPS
        grain = tiling.grain(p, block * rows.count, panels * width)
        if self.ready and serial and tiles is not None and tiles <= 1:
            serial, grain = reading(p, 2)
        return Schedule(
            lanes, vectors, rows, depth, pack_lhs, not self.ready, block, panels, not serial, grain
        )


class _Builder(Builder):
    packed: Packed

    def __init__(self, pairs: _Pairs, schedule: Schedule, target: Target) -> None:
        super().__init__(pairs.problem, schedule)
        self.pairs = pairs
        # Rows that lie side by side are packed as pairs, the others as elements.
        self.in_elements = schedule.pack_lhs and not self.packed.by_rows
        # A vector more, so that rows do not share their cache sets, and a whole vector fits the
        # end.
        self.vector = target.vector_bytes // pairs.kind.element.size
        size = 2 * max(1, schedule.depth.size)
        self.pitch = math.ceil(size / self.vector) * self.vector + self.vector
        self.rows = ir.local("lhs_rows", pairs.kind.element, schedule.rows.count * self.pitch)

    def block(self, batch: Indices, tile: Expr, panel: Expr) -> BlockOf:
        return _BlockOf(self, batch, tile, panel)


class _BlockOf(BlockOf):
    b: _Builder

    def scratch(self) -> list[Stmt]:
        out = super().scratch()
        if self.b.in_elements:
            out[0] = Alloc(self.b.rows)
        return out

    def pack_left(self, steps: Steps, tile: RowTile) -> list[Stmt]:
        """Elements in rows.

        Every store is a whole vector: zeros beyond the end, which the next store overwrites, if
        there is one.
        """
        if not self.b.in_elements:
            return super().pack_left(steps, tile)
        pairs, element = self.b.pairs, self.b.pairs.kind.element
        out: list[Stmt] = []
        first = emit.let(out, "first", ir.mul(steps.base[-1], 2))
        size = ir.mul(steps.extents[-1], 2)
        if not pairs.even:
            size = emit.let(out, "size", emit.minimum(size, ir.sub(pairs.size, first)))

        def line(number: Expr, m: Indices, outer: Indices) -> list[Stmt]:
            start = ir.mul(steps.position((*outer, ir.ZERO)), 2)
            start = ir.add(ir.mul(number, self.b.pitch), start)
            place = steps.at((*outer, ir.ZERO))[:-1]

            def one(i: Expr, _: Expr, mask: Expr | None) -> list[Stmt]:
                at = pairs.step(place, ir.add(first, i))
                value = ir.cast(pairs.elements.lhs(self.batch, m, at), element)
                if mask is not None:
                    value = Guard(mask, value, ir.const(0, element))
                return [Store(self.b.rows, ir.add(start, i), value)]

            return emit.chunks(size, self.b.vector, one)

        def row(number: Expr, m: Indices, _: Expr | None) -> list[Stmt]:
            return emit.nest(steps.extents[:-1], lambda outer: line(number, m, outer))

        return out + tile.loop(row, LoopKind.SERIAL)

    def left(self, m: Indices, k: Indices, pos: Expr, row: Expr) -> Expr:
        if not self.b.in_elements:
            return super().left(m, k, pos, row)
        at = ir.add(ir.mul(row, self.b.pitch), ir.mul(pos, 2))
        low, high = Load(self.b.rows, at), Load(self.b.rows, ir.add(at, ir.ONE))
        return ir.apply(self.b.pairs.kind.pack, low, high)

    def accumulate(self, acc: Buffer, at: Expr, left: Expr, right: Expr) -> Stmt:
        return Store(acc, at, ir.apply(self.b.pairs.kind.dot, left, right, Load(acc, at)))
