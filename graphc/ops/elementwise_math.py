"""Elementwise functions of floats: exponentials, logarithms, roots, the error function."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor
from graphc.loop import ir
from graphc.op import Gradients, Sample, register
from graphc.ops.base import Binary, GradBinary, Unary, call, grid


@register
class Exp(Unary):
    """``e`` to the power ``x``, element by element, within 2 ulp."""

    name = "Exp"
    fn = "exp"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g * exp(x)``."""
        return [call("Mul", grads[0], op.outputs[0])]


@register
class Expm1(Unary):
    """``exp(x) - 1`` element by element, accurate near 0."""

    name = "Expm1"
    fn = "expm1"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g * exp(x)``."""
        return [call("Mul", grads[0], call("Exp", op.inputs[0]))]


@register
class Log(Unary):
    """The natural logarithm element by element: -inf at 0, NaN below."""

    name = "Log"
    fn = "log"
    low, high = 0.1, 5.0

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g / x``."""
        return [call("Mul", grads[0], call("Reciprocal", op.inputs[0]))]


@register
class Log1p(Unary):
    """``log(1 + x)`` element by element, accurate near 0."""

    name = "Log1p"
    fn = "log1p"
    low, high = -0.8, 5.0

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g / (1 + x)``."""
        return [call("Mul", grads[0], call("Reciprocal", call("AddV2", op.inputs[0], 1)))]


@register
class Sqrt(Unary):
    """The square root element by element; NaN below 0."""

    name = "Sqrt"
    fn = "sqrt"
    low, high = 0.1, 5.0

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g / (2 sqrt(x))``: infinite at 0."""
        return [call("SqrtGrad", op.outputs[0], grads[0])]


@register
class SqrtGrad(GradBinary):
    """``dy * 0.5 / y``: the gradient of ``y = sqrt(x)``."""

    name = "SqrtGrad"
    low, high = 0.3, 2.0

    def formula(self, attrs: dict[str, Any], m: Any, a: Any, b: Any) -> Any:
        """``b * 0.5 / a``."""
        return m.div(m.mul(b, 0.5), a)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Of ``y``: ``-g dy / (2 y**2)``; of ``dy``: ``g / (2 y)``."""
        y = op.inputs[0]
        ga = call("RealDiv", grads[0], y)
        return [call("Mul", call("Neg", ga), op.outputs[0]), call("Mul", ga, 0.5)]


@register
class Rsqrt(Unary):
    """``1 / sqrt(x)`` element by element: inf at 0, NaN below."""

    name = "Rsqrt"
    fn = "rsqrt"
    low, high = 0.1, 5.0

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``-g y**3 / 2``."""
        return [call("RsqrtGrad", op.outputs[0], grads[0])]


@register
class RsqrtGrad(GradBinary):
    """``dy * -0.5 * y**3``: the gradient of ``y = 1 / sqrt(x)``."""

    name = "RsqrtGrad"
    low, high = 0.3, 2.0

    def formula(self, attrs: dict[str, Any], m: Any, a: Any, b: Any) -> Any:
        """``b * -0.5 * a**3``."""
        return m.mul(m.mul(b, -0.5), m.mul(m.mul(a, a), a))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Of ``y``: ``g dy * -1.5 y**2``; of ``dy``: the same function of ``g``."""
        (y, dy), g = op.inputs, grads[0]
        ga = call("Mul", call("Mul", call("Mul", g, -1.5), dy), call("Square", y))
        return [ga, call("RsqrtGrad", y, g)]


class _Inverse(Unary):
    def scalar(self, op: Operation, x: ir.Expr) -> ir.Expr:
        """One divided by the element."""
        return ir.apply("div", ir.const(1.0, x.dtype), x)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's."""
        return np.true_divide(np.asarray(inputs[0]).dtype.type(1), inputs[0])

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``-g y * y``."""
        return [call("ReciprocalGrad", op.outputs[0], grads[0])]


@register
class Reciprocal(_Inverse):
    """``1 / x`` of floats, element by element; infinite at 0."""

    name = "Reciprocal"
    low, high = 0.3, 3.0


@register
class Inv(_Inverse):
    """``1 / x`` under its older name."""

    name = "Inv"
    low, high = 0.3, 3.0


@register
class ReciprocalGrad(GradBinary):
    """``-dy * y * y``: the gradient of ``y = 1 / x``."""

    name = "ReciprocalGrad"

    def formula(self, attrs: dict[str, Any], m: Any, a: Any, b: Any) -> Any:
        """``-b * a * a``."""
        return m.mul(m.neg(b), m.mul(a, a))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Of ``y``: ``-2 g dy y``; of ``dy``: the same function of ``g``."""
        (y, dy), g = op.inputs, grads[0]
        ga = call("Mul", call("Mul", call("Mul", g, -2), dy), y)
        return [ga, call("ReciprocalGrad", y, g)]


@register
class Erf(Unary):
    """The error function, element by element."""

    name = "Erf"
    fn = "erf"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g * 2 / sqrt(pi) * exp(-x**2)``."""
        return [_erf_grad(op, grads[0], 2.0 / math.sqrt(math.pi))]


@register
class ExpNegative(Unary):
    """``e`` to the power ``x`` for ``x <= 0``; what is no normal number may be 0."""

    name = "ExpNegative"
    fn = "exp_negative"
    differentiable = False
    low, high = -9.0, 0.0
    special = False

    def samples(self) -> Iterable[Sample]:
        """Those of every op of one operand; far out, and what is no number."""
        yield from super().samples()
        far = np.array([-np.inf, -1e30, -1000.0, -0.0, 0.0, np.nan])
        yield Sample((far,), note="far out")


@register
class Erfc(Unary):
    """One minus the error function, element by element, accurate for large ``x``."""

    name = "Erfc"
    fn = "erfc"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``-g * 2 / sqrt(pi) * exp(-x**2)``."""
        return [_erf_grad(op, grads[0], -2.0 / math.sqrt(math.pi))]


@register
class OnePlusErf(Unary):
    """``1 + erf(x)`` to an absolute error of 1.5e-7, in less time than the sum of the two takes."""

    name = "OnePlusErf"
    fn = "one_plus_erf"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": (dtypes.float32,)}
    differentiable = False
    low = -1.0
    special = False

    def samples(self) -> Iterable[Sample]:
        """Those of every op of one operand; far out, and what is no number."""
        yield from super().samples()
        far = np.array([-np.inf, -1e30, 5.0, 1e30, np.inf, np.nan])
        yield Sample((far,), note="far out")


def _erf_grad(op: Operation, grad: Tensor | None, factor: float) -> Tensor:
    bell = call("Exp", call("Neg", call("Square", op.inputs[0])))
    return call("Mul", call("Mul", grad, factor), bell)


class _ZeroTimes(Binary):
    """``x`` times or over a function of ``y``, but 0 where ``x`` is 0."""

    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    low, high = 0.2, 2.0

    def samples(self) -> Iterable[Sample]:
        """Those of every binary op, and zeros with harmless and harmful partners."""
        yield from super().samples()
        yield Sample((np.zeros(4), np.array([0.0, 1.0, -1.0, math.inf])), grad=(), note="zeros")
        yield Sample((grid(3), np.array([[0.5], [1.5]])), note="both broadcast")


@register
class Xlogy(_ZeroTimes):
    """``x * log(y)``, but 0 where ``x`` is 0."""

    name = "Xlogy"

    def scalar(self, op: Operation, x: ir.Expr, y: ir.Expr) -> ir.Expr:
        """The product, or 0."""
        return ir.select(ir.apply("eq", x, 0), 0, ir.mul(x, ir.apply("log", y)))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The product, or 0."""
        x, y = inputs
        return np.where(np.equal(x, 0), 0, np.multiply(x, np.log(y)))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g log(y)`` where ``x`` is not 0, and ``g x / y``."""
        x, y = op.inputs
        mask = call("Cast", call("NotEqual", x, 0), DstT=x.dtype.base_dtype)
        gx = call("Mul", grads[0], call("Xlogy", mask, y))
        return self.grads(op, gx, call("Mul", grads[0], call("Xdivy", x, y)))


@register
class Xdivy(_ZeroTimes):
    """``x / y``, but 0 where ``x`` is 0."""

    name = "Xdivy"

    def scalar(self, op: Operation, x: ir.Expr, y: ir.Expr) -> ir.Expr:
        """The quotient, or 0."""
        return ir.select(ir.apply("eq", x, 0), 0, ir.apply("div", x, y))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The quotient, or 0."""
        return np.where(np.equal(inputs[0], 0), 0, np.divide(*inputs))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g / y`` where ``x`` is not 0, and ``-g x / y**2``."""
        x, y = op.inputs
        mask = call("Cast", call("NotEqual", x, 0), DstT=x.dtype.base_dtype)
        gx = call("Mul", grads[0], call("Xdivy", mask, y))
        gy = call("Mul", grads[0], call("Xdivy", call("Neg", x), call("Square", y)))
        return self.grads(op, gx, gy)
