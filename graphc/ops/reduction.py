"""Reductions over given axes: sums, means, products, extrema, logical reductions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import CompileError
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    Attr,
    Element,
    ElementContext,
    Gradients,
    InferContext,
    Reduction,
    ReductionOp,
    Sample,
    register,
    value_sizes,
)
from graphc.ops.base import INF, NAN, call, fits, grid


def inferred_axes(ctx: InferContext, operand: int, rank: int) -> tuple[int, ...] | None:
    """The axes that an operand names, none of them negative; None when a run must tell.

    Raises:
      ShapeError: an axis out of range or named twice.
    """
    values = ctx.value(operand)
    if values is None or not all(isinstance(v, int) for v in values):
        return None
    axes = []
    for v in values:
        assert isinstance(v, int)
        if not -rank <= v < rank:
            raise ctx.error(f"Invalid reduction dimension {v} for input with {rank} dimensions.")
        axes.append(v % rank)
    if len(set(axes)) < len(axes):
        twice = next(a for a in axes if axes.count(a) > 1)
        raise ctx.error(f"Invalid reduction arguments: Axes contains duplicate dimension: {twice}")
    return tuple(sorted(axes))


def axes_of(op: Operation, operand: int, rank: int) -> tuple[int, ...]:
    """The same of an operation whose axes must be known by now."""
    values = value_sizes(op.inputs[operand])
    if values is None or not all(isinstance(v, int) for v in values):
        raise CompileError(
            f"the axes '{op.inputs[operand].name}' of '{op.name}' (op: '{op.type}'), declared at "
            f"{op.location}, must be known before the graph runs"
        )
    return tuple(sorted(int(v) % rank for v in values if isinstance(v, int)))


def numpy_axes(axes: Any, rank: int) -> tuple[int, ...]:
    """The axes as NumPy's reductions take them."""
    return tuple(int(a) % rank for a in np.asarray(axes).reshape(-1))


class AxisReduction(ReductionOp):
    """A reduction of ``input`` over the dimensions ``reduction_indices`` (a scalar or a vector).

    With ``keep_dims`` the reduced dimensions stay, with size 1.
    """

    inputs = "input: T, reduction_indices: int32|int64"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    attrs: ClassVar[dict[str, Attr]] = {"keep_dims": Attr("bool", False)}
    #: Operands of which only the sizes, or only the value while compiling, are asked for.
    value_operands: ClassVar[tuple[int, ...]] = (1,)
    constant_operands: ClassVar[tuple[int, ...]] = (1,)
    op: ClassVar[str] = ""

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The input's shape without the axes, or with 1 in their place."""
        sizes, keep = ctx.sizes(0), ctx.attrs["keep_dims"]
        indices = ctx.sizes(1)
        if indices is not None and len(indices) > 1:
            raise ctx.error(f"Reduction indices must be a scalar or a vector: rank {len(indices)}")
        out: tuple[DimLike, ...] | None = None
        if sizes is not None:
            axes = inferred_axes(ctx, 1, len(sizes))
            if axes is None:
                out = tuple(dims.fresh() for _ in sizes) if keep else None
            else:
                out = reduced_sizes(sizes, axes, keep)
        return [TensorType(self.out_dtype(ctx.dtype(0)), out)]

    def out_dtype(self, dtype: DType) -> DType:
        """The result's dtype."""
        return dtype

    def accumulator(self, dtype: DType) -> DType:
        """What is accumulated: floats of 16 bits in float32, everything else in its own type."""
        return dtype.accumulator

    def term(self, x: ir.Expr) -> ir.Expr:
        """What one element contributes, in the accumulator's type."""
        return x

    def finish(self, ctx: ElementContext, total: ir.Expr, count: DimLike) -> ir.Expr:
        """The result for what was accumulated over ``count`` elements."""
        return total

    def reduction(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> Reduction:
        """The accumulation over the axes."""
        sizes = ctx.sizes(0)
        axes = axes_of(ctx.op, 1, len(sizes))
        kept = index if ctx.op.attrs["keep_dims"] else _with_zeros(index, axes, len(sizes))
        dtype = ctx.op.inputs[0].dtype.base_dtype
        wide = self.accumulator(dtype)
        extents = tuple(sizes[a] for a in axes)

        def body(inner: tuple[ir.Expr, ...]) -> ir.Expr:
            full = list(kept)
            for a, i in zip(axes, inner, strict=True):
                full[a] = i
            return self.term(ir.cast(ctx.operand(0, tuple(full)), wide))

        def finish(total: ir.Expr) -> ir.Expr:
            return ir.cast(self.finish(ctx, total, dims.product(extents)), self.out_dtype(dtype))

        return Reduction(self.op, extents, body, finish, wide)

    def samples(self) -> Iterable[Sample]:
        """Each axis, several, all, none; negative; kept; empty and size-1 dims."""
        x = grid(3, 4, 5)
        for axes in ([0], [1], [2], [0, 2], [2, 1], [0, 1, 2], [], [-1], [-3, 1]):
            keep = len(axes) % 2 == 0
            yield Sample((x, np.array(axes, np.int64)), {"keep_dims": keep})
        yield Sample((x, np.int64(1)), note="scalar axis")
        yield Sample((grid(7), np.array([0])), {"keep_dims": True}, note="vector")
        yield Sample((grid(), np.array([], np.int64)), note="scalar")
        yield Sample((np.zeros((0, 3)), np.array([0])), grad=(), note="reduced nothing")
        yield Sample((np.zeros((0, 3)), np.array([1])), grad=(), note="empty result")
        yield Sample((grid(1, 37, 1), np.array([0, 1])), note="size 1")
        yield Sample((np.array([[1.0, NAN, 2.0], [INF, 1.0, -INF], [INF, 2.0, 1.0]]),
                      np.array([1])), grad=(), dtypes=dtypes.FLOATS, note="special")  # fmt: skip
        extreme = np.array([[127, 127, 3], [-128, -128, 1]])
        yield Sample((extreme, np.array([1])), grad=(), dtypes=dtypes.SIGNED, note="extreme ints")


def reduced_sizes(
    sizes: tuple[DimLike, ...], axes: tuple[int, ...], keep: bool
) -> tuple[DimLike, ...]:
    """The shape that a reduction over ``axes`` leaves."""
    if keep:
        return tuple(1 if i in axes else s for i, s in enumerate(sizes))
    return tuple(s for i, s in enumerate(sizes) if i not in axes)


def _with_zeros(
    index: tuple[ir.Expr, ...], axes: tuple[int, ...], rank: int
) -> tuple[ir.Expr, ...]:
    """An index of the reduced shape as one of the whole: 0 at the axes."""
    rest = iter(index)
    return tuple(ir.ZERO if i in axes else next(rest) for i in range(rank))


def expand(reduced: Tensor, op: Operation, mean: bool = False) -> Tensor:
    """``reduced``, shaped like the output of reduction ``op``, repeated to its input's shape."""
    keep = op.attrs["keep_dims"]
    return call("ExpandReduced", reduced, op.inputs[0], op.inputs[1], keep_dims=keep, mean=mean)


@register
class Sum(AxisReduction):
    """The sum over the given axes; 0 over nothing.

    Integers wrap around in their own type; float16 and bfloat16 are accumulated in float32.
    """

    name = "Sum"
    op = "add"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient, repeated along the axes."""
        assert grads[0] is not None
        return [expand(grads[0], op), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's, floats accumulated in float64."""
        x = np.asarray(inputs[0])
        wide = np.float64 if dtypes.is_float(x.dtype) else x.dtype
        axes = numpy_axes(inputs[1], x.ndim)
        return np.sum(x, axes, dtype=wide, keepdims=attrs["keep_dims"]).astype(x.dtype)


@register
class Mean(AxisReduction):
    """The mean over the given axes; NaN over nothing.

    Of integers: the sum, wrapped around in their own type, divided towards zero (0 over nothing).
    """

    name = "Mean"
    op = "add"

    def finish(self, ctx: ElementContext, total: ir.Expr, count: DimLike) -> ir.Expr:
        """The sum over the count."""
        size = ir.cast(ctx.size(count), total.dtype)
        return ir.apply("div" if total.dtype.is_floating else "idiv", total, size)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient over the count, repeated along the axes."""
        assert grads[0] is not None
        return [expand(grads[0], op, mean=True), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's, floats accumulated in float64."""
        x, keep = np.asarray(inputs[0]), attrs["keep_dims"]
        axes = numpy_axes(inputs[1], x.ndim)
        if dtypes.is_float(x.dtype):
            total = np.sum(x, axes, dtype=np.float64, keepdims=keep)
        else:
            total = np.sum(x, axes, dtype=x.dtype, keepdims=keep).astype(np.float64)
        count = np.prod([x.shape[a] for a in axes], dtype=np.float64)
        mean = np.true_divide(total, count)
        if not dtypes.is_float(x.dtype):
            mean = np.trunc(mean) if count else np.zeros_like(mean)
        return mean.astype(x.dtype)


@register
class Prod(AxisReduction):
    """The product over the given axes; 1 over nothing. Integers wrap around in their own type."""

    name = "Prod"
    op = "mul"

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """Of a vector of sizes: how many elements the shape has."""
        factors, axes = value_sizes(op.inputs[0]), value_sizes(op.inputs[1])
        if op.inputs[0].sizes is None or len(op.inputs[0].sizes) != 1:
            return None
        if factors is None or axes not in ((0,), (-1,)):
            return None
        total = dims.product(factors)
        return (total,) if fits(total, op.outputs[0].dtype) else None

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g`` times the product of the others, zeros among them or not.

        Written so that second derivatives hold too, where one or two elements are 0.
        """
        x, axes = op.inputs
        keep = op.attrs["keep_dims"]

        def total(kind: str, value: Tensor) -> Tensor:
            return expand(call(kind, value, axes, keep_dims=keep), op)

        assert grads[0] is not None
        zero = call("Equal", x, 0)
        nonzero = call("SelectV2", zero, 1, x)
        count = total("Sum", call("Cast", zero, DstT=x.dtype.base_dtype))
        other_zero = call("Sub", total("Sum", call("SelectV2", zero, x, 0)), x)
        twice = call("SelectV2", call("Equal", count, 2), other_zero, 0)
        factor = call("SelectV2", call("Equal", count, 1), 1, twice)
        at_zero = call("Mul", total("Prod", nonzero), factor)
        elsewhere = call("RealDiv", expand(op.outputs[0], op), nonzero)
        others = call("SelectV2", zero, at_zero, elsewhere)
        return [call("Mul", expand(grads[0], op), others), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's, floats accumulated in float64."""
        x = np.asarray(inputs[0])
        wide = np.float64 if dtypes.is_float(x.dtype) else x.dtype
        axes = numpy_axes(inputs[1], x.ndim)
        return np.prod(x, axes, dtype=wide, keepdims=attrs["keep_dims"]).astype(x.dtype)

    def samples(self) -> Iterable[Sample]:
        """Those of every reduction, few factors at a time; one zero, two zeros."""
        x = grid(2, 3, 4, low=0.5, high=1.5)
        for sample in super().samples():
            if np.shape(sample.inputs[0]) != (3, 4, 5):
                yield sample
        for axes in ([0], [1, 2], [-1], [0, 1, 2]):
            yield Sample((x, np.array(axes)), {"keep_dims": len(axes) == 1}, rtol=1e-5)
        zeros = np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 3.0], [1.0, 2.0, 3.0]])
        yield Sample((zeros, np.array([1])), note="zeros")


class _Extremum(AxisReduction):
    def accumulator(self, dtype: DType) -> DType:
        """The type itself."""
        return dtype

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient, split equally among the elements that are the extremum."""
        x, axes = op.inputs
        assert grads[0] is not None
        equal = call("Equal", x, expand(op.outputs[0], op))
        chosen = call("Cast", equal, DstT=x.dtype.base_dtype)
        count = call("Sum", chosen, axes, keep_dims=op.attrs["keep_dims"])
        share = call("RealDiv", chosen, expand(count, op))
        return [call("Mul", share, expand(grads[0], op)), None]


@register
class Max(_Extremum):
    """The largest element over the given axes, NaN if one is.

    Over nothing: -inf, or the least integer of the type.
    """

    name = "Max"
    op = "max"

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's."""
        x = np.asarray(inputs[0])
        least = ir.reduce_identity("max", dtypes.as_dtype(x.dtype)).value
        axes = numpy_axes(inputs[1], x.ndim)
        return np.max(x, axes, keepdims=attrs["keep_dims"], initial=least)


@register
class Min(_Extremum):
    """The smallest element over the given axes, NaN if one is.

    Over nothing: inf, or the greatest integer of the type.
    """

    name = "Min"
    op = "min"

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's."""
        x = np.asarray(inputs[0])
        greatest = ir.reduce_identity("min", dtypes.as_dtype(x.dtype)).value
        axes = numpy_axes(inputs[1], x.ndim)
        return np.min(x, axes, keepdims=attrs["keep_dims"], initial=greatest)


class _LogicalReduction(AxisReduction):
    inputs = "input: bool, reduction_indices: int32|int64"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {}
    differentiable = False

    def samples(self) -> Iterable[Sample]:
        """Each axis, both, none; kept; nothing."""
        x = np.array([[True, False, True], [True, True, True]])
        for axes in ([0], [1], [0, 1], [], [-1]):
            yield Sample((x, np.array(axes, np.int64)), {"keep_dims": len(axes) == 1})
        yield Sample((x, np.int64(1)), note="scalar axis")
        yield Sample((np.zeros((0, 3), bool), np.array([0])), note="reduced nothing")


@register
class Any_(_LogicalReduction):
    """Whether one element over the given axes is true; false over nothing."""

    name = "Any"
    op = "or"

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's."""
        x = np.asarray(inputs[0])
        return np.any(x, numpy_axes(inputs[1], x.ndim), keepdims=attrs["keep_dims"])


@register
class All(_LogicalReduction):
    """Whether every element over the given axes is true; true over nothing."""

    name = "All"
    op = "and"

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's."""
        x = np.asarray(inputs[0])
        return np.all(x, numpy_axes(inputs[1], x.ndim), keepdims=attrs["keep_dims"])
