"""Products of 8-bit integers by dot products of four bytes (``dp4a``; on x86, VPDPBUSD).

The schedule is that of ``panel.py`` over *words*: four steps of ``k``, one byte each.  A word of
the left operand goes to all lanes, a vector has the words of several columns.

The instruction multiplies unsigned bytes by signed ones.  An int8 left operand is shifted by 128
(its sign bit is turned), and 128 times the sum of each column of the right operand is taken off:
``sum((a + 128) * b) - 128 * sum(b)``.  Sums wrap modulo 2**32, so that this is exact.

Where ``k`` is two dimensions, words and the four bytes of each, the operands lie in words already.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from graphc.dtypes import int8, int32, uint8
from graphc.kernels import dot, emit, index, tiling
from graphc.kernels.panel import BlockOf, Builder, EachLane
from graphc.kernels.problem import Contraction, Indices, Target, access
from graphc.kernels.tiles import Panel, RowTile, Steps
from graphc.kernels.tiling import Depth, Schedule, known
from graphc.kernels.words import K_WORDS, WORD_BYTES, block_of, operations_of, reading
from graphc.loop import ir
from graphc.loop.ir import Alloc, Block, Buffer, Expr, Guard, Load, LoopKind, Stmt, Store

BYTES = 64
"""Bytes in a vector."""
ROW_VECTORS = 8
"""Vectors of a single row that is shifted: the sums of columns take as many registers again."""
FEW_ROWS = 4
"""For so few rows, panels of columns that lie along ``k`` take longer to make than the products."""
LANES = 16
"""Words in a vector."""
FEW_COLUMNS = 4
"""Fewer columns would leave most of a vector empty."""
ONES = 0x01010101
SHIFT = 128


def applies(problem: Contraction, target: Target) -> bool:
    """Whether this schedule computes the problem, and does it better than the general ones."""
    if not target.has_vnni or problem.acc is not int32 or problem.nonzero is not None:
        return False
    batch, m, k = (_variables(e) for e in (problem.batch, problem.m, problem.k))
    lhs, rhs = problem.lhs(batch, m, k), problem.rhs(batch, k, ir.Var("n"))
    if lhs.dtype not in (int8, uint8) or rhs.dtype is not int8:
        return False
    if len(problem.k) != 1:
        return in_words(problem)
    columns, rows = known(problem.n), tiling.volume(problem.m)
    if rows is not None and rows <= FEW_ROWS and dot.applies(problem, access(problem), target):
        return False
    return columns is None or columns >= FEW_COLUMNS


def in_words(problem: Contraction) -> bool:
    """Whether ``k`` is words and their bytes."""
    return len(problem.k) == 2 and emit.is_const(problem.k[1], 4)


def build(problem: Contraction, target: Target) -> tuple[Block, Expr]:
    """The kernel's body, and the grain of its parallel loop."""
    words = _Words(problem)
    return _Builder(words, words.schedule(target)).kernel()


def _variables(extents: Indices) -> tuple[ir.Var, ...]:
    return tuple(ir.Var("i") for _ in extents)


class _Words:
    """A problem and the same over words: its operands are int32 of four bytes each.

    Attributes:
      signed: the left operand is, and is shifted.
      ready: the right operand's words lie as the register tile reads them.
    """

    def __init__(self, problem: Contraction) -> None:
        self.bytes = problem
        self.apart = in_words(problem)
        size = problem.k[0]
        self.count = size if self.apart else emit.ceil_div(size, 4)
        self.size = ir.mul(size, 4) if self.apart else size
        self.whole = self.count if self.apart else ir.index_div(size, ir.const(4))
        self.even = self.apart or emit.is_const(ir.index_mod(size, ir.const(4)), 0)
        b, m, k = (_variables(e) for e in (problem.batch, problem.m, problem.k))
        n = ir.Var("n")
        left, right = problem.lhs(b, m, k), problem.rhs(b, k, n)
        self.signed = left.dtype is int8
        self.lhs_in_a_run = index.strides(left, k[-1]) <= {1}
        if self.apart:
            self.lhs_in_a_run &= index.strides(left, k[0]) <= {4}
        self.lhs_plain = isinstance(left, Load)
        side_by_side = index.strides(right, k[-1]) == {1} and index.strides(right, n) == {4}
        self.ready = self.apart and isinstance(right, Load) and side_by_side
        self.problem = replace(problem, k=(self.count,), lhs=self.left, rhs=self.right)

    def left(self, batch: Indices, m: Indices, k: Indices) -> Expr:
        """A word of the left operand, its bytes unsigned."""
        word = self._word(k[0], lambda at: self.bytes.lhs(batch, m, at))
        return ir.apply("xor", word, ir.Const(-0x7F7F7F80, int32)) if self.signed else word

    def right(self, batch: Indices, k: Indices, n: Expr) -> Expr:
        """A word of the right operand; bytes that do not exist are zero."""
        return self._word(k[0], lambda at: self.bytes.rhs(batch, at, n))

    def left_byte(self, batch: Indices, m: Indices, k: Expr) -> Expr:
        """An element of the left operand as an unsigned byte."""
        at = (ir.index_div(k, ir.const(4)), ir.index_mod(k, ir.const(4))) if self.apart else (k,)
        value = ir.cast(self.bytes.lhs(batch, m, at), uint8)
        return ir.apply("xor", value, 0x80) if self.signed else value

    def _word(self, word: Expr, value: Callable[[Indices], Expr]) -> Expr:
        if self.apart:
            return ir.apply("pack4", *(value((word, ir.const(number))) for number in range(4)))
        places = [ir.add(ir.mul(word, 4), number) for number in range(4)]
        values = [value((at,)) for at in places]
        whole = ir.apply("pack4", *values)
        if self.even:
            return whole
        zero = ir.const(0, values[0].dtype)
        there = [
            Guard(ir.apply("lt", at, self.size), v, zero)
            for at, v in zip(places, values, strict=True)
        ]
        return Guard(ir.apply("lt", word, self.whole), whole, ir.apply("pack4", *there))

    def schedule(self, target: Target) -> Schedule:
        """Tiles and blocks."""
        p = self.problem
        vectors = tiling.vectors_of_panel(p, LANES, target)
        if tiling.volume(p.m) == 1 and self.signed:
            vectors = min(vectors, ROW_VECTORS)
        rows = tiling.row_tile(p.m, tiling.max_rows(target, vectors))
        width = LANES * vectors
        tiles, words = tiling.tile_count(p.m, rows), known(self.count)
        # A vector of sums of the right operand's columns takes registers as a row does.
        room = rows.count < tiling.max_rows(target, vectors) or not self.signed
        in_rows = access(p).rhs_n <= {1}
        few = tiles is not None and tiles <= 1
        pack_rhs = not (self.ready or (few and room and in_rows and self.even))
        pack_lhs = self.signed or not (self.even and self.lhs_plain and self.lhs_in_a_run)
        depth = Depth(0, None, words or 0)
        if words is None or (words > 2 * K_WORDS and (pack_rhs or pack_lhs)):
            chunk = K_WORDS if words is None else tiling.balanced(words, K_WORDS)
            depth = Depth(0, chunk, chunk)
        n = known(p.n)
        single = tiles is not None and rows.count == 1
        panels, block = block_of(p, rows.count, width, None if single else tiles, depth)
        if single:
            panels = 1
        operations = operations_of(p, words)
        serial = operations is not None and operations <= tiling.SERIAL_FLOPS
        grain = tiling.grain(p, block * rows.count, panels * width)
        if self.ready and serial and n is not None and words is not None and few:
            serial, grain = reading(p, WORD_BYTES)
        return Schedule(
            LANES, vectors, rows, depth, pack_lhs, pack_rhs, block, panels, not serial, grain
        )


class _Builder(Builder):
    def __init__(self, words: _Words, schedule: Schedule) -> None:
        super().__init__(words.problem, schedule)
        self.words = words
        # Rows that lie side by side are packed as words, the others as bytes.
        self.in_bytes = schedule.pack_lhs and not self.packed.by_rows
        size = max(1, schedule.depth.size)
        # A line more, so that rows do not share their cache sets.
        self.pitch = math.ceil(4 * size / BYTES) * BYTES + BYTES
        self.lhs_bytes = ir.local("lhs_bytes", uint8, schedule.rows.count * self.pitch)
        self.shifts = ir.local("shifts", int32, schedule.panels * schedule.width)

    def block(self, batch: Indices, tile: Expr, panel: Expr) -> BlockOf:
        return _BlockOf(self, batch, tile, panel)


class _BlockOf(BlockOf):
    b: _Builder
    sums: Buffer  # of the columns of the panel at hand

    def scratch(self) -> list[Stmt]:
        out = super().scratch()
        if self.b.in_bytes:
            out[0] = Alloc(self.b.lhs_bytes)
        if self.s.pack_rhs and self.b.words.signed:
            out.append(Alloc(self.b.shifts))
        return out

    # --- packing ----------------------------------------------------------------------------

    def pack_left(self, steps: Steps, tile: RowTile) -> list[Stmt]:
        """Bytes in rows: whole vectors, so that every byte of a word is there."""
        if not self.b.in_bytes:
            return super().pack_left(steps, tile)
        words = self.b.words
        out: list[Stmt] = []
        first = emit.let(out, "first", ir.mul(steps.base[0], 4))
        left = ir.sub(words.size, first)
        size = emit.let(out, "size", emit.minimum(ir.mul(steps.extents[0], 4), left))

        def row(number: Expr, m: Indices, _: Expr | None) -> list[Stmt]:
            def byte(i: Expr, _: Expr, mask: Expr | None) -> list[Stmt]:
                value = words.left_byte(self.batch, m, ir.add(first, i))
                if mask is not None:
                    value = Guard(mask, value, ir.const(0, uint8))
                return [Store(self.b.lhs_bytes, ir.add(ir.mul(number, self.b.pitch), i), value)]

            return emit.chunks(size, BYTES, byte)

        return out + tile.loop(row, LoopKind.SERIAL)

    def pack_right(self, steps: Steps, panel: Panel) -> list[Stmt]:
        """Words in panels, and what the shift of the left operand adds to the panel's sums."""
        out = super().pack_right(steps, panel)
        if not self.b.words.signed:
            return out
        begin = self.begin_sums(panel)

        def step(place: Expr) -> list[Stmt]:
            def lanes(lane: Expr) -> list[Stmt]:
                word = self.right((ir.ZERO,), place, panel, lane)
                return self.add_columns(lane, word)

            return panel.vector(lanes)

        def keep(lane: Expr) -> list[Stmt]:
            at = ir.add(ir.mul(panel.slot, self.s.width), lane)
            return [Store(self.b.shifts, at, ir.mul(Load(self.sums, lane), -SHIFT))]

        loop = emit.loop(steps.extents[0], step)
        return [emit.scope([*out, *begin, *loop, *panel.vector(keep)])]

    def begin_sums(self, panel: Panel) -> list[Stmt]:
        """Sums of columns, none added yet."""
        sums = self.sums = ir.local("column_sums", int32, panel.width)
        zero = ir.const(0, int32)
        return [Alloc(sums), *panel.vector(lambda lane: [Store(sums, lane, zero)])]

    def add_columns(self, lane: Expr, word: Expr) -> list[Stmt]:
        """The sum of a column goes on."""
        total = ir.apply("dp4a", ir.Const(ONES, int32), word, Load(self.sums, lane))
        return [Store(self.sums, lane, total)]

    # --- the register tile ------------------------------------------------------------------

    def left(self, m: Indices, k: Indices, pos: Expr, row: Expr) -> Expr:
        if not self.b.in_bytes:
            return super().left(m, k, pos, row)
        at = ir.add(ir.mul(row, self.b.pitch), ir.mul(pos, 4))
        return ir.apply("pack4", *(Load(self.b.lhs_bytes, ir.add(at, i)) for i in range(4)))

    def initial(self, slot: Expr, panel: Panel, row: Expr, lane: Expr) -> Expr:
        value = super().initial(slot, panel, row, lane)
        if not self.s.pack_rhs or not self.b.words.signed:
            return value
        at = ir.add(ir.mul(panel.slot, self.s.width), lane)
        return ir.add(value, Load(self.b.shifts, at))

    def accumulate(self, acc: Buffer, at: Expr, left: Expr, right: Expr) -> Stmt:
        return Store(acc, at, ir.apply("dp4a", left, right, Load(acc, at)))

    @property
    def _sums_beside(self) -> bool:
        """Whether columns are added up beside the products, because nothing packs them."""
        return self.b.words.signed and not self.s.pack_rhs

    def prepare(self, panel: Panel) -> list[Stmt]:
        return self.begin_sums(panel) if self._sums_beside else []

    def beside(self, lane: Expr, right: Expr) -> list[Stmt]:
        return self.add_columns(lane, right) if self._sums_beside else []

    def corrections(
        self, acc: Buffer, rows: EachLane, at: Callable[[Expr, Expr], Expr]
    ) -> list[Stmt]:
        if not self._sums_beside:
            return []

        def correct(row: Expr, lane: Expr) -> list[Stmt]:
            shift = ir.mul(Load(self.sums, lane), -SHIFT)
            return [Store(acc, at(row, lane), ir.add(Load(acc, at(row, lane)), shift))]

        return rows(correct)
