"""A device for tests: CUDA C compiled by the machine's C++ compiler, threads as fibers."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc.errors import UnavailableError
from graphc.runtime.cuda_device import nvrtc

SHIM = Path(__file__).parent / "shim" / "shim.hpp"
COMPILER = os.environ.get("CXX") or "g++"
FLAGS = (
    "-std=c++17", "-O0", "-march=native", "-ffp-contract=off", "-fPIC", "-shared",
    "-Wno-unknown-pragmas", "-w",
)  # fmt: skip
# Set by tests that run others below AddressSanitizer, which sees margins of its own.
SANITIZED = bool(os.environ.get("GRAPHC_SHIM_SANITIZED"))
ALIGNMENT = 256
MARGIN = 0 if SANITIZED else 256
POISON = 0xFF  # a NaN in every floating type
WAITS = ("__syncthreads", "__syncwarp", "__shfl")


def has_compiler() -> bool:
    """Whether there is a C++ compiler."""
    return shutil.which(COMPILER) is not None


class ShimFault(AssertionError):
    """A kernel did what no kernel may."""


@functools.cache
def folder() -> Path:
    """Where compiled kernels of this process are; what other processes have left is not used."""
    return Path(tempfile.mkdtemp(prefix="graphc-shim-", dir=os.environ.get("GRAPHC_CACHE")))


def split_functions(text: str) -> dict[str, str]:
    """The text of every ``__global__`` function by name."""
    found = {}
    for part in text.split('extern "C" __global__')[1:]:
        name = part.split("(", 2)[1].split(")")[1].strip()
        found[name] = part
    return found


def shim_source(text: str) -> str:
    """CUDA C with what a C++ compiler needs around it."""
    entries = [
        f"SHIM_ENTRY({name}, {'true' if any(w in body for w in WAITS) else 'false'})"
        for name, body in split_functions(text).items()
    ]
    return "\n".join([f'#include "{SHIM}"', '#line 1 "kernels.cu"', text, *entries, ""])


def compile_shim(text: str, flags: Sequence[str] = ()) -> ctypes.CDLL:
    """The kernels as a shared library."""
    source = shim_source(text)
    if SANITIZED:
        flags = (*flags, "-fsanitize=address", "-g")
    key = hashlib.sha256("\n".join([source, *flags]).encode()).hexdigest()[:24]
    library = folder() / f"{key}.so"
    if not library.exists():
        path = folder() / f"{key}.cpp"
        path.write_text(source)
        command = [COMPILER, *FLAGS, *flags, str(path), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[:4000]}"
    return ctypes.CDLL(str(library))


def has_nvrtc() -> bool:
    """Whether kernels can be compiled for GPUs."""
    try:
        nvrtc()
    except UnavailableError:
        return False
    return True


class Recorded(Exception):
    """The text that a program would be compiled from; nothing has run."""

    def __init__(self, text: str, functions: list[str]) -> None:
        super().__init__("recorded")
        self.text = text
        self.functions = functions


class TextDevice:
    """A device that stops where kernels would be compiled."""

    arch = "sm_80"

    def load(self, text: str, functions: Sequence[str]) -> list[Any]:
        raise Recorded(text, list(functions))


LIBC = ctypes.CDLL(None)
LIBC.posix_memalign.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
LIBC.free.argtypes = (ctypes.c_void_p,)


class ShimMemory:
    """Memory between margins that nobody may write to."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        whole = nbytes + 2 * MARGIN
        found = ctypes.c_void_p()
        if LIBC.posix_memalign(ctypes.byref(found), ALIGNMENT, max(whole, 1)):
            raise MemoryError(nbytes)
        self._memory = found.value
        raw = (ctypes.c_uint8 * whole).from_address(self._memory)
        self.raw = np.frombuffer(raw, np.uint8)
        self.raw[...] = POISON
        self.data = self.raw[MARGIN : MARGIN + nbytes]
        self.margins = self.raw[:MARGIN], self.raw[MARGIN + nbytes :]
        self.address = self._memory + MARGIN

    def __del__(self) -> None:
        LIBC.free(self._memory)

    def check(self) -> None:
        """Fail if something was written beside the memory."""
        if not all((m == POISON).all() for m in self.margins):
            raise ShimFault(f"a kernel has written beside its {self.nbytes} bytes")


class ShimDevice:
    """The device: every launch runs twice, threads and blocks in both orders, with one result."""

    arch = "sm_80"

    def __init__(self, both_orders: bool = True) -> None:
        self.both_orders = both_orders
        self.live: weakref.WeakSet[ShimMemory] = weakref.WeakSet()
        self.launches = 0
        self.texts: list[str] = []
        self.uploads = self.downloads = 0

    def allocate(self, nbytes: int) -> ShimMemory:
        memory = ShimMemory(nbytes)
        self.live.add(memory)
        return memory

    def write(self, address: int, array: np.ndarray) -> None:
        self.uploads += 1
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def read(self, address: int, array: np.ndarray) -> None:
        self.downloads += 1
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        ctypes.memmove(target, source, nbytes)

    def clear(self, address: int, nbytes: int) -> None:
        ctypes.memset(address, 0, nbytes)

    def load(self, text: str, functions: Sequence[str]) -> list[Any]:
        self.texts.append(text)
        library = compile_shim(text)
        found = []
        for name in functions:
            function = getattr(library, f"shim_{name}")
            function.restype = ctypes.c_char_p
            found.append(function)
        return found

    def launch(
        self, function: Any, blocks: int, threads: tuple[int, int], arguments: Sequence[int]
    ) -> None:
        self.launches += 1
        # The status words are left out: which failure is the first depends on the order.
        touched = [m for m in self.live if m.address in arguments[:-1]]
        before = [m.data.copy() for m in touched]
        status = np.zeros(3, np.int64)
        ctypes.memmove(status.ctypes.data, arguments[-1], status.nbytes)
        self._run(function, blocks, threads, arguments, False, touched)
        if not self.both_orders:
            return
        after = [m.data.copy() for m in touched]
        failed = ctypes.string_at(arguments[-1], 24)
        for memory, old in zip(touched, before, strict=True):
            memory.data[...] = old
        ctypes.memmove(arguments[-1], status.ctypes.data, status.nbytes)
        self._run(function, blocks, threads, arguments, True, touched)
        same = all((m.data == a).all() for m, a in zip(touched, after, strict=True))
        ctypes.memmove(arguments[-1], failed, len(failed))
        if not same:
            raise ShimFault("a kernel's result depends on the order of its threads")

    def _run(
        self, function: Any, blocks: int, threads: tuple[int, int], arguments: Sequence[int],
        backwards: bool, touched: Iterable[ShimMemory],
    ) -> None:  # fmt: skip
        values = (ctypes.c_longlong * len(arguments))(*arguments)
        pointers = (ctypes.c_void_p * len(arguments))(
            *(ctypes.addressof(values) + 8 * k for k in range(len(arguments)))
        )
        message = function(pointers, ctypes.c_longlong(blocks), *threads, int(backwards))
        if message:
            raise ShimFault(message.decode())
        for memory in touched:
            memory.check()
