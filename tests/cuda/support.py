"""A device for tests: CUDA C compiled by the machine's C++ compiler, threads as fibers."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import random
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cuda_memory import POISON, SANITIZED, ShimArray, ShimFault, ShimMemory

from graphc.errors import UnavailableError
from graphc.runtime.cuda_arrays import DeviceArray
from graphc.runtime.cuda_device import MOST_LANES, nvrtc

SHIM = Path(__file__).parent / "shim" / "shim.hpp"
COMPILER = os.environ.get("CXX") or "g++"
FLAGS = (
    "-std=c++17", "-march=native", "-ffp-contract=off", "-fPIC", "-Wno-unknown-pragmas", "-w",
)  # fmt: skip
WAITS = ("__syncthreads", "__syncwarp", "__shfl")


def has_compiler() -> bool:
    """Whether there is a C++ compiler."""
    return shutil.which(COMPILER) is not None


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


@functools.cache
def shim_object(*flags: str) -> Path:
    """What all kernels call, compiled: once for each process."""
    made = folder() / f"shim-{hashlib.sha256(' '.join(flags).encode()).hexdigest()[:8]}.o"
    compile_cpp(SHIM.with_suffix(".cpp"), made, "-O1", "-c", *flags)
    return made


def compile_cpp(source: Path, made: Path, *flags: str) -> None:
    """What the C++ compiler makes of a source."""
    command = [COMPILER, *FLAGS, *flags, str(source), "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[:4000]}"


def compile_shim(text: str, flags: Sequence[str] = ()) -> ctypes.CDLL:
    """The kernels as a shared library; ``flags`` are for them alone."""
    source = shim_source(text)
    both = ("-fsanitize=address", "-g") if SANITIZED else ()
    key = hashlib.sha256("\n".join([source, *flags, *both]).encode()).hexdigest()[:24]
    library = folder() / f"{key}.so"
    if not library.exists():
        path = folder() / f"{key}.cpp"
        path.write_text(source)
        compile_cpp(path, library, "-O0", "-shared", str(shim_object(*both)), *flags, *both)
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
    name = "cuda:0"

    def load(self, text: str, functions: Sequence[str]) -> list[Any]:
        raise Recorded(text, list(functions))


class ShimEvent:
    """A moment of the shim's device, which does everything at once."""

    def __init__(self, device: ShimDevice) -> None:
        self.device = device
        self.time = time.perf_counter()

    def done(self) -> bool:
        self.device.refuse_capturing("asks for an event")
        return True

    def wait(self) -> None:
        self.device.refuse_capturing("waits for an event")

    def seconds_since(self, earlier: ShimEvent) -> float:
        return self.time - earlier.time


def _alive(memory: Any) -> ShimMemory:
    found = memory()
    if found is None:
        raise ShimFault("a graph works on memory that has been freed")
    return found


class ShimGraph:
    """What was captured: the work, and the memory that it is on, which must still be there."""

    def __init__(
        self, device: ShimDevice, work: list[tuple[Callable[[], None], set[int]]],
        memory: list[ShimMemory],
    ) -> None:  # fmt: skip
        self._device = device
        self._work = work
        self._memory = [weakref.ref(m) for m in memory]

    def launch(self) -> None:
        self._device.refuse_capturing("launches a graph")
        for memory in self._memory:
            _alive(memory)
        self._device.graphs += 1
        for number in self.order():
            work, _ = self._work[number]
            self._device.ask(work, *(m.address for m in map(_alive, self._memory)))

    def order(self) -> list[int]:
        """Another order in every launch: all that what was said of lanes allows may happen."""
        draw = random.Random(self._device.graphs)
        left = {k: set(before) for k, (_, before) in enumerate(self._work)}
        found: list[int] = []
        while left:
            ready = [k for k, before in left.items() if not before]
            number = draw.choice([ready[0], ready[-1], draw.choice(ready)])
            found.append(number)
            del left[number]
            for before in left.values():
                before.discard(number)
        return found


class ShimDevice:
    """The device: every launch runs twice, threads and blocks in both orders, with one result.

    While it captures it does what CUDA does: work is recorded and not done, and whatever would have
    to wait for it is refused.  ``limit`` are the bytes that it has.
    """

    arch = "sm_80"
    name = "cuda:0"
    model = "Shim"
    errors = ()

    def __init__(self, both_orders: bool = True, limit: int | None = None) -> None:
        self.both_orders = both_orders
        self.limit = limit
        self.live: weakref.WeakSet[ShimMemory] = weakref.WeakSet()
        self.launches = 0
        self.texts: list[str] = []
        self.uploads = self.downloads = self.graphs = self.waits = self.trims = 0
        self.conversions = self.joins = 0
        self.entered = 0
        self._recorded: list[tuple[Callable[[], None], set[int]]] | None = None
        self._lane = 0
        self._lanes: dict[int, set[int]] = {}
        self._touched: list[ShimMemory] = []

    def __enter__(self) -> None:
        self.entered += 1

    def __exit__(self, *exc: Any) -> None:
        self.entered -= 1

    def active(self) -> ShimDevice:
        return self

    def ask(self, work: Callable[[], None], *addresses: int) -> None:
        """Do something, or record it."""
        if self._recorded is None:
            work()
            return
        self._recorded.append((work, self._lanes.get(self._lane, set())))
        self._lanes[self._lane] = {len(self._recorded) - 1}
        for memory in list(self.live):
            end = memory.address + max(memory.nbytes, 1)
            if any(memory.address <= a < end for a in addresses):
                self._touched.append(memory)

    def refuse_capturing(self, what: str) -> None:
        """Fail while work is recorded, as CUDA does."""
        if self._recorded is not None:
            raise ShimFault(f"a capture {what}")

    def allocate(self, nbytes: int) -> ShimMemory:
        self.refuse_capturing("allocates")
        used = sum(m.nbytes for m in self.live)
        if self.limit is not None and used + nbytes > self.limit:
            raise MemoryError(f"{nbytes} bytes were asked for, {self.limit - used} are left")
        memory = ShimMemory(nbytes)
        self.live.add(memory)
        return memory

    def trim(self) -> None:
        self.trims += 1

    def pinned(self, nbytes: int) -> np.ndarray:
        return np.full(nbytes, POISON, np.uint8)

    def write(self, address: int, array: np.ndarray) -> None:
        self.refuse_capturing("copies from memory that may change")
        self.uploads += 1
        data = array.tobytes()
        self.ask(lambda: ctypes.memmove(address, data, len(data)), address)

    def read(self, address: int, array: np.ndarray) -> None:
        self.wait()
        self.downloads += 1
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def upload(self, address: int, pinned: np.ndarray) -> None:
        def work() -> None:
            self.uploads += 1
            ctypes.memmove(address, pinned.ctypes.data, pinned.nbytes)

        self.ask(work, address)

    def download(self, address: int, pinned: np.ndarray) -> None:
        def work() -> None:
            self.downloads += 1
            ctypes.memmove(pinned.ctypes.data, address, pinned.nbytes)

        self.ask(work, address)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        self.ask(lambda: ctypes.memmove(target, source, nbytes), target, source)

    def clear(self, address: int, nbytes: int) -> None:
        self.ask(lambda: ctypes.memset(address, 0, nbytes), address)

    def wait(self) -> None:
        self.refuse_capturing("waits")
        self.waits += 1

    def event(self) -> ShimEvent:
        return ShimEvent(self)

    def peak(self) -> tuple[float, float]:
        return 1e9, 1e9

    def begin_capture(self) -> None:
        self.refuse_capturing("begins another one")
        self._recorded, self._touched = [], []
        self._lane, self._lanes = 0, {}

    def lane(self, number: int, after: Sequence[set[int]]) -> None:
        assert self._recorded is not None
        assert 0 <= number < MOST_LANES
        self._lane = number
        self._lanes[number] = self._lanes.get(number, set()).union(*after)

    def moment(self) -> set[int]:
        assert self._recorded is not None
        return self._lanes.get(self._lane, set())

    def end_capture(self) -> ShimGraph:
        assert self._recorded is not None
        work, self._recorded = self._recorded, None
        touched, self._touched = self._touched, []
        return ShimGraph(self, work, touched)

    def taken(self, value: Any, dtype: np.dtype[Any]) -> DeviceArray | None:
        interface = getattr(value, "__cuda_array_interface__", None)
        if interface is None:
            return None
        address, shape = interface["data"][0], interface["shape"]
        if not any(m.address <= address < m.address + max(m.nbytes, 1) for m in list(self.live)):
            raise ValueError(f"it is not in the memory of {self.name}")
        given = getattr(value, "dtype", np.dtype(interface["typestr"]))
        if given == dtype and interface["strides"] is None:
            return DeviceArray(address, shape, dtype, value, self)
        self.conversions += 1
        made = self.array(value.get().astype(dtype))
        return DeviceArray(made.memory.address, shape, dtype, made, self)

    def array(self, values: np.ndarray) -> ShimArray:
        """An array of a user's on this device."""
        with self.active():
            memory = self.allocate(values.nbytes)
        ctypes.memmove(memory.address, np.ascontiguousarray(values).ctypes.data, values.nbytes)
        return ShimArray(memory, values.shape, values.dtype)

    def given(self, array: DeviceArray) -> ShimArray:
        return ShimArray(array.owner, array.shape, array.dtype)

    def join(self) -> None:
        self.refuse_capturing("joins a stream")
        self.joins += 1

    def blas(self) -> Any:
        return None

    def load(self, text: str, functions: Sequence[str]) -> list[Any]:
        self.refuse_capturing("loads a module")
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
        given = tuple(arguments)
        self.ask(lambda: self._launch(function, blocks, threads, given), *given)

    def _launch(
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


class LateEvent(ShimEvent):
    """A moment in the queue of a device that is late."""

    def __init__(self, device: LateDevice) -> None:
        super().__init__(device)
        self.place = device.asked

    def done(self) -> bool:
        super().done()
        return self.device.asked - len(self.device.queue) >= self.place

    def wait(self) -> None:
        super().wait()
        while not self.done():
            self.device.next()

    def seconds_since(self, earlier: ShimEvent) -> float:
        assert self.done(), "the event is not done"
        return super().seconds_since(earlier)


class LateDevice(ShimDevice):
    """A device that does what it is asked for as late as it may, for threads that are active.

    Pinned memory that the host changes too early gives wrong results, as it would on a real device.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.queue: list[tuple[Callable[[], None], list[ShimMemory]]] = []
        self.asked = 0

    def ask(self, work: Callable[[], None], *addresses: int) -> None:
        if not self.entered:
            raise ShimFault("the thread has not made the device its own")
        if self._recorded is not None:
            super().ask(work, *addresses)
            return
        # A pool of memory does not give it out again before what was asked for is done.
        ends = ((m, m.address + max(m.nbytes, 1)) for m in list(self.live))
        self.queue.append(
            (work, [m for m, end in ends if any(m.address <= a < end for a in addresses)])
        )
        self.asked += 1

    def next(self) -> None:
        """Do the next thing."""
        work, _ = self.queue.pop(0)
        work()

    def allocate(self, nbytes: int) -> ShimMemory:
        if not self.entered:
            raise ShimFault("the thread has not made the device its own")
        return super().allocate(nbytes)

    def wait(self) -> None:
        super().wait()
        while self.queue:
            self.next()

    def trim(self) -> None:
        super().trim()
        self.wait()

    def join(self) -> None:
        # The user's stream would wait here; in these tests it is the host.
        super().join()
        self.wait()

    def event(self) -> LateEvent:
        return LateEvent(self)
