"""The contraction schedule with vectors along ``n``: register tiles over panels of columns.

One iteration of the parallel loop makes a block of the result: some row tiles by some column
panels of one batch item.  Where ``k`` is blocked, the block's accumulators wait in a scratch
buffer between the blocks of ``k``, and the epilogue runs over them at the end; otherwise they
stay in registers from zero to the epilogue::

    for (batch, block of tiles, block of panels) in parallel:
        for block of k:
            pack the right operand's panels          if the schedule says so
            for tile of rows:
                pack the left operand's rows         likewise
                for panel:
                    for k: acc[row, lane] += lhs[row] * rhs[lane]
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.kernels import emit
from graphc.kernels.pack import Packed, pack_lhs, pack_rhs
from graphc.kernels.panel_ahead import asked
from graphc.kernels.problem import Contraction, Indices, epilogue_cost
from graphc.kernels.tiles import Panel, RowTile, Steps, probe, row_variants
from graphc.kernels.tiling import Schedule, known
from graphc.loop import ir
from graphc.loop.cpu_ahead import lines
from graphc.loop.ir import (
    Alloc,
    Block,
    Buffer,
    Cast,
    Expr,
    Guard,
    Load,
    LoopKind,
    Reduce,
    Stmt,
    Store,
)

UNROLL_STEPS = 8
"""An innermost loop of ``k`` of at most so many steps is unrolled."""
HEAVY_EPILOGUE = 24
"""An epilogue of more additions' cost is not repeated for every row of a tile."""


def build(problem: Contraction, schedule: Schedule) -> tuple[Block, Expr]:
    """The kernel's body, and the grain of its parallel loop."""
    return Builder(problem, schedule).kernel()


def one_block(problem: Contraction, batch: Indices, schedule: Schedule) -> list[Stmt]:
    """The statements that make all rows and columns of one batch item, in no loop of their own."""
    builder = Builder(problem, schedule)
    block = builder.block(batch, ir.ZERO, ir.ZERO)
    block.tiles = builder.tile_total
    whole = emit.is_const(builder.tail, 0)
    block.panels = builder.panel_total if whole else builder.whole_panels
    return block.statements()


EachLane = Callable[[Callable[[Expr, Expr], list[Stmt]]], list[Stmt]]
"""A function of a row and a lane, for every row and lane of a register tile."""


class Builder:
    """The kernel of one problem by one schedule."""

    def __init__(self, problem: Contraction, schedule: Schedule) -> None:
        self.p = problem
        self.s = schedule
        rows = schedule.rows
        self.split_tiles = emit.ceil_div(problem.m[rows.split], rows.tile)
        self.tile_space = (*problem.m[: rows.split], self.split_tiles)
        self.tile_total = emit.product(self.tile_space)
        self.panel_total = emit.ceil_div(problem.n, schedule.width)
        self.whole_panels = ir.index_div(problem.n, ir.const(schedule.width))
        self.tail = ir.index_mod(problem.n, ir.const(schedule.width))
        self.tail_width = schedule.width
        last = known(self.tail)
        if last is not None and last <= schedule.lanes:
            self.tail_width = 1 << max(0, last - 1).bit_length()
        elif last is not None:
            self.tail_width = -(-last // schedule.lanes) * schedule.lanes
        self.sums = ir.local("sums", problem.acc, self.block_rows() * schedule.width)
        self.packed = Packed.buffers(problem, schedule)
        self.heavy_epilogue = epilogue_cost(problem) > HEAVY_EPILOGUE

    def block_rows(self) -> int:
        """Rows of all panels of a block."""
        return self.s.tiles * self.s.panels * self.s.rows.count

    def kernel(self) -> tuple[Block, Expr]:
        """The body, and the grain of its parallel loop."""
        kind = LoopKind.PARALLEL if self.s.parallel else LoopKind.SERIAL
        blocks = (
            emit.ceil_div(self.tile_total, self.s.tiles),
            emit.ceil_div(self.panel_total, self.s.panels),
        )
        space = (*self.p.batch, *blocks)
        loops = emit.loop(emit.product(space), lambda i: self.iteration(i, space), kind)
        return Block(tuple(loops)), self.s.grain

    def block(self, batch: Indices, tile: Expr, panel: Expr) -> BlockOf:
        """The block of an iteration."""
        return BlockOf(self, batch, tile, panel)

    def iteration(self, flat: Expr, space: Indices) -> list[Stmt]:
        """The statements of one iteration of the parallel loop."""
        out: list[Stmt] = []
        *batch, tile_block, panel_block = emit.unflatten(out, flat, space)
        first_tile = emit.let(out, "tile", ir.mul(tile_block, self.s.tiles))
        first_panel = emit.let(out, "panel", ir.mul(panel_block, self.s.panels))
        block = self.block(tuple(batch), first_tile, first_panel)
        block.tiles = self._within(out, self.tile_total, first_tile, space[-2], self.s.tiles)
        some = self.panel_total if emit.is_const(self.tail, 0) else self.whole_panels
        block.panels = self._within(out, some, first_panel, space[-1], self.s.panels)
        if not emit.is_const(self.tail, 0) and not emit.is_const(space[-1], 1):
            last = ir.apply("eq", panel_block, ir.sub(space[-1], ir.ONE))
            block.last = emit.let(out, "last", last)
        return out + block.statements()

    def _within(self, out: list[Stmt], total: Expr, first: Expr, blocks: Expr, most: int) -> Expr:
        """How many of ``total`` fall into the block that starts at ``first``."""
        if emit.is_const(blocks, 1):
            return total
        count = known(total)
        if total in (self.tile_total, self.panel_total) and (
            most == 1 or (count is not None and count % most == 0)
        ):
            return ir.const(most)
        return emit.let(out, "count", emit.minimum(ir.sub(total, first), ir.const(most)))


class BlockOf:
    """The block that one iteration makes."""

    def __init__(self, builder: Builder, batch: Indices, tile: Expr, panel: Expr) -> None:
        self.b, self.p, self.s = builder, builder.p, builder.s
        self.batch = batch
        self.first_tile, self.first_panel = tile, panel
        self.tiles: Expr = ir.ZERO
        self.panels: Expr = ir.ZERO
        self.last: Expr | None = None

    def scratch(self) -> list[Stmt]:
        """The buffers of packed operands."""
        out: list[Stmt] = []
        if self.s.pack_lhs:
            out.append(Alloc(self.b.packed.lhs))
        if self.s.pack_rhs:
            out.append(Alloc(self.b.packed.rhs))
        return out

    def statements(self) -> list[Stmt]:
        """What makes the block."""
        out = self.scratch()
        if not self.s.depth.blocked:
            return out + self.products(Steps.whole(self.p.k))
        out.append(Alloc(self.b.sums))
        zero = ir.const(0, self.p.acc)
        size = self.b.block_rows() * self.s.width // self.s.lanes
        out += emit.loop(
            ir.const(size),
            lambda i: emit.loop(
                ir.const(self.s.lanes),
                lambda lane: [Store(self.b.sums, ir.add(ir.mul(i, self.s.lanes), lane), zero)],
                LoopKind.VECTORIZED,
            ),
        )
        out += Steps.blocks(self.p.k, self.s.depth, self.products)
        return out + self.over_tiles(
            lambda slot, tile: self.over_panels(
                lambda panel: tile.existing(
                    lambda row, m: self.finish_row(
                        m,
                        panel,
                        lambda lane: Load(self.b.sums, self.sum_at(slot, panel, row, lane)),
                    )
                )
            )
        )

    # --- the block's parts ------------------------------------------------------------------

    def over_panels(self, body: Callable[[Panel], list[Stmt]], wide: bool = False) -> list[Stmt]:
        """``body`` for every panel of the block: whole ones in a loop, then the rest of ``n``.

        ``wide``: all whole panels of the block are one panel, where the block is full.
        """
        width = self.s.width

        def whole(i: Expr) -> list[Stmt]:
            start = ir.mul(ir.add(self.first_panel, i), width)
            return body(Panel(start, i, width, None))

        def every() -> list[Stmt]:
            if not wide:
                return emit.loop(self.panels, whole)
            count = known(self.panels)
            most = self.s.panels if count is None else count
            all_panels = Panel(ir.mul(self.first_panel, width), ir.ZERO, width * most, None)
            if count is not None:
                return body(all_panels) if count else []
            full = ir.apply("eq", self.panels, ir.const(most))
            return emit.where(full, body(all_panels), emit.loop(self.panels, whole))

        if emit.is_const(self.b.tail, 0):
            return every()
        slot = ir.ZERO if self.s.panels == 1 else self.panels
        start = ir.mul(self.b.whole_panels, width)
        valid = None if emit.is_const(self.b.tail, self.b.tail_width) else self.b.tail
        rest = body(Panel(start, slot, self.b.tail_width, valid))
        cond = self.last
        if known(self.b.tail) is None:
            some = ir.apply("gt", self.b.tail, ir.ZERO)
            cond = some if cond is None else ir.logical_and(cond, some)
        if self.s.panels == 1 and cond is not None:
            return emit.where(cond, rest, whole(ir.ZERO))
        return every() + (emit.where(cond, rest) if cond is not None else [emit.scope(rest)])

    def over_tiles(self, body: Callable[[Expr, RowTile], list[Stmt]]) -> list[Stmt]:
        """``body`` for every tile of the block, in a variant for each count of rows."""

        def one(slot: Expr) -> list[Stmt]:
            out: list[Stmt] = []
            flat = emit.let(out, "tile", ir.add(self.first_tile, slot))
            place = emit.unflatten(out, flat, self.b.tile_space)
            variants = row_variants(self.p.m, self.s.rows, place, self.b.split_tiles)
            return out + variants(lambda tile: body(slot, tile))

        return emit.loop(self.tiles, one)

    def products(self, steps: Steps) -> list[Stmt]:
        """The products of one block of ``k``."""
        out: list[Stmt] = list(steps.declarations)
        if self.s.pack_rhs:
            out += self.over_panels(lambda panel: self.pack_right(steps, panel))

        def tile_products(slot: Expr, tile: RowTile) -> list[Stmt]:
            inner: list[Stmt] = []
            if self.s.pack_lhs:
                inner += self.pack_left(steps, tile)
            # One row has few sums: more columns hide the latency, and read the rows of the right
            # operand in longer runs.
            wide = tile.count == 1 and not self.s.pack_rhs and not self.s.depth.blocked
            inner += self.over_panels(
                lambda panel: self.micro_kernel(steps, slot, tile, panel), wide
            )
            return emit.where(self.tile_nonzero(steps, tile), inner)

        return out + self.over_tiles(tile_products)

    def pack_left(self, steps: Steps, tile: RowTile) -> list[Stmt]:
        """Lay out the rows of a tile."""
        return pack_lhs(self.p, self.b.packed, self.batch, steps, tile, self.s)

    def pack_right(self, steps: Steps, panel: Panel) -> list[Stmt]:
        """Lay out a panel of columns."""
        return pack_rhs(self.p, self.b.packed, self.batch, steps, panel, self.s)

    def tile_nonzero(self, steps: Steps, tile: RowTile) -> Expr | None:
        """Whether the tile's products of a block may be other than zero; None: they may."""
        if self.p.nonzero is None or not self.s.depth.blocked:
            return None  # else the epilogue would be skipped, too
        rows = probe("m", (tile.start, *(ir.ZERO for _ in tile.inner)))
        m = (*tile.outer, tile.start if tile.tile == 1 else rows[0], *rows[1:])
        fixed = [emit.is_const(extent, 1) for extent in steps.extents]
        varying = probe("k", steps.base)
        k = tuple(b if f else v for b, f, v in zip(steps.base, fixed, varying, strict=True))
        cond: Expr | None = None
        for each in self.p.nonzero(self.batch, m, k):
            if each.variables.isdisjoint((*rows, *varying)):
                cond = each if cond is None else ir.logical_and(cond, each)
        return cond

    # --- the register tile ------------------------------------------------------------------

    def initial(self, slot: Expr, panel: Panel, row: Expr, lane: Expr) -> Expr:
        """What the products of a block of ``k`` are added to."""
        if self.s.depth.blocked:
            return Load(self.b.sums, self.sum_at(slot, panel, row, lane))
        return ir.const(0, self.p.acc)

    def accumulate(self, acc: Buffer, at: Expr, left: Expr, right: Expr) -> Stmt:
        """A product added up."""
        return Reduce(acc, at, "add", ir.mul(left, right))

    def prepare(self, panel: Panel) -> list[Stmt]:
        """What stands before the loop over ``k`` of a register tile."""
        return []

    def beside(self, lane: Expr, right: Expr) -> list[Stmt]:
        """What is done with an element of the right operand beside its products."""
        return []

    def corrections(
        self, acc: Buffer, rows: EachLane, at: Callable[[Expr, Expr], Expr]
    ) -> list[Stmt]:
        """What is done with the sums behind the loop over ``k``."""
        return []

    def micro_kernel(self, steps: Steps, slot: Expr, tile: RowTile, panel: Panel) -> list[Stmt]:
        """The products of a tile of rows with a panel of columns, the sums in registers."""
        acc = ir.local("acc", self.p.acc, tile.count * panel.width)
        blocked = self.s.depth.blocked
        tile = tile.explicit() if self._row_stride_varies(tile) else tile

        def at(row: Expr, lane: Expr) -> Expr:
            return ir.add(ir.mul(row, panel.width), lane)

        def rows(body: Callable[[Expr, Expr], list[Stmt]]) -> list[Stmt]:
            return tile.loop(
                lambda row, _, __: panel.vector(lambda lane: body(row, lane)), LoopKind.UNROLLED
            )

        def start(row: Expr, lane: Expr) -> list[Stmt]:
            return [Store(acc, at(row, lane), self.initial(slot, panel, row, lane))]

        def step(k: Indices, pos: Expr) -> list[Stmt]:
            def lanes(lane: Expr) -> list[Stmt]:
                out: list[Stmt] = []
                right = emit.let(out, "right", self.right(k, pos, panel, lane))
                out += self.beside(lane, right)
                return out + tile.loop(
                    lambda row, m, _: [
                        self.accumulate(acc, at(row, lane), self.left(m, k, pos, row), right)
                    ],
                    LoopKind.UNROLLED,
                )

            coming = [] if blocked else asked(self.p, self.batch, tile, panel, steps, pos)
            return [*coming, *self.ahead(k, panel), *panel.vector(lanes)]

        def keep(row: Expr, lane: Expr) -> list[Stmt]:
            value = Load(acc, at(row, lane))
            return [Store(self.b.sums, self.sum_at(slot, panel, row, lane), value)]

        out: list[Stmt] = [*self.prepare(panel), Alloc(acc), *rows(start)]
        out += [*steps.loops(step, UNROLL_STEPS), *self.corrections(acc, rows, at)]
        if blocked:
            return out + rows(keep)
        if tile.clamp is not None or self.b.heavy_epilogue:
            return out + self.finish_serially(tile, panel, acc)
        return out + tile.loop(
            lambda row, m, _: self.finish_row(m, panel, lambda lane: Load(acc, at(row, lane))),
            LoopKind.UNROLLED,
        )

    def finish_serially(self, tile: RowTile, panel: Panel, acc: Buffer) -> list[Stmt]:
        """The epilogue in a loop over rows, with the sums in memory, to keep the code small."""
        done = ir.local("done", self.p.acc, tile.count * panel.width)

        def at(row: Expr, lane: Expr) -> Expr:
            return ir.add(ir.mul(row, panel.width), lane)

        def keep(row: Expr) -> list[Stmt]:
            return panel.vector(lambda lane: [Store(done, at(row, lane), Load(acc, at(row, lane)))])

        out: list[Stmt] = [Alloc(done)]
        out += emit.loop(ir.const(tile.count), keep, LoopKind.UNROLLED)
        return out + tile.existing(
            lambda row, m: self.finish_row(m, panel, lambda lane: Load(done, at(row, lane)))
        )

    def left(self, m: Indices, k: Indices, pos: Expr, row: Expr) -> Expr:
        """The element of a row, packed or not; ``pos`` is the number of the step in its block."""
        if self.s.pack_lhs:
            return Load(self.b.packed.lhs, self.b.packed.lhs_at(row, pos))
        return self.p.lhs_value(self.batch, m, k)

    def right(self, k: Indices, pos: Expr, panel: Panel, lane: Expr) -> Expr:
        """The element of a column, packed or not."""
        if self.s.pack_rhs:
            at = ir.add(ir.mul(panel.slot, self.s.depth.size), pos)
            return Load(self.b.packed.rhs, ir.add(ir.mul(at, self.s.width), lane))
        value = self.p.rhs_value(self.batch, k, ir.add(panel.start, lane))
        if panel.valid is None:
            return value
        return Guard(ir.apply("lt", lane, panel.valid), value, ir.const(0, self.p.acc))

    def ahead(self, k: Indices, panel: Panel) -> list[Stmt]:
        """Ask for the row of the right operand that is read some steps later."""
        if self.s.ahead is None or panel.valid is not None:
            return []
        value = self.p.rhs_value(self.batch, k, panel.start)
        value = value.value if isinstance(value, Cast) else value
        assert isinstance(value, Load)
        return lines(value.buffer, value.index, self.s.ahead, panel.width)

    def sum_at(self, slot: Expr, panel: Panel, row: Expr, lane: Expr) -> Expr:
        """Where a sum waits between blocks of ``k``."""
        at = ir.add(ir.mul(slot, self.s.panels), panel.slot)
        at = ir.add(ir.mul(at, self.s.rows.count), row)
        return ir.add(ir.mul(at, self.s.width), lane)

    def _row_stride_varies(self, tile: RowTile) -> bool:
        return not self.s.pack_lhs and tile.varies(
            lambda m: self.p.lhs_value(self.batch, m, tuple(emit.fresh("k") for _ in self.p.k))
        )

    # --- the result -------------------------------------------------------------------------

    def finish_row(self, m: Indices, panel: Panel, value: Callable[[Expr], Expr]) -> list[Stmt]:
        """The epilogue of one row; ``value`` is the sum of a lane."""

        def lanes(lane: Expr) -> list[Stmt]:
            n = ir.add(panel.start, lane)
            stmts = list(self.p.epilogue(self.batch, m, n, value(lane)))
            if panel.valid is None:
                return stmts
            return emit.where(ir.apply("lt", lane, panel.valid), stmts)

        return panel.vector(lanes)
