"""The structural passes: decompose composites, drop what is dead, share what is equal."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from graphc.build import constant, create, single
from graphc.dims import Symbol, symbols_of
from graphc.function import Function, Rebuilder, with_expanded
from graphc.graph import Operation, Tensor
from graphc.op import CompositeOp
from graphc.passes.sizes import resolved


@dataclass(frozen=True)
class Decompose:
    """Replace every composite op by the ops that define it, until none is left."""

    name: str = "decompose"

    def run(self, fn: Function) -> Function:
        """The function without composite ops."""
        while composites := [
            op for op in fn.operations if isinstance(op.definition, CompositeOp)
        ]:
            fn = with_expanded(fn, set(composites), _decomposed)
        return fn


def _decomposed(op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    assert isinstance(op.definition, CompositeOp)
    return op.definition.decompose(op, inputs)


@dataclass(frozen=True)
class DeadCode:
    """Drop operations that no output needs."""

    name: str = "dce"

    def run(self, fn: Function) -> Function:
        """The function with only what its results depend on."""
        binders = fn.binders()
        live: set[Operation] = {i.tensor.op for i in fn.inputs}
        known: set[Symbol] = set()
        stack = [o.tensor.op for o in fn.outputs]
        # A guard is checked even if nothing else needs the size any more.
        stack += [
            binders[s].op
            for g in getattr(fn.env, "guards", fn.guards)
            for s in symbols_of(g.left) | symbols_of(g.right)
            if s in binders
        ]
        while stack:
            op = stack.pop()
            if op in live and op.type != "Placeholder":
                continue
            live.add(op)
            stack.extend(t.op for t in op.inputs)
            if binders:
                used = symbols_in(op) - known
                known |= used
                stack.extend(binders[s].op for s in used if s in binders)
        if len(live) == len(fn.operations):
            return fn
        rebuilder = Rebuilder(fn)
        for op in fn.operations:
            if op in live:
                rebuilder.copy(op)
        return rebuilder.finish()


@dataclass(frozen=True)
class ShapesOfInputs:
    """In a body, take a shape from an input that has it, not from what would be kept for it.

    The gradient of a row that was read, say, is zeros as large as the array; for its shape alone a
    loop would save the array in every turn.  What has another size in every turn is handed out in
    parts of a vector: their shapes are in a stack of their own.
    """

    name: str = "shapes"

    def run(self, fn: Function) -> Function:
        """The function with other operands where only their shapes count."""
        known: dict[object, Tensor] = {}
        for i in fn.inputs:
            if i.kind in ("carry", "capture") and i.tensor.sizes is not None:
                known.setdefault((i.tensor.dtype, i.tensor.sizes), i.tensor)
        parts: dict[object, Tensor] = {}
        if not known and all(op.type != "TakePart" for op in fn.operations):
            return fn
        rebuilder = Rebuilder(fn)
        for op in fn.operations:
            inputs = [rebuilder.map[t] for t in op.inputs]
            for k in op.definition.shape_operands:
                t = op.inputs[k]
                found = known.get((t.dtype, t.sizes), t)
                if found in rebuilder.map:
                    inputs[k] = rebuilder.map[found]
                if found is t and t.sizes in parts:
                    inputs[k] = _zeros(rebuilder, t, rebuilder.map[parts[t.sizes]])
            rebuilder.copy(op, inputs)
            if op.type == "TakePart":
                parts[op.outputs[0].sizes] = op.inputs[2]
        return rebuilder.finish()


def _zeros(rebuilder: Rebuilder, like: Tensor, shape: Tensor) -> Tensor:
    """Zeros of the shape that a vector of sizes tells, in the place of a tensor of that shape."""

    def build() -> list[Tensor]:
        return [single(create("Fill", (shape, constant(0, like.dtype.base_dtype))))]

    (found,) = rebuilder.declared(like.op, build)
    return found


def symbols_in(op: Operation) -> set[Symbol]:
    """The symbols in the sizes of an operation, and in its bodies."""
    found: set[Symbol] = set()
    stack = [op]
    while stack:
        inner = stack.pop()
        for t in inner.outputs:
            found |= t.symbols
        for body in inner.attrs.get("bodies", ()):
            stack += body.operations
    return found


@dataclass(frozen=True)
class CommonSubexpressions:
    """Compute equal operations over equal operands once."""

    name: str = "cse"

    def run(self, fn: Function) -> Function:
        """The function with equal operations merged into the first of them."""
        first: dict[Tensor, Tensor] = {}
        seen: dict[object, Sequence[Tensor]] = {}
        merged: set[Operation] = set()
        for op in fn.operations:
            if not op.definition.pure or op.type == "Placeholder":
                continue
            key = (op.type, tuple(first.get(t, t) for t in op.inputs), attrs_key(op))
            found = seen.setdefault(key, op.outputs)
            if found is op.outputs:
                continue
            # Sizes that a run learns twice have two names, and either may stand in a type.
            if all(a.type == b.type for a, b in zip(op.outputs, found, strict=True)):
                merged.add(op)
                first.update(zip(op.outputs, found, strict=True))
            else:
                seen[key] = op.outputs
        if not merged:
            return resolved(fn)
        rebuilder = Rebuilder(fn)
        for op in fn.operations:
            if op in merged:
                rebuilder.map.update((t, rebuilder.map[first[t]]) for t in op.outputs)
            else:
                rebuilder.copy(op)
        return resolved(rebuilder.finish())


def attrs_key(op: Operation) -> tuple[tuple[str, Hashable], ...]:
    """The attributes as something hashable; equal for equal attributes."""
    key = []
    for name, value in op.attrs.items():
        if hasattr(value, "tobytes"):
            if value.dtype == object or value.nbytes > 1 << 16:
                value = id(value)
            else:
                value = (str(value.dtype), value.shape, value.tobytes())
        elif isinstance(value, list):
            value = repr(value)
        key.append((name, value))
    return tuple(key)
