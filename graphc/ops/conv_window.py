"""Windows that slide over images: what convolutions and pooling share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc import dims
from graphc.dims import DimLike
from graphc.graph import Tensor
from graphc.loop import ir
from graphc.op import DECLARING, ElementContext, InferContext
from graphc.ops.base import call, check_choice
from graphc.ops.movement_value import all_of, guarded, int_tensor

Index = tuple[ir.Expr, ...]
Sizes = tuple[DimLike, ...]

PADDINGS = ("SAME", "VALID", "EXPLICIT")


@dataclass(frozen=True)
class Axis:
    """A window that slides along one dimension of an image.

    Attributes:
      size: of the image; ``out``: how many places the window has.
      taps: of the window, ``dilation`` apart; it moves by ``stride``.
      before, after: the zeros around the image.
    """

    size: DimLike
    taps: DimLike
    stride: int
    dilation: int
    before: DimLike
    after: DimLike
    out: DimLike

    @property
    def span(self) -> DimLike:
        """From the first tap to the last, both included."""
        return (self.taps - 1) * self.dilation + 1

    @property
    def reach(self) -> DimLike:
        """How much of the padded image the windows cover: nothing, where there are none."""
        return dims.maximum((self.out - 1) * self.stride + self.span, 0)

    @property
    def inside(self) -> bool:
        """Whether no window is seen to reach over the image's ends."""
        return self.before == 0 and self.after == 0


def slide(
    size: DimLike,
    taps: DimLike,
    stride: int = 1,
    dilation: int = 1,
    padding: str = "VALID",
    explicit: tuple[int, int] = (0, 0),
) -> Axis:
    """The windows along one dimension."""
    span = (taps - 1) * dilation + 1
    before: DimLike
    after: DimLike
    if padding == "SAME":
        out = dims.ceildiv(size, stride)
        total = dims.maximum((out - 1) * stride + span - size, 0)
        before = dims.floordiv(total, 2)
        after = total - before
    else:
        before, after = explicit if padding == "EXPLICIT" else (0, 0)
        out = dims.floordiv(size + before + after - span + stride, stride)
    return Axis(size, taps, stride, dilation, before, after, out)


def image_axes(data_format: str) -> tuple[int, int, int]:
    """Where height, width and channels stand."""
    return (2, 3, 1) if data_format == "NCHW" else (1, 2, 3)


def arranged(data_format: str, n: Any, spatial: Sequence[Any], c: Any) -> tuple[Any, ...]:
    """A value of each dimension in the order of the format."""
    return (n, c, *spatial) if data_format == "NCHW" else (n, *spatial, c)


def check_window(ctx: InferContext, kinds: Sequence[str]) -> None:
    """Check the attributes of a window: four values each, 1 in the batch and depth dimensions."""
    attrs = ctx.attrs
    padding, data_format = attrs["padding"], attrs["data_format"]
    check_choice(ctx, "padding", PADDINGS if "explicit_paddings" in attrs else PADDINGS[:2])
    check_choice(ctx, "data_format", ("NHWC", "NCHW"))
    for kind in kinds:
        values = attrs[kind]
        if len(values) != 4:
            raise ctx.error(
                f"{ctx.definition.name} requires the {kind} attribute to contain 4 values, but "
                f"got: {len(values)}"
            )
        if any(v < 1 for v in values):
            raise ctx.error(f"The {kind} {list(values)} must be positive")
        others = set(range(4)) - set(image_axes(data_format)[:2])
        if any(values[i] != 1 for i in others):
            raise ctx.error(
                f"The {kind} {list(values)} must be 1 in the batch and depth dimensions"
            )
    explicit = attrs.get("explicit_paddings", ())
    if padding == "EXPLICIT":
        check_explicit(ctx, explicit)
    elif len(explicit):
        raise ctx.error("explicit_paddings attribute must be empty if the padding is not EXPLICIT")


def check_explicit(ctx: InferContext, explicit: Sequence[int]) -> None:
    """Explicit paddings are eight numbers, none negative, 0 for batch and depth."""
    if len(explicit) != 8:
        raise ctx.error(
            f"explicit_paddings attribute must contain 8 values, but got: {len(explicit)}"
        )
    if any(p < 0 for p in explicit):
        raise ctx.error("All elements of explicit_paddings must be nonnegative")
    spatial = image_axes(ctx.attrs["data_format"])[:2]
    if any(explicit[2 * i] or explicit[2 * i + 1] for i in range(4) if i not in spatial):
        raise ctx.error("The paddings of the batch and depth dimensions must be 0")


def check_fits(ctx: InferContext, axes: Sequence[Axis]) -> None:
    """No window may be larger than the padded image; a run with other sizes compiles anew."""
    if ctx.attrs["padding"] == "SAME":
        return
    for axis in axes:
        padded = axis.size + axis.before + axis.after
        lacking = dims.maximum(axis.span - padded, 0)
        if isinstance(lacking, int):
            if lacking:
                raise ctx.error(
                    f"Negative dimension size caused by subtracting {axis.span} from {padded}"
                )
        elif ctx.env is not DECLARING:
            ctx.env.assume_equal(lacking, 0)


def windows(attrs: dict[str, Any], image: Sizes, taps: tuple[DimLike, DimLike]) -> list[Axis]:
    """The windows along height and width of an image of the given sizes."""
    explicit = attrs.get("explicit_paddings", ())
    found = []
    for i, t in zip(image_axes(attrs["data_format"])[:2], taps, strict=True):
        ends = (explicit[2 * i], explicit[2 * i + 1]) if len(explicit) == 8 else (0, 0)
        dilation = attrs["dilations"][i] if "dilations" in attrs else 1
        found.append(slide(image[i], t, attrs["strides"][i], dilation, attrs["padding"], ends))
    return found


def tap(
    ctx: ElementContext, axes: Sequence[Axis], place: Index, taps: Index
) -> tuple[Index, ir.Expr]:
    """Where the taps of a window fall on the image, and the condition that they do."""
    at: list[ir.Expr] = []
    conditions: list[ir.Expr] = []
    for axis, o, t in zip(axes, place, taps, strict=True):
        i = ir.add(ir.mul(o, axis.stride), ir.mul(t, axis.dilation))
        i = ir.sub(i, ctx.size(axis.before))
        if axis.before != 0:
            conditions.append(i >= 0)
        if axis.after != 0:
            conditions.append(i < ctx.size(axis.size))
        at.append(i)
    return tuple(at), all_of(conditions)


def covering(
    ctx: ElementContext, axis: Axis, at: ir.Expr, nth: ir.Expr
) -> tuple[ir.Expr, ir.Expr, list[ir.Expr]]:
    """The ``nth`` last window that covers a place of the image.

    Its tap ``t`` falls there where ``t * dilation`` leaves the place's remainder by the stride:
    every ``step``-th tap from a first one, if any.

    Returns:
      The window, the tap that falls on the place, and the conditions that there are such.
    """
    padded = ir.add(at, ctx.size(axis.before))
    shared, step = math.gcd(axis.stride, axis.dilation), tap_step(axis)
    taps = axis.taps
    assert isinstance(taps, int)
    conditions: list[ir.Expr] = []
    if axis.dilation == 1:
        first = ir.index_mod(padded, step)
        last = ir.index_div(padded, step)
    else:
        inverse = pow(axis.dilation // shared, -1, step)
        first = ir.index_mod(ir.mul(ir.index_div(padded, shared), inverse), step)
        last = ir.index_div(ir.sub(padded, ir.mul(first, axis.dilation)), axis.stride)
        if shared > 1:
            conditions.append(ir.apply("eq", ir.index_mod(padded, shared), 0))
    window = ir.sub(last, ir.mul(nth, axis.dilation // shared))
    where = ir.add(first, ir.mul(nth, step))
    if dims.is_nonnegative(axis.span - axis.stride - 1):
        beyond = ir.mul(where, axis.dilation)
        conditions.append(window >= 0 if axis.dilation == 1 else padded >= beyond)
    if not dims.is_nonnegative(axis.out * axis.stride - axis.size - axis.before):
        conditions.append(window < ctx.size(axis.out))
    if taps % step:
        conditions.append(where < taps)
    return window, where, conditions


def tap_step(axis: Axis) -> int:
    """How many taps lie between two that fall on the same place of the image."""
    return axis.stride // math.gcd(axis.stride, axis.dilation)


def coverings(axis: Axis) -> int:
    """How many windows can cover one place."""
    assert isinstance(axis.taps, int)
    return -(-axis.taps // tap_step(axis))


def only_where(condition: ir.Expr, value: ir.Expr, otherwise: Any) -> ir.Expr:
    """``value`` under a condition, which may be known to hold."""
    return guarded(condition, value, ir.const(otherwise, value.dtype))


def to_nhwc(x: Tensor, data_format: str) -> Tensor:
    """An image with its channels last."""
    return call("Transpose", x, int_tensor([0, 2, 3, 1])) if data_format == "NCHW" else x


def from_nhwc(x: Tensor, data_format: str) -> Tensor:
    """The reverse of :func:`to_nhwc`."""
    return call("Transpose", x, int_tensor([0, 3, 1, 2])) if data_format == "NCHW" else x


def whole(size: DimLike) -> int:
    """A size that is known, where references compute."""
    assert isinstance(size, int)
    return size


def padded_array(image: np.ndarray, axes: Sequence[Axis], outside: Any = 0) -> np.ndarray:
    """An NHWC array with the windows' padding around it."""
    h, w = ((whole(a.before), whole(a.after)) for a in axes)
    return np.pad(image, ((0, 0), h, w, (0, 0)), constant_values=outside)


def as_nhwc(x: Any, data_format: str) -> np.ndarray:
    """The same of an array."""
    return np.moveaxis(np.asarray(x), 1, 3) if data_format == "NCHW" else np.asarray(x)


def of_nhwc(x: np.ndarray, data_format: str) -> np.ndarray:
    """The same of an array."""
    return np.moveaxis(x, 3, 1) if data_format == "NCHW" else x
