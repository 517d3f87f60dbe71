"""The two sides of the gradient of attention on a GPU: blocks of queries, and blocks of keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.kernels.attention_gradient_problem import AttentionGradient, Statistics
from graphc.kernels.problem import Indices
from graphc.loop import ir
from graphc.loop.ir import Buffer, Expr, Stmt, Var

Element = Callable[[Indices, Expr, Expr], Expr]


@dataclass(frozen=True)
class Sides:
    """The rows that blocks of threads have, and the columns that these go over.

    One of both are queries, the others keys.  Scores are made of sums over the ``depth`` of two
    operands, the gradients of weights are sums over the ``width`` of two others.  The first batch
    index is the first of the columns; ``score(b, r, c, sum)`` is a score, ``statistics(b, query)``
    are those of a row or a column.  Results: where there are two, the last is made of the weights.
    """

    problem: AttentionGradient
    space: Indices
    rows: Expr
    columns: Expr
    rows_are_queries: bool
    lefts: tuple[Element, Element]
    rights: tuple[Element, Element]
    score: Callable[[Indices, Expr, Expr, Expr], Expr]
    statistics: Callable[[Indices, Expr], Statistics]
    results: tuple[tuple[Buffer, Element], ...]
    begin: Callable[[list[Stmt], Indices], Indices]

    def weight(self, batch: Indices, r: Expr, c: Expr, found: Expr) -> Expr:
        """A weight; ``found`` is the sum that its score is made of."""
        statistics = self.statistics(batch, r if self.rows_are_queries else c)
        return self.problem.weighed(self.score(batch, r, c, found), statistics)

    def slope(self, batch: Indices, r: Expr, c: Expr, weight: Expr, product: Expr) -> Expr:
        """The gradient by that sum, ``product`` being the weight's own."""
        statistics = self.statistics(batch, r if self.rows_are_queries else c)
        return self.problem.differentiated(weight, product, statistics)


def of_queries(p: AttentionGradient) -> Sides:
    """Blocks of queries, for each part of the keys."""
    columns = p.keys if p.parts == 1 else Var("count")

    def begin(out: list[Stmt], at: Indices) -> Indices:
        first, count = p.part(out, at[0])
        if isinstance(columns, Var) and p.parts > 1:
            out.append(ir.Let(columns, count))
        return (first, *at)

    return Sides(
        p, (ir.const(p.parts), *p.batch), p.queries, columns, True,
        (lambda b, i, d: p.query(b[2:], i, d), lambda b, i, n: p.grad(b[2:], i, n)),
        (
            lambda b, j, d: p.key(b[2:], ir.add(b[0], j), d),
            lambda b, j, n: p.value(b[2:], ir.add(b[0], j), n),
        ),
        lambda b, i, j, found: p.score(b[2:], i, ir.add(b[0], j), found),
        lambda b, i: p.statistics(b[2:], i),
        ((p.outs[0], lambda b, i, d: p.for_query(b[1], b[2:], i, d)),), begin,
    )  # fmt: skip


def of_keys(p: AttentionGradient) -> Sides:
    """Blocks of keys, all queries."""
    return Sides(
        p, p.batch, p.keys, p.queries, False, (p.key, p.value), (p.query, p.grad),
        lambda b, j, i, found: p.score(b, i, j, found), p.statistics,
        ((p.outs[1], p.for_key), (p.outs[2], p.for_value)), lambda _, at: at,
    )  # fmt: skip
