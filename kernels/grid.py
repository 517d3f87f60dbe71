"""Contractions on a GPU: tiles in shared memory, or a thread for every element."""

from __future__ import annotations

from graphc.kernels import emit
from graphc.kernels.grid_shares import share, shared_sums
from graphc.kernels.grid_tensor import LARGE, factors, tensor_tiles
from graphc.kernels.grid_tiles import PlainTiles
from graphc.kernels.problem import Contraction, Indices
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.gpu import GpuTarget, thread_per_item
from graphc.loop.ir import (
    ZERO,
    Alloc,
    Block,
    Buffer,
    Expr,
    Kernel,
    Load,
    Reduce,
    Stmt,
    Store,
    Var,
)

_SMALL = 16  # a side, or a sum, that is not worth a tile
_LARGE = 1024  # sides from which on a thread has more elements
_THREADS = 256  # of a block, each of which has an element
_TILE = 64  # rows and columns of a tile where sides are not large


def contraction_grid(
    name: str,
    params: tuple[Buffer, ...],
    scalars: tuple[Var, ...],
    problem: Contraction,
    target: GpuTarget,
) -> Kernel:
    """A kernel for the problem as blocks of threads."""
    kernel = Kernel(name, params, scalars, Block(()))
    sides = _sides(problem)
    if any(known(extent) == 0 for extent in (*problem.batch, *sides[:2])):
        return kernel
    dtypes = factors(problem, target)
    found = share(problem, _blocks(problem, sides, dtypes is not None))
    if found is not None:
        return shared_sums(
            kernel, problem, found, target, lambda kernel, part: _whole(kernel, part, target)
        )
    return _whole(kernel, problem, target)


def _sides(problem: Contraction) -> Indices:
    return emit.product(problem.m), problem.n, emit.product(problem.k)


def _is_small(sides: Indices) -> bool:
    """Whether tiles would be mostly empty."""
    return any(size is not None and size < _SMALL for size in map(known, sides))


def _blocks(problem: Contraction, sides: Indices, tensor: bool) -> int | None:
    """Into how many blocks of threads the results are divided; None for many or unknown ones."""
    m, n, batch = known(sides[0]), known(sides[1]), known(emit.product(problem.batch))
    if m is None or n is None or batch is None:
        return None
    if _is_small(sides):
        return -(-m * n * batch // _THREADS)
    if min(m, n) >= _LARGE:
        return None
    side = LARGE if tensor and min(m, n) >= LARGE else _TILE
    return -(-m // side) * -(-n // side) * batch


def _whole(kernel: Kernel, problem: Contraction, target: GpuTarget) -> Kernel:
    """A kernel whose blocks go through the whole of a sum."""
    sides = _sides(problem)
    if _is_small(sides):
        return thread_per_element(kernel, problem, target)
    dtypes = factors(problem, target)
    if dtypes is not None:
        return tensor_tiles(kernel, problem, target, dtypes)
    large = all((known(side) or 0) >= _LARGE for side in sides[:2]) and problem.acc.size <= 4
    return PlainTiles(problem, 8 if large else 4).kernel(kernel, target)


def thread_per_element(kernel: Kernel, problem: Contraction, target: GpuTarget) -> Kernel:
    """A thread for every element of the result, which goes through the whole of its sum."""
    batch = tuple(emit.fresh("b") for _ in problem.batch)
    rows = tuple(emit.fresh("m") for _ in problem.m)
    column = emit.fresh("n")
    total = ir.local("total", problem.acc, 1)

    def term(k: Indices) -> list[Stmt]:
        value = ir.mul(problem.lhs_value(batch, rows, k), problem.rhs_value(batch, k, column))
        return [Reduce(total, ZERO, "add", value)]

    stmts: list[Stmt] = [Alloc(total), Store(total, ZERO, ir.Const(0, problem.acc))]
    stmts += emit.nest(problem.k, term)
    stmts += problem.epilogue(batch, rows, column, Load(total, ZERO))
    extents: Indices = (*problem.batch, *problem.m, problem.n)
    loops: list[tuple[Var, Expr]] = list(zip((*batch, *rows, column), extents, strict=True))
    return thread_per_item(kernel, loops, Block(tuple(stmts)), target)
