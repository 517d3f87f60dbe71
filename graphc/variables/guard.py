"""Initial values that depend on other variables.

All initializers run at once, so an initial value must not read a variable that may have no value
yet: such reads are replaced by the other variable's own initial value.
"""

from __future__ import annotations

from typing import Any

from graphc.graph import Graph, Operation, Tensor
from graphc.ops.state import is_assignment

_KEY = "graphc.variables"
_STOPS = frozenset({"IsVariableInitialized", "InitializedValue"})


def variables_by_op(graph: Graph) -> dict[Operation, Any]:
    """The Variables of a graph by their ``VariableV2`` operation."""
    found: dict[Operation, Any] = graph.scratch.setdefault(_KEY, {})
    return found


def without_uninitialized_reads(value: Tensor, scope: str) -> Tensor:
    """``value``, or a copy of it in which variables stand for their initialized values.

    Args:
      value: an initial value.
      scope: the name of the variable that it is for; part of the names of copied operations.
    """
    variables = variables_by_op(value.graph)
    replaced: dict[Tensor, Tensor] = {}
    for op in _dependencies(value.op):
        if op.type == "VariableV2":
            variable = variables.get(op)
            if variable is not None:
                replaced[op.outputs[0]] = variable.initialized_value()
        elif any(t in replaced for t in op.inputs):
            copied = _copy(op, [replaced.get(t, t) for t in op.inputs], scope)
            replaced.update(zip(op.outputs, copied.outputs, strict=True))
    return replaced.get(value, value)


def _dependencies(op: Operation) -> list[Operation]:
    """The operations whose values ``op`` uses, itself included, in the order of declaration."""
    seen: set[Operation] = set()
    stack = [op]
    while stack:
        op = stack.pop()
        if op in seen or op.type in _STOPS or is_assignment(op):
            continue
        seen.add(op)
        stack.extend(t.op for t in op.inputs)
    return sorted(seen, key=lambda op: op.serial)


def _copy(op: Operation, inputs: list[Tensor], scope: str) -> Operation:
    graph = op.graph
    with graph.name_scope(None):
        name = graph.unique_name(f"{op.name}_{scope.rstrip('/')}")
    types = [t.type for t in op.outputs]
    return graph.add_operation(op.definition, inputs, op.attrs, types, name, op.location)
