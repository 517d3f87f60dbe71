"""Reshape, ExpandDims, Squeeze: the same elements in the same order under another shape."""

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
    in_range,
    negative,
    operand_error,
    operand_ints,
    result,
    run_error,
    shape_tensor,
)

# --- index arithmetic -----------------------------------------------------------------------------


def aligned_groups(a: Sizes, b: Sizes) -> list[tuple[list[int], list[int]]]:
    """Runs of dims of two shapes that hold the same elements, as short as can be seen.

    Dims of size 1 are in no run.  What cannot be told apart ends up in one last run.
    """
    left = [i for i, s in enumerate(a) if s != 1]
    right = [j for j, s in enumerate(b) if s != 1]
    groups: list[tuple[list[int], list[int]]] = []
    while left and right:
        run_a, run_b = [left.pop(0)], [right.pop(0)]
        size_a, size_b = a[run_a[0]], b[run_b[0]]
        while size_a != size_b:
            grow_a = _is_factor(size_a, size_b)
            grow_b = not grow_a and _is_factor(size_b, size_a)
            if grow_a and left:
                run_a.append(left.pop(0))
                size_a = size_a * a[run_a[-1]]
            elif grow_b and right:
                run_b.append(right.pop(0))
                size_b = size_b * b[run_b[-1]]
            else:
                run_a, run_b, left, right = run_a + left, run_b + right, [], []
                break
        groups.append((run_a, run_b))
    if left or right:
        last = groups.pop() if groups else ([], [])
        groups.append((last[0] + left, last[1] + right))
    return groups


def _is_factor(a: DimLike, b: DimLike) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    return dims.exact_div(b, a) is not None


def reshaped_index(
    ctx: ElementContext, index: tuple[ir.Expr, ...], out: Sizes, into: Sizes
) -> tuple[ir.Expr, ...]:
    """The index into shape ``into`` of the element at ``index`` of the same elements as ``out``."""
    found: list[ir.Expr] = [ir.ZERO] * len(into)
    for run_in, run_out in aligned_groups(into, out):
        if len(run_in) == 1 and len(run_out) == 1:
            found[run_in[0]] = index[run_out[0]]
            continue
        flat: ir.Expr = ir.ZERO
        for j in run_out:
            flat = flat * ctx.size(out[j]) + index[j]
        stride: DimLike = dims.product(into[i] for i in run_in)
        for n, i in enumerate(run_in):
            if n == len(run_in) - 1:
                found[i] = flat
            else:
                stride = dims.product(into[k] for k in run_in[n + 1 :])
                found[i] = ir.index_div(flat, ctx.size(stride))
                flat = ir.index_mod(flat, ctx.size(stride))
    return tuple(found)


class View(ElementOp):
    """An op whose output has the elements of operand 0, in the same order."""

    view = True

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element at the same position in row-major order."""
        at = reshaped_index(ctx, index, ctx.out_sizes(), ctx.sizes(0))
        return ctx.operand(0, at)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient in the operand's shape."""
        back = call("Reshape", grads[0], shape_tensor(op.inputs[0]))
        return [back, *[None] * (len(op.inputs) - 1)]

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The operand's elements."""
        return flat_value(op.inputs[0])


# --- the ops --------------------------------------------------------------------------------------


@register
class Reshape(View):
    """The elements of ``tensor``, in the same order, in another shape.

    One entry of ``shape`` may be -1: it is what the number of elements leaves for it.
    """

    name = "Reshape"
    inputs = "tensor: T, shape: Tshape"
    value_operands: ClassVar[tuple[int, ...]] = (1,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tshape": INDEX}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape asked for, with the -1 solved."""
        ctx.rank(1, 1)
        wanted = ctx.value(1)
        if wanted is None:
            return result(ctx, None)
        for v in wanted:
            if isinstance(v, int) and v < -1:
                at = wanted.index(v)
                raise operand_error(ctx, f"Size {at} must be non-negative, not {v}", partial=(1,))
        if sum(v == -1 for v in wanted) > 1:
            if ctx.env is DECLARING:
                return result(ctx, tuple(dims.fresh() if v == -1 else v for v in wanted))
            raise ShapeError("Only one input size may be -1")
        source = ctx.sizes(0)
        total = None if source is None else dims.product(ctx.env.canonical(s) for s in source)
        return result(ctx, solved(ctx, wanted, total))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's reshape."""
        shape = tuple(int(s) for s in inputs[1])
        if -1 in shape:
            left = int(np.prod([s for s in shape if s != -1]))
            shape = tuple(inputs[0].size // max(left, 1) if s == -1 else s for s in shape)
        return np.reshape(inputs[0], shape)

    def samples(self) -> Iterable[Sample]:
        """Merging, splitting, 1-dims, -1, scalars, nothing, and no dims in common."""
        for source, shape in (
            ((4, 6), (24,)), ((24,), (2, 3, 4)), ((4, 6), (3, 8)), ((2, 3, 4), (6, -1)),
            ((2, 1, 3), (1, 2, 3, 1)), ((3, 4), (-1,)), ((1,), ()), ((), (1, 1)),
            ((0, 3), (3, 0)), ((0, 3), (-1, 3)), ((2, 6, 5), (2, 3, 10)), ((5, 7), (5, 7)),
        ):  # fmt: skip
            yield Sample((grid(*source), np.array(shape, np.int64)))


# How many entries of a shape may be -1 for all that is known: the formulas grow exponentially.
MOST_SIGNS = 1


def solved(ctx: InferContext, wanted: Sizes, total: DimLike | None) -> Sizes:
    """``wanted`` with every entry that is (or may turn out to be) -1 replaced by its size."""
    known = dims.product(v for v in wanted if isinstance(v, int) and v != -1)
    if total is None:
        return tuple(dims.fresh() if v == -1 else _size_of(v) for v in wanted)
    if -1 not in wanted and all(dims.is_nonnegative(v) for v in wanted):
        return _checked(ctx, wanted, total)
    if known == 0 and -1 in wanted:
        raise ShapeError(
            "reshape cannot infer the missing input size for an empty tensor unless all specified "
            "input sizes are non-zero"
        )
    if ctx.env is DECLARING and any(isinstance(v, dims.Dim) and _unknown(v) for v in wanted):
        return tuple(dims.fresh() if v == -1 else _size_of(v) for v in wanted)
    if ctx.env is not DECLARING and sum(not dims.is_nonnegative(v) for v in wanted) > MOST_SIGNS:
        wanted = tuple(v if isinstance(v, int) else _as_size(ctx, v) for v in wanted)
        return solved(ctx, wanted, total)
    # An entry that only a run can tell may be -1 too: then it counts 1 in the product.
    signs = [negative(v) for v in wanted]
    others = dims.product(v + 2 * n for v, n in zip(wanted, signs, strict=True))
    if total == 0 and isinstance(others, int):
        quotient: DimLike = 0
    else:
        exact = dims.exact_div(total, others)
        quotient = dims.floordiv(total, others) if exact is None else exact
    sizes = tuple(v + n * (quotient + 1) for v, n in zip(wanted, signs, strict=True))
    if isinstance(total, int) and isinstance(others, int) and quotient * others != total:
        raise _not_divisible(ctx, total, others)
    return _checked(ctx, sizes, total)


def _as_size(ctx: InferContext, value: dims.Dim) -> DimLike:
    """The entry, assumed not to be -1: a run that has one compiles for its values."""
    if not dims.is_nonnegative(value):
        ctx.env.assume_equal(dims.maximum(value, 0), value)
        return dims.maximum(value, 0)
    return value


def _unknown(value: dims.Dim) -> bool:
    return not dims.is_nonnegative(value)


def _size_of(value: DimLike) -> DimLike:
    return dims.fresh() if isinstance(value, dims.Dim) and _unknown(value) else value


def _checked(ctx: InferContext, sizes: Sizes, total: DimLike) -> Sizes:
    count = dims.product(sizes)
    if count == total:
        return sizes
    if isinstance(count, int) and isinstance(total, int):
        sizes_text = ",".join(str(s) for s in sizes)
        raise run_error(
            ctx,
            operand_error(
                ctx,
                f"Cannot reshape a tensor with {total} elements to shape [{sizes_text}] "
                f"({count} elements)",
                partial=(1,),
            ),
            f"Input to reshape is a tensor with {total} values, but the requested shape has "
            f"{count}",
        )
    ctx.env.assume_equal(total, count)
    return tuple(ctx.env.canonical(s) for s in sizes)


def _not_divisible(ctx: InferContext, total: int, others: int) -> ShapeError:
    return run_error(
        ctx,
        operand_error(
            ctx,
            f"Dimension size must be evenly divisible by {others} but is {total}",
            partial=(1,),
        ),
        f"Input to reshape is a tensor with {total} values, but the requested shape requires a "
        f"multiple of {others}",
    )


@register
class ExpandDims(View):
    """``input`` with a dimension of size 1 put in before axis ``dim``; -1 appends one."""

    name = "ExpandDims"
    inputs = "input: T, dim: Tdim"
    value_operands: ClassVar[tuple[int, ...]] = (1,)
    constant_operands: ClassVar[tuple[int, ...]] = (1,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tdim": INDEX}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's sizes and a 1."""
        sizes, axis = ctx.sizes(0), operand_ints(ctx, 1, "axis")
        if sizes is None or (axis is not None and len(axis) != 1):
            return result(ctx, None)
        if axis is None:
            return result(ctx, fresh_sizes(len(sizes) + 1))
        try:
            at = in_range(axis[0], len(sizes) + 1)
        except IndexError:
            rank = len(sizes)
            raise operand_error(
                ctx, f"dim {axis[0]} not in the interval [{-rank - 1}, {rank}].", 1
            ) from None
        return result(ctx, (*sizes[:at], 1, *sizes[at:]))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's expand_dims."""
        return np.expand_dims(inputs[0], int(np.reshape(inputs[1], ())))

    def samples(self) -> Iterable[Sample]:
        """Each end, the middle, a scalar, nothing."""
        for shape, axis in (((2, 3), 0), ((2, 3), -1), ((2, 3), 1), ((), 0), ((0, 2), -2)):
            yield Sample((grid(*shape), np.int64(axis)))


@register
class Squeeze(View):
    """``input`` without the dimensions ``squeeze_dims``, which must be 1; all that are, for none.

    Which dimensions of unknown size are 1 is only known when the graph is compiled.
    """

    name = "Squeeze"
    inputs = "input: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL}
    attrs: ClassVar[dict[str, Attr]] = {"squeeze_dims": Attr("ints", ())}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes that are left."""
        sizes = ctx.sizes(0)
        if sizes is None:
            return result(ctx, None)
        sizes = tuple(ctx.env.canonical(s) for s in sizes)
        wanted = ctx.attrs["squeeze_dims"]
        if not wanted:
            ones = [ctx.env.is_one(s) for s in sizes]
            if any(one is None for one in ones):
                return result(ctx, None)
            left = (s for s, one in zip(sizes, ones, strict=True) if not one)
            return result(ctx, tuple(left))
        axes = {axis_of(ctx, a, len(sizes)) for a in wanted}
        for axis in axes:
            if ctx.env.canonical(sizes[axis]) != 1:
                self._must_be_one(ctx, axis, sizes[axis])
        return result(ctx, tuple(s for i, s in enumerate(sizes) if i not in axes))

    def _must_be_one(self, ctx: InferContext, axis: int, size: DimLike) -> None:
        if isinstance(size, int):
            raise run_error(
                ctx,
                ctx.error(f"Can not squeeze dim[{axis}], expected a dimension of 1, got {size}"),
                f"Can not squeeze dim[{axis}], expected a dimension of 1, got {size}",
            )
        ctx.env.assume_equal(size, 1)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's squeeze."""
        return np.squeeze(inputs[0], tuple(attrs["squeeze_dims"]) or None)

    def samples(self) -> Iterable[Sample]:
        """All, some, none, nothing."""
        x = grid(1, 3, 1, 2)
        for axes in ((), (0,), (2,), (-2, 0)):
            yield Sample((x,), {"squeeze_dims": axes})
        yield Sample((np.zeros((0, 1, 2)),), {"squeeze_dims": (1,)})
        yield Sample((grid(2, 3),), {"squeeze_dims": ()})
