"""The gradient of a strided convolution's input, pixel by pixel of the same phase.

A pixel that lies ``p`` behind a multiple of the stride is reached by every ``stride``-th tap alone,
from the ``p``-th on.  The pixels of one phase are a convolution, without stride, of the gradient
with these taps turned around; the image is all phases interleaved.  No product is with a zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.build import create, single
from graphc.dtypes import DType
from graphc.graph import Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    Attr,
    ElementContext,
    ElementOp,
    InferContext,
    Sample,
    register,
)
from graphc.ops.base import call, grid
from graphc.ops.conv_core import check_pairs
from graphc.ops.conv_window import Axis, Index, whole
from graphc.ops.movement_value import int_tensor


def taps_of_phase(axis: Axis, phase: int) -> int:
    """How many taps reach the pixels of a phase."""
    return len(range(phase, whole(axis.taps), axis.stride))


def pixels_of_phase(axis: Axis) -> int:
    """How many pixels a phase has at most, counted from the image's padding on."""
    return -(-whole(axis.size + axis.before) // axis.stride)


def phase(dy: Tensor, kernel: Tensor, axes: Sequence[Axis], at: Sequence[int]) -> Tensor:
    """The pixels of one phase: ``[n, h, w, c]`` of the image from its padding on.

    Args:
      dy: the gradient of the convolution, NHWC.
      kernel: its filter, HWIO.
      axes: the windows along height and width.
      at: the phase along each.
    """
    taps = [taps_of_phase(a, p) for a, p in zip(axes, at, strict=True)]
    strides = [a.stride for a in axes]
    ends = [whole(s) for s in (kernel.sizes or ())]
    part = call(
        "StridedSlice", kernel, int_tensor([*at, 0, 0]), int_tensor(ends),
        int_tensor([*strides, 1, 1]),
    )  # fmt: skip
    spread = call(
        "SpreadImage", dy, before=tuple(t - 1 for t in taps),
        sizes=tuple(pixels_of_phase(a) + t - 1 for a, t in zip(axes, taps, strict=True)),
    )  # fmt: skip
    return call("Conv2DCore", spread, call("FlipFilter", part))


def by_phases(dy: Tensor, kernel: Tensor, axes: tuple[Axis, Axis]) -> Tensor:
    """The gradient of the image (NHWC)."""
    h, w = axes
    found = [
        phase(dy, kernel, axes, (p, q)) for p in range(h.stride) for q in range(w.stride)
    ]
    attrs = {"strides": (h.stride, w.stride), "before": (h.before, w.before)}
    return single(create("InterleavePhases", [found], attrs | {"sizes": (h.size, w.size)}))


@register
class InterleavePhases(ElementOp):
    """An image (NHWC) of ``sizes`` put together from its phases, in the order of rows.

    Of strides ``(a, b)`` there are ``a * b`` phases, of one shape.  Phase ``p * b + q`` has the
    pixels at ``i * a + p - before[0]``, ``j * b + q - before[1]``.
    """

    name = "InterleavePhases"
    inputs = "phases: N*T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = {
        "strides": Attr("ints"), "before": Attr("ints", (0, 0)), "sizes": Attr("ints"),
    }  # fmt: skip
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """Batch and channels of the phases, rows and columns as asked for."""
        check_pairs(ctx, "strides")
        strides, before, sizes = (ctx.attrs[k] for k in ("strides", "before", "sizes"))
        if len(ctx.inputs) != strides[0] * strides[1]:
            raise ctx.error(f"Strides {strides} have no {len(ctx.inputs)} phases")
        if any(len(p) != 2 or min(p) < 0 for p in (before, sizes)):
            raise ctx.error(f"{before} and {sizes} must be two numbers each, none negative")
        first = ctx.rank(0, 4)
        for k in range(1, len(ctx.inputs)):
            for a, b in zip(first, ctx.rank(k, 4), strict=True):
                ctx.equal(a, b, "Phases must be of one shape")
        for have, stride, front, size in zip(first[1:3], strides, before, sizes, strict=True):
            if isinstance(have, int) and have * stride < size + front:
                raise ctx.error(f"Phases of {have} pixels make no {size} behind {front}")
        return [TensorType(ctx.dtype(0), (first[0], *sizes, first[3]))]

    def element(self, ctx: ElementContext, index: Index) -> ir.Expr:
        """The pixel of its phase."""
        strides, before = ctx.op.attrs["strides"], ctx.op.attrs["before"]
        padded = [ir.add(i, ir.const(b)) for i, b in zip(index[1:3], before, strict=True)]
        place = [ir.index_div(i, ir.const(s)) for i, s in zip(padded, strides, strict=True)]
        p, q = (ir.index_mod(i, ir.const(s)) for i, s in zip(padded, strides, strict=True))
        number = ir.add(ir.mul(p, strides[1]), q)
        at = (index[0], *place, index[3])
        last = len(ctx.op.inputs) - 1
        value = ctx.operand(last, at)
        for k in reversed(range(last)):
            value = ir.Guard(ir.apply("eq", number, ir.const(k)), ctx.operand(k, at), value)
        return value

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's assignment to strided slices."""
        (phases,) = inputs if isinstance(inputs[0], (list, tuple)) else (inputs,)
        (a, b), first = attrs["strides"], np.asarray(phases[0])
        n, rows, columns, c = first.shape
        whole_image = np.zeros((n, rows * a, columns * b, c), first.dtype)
        for k, pixels in enumerate(phases):
            whole_image[:, k // b :: a, k % b :: b] = pixels
        (top, left), (height, width) = attrs["before"], attrs["sizes"]
        return whole_image[:, top : top + height, left : left + width]

    def samples(self) -> Iterable[Sample]:
        """Two strides and one, cropped, nothing."""
        for strides, before, sizes in (
            ((2, 2), (0, 0), (6, 8)), ((2, 3), (1, 2), (4, 9)), ((1, 2), (0, 1), (3, 6)),
        ):  # fmt: skip
            phases = [grid(2, 3, 4, 5) + k for k in range(strides[0] * strides[1])]
            attrs = {"strides": strides, "before": before, "sizes": sizes}
            yield Sample((phases,), attrs)
        empty = [np.zeros((0, 2, 2, 3))] * 4
        yield Sample((empty,), {"strides": (2, 2), "sizes": (3, 4)}, grad=(), note="empty")
