"""Grids: what the schedules for GPUs share. Blocks of threads stride over a number of items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.dtypes import int64
from graphc.loop.affine import known
from graphc.loop.ir import (
    ONE,
    Alloc,
    Apply,
    Block,
    Buffer,
    Expr,
    For,
    If,
    Let,
    LoopKind,
    Stmt,
    Var,
    add,
    block,
    const,
    index_div,
    mul,
    sub,
)
from graphc.loop.transform import close_nest
from graphc.loop.transform_vector import vector_count

__all__ = ["GpuTarget", "grid_square", "grid_stride", "minimum"]


@dataclass(frozen=True)
class GpuTarget:
    """What lowering and schedules need to know of a GPU.

    Attributes:
      arch: the architecture that code is generated for, ``sm_90``.
      threads: threads of a block, a power of two and whole warps.
      blocks: the most blocks of one launch. It is no property of the device: in which order sums
        are added up follows from it.
      vector_bytes: the widest access of one thread.
      tf32: whether products of float32 may count with 10 bits behind the point.
      cublas: whether products may be those of cuBLAS: ``"auto"``, ``"never"``, ``"always"``.
    """

    arch: str = "sm_80"
    threads: int = 256
    blocks: int = 2048
    vector_bytes: int = 16
    tf32: bool = False
    cublas: str = "auto"
    has_fma: bool = True
    has_avx512: bool = False
    has_vnni: bool = False
    has_bf16: bool = False
    has_madd: bool = False

    @property
    def capability(self) -> int:
        """The architecture's number: 90."""
        return int(self.arch.removeprefix("sm_").rstrip("af"))


def minimum(a: Expr, most: int) -> Expr:
    """``a``, but no more than ``most``."""
    size = known(a)
    return const(min(size, most)) if size is not None else Apply("min", (a, const(most)), int64)


def grid_stride(
    count: Expr,
    target: GpuTarget,
    shape: tuple[int, int],
    item: Callable[[Var, Var], Block],
    shared: Sequence[Buffer] = (),
) -> Block:
    """A launch that does ``item(number, x)`` for every number below ``count``.

    ``shape`` is (side, across): a block works on ``side`` items at once, each by ``across``
    threads, whose number is ``x``. ``shared`` are the buffers that the threads of a block share.
    """
    side, across = shape
    blocks, b, step, number = Var("blocks"), Var("b"), Var("s"), Var("i")
    x, y = Var("x"), Var("y")
    groups = vector_count(count, side)
    most = known(groups)
    once = most is not None and most <= target.blocks
    turn = b if once else add(mul(step, blocks), b)
    place = turn if side == 1 else add(mul(turn, side), y)
    done: Stmt = item(number, x)
    if not (once and (known(count) or 0) % side == 0):
        done = If(number < count, block(done))
    body = Block((Let(number, place), done))
    if not once:
        rounds = index_div(sub(add(groups, blocks), ONE), blocks)
        body = close_nest([(step, rounds)], body)
    if across > 1:
        body = block(For(x, const(across), LoopKind.THREAD, body))
    if side > 1 or across == 1:
        body = block(For(y, const(side), LoopKind.THREAD, body))
    body = Block((*(Alloc(s) for s in shared), *body.stmts))
    grid = Let(blocks, minimum(groups, target.blocks))
    return Block((grid, For(b, blocks, LoopKind.BLOCK, body)))


def grid_square(
    count: Expr,
    target: GpuTarget,
    shape: tuple[int, int],
    item: Callable[[Var, Var, Var], Block],
    shared: Sequence[Buffer],
) -> Block:
    """A launch that does ``item(number, y, x)`` for every number below ``count``.

    A block of threads in rows and columns, ``shape``, works on one item.
    """
    if known(count) == 0:
        return Block(())
    blocks, b, step, number = Var("blocks"), Var("b"), Var("s"), Var("i")
    y, x = Var("y"), Var("x")
    place = add(mul(step, blocks), b)
    body = Block((Let(number, place), If(number < count, block(item(number, y, x)))))
    rounds = index_div(sub(add(count, blocks), ONE), blocks)
    body = close_nest([(step, rounds)], body)
    for var, extent in ((x, shape[1]), (y, shape[0])):
        body = block(For(var, const(extent), LoopKind.THREAD, body))
    body = Block((*(Alloc(s) for s in shared), *body.stmts))
    grid = Let(blocks, minimum(count, target.blocks))
    return Block((grid, For(b, blocks, LoopKind.BLOCK, body)))
