"""Packing: a part of an operand, evaluated once and laid out as the register tile reads it."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.kernels import emit, index
from graphc.kernels.problem import Contraction, Indices, access
from graphc.kernels.tiles import Panel, RowTile, Steps, probe
from graphc.kernels.tiling import Schedule, known
from graphc.loop import ir
from graphc.loop.cpu_tile import MOST, fits, tiles, turned_loads
from graphc.loop.ir import Buffer, Expr, LoopKind, Stmt, Store

TOGETHER = 8
"""Steps of a column that are copied in one iteration of a loop."""


@dataclass(frozen=True)
class Packed:
    """Scratch: rows and steps of one tile of ``lhs``, ``rhs[panel][step][lane]`` of a block.

    ``row_pitch`` and ``step_pitch`` are the distances of rows and of steps in ``lhs``; rows lie
    side by side (``by_rows``) where they do so in the operand.
    """

    lhs: Buffer
    rhs: Buffer
    row_pitch: int
    step_pitch: int
    by_rows: bool

    @staticmethod
    def buffers(problem: Contraction, schedule: Schedule) -> Packed:
        """Scratch as the schedule needs it."""
        found, rows = access(problem), schedule.rows
        steps = max(1, schedule.depth.size)
        by_rows = found.lhs_m <= {1} and not found.lhs_k <= {1} and not rows.inner
        if by_rows:
            pitches = (1, 1 << (rows.count - 1).bit_length())
            size = steps * pitches[1]
        else:
            # Rows at a power-of-two distance would share their cache sets.
            pitches = (steps + 16 if steps % 64 == 0 else steps, 1)
            size = rows.count * pitches[0]
        return Packed(
            ir.local("lhs_tile", problem.acc, size),
            ir.local("rhs_panel", problem.acc, schedule.panels * steps * schedule.width),
            *pitches,
            by_rows,
        )

    def lhs_at(self, row: Expr, step: Expr) -> Expr:
        """Where an element of the left operand is."""
        return ir.add(ir.mul(row, self.row_pitch), ir.mul(step, self.step_pitch))


def pack_lhs(
    problem: Contraction,
    packed: Packed,
    batch: Indices,
    steps: Steps,
    tile: RowTile,
    schedule: Schedule,
) -> list[Stmt]:
    """The rows of a tile, in vectors along whichever of ``m`` and ``k`` is contiguous."""

    def one(row: Expr, m: Indices, place: Indices) -> list[Stmt]:
        at = packed.lhs_at(row, steps.position(place))
        return [Store(packed.lhs, at, problem.lhs_value(batch, m, steps.at(place)))]

    if packed.by_rows:
        zero = ir.const(0, problem.acc)
        count: Expr = ir.const(tile.tile)
        if tile.clamp is not None:
            count = emit.minimum(count, ir.sub(tile.clamp, tile.start))

        def column(place: Indices) -> list[Stmt]:
            def lanes(lane: Expr) -> list[Stmt]:
                m = (*tile.outer, ir.add(tile.start, lane))
                value = problem.lhs_value(batch, m, steps.at(place))
                at = packed.lhs_at(lane, steps.position(place))
                if not emit.is_const(count, packed.step_pitch):
                    value = ir.Guard(ir.apply("lt", lane, count), value, zero)
                return [Store(packed.lhs, at, value)]

            return emit.loop(ir.const(packed.step_pitch), lanes, LoopKind.VECTORIZED)

        return emit.nest(steps.extents, column)

    k, m = probe("k", steps.base), probe("m", problem.m)
    contiguous = index.strides(problem.lhs_value(batch, m, k), k[-1]) <= {1}
    lanes = schedule.lanes if contiguous else 1

    def line(row: Expr, m: Indices, outer: Indices) -> list[Stmt]:
        return emit.chunks(
            steps.extents[-1],
            lanes,
            lambda i, _, mask: emit.where(mask, one(row, m, (*outer, i))),
        )

    return tile.loop(
        lambda row, m, _: emit.nest(steps.extents[:-1], lambda outer: line(row, m, outer)),
        LoopKind.SERIAL,
    )


def pack_rhs(
    problem: Contraction,
    packed: Packed,
    batch: Indices,
    steps: Steps,
    panel: Panel,
    schedule: Schedule,
) -> list[Stmt]:
    """A panel of columns; lanes that do not exist become zero."""
    n = emit.fresh("n")
    k = probe("k", steps.base)
    contiguous = index.strides(problem.rhs_value(batch, k, n), n) <= {1}
    zero = ir.const(0, problem.acc)
    base = ir.mul(panel.slot, schedule.depth.size)

    def one(place: Indices, lane: Expr, exists: Expr | None) -> list[Stmt]:
        at = ir.add(ir.mul(ir.add(base, steps.position(place)), schedule.width), lane)
        value = problem.rhs_value(batch, steps.at(place), ir.add(panel.start, lane))
        return [Store(packed.rhs, at, value if exists is None else ir.Guard(exists, value, zero))]

    if contiguous:

        def vector(place: Indices) -> list[Stmt]:
            def lanes(lane: Expr) -> list[Stmt]:
                exists = None if panel.valid is None else ir.apply("lt", lane, panel.valid)
                return one(place, lane, exists)

            return panel.vector(lanes)

        return emit.nest(steps.extents, vector)

    def column(outer: Indices, lane: Expr) -> list[Stmt]:
        count = known(steps.extents[-1])
        if count is None or count % TOGETHER:
            return emit.loop(steps.extents[-1], lambda i: one((*outer, i), lane, None))

        def some(start: Expr) -> list[Stmt]:
            def step(i: Expr) -> list[Stmt]:
                return one((*outer, ir.add(ir.mul(start, TOGETHER), i)), lane, None)

            return emit.loop(ir.const(TOGETHER), step, LoopKind.UNROLLED)

        return emit.loop(ir.const(count // TOGETHER), some)

    def rest(place: Indices, lane: Expr) -> list[Stmt]:
        at = ir.add(ir.mul(ir.add(base, steps.position(place)), schedule.width), lane)
        return [Store(packed.rhs, at, zero)]

    def columns(outer: Indices) -> list[Stmt]:
        along, across = (emit.fresh("lane"), count), (emit.fresh("k"), steps.extents[-1])
        body = ir.block(*one((*outer, across[0]), along[0], None))
        loads = turned_loads(body, along[0], across[0])
        if not loads or not all(fits(loop, size) for loop in (along, across)):
            return emit.loop(count, lambda lane: column(outer, lane))
        strips, inner = tiles(along, across, body, loads, size)
        return [ir.For(*strips, LoopKind.SERIAL, inner)]

    count = ir.const(panel.width) if panel.valid is None else panel.valid
    size = min(schedule.lanes, MOST)
    out = emit.nest(steps.extents[:-1], columns)
    if panel.valid is None:
        return out
    missing = ir.sub(ir.const(panel.width), panel.valid)
    return out + emit.nest(
        (*steps.extents, missing),
        lambda at: rest(at[:-1], ir.add(count, at[-1])),
    )
