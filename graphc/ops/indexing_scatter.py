"""ScatterNd and ScatterAddRows: sums of rows at given places, the gradients of gathering."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.op import (
    DECLARING,
    CompositeOp,
    Gradients,
    InferContext,
    Sample,
    TemplateOp,
    register,
)
from graphc.ops.base import call, grid
from graphc.ops.movement_value import (
    INDEX,
    count_between,
    dims_between,
    int_tensor,
    joined,
    known_ints,
    pick,
    refuse_outside,
    shape_tensor,
    static_axis,
)
from graphc.shapes import shape_text


def batch_dims(op: Operation) -> int:
    """How many leading dimensions go together, counted from the front."""
    batch = int(op.attrs["batch_dims"])
    return batch + len(op.inputs[1].sizes or ()) if batch < 0 else batch


def gather_gradient(op: Operation, grad: Tensor) -> Tensor:
    """The gradient of the operand ``params`` of a gathering operation.

    With the dimensions merged to (batch, outer, rows, inner), rows are brought to the front, added
    up by their numbers and brought back.
    """
    params, indices = op.inputs[:2]
    batch = batch_dims(op)
    known = known_ints(op.inputs[2])
    axis = known[0] if params.sizes is None and known else static_axis(op, 2, _rank(params))
    after = None if axis == -1 else axis + 1
    batches, outer = count_between(params, 0, batch), count_between(params, batch, axis)
    rows, taken = dims_between(params, axis, after), count_between(indices, batch, None)
    inner = int_tensor([1]) if after is None else count_between(params, after, None)
    swap = None if known_ints(outer) == (1,) else int_tensor([0, 2, 1, 3])
    if swap is not None:
        parts = call("Reshape", grad, joined(batches, outer, taken, inner))
        grad = call("Transpose", parts, swap)
    width = _times(outer, inner)
    updates = call("Reshape", grad, joined(_times(batches, taken), width))
    numbers = _row_numbers(indices, batches, rows, taken)
    total = call("ScatterAddRows", joined(_times(batches, rows), width), numbers, updates)
    if swap is not None:
        total = call("Transpose", call("Reshape", total, joined(batches, rows, outer, inner)), swap)
    return call("Reshape", total, shape_tensor(params))


def _rank(x: Tensor) -> int:
    return len(x.sizes or ())


def _times(a: Tensor, b: Tensor) -> Tensor:
    """The product of two vectors of one size each."""
    x, y = known_ints(a), known_ints(b)
    if x is not None and y is not None:
        return int_tensor([x[0] * y[0]])
    if x == (1,):
        return b
    return a if y == (1,) else call("Mul", a, b)


def _row_numbers(indices: Tensor, batches: Tensor, rows: Tensor, taken: Tensor) -> Tensor:
    """The indices into the rows of all batches, one after the other."""
    if known_ints(batches) != (1,):
        dtype = indices.dtype.base_dtype
        count = call("Reshape", batches, int_tensor([]))
        steps = call("Mul", call("Range", int_tensor(0), count, int_tensor(1)), rows)
        starts = call("Reshape", steps, joined(batches, int_tensor([1])))
        if dtype is not dtypes.int32:
            starts = call("Cast", starts, DstT=dtype)
        indices = call("AddV2", call("Reshape", indices, joined(batches, taken)), starts)
    return call("Reshape", indices, int_tensor([-1]))


@register
class ScatterNd(CompositeOp):
    """Zeros of ``shape`` with ``updates`` added at the places that ``indices`` name.

    The last axis of ``indices`` holds index vectors.  Updates of one place are added in their
    order, so that the sums are the same in every run.
    """

    name = "ScatterNd"
    inputs = "indices: Tindices, updates: T, shape: Tindices"
    value_operands: ClassVar[tuple[int, ...]] = (2,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC, "Tindices": INDEX}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape asked for."""
        indices, updates, sizes = ctx.sizes(0), ctx.sizes(1), ctx.value(2)
        if indices is not None and not indices:
            raise ctx.error("Shape must be at least rank 1 but is rank 0")
        if indices is not None and updates is not None and sizes is not None:
            depth = indices[-1]
            if isinstance(depth, int):
                wanted = (*indices[:-1], *sizes[depth:])
                if depth > len(sizes) or len(wanted) != len(updates):
                    raise ctx.error(
                        f"Updates of shape {shape_text(updates)} do not fit indices of shape "
                        f"{shape_text(indices)} into shape {shape_text(sizes)}"
                    )
                for a, b in zip(wanted, updates, strict=True):
                    if ctx.env is not DECLARING or (isinstance(a, int) and isinstance(b, int)):
                        ctx.equal(a, b)
        return [TensorType(ctx.dtype(1), sizes)]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Rows by their flat positions."""
        indices, updates, shape = inputs
        dtype, rank = indices.dtype.base_dtype, _rank(op.outputs[0])
        depth = (indices.sizes or (0,))[-1]
        assert isinstance(depth, int)
        count = count_between(indices, 0, -1)
        inner = pick(shape, range(depth, rank))
        place = call("Fill", count, int_tensor(0, dtype))
        for k in range(depth):
            part = call("GatherV2", indices, int_tensor(k), int_tensor(-1))
            size = call("Cast", pick(shape, [k]), DstT=dtype)
            flat = call("Reshape", part, int_tensor([-1]))
            place = call("AddV2", call("Mul", place, size), flat)
        sizes = op.outputs[0].sizes or ()
        first = dims.product(sizes[:depth])
        height = int_tensor([first]) if isinstance(first, int) else _product(shape, depth)
        rows = call("Reshape", updates, _same_type(count, inner))
        total = call("ScatterAddRows", _same_type(height, inner), place, rows)
        return [call("Reshape", total, shape)]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient's slices at the places."""
        return [None, call("GatherNd", grads[0], op.inputs[0]), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's add.at."""
        indices, updates, shape = inputs
        out = np.zeros(tuple(int(s) for s in shape), np.asarray(updates).dtype)
        for k in range(np.shape(indices)[-1]):
            refuse_outside(np.asarray(indices)[..., k], out.shape[k])
        np.add.at(out, tuple(np.moveaxis(np.asarray(indices), -1, 0)), updates)
        return out

    def samples(self) -> Iterable[Sample]:
        """Elements, rows, twice the same, nothing."""
        yield Sample((np.array([[0, 1], [2, 3], [0, 1]]), grid(3), np.array([3, 4])))
        yield Sample((np.array([[2], [0]]), grid(2, 4), np.array([3, 4])))
        yield Sample((np.array([1]), grid(2), np.array([3, 2])))
        yield Sample((np.zeros((0, 1), np.int64), np.zeros((0, 4)), np.array([3, 4])))


def _product(shape: Tensor, count: int) -> Tensor:
    total = pick(shape, [0])
    for k in range(1, count):
        total = call("Mul", total, pick(shape, [k]))
    return total


def _same_type(first: Tensor, inner: Tensor) -> Tensor:
    dtype = inner.dtype.base_dtype
    if first.dtype.base_dtype is not dtype:
        first = call("Cast", first, DstT=dtype)
    return joined(first, inner)


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
    once: ClassVar[tuple[int, ...]] = (2,)

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
