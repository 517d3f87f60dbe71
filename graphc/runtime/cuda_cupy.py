"""One CUDA device through CuPy: a stream of its own, on which everything is in order."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphc.errors import InternalError, ResourceExhaustedError, UnavailableError
from graphc.runtime.cuda_arrays import DeviceArray
from graphc.runtime.cuda_blas import cublas_library, open_blas
from graphc.runtime.cuda_device import EXTRA, Blas, BlasError, CaptureError, Device, cached_cubin
from graphc.runtime.cuda_memory import Staging

COPIED = 256 << 20
INVALID, OUT_OF_MEMORY = 1, 2
"""Numbers of errors, the same ones of the runtime and of the driver."""
ON_CUDA = (2, 13)
"""DLPack's numbers of memory on CUDA devices, and of managed memory."""


def cuda_device(number: int | None = None) -> Device:
    """A CUDA device: the one of this number, or the one that CuPy has chosen.

    Raises:
      UnavailableError: there is no CuPy, no driver or no such device; the message says which.
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
    names = cuda_names()
    if number is None:
        number = cupy.cuda.runtime.getDevice()
    if not 0 <= number < len(names):
        raise UnavailableError(
            None, None, f"there is no device cuda:{number}; there are {', '.join(names)}"
        )
    return CupyDevice(cupy, number)


def cuda_names() -> list[str]:
    """The names of the CUDA devices that there are; none without CuPy or a driver."""
    try:
        import cupy
    except ImportError:
        return []
    if not cupy.is_available():
        return []
    return [f"cuda:{k}" for k in range(cupy.cuda.runtime.getDeviceCount())]


class CupyMemory:
    """A piece of CuPy's memory pool."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer
        self.address = int(pointer.ptr)


class Lease:
    """Memory that a user has an array of: what the user's stream still does with it comes first."""

    def __init__(self, device: CupyDevice, memory: CupyMemory, stream: Any) -> None:
        self._device = device
        self._memory = memory
        self._stream = stream

    def __del__(self) -> None:
        # Where Python ends, CuPy may be gone already.
        with contextlib.suppress(Exception):
            self._device.follow(self._stream)


class CupyEvent:
    """An event of CUDA."""

    def __init__(self, cupy: Any, event: Any) -> None:
        self._cupy = cupy
        self.event = event

    def done(self) -> bool:
        """Whether the device has come so far."""
        return bool(self.event.done)

    def wait(self) -> None:
        """Return when the device has come so far."""
        self.event.synchronize()

    def seconds_since(self, earlier: CupyEvent) -> float:
        """The device's time between two events."""
        milliseconds: float = self._cupy.cuda.get_elapsed_time(earlier.event, self.event)
        return milliseconds / 1e3


class CupyGraph:
    """A CUDA graph."""

    def __init__(self, graph: Any, device: CupyDevice) -> None:
        self._graph = graph
        self._device = device

    def launch(self) -> None:
        """Ask the device for all of it."""
        with self._device.checked():
            self._graph.launch(self._device.stream)


class PerThread(threading.local):
    """What a thread does with a device.

    Attributes:
      capturing: the stream that it captures, if it does.
      lanes: all streams of the capture; the first one is that which began it.
      start: the event that the others begin with.
      before: the streams that were current before it made the device its own.
    """

    capturing: Any = None
    start: Any = None

    def __init__(self) -> None:
        self.before: list[Any] = []
        self.lanes: list[Any] = []


class Active:
    """The device and its stream are those of the thread; errors of CUDA become ours."""

    def __init__(self, device: CupyDevice) -> None:
        self._device = device

    def __enter__(self) -> None:
        device = self._device
        if device.process != os.getpid():
            raise UnavailableError(
                None, None, f"{device.name} was opened by the process that this one was forked "
                "from: open a session in this one",
            )  # fmt: skip
        with device.checked():
            device.device.__enter__()
            try:
                # A stream as a context would end what the caller began with Stream.use().
                before = device.current_stream()
                # Memory of the pool is given out again in the order of its stream.
                device.stream.use()
            except BaseException:
                device.device.__exit__(None, None, None)
                raise
            device.thread.before.append(before)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        device = self._device
        try:
            device.thread.before.pop().use()
        finally:
            device.device.__exit__(kind, error, trace)
        if isinstance(error, device.errors):
            raise device.translated(error) from error


class CupyDevice:
    """A device as CuPy shows it.

    Attributes:
      number: which of those that CuPy sees.
      stream: what everything is asked of, in order, but for captures.
      errors: what CuPy raises when CUDA refuses something.
      made_of: the arguments that make another one of the same device.

    Raises:
      UnavailableError: the device cannot be opened.
    """

    def __init__(self, cupy: Any, number: int) -> None:
        self._cupy = cupy
        self._runtime = cupy.cuda.runtime
        self.errors = (
            self._runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError, BlasError
        )  # fmt: skip
        self.made_of = cupy, number
        self.number = number
        self.name = f"cuda:{number}"
        self.process = os.getpid()
        try:
            self.device = cupy.cuda.Device(number)
            self.arch = f"sm_{self.device.compute_capability}"
            with self.device:
                # No other stream waits for this one, nor it for them.
                self.stream = cupy.cuda.Stream(non_blocking=True)
        except self.errors as error:
            raise UnavailableError(
                None, None, f"device {self.name!r} cannot be opened: {error}"
            ) from error
        self.current_stream = cupy.cuda.get_current_stream
        self.thread = PerThread()
        self._staging = Staging(self)
        self._active = Active(self)
        self._modules: dict[str, Any] = {}
        self._peak: tuple[float, float] | None = None
        self._blas: list[Blas | None] = []

    def active(self) -> Active:
        """A context in which the thread works with this device."""
        return self._active

    def translated(self, error: Exception) -> Exception:
        """Our error for one of CUDA's."""
        if getattr(error, "status", None) == OUT_OF_MEMORY or getattr(error, "no_memory", False):
            return MemoryError(str(error))
        return InternalError(None, None, f"{self.name}: {error}")

    @contextlib.contextmanager
    def checked(self) -> Iterator[None]:
        """A context in which CUDA's errors become ours, and those of memory a ``MemoryError``."""
        try:
            yield
        except self.errors as error:
            raise self.translated(error) from error

    def allocate(self, nbytes: int) -> CupyMemory:
        """A piece of the memory pool."""
        self._refuse_capturing("allocates")
        try:
            return CupyMemory(self._cupy.cuda.alloc(max(nbytes, 1)))
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise MemoryError(str(error)) from None

    def trim(self) -> None:
        """Give free blocks of the memory pool back."""
        self.stream.synchronize()
        self._cupy.get_default_memory_pool().free_all_blocks()

    def pinned(self, nbytes: int) -> np.ndarray:
        """Bytes that do not leave their place in the host's memory."""
        with self.checked():
            memory = self._cupy.cuda.alloc_pinned_memory(max(nbytes, 1))
        return np.frombuffer(memory, np.uint8, nbytes)

    def write(self, address: int, array: np.ndarray) -> None:
        """Copy to the device, by way of pinned memory of our own."""
        self._refuse_capturing("copies from memory that may change")
        self._staging.put(address, array)

    def read(self, address: int, array: np.ndarray) -> None:
        """Copy from the device, and wait for it."""
        self._refuse_capturing("waits")
        kind = self._runtime.memcpyDeviceToHost
        self._runtime.memcpyAsync(
            array.ctypes.data, address, array.nbytes, kind, self.stream.ptr
        )
        self.stream.synchronize()

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy on the device."""
        kind = self._runtime.memcpyDeviceToDevice
        self._runtime.memcpyAsync(target, source, nbytes, kind, self._target().ptr)

    def upload(self, address: int, pinned: np.ndarray) -> None:
        """Copy pinned bytes to the device."""
        kind = self._runtime.memcpyHostToDevice
        self._runtime.memcpyAsync(
            address, pinned.ctypes.data, pinned.nbytes, kind, self._target().ptr
        )

    def download(self, address: int, pinned: np.ndarray) -> None:
        """Copy from the device to pinned bytes."""
        kind = self._runtime.memcpyDeviceToHost
        self._runtime.memcpyAsync(
            pinned.ctypes.data, address, pinned.nbytes, kind, self._target().ptr
        )

    def clear(self, address: int, nbytes: int) -> None:
        """Fill with zeros."""
        self._runtime.memsetAsync(address, 0, nbytes, self._target().ptr)

    def wait(self) -> None:
        """Wait for the stream."""
        self._refuse_capturing("waits")
        self.stream.synchronize()

    def event(self) -> CupyEvent:
        """The moment after what the stream was asked for so far."""
        return CupyEvent(self._cupy, self.stream.record())

    def peak(self) -> tuple[float, float]:
        """Float32 operations per second by the clock, bytes per second of a copy."""
        if self._peak is None:
            attributes = self.device.attributes
            major = int(self.arch.removeprefix("sm_")) // 10
            lanes = 64 if self.arch in ("sm_70", "sm_75", "sm_80") or major < 7 else 128
            clock = 1e3 * attributes["ClockRate"]
            flops = 2.0 * lanes * attributes["MultiProcessorCount"] * clock
            self._peak = flops, self._copied()
        return self._peak

    def _copied(self) -> float:
        """Bytes per second, read and written ones, of the fastest of some copies."""
        source, target = self.allocate(COPIED), self.allocate(COPIED)
        self.clear(source.address, COPIED)
        best = 0.0
        for _ in range(5):
            start = self.event()
            self.copy(target.address, source.address, COPIED)
            end = self.event()
            end.wait()
            best = max(best, 2 * COPIED / end.seconds_since(start))
        return best

    def _refuse_capturing(self, what: str) -> None:
        """What a graph does not do again would be missing in its replays."""
        if self.thread.capturing is not None:
            raise CaptureError(f"a capture {what}")

    # --- arrays of users --------------------------------------------------------------------------

    def taken(self, value: Any, dtype: np.dtype[Any]) -> DeviceArray | None:
        """A user's array that is on this device; None for anything that is on no device.

        Raises:
          ValueError: it is on another device, or cannot be taken.
          ResourceExhaustedError: there is no memory to convert it.
          InternalError: the device works no more.
        """
        try:
            array = self._array(value)
            if array is None:
                return None
            if array.device.id != self.number:
                raise ValueError(
                    f"it is on cuda:{array.device.id}, and the session runs on {self.name}"
                )
            with self.device:
                if array.dtype != dtype or not array.flags.c_contiguous:
                    array = self._cupy.ascontiguousarray(array.astype(dtype, copy=False))
                self.follow(self.current_stream())
        except MemoryError as error:
            raise self._no_memory(error) from None
        except (TypeError, BufferError, RuntimeError) as error:
            ours = self.translated(error)
            if isinstance(ours, MemoryError):
                raise self._no_memory(error) from None
            if isinstance(error, self.errors) and getattr(error, "status", None) != INVALID:
                raise ours from error
            raise ValueError(f"it cannot be taken from its device: {error}") from None
        foreign = not isinstance(value, self._cupy.ndarray)
        return DeviceArray(int(array.data.ptr), array.shape, dtype, array, self, foreign)

    def _no_memory(self, error: Exception) -> Exception:
        return ResourceExhaustedError(
            None, None, f"OOM on {self.name} when converting an array that is fed: {error}"
        )

    def _array(self, value: Any) -> Any:
        """The value as an array of CuPy's, which has the same memory."""
        cupy = self._cupy
        if isinstance(value, cupy.ndarray):
            return value
        if hasattr(value, "__dlpack_device__"):
            return cupy.from_dlpack(value) if value.__dlpack_device__()[0] in ON_CUDA else None
        return cupy.asarray(value) if hasattr(value, "__cuda_array_interface__") else None

    def given(self, array: DeviceArray) -> Any:
        """An array of CuPy's."""
        cupy = self._cupy
        with self.checked(), self.device:
            lease = Lease(self, array.owner, self.current_stream())
        memory = cupy.cuda.UnownedMemory(array.address, array.nbytes, lease, self.number)
        pointer = cupy.cuda.MemoryPointer(memory, 0)
        return cupy.ndarray(array.shape, array.dtype, pointer)

    def follow(self, stream: Any) -> None:
        """Let this device's stream wait for a user's."""
        with self.device:
            self.stream.wait_event(stream.record())

    def join(self) -> None:
        """Let the caller's stream wait for this device's."""
        with self.checked(), self.device:
            self.current_stream().wait_event(self.stream.record())

    # --- kernels ----------------------------------------------------------------------------------

    def load(self, text: str, functions: Sequence[str]) -> list[Any]:
        """Functions of a module, which is compiled once."""
        with self.active():
            module = self._modules.get(text)
            if module is None:
                code = cached_cubin(text, self.arch)
                with self.checked():
                    module = self._cupy.cuda.function.Module()
                    module.load(code)
                self._modules[text] = module
            return [module.get_function(name) for name in functions]

    def launch(
        self, function: Any, blocks: int, threads: tuple[int, int], arguments: Sequence[int]
    ) -> None:
        """Run a function on the stream."""
        values = tuple(np.int64(a) for a in arguments)
        function((blocks, 1, 1), (*threads, 1), values, stream=self._target())

    @property
    def model(self) -> str:
        """The name that its maker has given to it."""
        name = self._runtime.getDeviceProperties(self.number)["name"]
        return str(name.decode() if isinstance(name, bytes) else name)

    def blas(self) -> Blas | None:
        """cuBLAS, if CuPy finds it and it can be initialised; asked for once."""
        if not self._blas:
            self._refuse_capturing("opens cuBLAS")
            library = cublas_library()
            found = open_blas(library, self, lambda: int(self._target().ptr))
            self._blas.append(found)
        return self._blas[0]

    def _target(self) -> Any:
        """What launches and copies are asked of: the capture of the thread, if there is one."""
        return self.thread.capturing or self.stream

    def begin_capture(self) -> None:
        """Record what this thread asks for, on a stream that no other thread knows.

        Raises:
          CaptureError: CUDA refuses that.
        """
        try:
            first = self._cupy.cuda.Stream(non_blocking=True)
            # In the relaxed mode, so that nothing that Python frees meanwhile ends the capture.
            first.begin_capture()
            try:
                self.thread.start = first.record()
            except self.errors:
                _end(first)
                raise
        except self.errors as error:
            raise CaptureError(str(error)) from None
        self.thread.capturing, self.thread.lanes = first, [first]

    def lane(self, number: int, after: Sequence[Any]) -> None:
        """Record what follows on one of the streams that the first one has forked into."""
        thread = self.thread
        while len(thread.lanes) <= number:
            stream = self._cupy.cuda.Stream(non_blocking=True)
            stream.wait_event(thread.start)
            thread.lanes.append(stream)
        thread.capturing = thread.lanes[number]
        for event in after:
            thread.capturing.wait_event(event)

    def moment(self) -> Any:
        """An event of the capture."""
        return self.thread.capturing.record()

    def end_capture(self) -> CupyGraph:
        """What the thread asked for.

        Raises:
          CaptureError: CUDA cannot record it, or instantiate it.
        """
        (first, *others), self.thread.lanes = self.thread.lanes, []
        self.thread.capturing = self.thread.start = None
        try:
            try:
                for stream in others:
                    first.wait_event(stream.record())
            except self.errors:
                _end(first)
                raise
            return CupyGraph(first.end_capture(), self)
        except self.errors as error:
            ours = self.translated(error)
            raise ours if isinstance(ours, MemoryError) else CaptureError(str(error)) from None


def _end(stream: Any) -> None:
    """End a capture that has failed: the thread has to be out of it."""
    with contextlib.suppress(Exception):
        stream.end_capture()
