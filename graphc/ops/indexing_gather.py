"""GatherV2, GatherNd and ScatterAddRows: rows by their numbers, and the sums of rows."""

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
    DECLARING,
    Attr,
    Element,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Sample,
    TemplateOp,
    register,
)
from graphc.ops.base import call, grid
from graphc.ops.movement_value import (
    INDEX,
    Sizes,
    all_of,
    axis_of,
    dim_tensor,
    flat_value,
    fresh_sizes,
    int_tensor,
    joined,
    known_ints,
    operand_ints,
    pick,
    result,
    shape_tensor,
    static_axis,
)
from graphc.shapes import shape_text


def flat_position(
    ctx: ElementContext, index: Sequence[ir.Expr], sizes: Sequence[DimLike]
) -> ir.Expr:
    """The row-major position of an index."""
    flat: ir.Expr = ir.ZERO
    for i, size in zip(index, sizes, strict=True):
        flat = flat * ctx.size(size) + i
    return flat


@register
class GatherV2(ElementOp):
    """The slices of ``params`` along ``axis`` that ``indices`` name, in the shape of ``indices``.

    The first ``batch_dims`` dimensions of both go together.  An index that is out of range fails
    the run.  The axis must be known when the graph is compiled.
    """

    name = "GatherV2"
    inputs = "params: Tparams, indices: Tindices, axis: Taxis"
    value_operands: ClassVar[tuple[int, ...]] = (2,)
    constant_operands: ClassVar[tuple[int, ...]] = (2,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {
        "Tparams": dtypes.ALL, "Tindices": INDEX, "Taxis": INDEX,
    }  # fmt: skip
    attrs: ClassVar[dict[str, Attr]] = {"batch_dims": Attr("int", 0)}
    fallible = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes of ``params`` with the axis replaced by those of ``indices``."""
        params, indices = ctx.sizes(0), ctx.sizes(1)
        ctx.rank(2, 0)
        if params is None or indices is None:
            return result(ctx, None)
        if not params:
            raise ctx.error("Shape must be at least rank 1 but is rank 0")
        found = operand_ints(ctx, 2, "axis")
        batch = ctx.attrs["batch_dims"]
        batch = batch + len(indices) if batch < 0 else batch
        if found is None:
            return result(ctx, fresh_sizes(len(params) - 1 + len(indices) - batch))
        axis = axis_of(ctx, found[0], len(params), 2)
        if not 0 <= batch <= min(axis, len(indices)):
            raise ctx.error(f"batch_dims {batch} must be in [0, {min(axis, len(indices))}]")
        pairs = zip(params[:batch], indices[:batch], strict=True)
        common = tuple(ctx.equal(a, b) for a, b in pairs)
        return result(ctx, (*common, *params[batch:axis], *indices[batch:], *params[axis + 1 :]))

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The element of the row that the index names."""
        params, indices = ctx.sizes(0), ctx.sizes(1)
        axis, batch = static_axis(ctx.op, 2, len(params)), batch_dims(ctx.op)
        stop = axis + len(indices) - batch
        at = (*index[:batch], *index[axis:stop])
        row = ir.cast(ctx.operand(1, at), dtypes.int64)
        value = ctx.operand(0, (*index[:axis], row, *index[stop:]))
        size = params[axis]
        known = known_ints(ctx.op.inputs[1])
        if known is not None and isinstance(size, int) and all(0 <= k < size for k in known):
            return value
        limit = str(size) if isinstance(size, int) else f"params.shape[{axis}]"
        where = "" if not indices else "[%d]"
        site = ctx.site(f"indices{where} = %d is not in [0, {limit})")
        details = (flat_position(ctx, at, indices), row) if indices else (row,)
        inside = all_of([row >= 0, row < ctx.size(size)])
        return ir.Require(inside, value, site, details)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The rows of the gradient added up by their numbers."""
        grad = grads[0]
        assert grad is not None
        return [gather_gradient(op, grad), None, None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's take, batch by batch."""
        params, indices, axis = inputs[0], np.asarray(inputs[1]), int(np.reshape(inputs[2], ()))
        axis, batch = axis % params.ndim, attrs["batch_dims"] % (indices.ndim + 1)
        batch = attrs["batch_dims"] + indices.ndim if attrs["batch_dims"] < 0 else batch
        if not batch:
            return np.take(params, indices, axis)
        shape = params.shape[:batch]
        outer = [np.take(params[b], indices[b], axis - batch) for b in np.ndindex(*shape)]
        if not outer:
            return np.zeros(
                shape + params.shape[batch:axis] + indices.shape[batch:] + params.shape[axis + 1 :]
            )
        return np.reshape(outer, shape + outer[0].shape)

    def samples(self) -> Iterable[Sample]:
        """Rows, columns, scalars, matrices of indices, batches, nothing; indices twice."""
        i = np.array([2, 0, 2, 1])
        yield Sample((grid(3, 4), i, np.int64(0)))
        yield Sample((grid(2, 3), i, np.int64(1)))
        yield Sample((grid(2, 3, 2), i, np.int64(-2)))
        yield Sample((grid(3, 2), np.int64(1), np.int64(0)), note="scalar index")
        yield Sample((grid(5), np.array([[0, 4], [3, 3]]), np.int64(0)))
        yield Sample((grid(3, 2), np.zeros((0,), np.int64), np.int64(0)), note="empty")
        rows = np.array([[0, 2], [1, 1]])
        yield Sample((grid(2, 3, 2), rows, np.int64(1)), {"batch_dims": 1})
        yield Sample((grid(2, 4, 3), rows, np.int64(2)), {"batch_dims": 1})

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """Elements of a vector at fixed places."""
        params, places = flat_value(op.inputs[0]), known_ints(op.inputs[1])
        if params is None or places is None or len(op.inputs[0].sizes or ()) != 1:
            return None
        if not all(0 <= p < len(params) for p in places):
            return None
        return tuple(params[p] for p in places)


def batch_dims(op: Operation) -> int:
    """How many leading dimensions go together, counted from the front."""
    batch = int(op.attrs["batch_dims"])
    return batch + len(op.inputs[1].sizes or ()) if batch < 0 else batch


def gather_gradient(op: Operation, grad: Tensor) -> Tensor:
    """The gradient of ``params``: updates moved to the front, summed by row, and moved back."""
    params, indices = op.inputs[:2]
    rank, batch = len(params.sizes or ()), batch_dims(op)
    axis = static_axis(op, 2, rank)
    shape = shape_tensor(params)
    extra = len(indices.sizes or ()) - batch
    if axis > batch:
        order = [*range(batch), *range(axis, axis + extra), *range(batch, axis),
                 *range(axis + extra, rank - 1 + extra)]  # fmt: skip
        grad = call("Transpose", grad, int_tensor(order))
    moved = [*range(batch), axis, *range(batch, axis), *range(axis + 1, rank)]
    inner = pick(shape, [*range(batch, axis), *range(axis + 1, rank)])
    minus_one = int_tensor([-1])
    rows = call("Reshape", grad, _with_count(indices, inner))
    flat = call("Reshape", _batch_offsets(params, indices, batch, axis), minus_one)
    count = pick(shape, [*range(batch), axis])
    total = call("Prod", count, int_tensor([0]), keep_dims=True) if batch else count
    summed = call("ScatterAddRows", joined(total, inner), flat, rows)
    summed = call("Reshape", summed, pick(shape, moved))
    if axis == batch:
        return summed
    return call("Transpose", summed, int_tensor(np.argsort(moved)))


def _with_count(indices: Tensor, inner: Tensor) -> Tensor:
    count = None if indices.sizes is None else dims.product(indices.sizes)
    if isinstance(count, int):
        return joined(int_tensor([count]), inner)
    return joined(call("Reshape", call("Size", indices), int_tensor([1])), inner)


def _batch_offsets(params: Tensor, indices: Tensor, batch: int, axis: int) -> Tensor:
    """The indices into the rows of all batches one after the other."""
    dtype, rank = indices.dtype.base_dtype, len(indices.sizes or ())
    stride = dim_tensor(params, axis, dtype)
    for d in reversed(range(batch)):
        size = dim_tensor(params, d, dtype)
        steps = call("Range", int_tensor(0, dtype), size, int_tensor(1, dtype))
        shape = [1] * rank
        shape[d] = -1
        offsets = call("Reshape", call("Mul", steps, stride), int_tensor(shape))
        indices = call("AddV2", indices, offsets)
        stride = call("Mul", stride, size)
    return indices


@register
class GatherNd(ElementOp):
    """The elements or slices of ``params`` at the index vectors in the last axis of ``indices``.

    An index that is out of range fails the run.
    """

    name = "GatherNd"
    inputs = "params: Tparams, indices: Tindices"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"Tparams": dtypes.ALL, "Tindices": INDEX}
    fallible = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The leading sizes of ``indices`` and what of ``params`` is not indexed."""
        params, indices = ctx.sizes(0), ctx.sizes(1)
        if indices is not None and not indices:
            raise ctx.error("Shape must be at least rank 1 but is rank 0")
        if params is None or indices is None:
            return result(ctx, None)
        if not isinstance(indices[-1], int):
            if ctx.env is not DECLARING:
                raise ctx.error("The last size of the indices must be known")
            return result(ctx, None)
        if indices[-1] > len(params):
            raise ctx.error(
                f"indices.shape[-1] must be <= params.rank, but saw indices shape: "
                f"{shape_text(indices)} and params shape: {shape_text(params)}"
            )
        return result(ctx, (*indices[:-1], *params[indices[-1] :]))

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The element at the index vector."""
        params, indices = ctx.sizes(0), ctx.sizes(1)
        depth, outer = indices[-1], len(indices) - 1
        assert isinstance(depth, int)
        at = index[:outer]
        rows = [ir.cast(ctx.operand(1, (*at, ir.const(k))), dtypes.int64) for k in range(depth)]
        value = ctx.operand(0, (*rows, *index[outer:]))
        for row, size in zip(rows, params, strict=False):
            site = ctx.site(
                f"indices[%d] = %d does not index into param shape {shape_text(params)}"
            )
            inside = all_of([row >= 0, row < ctx.size(size)])
            details = (flat_position(ctx, at, indices[:-1]), row)
            value = ir.Require(inside, value, site, details)
        return value

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient's slices added up by their flat positions."""
        params, indices = op.inputs
        dtype = indices.dtype.base_dtype
        depth = (indices.sizes or (0,))[-1]
        rank = len(params.sizes or ())
        assert isinstance(depth, int)
        shape = shape_tensor(params)
        inner = pick(shape, range(depth, rank))
        rows = call("Reshape", grads[0], _with_first(op, inner))
        flat = int_tensor([0], dtype)
        for k, part in enumerate(_columns(indices, depth)):
            flat = call("AddV2", call("Mul", flat, dim_tensor(params, k, dtype)), part)
        count = call("Prod", pick(shape, range(depth)), int_tensor([0]), keep_dims=True)
        summed = call("ScatterAddRows", joined(count, inner), flat, rows)
        return [call("Reshape", summed, shape), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's indexing by arrays."""
        params, indices = inputs
        return params[tuple(np.moveaxis(np.asarray(indices), -1, 0))]

    def samples(self) -> Iterable[Sample]:
        """Elements, rows, a single index, twice the same, nothing."""
        yield Sample((grid(3, 4), np.array([[0, 1], [2, 3], [0, 1]])))
        yield Sample((grid(3, 4), np.array([[2], [0]])))
        yield Sample((grid(3), np.array([1])))
        yield Sample((grid(2, 3, 2), np.array([[[1, 2]], [[0, 0]]])))
        yield Sample((grid(3, 4), np.zeros((0, 2), np.int64)))


def _columns(indices: Tensor, depth: int) -> list[Tensor]:
    columns = (call("GatherV2", indices, int_tensor(k), int_tensor(-1)) for k in range(depth))
    return [call("Reshape", column, int_tensor([-1])) for column in columns]


def _with_first(op: Operation, inner: Tensor) -> Tensor:
    indices = op.inputs[1]
    sizes: Sizes = indices.sizes or ()
    count = dims.product(sizes[:-1])
    if isinstance(count, int):
        return joined(int_tensor([count]), inner)
    outer = pick(shape_tensor(indices), range(len(sizes) - 1))
    return joined(call("Prod", outer, int_tensor([0]), keep_dims=True), inner)


@register
class ScatterAddRows(TemplateOp):
    """Zeros of ``shape`` with each row ``updates[i]`` added to row ``indices[i]``.

    Rows are added in the order of ``i``, so that the sums are the same in every run.  Rows whose
    number is out of range are left out: the forward op has already failed the run.
    """

    name = "ScatterAddRows"
    family = "scatter"
    inputs = "shape: Tshape, indices: Tindices, updates: T"
    value_operands: ClassVar[tuple[int, ...]] = (0,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {
        "T": dtypes.NUMERIC, "Tindices": INDEX, "Tshape": INDEX,
    }  # fmt: skip
    template = "scatter_add"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape asked for."""
        sizes, updates, (count,) = ctx.value(0), ctx.sizes(2), ctx.rank(1, 1)
        if sizes is not None and updates is not None:
            if len(sizes) != len(updates) or not sizes:
                raise ctx.error(f"Shape must be rank {len(sizes)} but is rank {len(updates)}")
            for a, b in zip((count, *sizes[1:]), updates, strict=True):
                if ctx.env is not DECLARING or (isinstance(a, int) and isinstance(b, int)):
                    ctx.equal(a, b)
        return [TensorType(ctx.dtype(2), sizes)]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The rows of the gradient."""
        return [None, None, call("GatherV2", grads[0], op.inputs[1], int_tensor(0))]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's add.at."""
        shape, indices, updates = inputs
        out = np.zeros(tuple(int(s) for s in shape), np.asarray(updates).dtype)
        kept = (indices >= 0) & (indices < out.shape[0])
        np.add.at(out, np.asarray(indices)[kept], np.asarray(updates)[kept])
        return out

    def samples(self) -> Iterable[Sample]:
        """Rows once, twice and never, scalars, nothing."""
        i = np.array([2, 0, 2])
        yield Sample((np.array([4, 3]), i, grid(3, 3)))
        yield Sample((np.array([3]), i, grid(3)))
        yield Sample((np.array([3, 2, 2]), i[:1], grid(1, 2, 2)))
        yield Sample((np.array([2, 3]), i[:0], np.zeros((0, 3))))
        yield Sample((np.array([3, 0]), i, np.zeros((3, 0))))
