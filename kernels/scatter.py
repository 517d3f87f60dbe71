"""Sums of rows by row number: the gradient of a lookup."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.kernels import emit
from graphc.loop import ir
from graphc.loop.ir import Buffer, Expr, If, Kernel, LoopKind, Reduce, Stmt, Store, Var

COLUMNS = 256
"""Columns of one chunk of work: a row of a chunk is a few cache lines, and threads share none."""
PARTS = 8
"""Into how many parts rows are divided at most: each of them goes through all of the numbers."""
LANES = 16
"""Columns of a vector, and those that are worth a part: of narrower rows, the numbers take longer
than the sums."""
WORTH = 1 << 15
"""Elements of the result that are worth a part."""


def scatter_add_kernel(
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
) -> Kernel:
    """``out[rows, columns]``, zero but for ``update(i, column)`` added to row ``index(i)``.

    Every part of the rows and chunk of columns is worked on alone, and in it the rows are added in
    the order of ``i``: the sums are the same with any number of threads.  Rows out of range are
    left out.
    """
    worth = emit.minimum(
        emit.ceil_div(ir.mul(rows, columns), WORTH), ir.index_div(columns, ir.const(LANES))
    )
    parts = emit.minimum(emit.maximum(worth, ir.ONE), ir.const(PARTS))
    chunks = emit.ceil_div(columns, COLUMNS)

    def piece(flat: Expr) -> list[Stmt]:
        stmts: list[Stmt] = []
        part, chunk = emit.unflatten(stmts, flat, (parts, chunks))
        begin = emit.let(stmts, "begin", ir.index_div(ir.mul(part, rows), parts))
        end = emit.let(stmts, "end", ir.index_div(ir.mul(part + 1, rows), parts))
        first = emit.let(stmts, "first", ir.mul(chunk, COLUMNS))
        width = emit.let(stmts, "width", emit.part_of(columns, first, COLUMNS))

        def across(row: Expr, body: Callable[[Expr, Expr], Stmt]) -> list[Stmt]:
            start = ir.add(ir.mul(row, columns), first)
            return _row(width, lambda c: [body(ir.add(start, c), ir.add(first, c))])

        def add(i: Expr) -> list[Stmt]:
            body: list[Stmt] = []
            row = emit.let(body, "row", ir.cast(index(i), ir.ZERO.dtype))

            def one(place: Expr, column: Expr) -> Stmt:
                return Reduce(out, place, "add", ir.cast(update(i, column), out.dtype))

            inside = ir.logical_and(row >= begin, row < end)
            return [*body, If(inside, ir.block(*across(row, one)))]

        zero, here = ir.Const(0, out.dtype), emit.let(stmts, "here", ir.sub(end, begin))
        if emit.is_const(chunks, 1):
            # Rows lie one behind the other.
            place = emit.let(stmts, "place", ir.mul(begin, columns))
            clear = _row(ir.mul(here, columns), lambda at: [Store(out, ir.add(place, at), zero)])
        else:
            clear = emit.loop(
                here, lambda r: across(ir.add(begin, r), lambda at, _: Store(out, at, zero))
            )
        return [*stmts, *clear, *emit.loop(count, add)]

    body = emit.loop(ir.mul(parts, chunks), piece, LoopKind.PARALLEL)
    return Kernel(name, tuple(params), tuple(scalars), ir.block(*body))


def _row(width: Expr, body: Callable[[Expr], list[Stmt]]) -> list[Stmt]:
    """Vectors along a row, then narrower ones.

    None has a mask: what one has stored could not be forwarded to the next sum of the same row.
    """
    stmts: list[Stmt] = []
    done: Expr = ir.ZERO
    for lanes in (LANES, LANES // 4, 1):
        rest = ir.sub(width, done)
        count = ir.index_div(rest, ir.const(lanes))

        def vector(c: Expr, lanes: int = lanes, done: Expr = done) -> list[Stmt]:
            start = ir.add(done, ir.mul(c, lanes))
            if lanes == 1:
                return body(start)
            return emit.loop(ir.const(lanes), lambda x: body(ir.add(start, x)), LoopKind.VECTORIZED)

        stmts += emit.loop(count, vector)
        done = ir.add(done, ir.mul(count, lanes))
    return stmts


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
