"""Reverse accumulation: one walk from results back to sources, by the ops' own gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphc.build import convert_to_tensor, create, single
from graphc.errors import GraphcError, GraphError, ShapeError
from graphc.graph import Operation, Region, Tensor, name_scope

Replay = Callable[[Operation], Operation]


def is_trainable(tensor: Tensor) -> bool:
    """Whether derivatives pass through a tensor: whether its elements are floats."""
    return tensor.dtype.base_dtype.is_floating


class Backward:
    """One walk from the ``ys`` back to the ``xs``.

    Args:
      ys: what is differentiated.
      xs: what it is differentiated by.
      stops: tensors that count as constants.
      region: where the walk stays; None for the top level.
      replay: for a forward operation, the one to differentiate in its place.
    """

    def __init__(
        self,
        ys: Sequence[Tensor],
        xs: Sequence[Tensor],
        stops: Iterable[Tensor] = (),
        region: Region | None = None,
        replay: Replay | None = None,
    ) -> None:
        self.ys = ys
        self.xs = xs
        self.grads: dict[Tensor, list[Tensor]] = {}
        self.on_path = between(ys, xs, region)
        self.targets = set(xs)
        self.stopped = {t.op for t in stops}
        self.region = region
        self.replay = replay
        self.assigned = assigned_before(ys) if region is None else set()

    def run(self, seeds: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradient of each x."""
        self.walk(seeds)
        return [self.total(x) for x in self.xs]

    def walk(self, seeds: Sequence[Tensor]) -> None:
        """Go back from the ys, whose gradients are ``seeds``."""
        for y, seed in zip(self.ys, seeds, strict=True):
            self._add(y, seed)
        # An operation is younger than its inputs, so this is a topological order.
        for op in sorted(self.on_path, key=lambda op: op.serial, reverse=True):
            if self.region is not None and op.region is not self.region:
                continue
            totals = [self.total(t) for t in op.outputs]
            if op not in self.stopped and any(g is not None for g in totals):
                self._step(op, totals)

    def parts(self, tensor: Tensor) -> list[Tensor]:
        """The contributions to one gradient, which are to be added up."""
        return self.grads.get(tensor, [])

    def total(self, tensor: Tensor) -> Tensor | None:
        """The sum of the contributions to one gradient, added up once."""
        parts = self.grads.get(tensor)
        if not parts:
            return None
        if len(parts) > 1:
            parts[:] = [single(create("AddN", [parts]))]
        return parts[0]

    def _add(self, tensor: Tensor, grad: Tensor) -> None:
        self.grads.setdefault(tensor, []).append(grad)

    def own_gradients(
        self, op: Operation, totals: Sequence[Tensor | None]
    ) -> Sequence[Tensor | None]:
        """The gradients of an operation's inputs by its own rule."""
        target = self.as_it_was(op) if self.replay is None else self.replay(op)
        missing = [None] * (len(target.outputs) - len(totals))
        return op.definition.gradient(target, *totals, *missing)

    def as_it_was(self, op: Operation) -> Operation:
        """The operation, its operands read as it read them.

        A read sees the assignments that its reader comes after, and the gradient comes after all
        that lead to the ys.
        """
        late = [t for t in op.inputs if variable_read(t) in self.assigned]
        if not late:
            op.reads = {}
            return op
        before = [*op.control_inputs, *(t.op for t in op.inputs if variable_read(t) is None)]
        graph = op.graph
        with graph.control_dependencies(None), graph.control_dependencies(before):
            kept = {t: single(create("Identity", [t])) for t in dict.fromkeys(late)}
        if "bodies" in op.attrs:
            # The bodies name what they use from around.
            op.reads = kept
            return op
        seen = copy.copy(op)
        seen.inputs = tuple(kept.get(t, t) for t in op.inputs)
        return seen

    def _step(self, op: Operation, totals: list[Tensor | None]) -> None:
        wanted = [
            is_trainable(t) and (t.op in self.on_path or t in self.targets) for t in op.inputs
        ]
        rule = op.gradient_rule or GRADIENTS.get(op.type)
        if not (any(wanted) and (op.definition.differentiable or rule is not None)):
            return
        # The scope of a body's gradient is named after what is around the body already.
        name = op.name if self.region is None else op.name.rsplit("/", 1)[-1]
        with name_scope(name + "_grad"):
            if rule is not None:
                found = given_gradient(op, rule, totals)
            else:
                found = self.own_gradients(op, totals)
        for i, (tensor, grad) in enumerate(zip(op.inputs, found, strict=True)):
            if grad is not None and wanted[i]:
                _check_shape(op, i, grad)
                self._add(tensor, grad)


def variable_read(tensor: Tensor) -> Operation | None:
    """The variable whose present value a tensor stands for: its handle or ``v/read``."""
    op = tensor.op
    if op.type == "Identity" and not op.control_inputs:
        source = op.inputs[0].op
        op = source if op.name == f"{source.name}/read" else op
    return op if op.type == "VariableV2" else None


def assigned_before(ys: Iterable[Tensor]) -> set[Operation | None]:
    """The variables that the computation of some ys assigns."""
    found: set[Operation | None] = set()
    seen: set[Operation] = set()
    stack = [y.op for y in ys]
    while stack:
        op = stack.pop()
        if op in seen:
            continue
        seen.add(op)
        stack.extend(t.op for t in op.inputs)
        stack.extend(op.control_inputs)
        if op.type != "VariableV2" and any(arg.ref for arg in op.definition.args):
            found.add(variable_read(op.inputs[0]))
    return found - {None}


class MissingGradientError(GraphcError, LookupError):
    """A gradient is asked for under a name that nothing is registered for."""


GRADIENTS: dict[str, Callable[..., Any]] = {}
"""What ``RegisterGradient`` has been given, by name."""


def given_gradient(
    op: Operation, rule: Any, totals: Sequence[Tensor | None]
) -> Sequence[Tensor | None]:
    """The gradients of an operation's inputs by a function of the user's.

    It gets zeros for floating outputs that nothing depends on, as in TensorFlow.

    Raises:
      MissingGradientError: no such gradient is registered. ValueError: not one per input.
    """
    fn = GRADIENTS.get(rule) if isinstance(rule, str) else rule
    if fn is None:
        raise MissingGradientError(
            f"No gradient defined for operation '{op.name}' (op type: {op.type})"
        )
    grads = [
        single(create("ZerosLike", [t])) if g is None and is_trainable(t) else g
        for t, g in zip(op.outputs, totals, strict=True)
    ]
    answer = fn(op, *grads)
    found = list(answer) if isinstance(answer, (list, tuple)) else [answer]
    if len(found) != len(op.inputs):
        raise GraphError(
            f"Num gradients {len(found)} generated for {op.node_def} do not match num inputs "
            f"{len(op.inputs)}"
        )
    return [None if g is None else convert_to_tensor(g) for g in found]


def _check_shape(op: Operation, i: int, grad: Tensor) -> None:
    tensor = op.inputs[i]
    try:
        grad.set_shape(tensor.get_shape())
    except ValueError:
        raise ShapeError(
            "Incompatible shapes between op input and calculated input gradient.  Forward "
            f"operation: {op.name}.  Input index: {i}. Original input shape: {tensor.shape}.  "
            f"Calculated input gradient shape: {grad.shape}"
        ) from None


def between(
    ys: Iterable[Tensor], xs: Iterable[Tensor], region: Region | None = None
) -> set[Operation]:
    """The operations on a path of floats from an x to a y, both ends included.

    With a region, the path does not leave it.
    """
    before: set[Operation] = set()
    stack = [y.op for y in ys]
    while stack:
        op = stack.pop()
        if op not in before and (region is None or op.region is region):
            before.add(op)
            stack.extend(t.op for t in op.inputs)
    starts = set(xs)
    reached: set[Operation] = {x.op for x in starts}
    for op in sorted(before, key=lambda op: op.serial):
        if any(t in starts or (t.op in reached and is_trainable(t)) for t in op.inputs):
            reached.add(op)
    return {op for op in before if op in reached}
