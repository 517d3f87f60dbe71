"""The fixed native runtime: the thread pool, session locks and the call from Python.

The code is LLVM text in ``native/``; here are its structures, as ctypes, and the
Python side of its contracts. Compiled once, then loaded from the object cache.
"""

from __future__ import annotations

import atexit
import ctypes
import enum
import functools
import os
import platform
import struct
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np

from graphc.runtime import cache, jit

__all__ = [
    "CallContext",
    "Failure",
    "FailureCode",
    "Input",
    "Output",
    "SessionLock",
    "Signature",
    "context_offsets",
    "get_num_threads",
    "parallel",
    "set_num_threads",
    "symbols",
]

STATUS_WORDS = 8
# The plan's estimate, in bytes moved and operations done, from which on a run gives up
# the GIL and may use the pool: about 20 µs. Below it, getting the GIL back from a busy
# Python thread could cost far more than the run.
RELEASE_WORK = 1 << 19
# How long a worker without work stays awake: long enough to span the Python code
# between two runs of a training loop.
SPIN_NANOSECONDS = 3_000_000

_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98}
# Intrinsics, not inline assembly: LLVM can print that for the host's architecture only.
_ARM_YIELD = ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)")
_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": _ARM_YIELD,
    "arm64": _ARM_YIELD,
}
_SOURCES = ("pool.ll", "call.ll", "bind.ll", "execute.ll")
_FUNCTIONS = (
    "gc_parallel",
    "gc_worker",
    "gc_pool_stop",
    "gc_try_lock",
    "gc_lock",
    "gc_unlock",
    "gc_arena_free",
    "gc_call",
)
_i64 = ctypes.c_int64
_ptr = ctypes.c_void_p
_Fields = list[tuple[str, type[Any]]]


def _words(names: str) -> _Fields:
    return [(name, _i64) for name in names.split()]


class PoolStruct(ctypes.Structure):
    """``%Pool`` of pool.ll."""

    _fields_: ClassVar[_Fields] = [
        ("ticket", _i64),
        ("_ticket_line", _i64 * 7),
        ("finished", _i64),
        ("_finished_line", _i64 * 7),
        *_words("fn arg extent grain chunks busy workers asleep stop spin avoided_cpu threads"),
        ("allowed_cpus", ctypes.c_uint64 * 16),
        *_words("started start"),
    ]


class LockStruct(ctypes.Structure):
    """``%Lock`` of pool.ll."""

    _fields_: ClassVar[_Fields] = [
        ("word", ctypes.c_int32),
        ("_unused", ctypes.c_int32),
        ("owner", ctypes.c_uint64),
    ]


class InputStruct(ctypes.Structure):
    """``%Input`` of call.ll."""

    _fields_: ClassVar[_Fields] = _words("slot rank itemsize formats dims dtype")


class OutputStruct(ctypes.Structure):
    """``%Output`` of call.ll."""

    _fields_: ClassVar[_Fields] = _words("slot rank itemsize first_dim dtype flags")


class ContextStruct(ctypes.Structure):
    """``%Context`` of call.ll."""

    _fields_: ClassVar[_Fields] = _words(
        "plan run n_inputs inputs n_outputs outputs n_symbols syms dims buffers arena"
        " arena_capacity arena_dim status pool lock array_new array_scalar ndarray flags"
        " release_work"
    )


class _MethodDef(ctypes.Structure):
    _fields_: ClassVar[_Fields] = [
        ("name", ctypes.c_char_p),
        ("function", _ptr),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


def context_offsets() -> dict[str, int]:
    """Byte offsets of the context's fields, for the code that prints ``run``."""
    return {field[0]: getattr(ContextStruct, field[0]).offset for field in ContextStruct._fields_}


def _source() -> str:
    """The text of the runtime for this system."""
    folder = Path(__file__).with_name("native")
    machine = platform.machine()
    system = "linux.ll" if _has_futex() else "posix.ll"
    texts = [(folder / name).read_text(encoding="utf-8") for name in (*_SOURCES, system)]
    declaration, hint = _PAUSE.get(machine, ("", ""))
    texts.append(declaration)
    texts.append(f"define internal void @gc_pause() {{\n  {hint}\n  ret void\n}}\n")
    texts.append(f"@gc_futex_number = internal constant i64 {_FUTEX_NUMBERS.get(machine, -1)}\n")
    return "\n".join(texts)


def _has_futex() -> bool:
    return sys.platform == "linux" and platform.machine() in _FUTEX_NUMBERS


class _Runtime:
    """The loaded native code. There is one, and it is never unloaded."""

    def __init__(self) -> None:
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            raise RuntimeError("graphc needs a Python with the global interpreter lock")
        # The baseline of the architecture: nothing here gains by wide vectors.
        target = jit.named_target("generic")
        text = _source()
        data = cache.default_cache().fetch(
            text, target.description, "runtime", lambda: jit.compile_object(text, target)
        )
        self._object = jit.load_object(data, exports=_FUNCTIONS)
        self.address = self._object.address
        # CFUNCTYPE releases the GIL, PYFUNCTYPE keeps it.
        self.worker = ctypes.CFUNCTYPE(None, _ptr)(self.address("gc_worker"))
        self.stop = ctypes.CFUNCTYPE(None, _ptr)(self.address("gc_pool_stop"))
        self.lock = ctypes.CFUNCTYPE(ctypes.c_int32, _ptr)(self.address("gc_lock"))
        self.unlock = ctypes.PYFUNCTYPE(None, _ptr)(self.address("gc_unlock"))
        self.arena_free = ctypes.PYFUNCTYPE(None, _ptr)(self.address("gc_arena_free"))
        self.parallel = ctypes.CFUNCTYPE(None, _ptr, _ptr, _ptr, _i64, _i64)(
            self.address("gc_parallel")
        )
        self.array_new, self.array_scalar = _numpy_functions()
        self.new_builtin = ctypes.PYFUNCTYPE(
            ctypes.py_object, _ptr, ctypes.py_object, ctypes.py_object
        )(("PyCFunction_NewEx", ctypes.pythonapi))
        # METH_FASTCALL. Python keeps the pointer to this for as long as a builtin lives.
        self.method = _MethodDef(b"graphc_call", self.address("gc_call"), 0x80, None)


def _numpy_functions() -> tuple[int, int]:
    """``PyArray_NewFromDescr`` and ``PyArray_Scalar``, by their fixed places in the C API."""
    pointer = ctypes.PYFUNCTYPE(_ptr, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    capsule = np._core.multiarray._ARRAY_API  # type: ignore[attr-defined]
    table = ctypes.cast(pointer(capsule, None), ctypes.POINTER(_ptr))
    return table[94] or 0, table[60] or 0


_loading = threading.Lock()


def _runtime() -> _Runtime:
    with _loading:
        return _load()


@functools.cache
def _load() -> _Runtime:
    return _Runtime()


def symbols() -> dict[str, int]:
    """The addresses that printed programs link against."""
    return {"gc_parallel": _runtime().address("gc_parallel")}


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
        self._ids = (_i64 * 1)()
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
            if self._threads or self._closed or not _has_futex():
                return
            workers = self.size - 1
            self._ids = (_i64 * max(1, workers))()
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
        _runtime().worker(self.address)

    def _stop(self) -> None:
        self._struct.workers = 0
        for thread in self._threads:
            while thread.is_alive():
                _runtime().stop(self.address)
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
    _runtime().parallel(_pool.address, function, argument, extent, grain)


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
        if _runtime().lock(self.address):
            raise RuntimeError("this thread is already inside a run of the session")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _runtime().unlock(self.address)

    def reset_in_child(self) -> None:
        """After a fork: free it if a thread held it that the child does not have."""
        if self._struct.owner != threading.get_ident():
            self._struct.word = self._struct.owner = 0


_locks: weakref.WeakSet[SessionLock] = weakref.WeakSet()


def _after_fork() -> None:
    global _loading
    _loading = threading.Lock()
    _pool.reset_in_child()
    for lock in _locks:
        lock.reset_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class Input:
    """An argument: ``dims`` holds sizes, or ``-(k + 1)`` for symbol ``k``.

    ``formats`` are the buffer-protocol characters to accept, by default those of the
    dtype's kind (the item size is checked too).
    """

    slot: int
    dtype: np.dtype[Any]
    dims: tuple[int, ...]
    formats: str = ""


@dataclass(frozen=True)
class Output:
    """A result: ``rank`` sizes from ``first_dim`` on in the table that ``plan`` fills.

    ``scalar`` gives a NumPy scalar (of rank 0). ``late`` says that only ``run`` finds
    the sizes; it leaves the data in the slot, and the call copies them.
    """

    slot: int
    dtype: np.dtype[Any]
    rank: int
    first_dim: int = 0
    scalar: bool = False
    late: bool = False


@dataclass(frozen=True)
class Signature:
    """What the call needs to know of a program.

    ``symbols``, ``dims`` and ``buffers`` count table entries; ``arena_dim`` is the
    place in ``dims`` of the arena's size in bytes, -1 without one; ``single`` returns
    the only output itself instead of a tuple.
    """

    inputs: Sequence[Input]
    outputs: Sequence[Output]
    symbols: int
    dims: int
    buffers: int
    arena_dim: int = -1
    single: bool = False


class FailureCode(enum.IntEnum):
    """Why the call itself failed; smaller codes are the program's own."""

    OVERFLOW = 0x40000001
    OUT_OF_MEMORY = 0x40000002
    REENTRANT = 0x40000003


@dataclass(frozen=True)
class Failure:
    """A run that failed: its code and a copy of the program's status words.

    For ``OUT_OF_MEMORY``, ``status[0]`` is the number of bytes asked for.
    """

    code: int
    status: tuple[int, ...]

    @classmethod
    def decode(cls, answer: bytes) -> Failure:
        """Read the bytes that a failed call returned."""
        code, *status = struct.unpack(f"={1 + STATUS_WORDS}q", answer)
        return cls(code, tuple(status))


_FORMATS = {"i": "bhilqn", "u": "BHILQN", "b": "?"}


class CallContext:
    """The tables of one executable, and the Python function that calls it.

    ``plan`` and ``run`` are addresses; ``keep`` is whatever must outlive them. Slots of
    ``buffers`` that are neither inputs nor outputs belong to the owner: set constants
    and variables under the lock.
    """

    def __init__(
        self,
        signature: Signature,
        plan: int,
        run: int,
        *,
        lock: SessionLock | None = None,
        keep: object = None,
        release_work: int = RELEASE_WORK,
    ) -> None:
        runtime = _runtime()
        self.lock = lock or SessionLock()
        self.syms = (_i64 * max(1, signature.symbols))()
        self.dims = (_i64 * max(1, signature.dims))()
        self.buffers = (_ptr * max(1, signature.buffers))()
        self._status = (_i64 * STATUS_WORDS)()
        self._keep: list[object] = [keep, signature]
        inputs = (InputStruct * max(1, len(signature.inputs)))(
            *(self._input(item) for item in signature.inputs)
        )
        outputs = (OutputStruct * max(1, len(signature.outputs)))(
            *(_output(item) for item in signature.outputs)
        )
        self._keep += [inputs, outputs]
        self.struct = ContextStruct(
            plan=plan,
            run=run,
            n_inputs=len(signature.inputs),
            inputs=ctypes.addressof(inputs),
            n_outputs=len(signature.outputs),
            outputs=ctypes.addressof(outputs),
            n_symbols=signature.symbols,
            syms=ctypes.addressof(self.syms),
            dims=ctypes.addressof(self.dims),
            buffers=ctypes.addressof(self.buffers),
            arena_dim=signature.arena_dim,
            status=ctypes.addressof(self._status),
            pool=_pool.address,
            lock=self.lock.address,
            array_new=runtime.array_new,
            array_scalar=runtime.array_scalar,
            ndarray=id(np.ndarray),
            flags=int(signature.single),
            release_work=release_work,
        )
        self.address = ctypes.addressof(self.struct)
        # Not at exit: a daemon thread may still be running the program then.
        weakref.finalize(self, runtime.arena_free, self.address).atexit = False

    def function(self) -> Callable[..., Any]:
        """The builtin that runs the program; call.ll says what it returns.

        It keeps the context alive; the context does not know it.
        """
        runtime = _runtime()
        builtin: Callable[..., Any] = runtime.new_builtin(
            ctypes.addressof(runtime.method), self.address, self
        )
        return builtin

    def _input(self, item: Input) -> InputStruct:
        dims = (_i64 * max(1, len(item.dims)))(*item.dims)
        self._keep.append(dims)
        formats = item.formats or _FORMATS.get(item.dtype.kind, item.dtype.char)
        return InputStruct(
            slot=item.slot,
            rank=len(item.dims),
            itemsize=item.dtype.itemsize,
            formats=int.from_bytes(formats.encode()[:8], "little"),
            dims=ctypes.addressof(dims),
            dtype=id(item.dtype),
        )


def _output(item: Output) -> OutputStruct:
    if item.scalar and (item.rank or item.dtype.itemsize > 16):
        raise ValueError(f"{item} cannot be a scalar")
    return OutputStruct(
        slot=item.slot,
        rank=item.rank,
        itemsize=item.dtype.itemsize,
        first_dim=item.first_dim,
        dtype=id(item.dtype),
        flags=int(item.scalar) | int(item.late) << 1,
    )
