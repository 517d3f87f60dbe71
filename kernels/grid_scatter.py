"""On a GPU: sums of rows by row number, a block of threads for some rows and columns.

A block goes through all of the numbers, and adds those rows up that are its own, a thread for each
column: no sum is shared, and rows are added in the order in which they come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.dtypes import int64
from graphc.kernels import emit
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.gpu_grid import GpuTarget, grid_stride
from graphc.loop.ir import (
    Barrier,
    Block,
    Buffer,
    Expr,
    Guard,
    If,
    Kernel,
    Load,
    Reduce,
    Scope,
    Stmt,
    Store,
    Var,
)

_BLOCKS = 512  # of a launch: some for each multiprocessor, so that they share out uneven rows
_WARP = 32
_WIDE = 4 * _WARP  # threads of a block, at most
_EACH = 4  # columns of a thread, at most


def scatter_add_grid(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    *,
    rows: Expr,
    count: Expr,
    columns: Expr,
    index: Callable[[Expr], Expr],
    update: Callable[[Expr, Expr], Expr],
    out: Buffer,
    target: GpuTarget,
) -> Kernel:
    """``out[rows, columns]``, zero but for ``update(i, column)`` added to row ``index(i)``."""
    width = known(columns)
    threads = _WIDE if width is None else min(-(-max(width, 1) // _WARP) * _WARP, _WIDE)
    most = threads * _EACH
    chunks = emit.ceil_div(columns, most)
    wanted = ir.index_div(ir.const(_BLOCKS), emit.maximum(chunks, ir.ONE))
    parts = emit.minimum(emit.maximum(wanted, ir.ONE), rows)
    numbers = Buffer("numbers", int64, ir.const(threads), Scope.SHARED)

    def item(flat: Var, x: Var) -> Block:
        stmts: list[Stmt] = []
        part, chunk = emit.unflatten(stmts, flat, (parts, chunks))
        begin = emit.let(stmts, "begin", ir.index_div(ir.mul(part, rows), parts))
        end = emit.let(stmts, "end", ir.index_div(ir.mul(ir.add(part, ir.ONE), rows), parts))
        first = emit.let(stmts, "first", ir.add(ir.mul(chunk, most), x))
        here = emit.let(stmts, "width", emit.part_of(columns, ir.mul(chunk, most), most))

        def across(row: Expr, body: Callable[[Expr, Expr], Stmt]) -> list[Stmt]:
            """What the thread does for its columns of a row."""
            start = ir.mul(row, columns)

            def one(k: Expr) -> list[Stmt]:
                lets: list[Stmt] = []
                column = emit.let(lets, "column", ir.add(first, ir.mul(k, threads)))
                return [*lets, *emit.where(
                    None if width is not None and width % threads == 0 else column < columns,
                    [body(ir.add(start, column), column)],
                )]  # fmt: skip

            return emit.loop(emit.ceil_div(here, threads), one)

        zero = ir.Const(0, out.dtype)
        stmts += emit.loop(
            ir.sub(end, begin),
            lambda r: across(ir.add(begin, r), lambda at, _: Store(out, at, zero)),
        )

        def some(turn: Expr) -> list[Stmt]:
            body: list[Stmt] = []
            start = emit.let(body, "start", ir.mul(turn, threads))
            mine = emit.let(body, "mine", ir.add(start, x))
            number = Guard(mine < count, ir.cast(index(mine), int64), ir.const(-1))
            body += [Store(numbers, x, number), Barrier()]

            def look(u: Expr) -> list[Stmt]:
                lets: list[Stmt] = []
                row = emit.let(lets, "row", Load(numbers, u))

                def add(place: Expr, column: Expr) -> Stmt:
                    value = update(ir.add(start, u), column)
                    return Reduce(out, place, "add", ir.cast(value, out.dtype))

                own = ir.logical_and(row >= begin, row < end)
                return [*lets, If(own, ir.block(*across(row, add)))]

            held = emit.let(body, "held", emit.part_of(count, start, threads))
            return [*body, *emit.loop(held, look), Barrier()]

        return Block((*stmts, *emit.loop(emit.ceil_div(count, threads), some)))

    launch = grid_stride(ir.mul(parts, chunks), target, (1, threads), item, (numbers,))
    return Kernel(name, tuple(params), tuple(scalars), launch)
