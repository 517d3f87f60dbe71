"""cuBLAS as C sees it, computed by NumPy in the memory of the shim's devices.

Matrices are by columns, leading dimensions are checked as cuBLAS checks them, what beta = 0 hides
is not read, and work is done or recorded when the device comes to it.  A device of its own has
times that a test sets.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from cuda_support import LateDevice, ShimEvent, ShimFault, ShimGraph, ShimMemory

from graphc.runtime.cuda_blas import open_blas
from graphc.runtime.cuda_device import BlasError

HANDLE = 0xB1A5
DTYPES = {
    0: np.dtype(np.float32), 1: np.dtype(np.float64), 2: np.dtype(np.float16),
    3: np.dtype(np.int8), 10: np.dtype(np.int32), 14: np.dtype(ml_dtypes.bfloat16),
}  # fmt: skip
# By the type to count with: the types of both operands and of the result, and of alpha and beta.
SUPPORTED = {
    68: ({(0, 0), (2, 2), (2, 0), (14, 14), (14, 0)}, ctypes.c_float),
    77: ({(0, 0)}, ctypes.c_float), 70: ({(1, 1)}, ctypes.c_double), 72: ({(3, 10)}, ctypes.c_int),
}  # fmt: skip
INVALID_VALUE, NOT_SUPPORTED = 7, 15


class FakeCublas:
    """The functions, by the names and with the arguments that they have in C.

    Args:
      ask: asks a stream for work on some addresses.
      live: the memory that there is.

    Attributes:
      answers: what functions answer instead of success, by name.
      calls: (transposed, transposed, m, n, k, matrices) of each product that was asked for.
      streams: the stream of each.
    """

    def __init__(
        self, ask: Callable[..., None], live: Callable[[], list[ShimMemory]],
        version: int = 130000,
    ) -> None:  # fmt: skip
        self.ask, self.live, self.version = ask, live, version
        self.answers: dict[str, int] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.computes: list[int] = []
        self.streams: list[int] = []
        self.done = 0
        self.handles = self.math = 0
        self.stream: int | None = None
        self.workspace: tuple[int, int] | None = None

    def cublasCreate_v2(self, handle: Any) -> int:
        status = self.answers.get("create", 0)
        if not status:
            handle._obj.value = HANDLE
            self.handles += 1
        return status

    def cublasDestroy_v2(self, handle: Any) -> int:
        assert handle.value == HANDLE
        self.handles -= 1
        return 0

    def cublasGetVersion_v2(self, handle: Any, version: Any) -> int:
        assert handle.value == HANDLE
        version._obj.value = self.version
        return 0

    def cublasSetMathMode(self, handle: Any, mode: Any) -> int:
        assert handle.value == HANDLE
        self.math = mode.value
        return 0

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:
        assert handle.value == HANDLE
        self.stream, self.workspace = stream.value, None
        return 0

    def cublasSetWorkspace_v2(self, handle: Any, workspace: Any, size: Any) -> int:
        assert handle.value == HANDLE
        assert workspace.value % 256 == 0
        self.workspace = workspace.value, size.value
        self.inside(workspace.value, size.value)
        return 0

    def cublasGemmEx(self, handle: Any, *given: Any) -> int:
        ta, tb, m, n, k, one, a, at, lda, b, bt, ldb, zero, c, ct, ldc, *how = given
        none = ctypes.c_longlong(0)
        return self.cublasGemmStridedBatchedEx(
            handle, ta, tb, m, n, k, one, a, at, lda, none, b, bt, ldb, none, zero,
            c, ct, ldc, none, ctypes.c_int(1), *how,
        )  # fmt: skip

    def cublasGemmStridedBatchedEx(
        self, handle: Any, transa: Any, transb: Any, m: Any, n: Any, k: Any, one: Any,
        a: Any, a_type: Any, lda: Any, a_stride: Any, b: Any, b_type: Any, ldb: Any, b_stride: Any,
        zero: Any, c: Any, c_type: Any, ldc: Any, c_stride: Any, count: Any, compute: Any,
        algorithm: Any,
    ) -> int:  # fmt: skip
        assert handle.value == HANDLE
        assert algorithm.value == -1
        assert self.stream is not None
        assert self.workspace is not None, "cuBLAS would allocate"
        assert all(isinstance(x, ctypes.c_int) for x in (m, n, k, lda, ldb, ldc, count))
        assert all(isinstance(x, ctypes.c_longlong) for x in (a_stride, b_stride, c_stride))
        if self.answers.get("multiply"):
            return self.answers["multiply"]
        rows, columns, terms = m.value, n.value, k.value
        ta, tb = transa.value, transb.value
        shapes = (
            (terms, rows) if ta else (rows, terms), (columns, terms) if tb else (terms, columns),
            (rows, columns),
        )  # fmt: skip
        leading = tuple(x.value for x in (lda, ldb, ldc))
        if min(rows, columns, terms, count.value) < 0 or not {ta, tb} <= {0, 1}:
            return INVALID_VALUE
        if any(ld < max(1, shape[0]) for ld, shape in zip(leading, shapes, strict=True)):
            return INVALID_VALUE
        types, scalar = SUPPORTED[compute.value]
        if a_type.value != b_type.value or (a_type.value, c_type.value) not in types:
            return NOT_SUPPORTED
        if a_type.value == 3 and any(x % 4 for x in (*leading[:2], a.value, b.value)):
            return NOT_SUPPORTED
        assert isinstance(one._obj, scalar)
        assert (one._obj.value, zero._obj.value) == (1, 0)
        matrices = [
            (at.value, DTYPES[t.value], ld, stride.value, shape)
            for at, t, ld, stride, shape in zip(
                (a, b, c), (a_type, b_type, c_type), leading, (a_stride, b_stride, c_stride),
                shapes, strict=True,
            )
        ]  # fmt: skip
        self.calls.append((bool(ta), bool(tb), rows, columns, terms, count.value, leading))
        self.computes.append(compute.value)
        self.streams.append(self.stream)
        batches = count.value
        self.ask(
            self.stream, lambda: self.multiplied(matrices, batches, (ta, tb)),
            *(at for at, *_ in matrices), self.workspace[0],
        )  # fmt: skip
        return 0

    def inside(self, address: int, nbytes: int) -> None:
        """Fail if some bytes are not all in one piece of memory."""
        ends = ((x.address, x.address + x.nbytes) for x in self.live())
        if nbytes and not any(a <= address and address + nbytes <= b for a, b in ends):
            raise ShimFault(f"cuBLAS works on {nbytes} bytes that are nobody's")

    def view(self, matrix: tuple[Any, ...], number: int) -> np.ndarray:
        """One matrix of a batch, where it lies."""
        address, dtype, leading, stride, (rows, columns) = matrix
        address += number * stride * dtype.itemsize
        size = (columns - 1) * leading + rows
        self.inside(address, size * dtype.itemsize)
        raw = (ctypes.c_uint8 * (size * dtype.itemsize)).from_address(address)
        flat = np.frombuffer(raw, np.uint8).view(dtype)
        steps = (dtype.itemsize, leading * dtype.itemsize)
        return np.lib.stride_tricks.as_strided(flat, (rows, columns), steps)

    def multiplied(
        self, matrices: list[tuple[Any, ...]], count: int, turned: tuple[int, int]
    ) -> None:
        """Do it."""
        self.done += 1
        for number in range(count):
            a, b, c = (self.view(x, number) for x in matrices)
            wide = np.int64 if c.dtype == np.int32 else np.float64
            left, right = (
                (x.T if turn else x).astype(wide) for x, turn in zip((a, b), turned, strict=True)
            )
            c[...] = (left @ right).astype(c.dtype)


class PricedGraph:
    """A graph that takes as long as what is in it."""

    def __init__(self, graph: ShimGraph, device: BlasDevice, seconds: float) -> None:
        self.graph, self.device, self.seconds = graph, device, seconds

    def launch(self) -> None:
        self.device.clock += self.seconds
        self.graph.launch()


class BlasDevice(LateDevice):
    """A late device with cuBLAS, on which launches and products take the time that a test says."""

    model = "Priced"
    errors = (BlasError,)

    def __init__(self, launch: float = 1e-5, multiply: float = 1e-5, **options: Any) -> None:
        super().__init__(both_orders=False, **options)
        self.prices = {"launch": launch, "multiply": multiply, "rest": 1e-6}
        self.clock, self._spent = 0.0, 0.0
        self.events = 0
        self.cublas = FakeCublas(self._asked, lambda: list(self.live))
        self._blas: Any = None

    def spend(self, what: str) -> None:
        """Let something take its time, now or in the graph that is recorded."""
        if self._recorded is None:
            self.clock += self.prices[what]
        else:
            self._spent += self.prices[what]

    def _asked(self, stream: int, work: Callable[[], None], *addresses: int) -> None:
        assert stream == 1
        self.spend("multiply")
        self.ask(work, *addresses)

    def blas(self) -> Any:
        self.refuse_capturing("opens cuBLAS")
        if self._blas is None:
            self._blas = open_blas(self.cublas, self, lambda: 1)
        return self._blas

    def launch(self, function: Any, *given: Any) -> None:
        self.spend("rest" if function.__name__.endswith("_rest") else "launch")
        super().launch(function, *given)

    def event(self) -> ShimEvent:
        found = super().event()
        self.events += 1
        found.time = self.clock
        return found

    def begin_capture(self) -> None:
        super().begin_capture()
        self._spent = 0.0

    def end_capture(self) -> PricedGraph:
        return PricedGraph(super().end_capture(), self, self._spent)
