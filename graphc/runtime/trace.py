"""Traced runs: the same kernels under a second driver that reads the clock around every step.

The driver of a traced run is compiled when it is first asked for; the kernels are those that the
program has already.  While a thread traces, its executable's context points at the second driver;
other threads that run the executable meanwhile are sent on to the usual one.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from graphc.codegen import llvm
from graphc.program import (
    Program,
    Publish,
    Step,
    program_key,
    walk,
)
from graphc.runtime import cache, jit, native
from graphc.runtime.driver import DriverPrinter, driver
from graphc.runtime.profile import Event, Profile, Timing
from graphc.runtime.structs import Fields, context_offsets, i64

if TYPE_CHECKING:
    from graphc.runtime.executable import Code, Executable, Runnable

MOST_EVENTS = 1 << 16
"""Of a run, how many calls of kernels are kept one by one; all of them are counted."""


class TraceStruct(ctypes.Structure):
    """``%Trace`` of the text below."""

    _fields_: ClassVar[Fields] = [
        (name, i64)
        for name in ("owner", "run", "timings", "events", "capacity", "count", "started", "ended",
                     "sizes")
    ]  # fmt: skip


class TimingStruct(ctypes.Structure):
    """Of one step: how often, and nanoseconds."""

    _fields_: ClassVar[Fields] = [(name, i64) for name in ("count", "total", "least", "most")]


class EventStruct(ctypes.Structure):
    """One time that a step was done, in nanoseconds of the clock."""

    _fields_: ClassVar[Fields] = [(name, i64) for name in ("site", "start", "end")]


# %trace.table: see TraceStruct. The sizes are copied before another run can change them.
_TEXT = """
declare i32 @clock_gettime(i32, ptr)
declare i64 @pthread_self()
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

%Trace = type {{ i64, ptr, ptr, ptr, i64, i64, i64, i64, ptr }}
%Timing = type {{ i64, i64, i64, i64 }}
%Event = type {{ i64, i64, i64 }}

@trace = global %Trace zeroinitializer

define internal i64 @trace_now() {{
  %time = alloca [2 x i64], align 8
  %ignored = call i32 @clock_gettime(i32 {clock}, ptr %time)
  %seconds = load i64, ptr %time
  %nano.at = getelementptr i64, ptr %time, i64 1
  %nano = load i64, ptr %nano.at
  %whole = mul i64 %seconds, 1000000000
  %now = add i64 %whole, %nano
  ret i64 %now
}}

define internal void @trace_step(i64 %site, i64 %start) {{
entry:
  %end = call i64 @trace_now()
  %taken = sub i64 %end, %start
  %timings.at = getelementptr %Trace, ptr @trace, i32 0, i32 2
  %timings = load ptr, ptr %timings.at
  %count.at = getelementptr %Timing, ptr %timings, i64 %site, i32 0
  %total.at = getelementptr %Timing, ptr %timings, i64 %site, i32 1
  %least.at = getelementptr %Timing, ptr %timings, i64 %site, i32 2
  %most.at = getelementptr %Timing, ptr %timings, i64 %site, i32 3
  %count = load i64, ptr %count.at
  %counted = add i64 %count, 1
  store i64 %counted, ptr %count.at
  %total = load i64, ptr %total.at
  %sum = add i64 %total, %taken
  store i64 %sum, ptr %total.at
  %least = load i64, ptr %least.at
  %less = call i64 @llvm.smin.i64(i64 %least, i64 %taken)
  store i64 %less, ptr %least.at
  %most = load i64, ptr %most.at
  %more = call i64 @llvm.smax.i64(i64 %most, i64 %taken)
  store i64 %more, ptr %most.at
  %number.at = getelementptr %Trace, ptr @trace, i32 0, i32 5
  %number = load i64, ptr %number.at
  %next = add i64 %number, 1
  store i64 %next, ptr %number.at
  %capacity.at = getelementptr %Trace, ptr @trace, i32 0, i32 4
  %capacity = load i64, ptr %capacity.at
  %room = icmp slt i64 %number, %capacity
  br i1 %room, label %keep, label %exit

keep:
  %events.at = getelementptr %Trace, ptr @trace, i32 0, i32 3
  %events = load ptr, ptr %events.at
  %event = getelementptr %Event, ptr %events, i64 %number
  store i64 %site, ptr %event
  %start.at = getelementptr %Event, ptr %event, i32 0, i32 1
  store i64 %start, ptr %start.at
  %end.at = getelementptr %Event, ptr %event, i32 0, i32 2
  store i64 %end, ptr %end.at
  br label %exit

exit:
  ret void
}}

define i32 @run(ptr %ctx) {{
entry:
  %self = call i64 @pthread_self()
  %owner = load atomic i64, ptr @trace monotonic, align 8
  %mine = icmp eq i64 %self, %owner
  br i1 %mine, label %traced, label %other

other:
  %run.at = getelementptr %Trace, ptr @trace, i32 0, i32 1
  %run = load ptr, ptr %run.at
  %usual = call i32 %run(ptr %ctx)
  ret i32 %usual

traced:
  %started.at = getelementptr %Trace, ptr @trace, i32 0, i32 6
  %started = call i64 @trace_now()
  store i64 %started, ptr %started.at
  %code = call i32 @run_traced(ptr %ctx)
  %ended.at = getelementptr %Trace, ptr @trace, i32 0, i32 7
  %ended = call i64 @trace_now()
  store i64 %ended, ptr %ended.at
  %sizes.at = getelementptr %Trace, ptr @trace, i32 0, i32 8
  %sizes = load ptr, ptr %sizes.at
  %syms.at = getelementptr i8, ptr %ctx, i64 {syms}
  %syms = load ptr, ptr %syms.at
  call void @llvm.memcpy.p0.p0.i64(ptr %sizes, ptr %syms, i64 {bytes}, i1 false)
  ret i32 %code
}}
"""


def timed_steps(program: Program) -> list[Step]:
    """The steps that are timed, each by its place here."""
    return [s for s in walk(program.steps) if not isinstance(s, Publish)]


class TracingPrinter(DriverPrinter):
    """Prints a driver that reads the clock before and after every step."""

    entry = "internal i32 @run_traced(ptr %ctx)"
    in_registers = False

    def __init__(self, program: Program, layout: Any) -> None:
        super().__init__(program, layout)
        self.sites = {id(s): k for k, s in enumerate(timed_steps(program))}

    def step(self, step: Step) -> None:
        """One step, with the clock read around it."""
        site = self.sites.get(id(step))
        if site is None:
            super().step(step)
            return
        start = self.emit("call i64 @trace_now()")
        super().step(step)
        self.do(f"call void @trace_step(i64 {site}, i64 {start})")


def tracing_text(program: Program, target: Any) -> str:
    """The second driver as LLVM text; the kernels are declared, not defined."""
    plans, text, _ = driver(program, TracingPrinter)
    module = llvm.module([llvm.print_kernel(k, target) for k in plans])
    own = _TEXT.format(
        clock=time.CLOCK_MONOTONIC, syms=context_offsets()["syms"],
        bytes=8 * len(program.all_symbols),
    )  # fmt: skip
    declares = "".join(f"declare void @{k.name}(ptr, i64, i64)\n" for k in program.loops)
    return once(module + declares + text + own)


def once(text: str) -> str:
    """The text without its second declarations of a function."""
    seen: set[str] = set()
    lines = []
    for line in text.splitlines():
        found = re.match(r"declare .*?@([\w.]+)\(", line)
        if found is None or found[1] not in seen:
            lines.append(line)
        if found is not None:
            seen.add(found[1])
    return "\n".join(lines) + "\n"


class Tracer:
    """The traced runs of one executable."""

    def __init__(self, code: Code, context: native.CallContext, target: Any, version: str) -> None:
        program = code.program
        self._program = program
        self._context = context
        self._usual = code.run
        self._lock = threading.Lock()
        _tracers.add(self)
        steps = timed_steps(program)
        data = cache.default_cache().fetch(
            program_key(program), target.description, f"{version} traced",
            lambda: jit.compile_object(tracing_text(program, target), target),
        )  # fmt: skip
        symbols = native.symbols() | {k.name: code.loaded.address(k.name) for k in program.loops}
        self._loaded = jit.load_object(data, symbols, exports=("run", "trace"))
        self._run = self._loaded.address("run")
        self._timings = (TimingStruct * max(1, len(steps)))()
        self._events = (EventStruct * MOST_EVENTS)()
        self._sizes = (i64 * max(1, len(program.all_symbols)))()
        self._struct = TraceStruct.from_address(self._loaded.address("trace"))
        self._struct.run = self._usual
        self._struct.timings = ctypes.addressof(self._timings)
        self._struct.events = ctypes.addressof(self._events)
        self._struct.capacity = MOST_EVENTS
        self._struct.sizes = ctypes.addressof(self._sizes)

    def call(self, executable: Executable, feeds: Sequence[Any]) -> tuple[Any, Profile]:
        """What ``executable.call`` gives, and how long the steps took."""
        with self._lock:
            ctypes.memset(self._timings, 0, ctypes.sizeof(self._timings))
            for timing in self._timings:
                timing.least = (1 << 63) - 1
            self._struct.count = self._struct.started = self._struct.ended = 0
            self._struct.owner = threading.get_ident()
            self._context.struct.run = self._run
            try:
                answer = executable.call(*feeds)
            finally:
                self._context.struct.run = self._usual
                self._struct.owner = 0
            return answer, self._profile()

    def reset_in_child(self) -> None:
        """After a fork: no thread that the child has not is tracing."""
        if self._struct.owner != threading.get_ident():
            self._lock = threading.Lock()
            self._struct.owner = 0
            self._context.struct.run = self._usual

    def _profile(self) -> Profile:
        """A copy of what the run has left."""
        struct = self._struct
        timings = [Timing(t.count, t.total, t.least, t.most) for t in self._timings]
        kept = min(struct.count, MOST_EVENTS)
        events = [Event(e.site, e.start, e.end) for e in self._events[:kept]]
        sizes = dict(zip(self._program.all_symbols, self._sizes, strict=False))
        return Profile(
            self._program, timed_steps(self._program), timings, events, sizes,
            struct.started, struct.ended, struct.count - kept, native.get_num_threads(),
        )  # fmt: skip


class Recording:
    """What one run tells of itself: its profile."""

    def __init__(self) -> None:
        # A run that only gives back what it is fed calls no program.
        self.profile = Profile(None, (), (), (), {}, 0, 0, 0, native.get_num_threads())

    def call(self, executable: Runnable, feeds: Sequence[Any]) -> Any:
        """Run an executable and keep its profile."""
        answer, self.profile = executable.traced(feeds)
        return answer


_making = threading.Lock()
_tracers: weakref.WeakSet[Tracer] = weakref.WeakSet()


def making_tracer() -> threading.Lock:
    """Held by a thread that makes a tracer, so that an executable has one."""
    return _making


def _after_fork() -> None:
    global _making
    _making = threading.Lock()
    for tracer in _tracers:
        tracer.reset_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


__all__ = ["Recording", "Tracer", "making_tracer", "tracing_text"]
