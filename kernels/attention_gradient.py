"""The gradient of attention in one kernel: no matrix of scores or weights is ever stored.

A block of queries goes over the keys block by block.  The scores of a block are computed again;
with the logarithm of its row's sum each is a weight at once (Dao, "FlashAttention-2", 2023).  What
a block gives the keys and the values is added to their gradients where these lie, what it gives
the queries to a buffer of the thread.  Weights lie key by key: so all five products have a right
operand whose rows lie in order, but for two that the queries are turned for, once for all keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.dtypes import DType
from graphc.kernels import emit, tiling
from graphc.kernels.attention import MOST_WIDTH
from graphc.kernels.attention_gradient_problem import AttentionGradient
from graphc.kernels.attention_gradient_rows import gradient_rows
from graphc.kernels.panel import one_block
from graphc.kernels.problem import Contraction, Indices, Target, access
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

KEYS = 64
"""Keys of a block."""
QUERIES = 128
"""Queries of a block: its weights, and what is kept of the queries, fit the second cache."""


def attention_gradient_kernel(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    problem: AttentionGradient,
    target: Target,
) -> Kernel:
    """The scheduled kernel; a plain one where matrices are wider than its buffers.

    So it is of 16-bit floats: results that are added up where they lie would be rounded each time.
    """
    widths = [known(e) for e in (problem.depth, problem.width)]
    tiled = all(w is not None and 0 < w <= MOST_WIDTH for w in widths)
    short = problem.outs[0].dtype is not problem.dtype
    space = (ir.const(problem.parts), *problem.batch)

    def item(flat: Expr) -> list[Stmt]:
        out: list[Stmt] = []
        number, *batch = emit.unflatten(out, flat, space)
        first, count = problem.part(out, number)
        at = number, tuple(batch), first, count
        if short:
            return out + gradient_rows(problem, *at)
        work = _cleared_keys(problem, *at[1:])
        if tiled:
            work += _Blocks(problem, target, *at).statements()
        else:
            work += [*_cleared_queries(problem, *at[:2]), *_plain(problem, *at)]
        if problem.parts == 1:
            return out + work
        return out + emit.where(count > 0, work, _cleared_queries(problem, *at[:2]))

    body = emit.loop(emit.product(space), item, LoopKind.PARALLEL)
    return Kernel(name, tuple(params), tuple(scalars), Block(tuple(body)))


def _cleared_keys(
    p: AttentionGradient, batch: Indices, first: Expr, count: Expr
) -> list[Stmt]:
    """Zeros in what the part gives its keys and values."""
    zero = ir.const(0, p.dtype)
    _, for_key, for_value = p.outs

    def key(j: Expr) -> list[Stmt]:
        out: list[Stmt] = []
        at = emit.let(out, "j", ir.add(first, j))
        out += emit.loop(p.depth, lambda d: [Store(for_key, p.for_key(batch, at, d), zero)])
        return out + emit.loop(
            p.width, lambda n: [Store(for_value, p.for_value(batch, at, n), zero)]
        )

    return emit.loop(count, key)


def _cleared_queries(p: AttentionGradient, number: Expr, batch: Indices) -> list[Stmt]:
    """Zeros in what the part gives the queries."""
    zero = ir.const(0, p.dtype)
    return emit.nest(
        (p.queries, p.depth),
        lambda at: [Store(p.outs[0], p.for_query(number, batch, *at), zero)],
    )


def _plain(
    p: AttentionGradient, number: Expr, batch: Indices, first: Expr, count: Expr
) -> list[Stmt]:
    """A part's results, weight after weight."""
    for_query, for_key, for_value = p.outs
    score, product = ir.local("score", p.dtype, 1), ir.local("product", p.dtype, 1)
    zero = ir.const(0, p.dtype)

    def added(into: Buffer, left: _Element, right: _Element) -> Callable[[Expr], list[Stmt]]:
        def term(at: Expr) -> list[Stmt]:
            return [Reduce(into, ir.ZERO, "add", ir.mul(left(at), right(at)))]

        return term

    def one(i: Expr, k: Expr) -> list[Stmt]:
        out: list[Stmt] = []
        j = emit.let(out, "j", ir.add(first, k))
        out += [Store(score, ir.ZERO, zero), Store(product, ir.ZERO, zero)]
        out += emit.loop(
            p.depth, added(score, lambda d: p.query(batch, i, d), lambda d: p.key(batch, j, d))
        )
        out += emit.loop(
            p.width, added(product, lambda n: p.grad(batch, i, n), lambda n: p.value(batch, j, n))
        )
        weight = emit.let(out, "weight", p.weight(batch, i, j, Load(score, ir.ZERO)))
        slope = emit.let(out, "slope", p.slope(batch, i, weight, Load(product, ir.ZERO)))

        def along_depth(d: Expr) -> list[Stmt]:
            for_i, for_j = p.for_query(number, batch, i, d), p.for_key(batch, j, d)
            return [
                Reduce(for_query, for_i, "add", ir.mul(slope, p.key(batch, j, d))),
                Reduce(for_key, for_j, "add", ir.mul(slope, p.query(batch, i, d))),
            ]

        def along_width(n: Expr) -> list[Stmt]:
            value = ir.mul(weight, p.grad(batch, i, n))
            return [Reduce(for_value, p.for_value(batch, j, n), "add", value)]

        return [*out, *emit.loop(p.depth, along_depth), *emit.loop(p.width, along_width)]

    pairs = emit.nest((p.queries, count), lambda at: one(*at))
    return [Alloc(score), Alloc(product), *pairs]


class _Operand:
    """Rows of a block of queries, kept as they are and turned."""

    def __init__(self, name: str, dtype: DType, width: Expr, lanes: int) -> None:
        self.width, self.lanes = width, lanes
        self.step = -(-(known(width) or 0) // lanes) * lanes
        # Rows that are a power of two apart would share the places of few sets of the first cache.
        self.turned_step = QUERIES + lanes
        self.rows = ir.local(name, dtype, QUERIES * self.step)
        self.turned = ir.local(f"{name}_turned", dtype, (known(width) or 0) * self.turned_step)

    def filled(self, rows: Expr, value: Callable[[Expr, Expr], Expr]) -> list[Stmt]:
        """What fetches the rows of a block."""

        def row(i: Expr) -> list[Stmt]:
            first = ir.mul(i, self.step)
            return emit.chunks(
                self.width, self.lanes,
                lambda at, _, mask: emit.where(
                    mask, [Store(self.rows, ir.add(first, at), value(i, at))]
                ),
            )  # fmt: skip

        def column(d: Expr) -> list[Stmt]:
            first = ir.mul(d, self.turned_step)
            return emit.chunks(
                rows, self.lanes,
                lambda at, _, mask: emit.where(
                    mask, [Store(self.turned, ir.add(first, at), self.row(at, d))]
                ),
            )  # fmt: skip

        return [*emit.loop(rows, row), *emit.loop(self.width, column)]

    def row(self, i: Expr, at: Expr) -> Expr:
        """An element of a row."""
        return Load(self.rows, ir.add(ir.mul(i, self.step), at))

    def column(self, at: Expr, i: Expr) -> Expr:
        """The same element, neighbours of other rows beside it."""
        return Load(self.turned, ir.add(ir.mul(at, self.turned_step), i))


class _Blocks:
    """One part of the keys of one batch item."""

    def __init__(
        self, problem: AttentionGradient, target: Target, number: Expr, batch: Indices,
        first: Expr, count: Expr,
    ) -> None:  # fmt: skip
        self.p, self.target = problem, target
        self.number, self.batch, self.first, self.count = number, batch, first, count
        dtype = problem.dtype
        self.lanes = target.vector_bytes // dtype.size
        self.query = _Operand("query", dtype, problem.depth, self.lanes)
        self.grad = _Operand("grad", dtype, problem.width, self.lanes)
        self.step = QUERIES + self.lanes
        self.weights = ir.local("weights", dtype, KEYS * self.step)
        self.sums = ir.local("sums", dtype, QUERIES * self.query.step)

    def statements(self) -> list[Stmt]:
        """What makes the part's results."""
        operands = (self.query, self.grad)
        out: list[Stmt] = [Alloc(b) for each in operands for b in (each.rows, each.turned)]
        out += [Alloc(self.weights), Alloc(self.sums)]
        return out + emit.loop(emit.ceil_div(self.p.queries, QUERIES), self._queries)

    def _queries(self, number: Expr) -> list[Stmt]:
        """A block of queries, and all keys of the part."""
        p, b = self.p, self.batch
        out: list[Stmt] = []
        start = emit.let(out, "start", ir.mul(number, QUERIES))
        rows = emit.let(out, "rows", emit.part_of(p.queries, start, QUERIES))
        out += self.query.filled(rows, lambda i, d: p.query(b, ir.add(start, i), d))
        out += self.grad.filled(rows, lambda i, n: p.grad(b, ir.add(start, i), n))
        zero = ir.const(0, p.dtype)
        out += emit.chunks(
            ir.mul(rows, self.query.step), self.lanes,
            lambda at, _, mask: emit.where(mask, [Store(self.sums, at, zero)]),
        )  # fmt: skip
        blocks = emit.ceil_div(self.count, KEYS)
        out += emit.loop(blocks, lambda block: self._keys(block, start, rows))

        def finished(i: Expr) -> list[Stmt]:
            def element(d: Expr, _: Expr, mask: Expr | None) -> list[Stmt]:
                place = p.for_query(self.number, b, ir.add(start, i), d)
                value = Load(self.sums, ir.add(ir.mul(i, self.query.step), d))
                return emit.where(mask, [Store(p.outs[0], place, value)])

            return emit.chunks(p.depth, self.lanes, element)

        return out + emit.loop(rows, finished)

    def _keys(self, number: Expr, start: Expr, rows: Expr) -> list[Stmt]:
        """A block of keys: its weights, their gradients, and what follows from both."""
        p, b = self.p, self.batch
        out: list[Stmt] = []
        offset = emit.let(out, "offset", ir.mul(number, KEYS))
        count = emit.let(out, "keys", emit.part_of(self.count, offset, KEYS))
        first = emit.let(out, "first", ir.add(self.first, offset))

        def at(j: Expr, i: Expr) -> Expr:
            return ir.add(ir.mul(j, self.step), i)

        def weigh(j: Expr, i: Expr, score: Expr) -> Stmt:
            value = p.weight(b, ir.add(start, i), ir.add(first, j), score)
            return Store(self.weights, at(j, i), value)

        def differentiate(j: Expr, i: Expr, product: Expr) -> Stmt:
            value = p.slope(b, ir.add(start, i), Load(self.weights, at(j, i)), product)
            return Store(self.weights, at(j, i), value)

        def into(out: Buffer, place: Callable[[Expr, Expr], Expr]) -> _Finish:
            def add(row: Expr, n: Expr, value: Expr) -> Stmt:
                found = place(row, n)
                return Store(out, found, ir.add(Load(out, found), value))

            return add

        def key(j: Expr, d: Expr) -> Expr:
            return p.key(b, ir.add(first, j), d)

        def value(j: Expr, n: Expr) -> Expr:
            return p.value(b, ir.add(first, j), n)

        def weight(j: Expr, i: Expr) -> Expr:
            return Load(self.weights, at(j, i))

        _, for_key, for_value = p.outs
        products = (
            (count, rows, p.depth, key, self.query.column, weigh),
            (
                count, p.width, rows, weight, self.grad.row,
                into(for_value, lambda j, n: p.for_value(b, ir.add(first, j), n)),
            ),
            (count, rows, p.width, value, self.grad.column, differentiate),
            (
                count, p.depth, rows, weight, self.query.row,
                into(for_key, lambda j, d: p.for_key(b, ir.add(first, j), d)),
            ),
            (
                rows, p.depth, count, lambda i, j: weight(j, i), key,
                into(self.sums, lambda i, d: ir.add(ir.mul(i, self.query.step), d)),
            ),
        )  # fmt: skip
        return out + [Block(tuple(self._product(*each))) for each in products]

    def _product(
        self, m: Expr, n: Expr, k: Expr, lhs: Callable[[Expr, Expr], Expr],
        rhs: Callable[[Expr, Expr], Expr], finish: _Finish,
    ) -> list[Stmt]:  # fmt: skip
        """A product whose operands are read where they are."""
        problem = Contraction(
            batch=(), m=(m,), n=n, k=(k,), acc=self.p.dtype,
            lhs=lambda _, m, k: lhs(m[0], k[0]), rhs=lambda _, k, n: rhs(k[0], n),
            epilogue=lambda _, m, n, value: (finish(m[0], n, value),),
        )  # fmt: skip
        schedule = tiling.as_one_block(
            problem, access(problem), self.target, QUERIES, QUERIES, pack=False
        )
        return one_block(problem, (), schedule)


_Element = Callable[[Expr], Expr]
_Finish = Callable[[Expr, Expr, Expr], Stmt]
