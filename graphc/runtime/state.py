"""The values of a session's variables, and who may change them when."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import FailedPreconditionError
from graphc.function import Input
from graphc.graph import Operation
from graphc.passes.extract import VariableState
from graphc.runtime import native
from graphc.runtime.direct import Direct


@dataclass
class Cell:
    """A variable's value in a session."""

    array: np.ndarray
    initialized: bool


def aligned_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Zeros on a 64-byte boundary."""
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.zeros(count + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count].view(dtype).reshape(shape)


class State:
    """The variables and the counters of random ops of one session, by name.

    Attributes:
      lock: held while Python looks up or makes executables, cells among them.
      turn: held around runs that must not see another run's changes between two native calls.
      native_lock: held by native code while a program runs; by Python while it touches values.
      layout: grows when a value moves to another array, so that executables are bound anew.
      version: grows with every change of values.
    """

    def __init__(self) -> None:
        self.cells: dict[str, Cell] = {}
        self.lock = threading.RLock()
        self.turn = threading.RLock()
        self.native_lock = native.SessionLock()
        self.layout = 0
        self.version = 0
        self._changes: dict[frozenset[str], int] = {}
        self._watchers: weakref.WeakSet[Direct] = weakref.WeakSet()
        _states.add(self)

    def watch(self, direct: Direct) -> None:
        """Take its aim from a builtin when the layout changes."""
        with self.lock:
            self._watchers.add(direct)

    def note_change(self, keys: frozenset[str]) -> None:
        """Remember that these variables have new values; the caller holds the turn."""
        self.version += 1
        self._changes[keys] = self.version

    def changed_since(self, version: int, keys: frozenset[str]) -> bool:
        """Whether some of these variables have changed after a version."""
        return any(
            at > version and not changed.isdisjoint(keys) for changed, at in self._changes.items()
        )

    def _moved(self) -> None:
        self.layout += 1
        for direct in list(self._watchers):
            direct.aim(None)

    def clear(self) -> None:
        """Free every value."""
        with self.lock:
            self.cells = {}
            self._moved()

    def variable_state(self, op: Operation) -> VariableState:
        """What is known of a variable before a run."""
        cell = self.cells.get(op.name)
        sizes = op.outputs[0].sizes
        dtype = op.outputs[0].dtype.base_dtype
        if cell is not None:
            return VariableState(dtype, cell.array.shape, cell.initialized)
        known = None
        if sizes is not None and all(isinstance(s, int) for s in sizes):
            known = tuple(int(s) for s in sizes if isinstance(s, int))
        return VariableState(dtype, known, False)

    def is_set(self, key: str) -> bool:
        """Whether a variable has a value."""
        cell = self.cells.get(key)
        return cell is not None and cell.initialized

    def cell(self, item: Input) -> Cell:
        """The cell of a function's input; a new one for a variable that has none yet."""
        with self.lock:
            found = self.cells.get(item.key)
            if found is None:
                sizes = item.tensor.sizes or ()
                shape = tuple(s for s in sizes if isinstance(s, int))
                array = aligned_array(shape, item.tensor.dtype.base_dtype.numpy)
                hidden = item.key.endswith("^counter")
                found = self.cells[item.key] = Cell(array, hidden)
            return found

    def store(self, key: str, value: np.ndarray) -> None:
        """Give a variable a value, in its array where that has the shape."""
        with self.turn, self.lock:
            cell = self.cells.get(key)
            fits = cell is not None and cell.array.shape == value.shape
            if cell is None or not fits:
                cell = Cell(aligned_array(value.shape, value.dtype), True)
                cell.array[...] = value
            # Refused inside of a run, which leaves everything as it was.
            with self.native_lock:
                self.note_change(frozenset((key,)))
                if fits:
                    cell.array[...] = value
                    cell.initialized = True
                else:
                    self.cells[key] = cell
                    self._moved()

    def load(self, op: Operation, value: Any) -> None:
        """Give a variable a value without running anything."""
        self.store(op.name, np.asarray(value, op.outputs[0].dtype.base_dtype.numpy))

    def read(self, op: Operation) -> np.ndarray:
        """A copy of a variable's value.

        Raises:
          FailedPreconditionError: it has none yet.
        """
        cell = self.cells.get(op.name)
        if cell is None or not cell.initialized:
            raise FailedPreconditionError(
                op.node_def, op, f"Attempting to use uninitialized value {op.name}"
            )
        with self.native_lock:
            return cell.array.copy()

    def read_all(self, ops: Sequence[Operation]) -> list[np.ndarray | None]:
        """Copies of the variables' values, all of one moment; None for one that has none."""
        # The turn, too: outside of it some of what a run changes may be stored already.
        with self.turn, self.native_lock:
            cells = [self.cells.get(op.name) for op in ops]
            return [c.array.copy() if c is not None and c.initialized else None for c in cells]

    def reset_in_child(self) -> None:
        """After a fork: the threads that may have held the locks are not there."""
        self.lock = threading.RLock()
        self.turn = threading.RLock()


_states: weakref.WeakSet[State] = weakref.WeakSet()


def _after_fork() -> None:
    for state in list(_states):
        state.reset_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
