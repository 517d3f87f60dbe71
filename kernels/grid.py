"""Contractions on a GPU: tiles in shared memory, or a thread for every element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from graphc.kernels import emit
from graphc.kernels.grid_panels import split
from graphc.kernels.grid_tensor import factors, tensor_tiles
from graphc.kernels.problem import Contraction, Indices, access
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.gpu import GpuTarget, thread_per_item
from graphc.loop.gpu_grid import grid_stride
from graphc.loop.ir import (
    ZERO,
    Alloc,
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
_DEPTH = 16  # terms of the sums that are in shared memory at once
_SMALL = 16  # a side, or a sum, that is not worth a tile
_LARGE = 1024  # sides from which on a thread has more elements


def contraction_grid(
    name: str,
    params: tuple[Buffer, ...],
    scalars: tuple[Var, ...],
    problem: Contraction,
    target: GpuTarget,
) -> Kernel:
    """A kernel for the problem as blocks of threads."""
    kernel = Kernel(name, params, scalars, Block(()))
    sides = (emit.product(problem.m), problem.n, emit.product(problem.k))
    if any(known(extent) == 0 for extent in (*problem.batch, *sides[:2])):
        return kernel
    if any(size is not None and size < _SMALL for size in map(known, sides)):
        return thread_per_element(kernel, problem, target)
    dtypes = factors(problem, target)
    if dtypes is not None:
        return tensor_tiles(kernel, problem, target, dtypes)
    large = all((known(side) or 0) >= _LARGE for side in sides[:2]) and problem.acc.size <= 4
    return _Tiles(problem, 8 if large else 4).kernel(kernel, target)


def thread_per_element(kernel: Kernel, problem: Contraction, target: GpuTarget) -> Kernel:
    """A thread for every element of the result, which goes through the whole of its sum."""
    batch = tuple(emit.fresh("b") for _ in problem.batch)
    rows = tuple(emit.fresh("m") for _ in problem.m)
    column = emit.fresh("n")
    total = ir.local("total", problem.acc, 1)

    def term(k: Indices) -> list[Stmt]:
        value = ir.mul(problem.lhs_value(batch, rows, k), problem.rhs_value(batch, k, column))
        return [Reduce(total, ZERO, "add", value)]

    stmts: list[Stmt] = [Alloc(total), Store(total, ZERO, ir.Const(0, problem.acc))]
    stmts += emit.nest(problem.k, term)
    stmts += problem.epilogue(batch, rows, column, Load(total, ZERO))
    extents: Indices = (*problem.batch, *problem.m, problem.n)
    loops: list[tuple[Var, Expr]] = list(zip((*batch, *rows, column), extents, strict=True))
    return thread_per_item(kernel, loops, Block(tuple(stmts)), target)


@dataclass
class _Panel:
    """One operand's part of a tile in shared memory: ``depth`` rows of ``width`` elements.

    A row is one longer than it needs to be, so that neither rows nor columns lie in one bank.
    ``along``: neighbouring threads read elements of one row, not of one column.
    """

    buffer: Buffer
    width: int
    along: bool

    def place(self, k: Expr, at: Expr) -> Expr:
        """Where an element is."""
        return ir.add(ir.mul(k, self.width + 1), at)

    def fill(self, x: Expr, element: Callable[[Expr, Expr], Guard]) -> list[Stmt]:
        """Every thread reads its share: ``element(k, at)``."""

        def one(turn: Expr) -> list[Stmt]:
            stmts: list[Stmt] = []
            number = emit.let(stmts, "e", ir.add(ir.mul(turn, _SIDE * _SIDE), x))
            length = self.width if self.along else _DEPTH
            inner = emit.let(stmts, "in", ir.index_mod(number, length))
            outer = emit.let(stmts, "out", ir.index_div(number, length))
            k, at = (outer, inner) if self.along else (inner, outer)
            return [*stmts, Store(self.buffer, self.place(k, at), element(k, at))]

        turns = self.width * _DEPTH // (_SIDE * _SIDE)
        return emit.loop(ir.const(turns), one, LoopKind.UNROLLED)


class _Tiles:
    """Square tiles of the result, a block of threads for each.

    ``each``: a thread has so many rows and columns, every sixteenth of the tile, so that
    neighbouring threads read and write neighbouring elements.
    """

    def __init__(self, problem: Contraction, each: int) -> None:
        self.problem = problem
        self.each = each
        self.size = _SIDE * each
        self.rows, self.depth = emit.product(problem.m), emit.product(problem.k)
        found = access(problem)
        count = ir.const(_DEPTH * (self.size + 1))
        buffers = [Buffer(name, problem.acc, count, Scope.SHARED) for name in ("left", "right")]
        self.left = _Panel(buffers[0], self.size, 1 not in found.lhs_k)
        self.right = _Panel(buffers[1], self.size, 1 in found.rhs_n or 1 not in found.rhs_k)
        self.total = ir.local("total", problem.acc, each * each)

    def kernel(self, kernel: Kernel, target: GpuTarget) -> Kernel:
        """The scheduled kernel."""
        across = emit.ceil_div(self.problem.n, self.size)
        down = emit.ceil_div(self.rows, self.size)
        batches = emit.product(self.problem.batch)

        def item(number: Var, x: Var) -> Block:
            stmts: list[Stmt] = []
            rest = emit.let(stmts, "q", ir.index_div(number, across))
            column = emit.let(stmts, "tn", ir.mul(ir.index_mod(number, across), self.size))
            row = emit.let(stmts, "tm", ir.mul(ir.index_mod(rest, down), self.size))
            flat = emit.let(stmts, "b", ir.index_div(rest, down))
            batch = emit.unflatten(stmts, flat, self.problem.batch) if self.problem.batch else ()
            return Block((*stmts, *self.tile(batch, row, column, x)))

        count = ir.mul(ir.mul(batches, down), across)
        shared = (self.left.buffer, self.right.buffer)
        shape = (1, _SIDE * _SIDE)
        return replace(kernel, body=grid_stride(count, target, shape, item, shared))

    def tile(self, batch: Indices, row: Expr, column: Expr, x: Var) -> list[Stmt]:
        """One tile of the result."""
        problem = self.problem
        zero = ir.Const(0, problem.acc)
        stmts: list[Stmt] = [Alloc(self.total)]
        down = emit.let(stmts, "y", ir.index_div(x, _SIDE))
        across = emit.let(stmts, "x", ir.index_mod(x, _SIDE))
        stmts += self.elements(lambda i: [Store(self.total, i, zero)])

        def panels(turn: Expr) -> list[Stmt]:
            body: list[Stmt] = []
            start = emit.let(body, "k", ir.mul(turn, _DEPTH))

            def left(k: Expr, at: Expr) -> Guard:
                m, term = ir.add(row, at), ir.add(start, k)
                inside = ir.logical_and(m < self.rows, term < self.depth)
                value = problem.lhs_value(batch, split(m, problem.m), split(term, problem.k))
                return Guard(inside, value, zero)

            def right(k: Expr, at: Expr) -> Guard:
                n, term = ir.add(column, at), ir.add(start, k)
                inside = ir.logical_and(n < problem.n, term < self.depth)
                return Guard(inside, problem.rhs_value(batch, split(term, problem.k), n), zero)

            body += [*self.left.fill(x, left), *self.right.fill(x, right), Barrier()]
            body += emit.loop(ir.const(_DEPTH), lambda k: self.terms(k, down, across))
            return [*body, Barrier()]

        stmts += emit.loop(emit.ceil_div(self.depth, _DEPTH), panels)
        return [*stmts, *self.results(batch, ir.add(row, down), ir.add(column, across))]

    def elements(self, body: Callable[[Expr], list[Stmt]]) -> list[Stmt]:
        """Something for each element of a thread."""
        return emit.loop(ir.const(self.each * self.each), body, LoopKind.UNROLLED)

    def terms(self, k: Expr, down: Expr, across: Expr) -> list[Stmt]:
        """One term of every sum of a thread."""
        left, rows = self.factors(self.left, k, down)
        right, columns = self.factors(self.right, k, across)

        def term(at: Indices) -> list[Stmt]:
            i, j = at
            value = ir.mul(Load(left, i), Load(right, j))
            return [Reduce(self.total, ir.add(ir.mul(i, self.each), j), "add", value)]

        each = ir.const(self.each)
        return [*rows, *columns, *emit.nest((each, each), term, LoopKind.UNROLLED)]

    def factors(self, panel: _Panel, k: Expr, first: Expr) -> tuple[Buffer, list[Stmt]]:
        """A thread's elements of one row of a panel, in registers."""
        side = ir.local(f"{panel.buffer.name}s", self.problem.acc, self.each)

        def take(i: Expr) -> list[Stmt]:
            place = panel.place(k, ir.add(ir.mul(i, _SIDE), first))
            return [Store(side, i, Load(panel.buffer, place))]

        return side, [Alloc(side), *emit.loop(ir.const(self.each), take, LoopKind.UNROLLED)]

    def results(self, batch: Indices, row: Expr, column: Expr) -> list[Stmt]:
        """A thread's elements of the result."""
        problem = self.problem

        def element(at: Indices) -> list[Stmt]:
            i, j = at
            stmts: list[Stmt] = []
            m = emit.let(stmts, "m", ir.add(row, ir.mul(i, _SIDE)))
            n = emit.let(stmts, "n", ir.add(column, ir.mul(j, _SIDE)))
            value = Load(self.total, ir.add(ir.mul(i, self.each), j))
            done: list[Stmt] = []
            rows = emit.unflatten(done, m, problem.m)
            done += problem.epilogue(batch, rows, n, value)
            inside = ir.logical_and(m < self.rows, n < problem.n)
            return [*stmts, *emit.where(inside, done)]

        each = ir.const(self.each)
        return emit.nest((each, each), element, LoopKind.UNROLLED)
