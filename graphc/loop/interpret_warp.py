"""What warps do, as the interpreter does it: products lane by lane as defined, copies
when they are waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import float32
from graphc.loop.interpret_values import Array, Evaluator, KernelFault
from graphc.loop.ir import WARP, AsyncCommit, AsyncCopy, AsyncWait, Load, Scope, WarpProduct


class Copies:
    """The copies that a thread has begun: what they are to bring is missing until it waits."""

    def __init__(self) -> None:
        self.open: list[Callable[[], None]] = []
        self.groups: list[list[Callable[[], None]]] = []

    def step(self, stmt: AsyncCopy | AsyncCommit | AsyncWait, thread: Evaluator) -> None:
        """One statement of the thread."""
        if isinstance(stmt, AsyncCopy):
            self.open.append(_begun(stmt, thread))
        elif isinstance(stmt, AsyncCommit):
            self.groups.append(self.open)
            self.open = []
        else:
            while len(self.groups) > stmt.pending:
                for finish in self.groups.pop(0):
                    finish()


def _begun(stmt: AsyncCopy, thread: Evaluator) -> Callable[[], None]:
    """Begin a copy; what is returned ends it."""
    target, source = thread.memory[stmt.buffer], thread.memory[stmt.value.buffer]
    inside, count, dtype = bool(thread.eval(stmt.cond)), stmt.count, stmt.buffer.dtype
    to = int(thread.eval(stmt.index))
    places = [to, int(thread.eval(stmt.value.index))] if inside else [to]
    for storage, place in zip((target, source), places, strict=False):
        if place < 0 or place + count > storage.data.size:
            raise KernelFault(f"{count} elements from {place} of {storage.buffer.name}")
        if place % count:
            raise KernelFault(
                f"{storage.buffer.name}[{place}] is at no multiple of {count * dtype.size} bytes"
            )
    where = slice(to, to + count)
    if target.ready is not None:
        target.ready[where] = False

    def finish() -> None:
        values = source.data[places[1] : places[1] + count] if inside else 0
        target.data[where] = values
        if target.ready is not None:
            target.ready[where] = True

    return finish


def tensor_float(values: Array) -> Array:
    """Numbers of float32 with 10 bits behind the point, the nearest ones."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    near = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(values), near, values)


def warp_product(threads: Sequence[Evaluator], stmt: WarpProduct) -> None:
    """The statement, for all warps of a block."""
    for first in range(0, len(threads), WARP):
        _product(threads[first : first + WARP], stmt)


def _product(lanes: Sequence[Evaluator], stmt: WarpProduct) -> None:
    m, n, k = stmt.shape
    if stmt.left.buffer.scope is Scope.LOCAL:
        left = _held(lanes, stmt.left, (m, k))
    else:
        left = _matrix(lanes, stmt.left, stmt.left_steps, (m, k))
    right = _matrix(lanes, stmt.right, stmt.right_steps, (k, n))
    if stmt.left.dtype is float32:
        left, right = tensor_float(left), tensor_float(right)
    exact = np.int64 if stmt.total.dtype.is_integer else np.float64
    product = left.astype(exact) @ right.astype(exact)
    for lane, thread in enumerate(lanes):
        rows, columns = _places(lane, (m, n))
        storage = thread.memory[stmt.total]
        if storage.ready is not None and not storage.ready.all():
            raise KernelFault(f"{stmt.total.name} is read before it is written")
        sums = storage.data.astype(exact) + product[rows, columns]
        storage.data[:] = sums.astype(storage.data.dtype)


def _places(lane: int, shape: tuple[int, int]) -> tuple[Array, Array]:
    """The rows and columns of the elements that a lane holds."""
    m, n = shape
    at = np.arange(m * n // WARP)
    tile, e = at // 4, at % 4
    rows = tile // (n // 8) * 16 + lane // 4 + e // 2 * 8
    return rows, tile % (n // 8) * 8 + lane % 4 * 2 + e % 2


def _held(lanes: Sequence[Evaluator], first: Load, shape: tuple[int, int]) -> Array:
    """A matrix of which every lane holds some elements."""
    matrix = np.zeros(shape, first.dtype.numpy)
    every: Any = np.arange(shape[0] * shape[1] // WARP)
    for lane, thread in enumerate(lanes):
        matrix[_places(lane, shape)] = thread.memory[first.buffer].read(every, None)
    return matrix


def _matrix(
    lanes: Sequence[Evaluator], first: Load, steps: tuple[int, int], shape: tuple[int, int]
) -> Array:
    places = {int(lane.eval(first.index)) for lane in lanes}
    if len(places) > 1:
        raise KernelFault(f"the lanes of a warp name different places of {first.buffer.name}")
    (place,) = places
    if place * first.dtype.size % 16:
        raise KernelFault(f"{first.buffer.name}[{place}] is at no multiple of 16 bytes")
    rows, columns = np.indices(shape)
    index: Any = (place + rows * steps[0] + columns * steps[1]).reshape(-1)
    return np.asarray(lanes[0].memory[first.buffer].read(index, None)).reshape(shape)
