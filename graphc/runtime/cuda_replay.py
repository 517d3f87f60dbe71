"""A run without decisions of the host, recorded once as a CUDA graph and then replayed.

The memory of a recorded run stays where it is, from one replay to the next.  What can fail is
looked at once, after everything that can; where variables change after that, there are two graphs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.dims import Symbol
from graphc.runtime.cuda_arrays import DeviceArray
from graphc.runtime.cuda_device import CaptureError, Memory, Recorded
from graphc.runtime.cuda_run import STATUS, Run, raise_failure

if TYPE_CHECKING:
    from graphc.runtime.cuda import CudaExecutable

SMALL = 64 << 10
"""Fetches of up to so many bytes come with the graph, by way of pinned memory."""
ALIGNMENT = 64


class Replay:
    """A recorded run.

    Args:
      owner: the executable.
      binding: the sizes that the inputs tell.
      feeds: those of a run like it; arrays on the device are read where they are.
      variables: where the variables are, by slot.

    Raises:
      CaptureError: it cannot be recorded.
      MemoryError: there is no room for it.
    """

    def __init__(
        self, owner: CudaExecutable, binding: Mapping[Symbol, int], feeds: Sequence[Any],
        variables: Mapping[int, Memory],
    ) -> None:  # fmt: skip
        self.owner = owner
        self.device = owner.device
        given = dict(variables)
        self.places: list[int] = []
        for i, feed in zip(owner.inputs, feeds, strict=True):
            fixed = isinstance(feed, DeviceArray)
            memory: Memory = feed if fixed else self.device.allocate(feed.nbytes)
            # Of an array on the device the address is kept, but not the array.
            given[owner.numbers[id(i)]] = _Place(feed.address) if fixed else memory
            self.places.append(memory.address)
        self.kept = Run(owner, binding, given)
        self.kept.reserve()
        self._layout()
        self._record()

    def _layout(self) -> None:
        """Where fetches are, and which of them come by way of pinned memory."""
        size = STATUS.nbytes
        self.small: dict[int, tuple[int, int]] = {}
        self.addresses = [self.kept.place(r) for r in self.owner.program.results]
        for number, room in enumerate(self.kept.rooms()):
            if room.nbytes <= SMALL and not self.owner.on_device:
                start = -(-size // ALIGNMENT) * ALIGNMENT
                self.small[number] = (start, room.nbytes)
                size = start + room.nbytes
        self.pinned = self.device.pinned(size)
        self.status = self.pinned[: STATUS.nbytes].view(np.int64)

    def _record(self) -> None:
        run = self.kept
        changes = self.owner.changing < len(self.owner.program.steps)

        def begin() -> None:
            run.begin()
            if run.unsure:
                self.device.download(run.status.address, self.pinned[: STATUS.nbytes])

        def finish() -> None:
            run.finish()
            for number, (start, nbytes) in self.small.items():
                if nbytes:
                    self.device.download(
                        self.addresses[number], self.pinned[start : start + nbytes]
                    )

        def both() -> None:
            begin()
            finish()

        # Known beforehand, for what is recorded is not done.
        self.fallible = self.owner.kernels.fallible
        self.twice = self.fallible and changes
        parts = (begin, finish) if self.twice else (both,)
        self.graphs = [self._recorded(part) for part in parts]

    def _recorded(self, part: Callable[[], None]) -> Recorded:
        self.device.begin_capture()
        try:
            part()
        except BaseException:
            # The stream has to be out of the capture, whatever has become of it.
            with contextlib.suppress(CaptureError):
                self.device.end_capture()
            raise
        return self.device.end_capture()

    def run(self, feeds: Sequence[Any]) -> tuple[Any, ...]:
        """Do it again with other feeds.

        Raises:
          Failed: a condition did not hold; nothing was changed.
          MemoryError: there is no room for the fetches.
        """
        owner, device = self.owner, self.device
        taken = owner.taken(self.kept)
        for address, feed in zip(self.places, feeds, strict=True):
            if not isinstance(feed, DeviceArray):
                owner.state.staging.put(address, feed)
        if self.twice:
            self.graphs[0].launch()
            device.wait()
            raise_failure(self.status)
        owner.state.run_has_changed(owner.program.updated)
        self.graphs[-1].launch()
        if self.small or (self.fallible and not self.twice):
            device.wait()
        if self.fallible and not self.twice:
            raise_failure(self.status)
        results = []
        for number, address in enumerate(self.addresses):
            place = self.small.get(number)
            if place is None:
                results.append(taken.result(number, address))
                continue
            room = taken.rooms[number]
            start, nbytes = place
            if nbytes:
                room.reshape(-1).view(np.uint8)[...] = self.pinned[start : start + nbytes]
            results.append(room if room.ndim else room[()])
        return tuple(results)


class _Place:
    """An address whose memory is somebody else's."""

    def __init__(self, address: int) -> None:
        self.address = address
