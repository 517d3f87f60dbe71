"""Contractions on a GPU by tiles of the result: a block of threads for each, the operands' panels
fetched while those before are multiplied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from graphc.dtypes import DType
from graphc.kernels import emit
from graphc.kernels.grid_panels import Panel, Side
from graphc.kernels.problem import Contraction, Indices
from graphc.loop import ir
from graphc.loop.affine import known, multiple_of
from graphc.loop.gpu_grid import GpuTarget, grid_stride
from graphc.loop.ir import (
    SHARED_BYTES,
    Alloc,
    AsyncCommit,
    AsyncWait,
    Barrier,
    Block,
    Buffer,
    Expr,
    Kernel,
    Let,
    Load,
    LoopKind,
    Reduce,
    Stmt,
    Store,
    Var,
)

_STAGES = 3  # of panels in shared memory, where they fit
_SIDE = 16  # threads along each side of a tile
_DEPTH = 16  # terms of the sums that are in shared memory at once
_BYTES = 16  # that a thread reads from shared memory at once


Element = Callable[[Indices], tuple[Expr, Expr, Expr]]


class Tiled(ABC):
    """A contraction by tiles of ``rows`` by ``columns``, ``depth`` terms of the sums at once.

    Attributes:
      threads: of a block.
      total: what a thread has of the sums.
      stages: panels that are in shared memory.
    """

    def __init__(
        self, problem: Contraction, shape: tuple[int, int, int], threads: int, each: int,
        dtypes: Sequence[DType], stages: int = _STAGES, must_be_deep: bool = False,
    ) -> None:  # fmt: skip
        self.problem, self.threads = problem, threads
        self.rows, self.columns, self.depth = shape
        self.total = ir.local("total", problem.acc, each)
        sides = (
            ("left", Side.left(problem), self.rows, dtypes[0]),
            ("right", Side.right(problem), self.columns, dtypes[1]),
        )

        def panels(stages: int) -> list[Panel]:
            return [
                Panel(
                    name, side, (width, self.depth), len(problem.batch), dtype, stages=stages,
                    must_be_deep=must_be_deep,
                )
                for name, side, width, dtype in sides
            ]  # fmt: skip

        one = sum(p.size * p.dtype.size for p in panels(1))
        self.stages = min(stages, SHARED_BYTES // one)
        self.left, self.right = panels(self.stages)

    @abstractmethod
    def places(self, out: list[Stmt], x: Expr) -> tuple[Expr, ...]:
        """What a thread's part of a tile follows from, declared in ``out``."""

    @abstractmethod
    def multiply(self, stage: Expr, places: tuple[Expr, ...]) -> list[Stmt]:
        """The terms of the panels of a stage added to the sums."""

    @abstractmethod
    def elements(
        self, row: Expr, column: Expr, places: tuple[Expr, ...]
    ) -> tuple[Indices, list[Stmt], Element]:
        """A thread's elements of the tile at (row, column): extents of a nest, declarations before
        it, and for its indices (row, column, number in ``total``).

        The innermost loop is over elements that lie side by side.
        """

    def kernel(self, kernel: Kernel, target: GpuTarget) -> Kernel:
        """The scheduled kernel."""
        problem = self.problem
        down = emit.ceil_div(emit.product(problem.m), self.rows)
        across = emit.ceil_div(problem.n, self.columns)
        batches = emit.product(problem.batch)

        def item(number: Var, x: Var) -> Block:
            out: list[Stmt] = []
            rest = emit.let(out, "q", ir.index_div(number, across))
            column = emit.let(out, "tn", ir.index_mod(number, across))
            row = emit.let(out, "tm", ir.index_mod(rest, down))
            flat = emit.let(out, "b", ir.index_div(rest, down))
            batch = emit.unflatten(out, flat, problem.batch) if problem.batch else ()
            return Block((*out, *self.tile(batch, row, column, x)))

        count = ir.mul(ir.mul(batches, down), across)
        shared = (self.left.buffer, self.right.buffer)
        return replace(
            kernel, body=grid_stride(count, target, (1, self.threads), item, shared)
        )

    def tile(self, batch: Indices, row: Expr, column: Expr, x: Var) -> list[Stmt]:
        """One tile of the result."""
        out: list[Stmt] = []
        places = self.places(out, x)
        out += self.sums(batch, row, column, x, places)
        return [*out, *self.results(batch, row, column, places)]

    def sums(
        self, batch: Indices, row: Expr, column: Expr, x: Expr, places: tuple[Expr, ...]
    ) -> list[Stmt]:
        """A thread's sums of one tile, in ``total``."""
        stages = self.stages
        out: list[Stmt] = [Alloc(self.total)]
        zero = ir.Const(0, self.problem.acc)
        out += emit.loop(
            self.total.size, lambda i: [Store(self.total, i, zero)], LoopKind.UNROLLED
        )

        def fetch(turn: Expr) -> list[Stmt]:
            stage = ir.index_mod(turn, stages)
            found: list[Stmt] = []
            for panel, tile in ((self.left, row), (self.right, column)):
                found += panel.fetch(stage, batch, tile, turn, x, self.threads)
            return [*found, AsyncCommit()]

        def step(turn: Expr) -> list[Stmt]:
            # Behind the barrier nobody uses the panels any more that are fetched now.
            more = fetch(ir.add(turn, stages - 1))
            used = self.multiply(ir.index_mod(turn, stages), places)
            return [AsyncWait(stages - 2), Barrier(), *more, *used]

        out += [emit.scope(fetch(ir.const(turn))) for turn in range(stages - 1)]
        out += emit.loop(emit.ceil_div(emit.product(self.problem.k), self.depth), step)
        # The next tile's panels come where these are.
        return [*out, AsyncWait(0), Barrier()]

    def results(
        self, batch: Indices, row: Expr, column: Expr, places: tuple[Expr, ...]
    ) -> list[Stmt]:
        """A thread's elements of the result."""
        problem = self.problem
        extents, out, element = self.elements(
            ir.mul(row, self.rows), ir.mul(column, self.columns), places
        )

        def one(at: Indices) -> list[Stmt]:
            found: list[Stmt] = []
            first, second, number = element(at)
            m, n = emit.let(found, "m", first), emit.let(found, "n", second)
            done: list[Stmt] = []
            rows = emit.unflatten(done, m, problem.m)
            done += problem.epilogue(batch, rows, n, Load(self.total, number))
            inside = ir.logical_and(m < emit.product(problem.m), n < problem.n)
            return [*found, *emit.where(inside, done)]

        def together(at: Indices) -> list[Stmt]:
            found: list[Stmt] = []
            first, second, _ = element((*at, ir.ZERO))
            m = emit.let(found, "m", first)
            inside = ir.logical_and(m < emit.product(problem.m), second < problem.n)
            rows = emit.unflatten(found, m, problem.m)

            def lane(e: Expr) -> list[Stmt]:
                # No variable stands for the column: that it is a multiple must be seen.
                _, n, number = element((*at, e))
                return list(problem.epilogue(batch, rows, n, Load(self.total, number)))

            done = emit.loop(extents[-1], lane, LoopKind.VECTORIZED)
            return [*found, *emit.where(inside, done)]

        width = known(extents[-1]) or 1
        if width > 1 and multiple_of(problem.n, width) and self.stores_only(batch):
            return [*out, *emit.nest(extents[:-1], together, LoopKind.UNROLLED)]
        return [*out, *emit.nest(extents, one, LoopKind.UNROLLED)]

    def stores_only(self, batch: Indices) -> bool:
        """Whether results are stored, and nothing else is done with them."""
        rows, value = tuple(Var("m") for _ in self.problem.m), Load(self.total, ir.ZERO)
        stmts = self.problem.epilogue(batch, rows, Var("n"), value)
        return all(isinstance(s, (Let, Store)) for s in stmts)


class Held(Protocol):
    """A matrix in shared memory."""

    @property
    def buffer(self) -> Buffer:
        """Where it is."""

    @property
    def deep(self) -> bool:
        """Whether what is summed up lies side by side, else the rows do."""

    def place(self, stage: Expr, row: Expr, term: Expr) -> Expr:
        """Where an element is."""


@dataclass(frozen=True)
class Factor:
    """A thread's ``each`` rows of a panel, of which it reads ``group`` elements at once.

    Where rows lie side by side these are groups of neighbours, else every sixteenth: either way
    threads read from different banks.
    """

    panel: Held
    thread: Expr
    each: int
    group: int
    rows: Callable[[Expr], Expr] | None = None

    def at(self, i: Expr) -> Expr:
        """Which row of the panel is the thread's number ``i``: as ``rows`` says, if it does."""
        if self.rows is not None:
            return self.rows(i)
        if self.panel.deep:
            return ir.add(ir.mul(i, _SIDE), self.thread)
        return ir.add(self.first(ir.index_div(i, self.group)), ir.index_mod(i, self.group))

    def first(self, group: Expr) -> Expr:
        """The first row of a group of neighbours."""
        return ir.add(ir.mul(group, _SIDE * self.group), ir.mul(self.thread, self.group))

    def registers(self) -> Buffer:
        """Where the thread holds what it has read."""
        terms = self.group if self.panel.deep else 1
        name = f"{self.panel.buffer.name}s"
        return ir.local(name, self.panel.buffer.dtype, self.each * terms)

    def read(self, into: Buffer, stage: Expr, term: Expr) -> list[Stmt]:
        """Some terms of every row, or one of them."""
        count = self.each if self.panel.deep else self.each // self.group

        def part(i: Expr) -> list[Stmt]:
            first = ir.mul(i, self.group)
            row = self.at(i if self.panel.deep else first)
            place = self.panel.place(stage, row, term)

            def lane(k: Expr) -> list[Stmt]:
                value = Load(self.panel.buffer, ir.add(place, k))
                return [Store(into, ir.add(first, k), value)]

            return emit.loop(ir.const(self.group), lane, LoopKind.VECTORIZED)

        return [Alloc(into), *emit.loop(ir.const(count), part, LoopKind.UNROLLED)]


def add_products(
    total: Buffer, left: Factor, right: Factor, stages: tuple[Expr, Expr], depth: int
) -> list[Stmt]:
    """The products of ``depth`` terms of two panels added to a thread's sums."""
    both = list(zip((left, right), stages, strict=True))
    group = left.group

    def terms(turn: Expr) -> list[Stmt]:
        out: list[Stmt] = []
        first = ir.mul(turn, group)
        held = {factor: factor.registers() for factor in (left, right)}
        for factor, stage in both:
            if factor.panel.deep:
                out += factor.read(held[factor], stage, first)

        def term(k: Expr) -> list[Stmt]:
            inner: list[Stmt] = []
            for factor, stage in both:
                if not factor.panel.deep:
                    inner += factor.read(held[factor], stage, ir.add(first, k))

            def product(at: Indices) -> list[Stmt]:
                values = [
                    Load(held[f], ir.add(ir.mul(i, group), k) if f.panel.deep else i)
                    for (f, _), i in zip(both, at, strict=True)
                ]
                place = ir.add(ir.mul(at[0], right.each), at[1])
                return [Reduce(total, place, "add", ir.mul(*values))]

            each = ir.const(left.each), ir.const(right.each)
            return [*inner, *emit.nest(each, product, LoopKind.UNROLLED)]

        return [*out, *emit.loop(ir.const(group), term, LoopKind.UNROLLED)]

    return emit.loop(ir.const(depth // group), terms)


class PlainTiles(Tiled):
    """Square tiles by 16 x 16 threads, each of which has as many rows and columns of them."""

    def __init__(self, problem: Contraction, each: int, stages: int = _STAGES) -> None:
        size = _SIDE * each
        dtypes = (problem.acc, problem.acc)
        super().__init__(problem, (size, size, _DEPTH), _SIDE * _SIDE, each * each, dtypes, stages)
        self.each = each
        self.group = min(_BYTES // problem.acc.size, each)

    def places(self, out: list[Stmt], x: Expr) -> tuple[Expr, ...]:
        """The thread's row and column among the threads."""
        down = emit.let(out, "y", ir.index_div(x, _SIDE))
        return down, emit.let(out, "x", ir.index_mod(x, _SIDE))

    def factors(self, places: tuple[Expr, ...]) -> tuple[Factor, Factor]:
        """A thread's rows and columns of the panels."""
        left, right = (
            Factor(panel, thread, self.each, self.group)
            for panel, thread in zip((self.left, self.right), places, strict=True)
        )
        return left, right

    def multiply(self, stage: Expr, places: tuple[Expr, ...]) -> list[Stmt]:
        """The terms of the panels one after the other."""
        left, right = self.factors(places)
        return add_products(self.total, left, right, (stage, stage), self.depth)

    def elements(
        self, row: Expr, column: Expr, places: tuple[Expr, ...]
    ) -> tuple[Indices, list[Stmt], Element]:
        """Rows, in each of them groups of columns, and columns."""
        left, right = self.factors(places)
        group = 1 if self.right.deep else self.group

        def element(at: Indices) -> tuple[Expr, Expr, Expr]:
            i, g, k = at
            j = ir.add(ir.mul(g, group), k)
            across = right.at(j) if group == 1 else right.first(g) + k
            m, n = ir.add(row, left.at(i)), ir.add(column, across)
            return m, n, ir.add(ir.mul(i, self.each), j)

        extents = (self.each, self.each // group, group)
        return tuple(map(ir.const, extents)), [], element
