"""Profile: how long the kernels of one run took, how much they did, how near that is to the limit.

The floor of a kernel is the time that the machine would need for its operations at its peak or for
its bytes at the speed of its memory, whichever is longer; both are measured (:mod:`peak`).  Data
that stay in a cache come faster than that, so that a fraction may pass 100 %.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc.dims import Symbol, substitute
from graphc.graph import Operation
from graphc.program import (
    Append,
    Bind,
    Branch,
    Call,
    Copy,
    Host,
    Loop,
    Program,
    Step,
)
from graphc.runtime.peak import Peak, machine_peak

__all__ = ["Event", "Profile", "Record", "Timing"]

WIDEST = 60
"""Characters of the last column of the table."""


@dataclass(frozen=True)
class Timing:
    """Of one step: how many times it was done, nanoseconds in all, the least and the most."""

    count: int
    total: int
    least: int
    most: int


@dataclass(frozen=True)
class Event:
    """One time that a step was done; nanoseconds of the clock."""

    site: int
    start: int
    end: int


@dataclass(frozen=True)
class Record:
    """What one step of the program did in the run.

    Attributes:
      name: of the kernel (``k3``), or what the step is: ``copy``, ``host``, ``loop``, ...
      kind: ``kernel``, ``copy``, ``host``, ``memory`` (making room), ``sizes`` (learning them), or
        ``loop`` and ``branch``, whose time is that of the steps in them.
      ops: the names of the user's operations in it, in the order of their dependencies; of what is
        copied.
      types: their types.
      calls: how many times it was done.
      time, least, most: seconds in all, of the shortest call and of the longest.
      bytes, operations: of one call, for the sizes that the run had at its end.
      floor: the least seconds that the machine could do one call in.
    """

    name: str
    kind: str
    ops: tuple[str, ...]
    types: tuple[str, ...]
    calls: int
    time: float
    least: float
    most: float
    bytes: float
    operations: float
    floor: float

    @property
    def fraction(self) -> float:
        """The floor over the mean time of a call: 1 is as fast as the machine can."""
        return self.floor * self.calls / self.time if self.time else 0.0

    @property
    def nested(self) -> bool:
        """Whether its time is that of other records."""
        return self.kind in ("loop", "branch")


class Profile:
    """One traced run: ``print`` it for a table.

    Attributes:
      total: seconds of the run, from its first step to its last.
      dropped: how many calls are counted but missing from the events, as they were too many.
    """

    def __init__(
        self, program: Program | None, steps: Sequence[Step], timings: Sequence[Timing],
        events: Sequence[Event], sizes: Mapping[Symbol, int], started: int, ended: int,
        dropped: int, threads: int,
    ) -> None:  # fmt: skip
        self._program = program
        self._steps = steps
        self._timings = timings
        self._events = events
        self._sizes = sizes
        self._started = started
        self.total = (ended - started) / 1e9
        self.dropped = dropped
        self.threads = threads

    @property
    def peak(self) -> Peak:
        """What the machine can do at most; measured the first time, which takes a moment."""
        return machine_peak(self.threads)

    @property
    def machine(self) -> str:
        """What the run had of the machine."""
        return f"{self.threads} threads"

    @functools.cached_property
    def _all(self) -> list[Record]:
        """A record for every step, those that were not done too."""
        pairs = zip(self._steps, self._timings, strict=True)
        return [self._record(step, timing) for step, timing in pairs]

    @property
    def records(self) -> list[Record]:
        """The steps that were done, in the order of the program."""
        return [r for r in self._all if r.calls]

    @property
    def kernels(self) -> list[Record]:
        """The records of kernels."""
        return [r for r in self.records if r.kind == "kernel"]

    def _record(self, step: Step, timing: Timing) -> Record:
        assert self._program is not None
        operations, moved, width = 0.0, 0.0, 4
        ops: list[Operation] = []
        names = []
        name = kind = kind_of(step)
        if isinstance(step, Call):
            name = step.lowered.name
            ops = step.lowered.operations
            if timing.count:
                cost = step.lowered.cost(self._sizes)
                operations, moved, width = cost.operations, cost.bytes, cost.width
        elif isinstance(step, (Copy, Append)):
            slot = self._program.slots[step.source]
            names = [slot.name]
            size = substitute(slot.size, self._sizes)
            moved = 2.0 * size * slot.dtype.size if isinstance(size, int) else 0.0
        elif isinstance(step, Host):
            ops = [self._program.hosts[step.number].op]
        floor = self.peak.floor(operations, moved, width) if timing.count else 0.0
        return Record(
            name, kind, tuple(names or [o.name for o in ops]), tuple(o.type for o in ops),
            timing.count,
            timing.total / 1e9, timing.least / 1e9 if timing.count else 0.0, timing.most / 1e9,
            moved, operations, floor,
        )  # fmt: skip

    # --- as a table -------------------------------------------------------------------------------

    def __str__(self) -> str:
        peak = self.peak
        inside = sum(r.time for r in self.records if not r.nested)
        head = (
            f"{seconds(self.total)} in all, {seconds(inside)} of it in {len(self.kernels)} kernels "
            f"and other steps; {self.machine}, {peak.flops / 1e9:.0f} GFLOP/s and "
            f"{peak.bandwidth / 1e9:.0f} GB/s at most"
        )
        header = ["step", "calls", "time", "share", "of floor", "operations", "bytes", "ops"]
        rows = [header]
        rows += [self._row(r) for r in sorted(self.records, key=lambda r: -r.time)]
        widths = [max(len(row[k]) for row in rows) for k in range(len(header))]
        lines = [head]
        for row in rows:
            cells = [c.rjust(w) for c, w in zip(row, widths, strict=True)]
            cells[0], cells[-1] = row[0].ljust(widths[0]), row[-1]
            lines.append("  ".join(cells).rstrip())
        if self.dropped:
            lines.append(f"{self.dropped} calls are counted but are not among the events")
        return "\n".join(lines)

    def _row(self, r: Record) -> list[str]:
        share = f"{r.time / self.total:.1%}" if self.total else ""
        known = bool(r.floor)
        return [
            r.name, str(r.calls), seconds(r.time), f"({share})" if r.nested else share,
            f"{r.fraction:.0%}" if known else "", amount(r.operations), amount(r.bytes),
            shortened(r),
        ]  # fmt: skip

    # --- as a trace -------------------------------------------------------------------------------

    def chrome_trace(self, path: Any = None) -> dict[str, Any]:
        """The calls one by one, for chrome://tracing or ui.perfetto.dev.

        Args:
          path: where to write it as JSON; None writes nothing.
        """
        trace = {"traceEvents": self._trace_events(), "displayTimeUnit": "ns"}
        if path is not None:
            Path(path).write_text(json.dumps(trace) + "\n", encoding="utf-8")
        return trace

    def _trace_events(self) -> list[dict[str, Any]]:
        where = {"pid": 1, "tid": 1}
        found: list[dict[str, Any]] = [
            {"ph": "M", "name": "process_name", **where, "args": {"name": "graphc"}},
            {"ph": "M", "name": "thread_name", **where, "args": {"name": "run"}},
        ]
        # What is around others has to come before them.
        for event in sorted(self._events, key=lambda e: (e.start, -e.end)):
            r = self._all[event.site]
            args: dict[str, Any] = {"step": r.name}
            if r.ops:
                args["ops"] = ", ".join(r.ops)
            if r.floor:
                args |= {
                    "bytes": r.bytes, "operations": r.operations,
                    "fraction of floor": r.floor * 1e9 / max(1, event.end - event.start),
                }  # fmt: skip
            found.append({
                "ph": "X", "name": "+".join(r.types) or r.name, "cat": r.kind,
                "ts": (event.start - self._started) / 1e3,
                "dur": (event.end - event.start) / 1e3, **where, "args": args,
            })  # fmt: skip
        return found


def kind_of(step: Step) -> str:
    """What a step is."""
    if isinstance(step, Call):
        return "kernel"
    if isinstance(step, (Copy, Append)):
        return "copy"
    if isinstance(step, Host):
        return "host"
    if isinstance(step, Loop):
        return "loop"
    if isinstance(step, Branch):
        return "branch"
    return "sizes" if isinstance(step, Bind) else "memory"


def seconds(value: float) -> str:
    """A time with three digits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value < 999.5 * scale else f"{value:.0f} {unit}"
    return f"{value * 1e9:.0f} ns"


def amount(value: float) -> str:
    """A count with three digits and a prefix; nothing for none."""
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g}{prefix}"
    return f"{value:.0f}" if value else ""


def shortened(record: Record) -> str:
    """The operations in a record, as many as fit."""
    text = ", ".join(record.ops)
    if len(text) <= WIDEST:
        return text
    # The last one is what the others are computed for.
    last = record.ops[-1]
    room = WIDEST - len(last) - len(" ... ")
    return f"{text[:room]} ... {last}" if room > 0 and len(record.ops) > 1 else f"... {last}"
