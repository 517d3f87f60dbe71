"""Memory of the shim's device, and users' arrays in it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

# Set by tests that run others below AddressSanitizer, which sees margins of its own.
SANITIZED = bool(os.environ.get("GRAPHC_SHIM_SANITIZED"))
ALIGNMENT = 256
MARGIN = 0 if SANITIZED else 256
POISON = 0xFF  # a NaN in every floating type
LIBC = ctypes.CDLL(None)
LIBC.posix_memalign.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
LIBC.free.argtypes = (ctypes.c_void_p,)


class ShimFault(AssertionError):
    """A kernel did what no kernel may."""


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


class ShimArray:
    """A user's array in the device's memory, as CuPy's are."""

    def __init__(
        self, memory: ShimMemory, shape: Sequence[int], dtype: Any, strides: Any = None,
        start: int = 0,
    ) -> None:  # fmt: skip
        self.memory = memory
        self.start = start
        self.dtype = np.dtype(dtype)  # the interface knows no bfloat16
        self.__cuda_array_interface__ = {
            "shape": tuple(shape), "typestr": self.dtype.str, "version": 3,
            "data": (memory.address + start, False), "strides": strides,
        }  # fmt: skip

    def __getitem__(self, rows: slice) -> ShimArray:
        """The rows behind some."""
        whole = self.get()
        part = whole[rows]
        start = self.start + whole.nbytes - part.nbytes
        return ShimArray(self.memory, part.shape, part.dtype, None, start)

    def get(self) -> np.ndarray:
        """The elements."""
        interface = self.__cuda_array_interface__
        flat = self.memory.data[self.start :].view(self.dtype)
        return flat[: int(np.prod(interface["shape"]))].reshape(interface["shape"]).copy()
