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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from graphc import dims
from graphc.dims import DimLike, Symbol
from graphc.dtypes import DType
from graphc.function import Function, Guard, Input, format_function, format_type
from graphc.graph import Tensor
from graphc.loop.ir import ZERO, Kernel
from graphc.lower import Lowered, Lowering, Site, lower_group
from graphc.passes.fuse import Fuser
from graphc.passes.pipeline import verifying
from graphc.passes.plan import Group, Plan, format_plan, is_literal

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
        self.fuser = Fuser(fn)
        self.plan = self.fuser.run()
        self.inliner = self.fuser.inliner
        self.reads = {g: self.fuser.grouper.group_reads(g) for g in self.plan.groups}
        self.lowering = Lowering(self.plan, target, hints=hints, verify=verifying())
        self.slots: list[Slot] = []
        self.where: dict[Tensor, int] = {}
        self.variables: dict[str, int] = {}
        self.steps: list[Call | Copy] = []

    # --- order and in-place updates ---------------------------------------------------------------

    def order_groups(self) -> None:
        """Choose the updates that are done in place, and an order in which that is right."""
        groups = self.plan.groups
        owner = {t: k for k, g in enumerate(groups) for t in g.tensors}
        reads = [self.reads[g] for g in groups]
        deps = [{owner[r] for r in rs if r in owner} - {k} for k, rs in enumerate(reads)]
        fallible = {k for k, g in enumerate(groups) if self.group_fallible(g)}
        for value, old in self.update_candidates():
            k = owner.get(value)
            if k is None or k in fallible or not self.reads_in_step(groups[k], old, value):
                continue
            extra = {j for j, rs in enumerate(reads) if old in rs and j != k} | fallible
            if not depends(deps, extra, k):
                deps[k] |= extra
                self.lowering.inplace[value] = old
        self.plan.groups = [groups[k] for k in topological(deps)]

    def group_fallible(self, group: Group) -> bool:
        """Whether some operation of the group, or inlined into it, can make a run fail."""
        stack = list(group.tensors)
        seen: set[Tensor] = set()
        while stack:
            t = stack.pop()
            if t.op.definition.can_fail(t.op):
                return True
            for i in t.op.inputs:
                if i in self.plan.inlined and i not in seen:
                    seen.add(i)
                    stack.append(i)
        return False

    def update_candidates(self) -> list[tuple[Tensor, Tensor]]:
        """New values of variables, with the old ones whose storage they may be written to."""
        before = {i.key: i.tensor for i in self.fn.inputs if i.kind == "variable"}
        roots = [self.plan.root(o.tensor) for o in self.fn.outputs]
        found = []
        claimed: set[Tensor] = set()
        for o in self.fn.outputs:
            value, old = self.plan.root(o.tensor), before.get(o.key)
            if o.kind != "update" or old is None or old in roots or value in claimed:
                continue
            if value.dtype.base_dtype is old.dtype.base_dtype and same_size(value, old):
                claimed.add(value)
                found.append((value, old))
        return found

    def reads_in_step(self, group: Group, old: Tensor, value: Tensor) -> bool:
        """Whether the group reads the old value only where it then writes the new one."""
        if value not in group.outputs:
            return False
        if group.template is not None:
            inputs = group.template.inputs
            for t in inputs:
                for read, _ in self.inliner.expand(t, tuple(ZERO for _ in t.sizes or ())):
                    if self.plan.root(read) is old:
                        return False
        member_of = {m.tensor: m for m in group.members}
        if value not in member_of:
            return old not in self.reads[group]
        place, role = member_of[value].place, member_of[value].role
        # Where there are reductions, a group has several loop nests: a later one would see the
        # new value.
        single = not any(m.role == "reduce" for m in group.members)
        for m in group.members:
            info = self.inliner.trace(m.tensor)
            position: dict[Any, int | None] = dict(zip(info.out, m.place, strict=True))
            for read, index in self.inliner.reads(m.tensor):
                if self.plan.root(read) is not old:
                    continue
                if m.role != role or read is not old:
                    return False
                if not single and (role != "row" or m.tensor is not value):
                    return False
                at = tuple(position.get(x) if x is not ZERO else None for x in index)
                if at != place:
                    return False
        return len({m.role for m in group.members if m.tensor in group.outputs}) <= 1

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
        self.order_groups()
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


def same_size(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same number of elements for sure."""
    assert a.sizes is not None and b.sizes is not None
    return dims.product(a.sizes) == dims.product(b.sizes)


def depends(deps: Sequence[set[int]], some: Iterable[int], on: int) -> bool:
    """Whether some of the groups depend on group ``on``, directly or not."""
    stack, seen = list(some), set(some)
    while stack:
        k = stack.pop()
        if k == on:
            return True
        fresh = deps[k] - seen
        seen |= fresh
        stack.extend(fresh)
    return False


def topological(deps: Sequence[set[int]]) -> list[int]:
    """Group numbers, dependencies first, otherwise in the given order."""
    done: set[int] = set()
    order: list[int] = []
    stack = [(k, False) for k in reversed(range(len(deps)))]
    while stack:
        k, expanded = stack.pop()
        if k in done:
            continue
        if expanded:
            done.add(k)
            order.append(k)
            continue
        stack.append((k, True))
        stack.extend((d, False) for d in sorted(deps[k], reverse=True) if d not in done)
    return order


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
    for g in program.guards:
        lines.append(f"assume {g}")
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
    for i in program.inputs:
        lines.append(f"input {i.key}: {format_type(i.tensor.type)}")
    return "\n".join(lines) + "\n"
