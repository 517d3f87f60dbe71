"""Reductions of squares: the Euclidean norm and the L2 loss."""

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
    ElementContext,
    Gradients,
    InferContext,
    Reduction,
    ReductionOp,
    Sample,
    register,
)
from graphc.ops.base import call, grid
from graphc.ops.reduction import AxisReduction, expand, numpy_axes


@register
class EuclideanNorm(AxisReduction):
    """The square root of the sum of squares over the given axes; 0 over nothing."""

    name = "EuclideanNorm"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    op = "add"

    def term(self, x: ir.Expr) -> ir.Expr:
        """The square."""
        return ir.mul(x, x)

    def finish(self, ctx: ElementContext, total: ir.Expr, count: DimLike) -> ir.Expr:
        """The root."""
        return ir.apply("sqrt", total)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g x / norm``: NaN where the norm is 0."""
        scale = expand(call("RealDiv", grads[0], op.outputs[0]), op)
        return [call("Mul", op.inputs[0], scale), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's, accumulated in float64 (float16 overflows where the result does)."""
        x = np.asarray(inputs[0])
        wide = np.square(x.astype(np.float64))
        axes = numpy_axes(inputs[1], x.ndim)
        return np.sqrt(np.sum(wide, axes, keepdims=attrs["keep_dims"])).astype(x.dtype)


@register
class L2Loss(ReductionOp):
    """Half the sum of the squares of all elements of ``t``, a scalar."""

    name = "L2Loss"
    inputs = "t: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A scalar."""
        return [TensorType(ctx.dtype(0), ())]

    def reduction(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> Reduction:
        """The sum of squares, halved; floats of 16 bits in float32."""
        dtype = ctx.op.inputs[0].dtype.base_dtype
        wide = dtype.accumulator

        def body(inner: tuple[ir.Expr, ...]) -> ir.Expr:
            x = ir.cast(ctx.operand(0, inner), wide)
            return ir.mul(x, x)

        def finish(total: ir.Expr) -> ir.Expr:
            return ir.cast(ir.mul(total, ir.const(0.5, wide)), dtype)

        return Reduction("add", ctx.sizes(0), body, finish, wide)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g t``."""
        return [call("Mul", op.inputs[0], grads[0])]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's, accumulated in float64."""
        return np.sum(np.square(np.asarray(inputs[0], np.float64))) * 0.5

    def samples(self) -> Iterable[Sample]:
        """A block, a vector, a scalar, nothing."""
        for shape in ((2, 3, 4), (37,), (), (0, 3)):
            yield Sample((grid(*shape),))
