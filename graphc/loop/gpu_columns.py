"""Rows that lie side by side, shared out: neighbouring threads have neighbouring items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from graphc.dtypes import int64
from graphc.loop.affine import known
from graphc.loop.gpu_grid import GpuTarget, grid_stride
from graphc.loop.gpu_rows import needs_barrier, shared_out
from graphc.loop.ir import (
    ONE,
    SHARED_BYTES,
    ZERO,
    Apply,
    Barrier,
    Block,
    Buffer,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Reduce,
    Scope,
    Stmt,
    Store,
    Var,
    add,
    apply,
    block,
    const,
    index_div,
    index_mod,
    logical_and,
    mul,
    sub,
)
from graphc.loop.transform_vector import vector_count

_WARP = 32


def columns(
    kernel: Kernel,
    count: Expr,
    lets: Callable[[Var], list[Stmt]],
    body: Block,
    target: GpuTarget,
) -> Kernel | None:
    """A block for every 32 items, a thread of each of its warps for each of them.

    None where the warps would leave more totals than shared memory holds.
    """
    made = _Columns(target.threads // _WARP)
    shared = made.shared_by(body)
    if sum((known(s.size) or 0) * s.dtype.size for s in shared) > SHARED_BYTES:
        return None

    def item(group: Var, thread: Var) -> Block:
        x, number = Var("lane"), Var("n")
        stmts: list[Stmt] = [
            Let(x, index_mod(thread, _WARP)),
            Let(made.warp, index_div(thread, _WARP)),
            Let(made.place, add(mul(group, _WARP), x)),
            # Threads behind the last item do the last one's work, and store nothing.
            Let(number, Apply("min", (made.place, sub(count, ONE)), int64)),
        ]
        return Block((*stmts, *lets(number), *made.spread(body, made.place < count, thread)))

    shape = (1, target.threads)
    launch = grid_stride(vector_count(count, _WARP), target, shape, item, shared)
    return replace(kernel, body=launch)


class _Columns:
    """The body of an item, by as many threads as there are warps.

    Attributes:
      warp, place: variables of a thread: its warp, and its item.
      shared: where the warps leave totals, by what these belong to.
    """

    def __init__(self, warps: int) -> None:
        self.warps = warps
        self.warp, self.place = Var("warp"), Var("place")
        self.shared: dict[Buffer, Buffer] = {}

    def shared_by(self, body: Block) -> list[Buffer]:
        """The buffers that all threads of the block see."""
        for stmt in body.stmts:
            if isinstance(stmt, For):
                for _, reduce in shared_out(stmt, self.warp, self.warps)[1]:
                    acc, size = reduce.buffer, const(self.warps * _WARP)
                    name = f"{acc.name}s"
                    self.shared[acc] = Buffer(name, acc.dtype, size, Scope.SHARED)
        return list(self.shared.values())

    def spread(self, body: Block, inside: Expr, thread: Var) -> list[Stmt]:
        """The statements of an item; where it is not ``inside``, nothing is stored."""
        stmts: list[Stmt] = []
        for at, stmt in enumerate(body.stmts):
            if isinstance(stmt, For):
                stmts += self.nest(stmt, inside, thread)
            elif isinstance(stmt, Store) and stmt.buffer.scope is Scope.GLOBAL:
                first = logical_and(inside, apply("eq", self.warp, ZERO))
                stmts.append(If(first, block(stmt)))
            else:
                stmts.append(stmt)
            if needs_barrier(body, at):
                stmts.append(Barrier())
        return stmts

    def nest(self, stmt: For, inside: Expr, thread: Var) -> list[Stmt]:
        """A nest by warps, whose totals are combined in the order of the warps."""
        stmts, totals = shared_out(stmt, self.warp, self.warps, inside)
        if not totals:
            return stmts
        lane = index_mod(thread, _WARP)
        return [*stmts, *combined(totals, self.shared, thread, lane, self.warps), Barrier()]


def combined(
    totals: Sequence[tuple[Buffer, Reduce]], shared: Mapping[Buffer, Buffer], thread: Var,
    lane: Expr, warps: int,
) -> list[Stmt]:  # fmt: skip
    """What the threads of each warp have found, put together in the order of the warps.

    Args:
      totals: a thread's own total, and the reduction that it belongs to.
      shared: where all threads of a block leave theirs, by what these belong to.
      lane: which of a warp's threads this is: its item is that of the same thread of every warp.
    """
    stmts: list[Stmt] = [
        Store(shared[reduce.buffer], thread, Load(own, ZERO)) for own, reduce in totals
    ]
    stmts.append(Barrier())
    for _, reduce in totals:
        turn = Var("w")
        left = Load(shared[reduce.buffer], add(mul(turn, _WARP), lane))
        total = replace(reduce, value=left)
        stmts.append(For(turn, const(warps), LoopKind.UNROLLED, block(total)))
    return stmts
