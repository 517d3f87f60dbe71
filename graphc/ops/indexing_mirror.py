"""MirrorPad and its gradient: a tensor with its mirror image around it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import Attr, ElementContext, Gradients, InferContext, Sample, register
from graphc.ops.base import call, check_choice, grid
from graphc.ops.indexing_pad import Padding
from graphc.ops.movement_value import (
    INDEX,
    Sizes,
    all_of,
    guarded,
    known_ints,
    operand_error,
    refuse_where_empty,
    result,
    run_error,
    value_exprs,
    zero_of,
)

_MODES: dict[str, Any] = {"REFLECT": "reflect", "SYMMETRIC": "symmetric"}
_BOUNDS = (("no greater than", "greater than"), ("less than", "not less than"))
_MIRRORS: tuple[tuple[tuple[int, ...], Any, str], ...] = (
    ((4,), [[2, 3]], "REFLECT"),
    ((4,), [[4, 1]], "SYMMETRIC"),
    ((2, 3), [[1, 0], [2, 1]], "REFLECT"),
    ((2, 3), [[2, 1], [0, 3]], "SYMMETRIC"),
    ((2, 3), [[0, 0], [0, 0]], "REFLECT"),
    ((1, 2), [[1, 1], [0, 0]], "SYMMETRIC"),
)


def unsure(op: Operation) -> list[int]:
    """The padded dimensions whose sizes or paddings are not known."""
    pairs = zip(op.inputs[0].sizes or (), op.outputs[0].sizes or (), strict=False)
    padded = [(axis, size) for axis, (size, out) in enumerate(pairs) if size != out]
    if known_ints(op.inputs[1]) is None:
        return [axis for axis, _ in padded]
    return [axis for axis, size in padded if not isinstance(size, int)]


@register
class MirrorPad(Padding):
    """``input`` with its own mirror image around it; see Pad.

    ``mode`` REFLECT leaves the edge elements out of the image, SYMMETRIC has them twice.
    """

    name = "MirrorPad"
    inputs = "input: T, paddings: Tpaddings"
    attrs: ClassVar[dict[str, Attr]] = {"mode": Attr("str")}
    fallible = True

    def can_fail(self, op: Operation) -> bool:
        """Unless sizes and paddings are known: those have been checked."""
        return op.outputs[0].sizes is None or bool(unsure(op))

    def paddings(self, ctx: InferContext, sizes: Sizes) -> list[tuple[DimLike, DimLike]]:
        """The rows, no longer than the image of the operand."""
        check_choice(ctx, "mode", tuple(_MODES))
        rows = super().paddings(ctx, sizes)
        edge = int(ctx.attrs["mode"] == "REFLECT")
        for size, row in zip(sizes, rows, strict=True):
            for p in row:
                if isinstance(size, int) and isinstance(p, int) and p > max(size - edge, 0):
                    bound, beyond = _BOUNDS[edge]
                    text = (
                        f"paddings must be {bound} the dimension size: {row[0]}, {row[1]} "
                        f"{beyond} {size}"
                    )
                    raise run_error(ctx, operand_error(ctx, text), text)
        out = tuple(n + before + after for n, (before, after) in zip(sizes, rows, strict=True))
        excess = [
            p - dims.maximum(n - edge, 0) for n, row in zip(sizes, rows, strict=True) for p in row
        ]
        refuse_where_empty(ctx, out, excess)
        return rows

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element at the index folded back at the edges."""
        rows = value_exprs(ctx, 1, (len(index), 2))
        before, after = rows[::2], rows[1::2]
        edge = int(ctx.op.attrs["mode"] == "REFLECT")
        to_check = unsure(ctx.op)
        source: list[ir.Expr] = []
        inside: list[ir.Expr] = []
        for axis, (i, b) in enumerate(zip(index, before, strict=True)):
            size, out = ctx.sizes(0)[axis], ctx.out_sizes()[axis]
            if size == out:
                source.append(i)
                continue
            n = ctx.size(size)
            at = i - b
            folded = ir.select(at < 0, (edge - 1) - at, at)
            source.append(ir.select(folded >= n, n * 2 - (1 + edge) - folded, folded))
            if axis in to_check:
                longest = ir.apply("max", n - edge, 0)
                inside += [p <= longest for p in (b, after[axis])]
        value = ctx.operand(0, tuple(source))
        if inside:
            site = ctx.site(f"paddings must be {_BOUNDS[edge][0]} the dimension size")
            value = ir.Require(all_of(inside), value, site)
        return value

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient folded back and added up."""
        back = call("MirrorPadGrad", grads[0], op.inputs[1], mode=op.attrs["mode"])
        return [back, None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's pad."""
        return np.pad(inputs[0], np.asarray(inputs[1]), mode=_MODES[attrs["mode"]])

    def samples(self) -> Iterable[Sample]:
        """Both modes, one and two dimensions, no padding."""
        for shape, rows, mode in _MIRRORS:
            yield Sample((grid(*shape), np.array(rows, np.int64)), {"mode": mode})


@register
class MirrorPadGrad(Padding):
    """The gradient of MirrorPad: ``input`` with its mirrored edges folded back and added."""

    name = "MirrorPadGrad"
    inputs = "input: T, paddings: Tpaddings"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC, "Tpaddings": INDEX}
    attrs: ClassVar[dict[str, Attr]] = {"mode": Attr("str")}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """Each size less what was padded before and after."""
        check_choice(ctx, "mode", tuple(_MODES))
        sizes = ctx.sizes(0)
        if sizes is None:
            return result(ctx, None)
        rows = self.paddings(ctx, sizes)
        return result(ctx, tuple(s - b - a for s, (b, a) in zip(sizes, rows, strict=True)))

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The sum over the image inside and those before and after, for each dimension."""
        rows = value_exprs(ctx, 1, (len(index), 2))
        edge = int(ctx.op.attrs["mode"] == "REFLECT")
        choices: list[list[tuple[ir.Expr, ir.Expr]]] = []
        for axis, i in enumerate(index):
            before, after = rows[2 * axis], rows[2 * axis + 1]
            size, padded = ctx.out_sizes()[axis], ctx.sizes(0)[axis]
            images: list[tuple[ir.Expr, ir.Expr]] = [(ir.TRUE, before + i)]
            if size != padded:
                low = before - i - (1 - edge)
                inside = ir.logical_and(low >= 0, i >= edge)
                images.append((inside, low))
                n = ctx.size(size)
                high = before + n * 2 - (1 + edge) - i
                inside = ir.logical_and(high < before + n + after, i < n - edge)
                images.append((inside, high))
            choices.append(images)
        total: ir.Expr | None = None
        for combination in itertools.product(*choices):
            value = ctx.operand(0, tuple(at for _, at in combination))
            value = guarded(all_of([c for c, _ in combination]), value, zero_of(value.dtype))
            total = value if total is None else total + value
        assert total is not None
        return total

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient, mirrored."""
        return [call("MirrorPad", grads[0], op.inputs[1], mode=op.attrs["mode"]), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """Where each element of the padded tensor came from, added up."""
        dy, rows = np.asarray(inputs[0]), np.asarray(inputs[1])
        shape = [int(n - b - a) for n, (b, a) in zip(dy.shape, rows, strict=True)]
        places = np.arange(int(np.prod(shape))).reshape(shape)
        source = np.pad(places, rows, mode=_MODES[attrs["mode"]])
        total = np.zeros(places.size, dy.dtype)
        np.add.at(total, source.reshape(-1), dy.reshape(-1))
        return total.reshape(shape)

    def samples(self) -> Iterable[Sample]:
        """The rows of MirrorPad."""
        for shape, rows, mode in _MIRRORS:
            padded = [n + b + a for n, (b, a) in zip(shape, rows, strict=True)]
            yield Sample((grid(*padded), np.array(rows, np.int64)), {"mode": mode})
