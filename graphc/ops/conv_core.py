"""What convolutions are computed by: two contractions of padded images, and the padding.

Convolutions decompose into these after differentiation, so that they need no gradients.  Images
have their channels last, and every tap of every window falls onto the (padded) image: the
contractions' operands are affine in the loops, without conditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.graph import TensorType
from graphc.loop import ir
from graphc.op import (
    Attr,
    ContractionForm,
    ContractionOp,
    ElementContext,
    ElementOp,
    InferContext,
    Sample,
    register,
)
from graphc.ops.base import grid
from graphc.ops.conv_window import Index, only_where, slide, whole
from graphc.ops.movement_value import all_of

SPATIAL: dict[str, Attr] = {"strides": Attr("ints", (1, 1)), "dilations": Attr("ints", (1, 1))}


def channel(batch: Index, c: ir.Expr, per_group: DimLike, ctx: ElementContext) -> ir.Expr:
    """A channel of a group, among those of all groups."""
    return ir.add(ir.mul(batch[0], ctx.size(per_group)), c) if batch else c


def taps_of(x: np.ndarray, kh: int, kw: int, attrs: dict[str, Any], out: Sequence[int]) -> Any:
    """The part of a padded NHWC array that one tap sees, for each place of the window."""
    (sh, sw), (dh, dw) = attrs["strides"], attrs["dilations"]
    rows = slice(kh * dh, kh * dh + (out[0] - 1) * sh + 1, sh) if out[0] else slice(0, 0)
    columns = slice(kw * dw, kw * dw + (out[1] - 1) * sw + 1, sw) if out[1] else slice(0, 0)
    return x[:, rows, columns]


def forward_reference(x: np.ndarray, f: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    """A convolution of a padded NHWC array, accumulated in float64."""
    (kh, kw, ic, oc), groups = f.shape, attrs["groups"]
    out = [
        whole(slide(size, taps, stride, dilation).out)
        for size, taps, stride, dilation in zip(
            x.shape[1:3], (kh, kw), attrs["strides"], attrs["dilations"], strict=True
        )
    ]
    total = np.zeros((x.shape[0], *out, groups, oc // groups))
    weights = f.astype(np.float64).reshape(kh, kw, ic, groups, oc // groups)
    wide = x.astype(np.float64).reshape(*x.shape[:3], groups, ic)
    for i, j in np.ndindex(kh, kw):
        part = taps_of(wide, i, j, attrs, out)
        total += np.einsum("nhwgi,igo->nhwgo", part, weights[i, j])
    return total.reshape(*total.shape[:3], oc)


def filter_reference(x: np.ndarray, dy: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    """The gradient of a filter for a padded NHWC array, accumulated in float64."""
    (kh, kw), groups = attrs["ksize"], attrs["groups"]
    ic, oc = x.shape[3] // groups, dy.shape[3] // groups
    wide = x.astype(np.float64).reshape(*x.shape[:3], groups, ic)
    grads = dy.astype(np.float64).reshape(*dy.shape[:3], groups, oc)
    total = np.zeros((kh, kw, ic, groups, oc))
    for i, j in np.ndindex(kh, kw):
        part = taps_of(wide, i, j, attrs, dy.shape[1:3])
        total[i, j] = np.einsum("nhwgi,nhwgo->igo", part, grads)
    return total.reshape(kh, kw, ic, groups * oc)


def check_pairs(ctx: InferContext, *keys: str) -> None:
    """Refuse what is no pair of sizes: attributes may come out of a file."""
    for key in keys:
        value = ctx.attrs[key]
        if len(value) != 2 or not all(isinstance(v, int) and 1 <= v < 1 << 20 for v in value):
            raise ctx.error(f"{key} must be two positive numbers, not {value}")


def check_groups(ctx: InferContext, *channels: DimLike) -> None:
    """Refuse groups that do not divide the channels."""
    groups = ctx.attrs["groups"]
    if groups < 1:
        raise ctx.error(f"groups must be positive, not {groups}")
    for count in channels:
        if isinstance(count, int) and count % groups:
            raise ctx.error(f"{count} channels cannot be divided into {groups} groups")


def places(ctx: InferContext, image: Sequence[DimLike], taps: Sequence[DimLike]) -> list[DimLike]:
    """How many places a window has along height and width of a padded image (NHWC).

    Raises:
      ShapeError: it has none.
    """
    found = [
        slide(size, count, stride, dilation).out
        for size, count, stride, dilation in zip(
            image[1:3], taps[:2], ctx.attrs["strides"], ctx.attrs["dilations"], strict=True
        )
    ]
    if any(isinstance(count, int) and count < 0 for count in found):
        raise ctx.error(f"The window {taps[:2]} is larger than the image {image[1:3]}")
    return found


def check_places(ctx: InferContext, image: Sequence[DimLike], grad: Sequence[DimLike]) -> None:
    """A gradient (NHWC) has an element for every place of a window of ``ksize`` taps."""
    for have, count in zip(grad[1:3], places(ctx, image, ctx.attrs["ksize"]), strict=True):
        ctx.equal(count, have, "Places of the window must be equal")


@register
class Conv2DCore(ContractionOp):
    """A convolution of an image (NHWC) that needs no padding with a filter (HWIO).

    ``strides`` and ``dilations`` are of height and width.  With ``groups``, each output channel
    sees the image's channels of its group alone.
    """

    name = "Conv2DCore"
    inputs = "input: T, filter: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = {**SPATIAL, "groups": Attr("int", 1)}
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The places of the window and the filter's output channels."""
        image, kernel = ctx.rank(0, 4), ctx.rank(1, 4)
        check_pairs(ctx, "strides", "dilations")
        check_groups(ctx, kernel[3])
        ctx.equal(image[3], kernel[2] * ctx.attrs["groups"], "Numbers of channels must be equal")
        return [TensorType(ctx.dtype(0), (image[0], *places(ctx, image, kernel), kernel[3]))]

    def contraction(self, ctx: ElementContext) -> ContractionForm:
        """Rows are the places, columns the output channels; sums run over taps and channels."""
        (sh, sw), (dh, dw) = ctx.op.attrs["strides"], ctx.op.attrs["dilations"]
        groups = ctx.op.attrs["groups"]
        (kh, kw, ic, oc), out = ctx.sizes(1), ctx.out_sizes()
        per_group = dims.floordiv(oc, groups)

        def lhs(b: Index, m: Index, k: Index) -> ir.Expr:
            h = ir.add(ir.mul(m[1], sh), ir.mul(k[0], dh))
            w = ir.add(ir.mul(m[2], sw), ir.mul(k[1], dw))
            return ctx.operand(0, (m[0], h, w, channel(b, k[2], ic, ctx)))

        def rhs(b: Index, k: Index, n: ir.Expr) -> ir.Expr:
            return ctx.operand(1, (*k, channel(b, n, per_group, ctx)))

        def index(b: Index, m: Index, n: ir.Expr) -> Index:
            return (*m, channel(b, n, per_group, ctx))

        batch = (groups,) if groups > 1 else ()
        return ContractionForm(batch, out[:3], per_group, (kh, kw, ic), lhs, rhs, index)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """A sum of NumPy's products, one for each tap."""
        return forward_reference(np.asarray(inputs[0]), np.asarray(inputs[1]), attrs)

    def samples(self) -> Iterable[Sample]:
        """Windows of one and more taps, strides, dilations, groups, nothing."""
        x = grid(2, 6, 7, 4)
        yield Sample((x, grid(3, 2, 4, 5)), rtol=1e-5)
        yield Sample((x, grid(1, 1, 4, 3)), rtol=1e-5, note="pointwise")
        yield Sample((x, grid(2, 3, 4, 3)), {"strides": (2, 3)}, rtol=1e-5)
        yield Sample((x, grid(3, 2, 4, 3)), {"dilations": (2, 3)}, rtol=1e-5)
        yield Sample((x, grid(2, 2, 2, 6)), {"groups": 2}, rtol=1e-5, note="groups")
        attrs = {"strides": (2, 1), "groups": 4}
        yield Sample((x, grid(2, 2, 1, 8)), attrs, rtol=1e-5, note="depthwise")
        yield Sample((np.zeros((0, 3, 3, 2)), grid(2, 2, 2, 3)), grad=(), note="empty")


@register
class Conv2DFilterCore(ContractionOp):
    """The gradient of a filter of ``ksize`` (height, width) taps, HWIO, of ``Conv2DCore``.

    ``input`` is the padded image, ``out_backprop`` the gradient of the convolution, both NHWC.
    """

    name = "Conv2DFilterCore"
    inputs = "input: T, out_backprop: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = {
        **SPATIAL, "ksize": Attr("ints"), "groups": Attr("int", 1),
    }  # fmt: skip
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The taps, the channels of a group, the output channels."""
        image, grad = ctx.rank(0, 4), ctx.rank(1, 4)
        check_pairs(ctx, "strides", "dilations", "ksize")
        check_groups(ctx, image[3], grad[3])
        ctx.equal(image[0], grad[0])
        check_places(ctx, image, grad)
        channels = dims.floordiv(image[3], ctx.attrs["groups"])
        return [TensorType(ctx.dtype(0), (*ctx.attrs["ksize"], channels, grad[3]))]

    def contraction(self, ctx: ElementContext) -> ContractionForm:
        """Rows are taps and input channels, columns output channels; sums run over the places."""
        (sh, sw), (dh, dw) = ctx.op.attrs["strides"], ctx.op.attrs["dilations"]
        groups = ctx.op.attrs["groups"]
        grad, (kh, kw, ic, oc) = ctx.sizes(1), ctx.out_sizes()
        per_group = dims.floordiv(oc, groups)

        def lhs(b: Index, m: Index, k: Index) -> ir.Expr:
            h = ir.add(ir.mul(k[1], sh), ir.mul(m[0], dh))
            w = ir.add(ir.mul(k[2], sw), ir.mul(m[1], dw))
            return ctx.operand(0, (k[0], h, w, channel(b, m[2], ic, ctx)))

        def rhs(b: Index, k: Index, n: ir.Expr) -> ir.Expr:
            return ctx.operand(1, (*k, channel(b, n, per_group, ctx)))

        def index(b: Index, m: Index, n: ir.Expr) -> Index:
            return (*m, channel(b, n, per_group, ctx))

        batch = (groups,) if groups > 1 else ()
        return ContractionForm(batch, (kh, kw, ic), per_group, grad[:3], lhs, rhs, index)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """A product of NumPy's for each tap."""
        return filter_reference(np.asarray(inputs[0]), np.asarray(inputs[1]), attrs)

    def samples(self) -> Iterable[Sample]:
        """Windows of one and more taps, strides, dilations, groups, nothing."""
        x = grid(2, 6, 7, 4)
        yield Sample((x, grid(2, 4, 6, 5)), {"ksize": (3, 2)}, rtol=1e-5)
        yield Sample((x, grid(2, 6, 7, 3)), {"ksize": (1, 1)}, rtol=1e-5)
        yield Sample((x, grid(2, 3, 2, 3)), {"ksize": (2, 3), "strides": (2, 3)}, rtol=1e-5)
        yield Sample((x, grid(2, 2, 4, 3)), {"ksize": (3, 2), "dilations": (2, 3)}, rtol=1e-5)
        yield Sample((x, grid(2, 5, 6, 6)), {"ksize": (2, 2), "groups": 2}, rtol=1e-5)
        empty = (np.zeros((0, 3, 3, 2)), np.zeros((0, 2, 2, 3)))
        yield Sample(empty, {"ksize": (2, 2)}, grad=(), note="empty")


@register
class SpreadImage(ElementOp):
    """An image (NHWC) set into zeros: pixel ``i`` goes to ``i * stride + before``.

    The result has ``sizes`` rows and columns; pixels that fall outside are left out.  With stride
    1 this pads and crops.
    """

    name = "SpreadImage"
    inputs = "input: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = {
        "strides": Attr("ints", (1, 1)), "before": Attr("ints", (0, 0)), "sizes": Attr("ints"),
    }  # fmt: skip
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """Batch and channels of the image, rows and columns as asked for."""
        image = ctx.rank(0, 4)
        check_pairs(ctx, "strides")
        for key in ("before", "sizes"):
            if len(ctx.attrs[key]) != 2:
                raise ctx.error(f"{key} must be two numbers, not {ctx.attrs[key]}")
        if any(isinstance(size, int) and size < 0 for size in ctx.attrs["sizes"]):
            raise ctx.error(f"sizes must not be negative: {ctx.attrs['sizes']}")
        return [TensorType(ctx.dtype(0), (image[0], *ctx.attrs["sizes"], image[3]))]

    def element(self, ctx: ElementContext, index: Index) -> ir.Expr:
        """The pixel that went here, or 0."""
        attrs, at, conditions = ctx.op.attrs, [], []
        image = ctx.sizes(0)[1:3]
        rows = zip(
            index[1:3], attrs["strides"], attrs["before"], image, attrs["sizes"], strict=True
        )
        for i, stride, before, size, total in rows:
            moved = ir.sub(i, ctx.size(before))
            if before != 0:
                conditions.append(moved >= 0)
            pixel = ir.index_div(moved, stride)
            if stride > 1:
                conditions.append(ir.apply("eq", ir.index_mod(moved, stride), 0))
            if not dims.is_nonnegative(size * stride - (total - before)):
                conditions.append(pixel < ctx.size(size))
            at.append(pixel)
        return only_where(all_of(conditions), ctx.operand(0, (index[0], *at, index[3])), 0)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's assignment to a strided slice of a larger array."""
        x = np.asarray(inputs[0])
        out = np.zeros((x.shape[0], *attrs["sizes"], x.shape[3]), x.dtype)
        pairs = []
        for axis in range(2):
            places = np.arange(x.shape[1 + axis]) * attrs["strides"][axis] + attrs["before"][axis]
            kept = (places >= 0) & (places < attrs["sizes"][axis])
            pairs.append((places[kept], np.flatnonzero(kept)))
        (to_h, from_h), (to_w, from_w) = pairs
        out[:, to_h[:, None], to_w] = x[:, from_h[:, None], from_w]
        return out

    def samples(self) -> Iterable[Sample]:
        """Padding, cropping, strides, both, nothing."""
        x = grid(2, 3, 4, 2)
        yield Sample((x,), {"before": (1, 2), "sizes": (5, 7)})
        yield Sample((x,), {"before": (-1, 0), "sizes": (2, 3)}, note="cropped")
        yield Sample((x,), {"strides": (2, 3), "before": (1, 0), "sizes": (7, 11)})
        yield Sample((x,), {"strides": (2, 2), "before": (-1, -2), "sizes": (4, 6)})
        yield Sample((np.zeros((0, 2, 2, 1)),), {"before": (1, 1), "sizes": (4, 4)}, note="empty")


@register
class FlipFilter(ElementOp):
    """A filter (HWIO) turned around, with input and output channels exchanged in each group."""

    name = "FlipFilter"
    inputs = "filter: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = {"groups": Attr("int", 1)}
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The taps, the output channels of a group, the input channels of all groups."""
        kh, kw, ic, oc = ctx.rank(0, 4)
        check_groups(ctx, oc)
        groups = ctx.attrs["groups"]
        return [TensorType(ctx.dtype(0), (kh, kw, dims.floordiv(oc, groups), ic * groups))]

    def element(self, ctx: ElementContext, index: Index) -> ir.Expr:
        """The weight of the opposite tap, from output to input."""
        kh, kw, ic, oc = ctx.sizes(0)
        h, w, o, i = index
        at = (ir.sub(ctx.size(kh - 1), h), ir.sub(ctx.size(kw - 1), w))
        groups = ctx.op.attrs["groups"]
        if groups == 1:
            return ctx.operand(0, (*at, i, o))
        group, within = ir.index_div(i, ctx.size(ic)), ir.index_mod(i, ctx.size(ic))
        first = ir.mul(group, ctx.size(dims.floordiv(oc, groups)))
        return ctx.operand(0, (*at, within, ir.add(first, o)))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's transpose of the reversed array."""
        f, groups = np.asarray(inputs[0]), attrs["groups"]
        kh, kw, ic, oc = f.shape
        split = f[::-1, ::-1].reshape(kh, kw, ic, groups, oc // groups)
        return split.transpose(0, 1, 4, 3, 2).reshape(kh, kw, oc // groups, groups * ic)

    def samples(self) -> Iterable[Sample]:
        """One group, two, one tap."""
        yield Sample((grid(3, 2, 4, 5),))
        yield Sample((grid(3, 2, 2, 6),), {"groups": 2})
        yield Sample((grid(1, 1, 1, 1),))
