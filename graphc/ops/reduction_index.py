"""The position of the largest and smallest element along an axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import ShapeError
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    Attr,
    CompositeOp,
    ElementContext,
    InferContext,
    Reduction,
    ReductionOp,
    Sample,
    register,
    value_sizes,
)
from graphc.ops.base import INF, NAN, call, grid
from graphc.ops.reduction import axes_of, reduced_sizes
from graphc.shapes import shape_text


def inferred_axis(ctx: InferContext, operand: int, rank: int) -> int | None:
    """The axis that a scalar operand names, not negative; None when only a run can tell.

    Raises:
      ShapeError: it is out of range.
    """
    values = ctx.value(operand)
    if values is None or len(values) != 1 or not isinstance(values[0], int):
        return None
    axis = values[0]
    if not -rank <= axis < rank:
        raise ctx.error(
            f"Dimension ({axis}) must be in the range [{-rank}, {rank}), where {rank} is the "
            "number of dimensions in the input."
        )
    return axis % rank


def _without_axis(ctx: InferContext, operand: int) -> tuple[DimLike, ...] | None:
    sizes = ctx.sizes(0)
    ctx.rank(operand, 0)
    if sizes is None:
        return None
    if not sizes:
        raise ctx.error("Shape must be at least rank 1 but is rank 0")
    axis = inferred_axis(ctx, operand, len(sizes))
    if axis is None:
        return tuple(dims.fresh() for _ in sizes[1:])
    return reduced_sizes(sizes, (axis,), keep=False)


@register
class FirstEqual(ReductionOp):
    """The first index along ``dimension`` at which ``input`` equals ``value``, or is NaN.

    ``value`` has the shape of ``input`` with size 1 in ``dimension``.  An empty dimension is an
    error, unless there is nothing to compute.
    """

    name = "FirstEqual"
    inputs = "input: T, value: T, dimension: int32|int64"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    attrs: ClassVar[dict[str, Attr]] = {"output_type": Attr("dtype", dtypes.int64)}
    value_operands: ClassVar[tuple[int, ...]] = (2,)
    constant_operands: ClassVar[tuple[int, ...]] = (2,)
    fallible = True
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The input's shape without the dimension."""
        return [TensorType(ctx.attrs["output_type"], _without_axis(ctx, 2))]

    def can_fail(self, op: Operation) -> bool:
        """Unless the dimension is known not to be empty."""
        return not _surely_filled(op, 2)

    def reduction(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> Reduction:
        """The least index of those at which the condition holds."""
        sizes = ctx.sizes(0)
        (axis,) = axes_of(ctx.op, 2, len(sizes))
        value = ctx.operand(1, (*index[:axis], ir.ZERO, *index[axis:]))
        nowhere = ir.const(dtypes.int64.max)

        def body(inner: tuple[ir.Expr, ...]) -> ir.Expr:
            x = ctx.operand(0, (*index[:axis], *inner, *index[axis:]))
            found = ir.apply("eq", x, value)
            if x.dtype.is_floating:
                found = ir.apply("or", found, ir.apply("isnan", x))
            return ir.select(found, inner[0], nowhere)

        def finish(first: ir.Expr) -> ir.Expr:
            if not self.can_fail(ctx.op):
                return ir.cast(first, ctx.op.outputs[0].dtype)
            some = ir.apply("gt", ctx.size(sizes[axis]), 0)
            site = ctx.site(f"Reduction axis {axis} is empty in shape {shape_text(sizes)}")
            return ir.cast(ir.Require(some, first, site), ctx.op.outputs[0].dtype)

        return Reduction("min", (sizes[axis],), body, finish, dtypes.int64)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's argmax of the condition."""
        x, value = (np.asarray(v) for v in inputs[:2])
        axis = int(inputs[2]) % x.ndim
        _refuse_empty(x, axis)
        return np.argmax((x == value) | (x != x), axis)

    def samples(self) -> Iterable[Sample]:
        """Each axis of a matrix with repeated values; NaN."""
        x = np.array([[1, 3, 3], [2, 1, 2], [3, 3, 1]])
        for axis in (0, 1, -1):
            attrs = {"output_type": dtypes.int32 if axis else dtypes.int64}
            value = np.max(x, axis, keepdims=True)
            yield Sample((x, value, np.int64(axis)), attrs)
        nan = np.array([[1.0, NAN, NAN], [INF, INF, 0.0]])
        value = np.max(nan, 1, keepdims=True)
        yield Sample((nan, value, np.int64(1)), dtypes=dtypes.FLOATS, note="special")


def _surely_filled(op: Operation, operand: int) -> bool:
    """Whether the dimension that ``operand`` names is known to have elements."""
    axis, sizes = value_sizes(op.inputs[operand]), op.inputs[0].sizes
    if not sizes or not axis or not isinstance(axis[0], int):
        return False
    size = sizes[axis[0]]
    return isinstance(size, int) and size > 0


def _refuse_empty(x: np.ndarray, axis: int) -> None:
    if x.shape[axis] == 0 and all(s for i, s in enumerate(x.shape) if i != axis):
        raise ShapeError(f"Reduction axis {axis} is empty in shape {shape_text(x.shape)}")


class _ArgExtremum(CompositeOp):
    inputs = "input: T, dimension: int32|int64"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    attrs: ClassVar[dict[str, Attr]] = {"output_type": Attr("dtype", dtypes.int64)}
    value_operands: ClassVar[tuple[int, ...]] = (1,)
    constant_operands: ClassVar[tuple[int, ...]] = (1,)
    family = "reduction"
    fallible = True
    differentiable = False
    extremum: ClassVar[str] = ""

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The input's shape without the dimension."""
        return [TensorType(ctx.attrs["output_type"], _without_axis(ctx, 1))]

    def can_fail(self, op: Operation) -> bool:
        """Unless the dimension is known not to be empty."""
        return not _surely_filled(op, 1)

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The extremum, and where it is first found."""
        x, dimension = inputs
        value = call(self.extremum, x, dimension, keep_dims=True)
        output_type = op.attrs["output_type"]
        return [call("FirstEqual", x, value, dimension, output_type=output_type)]

    def samples(self) -> Iterable[Sample]:
        """Each axis; repeated values; NaN and infinities; a scalar's worth; no results."""
        x = grid(3, 4, 5)
        for axis in (0, 1, 2, -1, -3):
            attrs = {"output_type": dtypes.int32 if axis == 1 else dtypes.int64}
            yield Sample((x, np.int64(axis)), attrs)
        ties = np.array([[1, 3, 3, 1], [2, 2, 2, 2], [0, 0, 1, 1]])
        yield Sample((ties, np.int64(1)), note="ties")
        special = np.array([[1.0, NAN, 3.0], [-INF, INF, INF], [NAN, NAN, 1.0], [-0.0, 0.0, -0.0]])
        yield Sample((special, np.int64(1)), dtypes=dtypes.FLOATS, note="special")
        yield Sample((grid(1, 1), np.int64(1)), note="size 1")
        yield Sample((np.zeros((0, 3)), np.int64(1)), note="empty result")


@register
class ArgMax(_ArgExtremum):
    """The index of the largest element along ``dimension``; of several, the first.

    NaN counts as the largest.  An empty dimension is an error.
    """

    name = "ArgMax"
    extremum = "Max"

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's."""
        x = np.asarray(inputs[0])
        _refuse_empty(x, int(inputs[1]) % x.ndim)
        return np.argmax(x, int(inputs[1]))


@register
class ArgMin(_ArgExtremum):
    """The index of the smallest element along ``dimension``; of several, the first.

    NaN counts as the smallest.  An empty dimension is an error.
    """

    name = "ArgMin"
    extremum = "Min"

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's."""
        x = np.asarray(inputs[0])
        _refuse_empty(x, int(inputs[1]) % x.ndim)
        return np.argmin(x, int(inputs[1]))
