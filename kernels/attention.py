"""Attention in one kernel: the matrix of scores is never stored.

A block of queries goes over the keys block by block.  The scores of a block, the largest score of
every row so far, the sum of the exponentials and the weighted sum of the values stay in buffers of
the thread; what has been summed up is scaled whenever a larger score comes (Milakov and
Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.dtypes import DType
from graphc.kernels import emit, tiling
from graphc.kernels.panel import one_block
from graphc.kernels.problem import Contraction, Indices, Target, access, accumulator
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.ir import (
    Alloc,
    Block,
    Buffer,
    Expr,
    Kernel,
    Load,
    LoopKind,
    Reduce,
    Stmt,
    Store,
    Var,
)

ROWS = 64
"""Queries of a block."""
COLUMNS = 256
"""Keys of a block: its scores and the keys themselves fit the second cache."""
MOST_WIDTH = 256
"""Columns of queries and of values that buffers are made for."""
VECTORS = 4
"""Vectors of a row that are worked on at once: exponentials wait for each other otherwise."""


@dataclass(frozen=True)
class Attention:
    """``out[b, i, n] = sum over j of softmax over j of score(b, i, j, sum over d of query(b, i, d)
    * key(b, d, j)) * value(b, j, n)``.

    ``depth`` and ``width`` are the extents of ``d`` and ``n``, ``read`` the dtype of the query, the
    key and the value; ``place(b, i, n)`` is where in ``out`` an element of the result is.
    ``keep(b, i, largest, log_sum)``, if given, stores a row's largest score and the logarithm of
    the sum of exponentials of what is below it.
    """

    batch: Indices
    queries: Expr
    keys: Expr
    depth: Expr
    width: Expr
    query: Callable[[Indices, Expr, Expr], Expr]
    key: Callable[[Indices, Expr, Expr], Expr]
    value: Callable[[Indices, Expr, Expr], Expr]
    score: Callable[[Indices, Expr, Expr, Expr], Expr]
    place: Callable[[Indices, Expr, Expr], Expr]
    read: DType
    out: Buffer
    keep: Callable[[Indices, Expr, Expr, Expr], list[Stmt]] | None = None

    @property
    def dtype(self) -> DType:
        """The one that scores, weights and sums are computed in."""
        return accumulator(self.read)

    def statistics(self, batch: Indices, row: Expr, largest: Expr, total: Expr) -> list[Stmt]:
        """What stores a row's largest score and the logarithm of its sum, if they are asked for.

        Added up they would lose the latter where scores are large.
        """
        return [] if self.keep is None else self.keep(batch, row, largest, ir.apply("log", total))

    def divisor(self, total: Buffer, at: Expr) -> Expr:
        """The sum of a row's weights; no keys have no weights, and give zeros."""
        keys, found = known(self.keys), Load(total, at)
        if keys is not None:
            return found if keys else ir.const(1, self.dtype)
        return ir.select(ir.apply("eq", self.keys, ir.ZERO), ir.const(1, self.dtype), found)


def attention_kernel(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    problem: Attention,
    target: Target,
) -> Kernel:
    """The scheduled kernel; a plain one where matrices are wider than its buffers."""
    widths = [known(e) for e in (problem.depth, problem.width)]
    tiled = all(w is not None and 0 < w <= MOST_WIDTH for w in widths)
    rows = emit.ceil_div(problem.queries, ROWS) if tiled else problem.queries
    space = (*problem.batch, rows)

    def block(flat: Expr) -> list[Stmt]:
        out: list[Stmt] = []
        *batch, number = emit.unflatten(out, flat, space)
        if tiled:
            return out + _Rows(problem, target, tuple(batch), number).statements()
        return out + one_row(problem, tuple(batch), number)

    body = emit.loop(emit.product(space), block, LoopKind.PARALLEL)
    return Kernel(name, tuple(params), tuple(scalars), Block(tuple(body)))


def one_row(p: Attention, batch: Indices, row: Expr) -> list[Stmt]:
    """A row of the result, the scores computed for their maximum and once more."""
    out: list[Stmt] = []
    dtype = p.dtype
    best, total, dot = (ir.local(name, dtype, 1) for name in ("best", "total", "dot"))
    zero = ir.const(0, dtype)

    def score(j: Expr) -> list[Stmt]:
        stmts: list[Stmt] = [Store(dot, ir.ZERO, zero)]

        def product(d: Expr) -> list[Stmt]:
            both = p.query(batch, row, d), p.key(batch, d, j)
            value = ir.mul(*(ir.cast(v, dtype) for v in both))
            return [Reduce(dot, ir.ZERO, "add", value)]

        return stmts + emit.loop(p.depth, product)

    def found(j: Expr) -> Expr:
        return p.score(batch, row, j, Load(dot, ir.ZERO))

    lowest = ir.const(-float("inf"), dtype)
    largest = Load(best, ir.ZERO)
    shift = ir.select(ir.apply("eq", largest, lowest), zero, largest)

    def weigh(j: Expr) -> tuple[list[Stmt], Expr]:
        stmts = score(j)
        shifted = ir.sub(found(j), shift)
        weight = emit.let(stmts, "weight", ir.apply("exp_negative", shifted))
        return [*stmts, Reduce(total, ir.ZERO, "add", weight)], weight

    def mix(j: Expr) -> list[Stmt]:
        stmts, weight = weigh(j)

        def add(n: Expr) -> list[Stmt]:
            value = ir.mul(weight, ir.cast(p.value(batch, j, n), dtype))
            return [Reduce(p.out, p.place(batch, row, n), "add", value)]

        return stmts + emit.loop(p.width, add)

    def scaled(n: Expr) -> list[Stmt]:
        place = p.place(batch, row, n)
        return [Store(p.out, place, ir.apply("div", Load(p.out, place), p.divisor(total, ir.ZERO)))]

    def column(n: Expr) -> list[Stmt]:
        # Sums of 16 bits would be rounded at every key.
        mixed = ir.local("mixed", dtype, 1)

        def add(j: Expr) -> list[Stmt]:
            stmts, weight = weigh(j)
            value = ir.mul(weight, ir.cast(p.value(batch, j, n), dtype))
            return [*stmts, Reduce(mixed, ir.ZERO, "add", value)]

        stmts = [Alloc(mixed), *(Store(b, ir.ZERO, zero) for b in (mixed, total))]
        stmts += emit.loop(p.keys, add)
        value = ir.apply("div", Load(mixed, ir.ZERO), p.divisor(total, ir.ZERO))
        return [*stmts, Store(p.out, p.place(batch, row, n), ir.cast(value, p.out.dtype))]

    out += [Alloc(best), Alloc(total), Alloc(dot), Store(total, ir.ZERO, zero)]
    out.append(Store(best, ir.ZERO, lowest))
    out += emit.loop(p.keys, lambda j: [*score(j), Reduce(best, ir.ZERO, "max", found(j))])
    if p.out.dtype is not dtype:
        out += emit.loop(p.width, column)
        if p.keep is None:
            return out
        out += [Store(total, ir.ZERO, zero), *emit.loop(p.keys, lambda j: weigh(j)[0])]
        return out + p.statistics(batch, row, largest, Load(total, ir.ZERO))
    out += emit.loop(p.width, lambda n: [Store(p.out, p.place(batch, row, n), zero)])
    out += emit.loop(p.keys, mix)
    out += emit.loop(p.width, scaled)
    return out + p.statistics(batch, row, largest, Load(total, ir.ZERO))


class _Rows:
    """A block of queries."""

    def __init__(self, problem: Attention, target: Target, batch: Indices, number: Expr) -> None:
        self.p, self.target, self.batch = problem, target, batch
        self.first = ir.mul(number, ROWS)
        self.rows = emit.part_of(problem.queries, self.first, ROWS)
        self.lanes = target.vector_bytes // problem.dtype.size
        dtype, lanes = problem.dtype, self.lanes
        self.stride = -(-(known(problem.width) or 0) // lanes) * lanes
        self.scores = ir.local("scores", dtype, ROWS * COLUMNS)
        self.sums = ir.local("sums", dtype, ROWS * self.stride)
        self.largest = ir.local("largest", dtype, ROWS)
        self.total = ir.local("total", dtype, ROWS)

    def statements(self) -> list[Stmt]:
        """What makes the block's rows of the result."""
        out: list[Stmt] = []
        dtype = self.p.dtype
        self.first = emit.let(out, "first", self.first)
        self.rows = emit.let(out, "rows", self.rows)
        out += [Alloc(b) for b in (self.scores, self.sums, self.largest, self.total)]
        out += self._filled(self.largest, ROWS, ir.const(-float("inf"), dtype))
        out += self._filled(self.total, ROWS, ir.const(0, dtype))
        out += self._filled(self.sums, ROWS * self.stride, ir.const(0, dtype))
        out += emit.loop(emit.ceil_div(self.p.keys, COLUMNS), self._keys)
        return out + emit.loop(self.rows, self._finished)

    def _filled(self, buffer: Buffer, count: int, value: Expr) -> list[Stmt]:
        return emit.chunks(
            ir.const(count), self.lanes,
            lambda at, _, mask: emit.where(mask, [Store(buffer, at, value)]),
        )  # fmt: skip

    def _keys(self, number: Expr) -> list[Stmt]:
        """A block of keys: its scores, their weights, the values."""
        out: list[Stmt] = []
        start = emit.let(out, "start", ir.mul(number, COLUMNS))
        columns = emit.let(out, "columns", emit.part_of(self.p.keys, start, COLUMNS))
        out.append(Block(tuple(self._products(start, columns))))
        out += emit.loop(self.rows, lambda row: self._weights(row, columns))
        out.append(Block(tuple(self._values(start, columns))))
        return out

    def _products(self, start: Expr, columns: Expr) -> list[Stmt]:
        p, b = self.p, self.batch

        def epilogue(_: Indices, m: Indices, n: Expr, value: Expr) -> tuple[Stmt, ...]:
            at = ir.add(ir.mul(m[0], COLUMNS), n)
            score = p.score(b, ir.add(self.first, m[0]), ir.add(start, n), value)
            return (Store(self.scores, at, score),)

        return self._block(
            Contraction(
                batch=(), m=(self.rows,), n=columns, k=(p.depth,), acc=p.dtype,
                lhs=lambda _, m, k: p.query(b, ir.add(self.first, m[0]), k[0]),
                rhs=lambda _, k, n: p.key(b, k[0], ir.add(start, n)),
                epilogue=epilogue,
            ),
            pack=True,
        )  # fmt: skip

    def _values(self, start: Expr, columns: Expr) -> list[Stmt]:
        p, b = self.p, self.batch

        def epilogue(_: Indices, m: Indices, n: Expr, value: Expr) -> tuple[Stmt, ...]:
            at = ir.add(ir.mul(m[0], self.stride), n)
            return (Store(self.sums, at, ir.add(Load(self.sums, at), value)),)

        return self._block(
            Contraction(
                batch=(), m=(self.rows,), n=p.width, k=(columns,), acc=p.dtype,
                lhs=lambda _, m, k: Load(self.scores, ir.add(ir.mul(m[0], COLUMNS), k[0])),
                rhs=lambda _, k, n: p.value(b, ir.add(start, k[0]), n),
                epilogue=epilogue,
            ),
            pack=False,
        )  # fmt: skip

    def _block(self, problem: Contraction, pack: bool) -> list[Stmt]:
        """A product as one block, its operands' panels packed or read where they are."""
        schedule = tiling.as_one_block(
            problem, access(problem), self.target, ROWS, COLUMNS, pack
        )
        return one_block(problem, (), schedule)

    def _weights(self, row: Expr, columns: Expr) -> list[Stmt]:
        """The scores of a row as exponentials; what the row has so far, scaled."""
        out: list[Stmt] = []
        dtype = self.p.dtype
        zero, lowest = ir.const(0, dtype), ir.const(-float("inf"), dtype)
        base = emit.let(out, "base", ir.mul(row, COLUMNS))
        best, total = ir.local("best", dtype, 1), ir.local("weight", dtype, 1)
        old = emit.let(out, "old", Load(self.largest, row))
        out += [Alloc(best), Store(best, ir.ZERO, old)]
        out += self._reduced(
            best, "max", lowest, columns,
            lambda at: ([], Load(self.scores, ir.add(base, at))),
        )  # fmt: skip
        new = emit.let(out, "new", Load(best, ir.ZERO))
        # Before the first score that counts there is nothing to scale.
        shift = emit.let(out, "shift", ir.select(ir.apply("eq", new, lowest), zero, new))
        factor = emit.let(out, "factor", ir.apply("exp_negative", ir.sub(old, shift)))
        out += [Alloc(total), Store(total, ir.ZERO, zero)]

        def weight(at: Expr) -> tuple[list[Stmt], Expr]:
            stmts: list[Stmt] = []
            place = ir.add(base, at)
            value = ir.apply("exp_negative", ir.sub(Load(self.scores, place), shift))
            found = emit.let(stmts, "weight", value)
            return [*stmts, Store(self.scores, place, found)], found

        out += self._reduced(total, "add", zero, columns, weight)
        scaled = ir.add(ir.mul(Load(self.total, row), factor), Load(total, ir.ZERO))
        out += [Store(self.total, row, scaled), Store(self.largest, row, new)]
        first = ir.mul(row, self.stride)

        def scale(at: Expr, _: Expr, __: Expr | None) -> list[Stmt]:
            place = ir.add(first, at)
            return [Store(self.sums, place, ir.mul(Load(self.sums, place), factor))]

        return out + emit.chunks(ir.const(self.stride), self.lanes, scale)

    def _reduced(
        self, into: Buffer, op: str, identity: Expr, columns: Expr,
        element: Callable[[Expr], tuple[list[Stmt], Expr]],
    ) -> list[Stmt]:  # fmt: skip
        """Combine the elements of a row: lanes by themselves first."""
        width = self.lanes * VECTORS
        parts = ir.local("parts", self.p.dtype, width)

        def lanes(body: Callable[[Expr], list[Stmt]]) -> list[Stmt]:
            return emit.loop(ir.const(width), body, LoopKind.VECTORIZED)

        def combine(at: Expr, lane: Expr, mask: Expr | None) -> list[Stmt]:
            stmts, value = element(at)
            return emit.where(mask, [*stmts, Reduce(parts, lane, op, value)])

        out: list[Stmt] = [Alloc(parts), *lanes(lambda lane: [Store(parts, lane, identity)])]
        out += emit.chunks(columns, width, combine)
        return [*out, *lanes(lambda lane: [Reduce(into, ir.ZERO, op, Load(parts, lane))])]

    def _finished(self, row: Expr) -> list[Stmt]:
        """A row of the result."""
        out: list[Stmt] = []
        one = ir.const(1, self.p.dtype)
        factor = emit.let(out, "factor", ir.apply("div", one, self.p.divisor(self.total, row)))
        first = ir.mul(row, self.stride)

        def element(n: Expr, _: Expr, mask: Expr | None) -> list[Stmt]:
            value = ir.mul(Load(self.sums, ir.add(first, n)), factor)
            at = ir.add(self.first, row)
            found = ir.cast(value, self.p.out.dtype)
            return emit.where(mask, [Store(self.p.out, self.p.place(self.batch, at, n), found)])

        width = known(self.p.width) or 1
        lanes = min(self.lanes, 1 << (width - 1).bit_length())
        out += emit.chunks(self.p.width, lanes, element)
        found = Load(self.largest, row), Load(self.total, row)
        return out + self.p.statistics(self.batch, ir.add(self.first, row), *found)
