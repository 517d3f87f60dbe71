"""Two-dimensional convolutions and their gradients, as TensorFlow declares them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.op import (
    DECLARING,
    Attr,
    CompositeOp,
    Gradients,
    InferContext,
    Sample,
    register,
)
from graphc.ops.base import call, grid
from graphc.ops.conv_core import filter_reference, forward_reference, taps_of
from graphc.ops.conv_phases import by_phases
from graphc.ops.conv_window import (
    Axis,
    Sizes,
    arranged,
    as_nhwc,
    check_fits,
    check_window,
    from_nhwc,
    image_axes,
    of_nhwc,
    padded_array,
    to_nhwc,
    whole,
    windows,
)
from graphc.ops.movement_value import int_tensor, operand_values, shape_tensor
from graphc.ops.softmax import narrowed, widened

CONV_ATTRS: dict[str, Attr] = {
    "strides": Attr("ints", (1, 1, 1, 1)),
    "use_cudnn_on_gpu": Attr("bool", True),
    "padding": Attr("str"),
    "explicit_paddings": Attr("ints", ()),
    "data_format": Attr("str", "NHWC"),
    "dilations": Attr("ints", (1, 1, 1, 1)),
}


@dataclass(frozen=True)
class Convolution:
    """The geometry of a convolution: windows along height and width, channels, groups."""

    batch: DimLike
    h: Axis
    w: Axis
    channels: DimLike
    outputs: DimLike
    groups: int
    data_format: str

    @property
    def output(self) -> Sizes:
        """The sizes of the result."""
        return arranged(self.data_format, self.batch, (self.h.out, self.w.out), self.outputs)

    @property
    def spatial(self) -> dict[str, Any]:
        """``strides`` and ``dilations`` of height and width alone."""
        return {
            "strides": (self.h.stride, self.w.stride),
            "dilations": (self.h.dilation, self.w.dilation),
        }

    @property
    def padding(self) -> dict[str, Any] | None:
        """How an image is padded for the windows; None where it need not be."""
        if self.h.inside and self.w.inside:
            return None
        return {
            "before": (self.h.before, self.w.before),
            "sizes": (self.h.reach, self.w.reach),
        }


def group_count(channels: DimLike, per_filter: DimLike) -> int:
    """How many groups a filter of fewer input channels makes; 1 unless both numbers are known."""
    if isinstance(channels, int) and isinstance(per_filter, int) and per_filter:
        return channels // per_filter
    return 1


def convolution(attrs: dict[str, Any], image: Sizes, kernel: Sizes) -> Convolution:
    """The geometry for the sizes of an image and of a filter."""
    h, w = windows(attrs, image, (kernel[0], kernel[1]))
    channels = image[image_axes(attrs["data_format"])[2]]
    groups = group_count(channels, kernel[2])
    return Convolution(image[0], h, w, channels, kernel[3], groups, attrs["data_format"])


def inferred(ctx: InferContext, image: Sizes, kernel: Sizes) -> Convolution:
    """The same, checked."""
    check_window(ctx, ("strides", "dilations"))
    channels = ctx.env.canonical(image[image_axes(ctx.attrs["data_format"])[2]])
    depth = ctx.env.canonical(kernel[2])
    if isinstance(channels, int) and isinstance(depth, int):
        if not depth or channels % depth:
            raise ctx.error(
                f"Depth of input ({channels}) is not a multiple of input depth of filter ({depth})"
            )
        outputs = ctx.env.canonical(kernel[3])
        groups = channels // depth
        if groups and isinstance(outputs, int) and outputs % groups:
            raise ctx.error(
                f"Depth of output ({outputs}) is not a multiple of the number of groups ({groups})"
            )
    elif ctx.env is not DECLARING:
        ctx.equal(channels, depth)
    found = convolution(ctx.attrs, image, kernel)
    check_fits(ctx, (found.h, found.w))
    return found


def padded_image(x: Tensor, g: Convolution) -> Tensor:
    """An image (NHWC) with the zeros that the windows need."""
    return x if g.padding is None else call("SpreadImage", x, **g.padding)


def _padded(x: np.ndarray, g: Convolution) -> np.ndarray:
    return padded_array(as_nhwc(x, g.data_format), (g.h, g.w))


def _sizes(tensor: Tensor) -> Sizes:
    assert tensor.sizes is not None
    return tensor.sizes


def few_channels_widened(operands: Sequence[Tensor], kernel: Sizes) -> Sequence[Tensor]:
    """The operands of a convolution, in float32 if they are of 16 bits and the channels are few.

    Elsewhere they are converted as they are packed, in vectors of channels, which such an image
    has not; it is read where it lies.
    """
    few = isinstance(kernel[2], int) and kernel[2] < FEW_CHANNELS
    return [widened(t) for t in operands] if few else operands


def depthwise(g: Convolution, kernel: Sizes) -> bool:
    """Whether every channel of the image has one filter of its own."""
    return g.groups > 1 and kernel[2] == 1 and kernel[3] == g.channels


def convolved(
    image: Tensor, kernel: Tensor, g: Convolution, spatial: dict[str, Any] | None = None
) -> Tensor:
    """The convolution of a padded image (NHWC), in groups if there are some."""
    attrs = g.spatial if spatial is None else spatial
    if depthwise(g, _sizes(kernel)):
        return call("DepthwiseCore", image, kernel, **attrs)
    return call("Conv2DCore", image, kernel, groups=g.groups, **attrs)


FEW_CHANNELS = 8
LANES = 16  # of a vector, in which input channels are counted
COLUMN_FLOPS = 64  # what may be computed in the time that a column's element moves
COLUMN_BYTES = 64 << 20
UNKNOWN_BATCH = 64
FEW_IMAGES = 4
IMAGE_BYTES = 96 << 10


def columns_pay(g: Convolution, kernel: Sizes, size: int) -> bool:
    """Whether an input's gradient is better computed by columns than by a convolution.

    The convolution has ``h * w`` products for each that the gradient needs at one of its
    ``oh * ow`` places, and fills vectors with input channels.  Columns have no product too many,
    but are written and read.  Measured on two cores with AVX-512, ms of convolution and columns
    (and what the rule looks at: ratio of products, operations saved for each element of columns):

    - LeNet's second layer 1.92, 0.98 (2.25, 260); 5x5 of 16x16x32 to 64: 2.10, 1.58 (1.78, 100)
    - 3x3 by 2 of 56x56x64: 27.6, 14.4 (4, 768); of 14x14x256: 28.6, 3.5 (4, 3072)
    - 1x1 by 2 of 56x56x64: 2.15, 0.50 (4, 768); 7x7 by 2 of 224x224x3: 92, 53 (4, 2603)
    - 5x5 of 20x20x32 to 64: 3.69, 3.57 (1.56, 72); 3x3 of 16x16x64: 1.59, 1.81 (1.31, 39)
    - 5x5 of 12x12x32 to 16: 0.69, 1.33 (2.25, 40); 3x3 by 2 of 28x28x32 to 4: 0.43, 1.92 (4, 24)
    - 3x3, SAME, of 28x28x128: 11.3, 12.8 (1, 0)

    Hence at least 1.4 times the products, and ``COLUMN_FLOPS`` saved for each element of the
    columns; where these are stored, they may not be large both in bytes and beside the operands.
    ``size`` is the bytes of one of their elements.
    """
    static = (g.h.size, g.w.size, g.h.out, g.w.out, *kernel)
    if g.groups != 1 or not all(isinstance(s, int) and s > 0 for s in static):
        return False
    h, w, oh, ow, kh, kw, channels, outputs = (whole(s) for s in static)
    waste = h * w / (oh * ow)
    filled = -(-channels // LANES) * LANES / channels
    if waste < 1.4 or 2 * outputs * (waste * filled - 1) < COLUMN_FLOPS:
        return False
    if windows_fit(g, kernel, size):
        return True
    columns = oh * ow * kh * kw * channels
    batch = g.batch if isinstance(g.batch, int) else UNKNOWN_BATCH
    operands = batch * (oh * ow * outputs + h * w * channels) + kh * kw * channels * outputs
    return batch * columns * size <= COLUMN_BYTES or batch * columns <= 4 * operands


def windows_fit(g: Convolution, kernel: Sizes, size: int) -> bool:
    """Whether columns need not be stored: an image fits a cache, and there are several images.

    Each is worked on by one thread.  Measured on two cores with AVX-512, the least of many, ms of
    columns and windows:

    - LeNet's second layer 0.70, 0.60; alone, that is: in its training step 1.32, 0.56
    - 5x5 of 64 of 16x16x32 to 64: 3.83, 2.13; of 16 of 20x20x32: 1.25, 0.97
    - 7x7 by 2 of 64 of 32x32x3 to 64: 1.94, 1.09; 3x3 by 2 of 32 of 14x14x64 to 128: 0.63, 0.54
    - 5x5 of 64 of 28x28x8 to 16: 1.62, 1.66; 3x3 by 2 of 16 of 8x8x256 to 256: 0.80, 0.81
    """
    if g.spatial["dilations"][1] != 1 or g.batch in range(FEW_IMAGES):
        return False
    reach = (max(whole(a.reach), whole(a.before + a.size)) for a in (g.h, g.w))
    return math.prod(reach) * whole(kernel[2]) * size <= IMAGE_BYTES


def phases_pay(g: Convolution, kernel: Sizes, size: int) -> bool:
    """Whether an input's gradient is better computed phase by phase of a strided convolution."""
    strided = g.h.stride * g.w.stride > 1 and g.spatial["dilations"] == (1, 1)
    if not strided or not columns_pay(g, kernel, size) or windows_fit(g, kernel, size):
        return False
    every = whole(kernel[0]) >= g.h.stride and whole(kernel[1]) >= g.w.stride
    return every and whole(kernel[2]) >= LANES


def by_columns(dy: Tensor, kernel: Tensor, g: Convolution) -> Tensor:
    """An input's gradient: what every window gives its taps, added up where these fall."""
    kh, kw, channels, outputs = _sizes(kernel)
    if windows_fit(g, _sizes(kernel), dy.dtype.size):
        turned = call("Transpose", kernel, int_tensor([0, 3, 1, 2]))
        shape = [whole(kh), whole(outputs), whole(kw * channels)]
        return call(
            "Conv2DInputCore", dy, call("Reshape", turned, int_tensor(shape)), channels=channels,
            before=(g.h.before, g.w.before), sizes=(g.h.size, g.w.size), **g.spatial,
        )  # fmt: skip
    taps = int_tensor([whole(kh * kw * channels), whole(outputs)])
    columns = call(
        "MatMul", call("Reshape", dy, int_tensor([-1, whole(outputs)])),
        call("Reshape", kernel, taps), transpose_b=True,
    )  # fmt: skip
    shape = [-1, *(whole(s) for s in (g.h.out, g.w.out, kh, kw, channels))]
    return call(
        "Col2Im", call("Reshape", columns, int_tensor(shape)), ksize=(kh, kw),
        before=(g.h.before, g.w.before), sizes=(g.h.size, g.w.size), **g.spatial,
    )  # fmt: skip


SAMPLES: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], str], ...] = (
    ((2, 5, 6, 3), (3, 3, 3, 4), {"padding": "SAME"}, ""),
    ((2, 5, 6, 3), (3, 2, 3, 4), {"padding": "VALID"}, ""),
    ((1, 5, 6, 3), (3, 4, 3, 2), {"padding": "SAME", "strides": (1, 2, 3, 1)}, "strides"),
    ((1, 6, 7, 2), (3, 2, 2, 2), {"padding": "VALID", "strides": (1, 2, 2, 1)}, "rest unused"),
    ((2, 3, 5, 6), (3, 3, 3, 4), {"padding": "SAME", "data_format": "NCHW"}, "NCHW"),
    ((1, 7, 7, 2), (3, 3, 2, 2), {"padding": "SAME", "dilations": (1, 2, 2, 1)}, "dilated"),
    (
        (1, 4, 5, 2), (3, 3, 2, 2),
        {"padding": "EXPLICIT", "explicit_paddings": (0, 0, 2, 1, 0, 3, 0, 0)}, "explicit",
    ),
    (
        (1, 2, 5, 5), (3, 2, 2, 3),
        {"padding": "SAME", "strides": (1, 1, 2, 2), "data_format": "NCHW"}, "strides, NCHW",
    ),
    (
        (1, 10, 11, 2), (3, 3, 2, 4),
        {"padding": "VALID", "strides": (1, 2, 4, 1), "dilations": (1, 3, 2, 1)},
        "strides, dilated",
    ),
    ((1, 4, 4, 4), (2, 2, 2, 6), {"padding": "SAME"}, "groups"),
    ((2, 5, 4, 3), (3, 2, 1, 3), {"padding": "SAME", "strides": (1, 2, 1, 1)}, "depthwise"),
    ((2, 1, 1, 3), (1, 1, 3, 1), {"padding": "VALID"}, "size 1"),
    ((1, 3, 3, 1), (1, 1, 1, 2), {"padding": "SAME", "strides": (1, 2, 2, 1)}, "pointwise"),
)  # fmt: skip


Case = tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any], str]


class _Convolution(CompositeOp):
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = CONV_ATTRS

    def geometries(self) -> Iterable[Case]:
        """Images, filters and gradients of the result for the samples."""
        for image, kernel, attrs, note in SAMPLES:
            full = {k: a.default for k, a in CONV_ATTRS.items()} | attrs
            out = convolution(full, image, kernel).output
            grad = grid(*(whole(s) for s in out), low=-1.0)
            yield grid(*image), grid(*kernel), grad, attrs, note


@register
class Conv2D(_Convolution):
    """A convolution (cross-correlation) of images with a filter of sizes ``[h, w, in, out]``.

    ``padding`` is SAME, VALID or EXPLICIT (then ``explicit_paddings`` has (before, after) of every
    dimension); ``strides``, ``dilations`` and ``explicit_paddings`` are in the order of
    ``data_format``.  Where the filter has fewer input channels than the image, the channels are
    convolved in groups.
    """

    name = "Conv2D"
    inputs = "input: T, filter: T"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The places of the window and the filter's output channels."""
        return [TensorType(ctx.dtype(0), inferred(ctx, ctx.rank(0, 4), ctx.rank(1, 4)).output)]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """A contraction of the padded image."""
        x, kernel = few_channels_widened(inputs, _sizes(inputs[1]))
        g = convolution(op.attrs, _sizes(x), _sizes(kernel))
        image = padded_image(to_nhwc(x, g.data_format), g)
        return [from_nhwc(narrowed(convolved(image, kernel, g), inputs[0]), g.data_format)]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The convolutions' own gradient ops."""
        x, kernel = op.inputs
        return [
            call("Conv2DBackpropInput", shape_tensor(x), kernel, grads[0], **op.attrs),
            call("Conv2DBackpropFilter", x, shape_tensor(kernel), grads[0], **op.attrs),
        ]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """A sum of NumPy's products, one for each tap."""
        x, kernel = (np.asarray(v) for v in inputs)
        g = convolution(attrs, x.shape, kernel.shape)
        found = forward_reference(_padded(x, g), kernel, g.spatial | {"groups": g.groups})
        return of_nhwc(found, g.data_format)

    def samples(self) -> Iterable[Sample]:
        """All paddings, both layouts, strides, dilations, groups, size 1, nothing."""
        for x, kernel, _, attrs, note in self.geometries():
            yield Sample((x, kernel), attrs, rtol=1e-5, note=note)
        empty = np.zeros((0, 4, 4, 2))
        yield Sample((empty, grid(3, 3, 2, 2)), {"padding": "SAME"}, grad=(), note="empty")


@register
class Conv2DBackpropInput(_Convolution):
    """The gradient of Conv2D with respect to its input, of sizes ``input_sizes``."""

    name = "Conv2DBackpropInput"
    inputs = "input_sizes: int32, filter: T, out_backprop: T"
    value_operands: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes asked for, which must fit the gradient's."""
        image, kernel, grad = operand_values(ctx, 0, 4), ctx.rank(1, 4), ctx.rank(2, 4)
        g = inferred(ctx, image, kernel)
        for expected, given in zip(g.output, grad, strict=True):
            if ctx.env is not DECLARING or (isinstance(expected, int) and isinstance(given, int)):
                ctx.equal(expected, given, "Size of out_backprop doesn't match computed")
        return [TensorType(ctx.dtype(1), image)]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """A convolution of the gradient, spread by the strides, with the filter turned around.

        Where too many of its products would be with zeros, columns of windows instead; see
        :func:`columns_pay`.
        """
        kernel, grad = inputs[1:]
        g = convolution(op.attrs, _sizes(op.outputs[0]), _sizes(kernel))
        wide = grad.dtype.accumulator  # columns are not rounded before they are added up
        if phases_pay(g, _sizes(kernel), wide.size):
            dy = to_nhwc(grad, g.data_format)
            return [from_nhwc(by_phases(dy, kernel, (g.h, g.w)), g.data_format)]
        if columns_pay(g, _sizes(kernel), wide.size):
            dy = to_nhwc(widened(grad), g.data_format)
            found = narrowed(by_columns(dy, widened(kernel), g), grad)
            return [from_nhwc(found, g.data_format)]
        spread = call(
            "SpreadImage", to_nhwc(grad, g.data_format), strides=(g.h.stride, g.w.stride),
            before=tuple(axis.span - 1 - axis.before for axis in (g.h, g.w)),
            sizes=tuple(axis.size + axis.span - 1 for axis in (g.h, g.w)),
        )  # fmt: skip
        turned = call("FlipFilter", kernel, groups=g.groups)
        found = convolved(spread, turned, g, g.spatial | {"strides": (1, 1)})
        return [from_nhwc(found, g.data_format)]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The filter's gradient and a convolution, of the gradient."""
        _, kernel, grad = op.inputs
        return [
            None,
            call("Conv2DBackpropFilter", grads[0], shape_tensor(kernel), grad, **op.attrs),
            call("Conv2D", grads[0], kernel, **op.attrs),
        ]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's products added where each tap fell."""
        sizes, kernel, grad = (np.asarray(v) for v in inputs)
        g = convolution(attrs, tuple(int(s) for s in sizes), kernel.shape)
        dy = as_nhwc(grad, g.data_format).astype(np.float64)
        kh, kw, ic, oc = kernel.shape
        h, w = (whole(a.size + a.before + a.after) for a in (g.h, g.w))
        total = np.zeros((dy.shape[0], h, w, g.groups, ic))
        dy = dy.reshape(*dy.shape[:3], g.groups, oc // g.groups)
        weights = kernel.astype(np.float64).reshape(kh, kw, ic, g.groups, oc // g.groups)
        for i, j in np.ndindex(kh, kw):
            part = taps_of(total, i, j, g.spatial, dy.shape[1:3])
            part += np.einsum("nhwgo,igo->nhwgi", dy, weights[i, j])
        rows, columns = (
            slice(whole(a.before), whole(a.before + a.size)) for a in (g.h, g.w)
        )
        inner = total[:, rows, columns]
        return of_nhwc(inner.reshape(*inner.shape[:3], g.groups * ic), g.data_format)

    def samples(self) -> Iterable[Sample]:
        """Those of Conv2D."""
        for x, kernel, grad, attrs, note in self.geometries():
            sizes = np.array(x.shape)
            yield Sample((sizes, kernel, grad), attrs, rtol=1e-5, note=note)


@register
class Conv2DBackpropFilter(_Convolution):
    """The gradient of Conv2D with respect to its filter, of sizes ``filter_sizes``."""

    name = "Conv2DBackpropFilter"
    inputs = "input: T, filter_sizes: int32, out_backprop: T"
    value_operands: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes asked for, which must fit the gradient's."""
        image, kernel, grad = ctx.rank(0, 4), operand_values(ctx, 1, 4), ctx.rank(2, 4)
        g = inferred(ctx, image, kernel)
        for expected, given in zip(g.output, grad, strict=True):
            if ctx.env is not DECLARING or (isinstance(expected, int) and isinstance(given, int)):
                ctx.equal(expected, given, "Size of out_backprop doesn't match computed")
        return [TensorType(ctx.dtype(0), kernel)]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """A contraction of the padded image with the gradient."""
        kernel = _sizes(op.outputs[0])
        x, grad = few_channels_widened((inputs[0], inputs[2]), kernel)
        g = convolution(op.attrs, _sizes(x), kernel)
        image = padded_image(to_nhwc(x, g.data_format), g)
        dy = to_nhwc(grad, g.data_format)
        ksize = kernel[:2]
        if depthwise(g, kernel):
            found = call("DepthwiseFilterCore", image, dy, ksize=ksize, **g.spatial)
        else:
            found = call("Conv2DFilterCore", image, dy, ksize=ksize, groups=g.groups, **g.spatial)
        return [narrowed(found, inputs[0])]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The input's gradient and a convolution, with the gradient as filter."""
        x, _, grad = op.inputs
        return [
            call("Conv2DBackpropInput", shape_tensor(x), grads[0], grad, **op.attrs),
            None,
            call("Conv2D", x, grads[0], **op.attrs),
        ]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """A product of NumPy's for each tap."""
        x, sizes, grad = (np.asarray(v) for v in inputs)
        kernel = tuple(int(s) for s in sizes)
        g = convolution(attrs, x.shape, kernel)
        full = g.spatial | {"ksize": kernel[:2], "groups": g.groups}
        return filter_reference(_padded(x, g), as_nhwc(grad, g.data_format), full)

    def samples(self) -> Iterable[Sample]:
        """Those of Conv2D."""
        for x, kernel, grad, attrs, note in self.geometries():
            yield Sample((x, np.array(kernel.shape), grad), attrs, rtol=1e-5, note=note)
