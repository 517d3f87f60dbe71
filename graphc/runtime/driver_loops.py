"""Printing loops: by themselves, or in registers where every value is small.

A quick loop over scalars and short vectors becomes a function, which copies their slots to memory
of its own, runs there, and copies them back.  Kernels are inlined there, so that LLVM keeps all in
registers.
"""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.loop.ir import Kernel
from graphc.program import Branch, Call, Copy, Loop, Program, Slot, Step, walk
from graphc.program_steps import slots_of
from graphc.runtime.driver_text import Body, FunctionText
from graphc.runtime.jit import IN_REGISTERS
from graphc.runtime.layout import Layout

RAISED = -1
POLL = 1024
"""A quick loop looks for an interruption every so many turns."""
SMALL = 64
"""What has at most so many bytes may be in a register."""
REGISTERS_POLL = 1 << 14
"""One that runs in registers: its turns take nanoseconds."""


@dataclass(frozen=True, eq=False)
class SmallLoop:
    """A loop to run in registers.

    Attributes:
      slots: what it reads or writes.
      known: those of them that something around reads or writes, too.
      written: those of ``known`` that it writes.
      kernels: what it calls.
    """

    slots: list[int]
    known: list[int]
    written: list[int]
    kernels: list[Kernel]


def small_loops(program: Program) -> dict[int, SmallLoop]:
    """The loops of a program that run in registers, by the identities of their steps."""
    steps = list(walk(program.steps))
    loops = [s for s in steps if isinstance(s, Loop) and s.quick]
    uses = Counter(n for step in steps for n in slots_of(step)) if loops else Counter()
    found = ((id(s), _small_loop(s, program.slots, uses)) for s in loops)
    return {key: loop for key, loop in found if loop is not None}


def _small_loop(loop: Loop, slots: Sequence[Slot], uses: Counter[int]) -> SmallLoop | None:
    """A loop as one to run in registers, if it is one."""
    steps = list(walk([loop]))
    mine = Counter(n for step in steps for n in slots_of(step))
    if not all(_is_small(slots[n]) for n in mine):
        return None
    written = {loop.flag, loop.turns}
    kernels: dict[str, Kernel] = {}
    for step in steps[1:]:
        if isinstance(step, Call):
            low = step.lowered
            if low.fast is not None or low.symbols or low.kernel.parallel is not None:
                return None
            kernels[low.kernel.name] = low.kernel
            own = dict(zip(low.buffers, step.slots, strict=True))
            written.update(own[root] for root in low.writes)
        elif isinstance(step, Copy):
            written.add(step.target)
        elif not isinstance(step, Branch):
            return None
    known = [n for n in mine if slots[n].kind != "temp" or uses[n] > mine[n]]
    return SmallLoop(list(mine), known, [n for n in known if n in written], list(kernels.values()))


def _is_small(slot: Slot) -> bool:
    """Whether a register can have what is in a slot."""
    known = isinstance(slot.size, int) and slot.size * slot.dtype.size <= SMALL
    return known and slot.kind not in ("grown", "row")


class LoopText(FunctionText, abc.ABC):
    """The part of a driver's printer that prints loops."""

    in_registers = True
    """Whether there may be functions that inline kernels."""

    def __init__(self, program: Program, layout: Layout) -> None:
        super().__init__()
        self.program = program
        self.layout = layout
        #: The addresses of slots where they stay the same.
        self.pointers: dict[int, str] = {}
        #: Those of the slots of the small loop that is printed now.
        self.registers: dict[int, str] = {}
        #: Finished functions besides the one that is printed now.
        self.functions: list[str] = []
        self._small = small_loops(program) if self.in_registers else {}

    @abc.abstractmethod
    def steps(self, steps: list[Step]) -> None:
        """Print steps in order."""

    @abc.abstractmethod
    def part(self, steps: list[Step]) -> None:
        """Print steps in order, where they may be many."""

    @abc.abstractmethod
    def pointer(self, number: int) -> str:
        """The address of a slot."""

    def loop(self, step: Loop) -> None:
        """Test and body in turn; now and then it looks for an interruption."""
        small = self._small.get(id(step))
        if small is not None:
            self._call_turns(step, small)
            return
        test, body, done = self.label("test"), self.label("body"), self.label("done")
        turns = self.pointer(step.turns)
        self.do(f"store i32 0, ptr {turns}")
        self.do(f"br label %{test}")
        self.start(test)
        more = self._test(step)
        self.do(f"br i1 {more}, label %{body}, label %{done}")
        self.start(body)
        self.part(step.body)
        after = self._add(turns, 1)
        if step.quick:
            low = self.emit(f"and i32 {after}, {POLL - 1}")
            due = self.emit(f"icmp eq i32 {low}, 0")
            poll = self.label("poll")
            self.do(f"br i1 {due}, label %{poll}, label %{test}")
            self.start(poll)
        self.poll()
        self.do(f"br label %{test}")
        self.start(done)

    def poll(self) -> None:
        """Leave the run if it is interrupted."""
        self.unless(self.emit("call i1 @gc_poll(ptr %ctx)"), "raised", RAISED)

    def _test(self, step: Loop) -> str:
        """Whether there is another turn."""
        self.steps(step.test)
        flag = self.emit(f"load i8, ptr {self.pointer(step.flag)}")
        return self.emit(f"icmp ne i8 {flag}, 0")

    def _add(self, place: str, step: int) -> str:
        """Add to a number in memory; the sum."""
        before = self.emit(f"load i32, ptr {place}")
        after = self.emit(f"add i32 {before}, {step}")
        self.do(f"store i32 {after}, ptr {place}")
        return after

    # --- in registers -----------------------------------------------------------------------------

    def _call_turns(self, step: Loop, small: SmallLoop) -> None:
        """Call a function that runs a loop in registers."""
        name = f"{IN_REGISTERS}{len(self.functions)}"
        outside = [self.pointer(n) for n in small.known]
        around, self.body = self.body, Body()
        pointers, self.pointers = self.pointers, {}
        self._turns(step, small)
        slots = "".join(f", ptr %slot{n}" for n in small.known)
        self.functions.append(self.function(f"internal i32 @{name}(ptr %ctx, ptr %status{slots})"))
        self.body, self.pointers, self.registers = around, pointers, {}
        self.layout.inlined.update((k.name, k) for k in small.kernels)
        values = "".join(f", ptr {p}" for p in outside)
        code = self.emit(f"call i32 @{name}(ptr %ctx, ptr %status{values})")
        self.leave_with(code)

    def _turns(self, step: Loop, small: SmallLoop) -> None:
        """The loop in registers.

        So many turns are a loop by themselves that has no call and one end: LLVM may find a closed
        form.  The test, which has no effects, stands before them and in them.
        """
        most = max((len(s.slots) for s in walk([step]) if isinstance(s, Call)), default=0)
        self.do(f"%args = alloca [{most + 1} x i64], align 16")
        counter = self.emit("alloca i32")
        memory = f"alloca [{SMALL} x i8], align {SMALL}"
        self.registers = {n: self.emit(memory) for n in small.slots}
        self.pointers = self.registers
        for n in small.known:
            self.copy_slot(n, self.registers[n], f"%slot{n}")
        self.do(f"store i32 0, ptr {self.registers[step.turns]}")
        again, body, done = self.label("again"), self.label("body"), self.label("done")
        out, poll = self.label("out"), self.label("poll")
        self.do(f"br label %{again}")
        self.start(again)
        self.do(f"store i32 {REGISTERS_POLL}, ptr {counter}")
        self.do(f"br i1 {self._test(step)}, label %{body}, label %{done}")
        self.start(body)
        self.steps(step.body)
        self._add(self.registers[step.turns], 1)
        more = self._test(step)
        left = self._add(counter, -1)
        on = self.emit(f"icmp ne i32 {left}, 0")
        both = self.emit(f"and i1 {more}, {on}")
        self.do(f"br i1 {both}, label %{body}, label %{out}")
        self.start(out)
        # Not by "on": a comparison in the turns that is used behind them would keep them.
        due = self.emit(f"icmp eq i32 {left}, 0")
        self.do(f"br i1 {due}, label %{poll}, label %{done}")
        self.start(poll)
        self.poll()
        self.do(f"br label %{again}")
        self.start(done)
        for n in small.written:
            self.copy_slot(n, f"%slot{n}", self.registers[n])
        self.do("ret i32 0")

    def copy_slot(self, number: int, target: str, source: str) -> None:
        """Copy all of a slot of a known size."""
        slot = self.program.slots[number]
        assert isinstance(slot.size, int)
        self.copy_bytes(target, source, slot.size * slot.dtype.size)

    def copy_bytes(self, target: str, source: str, bytes_: int | str) -> None:
        """Copy bytes."""
        self.do(
            f"call void @llvm.memmove.p0.p0.i64(ptr {target}, ptr {source}, i64 {bytes_}, i1 false)"
        )
