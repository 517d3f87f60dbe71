"""Products of bfloat16 by dot products of two (``dot2``; on x86, VDPBF16PS).

The schedule is that of ``panel.py`` over *pairs*: two steps of the innermost dimension of ``k``, as
one float32 that has the bits of both.  A pair of the left operand goes to all lanes, a vector has
the pairs of several columns.  The left operand's rows, where they do not lie as they are read, are
packed as elements, whole vectors at a time.

The instruction rounds after each of the two products, as a chain of fused multiply-adds does, but
takes subnormal numbers for zero, in operands and in sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from graphc.dtypes import bfloat16, float32
from graphc.kernels import emit, index, tiling
from graphc.kernels.pack import Packed
from graphc.kernels.panel import BlockOf, Builder
from graphc.kernels.problem import Contraction, Indices, Target
from graphc.kernels.tiles import RowTile, Steps
from graphc.kernels.tiling import Depth, Schedule, known
from graphc.kernels.words import K_WORDS, LANES, block_of, operations_of
from graphc.loop import ir
from graphc.loop.ir import Alloc, Block, Buffer, Expr, Guard, Load, LoopKind, Stmt, Store

ELEMENTS = 32
"""Elements in a vector."""
FEW_ROWS = (12, 24)
"""For so few rows panels take longer to make than they save: of rows that lie side by side, as
vectors, and of columns that lie along ``k``, pair by pair."""
FEW_COLUMNS = 8
"""Fewer columns would leave more than half of a vector empty."""
FEW_STEPS = 8
"""Fewer products are over before they are faster."""


def applies(problem: Contraction, target: Target) -> bool:
    """Whether this schedule computes the problem, and does it better than the general ones."""
    if not target.has_bf16 or problem.acc is not float32:
        return False
    batch, m, k = (_variables(e) for e in (problem.batch, problem.m, problem.k))
    n = ir.Var("n")
    lhs, rhs = problem.lhs(batch, m, k), problem.rhs(batch, k, n)
    if lhs.dtype is not bfloat16 or rhs.dtype is not bfloat16:
        return False
    in_a_run = index.strides(lhs, k[-1]) <= {1}
    if not in_a_run and (len(m) > 1 or not index.strides(lhs, m[-1]) <= {1}):
        return False
    last = known(problem.k[-1])
    if last is not None and 3 * (last + last % 2) > 4 * last:
        return False  # one of two products would be with zero
    sizes = (tiling.volume(problem.m), known(problem.n), tiling.volume(problem.k))
    few_rows = FEW_ROWS[0 if index.strides(rhs, n) <= {1} else 1]
    least = (few_rows + 1, FEW_COLUMNS, FEW_STEPS)
    return all(s is None or s >= few for s, few in zip(sizes, least, strict=True))


def build(problem: Contraction, target: Target) -> tuple[Block, Expr]:
    """The kernel's body, and the grain of its parallel loop."""
    pairs = _Pairs(problem)
    return _Builder(pairs, pairs.schedule(target)).kernel()


def _variables(extents: Indices) -> tuple[ir.Var, ...]:
    return tuple(ir.Var("i") for _ in extents)


class _Pairs:
    """A problem and the same over pairs."""

    def __init__(self, problem: Contraction) -> None:
        self.elements = problem
        self.size = problem.k[-1]
        self.count = emit.ceil_div(self.size, 2)
        self.whole = ir.index_div(self.size, ir.const(2))
        self.even = emit.is_const(ir.index_mod(self.size, ir.const(2)), 0)
        b, m, k = (_variables(e) for e in (problem.batch, problem.m, problem.k))
        left = problem.lhs(b, m, k)
        self.in_a_run = index.strides(left, k[-1]) <= {1}
        self.lhs_plain = isinstance(left, Load)
        nonzero = problem.nonzero
        self.problem = replace(
            problem,
            k=(*problem.k[:-1], self.count),
            lhs=self.left,
            rhs=self.right,
            nonzero=nonzero and (lambda b, m, k: nonzero(b, m, self.first(k))),
        )

    def first(self, k: Indices) -> Indices:
        """The step of the first element of a pair."""
        return (*k[:-1], ir.mul(k[-1], 2))

    def left(self, batch: Indices, m: Indices, k: Indices) -> Expr:
        """A pair of the left operand."""
        return self._pair(k, lambda at: self.elements.lhs(batch, m, at))

    def right(self, batch: Indices, k: Indices, n: Expr) -> Expr:
        """A pair of the right operand."""
        return self._pair(k, lambda at: self.elements.rhs(batch, at, n))

    def _pair(self, k: Indices, value: Callable[[Indices], Expr]) -> Expr:
        """Two elements; one that does not exist is zero."""
        *outer, start = self.first(k)
        low, high = value((*outer, start)), value((*outer, ir.add(start, ir.ONE)))
        whole = ir.apply("pack2", low, high)
        if self.even:
            return whole
        alone = ir.apply("pack2", low, ir.const(0, bfloat16))
        return Guard(ir.apply("lt", k[-1], self.whole), whole, alone)

    def schedule(self, target: Target) -> Schedule:
        """Tiles and blocks."""
        p = self.problem
        vectors = tiling.vectors_of_panel(p, LANES, target)
        rows = tiling.row_tile(p.m, tiling.max_rows(target, vectors))
        width = LANES * vectors
        tiles, steps = tiling.tile_count(p.m, rows), tiling.volume(p.k)
        depth = Depth(0, None, steps or 0)
        if steps is None or steps > 2 * K_WORDS:
            depth = tiling.blocks(p.k, K_WORDS)
        panels, block = block_of(p, rows.count, width, tiles, depth)
        operations = operations_of(p, steps)
        serial = operations is not None and operations <= tiling.SERIAL_FLOPS
        grain = tiling.grain(p, block * rows.count, panels * width)
        pack_lhs = not (self.even and self.lhs_plain and self.in_a_run)
        return Schedule(
            LANES, vectors, rows, depth, pack_lhs, True, block, panels, not serial, grain
        )


class _Builder(Builder):
    packed: Packed

    def __init__(self, pairs: _Pairs, schedule: Schedule) -> None:
        super().__init__(pairs.problem, schedule)
        self.pairs = pairs
        # Rows that lie side by side are packed as pairs, the others as elements.
        self.in_elements = schedule.pack_lhs and not self.packed.by_rows
        # A line more, so that rows do not share their cache sets, and a whole vector fits the end.
        size = 2 * max(1, schedule.depth.size)
        self.pitch = math.ceil(size / ELEMENTS) * ELEMENTS + ELEMENTS
        self.rows = ir.local("lhs_rows", bfloat16, schedule.rows.count * self.pitch)

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
        pairs = self.b.pairs
        out: list[Stmt] = []
        first = emit.let(out, "first", ir.mul(steps.base[-1], 2))
        size = ir.mul(steps.extents[-1], 2)
        if not pairs.even:
            size = emit.let(out, "size", emit.minimum(size, ir.sub(pairs.size, first)))

        def line(number: Expr, m: Indices, outer: Indices) -> list[Stmt]:
            start = ir.mul(steps.position((*outer, ir.ZERO)), 2)
            start = ir.add(ir.mul(number, self.b.pitch), start)
            place = steps.at((*outer, ir.ZERO))[:-1]

            def element(i: Expr, _: Expr, mask: Expr | None) -> list[Stmt]:
                value = pairs.elements.lhs(self.batch, m, (*place, ir.add(first, i)))
                if mask is not None:
                    value = Guard(mask, value, ir.const(0, bfloat16))
                return [Store(self.b.rows, ir.add(start, i), value)]

            return emit.chunks(size, ELEMENTS, element)

        def row(number: Expr, m: Indices, _: Expr | None) -> list[Stmt]:
            return emit.nest(steps.extents[:-1], lambda outer: line(number, m, outer))

        return out + tile.loop(row, LoopKind.SERIAL)

    def left(self, m: Indices, k: Indices, pos: Expr, row: Expr) -> Expr:
        if not self.b.in_elements:
            return super().left(m, k, pos, row)
        at = ir.add(ir.mul(row, self.b.pitch), ir.mul(pos, 2))
        low, high = Load(self.b.rows, at), Load(self.b.rows, ir.add(at, ir.ONE))
        return ir.apply("pack2", low, high)

    def accumulate(self, acc: Buffer, at: Expr, left: Expr, right: Expr) -> Stmt:
        return Store(acc, at, ir.apply("dot2", left, right, Load(acc, at)))
