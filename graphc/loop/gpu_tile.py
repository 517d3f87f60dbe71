"""Elementwise kernels that read across the grain: square tiles turned in shared memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphc.loop.cpu_cost import step
from graphc.loop.cpu_tile import fits, turned_loads
from graphc.loop.gpu_grid import GpuTarget, grid_stride
from graphc.loop.ir import (
    Barrier,
    Block,
    Buffer,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Scope,
    Stmt,
    Store,
    Var,
    add,
    block,
    const,
    index_div,
    index_mod,
    logical_and,
    mul,
)
from graphc.loop.transform import Loop, Rewriter, fuse_counters
from graphc.loop.transform_vector import vector_count

SIZE = 32  # of a tile: a warp reads a row of it at once
_ROW = SIZE + 1  # so that the elements of a column are in different banks
_MOST = 4  # tiles in shared memory


def turned_tiles(
    kernel: Kernel, loops: Sequence[Loop], body: Block, target: GpuTarget
) -> Kernel | None:
    """The kernel with a block for each tile; None where nothing is read across the grain."""
    if not loops:
        return None
    *outer, along = loops
    stores = [s for s in body.stmts if isinstance(s, Store)]
    if not any(step(s.index, along[0]) == 1 for s in stores) or not fits(along, SIZE):
        return None
    for across in reversed(outer):
        loads = turned_loads(body, along[0], across[0])
        if 0 < len(loads) <= _MOST and fits(across, SIZE):
            others = [loop for loop in outer if loop is not across]
            return _Turned(along, across, body, loads).kernel(kernel, others, target)
    return None


class _Turned:
    """Tiles of two loops: ``along`` walks through what is written, ``across`` what is read."""

    def __init__(self, along: Loop, across: Loop, body: Block, loads: Sequence[Load]) -> None:
        self.along, self.across, self.body = along, across, body
        self.tiles = {
            load: Buffer("tile", load.dtype, const(SIZE * _ROW), Scope.SHARED) for load in loads
        }

    def kernel(self, kernel: Kernel, others: Sequence[Loop], target: GpuTarget) -> Kernel:
        """The scheduled kernel."""
        down, right = Var("td"), Var("tr")
        rows, columns = (vector_count(loop[1], SIZE) for loop in (self.across, self.along))
        counter, count, lets = fuse_counters([*others, (down, rows), (right, columns)])

        def item(number: Var, thread: Var) -> Block:
            return Block((Let(counter, number), *lets, *self.tile(down, right, thread, target)))

        shape = (1, target.threads)
        launch = grid_stride(count, target, shape, item, list(self.tiles.values()))
        return replace(kernel, body=launch)

    def tile(self, down: Expr, right: Expr, thread: Expr, target: GpuTarget) -> list[Stmt]:
        """One tile: read as it lies in memory, and used turned around."""
        lane, warp = Var("lane"), Var("warp")
        top, left = Var("top"), Var("left")
        return [
            Let(lane, index_mod(thread, SIZE)),
            Let(warp, index_div(thread, SIZE)),
            Let(top, mul(down, SIZE)),
            Let(left, mul(right, SIZE)),
            self.rows(warp, target, lambda row: self.fill(row, lane, top, left)),
            Barrier(),
            self.rows(warp, target, lambda row: self.use(row, lane, top, left)),
            Barrier(),
        ]

    def rows(self, warp: Expr, target: GpuTarget, make: Callable[[Var], Stmt]) -> Stmt:
        """What every warp does with its rows of the tile."""
        warps = target.threads // SIZE
        turn, row = Var("r"), Var("row")
        body = Block((Let(row, add(mul(turn, warps), warp)), make(row)))
        return For(turn, const(SIZE // warps), LoopKind.UNROLLED, body)

    def fill(self, row: Var, lane: Var, top: Var, left: Var) -> Stmt:
        """A row of each tile, whose elements lie side by side in memory."""
        i, j = add(top, lane), add(left, row)
        rewriter = Rewriter({self.across[0]: i, self.along[0]: j})
        place = add(mul(row, _ROW), lane)
        stores = [Store(tile, place, rewriter.expr(load)) for load, tile in self.tiles.items()]
        return If(self.inside(i, j), block(*stores))

    def use(self, row: Var, lane: Var, top: Var, left: Var) -> Stmt:
        """A row of the result."""
        i, j = add(top, row), add(left, lane)
        place = add(mul(lane, _ROW), row)
        fixed: dict[Expr, Expr] = {load: Load(tile, place) for load, tile in self.tiles.items()}
        rewriter = Rewriter({self.across[0]: i, self.along[0]: j}, fixed=fixed)
        return If(self.inside(i, j), rewriter.block(self.body))

    def inside(self, i: Expr, j: Expr) -> Expr:
        """Whether an element of the tile is one of the loops'."""
        return logical_and(i < self.across[1], j < self.along[1])
