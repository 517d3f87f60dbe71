"""What depends on variables alone, and on none that the run changes, is computed ahead of runs.

A filter in another form, say: a session keeps it until one of its variables changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from graphc.function import Function, Input, Output, Rebuilder
from graphc.graph import Operation, Tensor
from graphc.op import get_op
from graphc.passes.control_invariant import invariant_operations


def stable_tensors(fn: Function) -> set[Tensor]:
    """The tensors that are the same in every run until somebody else changes a variable.

    In the body of a loop: those that are the same in every turn, and so can leave it.
    """
    if is_loop_body(fn):
        outside = {i.tensor for i in fn.inputs if i.kind == "capture"}
        return outside.union(*(op.outputs for op in invariant_operations(fn, outside)))
    changed = {o.key for o in fn.outputs if o.kind in ("update", "store")}
    sources = {i.tensor: i for i in fn.inputs}
    found: set[Tensor] = set()
    for op in fn.operations:
        source = sources.get(op.outputs[0]) if op.outputs else None
        if op.type == "Placeholder":
            kept = source is not None and source.kind == "variable" and source.key not in changed
            sizes = op.outputs[0].sizes
            static = sizes is not None and all(isinstance(s, int) for s in sizes)
            stable = kept and static
        else:
            plain = op.definition.pure and "bodies" not in op.attrs and op.type != "Host"
            stable = plain and not op.definition.can_fail(op) and found.issuperset(op.inputs)
        if stable:
            found.update(op.outputs)
    return found


def is_loop_body(fn: Function) -> bool:
    """Whether a function is what a loop repeats: its condition changes no loop variable."""
    return any(i.kind == "carry" for i in fn.inputs) and any(o.kind == "update" for o in fn.outputs)


def over_stable(fn: Function, suits: Callable[[Operation], bool]) -> list[Operation]:
    """The operations that suit and whose second operand is the same in every run, or turn."""
    found = [op for op in fn.operations if suits(op)]
    stable = stable_tensors(fn) if found else set()
    return [op for op in found if op.inputs[1] in stable]


@dataclass(frozen=True)
class Prepare:
    """Move what ops want prepared, and can be, into a function of its own."""

    name: str = "prepare"
    outermost: bool = True

    def run(self, fn: Function) -> Function:
        """The function with such tensors as inputs; one that only prepares stays as it is."""
        chosen = self._chosen(fn)
        if not chosen:
            return fn
        keys = {t: f"{t.op.name}:{t.index}" for t in chosen}
        return replace(self._without(fn, keys), prepared=self._apart(fn, keys))

    def _chosen(self, fn: Function) -> list[Tensor]:
        """The tensors that runs need; not those that only others of them are made of."""
        stable = stable_tensors(fn) - set(fn.results())
        ready = {
            t
            for op in fn.operations
            if op.definition.prepared
            for t in op.outputs
            if t in stable and all(isinstance(s, int) for s in t.sizes or ())
        }
        found: set[Tensor] = set()
        stack = [t.op for t in fn.results()] if ready else []
        seen = set(stack)
        while stack:
            for t in stack.pop().inputs:
                if t in ready:
                    found.add(t)
                elif t.op not in seen:
                    seen.add(t.op)
                    stack.append(t.op)
        return [t for op in fn.operations for t in op.outputs if t in found]

    def _apart(self, fn: Function, keys: dict[Tensor, str]) -> Function:
        """The function that computes the tensors."""
        needed: set[Operation] = set()
        stack = [t.op for t in keys]
        while stack:
            op = stack.pop()
            if op not in needed:
                needed.add(op)
                stack += [t.op for t in op.inputs]
        part = replace(
            fn,
            inputs=[i for i in fn.inputs if i.tensor.op in needed],
            outputs=[Output("fetch", t, t.op, key) for t, key in keys.items()],
            guards=[], late=[], consulted=frozenset(),
        )  # fmt: skip
        rebuilder = Rebuilder(part)
        for op in fn.operations:
            if op in needed:
                rebuilder.copy(op)
        return rebuilder.finish()

    def _without(self, fn: Function, keys: dict[Tensor, str]) -> Function:
        """The function that takes the tensors as inputs."""
        rebuilder = Rebuilder(fn)
        inputs = []
        for op in fn.operations:
            if not any(t in keys for t in op.outputs):
                rebuilder.copy(op)
                continue
            (t,) = op.outputs
            attrs = {"dtype": t.dtype.base_dtype, "shape": t.sizes}
            made = rebuilder.graph.add_operation(
                get_op("Placeholder"), (), attrs, [t.type], op.name, op.location
            )
            rebuilder.map[t] = made.outputs[0]
            if op.name in fn.origin:
                rebuilder.origin[op.name] = fn.origin[op.name]
            inputs.append(Input("prepared", made.outputs[0], op, keys[t], t.sizes or ()))
        new = rebuilder.finish()
        return replace(new, inputs=[*new.inputs, *inputs])
