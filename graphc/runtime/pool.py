"""The thread pool and the session locks: what runs native code on several threads."""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from types import TracebackType
from typing import Self

from graphc.runtime import library
from graphc.runtime.library import has_futex, runtime
from graphc.runtime.structs import LockStruct, PoolStruct, i64

# How long a worker without work stays awake: long enough to span the Python code
# between two runs of a training loop.
SPIN_NANOSECONDS = 3_000_000


class ThreadPool:
    """The process's worker threads: started when first needed, again after a fork."""

    def __init__(self) -> None:
        # A cache line for the ticket alone needs the whole structure on one.
        self._memory = ctypes.create_string_buffer(ctypes.sizeof(PoolStruct) + 64)
        self.address = -(-ctypes.addressof(self._memory) // 64) * 64
        self._struct = PoolStruct.from_address(self.address)
        self._start = self.start
        self._struct.start = id(self._start)
        self._struct.spin = SPIN_NANOSECONDS
        self._struct.avoided_cpu = -1
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        self._ids = (i64 * 1)()
        self._size: int | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """How many threads work on a job, its caller among them."""
        if self._size is None:
            self._size = _default_threads()
        return self._size

    def resize(self, threads: int) -> None:
        """Choose the number of threads; running jobs finish undisturbed."""
        with self._lock:
            self._stop()
            self._size = threads

    def start(self) -> None:
        """Start the workers unless they run."""
        with self._lock:
            self._struct.started = 1
            if self._threads or self._closed or not has_futex():
                return
            # Not by the workers: the process may end while they load.
            runtime()
            workers = self.size - 1
            self._ids = (i64 * max(1, workers))()
            self._struct.threads = ctypes.addressof(self._ids)
            self._struct.avoided_cpu = -1
            ctypes.memset(self._struct.allowed_cpus, 0, 128)
            for cpu in os.sched_getaffinity(0):
                if cpu < 1024:
                    self._struct.allowed_cpus[cpu // 64] |= 1 << cpu % 64
            for index in range(workers):
                ready = threading.Event()
                thread = threading.Thread(
                    target=self._work, args=(index, ready), name=f"graphc-{index}", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:
                    break
                ready.wait()
                self._threads.append(thread)
            self._struct.workers = len(self._threads)

    def close(self) -> None:
        """Stop the workers for good: jobs run serially from here on."""
        with self._lock:
            self._closed = True
            self._stop()

    def reset_in_child(self) -> None:
        """After a fork: the child has none of the threads and none of their jobs."""
        pool = self._struct
        pool.ticket &= ~0xFFFFFFFF
        pool.finished = pool.busy = pool.workers = pool.asleep = pool.stop = pool.started = 0
        self._threads = []
        self._lock = threading.RLock()

    def _work(self, index: int, ready: threading.Event) -> None:
        self._ids[index] = threading.get_native_id()
        ready.set()
        runtime().worker(self.address)

    def _stop(self) -> None:
        self._struct.workers = 0
        for thread in self._threads:
            while thread.is_alive():
                runtime().stop(self.address)
                thread.join(0.01)
        self._threads = []
        self._struct.stop = 0
        self._struct.started = 0


def _default_threads() -> int:
    text = os.environ.get("GRAPHC_NUM_THREADS", "")
    if not text:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"GRAPHC_NUM_THREADS={text!r} is not a positive number")
    return int(text)


_pool = ThreadPool()
atexit.register(_pool.close)


def set_num_threads(threads: int) -> None:
    """Set how many threads, the calling one among them, share a program's loops."""
    if threads < 1:
        raise ValueError(f"the number of threads must be at least 1, not {threads}")
    _pool.resize(threads)


def get_num_threads() -> int:
    """How many threads share a program's loops."""
    return _pool.size


def parallel(function: int, argument: int, extent: int, grain: int) -> None:
    """Run the native ``void function(ptr argument, i64 begin, i64 end)`` over a range."""
    _pool.start()
    runtime().parallel(_pool.address, function, argument, extent, grain)


class SessionLock:
    """Held while a program runs, and by Python while it touches a session's state.

    A context manager. Not reentrant: the thread that holds it gets an error, as it
    would wait for itself.
    """

    def __init__(self) -> None:
        self._struct = LockStruct()
        self.address = ctypes.addressof(self._struct)
        _locks.add(self)

    def __enter__(self) -> Self:
        if runtime().lock(self.address):
            raise RuntimeError("this thread is already inside a run of the session")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        runtime().unlock(self.address)

    def reset_in_child(self) -> None:
        """After a fork: free it if a thread held it that the child does not have."""
        if self._struct.owner != threading.get_ident():
            self._struct.word = self._struct.owner = 0


_locks: weakref.WeakSet[SessionLock] = weakref.WeakSet()


def _after_fork() -> None:
    library.reset_in_child()
    _pool.reset_in_child()
    for lock in _locks:
        lock.reset_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
