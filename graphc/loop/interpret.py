"""The loop IR's living definition: kernels run statement by statement in NumPy.

Everything that a kernel may not do is reported: an index out of bounds, a read of a LOCAL or
SHARED element that nobody wrote, lanes or parallel iterations that write the same element, a
barrier that only some threads reach.

A VECTORIZED loop is all its lanes at once, statement by statement. A SERIAL or PARALLEL loop
whose iterations cannot see each other is run the same way, in batches, because that is hundreds
of times faster; results are the same, to the order of additions.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from graphc.loop.interpret_lanes import independent, inner_extents
from graphc.loop.interpret_values import (
    Array,
    Evaluator,
    KernelFault,
    RequireFailed,
    Storage,
    Value,
    typed,
    uniform,
)
from graphc.loop.interpret_warp import Copies, warp_product
from graphc.loop.ir import (
    Alloc,
    AllReduce,
    AsyncCommit,
    AsyncCopy,
    AsyncWait,
    Barrier,
    Block,
    For,
    If,
    Kernel,
    Let,
    LoopKind,
    Prefetch,
    Reduce,
    Scope,
    Stmt,
    Store,
    WarpProduct,
    walk_stmt,
)
from graphc.loop.printer import format_stmt

__all__ = ["KernelFault", "RequireFailed", "run_kernel"]

_BATCH = 1 << 16  # iterations of a serial loop that are run at once
_UFUNC: dict[str, np.ufunc] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "and": np.logical_and,
    "or": np.logical_or,
}
Steps = Generator[Barrier | AllReduce | WarpProduct, None, None]


def run_kernel(
    kernel: Kernel,
    arrays: Sequence[Array],
    scalars: Sequence[int] = (),
    *,
    begin: int = 0,
    end: int | None = None,
) -> None:
    """Run a kernel on arrays, one per parameter, which it writes in place.

    ``begin`` and ``end`` choose iterations of the outermost PARALLEL loop.

    Raises:
      RequireFailed: the condition of a Require does not hold.
      KernelFault: the kernel does what no kernel may; the message shows the statement.
      ValueError: the arrays do not fit the parameters.
    """
    machine = _Machine(begin, end)
    if len(arrays) != len(kernel.params) or len(scalars) != len(kernel.scalars):
        raise ValueError(
            f"{kernel.name} takes {len(kernel.params)} arrays and {len(kernel.scalars)} scalars, "
            f"got {len(arrays)} and {len(scalars)}"
        )
    machine.env.update(zip(kernel.scalars, map(int, scalars), strict=True))
    for param, array in zip(kernel.params, arrays, strict=True):
        size = machine.eval(param.size)
        if array.dtype != param.dtype.numpy or array.size != size:
            raise ValueError(
                f"{kernel.name}: {param.name} is {param.dtype.code}[{size}], "
                f"got {array.dtype}[{array.size}]"
            )
        if not array.flags.c_contiguous:
            raise ValueError(f"{kernel.name}: the array for {param.name} is not contiguous")
        machine.memory[param] = Storage(param, array.reshape(-1))
    with np.errstate(all="ignore"):
        for _ in machine.block(kernel.body):
            raise KernelFault("a barrier outside of thread loops")


class _Machine(Evaluator):
    """One thread of execution: its variables, its buffers, its lanes."""

    def __init__(self, begin: int = 0, end: int | None = None) -> None:
        super().__init__()
        self.begin, self.end = begin, end
        self.lanes: int | None = None  # how many, inside a loop that is run in lanes
        self.kind = LoopKind.SERIAL  # of that loop
        self.threaded = False
        self.row: list[_Machine] = []  # the threads of its inner thread loop
        self.copies = Copies()
        self.free: dict[For, bool] = {}

    def fork(self) -> _Machine:
        """A thread of a thread loop: sees what is there now, keeps what it makes to itself."""
        other = _Machine()
        other.env, other.memory = dict(self.env), dict(self.memory)
        other.tapes, other.free = {}, self.free
        other.threaded = True
        return other

    # --- statements ---

    def block(self, block: Block) -> Steps:
        for stmt in block.stmts:
            try:
                if isinstance(stmt, Store):
                    self.store(stmt)
                elif isinstance(stmt, Reduce):
                    self.reduce(stmt)
                elif isinstance(stmt, Let):
                    self.env[stmt.var] = self.eval(stmt.value)
                elif isinstance(stmt, Alloc):
                    self.alloc(stmt)
                elif isinstance(stmt, Prefetch):
                    self.eval(stmt.index)
                elif isinstance(stmt, (Barrier, AllReduce, WarpProduct)):
                    yield stmt
                elif isinstance(stmt, (AsyncCopy, AsyncCommit, AsyncWait)):
                    self.copies.step(stmt, self)
                elif isinstance(stmt, Block):
                    yield from self.block(stmt)
                elif isinstance(stmt, If):
                    yield from self.branch(stmt)
                else:
                    assert isinstance(stmt, For)
                    yield from self.loop(stmt)
            except KernelFault as fault:
                raise _located(fault, stmt) from None

    def alloc(self, stmt: Alloc) -> None:
        lanes = self.lanes if stmt.buffer.scope is Scope.LOCAL else None
        size = int(self.eval(stmt.buffer.size))
        self.memory[stmt.buffer] = Storage.fresh(stmt.buffer, size, lanes)

    def branch(self, stmt: If) -> Steps:
        cond = self.eval(stmt.cond)
        if uniform(cond):
            chosen = stmt.then if cond else stmt.otherwise
            if chosen is not None:
                yield from self.block(chosen)
            return
        outer = self.mask
        for part, chosen in ((cond, stmt.then), (~cond, stmt.otherwise)):
            active = part if outer is None else part & outer
            if chosen is not None and active.any():
                self.mask = active
                yield from self.block(chosen)
        self.mask = outer

    # --- writes ---

    def store(self, stmt: Store) -> None:
        storage = self.memory[stmt.buffer]
        index, value = self.eval(stmt.index), typed(self.eval(stmt.value), stmt.value.dtype)
        where, mask = storage.at(index, self.mask)
        if mask is not None and not mask.any():
            return
        if storage.private or not uniform(index):
            if not storage.private:
                self.distinct(index, mask)
            _write(storage, where, value, mask)
            return
        if not uniform(value):
            active = value if mask is None else value[mask]
            if self.kind is not LoopKind.SERIAL and not _same(active):
                raise KernelFault(f"lanes store different values to {storage.buffer.name}[{index}]")
            value = active[-1]
        storage.data[where] = value
        if storage.ready is not None:
            storage.ready[where] = True

    def reduce(self, stmt: Reduce) -> None:
        storage = self.memory[stmt.buffer]
        index, value = self.eval(stmt.index), typed(self.eval(stmt.value), stmt.value.dtype)
        ufunc = _UFUNC[stmt.op]
        old = storage.read(index, self.mask)
        where, mask = storage.at(index, self.mask)
        if mask is not None and not mask.any():
            return
        if self.lanes is None:
            storage.data[where] = ufunc(typed(old, storage.buffer.dtype), value)
        elif storage.private:
            _write(storage, where, ufunc(typed(old, storage.buffer.dtype), value), mask)
        elif self.kind is LoopKind.SERIAL:
            everywhere = np.broadcast_to(np.asarray(index), self.lanes)
            values = np.broadcast_to(value, self.lanes)
            active = slice(None) if mask is None else mask
            ufunc.at(storage.data, everywhere[active], values[active])
        elif uniform(index):
            if self.kind is LoopKind.PARALLEL:
                raise KernelFault(f"parallel iterations reduce into {storage.buffer.name}[{index}]")
            values = np.broadcast_to(value, self.lanes)
            total = ufunc.reduce(values if mask is None else values[mask], dtype=values.dtype)
            storage.data[where] = ufunc(storage.data[where], total)
        else:
            self.distinct(index, mask)
            _write(storage, where, ufunc(old, value), mask)

    def distinct(self, index: Array, mask: Array | None) -> None:
        """Lanes and parallel iterations have no order: no two may write one element."""
        if self.kind is LoopKind.SERIAL:
            return
        active = np.sort(index if mask is None else index[mask])
        twice = active[1:][active[1:] == active[:-1]]
        if len(twice):
            raise KernelFault(f"two iterations write element {int(twice[0])}")

    # --- loops ---

    def loop(self, loop: For) -> Steps:
        extent = self.eval(loop.extent)
        if not uniform(extent):
            raise KernelFault("the extent differs from lane to lane")
        begin, end = 0, int(extent)
        if loop.kind is LoopKind.PARALLEL:
            begin, end = self.begin, end if self.end is None else min(end, self.end)
        if loop.kind is LoopKind.VECTORIZED:
            if end > 0:
                yield from self.in_lanes(loop, 0, end, LoopKind.VECTORIZED)
        elif loop.kind is LoopKind.THREAD and _has_barrier(loop):
            yield from self.threads(loop, end)
        elif self.batches(loop, end - begin):
            kind = LoopKind.PARALLEL if loop.kind is LoopKind.PARALLEL else LoopKind.SERIAL
            for first in range(begin, end, _BATCH):
                yield from self.in_lanes(loop, first, min(end, first + _BATCH), kind)
        else:
            for i in range(begin, end):
                self.env[loop.var] = i
                yield from self.block(loop.body)

    def batches(self, loop: For, count: int) -> bool:
        """Whether to run a loop in lanes: it is sound, and no inner loop gains more by it."""
        if self.lanes is not None or count < 4:
            return False
        if not self.is_free(loop):
            return False
        inner = inner_extents(loop, self.env, self.eval, self.is_free)
        return count >= max(inner, default=0)

    def is_free(self, loop: For) -> bool:
        free = self.free.get(loop)
        if free is None:
            free = self.free[loop] = loop.kind in _BATCHED and independent(loop)
        return free

    def in_lanes(self, loop: For, begin: int, end: int, kind: LoopKind) -> Steps:
        saved = self.lanes, self.kind
        if self.lanes is not None:
            raise KernelFault("a vectorized loop inside a vectorized loop")
        self.lanes, self.kind, self.mask = end - begin, kind, None
        self.env[loop.var] = np.arange(begin, end, dtype=np.int64)
        yield from self.block(loop.body)
        self.lanes, self.kind = saved

    def threads(self, loop: For, count: int) -> Steps:
        """All iterations side by side, from barrier to barrier."""
        threads = []
        for i in range(count):
            thread = self.fork()
            thread.env[loop.var] = i
            threads.append(thread)
        running = [thread.block(loop.body) for thread in threads]
        while running:
            reached = [next(steps, None) for steps in running]
            if any(r is not reached[0] for r in reached):
                names = ["the end" if r is None else "a barrier" for r in reached]
                raise KernelFault(f"a divergent barrier: {loop.var.name} = 0.. reach {names}")
            if reached[0] is None:
                self.row = []
                return
            if isinstance(reached[0], AllReduce):
                combine(threads, reached[0])
            elif isinstance(reached[0], WarpProduct) and not self.threaded:
                warp_product([t for thread in threads for t in thread.row or [thread]], reached[0])
            elif self.threaded:
                self.row = threads
                yield reached[0]


def combine(threads: Sequence[_Machine], stmt: AllReduce) -> None:
    """Give every thread what all of them have together."""
    stores = [thread.memory[stmt.buffer] for thread in threads]
    places = [int(thread.eval(stmt.index)) for thread in threads]
    both = list(zip(stores, places, strict=True))
    values = np.array([typed(s.read(i, None), stmt.buffer.dtype) for s, i in both])
    total = _UFUNC[stmt.op].reduce(values, dtype=values.dtype)
    for storage, place in both:
        storage.data[place] = total


_BATCHED = (LoopKind.SERIAL, LoopKind.PARALLEL, LoopKind.UNROLLED)


def _has_barrier(loop: For) -> bool:
    return any(isinstance(s, (Barrier, AllReduce, WarpProduct)) for s in walk_stmt(loop))


def _same(values: Array) -> bool:
    raw = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    return bool((raw == raw[0]).all())


def _write(storage: Storage, where: Any, value: Value, mask: Array | None) -> None:
    if mask is None:
        storage.data[where] = value
        if storage.ready is not None:
            storage.ready[where] = True
        return
    # Only the active lanes: an index of a masked lane may coincide with another's.
    lanes = np.flatnonzero(mask)
    if isinstance(where, tuple):
        column = where[1]
        at: Any = (lanes, column if uniform(column) else column[lanes])
    else:
        at = where[lanes]
    storage.data[at] = value if uniform(value) else value[lanes]
    if storage.ready is not None:
        storage.ready[at] = True


def _located(fault: KernelFault, stmt: Stmt) -> KernelFault:
    """The fault with the statement in its message: the innermost one, said once."""
    message = str(fault)
    if "\n" in message:
        return fault
    text = format_stmt(stmt).splitlines()[0 if isinstance(stmt, (For, If)) else -1]
    return KernelFault(f"{message}\n  in: {text.strip()}")
