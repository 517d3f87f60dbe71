"""The gradient of attention on a GPU: two launches, neither of which stores scores or weights.

A block of threads goes with its queries over the keys, tile by tile, then one with its keys over
the queries.  Scores and the gradients of weights are computed as tiles of products; what follows
from both passes through shared memory to be multiplied once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graphc.kernels import emit
from graphc.kernels.attention_gradient_problem import AttentionGradient
from graphc.kernels.grid_attention_sides import Element, Sides, of_keys, of_queries
from graphc.kernels.grid_panels import Panel, Side
from graphc.kernels.grid_tiles import Factor, PlainTiles, add_products
from graphc.kernels.problem import Contraction, Indices
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.gpu_grid import GpuTarget, grid_square
from graphc.loop.ir import (
    SHARED_BYTES,
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
    Scope,
    Stmt,
    Store,
    Var,
)

_SIDE = 16  # threads along each side of a tile
_STAGES = 2  # of panels
_SIZES = ((4, 16), (4, 8), (2, 16), (2, 8), (2, 4), (2, 2))  # rows of a thread, terms of a panel
_BYTES = 16  # of terms that a thread reads at once


def attention_gradient_grid(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    problem: AttentionGradient,
    target: GpuTarget,
) -> Kernel | None:
    """The kernel; None of 16-bit floats, and where matrices are too wide for shared memory."""
    if not known(problem.depth) or not known(problem.width):
        return None
    if problem.outs[0].dtype is not problem.dtype:
        return None
    launches: list[Stmt] = []
    for sides in (of_queries(problem), of_keys(problem)):
        sizes = [s for s in _SIZES if s[1] * problem.dtype.size >= _BYTES]
        tiles = (_Tiles(problem, sides, *size) for size in sizes)
        made = next((t for t in tiles if t.shared_bytes <= SHARED_BYTES), None)
        if made is None:
            return None
        launches.append(made.launch(target))
    return Kernel(name, tuple(params), tuple(scalars), Block(tuple(launches)))


@dataclass(frozen=True)
class _Weights:
    """A tile in shared memory: a stage is as many of its columns as a panel has terms."""

    buffer: Buffer
    step: int
    terms: int
    deep: bool = True

    def place(self, stage: Expr, row: Expr, term: Expr) -> Expr:
        """Where an element is."""
        column = ir.add(ir.mul(stage, self.terms), term)
        return ir.add(ir.mul(row, self.step), column)


class _Product(PlainTiles):
    """A product whose tiles are shared out among threads as those of another one are.

    ``neighbours``: whether a thread has groups of neighbours among the rows, and the columns.
    """

    neighbours = (False, False)

    def factors(self, places: tuple[Expr, ...]) -> tuple[Factor, Factor]:
        """A thread's rows and columns of the panels."""
        left, right = (
            replace(f, rows=_neighbours(f)) if near and f.panel.deep else f
            for f, near in zip(super().factors(places), self.neighbours, strict=True)
        )
        return left, right


def _neighbours(factor: Factor) -> Callable[[Expr], Expr]:
    def at(i: Expr) -> Expr:
        first = factor.first(ir.index_div(i, factor.group))
        return ir.add(first, ir.index_mod(i, factor.group))

    return at


class _Tiles:
    """Tiles of ``size`` rows and columns; a panel of a right operand has ``depth`` of the latter.

    Products follow each other with barriers between: their panels lie in the same places.
    """

    def __init__(self, p: AttentionGradient, sides: Sides, each: int, depth: int) -> None:
        self.sides, self.each, self.depth = sides, each, depth
        self.size = _SIDE * each
        self.dtype = dtype = p.dtype
        self.extents = (p.depth, p.width)[: len(sides.results)]
        batch = sides.begin([], sides.space)
        extents = p.depth, p.width
        self.products = [
            _Product(
                Contraction(
                    batch=batch, m=(sides.rows,), n=sides.columns, k=(extent,), acc=dtype,
                    lhs=_left(left), rhs=_right(right), epilogue=lambda *_: (),
                ),
                each, _STAGES,
            )
            for extent, left, right in zip(extents, sides.lefts, sides.rights, strict=True)
        ]  # fmt: skip
        neighbours = (
            any(not t.left.deep for t in self.products),
            any(not t.right.deep for t in self.products),
        )
        for product in self.products:
            product.neighbours = neighbours
        self.group = _BYTES // dtype.size
        step = self.size + self.group
        weights = Buffer("weights", dtype, ir.const(self.size * step), Scope.SHARED)
        self.weights = _Weights(weights, step, depth)
        across = _SIDE * self.group
        widths = [-(-(known(e) or 1) // across) * across for e in self.extents]
        self.panels = [
            Panel(
                "panel", Side((extent,), (sides.columns,), _turned(right)), (width, depth),
                len(batch), dtype, stages=_STAGES,
            )
            for extent, width, right in zip(self.extents, widths, sides.rights, strict=False)
        ]  # fmt: skip
        self.shared = [
            weights, _in_one_place([t.left for t in self.products]),
            _in_one_place([t.right for t in self.products]), _in_one_place(self.panels),
        ]  # fmt: skip
        self.columns = [width // _SIDE for width in widths]
        self.sums = [
            ir.local(name, dtype, each * columns)
            for name, columns in zip(("sums", "others"), self.columns, strict=False)
        ]

    @property
    def shared_bytes(self) -> int:
        """What all buffers take of shared memory."""
        return sum((known(b.size) or 0) * b.dtype.size for b in self.shared)

    def launch(self, target: GpuTarget) -> Stmt:
        """The blocks of threads."""
        tiles = emit.ceil_div(self.sides.rows, self.size)
        space = (*self.sides.space, tiles)

        def item(number: Var, y: Var, x: Var) -> Block:
            out: list[Stmt] = []
            *at, tile = emit.unflatten(out, number, space)
            batch = self.sides.begin(out, tuple(at))
            return Block((*out, *self.statements(batch, tile, y, x)))

        return grid_square(emit.product(space), target, (_SIDE, _SIDE), item, self.shared)

    def statements(self, batch: Indices, tile: Expr, y: Expr, x: Expr) -> list[Stmt]:
        """What makes a tile of rows of the results."""
        zero = ir.Const(0, self.dtype)
        out: list[Stmt] = [Alloc(b) for b in self.sums]
        thread = emit.let(out, "thread", ir.add(ir.mul(y, _SIDE), x))
        first = emit.let(out, "first", ir.mul(tile, self.size))
        for sums in self.sums:
            out += emit.filled(sums, zero)
        scores, products = self.products

        def turn(number: Expr) -> list[Stmt]:
            found = scores.sums(batch, tile, number, thread, (y, x))
            start = emit.let(found, "start", ir.mul(number, self.size))
            at = batch, first, start, y, x
            found += self.each_of_tile(at, self.weigh, put=len(self.sums) == 2)
            if len(self.sums) == 2:
                found += self.add(1, batch, number, thread, y, x)
            found += products.sums(batch, tile, number, thread, (y, x))
            found += self.each_of_tile(at, self.differentiate, put=True)
            return [*found, *self.add(0, batch, number, thread, y, x)]

        out += emit.loop(emit.ceil_div(self.sides.columns, self.size), turn)
        for which in range(len(self.sums)):
            out += self.result(which, batch, first, y, x)
        return out

    def weigh(self, batch: Indices, r: Expr, c: Expr, place: Expr) -> Expr:
        """A weight."""
        return self.sides.weight(batch, r, c, Load(self.products[0].total, place))

    def differentiate(self, batch: Indices, r: Expr, c: Expr, place: Expr) -> Expr:
        """The gradient by a score."""
        scores, products = (Load(t.total, place) for t in self.products)
        return self.sides.slope(batch, r, c, scores, products)

    def each_of_tile(
        self, at: tuple[Indices, Expr, Expr, Expr, Expr],
        value: Callable[[Indices, Expr, Expr, Expr], Expr], put: bool,
    ) -> list[Stmt]:  # fmt: skip
        """A thread's elements of a tile in the place of the scores, and in shared memory."""
        batch, first, start, y, x = at
        total, zero = self.products[0].total, ir.Const(0, self.dtype)
        down, across = self.products[0].factors((y, x))

        def one(i: Expr, j: Expr) -> list[Stmt]:
            out: list[Stmt] = []
            row, column = emit.let(out, "row", down.at(i)), emit.let(out, "column", across.at(j))
            r = emit.let(out, "r", ir.add(first, row))
            c = emit.let(out, "c", ir.add(start, column))
            inside = ir.logical_and(r < self.sides.rows, c < self.sides.columns)
            place = ir.add(ir.mul(i, self.each), j)
            found = emit.let(out, "value", Guard(inside, value(batch, r, c, place), zero))
            out.append(Store(total, place, found))
            if put:
                at = self.weights.place(ir.ZERO, row, column)
                out.append(Store(self.weights.buffer, at, found))
            return out

        each = ir.const(self.each)
        return emit.nest((each, each), lambda at: one(*at), LoopKind.UNROLLED)

    def add(
        self, which: int, batch: Indices, tile: Expr, thread: Expr, y: Expr, x: Expr
    ) -> list[Stmt]:
        """What lies in shared memory times a right operand, added to one of the results."""
        panel, parts = self.panels[which], self.size // self.depth
        down, _ = self.products[0].factors((y, x))
        rows = Factor(self.weights, y, self.each, self.group, down.at)
        columns = Factor(panel, x, self.columns[which], self.group)
        first = ir.mul(tile, parts)

        def fetch(turn: Expr) -> list[Stmt]:
            stage = ir.index_mod(turn, _STAGES)
            threads = _SIDE * _SIDE
            part = ir.add(first, turn)
            return [*panel.fetch(stage, batch, ir.ZERO, part, thread, threads), AsyncCommit()]

        def step(turn: Expr) -> list[Stmt]:
            # The barrier is also what the weights wait for.
            stages = turn, ir.index_mod(turn, _STAGES)
            used = add_products(self.sums[which], rows, columns, stages, self.depth)
            return [AsyncWait(0), Barrier(), *fetch(ir.add(turn, ir.ONE)), *used]

        out = [emit.scope(fetch(ir.ZERO)), *emit.loop(ir.const(parts), step)]
        return [*out, AsyncWait(0), Barrier()]

    def result(self, which: int, batch: Indices, first: Expr, y: Expr, x: Expr) -> list[Stmt]:
        """A thread's elements of one of the results."""
        down, _ = self.products[0].factors((y, x))
        buffer, place = self.sides.results[which]
        columns = Factor(self.panels[which], x, self.columns[which], self.group)

        def one(at: Indices) -> list[Stmt]:
            i, j = at
            stmts: list[Stmt] = []
            r = emit.let(stmts, "r", ir.add(first, down.at(i)))
            n = emit.let(stmts, "n", columns.at(j))
            value = Load(self.sums[which], ir.add(ir.mul(i, self.columns[which]), j))
            inside = ir.logical_and(r < self.sides.rows, n < self.extents[which])
            return [*stmts, *emit.where(inside, [Store(buffer, place(batch, r, n), value)])]

        extents = ir.const(self.each), ir.const(self.columns[which])
        return emit.nest(extents, one, LoopKind.UNROLLED)


def _in_one_place(panels: Sequence[Panel]) -> Buffer:
    """The buffer of the largest panel, for all of them."""
    largest = max((p.buffer for p in panels), key=lambda b: known(b.size) or 0)
    for p in panels:
        p.buffer = largest
    return largest


def _left(operand: Element) -> Callable[[Indices, Indices, Indices], Expr]:
    return lambda b, m, k: operand(b, m[0], k[0])


def _right(operand: Element) -> Callable[[Indices, Indices, Expr], Expr]:
    return lambda b, k, n: operand(b, n, k[0])


def _turned(operand: Element) -> Callable[[Indices, Indices, Indices], Expr]:
    return lambda b, r, k: operand(b, k[0], r[0])
