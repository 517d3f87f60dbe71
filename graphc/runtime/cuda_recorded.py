"""Runs as they are recorded: gone through twice, first to see what they need.

A rehearsal does all that the host does in a run and asks nothing of the device. Where it would have
to wait for the device's results, the run cannot be recorded; else it tells how much memory loops
will have needed in the end, and what the host will have to say. Then the run is gone through again,
with all of that in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import Symbol
from graphc.lower import Lowered
from graphc.program import Program, Rotate, walk
from graphc.runtime.cuda_device import CaptureError, Device, Memory
from graphc.runtime.cuda_kernels import Kernels
from graphc.runtime.cuda_lanes import LanedDevice, Lanes
from graphc.runtime.cuda_products import Room
from graphc.runtime.cuda_run import ALIGNMENT, Owner, Run

MOST_NODES = 1 << 15
"""Launches and copies of a recorded run: more take long to record, and more memory."""

Key = tuple[str, int]


class Place:
    """An address whose memory is somebody else's."""

    def __init__(self, address: int) -> None:
        self.address = address


class Nowhere:
    """What a rehearsal asks in the place of a device, and of compiled kernels.

    Args:
      kernels: those of the run.

    Attributes:
      fallible: what the kernels are.
      aside: the bytes that products need beside their operands.
    """

    def __init__(self, kernels: Kernels) -> None:
        self.fallible = kernels.fallible
        self.aside = 0
        self._products = kernels.products
        self._nodes = 0

    def allocate(self, nbytes: int) -> Memory:
        """All memory begins at the same address, which is as aligned as any."""
        return Place(0)

    def launch(
        self, low: Lowered, addresses: Sequence[int], sizes: Sequence[int], status: int,
        room: Room,
    ) -> bool:  # fmt: skip
        """A kernel."""
        self._count()
        self.aside = max(self.aside, self._products.space(low, sizes))
        return False

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """A copy."""
        self._count()

    def clear(self, address: int, nbytes: int) -> None:
        """Zeros."""
        self._count()

    def read(self, address: int, array: np.ndarray) -> None:
        """What the host would have to wait for.

        Raises:
          CaptureError: always.
        """
        raise CaptureError("the host decides by what the device computes")

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise CaptureError("a run is too long")


class _Stage:
    """The owner of a rehearsal: everything is that of the executable but for the device."""

    timer = None

    def __init__(self, owner: Owner) -> None:
        self.program: Program = owner.program
        self.changing = owner.changing
        self.constants: dict[int, Memory] = owner.constants
        self.nowhere = Nowhere(owner.kernels)
        either: Any = self.nowhere
        self.device: Device = either
        self.kernels: Kernels = either


class Rehearsal(Run):
    """A run that asks nothing of a device: it takes variables, and no memory of inputs.

    Attributes:
      bytes: how many bytes each piece of memory has to have; a piece has a kind and a number.
      said: what the host has to tell the device, as bytes.
      bytes_aside: what products need beside their operands.

    Raises:
      CaptureError: it cannot be recorded.
      GuardBroken, BadSize: as when it runs.
    """

    measures = False

    def __init__(
        self, owner: Owner, binding: Mapping[Symbol, int], variables: Mapping[int, Memory],
        known: Mapping[int, np.ndarray],
    ) -> None:  # fmt: skip
        stage = _Stage(owner)
        inputs = {s.number: Place(0) for s in owner.program.slots if s.kind == "input"}
        super().__init__(stage, binding, {**variables, **inputs}, known)
        self.bytes: dict[Key, int] = {}
        self.said: set[bytes] = set()
        self.reserve()
        self.begin()
        self.finish()
        for result in self.program.results:
            self.place(result)
        self._share()
        self.bytes_aside = stage.nowhere.aside

    def block(self, number: int, nbytes: int) -> Memory:
        """A block of temporaries."""
        return self._piece("block", number, nbytes)

    def aside(self, place: int, nbytes: int) -> Memory:
        """An aligned copy: calls come one after the other, so they can share it."""
        return self._piece("aside", place, nbytes)

    def grow(self, number: int, nbytes: int, kept: int) -> None:
        """A slot that grows."""
        self.memory[number] = self._piece("slot", number, nbytes)

    def put(self, address: int, value: np.ndarray) -> None:
        """What the host has computed."""
        self.said.add(value.tobytes())
        self.device.copy(address, address, value.nbytes)

    def _piece(self, kind: str, number: int, nbytes: int) -> Memory:
        key = kind, number
        self.bytes[key] = max(self.bytes.get(key, 0), nbytes)
        return Place(0)

    def _share(self) -> None:
        """Slots that exchange their memory need as much as the largest of them."""
        slots = [
            [("slot", n) for n in step.slots]
            for step in walk(self.program.steps)
            if isinstance(step, Rotate)
        ]
        changed = True
        while changed:
            changed = False
            for keys in slots:
                most = max(self.bytes.get(key, 0) for key in keys)
                for key in keys:
                    changed |= self.bytes.get(key, 0) < most
                    self.bytes[key] = most


class RecordedRun(Run):
    """A run whose memory is all there before it begins; see :class:`Rehearsal`.

    Attributes:
      lanes: what finds out what of it is independent.

    Raises:
      MemoryError: there is no room for it.
    """

    measures = False

    def __init__(
        self, owner: Owner, binding: Mapping[Symbol, int], given: Mapping[int, Memory],
        known: Mapping[int, np.ndarray], rehearsal: Rehearsal,
    ) -> None:  # fmt: skip
        super().__init__(owner, binding, given, known)
        self._pieces = {k: self.device.allocate(n) for k, n in rehearsal.bytes.items()}
        self._said, said = packed(rehearsal.said)
        self._words = self.device.allocate(said.nbytes)
        if said.nbytes:
            self.device.write(self._words.address, said)
        self.reserve()
        self.room_aside.reserve(rehearsal.bytes_aside)
        pieces = [(memory, rehearsal.bytes[key]) for key, memory in self._pieces.items()]
        self.lanes = Lanes(self.device, pieces)
        # All memory is there; from now on everything is recorded.
        laned: Any = LanedDevice(self.device, self.kernels, self.lanes)
        self.device, self.kernels = laned, laned

    def block(self, number: int, nbytes: int) -> Memory:
        """A block of temporaries."""
        return self._pieces["block", number]

    def aside(self, place: int, nbytes: int) -> Memory:
        """An aligned copy."""
        return self._pieces["aside", place]

    def grow(self, number: int, nbytes: int, kept: int) -> None:
        """A slot that grows has all the room that it will need."""
        self.memory.setdefault(number, self._pieces["slot", number])

    def put(self, address: int, value: np.ndarray) -> None:
        """What the host has computed has been copied to the device before."""
        data = value.tobytes()
        self.device.copy(address, self._words.address + self._said[data], len(data))


def packed(pieces: Iterable[bytes]) -> tuple[dict[bytes, int], np.ndarray]:
    """Where each piece begins, aligned, in one array of bytes; and the array."""
    places: dict[bytes, int] = {}
    size = 0
    for data in pieces:
        places[data] = size
        size += -(-len(data) // ALIGNMENT) * ALIGNMENT
    array = np.zeros(size, np.uint8)
    for data, place in places.items():
        array[place : place + len(data)] = np.frombuffer(data, np.uint8)
    return places, array
