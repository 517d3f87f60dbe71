"""CUDA devices: memory, copies, compilation and launches, through CuPy.

A program needs little of a device (:class:`Device`). CuPy is imported when a device is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from graphc.errors import CompileError, UnavailableError
from graphc.runtime import cache
from graphc.runtime.executable import compiler_version

EXTRA = "pip install 'graphc[cuda13]' (or [cuda12]) installs what is needed"
# 177, 550: what a text declares, or sets, and does not use.
OPTIONS = ("-std=c++17", "--fmad=false", "-diag-suppress=177,550")
"""Products and sums are contracted where a kernel says so and nowhere else, as on the CPU."""


class Memory(Protocol):
    """Memory of a device, freed when nobody refers to it any more."""

    @property
    def address(self) -> int:
        """Where it begins; a multiple of 256."""


class Device(Protocol):
    """What a program needs of a device, which does all it is asked for in order."""

    @property
    def arch(self) -> str:
        """What code is generated for: ``sm_90``."""

    def allocate(self, nbytes: int) -> Memory:
        """Memory that holds anything.

        Raises:
          MemoryError: there is not so much left.
        """

    def write(self, address: int, array: np.ndarray) -> None:
        """Copy a contiguous array to the device."""

    def read(self, address: int, array: np.ndarray) -> None:
        """Copy from the device into a contiguous array, when all that was asked for is done."""

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy from one place of the device to another."""

    def clear(self, address: int, nbytes: int) -> None:
        """Fill with zeros."""

    def load(self, text: str, functions: Sequence[str]) -> list[Any]:
        """Compile a source text; the functions of these names."""

    def launch(
        self, function: Any, blocks: int, threads: tuple[int, int], arguments: Sequence[int]
    ) -> None:
        """Run a function whose arguments are all of 64 bits."""


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


def cached_cubin(text: str, arch: str) -> bytes:
    """The same machine code, from the cache on the disk if it is there."""
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


def cuda_device() -> Device:
    """The CUDA device that CuPy has chosen.

    Raises:
      UnavailableError: there is no CuPy, no driver or no device; the message says which.
    """
    try:
        import cupy
    except ImportError as error:
        raise UnavailableError(
            None, None, f"device 'cuda' needs CuPy, which cannot be imported: {error}; {EXTRA}"
        ) from None
    if not cupy.is_available():
        raise UnavailableError(
            None, None, "device 'cuda' needs a CUDA driver and a device, and CuPy finds none"
        )
    return CupyDevice(cupy)


class CupyMemory:
    """A piece of CuPy's memory pool."""

    def __init__(self, pointer: Any) -> None:
        self._pointer = pointer
        self.address = int(pointer.ptr)


class CupyDevice:
    """A device as CuPy shows it; its default stream keeps everything in order."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._runtime = cupy.cuda.runtime
        self.arch = f"sm_{cupy.cuda.Device().compute_capability}"
        self._modules: dict[str, Any] = {}

    def allocate(self, nbytes: int) -> CupyMemory:
        """A piece of the memory pool."""
        try:
            return CupyMemory(self._cupy.cuda.alloc(max(nbytes, 1)))
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise MemoryError(str(error)) from None

    def write(self, address: int, array: np.ndarray) -> None:
        """Copy to the device."""
        self._runtime.memcpy(
            address, array.ctypes.data, array.nbytes, self._runtime.memcpyHostToDevice
        )

    def read(self, address: int, array: np.ndarray) -> None:
        """Copy from the device."""
        self._runtime.memcpy(
            array.ctypes.data, address, array.nbytes, self._runtime.memcpyDeviceToHost
        )

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy on the device."""
        self._runtime.memcpyAsync(
            target, source, nbytes, self._runtime.memcpyDeviceToDevice, 0
        )

    def clear(self, address: int, nbytes: int) -> None:
        """Fill with zeros."""
        self._runtime.memsetAsync(address, 0, nbytes, 0)

    def load(self, text: str, functions: Sequence[str]) -> list[Any]:
        """Functions of a module, which is compiled once."""
        module = self._modules.get(text)
        if module is None:
            module = self._cupy.cuda.function.Module()
            module.load(cached_cubin(text, self.arch))
            self._modules[text] = module
        return [module.get_function(name) for name in functions]

    def launch(
        self, function: Any, blocks: int, threads: tuple[int, int], arguments: Sequence[int]
    ) -> None:
        """Run a function on the default stream."""
        function((blocks, 1, 1), (*threads, 1), tuple(np.int64(a) for a in arguments))


