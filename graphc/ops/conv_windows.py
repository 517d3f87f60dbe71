"""The gradient of a convolution's input by windows: products added up where their taps fall."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.graph import TensorType
from graphc.op import Attr, InferContext, Sample, TemplateOp, register
from graphc.ops.base import grid
from graphc.ops.conv_core import SPATIAL, check_pairs


@register
class Conv2DInputCore(TemplateOp):
    """The gradient of the input (NHWC, of ``sizes``) of a convolution of overlapping windows.

    ``filter`` is ``[kh, oc, kw * ic]``: for a row of taps and an output channel, what every tap of
    the row gives to each of the ``channels`` of the input.  The window at place ``o`` has its tap
    ``t`` at ``o * stride + t * dilation - before``; taps outside of the image are left out, and
    those of a row must be neighbours.
    """

    name = "Conv2DInputCore"
    inputs = "out_backprop: T, filter: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": (dtypes.float32, dtypes.float64)}
    attrs: ClassVar[dict[str, Attr]] = {
        **SPATIAL, "before": Attr("ints", (0, 0)), "sizes": Attr("ints"),
        "channels": Attr("int"),
    }  # fmt: skip
    template = "windows"
    dense_operands: ClassVar[tuple[int, ...]] = (1,)
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The images of the gradient, rows and columns as asked for."""
        grad, kernel, channels = ctx.rank(0, 4), ctx.rank(1, 3), ctx.attrs["channels"]
        check_pairs(ctx, "strides", "dilations")
        for key in ("before", "sizes"):
            if len(ctx.attrs[key]) != 2 or any(v < 0 for v in ctx.attrs[key]):
                raise ctx.error(f"{key} must be two numbers, none negative, not {ctx.attrs[key]}")
        if ctx.attrs["dilations"][1] != 1:
            raise ctx.error("The taps of a row must be neighbours")
        ctx.equal(grad[3], kernel[1], "Numbers of channels must be equal")
        if channels < 1 or (isinstance(kernel[2], int) and kernel[2] % channels):
            raise ctx.error(f"A row of {kernel[2]} weights is not one of {channels} channels")
        return [TensorType(ctx.dtype(0), (grad[0], *ctx.attrs["sizes"], channels))]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's products, added to a strided slice for each tap."""
        dy, kernel = (np.asarray(v, np.float64) for v in inputs)
        (sh, sw), (dilation, _) = attrs["strides"], attrs["dilations"]
        height, width = attrs["sizes"]
        channels = attrs["channels"]
        kernel = kernel.reshape(*kernel.shape[:2], -1, channels)
        (kh, _, kw, _), (n, oh, ow, _) = kernel.shape, dy.shape
        reach = (oh * sh + kh * dilation, ow * sw + kw)
        before = attrs["before"]
        ends = [max(r, b + s) for r, b, s in zip(reach, before, (height, width), strict=True)]
        total = np.zeros((n, *ends, channels))
        rows, columns = np.arange(oh) * sh, np.arange(ow) * sw
        for i, j in np.ndindex(kh, kw):
            total[:, (rows + i * dilation)[:, None], columns + j] += dy @ kernel[i, :, j]
        top, left = before
        inner = total[:, top : top + height, left : left + width]
        return inner.astype(np.asarray(inputs[0]).dtype)

    def samples(self) -> Iterable[Sample]:
        """Strides, dilation, cropping, pixels without taps, one place, many channels, nothing."""
        for grad, kernel, attrs, note in (
            ((2, 8, 8, 50), (5, 50, 5, 20), {"sizes": (12, 12)}, "LeNet's"),
            ((3, 3, 4, 7), (3, 7, 2, 5), {"sizes": (5, 5)}, ""),
            ((2, 3, 2, 2), (3, 2, 3, 3), {"sizes": (7, 5), "strides": (2, 2)}, "strides"),
            ((1, 3, 2, 3), (3, 3, 4, 3), {"sizes": (6, 5), "strides": (2, 3), "before": (1, 2)},
             "cropped"),
            ((1, 2, 3, 2), (1, 2, 2, 3), {"sizes": (9, 8), "strides": (3, 2)}, "without taps"),
            ((1, 3, 7, 2), (3, 2, 3, 2), {"sizes": (9, 11), "dilations": (3, 1)}, "dilated rows"),
            ((2, 1, 1, 4), (1, 4, 1, 1), {"sizes": (1, 1)}, "size 1"),
            ((2, 20, 3, 300), (2, 300, 2, 33), {"sizes": (21, 4)}, "deep"),
            ((0, 2, 2, 2), (2, 2, 2, 3), {"sizes": (3, 3)}, "empty"),
        ):  # fmt: skip
            weights = grid(*kernel).reshape(*kernel[:2], -1)
            more = {**attrs, "channels": kernel[3]}
            yield Sample((grid(*grad), weights), more, rtol=1e-5, note=note)
