"""What the movement and indexing ops share: integer operands, axes, error texts, size tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from graphc import dims, dtypes
from graphc.build import constant_of
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import CompileError, ShapeError
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import DECLARING, Element, ElementContext, InferContext, partial_value
from graphc.ops.base import call, fits
from graphc.shapes import shape_text

Sizes = tuple[DimLike, ...]
INDEX = (dtypes.int32, dtypes.int64)


# --- operands that are integers -------------------------------------------------------------------


def flat_value(tensor: Tensor) -> tuple[DimLike | Element, ...] | None:
    """The elements of an integer tensor of any rank, row by row, where its graph tells them."""
    if tensor.op.type == "Const" and tensor.dtype.is_integer:
        found = tuple(int(v) for v in np.asarray(tensor.op.attrs["value"]).reshape(-1))
        return found if all(fits(v, dtypes.int64) for v in found) else None
    if tensor.sizes is not None and 0 in tensor.sizes:
        return ()
    if tensor.sizes is not None and len(tensor.sizes) <= 1:
        return partial_value(tensor)
    op = tensor.op
    if getattr(op.definition, "view", False):
        return flat_value(op.inputs[0])
    if op.type == "Pack" and op.attrs["axis"] == 0:
        rows = [flat_value(t) for t in op.inputs]
        if all(row is not None for row in rows):
            return tuple(v for row in rows if row is not None for v in row)
    return None


def known_ints(tensor: Tensor) -> tuple[int, ...] | None:
    """The elements of an integer tensor, row by row, where all of them are fixed by its graph."""
    found = flat_value(tensor)
    if found is None or not all(isinstance(v, int) for v in found):
        return None
    return cast(tuple[int, ...], found)


def operand_ints(ctx: InferContext, i: int, what: str) -> tuple[int, ...] | None:
    """The fixed elements of operand ``i``; None while declaring, where they are not fixed.

    Raises:
      ShapeError: while compiling: the ``what`` of the op must not depend on what is fed.
    """
    known = known_ints(ctx.tensors[i])
    if known is None and ctx.env is not DECLARING:
        values = ctx.value(i) or ()
        known = tuple(v for v in values if isinstance(v, int))
        if not known or len(known) != len(values):
            raise ctx.error(f"The {what} must be known when the graph is compiled")
        ctx.tensors[i]._value_sizes = (known,)  # for the element definitions
    return known


def operand_values(ctx: InferContext, i: int, count: int) -> Sizes:
    """``count`` integers of operand ``i``, of any rank, as sizes; see ``InferContext.value``."""
    sizes = ctx.sizes(i)
    if sizes is None or len(sizes) <= 1:
        found = ctx.value(i)
        if found is None and sizes and ctx.env is not DECLARING:
            # The op says how many there are, so that is what a run must give.
            ctx.equal(sizes[0], count)
            found = ctx.env.value_symbols(ctx.tensors[i], count)
        if found is None and known_ints(ctx.tensors[i]) is None:
            return tuple(dims.fresh("v", positive=False) for _ in range(count))
        values: Sizes = found if found is not None else known_ints(ctx.tensors[i]) or ()
    else:
        flat = flat_value(ctx.tensors[i])
        if flat is not None and not any(isinstance(v, Element) for v in flat):
            values = cast(Sizes, flat)
        else:
            values = ctx.env.value_symbols(ctx.tensors[i], count)
    if len(values) != count:
        raise ctx.error(f"Expected {count} values in operand {i} but found {len(values)}")
    return tuple(ctx.env.canonical(v) for v in values)


def value_exprs(ctx: ElementContext, i: int, shape: tuple[int, ...]) -> list[ir.Expr]:
    """The elements of integer operand ``i`` (of static shape) as int64, row by row."""
    flat = flat_value(ctx.op.inputs[i])
    found: list[ir.Expr] = []
    for position, index in enumerate(np.ndindex(*shape)):
        value = None if flat is None else flat[position]
        if value is None or isinstance(value, Element):
            at = tuple(ir.const(k) for k in index)
            found.append(ir.cast(ctx.operand(i, at), dtypes.int64))
        else:
            found.append(ctx.size(value))
    return found


def value_expr(ctx: ElementContext, i: int) -> ir.Expr:
    """The integer scalar operand ``i`` as int64."""
    return value_exprs(ctx, i, ())[0]


# --- sizes ----------------------------------------------------------------------------------------


def negative(value: DimLike) -> DimLike:
    """1 where the number is below zero, else 0."""
    return dims.maximum(0, dims.minimum(1, -value))


def one_where_equal(a: DimLike, b: DimLike) -> DimLike:
    """1 where two numbers are equal, else 0."""
    return dims.maximum(0, 1 - dims.maximum(a - b, b - a))


def refuse_where_empty(ctx: InferContext, out: Sizes, beyond: Sequence[DimLike]) -> None:
    """Let a run with an empty result fail where one of the numbers ``beyond`` is above zero.

    Such a result has no element whose computation could check it.  A run of which this is true
    breaks a guard, and is compiled for its own sizes: then inference sees what is wrong.
    """
    if not ctx.env.guards_runs(ctx.tensors):
        return
    elements = dims.product(out)
    empty = 1 - dims.minimum(1, elements)
    for number in beyond:
        wrong = dims.maximum(0, dims.minimum(1, number)) * empty
        if not isinstance(wrong, int):
            ctx.env.assume_equal(wrong, 0)


def fresh_sizes(rank: int) -> Sizes:
    """Sizes that nothing is known of."""
    return tuple(dims.fresh() for _ in range(rank))


def in_range(axis: int, rank: int) -> int:
    """The axis counted from the front.

    Raises:
      IndexError: when it is not in ``[-rank, rank)``.
    """
    if not -rank <= axis < rank:
        raise IndexError(axis)
    return axis % rank


def axis_of(ctx: InferContext, axis: int, rank: int, *shown: int) -> int:
    """The axis counted from the front, which must be in ``[-rank, rank)``."""
    try:
        return in_range(axis, rank)
    except IndexError:
        least = axis + 1 if axis >= 0 else -axis
        raise operand_error(
            ctx, f"Shape must be at least rank {least} but is rank {rank}", *shown
        ) from None


def static_axis(op: Operation, i: int, rank: int) -> int:
    """The fixed axis that operand ``i`` of an operation is, counted from the front."""
    known = known_ints(op.inputs[i])
    if known is None:
        raise CompileError(f"the axis of '{op.name}' is not known")
    return in_range(known[0], rank)


# --- errors ---------------------------------------------------------------------------------------


def operand_error(
    ctx: InferContext, message: str, *computed: int, partial: tuple[int, ...] = ()
) -> ShapeError:
    """A ShapeError in TensorFlow's words, with values of integer operands.

    ``computed``: operands shown as they are; ``partial``: operands shown as shapes.
    """
    if ctx.env is not DECLARING:
        return ctx.error(message)
    text = str(ctx.error(message))[:-1]
    known = [(i, known_ints(ctx.tensors[i])) for i in computed]
    shown = [f"input[{i}] = <{_printed(ctx, i, v)}>" for i, v in known if v is not None]
    if shown:
        text += f" and with computed input tensors: {', '.join(shown)}"
    for i in partial:
        values = flat_value(ctx.tensors[i]) or ()
        sizes = [v if isinstance(v, int) and v >= 0 else dims.fresh() for v in values]
        text += (
            f" and with input tensors computed as partial shapes: input[{i}] = {shape_text(sizes)}"
        )
    return ShapeError(text + ".")


def _printed(ctx: InferContext, i: int, values: Sequence[int]) -> str:
    sizes = ctx.sizes(i) or ()
    if len(sizes) < 2 or not isinstance(sizes[-1], int):
        return " ".join(str(v) for v in values)
    width = max(sizes[-1], 1)
    rows = (values[k : k + width] for k in range(0, len(values), width))
    return "".join(f"[{' '.join(str(v) for v in row)}]" for row in rows)


def run_error(ctx: InferContext, declaring: ShapeError, running: str) -> ShapeError:
    """``declaring`` while the user declares; ``running`` where the sizes of feeds are at fault."""
    return declaring if ctx.env is DECLARING else ShapeError(running)


def refuse_outside(indices: Any, size: int) -> None:
    """For references: an index from the end is NumPy's way, not TensorFlow's.

    Raises:
      IndexError: an index that is not in [0, size).
    """
    wrong = (np.asarray(indices) < 0) | (np.asarray(indices) >= size)
    if wrong.any():
        raise IndexError(f"index {np.asarray(indices)[wrong].flat[0]} is not in [0, {size})")


# --- elements -------------------------------------------------------------------------------------


def integer(value: ir.Expr, dtype: DType) -> ir.Expr:
    """An int64 expression as another integer type."""
    if isinstance(value, ir.Const):
        return ir.const(value.value, dtype)
    return ir.cast(value, dtype)


def zero_of(dtype: DType) -> ir.Const:
    """The zero (or False) of an element type."""
    return ir.Const(0, dtype.base_dtype)


def all_of(conditions: Sequence[ir.Expr]) -> ir.Expr:
    """Every condition holds."""
    total: ir.Expr = ir.TRUE
    for condition in conditions:
        total = ir.logical_and(total, condition)
    return total


def guarded(condition: ir.Expr, value: ir.Expr, otherwise: ir.Expr) -> ir.Expr:
    """A Guard, unless the condition is known to hold."""
    if isinstance(condition, ir.Const) and condition.value:
        return value
    return ir.Guard(condition, value, otherwise)


def select_segment(
    index: ir.Expr, starts: Sequence[ir.Expr], value: Callable[[int, ir.Expr], ir.Expr]
) -> ir.Expr:
    """``value(k, index - starts[k])`` for the last ``k`` whose start is not above the index.

    A balanced tree of guards; only the loads of the segment that the index is in are made.
    """

    def between(low: int, high: int) -> ir.Expr:
        if high - low == 1:
            return value(low, index - starts[low])
        middle = (low + high) // 2
        first, start = between(low, middle), starts[middle]
        if isinstance(index, ir.Const) and isinstance(start, ir.Const):
            return first if index.value < start.value else between(middle, high)
        second = ir.Guard(index >= start, between(middle, high), zero_of(first.dtype))
        return ir.Guard(index < start, first, second)

    return between(0, len(starts))


# --- tensors of sizes -----------------------------------------------------------------------------


def int_tensor(values: Any, dtype: DType = dtypes.int32, name: str = "Const") -> Tensor:
    """A constant of integers."""
    return constant_of(np.array(values, dtype=dtype.numpy), name)


def shape_tensor(x: Tensor, dtype: DType = dtypes.int32) -> Tensor:
    """The shape of ``x`` as a tensor: a constant where it is fully known."""
    sizes = x.sizes
    if sizes is not None and all(isinstance(s, int) for s in sizes):
        return int_tensor(sizes, dtype)
    return call("Shape", x, out_type=dtype)


def pick(vector: Tensor, positions: Sequence[int]) -> Tensor:
    """The elements of a vector at fixed positions, as a vector."""
    known = known_ints(vector)
    if known is not None:
        return int_tensor([known[p] for p in positions], vector.dtype.base_dtype)
    return call("GatherV2", vector, int_tensor(positions), int_tensor(0))


def dim_tensor(x: Tensor, axis: int, dtype: DType = dtypes.int32) -> Tensor:
    """One size of ``x`` as a scalar tensor."""
    size = None if x.sizes is None else x.sizes[axis]
    if isinstance(size, int):
        return int_tensor(size, dtype)
    if x.sizes is None and axis < 0:
        place: Tensor = call("Add", call("Rank", x), int_tensor(axis))
    else:
        place = int_tensor(axis if axis >= 0 else len(x.sizes or ()) + axis)
    return call("GatherV2", call("Shape", x, out_type=dtype), place, int_tensor(0))


def all_axes(x: Tensor) -> Tensor:
    """The numbers of all dimensions of ``x``."""
    if x.sizes is not None:
        return int_tensor(list(range(len(x.sizes))))
    return call("Range", int_tensor(0), call("Rank", x), int_tensor(1))


def summed(x: Tensor) -> Tensor:
    """The sum of all elements."""
    return call("Sum", x, all_axes(x), keep_dims=False)


def dims_between(x: Tensor, begin: int | None, end: int | None) -> Tensor:
    """The sizes ``x.shape[begin:end]`` as a vector."""
    sizes = x.sizes
    if sizes is None:
        limits = [int_tensor([v or 0]) for v in (begin, end)]
        open_begin, open_end = int(begin is None), int(end is None)
        return call(
            "StridedSlice",
            call("Shape", x),
            *limits,
            int_tensor([1]),
            begin_mask=open_begin,
            end_mask=open_end,
        )
    return pick(shape_tensor(x), range(len(sizes))[begin:end])


def count_between(x: Tensor, begin: int | None, end: int | None) -> Tensor:
    """The product of the sizes ``x.shape[begin:end]``, as a vector of one element."""
    if x.sizes is None:
        vector = dims_between(x, begin, end)
        return call("Prod", vector, int_tensor([0]), keep_dims=True)
    count = dims.product(x.sizes[begin:end])
    if isinstance(count, int):
        return int_tensor([count])
    total: Tensor | None = None
    for axis in range(len(x.sizes))[begin:end]:
        size = dim_tensor(x, axis)
        total = size if total is None else call("Mul", total, size)
    assert total is not None
    return call("Reshape", total, int_tensor([1]))


def joined(*vectors: Tensor) -> Tensor:
    """Integer vectors one after the other."""
    kept = [v for v in vectors if v.sizes != (0,)] or list(vectors[:1])
    return kept[0] if len(kept) == 1 else call("ConcatV2", kept, int_tensor(0))


def zeros_for(grad: Tensor | None, output: Tensor) -> Tensor:
    """The gradient of an output; zeros where there is none."""
    return call("ZerosLike", output) if grad is None else grad


def result(ctx: InferContext, sizes: Sizes | None) -> list[TensorType]:
    """One output with the dtype of operand 0."""
    return [TensorType(ctx.dtype(0), sizes)]
