"""TakePart, PutPart and JoinPart: parts of any size that lie one behind the other in a vector.

They are what a loop saves its values in whose shape changes from turn to turn: every turn joins its
elements to those of the turns before, and the way back takes them out again.  Extraction puts them
into a function for the ``TakeRow`` and ``PutRow`` of the user's graph, which are differentiated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dtypes import DType
from graphc.graph import TensorType
from graphc.loop import ir
from graphc.loop.ir import ZERO
from graphc.op import (
    Attr,
    ElementContext,
    ElementOp,
    InferContext,
    Sample,
    TemplateOp,
    register,
)
from graphc.ops.base import grid
from graphc.ops.movement_value import INDEX
from graphc.shapes import shape_text


def _one(ctx: InferContext, operand: int) -> None:
    """An offset is a vector of one element."""
    ctx.rank(operand, 1)
    sizes = ctx.sizes(operand)
    if sizes is not None and isinstance(sizes[0], int) and sizes[0] != 1:
        raise ctx.error(f"An offset is one number, not {sizes[0]}")


def _inside(offset: Any, count: int, size: int) -> bool:
    first = int(np.reshape(offset, -1)[0])
    return first >= 0 and first + count <= size


@register
class TakePart(ElementOp):
    """The elements of ``x`` from ``offset`` on, in the shape ``shape``.

    Zeros, where so many elements are not in ``x``.
    """

    name = "TakePart"
    inputs = "x: T, offset: Tindex, shape: Tshape"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {
        "T": dtypes.ALL, "Tindex": INDEX, "Tshape": INDEX,
    }  # fmt: skip
    value_operands: ClassVar[tuple[int, ...]] = (2,)
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape asked for."""
        ctx.rank(0, 1)
        _one(ctx, 1)
        ctx.rank(2, 1)
        return [TensorType(ctx.dtype(0), ctx.value(2))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The element that lies at the index's place in the part."""
        sizes = ctx.out_sizes()
        place: ir.Expr = ZERO
        for i, size in zip(index, sizes, strict=True):
            place = ir.add(ir.mul(place, ctx.size(size)), i)
        first = ir.cast(ctx.operand(1, (ZERO,)), dtypes.int64)
        value = ctx.operand(0, (ir.add(first, place),))
        # A loaded graph may say what no gradient does: memory outside is never read.
        end = ir.add(first, ctx.size(dims.product(sizes)))
        inside = ir.logical_and(first >= 0, end <= ctx.size(ctx.sizes(0)[0]))
        return ir.Guard(inside, value, ir.Const(0, ctx.op.outputs[0].dtype.base_dtype))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """A slice in another shape."""
        x, offset, shape = inputs
        sizes = tuple(int(s) for s in shape)
        count = int(np.prod(sizes))
        if not _inside(offset, count, len(x)):
            return np.zeros(sizes, np.asarray(x).dtype)
        first = int(np.reshape(offset, -1)[0])
        return np.asarray(x)[first : first + count].reshape(sizes)

    def samples(self) -> Iterable[Sample]:
        """Vectors, matrices, a scalar, nothing; out of range."""
        yield Sample((grid(9), np.array([3]), np.array([4])))
        yield Sample((grid(9), np.array([2]), np.array([2, 3])))
        yield Sample((grid(9), np.array([8]), np.array([], np.int64)))
        yield Sample((grid(9), np.array([4]), np.array([0, 5])))
        yield Sample((grid(9), np.array([7]), np.array([2, 3])))
        yield Sample((grid(9), np.array([-1]), np.array([3])))


@register
class PutPart(TemplateOp):
    """``x`` with the elements from ``offset`` on replaced by those of ``part``.

    They are added where ``add`` is set; what does not fit in is left out.
    """

    name = "PutPart"
    family = "scatter"
    inputs = "x: T, offset: Tindex, part: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tindex": INDEX}
    attrs: ClassVar[dict[str, Attr]] = {"add": Attr("bool", False)}
    template = "put_part"
    overwrites = 0
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The type of ``x``."""
        ctx.rank(0, 1)
        _one(ctx, 1)
        if ctx.attrs["add"] and ctx.dtype(0) is dtypes.bool_:
            raise ctx.error("bools cannot be added")
        return [TensorType(ctx.dtype(0), ctx.sizes(0))]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """A copy with one part changed."""
        x, offset, part = inputs
        out, flat = np.array(x), np.reshape(part, -1)
        first = int(np.reshape(offset, -1)[0])
        if _inside(offset, flat.size, len(out)):
            old = out[first : first + flat.size]
            out[first : first + flat.size] = old + flat if attrs["add"] else flat
        return out

    def samples(self) -> Iterable[Sample]:
        """Put and added; a matrix, a scalar, nothing; out of range."""
        yield Sample((grid(9), np.array([3]), grid(4)))
        yield Sample((grid(40), np.array([2]), grid(5, 7)), {"add": True}, dtypes=dtypes.NUMERIC)
        yield Sample((grid(9), np.array([8]), grid()))
        yield Sample((grid(9), np.array([9]), np.zeros((0, 3))))
        yield Sample((grid(9), np.array([7]), grid(3)))
        yield Sample((grid(9), np.array([-2]), grid(3)), {"add": True}, dtypes=dtypes.NUMERIC)


@register
class JoinPart(TemplateOp):
    """The vector ``x`` with the elements of ``part`` behind it, or rows with more of them."""

    name = "JoinPart"
    family = "scatter"
    inputs = "x: T, part: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL}
    template = "put_part"
    overwrites = 0
    grows = True
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """As long as both together."""
        x, part = ctx.sizes(0), ctx.sizes(1)
        if x is None or part is None:
            return [TensorType(ctx.dtype(0), None if x is None else (dims.fresh(), *x[1:]))]
        if not x:
            raise ctx.error("Shape must be at least rank 1 but is rank 0")
        if len(x) == 1:
            return [TensorType(ctx.dtype(0), (x[0] + dims.product(part),))]
        if len(part) != len(x):
            raise ctx.error(f"Rows {shape_text(part)} do not fit {shape_text(x)}")
        for a, b in zip(x[1:], part[1:], strict=True):
            ctx.equal(a, b)
        return [TensorType(ctx.dtype(0), (x[0] + part[0], *x[1:]))]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's concatenation."""
        x, part = (np.asarray(v) for v in inputs)
        return np.concatenate([x, part if x.ndim > 1 else part.reshape(-1)])

    def samples(self) -> Iterable[Sample]:
        """A vector, a matrix, a scalar, nothing, rows."""
        yield Sample((grid(4), grid(3)))
        yield Sample((grid(2), grid(5, 7)))
        yield Sample((np.zeros(0), grid()))
        yield Sample((grid(3), np.zeros((0, 2))))
        yield Sample((grid(3, 2), grid(4, 2)))
        yield Sample((np.zeros((0, 2, 3)), grid(1, 2, 3)))
