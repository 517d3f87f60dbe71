"""Which of the things that a recorded run asks for have to wait for which others.

What does not touch the same memory is independent: in a CUDA graph it may run side by side. Work
is captured in several streams, here *lanes*; where one lane needs what another has done, it waits
for that moment.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.lower import Lowered
from graphc.runtime.cuda_device import MOST_LANES, Device, Memory
from graphc.runtime.cuda_kernels import Kernels
from graphc.runtime.cuda_products import Room


@dataclass(frozen=True)
class _Node:
    """A thing that was asked for.

    Attributes:
      lane: where.
      moment: when it was asked for, for the device.
      before: for each lane, how many of its nodes are done when this one is.
    """

    lane: int
    moment: Any
    before: tuple[int, ...]


class Lanes:
    """Finds a lane for each thing that is asked for in a capture.

    Args:
      device: what captures.
      pieces: the memory that is used, with its bytes.
    """

    def __init__(self, device: Device, pieces: Iterable[tuple[Memory, int]]) -> None:
        self._device = device
        ends = {m.address: m.address + max(n, 1) for m, n in pieces}
        self._starts = sorted(ends)
        self._ends = [ends[s] for s in self._starts]
        self.begin()

    def begin(self) -> None:
        """A new capture: what earlier ones have asked for is done before."""
        self._lanes: list[list[_Node]] = []
        self._writer: dict[Any, _Node] = {}
        self._readers: dict[Any, list[_Node]] = {}
        self._asked: tuple[int, list[Any], list[Any]] | None = None

    def piece(self, address: int) -> int:
        """What tells the piece of memory in which an address is."""
        at = bisect_right(self._starts, address) - 1
        inside = at >= 0 and address < self._ends[at]
        return self._starts[at] if inside else address

    def ask(self, reads: Iterable[Any], writes: Iterable[Any]) -> None:
        """Choose the lane of what is asked for next, which touches these pieces of memory."""
        self.finish()
        into = list(writes)
        out = [piece for piece in reads if piece not in into]
        needed = [self._writer[piece] for piece in (*out, *into) if piece in self._writer]
        needed += [node for piece in into for node in self._readers.get(piece, ())]
        lane, waits = self._choose(needed)
        self._device.lane(lane, [node.moment for node in waits])
        self._asked = lane, out, into
        self._before = self._joined([*needed, *self._lanes[lane][-1:]])

    def finish(self) -> None:
        """Note the moment after what was asked for last."""
        if self._asked is None:
            return
        (lane, out, into), self._asked = self._asked, None
        nodes = self._lanes[lane]
        before = list(self._before)
        before[lane] = len(nodes) + 1
        node = _Node(lane, self._device.moment(), tuple(before))
        nodes.append(node)
        for piece in out:
            self._readers.setdefault(piece, []).append(node)
        for piece in into:
            self._writer[piece] = node
            self._readers.pop(piece, None)

    def _choose(self, needed: Sequence[_Node]) -> tuple[int, list[_Node]]:
        """The lane, and what has to be waited for there: no more than is needed, if that can be."""
        before = self._joined(needed)
        # A lane whose last node has to be waited for anyway; the longest of them goes on.
        ready = [k for k, nodes in enumerate(self._lanes) if before[k] >= len(nodes)]
        if ready:
            lane = max(ready, key=lambda k: len(self._lanes[k]))
        elif len(self._lanes) < MOST_LANES:
            lane = len(self._lanes)
            self._lanes.append([])
        else:
            lane = min(range(MOST_LANES), key=lambda k: sum(self._lanes[k][-1].before))
        waits: list[_Node] = []
        covered = self._joined(self._lanes[lane][-1:])
        for node in sorted(needed, key=lambda n: -sum(n.before)):
            if covered[node.lane] < node.before[node.lane]:
                waits.append(node)
                covered = [max(a, b) for a, b in zip(covered, self._joined([node]), strict=True)]
        return lane, waits

    def _joined(self, nodes: Sequence[_Node]) -> list[int]:
        """How many nodes of each lane are done when all of these are."""
        found = [0] * MOST_LANES
        for node in nodes:
            for lane, count in enumerate(node.before):
                found[lane] = max(found[lane], count)
        return found


class LanedDevice:
    """What a recorded run asks for, of a device and of kernels, each in its lane."""

    def __init__(self, device: Device, kernels: Kernels, lanes: Lanes) -> None:
        self._device, self._kernels, self._lanes = device, kernels, lanes
        self.fallible = kernels.fallible

    def launch(
        self, low: Lowered, addresses: Sequence[int], sizes: Sequence[int], status: int,
        room: Room,
    ) -> bool:  # fmt: skip
        """A kernel: calls of one share what it needs beside its operands, and so does a library."""
        piece = self._lanes.piece
        pairs = list(zip(low.buffers, addresses, strict=True))
        writes: list[Any] = [piece(a) for t, a in pairs if t in low.writes]
        writes += [("spaces", low.kernel.name)] if self._kernels.has_spaces(low) else []
        writes += ["library"] if low.library is not None else []
        # Which failure is the first one to be seen stays the same.
        writes += [piece(status)] if low.fallible else []
        self._lanes.ask((piece(a) for t, a in pairs), writes)
        return self._kernels.launch(low, addresses, sizes, status, room)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """A copy on the device."""
        self._lanes.ask([self._lanes.piece(source)], [self._lanes.piece(target)])
        self._device.copy(target, source, nbytes)

    def clear(self, address: int, nbytes: int) -> None:
        """Zeros."""
        self._lanes.ask([], [self._lanes.piece(address)])
        self._device.clear(address, nbytes)

    def download(self, address: int, pinned: Any) -> None:
        """A copy to pinned memory, each piece of which is written once."""
        self._lanes.ask([self._lanes.piece(address)], [])
        self._device.download(address, pinned)
