"""Contractions on tensor cores: warps multiply what copies bring to shared memory meanwhile.

Floats of 16 bits and bytes are multiplied as they are, with sums of 32 bits; float32 where it was
asked to count with 10 bits behind the point.
"""

from __future__ import annotations

from graphc.dtypes import DType, float32
from graphc.kernels import emit
from graphc.kernels.grid_panels import Side
from graphc.kernels.grid_tiles import Element, Tiled
from graphc.kernels.problem import Contraction, Indices
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.gpu_grid import GpuTarget
from graphc.loop.ir import PRODUCTS, WARP, Expr, Kernel, Load, Stmt, WarpProduct

LARGE = 128  # a side from which on tiles have this size
LEAST_ARCH = 80
"""The first with copies that are not waited for."""


def factors(problem: Contraction, target: GpuTarget) -> tuple[DType, DType] | None:
    """The dtypes that tensor cores multiply for the problem; None if it is not for them."""
    if target.capability < LEAST_ARCH:
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
    large = all((known(side) or 0) >= LARGE for side in sides)
    return _TensorTiles(problem, dtypes, 4 if large else 2).kernel(kernel, target)


class _TensorTiles(Tiled):
    """Tiles of the result by warps in two rows, each of which has 32 columns.

    Attributes:
      across: warps in a row.
      shape: rows, columns and terms of what a warp multiplies at once.
    """

    def __init__(self, problem: Contraction, dtypes: tuple[DType, DType], across: int) -> None:
        size = dtypes[0].size
        self.across = across
        self.shape = m, n, depth = (16 * across, 32, {1: 64, 2: 32, 4: 16}[size])
        super().__init__(
            problem, (2 * m, across * n, depth), 2 * across * WARP, m * n // WARP, dtypes,
            must_be_deep=size == 1,
        )  # fmt: skip

    def places(self, out: list[Stmt], x: Expr) -> tuple[Expr, ...]:
        """The warp's first row, its number among those side by side, and the thread's lane."""
        warp = emit.let(out, "warp", ir.index_div(x, WARP))
        lane = emit.let(out, "lane", ir.index_mod(x, WARP))
        top = emit.let(out, "top", ir.mul(ir.index_div(warp, self.across), self.shape[0]))
        return top, emit.let(out, "part", ir.index_mod(warp, self.across)), lane

    def multiply(self, stage: Expr, places: tuple[Expr, ...]) -> list[Stmt]:
        """A product of every warp."""
        top, part, _ = places
        first = ir.mul(part, self.shape[1])
        left = Load(self.left.buffer, self.left.place(stage, top, ir.ZERO))
        right = Load(self.right.buffer, self.right.place(stage, first, ir.ZERO))
        by_column, by_term = self.right.steps
        steps = self.left.steps, (by_term, by_column)
        return [WarpProduct(self.total, left, right, *steps, self.shape)]

    def elements(
        self, row: Expr, column: Expr, places: tuple[Expr, ...]
    ) -> tuple[Indices, list[Stmt], Element]:
        """Those that a product of a warp leaves to a thread."""
        m, n, _ = self.shape
        top, part, lane = places
        out: list[Stmt] = []
        row = emit.let(out, "m", ir.add(ir.add(row, top), ir.index_div(lane, 4)))
        # No variable stands for the sum: that it is even must be seen.
        pair = ir.add(ir.mul(part, n), ir.mul(ir.index_mod(lane, 4), 2))
        column = ir.add(column, pair)

        def element(at: Indices) -> tuple[Expr, Expr, Expr]:
            i, half, j, e = at
            number = ir.mul(ir.add(ir.mul(i, n // 8), j), 4)
            return (
                ir.add(row, ir.add(ir.mul(i, 16), ir.mul(half, 8))),
                ir.add(column, ir.add(ir.mul(j, 8), e)),
                ir.add(number, ir.add(ir.mul(half, 2), e)),
            )

        return tuple(ir.const(c) for c in (m // 16, 2, n // 8, 2)), out, element
