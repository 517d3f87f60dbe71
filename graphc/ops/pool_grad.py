"""The gradients of pooling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    Attr,
    CompositeOp,
    ElementContext,
    Gradients,
    InferContext,
    Reduction,
    ReductionOp,
    Sample,
    register,
)
from graphc.ops.base import call
from graphc.ops.conv_window import Index, as_nhwc, of_nhwc, padded_array, whole
from graphc.ops.movement_value import operand_values
from graphc.ops.pool import POOL_ATTRS, infer_pool, pool_axes, window_count, window_views
from graphc.ops.pool_places import (
    accumulator,
    check_same,
    covering_sum,
    first_largest,
    gathered,
    max_pool_cases,
    overlap,
    scattered,
    taps_of,
)


class _MaxPoolGradient(CompositeOp):
    inputs = "orig_input: T, orig_output: T, grad: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    attrs: ClassVar[dict[str, Attr]] = POOL_ATTRS
    reverse: ClassVar[str] = ""

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Linear in ``grad``: the transposed map of the gradient."""
        x, y, _ = op.inputs
        return [None, None, call(self.reverse, x, y, grads[0], **op.attrs)]


@register
class MaxPoolGrad(_MaxPoolGradient):
    """``grad`` of each window at its first largest element, summed where windows overlap."""

    name = "MaxPoolGrad"
    reverse = "MaxPoolGradGrad"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape of ``orig_input``."""
        image = ctx.rank(0, 4)
        out = infer_pool(ctx, image)
        check_same(ctx, out, 1)
        check_same(ctx, out, 2)
        return [TensorType(ctx.dtype(0), image)]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Which tap is the first largest, and the sum of the gradients there."""
        x, y, grad = inputs
        first = call("PoolFirst", x, y, **op.attrs)
        kind = "PoolScatter" if overlap(op.attrs, x.sizes or ()) else "PoolPlace"
        return [call(kind, first, grad, x, **op.attrs)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The parts' references."""
        x, y, grad = (np.asarray(v) for v in inputs)
        first = of_nhwc(first_largest(x, y, attrs), attrs["data_format"])
        return scattered(attrs, first, grad, x)

    def samples(self) -> Iterable[Sample]:
        """Both paddings, overlapping windows, gaps, both layouts, equal elements."""
        for x, y, g, attrs, note in max_pool_cases():
            yield Sample((x, y, g), attrs, grad=(2,), note=note)


@register
class MaxPoolGradGrad(_MaxPoolGradient):
    """The element of ``grad`` where ``orig_input`` has the first largest of each window."""

    name = "MaxPoolGradGrad"
    reverse = "MaxPoolGrad"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape of ``orig_output``."""
        image = ctx.rank(0, 4)
        out = infer_pool(ctx, image)
        check_same(ctx, out, 1)
        check_same(ctx, image, 2)
        return [TensorType(ctx.dtype(0), out)]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Which tap is the first largest, and the element there."""
        x, y, grad = inputs
        first = call("PoolFirst", x, y, **op.attrs)
        return [call("PoolGather", first, grad, **op.attrs)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The parts' references."""
        x, y, grad = (np.asarray(v) for v in inputs)
        first = of_nhwc(first_largest(x, y, attrs), attrs["data_format"])
        return gathered(attrs, first, grad)

    def samples(self) -> Iterable[Sample]:
        """Both paddings, overlapping windows, gaps, both layouts, equal elements."""
        for x, y, _, attrs, note in max_pool_cases():
            yield Sample((x, y, x * 0.5 + 0.1), attrs, grad=(2,), note=note)


@register
class AvgPoolGrad(ReductionOp):
    """``grad`` of each window over the window's count, summed where windows overlap."""

    name = "AvgPoolGrad"
    inputs = "orig_input_shape: int32, grad: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = POOL_ATTRS
    value_operands: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes asked for."""
        image: tuple[DimLike, ...] = operand_values(ctx, 0, 4)
        check_same(ctx, infer_pool(ctx, image), 1)
        return [TensorType(ctx.dtype(1), image)]

    def reduction(self, ctx: ElementContext, index: Index) -> Reduction:
        """The sum over the windows that cover the place."""
        dtype = ctx.op.outputs[0].dtype
        wide, axes = accumulator(dtype), pool_axes(ctx.op.attrs, ctx.out_sizes())

        def term(at: Index, window: Index, _: Index) -> ir.Expr:
            count = ir.cast(window_count(ctx, axes, window), wide)
            return ir.apply("div", ir.cast(ctx.operand(1, at), wide), count)

        return covering_sum(ctx, axes, index, term, dtype)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The mean of the gradient's windows."""
        return [None, call("AvgPool", grads[0], **op.attrs)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's sums of what each tap takes."""
        shape, grad = tuple(int(s) for s in inputs[0]), np.asarray(inputs[1])
        count = np.sum(window_views(np.ones(shape), attrs, 0), -1)
        share = as_nhwc(grad, attrs["data_format"]).astype(np.float64) / count
        h, w = axes = pool_axes(attrs, shape)
        (kh, kw), image = taps_of(attrs), as_nhwc(np.zeros(shape), attrs["data_format"])
        out = padded_array(image, axes)
        for i, j in np.ndindex(kh, kw):
            rows = i + np.arange(share.shape[1]) * h.stride
            columns = j + np.arange(share.shape[2]) * w.stride
            out[:, rows[:, None], columns] += share
        inside = (slice(whole(a.before), whole(a.before + a.size)) for a in axes)
        return of_nhwc(out[:, *inside], attrs["data_format"]).astype(grad.dtype)

    def samples(self) -> Iterable[Sample]:
        """Those of the largest element's gradient."""
        for x, _, g, attrs, note in max_pool_cases():
            yield Sample((np.array(x.shape), g), attrs, note=note)
