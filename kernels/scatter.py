"""Sums of rows by row number: the gradient of a lookup."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.kernels import emit
from graphc.loop import ir
from graphc.loop.ir import Buffer, Expr, If, Kernel, LoopKind, Reduce, Stmt, Store, Var

COLUMNS = 256
"""Columns of one chunk of work: a row of a chunk is a few cache lines, and threads share none."""


def scatter_add_kernel(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    *,
    rows: Expr | int,
    count: Expr | int,
    columns: Expr | int,
    index: Callable[[Expr], Expr],
    update: Callable[[Expr, Expr], Expr],
    out: Buffer,
) -> Kernel:
    """``out[rows, columns]``, zero but for ``update(i, column)`` added to row ``index(i)``.

    Every chunk of columns is worked on alone, and in it the rows are added in the order of ``i``:
    the sums are the same with any number of threads.  Rows out of range are left out.
    """
    height, number, width = (ir.wrap(v, ir.ZERO.dtype) for v in (rows, count, columns))

    def chunk(block: Expr) -> list[Stmt]:
        stmts: list[Stmt] = []
        first = emit.let(stmts, "first", block * COLUMNS)
        here = emit.let(stmts, "width", emit.minimum(ir.const(COLUMNS), width - first))

        def clear(row: Expr) -> list[Stmt]:
            zero = ir.Const(0, out.dtype)
            return emit.loop(here, lambda c: [Store(out, row * width + first + c, zero)])

        def add(i: Expr) -> list[Stmt]:
            body: list[Stmt] = []
            row = emit.let(body, "row", ir.cast(index(i), ir.ZERO.dtype))

            def column(c: Expr) -> list[Stmt]:
                value = ir.cast(update(i, first + c), out.dtype)
                return [Reduce(out, row * width + first + c, "add", value)]

            inside = ir.logical_and(row >= 0, row < height)
            body.append(If(inside, ir.block(*emit.loop(here, column))))
            return body

        return stmts + emit.loop(height, clear) + emit.loop(number, add)

    chunks = emit.ceil_div(width, COLUMNS)
    body = emit.loop(chunks, chunk, LoopKind.PARALLEL)
    return Kernel(name, tuple(params), tuple(scalars), ir.block(*body))
