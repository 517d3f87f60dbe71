"""What extraction asks of graphs: what is reachable, what is known, how types are refined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import product
from graphc.function import Late
from graphc.graph import Graph, Operation, Tensor, TensorType
from graphc.op import evaluate_reference, value_sizes
from graphc.passes.assume import CompileEnv


def reachable(roots: Sequence[Operation], fed: Mapping[Tensor, Any]) -> list[Operation]:
    """The operations that the roots depend on, roots included, in the order of declaration."""
    seen: set[Operation] = set()
    stack = list(roots)
    while stack:
        op = stack.pop()
        if op in seen:
            continue
        seen.add(op)
        stack.extend(t.op for t in op.inputs if t not in fed)
        stack.extend(op.control_inputs)
    return sorted(seen, key=lambda op: op.serial)


def needed_operations(tensors: Sequence[Tensor]) -> set[Operation]:
    """The operations whose elements, not only shapes, the tensors depend on."""
    found: set[Operation] = set()
    stack = [t.op for t in tensors]
    while stack:
        op = stack.pop()
        if op not in found:
            found.add(op)
            unread = op.definition.shape_operands
            stack.extend(t.op for k, t in enumerate(op.inputs) if k not in unread)
    return found


def small_integers(op: Operation) -> list[dict[str, Any]] | None:
    """The outputs as constants, where they are few integers that are known already.

    Shapes are computed from shapes: what is known of them here saves a run that computes them.
    """
    for t in op.outputs:
        known = t.sizes is not None and all(isinstance(s, int) for s in t.sizes)
        if not (known and t.dtype.base_dtype.is_integer and product(t.sizes or ()) in range(65)):
            return None
    if op.type == "Const" or op.definition.can_fail(op):
        return None
    values = [value_sizes(t) for t in op.outputs]
    if all(v is not None and all(isinstance(n, int) for n in v) for v in values):
        arrays = [np.array(v, object) for v in values]
    elif op.inputs and all(t.op.type == "Const" for t in op.inputs):
        arrays = list(evaluate_reference(op, [t.op.attrs["value"] for t in op.inputs]))
    else:
        return None
    return [
        {"value": np.asarray(a, t.dtype.base_dtype.numpy).reshape(t.sizes or ())}
        for a, t in zip(arrays, op.outputs, strict=True)
    ]


def refine(type_: TensorType, user: Tensor, env: CompileEnv) -> TensorType:
    """The inferred type with what the user stated by ``set_shape``."""
    if type_.sizes is None or user.sizes is None or len(type_.sizes) != len(user.sizes):
        return type_
    sizes = list(type_.sizes)
    for i, (mine, stated) in enumerate(zip(type_.sizes, user.sizes, strict=True)):
        if isinstance(stated, int) and not isinstance(mine, int):
            sizes[i] = env.assume_equal(mine, stated)
    return TensorType(type_.dtype, tuple(sizes))


def canonicalize(env: CompileEnv) -> None:
    """Rewrite every type by what was assumed of the symbols."""
    if not env.binding:
        return
    settle_branches(env)
    for op in (op for graph in env.graphs for op in graph.get_operations()):
        if op.type == "EmptyRows":
            row = op.attrs["row"]
            op.attrs = op.attrs | {"row": row and tuple(env.canonical(s) for s in row)}
        for t in op.outputs:
            if t.sizes is not None:
                t._type = TensorType(t.dtype, tuple(env.canonical(s) for s in t.sizes))
                t._value_sizes = None


def settle_branches(env: CompileEnv) -> None:
    """Sizes in which branches seemed to differ, and which later turned out to be one."""
    for graph in env.graphs:
        for op in graph.get_operations():
            if op.type != "Case" or not op.attrs["symbols"]:
                continue
            left = []
            for k, out in enumerate(op.outputs):
                for d, size in enumerate(out.sizes or ()):
                    symbol = None if isinstance(size, int) else size.as_symbol
                    if symbol is None or symbol not in op.attrs["symbols"]:
                        continue
                    given = [b.given[k].sizes or () for b in op.attrs["bodies"]]
                    options = {env.canonical(sizes[d]) for sizes in given}
                    if len(options) == 1:
                        env.learn({symbol: options.pop()})
                    else:
                        left.append(symbol)
            op.attrs = op.attrs | {"symbols": tuple(left)}


def late_of(graph: Graph, env: CompileEnv) -> list[Late]:
    """The sizes that tensors of this graph tell in the course of a run."""
    return [s for s in env.late if s.tensor.op.graph is graph]
