"""Parts of a contraction's iteration space: a tile of rows, a panel of columns, steps of ``k``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from graphc.kernels import emit, index
from graphc.kernels.problem import Indices
from graphc.kernels.tiling import Depth, Rows, known
from graphc.loop import ir
from graphc.loop.ir import Expr, LoopKind, Stmt, Var

RowBody = Callable[[Expr, Indices, "Expr | None"], list[Stmt]]


@dataclass(frozen=True)
class Panel:
    """Columns ``start`` to ``start + width``; ``valid`` of them exist (None: all).

    ``slot`` is the panel's number in its block.
    """

    start: Expr
    slot: Expr
    width: int
    valid: Expr | None

    def vector(self, body: Callable[[Expr], list[Stmt]]) -> list[Stmt]:
        """``body`` for every lane at once.

        LLVM makes poor code of vectors whose length is no power of two; they are done in pieces.
        """
        out: list[Stmt] = []
        start = 0
        while start < self.width:
            size = 1 << ((self.width - start).bit_length() - 1)
            out += emit.loop(
                ir.const(size),
                lambda lane, start=start: body(ir.add(lane, start)),  # type: ignore[misc]
                LoopKind.VECTORIZED,
            )
            start += size
        return out


@dataclass(frozen=True)
class RowTile:
    """Rows of one tile: ``tile`` steps of the split dimension by all of the inner ones.

    With ``clamp``, steps beyond the extent stand for its last index, and do not count.
    """

    outer: Indices
    start: Expr
    tile: int
    inner: tuple[int, ...]
    clamp: Expr | None = None
    unroll: bool = False

    @property
    def count(self) -> int:
        """Rows in the tile."""
        return self.tile * math.prod(self.inner)

    def explicit(self) -> RowTile:
        """The same rows, one by one instead of in an unrolled loop."""
        return replace(self, unroll=True)

    def varies(self, value: Callable[[Indices], Expr]) -> bool:
        """Whether the distance of two rows is no constant, so that each wants its own pointer."""
        if self.clamp is not None:
            return True
        split = emit.fresh("m")
        inner = tuple(emit.fresh("m") for _ in self.inner)
        found = value((*self.outer, split, *inner))
        return any(None in index.strides(found, v) for v in (split, *inner))

    def loop(self, body: RowBody, kind: LoopKind) -> list[Stmt]:
        """``body(row, m, whether it counts)`` for every row of the tile."""
        if self.unroll and kind is LoopKind.UNROLLED:
            spaces = (range(self.tile), *(range(e) for e in self.inner))
            return [
                stmt
                for place in itertools.product(*spaces)
                for stmt in self._row(tuple(ir.const(i) for i in place), body)
            ]
        extents = tuple(ir.const(e) for e in (self.tile, *self.inner))
        return emit.nest(extents, lambda place: self._row(place, body), kind)

    def existing(self, body: Callable[[Expr, Indices], list[Stmt]]) -> list[Stmt]:
        """``body(row, m)`` in a serial loop over the rows that count."""
        count: Expr = ir.const(self.tile)
        if self.clamp is not None:
            count = emit.minimum(count, ir.sub(self.clamp, self.start))
        exact = replace(self, clamp=None)
        return emit.nest(
            (count, *(ir.const(e) for e in self.inner)),
            lambda place: exact._row(place, lambda row, m, _: body(row, m)),
        )

    def _row(self, place: Indices, body: RowBody) -> list[Stmt]:
        row: Expr = ir.ZERO
        for i, extent in zip(place, (self.tile, *self.inner), strict=True):
            row = ir.add(ir.mul(row, extent), i)
        at = ir.add(self.start, place[0])
        if self.clamp is None:
            return body(row, (*self.outer, at, *place[1:]), None)
        inside = ir.apply("lt", at, self.clamp)
        at = emit.minimum(at, ir.sub(self.clamp, ir.ONE))
        return body(row, (*self.outer, at, *place[1:]), inside)


Variants = Callable[[Callable[[RowTile], list[Stmt]]], list[Stmt]]


def row_variants(
    m: Indices, rows: Rows, place: Indices, tiles: Expr, small: tuple[int, ...] = (8, 4, 1)
) -> Variants:
    """The tile at ``place``, in the variants that its count of rows may need.

    A known extent leaves one exact remainder. Of an unknown one, what is left after whole tiles
    takes the least of the ``small`` tiles that holds it.
    """
    *outer, number = place
    extent = m[rows.split]
    start = ir.mul(number, rows.tile)
    tile = RowTile(tuple(outer), start, rows.tile, rows.inner)
    size, count = known(extent), known(tiles)
    if size is not None and count is not None:
        rest = size - max(0, count - 1) * rows.tile
        if rest == rows.tile or count <= 1:
            return lambda run: run(replace(tile, tile=rest if count == 1 else rows.tile))
        whole = ir.apply("lt", number, ir.const(count - 1))
        return lambda run: emit.where(whole, run(tile), run(replace(tile, tile=rest)))
    left = ir.sub(extent, start)

    def variants(run: Callable[[RowTile], list[Stmt]]) -> list[Stmt]:
        done = run(replace(tile, clamp=extent)) if rows.tile > 1 else []
        for some in small:
            if some < rows.tile:
                least = replace(tile, tile=some, clamp=extent if some > 1 else None)
                done = emit.where(ir.apply("le", left, ir.const(some)), run(least), done)
        if not done:
            return run(tile)
        return emit.where(ir.apply("ge", left, ir.const(rows.tile)), run(tile), done)

    return variants


@dataclass(frozen=True)
class Steps:
    """A block of ``k``: from ``base`` in every dimension, ``extents`` steps of it."""

    base: Indices
    extents: Indices
    declarations: tuple[Stmt, ...] = ()

    @staticmethod
    def whole(k: Indices) -> Steps:
        """All of ``k`` as one block."""
        return Steps(tuple(ir.ZERO for _ in k), k)

    @staticmethod
    def blocks(k: Indices, depth: Depth, body: Callable[[Steps], list[Stmt]]) -> list[Stmt]:
        """Loops over the blocks of ``k``."""
        assert depth.chunk is not None
        chunk, dim = depth.chunk, depth.dim
        extent = known(k[dim])

        def block(place: Indices) -> list[Stmt]:
            out: list[Stmt] = []
            start = emit.let(out, "start", ir.mul(place[-1], chunk))
            size: Expr = ir.const(chunk)
            if extent is None or extent % chunk:
                size = emit.let(out, "size", emit.minimum(size, ir.sub(k[dim], start)))
            base = (*place[:-1], start, *(ir.ZERO for _ in k[dim + 1 :]))
            extents = (*(ir.ONE for _ in k[:dim]), size, *k[dim + 1 :])
            return body(Steps(base, extents, tuple(out)))

        return emit.nest((*k[:dim], emit.ceil_div(k[dim], chunk)), block)

    def at(self, place: Indices) -> Indices:
        """The indices of a step."""
        return tuple(ir.add(b, i) for b, i in zip(self.base, place, strict=True))

    def position(self, place: Indices) -> Expr:
        """The step's number in the block."""
        flat: Expr = ir.ZERO
        for i, extent in zip(place, self.extents, strict=True):
            flat = ir.add(ir.mul(flat, extent), i)
        return flat

    def loops(self, body: Callable[[Indices, Expr], list[Stmt]], unroll: int) -> list[Stmt]:
        """``body(k, number)`` for every step, in order; a short innermost loop is unrolled."""

        def step(place: Indices) -> list[Stmt]:
            return body(self.at(place), self.position(place))

        last = known(self.extents[-1])
        kind = LoopKind.UNROLLED if last is not None and last <= unroll else LoopKind.SERIAL
        return emit.nest(
            self.extents[:-1],
            lambda outer: emit.loop(self.extents[-1], lambda i: step((*outer, i)), kind),
        )


def probe(prefix: str, indices: Indices) -> tuple[Var, ...]:
    """Fresh variables in place of indices."""
    return tuple(emit.fresh(prefix) for _ in indices)
