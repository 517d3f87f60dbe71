"""Range and LinSpace: evenly spaced numbers."""

from __future__ import annotations

import math
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
    Element,
    ElementContext,
    ElementOp,
    InferContext,
    Sample,
    register,
)
from graphc.ops.movement_value import (
    INDEX,
    flat_value,
    integer,
    known_ints,
    negative,
    operand_error,
    operand_values,
    value_expr,
)


@register
class Range(ElementOp):
    """The numbers from ``start`` in steps of ``delta`` up to ``limit``, without it.

    Element ``i`` is ``start + i * delta``, rounded once for each of the two operations.
    """

    name = "Range"
    inputs = "start: Tidx, limit: Tidx, delta: Tidx"
    value_operands: ClassVar[tuple[int, ...]] = (0, 1, 2)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {
        "Tidx": (dtypes.int32, dtypes.int64, dtypes.float32, dtypes.float64)
    }
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """As many elements as there are steps before the limit."""
        for i in range(3):
            ctx.rank(i, 0)
        return [TensorType(ctx.dtype(0), (self._count(ctx),))]

    def _count(self, ctx: InferContext) -> DimLike:
        if ctx.dtype(0).is_floating:
            start_, limit_, delta_ = (_known_float(t) for t in ctx.tensors)
            if start_ is not None and limit_ is not None and delta_ is not None:
                return _steps(ctx, start_, limit_, delta_)
            if ctx.env is DECLARING:
                return dims.fresh()
            raise ctx.error("The limits of a range of floats must be known when it is compiled")
        start, limit, delta = (operand_values(ctx, i, 1)[0] for i in range(3))
        if isinstance(start, int) and isinstance(limit, int) and isinstance(delta, int):
            return _steps(ctx, start, limit, delta)
        if not isinstance(delta, int):
            up = dims.maximum(0, dims.ceildiv(limit - start, dims.maximum(1, delta)))
            down = dims.maximum(0, dims.ceildiv(start - limit, dims.maximum(1, -delta)))
            return up + negative(delta) * (down - up)
        if delta == 0:
            raise operand_error(ctx, "Requires delta != 0", 0, 1, 2)
        if delta < 0:
            start, limit, delta = limit, start, -delta
        return dims.maximum(0, dims.ceildiv(limit - start, delta))

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """``start + i * delta``."""
        dtype = ctx.op.outputs[0].dtype
        if dtype.is_integer:
            value = value_expr(ctx, 0) + index[0] * value_expr(ctx, 2)
            return integer(value, dtype)
        return ctx.operand(0, ()) + ir.cast(index[0], dtype) * ctx.operand(2, ())

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The formula on NumPy's arange."""
        start, limit, delta = (np.asarray(v).reshape(()) for v in inputs)
        if start.dtype.kind == "i":
            count = -((int(start) - int(limit)) // int(delta))  # rounded up, and exact
        else:
            count = math.ceil((float(limit) - float(start)) / float(delta))
        steps = np.arange(max(0, count)).astype(start.dtype)
        return (start + steps * delta).astype(start.dtype)

    def samples(self) -> Iterable[Sample]:
        """Up, down, in steps, none, fractions."""
        for row in ((0, 5, 1), (2, 11, 3), (5, -2, -2), (3, 3, 1), (7, 0, -1), (-3, 4, 7)):
            yield Sample(tuple(np.int64(v) for v in row))
        ends = (-(2**63), 7 - 2**63, 2)
        yield Sample(tuple(np.int64(v) for v in ends), dtypes=(dtypes.int64,), note="exact")
        floats = (dtypes.float32, dtypes.float64)
        for fractions in ((0.0, 1.0, 0.25), (3.0, 1.0, -0.5), (0.5, 0.75, 1.0)):
            yield Sample(tuple(np.float64(v) for v in fractions), dtypes=floats)

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The numbers, where start, step and count are known."""
        sizes, start = op.outputs[0].sizes, flat_value(op.inputs[0])
        delta = known_ints(op.inputs[2])
        if not sizes or not isinstance(sizes[0], int) or sizes[0] > 64 or delta is None:
            return None
        if start is None or isinstance(start[0], Element):
            return None
        first, step = start[0], delta[0]
        return tuple(first + i * step for i in range(sizes[0]))


def _known_float(tensor: Tensor) -> float | None:
    if tensor.op.type == "Const":
        return float(tensor.op.attrs["value"])
    return _known_float(tensor.op.inputs[0]) if tensor.op.type == "Cast" else None


def _steps(ctx: InferContext, start: float, limit: float, delta: float) -> int:
    if delta == 0:
        raise operand_error(ctx, "Requires delta != 0", 0, 1, 2)
    if (limit - start) * delta < 0:
        relation = ("<=", "delta > 0") if delta > 0 else (">=", "delta < 0")
        raise operand_error(
            ctx, f"Requires start {relation[0]} limit when {relation[1]}: {start}/{limit}", 0, 1, 2
        )
    if all(isinstance(v, int) for v in (start, limit, delta)):
        return int(-((start - limit) // delta))
    return math.ceil(abs((limit - start) / delta))


@register
class LinSpace(ElementOp):
    """``num`` evenly spaced numbers from ``start`` to ``stop``, both included."""

    name = "LinSpace"
    inputs = "start: T, stop: T, num: Tidx"
    value_operands: ClassVar[tuple[int, ...]] = (2,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {
        "T": (dtypes.float32, dtypes.float64), "Tidx": INDEX,
    }  # fmt: skip
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A vector of ``num`` elements."""
        for i in range(3):
            ctx.rank(i, 0)
        count = operand_values(ctx, 2, 1)[0]
        if isinstance(count, int) and count <= 0:
            raise operand_error(ctx, f"Requires num > 0: {count}", 2)
        return [TensorType(ctx.dtype(0), (count,))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """``start + i * step``; the last is ``stop``."""
        dtype = ctx.op.outputs[0].dtype
        start, stop = ctx.operand(0, ()), ctx.operand(1, ())
        count = ctx.out_sizes()[0]
        if count == 1:
            return start
        last = ctx.size(count - 1)
        step = ir.apply("div", stop - start, ir.cast(last, dtype))
        inner = ir.select(index[0] > 0, start + step * ir.cast(index[0], dtype), start)
        ends = ir.apply("and", index[0] >= last, last > 0)
        return ir.select(ends, stop, inner)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The formula."""
        start, stop, num = inputs[0], inputs[1], int(np.reshape(inputs[2], ()))
        dtype = np.asarray(start).dtype
        step = (stop - start) / dtype.type(max(num - 1, 1))
        found = start + step * np.arange(num).astype(dtype)
        if num > 1:
            found[-1] = stop
        return found.astype(dtype)

    def samples(self) -> Iterable[Sample]:
        """Up, down, one, two."""
        for start, stop, num in ((0.0, 1.0, 5), (3.0, -2.0, 4), (1.0, 2.0, 1), (0.0, 7.0, 2)):
            yield Sample((np.float64(start), np.float64(stop), np.int64(num)))
