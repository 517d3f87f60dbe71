"""Images put together from the columns of their windows: the second half of an input's gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
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
from graphc.ops.conv_core import SPATIAL, check_pairs
from graphc.ops.conv_window import Axis, Index, covering, coverings, only_where, whole
from graphc.ops.movement_value import all_of


def placed(columns: Sequence[Any], attrs: dict[str, Any]) -> tuple[Axis, Axis]:
    """The windows of columns ``[n, oh, ow, kh, kw, c]`` along height and width of the image."""
    found = []
    for k in range(2):
        out, taps, size = columns[1 + k], attrs["ksize"][k], attrs["sizes"][k]
        stride, dilation = attrs["strides"][k], attrs["dilations"][k]
        before = attrs["before"][k]
        reach = (out - 1) * stride + (taps - 1) * dilation + 1
        found.append(
            Axis(size, taps, stride, dilation, before, dims.maximum(reach - size - before, 0), out)
        )
    return found[0], found[1]


@register
class Col2Im(ReductionOp):
    """For every pixel of an image the sum of all taps of windows that fall on it.

    ``columns`` are ``[n, oh, ow, kh, kw, c]``: what every window gives to each of its taps.  The
    window at place ``o`` has its tap ``t`` at ``o * stride + t * dilation - before``; taps outside
    of the ``sizes`` of the image are left out.
    """

    name = "Col2Im"
    inputs = "columns: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = {
        **SPATIAL, "ksize": Attr("ints"), "before": Attr("ints", (0, 0)), "sizes": Attr("ints"),
    }  # fmt: skip
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """Batch and channels of the columns, rows and columns as asked for."""
        columns = ctx.rank(0, 6)
        check_pairs(ctx, "strides", "dilations", "ksize")
        for key in ("before", "sizes"):
            if len(ctx.attrs[key]) != 2 or any(
                isinstance(v, int) and v < 0 for v in ctx.attrs[key]
            ):
                raise ctx.error(f"{key} must be two numbers, none negative, not {ctx.attrs[key]}")
        for found, taps in zip(columns[3:5], ctx.attrs["ksize"], strict=True):
            ctx.equal(found, taps, "The taps of columns must be those of ksize")
        return [TensorType(ctx.dtype(0), (columns[0], *ctx.attrs["sizes"], columns[5]))]

    def reduction(self, ctx: ElementContext, index: Index) -> Reduction:
        """The sum over the windows that cover the pixel: a stride skips most taps."""
        axes, (n, h, w, c) = placed(ctx.sizes(0), ctx.op.attrs), index
        dtype = ctx.op.outputs[0].dtype.base_dtype
        wide = dtype.accumulator

        def body(nth: Index) -> ir.Expr:
            found = [covering(ctx, a, i, k) for a, i, k in zip(axes, (h, w), nth, strict=True)]
            window, taps, conditions = zip(*found, strict=True)
            value = ir.cast(ctx.operand(0, (n, *window, *taps, c)), wide)
            return only_where(all_of([c for cs in conditions for c in cs]), value, 0)

        extents = tuple(coverings(axis) for axis in axes)
        return Reduction("add", extents, body, lambda v: ir.cast(v, dtype), wide)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's addition to a strided slice, for each tap."""
        columns = np.asarray(inputs[0])
        axes = placed(columns.shape, attrs)
        dh, dw = attrs["dilations"]
        reach = [whole(a.size + a.before + a.after) for a in axes]
        total = np.zeros((columns.shape[0], *reach, columns.shape[5]))
        oh, ow = (np.arange(whole(a.out)) * a.stride for a in axes)
        for i, j in np.ndindex(*attrs["ksize"]):
            total[:, (oh + i * dh)[:, None], ow + j * dw] += columns[:, :, :, i, j]
        rows, across = (slice(whole(a.before), whole(a.before + a.size)) for a in axes)
        return total[:, rows, across].astype(columns.dtype)

    def samples(self) -> Iterable[Sample]:
        """Strides smaller and larger than the window, dilations, cropping, pixels without taps."""
        for columns, attrs, note in (
            ((2, 3, 4, 3, 2, 5), {"sizes": (5, 5)}, ""),
            ((2, 3, 2, 3, 3, 2), {"sizes": (7, 5), "strides": (2, 2)}, "strides"),
            ((1, 3, 2, 3, 4, 3), {"sizes": (6, 5), "strides": (2, 3), "before": (1, 2)}, "cropped"),
            ((1, 2, 3, 1, 2, 3), {"sizes": (9, 8), "strides": (3, 2)}, "pixels without taps"),
            ((1, 3, 7, 3, 3, 2), {"sizes": (9, 11), "dilations": (3, 2), "before": (0, 2)}, ""),
            (
                (1, 4, 3, 3, 4, 2),
                {"sizes": (13, 14), "strides": (2, 4), "dilations": (3, 6), "before": (2, 1)},
                "strides, dilated",
            ),
            ((0, 2, 2, 2, 2, 3), {"sizes": (3, 3)}, "empty"),
        ):
            yield Sample((grid(*columns),), {"ksize": columns[3:5], **attrs}, rtol=1e-5, note=note)
