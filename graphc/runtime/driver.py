"""The native driver of a program: ``plan`` (sizes) and ``run`` (the steps), as LLVM text.

``plan(syms, dims)`` fills the dims table from the symbols; its arithmetic is a loop IR kernel like
any other.  ``run(context)`` checks the guards, places the arena's blocks and calls the kernels in
order.  The layout of the dims table is :class:`Layout`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graphc.dims import Dim, DimLike, Symbol, lower_bound
from graphc.loop import ir
from graphc.loop.ir import Buffer, Expr, Kernel, Store, Var
from graphc.lower import Lowered
from graphc.program import Call, Copy, Program
from graphc.runtime.native import context_offsets

ALIGN = 64
GUARD_BROKEN = 2
FAILED = 1


@dataclass
class Layout:
    """Where things stand in the dims table, and the expressions that fill it."""

    values: list[Expr] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    launches: dict[str, int] = field(default_factory=dict)
    copies: dict[int, int] = field(default_factory=dict)

    def add(self, value: Expr) -> int:
        """Append an entry; its place."""
        self.values.append(value)
        return len(self.values) - 1


WORK, BROKEN, ARENA = 0, 1, 2


class PlanPrinter:
    """Builds the kernel that fills the dims table."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.vars: dict[Symbol, Var] = {s: Var(f"y{k}") for k, s in enumerate(program.symbols)}
        self.layout = Layout()

    def size(self, value: DimLike) -> Expr:
        """A size over the program's symbols."""
        return ir.dim_expr(value, self.vars)

    def work(self) -> Expr:
        """The work estimate; negative when some buffer's size is."""
        work = self.size(self.program.work)
        for slot in self.program.slots:
            if not isinstance(slot.size, int) and lower_bound(slot.size) < 0:
                work = ir.select(self.size(slot.size) < 0, ir.const(-1), work)
        return work

    def guards(self) -> Expr:
        """1 if some assumption does not hold."""
        broken: Expr = ir.ZERO
        for g in self.program.guards:
            differ = ir.apply("ne", self.size(g.left), self.size(g.right))
            broken = ir.select(differ, ir.ONE, broken)
        return broken

    def kernel(self) -> Kernel:
        """The kernel; ``layout`` is complete afterwards."""
        layout = self.layout
        self.head()
        cursor: Expr = ir.ZERO
        for size, bytes_ in self.program.blocks:
            layout.blocks.append(layout.add(cursor))
            need = ir.mul(self.size(size), bytes_)
            padded = ir.mul(ir.index_div(ir.add(need, ALIGN - 1), ALIGN), ALIGN)
            cursor = ir.add(cursor, padded)
        layout.values[ARENA] = cursor
        self.steps()
        if len(self.vars) > len(self.program.symbols):
            unbound = [str(s) for s in list(self.vars)[len(self.program.symbols) :]]
            raise AssertionError(f"sizes {unbound} are bound by no input")
        dims = Buffer("dims", ir.int64, ir.const(len(layout.values)))
        stores = [Store(dims, ir.const(k), v) for k, v in enumerate(layout.values)]
        return Kernel("plan_dims", (dims,), tuple(self.vars.values()), ir.Block(tuple(stores)))

    def head(self) -> None:
        """The entries that the call from Python knows of."""
        for value in (self.work(), self.guards(), ir.ZERO):
            self.layout.add(value)
        for result in self.program.results:
            self.layout.results.append(len(self.layout.values))
            for size in result.sizes:
                self.layout.add(self.size(size))

    def size_bound(self) -> int:
        """How many entries the table has at most, without building any kernel."""
        program = self.program
        return len(self.layout.values) + len(program.blocks) + 4 * len(program.steps)

    def steps(self) -> None:
        """Entries that the steps need: extents and grains of parallel loops, bytes of copies."""
        for n, step in enumerate(self.program.steps):
            if isinstance(step, Copy):
                slot = self.program.slots[step.target]
                size = ir.mul(self.size(slot.size), slot.dtype.size)
                self.layout.copies[n] = self.layout.add(size)
                continue
            low = step.lowered
            binding = {
                var: self.size(_symbol(symbol))
                for var, symbol in zip(low.kernel.scalars, low.symbols, strict=True)
            }
            for kernel in (low.kernel, low.fast):
                loop = kernel.parallel if kernel is not None else None
                if kernel is not None and loop is not None:
                    place = self.layout.add(ir.substitute(loop.extent, binding))
                    self.layout.launches[kernel.name] = place
                    self.layout.add(ir.substitute(kernel.grain, binding))


def _symbol(symbol: Symbol) -> DimLike:
    return Dim((((symbol,), 1),))


class DriverPrinter:
    """Prints ``plan`` and ``run`` for a program whose layout is known."""

    def __init__(self, program: Program, layout: Layout) -> None:
        self.program = program
        self.layout = layout
        self.lines: list[str] = []
        self.count = 0
        self.symbols: dict[Symbol, str] = {}
        self.pointers: dict[int, str] = {}
        self.fast = "false"

    def emit(self, text: str) -> str:
        """A line that gives a value; the value's name."""
        self.count += 1
        name = f"%t{self.count}"
        self.lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        """A line that gives nothing."""
        self.lines.append(f"  {text}")

    def at(self, base: str, index: int, type_: str = "i64") -> str:
        """Load entry ``index`` of an 8-byte table."""
        place = self.emit(f"getelementptr i64, ptr {base}, i64 {index}")
        return self.emit(f"load {type_}, ptr {place}")

    def plan(self) -> str:
        """The function ``plan``."""
        count = len(self.program.symbols)
        self.do(f"%args = alloca [{count + 2} x i64], align 16")
        self.do("store ptr %dims, ptr %args")
        for k in range(count):
            value = self.at("%syms", k)
            place = self.emit(f"getelementptr i64, ptr %args, i64 {k + 1}")
            self.do(f"store i64 {value}, ptr {place}")
        place = self.emit(f"getelementptr i64, ptr %args, i64 {count + 1}")
        self.do(f"store ptr null, ptr {place}")
        self.do("call void @plan_dims(ptr %args, i64 0, i64 1)")
        work = self.at("%dims", WORK)
        self.do(f"ret i64 {work}")
        return self.function("i64 @plan(ptr %syms, ptr %dims)")

    def function(self, head: str) -> str:
        """The collected lines as a function."""
        text = "\n".join([f"define {head} {{", "entry:", *self.lines, "}", ""])
        self.lines = []
        return text

    def run(self) -> str:
        """The function ``run``."""
        offsets = context_offsets()
        for name in ("syms", "dims", "buffers", "status", "pool", "arena"):
            place = self.emit(f"getelementptr i8, ptr %ctx, i64 {offsets[name]}")
            self.do(f"%{name} = load ptr, ptr {place}")
        self.do("store i64 0, ptr %status")
        most = max((len(s.slots) + len(s.lowered.symbols) + 1
                    for s in self.program.steps if isinstance(s, Call)), default=1)  # fmt: skip
        self.do(f"%args = alloca [{most} x i64], align 16")
        if self.program.guards:
            broken = self.at("%dims", BROKEN)
            bad = self.emit(f"icmp ne i64 {broken}, 0")
            self.do(f"br i1 {bad}, label %broken, label %start")
            self.lines.append("broken:")
            self.do(f"ret i32 {GUARD_BROKEN}")
            self.lines.append("start:")
        for k, s in enumerate(self.program.symbols):
            self.symbols[s] = self.at("%syms", k)
        self.compare_hints()
        self.bind_slots()
        for n, step in enumerate(self.program.steps):
            if isinstance(step, Copy):
                bytes_ = self.at("%dims", self.layout.copies[n])
                target, source = self.pointers[step.target], self.pointers[step.source]
                self.do(
                    f"call void @llvm.memmove.p0.p0.i64(ptr {target}, ptr {source}, i64 {bytes_}, "
                    "i1 false)"
                )
            else:
                self.call(n, step)
        self.do("ret i32 0")
        return self.function("i32 @run(ptr %ctx)")

    def compare_hints(self) -> None:
        """Whether the sizes are those that the fast kernels were made for."""
        if not any(low.has_fast for low in self.program.kernels):
            return
        self.fast = "true"
        for symbol, value in self.program.hints.items():
            if symbol in self.symbols:
                same = self.emit(f"icmp eq i64 {self.symbols[symbol]}, {value}")
                self.fast = self.emit(f"and i1 {self.fast}, {same}")

    def bind_slots(self) -> None:
        """The address of every slot that a step uses."""
        used: dict[int, None] = {}
        for step in self.program.steps:
            slots = step.slots if isinstance(step, Call) else (step.source, step.target)
            used.update(dict.fromkeys(slots))
        for number in used:
            slot = self.program.slots[number]
            if slot.kind == "temp":
                offset = self.at("%dims", self.layout.blocks[slot.block])
                self.pointers[number] = self.emit(f"getelementptr i8, ptr %arena, i64 {offset}")
            else:
                self.pointers[number] = self.at("%buffers", number, "ptr")

    def call(self, n: int, step: Call) -> None:
        """Fill the table of arguments and call the kernel."""
        low = step.lowered
        values = [f"ptr {self.pointers[s]}" for s in step.slots]
        if low.fast is not None:
            self.do(f"br i1 {self.fast}, label %fast{n}, label %any{n}")
            self.lines.append(f"fast{n}:")
            self.launch(low.fast, [*values, "ptr %status"])
            self.do(f"br label %done{n}")
            self.lines.append(f"any{n}:")
        values += [f"i64 {self.symbols[s]}" for s in low.symbols]
        self.launch(low.kernel, [*values, "ptr %status"])
        if low.fast is not None:
            self.do(f"br label %done{n}")
            self.lines.append(f"done{n}:")
        self.check(n, low)

    def launch(self, kernel: Kernel, values: list[str]) -> None:
        """Fill the table of arguments and call one kernel."""
        for k, value in enumerate(values):
            place = self.emit(f"getelementptr i64, ptr %args, i64 {k}")
            self.do(f"store {value}, ptr {place}")
        place_of = self.layout.launches.get(kernel.name)
        if place_of is None:
            self.do(f"call void @{kernel.name}(ptr %args, i64 0, i64 1)")
            return
        extent = self.at("%dims", place_of)
        grain = self.at("%dims", place_of + 1)
        self.do(
            f"call void @gc_parallel(ptr %pool, ptr @{kernel.name}, ptr %args, i64 {extent}, "
            f"i64 {grain})"
        )

    def check(self, n: int, low: Lowered) -> None:
        """Leave the run if the kernel failed."""
        if low.fallible:
            failed = self.emit("load i64, ptr %status")
            bad = self.emit(f"icmp ne i64 {failed}, 0")
            self.do(f"br i1 {bad}, label %failed{n}, label %ok{n}")
            self.lines.append(f"failed{n}:")
            self.do(f"ret i32 {FAILED}")
            self.lines.append(f"ok{n}:")


def driver(program: Program) -> tuple[Kernel, str, Layout]:
    """The planning kernel, the text of ``plan`` and ``run``, and the dims table's layout."""
    planner = PlanPrinter(program)
    kernel = planner.kernel()
    printer = DriverPrinter(program, planner.layout)
    text = printer.plan() + printer.run()
    declares = "declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)\n"
    if planner.layout.launches:
        declares += "declare void @gc_parallel(ptr, ptr, ptr, i64, i64)\n"
    return kernel, declares + text, planner.layout
