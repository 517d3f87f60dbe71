"""One run of a program on a device: its steps in order, driven from the host.

The memory of a run mirrors the plan: an arena of blocks, outputs, slots that grow. What the host
must know in the course of a run (a loop's condition, sizes that the run computes) it computes
itself where it can (:mod:`graphc.runtime.cuda_known`), and reads back otherwise. Whether a
condition of a kernel has failed is looked at then, and before the first step that changes a
variable; kernels go on with zeros after a failure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from graphc.dims import Dim, DimLike, Symbol, substitute
from graphc.ops.control import branch_number
from graphc.ops.host import host_values
from graphc.program import (
    Append,
    Bind,
    Branch,
    Call,
    Copy,
    Extend,
    Grow,
    Host,
    Loop,
    Program,
    Publish,
    Reserve,
    Result,
    Rotate,
    Slot,
    Step,
    walk,
)
from graphc.program_steps import check_fixed
from graphc.runtime.cuda_device import Device, Memory
from graphc.runtime.cuda_kernels import Kernels
from graphc.runtime.cuda_known import Known
from graphc.runtime.cuda_products import Room
from graphc.runtime.executable import BadSize, GuardBroken

ALIGNMENT = 16  # bytes of the widest access
STATUS = np.zeros(3, np.int64)


class Failed(Exception):
    """A condition of a kernel did not hold: ``site``, and two details."""

    def __init__(self, site: int, details: tuple[int, int]) -> None:
        super().__init__(site, details)
        self.site = site
        self.details = details


def raise_failure(status: np.ndarray) -> None:
    """Raise what the status words tell of.

    Raises:
      Failed: a condition did not hold.
    """
    if status[0]:
        raise Failed(int(status[0]) - 1, (int(status[1]), int(status[2])))


class Timer(Protocol):
    """What reads the device's clock."""

    def around(self, step: Step) -> contextlib.AbstractContextManager[None]:
        """A context in which a step is asked for."""

    def by_library(self, step: Step) -> None:
        """A library computes a step in this run."""


class Owner(Protocol):
    """What a run needs of the executable that it is a run of."""

    program: Program
    device: Device
    kernels: Kernels
    constants: dict[int, Memory]
    changing: int

    @property
    def timer(self) -> Timer | None:
        """What reads the clock in this run."""


class Run:
    """The memory of one run, and its steps.

    Args:
      owner: the executable.
      binding: the sizes that the inputs tell.
      given: the memory of inputs and variables, by slot.
      known: elements of inputs that the host may decide by, by slot.
    """

    measures = True
    """Whether kernels may be measured, and memory allocated at any time."""

    def __init__(
        self, owner: Owner, binding: Mapping[Symbol, int], given: Mapping[int, Memory],
        known: Mapping[int, np.ndarray],
    ) -> None:  # fmt: skip
        self.program = owner.program
        self.device = owner.device
        self.kernels = owner.kernels
        self.timer = owner.timer
        may_measure = self.measures and self.timer is None
        self.room_aside = Room(self.device, may_measure, fixed=not self.measures)
        self.changing = owner.changing
        self.binding: dict[Symbol, DimLike] = dict(binding)
        self.memory: dict[int, Memory] = {**owner.constants, **given}
        self.blocks: dict[int, Memory] = {}
        self.room: dict[int, int] = {}
        self.turns: dict[int, int] = {}
        self.published: dict[int, int] = {}
        self.known = Known(self.program, known)
        self.told: dict[int, np.ndarray] = {}
        self.status = self.device.allocate(STATUS.nbytes)
        self.unsure = False

    def reserve(self) -> None:
        """Memory for what the sizes of the inputs decide.

        Raises:
          GuardBroken, BadSize, MemoryError: they do not fit.
        """
        late = {r.slot for r in self.program.results if r.late}
        self.check_guards(0)
        for slot in self.program.slots:
            if slot.kind == "output" and slot.number not in late:
                self.memory[slot.number] = self.device.allocate(self.nbytes(slot))
        self.make_room(0)

    def begin(self) -> None:
        """All steps up to the first one that changes a variable; see :meth:`check`.

        Raises:
          GuardBroken, BadSize, Failed, MemoryError: nothing was changed.
        """
        if self.kernels.fallible:
            self.device.clear(self.status.address, STATUS.nbytes)
        self.steps(self.program.steps[: self.changing])

    def ready(self) -> None:
        """Make room for the steps that change variables, none of which may fail."""
        for step in self.program.steps[self.changing :]:
            if isinstance(step, Grow):
                self.step(step)

    def finish(self) -> None:
        """The other steps."""
        for step in self.program.steps[self.changing :]:
            if not isinstance(step, Grow):
                self.step(step)

    def check(self) -> None:
        """Look whether a condition has failed since the last time.

        Raises:
          Failed: one has.
        """
        if self.unsure:
            status = STATUS.copy()
            self.device.read(self.status.address, status)
            raise_failure(status)
            self.unsure = False

    # --- sizes and places -------------------------------------------------------------------------

    def size(self, size: DimLike) -> int:
        """The value of a size in this run."""
        value = substitute(size, self.binding)
        assert isinstance(value, int)
        if value < 0:
            raise BadSize(None, None, "a computed size is negative or too large")
        return value

    def nbytes(self, slot: Slot) -> int:
        """The bytes of a slot."""
        return self.size(slot.size) * slot.dtype.size

    def address(self, number: int) -> int:
        """Where a slot is."""
        slot = self.program.slots[number]
        if slot.kind == "temp":
            return self.blocks[slot.block].address
        if slot.kind == "row":
            stack, turns = slot.source
            return self.memory[stack].address + self.turns[turns] * self.nbytes(slot)
        return self.memory[number].address

    def element(self, number: int, place: int) -> Any:
        """An element, on the host; one that the host has to read, if nothing has failed."""
        value = self.known.decide(number)
        if value is not None:
            return value[place]
        self.check()
        dtype = self.program.slots[number].dtype
        found = np.empty(1, dtype.numpy)
        self.device.read(self.address(number) + place * dtype.size, found)
        return found[0]

    def array(self, number: int, sizes: Sequence[DimLike]) -> np.ndarray:
        """A slot's elements, on the host, in a shape."""
        self.settle(number)
        shape = [self.size(s) for s in sizes]
        found = np.empty(shape, self.program.slots[number].dtype.numpy)
        if found.nbytes:
            self.device.read(self.address(number), found)
        return found

    def check_guards(self, segment: int) -> None:
        """The assumptions about a segment's sizes must hold."""
        for guard in self.program.segments[segment].guards:
            left, right = (substitute(g, self.binding) for g in (guard.left, guard.right))
            if left != right:
                raise GuardBroken

    def settle(self, number: int) -> None:
        """Give the device what only the host knows so far of a slot."""
        slot = self.program.slots[number]
        if slot.kind == "row":
            self.settle(slot.source[0])
        if number not in self.known.stale:
            return
        self.known.stale.discard(number)
        value = self.known.values[number]
        if slot.kind == "grown":
            self.grow(number, value.nbytes, 0)
        if value.size:
            self.put(self.address(number), value)

    def put(self, address: int, value: np.ndarray) -> None:
        """Copy what the host has computed to the device."""
        self.device.write(address, np.ascontiguousarray(value))

    def make_room(self, segment: int) -> None:
        """The blocks of a segment, whose sizes are known from now on."""
        for number, (size, bytes_) in enumerate(self.program.blocks):
            if self.program.segment_of(size) == segment:
                self.blocks[number] = self.block(number, self.size(size) * bytes_)

    def block(self, number: int, nbytes: int) -> Memory:
        """Memory for a block of temporaries."""
        return self.device.allocate(nbytes)

    def grow(self, number: int, nbytes: int, kept: int) -> None:
        """Give a slot room for so many bytes; the first ``kept`` stay."""
        if number in self.memory and self.room.get(number, -1) >= nbytes:
            return
        room = max(nbytes, 2 * kept)
        new = self.device.allocate(room)
        if kept:
            self.device.copy(new.address, self.memory[number].address, kept)
        self.memory[number], self.room[number] = new, room

    def rotate(self, step: Rotate) -> None:
        """Slots exchange their memory."""
        pairs = list(zip(step.slots, [*step.slots[1:], step.slots[0]], strict=True))
        self.memory |= {a: self.memory[b] for a, b in pairs}
        self.room |= {a: self.room[b] for a, b in pairs if b in self.room}
        self.known.rotate(step.slots)

    # --- steps ------------------------------------------------------------------------------------

    def steps(self, steps: Sequence[Step]) -> None:
        """Steps in order."""
        for step in steps:
            self.step(step)

    def step(self, step: Step) -> None:
        """One step, with the device's clock read around it where the run is timed."""
        if isinstance(step, Call) and self.by_host(step):
            return
        if self.timer is None:
            self.untimed(step)
        else:
            with self.timer.around(step):
                self.untimed(step)

    def untimed(self, step: Step) -> None:
        """One step."""
        slots = self.program.slots
        if isinstance(step, Call):
            self.call(step)
        elif isinstance(step, Copy):
            self.copy(step)
        elif isinstance(step, Bind):
            self.bind(step)
        elif isinstance(step, Grow):
            slot = slots[step.slot]
            self.known.written([step.slot], {})
            self.grow(step.slot, self.size(step.size) * slot.dtype.size, 0)
        elif isinstance(step, Extend):
            self.extend(step)
        elif isinstance(step, Rotate):
            self.rotate(step)
        elif isinstance(step, Reserve):
            row = self.nbytes(slots[step.row])
            kept = self.turns[step.count] * row
            self.grow(step.target, kept + row, kept)
        elif isinstance(step, Append):
            self.append(step)
        elif isinstance(step, Loop):
            self.loop(step)
        elif isinstance(step, Branch):
            number = branch_number(self.element(step.selector, 0), len(step.cases))
            self.steps(step.cases[number])
        elif isinstance(step, Host):
            self.host(step)
        else:
            assert isinstance(step, Publish)
            self.published[step.output] = step.source

    def by_host(self, step: Call) -> bool:
        """Whether the host knows all results of a kernel, and the device need not compute them."""
        self.told = self.known.told(step, self.binding)
        enough = len(self.told) == len(written_by(step))
        return enough and self.known.keep(self.told, self.turns)

    def call(self, step: Call) -> None:
        """Launch a kernel."""
        low = step.lowered
        for number in step.slots:
            self.settle(number)
        self.known.written(written_by(step), self.told)
        sizes = [self.size(Dim((((s,), 1),))) for s in low.symbols]
        addresses = [self.address(number) for number in step.slots]
        with self.aligned(step, addresses):
            theirs = self.kernels.launch(
                low, addresses, sizes, self.status.address, self.room_aside
            )
        if theirs and self.timer is not None:
            self.timer.by_library(step)
        self.unsure |= low.fallible

    def copy(self, step: Copy) -> None:
        """Copy a slot's elements, or what the host knows of them."""
        size = self.size(step.size)
        told = self.known.copied(step.target, step.source, size)
        if told and self.known.keep(told, self.turns):
            return
        self.settle(step.source)
        self.known.written([step.target], told)
        nbytes = size * self.program.slots[step.source].dtype.size
        self.device.copy(self.address(step.target), self.address(step.source), nbytes)

    def append(self, step: Append) -> None:
        """Put a turn's values behind those of the turns before."""
        size, turn = self.size(step.size), self.turns[step.count]
        if self.known.append(step.target, step.source, size, turn):
            return
        for number in (step.source, step.target):
            self.settle(number)
        self.known.written([step.target], {})
        row = size * self.program.slots[step.source].dtype.size
        kept = turn * row
        self.grow(step.target, kept + row, kept)
        place = self.memory[step.target].address + kept
        self.device.copy(place, self.address(step.source), row)

    @contextlib.contextmanager
    def aligned(self, step: Call, addresses: list[int]) -> Iterator[None]:
        """Parts of a stack, and users' arrays, may begin anywhere: kernels get aligned copies."""
        aside = []
        low = step.lowered
        for k, (buffer, number) in enumerate(zip(low.buffers, step.slots, strict=True)):
            if addresses[k] % ALIGNMENT:
                nbytes = self.nbytes(self.program.slots[number])
                memory = self.aside(k, nbytes)
                self.device.copy(memory.address, addresses[k], nbytes)
                aside.append((memory, addresses[k], nbytes, buffer in low.writes))
                addresses[k] = memory.address
        yield
        for memory, place, nbytes, written in aside:
            if written:
                self.device.copy(place, memory.address, nbytes)

    def aside(self, place: int, nbytes: int) -> Memory:
        """Memory for an operand of one call, by its place among them."""
        return self.device.allocate(nbytes)

    def bind(self, step: Bind) -> None:
        """Learn sizes in the course of the run."""
        segment = self.program.segments[step.segment]
        values = [
            int(self.element(*source)) if isinstance(source, tuple) else self.size(source)
            for source in step.sources
        ]
        self.binding.update(zip(segment.symbols, values, strict=True))
        self.check_guards(step.segment)
        self.make_room(step.segment)

    def extend(self, step: Extend) -> None:
        """Make a slot longer; zeros come behind what it holds."""
        self.settle(step.slot)
        self.known.written([step.slot], {})
        size = self.program.slots[step.slot].dtype.size
        before, after = self.size(step.before) * size, self.size(step.size) * size
        self.grow(step.slot, after, before)
        self.device.clear(self.memory[step.slot].address + before, after - before)

    def loop(self, step: Loop) -> None:
        """Test and body in turn."""
        for inner in walk([*step.test, *step.body]):
            if isinstance(inner, (Append, Reserve)):
                self.grow(inner.target, 0, 0)
        turn = 0
        while True:
            self.turns[step.turns] = turn
            self.known.keep({step.turns: np.array([turn], np.int32)}, {})
            self.steps(step.test)
            if not self.element(step.flag, 0):
                return
            self.steps(step.body)
            turn += 1

    def host(self, step: Host) -> None:
        """Let Python compute."""
        self.check()
        call = self.program.hosts[step.number]
        given = [self.array(n, s) for n, s in zip(step.inputs, call.inputs, strict=True)]
        results = host_values(call.op, given)
        check_fixed(call, results, self.size)
        self.known.written(step.outputs, {})
        for number, value in zip(step.outputs, results, strict=True):
            if self.program.slots[number].kind == "grown":
                self.grow(number, value.nbytes, 0)
            if value.nbytes:
                self.device.write(self.address(number), np.ascontiguousarray(value))

    def rooms(self) -> list[np.ndarray]:
        """Arrays on the host for the fetches."""
        return [
            np.empty([self.size(s) for s in r.sizes], r.dtype.numpy) for r in self.program.results
        ]

    def place(self, result: Result) -> int:
        """Where a fetch is."""
        number = self.published.get(result.slot, result.slot)
        self.settle(number)
        return self.address(number)


def written_by(step: Call) -> list[int]:
    """The slots that a call writes."""
    low = step.lowered
    return [n for t, n in zip(low.buffers, step.slots, strict=True) if t in low.writes]
