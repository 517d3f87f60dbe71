"""Grids: what the schedules for GPUs share. Blocks of threads stride over a number of items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
    Kernel,
    Let,
    Load,
    LoopKind,
    Require,
    Stmt,
    Var,
    add,
    block,
    const,
    index_div,
    mul,
    sub,
    substitute,
    walk_expr,
)
from graphc.loop.transform import ScheduleError, close_nest
from graphc.loop.transform_vector import vector_count

__all__ = ["GpuTarget", "grid_stride", "thread_per_iteration"]

_SIDE = 64  # threads of a block that each do a long piece of work alone


@dataclass(frozen=True)
class GpuTarget:
    """What lowering and schedules need to know of a GPU.

    Attributes:
      arch: the architecture that code is generated for, ``sm_90``.
      threads: threads of a block, a power of two and whole warps.
      blocks: the most blocks of one launch. It is no property of the device: in which order sums
        are added up follows from it.
      vector_bytes: the widest access of one thread.
    """

    arch: str = "sm_80"
    threads: int = 256
    blocks: int = 2048
    vector_bytes: int = 16
    has_fma: bool = True
    has_avx512: bool = False
    has_vnni: bool = False
    has_bf16: bool = False


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


def thread_per_iteration(kernel: Kernel, target: GpuTarget) -> Kernel:
    """A kernel scheduled for CPUs: a thread for every iteration of its parallel loop.

    Without such a loop one thread does it all. Lanes of vectors come one after the other.
    """
    stmts = [serial(s) for s in kernel.body.stmts]
    lets = {s.var: s.value for s in stmts if isinstance(s, Let)}
    loop = kernel.parallel
    count: Expr = ONE
    if loop is not None:
        assert loop is kernel.body.stmts[-1]
        count = _over_scalars(loop.extent, lets)

    def iteration(number: Var, _: Var) -> Block:
        if loop is None:
            return Block(tuple(stmts))
        return Block((*stmts[:-1], Let(loop.var, number), *serial_block(loop.body).stmts))

    side = min(target.threads, _SIDE) if loop is not None else 1
    launch = grid_stride(count, target, (side, 1), iteration)
    return replace(kernel, body=launch, grain=ONE)


def _over_scalars(extent: Expr, lets: dict[Var, Expr]) -> Expr:
    """An extent without the variables that are declared beside the loop."""
    while any(node in lets for node in walk_expr(extent)):
        extent = substitute(extent, lets)
    if any(isinstance(node, (Load, Require)) for node in walk_expr(extent)):
        raise ScheduleError("how many threads a kernel needs is known when it runs only")
    return extent


def serial(stmt: Stmt) -> Stmt:
    """The statement with its vectorized loops as serial ones."""
    if isinstance(stmt, Block):
        return serial_block(stmt)
    if isinstance(stmt, For):
        kind = LoopKind.SERIAL if stmt.kind is LoopKind.VECTORIZED else stmt.kind
        return replace(stmt, kind=kind, body=serial_block(stmt.body))
    if isinstance(stmt, If):
        other = None if stmt.otherwise is None else serial_block(stmt.otherwise)
        return If(stmt.cond, serial_block(stmt.then), other)
    return stmt


def serial_block(body: Block) -> Block:
    """The same of every statement of a block."""
    return Block(tuple([serial(s) for s in body.stmts]))
