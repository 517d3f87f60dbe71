"""All elements of short rows in order: each goes to as many as come before it.

That takes the square of the row's length in comparisons, but of whole vectors, and no branch.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.dtypes import int32, int64
from graphc.kernels import emit
from graphc.kernels.sort_row import Row
from graphc.loop import ir
from graphc.loop.ir import ZERO, Expr, Load, LoopKind, Reduce, Stmt, Store

LONGEST = 64
"""Of more elements so many comparisons take longer than other sorts."""
_LANES = 16


def rank_sort(row: Row) -> list[Stmt]:
    """Statements that sort one row of at most :data:`LONGEST` elements."""
    values, places, base, columns = row.values, row.places, row.base, row.columns
    dtype = int64 if values.dtype.size == int64.size else int32
    largest = ir.const((1 << (8 * dtype.size - 1)) - 1, dtype)
    keys, rank = ir.local("keys", dtype, LONGEST), ir.local("rank", int32, 1)
    stmts: list[Stmt] = [ir.Alloc(keys), ir.Alloc(rank)]

    def lanes(body: Callable[[Expr], list[Stmt]]) -> list[Stmt]:
        """Over the row and what is behind it in the last vector."""

        def vector(c: Expr) -> list[Stmt]:
            def lane(x: Expr) -> list[Stmt]:
                return body(ir.add(ir.mul(c, _LANES), x))

            return emit.loop(ir.const(_LANES), lane, LoopKind.VECTORIZED)

        return emit.loop(emit.ceil_div(columns, _LANES), vector)

    # Behind the row are keys that come before none.
    stmts += lanes(lambda j: [Store(keys, j, largest)])

    def note(i: Expr) -> list[Stmt]:
        inner: list[Stmt] = []
        key = row.key(inner, i)
        return [*inner, Store(keys, i, key)]

    stmts += emit.loop(columns, note)

    def put(i: Expr) -> list[Stmt]:
        inner: list[Stmt] = [Store(rank, ZERO, ir.const(0, int32))]
        key = emit.let(inner, "key", Load(keys, i))

        def before(j: Expr) -> list[Stmt]:
            other = Load(keys, j)
            tie = ir.logical_and(ir.apply("eq", other, key), j < i)
            first = ir.apply("or", other < key, tie)
            return [Reduce(rank, ZERO, "add", ir.cast(first, int32))]

        inner += lanes(before)
        at = emit.let(inner, "at", ir.add(base, ir.cast(Load(rank, ZERO), int64)))
        place = ir.cast(i, places.dtype)
        return [*inner, Store(values, at, row.element(i)), Store(places, at, place)]

    return [*stmts, *emit.loop(columns, put)]
