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
    DECLARING,
    Attr,
    CompositeOp,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Reduction,
    ReductionOp,
    Sample,
    register,
)
from graphc.ops.base import NAN, call, grid
from graphc.ops.conv_window import (
    Axis,
    Index,
    Sizes,
    arranged,
    as_nhwc,
    covering,
    coverings,
    image_axes,
    of_nhwc,
    only_where,
    tap,
)
from graphc.ops.movement_value import all_of, operand_values
from graphc.ops.pool import (
    POOL_ATTRS,
    infer_pool,
    pool_attrs,
    pool_axes,
    split_index,
    window_count,
    window_views,
)

INT32 = dtypes.int32


def _taps(attrs: dict[str, Any]) -> tuple[int, int]:
    h, w, _ = image_axes(attrs["data_format"])
    return attrs["ksize"][h], attrs["ksize"][w]


def _check_same(ctx: InferContext, expected: Sizes, operand: int) -> None:
    """The operand must have the sizes of the pooled image."""
    for a, b in zip(expected, ctx.rank(operand, 4), strict=True):
        if ctx.env is not DECLARING or (isinstance(a, int) and isinstance(b, int)):
            ctx.equal(a, b)


def first_largest(x: np.ndarray, y: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    """In every window (NHWC) the first tap that equals the largest, or is NaN."""
    least = ir.reduce_identity("max", dtypes.as_dtype(x.dtype)).value
    views = window_views(x, attrs, least)
    inside = window_views(np.ones(x.shape, bool), attrs, False)
    found = inside & ((views == as_nhwc(y, attrs["data_format"])[..., None]) | (views != views))
    return np.where(found.any(-1), np.argmax(found, -1), found.shape[-1])


def tap_places(
    attrs: dict[str, Any], image: Sizes, first: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the image for a tap of every window, and whether there is one."""
    (h, w), (kh, kw) = pool_axes(attrs, image), _taps(attrs)
    oh, ow = np.arange(first.shape[1])[:, None, None], np.arange(first.shape[2])[:, None]
    rows = oh * h.stride - h.before + first // kw
    columns = ow * w.stride - w.before + first % kw
    there = first < kh * kw
    return np.where(there, rows, 0), np.where(there, columns, 0), there


def grads_of(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Gradients for a sample's pooled image."""
    return grid(*shape, low=-1.0).astype(dtype)


@register
class PoolFirst(ReductionOp):
    """The first tap of each window of ``value`` that equals ``largest``, or is NaN.

    Taps are numbered row by row; the number of taps where there is none.
    """

    name = "PoolFirst"
    inputs = "value: T, largest: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    attrs: ClassVar[dict[str, Attr]] = POOL_ATTRS
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The places of the window."""
        out = infer_pool(ctx, ctx.rank(0, 4))
        _check_same(ctx, out, 1)
        return [TensorType(INT32, out)]

    def reduction(self, ctx: ElementContext, index: Index) -> Reduction:
        """The least of the taps at which the condition holds."""
        attrs, (kh, kw) = ctx.op.attrs, _taps(ctx.op.attrs)
        axes = pool_axes(attrs, ctx.sizes(0))
        n, c, place = split_index(attrs, index)
        largest, nowhere = ctx.operand(1, index), kh * kw

        def body(taps: Index) -> ir.Expr:
            at, inside = tap(ctx, axes, place, taps)
            x = ctx.operand(0, arranged(attrs["data_format"], n, *at, c))
            found = ir.apply("eq", x, largest)
            if x.dtype.is_floating:
                found = ir.apply("or", found, ir.apply("isnan", x))
            number = ir.cast(ir.add(ir.mul(taps[0], kw), taps[1]), INT32)
            return only_where(inside, ir.select(found, number, nowhere), nowhere)

        return Reduction("min", (kh, kw), body)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's argmax of the condition."""
        x, y = (np.asarray(v) for v in inputs)
        return of_nhwc(first_largest(x, y, attrs), attrs["data_format"]).astype(np.int32)

    def samples(self) -> Iterable[Sample]:
        """Those of the gradient; equal elements; NaN."""
        for x, y, _, attrs, note in max_pool_cases():
            yield Sample((x, y), attrs, note=note)
        x = np.array([[NAN, 1.0, 2.0, 2.0], [0.0, NAN, 2.0, 2.0]]).reshape(1, 2, 4, 1)
        y = np.array([NAN, 2.0]).reshape(1, 1, 2, 1)
        yield Sample((x, y), pool_attrs((2, 2), (2, 2), "VALID"), dtypes=dtypes.FLOATS)


def max_pool_cases() -> Iterable[
    tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any], str]
]:
    """Images, their pooled images, gradients and attributes for samples."""
    x = grid(2, 5, 6, 3)
    for ksize, strides, padding in (
        ((2, 2), (2, 2), "VALID"), ((2, 2), (2, 2), "SAME"), ((3, 2), (1, 1), "SAME"),
        ((3, 3), (2, 2), "SAME"), ((1, 2), (2, 3), "VALID"), ((2, 3), (1, 2), "VALID"),
    ):  # fmt: skip
        attrs = pool_attrs(ksize, strides, padding)
        y = np.max(window_views(x, attrs, -9.0), -1)
        yield x, y, grads_of(y.shape, y.dtype), attrs, ""
    attrs = pool_attrs((3, 2), (2, 2), "SAME", "NCHW")
    nchw = np.moveaxis(x, 3, 1)
    y = np.moveaxis(np.max(window_views(nchw, attrs, -9.0), -1), 3, 1)
    yield nchw, y, grads_of(y.shape, y.dtype), attrs, "NCHW"
    ties = np.array([[1.0, 3.0, 3.0], [3.0, 3.0, 2.0], [0.0, 3.0, 3.0]]).reshape(1, 3, 3, 1)
    attrs = pool_attrs((2, 2), (1, 1), "VALID")
    y = np.max(window_views(ties, attrs, -9.0), -1)
    yield ties, y, grads_of(y.shape, y.dtype), attrs, "ties"


def _covering_sum(
    ctx: ElementContext,
    axes: Sequence[Axis],
    index: Index,
    term: Any,
    dtype: DType,
) -> Reduction:
    """The sum of ``term(window, tap)`` over the windows that cover a place of the image."""
    attrs = ctx.op.attrs
    n, c, place = split_index(attrs, index)

    def body(nth: Index) -> ir.Expr:
        found = [covering(ctx, a, i, k) for a, i, k in zip(axes, place, nth, strict=True)]
        conditions = [c for _, _, cs in found for c in cs]
        window = (found[0][0], found[1][0])
        at = arranged(attrs["data_format"], n, *window, c)
        value = term(at, window, (found[0][1], found[1][1]))
        return only_where(all_of(conditions), ir.cast(value, dtype), 0)

    return Reduction("add", (coverings(axes[0]), coverings(axes[1])), body, dtype=dtype)


def _accumulator(dtype: DType) -> DType:
    return dtypes.float32 if dtype is dtypes.float16 else dtype


@register
class PoolScatter(ReductionOp):
    """``grad`` of each window at its tap ``first``, summed where windows overlap.

    The result has the shape of ``like``, of which nothing but the shape is used.
    """

    name = "PoolScatter"
    inputs = "first: int32, grad: T, like: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    attrs: ClassVar[dict[str, Attr]] = POOL_ATTRS
    shape_operands: ClassVar[tuple[int, ...]] = (2,)
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape of ``like``."""
        image = ctx.rank(2, 4)
        out = infer_pool(ctx, image)
        _check_same(ctx, out, 0)
        _check_same(ctx, out, 1)
        return [TensorType(ctx.dtype(1), image)]

    def reduction(self, ctx: ElementContext, index: Index) -> Reduction:
        """The sum over the windows whose tap this is."""
        (_, kw), axes = _taps(ctx.op.attrs), pool_axes(ctx.op.attrs, ctx.sizes(2))
        dtype = ctx.op.outputs[0].dtype

        def term(at: Index, window: Index, taps: Index) -> ir.Expr:
            number = ir.cast(ir.add(ir.mul(taps[0], kw), taps[1]), INT32)
            grad = ctx.operand(1, at)
            return ir.select(ir.apply("eq", ctx.operand(0, at), number), grad, 0)

        found = _covering_sum(ctx, axes, index, term, _accumulator(dtype))
        return Reduction(
            "add", found.extents, found.body, lambda v: ir.cast(v, dtype), found.dtype
        )

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's add.at."""
        first, grad, like = (as_nhwc(v, attrs["data_format"]) for v in inputs)
        rows, columns, there = tap_places(attrs, np.shape(inputs[2]), first)
        wide = np.float64 if grad.dtype.kind == "f" else grad.dtype
        out = np.zeros(like.shape, wide)
        n, c = np.arange(like.shape[0])[:, None, None, None], np.arange(like.shape[3])
        np.add.at(out, (n, rows, columns, c), np.where(there, grad, 0))
        return of_nhwc(out, attrs["data_format"]).astype(grad.dtype)

    def samples(self) -> Iterable[Sample]:
        """Those of the gradient."""
        for x, y, g, attrs, note in max_pool_cases():
            first = of_nhwc(first_largest(x, y, attrs), attrs["data_format"])
            yield Sample((first, g, x), attrs, note=note)


@register
class PoolGather(ElementOp):
    """The element of ``value`` at the tap ``first`` of each window; 0 where there is none."""

    name = "PoolGather"
    inputs = "first: int32, value: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    attrs: ClassVar[dict[str, Attr]] = POOL_ATTRS
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The places of the window."""
        out = infer_pool(ctx, ctx.rank(1, 4))
        _check_same(ctx, out, 0)
        return [TensorType(ctx.dtype(1), out)]

    def element(self, ctx: ElementContext, index: Index) -> ir.Expr:
        """The element at the tap."""
        attrs, (kh, kw) = ctx.op.attrs, _taps(ctx.op.attrs)
        n, c, place = split_index(attrs, index)
        first = ir.cast(ctx.operand(0, index), dtypes.int64)
        taps = (ir.index_div(first, kw), ir.index_mod(first, kw))
        at, _ = tap(ctx, pool_axes(attrs, ctx.sizes(1)), place, taps)
        value = ctx.operand(1, arranged(attrs["data_format"], n, *at, c))
        return only_where(first < kh * kw, value, 0)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's indexing by arrays."""
        first, value = (as_nhwc(v, attrs["data_format"]) for v in inputs)
        rows, columns, there = tap_places(attrs, np.shape(inputs[1]), first)
        n, c = np.arange(value.shape[0])[:, None, None, None], np.arange(value.shape[3])
        return of_nhwc(np.where(there, value[n, rows, columns, c], 0), attrs["data_format"])

    def samples(self) -> Iterable[Sample]:
        """Those of the gradient."""
        for x, y, _, attrs, note in max_pool_cases():
            first = of_nhwc(first_largest(x, y, attrs), attrs["data_format"])
            yield Sample((first, x * 0.5 + 0.1), attrs, note=note)


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
        _check_same(ctx, out, 1)
        _check_same(ctx, out, 2)
        return [TensorType(ctx.dtype(0), image)]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Which tap is the first largest, and the sum of the gradients there."""
        x, y, grad = inputs
        first = call("PoolFirst", x, y, **op.attrs)
        return [call("PoolScatter", first, grad, x, **op.attrs)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The parts' references."""
        x, y, grad = (np.asarray(v) for v in inputs)
        first = of_nhwc(first_largest(x, y, attrs), attrs["data_format"])
        return PoolScatter.reference(PoolScatter(), attrs, first, grad, x)

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
        _check_same(ctx, out, 1)
        _check_same(ctx, image, 2)
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
        return PoolGather.reference(PoolGather(), attrs, first, grad)

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
        _check_same(ctx, infer_pool(ctx, image), 1)
        return [TensorType(ctx.dtype(1), image)]

    def reduction(self, ctx: ElementContext, index: Index) -> Reduction:
        """The sum over the windows that cover the place."""
        dtype = ctx.op.outputs[0].dtype
        wide, axes = _accumulator(dtype), pool_axes(ctx.op.attrs, ctx.out_sizes())

        def term(at: Index, window: Index, taps: Index) -> ir.Expr:
            count = ir.cast(window_count(ctx, axes, window), wide)
            return ir.apply("div", ir.cast(ctx.operand(1, at), wide), count)

        found = _covering_sum(ctx, axes, index, term, wide)
        return Reduction("add", found.extents, found.body, lambda v: ir.cast(v, dtype), wide)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The mean of the gradient's windows."""
        return [None, call("AvgPool", grads[0], **op.attrs)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's sums of what each tap takes."""
        shape, grad = tuple(int(s) for s in inputs[0]), np.asarray(inputs[1])
        count = np.sum(window_views(np.ones(shape), attrs, 0), -1)
        share = as_nhwc(grad, attrs["data_format"]).astype(np.float64) / count
        (h, w), (kh, kw) = pool_axes(attrs, shape), _taps(attrs)
        image = as_nhwc(np.zeros(shape), attrs["data_format"]).shape
        ends: Any = ((0, 0), (h.before, h.after), (w.before, w.after), (0, 0))
        out = np.pad(np.zeros(image), ends)
        for i, j in np.ndindex(kh, kw):
            rows = i + np.arange(share.shape[1]) * h.stride
            columns = j + np.arange(share.shape[2]) * w.stride
            out[:, rows[:, None], columns] += share
        top, left = int(h.before), int(w.before)  # type: ignore[arg-type]
        out = out[:, top : top + image[1], left : left + image[2]]
        return of_nhwc(out, attrs["data_format"]).astype(grad.dtype)

    def samples(self) -> Iterable[Sample]:
        """Those of the largest element's gradient."""
        for x, _, g, attrs, note in max_pool_cases():
            yield Sample((np.array(x.shape), g), attrs, note=note)
