"""Program: a straight list of kernel calls and copies over planned buffers.

Planning decides where every stored tensor lives.

* A fetch is written straight into the array that the user gets, if some kernel computes it.
* A variable's new value is written in place, into the variable's own buffer, if nobody needs the
  old value any more at that point and nothing that can fail comes after; otherwise it is computed
  aside and copied at the end, so that a run that fails leaves every variable as it was.
* Everything else lives in one arena, blocks of which are used again as soon as their tensor is
  dead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from graphc import dims
from graphc.dims import DimLike, Symbol
from graphc.dtypes import DType
from graphc.function import Function, Guard, Input, format_function, format_type
from graphc.graph import Tensor
from graphc.loop.ir import Kernel
from graphc.lower import Lowered, Lowering, Site, lower_group
from graphc.passes.fuse import Fuser
from graphc.passes.pipeline import verifying
from graphc.passes.plan import Plan, format_plan, is_literal
from graphc.program_updates import Updates

KEY_CONSTANT = 1024
SlotKind = Literal["input", "output", "variable", "const", "temp"]


@dataclass
class Slot:
    """One buffer of a program.

    ``size`` counts elements.  ``source``: the Input, the constant array, or None; ``block`` is
    the arena block of a temporary.
    """

    number: int
    kind: SlotKind
    dtype: DType
    size: DimLike
    name: str
    source: Any = None
    block: int = -1


@dataclass
class Call:
    """Run a kernel over slots."""

    lowered: Lowered
    slots: list[int]


@dataclass
class Copy:
    """Copy one slot's elements to another's."""

    target: int
    source: int
    commit: bool = False


@dataclass
class Result:
    """A fetch: where it is and its shape."""

    slot: int
    dtype: DType
    sizes: tuple[DimLike, ...]


@dataclass
class Program:
    """What the runtime prints and runs; see the module's text."""

    slots: list[Slot]
    steps: list[Call | Copy]
    results: list[Result]
    inputs: list[Input]
    symbols: list[Symbol]
    guards: list[Guard]
    blocks: list[tuple[DimLike, int]]
    sites: list[Site]
    updated: list[str]
    plan: Plan
    function: Function
    work: DimLike = 0
    kernels: list[Lowered] = field(default_factory=list)
    hints: dict[Symbol, int] = field(default_factory=dict)

    @property
    def loops(self) -> list[Kernel]:
        """Every kernel, the fast versions among them."""
        return [k for low in self.kernels for k in (low.kernel, low.fast) if k is not None]


class Planner:
    """Builds the program of one function."""

    def __init__(self, fn: Function, target: Any, hints: dict[Symbol, int]) -> None:
        self.fn = fn
        self.target = target
        self.hints = hints
        fuser = Fuser(fn)
        self.plan = fuser.run()
        self.updates = Updates(fn, fuser, self.plan)
        self.lowering = Lowering(self.plan, target, hints=hints, verify=verifying())
        self.slots: list[Slot] = []
        self.where: dict[Tensor, int] = {}
        self.variables: dict[str, int] = {}
        self.steps: list[Call | Copy] = []

    # --- slots ------------------------------------------------------------------------------------

    def add_slot(self, kind: SlotKind, tensor: Tensor, source: Any = None) -> int:
        """A new slot for a storage root."""
        assert tensor.sizes is not None, tensor
        size = dims.product(tensor.sizes)
        slot = Slot(
            len(self.slots), kind, tensor.dtype.base_dtype, size, tensor.op.name, source
        )
        self.slots.append(slot)
        return slot.number

    def slot(self, tensor: Tensor) -> int:
        """The slot of a tensor's storage, made when it is first needed."""
        root = self.lowering.storage(tensor)
        found = self.where.get(root)
        if found is None:
            if root.op.type == "Const":
                found = self.add_slot("const", root, root.op.attrs["value"])
            else:
                found = self.add_slot("temp", root)
            self.where[root] = found
        return found

    def boundary_slots(self) -> None:
        """Slots of the inputs."""
        for i in self.fn.inputs:
            kind: SlotKind = "input" if i.kind == "feed" else "variable"
            number = self.add_slot(kind, i.tensor, i)
            self.where[i.tensor] = number
            if i.kind == "variable":
                self.variables[i.key] = number

    def result_slots(self) -> list[tuple[int, Tensor, bool]]:
        """For each fetch its slot, its tensor and whether a kernel writes it there directly."""
        found = []
        computed = {t for g in self.plan.groups for t in g.outputs}
        for o in self.fn.outputs:
            if o.kind in ("update", "check"):
                continue
            root = self.lowering.storage(o.tensor)
            direct = root in computed and root not in self.where
            number = self.add_slot("output", o.tensor)
            if direct:
                self.where[root] = number
            found.append((number, o.tensor, direct))
        return found

    # --- steps ------------------------------------------------------------------------------------

    def build(self) -> Program:
        """The program."""
        self.plan.groups = self.updates.ordered()
        self.lowering.inplace = self.updates.inplace
        self.boundary_slots()
        fetched = self.result_slots()
        work: DimLike = 0
        lowered = []
        for k, group in enumerate(self.plan.groups):
            low = lower_group(self.lowering, group, f"k{k}")
            lowered.append(low)
            if self.lowering.verify:
                _ = low.kernel, low.fast
            work = work + low.work
            self.steps.append(Call(low, [self.slot(t) for t in low.buffers]))
        results = []
        for number, tensor, direct in fetched:
            if not direct:
                self.steps.append(Copy(number, self.source_slot(tensor)))
            assert tensor.sizes is not None
            results.append(Result(number, tensor.dtype.base_dtype, tensor.sizes))
        self.commit()
        blocks = self.plan_arena()
        return Program(
            self.slots, self.steps, results, self.fn.inputs, self.symbols(), self.fn.guards,
            blocks, self.lowering.sites, [o.key for o in self.fn.outputs if o.kind == "update"],
            self.plan, self.fn, work, lowered, self.hints,
        )  # fmt: skip

    def source_slot(self, tensor: Tensor) -> int:
        """The slot to copy a tensor from; literals get one too."""
        root = self.plan.root(tensor)
        if is_literal(root) and root not in self.where:
            self.where[root] = self.add_slot("const", root, root.op.attrs["value"])
        return self.slot(tensor)

    def commit(self) -> None:
        """Copy the new values that were computed aside into their variables, all at the end."""
        copies = []
        for o in self.fn.outputs:
            if o.kind == "update":
                target, source = self.variables[o.key], self.source_slot(o.tensor)
                if target != source:
                    copies.append((target, source, o.tensor))
        targets = {t for t, _, _ in copies}
        staged = []
        for target, source, tensor in copies:
            if source in targets:
                aside = self.add_slot("temp", tensor)
                self.steps.append(Copy(aside, source))
                source = aside
            staged.append(Copy(target, source, commit=True))
        self.steps += staged

    def symbols(self) -> list[Symbol]:
        """The symbols that the inputs bind, in a fixed order."""
        found: dict[Symbol, None] = {}
        for i in self.fn.inputs:
            for s in i.raw:
                found.update(dict.fromkeys(sorted(dims.symbols_of(s), key=lambda x: x.name)))
        return list(found)

    # --- the arena --------------------------------------------------------------------------------

    def plan_arena(self) -> list[tuple[DimLike, int]]:
        """Give every temporary a block; blocks of dead temporaries are used again.

        Returns (size in elements, bytes per element) of each block.
        """
        last: dict[int, int] = {}
        for n, step in enumerate(self.steps):
            used = step.slots if isinstance(step, Call) else [step.source, step.target]
            last.update(dict.fromkeys(used, n))
        blocks: list[tuple[DimLike, int]] = []
        free: list[int] = []
        for n, step in enumerate(self.steps):
            used = step.slots if isinstance(step, Call) else [step.source, step.target]
            for number in dict.fromkeys(used):
                slot = self.slots[number]
                if slot.kind == "temp" and slot.block < 0:
                    slot.block = take_block(blocks, free, slot)
            for number in dict.fromkeys(used):
                slot = self.slots[number]
                if slot.kind == "temp" and last[number] == n:
                    free.append(slot.block)
        return blocks


def take_block(blocks: list[tuple[DimLike, int]], free: list[int], slot: Slot) -> int:
    """A free block that is surely large enough, else a new one."""
    best = -1
    need = slot.size * slot.dtype.size
    for b in free:
        have = blocks[b][0] * blocks[b][1]
        fits = have == need or (isinstance(have, int) and isinstance(need, int) and have >= need)
        if fits and (best < 0 or smaller(blocks, b, best)):
            best = b
    if best >= 0:
        free.remove(best)
        return best
    blocks.append((slot.size, slot.dtype.size))
    return len(blocks) - 1


def smaller(blocks: list[tuple[DimLike, int]], a: int, b: int) -> bool:
    """Whether block ``a`` is known to be smaller than ``b``."""
    x, y = blocks[a][0] * blocks[a][1], blocks[b][0] * blocks[b][1]
    return isinstance(x, int) and isinstance(y, int) and x < y


def build_program(
    fn: Function, target: Any, hints: dict[Symbol, int] | None = None
) -> Program:
    """Fuse, lower and plan a function; ``hints`` are the sizes that its inputs have at first."""
    return Planner(fn, target, hints or {}).build()


def program_key(program: Program) -> str:
    """Text that determines the program's machine code, without building any kernel.

    The operations after all passes, with the constants that kernels spell out or that shape their
    loops; how they are fused; where everything is stored; the sizes that fast versions are for.
    """
    values = [
        f"{op.name} {array.dtype} {array.tobytes().hex()}"
        for op in program.function.operations
        if op.type == "Const" and (array := op.attrs["value"]).nbytes <= KEY_CONSTANT
        and array.dtype != object
    ]  # fmt: skip
    hints = [f"{s}={v}" for s, v in program.hints.items()]
    parts = [
        format_function(program.function), *values, format_plan(program.plan),
        format_program(program), *hints,
    ]  # fmt: skip
    return "\n".join(parts)


def format_program(program: Program) -> str:
    """The program as text: symbols, slots, steps."""
    lines = [f"symbols {', '.join(str(s) for s in program.symbols) or 'none'}"]
    lines += [f"assume {g}" for g in program.guards]
    for s in program.slots:
        where = f" block {s.block}" if s.kind == "temp" else ""
        lines.append(f"slot {s.number}: {s.kind} {s.dtype.code}[{s.size}] {s.name}{where}")
    for step in program.steps:
        if isinstance(step, Call):
            low = step.lowered
            writes = set(low.writes)
            args = ", ".join(
                f"{'&' if t in writes else ''}{n}"
                for t, n in zip(low.buffers, step.slots, strict=True)
            )
            scalars = ", ".join(str(s) for s in low.symbols)
            lines.append(f"call {low.name}({args}{'; ' + scalars if scalars else ''})")
        else:
            verb = "commit" if step.commit else "copy"
            lines.append(f"{verb} {step.target} <- {step.source}")
    for k, (size, bytes_) in enumerate(program.blocks):
        lines.append(f"block {k}: {size} x {bytes_} bytes")
    lines += [f"input {i.key}: {format_type(i.tensor.type)}" for i in program.inputs]
    return "\n".join(lines) + "\n"
