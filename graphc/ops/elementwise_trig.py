"""Elementwise trigonometric and hyperbolic functions and their inverses."""

from __future__ import annotations

from typing import ClassVar

from graphc import dtypes
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor
from graphc.op import Gradients, register
from graphc.ops.base import Binary, Unary, call


@register
class Sin(Unary):
    """The sine of ``x`` in radians, element by element."""

    name = "Sin"
    fn = "sin"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g * cos(x)``."""
        return [call("Mul", grads[0], call("Cos", op.inputs[0]))]


@register
class Cos(Unary):
    """The cosine of ``x`` in radians, element by element."""

    name = "Cos"
    fn = "cos"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``-g * sin(x)``."""
        return [call("Mul", call("Neg", grads[0]), call("Sin", op.inputs[0]))]


@register
class Tan(Unary):
    """The tangent of ``x`` in radians, element by element."""

    name = "Tan"
    fn = "tan"
    low, high = -1.2, 1.2

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g / cos(x)**2``."""
        secant = call("Reciprocal", call("Cos", op.inputs[0]))
        return [call("Mul", grads[0], call("Square", secant))]


def _rsqrt_one_minus_square(x: Tensor) -> Tensor:
    return call("Rsqrt", call("Sub", 1, call("Square", x)))


@register
class Asin(Unary):
    """The angle in [-pi/2, pi/2] whose sine is ``x``; NaN outside [-1, 1]."""

    name = "Asin"
    fn = "asin"
    low, high = -0.9, 0.9

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g / sqrt(1 - x**2)``."""
        return [call("Mul", grads[0], _rsqrt_one_minus_square(op.inputs[0]))]


@register
class Acos(Unary):
    """The angle in [0, pi] whose cosine is ``x``; NaN outside [-1, 1]."""

    name = "Acos"
    fn = "acos"
    low, high = -0.9, 0.9

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``-g / sqrt(1 - x**2)``."""
        return [call("Neg", call("Mul", grads[0], _rsqrt_one_minus_square(op.inputs[0])))]


@register
class Atan(Unary):
    """The angle in (-pi/2, pi/2) whose tangent is ``x``."""

    name = "Atan"
    fn = "atan"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g / (1 + x**2)``."""
        inverse = call("Reciprocal", call("AddV2", call("Square", op.inputs[0]), 1))
        return [call("Mul", grads[0], inverse)]


@register
class Atan2(Binary):
    """The angle in [-pi, pi] of the point with ordinate ``y`` and abscissa ``x``."""

    name = "Atan2"
    inputs = "y: T, x: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    fn = "atan2"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g x / (x**2 + y**2)`` and ``-g y / (x**2 + y**2)``."""
        y, x = op.inputs
        g = call("RealDiv", grads[0], call("AddV2", call("Square", x), call("Square", y)))
        return self.grads(op, call("Mul", x, g), call("Mul", call("Neg", y), g))


@register
class Sinh(Unary):
    """The hyperbolic sine element by element."""

    name = "Sinh"
    fn = "sinh"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g * cosh(x)``."""
        return [call("Mul", grads[0], call("Cosh", op.inputs[0]))]


@register
class Cosh(Unary):
    """The hyperbolic cosine element by element."""

    name = "Cosh"
    fn = "cosh"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g * sinh(x)``."""
        return [call("Mul", grads[0], call("Sinh", op.inputs[0]))]


@register
class Asinh(Unary):
    """The inverse of the hyperbolic sine, element by element."""

    name = "Asinh"
    fn = "asinh"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g / cosh(y)``."""
        return [call("RealDiv", grads[0], call("Cosh", op.outputs[0]))]


@register
class Acosh(Unary):
    """The inverse of the hyperbolic cosine, element by element; NaN below 1."""

    name = "Acosh"
    fn = "acosh"
    low, high = 1.2, 4.0

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g / sinh(y)``."""
        return [call("RealDiv", grads[0], call("Sinh", op.outputs[0]))]


@register
class Atanh(Unary):
    """The inverse of the hyperbolic tangent, element by element; NaN outside [-1, 1]."""

    name = "Atanh"
    fn = "atanh"
    low, high = -0.9, 0.9

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g / (1 - x**2)``."""
        inverse = call("Reciprocal", call("Sub", 1, call("Square", op.inputs[0])))
        return [call("Mul", grads[0], inverse)]
