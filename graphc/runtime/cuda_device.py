"""CUDA devices: memory, copies, compilation and launches, through CuPy.

A program needs little of a device (:class:`Device`). CuPy is imported when a device is asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from graphc.errors import CompileError, UnavailableError
from graphc.kernels.grid_library import Gemm
from graphc.runtime import cache
from graphc.runtime.executable import compiler_version

EXTRA = "pip install 'graphc[cuda13]' (or [cuda12]) installs what is needed"
# 177, 550: what a text declares, or sets, and does not use. 39: the mean of nothing is NaN.
OPTIONS = ("-std=c++17", "--fmad=false", "-diag-suppress=39,177,550")
"""Products and sums are contracted where a kernel says so and nowhere else, as on the CPU."""
MOST_LANES = 8
"""Things that a capture records side by side."""


class Memory(Protocol):
    """Memory of a device, freed when nobody refers to it any more."""

    @property
    def address(self) -> int:
        """Where it begins; a multiple of 256."""


class Recorded(Protocol):
    """What was captured; all of it is done again with one call."""

    def launch(self) -> None:
        """Ask the device for it."""


class Event(Protocol):
    """A moment in what a device was asked for."""

    def done(self) -> bool:
        """Whether the device has come so far."""

    def wait(self) -> None:
        """Return when the device has come so far."""

    def seconds_since(self, earlier: Any) -> float:
        """The device's time between two events, both of which are done."""


class Blas(Protocol):
    """A library of matrix products, on one device."""

    @property
    def version(self) -> str:
        """What its times depend on."""

    def multiply(self, gemm: Gemm, a: int, b: int, c: int) -> None:
        """Ask for a product of the matrices in the memory at these addresses.

        Raises:
          BlasError: the library refuses it; nothing was done.
        """


class Device(Protocol):
    """What a program needs of a device, which does all it is asked for in order.

    Everything but :meth:`load` is asked for by a thread that has made the device :meth:`active`.
    """

    @property
    def arch(self) -> str:
        """What code is generated for: ``sm_90``."""

    @property
    def name(self) -> str:
        """What users call it: ``cuda:0``."""

    @property
    def model(self) -> str:
        """What its maker calls it: ``NVIDIA H200``."""

    def active(self) -> AbstractContextManager[Any]:
        """A context in which the thread works with this device, and what it asks for is ordered."""

    def allocate(self, nbytes: int) -> Memory:
        """Memory that holds anything.

        Raises:
          MemoryError: there is not so much left.
        """

    def trim(self) -> None:
        """Give back memory that is kept for later allocations."""

    def pinned(self, nbytes: int) -> np.ndarray:
        """Bytes on the host that the device reads and writes while the host goes on."""

    def write(self, address: int, array: np.ndarray) -> None:
        """Copy a contiguous array to the device; it may be changed when this returns."""

    def read(self, address: int, array: np.ndarray) -> None:
        """Copy from the device into a contiguous array, when all that was asked for is done."""

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy from one place of the device to another."""

    def upload(self, address: int, pinned: np.ndarray) -> None:
        """Copy pinned bytes to the device, at some time before :meth:`wait` returns."""

    def download(self, address: int, pinned: np.ndarray) -> None:
        """Copy from the device to pinned bytes, at some time before :meth:`wait` returns."""

    def clear(self, address: int, nbytes: int) -> None:
        """Fill with zeros."""

    def wait(self) -> None:
        """Return when all that was asked for is done."""

    def event(self) -> Event:
        """The moment after what was asked for so far."""

    def peak(self) -> tuple[float, float]:
        """Float32 operations and copied bytes per second, at most."""

    def taken(self, value: Any, dtype: np.dtype[Any]) -> Any:
        """A user's array that is on this device, as a ``DeviceArray``; None for anything else.

        What is done from now on comes after what the caller's stream has been asked for.

        Raises:
          ValueError: it is on another device.
        """

    def given(self, array: Any) -> Any:
        """An array for a user of what a ``DeviceArray`` holds."""

    def join(self) -> None:
        """Let the caller's stream wait for what was asked for so far."""

    def load(self, text: str, functions: Sequence[str]) -> list[Any]:
        """Compile a source text; the functions of these names."""

    def launch(
        self, function: Any, blocks: int, threads: tuple[int, int], arguments: Sequence[int]
    ) -> None:
        """Run a function whose arguments are all of 64 bits."""

    def blas(self) -> Blas | None:
        """Its library of matrix products; None where there is none that works.

        Raises:
          MemoryError: there is no room for what it needs.
        """

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What is raised where the device refuses something."""

    def begin_capture(self) -> None:
        """Record what this thread asks for from now on, instead of doing it: launches and copies.

        Raises:
          CaptureError: the device cannot do that.
        """

    def lane(self, number: int, after: Sequence[Any]) -> None:
        """What the thread asks for from now on is recorded in one of ``MOST_LANES`` lanes.

        A lane is in order, and waits for nothing of the others but these moments.
        """

    def moment(self) -> Any:
        """The moment after what was recorded so far in the lane."""

    def end_capture(self) -> Recorded:
        """What was asked for since :meth:`begin_capture`.

        Raises:
          CaptureError: something of it cannot be recorded.
          MemoryError: there is no room for it.
        """


class CaptureError(Exception):
    """What was asked for cannot be recorded; nothing of it was done."""


class BlasError(RuntimeError):
    """A library of matrix products has answered with a status other than success.

    Attributes:
      code: the status, a ``cublasStatus_t``.
      refused: whether it does not compute this product, on this device; nothing was done.
      no_memory: whether there was no memory.
    """

    def __init__(self, code: int) -> None:
        self.code = code
        self.no_memory = code == _ALLOC_FAILED
        self.refused = code in _REFUSALS
        super().__init__(f"cuBLAS answers {_STATUS.get(code, code)}")


_ALLOC_FAILED = 3
_REFUSALS = (7, 8, 15)
_STATUS = {
    1: "CUBLAS_STATUS_NOT_INITIALIZED", _ALLOC_FAILED: "CUBLAS_STATUS_ALLOC_FAILED",
    7: "CUBLAS_STATUS_INVALID_VALUE", 8: "CUBLAS_STATUS_ARCH_MISMATCH",
    11: "CUBLAS_STATUS_MAPPING_ERROR", 13: "CUBLAS_STATUS_EXECUTION_FAILED",
    14: "CUBLAS_STATUS_INTERNAL_ERROR", 15: "CUBLAS_STATUS_NOT_SUPPORTED",
}  # fmt: skip


def recorded(device: Device, part: Callable[[], None]) -> Recorded:
    """What ``part`` asks the device for, recorded instead of done.

    Raises:
      CaptureError: it cannot be recorded.
      MemoryError: there is no room for it.
    """
    device.begin_capture()
    try:
        part()
    except BaseException as error:
        # The thread has to be out of the capture, whatever has become of it.
        with contextlib.suppress(CaptureError, MemoryError):
            device.end_capture()
        if isinstance(error, device.errors):
            # Step by step the run may still succeed; if not, its error is the one to show.
            raise CaptureError(str(error)) from error
        raise
    return device.end_capture()


def compile_cubin(text: str, arch: str, options: Sequence[str] = ()) -> tuple[bytes, str]:
    """Machine code for an architecture, and what the compiler says of it.

    This needs no device and no driver.

    Raises:
      CompileError: NVRTC refuses the text.
      UnavailableError: CuPy is not installed, or finds no NVRTC.
    """
    compiler = nvrtc()
    program = compiler.createProgram(text, "kernels.cu", (), ())
    try:
        compiler.compileProgram(program, (f"--gpu-architecture={arch}", *OPTIONS, *options))
        return compiler.getCUBIN(program), compiler.getProgramLog(program)
    except compiler.NVRTCError as error:
        log = compiler.getProgramLog(program)
        raise CompileError(f"NVRTC refuses a kernel ({error}):\n{log}") from None
    finally:
        compiler.destroyProgram(program)


def kernel_key(text: str, arch: str) -> str:
    """What machine code is found by, whichever NVRTC has made it."""
    return cache.cache_key(text, arch, " ".join(OPTIONS))


_provided: dict[str, bytes] = {}


def provide_cubin(key: str, cubin: bytes) -> None:
    """Let this process use machine code that was compiled somewhere else."""
    _provided[key] = cubin


def cached_cubin(text: str, arch: str) -> bytes:
    """The same machine code: what was provided, else from the cache on the disk if it is there."""
    provided = _provided.get(kernel_key(text, arch))
    if provided is not None:
        return provided
    version = ".".join(map(str, nvrtc().getVersion()))
    target = f"{arch} nvrtc-{version} {' '.join(OPTIONS)}"
    return cache.default_cache().fetch(
        text, target, compiler_version(), lambda: compile_cubin(text, arch)[0]
    )


def nvrtc() -> Any:
    """CuPy's module for NVRTC.

    Raises:
      UnavailableError: CuPy is not installed, or finds no NVRTC.
    """
    try:
        from cupy.cuda import nvrtc as compiler

        compiler.getVersion()
    except (ImportError, RuntimeError) as error:
        raise UnavailableError(None, None, f"no NVRTC: {error}; {EXTRA}") from None
    return compiler
