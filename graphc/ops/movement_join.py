"""ConcatV2, Concat, Pack: several tensors as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.build import create
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import ShapeError
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    Attr,
    Element,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Sample,
    partial_value,
    register,
)
from graphc.ops.base import call, grid
from graphc.ops.movement_value import (
    INDEX,
    Sizes,
    axis_of,
    dim_tensor,
    flat_value,
    fresh_sizes,
    in_range,
    int_tensor,
    known_ints,
    operand_error,
    operand_ints,
    run_error,
    select_segment,
    static_axis,
)
from graphc.shapes import shape_text


class _Concat(ElementOp):
    """What the two spellings of concatenation share; ``axis_first`` is how they differ."""

    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tidx": INDEX}
    axis_first: ClassVar[bool] = False

    def _axis_operand(self, count: int) -> int:
        return 0 if self.axis_first else count - 1

    def _values(self, count: int) -> range:
        return range(1, count) if self.axis_first else range(count - 1)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes along the axis added up; the others must agree."""
        count = len(ctx.inputs)
        at, values = self._axis_operand(count), self._values(count)
        if not values:
            raise ctx.error("Concatenation needs at least one tensor")
        dtype = ctx.dtype(values[0])
        known = [ctx.sizes(i) for i in values if ctx.sizes(i) is not None]
        if not known or known[0] is None:
            return [TensorType(dtype, None)]
        rank = len(known[0])
        for i in values:
            sizes = ctx.sizes(i)
            if sizes is not None and len(sizes) != rank:
                raise ctx.error(f"Shape must be rank {rank} but is rank {len(sizes)}")
        if rank == 0:
            raise ctx.error("Can't concatenate scalars (use tf.stack instead)")
        found = operand_ints(ctx, at, "axis")
        if found is None:
            return [TensorType(dtype, fresh_sizes(rank))]
        axis = axis_of(ctx, found[0], rank, at)
        if len(known) < len(values):
            return [TensorType(dtype, self._unknown_rank(ctx, axis, known[0]))]
        return [TensorType(dtype, self._joined(ctx, axis, [s for s in known if s is not None]))]

    def _unknown_rank(self, ctx: InferContext, axis: int, sizes: Sizes) -> Sizes:
        return tuple(dims.fresh() if i == axis else s for i, s in enumerate(sizes))

    def _joined(self, ctx: InferContext, axis: int, shapes: list[Sizes]) -> Sizes:
        out = [ctx.env.canonical(s) for s in shapes[0]]
        for sizes in shapes[1:]:
            for i, size in enumerate(ctx.env.canonical(s) for s in sizes):
                if i == axis:
                    out[i] = out[i] + size
                elif out[i] != size:
                    if isinstance(out[i], int) and isinstance(size, int):
                        raise self._mismatch(ctx, axis, i, shapes[0], sizes, shapes)
                    out[i] = ctx.env.assume_equal(out[i], size)
        return tuple(out)

    def _mismatch(
        self, ctx: InferContext, axis: int, i: int, a: Sizes, b: Sizes, shapes: list[Sizes]
    ) -> ShapeError:
        rest_a, rest_b = (s[:axis] + s[axis + 1 :] for s in (a, b))
        at = i - (i > axis)
        declaring = operand_error(
            ctx,
            f"Dimension {at} in both shapes must be equal, but are {a[i]} and {b[i]}. Shapes are "
            f"{shape_text(rest_a)} and {shape_text(rest_b)}.",
            self._axis_operand(len(ctx.inputs)),
        )
        running = (
            f"ConcatOp : Dimensions of inputs should match: shape[0] = {shape_text(a)} vs. "
            f"shape[{shapes.index(b)}] = {shape_text(b)}"
        )
        return run_error(ctx, declaring, running)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The element of the operand that the index along the axis falls into."""
        values = self._values(len(ctx.op.inputs))
        axis = static_axis(ctx.op, self._axis_operand(len(ctx.op.inputs)), len(index))
        parts, starts, start = [], [], _NONE
        for i in values:
            size = ctx.sizes(i)[axis]
            if size != 0 or len(values) == 1:
                parts.append(i)
                starts.append(ctx.size(start))
            start = start + size
        if not parts:
            parts, starts = [values[0]], [ir.ZERO]

        def part(k: int, offset: ir.Expr) -> ir.Expr:
            return ctx.operand(parts[k], (*index[:axis], offset, *index[axis + 1 :]))

        return select_segment(index[axis], starts, part)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient, split."""
        values = self._values(len(op.inputs))
        out: list[Tensor | None] = [None] * len(op.inputs)
        if len(values) == 1:
            out[values[0]] = grads[0]
            return out
        axis = op.inputs[self._axis_operand(len(op.inputs))]
        splits, at = self._splits(op, axis)
        attrs = {"num_split": len(values)}
        pieces = create("SplitV", [grads[0], splits, at], attrs).outputs
        for i, piece in zip(values, pieces, strict=True):
            out[i] = piece
        return out

    def _splits(self, op: Operation, axis: Tensor) -> tuple[Tensor, Tensor]:
        """The operands' sizes along the axis, and the axis."""
        parts = [op.inputs[i] for i in self._values(len(op.inputs))]
        sizes, known = op.outputs[0].sizes, known_ints(axis)
        if known is None or (sizes is None and known[0] < 0):
            where = call("Cast", axis, DstT=dtypes.int32)
            at = call("FloorMod", where, call("Rank", op.outputs[0]))
            picked = [call("GatherV2", call("Shape", p), at, int_tensor(0)) for p in parts]
            return call("Pack", picked, axis=0), at
        index = known[0] if sizes is None else in_range(known[0], len(sizes))
        found = [None if p.sizes is None else p.sizes[index] for p in parts]
        if all(isinstance(s, int) for s in found):
            return int_tensor(found), int_tensor(index)
        packed = call("Pack", [dim_tensor(p, index) for p in parts], axis=0)
        return packed, int_tensor(index)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's concatenate."""
        axis = inputs[self._axis_operand(len(inputs))]
        return np.concatenate([inputs[i] for i in self._values(len(inputs))], int(axis))

    def samples(self) -> Iterable[Sample]:
        """Each axis, one operand, many, empty ones among them."""
        a, b, c = grid(2, 3), grid(4, 3) * 0.5, grid(2, 1) - 1
        for values, axis in (
            ([a, b], 0), ([a, c, a], 1), ([a], 0), ([a, c], -1), ([grid(3)] * 7, 0),
            ([np.zeros((0, 3)), b, np.zeros((0, 3))], 0), ([np.zeros((2, 0)), a], 1),
            ([np.zeros((0,)), np.zeros((0,))], 0), ([grid(2, 1, 2), grid(2, 3, 2)], 1),
        ):  # fmt: skip
            operands = (np.int64(axis), values) if self.axis_first else (values, np.int64(axis))
            yield Sample(operands)

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The operands' elements, one after the other."""
        found: list[DimLike | Element] = []
        for i in self._values(len(op.inputs)):
            value = _elements(op.inputs[i])
            if value is None:
                return None
            found += value
        return tuple(found)


_NONE: DimLike = 0


def _elements(vector: Tensor) -> Sequence[DimLike | Element] | None:
    """The elements of an integer vector; those that only a run tells as such."""
    known = partial_value(vector)
    if known is not None:
        return known
    count = vector.sizes[0] if vector.sizes else None
    if not isinstance(count, int) or count > 64:
        return None
    return [Element(vector, k) for k in range(count)]


@register
class ConcatV2(_Concat):
    """The tensors ``values``, one after the other along dimension ``axis``."""

    name = "ConcatV2"
    inputs = "values: N*T, axis: Tidx"
    value_operands: ClassVar[tuple[int, ...]] = (-1,)
    constant_operands: ClassVar[tuple[int, ...]] = (-1,)


@register
class Concat(_Concat):
    """The tensors ``values``, one after the other along dimension ``concat_dim``."""

    name = "Concat"
    inputs = "concat_dim: Tidx, values: N*T"
    value_operands: ClassVar[tuple[int, ...]] = (0,)
    constant_operands: ClassVar[tuple[int, ...]] = (0,)
    axis_first = True


@register
class Pack(ElementOp):
    """The tensors ``values``, all of one shape, along a new dimension ``axis``."""

    name = "Pack"
    inputs = "values: N*T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL}
    attrs: ClassVar[dict[str, Attr]] = {"axis": Attr("int", 0)}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operands' common shape and their number."""
        count = len(ctx.inputs)
        if not count:
            raise ctx.error("Pack needs at least one tensor")
        dtype, known = ctx.dtype(0), [s for i in range(count) if (s := ctx.sizes(i)) is not None]
        if not known:
            return [TensorType(dtype, None)]
        common = [ctx.env.canonical(s) for s in known[0]]
        axis = axis_of(ctx, ctx.attrs["axis"], len(common) + 1)
        for sizes in known[1:]:
            if len(sizes) != len(common):
                raise ctx.error(
                    f"Shapes must be equal rank, but are {len(common)} and {len(sizes)}\n\tFrom "
                    f"merging shape {known.index(sizes) - 1} with other shapes."
                )
            for i, size in enumerate(ctx.env.canonical(s) for s in sizes):
                if isinstance(common[i], int) and isinstance(size, int) and common[i] != size:
                    raise self._mismatch(ctx, i, known[0], sizes)
                if common[i] != size:
                    common[i] = ctx.env.assume_equal(common[i], size)
        return [TensorType(dtype, (*common[:axis], count, *common[axis:]))]

    def _mismatch(self, ctx: InferContext, i: int, a: Sizes, b: Sizes) -> ShapeError:
        position = next(k for k, t in enumerate(ctx.inputs) if t.sizes is b)
        declaring = ctx.error(
            f"Dimension {i} in both shapes must be equal, but are {a[i]} and {b[i]}. Shapes are "
            f"{shape_text(a)} and {shape_text(b)}.\n\tFrom merging shape {position - 1} with other "
            "shapes."
        )
        running = (
            f"Shapes of all inputs must match: values[0].shape = {shape_text(a)} != "
            f"values[{position}].shape = {shape_text(b)}"
        )
        return run_error(ctx, declaring, running)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The element of the operand that the index along the new axis names."""
        axis = ctx.op.attrs["axis"] % len(index)
        rest = (*index[:axis], *index[axis + 1 :])
        starts = [ir.const(k) for k in range(len(ctx.op.inputs))]
        return select_segment(index[axis], starts, lambda k, _: ctx.operand(k, rest))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient, unpacked."""
        attrs = {"num": len(op.inputs), "axis": op.attrs["axis"]}
        return create("Unpack", [grads[0]], attrs).outputs

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's stack."""
        return np.stack(inputs, attrs["axis"])

    def samples(self) -> Iterable[Sample]:
        """Each axis, scalars, one operand, nothing."""
        a, b = grid(2, 3), grid(2, 3) * 0.5
        for axis in (0, 1, 2, -1, -3):
            yield Sample(([a, b, a],), {"axis": axis})
        yield Sample(([grid(), grid() + 1],), {"axis": 0}, note="scalars")
        yield Sample(([a],), {"axis": 1})
        yield Sample(([np.zeros((0, 2))] * 2,), {"axis": 0}, note="empty")

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The scalars packed."""
        found: list[DimLike | Element] = []
        for t in op.inputs:
            value = flat_value(t)
            found.append(value[0] if value else Element(t, 0))
        return tuple(found)
