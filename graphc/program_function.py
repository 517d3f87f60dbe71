"""Planning of one function: where its tensors live, and the steps that compute them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc import dims
from graphc.dims import DimLike, Symbol
from graphc.errors import CompileError
from graphc.function import Function, Late
from graphc.graph import Operation, Tensor
from graphc.lower import Lowered, Lowering, Site, lower_group
from graphc.lower_twins import group_key
from graphc.passes.fuse import Fuser
from graphc.passes.pipeline import verifying
from graphc.passes.plan import Plan, is_literal
from graphc.program_steps import (
    Bind,
    Call,
    Copy,
    Extend,
    Grow,
    HostCall,
    Segment,
    Slot,
    SlotKind,
    Step,
)
from graphc.program_updates import Updates


class Shared:
    """What the functions of one program share: slots, segments, kernels."""

    def __init__(self, target: Any, hints: dict[Symbol, int]) -> None:
        self.target = target
        self.hints = hints
        self.slots: list[Slot] = []
        self.segments: list[Segment] = []
        self.sites: list[Site] = []
        self.kernels: list[Lowered] = []
        self.twins: dict[object, Lowered] = {}
        self.plans: list[Plan] = []
        self.hosts: list[HostCall] = []
        self.work: DimLike = 0

    def leave_twins(self, low: Lowered) -> None:
        """Let a kernel become another one than those that are equal to it so far."""
        others = [k for k in self.kernels if k.twin is low]
        for k in others:
            k.twin = None if k is others[0] else others[0]
        low.twin = None

    def segment(self, symbols: Sequence[Symbol]) -> int:
        """A new segment that binds these sizes."""
        self.segments.append(Segment(len(self.segments), list(symbols)))
        return len(self.segments) - 1

    def add_slot(self, kind: SlotKind, tensor: Tensor, source: Any = None) -> int:
        """A new slot for a storage root."""
        assert tensor.sizes is not None, tensor
        size = dims.product(tensor.sizes)
        slot = Slot(len(self.slots), kind, tensor.dtype.base_dtype, size, tensor.op.name, source)
        self.slots.append(slot)
        return slot.number


class FunctionPlanner:
    """Plans one function, which may be a body: its slots and its steps.

    Args:
      fn: the function.
      shared: what belongs to the whole program.
      given: of a branch, the results that belong where a captured tensor is, with that tensor.

    Attributes:
      where: the slot of each storage root.
    """

    def __init__(
        self, fn: Function, shared: Shared, given: Mapping[int, Tensor] | None = None
    ) -> None:
        self.fn = fn
        self.shared = shared
        fuser = Fuser(fn)
        self.plan = fuser.run()
        shared.plans.append(self.plan)
        self.updates = Updates(fn, fuser, self.plan, given or {})
        self.lowering = Lowering(
            self.plan, shared.target, sites=shared.sites, hints=shared.hints, verify=verifying(),
            origin=fn.origin,
        )  # fmt: skip
        self.where: dict[Tensor, int] = {}
        self.steps: list[Step] = []
        self.plan.groups = self.updates.ordered()
        self.lowering.inplace = self.updates.inplace

    def add_slot(self, kind: SlotKind, tensor: Tensor, source: Any = None) -> int:
        """A new slot for a storage root."""
        return self.shared.add_slot(kind, tensor, source)

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

    def source_slot(self, tensor: Tensor) -> int:
        """The slot to copy a tensor from; literals get one too."""
        root = self.plan.root(tensor)
        if is_literal(root) and root not in self.where:
            self.where[root] = self.add_slot("const", root, root.op.attrs["value"])
        return self.slot(tensor)

    def plan_groups(self) -> None:
        """The steps of all groups, in order."""
        shared = self.shared
        late: dict[Tensor, list[Late]] = {}
        for s in self.fn.late:
            late.setdefault(self.plan.root(s.tensor), []).append(s)
        for root, sizes in late.items():
            if root.op.type in ("Placeholder", "Const"):
                self.bind(root, sizes)
        for group in self.plan.groups:
            op = group.template
            if op is not None and ("bodies" in op.attrs or op.type == "Host"):
                self.plan_control(op)
            else:
                low = lower_group(self.lowering, group, f"k{len(shared.kernels)}")
                shared.kernels.append(low)
                if not low.fallible:
                    key = group_key(self.lowering, group, low.symbols)
                    twin = shared.twins.setdefault(key, low)
                    low.twin = None if twin is low else twin
                if self.lowering.verify:
                    _ = low.kernel, low.fast
                shared.work = shared.work + low.work
                if op is not None and getattr(op.definition, "grows", False):
                    self.extend(op)
                self.steps.append(Call(low, [self.slot(t) for t in low.buffers]))
            for t in group.outputs:
                root = self.plan.root(t)
                if root in late:
                    self.bind(root, late[root])

    def extend(self, op: Operation) -> None:
        """Make room for what an operation puts behind the end of its operand, in place."""
        x, out = op.inputs[0], op.outputs[0]
        if self.lowering.storage(out) is self.lowering.storage(x):
            before, size = dims.product(x.sizes or ()), dims.product(out.sizes or ())
            if before == size:
                return
            self.steps.append(Extend(self.slot(x), before, size))

    def plan_control(self, op: Operation) -> None:
        """The steps of an operation with bodies, or of a host step."""
        raise CompileError(f"this planner knows no {op.type}")

    def bind(self, root: Tensor, sizes: Sequence[Late]) -> None:
        """Learn sizes from a tensor that has just been computed."""
        slot = self.source_slot(root)
        segment = self.shared.segment([s.symbol for s in sizes])
        self.steps.append(Bind(segment, [(slot, s.element) for s in sizes]))


def elements(tensor: Tensor) -> DimLike:
    """How many elements a tensor has."""
    return dims.product(tensor.sizes or ())


def assign(
    planner: FunctionPlanner, updates: Sequence[tuple[int, Tensor]], commit: bool
) -> None:
    """Copies that give slots their next values, as if all at once.

    ``commit`` says that these are variables, at the end of a run; else they are loop variables.
    """
    slots = planner.shared.slots
    copies = []
    for target, tensor in updates:
        source = planner.source_slot(tensor)
        if target != source:
            copies.append((target, source, tensor))
    targets = {t for t, _, _ in copies}
    staged: list[Step] = []
    for target, source, tensor in copies:
        if source in targets:
            aside = planner.add_slot("temp", tensor)
            planner.steps.append(Copy(aside, source, elements(tensor)))
            source = aside
        if slots[target].kind == "grown":
            staged.append(Grow(target, elements(tensor)))
        staged.append(Copy(target, source, elements(tensor), commit))
    planner.steps += staged
