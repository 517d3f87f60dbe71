"""What a model consists of: the operations that others depend on, bodies included."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from graphc.errors import GraphError
from graphc.formats.encode import attr_operations
from graphc.graph import Graph, Operation, Region, Tensor
from graphc.ops.control import is_control
from graphc.passes.extract_regions import reached_operations, region_roots
from graphc.variables import Variable
from graphc.variables.guard import variables_by_op

Element = Tensor | Operation


def operation_of(element: Element) -> Operation:
    """The operation that an element is, or is an output of."""
    return element.op if isinstance(element, Tensor) else element


def regions_of(op: Operation) -> tuple[Region, ...]:
    """The regions that an operation runs."""
    found: tuple[Region, ...] = op.attrs["bodies"] if is_control(op) else ()
    return found


def needed_operations(ins: Iterable[Tensor], outs: Iterable[Element]) -> list[Operation]:
    """The operations that a run of the outputs needs when the inputs are fed."""
    fed = set(ins)
    found: set[Operation] = set()
    stack = [operation_of(e) for e in outs if e not in fed]
    while stack:
        op = stack.pop()
        if op in found:
            continue
        found.add(op)
        stack += [t.op for t in op.inputs if t not in fed]
        stack += op.control_inputs
        for region in regions_of(op):
            stack += reached_operations(region, region_roots(region))
    return sorted(found, key=lambda op: op.serial)


def closure(graph: Graph, roots: Iterable[Operation]) -> tuple[list[Operation], list[Variable]]:
    """All that the roots depend on, and the variables among it with their initializers.

    Bodies are taken as they are, with what nothing in them needs: what an operation captures
    stays what its bodies use.

    Raises:
      GraphError: a handle without a Variable, or an operation of a body that nothing owns.
    """
    known = _known_variables(graph)
    found: set[Operation] = set()
    stack = list(roots)
    while stack:
        op = stack.pop()
        if op in found:
            continue
        found.add(op)
        stack += [t.op for t in op.inputs]
        stack += op.control_inputs
        stack += attr_operations(op)
        for region in regions_of(op):
            stack += region.operations
        if op.type == "VariableV2":
            v = known.get(op)
            if v is None:
                raise GraphError(f"the handle {op.name} belongs to no Variable")
            stack += [v.initializer, v.value().op, v.initial_value.op]
    operations = sorted(found, key=_place)
    _check_owned(operations, found)
    return operations, [known[op] for op in operations if op.type == "VariableV2"]


def _place(op: Operation) -> tuple[float, int]:
    """Where an operation stands in a file: what lies in a region, before the region's owner.

    Gradients may have added to the region since.
    """
    place: float = op.serial
    region = op.region
    while region is not None:
        if region.owner is not None:
            place = min(place, region.owner.serial - 0.5)
        region = region.parent
    return place, op.serial


def _check_owned(operations: Iterable[Operation], found: Collection[Operation]) -> None:
    for op in operations:
        region = op.region
        if region is not None and region.owner not in found:
            raise GraphError(
                f"'{op.name}' (declared at {op.location}) is inside '{region.name}', and the "
                "outputs depend on it from outside"
            )


def _known_variables(graph: Graph) -> dict[Operation, Variable]:
    found: dict[Operation, Variable] = dict(variables_by_op(graph))
    for key in graph.get_all_collection_keys():
        for item in graph.get_collection(key):
            if isinstance(item, Variable):
                found[item.op] = item
    return found
