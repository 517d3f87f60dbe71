"""Memory of a device: feeds on their way to it, and what is said when there is not enough."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from graphc.dims import Symbol, substitute
from graphc.errors import ResourceExhaustedError
from graphc.function import Function
from graphc.graph import Operation
from graphc.program import Program, Slot
from graphc.runtime.cuda_device import Device, Event

PIECE = 4 << 20
PIECES = 4
APART = 64
LISTED = 5


class Staging:
    """Brings arrays to the device through a few pinned pieces, each used again when it is free.

    Small arrays do, too: what CUDA copies from memory that a user has pinned it may read late.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._pieces: list[tuple[np.ndarray, Event]] = []
        self._open: np.ndarray | None = None
        self._used = 0
        self._lock = threading.Lock()

    def put(self, address: int, array: np.ndarray) -> None:
        """Copy a contiguous array to the device; it may be changed when this returns."""
        if not array.nbytes:
            return
        # A matrix, say, is a kind of array that always has two dimensions.
        raw = np.asarray(array).reshape(-1).view(np.uint8)
        with self._lock:
            start = 0
            while start < raw.size:
                pinned = self._part(raw.size - start)
                pinned[...] = raw[start : start + pinned.size]
                self._device.upload(address + start, pinned)
                start += pinned.size

    def _part(self, wanted: int) -> np.ndarray:
        """So many bytes of a piece, or those that are left of it."""
        if self._open is None or self._used >= self._open.size:
            full, self._open = self._open, None
            if full is not None:
                self._pieces.append((full, self._device.event()))
            self._open, self._used = self._free(), 0
        part = self._open[self._used : self._used + wanted]
        self._used += -(-part.size // APART) * APART
        return part

    def _free(self) -> np.ndarray:
        """A piece that the device does not read any more."""
        if self._pieces and (len(self._pieces) >= PIECES or self._pieces[0][1].done()):
            pinned, event = self._pieces.pop(0)
            event.wait()
            return pinned
        return self._device.pinned(PIECE)


class Holder(Protocol):
    """What knows how much memory variables take."""

    def resident_bytes(self) -> int:
        """The bytes of all variables on the device."""


def out_of_memory(
    program: Program, device: Device, reason: str, binding: Mapping[Symbol, Any], holder: Holder
) -> ResourceExhaustedError:
    """The error of a run for which a device has not memory enough."""
    found: dict[Any, tuple[int, Slot]] = {}
    for slot in program.slots:
        size = substitute(slot.size, binding)
        if isinstance(size, int) and slot.kind != "row":
            # Temporaries of one block are never there together: the largest stands for it.
            key = ("block", slot.block) if slot.kind == "temp" else slot.number
            found[key] = max(found.get(key, (0, slot)), (size * slot.dtype.size, slot),
                             key=lambda pair: pair[0])  # fmt: skip
    largest = sorted(found.values(), key=lambda pair: -pair[0])[:LISTED]
    ops = origins(program.function)
    lines = [_line(nbytes, slot, ops.get(slot.name), binding) for nbytes, slot in largest]
    first = next((ops[s.name] for _, s in largest if s.name in ops), None)
    message = (
        f"OOM on {device.name}: {reason}; no variable was changed. Variables hold "
        f"{amount(holder.resident_bytes())}; the largest buffers of this run are"
    )
    return ResourceExhaustedError(
        first.node_def if first is not None else None, first, "\n".join([message, *lines])
    )


def _line(
    nbytes: int, slot: Slot, op: Operation | None, binding: Mapping[Symbol, Any]
) -> str:
    size = substitute(slot.size, binding)
    what = {"input": "feed", "output": "fetch", "const": "constant"}.get(slot.kind, slot.kind)
    name = slot.name if op is None else f"{op.name} ({op.type}), declared at {op.location}"
    return f"  {amount(nbytes)}  {what}, {size} x {slot.dtype.name}: {name}"


def origins(fn: Function) -> dict[str, Operation]:
    """The user's operations by the names that their copies have, those of bodies too."""
    found = dict(fn.origin)
    for i in fn.inputs:
        source = getattr(i.source, "op", i.source)
        if isinstance(source, Operation):
            found.setdefault(i.tensor.op.name, source)
    for op in fn.operations:
        for body in op.attrs.get("bodies", ()):
            found = origins(body) | found
    return found


def amount(nbytes: float) -> str:
    """Bytes with a unit."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= scale:
            return f"{nbytes / scale:.1f} {unit}"
    return f"{nbytes:.0f} bytes"
