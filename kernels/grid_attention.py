"""Attention on a GPU in one kernel: a block of queries goes over the keys, tile by tile.

Scores are computed as tiles of a product; threads of a row combine what they have by shuffles. The
weights pass through shared memory to be multiplied by the values; what a thread has summed up is
scaled whenever a larger score comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.kernels import emit
from graphc.kernels.attention import Attention
from graphc.kernels.grid_panels import Panel, Side
from graphc.kernels.grid_tiles import Factor, PlainTiles, add_products
from graphc.kernels.problem import Contraction, Indices
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.gpu_grid import GpuTarget, grid_square
from graphc.loop.ir import (
    SHARED_BYTES,
    Alloc,
    AllReduce,
    AsyncCommit,
    AsyncWait,
    Barrier,
    Block,
    Buffer,
    Expr,
    Guard,
    Kernel,
    Load,
    LoopKind,
    Reduce,
    Scope,
    Stmt,
    Store,
    Var,
)

_SIDE = 16  # threads along each side of a tile
_STAGES = 2  # of panels
_SIZES = ((4, 16), (4, 8), (2, 16), (2, 8))  # rows of a thread and keys of a panel of values


def attention_grid(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    problem: Attention,
    target: GpuTarget,
) -> Kernel | None:
    """The kernel; None where matrices are too wide for shared memory."""
    if not known(problem.width):
        return None
    for each, keys in _SIZES:
        made = _Queries(problem, each, keys)
        if sum((known(b.size) or 0) * b.dtype.size for b in made.shared) <= SHARED_BYTES:
            return made.kernel(name, params, scalars, target)
    return None


@dataclass(frozen=True)
class _Weights:
    """The weights of a tile in shared memory: a stage is as many of them as a panel has values."""

    buffer: Buffer
    step: int
    keys: int
    deep: bool = True

    def place(self, stage: Expr, row: Expr, term: Expr) -> Expr:
        """Where an element is."""
        column = ir.add(ir.mul(stage, self.keys), term)
        return ir.add(ir.mul(row, self.step), column)


class _Queries:
    """A block of ``size`` queries, and as many keys at once; a panel of values has ``depth``."""

    def __init__(self, p: Attention, each: int, depth: int) -> None:
        self.p, self.each, self.depth = p, each, depth
        self.size = _SIDE * each
        dtype = p.dtype
        self.scores = PlainTiles(
            Contraction(
                batch=p.batch, m=(p.queries,), n=p.keys, k=(p.depth,), acc=dtype,
                lhs=lambda b, m, k: p.query(b, m[0], k[0]),
                rhs=lambda b, k, n: p.key(b, k[0], n), epilogue=lambda *_: (),
            ),
            each, _STAGES,
        )  # fmt: skip
        self.group = 16 // dtype.size
        step = self.size + self.group
        weights = Buffer("weights", dtype, ir.const(self.size * step), Scope.SHARED)
        self.weights = _Weights(weights, step, depth)
        across = _SIDE * self.group
        width = -(-(known(p.width) or 1) // across) * across
        values = Side((p.width,), (p.keys,), lambda b, r, k: p.value(b, k[0], r[0]))
        self.values = Panel(
            "values", values, (width, depth), len(p.batch), dtype, stages=_STAGES
        )
        self.columns = width // _SIDE
        self.shared = (
            self.scores.left.buffer, self.scores.right.buffer, weights, self.values.buffer
        )  # fmt: skip
        # What a thread has: of its rows, and of the results.
        self.largest, self.now, self.total = (
            ir.local(name, dtype, each) for name in ("largest", "now", "sum")
        )
        self.sums = ir.local("sums", dtype, each * self.columns)

    def kernel(
        self, name: str, params: Sequence[Buffer], scalars: Sequence[Var], target: GpuTarget
    ) -> Kernel:
        """The scheduled kernel."""
        p = self.p
        tiles = emit.ceil_div(p.queries, self.size)

        def item(number: Var, y: Var, x: Var) -> Block:
            out: list[Stmt] = []
            *batch, tile = emit.unflatten(out, number, (*p.batch, tiles))
            return Block((*out, *self.statements(tuple(batch), tile, y, x)))

        count = emit.product((*p.batch, tiles))
        body = grid_square(count, target, (_SIDE, _SIDE), item, self.shared)
        return Kernel(name, tuple(params), tuple(scalars), body)

    def statements(self, batch: Indices, tile: Expr, y: Expr, x: Expr) -> list[Stmt]:
        """What makes a tile of queries' rows of the result."""
        dtype = self.p.dtype
        out: list[Stmt] = [Alloc(b) for b in (self.largest, self.now, self.total, self.sums)]
        thread = emit.let(out, "thread", ir.add(ir.mul(y, _SIDE), x))
        first = emit.let(out, "first", ir.mul(tile, self.size))
        zero, lowest = ir.Const(0, dtype), ir.Const(-float("inf"), dtype)
        for buffer, value in ((self.largest, lowest), (self.total, zero), (self.sums, zero)):
            out += emit.filled(buffer, value)

        def keys(turn: Expr) -> list[Stmt]:
            found = self.scores.sums(batch, tile, turn, thread, (y, x))
            start = emit.let(found, "start", ir.mul(turn, self.size))
            found += _every(ir.const(self.each), self.row(batch, first, start, y, x))
            return [*found, *self.mixed(batch, turn, thread, y, x)]

        out += emit.loop(emit.ceil_div(self.p.keys, self.size), keys)
        return [*out, *self.results(batch, first, y, x)]

    def row(
        self, batch: Indices, first: Expr, start: Expr, y: Expr, x: Expr
    ) -> Callable[[Expr], list[Stmt]]:
        """One of a thread's rows: its scores become weights, what it has so far is scaled."""
        p, each, dtype = self.p, self.each, self.p.dtype
        zero, lowest = ir.Const(0, dtype), ir.Const(-float("inf"), dtype)
        queries, keys = self.scores.factors((y, x))
        scores = self.scores.total

        def one(i: Expr) -> list[Stmt]:
            out: list[Stmt] = []
            at = emit.let(out, "at", queries.at(i))
            m = emit.let(out, "m", ir.add(first, at))

            def score(j: Expr) -> list[Stmt]:
                stmts: list[Stmt] = []
                n = emit.let(stmts, "n", ir.add(start, keys.at(j)))
                place = ir.add(ir.mul(i, each), j)
                inside = ir.logical_and(m < p.queries, n < p.keys)
                value = Guard(inside, p.score(batch, m, n, Load(scores, place)), lowest)
                found = emit.let(stmts, "score", value)
                return [
                    *stmts, Store(scores, place, found), Reduce(self.now, i, "max", found)
                ]  # fmt: skip

            out += [Store(self.now, i, lowest), *_every(ir.const(each), score)]
            out.append(AllReduce(self.now, i, "max"))
            old = emit.let(out, "old", Load(self.largest, i))
            new = emit.let(out, "new", ir.apply("max", old, Load(self.now, i)))
            # Before the first score that counts there is nothing to scale.
            shift = emit.let(out, "shift", ir.select(ir.apply("eq", new, lowest), zero, new))
            factor = emit.let(out, "factor", ir.apply("exp", ir.sub(old, shift)))
            out += [
                Store(self.largest, i, new),
                Store(self.total, i, ir.mul(Load(self.total, i), factor)),
            ]

            def weigh(j: Expr) -> list[Stmt]:
                stmts: list[Stmt] = []
                value = ir.sub(Load(scores, ir.add(ir.mul(i, each), j)), shift)
                weight = emit.let(stmts, "weight", ir.apply("exp", value))
                place = self.weights.place(ir.ZERO, at, keys.at(j))
                put = Store(self.weights.buffer, place, weight)
                return [*stmts, Reduce(self.total, i, "add", weight), put]

            def scale(j: Expr) -> list[Stmt]:
                place = ir.add(ir.mul(i, self.columns), j)
                return [Store(self.sums, place, ir.mul(Load(self.sums, place), factor))]

            out += _every(ir.const(each), weigh)
            return [*out, *_every(ir.const(self.columns), scale)]

        return one

    def mixed(
        self, batch: Indices, tile: Expr, thread: Expr, y: Expr, x: Expr
    ) -> list[Stmt]:
        """The weights of a tile of keys, times the values."""
        parts = self.size // self.depth
        # A thread's rows of the weights are those that it has of the scores.
        queries, _ = self.scores.factors((y, x))
        rows = Factor(self.weights, y, self.each, self.group, queries.at)
        columns = Factor(self.values, x, self.columns, self.group)
        first = ir.mul(tile, parts)

        def fetch(turn: Expr) -> list[Stmt]:
            stage = ir.index_mod(turn, _STAGES)
            part = ir.add(first, turn)
            threads = _SIDE * _SIDE
            return [
                *self.values.fetch(stage, batch, ir.ZERO, part, thread, threads), AsyncCommit()
            ]  # fmt: skip

        def step(turn: Expr) -> list[Stmt]:
            # The barrier is also what the weights wait for.
            stages = turn, ir.index_mod(turn, _STAGES)
            used = add_products(self.sums, rows, columns, stages, self.depth)
            return [AsyncWait(0), Barrier(), *fetch(ir.add(turn, ir.ONE)), *used]

        out = [emit.scope(fetch(ir.ZERO)), *emit.loop(ir.const(parts), step)]
        return [*out, AsyncWait(0), Barrier()]

    def results(self, batch: Indices, first: Expr, y: Expr, x: Expr) -> list[Stmt]:
        """A thread's elements of the result."""
        p = self.p
        queries, _ = self.scores.factors((y, x))
        columns = Factor(self.values, x, self.columns, self.group)

        def row(i: Expr) -> list[Stmt]:
            out: list[Stmt] = [AllReduce(self.total, i, "add")]
            m = emit.let(out, "m", ir.add(first, queries.at(i)))
            kept = p.statistics(batch, m, Load(self.largest, i), Load(self.total, i))
            if kept:
                once = ir.logical_and(m < p.queries, ir.apply("eq", x, ir.ZERO))
                out += emit.where(once, kept)
            one = ir.const(1, p.dtype)
            factor = emit.let(out, "factor", ir.apply("div", one, p.divisor(self.total, i)))

            def element(j: Expr) -> list[Stmt]:
                stmts: list[Stmt] = []
                n = emit.let(stmts, "n", columns.at(j))
                value = ir.mul(Load(self.sums, ir.add(ir.mul(i, self.columns), j)), factor)
                put = Store(p.out, p.place(batch, m, n), ir.cast(value, p.out.dtype))
                inside = ir.logical_and(m < p.queries, n < p.width)
                return [*stmts, *emit.where(inside, [put])]

            return [*out, *_every(ir.const(self.columns), element)]

        return _every(ir.const(self.each), row)


def _every(count: Expr, body: Callable[[Expr], list[Stmt]]) -> list[Stmt]:
    return emit.loop(count, body, LoopKind.UNROLLED)
