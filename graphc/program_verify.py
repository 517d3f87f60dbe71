"""The rules of a program, checked: what the driver that is printed from it relies on.

A complaint shows the program with the message below the line at fault.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from graphc import dtypes
from graphc.dims import Dim, DimLike, Symbol, lower_bound, product, substitute, symbols_of
from graphc.errors import VerifyError
from graphc.graph import Tensor
from graphc.loop import ir
from graphc.loop.interpret_values import Evaluator
from graphc.loop.ir import Expr, Kernel, Load, Reduce, Require, Store, walk_expr, walk_stmt
from graphc.loop.verify import verify_kernel
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
    Reserve,
    Rotate,
    Slot,
    Step,
    format_program,
    walk,
)
from graphc.program_arena import lifetimes
from graphc.program_steps import slots_of

# Sizes are compared as expressions where that decides it, else at these values of the symbols.
TRIES = ((2, 3, 5, 7, 11, 13, 17), (101, 64, 37, 29, 97, 8, 53))


VERBS = (
    "call ", "copy ", "commit ", "bind ", "grow ", "extend ", "append ", "reserve ", "loop ",
    "branch ", "publish ", "host ", "rotate ",
)  # fmt: skip


class _Fault(Exception):
    """What is wrong; who catches it knows where."""


def has_workspaces(kernel: Kernel, spaces: Sequence[ir.Buffer]) -> bool:
    """Whether a kernel may have more parameters than slots: what its launches leave each other."""
    loops = [s for s in walk_stmt(kernel.body) if isinstance(s, ir.For)]
    grid = any(loop.kind is ir.LoopKind.BLOCK for loop in loops)
    return grid and all(isinstance(p.size, ir.Const) for p in spaces)


def verify_program(program: Program, kernels: bool = True) -> Program:
    """The program itself, when it keeps the rules.

    * Every symbol is the size of an input.
    * A call's slots have the dtypes and sizes of the kernel's parameters; kernels keep the rules of
      the loop IR, have names of their own, write what they say they write, and name error sites
      that exist.
    * Constants and inputs are never written; outputs all are, before they are read; temporaries
      are written before they are read, fit their blocks, and share one only when they are never
      needed at the same time.
    * A variable changes by a commit, or in place; nothing that can fail comes after.

    Args:
      program: what is checked.
      kernels: False leaves out what needs the kernels themselves to be built.
    Raises:
      VerifyError: naming the step and what is wrong.
    """
    verifier = _Verifier(program, kernels)
    verifier.run()
    return program


class _Verifier:
    def __init__(self, program: Program, kernels: bool) -> None:
        self.program = program
        self.kernels = kernels
        self.bound = set(program.symbols)
        self.all = set(program.all_symbols)
        self.written: set[int] = set()
        self.committed: set[int] = set()
        self.changed: int | None = None

    def run(self) -> None:
        """Everything, in the order of the printed program."""
        self.at("the symbols", self.symbols)
        for slot in self.program.slots:
            self.at(f"slot {slot.number}", lambda s=slot: self.slot(s))
        if self.kernels:
            self.at("the kernels", self.all_kernels)
        self.number = {id(step): n for n, step in enumerate(walk(self.program.steps))}
        self.steps(self.program.steps)
        self.at("the arena", self.arena)
        self.at("the results", self.results)

    def at(self, where: str, check: object, step: int | None = None) -> None:
        """Run a check; a fault becomes an error that shows the program."""
        try:
            check()  # type: ignore[operator]
        except (_Fault, VerifyError) as e:
            message = f"{where}: {e}"
            raise VerifyError(f"{message.splitlines()[0]}\n{self.text(step, message)}") from None

    def text(self, step: int | None, message: str) -> str:
        """The program, with the message below the line of a step."""
        try:
            lines = format_program(self.program).splitlines()
        except (AttributeError, IndexError, TypeError, ValueError) as e:
            return f"{message}\n(the program cannot be printed: {e})"
        if step is None:
            return "\n".join([*message.splitlines()[1:], *lines])
        places = [k for k, line in enumerate(lines) if line.lstrip().startswith(VERBS)]
        lines.insert(places[step] + 1, f"^ {message}")
        return "\n".join(lines)

    # --- sizes ------------------------------------------------------------------------------------

    def symbols(self) -> None:
        """The symbols are the sizes of inputs; guards are about them."""
        sizes = {s for i in self.program.inputs for size in i.raw for s in symbols_of(size)}
        for i in self.program.inputs:
            for size in i.raw:
                if isinstance(size, Dim) and size.as_symbol is None:
                    raise _Fault(f"input {i.key} has the size {size}, which binds nothing")
        if len(self.all) != len(self.program.all_symbols):
            raise _Fault("one stands twice")
        if len(self.bound) != len(self.program.symbols) or self.bound != sizes:
            listed = ", ".join(sorted(map(str, sizes ^ self.bound)))
            raise _Fault(f"they are not the sizes of the inputs: {listed or 'one stands twice'}")
        known: set[Symbol] = set()
        for number, segment in enumerate(self.program.segments):
            if segment.number != number:
                raise _Fault(f"segment {segment.number} stands at {number}")
            known |= set(segment.symbols)
            for guard in segment.guards:
                for size in (guard.left, guard.right):
                    if unbound := symbols_of(size) - known:
                        listed = ", ".join(map(str, unbound))
                        raise _Fault(f"guard {guard}: no input binds {listed}")
        if unbound := symbols_of(self.program.work) - self.bound:
            raise _Fault(f"the work: no input binds {', '.join(map(str, unbound))}")

    def known(self, size: DimLike, what: str) -> None:
        """A size over symbols of the program."""
        if unbound := symbols_of(size) - self.all:
            raise _Fault(f"{what}: no input binds {', '.join(map(str, unbound))}")

    def same(self, a: DimLike, b: DimLike) -> bool:
        """Whether two sizes are equal: by form, or at some values where the guards hold."""
        return a == b or all(substitute(a, t) == substitute(b, t) for t in self.tries())

    def tries(self) -> Iterator[dict[Symbol, DimLike]]:
        """Values of the symbols that break no guard."""
        for row in TRIES:
            binding: dict[Symbol, DimLike] = {
                s: row[k % len(row)] for k, s in enumerate(self.program.all_symbols)
            }
            guards = [g for segment in self.program.segments for g in segment.guards]
            if all(substitute(g.left, binding) == substitute(g.right, binding) for g in guards):
                yield binding

    def measure(self, expr: Expr, kernel: Kernel, values: Iterable[DimLike]) -> int:
        """A size of a kernel for values of its scalars."""
        evaluator = Evaluator()
        numbers = [v for v in values if isinstance(v, int)]
        evaluator.env.update(zip(kernel.scalars, numbers, strict=True))
        return int(evaluator.eval(expr))

    # --- slots ------------------------------------------------------------------------------------

    def slot(self, slot: Slot) -> None:
        """A slot by itself."""
        program = self.program
        if program.slots[slot.number] is not slot:
            raise _Fault("its number is not its place")
        self.known(slot.size, "its size")
        if slot.dtype.kind == "string" or slot.dtype.is_ref:
            raise _Fault(f"a buffer of {slot.dtype.name}")
        if (slot.kind == "temp") != (slot.block >= 0):
            raise _Fault("temporaries, and they alone, live in a block")
        if slot.kind == "const":
            array = slot.source
            if array.dtype != slot.dtype.numpy or array.size != slot.size:
                raise _Fault(f"its constant is {array.dtype}[{array.size}]")
        elif slot.kind in ("input", "variable"):
            found = [i for i in program.inputs if i is slot.source]
            kinds = ("feed",) if slot.kind == "input" else ("variable", "prepared")
            if not found or found[0].kind not in kinds:
                raise _Fault("its source is no such input")
            tensor = found[0].tensor
            if tensor.dtype.base_dtype is not slot.dtype or not self.holds(slot, tensor):
                raise _Fault(f"its input is {tensor.type}")
        elif slot.kind == "temp":
            self.fits(slot)

    def holds(self, slot: Slot, tensor: Tensor) -> bool:
        """Whether the slot has as many elements as the tensor."""
        return tensor.sizes is not None and self.same(product(tensor.sizes), slot.size)

    def fits(self, slot: Slot) -> None:
        """A temporary must fit its block, whatever the sizes are."""
        if slot.block >= len(self.program.blocks):
            raise _Fault(f"there is no block {slot.block}")
        size, bytes_ = self.program.blocks[slot.block]
        self.known(size, f"block {slot.block}")
        have, need = size * bytes_, slot.size * slot.dtype.size
        if have != need and lower_bound(have - need) < 0:
            raise _Fault(f"it needs {need} bytes, block {slot.block} has {have}")

    # --- kernels ----------------------------------------------------------------------------------

    def all_kernels(self) -> None:
        """Every kernel keeps the rules of the loop IR, under a name of its own."""
        names = set()
        for kernel in self.program.loops:
            if kernel.name in names:
                raise _Fault(f"two kernels are named {kernel.name}")
            names.add(kernel.name)
            verify_kernel(kernel)
        known = set(map(id, self.program.kernels))
        for step in walk(self.program.steps):
            if isinstance(step, Call) and id(step.lowered) not in known:
                raise _Fault(f"{step.lowered.name} is called and is not among the kernels")

    def kernel(self, step: Call, kernel: Kernel, scalars: list[Symbol]) -> None:
        """A kernel of a call: parameters, scalars, what it writes, where it can fail."""
        low = step.lowered
        hints: dict[Symbol, DimLike] = dict(self.program.hints)
        given = kernel.params[: len(step.slots)]
        spaces = kernel.params[len(step.slots) :]
        fits = len(given) == len(step.slots) and len(kernel.scalars) == len(scalars)
        if not fits or (spaces and not has_workspaces(kernel, spaces)):
            raise _Fault(
                f"{kernel.name} takes {len(kernel.params)} buffers and {len(kernel.scalars)} "
                f"scalars, it is given {len(step.slots)} and {len(scalars)}"
            )
        for param, number in zip(given, step.slots, strict=True):
            slot = self.program.slots[number]
            if param.dtype is not slot.dtype:
                raise _Fault(f"{param.name} is {param.dtype.code}, slot {number} {slot.dtype.code}")
            if slot.kind == "grown":
                continue  # It has its next size from the moment it grows.
            for binding in [hints] if kernel is low.fast else self.tries():
                need = self.measure(param.size, kernel, (binding[s] for s in scalars))
                if need != substitute(slot.size, binding):
                    raise _Fault(f"{param.name} has {need} elements, slot {number} {slot.size}")
        stored = ir.stored_buffers(kernel)
        for param, tensor, number in zip(given, low.buffers, step.slots, strict=True):
            # Loops that never run are dropped with what they store.
            size = self.program.slots[number].size
            empty = 0 in (size, substitute(size, hints) if kernel is low.fast else 1)
            if (param.name in stored) != (tensor in low.writes) and not empty:
                raise _Fault(f"{kernel.name} writes other buffers than it says: {param.name}")
        sites = [n.site for s in walk_stmt(kernel.body) for n in walk_expr(*ir.stmt_exprs(s))
                 if isinstance(n, Require)]  # fmt: skip
        if sites and not low.fallible:
            raise _Fault(f"{kernel.name} can fail, and does not say so")
        if any(not 0 <= s < len(self.program.sites) for s in sites):
            raise _Fault(f"{kernel.name} names an error site that does not exist")

    # --- steps ------------------------------------------------------------------------------------

    def steps(self, steps: Sequence[Step]) -> None:
        """Steps in order; what a loop or a branch binds and writes is so behind it."""
        for step in steps:
            n = self.number[id(step)]
            self.at(f"step {n}", lambda k=n, s=step: self.step(k, s), n)
            if isinstance(step, Loop):
                self.steps(step.test)
                self.at(f"step {n}", lambda s=step: self.read(s.flag), n)
                self.steps(step.body)
            elif isinstance(step, Branch):
                self.branch(step)

    def branch(self, step: Branch) -> None:
        """The cases of a branch: behind it is written and bound what all of them do."""
        written, bound = set(self.written), set(self.bound)
        ends = []
        for case in step.cases:
            self.written, self.bound = set(written), set(bound)
            self.steps(case)
            ends.append((self.written, self.bound))
        self.written = set.intersection(*(w for w, _ in ends))
        self.bound = set.intersection(*(b for _, b in ends))

    def step(self, n: int, step: Step) -> None:
        """One step: what it reads is there, what it writes may be written."""
        for number in slots_of(step):
            if isinstance(step, (Append, Reserve)) and number == step.target:
                continue  # How many turns there are is known after the last.
            if isinstance(step, Host) and number in step.outputs:
                continue  # The call may be what decides the size.
            if unbound := symbols_of(self.program.slots[number].size) - self.bound:
                # A Bind may be what tells the size of what comes behind it.
                raise _Fault(f"slot {number}: nothing has bound {', '.join(map(str, unbound))}")
        if isinstance(step, Copy):
            self.copy(step)
        elif isinstance(step, Call):
            self.call(n, step)
        elif isinstance(step, Bind):
            self.bind(step)
        elif isinstance(step, (Grow, Extend)):
            self.grown(step.slot)
        elif isinstance(step, Rotate):
            self.rotate(step)
        elif isinstance(step, Reserve):
            self.grown(step.target)
            self.read(step.count)
            self.written.add(step.target)
        elif isinstance(step, Append):
            self.grown(step.target)
            self.read(step.source)
            self.read(step.count)
            self.written.add(step.target)
        elif isinstance(step, Loop):
            if self.program.slots[step.turns].dtype is not dtypes.int32:
                raise _Fault(f"slot {step.turns} cannot count turns")
            self.write(step.turns)
        elif isinstance(step, Branch):
            self.read(step.selector)
        elif isinstance(step, Host):
            self.host(step)
        else:
            self.read(step.source)
            self.written.add(step.output)

    def rotate(self, step: Rotate) -> None:
        """Different slots of one dtype, whose memory is their own."""
        slots = [self.program.slots[k] for k in step.slots]
        if len(set(step.slots)) < max(len(slots), 2):
            raise _Fault(f"slots {step.slots} cannot change places")
        for slot in slots:
            self.grown(slot.number)
            self.read(slot.number)
            if slot.dtype is not slots[0].dtype:
                raise _Fault(f"slot {slot.number} is no {slots[0].dtype.code}")

    def host(self, step: Host) -> None:
        """A call of Python: as much memory as it needs is there, or can grow."""
        if not 0 <= step.number < len(self.program.hosts):
            raise _Fault(f"there is no host step {step.number}")
        if self.changed is not None:
            raise _Fault(f"it can fail, and step {self.changed} has changed a variable")
        call = self.program.hosts[step.number]
        if len(call.inputs) != len(step.inputs) or len(call.outputs) != len(step.outputs):
            raise _Fault(f"host step {step.number} has other operands or results")
        for number in step.inputs:
            self.read(number)
        for number in step.outputs:
            slot = self.program.slots[number]
            if slot.kind == "variable":
                raise _Fault("it can fail, and changes a variable in place")
            if slot.kind != "grown" and symbols_of(slot.size) - self.bound:
                raise _Fault(f"slot {number} cannot grow, and its size is not known yet")
            self.write(number)

    def grown(self, number: int) -> None:
        """A slot with memory of its own."""
        if self.program.slots[number].kind != "grown":
            raise _Fault(f"slot {number} is in the arena, and cannot grow")

    def bind(self, step: Bind) -> None:
        """Sizes from what is there."""
        if not 0 < step.segment < len(self.program.segments):
            raise _Fault(f"there is no segment {step.segment}")
        segment = self.program.segments[step.segment]
        if len(step.sources) != len(segment.symbols):
            raise _Fault(f"{len(step.sources)} sizes for {len(segment.symbols)} symbols")
        for source in step.sources:
            if isinstance(source, tuple):
                self.read(source[0])
            elif unbound := symbols_of(source) - self.bound:
                raise _Fault(f"nothing has bound {', '.join(map(str, unbound))}")
        self.bound |= set(segment.symbols)

    def call(self, n: int, step: Call) -> None:
        """A call: what it reads is there, what it writes may be written."""
        low = step.lowered
        if unbound := set(low.symbols) - self.bound:
            raise _Fault(f"no input binds {', '.join(map(str, unbound))}")
        if len(step.slots) != len(low.buffers) or not set(low.writes) <= set(low.buffers):
            raise _Fault(f"{low.name} has {len(low.buffers)} buffers, {len(step.slots)} slots")
        # What a body takes from around may come to it twice, under two names.
        written = [n for t, n in zip(low.buffers, step.slots, strict=True) if t in low.writes]
        if any(step.slots.count(n) != 1 for n in written):
            raise _Fault("a parameter that is written is the slot of another one")
        if self.kernels:
            self.kernel(step, low.kernel, low.symbols)
            if low.fast is not None:
                self.kernel(step, low.fast, [])
        if low.fallible and self.changed is not None:
            raise _Fault(f"it can fail, and step {self.changed} has changed a variable")
        first = self.first_reads(low.kernel) if self.kernels else set()
        for k, (tensor, number) in enumerate(zip(low.buffers, step.slots, strict=True)):
            writes = tensor in low.writes
            # Of nothing, all is written.
            if not writes or (k in first and self.program.slots[number].size != 0):
                self.read(number)
            if writes:
                self.write(number)
                if self.program.slots[number].kind == "variable":
                    if low.fallible:
                        raise _Fault("it can fail, and changes a variable in place")
                    self.changed = n

    def first_reads(self, kernel: Kernel) -> set[int]:
        """The parameters that the kernel reads before its text stores to them."""
        place = {p: k for k, p in enumerate(kernel.params)}
        stored: set[int] = set()
        found: set[int] = set()
        for stmt in walk_stmt(kernel.body):
            loads = [e.buffer for e in walk_expr(*ir.stmt_exprs(stmt)) if isinstance(e, Load)]
            if isinstance(stmt, Reduce):
                loads.append(stmt.buffer)
            found |= {place[b] for b in loads if b in place} - stored
            if isinstance(stmt, Store) and stmt.buffer in place:
                stored.add(place[stmt.buffer])
        return found

    def read(self, number: int) -> None:
        """A slot that is read must hold something."""
        slot = self.program.slots[number]
        if slot.kind in ("temp", "output", "grown", "row") and number not in self.written:
            raise _Fault(f"slot {number} ({slot.kind} {slot.name}) is read before it is written")

    def write(self, number: int) -> None:
        """A slot that is written must be one that may be."""
        slot = self.program.slots[number]
        if slot.kind in ("input", "const"):
            raise _Fault(f"it writes slot {number}, of kind {slot.kind}")
        self.written.add(number)

    def copy(self, step: Copy) -> None:
        """A copy, or the commit of a variable."""
        target, source = self.program.slots[step.target], self.program.slots[step.source]
        if target is source or target.dtype is not source.dtype:
            raise _Fault(f"from {source.dtype.code} slot {source.number} to {target.dtype.code}")
        inputs = set(self.program.symbols)
        known = (symbols_of(target.size) | symbols_of(source.size)) <= inputs
        # What a run decides it may decide otherwise in every branch and every turn.
        if known and not self.same(target.size, source.size):
            raise _Fault(f"{source.size} elements to {target.size}")
        self.read(step.source)
        # What a kernel has put there is the new value, a commit is where old ones are wanted still.
        if step.source in self.committed:
            raise _Fault(f"variable {source.name} was changed before it is copied")
        if step.commit != (target.kind == "variable"):
            raise _Fault("variables, and they alone, change by commits")
        if step.commit and target.source.key not in self.program.updated:
            raise _Fault(f"variable {target.name} is not listed as updated")
        self.write(step.target)
        if step.commit:
            self.committed.add(step.target)
            if self.changed is None:
                self.changed = self.number[id(step)]

    # --- the arena and the end --------------------------------------------------------------------

    def arena(self) -> None:
        """No two temporaries that are needed at the same time share a block."""
        tenants: dict[int, list[tuple[int, int, int]]] = {}
        lifetime = lifetimes(self.program.steps, self.program.slots)
        for number, (first, last) in lifetime.items():
            tenants.setdefault(self.program.slots[number].block, []).append((first, last, number))
        for block, lives in tenants.items():
            lives.sort()
            for (_, last, a), (first, _, b) in itertools.pairwise(lives):
                if first <= last:
                    raise _Fault(f"slots {a} and {b} are in block {block} both at step {first}")

    def results(self) -> None:
        """Every result is in an output that has been written, and every output is a result."""
        outputs = [s.number for s in self.program.slots if s.kind == "output"]
        if [r.slot for r in self.program.results] != outputs:
            raise _Fault(f"they are in the slots {[r.slot for r in self.program.results]}")
        for result in self.program.results:
            slot = self.program.slots[result.slot]
            if result.dtype is not slot.dtype or not self.same(product(result.sizes), slot.size):
                raise _Fault(f"slot {slot.number} is no {result.dtype.code}{list(result.sizes)}")
            if result.slot not in self.written:
                raise _Fault(f"nothing writes slot {result.slot}")
