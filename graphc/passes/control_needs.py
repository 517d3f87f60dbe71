"""What parts of a function need of it: by elements, and by sizes that are learnt."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.dims import Symbol, symbols_of
from graphc.function import Function
from graphc.graph import Operation, Tensor
from graphc.passes.basic import symbols_in


def needed_inputs(fn: Function, roots: Iterable[Tensor]) -> set[Tensor]:
    """The inputs that the roots depend on, by their elements or by their sizes."""
    operations = needed_operations(fn, roots)
    return {op.outputs[0] for op in operations if op.type == "Placeholder"}


def needed_operations(fn: Function, roots: Iterable[Tensor]) -> set[Operation]:
    """The operations that the roots depend on, by their elements or by their sizes."""
    binders = fn.binders()
    seen: set[Operation] = set()
    stack = [t.op for t in roots]
    while stack:
        op = stack.pop()
        if op in seen:
            continue
        seen.add(op)
        stack.extend(t.op for t in op.inputs)
        if binders:
            stack.extend(binders[s].op for s in symbols_in(op) if s in binders)
    return seen


def symbols_of_all(operations: Iterable[Operation]) -> set[Symbol]:
    """The symbols in the sizes of operations."""
    return {s for op in operations for s in symbols_in(op)}


def symbols_of_tensors(tensors: Iterable[Tensor]) -> set[Symbol]:
    """The symbols in the sizes of tensors."""
    return {s for t in tensors for size in t.sizes or () for s in symbols_of(size)}


def sizes_assumed(fn: Function) -> set[Symbol]:
    """The sizes of which something is assumed."""
    guards = getattr(fn.env, "guards", fn.guards)
    return {s for g in guards for s in symbols_of(g.left) | symbols_of(g.right)}


def always(fn: Function) -> list[Tensor]:
    """What a body computes whatever its owner needs of it: checks, and sizes that are assumed."""
    assumed = sizes_assumed(fn)
    return [
        *(o.tensor for o in fn.outputs if o.kind == "check"),
        *(s.tensor for s in fn.late if s.symbol in assumed),
    ]


def operands_of(op: Operation, body: Function, roots: Iterable[Tensor]) -> set[Tensor]:
    """The operands of ``op`` that some tensors of one of its bodies depend on."""
    needed = needed_inputs(body, [*roots, *always(body)])
    return {op.inputs[int(i.key)] for i in body.inputs if i.tensor in needed}
