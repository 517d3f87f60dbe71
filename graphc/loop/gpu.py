"""Schedules for GPUs: a naive kernel as blocks of threads.

A naive kernel is a nest of serial loops over the kept dimensions whose body is a sequence of
stages: scalars that are reduced into by nests of serial loops, and stores, of one element or of
rows. The iterations of the kept dimensions, *items*, are independent of each other. The schedule

* gives blocks square tiles where elements are read along one loop and written along another;
* gives a thread several elements that lie side by side, which it reads and writes at once, where
  they are 16 bytes together and there is nothing to reduce;
* gives every other item a thread where there is nothing to reduce, where a row is short, and where
  the rows lie side by side in memory, so that neighbouring threads read neighbouring elements;
* gives rows that lie side by side a block for 32 items where these alone are too few: its warps
  share out the iterations, and leave their totals in shared memory; of long rows that are few, many
  blocks share each, and leave their totals in a workspace;
* else gives every item a warp or a block, whose threads share out the iterations of each nest,
  have totals of their own and combine them;
* gives a sum of everything many blocks, which leave their totals in a workspace, and a second
  launch of one block that combines these.

No order of additions depends on the device: the same sizes give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphc.loop.affine import known, multiple_of
from graphc.loop.cpu import iterations_are_independent
from graphc.loop.cpu_cost import SYMBOLIC, accesses, step
from graphc.loop.cpu_rows import tidy_nest
from graphc.loop.gpu_columns import columns
from graphc.loop.gpu_few_columns import few_columns
from graphc.loop.gpu_grid import GpuTarget, grid_stride
from graphc.loop.gpu_rows import has_spread, spread_rows, total_of_everything, waits
from graphc.loop.gpu_tile import turned_tiles
from graphc.loop.ir import (
    ONE,
    Block,
    Expr,
    For,
    If,
    Kernel,
    Let,
    LoopKind,
    Stmt,
    Store,
    Var,
    add,
    block,
    const,
    mul,
    sub,
    walk_stmt,
)
from graphc.loop.transform import Loop, fuse_counters, instance, open_nest
from graphc.loop.transform_vector import vector_count

__all__ = ["GpuTarget", "schedule_gpu", "thread_per_item"]

_MOST_LANES = 8
_SHORT = 16  # iterations that one thread does alone
_WARP = 32
_LONG = 1024  # iterations from which on a row has a whole block
_MANY = 1 << 16  # items that are work enough with a thread for each
_HUGE = 1 << 14  # and from which on many blocks, if there is but one row


def schedule_gpu(kernel: Kernel, target: GpuTarget) -> Kernel:
    """A naive kernel as launches of blocks of threads."""
    loops, body = open_nest(kernel.body)
    if not iterations_are_independent(body, loops):
        return thread_per_item(kernel, [], kernel.body, target)
    loops, body = tidy_nest(loops, body)
    if any(known(extent) == 0 for _, extent in loops):
        return replace(kernel, body=Block(()))
    length = _longest(body, SYMBOLIC if loops else _HUGE + 1)
    spread = has_spread(body)
    if spread and length > _SHORT and _side_by_side(loops, body):
        items = known(_items(loops)[0])
        if items is None or items < _MANY:
            found = few_columns(kernel, *_items(loops), body, target)
            found = found or columns(kernel, *_items(loops), body, target)
            if found is not None:
                return found
    if not spread or _alone(loops, body, length):
        found = turned_tiles(kernel, loops, body, target)
        found = found or _thread_per_vector(kernel, loops, body, target)
        return found or thread_per_item(kernel, loops, body, target)
    if not loops and length > _HUGE:
        found = total_of_everything(kernel, body, target)
        if found is not None:
            return found
    by_warps = bool(loops) and length <= _LONG and not waits(body)
    across = _WARP if by_warps else target.threads
    count, lets = _items(loops)
    side = target.threads // across if loops else 1

    def item(number: Var, x: Var) -> Block:
        rows = spread_rows(body, x, across)
        return Block((*lets(number), *rows.stmts))

    launch = grid_stride(count, target, (side, across), item)
    return replace(kernel, body=launch)


def thread_per_item(
    kernel: Kernel, loops: Sequence[Loop], body: Block, target: GpuTarget
) -> Kernel:
    """The kernel with a thread for every iteration of a nest."""
    count, lets = _items(loops)
    side = target.threads if loops else 1
    launch = grid_stride(
        count, target, (side, 1), lambda number, _: Block((*lets(number), *body.stmts))
    )
    return replace(kernel, body=launch)


def _thread_per_vector(
    kernel: Kernel, loops: Sequence[Loop], body: Block, target: GpuTarget
) -> Kernel | None:
    """The kernel with a thread for several elements of the innermost loop, if it is elementwise."""
    if not loops or not all(isinstance(s, (Let, Store)) for s in body.stmts):
        return None
    *outer, (var, extent) = loops
    width = _width(body, var, target)
    whole = multiple_of(extent, width)
    total = known(_items(loops)[0])
    few = total is not None and total < target.threads * _WARP
    if width < 2 or few or not (whole or not outer):
        return None
    group, lane = Var(f"{var.name}g"), Var("l")
    start = mul(group, width)
    vector = For(
        lane, const(width), LoopKind.VECTORIZED, instance(body, {var: add(start, lane)})
    )
    done: Stmt = vector
    if not whole:
        rest = instance(body, {var: add(start, lane)})
        tail = For(lane, sub(extent, start), LoopKind.SERIAL, rest)
        done = If(add(start, width) <= extent, block(vector), block(tail))
    groups = (group, vector_count(extent, width))
    return thread_per_item(kernel, [*outer, groups], block(done), target)


def _width(body: Block, var: Var, target: GpuTarget) -> int:
    """Elements that a thread reads and writes at once: those of 16 bytes, where they are stored."""
    found = [use for stmt in body.stmts for use in accesses(stmt) if step(use[0], var) == 1]
    if not any(is_write for _, _, is_write in found):
        return 1
    return min(target.vector_bytes // max(size for _, size, _ in found), _MOST_LANES)


def _items(loops: Sequence[Loop]) -> tuple[Expr, Callable[[Var], list[Stmt]]]:
    """How many items a nest has, and what gives its variables for an item's number."""
    if not loops:
        return ONE, lambda _: []
    counter, count, lets = fuse_counters(loops)
    return count, lambda number: [Let(counter, number), *lets]


def _longest(body: Block, unknown: int) -> int:
    """Iterations of the longest nest; an extent that is not known counts as ``unknown``."""
    longest = 0
    for stmt in body.stmts:
        if isinstance(stmt, For):
            length = 1
            for _, extent in open_nest(stmt)[0]:
                size = known(extent)
                length *= unknown if size is None else size
            longest = max(longest, length)
    return longest


def _alone(loops: Sequence[Loop], body: Block, length: int) -> bool:
    """Whether a thread does the whole of an item."""
    if not loops:
        return length <= 1
    return length <= _SHORT or _side_by_side(loops, body)


def _side_by_side(loops: Sequence[Loop], body: Block) -> bool:
    """Whether neighbouring items, and not neighbouring iterations, read neighbouring elements."""
    if not loops:
        return False
    kept = loops[-1][0]
    along = across = False
    for stmt in body.stmts:
        if isinstance(stmt, For):
            nest, inner = open_nest(stmt)
            for found in walk_stmt(inner):
                for index, _, _ in accesses(found):
                    along |= step(index, nest[-1][0]) == 1
                    across |= step(index, kept) == 1
    return across and not along
