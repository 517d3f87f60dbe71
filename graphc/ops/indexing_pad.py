"""Slice, Pad, PadV2: less and more of a tensor around its edges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
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
    all_of,
    flat_value,
    fresh_sizes,
    guarded,
    int_tensor,
    known_ints,
    negative,
    operand_error,
    operand_values,
    refuse_where_empty,
    result,
    run_error,
    shape_tensor,
    summed,
    value_exprs,
    zero_of,
)


def sure(op: Operation) -> list[tuple[bool, bool]]:
    """For each dimension of a Slice, whether its begin and its end are known to be inside."""
    sizes, out = op.inputs[0].sizes or (), op.outputs[0].sizes or ()
    found = []
    known = flat_value(op.inputs[1]) or (None,) * len(out)
    for size, taken, first in zip(sizes, out, known, strict=False):
        if first is None or isinstance(first, Element):
            found.append((False, False))
        else:
            inside = dims.is_nonnegative(size - first - taken)
            found.append((bool(dims.is_nonnegative(first)), bool(inside)))
    return found


@register
class Slice(ElementOp):
    """The part of ``input`` that starts at ``begin`` and has ``size``; -1: up to the end."""

    name = "Slice"
    inputs = "input: T, begin: Index, size: Index"
    value_operands: ClassVar[tuple[int, ...]] = (1, 2)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Index": INDEX}
    fallible = True

    def can_fail(self, op: Operation) -> bool:
        """Unless the part is known to be one of the operand."""
        return op.outputs[0].sizes is None or not all(low and high for low, high in sure(op))

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The size asked for."""
        sizes = ctx.sizes(0)
        if sizes is None:
            count = ctx.rank(1, 1)[0]
            wanted = operand_values(ctx, 2, count) if isinstance(count, int) else None
            if wanted is None or any(w == -1 for w in wanted):
                return result(ctx, fresh_sizes(count) if isinstance(count, int) else None)
            return result(ctx, wanted)
        for i in (1, 2):
            count = ctx.rank(i, 1)[0]
            if isinstance(count, int) and count != len(sizes):
                raise ctx.error(f"Shape must be rank {count} but is rank {len(sizes)}")
        begin = operand_values(ctx, 1, len(sizes))
        wanted = operand_values(ctx, 2, len(sizes))
        out: list[DimLike] = []
        for i, (n, b, w) in enumerate(zip(sizes, begin, wanted, strict=True)):
            n = ctx.env.canonical(n)
            rest = n - b
            self._check(ctx, i, n, b, w)
            out.append(rest if w == -1 else w + negative(w) * (rest + 1))
        beyond = [
            number for n, b, taken in zip(sizes, begin, out, strict=True)
            for number in (-b, b + taken - ctx.env.canonical(n))
        ]  # fmt: skip
        refuse_where_empty(ctx, tuple(out), beyond)
        return result(ctx, tuple(out))

    def _check(self, ctx: InferContext, i: int, n: DimLike, b: DimLike, w: DimLike) -> None:
        if not isinstance(n, int):
            return
        if isinstance(b, int) and not 0 <= b <= n:
            text = f"Expected begin[{i}] in [0, {n}], but got {b}"
            raise run_error(ctx, operand_error(ctx, text), text)
        if isinstance(b, int) and isinstance(w, int) and not -1 <= w <= n - b:
            text = f"Expected size[{i}] in [0, {n - b}], but got {w}"
            raise run_error(ctx, operand_error(ctx, text), text)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element at ``begin + index``."""
        begin = value_exprs(ctx, 1, (len(index),))
        value = ctx.operand(0, tuple(b + i for b, i in zip(begin, index, strict=True)))
        for axis, (b, (low, high)) in enumerate(zip(begin, sure(ctx.op), strict=True)):
            size, taken = ctx.sizes(0)[axis], ctx.out_sizes()[axis]
            inside: list[ir.Expr] = []
            if not low:
                inside.append(b >= 0)
            if not high:
                inside.append(b + ctx.size(taken) <= ctx.size(size))
            if inside:
                site = ctx.site(f"Expected size[{axis}] in [0, %d], but got %d")
                details = (ctx.size(size) - b, ctx.size(taken))
                value = ir.Require(all_of(inside), value, site, details)
        return value

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient as a strided slice's."""
        x, begin, _ = op.inputs
        dtype = begin.dtype.base_dtype
        taken = shape_tensor(op.outputs[0], dtype)
        ends = call("AddV2", begin, taken)
        count = begin.sizes[0] if begin.sizes else None
        if isinstance(count, int):
            ones = int_tensor([1] * count, dtype)
        else:
            ones = call("OnesLike", begin)
        shape = shape_tensor(x, dtype)
        return [call("StridedSliceGrad", shape, begin, ends, ones, grads[0]), None, None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's slices."""
        x, begin, size = inputs
        ends = [n if s == -1 else b + s for n, b, s in zip(x.shape, begin, size, strict=True)]
        return x[tuple(slice(int(b), int(e)) for b, e in zip(begin, ends, strict=True))]

    def samples(self) -> Iterable[Sample]:
        """The middle, up to the end, everything, nothing, scalars."""
        for shape, begin, size in (
            ((5,), (1,), (3,)), ((3, 4), (1, 0), (-1, 2)), ((3, 4), (0, 0), (-1, -1)),
            ((2, 3), (1, 3), (1, 0)), ((0, 2), (0, 1), (0, 1)), ((), (), ()),
            ((1, 5), (0, 4), (1, 1)),
        ):  # fmt: skip
            yield Sample((grid(*shape), np.array(begin, np.int64), np.array(size, np.int64)))

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The elements of the part, of a vector."""
        x, begin, size = flat_value(op.inputs[0]), *(known_ints(t) for t in op.inputs[1:3])
        if x is None or begin is None or size is None or not begin:
            return x if not begin and size == () else None
        return x[begin[0] :] if size[0] == -1 else x[begin[0] : begin[0] + size[0]]


class Padding(ElementOp):
    """What the ways to pad share: operand 1 holds a row (before, after) for each dimension."""

    value_operands: ClassVar[tuple[int, ...]] = (1,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tpaddings": INDEX}

    def paddings(self, ctx: InferContext, sizes: Sizes) -> list[tuple[DimLike, DimLike]]:
        """The rows (before, after)."""
        rows, columns = ctx.rank(1, 2)
        if isinstance(columns, int) and columns != 2:
            raise ctx.error(f"Dimension must be 2 but is {columns}")
        if isinstance(rows, int) and rows != len(sizes):
            raise ctx.error(f"Shape must be rank {rows} but is rank {len(sizes)}")
        values = operand_values(ctx, 1, 2 * len(sizes))
        if any(isinstance(v, int) and v < 0 for v in values):
            text = f"Paddings must be non-negative: {' '.join(str(v) for v in values)}"
            raise run_error(ctx, operand_error(ctx, "Paddings must be non-negative", 1), text)
        return list(zip(values[::2], values[1::2], strict=True))

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """Each size plus what is padded before and after."""
        sizes = ctx.sizes(0)
        if sizes is None:
            rank = ctx.rank(1, 2)[0]
            return result(ctx, fresh_sizes(rank) if isinstance(rank, int) else None)
        rows = self.paddings(ctx, sizes)
        return result(ctx, tuple(s + b + a for s, (b, a) in zip(sizes, rows, strict=True)))


class _ConstantPadding(Padding):
    def _outside(self, ctx: ElementContext, dtype: DType) -> ir.Expr:
        return zero_of(dtype)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element inside, the constant outside."""
        before = value_exprs(ctx, 1, (len(index), 2))[::2]
        conditions: list[ir.Expr] = []
        source: list[ir.Expr] = []
        for axis, (i, b) in enumerate(zip(index, before, strict=True)):
            size, out = ctx.sizes(0)[axis], ctx.out_sizes()[axis]
            source.append(i - b)
            none_before = isinstance(b, ir.Const) and b.value == 0
            if not none_before:
                conditions.append(i >= b)
            if not (isinstance(b, ir.Const) and size + b.value == out):
                conditions.append(source[-1] < ctx.size(size))
        value = ctx.operand(0, tuple(source))
        return guarded(all_of(conditions), value, self._outside(ctx, value.dtype))

    def _padding_gradient(self, op: Operation, grad: Tensor | None) -> Tensor:
        x, paddings = op.inputs[:2]
        known = known_ints(paddings)
        dtype = paddings.dtype.base_dtype
        if known is not None:
            begin = int_tensor(known[::2], dtype)
        else:
            begin = call("GatherV2", paddings, int_tensor(0), int_tensor(1))
        return call("Slice", grad, begin, shape_tensor(x, dtype))


_PADS: tuple[tuple[tuple[int, ...], Any], ...] = (
    ((3,), [[1, 2]]),
    ((2, 3), [[1, 0], [0, 2]]),
    ((2, 3), [[0, 0], [0, 0]]),
    ((0, 2), [[1, 1], [0, 1]]),
    ((1, 1), [[2, 2], [1, 1]]),
    ((), np.zeros((0, 2))),
)


@register
class Pad(_ConstantPadding):
    """``input`` with zeros around it: ``paddings[i]`` is (before, after) for axis ``i``."""

    name = "Pad"
    inputs = "input: T, paddings: Tpaddings"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The inner part of the gradient."""
        return [self._padding_gradient(op, grads[0]), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's pad."""
        return np.pad(inputs[0], np.asarray(inputs[1])) if np.ndim(inputs[0]) else inputs[0]

    def samples(self) -> Iterable[Sample]:
        """Each side, none, nothing to pad, scalars."""
        for shape, rows in _PADS:
            yield Sample((grid(*shape), np.array(rows, np.int64)))


@register
class PadV2(_ConstantPadding):
    """``input`` with the scalar ``constant_values`` around it; see Pad."""

    name = "PadV2"
    inputs = "input: T, paddings: Tpaddings, constant_values: T"

    def _outside(self, ctx: ElementContext, dtype: DType) -> ir.Expr:
        return ctx.operand(2, ())

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The inner part of the gradient; what is left of its sum for the constant."""
        assert grads[0] is not None
        inner = self._padding_gradient(op, grads[0])
        return [inner, None, call("Sub", summed(grads[0]), summed(inner))]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's pad."""
        if not np.ndim(inputs[0]):
            return inputs[0]
        return np.pad(inputs[0], np.asarray(inputs[1]), constant_values=inputs[2])

    def samples(self) -> Iterable[Sample]:
        """The rows of Pad, with a constant."""
        for shape, rows in _PADS:
            yield Sample((grid(*shape), np.array(rows, np.int64), np.float64(1.5)))
