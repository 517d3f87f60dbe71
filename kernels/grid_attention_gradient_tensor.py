"""The gradient of attention of 16-bit floats on tensor cores, no matrix of scores ever stored.

Warps of 16 queries go over the keys, tile by tile, then warps of 16 keys over the queries.  What a
warp's own rows are multiplied by comes to shared memory while others are used; the rows themselves
stay in registers.  So do the weights of a tile and the gradients by its scores: where they are,
they are what the next product is given.  All sums have 32 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.kernels import emit
from graphc.kernels.attention_gradient_problem import AttentionGradient, Statistics
from graphc.kernels.grid_attention_sides import Element, Sides, of_keys, of_queries
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
    Stmt,
    Store,
    Var,
    WarpProduct,
)

_ROWS = 16  # of a warp
_WARPS = 4  # of a block
_QUAD = 4  # threads that share a row of a product's sums
_HALVES = 2  # rows that a thread has of them
_STAGES = 2  # of panels
_COLUMNS = (32, 16)  # of a tile
_REGISTERS = 148  # that a thread's matrices may take, with the rest of 255 for all else

_Element = Callable[[Expr, Expr, Expr], Stmt]
"""What is done with an element: its row, its column, and its number among a thread's."""


def attention_gradient_tensor_grid(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    problem: AttentionGradient,
    target: GpuTarget,
) -> Kernel | None:
    """The kernel; None where tensor cores are not there, or not for these dtypes and widths."""
    dtype, widths = problem.outs[0].dtype, (known(problem.depth), known(problem.width))
    if target.capability < LEAST_ARCH or dtype.size != 2:
        return None
    if PRODUCTS.get((dtype, dtype)) is not problem.dtype or not all(widths):
        return None
    launches: list[Stmt] = []
    for sides in (of_queries(problem), of_keys(problem)):
        made = _launches(sides)
        if made is None:
            return None
        launches += [warps.launch(target) for warps in made]
    return Kernel(name, tuple(params), tuple(scalars), Block(tuple(launches)))


def _launches(sides: Sides) -> list[_Warps] | None:
    """What makes all results: in one launch, or a launch for each if registers are too few."""
    every = tuple(range(len(sides.results)))
    for groups in ([every], [(which,) for which in every]):
        found = [_fitting(sides, group) for group in groups]
        made = [warps for warps in found if warps is not None]
        if len(made) == len(groups):
            return made
    return None


def _fitting(sides: Sides, which: tuple[int, ...]) -> _Warps | None:
    """The largest tiles that there are registers and shared memory for."""
    tried = (_Warps(sides, which, columns) for columns in _COLUMNS)
    return next((t for t in tried if t.fits), None)


class _Warps:
    """A block of warps, each with 16 rows, and tiles of ``columns``, for some of the results.

    Attributes:
      lefts: what a thread holds of its rows, for scores and for the gradients of weights.
      panels: a tile of each right operand, two of them at once.
      scores: what a thread holds of a tile's scores, then of its weights.
      products: the same of the gradients of the weights.
      factors: the same of what the next product multiplies, in 16 bits.
      sums: the same of each result.
      statistics: those of its queries.
    """

    def __init__(self, sides: Sides, which: tuple[int, ...], columns: int) -> None:
        p = sides.problem
        self.p, self.sides, self.which, self.columns = p, sides, which, columns
        self.with_slopes, self.with_weights = 0 in which, 1 in which
        self.extents = (p.depth, p.width)
        self.widths = [-(-(known(e) or 0) // 16) * 16 for e in self.extents]
        self.dtype = dtype = p.outs[0].dtype
        self.lefts = [
            ir.local(name, dtype, _ROWS * width // WARP)
            for name, width in zip(("rows", "grads"), self.widths, strict=True)
        ][: 2 if self.with_slopes else 1]
        names, batch = ("panel", "other"), len(sides.begin([], sides.space))
        self.panels = [
            Panel(
                name, Side((sides.columns,), (extent,), _rows(right)), (columns, width), batch,
                dtype, stages=_STAGES,
            )
            for name, extent, width, right in zip(
                names, self.extents, self.widths, sides.rights, strict=True
            )
        ]  # fmt: skip
        held = _ROWS * columns // WARP
        self.scores = ir.local("scores", p.dtype, held)
        self.products = ir.local("products", p.dtype, held)
        self.factors = ir.local("factors", dtype, held)
        self.sums = {
            k: ir.local(f"sums{k}", p.dtype, _ROWS * self.widths[k] // WARP) for k in which
        }
        count = _HALVES if sides.rows_are_queries else columns // 4
        self.statistics = [
            ir.local(name, p.dtype, count) for name in ("largest", "log_sum", "mean")
        ]  # fmt: skip

    @property
    def matrices(self) -> list[Buffer]:
        """What a thread holds of matrices."""
        products = [self.products] if self.with_slopes else []
        return [*self.lefts, self.scores, *products, self.factors, *self.sums.values()]

    @property
    def fits(self) -> bool:
        """Whether there are shared memory and registers for all."""
        taken = sum((known(b.size) or 0) * b.dtype.size for b in self.matrices) // 4
        shared = sum((known(t.buffer.size) or 0) * self.dtype.size for t in self.panels)
        return taken <= _REGISTERS and shared <= SHARED_BYTES

    def launch(self, target: GpuTarget) -> Stmt:
        """The blocks of threads."""
        space = (*self.sides.space, emit.ceil_div(self.sides.rows, _WARPS * _ROWS))

        def item(number: Var, y: Var, x: Var) -> Block:
            out: list[Stmt] = []
            *at, tile = emit.unflatten(out, number, space)
            batch = self.sides.begin(out, tuple(at))
            return Block((*out, *self.statements(batch, tile, y, x)))

        shape = (_WARPS * WARP // _QUAD, _QUAD)
        shared = [panel.buffer for panel in self.panels]
        return grid_square(emit.product(space), target, shape, item, shared)

    def statements(self, batch: Indices, tile: Expr, y: Expr, x: Expr) -> list[Stmt]:
        """What makes a block's rows of the results."""
        out: list[Stmt] = [Alloc(b) for b in (*self.matrices, *self.statistics)]
        thread = emit.let(out, "thread", ir.add(ir.mul(y, _QUAD), x))
        top = ir.mul(ir.index_div(y, WARP // _QUAD), _ROWS)
        first = ir.add(ir.mul(tile, _WARPS * _ROWS), top)
        row = emit.let(out, "row", ir.add(first, ir.index_mod(y, WARP // _QUAD)))
        for sums in self.sums.values():
            out += emit.filled(sums, ir.Const(0, self.p.dtype))

        def fetch(turn: Expr) -> list[Stmt]:
            stage, found = ir.index_mod(turn, _STAGES), list[Stmt]()
            for panel in self.panels:
                found += panel.fetch(stage, batch, turn, ir.ZERO, thread, _WARPS * WARP)
            return [*found, AsyncCommit()]

        def step(turn: Expr) -> list[Stmt]:
            # Behind the barrier nobody reads what the next tile is copied over.
            found = [AsyncWait(0), Barrier(), *fetch(ir.add(turn, ir.ONE))]
            start = emit.let(found, "start", ir.mul(turn, self.columns))
            return [*found, *self.tile(batch, row, start, x, ir.index_mod(turn, _STAGES))]

        out += [emit.scope(fetch(ir.ZERO)), *self.held(batch, row, x)]
        if self.sides.rows_are_queries:
            out += self.of_queries(batch, lambda h, _: ir.add(row, ir.mul(h, _ROWS // 2)))
        out += emit.loop(emit.ceil_div(self.sides.columns, self.columns), step)
        # The next block's first tile comes where the last one is.
        out += [AsyncWait(0), Barrier()]
        for which in self.which:
            out += self.pairs(which, row, x, self.stored(which, batch))
        return out

    def tile(
        self, batch: Indices, row: Expr, start: Expr, x: Expr, stage: Expr
    ) -> list[Stmt]:
        """What a tile gives the results."""
        out: list[Stmt] = []
        if not self.sides.rows_are_queries:
            # They are read while scores are computed.
            out += self.of_queries(
                batch, lambda j, e: ir.add(start, ir.add(_column(j, x), e))
            )
        out += self.product(self.scores, 0, stage)
        out += self.each(row, start, x, lambda *at: self.weighed(batch, *at))
        if self.with_weights:
            out.append(self.added(1, stage))
        if self.with_slopes:
            out += self.product(self.products, 1, stage)
            out += self.each(row, start, x, self.differentiated)
            out.append(self.added(0, stage))
        return out

    def product(self, total: Buffer, which: int, stage: Expr) -> list[Stmt]:
        """A warp's rows times a tile's columns."""
        panel = self.panels[which]
        left = Load(self.lefts[which], ir.ZERO)
        right = Load(panel.buffer, panel.place(stage, ir.ZERO, ir.ZERO))
        by_column, by_term = panel.steps
        shape = (_ROWS, self.columns, self.widths[which])
        product = WarpProduct(total, left, right, (0, 0), (by_term, by_column), shape)
        return [*emit.filled(total, ir.Const(0, self.p.dtype)), product]

    def added(self, which: int, stage: Expr) -> Stmt:
        """What a tile gives one of the results."""
        panel = self.panels[which]
        left = Load(self.factors, ir.ZERO)
        right = Load(panel.buffer, panel.place(stage, ir.ZERO, ir.ZERO))
        shape = (_ROWS, self.widths[which], self.columns)
        return WarpProduct(self.sums[which], left, right, (0, 0), panel.steps, shape)

    def each(
        self, row: Expr, start: Expr, x: Expr,
        body: Callable[[Expr, Expr, Expr, Statistics], list[Stmt]],
    ) -> list[Stmt]:  # fmt: skip
        """A nest over a thread's elements of a tile: number, row, column, and the query's own."""

        def one(at: Indices) -> list[Stmt]:
            h, j, e = at
            out: list[Stmt] = []
            r = emit.let(out, "r", ir.add(row, ir.mul(h, _ROWS // 2)))
            c = emit.let(out, "c", ir.add(start, ir.add(_column(j, x), e)))
            query = h if self.sides.rows_are_queries else ir.add(ir.mul(j, 2), e)
            first, second, third = (Load(b, query) for b in self.statistics)
            return [*out, *body(_number(j, h, e), r, c, (first, second, third))]

        extents = ir.const(_HALVES), ir.const(self.columns // 8), ir.const(2)
        return emit.nest(extents, one, LoopKind.UNROLLED)

    def weighed(
        self, batch: Indices, number: Expr, r: Expr, c: Expr, statistics: Statistics
    ) -> list[Stmt]:
        """A score becomes a weight; there is none outside of the matrix."""
        out: list[Stmt] = []
        sides = self.sides
        score = sides.score(batch, r, c, Load(self.scores, number))
        inside = ir.logical_and(
            _below(r, sides.rows, _WARPS * _ROWS), _below(c, sides.columns, self.columns)
        )
        value = self.or_zero(inside, self.p.weighed(score, statistics))
        weight = emit.let(out, "weight", value)
        if self.with_slopes:
            out.append(Store(self.scores, number, weight))
        if self.with_weights:
            out.append(Store(self.factors, number, ir.cast(weight, self.dtype)))
        return out

    def differentiated(
        self, number: Expr, _r: Expr, _c: Expr, statistics: Statistics
    ) -> list[Stmt]:
        """The gradient by a score."""
        weight, product = (Load(b, number) for b in (self.scores, self.products))
        value = self.p.differentiated(weight, product, statistics)
        return [Store(self.factors, number, ir.cast(value, self.dtype))]

    def or_zero(self, cond: Expr, value: Expr) -> Expr:
        """A value where a condition holds, which may be sure."""
        return value if cond is ir.TRUE else Guard(cond, value, ir.Const(0, self.p.dtype))

    def of_queries(
        self, batch: Indices, query: Callable[[Expr, Expr], Expr]
    ) -> list[Stmt]:
        """The statistics of a thread's queries: of rows, or of pairs of columns."""

        def one(at: Indices) -> list[Stmt]:
            out: list[Stmt] = []
            place = at[0] if len(at) == 1 else ir.add(ir.mul(at[0], 2), at[1])
            i = emit.let(out, "query", query(at[0], at[-1]))
            inside = _below(i, self.p.queries, _WARPS * _ROWS if of_rows else self.columns)
            values = self.sides.statistics(batch, i)
            for buffer, value in zip(self.statistics, values, strict=True):
                out.append(Store(buffer, place, self.or_zero(inside, value)))
            return out

        of_rows = self.sides.rows_are_queries
        pairs = ir.const(self.columns // 8), ir.const(2)
        extents = (ir.const(_HALVES),) if of_rows else pairs
        return emit.nest(extents, one, LoopKind.UNROLLED)

    def held(self, batch: Indices, row: Expr, x: Expr) -> list[Stmt]:
        """A thread's elements of the rows, as products of warps take them."""
        out: list[Stmt] = []
        for which, buffer in enumerate(self.lefts):
            out += emit.filled(buffer, ir.Const(0, self.dtype))
            out += self.pairs(which, row, x, self.fetched(which, batch))
        return out

    def fetched(self, which: int, batch: Indices) -> _Element:
        """What fetches an element of a left operand."""
        buffer, left = self.lefts[which], self.sides.lefts[which]
        return lambda r, k, number: Store(buffer, number, ir.cast(left(batch, r, k), self.dtype))

    def stored(self, which: int, batch: Indices) -> _Element:
        """What stores an element of a result."""
        buffer, place = self.sides.results[which]
        sums = self.sums[which]
        return lambda r, n, number: Store(
            buffer, place(batch, r, n), ir.cast(Load(sums, number), buffer.dtype)
        )

    def pairs(self, which: int, row: Expr, x: Expr, body: _Element) -> list[Stmt]:
        """A nest over what there is of a thread's elements of an operand or a result."""
        extent = self.extents[which]
        together = multiple_of(extent, 2)

        def inside(r: Expr, k: Expr) -> Expr:
            along = _below(k, extent, 16)
            return ir.logical_and(_below(r, self.sides.rows, _WARPS * _ROWS), along)

        def pair(at: Indices) -> list[Stmt]:
            h, j = at
            r = ir.add(row, ir.mul(h, _ROWS // 2))

            def one(e: Expr) -> list[Stmt]:
                k = ir.add(_column(j, x), e)
                done = [body(r, k, _number(j, h, e))]
                return done if together else _where(inside(r, k), done)

            if not together:
                return emit.loop(ir.const(2), one, LoopKind.UNROLLED)
            done = emit.loop(ir.const(2), one, LoopKind.VECTORIZED)
            return _where(inside(r, _column(j, x)), done)

        extents = ir.const(_HALVES), ir.const(self.widths[which] // 8)
        return emit.nest(extents, pair, LoopKind.UNROLLED)


def _column(j: Expr, x: Expr) -> Expr:
    """The first column of a thread's pair ``j``."""
    return ir.add(ir.mul(j, 8), ir.mul(x, 2))


def _number(j: Expr, half: Expr, e: Expr) -> Expr:
    """The number of an element of a pair, in one of a thread's two rows."""
    return ir.add(ir.mul(j, 4), ir.add(ir.mul(half, 2), e))


def _below(at: Expr, extent: Expr, size: int) -> Expr:
    """That a place in a tile is inside, where this is not sure."""
    return ir.TRUE if multiple_of(extent, size) else at < extent


def _where(cond: Expr, then: list[Stmt]) -> list[Stmt]:
    return emit.where(None if cond is ir.TRUE else cond, then)


def _rows(operand: Element) -> Callable[[Indices, Indices, Indices], Expr]:
    return lambda b, r, k: operand(b, r[0], k[0])
