"""The values of a session's variables on a device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.function import Input
from graphc.graph import Operation
from graphc.runtime.cuda_device import Device, Memory
from graphc.runtime.state import Cell, State


@dataclass
class Resident:
    """A variable's memory on the device; ``ahead``: its value is newer than the host's."""

    memory: Memory
    cell: Cell
    ahead: bool = False


class CudaState(State):
    """Variables that live on a device; the host has a copy, made when somebody asks for it.

    The caller of every method that touches values holds the turn, as in :class:`State`.
    """

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self._resident: dict[str, Resident] = {}

    def memory(self, item: Input) -> Memory:
        """Where a variable is on the device, with its present value."""
        cell = self.cell(item)
        found = self._resident.get(item.key)
        if found is None or found.cell is not cell:
            found = Resident(self.device.allocate(cell.array.nbytes), cell)
            self.device.write(found.memory.address, cell.array)
            self._resident[item.key] = found
        return found.memory

    def run_has_changed(self, keys: Iterable[str]) -> None:
        """A run has given these variables new values on the device."""
        for key in keys:
            self._resident[key].ahead = True

    def _bring_back(self, keys: Iterable[str]) -> None:
        for key in keys:
            found = self._resident.get(key)
            if found is not None and found.ahead:
                self.device.read(found.memory.address, found.cell.array)
                found.ahead = False

    def store(self, key: str, value: np.ndarray) -> None:
        """Give a variable a value from the host."""
        with self.turn:
            self._resident.pop(key, None)
            super().store(key, value)

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
        self._resident.clear()
        super().clear()
