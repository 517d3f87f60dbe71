"""Functions that are traced once and called many times: ``tf.function`` of graph mode."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import nest
from graphc.build import convert_to_tensor, create, is_symbolic, single
from graphc.dims import DimLike
from graphc.errors import DTypeError, GraphError
from graphc.graph import (
    Graph,
    Operation,
    Region,
    Tensor,
    TensorType,
    control_dependencies,
    get_default_graph,
    name_scope,
)
from graphc.op import InferContext
from graphc.ops.control import ControlOp
from graphc.ops.control_build import parameter, region
from graphc.ops.control_copy import copy_body
from graphc.ops.state import is_assignment
from graphc.shapes import TensorShape
from graphc.variables.guard import variables_by_op

PLAIN = (int, float, str, bytes, type(None))


def function(
    func: Callable[..., Any] | None = None,
    input_signature: Sequence[Any] | None = None,
    autograph: bool = True,
    experimental_autograph_options: Any = None,
    experimental_relax_shapes: bool = False,
    experimental_compile: bool | None = None,
) -> Any:
    """Make a function of tensors that is traced once for every kind of arguments.

    Every call declares what the trace has declared: calls are inlined, the program grows with them,
    and compiling takes time in proportion, as if Python's function had been called.  Where the same
    work is done many times in a row, a loop is compiled once.

    What has an effect in it (assignments, printing, ``py_func``) runs in its order whenever a
    result is needed.

    Args:
      func: a function of tensors (and of Python values, which are part of the kind) that gives
        tensors, operations or None, in any nesting.
      input_signature: tensors (placeholders, say) whose dtypes and shapes all calls share.
      autograph, experimental_autograph_options, experimental_relax_shapes, experimental_compile:
        accepted; Python's own ``if`` and ``while`` are Python's.
    Returns:
      The function; a decorator where ``func`` is None.  A call whose result has no tensor gives an
      operation, if anything in it has an effect.
    """
    del autograph, experimental_autograph_options, experimental_relax_shapes, experimental_compile
    if func is None:
        return functools.partial(function, input_signature=input_signature)
    if not callable(func):
        raise DTypeError(f"{func!r} is not a callable object")
    return Function(func, input_signature)


class Function:
    """What :func:`function` gives: call it like the function that it was made of."""

    def __init__(self, func: Callable[..., Any], input_signature: Sequence[Any] | None) -> None:
        functools.update_wrapper(self, func)
        self.python_function = func
        self.input_signature = input_signature

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """A method of the instance."""
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Declare what the function declares, for these arguments."""
        bound = inspect.signature(self.python_function).bind(*args, **kwargs)
        bound.apply_defaults()
        given = [bound.args, dict(bound.kwargs)]
        leaves = nest.flatten(given)
        with name_scope(None, getattr(self, "__name__", "function"), []):
            values = [self._value(leaf) for leaf in leaves]
            tensors = [v for v in values if isinstance(v, Tensor)]
            types = self._types(tensors)
            trace = self._trace(given, values, types)
            return trace.called(tensors)

    def _value(self, leaf: Any) -> Any:
        if is_symbolic(leaf) or isinstance(leaf, (np.ndarray, np.generic)):
            return convert_to_tensor(leaf)
        if self.input_signature is not None and isinstance(leaf, PLAIN[:2]):
            return convert_to_tensor(leaf)
        return leaf

    def _types(self, tensors: Sequence[Tensor]) -> list[TensorType]:
        """The types to trace for."""
        if self.input_signature is None:
            return [TensorType(t.dtype.base_dtype, t.sizes) for t in tensors]
        stated = nest.flatten(list(self.input_signature))
        if len(stated) != len(tensors):
            raise GraphError(
                f"the function takes {len(stated)} tensors, it is given {len(tensors)}"
            )
        for t, s in zip(tensors, stated, strict=True):
            fits = TensorShape(s.shape).is_compatible_with(t.shape)
            if s.dtype.base_dtype is not t.dtype.base_dtype or not fits:
                raise GraphError(
                    "Python inputs incompatible with input_signature: "
                    f"{t} is not {s.dtype.base_dtype.name}{TensorShape(s.shape)}"
                )
        return [TensorType(s.dtype.base_dtype, TensorShape(s.shape).sizes) for s in stated]

    def _trace(self, given: Any, values: Sequence[Any], types: Sequence[TensorType]) -> _Trace:
        graph = get_default_graph()
        key = _kind(given, values, types)
        traces: dict[Any, Any] = graph.scratch.setdefault(("function", self), {})
        found = traces.get(key)
        if found is None and key in traces:
            raise GraphError(
                f"'{getattr(self, '__name__', 'function')}' calls itself: a function of a graph "
                "cannot be recursive"
            )
        if found is None:
            first = not traces
            known = len(variables_by_op(graph))
            traces[key] = None
            try:
                found = _Trace(graph, self.python_function, given, values, types)
            finally:
                del traces[key]
            if not first and len(variables_by_op(graph)) > known:
                raise GraphError(
                    "tf.function-decorated function tried to create variables on non-first call."
                )
            traces[key] = found
        trace: _Trace = found
        return trace


def _kind(given: Any, values: Sequence[Any], types: Sequence[TensorType]) -> Any:
    """What two calls that can share a trace have in common."""
    rest = iter(types)
    parts: list[Any] = []
    for value in values:
        if isinstance(value, Tensor):
            t = next(rest)
            sizes = None if t.sizes is None else tuple(
                s if isinstance(s, int) else None for s in t.sizes
            )  # fmt: skip
            parts.append((t.dtype, sizes))
        elif isinstance(value, PLAIN):
            parts.append((type(value), value))
        else:
            parts.append(value)
    structure = repr(nest.map_structure(lambda _: 0, given))
    try:
        return structure, hash(tuple(parts)), tuple(parts)
    except TypeError:
        raise DTypeError(
            "the arguments of a function must be tensors, or Python values that can be hashed"
        ) from None


class _Trace:
    """The operations that a function has declared for one kind of arguments."""

    def __init__(
        self, graph: Graph, fn: Callable[..., Any], given: Any, values: Sequence[Any],
        types: Sequence[TensorType],
    ) -> None:  # fmt: skip
        rest = iter(types)
        with graph.within(None), region("function") as self.region:
            leaves = [
                parameter(self.region, next(rest), "Parameter") if isinstance(v, Tensor) else v
                for v in values
            ]
            args, kwargs = nest.pack_sequence_as(given, leaves)
            self.result = fn(*args, **kwargs)
            flat = nest.flatten(self.result) if nest.is_nested(self.result) else [self.result]
            self.leaves = [self._leaf(leaf) for leaf in flat]
        self.effects = {op for op in self.region.operations if has_effect(op)}

    def _leaf(self, leaf: Any) -> Tensor | None:
        """A result as a tensor; None for None and for operations, which run anyhow."""
        if leaf is None or isinstance(leaf, Operation):
            return None
        return convert_to_tensor(leaf)

    def called(self, tensors: Sequence[Tensor]) -> Any:
        """A call: the operations once more, over these tensors."""
        mapping: dict[Any, Any] = dict(zip(self.region.params, tensors, strict=True))
        done = copy_operations(self.region, mapping, self.effects)
        with control_dependencies(done):
            results = [
                None if t is None else single(create("Identity", [mapping.get(t, t)]))
                for t in self.leaves
            ]
            if all(t is None for t in results):
                return create("NoOp") if done else None
        if not nest.is_nested(self.result):
            return results[0]
        return nest.pack_sequence_as(self.result, results)


def has_effect(op: Operation) -> bool:
    """Whether it makes a difference that the operation runs."""
    if isinstance(op.definition, ControlOp):
        return any(has_effect(o) for body in op.attrs["bodies"] for o in body.operations)
    fails = op.definition.fallible and op.type == "CheckNumerics"
    return is_assignment(op) or fails or op.definition.family == "host"


def copy_operations(
    source: Region, mapping: dict[Any, Any], effects: set[Operation]
) -> list[Operation]:
    """Copies of a region's operations in the current one; those with effects, in order.

    ``mapping`` takes the region's tensors to theirs; it is filled.
    """
    graph = get_default_graph()
    copies: dict[Operation, Operation] = {}
    done: list[Operation] = []
    for op in source.operations:
        if op.type == "Parameter":
            continue
        # In the order of the text: what comes later sees what was assigned before.
        before = [copies.get(c, c) for c in op.control_inputs]
        with control_dependencies([*before, *done[-1:]]):
            if isinstance(op.definition, ControlOp):
                new = copy_body(op, mapping)
            else:
                new = _copied(graph, op, [mapping.get(t, t) for t in op.inputs])
        copies[op] = new
        mapping.update(zip(op.outputs, new.outputs, strict=False))
        if op in effects:
            done.append(new)
    return done


def _copied(graph: Graph, op: Operation, inputs: list[Tensor]) -> Operation:
    """One operation over other operands, with its types inferred anew."""
    name = graph.unique_name(op.name.rsplit("/", 1)[-1])
    ctx = InferContext(op.definition, name, inputs, op.attrs)
    types = list(op.definition.infer(ctx))
    new = graph.add_operation(op.definition, inputs, op.attrs, types, name, op.location)
    new.gradient_rule = op.gradient_rule
    for a, b in zip(op.outputs, new.outputs, strict=True):
        if a.sizes is not None:
            stated: list[DimLike | None] = [s if isinstance(s, int) else None for s in a.sizes]
            b.set_shape(TensorShape(stated))
    return new
