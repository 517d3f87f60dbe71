"""What extraction asks of regions: what of them is needed, and which state they change."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from graphc.graph import Operation, Region, Tensor
from graphc.ops.control import is_control
from graphc.ops.random_counter import counts
from graphc.ops.state import assigned_variable, is_assignment


def region_operations(region: Region, needed: Container[Operation]) -> list[Operation]:
    """What is needed of the region, in the order of declaration."""
    return [op for op in region.operations if op in needed]


def reached_operations(region: Region, roots: Sequence[Tensor]) -> list[Operation]:
    """What the roots reach in the region, in the order of declaration."""
    found: set[Operation] = set()
    stack = [t.op for t in roots]
    while stack:
        op = stack.pop()
        if op.region is region and op not in found:
            found.add(op)
            stack.extend(t.op for t in op.inputs)
            stack.extend(op.control_inputs)
    return sorted(found, key=lambda op: op.serial)


def saved_outputs(op: Operation, used: Container[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The tensors of its bodies that an operation hands out besides its results.

    Each comes with the output that has its values; those are left out that nobody uses.
    """
    saved = op.attrs["saved"]
    outputs = op.outputs[len(op.outputs) - len(saved) :]
    return [(t, out) for t, out in zip(saved, outputs, strict=True) if out in used]


def region_roots(region: Region) -> list[Tensor]:
    """The results of a region and what its owner hands out of it besides."""
    saved = [] if region.owner is None else region.owner.attrs["saved"]
    return [*region.results, *(t for t in saved if t.op.region is region)]


def needed_by(
    roots: Iterable[Tensor | Operation], fed: Container[Tensor]
) -> tuple[set[Operation], set[Tensor]]:
    """What a run of the roots needs, bodies included: operations and tensors.

    What only an unused part of a region needs is not among them.
    """
    used: set[Tensor] = set()
    seen: set[Operation] = set()
    stack = list(roots)
    while stack:
        item = stack.pop()
        if isinstance(item, Tensor):
            if item in used:
                continue
            used.add(item)
            if item not in fed:
                stack.append(item.op)
                if is_control(item.op):
                    stack += [t for t, out in saved_outputs(item.op, (item,)) if out is item]
        elif item not in seen:
            seen.add(item)
            stack += item.control_inputs
            if not is_control(item):
                stack += item.inputs
                continue
            bodies = item.attrs["bodies"]
            count = len(bodies[1].params) if item.type == "While" else 1
            stack += item.inputs[:count]
            stack += [t for body in bodies for t in body.results]
    return seen, used


class Effects:
    """The variables that regions assign and the operations in them that count, in order."""

    def __init__(self, regions: Sequence[Region], needed: Container[Operation]) -> None:
        self.regions = regions
        self.needed = needed
        self.variables: dict[Operation, None] = {}
        self.counters: dict[Operation, None] = {}
        for region in regions:
            self._add(region)

    def _add(self, region: Region) -> None:
        for op in region_operations(region, self.needed):
            if is_assignment(op):
                self.variables[assigned_variable(op)] = None
            elif counts(op):
                self._count(op)
            elif op.type == "RandomCounter":
                self._count(op.attrs["of"][0].op)
            elif is_control(op):
                for inner in op.attrs["bodies"]:
                    self._add(inner)

    def _count(self, op: Operation) -> None:
        """Note a counter, unless it begins anew in the regions."""
        start = op.inputs[0].op.region if op.type == "CountFrom" else None
        if not any(region.encloses(start) for region in self.regions):
            self.counters[op] = None
