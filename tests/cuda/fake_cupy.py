"""As much of CuPy 14 as the runtime uses, over a device of the shim's: same names and arguments.

Work is done late, at the worst moment, where nothing waits for it.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
from cuda_support import LateDevice, ShimMemory


class CUDARuntimeError(RuntimeError):
    """What the runtime's functions raise."""


class CUDADriverError(RuntimeError):
    """What launches raise."""


class OutOfMemoryError(MemoryError):
    """What the pool raises."""


class Pointer:
    """A MemoryPointer."""

    def __init__(self, memory: Any, offset: int) -> None:
        self.mem = memory
        self.ptr = memory.ptr + offset


class PooledMemory:
    """Memory of the pool, and the stream that it was allocated for."""

    def __init__(self, memory: ShimMemory, stream: Stream) -> None:
        self.memory = memory
        self.ptr = memory.address
        self.stream = stream


class UnownedMemory:
    """Somebody else's memory."""

    def __init__(self, ptr: int, size: int, owner: Any, device_id: int = -1) -> None:
        self.ptr, self.size, self.owner, self.device_id = ptr, size, owner, device_id


class Array:
    """An ndarray of CuPy's."""

    def __init__(self, shape: Sequence[int], dtype: Any, memptr: Pointer) -> None:
        self.shape, self.dtype, self.data = tuple(shape), np.dtype(dtype), memptr
        self.device = types.SimpleNamespace(id=getattr(memptr.mem, "device_id", 0))
        self.flags = types.SimpleNamespace(c_contiguous=True)

    def __dlpack__(self, stream: Any = None) -> Any:
        raise AssertionError("CuPy's own arrays are taken as they are")

    def astype(self, dtype: Any, copy: bool = True) -> Array:
        assert dtype == self.dtype
        return self


class Stream:
    """A stream; its work is in the queue of its own device of the shim's."""

    null: Stream

    def __init__(self, cupy: FakeCupy, non_blocking: bool = False) -> None:
        assert non_blocking
        self.cupy = cupy
        self.shim = cupy.shim
        self.ptr = 7
        self.capturing = False

    def __enter__(self) -> None:
        assert self.cupy.devices[-1] == self.cupy.number, "the stream's device is not the current"
        self.cupy.streams.append(self)

    def __exit__(self, *exc: Any) -> None:
        assert self.cupy.streams.pop() is self

    def synchronize(self) -> None:
        if self.capturing:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")
        self.shim.wait()

    def record(self, event: Any = None) -> Event:
        return Event(self)

    def wait_event(self, event: Event) -> None:
        assert isinstance(event, Event)
        self.cupy.waits.append((self, event.stream))

    def begin_capture(self, mode: int | None = None) -> None:
        self.capturing = True
        self.shim.begin_capture()

    def end_capture(self) -> Graph:
        self.capturing = False
        return Graph(self.shim.end_capture())


class Graph:
    """A CUDA graph."""

    def __init__(self, recorded: Any) -> None:
        self._recorded = recorded

    def launch(self, stream: Stream) -> None:
        assert isinstance(stream, Stream)
        self._recorded.launch()


class Event:
    """An event."""

    def __init__(self, stream: Stream | UserStream) -> None:
        self.stream = stream
        self.moment = stream.shim.event() if isinstance(stream, Stream) else None

    @property
    def done(self) -> bool:
        return bool(self.moment.done())

    def synchronize(self) -> None:
        self.moment.wait()


class UserStream:
    """The stream that a user's own code is on."""

    def __init__(self, cupy: FakeCupy) -> None:
        self.cupy = cupy
        self.ptr = 0

    def record(self, event: Any = None) -> Event:
        return Event(self)

    def wait_event(self, event: Event) -> None:
        self.cupy.waits.append((self, event.stream))
        event.stream.shim.wait()


class Device:
    """A device; entering it makes it the current one."""

    compute_capability = "80"
    attributes = {"ClockRate": 1_000_000, "MultiProcessorCount": 100}  # noqa: RUF012

    def __init__(self, cupy: FakeCupy, number: int) -> None:
        self.cupy, self.id = cupy, number

    def __enter__(self) -> Device:
        self.cupy.devices.append(self.id)
        return self

    def __exit__(self, *exc: Any) -> None:
        assert self.cupy.devices.pop() == self.id


class Module:
    """A module; in the place of machine code it takes CUDA C."""

    def __init__(self, cupy: FakeCupy) -> None:
        self.cupy = cupy

    def load(self, cubin: bytes) -> None:
        self.text = cubin.decode()

    def get_function(self, name: str) -> Any:
        (function,) = self.cupy.shim.load(self.text, [name])

        def launch(
            grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...],
            shared_mem: int = 0, stream: Stream | None = None,
            enable_cooperative_groups: bool = False,
        ) -> None:  # fmt: skip
            assert isinstance(stream, Stream)
            assert grid[1:] == (1, 1)
            assert all(isinstance(a, np.int64) for a in args)
            self.cupy.refuse()
            self.cupy.shim.launch(function, grid[0], block[:2], [int(a) for a in args])

        return launch


class FakeCupy:
    """The module ``cupy``."""

    ndarray = Array
    __version__ = "14.2.0"

    def __init__(self, number: int = 0, limit: int | None = None) -> None:
        self.number = number
        self.shim = LateDevice(limit=limit)
        self.shim.entered = 1  # what is active is looked at here
        self.devices: list[int] = [0]
        self.user = UserStream(self)
        self.streams: list[Any] = [self.user]
        self.waits: list[tuple[Any, Any]] = []
        self.refusal: Exception | None = None
        self.frees = 0
        names = {n: getattr(self, n) for n in ("memcpyAsync", "memsetAsync")}
        runtime = types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError, memcpyHostToDevice=1, memcpyDeviceToHost=2,
            memcpyDeviceToDevice=3, getDevice=lambda: self.devices[-1],
            getDeviceCount=lambda: number + 1, getDeviceProperties=self.about, **names,
        )  # fmt: skip
        self.cuda = types.SimpleNamespace(
            runtime=runtime, driver=types.SimpleNamespace(CUDADriverError=CUDADriverError),
            memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            function=types.SimpleNamespace(Module=lambda: Module(self)),
            Device=lambda number=0: Device(self, number),
            Stream=lambda non_blocking=False: Stream(self, non_blocking),
            get_current_stream=lambda: self.streams[-1], alloc=self.alloc,
            alloc_pinned_memory=bytearray, UnownedMemory=UnownedMemory,
            MemoryPointer=Pointer, get_elapsed_time=self.elapsed,
        )  # fmt: skip

    def about(self, device: int) -> dict[str, Any]:
        return {"name": b"Fake", "major": 9, "minor": 0, "totalGlobalMem": (141 + device) << 30}

    def is_available(self) -> bool:
        return True

    def refuse(self) -> None:
        """Fail as CUDA would, where a test wants it."""
        assert self.devices[-1] == self.number, "another device is current"
        if self.refusal is not None:
            raise self.refusal

    def alloc(self, size: int) -> Pointer:
        self.refuse()
        assert isinstance(self.streams[-1], Stream), "memory of the pool of another stream"
        try:
            return Pointer(PooledMemory(self.shim.allocate(size), self.streams[-1]), 0)
        except MemoryError as error:
            raise OutOfMemoryError(str(error)) from None

    def memcpyAsync(self, dst: int, src: int, size: int, kind: int, stream: int) -> None:
        self.refuse()
        assert stream == 7
        assert kind in (1, 2, 3)
        if kind == 3:
            self.shim.copy(dst, src, size)
            return
        # Pinned memory would be read and written late; these arrays may be any.
        host, place = (src, dst) if kind == 1 else (dst, src)
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(host)) if size else None
        if array is None:
            return
        if kind == 2:
            self.shim.download(place, array)
        elif self.shim._recorded is None:
            self.shim.write(place, array)
        else:
            self.shim.upload(place, array)

    def memsetAsync(self, ptr: int, value: int, size: int, stream: int) -> None:
        self.refuse()
        assert (value, stream) == (0, 7)
        self.shim.clear(ptr, size)

    def elapsed(self, start: Event, end: Event) -> float:
        return 1e3 * float(end.moment.seconds_since(start.moment))

    def get_default_memory_pool(self) -> Any:
        def free() -> None:
            self.frees += 1

        return types.SimpleNamespace(free_all_blocks=free)

    def from_dlpack(self, value: Any) -> Array:
        return value.array

    def asarray(self, value: Any) -> Array:
        return value.array

    def ascontiguousarray(self, array: Array) -> Array:
        return array
