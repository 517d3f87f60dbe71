"""The contraction schedule with vectors along ``k``: tiles of dot products.

For operands that are both contiguous in ``k``: a matrix by a vector, a transposed right operand
that is used too few times to be worth packing. Each element of the result has a vector of partial
sums, which is added up at the end.
"""

from __future__ import annotations

from graphc.kernels import emit, tiling
from graphc.kernels.problem import Access, Contraction, Indices, Target
from graphc.kernels.tiles import RowTile, row_variants
from graphc.kernels.tiling import Rows, known
from graphc.loop import ir
from graphc.loop.ir import Alloc, Block, Expr, Guard, Load, LoopKind, Reduce, Stmt, Store

FEW_COLUMNS = 3
"""Up to so many columns, dot products beat vectors along ``n``."""
PACKING_ROWS, LONG_PACKING_ROWS = 32, 96
"""Of more rows, packing a transposed right operand pays: with few steps, and with many."""
WIDE_VECTORS = 4
"""Of fewer columns than so many vectors have, packed panels leave too many lanes idle."""
IDLE = 8
"""So do those of columns of which a last vector lacks more than one in so many."""
LONG_STEPS = 768
"""With AVX-512's width, what a dot product costs beside its steps is little from so many on."""


def applies(problem: Contraction, found: Access, target: Target) -> bool:
    """Whether dot products are the better schedule."""
    if not (found.lhs_k <= {1} and found.rhs_k <= {1}):
        return False
    lanes = target.vector_bytes // problem.acc.size
    inner, n, rows = known(problem.k[-1]), known(problem.n), tiling.volume(problem.m)
    if n is not None and n <= FEW_COLUMNS:
        return inner is None or inner >= lanes
    is_narrow = n is None or n < WIDE_VECTORS * lanes or IDLE * (-n % lanes) > n
    is_long = target.has_avx512 and (inner is None or inner >= LONG_STEPS)
    most = LONG_PACKING_ROWS if is_narrow or is_long else PACKING_ROWS
    few = rows is None or rows <= most
    return not found.rhs_n <= {1} and few and (inner is None or inner >= 8 * lanes)


def build(problem: Contraction, target: Target) -> tuple[Block, Expr]:
    """The kernel's body, and the grain of its parallel loop."""
    return _Dot(problem, target).kernel()


class _Dot:
    def __init__(self, problem: Contraction, target: Target) -> None:
        self.p = problem
        most_rows, most_columns = (4, 6) if target.has_avx512 else (3, 3)
        n = known(problem.n)
        self.rows = tiling.row_tile(problem.m, most_rows)
        self.columns = Rows(0, most_columns if n is None else tiling.balanced(n, most_columns), ())
        chains = self.rows.count * self.columns.count
        lanes = target.vector_bytes // problem.acc.size
        # Eight independent sums hide the latency of an addition.
        self.lanes = lanes * max(1, 8 // chains)
        inner = known(problem.k[-1])
        while inner is not None and self.lanes > max(lanes, inner):
            self.lanes //= 2

    def kernel(self) -> tuple[Block, Expr]:
        m, rows = self.p.m, self.rows
        self.split_tiles = emit.ceil_div(m[rows.split], rows.tile)
        self.tile_space = (*m[: rows.split], self.split_tiles)
        self.tile_total = emit.product(self.tile_space)
        self.column_tiles = emit.ceil_div(self.p.n, self.columns.tile)
        steps = tiling.volume(self.p.k) or tiling.K_BLOCK
        flops = 2 * rows.count * self.columns.count * steps
        self.tiles = max(1, round(tiling.ITERATION_FLOPS / flops))
        total = known(self.tile_total)
        if total is not None:
            self.tiles = tiling.balanced(total, self.tiles)
        sizes = (*self.p.batch, *m, self.p.n, *self.p.k)
        work = tiling.volume(sizes)
        serial = work is not None and 2 * work <= tiling.SERIAL_FLOPS
        grain = tiling.grain(self.p, self.tiles * rows.count, self.columns.count)
        space = (*self.p.batch, self.column_tiles, emit.ceil_div(self.tile_total, self.tiles))
        kind = LoopKind.SERIAL if serial else LoopKind.PARALLEL
        loops = emit.loop(emit.product(space), lambda i: self.iteration(i, space), kind)
        return Block(tuple(loops)), grain

    def iteration(self, flat: Expr, space: Indices) -> list[Stmt]:
        out: list[Stmt] = []
        *batch, column, block = emit.unflatten(out, flat, space)
        first = emit.let(out, "tile", ir.mul(block, self.tiles))
        count = self.tile_total
        if self.tiles == 1:
            count = ir.ONE
        elif not emit.is_const(space[-1], 1):
            left = ir.sub(self.tile_total, first)
            count = emit.let(out, "count", emit.minimum(left, ir.const(self.tiles)))
        columns = row_variants((self.p.n,), self.columns, (column,), self.column_tiles, (1,))

        def one(slot: Expr) -> list[Stmt]:
            inner: list[Stmt] = []
            tile = emit.let(inner, "tile", ir.add(first, slot))
            place = emit.unflatten(inner, tile, self.tile_space)
            rows = row_variants(self.p.m, self.rows, place, self.split_tiles, (1,))
            return inner + columns(
                lambda some: rows(lambda tile: self.tile(tuple(batch), tile, some))
            )

        return out + emit.loop(count, one)

    def tile(self, batch: Indices, rows: RowTile, columns: RowTile) -> list[Stmt]:
        """The dot products of some rows with some columns."""
        cells = rows.count * columns.count
        acc = ir.local("acc", self.p.acc, cells * self.lanes)
        total = ir.local("total", self.p.acc, cells)
        zero = ir.const(0, self.p.acc)

        def at(cell: Expr, lane: Expr) -> Expr:
            return ir.add(ir.mul(cell, self.lanes), lane)

        all_cells, width = ir.const(cells), ir.const(self.lanes)
        out: list[Stmt] = [Alloc(acc), Alloc(total)]
        out += emit.loop(
            all_cells,
            lambda cell: emit.loop(
                width, lambda lane: [Store(acc, at(cell, lane), zero)], LoopKind.VECTORIZED
            ),
            LoopKind.UNROLLED,
        )

        def line(outer: Indices) -> list[Stmt]:
            return emit.chunks(
                self.p.k[-1],
                self.lanes,
                lambda i, lane, mask: self.step(batch, rows, columns, (*outer, i), lane, mask, acc),
            )

        out += emit.nest(self.p.k[:-1], line)

        def combine(cell: Expr) -> list[Stmt]:
            def lanes(lane: Expr) -> list[Stmt]:
                return [Reduce(total, cell, "add", Load(acc, at(cell, lane)))]

            return [Store(total, cell, zero), *emit.loop(width, lanes, LoopKind.VECTORIZED)]

        out += emit.loop(all_cells, combine, LoopKind.UNROLLED)

        def finish(row: Expr, m: Indices) -> list[Stmt]:
            def column(index: Expr, n: Indices) -> list[Stmt]:
                cell = ir.add(ir.mul(row, columns.count), index)
                return list(self.p.epilogue(batch, m, n[0], Load(total, cell)))

            return columns.existing(column)

        return out + rows.existing(finish)

    def step(
        self,
        batch: Indices,
        rows: RowTile,
        columns: RowTile,
        k: Indices,
        lane: Expr,
        mask: Expr | None,
        acc: ir.Buffer,
    ) -> list[Stmt]:
        """One vector of ``k`` for every row and column of the tile."""
        out: list[Stmt] = []
        right: list[Expr] = []
        zero = ir.const(0, self.p.acc)

        def declared(prefix: str, value: Expr) -> Expr:
            return emit.let(out, prefix, value if mask is None else Guard(mask, value, zero))

        def column(_: Expr, n: Indices, __: Expr | None) -> list[Stmt]:
            right.append(declared("right", self.p.rhs_value(batch, k, n[0])))
            return []

        def row(index: Expr, m: Indices, _: Expr | None) -> list[Stmt]:
            left = declared("left", self.p.lhs_value(batch, m, k))
            for number, value in enumerate(right):
                cell = ir.add(ir.mul(index, len(right)), number)
                place = ir.add(ir.mul(cell, self.lanes), lane)
                out.append(Reduce(acc, place, "add", ir.mul(left, value)))
            return []

        columns.explicit().loop(column, LoopKind.UNROLLED)
        rows.explicit().loop(row, LoopKind.UNROLLED)
        return out
