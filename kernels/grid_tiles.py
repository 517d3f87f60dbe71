"""Contractions on a GPU by tiles of the result: a block of threads for each, the operands' panels
fetched while those before are multiplied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace

from graphc.dtypes import DType
from graphc.kernels import emit
from graphc.kernels.grid_panels import SHARED_BYTES, Panel, Side
from graphc.kernels.problem import Contraction, Indices
from graphc.loop import ir
from graphc.loop.gpu_grid import GpuTarget, grid_stride
from graphc.loop.ir import (
    Alloc,
    AsyncCommit,
    AsyncWait,
    Barrier,
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
        dtypes: Sequence[DType], must_be_deep: bool = False,
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
        self.stages = min(_STAGES, SHARED_BYTES // one)
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
        it, and for its indices (row, column, number in ``total``)."""

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
        stages = self.stages
        out: list[Stmt] = [Alloc(self.total)]
        places = self.places(out, x)
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
        out += [AsyncWait(0), Barrier()]
        return [*out, *self.results(batch, row, column, places)]

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

        return [*out, *emit.nest(extents, one, LoopKind.UNROLLED)]


class PlainTiles(Tiled):
    """Square tiles by 16 x 16 threads, each of which has as many rows and columns of them.

    Of a panel whose rows lie side by side in shared memory a thread has groups of neighbouring
    ones, of any other every sixteenth: either way threads read from different banks.
    """

    def __init__(self, problem: Contraction, each: int) -> None:
        size = _SIDE * each
        dtypes = (problem.acc, problem.acc)
        super().__init__(problem, (size, size, _DEPTH), _SIDE * _SIDE, each * each, dtypes)
        self.each = each
        self.group = min(_BYTES // problem.acc.size, each)

    def places(self, out: list[Stmt], x: Expr) -> tuple[Expr, ...]:
        """The thread's row and column among the threads."""
        down = emit.let(out, "y", ir.index_div(x, _SIDE))
        return down, emit.let(out, "x", ir.index_mod(x, _SIDE))

    def at(self, panel: Panel, thread: Expr, i: Expr) -> Expr:
        """Which row of a panel is a thread's number ``i``."""
        if panel.deep:
            return ir.add(ir.mul(i, _SIDE), thread)
        group = ir.mul(ir.index_div(i, self.group), _SIDE * self.group)
        return ir.add(
            ir.add(group, ir.mul(thread, self.group)), ir.index_mod(i, self.group)
        )

    def multiply(self, stage: Expr, places: tuple[Expr, ...]) -> list[Stmt]:
        """A few terms at once: those of a deep panel are read together."""
        panels = list(zip((self.left, self.right), places, strict=True))

        def terms(turn: Expr) -> list[Stmt]:
            out: list[Stmt] = []
            first = ir.mul(turn, self.group)
            deep = [p for p, _ in panels if p.deep]
            sides = {
                panel: ir.local(
                    f"{panel.buffer.name}s", self.problem.acc,
                    self.each * (self.group if panel in deep else 1),
                )
                for panel, _ in panels
            }  # fmt: skip
            for panel, thread in panels:
                if panel in deep:
                    out.append(Alloc(sides[panel]))
                    out += self.rows_of(panel, sides[panel], thread, stage, first)

            def term(k: Expr) -> list[Stmt]:
                inner: list[Stmt] = []
                for panel, thread in panels:
                    if panel not in deep:
                        read = self.groups_of(panel, sides[panel], thread, stage, ir.add(first, k))
                        inner += [Alloc(sides[panel]), *read]

                def product(at: Indices) -> list[Stmt]:
                    values = [
                        Load(sides[p], ir.add(ir.mul(i, self.group), k) if p in deep else i)
                        for (p, _), i in zip(panels, at, strict=True)
                    ]
                    place = ir.add(ir.mul(at[0], self.each), at[1])
                    return [Reduce(self.total, place, "add", ir.mul(*values))]

                each = ir.const(self.each)
                return [*inner, *emit.nest((each, each), product, LoopKind.UNROLLED)]

            return [*out, *emit.loop(ir.const(self.group), term, LoopKind.UNROLLED)]

        return emit.loop(ir.const(self.depth // self.group), terms)

    def rows_of(
        self, panel: Panel, into: Buffer, thread: Expr, stage: Expr, first: Expr
    ) -> list[Stmt]:
        """Some terms of each of a thread's rows of a deep panel."""

        def row(i: Expr) -> list[Stmt]:
            place = panel.place(stage, self.at(panel, thread, i), first)
            return self.vector(panel, into, ir.mul(i, self.group), place)

        return emit.loop(ir.const(self.each), row, LoopKind.UNROLLED)

    def groups_of(
        self, panel: Panel, into: Buffer, thread: Expr, stage: Expr, term: Expr
    ) -> list[Stmt]:
        """One term of each of a thread's rows of a panel whose rows lie side by side."""

        def group(g: Expr) -> list[Stmt]:
            first = ir.mul(g, self.group)
            row = ir.add(ir.mul(g, _SIDE * self.group), ir.mul(thread, self.group))
            return self.vector(panel, into, first, panel.place(stage, row, term))

        return emit.loop(ir.const(self.each // self.group), group, LoopKind.UNROLLED)

    def vector(self, panel: Panel, into: Buffer, first: Expr, place: Expr) -> list[Stmt]:
        """Elements that lie side by side, read at once."""

        def lane(i: Expr) -> list[Stmt]:
            return [Store(into, ir.add(first, i), Load(panel.buffer, ir.add(place, i)))]

        return emit.loop(ir.const(self.group), lane, LoopKind.VECTORIZED)

    def elements(
        self, row: Expr, column: Expr, places: tuple[Expr, ...]
    ) -> tuple[Indices, list[Stmt], Element]:
        """Rows, and in each of them columns."""

        def element(at: Indices) -> tuple[Expr, Expr, Expr]:
            i, j = at
            m = ir.add(row, self.at(self.left, places[0], i))
            n = ir.add(column, self.at(self.right, places[1], j))
            return m, n, ir.add(ir.mul(i, self.each), j)

        each = ir.const(self.each)
        return (each, each), [], element
