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
)
from graphc.ops.base import call, grid
from graphc.ops.movement_value import (
    INDEX,
    flat_value,
    int_tensor,
    integer,
    operand_error,
    select_segment,
)

# --- what is known of a tensor without its elements -----------------------------------------------


class _Measure(ElementOp):
    """Something of a tensor's shape, as integers; its elements are not read."""

    inputs = "input: T"
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

    def sizes_of_value(
        self, op: Operation, index: int
    ) -> tuple[DimLike | Element, ...] | None:
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

    def sizes_of_value(
        self, op: Operation, index: int
    ) -> tuple[DimLike | Element, ...] | None:
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

    def sizes_of_value(
        self, op: Operation, index: int
    ) -> tuple[DimLike | Element, ...] | None:
        """The number, where it is known."""
        sizes = op.inputs[0].sizes
        return None if sizes is None else (len(sizes),)


# --- constant tensors -----------------------------------------------------------------------------


class _Like(ElementOp):
    """A tensor of one value in the shape of another."""

    inputs = "x: T"
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
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "index_type": INDEX}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape asked for."""
        ctx.rank(0, 1)
        ctx.rank(1, 0)
        sizes = ctx.value(0)
        for i, size in enumerate(sizes or ()):
            if isinstance(size, int) and size < 0:
                raise operand_error(ctx, f"Fill dimensions must be >= 0, dims[{i}] is {size}")
        return [TensorType(ctx.dtype(1), sizes)]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The scalar."""
        return ctx.operand(1, ())

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The sum of the gradient."""
        rank = len(op.outputs[0].sizes or ())
        return [None, call("Sum", grads[0], int_tensor(range(rank)), keep_dims=False)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's full."""
        return np.full(tuple(int(s) for s in inputs[0]), inputs[1], np.asarray(inputs[1]).dtype)

    def samples(self) -> Iterable[Sample]:
        """A matrix, a scalar, nothing."""
        for shape in ((2, 3), (), (0, 2), (1,)):
            yield Sample((np.array(shape, np.int64), np.float64(1.5)))

    def sizes_of_value(
        self, op: Operation, index: int
    ) -> tuple[DimLike | Element, ...] | None:
        """The scalar, repeated."""
        sizes, value = op.outputs[0].sizes, flat_value(op.inputs[1])
        count = None if sizes is None else dims.product(sizes)
        if value is None or not isinstance(count, int) or count > 64:
            return None
        return value * count
