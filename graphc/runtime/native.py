"""Calling programs from Python: what a program takes and gives, and the call itself.

The code is LLVM text in ``native/`` (see ``call.ll``); its structures are in ``structs.py``, the
thread pool in ``pool.py``.
"""

from __future__ import annotations

import ctypes
import enum
import struct
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.runtime.library import runtime, symbols
from graphc.runtime.pool import (
    SessionLock,
    _pool,
    get_num_threads,
    parallel,
    set_num_threads,
)
from graphc.runtime.structs import (
    ContextStruct,
    InputStruct,
    OutputStruct,
    context_offsets,
    i64,
    ptr,
)

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
    the only output itself instead of a tuple.  ``late`` counts sizes that ``run`` finds, behind the
    symbols; ``cells`` pieces of memory that grow while it runs.
    """

    inputs: Sequence[Input]
    outputs: Sequence[Output]
    symbols: int
    dims: int
    buffers: int
    arena_dim: int = -1
    single: bool = False
    late: int = 0
    cells: int = 0


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
        code = runtime()
        self.lock = lock or SessionLock()
        self.syms = (i64 * max(1, signature.symbols + signature.late))()
        self.cells = (i64 * max(1, 2 * signature.cells))()
        self.dims = (i64 * max(1, signature.dims))()
        self.buffers = (ptr * max(1, signature.buffers))()
        self._status = (i64 * STATUS_WORDS)()
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
            array_new=code.array_new,
            array_scalar=code.array_scalar,
            ndarray=id(np.ndarray),
            form=int(signature.single),
            release_work=release_work,
            cells=ctypes.addressof(self.cells),
            n_cells=signature.cells,
        )
        self.address = ctypes.addressof(self.struct)
        # Not at exit: a daemon thread may still be running the program then.
        weakref.finalize(self, code.context_free, self.address).atexit = False

    def set_host(self, host: Callable[[int, int], None]) -> None:
        """Let the program's host steps call ``host(number, address of the arguments)``."""
        self._keep.append(host)
        self.struct.host = id(host)

    def function(self) -> Callable[..., Any]:
        """The builtin that runs the program; call.ll says what it returns.

        It keeps the context alive; the context does not know it.
        """
        code = runtime()
        builtin: Callable[..., Any] = code.new_builtin(
            ctypes.addressof(code.method), self.address, self
        )
        return builtin

    def _input(self, item: Input) -> InputStruct:
        dims = (i64 * max(1, len(item.dims)))(*item.dims)
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
