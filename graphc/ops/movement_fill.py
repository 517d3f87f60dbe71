"""Tensors made of sizes and scalars: Shape, Size, Rank, Fill, ZerosLike, OnesLike."""

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
    Attr,
    Element,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Sample,
    register,
    value_sizes,
)
from graphc.ops.base import grid
from graphc.ops.movement_value import (
    INDEX,
    flat_value,
    integer,
    operand_error,
    select_segment,
    summed,
)

# --- what is known of a tensor without its elements -----------------------------------------------


class _Measure(ElementOp):
    """Something of a tensor's shape, as integers; its elements are not read."""

    inputs = "input: T"
    shape_operands: ClassVar[tuple[int, ...]] = (0,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": (*dtypes.ALL, dtypes.string)}
    differentiable = False

    def samples(self) -> Iterable[Sample]:
        """A cube, a scalar, nothing."""
        for shape in ((2, 3, 4), (), (0, 5), (1,)):
            yield Sample((grid(*shape),))


@register
class Shape(_Measure):
    """The sizes of ``input`` as a vector of ``out_type``."""

    name = "Shape"
    attrs: ClassVar[dict[str, Attr]] = {"out_type": Attr("dtype", dtypes.int32)}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """As many elements as the operand has dimensions."""
        sizes = ctx.sizes(0)
        count = dims.fresh() if sizes is None else len(sizes)
        return [TensorType(ctx.attrs["out_type"], (count,))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """One of the sizes."""
        out = ctx.op.outputs[0].dtype
        sizes = ctx.sizes(0)
        if not sizes:
            return ir.const(0, out)
        starts = [ir.const(k) for k in range(len(sizes))]
        return select_segment(index[0], starts, lambda k, _: integer(ctx.size(sizes[k]), out))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's shape."""
        return np.array(np.shape(inputs[0]), attrs["out_type"].numpy)

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The sizes."""
        return op.inputs[0].sizes


@register
class Size(_Measure):
    """The number of elements of ``input``."""

    name = "Size"
    attrs: ClassVar[dict[str, Attr]] = {"out_type": Attr("dtype", dtypes.int32)}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A scalar."""
        return [TensorType(ctx.attrs["out_type"], ())]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The product of the sizes."""
        return integer(ctx.size(dims.product(ctx.sizes(0))), ctx.op.outputs[0].dtype)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's size."""
        return np.array(np.size(inputs[0]), attrs["out_type"].numpy)

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The product of the sizes."""
        sizes = op.inputs[0].sizes
        return None if sizes is None else (dims.product(sizes),)


@register
class Rank(_Measure):
    """The number of dimensions of ``input``."""

    name = "Rank"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A scalar."""
        return [TensorType(dtypes.int32, ())]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """A literal."""
        return ir.const(len(ctx.sizes(0)), dtypes.int32)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's ndim."""
        return np.array(np.ndim(inputs[0]), np.int32)

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The number, where it is known."""
        sizes = op.inputs[0].sizes
        return None if sizes is None else (len(sizes),)


@register
class BroadcastArgs(ElementOp):
    """The shape, as a vector, that the shapes ``s0`` and ``s1`` broadcast to."""

    name = "BroadcastArgs"
    inputs = "s0: T, s1: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": INDEX}
    differentiable = False
    fallible = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """As many elements as the longer of the two."""
        (a,), (b,) = ctx.rank(0, 1), ctx.rank(1, 1)
        return [TensorType(ctx.dtype(0), (dims.maximum(a, b),))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The size that is not 1."""
        out = ctx.size(ctx.out_sizes()[0])
        found: list[ir.Expr] = []
        for i in (0, 1):
            at = index[0] - (out - ctx.size(ctx.sizes(i)[0]))
            one = ir.const(1, ctx.op.outputs[0].dtype)
            found.append(ir.Guard(at >= 0, ctx.operand(i, (at,)), one))
        a, b = found
        value = ir.select(ir.apply("eq", a, 1), b, a)
        fits = ir.apply("or", ir.apply("eq", b, 1), ir.apply("eq", b, value))
        site = ctx.site("Incompatible shapes: dimensions %d and %d do not broadcast")
        details = (ir.cast(a, dtypes.int64), ir.cast(b, dtypes.int64))
        return ir.Require(fits, value, site, details)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's broadcast_shapes."""
        a, b = (tuple(int(s) for s in v) for v in inputs)
        return np.array(np.broadcast_shapes(a, b), np.asarray(inputs[0]).dtype)

    def samples(self) -> Iterable[Sample]:
        """Equal lengths, different ones, none."""
        for a, b in (((2, 1), (3,)), ((2, 3), (2, 3)), ((), (4, 1)), ((), ())):
            yield Sample((np.array(a, np.int64), np.array(b, np.int64)))

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The broadcast shape, where it can be seen."""
        a, b = value_sizes(op.inputs[0]), value_sizes(op.inputs[1])
        if a is None or b is None:
            return None
        count = max(len(a), len(b))
        pairs = zip((1,) * (count - len(a)) + a, (1,) * (count - len(b)) + b, strict=True)
        out: list[DimLike] = []
        for x, y in pairs:
            if x != y and 1 not in (x, y):
                return None
            out.append(y if x == 1 else x)
        return tuple(out)


# --- constant tensors -----------------------------------------------------------------------------


class _Like(ElementOp):
    """A tensor of one value in the shape of another."""

    inputs = "x: T"
    shape_operands: ClassVar[tuple[int, ...]] = (0,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL}
    differentiable = False
    fill: ClassVar[int] = 0

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's type."""
        return [TensorType(ctx.dtype(0), ctx.sizes(0))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """A literal."""
        return ir.Const(self.fill, ctx.op.outputs[0].dtype)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's full_like."""
        return np.full_like(inputs[0], self.fill)

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The number, as often as there are elements."""
        sizes = op.outputs[0].sizes
        count = None if sizes is None else dims.product(sizes)
        return (self.fill,) * count if isinstance(count, int) and count <= 64 else None

    def samples(self) -> Iterable[Sample]:
        """A matrix, a scalar, nothing."""
        for shape in ((2, 3), (), (0, 2)):
            yield Sample((grid(*shape),))


@register
class ZerosLike(_Like):
    """Zeros (False) in the shape of ``x``."""

    name = "ZerosLike"


@register
class OnesLike(_Like):
    """Ones (True) in the shape of ``x``."""

    name = "OnesLike"
    fill = 1


@register
class Fill(ElementOp):
    """A tensor of shape ``dims`` whose every element is the scalar ``value``."""

    name = "Fill"
    inputs = "dims: index_type, value: T"
    value_operands: ClassVar[tuple[int, ...]] = (0,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "index_type": INDEX}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape asked for."""
        ctx.rank(0, 1)
        ctx.rank(1, 0)
        sizes = ctx.value(0)
        for size in sizes or ():
            if isinstance(size, int) and size < 0:
                raise operand_error(ctx, "Fill dimensions must be >= 0", partial=(0,))
        return [TensorType(ctx.dtype(1), sizes)]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The scalar."""
        return ctx.operand(1, ())

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The sum of the gradient."""
        assert grads[0] is not None
        return [None, summed(grads[0])]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's full."""
        return np.full(tuple(int(s) for s in inputs[0]), inputs[1], np.asarray(inputs[1]).dtype)

    def samples(self) -> Iterable[Sample]:
        """A matrix, a scalar, nothing."""
        for shape in ((2, 3), (), (0, 2), (1,)):
            yield Sample((np.array(shape, np.int64), np.float64(1.5)))

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The scalar, repeated."""
        sizes, value = op.outputs[0].sizes, flat_value(op.inputs[1])
        count = None if sizes is None else dims.product(sizes)
        if value is None or not isinstance(count, int) or count > 64:
            return None
        return value * count
