"""Contractions on tensor cores: warps multiply what copies bring to shared memory meanwhile.

Floats of 16 bits and bytes are multiplied as they are, with sums of 32 bits; float32 where it was
asked to count with 10 bits behind the point.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.dtypes import DType, float32
from graphc.kernels import emit
from graphc.kernels.grid_panels import SHARED_BYTES, Panel, Side
from graphc.kernels.problem import Contraction, Indices
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.gpu_grid import GpuTarget, grid_stride
from graphc.loop.ir import (
    PRODUCTS,
    WARP,
    Alloc,
    AsyncCommit,
    AsyncWait,
    Barrier,
    Block,
    Expr,
    Kernel,
    Load,
    LoopKind,
    Stmt,
    Store,
    Var,
    WarpProduct,
)

_LARGE = 128  # a side from which on tiles have this size
_LEAST_ARCH = 80  # the first with copies that are not waited for
_STAGES = 3  # of panels in shared memory, where they fit


def factors(problem: Contraction, target: GpuTarget) -> tuple[DType, DType] | None:
    """The dtypes that tensor cores multiply for the problem; None if it is not for them."""
    if int(target.arch.removeprefix("sm_").rstrip("af")) < _LEAST_ARCH:
        return None
    batch = len(problem.batch)
    left, right = Side.left(problem).probe(batch).dtype, Side.right(problem).probe(batch).dtype
    if PRODUCTS.get((left, right)) is not problem.acc:
        return None
    return None if left is float32 and not target.tf32 else (left, right)


def tensor_tiles(
    kernel: Kernel, problem: Contraction, target: GpuTarget, dtypes: tuple[DType, DType]
) -> Kernel:
    """The kernel by tiles of the result, a block of warps for each."""
    sides = (emit.product(problem.m), problem.n)
    large = all((known(side) or 0) >= _LARGE for side in sides)
    return _TensorTiles(problem, dtypes, 4 if large else 2).kernel(kernel, target)


class _TensorTiles:
    """Tiles of the result by warps in two rows, each of which has 32 columns.

    Attributes:
      across: warps in a row.
      shape: rows, columns and terms of what a warp multiplies at once.
    """

    def __init__(self, problem: Contraction, dtypes: tuple[DType, DType], across: int) -> None:
        self.problem, self.across = problem, across
        self.threads = 2 * across * WARP
        size = dtypes[0].size
        self.shape = (16 * across, 32, {1: 64, 2: 32, 4: 16}[size])
        self.rows, self.columns = 2 * self.shape[0], across * 32
        batch, depth = len(problem.batch), self.shape[2]
        self.total = ir.local("total", problem.acc, self.shape[0])
        shapes = ((self.rows, depth), (self.columns, depth))
        both = list(zip((Side.left(problem), Side.right(problem)), shapes, dtypes, strict=True))

        def panels(stages: int) -> list[Panel]:
            return [
                Panel(name, side, shape, batch, dtype, stages=stages, must_be_deep=size == 1)
                for name, (side, shape, dtype) in zip(("left", "right"), both, strict=True)
            ]

        one = sum(p.size for p in panels(1)) * size
        self.stages = min(_STAGES, SHARED_BYTES // one)
        self.left, self.right = panels(self.stages)

    def kernel(self, kernel: Kernel, target: GpuTarget) -> Kernel:
        """The scheduled kernel."""
        problem = self.problem
        down = emit.ceil_div(emit.product(problem.m), self.rows)
        across = emit.ceil_div(problem.n, self.columns)
        batches = emit.product(problem.batch)

        def item(number: Var, x: Var) -> Block:
            out: list[Stmt] = []
            rest = emit.let(out, "q", ir.index_div(number, across))
            column = emit.let(out, "tn", ir.index_mod(number, across))
            row = emit.let(out, "tm", ir.index_mod(rest, down))
            flat = emit.let(out, "b", ir.index_div(rest, down))
            batch = emit.unflatten(out, flat, problem.batch) if problem.batch else ()
            return Block((*out, *self.tile(batch, row, column, x)))

        count = ir.mul(ir.mul(batches, down), across)
        shared = (self.left.buffer, self.right.buffer)
        return replace(
            kernel, body=grid_stride(count, target, (1, self.threads), item, shared)
        )

    def tile(self, batch: Indices, row: Expr, column: Expr, x: Var) -> list[Stmt]:
        """One tile of the result."""
        m, n, depth = self.shape
        stages = self.stages
        out: list[Stmt] = [Alloc(self.total)]
        warp = emit.let(out, "warp", ir.index_div(x, WARP))
        lane = emit.let(out, "lane", ir.index_mod(x, WARP))
        top = emit.let(out, "top", ir.mul(ir.index_div(warp, self.across), m))
        first = emit.let(out, "first", ir.mul(ir.index_mod(warp, self.across), n))
        zero = ir.Const(0, self.problem.acc)
        count = ir.const(self.shape[0])
        out += emit.loop(count, lambda i: [Store(self.total, i, zero)], LoopKind.UNROLLED)

        def fetch(turn: Expr) -> list[Stmt]:
            stage = ir.index_mod(turn, stages)
            found: list[Stmt] = []
            for panel, tile in ((self.left, row), (self.right, column)):
                found += panel.fetch(stage, batch, tile, turn, x, self.threads)
            return [*found, AsyncCommit()]

        def step(turn: Expr) -> list[Stmt]:
            stage = ir.index_mod(turn, stages)
            left = Load(self.left.buffer, self.left.place(stage, top, ir.ZERO))
            right = Load(self.right.buffer, self.right.place(stage, first, ir.ZERO))
            by_column, by_term = self.right.steps
            product = WarpProduct(
                self.total, left, right, self.left.steps, (by_term, by_column), self.shape
            )
            # Behind the barrier nobody uses the panels any more that are fetched now.
            return [
                AsyncWait(stages - 2), Barrier(), *fetch(ir.add(turn, stages - 1)), product
            ]  # fmt: skip

        for turn in range(stages - 1):
            out.append(emit.scope(fetch(ir.const(turn))))
        out += emit.loop(emit.ceil_div(emit.product(self.problem.k), depth), step)
        # The next tile's panels come where these are.
        out += [AsyncWait(0), Barrier()]
        return [*out, *self.results(batch, (row, top), (column, first), lane)]

    def results(
        self, batch: Indices, rows: tuple[Expr, Expr], columns: tuple[Expr, Expr], lane: Expr
    ) -> list[Stmt]:
        """A thread's elements of the result, as a product of warps leaves them."""
        problem = self.problem
        m, n, _ = self.shape
        tiles = n // 8
        out: list[Stmt] = []
        row = ir.add(ir.mul(rows[0], self.rows), rows[1])
        column = ir.add(ir.mul(columns[0], self.columns), columns[1])
        row = emit.let(out, "m", ir.add(row, ir.index_div(lane, 4)))
        column = emit.let(out, "n", ir.add(column, ir.mul(ir.index_mod(lane, 4), 2)))

        def element(at: Indices) -> list[Stmt]:
            i, half, j, e = at
            found: list[Stmt] = []
            place = emit.let(found, "m", ir.add(row, ir.add(ir.mul(i, 16), ir.mul(half, 8))))
            n = emit.let(found, "n", ir.add(column, ir.add(ir.mul(j, 8), e)))
            number = ir.add(ir.mul(ir.add(ir.mul(i, tiles), j), 4), ir.add(ir.mul(half, 2), e))
            done: list[Stmt] = []
            index = emit.unflatten(done, place, problem.m)
            done += problem.epilogue(batch, index, n, Load(self.total, number))
            inside = ir.logical_and(place < emit.product(problem.m), n < problem.n)
            return [*found, *emit.where(inside, done)]

        extents = tuple(ir.const(c) for c in (m // 16, 2, tiles, 2))
        return [*out, *emit.nest(extents, element, LoopKind.UNROLLED)]
