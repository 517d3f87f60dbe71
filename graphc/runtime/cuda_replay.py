"""A run that needs no answer of the device, recorded once as a CUDA graph and then replayed.

The memory of a recorded run stays where it is, from one replay to the next.  What can fail is
looked at once, after everything that can; where variables change after that, there are two graphs.
Which way loops and branches go is decided when the run is recorded, by what the host knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.dims import Symbol
from graphc.runtime.cuda_arrays import DeviceArray
from graphc.runtime.cuda_device import Memory, Recorded, recorded
from graphc.runtime.cuda_recorded import Place, RecordedRun, Rehearsal
from graphc.runtime.cuda_run import ALIGNMENT as ACCESS
from graphc.runtime.cuda_run import STATUS, raise_failure

if TYPE_CHECKING:
    from graphc.runtime.cuda import CudaExecutable

SMALL = 64 << 10
"""Fetches of up to so many bytes come with the graph, by way of pinned memory."""
ALIGNMENT = 64


class Replay:
    """A recorded run.

    Attributes:
      runs: how often it was run.

    Args:
      owner: the executable.
      binding: the sizes that the inputs tell.
      feeds: those of a run like it.
      fixed: where each feed is read; 0 for what is copied to memory of the replay's own.
      variables: where the variables are, by slot.
      known: the feeds that the host decides by: it is for these alone.

    Raises:
      CaptureError: it cannot be recorded.
      GuardBroken, BadSize: as when it runs.
      MemoryError: there is no room for it.
    """

    def __init__(
        self, owner: CudaExecutable, binding: Mapping[Symbol, int], feeds: Sequence[Any],
        fixed: Sequence[int], variables: Mapping[int, Memory], known: Mapping[int, np.ndarray],
    ) -> None:  # fmt: skip
        self.owner = owner
        self.device = owner.device
        given = dict(variables)
        rehearsal = Rehearsal(owner, binding, variables, known)
        numbers = [owner.numbers[id(i)] for i in owner.inputs]
        self.decided = [(k, known[n]) for k, n in enumerate(numbers) if n in known]
        self.places: list[int] = []
        self.fixed = tuple(fixed)
        self.signature = [
            (f.shape, f.dtype, place) for f, place in zip(feeds, self.fixed, strict=True)
        ]
        for i, feed, place in zip(owner.inputs, feeds, self.fixed, strict=True):
            # Of an array on the device the address is kept, but not the array.
            memory: Memory = Place(place) if place else self.device.allocate(feed.nbytes)
            given[owner.numbers[id(i)]] = memory
            self.places.append(memory.address)
        self.sizes = dict(binding)
        self.runs = 0
        self.kept = RecordedRun(owner, binding, given, known, rehearsal)
        self._layout(rehearsal)
        self._record()

    def _layout(self, rehearsal: Rehearsal) -> None:
        """Which fetches come by way of pinned memory, and where they are in it."""
        size = STATUS.nbytes
        self.small: dict[int, tuple[int, int]] = {}
        self.addresses: list[int] = []
        self.shapes = [(room.shape, room.dtype) for room in rehearsal.rooms()]
        for number, (shape, dtype) in enumerate(self.shapes):
            nbytes = dtype.itemsize * math.prod(shape)
            if nbytes <= SMALL and not self.owner.on_device:
                start = -(-size // ALIGNMENT) * ALIGNMENT
                self.small[number] = (start, nbytes)
                size = start + nbytes
        self.pinned = self.device.pinned(size)
        self.status = self.pinned[: STATUS.nbytes].view(np.int64)
        # Where small fetches lie in the pinned memory; None for those that come by themselves.
        self.views: list[np.ndarray | None] = []
        for number, (shape, dtype) in enumerate(self.shapes):
            start, nbytes = self.small.get(number, (-1, 0))
            raw = self.pinned[start : start + nbytes]
            self.views.append(None if start < 0 else raw.view(dtype).reshape(shape))
        self.plain = len(self.small) == len(self.shapes)

    def _record(self) -> None:
        run = self.kept
        changes = self.owner.changing < len(self.owner.program.steps)

        def begin() -> None:
            run.begin()
            if self.fallible:
                run.device.download(run.status.address, self.pinned[: STATUS.nbytes])

        def finish() -> None:
            run.finish()
            self.addresses = [run.place(r) for r in self.owner.program.results]
            for number, (start, nbytes) in self.small.items():
                if nbytes:
                    run.device.download(
                        self.addresses[number], self.pinned[start : start + nbytes]
                    )

        def both() -> None:
            begin()
            finish()

        # Also where what can fail is in a loop without a turn.
        self.fallible = self.owner.kernels.fallible
        self.twice = self.fallible and changes
        parts = (begin, finish) if self.twice else (both,)
        self.graphs = [self._recorded(part) for part in parts]
        # What led to them is not needed any more.
        self.kept.lanes.begin()

    def _recorded(self, part: Callable[[], None]) -> Recorded:
        """One of the graphs."""

        def laned() -> None:
            self.kept.lanes.begin()
            part()
            self.kept.lanes.finish()

        return recorded(self.device, laned)

    def run(self, feeds: Sequence[Any]) -> tuple[Any, ...]:
        """Do it again with other feeds.

        Raises:
          Failed: a condition did not hold; nothing was changed.
          MemoryError: there is no room for the fetches.
        """
        owner, device = self.owner, self.device
        self.runs += 1
        # Room for the fetches first: what follows must not fail once it changes variables.
        taken = None if self.plain else owner.taken(self.kept)
        rooms = [np.empty(*shape) for shape in self.shapes] if taken is None else taken.rooms
        for address, feed in zip(self.places, feeds, strict=True):
            if not isinstance(feed, DeviceArray):
                owner.state.staging.put(address, feed)
            elif feed.address != address and feed.nbytes:
                device.copy(address, feed.address, feed.nbytes)
        if self.twice:
            self.graphs[0].launch()
            device.wait()
            raise_failure(self.status)
        if owner.changes:
            owner.state.run_has_changed(owner.program.updated)
        self.graphs[-1].launch()
        last = self.fallible and not self.twice
        if self.small or last:
            device.wait()
            if last:
                raise_failure(self.status)
        results: list[Any] = []
        for number, (room, view) in enumerate(zip(rooms, self.views, strict=True)):
            if view is None:
                assert taken is not None
                results.append(taken.result(number, self.addresses[number]))
            elif room.ndim:
                room[...] = view
                results.append(room)
            else:
                results.append(view[()])
        return tuple(results)

    def fits(self, feeds: Sequence[Any]) -> bool:
        """Whether these feeds are like those that it was recorded for."""
        for feed, (shape, dtype, place) in zip(feeds, self.signature, strict=True):
            if type(feed) is np.ndarray:
                plain = not place and feed.flags.c_contiguous
            else:
                plain = isinstance(feed, DeviceArray) and place in (0, feed.address)
            if not plain or feed.shape != shape or feed.dtype != dtype:
                return False
        return all(
            type(feeds[k]) is np.ndarray and np.array_equal(feeds[k].reshape(-1), value)
            for k, value in self.decided
        )


def places_of(feeds: Sequence[Any]) -> tuple[int, ...]:
    """Where arrays on the device are that kernels can read there; 0 for all other feeds."""
    return tuple(
        f.address if isinstance(f, DeviceArray) and f.nbytes and not f.address % ACCESS else 0
        for f in feeds
    )


def still(before: Sequence[int], now: Sequence[int]) -> tuple[int, ...]:
    """The places that are what they were; 0 for the others."""
    return tuple(a if a == b else 0 for a, b in zip(before, now, strict=True))
