"""The gradient of attention row by row, for results that are too narrow to be added up in.

Parts of a row wait in a buffer of the thread, in float32; weights are computed again for each.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.kernels import emit
from graphc.kernels.attention_gradient_problem import AttentionGradient
from graphc.kernels.problem import Indices
from graphc.loop import ir
from graphc.loop.ir import Alloc, Buffer, Expr, Load, Reduce, Stmt, Store

_COLUMNS = 64
"""Columns of a row that are added up at once."""

_Factor = Callable[[list[Stmt], Expr], Expr]


def gradient_rows(
    p: AttentionGradient, number: Expr, batch: Indices, first: Expr, count: Expr
) -> list[Stmt]:
    """What stores the results of one part of the keys: ``count``, from ``first`` on."""
    for_query, for_key, for_value = p.outs

    def weight(out: list[Stmt], i: Expr, j: Expr) -> Expr:
        score = _dot(
            out, p, p.depth, lambda d: p.query(batch, i, d), lambda d: p.key(batch, j, d)
        )
        return emit.let(out, "weight", p.weight(batch, i, j, score))

    def slope(out: list[Stmt], i: Expr, j: Expr) -> Expr:
        found = weight(out, i, j)
        product = _dot(
            out, p, p.width, lambda n: p.grad(batch, i, n), lambda n: p.value(batch, j, n)
        )
        return emit.let(out, "slope", p.slope(batch, i, found, product))

    def query(i: Expr) -> list[Stmt]:
        return _row(
            p, for_query, p.depth, lambda d: p.for_query(number, batch, i, d), count,
            lambda out, k: slope(out, i, ir.add(first, k)),
            lambda k, d: p.key(batch, ir.add(first, k), d),
        )  # fmt: skip

    def key(k: Expr) -> list[Stmt]:
        out: list[Stmt] = []
        j = emit.let(out, "j", ir.add(first, k))
        out += _row(
            p, for_key, p.depth, lambda d: p.for_key(batch, j, d), p.queries,
            lambda out, i: slope(out, i, j), lambda i, d: p.query(batch, i, d),
        )  # fmt: skip
        return out + _row(
            p, for_value, p.width, lambda n: p.for_value(batch, j, n), p.queries,
            lambda out, i: weight(out, i, j), lambda i, n: p.grad(batch, i, n),
        )  # fmt: skip

    return [*emit.loop(p.queries, query), *emit.loop(count, key)]


def _dot(
    out: list[Stmt], p: AttentionGradient, extent: Expr, left: Callable[[Expr], Expr],
    right: Callable[[Expr], Expr],
) -> Expr:  # fmt: skip
    """The sum of products, computed in ``out``."""
    total = ir.local("dot", p.dtype, 1)

    def term(at: Expr) -> list[Stmt]:
        factors = (ir.cast(v(at), p.dtype) for v in (left, right))
        return [Reduce(total, ir.ZERO, "add", ir.mul(*factors))]

    out += [Alloc(total), Store(total, ir.ZERO, ir.const(0, p.dtype)), *emit.loop(extent, term)]
    return Load(total, ir.ZERO)


def _row(
    p: AttentionGradient, into: Buffer, extent: Expr, place: Callable[[Expr], Expr],
    terms: Expr, factor: _Factor, element: Callable[[Expr, Expr], Expr],
) -> list[Stmt]:  # fmt: skip
    """A row of a result: ``element(t, column)`` times ``factor`` of ``t``, summed over ``t``."""

    def part(number: Expr) -> list[Stmt]:
        out: list[Stmt] = []
        start = emit.let(out, "start", ir.mul(number, _COLUMNS))
        columns = emit.let(
            out, "columns", emit.minimum(ir.sub(extent, start), ir.const(_COLUMNS))
        )
        sums = ir.local("sums", p.dtype, _COLUMNS)
        zero = ir.const(0, p.dtype)
        out += [Alloc(sums), *emit.loop(columns, lambda c: [Store(sums, c, zero)])]

        def add(t: Expr) -> list[Stmt]:
            stmts: list[Stmt] = []
            by = factor(stmts, t)

            def one(c: Expr) -> list[Stmt]:
                value = ir.cast(element(t, ir.add(start, c)), p.dtype)
                return [Reduce(sums, c, "add", ir.mul(by, value))]

            return [*stmts, *emit.loop(columns, one)]

        def put(c: Expr) -> list[Stmt]:
            return [Store(into, place(ir.add(start, c)), ir.cast(Load(sums, c), into.dtype))]

        return [*out, *emit.loop(terms, add), *emit.loop(columns, put)]

    return emit.loop(emit.ceil_div(extent, _COLUMNS), part)
