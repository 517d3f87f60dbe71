"""Unpack, Split, SplitV: one tensor as several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import ShapeError
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    DECLARING,
    Attr,
    Element,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Sample,
    register,
)
from graphc.ops.base import call, grid
from graphc.ops.movement_value import (
    INDEX,
    Sizes,
    axis_of,
    flat_value,
    fresh_sizes,
    negative,
    operand_error,
    operand_ints,
    operand_values,
    run_error,
    static_axis,
    zeros_for,
)
from graphc.shapes import shape_text


@register
class Unpack(ElementOp):
    """The slices of ``value`` along dimension ``axis``, each without it; ``num`` outputs."""

    name = "Unpack"
    inputs = "value: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL}
    attrs: ClassVar[dict[str, Attr]] = {"num": Attr("int"), "axis": Attr("int", 0)}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's shape without the axis, for each output."""
        sizes, num = ctx.sizes(0), ctx.attrs["num"]
        if num < 0:
            raise ctx.error(f"num must not be negative, but is {num}")
        if sizes is None:
            return [TensorType(ctx.dtype(0), None)] * num
        axis = axis_of(ctx, ctx.attrs["axis"], len(sizes))
        size = ctx.env.canonical(sizes[axis])
        if isinstance(size, int) and size != num:
            raise run_error(
                ctx,
                ctx.error(f"Dimension must be {num} but is {size}"),
                f"Input shape axis {axis} must equal {num}, got shape {shape_text(sizes)}",
            )
        if size != num:
            ctx.env.assume_equal(size, num)
        return [TensorType(ctx.dtype(0), (*sizes[:axis], *sizes[axis + 1 :]))] * num

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element in the slice that this output is."""
        axis = ctx.op.attrs["axis"] % (len(index) + 1)
        at = ir.const(ctx.output_index)
        return ctx.operand(0, (*index[:axis], at, *index[axis:]))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradients, packed."""
        parts = [zeros_for(g, t) for g, t in zip(grads, op.outputs, strict=True)]
        return [call("Pack", parts, axis=op.attrs["axis"])] if parts else [None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's indexing along the axis."""
        return tuple(np.moveaxis(inputs[0], attrs["axis"], 0))

    def samples(self) -> Iterable[Sample]:
        """Each axis, one slice, slices of nothing."""
        for shape, axis in (((2, 3), 0), ((2, 3), 1), ((2, 3), -1), ((1, 2), 0), ((3,), 0),
                            ((2, 0), 0), ((2, 3, 4), 1)):  # fmt: skip
            yield Sample((grid(*shape),), {"num": shape[axis], "axis": axis})

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """One element of the operand, where it is a vector."""
        found = flat_value(op.inputs[0])
        if found is None or len(op.inputs[0].sizes or ()) != 1:
            return None
        return (found[index],)


class _Split(ElementOp):
    """What the two ways to split share: parts of operand ``source`` along ``axis_operand``."""

    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tlen": INDEX}
    source: ClassVar[int] = 0
    axis_operand: ClassVar[int] = 0

    def _axis(self, ctx: InferContext, sizes: Sizes) -> int | None:
        if not sizes:
            raise ctx.error("Shape must be at least rank 1 but is rank 0")
        found = operand_ints(ctx, self.axis_operand, "axis")
        rank = len(sizes)
        if found is not None and not -rank <= found[0] < rank:
            raise operand_error(
                ctx,
                f"Dimension size, given by scalar input {found[0]} must be in range [{-rank}, "
                f"{rank})",
                self.axis_operand,
            )
        return None if found is None else found[0] % rank

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element, past the parts before this one."""
        axis = static_axis(ctx.op, self.axis_operand, len(index))
        start: DimLike = 0
        for i in range(ctx.output_index):
            start = start + ctx.out_sizes(i)[axis]
        at = index[axis] + ctx.size(start)
        return ctx.operand(self.source, (*index[:axis], at, *index[axis + 1 :]))

    def _joined(self, op: Operation, grads: Sequence[Tensor | None]) -> Tensor:
        parts = [zeros_for(g, t) for g, t in zip(grads, op.outputs, strict=True)]
        return call("ConcatV2", parts, op.inputs[self.axis_operand])

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The elements of the part."""
        found = flat_value(op.inputs[self.source])
        lengths = [t.sizes[0] for t in op.outputs[: index + 1] if t.sizes]
        known = [n for n in lengths if isinstance(n, int)]
        if found is None or len(known) != index + 1:
            return None
        return found[sum(known[:-1]) : sum(known)]


@register
class Split(_Split):
    """``value`` in ``num_split`` parts of equal size along dimension ``split_dim``."""

    name = "Split"
    inputs = "split_dim: int32, value: T"
    value_operands: ClassVar[tuple[int, ...]] = (0,)
    constant_operands: ClassVar[tuple[int, ...]] = (0,)
    attrs: ClassVar[dict[str, Attr]] = {"num_split": Attr("int")}
    source = 1

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's shape with the axis divided, for each output."""
        sizes, num = ctx.sizes(1), ctx.attrs["num_split"]
        if num < 1:
            raise ctx.error(f"num_split must be at least 1, but is {num}")
        if sizes is None:
            return [TensorType(ctx.dtype(1), None)] * num
        axis = self._axis(ctx, sizes)
        if axis is None:
            return [TensorType(ctx.dtype(1), fresh_sizes(len(sizes)))] * num
        size = ctx.env.canonical(sizes[axis])
        part = dims.floordiv(size, num)
        if isinstance(size, int) and size % num:
            raise run_error(
                ctx,
                operand_error(
                    ctx,
                    f"Dimension size must be evenly divisible by {num} but is {size}\n\tNumber of "
                    "ways to split should evenly divide the split dimension",
                    0,
                ),
                "Number of ways to split should evenly divide the split dimension, but got "
                f"split_dim {axis} (size = {size}) and num_split {num}",
            )
        if part * num != size:
            ctx.env.assume_equal(part * num, size)
        return [TensorType(ctx.dtype(1), (*sizes[:axis], part, *sizes[axis + 1 :]))] * num

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradients, concatenated."""
        return [None, self._joined(op, grads)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's split."""
        return tuple(np.split(inputs[1], attrs["num_split"], int(inputs[0])))

    def samples(self) -> Iterable[Sample]:
        """Each axis, one part, parts of nothing."""
        for shape, num, axis in (((4, 6), 2, 0), ((4, 6), 3, 1), ((4, 6), 6, -1), ((3,), 1, 0),
                                 ((0, 2), 3, 0), ((2, 2, 4), 2, 2)):  # fmt: skip
            yield Sample((np.int64(axis), grid(*shape)), {"num_split": num})


@register
class SplitV(_Split):
    """``value`` in parts of the sizes ``size_splits`` along dimension ``split_dim``.

    One of the sizes may be -1: what the others leave.
    """

    name = "SplitV"
    inputs = "value: T, size_splits: Tlen, split_dim: int32"
    value_operands: ClassVar[tuple[int, ...]] = (1, 2)
    constant_operands: ClassVar[tuple[int, ...]] = (2,)
    attrs: ClassVar[dict[str, Attr]] = {"num_split": Attr("int")}
    axis_operand = 2

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's shape with each of the sizes."""
        sizes, num = ctx.sizes(0), ctx.attrs["num_split"]
        if sizes is None:
            return [TensorType(ctx.dtype(0), None)] * num
        axis = self._axis(ctx, sizes)
        if axis is None:
            return [TensorType(ctx.dtype(0), fresh_sizes(len(sizes)))] * num
        size = ctx.env.canonical(sizes[axis])
        parts = self._parts(ctx, operand_values(ctx, 1, num), size)
        total: DimLike = 0
        for part in parts:
            total = total + part
        if total != size:
            if isinstance(total, int) and isinstance(size, int):
                raise self._wrong_total(ctx, size, total)
            if ctx.env is not DECLARING:
                ctx.env.assume_equal(total, size)
                parts = tuple(ctx.env.canonical(p) for p in parts)
        return [
            TensorType(ctx.dtype(0), (*sizes[:axis], part, *sizes[axis + 1 :])) for part in parts
        ]

    def _wrong_total(self, ctx: InferContext, size: int, total: int) -> ShapeError:
        pieces = shape_text(operand_values(ctx, 1, ctx.attrs["num_split"]))
        declaring = f"can't split axis of size {size} into pieces of size {pieces}"
        return run_error(
            ctx,
            operand_error(ctx, declaring, 1, 2),
            "Determined shape must either match input shape along split_dim exactly if fully "
            "specified, or be less than the size of the input along split_dim if not fully "
            f"specified.  Got: {total}",
        )

    def _parts(self, ctx: InferContext, wanted: Sizes, size: DimLike) -> Sizes:
        if sum(w == -1 for w in wanted) > 1:
            raise operand_error(ctx, "size_splits can only have one -1", 1)
        if any(isinstance(w, int) and w < -1 for w in wanted):
            raise operand_error(ctx, f"size_splits must be >= -1: {shape_text(wanted)}", 1)
        signs = [negative(w) for w in wanted]
        rest = size
        for w, n in zip(wanted, signs, strict=True):
            rest = rest - w - n  # -1 and 1 cancel
        if isinstance(rest, int) and rest < 0 and -1 in wanted:
            raise ctx.error(f"size_splits are together {-rest} larger than the dimension")
        return tuple(w + n * (rest + 1) for w, n in zip(wanted, signs, strict=True))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradients, concatenated."""
        return [self._joined(op, grads), None, None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's split at the sums of the sizes."""
        x, splits, axis = inputs[0], [int(s) for s in inputs[1]], int(inputs[2])
        if -1 in splits:
            splits[splits.index(-1)] = x.shape[axis] - sum(splits) - 1
        return tuple(np.split(x, np.cumsum(splits)[:-1], axis))

    def samples(self) -> Iterable[Sample]:
        """Each axis, one part, a -1, empty parts."""
        for shape, splits, axis in (
            ((4, 6), (1, 3), 0), ((4, 6), (2, 1, 3), 1), ((4, 6), (2, -1), -1), ((3,), (3,), 0),
            ((4, 2), (0, 4), 0), ((0, 2), (0, 0), 0),
        ):  # fmt: skip
            yield Sample(
                (grid(*shape), np.array(splits, np.int64), np.int64(axis)),
                {"num_split": len(splits)},
            )
