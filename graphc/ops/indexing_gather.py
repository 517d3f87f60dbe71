"""GatherV2 and GatherNd: slices by their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
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
    register,
)
from graphc.ops.base import call, grid
from graphc.ops.indexing_scatter import batch_dims, gather_gradient
from graphc.ops.movement_value import (
    INDEX,
    all_of,
    axis_of,
    flat_value,
    fresh_sizes,
    known_ints,
    operand_ints,
    refuse_outside,
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
        if not self.can_fail(ctx.op):
            return value
        limit = str(size) if isinstance(size, int) else f"params.shape[{axis}]"
        where = "" if not indices else "[%d]"
        site = ctx.site(f"indices{where} = %d is not in [0, {limit})")
        details = (flat_position(ctx, at, indices), row) if indices else (row,)
        inside = all_of([row >= 0, row < ctx.size(size)])
        return ir.Require(inside, value, site, details)

    def can_fail(self, op: Operation) -> bool:
        """Unless the indices are known and in range."""
        known, axis, sizes = known_ints(op.inputs[1]), known_ints(op.inputs[2]), op.inputs[0].sizes
        if known is None or not axis or sizes is None:
            return True
        size = sizes[axis[0]]
        return not (isinstance(size, int) and all(0 <= k < size for k in known))

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
        refuse_outside(indices, params.shape[axis])
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
        """Elements at fixed places."""
        params, rows = flat_value(op.inputs[0]), known_ints(op.inputs[1])
        axis, sizes = known_ints(op.inputs[2]), op.inputs[0].sizes or ()
        shape = [s for s in sizes if isinstance(s, int)]
        if params is None or rows is None or axis is None or len(shape) != len(sizes) or not shape:
            return None
        if op.attrs["batch_dims"] or not all(0 <= r < shape[axis[0]] for r in rows):
            return None
        taken = np.take(np.arange(len(params)).reshape(shape), rows, axis[0])
        return tuple(params[int(p)] for p in taken.reshape(-1))


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
        """The gradient's slices added up where they were taken."""
        params, indices = op.inputs
        shape = shape_tensor(params, indices.dtype.base_dtype)
        return [call("ScatterNd", indices, grads[0], shape), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's indexing by arrays."""
        params, indices = inputs
        for k in range(np.shape(indices)[-1]):
            refuse_outside(indices[..., k], params.shape[k])
        return params[tuple(np.moveaxis(np.asarray(indices), -1, 0))]

    def samples(self) -> Iterable[Sample]:
        """Elements, rows, a single index, twice the same, nothing."""
        yield Sample((grid(3, 4), np.array([[0, 1], [2, 3], [0, 1]])))
        yield Sample((grid(3, 4), np.array([[2], [0]])))
        yield Sample((grid(3), np.array([1])))
        yield Sample((grid(2, 3, 2), np.array([[[1, 2]], [[0, 0]]])))
        yield Sample((grid(3, 4), np.zeros((0, 2), np.int64)))
