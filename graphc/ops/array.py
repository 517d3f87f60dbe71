"""Sources and pass-through ops: placeholders, constants, identity, grouping."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.build import convert_to_tensor, create, single
from graphc.dims import DimLike
from graphc.dtypes import DType, as_dtype
from graphc.errors import DTypeError, GraphError
from graphc.graph import (
    Operation,
    Tensor,
    TensorType,
    control_dependencies,
    graph_of,
    name_scope,
)
from graphc.loop import ir
from graphc.op import (
    Attr,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Sample,
    SpecialOp,
    as_value,
    register,
    value_sizes,
)
from graphc.ops.base import fits, grid
from graphc.shapes import TensorShape

ANY = (*dtypes.ALL, dtypes.string)


@register
class Placeholder(SpecialOp):
    """A tensor whose value every run must be fed.

    Attributes ``dtype`` and ``shape`` (sizes, or None for unknown rank).
    """

    name = "Placeholder"
    attrs: ClassVar[dict[str, Attr]] = {"dtype": Attr("dtype"), "shape": Attr("shape", None)}
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """What the attributes say."""
        return [TensorType(ctx.attrs["dtype"], ctx.attrs["shape"])]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """Never computed: a value must be fed."""
        raise GraphError("a placeholder has no value of its own: it must be fed")

    def samples(self) -> Iterable[Sample]:
        """None: there is nothing to compute."""
        return ()


@register
class PlaceholderWithDefault(ElementOp):
    """A tensor that may be fed; its input is its value otherwise.

    The attribute ``shape`` may be less specific than the input's shape.
    """

    name = "PlaceholderWithDefault"
    inputs = "input: dtype"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"dtype": ANY}
    attrs: ClassVar[dict[str, Attr]] = {"shape": Attr("shape", None)}
    view = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The attribute's shape, which the input must fit."""
        declared, given = TensorShape(ctx.attrs["shape"]), TensorShape(ctx.sizes(0))
        if not declared.is_compatible_with(given):
            raise ctx.error(f"The default's shape {given} does not fit the shape {declared}")
        sizes = given.sizes if ctx.attrs.get("compiled") else declared.sizes
        return [TensorType(ctx.dtype(0), sizes)]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The input's element."""
        return ctx.operand(0, index)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The output's gradient."""
        return [grads[0]]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The input."""
        return inputs[0]

    def samples(self) -> Iterable[Sample]:
        """One shape known, one partly known."""
        yield Sample((grid(2, 3),), {"shape": (2, 3)})


@register
class Const(SpecialOp):
    """A value fixed when the graph is declared: the attribute ``value``, an array."""

    name = "Const"
    attrs: ClassVar[dict[str, Attr]] = {"value": Attr("array")}
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The array's dtype and shape."""
        value = ctx.attrs["value"]
        return [TensorType(as_dtype(value.dtype), tuple(value.shape))]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The array."""
        return attrs["value"]

    def samples(self) -> Iterable[Sample]:
        """A vector, a scalar, nothing at all."""
        for value in (grid(3), np.float64(2.5), np.zeros((0, 2))):
            yield Sample((), {"value": np.asarray(value, np.float32)})

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike, ...] | None:
        """The integers themselves, which may be sizes: none is beyond int64."""
        found = as_value(op.attrs["value"])
        return found if found is None or all(fits(v, dtypes.int64) for v in found) else None

    def type_attr(self, op: Operation, name: str) -> DType | None:
        """``dtype``."""
        return op.outputs[0].dtype if name == "dtype" else None


class _PassThrough(ElementOp):
    inputs = "input: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": ANY}
    view = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The input's type."""
        return [TensorType(ctx.dtype(0), ctx.sizes(0))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The input's element."""
        return ctx.operand(0, index)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The input."""
        return inputs[0]

    def samples(self) -> Iterable[Sample]:
        """A matrix, a scalar, nothing."""
        yield Sample((grid(2, 3),))
        yield Sample((np.float64(1.5),))
        yield Sample((np.zeros((0, 2)),), grad=())

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike, ...] | None:
        """The input's."""
        return value_sizes(op.inputs[0])


@register
class Identity(_PassThrough):
    """The input, unchanged. Of a variable's handle: a read of the variable."""

    name = "Identity"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The output's gradient."""
        return [grads[0]]


@register
class StopGradient(_PassThrough):
    """The input, unchanged; gradients do not pass."""

    name = "StopGradient"
    differentiable = False


@register
class PreventGradient(_PassThrough):
    """The input, unchanged; asking for a gradient through it is an error.

    The attribute ``message`` says why.
    """

    name = "PreventGradient"
    attrs: ClassVar[dict[str, Attr]] = {"message": Attr("str", "")}

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Refused."""
        raise GraphError(f"Gradient explicitly disabled. Reason: {op.attrs['message']}")

    def samples(self) -> Iterable[Sample]:
        """A matrix, whose gradient is not asked for."""
        yield Sample((grid(2, 3),), grad=())


@register
class NoOp(SpecialOp):
    """Nothing: a place for control dependencies to meet."""

    name = "NoOp"
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """No outputs."""
        return []

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """No outputs."""
        return ()

    def samples(self) -> Iterable[Sample]:
        """None: there is nothing to compute."""
        return ()


# --- public functions -----------------------------------------------------------------------------


def placeholder(dtype: Any, shape: Any = None, name: str | None = None) -> Tensor:
    """A tensor to be fed in every run.

    Args:
      dtype: its element type.
      shape: its shape; None anywhere for an unknown size, None as a whole for unknown rank.
      name: a name for the operation.
    """
    sizes = TensorShape(shape).sizes
    return single(create("Placeholder", (), {"dtype": as_dtype(dtype), "shape": sizes}, name))


def placeholder_with_default(input: Any, shape: Any, name: str | None = None) -> Tensor:
    """A tensor that may be fed and else has the value ``input``."""
    sizes = TensorShape(shape).sizes
    return single(create("PlaceholderWithDefault", [input], {"shape": sizes}, name))


def identity(input: Any, name: str | None = None) -> Tensor:
    """A tensor with the same value as ``input``; of a Variable, a read."""
    return single(create("Identity", [input], None, name))


def stop_gradient(input: Any, name: str | None = None) -> Tensor:
    """A tensor with the same value as ``input`` that gradients do not pass."""
    return single(create("StopGradient", [input], None, name))


def no_op(name: str | None = None) -> Operation:
    """An operation that does nothing."""
    return create("NoOp", (), None, name)


def group(*inputs: Any, name: str | None = None, **kwargs: Any) -> Operation:
    """An operation that is done when all ``inputs`` (operations, tensors, nested lists) are."""
    name = kwargs.pop("name", name)
    if kwargs:
        raise DTypeError(f"Unknown keyword arguments: {', '.join(kwargs)}")
    deps = [_element(i) for i in _flatten(inputs)]
    graph = graph_of(deps)
    with graph.as_default(), control_dependencies(deps):
        return no_op(name=name or "group_deps")


def _flatten(values: Any) -> list[Any]:
    if isinstance(values, dict):
        return [v for key in sorted(values) for v in _flatten(values[key])]
    if isinstance(values, (list, tuple)):
        return [v for item in values for v in _flatten(item)]
    return [values]


def _element(value: Any) -> Any:
    if isinstance(value, (Tensor, Operation)) or hasattr(value, "_as_graph_element"):
        return value
    raise DTypeError(
        f"Expected tf.group() expected Tensor objects not None with type '{type(value)}'"
        if value is None
        else f"tf.group() expects operations and tensors, got {value!r}"
    )


def tuple_(
    tensors: Sequence[Any], name: str | None = None, control_inputs: Any = None
) -> list[Any]:
    """The tensors, each available only when all of them (and ``control_inputs``) are computed."""
    with name_scope(name, "tuple", [t for t in tensors if t is not None]):
        deps = [_element(t) for t in tensors if t is not None]
        if not deps:
            raise GraphError(f"Must have at least one Tensor: {tensors}")
        gate = group(*deps, *(control_inputs or ()))
        out: list[Any] = []
        with control_dependencies([gate]):
            for t in tensors:
                if t is None:
                    out.append(None)
                elif isinstance(t, Operation):
                    out.append(group(gate, t))
                else:
                    out.append(identity(convert_to_tensor(t), name="control_dependency"))
        return out
