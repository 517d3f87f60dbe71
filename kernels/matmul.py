"""Matrix products: every transposition, batched, with broadcast batch dimensions and vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.dtypes import DType
from graphc.kernels import emit
from graphc.kernels.contraction import contraction_kernel
from graphc.kernels.problem import Contraction, Indices, Target, accumulator
from graphc.loop import ir
from graphc.loop.ir import Buffer, Expr, Kernel, Load, Stmt, Store, Var

Element = Callable[..., Expr]
"""``element(batch indices, row, column)`` of an operand, as the product reads it."""
Finish = Callable[[Indices, Expr, Expr, Expr], tuple[Stmt, ...]]
"""``finish(batch indices, row, column, sum)``: what is done with an element of the product."""


def extents(sizes: Sequence[Expr | int]) -> Indices:
    """Sizes as expressions."""
    return tuple(ir.wrap(s, ir.ZERO.dtype) for s in sizes)


def strided(
    buffer: Buffer, strides: Sequence[Expr | int], offset: Expr | int = 0
) -> Callable[[Indices], Expr]:
    """Loads of a buffer at ``offset + sum(index * stride)``."""
    steps = extents(strides)

    def load(indices: Indices) -> Expr:
        at = extents((offset,))[0]
        for i, step in zip(indices, steps, strict=True):
            at = ir.add(at, ir.mul(i, step))
        return Load(buffer, at)

    return load


def row_major(shape: Sequence[Expr | int]) -> Indices:
    """The strides of a dense array; 0 along dimensions of size 1, which broadcast."""
    steps: list[Expr] = []
    step: Expr = ir.ONE
    for size in reversed(extents(shape)):
        steps.insert(0, ir.ZERO if emit.is_const(size, 1) else step)
        step = ir.mul(step, size)
    return tuple(steps)


def dense(
    buffer: Buffer,
    shape: Sequence[Expr | int],
    batch_rank: int,
    transposed: bool = False,
) -> Element:
    """The element function of a dense operand of ``shape``, its matrices in the last two places.

    ``batch_rank`` is the product's: missing leading dimensions, and those of size 1, broadcast.
    ``transposed``: the matrices are stored with rows and columns exchanged.
    """
    steps = row_major(shape)
    missing = batch_rank - (len(steps) - 2)
    load = strided(buffer, (*(ir.ZERO for _ in range(missing)), *steps))

    def element(batch: Indices, row: Expr, column: Expr) -> Expr:
        return load((*batch, column, row) if transposed else (*batch, row, column))

    return element


def store_dense(
    buffer: Buffer, batch: Sequence[Expr | int], m: Expr | int, n: Expr | int
) -> Finish:
    """Stores the product, converted to the buffer's type, as a dense array."""
    sizes = extents((*batch, m, n))

    def finish(indices: Indices, row: Expr, column: Expr, value: Expr) -> tuple[Stmt, ...]:
        at: Expr = ir.ZERO
        for i, size in zip((*indices, row, column), sizes, strict=True):
            at = ir.add(ir.mul(at, size), i)
        return (Store(buffer, at, ir.cast(value, buffer.dtype)),)

    return finish


def matmul_kernel(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    *,
    batch: Sequence[Expr | int] = (),
    m: Expr | int,
    n: Expr | int,
    k: Expr | int,
    lhs: Element,
    rhs: Element,
    finish: Finish,
    dtype: DType,
    target: Target,
    acc: DType | None = None,
) -> Kernel:
    """``finish(b, i, j, sum over k of lhs(b, i, k) * rhs(b, k, j))`` for every ``b, i, j``.

    ``dtype`` is the operands' type; ``acc``, that of the sums, is ``accumulator(dtype)`` if not
    given. A vector is a matrix with one row (left) or one column (right).
    """
    rows, columns, depth = extents((m, n, k))
    problem = Contraction(
        batch=extents(batch),
        m=(rows,),
        n=columns,
        k=(depth,),
        acc=acc or accumulator(dtype),
        lhs=lambda b, i, j: lhs(b, i[0], j[0]),
        rhs=lambda b, j, i: rhs(b, j[0], i),
        epilogue=lambda b, i, j, value: finish(b, i[0], j, value),
    )
    return contraction_kernel(name, tuple(params), tuple(scalars), problem, target)
