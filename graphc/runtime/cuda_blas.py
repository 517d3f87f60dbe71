"""cuBLAS: the C functions of the library that CuPy has loaded, over one device.

CuPy's own functions refuse a stream that is being captured and know nothing of workspaces, so that
these here are looked up where CuPy's module finds its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections.abc import Callable
from typing import Any

from graphc.dtypes import DType, bfloat16, float16, float32, float64, int8, int32
from graphc.kernels.grid_library import Compute, Gemm, Matrix
from graphc.runtime.cuda_device import Blas, BlasError, Device

NAMES = (
    "cublasCreate_v2", "cublasDestroy_v2", "cublasGetVersion_v2", "cublasSetStream_v2",
    "cublasSetWorkspace_v2", "cublasSetMathMode", "cublasGemmEx", "cublasGemmStridedBatchedEx",
)  # fmt: skip
TYPES: dict[DType, int] = {
    float32: 0, float64: 1, float16: 2, int8: 3, int32: 10, bfloat16: 14
}  # fmt: skip
"""``cudaDataType``: CUDA_R_32F, _64F, _16F, _8I, _32I, _16BF."""
COMPUTE_TYPES: dict[Compute, int] = {"f32": 68, "tf32": 77, "f64": 70, "i32": 72}
"""``cublasComputeType_t``: CUBLAS_COMPUTE_32F, _32F_FAST_TF32, _64F, _32I."""
FULL_SUMS = 16
"""CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION: sums of 16-bit floats have 32 bits throughout,
as ours have."""
DEFAULT_ALGORITHM = -1
WORKSPACE = {8: 4 << 20, 9: 32 << 20}
"""Bytes that cuBLAS recommends, by the least major number of the architecture."""

_NUMBERS: dict[Compute, tuple[Any, Any]] = {
    "f32": (ctypes.c_float(1), ctypes.c_float(0)), "tf32": (ctypes.c_float(1), ctypes.c_float(0)),
    "f64": (ctypes.c_double(1), ctypes.c_double(0)), "i32": (ctypes.c_int(1), ctypes.c_int(0)),
}  # fmt: skip


def cublas_library() -> Any | None:
    """The C functions of cuBLAS, by name; None where CuPy finds no cuBLAS.

    What CuPy's module is linked with is loaded by its import, wherever it is installed.
    """
    try:
        from cupy_backends.cuda.libs import cublas

        library = ctypes.CDLL(cublas.__file__)
        for name in NAMES:
            getattr(library, name)
    except (ImportError, OSError, AttributeError, RuntimeError):
        return None
    return library


def open_blas(library: Any | None, device: Device, stream: Callable[[], int]) -> Blas | None:
    """cuBLAS for a device, which must be active; None where it cannot be initialised.

    Args:
      library: the C functions.
      device: where its workspace is.
      stream: what stream it is asked on, at the time of each call.

    Raises:
      MemoryError: there is no room for its workspace.
    """
    if library is None:
        return None
    try:
        return Cublas(library, device, stream)
    except BlasError as error:
        if error.no_memory:
            raise MemoryError(str(error)) from None
        return None


class Cublas:
    """A handle of cuBLAS, and a workspace: captures must not allocate.

    All that is asked of it comes one after the other, so that one workspace is enough.

    Raises:
      BlasError: it cannot be initialised.
    """

    def __init__(self, library: Any, device: Device, stream: Callable[[], int]) -> None:
        self._library, self._stream = library, stream
        self._lock = threading.Lock()
        handle, version = ctypes.c_void_p(), ctypes.c_int()
        _check(library.cublasCreate_v2(ctypes.byref(handle)))
        self._handle = handle
        # Where Python ends, the driver may be gone already: then nothing is destroyed.
        weakref.finalize(self, _destroy, library, handle).atexit = False
        _check(library.cublasGetVersion_v2(handle, ctypes.byref(version)))
        _check(library.cublasSetMathMode(handle, ctypes.c_int(FULL_SUMS)))
        self.version = str(version.value)
        major = int(device.arch.removeprefix("sm_")) // 10
        self._nbytes = WORKSPACE[max(m for m in WORKSPACE if m <= max(major, 8))]
        self._workspace = device.allocate(self._nbytes)

    def multiply(self, gemm: Gemm, a: int, b: int, c: int) -> None:
        """Ask for a product of the matrices in the memory at these addresses.

        Raises:
          BlasError: cuBLAS refuses it.
        """
        one, zero = (ctypes.byref(x) for x in _NUMBERS[gemm.compute])
        batched = gemm.count > 1
        left, right, out = (
            _matrix(x, at, batched)
            for x, at in ((gemm.a, a), (gemm.b, b), (gemm.c, c))
        )  # fmt: skip
        operations = (ctypes.c_int(int(x.transposed)) for x in (gemm.a, gemm.b))
        sizes = (ctypes.c_int(x) for x in (gemm.m, gemm.n, gemm.k))
        counts = (ctypes.c_int(gemm.count),) if batched else ()
        how = ctypes.c_int(COMPUTE_TYPES[gemm.compute]), ctypes.c_int(DEFAULT_ALGORITHM)
        name = "cublasGemmStridedBatchedEx" if batched else "cublasGemmEx"
        with self._lock:
            self._aim()
            _check(
                getattr(self._library, name)(
                    self._handle, *operations, *sizes, one, *left, *right, zero, *out, *counts, *how
                )
            )

    def _aim(self) -> None:
        """What is asked for goes to the present stream; that gives up the workspace."""
        library, handle = self._library, self._handle
        _check(library.cublasSetStream_v2(handle, ctypes.c_void_p(self._stream())))
        _check(
            library.cublasSetWorkspace_v2(
                handle, ctypes.c_void_p(self._workspace.address), ctypes.c_size_t(self._nbytes)
            )
        )


def _matrix(matrix: Matrix, address: int, batched: bool) -> tuple[Any, ...]:
    """What describes a matrix: address, type, leading dimension, and in batches the stride."""
    place = ctypes.c_void_p(address + matrix.offset * matrix.dtype.size)
    found = place, ctypes.c_int(TYPES[matrix.dtype]), ctypes.c_int(matrix.leading)
    return (*found, ctypes.c_longlong(matrix.stride)) if batched else found


def _check(status: int) -> None:
    if status:
        raise BlasError(status)


def _destroy(library: Any, handle: ctypes.c_void_p) -> None:
    with contextlib.suppress(Exception):
        library.cublasDestroy_v2(handle)
