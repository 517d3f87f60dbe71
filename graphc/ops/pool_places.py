"""Which element of a pooling window is the largest, and what goes to and from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.graph import TensorType
from graphc.loop import ir
from graphc.op import (
    DECLARING,
    Attr,
    ElementContext,
    ElementOp,
    InferContext,
    Reduction,
    ReductionOp,
    Sample,
    register,
)
from graphc.ops.base import NAN, grid
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
    whole,
)
from graphc.ops.movement_value import all_of
from graphc.ops.pool import (
    POOL_ATTRS,
    infer_pool,
    pool_attrs,
    pool_axes,
    split_index,
    window_views,
)

INT32 = dtypes.int32
Term = Callable[[Index, Index, Index], ir.Expr]


def taps_of(attrs: dict[str, Any]) -> tuple[int, int]:
    """The taps of a window, in height and width."""
    h, w, _ = image_axes(attrs["data_format"])
    return attrs["ksize"][h], attrs["ksize"][w]


def check_same(ctx: InferContext, expected: Sizes, operand: int) -> None:
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
    first: np.ndarray = np.where(found.any(-1), np.argmax(found, -1), found.shape[-1])
    return first


def tap_places(
    attrs: dict[str, Any], image: Sizes, first: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the image for a tap of every window, and whether there is one."""
    (h, w), (kh, kw) = pool_axes(attrs, image), taps_of(attrs)
    oh, ow = np.arange(first.shape[1])[:, None, None], np.arange(first.shape[2])[:, None]
    rows = oh * h.stride - whole(h.before) + first // kw
    columns = ow * w.stride - whole(w.before) + first % kw
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
        check_same(ctx, out, 1)
        return [TensorType(INT32, out)]

    def reduction(self, ctx: ElementContext, index: Index) -> Reduction:
        """The least of the taps at which the condition holds."""
        attrs, (kh, kw) = ctx.op.attrs, taps_of(ctx.op.attrs)
        axes = pool_axes(attrs, ctx.sizes(0))
        n, c, place = split_index(attrs, index)
        largest, nowhere = ctx.operand(1, index), kh * kw

        def body(taps: Index) -> ir.Expr:
            at, inside = tap(ctx, axes, place, taps)
            x = ctx.operand(0, arranged(attrs["data_format"], n, at, c))
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


def covering_sum(
    ctx: ElementContext, axes: Sequence[Axis], index: Index, term: Term, dtype: DType
) -> Reduction:
    """The sum of ``term(place, window, tap)`` over the windows that cover a place of the image."""
    attrs, wide = ctx.op.attrs, accumulator(dtype)
    n, c, place = split_index(attrs, index)

    def body(nth: Index) -> ir.Expr:
        found = [covering(ctx, a, i, k) for a, i, k in zip(axes, place, nth, strict=True)]
        conditions = [cond for _, _, conds in found for cond in conds]
        window, taps = tuple(f[0] for f in found), tuple(f[1] for f in found)
        value = term(arranged(attrs["data_format"], n, window, c), window, taps)
        return only_where(all_of(conditions), ir.cast(value, wide), 0)

    extents = tuple(coverings(axis) for axis in axes)
    return Reduction("add", extents, body, lambda v: ir.cast(v, dtype), wide)


def accumulator(dtype: DType) -> DType:
    """What gradients are added up in."""
    return dtype.accumulator


class _PoolBack:
    """What both ways to bring gradients to the largest elements share."""

    inputs = "first: int32, grad: T, like: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    attrs: ClassVar[dict[str, Attr]] = POOL_ATTRS
    shape_operands: ClassVar[tuple[int, ...]] = (2,)
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape of ``like``."""
        image = ctx.rank(2, 4)
        out = infer_pool(ctx, image)
        check_same(ctx, out, 0)
        check_same(ctx, out, 1)
        return [TensorType(ctx.dtype(1), image)]

    def chosen(self, ctx: ElementContext, index: Index) -> Reduction:
        """The gradients of the windows whose tap this is."""
        (_, kw), axes = taps_of(ctx.op.attrs), pool_axes(ctx.op.attrs, ctx.sizes(2))

        def term(at: Index, _: Index, taps: Index) -> ir.Expr:
            number = ir.cast(ir.add(ir.mul(taps[0], kw), taps[1]), INT32)
            grad = ctx.operand(1, at)
            return ir.select(ir.apply("eq", ctx.operand(0, at), number), grad, 0)

        return covering_sum(ctx, axes, index, term, ctx.op.outputs[0].dtype)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's add.at."""
        return scattered(attrs, *(np.asarray(v) for v in inputs))


def scattered(
    attrs: dict[str, Any], first: np.ndarray, grad: np.ndarray, like: np.ndarray
) -> np.ndarray:
    """Gradients of windows added up at their taps."""
    image = as_nhwc(like, attrs["data_format"]).shape
    first, grad = (as_nhwc(v, attrs["data_format"]) for v in (first, grad))
    rows, columns, there = tap_places(attrs, like.shape, first)
    out = np.zeros(image, np.float64 if dtypes.is_float(grad.dtype) else grad.dtype)
    n, c = np.arange(image[0])[:, None, None, None], np.arange(image[3])
    np.add.at(out, (n, rows, columns, c), np.where(there, grad, 0))
    return of_nhwc(out, attrs["data_format"]).astype(grad.dtype)


def back_samples(overlapping: bool) -> Iterable[Sample]:
    """The samples of max pooling whose windows overlap, or do not."""
    for x, y, g, attrs, note in max_pool_cases():
        if overlap(attrs, x.shape) is overlapping:
            first = of_nhwc(first_largest(x, y, attrs), attrs["data_format"])
            yield Sample((first, g, x), attrs, note=note)


def overlap(attrs: dict[str, Any], image: Sizes) -> bool:
    """Whether one element can be in several windows."""
    return any(coverings(axis) > 1 for axis in pool_axes(attrs, image))


@register
class PoolScatter(_PoolBack, ReductionOp):
    """``grad`` of each window at its tap ``first``, summed where windows overlap.

    The result has the shape of ``like``, of which nothing but the shape is used.
    """

    name = "PoolScatter"

    def reduction(self, ctx: ElementContext, index: Index) -> Reduction:
        """The sum over the windows whose tap this is."""
        return self.chosen(ctx, index)

    def samples(self) -> Iterable[Sample]:
        """Overlapping windows, and others."""
        yield from back_samples(True)
        yield from back_samples(False)


@register
class PoolPlace(_PoolBack, ElementOp):
    """``grad`` of each window at its tap ``first``, for windows that do not overlap.

    The result has the shape of ``like``, of which nothing but the shape is used.
    """

    name = "PoolPlace"

    def element(self, ctx: ElementContext, index: Index) -> ir.Expr:
        """The gradient of the only window that this can be in."""
        found = self.chosen(ctx, index)
        return found.finish(found.body((ir.ZERO, ir.ZERO)))

    def samples(self) -> Iterable[Sample]:
        """Windows that do not overlap."""
        return back_samples(False)


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
        check_same(ctx, out, 0)
        return [TensorType(ctx.dtype(1), out)]

    def element(self, ctx: ElementContext, index: Index) -> ir.Expr:
        """The element at the tap."""
        attrs, (kh, kw) = ctx.op.attrs, taps_of(ctx.op.attrs)
        n, c, place = split_index(attrs, index)
        first = ir.cast(ctx.operand(0, index), dtypes.int64)
        taps = (ir.index_div(first, kw), ir.index_mod(first, kw))
        at, _ = tap(ctx, pool_axes(attrs, ctx.sizes(1)), place, taps)
        value = ctx.operand(1, arranged(attrs["data_format"], n, at, c))
        return only_where(first < kh * kw, value, 0)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's indexing by arrays."""
        return gathered(attrs, np.asarray(inputs[0]), np.asarray(inputs[1]))

    def samples(self) -> Iterable[Sample]:
        """Those of the gradient."""
        for x, y, _, attrs, note in max_pool_cases():
            first = of_nhwc(first_largest(x, y, attrs), attrs["data_format"])
            yield Sample((first, x * 0.5 + 0.1), attrs, note=note)


def gathered(attrs: dict[str, Any], first: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The elements at the taps of windows."""
    rows_of = as_nhwc(first, attrs["data_format"])
    rows, columns, there = tap_places(attrs, value.shape, rows_of)
    image = as_nhwc(value, attrs["data_format"])
    n, c = np.arange(image.shape[0])[:, None, None, None], np.arange(image.shape[3])
    found = np.where(there, image[n, rows, columns, c], np.zeros((), image.dtype))
    return of_nhwc(found, attrs["data_format"])
