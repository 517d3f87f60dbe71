"""Elementwise arithmetic: sums, products, extrema and what is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import ElementContext, ElementOp, Gradients, InferContext, Sample, register
from graphc.ops.base import Binary, Unary, call, grid, merged_sizes


class _AddBase(Binary):
    fn = "add"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Both operands get the output's gradient."""
        return self.grads(op, grads[0], grads[0])

    def symbolic_value(self, a: DimLike, b: DimLike) -> DimLike | None:
        """The sum of sizes."""
        return a + b


@register
class Add(_AddBase):
    """``x + y`` element by element, broadcast as NumPy does; integers wrap around."""

    name = "Add"


@register
class AddV2(_AddBase):
    """``x + y`` element by element: what the Python operator ``+`` declares."""

    name = "AddV2"


@register
class Sub(Binary):
    """``x - y`` element by element, broadcast as NumPy does; integers wrap around."""

    name = "Sub"
    fn = "sub"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient, and its negative."""
        return self.grads(op, grads[0], call("Neg", grads[0]))

    def symbolic_value(self, a: DimLike, b: DimLike) -> DimLike | None:
        """The difference of sizes."""
        return a - b


@register
class Mul(Binary):
    """``x * y`` element by element, broadcast as NumPy does; integers wrap around."""

    name = "Mul"
    fn = "mul"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Each operand's gradient is the output's times the other operand."""
        x, y = op.inputs
        return self.grads(op, call("Mul", grads[0], y), call("Mul", grads[0], x))

    def symbolic_value(self, a: DimLike, b: DimLike) -> DimLike | None:
        """The product of sizes."""
        return a * b


class _Extremum(Binary):
    keep: ClassVar[str] = ""

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The operand that was chosen gets it; ``x`` where the two are equal."""
        x, y = op.inputs
        mask = call(self.keep, x, y)
        return self.grads(
            op, call("SelectV2", mask, grads[0], 0), call("SelectV2", mask, 0, grads[0])
        )


@register
class Maximum(_Extremum):
    """The larger of ``x`` and ``y``, element by element; NaN if either is."""

    name = "Maximum"
    fn = "max"
    keep = "GreaterEqual"

    def symbolic_value(self, a: DimLike, b: DimLike) -> DimLike | None:
        """The larger of two sizes."""
        return dims.maximum(a, b)


@register
class Minimum(_Extremum):
    """The smaller of ``x`` and ``y``, element by element; NaN if either is."""

    name = "Minimum"
    fn = "min"
    keep = "LessEqual"

    def symbolic_value(self, a: DimLike, b: DimLike) -> DimLike | None:
        """The smaller of two sizes."""
        return dims.minimum(a, b)


@register
class SquaredDifference(Binary):
    """``(x - y) * (x - y)`` element by element."""

    name = "SquaredDifference"

    def scalar(self, op: Operation, x: ir.Expr, y: ir.Expr) -> ir.Expr:
        """The square of the difference."""
        difference = ir.sub(x, y)
        return ir.mul(difference, difference)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's."""
        return np.square(np.subtract(*inputs))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``2 g (x - y)`` and its negative."""
        x, y = op.inputs
        gx = call("Mul", call("Mul", grads[0], 2), call("Sub", x, y))
        return self.grads(op, gx, call("Neg", gx))


@register
class Neg(Unary):
    """``-x`` element by element."""

    name = "Neg"
    fn = "neg"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS + dtypes.SIGNED}

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``-g``."""
        return [call("Neg", grads[0])]


@register
class Abs(Unary):
    """``|x|`` element by element; the least integer of a type stays itself."""

    name = "Abs"
    fn = "abs"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS + dtypes.SIGNED}

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g * sign(x)``: 0 at 0."""
        return [call("Mul", grads[0], call("Sign", op.inputs[0]))]


@register
class Sign(Unary):
    """-1, 0 or 1 element by element; NaN stays NaN."""

    name = "Sign"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS + dtypes.SIGNED}

    def scalar(self, op: Operation, x: ir.Expr) -> ir.Expr:
        """By comparisons, so that NaN passes."""
        small = ir.select(ir.apply("eq", x, 0), 0, x)
        negative = ir.select(ir.apply("lt", x, 0), -1, small)
        return ir.select(ir.apply("gt", x, 0), 1, negative)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's."""
        return np.sign(inputs[0])

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Zeros."""
        return [call("ZerosLike", op.inputs[0])]


@register
class Square(Unary):
    """``x * x`` element by element."""

    name = "Square"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}

    def scalar(self, op: Operation, x: ir.Expr) -> ir.Expr:
        """The product with itself."""
        return ir.mul(x, x)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's."""
        return np.square(inputs[0])

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``2 g x``."""
        return [call("Mul", grads[0], call("Mul", op.inputs[0], 2))]


@register
class AddN(ElementOp):
    """The sum of one or more tensors of one shape, from the first to the last.

    Nothing is broadcast: all operands have the same shape.
    """

    name = "AddN"
    inputs = "inputs: N*T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape that all operands have."""
        if not ctx.inputs:
            raise ctx.error("AddN needs at least one input")
        return [TensorType(ctx.dtype(0), merged_sizes(ctx, range(len(ctx.inputs))))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The sum of the operands' elements, in their order."""
        total = ctx.operand(0, index)
        for i in range(1, len(ctx.op.inputs)):
            total = ir.add(total, ctx.operand(i, index))
        return total

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Every operand gets the output's gradient."""
        return [grads[0]] * len(op.inputs)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """A sum in the same order."""
        total = np.array(inputs[0])
        for x in inputs[1:]:
            total = np.add(total, x)
        return total

    def samples(self) -> Iterable[Sample]:
        """One, two and five operands; empty ones."""
        x = grid(2, 3)
        yield Sample(([x],))
        yield Sample(([x, x[::-1] * 0.5],))
        yield Sample(([x * k for k in range(5)],))
        yield Sample(([np.zeros((0, 2)), np.zeros((0, 2))],), grad=(), note="empty")
