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


LANES = 16


def put_row_kernel(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    *,
    rows: Expr,
    columns: Expr,
    index: Expr,
    site: int | None,
    row: Callable[[Expr], Expr],
    kept: Callable[[Expr], Expr] | None,
    add: bool,
    out: Buffer,
) -> Kernel:
    """``out[rows, columns]`` with ``row(column)`` in (or added to) the row ``index``.

    ``kept`` gives the elements of the other rows by their flat position; None where they are in
    ``out`` already.  An index out of range fails the run at ``site``, or puts nothing.
    """
    stmts: list[Stmt] = []
    at = emit.let(stmts, "at", ir.cast(index, ir.ZERO.dtype))
    inside = ir.logical_and(at >= 0, at < rows)
    if site is not None:
        at = emit.let(stmts, "at", ir.Require(inside, at, site, (at,)))
    if kept is not None:
        old = kept

        def keep(flat: Expr, _lane: Expr, mask: Expr | None) -> list[Stmt]:
            return emit.where(mask, [Store(out, flat, old(flat))])

        stmts += emit.chunks(ir.mul(rows, columns), LANES, keep)

    def put(column: Expr, _lane: Expr, mask: Expr | None) -> list[Stmt]:
        place, value = ir.add(ir.mul(at, columns), column), ir.cast(row(column), out.dtype)
        store: Stmt = Reduce(out, place, "add", value) if add else Store(out, place, value)
        return emit.where(mask, [store])

    body = emit.chunks(columns, LANES, put)
    stmts += body if site is not None else [If(inside, ir.block(*body))]
    return Kernel(name, tuple(params), tuple(scalars), ir.block(*stmts))


def put_part_kernel(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    *,
    before: Expr,
    size: Expr,
    count: Expr,
    offset: Expr,
    part: Callable[[Expr], Expr],
    kept: Callable[[Expr], Expr] | None,
    add: bool,
    out: Buffer,
) -> Kernel:
    """``out[size]`` with ``count`` elements of ``part`` put in (or added) from ``offset`` on.

    ``kept`` gives the first elements, so many as there were ``before``; None where they are in
    ``out`` already.  A part that does not fit in is left out.
    """
    stmts: list[Stmt] = []
    first = emit.let(stmts, "first", ir.cast(offset, ir.ZERO.dtype))
    if kept is not None:
        old = kept

        def keep(flat: Expr, _lane: Expr, mask: Expr | None) -> list[Stmt]:
            return emit.where(mask, [Store(out, flat, old(flat))])

        stmts += emit.chunks(before, LANES, keep)

    def put(flat: Expr, _lane: Expr, mask: Expr | None) -> list[Stmt]:
        place, value = ir.add(first, flat), ir.cast(part(flat), out.dtype)
        store: Stmt = Reduce(out, place, "add", value) if add else Store(out, place, value)
        return emit.where(mask, [store])

    inside = ir.logical_and(first >= 0, ir.add(first, count) <= size)
    stmts.append(If(inside, ir.block(*emit.chunks(count, LANES, put))))
    return Kernel(name, tuple(params), tuple(scalars), ir.block(*stmts))


def positions_kernel(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    *,
    size: Expr,
    count: Expr,
    condition: Callable[[Expr], Expr],
    out: Buffer,
) -> Kernel:
    """``out[count]``: the flat positions below ``size`` where ``condition`` holds, in order."""
    place = ir.local("place", out.dtype, 1)
    stmts: list[Stmt] = [ir.Alloc(place), Store(place, ir.ZERO, ir.ZERO)]

    def look(at: Expr) -> list[Stmt]:
        here = ir.Load(place, ir.ZERO)
        # A count that is too small must not write behind the end.
        take = ir.logical_and(condition(at), here < count)
        found: list[Stmt] = [Store(out, here, at), Reduce(place, ir.ZERO, "add", ir.ONE)]
        return [If(take, ir.block(*found))]

    stmts += emit.loop(size, look)
    return Kernel(name, tuple(params), tuple(scalars), ir.block(*stmts))
