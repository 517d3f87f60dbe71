"""As much of CuPy 14 as the runtime uses, over a device of the shim's: same names and arguments.

Work is done late, at the worst moment, where nothing waits for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from cuda_support import LateDevice, ShimMemory

TEXTS = {
    1: "cudaErrorInvalidValue: invalid argument",
    2: "cudaErrorMemoryAllocation: out of memory",
    700: "cudaErrorIllegalAddress: an illegal memory access was encountered",
    900: "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing",
}


class CUDARuntimeError(RuntimeError):
    """What the runtime's functions raise."""

    def __init__(self, status: int) -> None:
        super().__init__(TEXTS[status])
        self.status = status


class CUDADriverError(RuntimeError):
    """What launches raise."""

    def __init__(self, status: int) -> None:
        super().__init__(TEXTS[status])
        self.status = status


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


class Current:
    """What may be the current stream, in the two ways that CuPy has."""

    cupy: FakeCupy

    def use(self) -> Any:
        self.cupy.current = self
        return self

    def __enter__(self) -> Any:
        self.cupy.streams.append(self)
        return self.use()

    def __exit__(self, *exc: Any) -> None:
        # What another one was used for meanwhile, or before, is forgotten.
        assert self.cupy.streams.pop() is self
        self.cupy.current = self.cupy.streams[-1]


class Stream(Current):
    """A stream; its work is in the queue of its own device of the shim's."""

    null: Stream

    def __init__(self, cupy: FakeCupy, non_blocking: bool = False) -> None:
        assert non_blocking
        cupy.refuse("stream", anywhere=True)
        self.cupy = cupy
        self.device = cupy.devices[-1]
        self.shim = cupy.shim
        self.ptr = 7 + len(cupy.pointers)
        cupy.pointers[self.ptr] = self
        self.capturing = False
        self.lane = 0

    def use(self) -> Any:
        assert self.cupy.devices[-1] == self.device, "the stream's device is not the current"
        return super().use()

    def synchronize(self) -> None:
        if self.capturing:
            raise CUDARuntimeError(900)
        with self.cupy.on(self):
            self.shim.wait()

    def record(self, event: Any = None) -> Event:
        return Event(self)

    def wait_event(self, event: Event) -> None:
        assert isinstance(event, Event)
        if isinstance(event.stream, Stream) and event.stream.capturing:
            # As with CUDA, this stream is in the capture, too, from now on.
            if not self.capturing:
                self.capturing, self.lane = True, self.cupy.lane()
            self.shim.lane(self.lane, [event.moment])
            self.cupy.joined.add((event.stream, self))
            return
        assert not self.capturing, "the event's stream is now in the capture"
        self.cupy.waits.append((self, event.stream))

    def begin_capture(self, mode: int | None = None) -> None:
        self.cupy.refuse("begin")
        self.shim.begin_capture()
        self.capturing, self.lane = True, 0
        self.cupy.lanes, self.cupy.joined = 1, set()

    def end_capture(self) -> Graph:
        others = [s for s in self.cupy.pointers.values() if s.capturing and s is not self]
        for other in others:
            assert (other, self) in self.cupy.joined, "a stream has not joined the capture's"
            other.capturing = False
        self.capturing = False
        recorded = self.shim.end_capture()
        self.cupy.refuse("end")
        return Graph(self.cupy, recorded)


class Graph:
    """A CUDA graph."""

    def __init__(self, cupy: FakeCupy, recorded: Any) -> None:
        self.cupy = cupy
        self._recorded = recorded

    def launch(self, stream: Stream) -> None:
        assert isinstance(stream, Stream)
        self.cupy.refuse("graph")
        self._recorded.launch()


class Event:
    """An event."""

    def __init__(self, stream: Stream | UserStream) -> None:
        self.stream = stream
        stream.cupy.refuse("event")
        if isinstance(stream, Stream) and stream.capturing:
            stream.shim.lane(stream.lane, [])
            self.moment = stream.shim.moment()
        elif isinstance(stream, Stream):
            self.moment = stream.shim.event()

    @property
    def done(self) -> bool:
        with self.stream.cupy.on(self.stream):
            return bool(self.moment.done())

    def synchronize(self) -> None:
        with self.stream.cupy.on(self.stream):
            self.moment.wait()


class UserStream(Current):
    """The stream that a user's own code is on."""

    def __init__(self, cupy: FakeCupy) -> None:
        self.cupy = cupy
        self.ptr = 0

    def record(self, event: Any = None) -> Event:
        return Event(self)

    def wait_event(self, event: Event) -> None:
        self.cupy.waits.append((self, event.stream))
        event.stream.synchronize()


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
        self.cupy.refuse("module")
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
            self.cupy.refuse("launch")
            with self.cupy.on(stream):
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
        self.current: Any = self.user
        self.streams: list[Any] = [self.user]
        self.pointers: dict[int, Stream] = {}
        self.waits: list[tuple[Any, Any]] = []
        self.lanes = 0
        self.joined: set[tuple[Stream, Stream]] = set()
        self.pinned: dict[int, bytearray] = {}  # what copies read and write late
        self.refusal: Exception | None = None
        self.refused: dict[str, Exception] = {}
        self.meanwhile: Callable[[], None] | None = None  # called once in a capture
        self.frees = 0
        self.cublas: Any = None  # the C functions, where a test has some
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
            get_current_stream=lambda: self.current, alloc=self.alloc,
            alloc_pinned_memory=self.alloc_pinned_memory, UnownedMemory=UnownedMemory,
            MemoryPointer=Pointer, get_elapsed_time=self.elapsed,
        )  # fmt: skip

    def lane(self) -> int:
        """The number of one more stream of a capture."""
        self.lanes += 1
        return self.lanes - 1

    def about(self, device: int) -> dict[str, Any]:
        return {"name": b"Fake", "major": 9, "minor": 0, "totalGlobalMem": (141 + device) << 30}

    def is_available(self) -> bool:
        return True

    def refuse(self, what: str, anywhere: bool = False) -> None:
        """Fail as CUDA would, where a test wants it."""
        assert anywhere or self.devices[-1] == self.number, "another device is current"
        error = self.refusal or self.refused.get(what)
        if error is not None:
            raise error

    @contextlib.contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        """A stream is asked for something, which is recorded where this very stream captures."""
        aside = self.shim._recorded
        if aside is None or stream.capturing:
            if aside is not None and self.meanwhile is not None:
                meanwhile, self.meanwhile = self.meanwhile, None
                meanwhile()
            if aside is not None:
                self.shim.lane(stream.lane, [])
            yield
            return
        self.shim._recorded = None
        try:
            yield
        finally:
            self.shim._recorded = aside

    def alloc_pinned_memory(self, size: int) -> bytearray:
        self.refuse("pinned", anywhere=True)
        memory = bytearray(size)
        self.pinned[ctypes.addressof(ctypes.c_char.from_buffer(memory))] = memory
        return memory

    def alloc(self, size: int) -> Pointer:
        self.refuse("alloc")
        assert isinstance(self.current, Stream), "memory of the pool of another stream"
        try:
            # The pool does not mind a capture.
            with self.on(self.pointers[7]):
                return Pointer(PooledMemory(self.shim.allocate(size), self.current), 0)
        except MemoryError as error:
            raise OutOfMemoryError(str(error)) from None

    def memcpyAsync(self, dst: int, src: int, size: int, kind: int, stream: int) -> None:
        self.refuse("memcpy")
        assert kind in (1, 2, 3)
        with self.on(self.pointers[stream]):
            self.copied(dst, src, size, kind)

    def copied(self, dst: int, src: int, size: int, kind: int) -> None:
        if kind == 3:
            self.shim.copy(dst, src, size)
            return
        host, place = (src, dst) if kind == 1 else (dst, src)
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(host)) if size else None
        if array is None:
            return
        if kind == 2:
            self.shim.download(place, array)
        elif any(start <= host < start + len(memory) for start, memory in self.pinned.items()):
            self.shim.upload(place, array)
        else:
            assert self.shim._recorded is None, "memory that is not pinned is read in a capture"
            self.shim.write(place, array)

    def memsetAsync(self, ptr: int, value: int, size: int, stream: int) -> None:
        self.refuse("memset")
        assert value == 0
        with self.on(self.pointers[stream]):
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
