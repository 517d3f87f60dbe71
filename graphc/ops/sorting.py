"""TopKV2 and InTopKV2: rows in order, or the first elements of that order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dtypes import DType
from graphc.errors import InvalidArgumentError
from graphc.graph import Operation, Tensor, TensorType
from graphc.op import (
    Attr,
    CompositeOp,
    Gradients,
    InferContext,
    Sample,
    TemplateOp,
    register,
)
from graphc.ops.base import INF, NAN, call, grid
from graphc.ops.movement_value import (
    INDEX,
    count_between,
    dim_tensor,
    dims_between,
    int_tensor,
    joined,
    operand_error,
    refuse_where_empty,
    run_error,
    shape_tensor,
)


@register
class TopKV2(TemplateOp):
    """The first ``k`` elements of each row of ``input`` in order, and their places in the row.

    Rows are along the last dimension; the order is descending (or, with ``descending`` false,
    ascending).  Of equal elements the one with the lower place comes first, and NaN is larger than
    everything else.  The results are in order whatever ``sorted`` says.
    """

    name = "TopKV2"
    family = "reduction"
    template = "first_sorted"
    inputs = "input: T, k: int32"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    attrs: ClassVar[dict[str, Attr]] = {
        "sorted": Attr("bool", True),
        "descending": Attr("bool", True),
    }
    value_operands: ClassVar[tuple[int, ...]] = (1,)
    fallible = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The input's shape with ``k`` as its last size, twice."""
        sizes = ctx.sizes(0)
        ctx.rank(1, 0)
        if sizes is None:
            return [TensorType(ctx.dtype(0), None), TensorType(dtypes.int32, None)]
        if not sizes:
            raise ctx.error("Shape must be at least rank 1 but is rank 0")
        found, n = ctx.value(1), sizes[-1]
        (k,) = found if found is not None else (dims.fresh(),)
        if isinstance(k, int) and k < 0:
            message = f"Dimension size, given by scalar input 1, must be non-negative but is {k}"
            running = f"Need k >= 0, got {k}"
            raise run_error(ctx, operand_error(ctx, message, 1), running)
        if isinstance(k, int) and isinstance(n, int) and k > n:
            message = f"input must have last dimension >= k = {k} but is {n}"
            running = f"input must have at least k columns. Had {n}, needed {k}"
            raise run_error(ctx, operand_error(ctx, message, 1), running)
        kept = (*sizes[:-1], k)
        refuse_where_empty(ctx, kept, [k - n])
        return [TensorType(ctx.dtype(0), kept), TensorType(dtypes.int32, kept)]

    def can_fail(self, op: Operation) -> bool:
        """Unless the rows are known to be long enough."""
        sizes, kept = op.inputs[0].sizes, op.outputs[0].sizes
        if not sizes or not kept:
            return True
        n, k = sizes[-1], kept[-1]
        return n != k and not (isinstance(n, int) and isinstance(k, int))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient of each value at the place that it came from."""
        x, places, grad = op.inputs[0], op.outputs[1], grads[0]
        if grad is None:
            return [None, None]
        kind = dtypes.int64
        rows = count_between(x, 0, -1)
        first = call("Range", int_tensor(0), call("Reshape", rows, int_tensor([])), int_tensor(1))
        starts = call("Mul", call("Cast", first, DstT=kind), dim_tensor(x, -1, kind))
        matrix = joined(rows, dims_between(places, -1, None))
        columns = call("Cast", call("Reshape", places, matrix), DstT=kind)
        flat = call("Add", columns, call("ExpandDims", starts, int_tensor(1)))
        flat, updates = (call("Reshape", t, int_tensor([-1])) for t in (flat, grad))
        total = count_between(x, 0, None)
        spread = call("ScatterAddRows", total, flat, updates)
        return [call("Reshape", spread, shape_tensor(x)), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's stable argsort, which has NaN as the largest too."""
        x, k = np.asarray(inputs[0]), int(inputs[1])
        n = x.shape[-1]
        if not 0 <= k <= n:
            message = f"input must have at least k columns. Had {n}, needed {k}"
            raise InvalidArgumentError(None, None, message)
        # NumPy's order of bfloat16 itself has NaN anywhere.
        keys = x.astype(np.float32) if x.dtype == dtypes.bfloat16.numpy else x
        if attrs["descending"]:
            places = n - 1 - np.argsort(keys[..., ::-1], -1, kind="stable")[..., ::-1]
        else:
            places = np.argsort(keys, -1, kind="stable")
        places = places[..., :k]
        return np.take_along_axis(x, places, -1), places.astype(np.int32)

    def samples(self) -> Iterable[Sample]:
        """Ties, both orders, all and none of a row, many, special values, nothing at all."""
        ties = np.array([[3, 1, 2, 3, 1], [2, 2, 2, 2, 2], [5, 4, 3, 2, 1], [1, 2, 3, 4, 5]])
        distinct = np.random.RandomState(0).permutation(24).reshape(2, 3, 4) / 8
        many = np.random.RandomState(1).permutation(120).reshape(3, 40) / 8
        for descending in (True, False):
            attrs = {"descending": descending}
            for k in (0, 1, 3, 5):
                yield Sample((ties, np.int32(k)), attrs, grad=(), note=f"ties, {k} of 5")
            yield Sample((distinct, np.int32(3)), attrs)
            yield Sample((many, np.int32(33)), attrs)
            yield Sample((many[0], np.int32(40)), attrs, note="a vector")
            special = np.array([[NAN, 1.0, INF, -INF, NAN], [0.0, -0.0, NAN, -1.0, -0.0]])
            yield Sample((special, np.int32(4)), attrs, grad=(), dtypes=dtypes.FLOATS)
            # Long enough for a radix sort.
            long = np.random.RandomState(2).permutation(140).reshape(2, 70) / 8
            yield Sample((long, np.int32(70)), attrs, note="long rows")
            again = np.tile(ties[:2], (1, 14))
            yield Sample((again, np.int32(70)), attrs, grad=(), note="long rows of ties")
            again = np.tile(special, (1, 14))
            yield Sample((again, np.int32(70)), attrs, grad=(), dtypes=dtypes.FLOATS)
            extreme = np.array([[127, -128, 0, 127, -128]])
            yield Sample((extreme, np.int32(5)), attrs, grad=(), dtypes=dtypes.SIGNED)
            again = np.tile(extreme, (1, 14))
            yield Sample((again, np.int32(70)), attrs, grad=(), dtypes=dtypes.SIGNED)
        yield Sample((np.zeros((0, 3)), np.int32(2)), grad=(), note="no rows")
        yield Sample((np.zeros((2, 0)), np.int32(0)), grad=(), note="empty rows")
        yield Sample((np.ones((3, 1)), np.int32(1)), note="size 1")


@register
class InTopKV2(CompositeOp):
    """Whether fewer than ``k`` elements of each row of ``predictions`` are above the target's.

    False where the target is no place in the row, and in rows with NaN or an infinity.
    """

    name = "InTopKV2"
    family = "reduction"
    inputs = "predictions: float32, targets: T, k: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": INDEX}
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A bool for each row."""
        rows, (count,) = ctx.rank(0, 2)[0], ctx.rank(1, 1)
        ctx.rank(2, 0)
        return [TensorType(dtypes.bool_, (ctx.equal(rows, count),))]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The target's element by a sum that has no other, and a count of what is above."""
        x, targets, k = inputs
        kind = targets.dtype.base_dtype
        classes = dim_tensor(x, 1, kind)
        places = call("Range", int_tensor(0, kind), classes, int_tensor(1, kind))
        axis = int_tensor(1)
        chosen = call("Equal", call("ExpandDims", targets, axis), places)
        zero = call("ZerosLike", x)
        value = call("Sum", call("SelectV2", chosen, x, zero), axis, keep_dims=True)
        above = call("Sum", call("Cast", call("Greater", x, value), DstT=kind), axis)
        finite = call("All", call("IsFinite", x), axis)
        below = call("Less", targets, classes)
        inside = call("LogicalAnd", call("GreaterEqual", targets, 0), below)
        known = call("LogicalAnd", finite, inside)
        return [call("LogicalAnd", known, call("Less", above, k))]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """Row by row."""
        x, targets, k = (np.asarray(v) for v in inputs)
        found = []
        for row, target in zip(x, targets, strict=True):
            known = 0 <= target < row.size and bool(np.isfinite(row).all())
            found.append(known and (row > row[target]).sum() < k)
        return np.array(found, bool)

    def samples(self) -> Iterable[Sample]:
        """Ties, targets out of range, special values, nothing."""
        x = grid(6, 4)
        x[1] = 2.0
        x[4, 0], x[5, 3] = NAN, -INF
        targets = np.array([3, 1, -1, 4, 2, 1])
        for k in (-1, 0, 1, 2, 4, 9):
            yield Sample((x, targets, np.int64(k)), grad=())
        yield Sample((np.zeros((0, 3)), targets[:0], np.int64(1)), grad=(), note="no rows")
        yield Sample((np.zeros((2, 0)), targets[:2], np.int64(1)), grad=(), note="no classes")
