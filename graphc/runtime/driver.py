"""The native driver of a program: ``plan`` (sizes) and ``run`` (the steps), as LLVM text.

``plan(syms, dims)`` fills the dims table from the symbols of the inputs; its arithmetic is a loop
IR kernel like any other.  ``run(context)`` checks the guards, places the arena's blocks and does
the steps in order.  The layout of the dims table is :class:`~graphc.runtime.layout.Layout`.
"""

from __future__ import annotations

from graphc import dtypes
from graphc.codegen.llvm import inlined_name
from graphc.dims import Symbol
from graphc.loop.ir import Kernel
from graphc.lower import Lowered
from graphc.program import (
    Append,
    Bind,
    Branch,
    Call,
    Copy,
    Extend,
    Grow,
    Host,
    Loop,
    Program,
    Publish,
    Reserve,
    Rotate,
    Step,
    walk,
)
from graphc.program_steps import slots_of
from graphc.runtime.driver_loops import RAISED, LoopText
from graphc.runtime.driver_text import Body
from graphc.runtime.layout import (
    ARENA,
    BROKEN,
    GUARD,
    WORK,
    Layout,
    PlanPrinter,
    cells,
    plan_name,
)
from graphc.runtime.native import FailureCode, context_offsets

__all__ = ["ARENA", "FAILED", "GUARD_BROKEN", "PlanPrinter", "cells", "driver"]

GUARD_BROKEN = 2
FAILED = 1
SHORT = 64
"""How many steps a function has at most whose addresses are all known from its beginning."""


class DriverPrinter(LoopText):
    """Prints ``plan`` and ``run`` for a program whose layout is known."""

    entry = "i32 @run(ptr %ctx)"

    def __init__(self, program: Program, layout: Layout) -> None:
        super().__init__(program, layout)
        self.symbols: dict[Symbol, str] = {}
        self.fast = "false"
        self.cells, _ = cells(program)
        self.places = {s: k for k, s in enumerate(program.all_symbols)}

    # --- sizes ------------------------------------------------------------------------------------

    def plan(self) -> str:
        """The functions ``plan`` and ``plan_k`` for the other segments."""
        texts = []
        for segment in self.program.segments:
            used = self.layout.scalars[segment.number]
            total = len(used)
            self.do(f"%args = alloca [{total + 2} x i64], align 16")
            sizes = [f"i64 {self.at('%syms', number)}" for number in used]
            self.arguments(["ptr %dims", *sizes, "ptr null"])
            self.do(f"call void @{plan_name(segment.number)}(ptr %args, i64 0, i64 1)")
            if segment.number == 0:
                work = self.at("%dims", WORK)
                self.do(f"ret i64 {work}")
                texts.append(self.function("i64 @plan(ptr %syms, ptr %dims)"))
            else:
                self.do("ret void")
                head = f"internal void @plan_{segment.number}(ptr %syms, ptr %dims)"
                texts.append(self.function(head))
        return "".join(texts)

    def symbol(self, symbol: Symbol) -> str:
        """A size, loaded where it may have changed."""
        found = self.symbols.get(symbol)
        return self.at("%syms", self.places[symbol]) if found is None else found

    # --- run --------------------------------------------------------------------------------------

    def run(self) -> str:
        """The function ``run``."""
        steps = list(walk(self.program.steps))
        self.tables(steps)
        self.do("store i64 0, ptr %status")
        if self.program.guards:
            broken = self.at("%dims", BROKEN)
            good = self.emit(f"icmp eq i64 {broken}, 0")
            self.unless(good, "broken", GUARD_BROKEN)
        self.begin(steps)
        self.steps(self.program.steps)
        self.do("ret i32 0")
        return "".join(self.functions) + self.function(self.entry)

    def part(self, steps: list[Step]) -> None:
        """Steps in order; if these are many, as a function of their own.

        Allocating registers takes more than twice as long for a function twice as long.
        """
        inner = list(walk(steps))
        if len(inner) <= SHORT or self.registers:
            self.steps(steps)
            return
        around = self.body, self.pointers, self.symbols, self.fast
        self.body, self.pointers, self.symbols = Body(), {}, {}
        self.tables(inner)
        self.begin(inner)
        self.steps(steps)
        self.do("ret i32 0")
        name = self.label("part")
        self.functions.append(self.function(f"internal i32 @{name}(ptr %ctx)"))
        self.body, self.pointers, self.symbols, self.fast = around
        # The block that begins here knows nothing of the tables, which the part may have changed.
        self.leave_with(self.emit(f"call i32 @{name}(ptr %ctx)"))

    def tables(self, steps: list[Step]) -> None:
        """Where the tables are that the context has, and the table of arguments."""
        offsets = context_offsets()
        for name in ("syms", "dims", "buffers", "status", "pool", "arena", "cells"):
            place = self.emit(f"getelementptr i8, ptr %ctx, i64 {offsets[name]}")
            self.do(f"%{name} = load ptr, ptr {place}")
        most = max(map(argument_count, steps), default=1)
        self.do(f"%args = alloca [{most} x i64], align 16")

    def begin(self, steps: list[Step]) -> None:
        """What stays the same for the run: in a short function, all that its steps need."""
        if len(steps) <= SHORT:
            for s in self.program.symbols:
                self.symbols[s] = self.at("%syms", self.places[s])
        if any(isinstance(s, Call) and s.lowered.has_fast for s in steps):
            self.compare_hints()
        if len(steps) <= SHORT:
            for number in dict.fromkeys(n for step in steps for n in slots_of(step)):
                found = self.fixed(number)
                if found is not None:
                    self.pointers[number] = found

    def compare_hints(self) -> None:
        """Whether the sizes are those that the fast kernels were made for."""
        self.fast = "true"
        known = set(self.program.symbols)
        for symbol, value in self.program.hints.items():
            if symbol in known:
                same = self.emit(f"icmp eq i64 {self.symbol(symbol)}, {value}")
                self.fast = self.emit(f"and i1 {self.fast}, {same}")

    def fixed(self, number: int) -> str | None:
        """The address of a slot, if it stays the same for the run."""
        slot = self.program.slots[number]
        if slot.kind == "temp" and self.program.segment_of(slot.size) == 0:
            offset = self.at("%dims", self.layout.blocks[slot.block])
            return self.address("%arena", offset)
        if slot.kind not in ("temp", "grown", "row"):
            return self.at("%buffers", number, "ptr")
        return None

    def pointer(self, number: int) -> str:
        """The address of a slot."""
        found = self.pointers.get(number) or self.fixed(number)
        if found is not None:
            return found
        slot = self.program.slots[number]
        if slot.kind == "grown":
            return self.at("%cells", 2 * self.cells[number], "ptr")
        if slot.kind == "row":
            stack, turns = slot.source
            offset, _ = self.turn(turns, number)
            return self.address(self.pointer(stack), offset)
        arena = self.at("%cells", 2 * (self.program.segment_of(slot.size) - 1), "ptr")
        return self.address(arena, self.at("%dims", self.layout.blocks[slot.block]))

    def steps(self, steps: list[Step]) -> None:
        """Steps in order."""
        for step in steps:
            self.step(step)

    def step(self, step: Step) -> None:
        """One step."""
        if isinstance(step, Call):
            self.call(step)
        elif isinstance(step, Copy) and step.target in self.registers:
            self.copy_slot(step.target, self.pointer(step.target), self.pointer(step.source))
        elif isinstance(step, Copy):
            self.move(self.pointer(step.target), step, step.source)
        elif isinstance(step, Bind):
            self.bind(step)
        elif isinstance(step, Grow):
            self.ensure(self.cells[step.slot], self.at("%dims", self.layout.bytes[id(step)]))
        elif isinstance(step, Reserve):
            self.reserve(step)
        elif isinstance(step, Extend):
            self.extend(step)
        elif isinstance(step, Rotate):
            self.rotate(step)
        elif isinstance(step, Append):
            self.append(step)
        elif isinstance(step, Loop):
            self.loop(step)
        elif isinstance(step, Branch):
            self.branch(step)
        elif isinstance(step, Host):
            self.host(step)
        else:
            self.publish(step)

    def move(self, target: str, step: Copy | Append, source: int) -> None:
        """Copy the bytes of a step."""
        bytes_ = self.at("%dims", self.layout.bytes[id(step)])
        self.copy_bytes(target, self.pointer(source), bytes_)

    def ensure(self, cell: int, need: str, keep: str = "0") -> None:
        """Make a memory cell large enough, or leave the run."""
        got = self.emit(
            f"call i1 @gc_ensure(ptr %ctx, i64 {cell}, i64 {need}, i64 {keep})"
        )
        self.unless(got, "full", int(FailureCode.OUT_OF_MEMORY))
        self.changed("%cells")

    def extend(self, step: Extend) -> None:
        """Make a slot longer; zeros come behind what it holds."""
        place = self.layout.bytes[id(step)]
        before, after = self.at("%dims", place), self.at("%dims", place + 1)
        self.ensure(self.cells[step.slot], after, before)
        end = self.address(self.pointer(step.slot), before)
        rest = self.emit(f"sub i64 {after}, {before}")
        self.do(f"call void @llvm.memset.p0.i64(ptr {end}, i8 0, i64 {rest}, i1 false)")

    def rotate(self, step: Rotate) -> None:
        """Let slots change their memory, and how much there is of it."""
        cells = [2 * self.cells[k] for k in step.slots]
        for part in (0, 1):
            values = [self.at("%cells", cell + part) for cell in cells]
            for cell, value in zip(cells, [*values[1:], values[0]], strict=True):
                self.put("%cells", cell + part, f"i64 {value}")

    def turn(self, turns: int, row: int) -> tuple[str, str]:
        """Where a turn's row begins in its slot, and its bytes."""
        bytes_ = self.at("%dims", self.layout.rows[row])
        count = self.emit(f"load i32, ptr {self.pointer(turns)}")
        wide = self.emit(f"zext i32 {count} to i64")
        return self.emit(f"mul i64 {wide}, {bytes_}"), bytes_

    def reserve(self, step: Reserve) -> None:
        """Make room for a turn's row."""
        offset, bytes_ = self.turn(step.count, step.row)
        self.ensure(self.cells[step.target], self.emit(f"add i64 {offset}, {bytes_}"), offset)

    def append(self, step: Append) -> None:
        """Put a turn's values behind those of the turns before."""
        bytes_ = self.at("%dims", self.layout.bytes[id(step)])
        turns = self.emit(f"load i32, ptr {self.pointer(step.count)}")
        wide = self.emit(f"zext i32 {turns} to i64")
        offset = self.emit(f"mul i64 {wide}, {bytes_}")
        need = self.emit(f"add i64 {offset}, {bytes_}")
        self.ensure(self.cells[step.target], need, offset)
        place = self.address(self.pointer(step.target), offset)
        self.move(place, step, step.source)

    def publish(self, step: Publish) -> None:
        """Tell the call from Python where an output is."""
        self.put("%buffers", step.output, f"ptr {self.pointer(step.source)}")

    def bind(self, step: Bind) -> None:
        """Learn a segment's sizes, check them, and make room for its temporaries."""
        values = []
        for source, place in zip(step.sources, self.layout.sources[id(step)], strict=True):
            if isinstance(source, tuple):
                values.append(self.element(*source))
            else:
                values.append(self.at("%dims", place))
        segment = self.program.segments[step.segment]
        for symbol, value in zip(segment.symbols, values, strict=True):
            self.put("%syms", self.places[symbol], f"i64 {value}")
        self.do(f"call void @plan_{segment.number}(ptr %syms, ptr %dims)")
        self.changed("%dims")
        fault = self.at("%dims", self.layout.faults[segment.number])
        self.unless(self.emit(f"icmp ne i64 {fault}, {GUARD}"), "broken", GUARD_BROKEN)
        self.unless(
            self.emit(f"icmp eq i64 {fault}, 0"), "negative", int(FailureCode.OVERFLOW)
        )
        need = self.at("%dims", self.layout.arenas[segment.number])
        self.ensure(segment.number - 1, need)

    def element(self, number: int, index: int) -> str:
        """An element of an integer slot as an i64."""
        dtype = self.program.slots[number].dtype
        type_ = f"i{8 * dtype.size}"
        place = self.emit(f"getelementptr {type_}, ptr {self.pointer(number)}, i64 {index}")
        value = self.emit(f"load {type_}, ptr {place}")
        if dtype.size == 8:
            return value
        extend = "zext" if dtype.numpy.kind == "u" else "sext"
        return self.emit(f"{extend} {type_} {value} to i64")

    # --- loops and branches -----------------------------------------------------------------------

    def branch(self, step: Branch) -> None:
        """One of the cases."""
        selector = self.program.slots[step.selector]
        labels = [self.label("case") for _ in step.cases]
        done = self.label("done")
        pointer = self.pointer(step.selector)
        if selector.dtype is dtypes.bool_:
            flag = self.emit(f"load i8, ptr {pointer}")
            first = self.emit(f"icmp ne i8 {flag}, 0")
            self.do(f"br i1 {first}, label %{labels[0]}, label %{labels[1]}")
        else:
            value = self.emit(f"load i32, ptr {pointer}")
            rows = " ".join(f"i32 {k}, label %{name}" for k, name in enumerate(labels))
            self.do(f"switch i32 {value}, label %{labels[-1]} [ {rows} ]")
        for name, case in zip(labels, step.cases, strict=True):
            self.start(name)
            self.part(case)
            self.do(f"br label %{done}")
        self.start(done)

    def host(self, step: Host) -> None:
        """Call Python with the addresses; it knows the sizes, and lets memory grow by itself."""
        pointers = [self.pointer(n) for n in step.inputs]
        for number in step.outputs:
            grown = self.program.slots[number].kind == "grown"
            pointers.append("null" if grown else self.pointer(number))
        self.arguments([f"ptr {p}" for p in pointers])
        good = self.emit(f"call i1 @gc_host(ptr %ctx, i64 {step.number}, ptr %args)")
        self.changed("%cells", "%dims", "%syms", "%buffers")
        self.unless(good, "raised", RAISED)

    # --- kernels ----------------------------------------------------------------------------------

    def call(self, step: Call) -> None:
        """Fill the table of arguments and call the kernel."""
        low = step.lowered
        values = [f"ptr {self.pointer(s)}" for s in step.slots]
        done = self.label("done")
        if low.fast is not None:
            fast, general = self.label("fast"), self.label("any")
            fits = self.fast
            for t in low.streamed:
                fits = self.on_a_line(fits, self.pointer(step.slots[low.buffers.index(t)]))
            self.do(f"br i1 {fits}, label %{fast}, label %{general}")
            self.start(fast)
            self.launch(low, low.fast, [*values, "ptr %status"])
            self.do(f"br label %{done}")
            self.start(general)
        values += [f"i64 {self.symbol(s)}" for s in low.symbols]
        self.launch(low, low.kernel, [*values, "ptr %status"])
        if low.fast is not None:
            self.do(f"br label %{done}")
            self.start(done)
        self.check(low)

    def on_a_line(self, condition: str, pointer: str) -> str:
        """``condition`` and that the address is on a line of the cache."""
        address = self.emit(f"ptrtoint ptr {pointer} to i64")
        offset = self.emit(f"and i64 {address}, 63")
        aligned = self.emit(f"icmp eq i64 {offset}, 0")
        return self.emit(f"and i1 {condition}, {aligned}")

    def launch(self, low: Lowered, kernel: Kernel, values: list[str]) -> None:
        """Fill the table of arguments and call one of the two kernels."""
        self.arguments(values)
        place_of = self.layout.launches.get((kernel.name, tuple(low.symbols)))
        if place_of is None:
            name = inlined_name(kernel.name) if self.registers else kernel.name
            self.do(f"call void @{name}(ptr %args, i64 0, i64 1)")
            return
        extent = self.at("%dims", place_of)
        grain = self.at("%dims", place_of + 1)
        self.do(
            f"call void @gc_parallel(ptr %pool, ptr @{kernel.name}, ptr %args, i64 {extent}, "
            f"i64 {grain})"
        )

    def check(self, low: Lowered) -> None:
        """Leave the run if the kernel failed."""
        if low.fallible:
            failed = self.emit("load i64, ptr %status")
            good = self.emit(f"icmp eq i64 {failed}, 0")
            self.unless(good, "failed", FAILED)


def argument_count(step: Step) -> int:
    """How long a table of arguments a step needs."""
    if isinstance(step, Call):
        return len(step.slots) + len(step.lowered.symbols) + 1
    return len(step.inputs) + len(step.outputs) if isinstance(step, Host) else 1


def driver(
    program: Program, printer: type[DriverPrinter] = DriverPrinter
) -> tuple[list[Kernel], str, Layout]:
    """The planning kernels, the text of ``plan`` and ``run``, and the dims table's layout."""
    planner = PlanPrinter(program)
    kernels = planner.kernels()
    printed = printer(program, planner.layout)
    text = printed.plan() + printed.run()
    declares = "declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)\n"
    if any(isinstance(s, Extend) for s in walk(program.steps)):
        declares += "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)\n"
    if planner.layout.launches:
        declares += "declare void @gc_parallel(ptr, ptr, ptr, i64, i64)\n"
    if len(program.segments) > 1 or any(isinstance(s, Loop) for s in walk(program.steps)):
        declares += "declare i1 @gc_ensure(ptr, i64, i64, i64)\ndeclare i1 @gc_poll(ptr)\n"
    if program.hosts:
        declares += "declare i1 @gc_host(ptr, i64, ptr)\n"
    return kernels, declares + text, planner.layout
