"""Traced runs on a device: its clock is read before and after every step."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from graphc.program import Program, Step
from graphc.runtime.cuda_device import Device
from graphc.runtime.cuda_device import Event as Moment
from graphc.runtime.peak import Peak
from graphc.runtime.profile import Event, Profile, Record, Timing
from graphc.runtime.trace import MOST_EVENTS, timed_steps


class DeviceProfile(Profile):
    """A traced run on a device."""

    device: Device
    by_library: frozenset[int]

    def _record(self, step: Step, timing: Timing) -> Record:
        """The record of a step; the name says where cuBLAS has computed it."""
        found = super()._record(step, timing)
        return replace(found, name=f"{found.name} cublas") if id(step) in self.by_library else found

    @property
    def machine(self) -> str:
        """Where the run was."""
        return f"{self.device.name} ({self.device.arch})"

    @functools.cached_property
    def peak(self) -> Peak:
        """What the device can do at most: by its clock, and by the time of a copy."""
        with self.device.active():
            flops, bandwidth = self.device.peak()
        return Peak(flops, bandwidth, 0)


class DeviceTimer:
    """Reads the device's clock around the steps of one run.

    Attributes:
      sizes: those of the run.
    """

    def __init__(self, program: Program, device: Device) -> None:
        self._program = program
        self._device = device
        self._steps = timed_steps(program)
        self._sites = {id(s): k for k, s in enumerate(self._steps)}
        self._found: list[tuple[int, Moment, Moment]] = []
        self._dropped = [0] * len(self._steps)
        self._by_library: set[int] = set()
        self.sizes: Mapping[Any, Any] = {}

    @contextlib.contextmanager
    def around(self, step: Step) -> Iterator[None]:
        """A context in which a step is asked for."""
        site = self._sites.get(id(step))
        if site is None:
            yield
        elif len(self._found) >= MOST_EVENTS:
            self._dropped[site] += 1
            yield
        else:
            start = self._device.event()
            yield
            self._found.append((site, start, self._device.event()))

    def by_library(self, step: Step) -> None:
        """A library computes a step in this run."""
        self._by_library.add(id(step))

    def profile(self) -> DeviceProfile:
        """How long the steps of the run took."""
        self._device.wait()
        first = min((f for f in self._found), key=lambda f: f[0], default=None)
        events = []
        if first is not None:
            # Loops come behind their steps, and their sites before.
            for site, start, end in self._found:
                begun = start.seconds_since(first[1])
                taken = end.seconds_since(start)
                events.append(Event(site, round(begun * 1e9), round((begun + taken) * 1e9)))
        timings = [self._timing(site, events) for site in range(len(self._steps))]
        found = DeviceProfile(
            self._program, self._steps, timings, events, self.sizes, 0,
            max((e.end for e in events), default=0), sum(self._dropped), 0,
        )  # fmt: skip
        found.device, found.by_library = self._device, frozenset(self._by_library)
        return found

    def _timing(self, site: int, events: list[Event]) -> Timing:
        spans = [e.end - e.start for e in events if e.site == site]
        if not spans:
            return Timing(0, 0, 0, 0)
        return Timing(len(spans) + self._dropped[site], sum(spans), min(spans), max(spans))
