"""The gradient of attention as a problem: what templates read, compute and write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.dtypes import DType
from graphc.kernels import emit
from graphc.kernels.problem import Indices, accumulator
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.ir import Buffer, Expr, Stmt

Statistics = tuple[Expr, Expr, Expr]


@dataclass(frozen=True)
class AttentionGradient:
    """The gradients of ``sum over j of weight(b, i, j) * value(b, j, n)``, given ``grad(b, i, n)``.

    ``score(b, i, j, sum)`` is a score, given the sum over ``d`` of ``query(b, i, d) * key(b, j,
    d)``; ``scale`` is its derivative.  ``statistics(b, i)`` are of a query the largest score, the
    logarithm of the sum of exponentials of what is below it, and the sum of its weights times
    their gradients.  The keys are shared out among ``parts`` of ``least`` at least; the three
    places are those in the results: ``for_query(part, b, i, d)``, ``for_key(b, j, d)`` and
    ``for_value(b, j, n)``.
    """

    batch: Indices
    queries: Expr
    keys: Expr
    depth: Expr
    width: Expr
    parts: int
    least: int
    query: Callable[[Indices, Expr, Expr], Expr]
    key: Callable[[Indices, Expr, Expr], Expr]
    value: Callable[[Indices, Expr, Expr], Expr]
    grad: Callable[[Indices, Expr, Expr], Expr]
    score: Callable[[Indices, Expr, Expr, Expr], Expr]
    statistics: Callable[[Indices, Expr], Statistics]
    scale: float
    for_query: Callable[[Expr, Indices, Expr, Expr], Expr]
    for_key: Callable[[Indices, Expr, Expr], Expr]
    for_value: Callable[[Indices, Expr, Expr], Expr]
    outs: tuple[Buffer, Buffer, Buffer]

    @property
    def dtype(self) -> DType:
        """The one that everything is computed in."""
        return accumulator(self.outs[0].dtype)

    def weight(self, batch: Indices, i: Expr, j: Expr, found: Expr) -> Expr:
        """A weight; ``found`` is the sum that its score is made of."""
        statistics = self.statistics(batch, i)
        return self.weighed(self.score(batch, i, j, found), statistics)

    def slope(self, batch: Indices, i: Expr, weight: Expr, product: Expr) -> Expr:
        """The gradient by that sum, ``product`` being the weight's own."""
        return self.differentiated(weight, product, self.statistics(batch, i))

    def weighed(self, score: Expr, statistics: Statistics) -> Expr:
        """The weight of a score."""
        # Rounding puts few of the differences above 0, and those by little.
        largest, log_sum, _ = statistics
        return ir.apply("exp_negative", ir.sub(ir.sub(score, largest), log_sum))

    def differentiated(self, weight: Expr, product: Expr, statistics: Statistics) -> Expr:
        """The gradient by the sum that a weight's score is made of."""
        found = ir.mul(weight, ir.sub(product, statistics[2]))
        return ir.mul(found, ir.const(self.scale, self.dtype))

    def part(self, out: list[Stmt], number: Expr) -> tuple[Expr, Expr]:
        """The first key of a part, and how many it has, declared in ``out``."""
        if self.parts == 1:
            return ir.ZERO, self.keys
        keys = known(self.keys)
        if keys and keys % self.parts == 0 and keys // self.parts >= self.least:
            # Of a known number of keys no block needs to be checked.
            each = ir.const(keys // self.parts)
            return emit.let(out, "first", ir.mul(number, each)), each
        even = emit.ceil_div(self.keys, self.parts)
        step = emit.let(out, "step", ir.apply("max", even, ir.const(self.least)))
        first = emit.let(out, "first", emit.minimum(ir.mul(number, step), self.keys))
        return first, emit.let(out, "count", emit.minimum(step, ir.sub(self.keys, first)))
