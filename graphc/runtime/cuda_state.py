"""The values of a session's variables on a device."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from graphc.function import Input
from graphc.graph import Operation
from graphc.runtime.cuda_device import Device, Memory
from graphc.runtime.cuda_memory import Staging
from graphc.runtime.state import Cell, State


@dataclass
class Resident:
    """A variable's memory on the device; ``ahead``: its value is newer than the host's."""

    memory: Memory
    cell: Cell
    ahead: bool = False


class Spender(Protocol):
    """What keeps memory of the device that it can do without."""

    def spare(self) -> None:
        """Give it up."""


class CudaState(State):
    """Variables that live on a device; the host has a copy, made when somebody asks for it.

    The caller of every method that touches values holds the turn, as in :class:`State`.

    Attributes:
      behind: the variables whose value on the host is newer than that on the device.
      places: grows whenever a variable gets other memory.
    """

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self.staging = Staging(device)
        self.behind: set[str] = set()
        self.places = 0
        self._resident: dict[str, Resident] = {}
        self._spenders: weakref.WeakSet[Spender] = weakref.WeakSet()

    def memory(self, item: Input) -> Memory:
        """Where a variable is on the device, with its present value."""
        cell = self.cell(item)
        found = self._resident.get(item.key)
        if found is None or found.cell is not cell:
            found = Resident(self.device.allocate(cell.array.nbytes), cell)
            self._resident[item.key] = found
            self.behind.add(item.key)
            self.places += 1
        if item.key in self.behind:
            self.staging.put(found.memory.address, cell.array)
            self.behind.discard(item.key)
        return found.memory

    def run_has_changed(self, keys: Iterable[str]) -> None:
        """A run gives these variables new values on the device."""
        for key in keys:
            # There is none any more where the session has been closed meanwhile.
            found = self._resident.get(key)
            if found is not None:
                found.ahead = True

    def _bring_back(self, keys: Iterable[str]) -> None:
        """Copy values to the host that are newer on the device."""
        for key in keys:
            found = self._resident.get(key)
            if found is not None and found.ahead:
                with self.device.active(), self.native_lock:
                    if found.cell.array.nbytes:
                        self.device.read(found.memory.address, found.cell.array)
                found.ahead = False

    def store(self, key: str, value: np.ndarray) -> None:
        """Give a variable a value from the host."""
        with self.turn:
            # The old value stays where it is until there is a new one.
            super().store(key, value)
            found = self._resident.get(key)
            if found is not None and found.cell is self.cells.get(key):
                found.ahead = False
                self.behind.add(key)
            elif found is not None:
                del self._resident[key]
                self.behind.discard(key)
                self.places += 1

    def read(self, op: Operation) -> np.ndarray:
        """A copy of a variable's value."""
        with self.turn:
            self._bring_back((op.name,))
            return super().read(op)

    def read_all(self, ops: Sequence[Operation]) -> list[np.ndarray | None]:
        """Copies of the variables' values, all of one moment."""
        with self.turn:
            self._bring_back(op.name for op in ops)
            return super().read_all(ops)

    def clear(self) -> None:
        """Free every value."""
        # A run that goes on has the memory that it needs.
        self._resident = {}
        self.behind = set()
        for spender in list(self._spenders):
            spender.spare()
        super().clear()

    def watch_memory(self, spender: Spender) -> None:
        """Ask this one, too, when memory gets scarce."""
        self._spenders.add(spender)

    def spare(self) -> None:
        """Give up memory that nothing but speed needs."""
        for spender in list(self._spenders):
            spender.spare()
        self.device.trim()

    def resident_bytes(self) -> int:
        """The bytes of all variables on the device."""
        return sum(r.cell.array.nbytes for r in self._resident.values())
