"""On a GPU: parts of a contraction's operands in shared memory, fetched while others are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.dtypes import DType
from graphc.kernels import emit
from graphc.kernels.index import strides
from graphc.kernels.problem import Contraction, Indices
from graphc.loop import ir
from graphc.loop.affine import coefficients, known, mentions, multiple_of
from graphc.loop.ir import (
    AsyncCopy,
    Buffer,
    Const,
    Expr,
    Guard,
    Load,
    LoopKind,
    Scope,
    Stmt,
    Store,
    Var,
)

_BYTES = 16  # that a thread copies at once
_UNROLLED = 4  # elements that a thread computes before it waits for any


@dataclass(frozen=True)
class Side:
    """An operand: a matrix of ``rows`` by ``depth``, each of one or several dimensions."""

    rows: Indices
    depth: Indices
    value: Callable[[Indices, Indices, Indices], Expr]

    @staticmethod
    def left(problem: Contraction) -> Side:
        """The left operand as it is."""
        return Side(problem.m, problem.k, problem.lhs)

    @staticmethod
    def right(problem: Contraction) -> Side:
        """The right operand, its columns as rows."""

        def value(batch: Indices, rows: Indices, depth: Indices) -> Expr:
            return problem.rhs(batch, depth, rows[0])

        return Side((problem.n,), problem.k, value)

    def probe(self, batch: int) -> Expr:
        """An element somewhere."""
        places = [tuple(Var("p") for _ in range(n)) for n in (batch, len(self.rows))]
        return self.value(places[0], places[1], tuple(Var("k") for _ in self.depth))


class Panel:
    """``width`` rows by ``depth`` terms of an operand in shared memory, several at once.

    Attributes:
      deep: whether what is summed up lies side by side, else the rows do.
      wide: whether threads copy 16 bytes at once, which they need not wait for; else they compute
        element after element.
    """

    def __init__(
        self, name: str, side: Side, shape: tuple[int, int], batch: int, dtype: DType,
        *, stages: int, must_be_deep: bool = False,
    ) -> None:  # fmt: skip
        self.side, self.dtype = side, dtype
        self.width, self.depth = shape
        self.each = _BYTES // dtype.size
        self.names = [Var("b") for _ in range(batch)]
        orders = (True,) if must_be_deep else (True, False)
        found = [deep for deep in orders if self._can_copy(deep)]
        self.wide = bool(found)
        self.along = found[0] if found else self._reads_along_depth()
        self.deep = self.along or must_be_deep
        pad = self.each if self.deep else max(self.each, 8)
        self.step = (self.depth if self.deep else self.width) + pad
        self.size = self.step * (self.width if self.deep else self.depth)
        self.buffer = Buffer(name, dtype, ir.const(self.size * stages), Scope.SHARED)

    @property
    def steps(self) -> tuple[int, int]:
        """How far the elements of a row, and of a term, are from the next ones."""
        return (self.step, 1) if self.deep else (1, self.step)

    def place(self, stage: Expr, row: Expr, term: Expr) -> Expr:
        """Where an element is."""
        by_row, by_term = self.steps
        inside = ir.add(ir.mul(row, by_row), ir.mul(term, by_term))
        return ir.add(ir.mul(stage, self.size), inside)

    def fetch(
        self, stage: Expr, batch: Indices, tile: Expr, turn: Expr, thread: Expr, threads: int
    ) -> list[Stmt]:
        """What a thread does to fetch the panel of a tile's rows and of one turn's terms."""
        count = self.width * self.depth // (self.each if self.wide else 1)
        length = self.depth if self.along else self.width
        length //= self.each if self.wide else 1

        def one(step: Expr) -> list[Stmt]:
            out: list[Stmt] = []
            number = emit.let(out, "e", ir.add(ir.mul(step, threads), thread))
            inner = emit.let(out, "in", ir.index_mod(number, length))
            outer = emit.let(out, "out", ir.index_div(number, length))
            put = self._copy if self.wide else self._element
            made = put(stage, batch, tile, turn, inner, outer)
            return [*out, *(emit.where(number < count, made) if count % threads else made)]

        turns = -(-count // threads)
        if turns % _UNROLLED:
            return emit.loop(ir.const(turns), one, LoopKind.UNROLLED)

        def several(group: Expr) -> list[Stmt]:
            first = ir.mul(group, _UNROLLED)
            return emit.loop(
                ir.const(_UNROLLED), lambda step: one(ir.add(first, step)), LoopKind.UNROLLED
            )

        return emit.loop(ir.const(turns // _UNROLLED), several)

    def _copy(
        self, stage: Expr, batch: Indices, tile: Expr, turn: Expr, inner: Expr, outer: Expr
    ) -> list[Stmt]:
        """A copy of 16 bytes, number ``inner`` of line ``outer``."""
        side, each, out = self.side, self.each, list[Stmt]()
        if self.deep:
            group = emit.let(out, "g", ir.add(ir.mul(turn, self.depth // each), inner))
            line = emit.let(out, "m", ir.add(ir.mul(tile, self.width), outer))
            place = self.place(stage, outer, ir.mul(inner, each))
        else:
            group = emit.let(out, "g", ir.add(ir.mul(tile, self.width // each), inner))
            line = emit.let(out, "k", ir.add(ir.mul(turn, self.depth), outer))
            place = self.place(stage, ir.mul(inner, each), outer)
        rows, depth = emit.product(side.rows), emit.product(side.depth)
        whole, single = (depth, rows) if self.deep else (rows, depth)
        inside = ir.logical_and(line < single, ir.mul(group, each) < whole)
        found = self._wide(batch, line, group, ir.ZERO, self.deep)
        assert found is not None
        cond, load = found
        cond = ir.logical_and(inside, cond)
        return [*out, AsyncCopy(self.buffer, place, load, cond, each)]

    def _element(
        self, stage: Expr, batch: Indices, tile: Expr, turn: Expr, inner: Expr, outer: Expr
    ) -> list[Stmt]:
        """One element, computed and stored."""
        side, out = self.side, list[Stmt]()
        at, term = (outer, inner) if self.along else (inner, outer)
        row = emit.let(out, "m", ir.add(ir.mul(tile, self.width), at))
        k = emit.let(out, "k", ir.add(ir.mul(turn, self.depth), term))
        inside = ir.logical_and(row < emit.product(side.rows), k < emit.product(side.depth))
        value = ir.cast(
            side.value(batch, split(row, side.rows), split(k, side.depth)), self.dtype
        )
        zero = ir.Const(0, self.dtype)
        return [*out, Store(self.buffer, self.place(stage, at, term), Guard(inside, value, zero))]

    # --- which elements lie side by side ----------------------------------------------------------

    def _wide(
        self, batch: Indices, line: Expr, group: Expr, lane: Expr, deep: bool
    ) -> tuple[Expr, Load] | None:
        """Element ``lane`` of a group, as what is loaded and the condition for it."""
        extents = self.side.depth if deep else self.side.rows
        shortened = (*extents[:-1], ir.index_div(extents[-1], self.each))
        *outer, last = split(group, shortened)
        along = (*outer, ir.add(ir.mul(last, self.each), lane))
        across = split(line, self.side.rows if deep else self.side.depth)
        rows, depth = (across, along) if deep else (along, across)
        return loaded(self.side.value(batch, rows, depth), self.dtype)

    def _can_copy(self, deep: bool) -> bool:
        """Whether groups of elements along one side lie side by side, each a whole 16 bytes."""
        extents = self.side.depth if deep else self.side.rows
        if not multiple_of(extents[-1], self.each) or known(extents[-1]) == 0:
            return False
        lane = Var("lane")
        found = self._wide(tuple(self.names), Var("line"), Var("group"), lane, deep)
        if found is None or mentions(found[0], {lane}):
            return False
        parts = coefficients(found[1].index, (lane,))
        if parts is None or known(parts[0][lane]) != 1:
            return False
        return multiple_of(parts[1], self.each)

    def _reads_along_depth(self) -> bool:
        """Whether neighbours along the depth, and not those along the rows, are read together."""
        rows = tuple(Var("m") for _ in self.side.rows)
        depth = tuple(Var("k") for _ in self.side.depth)
        value = self.side.value(tuple(self.names), rows, depth)
        return 1 in strides(value, depth[-1]) or 1 not in strides(value, rows[-1])


def loaded(value: Expr, dtype: DType) -> tuple[Expr, Load] | None:
    """What an operand loads, and where it does; elsewhere it is zero. None for any other value."""
    cond: Expr = ir.TRUE
    while isinstance(value, Guard):
        zero = value.otherwise
        if not isinstance(zero, Const) or zero.value != 0:
            return None
        cond, value = ir.logical_and(cond, value.cond), value.value
    if not isinstance(value, Load) or value.dtype is not dtype:
        return None
    return (cond, value) if value.buffer.scope is Scope.GLOBAL else None


def split(flat: Expr, extents: Indices) -> Indices:
    """The row-major indices that a flat index stands for."""
    indices: list[Expr] = []
    for place, extent in reversed(list(enumerate(extents))):
        indices.insert(0, flat if place == 0 else ir.index_mod(flat, extent))
        flat = ir.index_div(flat, extent)
    return tuple(indices)
