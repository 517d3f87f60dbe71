"""Attention of 16-bit floats on tensor cores: warps of 16 queries go over the keys, tile by tile.

Both products are of warps, with sums of 32 bits. The four threads that share a row of the scores
combine what they have by shuffles. The scores of a tile, where they are, become the weights that
the second product is given: they pass through no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.kernels import emit
from graphc.kernels.attention import Attention
from graphc.kernels.grid_panels import Panel, Side
from graphc.kernels.grid_tensor import LEAST_ARCH
from graphc.kernels.problem import Indices
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.affine import multiple_of
from graphc.loop.gpu_grid import GpuTarget, grid_square
from graphc.loop.ir import (
    PRODUCTS,
    SHARED_BYTES,
    WARP,
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
    Stmt,
    Store,
    Var,
    WarpProduct,
)

_SIZES = ((64, 64), (64, 32), (64, 16), (32, 16))
"""Queries of a block and keys of a tile, what is faster first."""
_ROWS = 16  # queries of a warp
_QUAD = 4  # threads that share a row of a product's sums
_HALVES = 2  # rows that a thread has of them
MOST_WIDTH = 256
"""Columns of queries and of values that there are registers for."""


def attention_tensor_grid(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    problem: Attention,
    target: GpuTarget,
) -> Kernel | None:
    """The kernel; None where tensor cores are not there, or not for these dtypes and widths."""
    dtype, widths = problem.read, (known(problem.depth), known(problem.width))
    if target.capability < LEAST_ARCH or dtype.size != 2:
        return None
    if PRODUCTS.get((dtype, dtype)) is not problem.dtype:
        return None
    if not all(w is not None and 0 < w <= MOST_WIDTH for w in widths):
        return None
    for queries, keys in _SIZES:
        made = _Warps(problem, queries, keys)
        if sum(p.size * dtype.size for p in made.panels) <= SHARED_BYTES:
            return made.kernel(name, params, scalars, target)
    return None


class _Warps:
    """A block of ``queries``, 16 for each warp, and tiles of ``keys``.

    Attributes:
      panels: the queries, and a tile of keys and of values.
      scores: what a thread holds of a tile's scores.
      weights: the same, as weights of 16 bits.
      sums: what it holds of the result.
      totals: what it holds of the sums of its rows' weights.
    """

    def __init__(self, p: Attention, queries: int, keys: int) -> None:
        self.p, self.queries, self.keys = p, queries, keys
        self.depth, self.width = (-(-(known(e) or 0) // 16) * 16 for e in (p.depth, p.width))
        self.threads = queries // _ROWS * WARP
        sides = (
            ("queries", (p.queries,), (p.depth,), (queries, self.depth),
             lambda b, r, k: p.query(b, r[0], k[0])),
            ("keys", (p.keys,), (p.depth,), (keys, self.depth),
             lambda b, r, k: p.key(b, k[0], r[0])),
            ("values", (p.width,), (p.keys,), (self.width, keys),
             lambda b, r, k: p.value(b, k[0], r[0])),
        )  # fmt: skip
        self.panels = [
            Panel(name, Side(rows, depth, value), shape, len(p.batch), p.read, stages=1)
            for name, rows, depth, shape, value in sides
        ]
        held = _ROWS * keys // WARP
        self.scores = ir.local("scores", p.dtype, held)
        self.weights = ir.local("weights", p.read, held)
        self.sums = ir.local("sums", p.dtype, _ROWS * self.width // WARP)
        self.largest, self.now, self.total, self.exact = (
            ir.local(name, p.dtype, _HALVES) for name in ("largest", "now", "sum", "exact")
        )
        # Statistics are of weights that no rounding has touched.
        self.totals = [self.total] if p.keep is None else [self.total, self.exact]

    def kernel(
        self, name: str, params: Sequence[Buffer], scalars: Sequence[Var], target: GpuTarget
    ) -> Kernel:
        """The scheduled kernel."""
        p = self.p
        space = (*p.batch, emit.ceil_div(p.queries, self.queries))

        def item(number: Var, y: Var, x: Var) -> Block:
            out: list[Stmt] = []
            *batch, tile = emit.unflatten(out, number, space)
            return Block((*out, *self.statements(tuple(batch), tile, y, x)))

        shape = (self.threads // _QUAD, _QUAD)
        shared = [panel.buffer for panel in self.panels]
        body = grid_square(emit.product(space), target, shape, item, shared)
        return Kernel(name, tuple(params), tuple(scalars), body)

    def statements(self, batch: Indices, tile: Expr, y: Expr, x: Expr) -> list[Stmt]:
        """What makes a tile of queries' rows of the result."""
        dtype = self.p.dtype
        every = (
            self.largest, self.now, *self.totals, self.scores, self.weights, self.sums
        )  # fmt: skip
        out: list[Stmt] = [Alloc(b) for b in every]
        thread = emit.let(out, "thread", ir.add(ir.mul(y, _QUAD), x))
        top = emit.let(out, "top", ir.mul(ir.index_div(y, WARP // _QUAD), _ROWS))
        row = ir.add(ir.add(ir.mul(tile, self.queries), top), ir.index_mod(y, WARP // _QUAD))
        row = emit.let(out, "row", row)
        zero, lowest = ir.Const(0, dtype), ir.Const(-float("inf"), dtype)
        out += emit.filled(self.largest, lowest)
        for buffer in (*self.totals, self.sums):
            out += emit.filled(buffer, zero)
        queries, keys, values = self.panels

        def fetch(panel: Panel, rows: Expr, turn: Expr) -> list[Stmt]:
            return panel.fetch(ir.ZERO, batch, rows, turn, thread, self.threads)

        def step(turn: Expr) -> list[Stmt]:
            # Behind the first barrier nobody reads the values any more, behind the second the keys.
            return [
                AsyncWait(0), Barrier(), *fetch(values, ir.ZERO, turn), AsyncCommit(),
                *self.products(top), *self.weighed(batch, row, ir.mul(turn, self.keys), x),
                AsyncWait(0), Barrier(), *fetch(keys, ir.add(turn, ir.ONE), ir.ZERO),
                AsyncCommit(), self.mixed(),
            ]  # fmt: skip

        first = [*fetch(queries, tile, ir.ZERO), *fetch(keys, ir.ZERO, ir.ZERO), AsyncCommit()]
        out += [emit.scope(first), *emit.loop(emit.ceil_div(self.p.keys, self.keys), step)]
        # The next tile's queries come where these are.
        return [*out, AsyncWait(0), Barrier(), *self.results(batch, row, x)]

    def products(self, top: Expr) -> list[Stmt]:
        """A warp's queries times a tile of keys."""
        queries, keys, _ = self.panels
        left = Load(queries.buffer, queries.place(ir.ZERO, top, ir.ZERO))
        right = Load(keys.buffer, ir.ZERO)
        by_key, by_term = keys.steps
        shape = (_ROWS, self.keys, self.depth)
        product = WarpProduct(self.scores, left, right, queries.steps, (by_term, by_key), shape)
        return [*emit.filled(self.scores, ir.Const(0, self.p.dtype)), product]

    def mixed(self) -> Stmt:
        """The weights of a tile times its values."""
        values = self.panels[2]
        left, right = Load(self.weights, ir.ZERO), Load(values.buffer, ir.ZERO)
        by_column, by_key = values.steps
        shape = (_ROWS, self.width, self.keys)
        return WarpProduct(self.sums, left, right, (0, 0), (by_key, by_column), shape)

    def weighed(self, batch: Indices, row: Expr, start: Expr, x: Expr) -> list[Stmt]:
        """The scores of a tile become weights; what a thread has so far is scaled."""
        p, dtype, out = self.p, self.p.dtype, list[Stmt]()
        start = emit.let(out, "start", start)
        zero, lowest = ir.Const(0, dtype), ir.Const(-float("inf"), dtype)

        def half(h: Expr) -> list[Stmt]:
            stmts: list[Stmt] = []
            m = emit.let(stmts, "m", ir.add(row, ir.mul(h, _ROWS // 2)))

            def score(number: Expr, column: Expr) -> list[Stmt]:
                found: list[Stmt] = []
                n = emit.let(found, "n", ir.add(start, column))
                value = self.inside(m, n, p.score(batch, m, n, Load(self.scores, number)))
                value = emit.let(found, "score", value)
                kept = Store(self.scores, number, value)
                return [*found, kept, Reduce(self.now, h, "max", value)]

            stmts += [Store(self.now, h, lowest), *_pairs(self.keys, h, x, score)]
            stmts.append(AllReduce(self.now, h, "max"))
            old = emit.let(stmts, "old", Load(self.largest, h))
            new = emit.let(stmts, "new", ir.apply("max", old, Load(self.now, h)))
            # Before the first score that counts there is nothing to scale.
            shift = emit.let(stmts, "shift", ir.select(ir.apply("eq", new, lowest), zero, new))
            factor = emit.let(stmts, "factor", ir.apply("exp_negative", ir.sub(old, shift)))
            stmts.append(Store(self.largest, h, new))
            stmts += [Store(t, h, ir.mul(Load(t, h), factor)) for t in self.totals]

            def weigh(number: Expr, _: Expr) -> list[Stmt]:
                found: list[Stmt] = []
                value = ir.apply("exp_negative", ir.sub(Load(self.scores, number), shift))
                if p.keep is not None:
                    value = emit.let(found, "value", value)
                    found.append(Reduce(self.exact, h, "add", value))
                weight = emit.let(found, "weight", ir.cast(value, p.read))
                # Weights that are divided by the sum of what they were rounded to sum up to 1.
                rounded = ir.cast(weight, dtype)
                kept = Store(self.weights, number, weight)
                return [*found, kept, Reduce(self.total, h, "add", rounded)]

            def scale(number: Expr, _: Expr) -> list[Stmt]:
                return [Store(self.sums, number, ir.mul(Load(self.sums, number), factor))]

            stmts += _pairs(self.width, h, x, scale)
            return stmts + _pairs(self.keys, h, x, weigh)

        return out + emit.loop(ir.const(_HALVES), half, LoopKind.UNROLLED)

    def inside(self, m: Expr, n: Expr, value: Expr) -> Expr:
        """A score; one that there is none of counts as the lowest."""
        p = self.p
        cond: Expr = ir.TRUE
        for at, extent, size in ((m, p.queries, self.queries), (n, p.keys, self.keys)):
            if not multiple_of(extent, size):
                cond = ir.logical_and(cond, at < extent)
        lowest = ir.Const(-float("inf"), p.dtype)
        return value if cond is ir.TRUE else Guard(cond, value, lowest)

    def results(self, batch: Indices, row: Expr, x: Expr) -> list[Stmt]:
        """A thread's elements of the result."""
        p = self.p

        def half(h: Expr) -> list[Stmt]:
            out: list[Stmt] = [AllReduce(total, h, "add") for total in self.totals]
            m = emit.let(out, "m", ir.add(row, ir.mul(h, _ROWS // 2)))
            kept = p.statistics(batch, m, Load(self.largest, h), Load(self.exact, h))
            if kept:
                once = ir.logical_and(m < p.queries, ir.apply("eq", x, ir.ZERO))
                out += emit.where(once, kept)
            one = ir.const(1, p.dtype)
            factor = emit.let(out, "factor", ir.apply("div", one, p.divisor(self.total, h)))

            def put(number: Expr, column: Expr) -> Stmt:
                value = ir.cast(ir.mul(Load(self.sums, number), factor), p.out.dtype)
                return Store(p.out, p.place(batch, m, column), value)

            def pair(j: Expr) -> list[Stmt]:
                places = _pair(j, h, x)
                cond = ir.logical_and(m < p.queries, places(ir.ZERO)[1] < p.width)
                done = emit.loop(
                    ir.const(2), lambda e: [put(*places(e))], LoopKind.VECTORIZED
                )  # fmt: skip
                return emit.where(cond, done)

            def single(number: Expr, column: Expr) -> list[Stmt]:
                cond = ir.logical_and(m < p.queries, column < p.width)
                return emit.where(cond, [put(number, column)])

            if not multiple_of(p.width, 2):
                return out + _pairs(self.width, h, x, single)
            return out + emit.loop(ir.const(self.width // 8), pair, LoopKind.UNROLLED)

        return emit.loop(ir.const(_HALVES), half, LoopKind.UNROLLED)


def _pair(j: Expr, half: Expr, x: Expr) -> Callable[[Expr], tuple[Expr, Expr]]:
    """Of a thread's pair ``j`` in one of its rows: an element's number and its column."""
    number = ir.add(ir.mul(j, 4), ir.mul(half, 2))
    column = ir.add(ir.mul(j, 8), ir.mul(x, 2))
    return lambda e: (ir.add(number, e), ir.add(column, e))


def _pairs(
    columns: int, half: Expr, x: Expr, body: Callable[[Expr, Expr], list[Stmt]]
) -> list[Stmt]:
    """A nest over what a thread has of one of its rows."""
    extents = ir.const(columns // 8), ir.const(2)
    return emit.nest(
        extents, lambda at: body(*_pair(at[0], half, x)(at[1])), LoopKind.UNROLLED
    )  # fmt: skip
