"""Depthwise convolutions: every channel of an image by a filter of its own.

As contractions they would have a single column and a handful of products; as sums over a few taps
the channels lie side by side in vectors, and what is done with the result is computed on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.graph import TensorType
from graphc.loop import ir
from graphc.op import (
    Attr,
    ElementContext,
    InferContext,
    Reduction,
    ReductionOp,
    Sample,
    register,
)
from graphc.ops.base import grid
from graphc.ops.conv_core import (
    SPATIAL,
    check_pairs,
    check_places,
    filter_reference,
    forward_reference,
    places,
)
from graphc.ops.conv_window import Index


def _place(attrs: dict[str, Any], at: Index, taps: Index) -> Index:
    """Where taps of windows fall on the padded image."""
    rows = zip(at, taps, attrs["strides"], attrs["dilations"], strict=True)
    return tuple(ir.add(ir.mul(o, s), ir.mul(t, d)) for o, t, s, d in rows)


@register
class DepthwiseCore(ReductionOp):
    """A depthwise convolution of an image (NHWC) that needs no padding with a filter (HW1C)."""

    name = "DepthwiseCore"
    inputs = "input: T, filter: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = SPATIAL
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The places of the window and the channels."""
        image, kernel = ctx.rank(0, 4), ctx.rank(1, 4)
        check_pairs(ctx, "strides", "dilations")
        ctx.equal(kernel[2], 1, "A filter sees one channel")
        ctx.equal(image[3], kernel[3], "Numbers of channels must be equal")
        return [TensorType(ctx.dtype(0), (image[0], *places(ctx, image, kernel), kernel[3]))]

    def reduction(self, ctx: ElementContext, index: Index) -> Reduction:
        """The sum over the taps."""
        (n, *at, c), kernel = index, ctx.sizes(1)
        dtype = ctx.op.outputs[0].dtype.base_dtype
        wide = dtype.accumulator

        def body(taps: Index) -> ir.Expr:
            place = _place(ctx.op.attrs, tuple(at), taps)
            value = ir.cast(ctx.operand(0, (n, *place, c)), wide)
            return ir.mul(value, ir.cast(ctx.operand(1, (*taps, ir.ZERO, c)), wide))

        return Reduction("add", tuple(kernel[:2]), body, lambda v: ir.cast(v, dtype), wide)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """A sum of NumPy's products, one for each tap."""
        x, kernel = (np.asarray(v) for v in inputs)
        return forward_reference(x, kernel, {**attrs, "groups": x.shape[3]}).astype(x.dtype)

    def samples(self) -> Iterable[Sample]:
        """Strides, dilations, more channels than lanes, nothing."""
        x = grid(2, 6, 7, 4)
        yield Sample((x, grid(3, 2, 1, 4)), rtol=1e-5)
        yield Sample((x, grid(2, 2, 1, 4)), {"strides": (2, 1)}, rtol=1e-5, note="strides")
        yield Sample((x, grid(3, 2, 1, 4)), {"dilations": (2, 3)}, rtol=1e-5)
        yield Sample((grid(1, 3, 3, 40), grid(3, 3, 1, 40)), rtol=1e-5, note="one place")
        yield Sample((np.zeros((0, 3, 3, 2)), grid(2, 2, 1, 2)), grad=(), note="empty")


@register
class DepthwiseFilterCore(ReductionOp):
    """The gradient of a filter of ``ksize`` (height, width) taps, HW1C, of ``DepthwiseCore``.

    ``input`` is the padded image, ``out_backprop`` the gradient of the convolution, both NHWC.
    """

    name = "DepthwiseFilterCore"
    inputs = "input: T, out_backprop: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = {**SPATIAL, "ksize": Attr("ints")}
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The taps and the channels."""
        image, grad = ctx.rank(0, 4), ctx.rank(1, 4)
        check_pairs(ctx, "strides", "dilations", "ksize")
        ctx.equal(image[0], grad[0])
        ctx.equal(image[3], grad[3], "Numbers of channels must be equal")
        check_places(ctx, image, grad)
        return [TensorType(ctx.dtype(0), (*ctx.attrs["ksize"], 1, grad[3]))]

    def reduction(self, ctx: ElementContext, index: Index) -> Reduction:
        """The sum over images and places."""
        (*taps, _, c), grad = index, ctx.sizes(1)
        dtype = ctx.op.outputs[0].dtype.base_dtype
        wide = dtype.accumulator

        def body(at: Index) -> ir.Expr:
            place = _place(ctx.op.attrs, at[1:], tuple(taps))
            value = ir.cast(ctx.operand(0, (at[0], *place, c)), wide)
            return ir.mul(value, ir.cast(ctx.operand(1, (*at, c)), wide))

        return Reduction("add", tuple(grad[:3]), body, lambda v: ir.cast(v, dtype), wide)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """A product of NumPy's for each tap."""
        x, grad = (np.asarray(v) for v in inputs)
        return filter_reference(x, grad, {**attrs, "groups": x.shape[3]}).astype(x.dtype)

    def samples(self) -> Iterable[Sample]:
        """Strides, dilations, more channels than lanes, nothing."""
        x = grid(2, 6, 7, 4)
        yield Sample((x, grid(2, 4, 6, 4)), {"ksize": (3, 2)}, rtol=1e-5)
        yield Sample((x, grid(2, 3, 3, 4)), {"ksize": (2, 2), "strides": (2, 2)}, rtol=1e-5)
        yield Sample((x, grid(2, 2, 4, 4)), {"ksize": (3, 2), "dilations": (2, 3)}, rtol=1e-5)
        empty = (np.zeros((0, 3, 3, 2)), np.zeros((0, 2, 2, 2)))
        yield Sample(empty, {"ksize": (2, 2)}, grad=(), note="empty")
