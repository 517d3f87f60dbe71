"""Pooling over windows of images: the largest or the mean element."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    Attr,
    ElementContext,
    Gradients,
    InferContext,
    Reduction,
    ReductionOp,
    Sample,
    register,
)
from graphc.ops.base import INF, NAN, call, grid
from graphc.ops.conv_window import (
    Axis,
    Index,
    Sizes,
    arranged,
    as_nhwc,
    check_fits,
    check_window,
    image_axes,
    of_nhwc,
    only_where,
    padded_array,
    tap,
    whole,
    windows,
)
from graphc.ops.movement_value import shape_tensor

POOL_ATTRS: dict[str, Attr] = {
    "ksize": Attr("ints"),
    "strides": Attr("ints"),
    "padding": Attr("str"),
    "data_format": Attr("str", "NHWC"),
}


def pool_axes(attrs: dict[str, Any], image: Sizes) -> list[Axis]:
    """The windows along height and width."""
    h, w, _ = image_axes(attrs["data_format"])
    return windows(attrs, image, (attrs["ksize"][h], attrs["ksize"][w]))


def pooled_sizes(attrs: dict[str, Any], image: Sizes) -> Sizes:
    """The sizes of the result for those of the image."""
    h, w = pool_axes(attrs, image)
    channels = image[image_axes(attrs["data_format"])[2]]
    return arranged(attrs["data_format"], image[0], (h.out, w.out), channels)


def infer_pool(ctx: InferContext, image: Sizes) -> Sizes:
    """The same, checked."""
    check_window(ctx, ("ksize", "strides"))
    check_fits(ctx, pool_axes(ctx.attrs, image))
    return pooled_sizes(ctx.attrs, image)


def split_index(attrs: dict[str, Any], index: Index) -> tuple[ir.Expr, ir.Expr, Index]:
    """Batch, channel and place of an index of an image."""
    h, w, c = image_axes(attrs["data_format"])
    return index[0], index[c], (index[h], index[w])


class Pool(ReductionOp):
    """What both kinds of pooling share."""

    inputs = "value: T"
    attrs: ClassVar[dict[str, Attr]] = POOL_ATTRS

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The places of the window."""
        return [TensorType(ctx.dtype(0), infer_pool(ctx, ctx.rank(0, 4)))]

    def window_body(
        self, ctx: ElementContext, index: Index, outside: Any, dtype: DType
    ) -> tuple[Sequence[Axis], Any]:
        """The windows, and the element at given taps: ``outside`` where that is padding."""
        attrs = ctx.op.attrs
        axes = pool_axes(attrs, ctx.sizes(0))
        n, c, place = split_index(attrs, index)

        def body(taps: Index) -> ir.Expr:
            at, inside = tap(ctx, axes, place, taps)
            value = ctx.operand(0, arranged(attrs["data_format"], n, at, c))
            return only_where(inside, ir.cast(value, dtype), outside)

        return axes, body

    def samples(self) -> Iterable[Sample]:
        """Both paddings, overlapping windows, gaps, both layouts, nothing."""
        x = grid(2, 5, 6, 3)
        for ksize, strides, padding in (
            ((2, 2), (2, 2), "VALID"), ((2, 2), (2, 2), "SAME"), ((3, 2), (1, 1), "SAME"),
            ((3, 3), (2, 2), "SAME"), ((1, 2), (2, 3), "VALID"), ((2, 3), (1, 2), "VALID"),
        ):  # fmt: skip
            yield Sample((x,), pool_attrs(ksize, strides, padding))
        nchw = pool_attrs((3, 2), (2, 2), "SAME", "NCHW")
        yield Sample((np.moveaxis(x, 3, 1),), nchw, note="NCHW")
        yield Sample((grid(1, 1, 1, 1),), pool_attrs((1, 1), (1, 1), "VALID"), note="size 1")
        empty = np.zeros((0, 4, 4, 2))
        yield Sample((empty,), pool_attrs((2, 2), (2, 2), "SAME"), grad=(), note="empty")


def pool_attrs(
    ksize: tuple[int, int], strides: tuple[int, int], padding: str, data_format: str = "NHWC"
) -> dict[str, Any]:
    """The attributes of pooling by windows of height and width."""
    return {
        "ksize": arranged(data_format, 1, ksize, 1),
        "strides": arranged(data_format, 1, strides, 1),
        "padding": padding,
        "data_format": data_format,
    }


def window_views(x: Any, attrs: dict[str, Any], outside: Any) -> np.ndarray:
    """The elements of each window of an array: ``[n, oh, ow, c, taps]``."""
    h, w = pool_axes(attrs, np.shape(x))
    padded = padded_array(as_nhwc(x, attrs["data_format"]), (h, w), outside)
    kh, kw = whole(h.taps), whole(w.taps)
    # Where there is no place for a window, NumPy asks for room all the same.
    room = [(0, max(0, k - n)) for k, n in zip((kh, kw), padded.shape[1:3], strict=True)]
    padded = np.pad(padded, ((0, 0), *room, (0, 0)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), (1, 2))
    views = views[:, :: h.stride, :: w.stride][:, : whole(h.out), : whole(w.out)]
    return views.reshape(*views.shape[:4], kh * kw)


@register
class MaxPool(Pool):
    """The largest element of each window, padding left out; NaN if one is."""

    name = "MaxPool"
    inputs = "input: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}

    def reduction(self, ctx: ElementContext, index: Index) -> Reduction:
        """The maximum over the taps."""
        dtype = ctx.op.inputs[0].dtype.base_dtype
        least = ir.reduce_identity("max", dtype).value
        axes, body = self.window_body(ctx, index, least, dtype)
        return Reduction("max", tuple(a.taps for a in axes), body)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient of each window goes to its first largest element."""
        return [call("MaxPoolGrad", op.inputs[0], op.outputs[0], grads[0], **op.attrs)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's maximum of the windows."""
        x = np.asarray(inputs[0])
        least = ir.reduce_identity("max", dtypes.as_dtype(x.dtype)).value
        return of_nhwc(np.max(window_views(x, attrs, least), -1), attrs["data_format"])

    def samples(self) -> Iterable[Sample]:
        """Those of all pooling, and special values."""
        yield from super().samples()
        x = np.array([[NAN, 1.0, INF, 2.0], [0.0, 3.0, 4.0, -INF]]).reshape(1, 2, 4, 1)
        attrs = pool_attrs((2, 2), (1, 1), "SAME")
        yield Sample((x,), attrs, grad=(), dtypes=dtypes.FLOATS, note="special")


@register
class AvgPool(Pool):
    """The mean of the elements of each window, padding left out of sum and count."""

    name = "AvgPool"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}

    def reduction(self, ctx: ElementContext, index: Index) -> Reduction:
        """The sum over the taps, divided by how many are no padding."""
        dtype = ctx.op.inputs[0].dtype.base_dtype
        wide = dtype.accumulator
        axes, body = self.window_body(ctx, index, 0, wide)
        _, _, place = split_index(ctx.op.attrs, index)

        def finish(total: ir.Expr) -> ir.Expr:
            count = ir.cast(window_count(ctx, axes, place), wide)
            return ir.cast(ir.apply("div", total, count), dtype)

        return Reduction("add", tuple(a.taps for a in axes), body, finish, wide)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient of each window, shared among its elements."""
        return [call("AvgPoolGrad", shape_tensor(op.inputs[0]), grads[0], **op.attrs)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's sums of the windows, accumulated in float64, over their counts."""
        x = np.asarray(inputs[0])
        total = np.sum(window_views(x, attrs, 0), -1, dtype=np.float64)
        count = np.sum(window_views(np.ones(x.shape), attrs, 0), -1)
        return of_nhwc((total / count).astype(x.dtype), attrs["data_format"])


def window_count(ctx: ElementContext, axes: Sequence[Axis], place: Index) -> ir.Expr:
    """How many elements of a window are no padding."""
    count: ir.Expr = ir.ONE
    for axis, o in zip(axes, place, strict=True):
        length: ir.Expr = ctx.size(axis.taps)
        if not axis.inside:
            start = ir.sub(ir.mul(o, axis.stride), ctx.size(axis.before))
            end = ir.apply("min", ir.add(start, length), ctx.size(axis.size))
            length = ir.sub(end, ir.apply("max", start, ir.ZERO))
        count = ir.mul(count, length)
    return count
