"""Activations and their gradients, and the bias of a layer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.errors import CompileError
from graphc.graph import Operation, Tensor
from graphc.loop import ir
from graphc.op import (
    Attr,
    Gradients,
    register,
)
from graphc.ops.base import Arrays, GradBinary, Scalars, Unary, call

SELU_SCALE = 1.0507009873554804934193349852946
SELU_SCALE_ALPHA = 1.7580993408473768599402175208123


class _Formula(Unary):
    """A unary op written once, for expressions and for arrays."""

    def formula(self, attrs: dict[str, Any], m: Any, x: Any) -> Any:
        """The value of an element, in terms of the functions ``m`` offers."""
        raise CompileError(f"op {self.name} has no formula")

    def scalar(self, op: Operation, x: ir.Expr) -> ir.Expr:
        """The formula on the element."""
        value: ir.Expr = self.formula(op.attrs, Scalars(x.dtype), x)
        return value

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The formula on the array."""
        return self.formula(attrs, Arrays(np.asarray(inputs[0]).dtype), inputs[0])


@register
class Tanh(Unary):
    """The hyperbolic tangent element by element."""

    name = "Tanh"
    fn = "tanh"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g (1 - y**2)``."""
        return [call("TanhGrad", op.outputs[0], grads[0])]


@register
class TanhGrad(GradBinary):
    """``dy * (1 - y**2)``: the gradient of ``y = tanh(x)``."""

    name = "TanhGrad"

    def formula(self, attrs: dict[str, Any], m: Any, a: Any, b: Any) -> Any:
        """``b * (1 - a * a)``."""
        return m.mul(b, m.sub(1, m.mul(a, a)))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Of ``y``: ``-2 g dy y``; of ``dy``: the same function of ``g``."""
        (y, dy), g = op.inputs, grads[0]
        return [call("Mul", call("Mul", call("Mul", g, -2), dy), y), call("TanhGrad", y, g)]


@register
class Sigmoid(Unary):
    """``1 / (1 + exp(-x))`` element by element."""

    name = "Sigmoid"
    fn = "sigmoid"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g y (1 - y)``."""
        return [call("SigmoidGrad", op.outputs[0], grads[0])]


@register
class SigmoidGrad(GradBinary):
    """``dy * y * (1 - y)``: the gradient of ``y = sigmoid(x)``."""

    name = "SigmoidGrad"

    def formula(self, attrs: dict[str, Any], m: Any, a: Any, b: Any) -> Any:
        """``b * a * (1 - a)``."""
        return m.mul(m.mul(b, a), m.sub(1, a))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Of ``y``: ``g dy (1 - 2 y)``; of ``dy``: the same function of ``g``."""
        (y, dy), g = op.inputs, grads[0]
        slope = call("Sub", 1, call("Mul", y, 2))
        return [call("Mul", call("Mul", g, dy), slope), call("SigmoidGrad", y, g)]


@register
class Softplus(Unary):
    """``log(1 + exp(x))`` element by element, without overflow."""

    name = "Softplus"
    inputs = "features: T"
    fn = "softplus"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g / (1 + exp(-x))``."""
        return [call("SoftplusGrad", grads[0], op.inputs[0])]


@register
class SoftplusGrad(GradBinary):
    """``gradients / (1 + exp(-features))``: the gradient of softplus."""

    name = "SoftplusGrad"
    inputs = "gradients: T, features: T"

    def formula(self, attrs: dict[str, Any], m: Any, a: Any, b: Any) -> Any:
        """``a * sigmoid(b)``."""
        return m.mul(a, m.sigmoid(b))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The same function of ``g``, and ``g dy s (1 - s)`` with ``s`` the sigmoid."""
        (dy, x), g = op.inputs, grads[0]
        slope = call("SigmoidGrad", call("Sigmoid", x), call("Mul", g, dy))
        return [call("SoftplusGrad", g, x), slope]


@register
class Softsign(_Formula):
    """``x / (1 + |x|)`` element by element."""

    name = "Softsign"
    inputs = "features: T"

    def formula(self, attrs: dict[str, Any], m: Any, x: Any) -> Any:
        """``x / (1 + |x|)``."""
        return m.div(x, m.add(m.abs(x), 1))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g / (1 + |x|)**2``."""
        return [call("SoftsignGrad", grads[0], op.inputs[0])]


@register
class SoftsignGrad(GradBinary):
    """``gradients / (1 + |features|)**2``: the gradient of softsign."""

    name = "SoftsignGrad"
    inputs = "gradients: T, features: T"

    def formula(self, attrs: dict[str, Any], m: Any, a: Any, b: Any) -> Any:
        """``a / (1 + |b|)**2``."""
        whole = m.add(m.abs(b), 1)
        return m.div(a, m.mul(whole, whole))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The same function of ``g``, and ``-2 g dy sign(x) / (1 + |x|)**3``."""
        (dy, x), g = op.inputs, grads[0]
        whole = call("AddV2", call("Abs", x), 1)
        slope = call("RealDiv", call("Mul", call("Sign", x), -2), whole)
        return [
            call("SoftsignGrad", g, x),
            call("Mul", call("SoftsignGrad", call("Mul", g, dy), x), slope),
        ]


@register
class Relu(_Formula):
    """``max(x, 0)`` element by element; NaN stays NaN."""

    name = "Relu"
    inputs = "features: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}

    def formula(self, attrs: dict[str, Any], m: Any, x: Any) -> Any:
        """``max(x, 0)``."""
        return m.max(x, 0)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g`` where the output is above 0."""
        return [call("ReluGrad", grads[0], op.outputs[0])]


class _Gate(GradBinary):
    inputs = "gradients: T, features: T"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The same gate; none to ``features``."""
        return [call(op.type, grads[0], op.inputs[1]), call("ZerosLike", op.inputs[1])]


@register
class ReluGrad(_Gate):
    """``gradients`` where ``features > 0``, 0 elsewhere: the gradient of relu."""

    name = "ReluGrad"

    def formula(self, attrs: dict[str, Any], m: Any, a: Any, b: Any) -> Any:
        """``b > 0 ? a : 0``."""
        return m.where(m.gt(b, 0), a, 0)


@register
class Relu6(_Formula):
    """``min(max(x, 0), 6)`` element by element; NaN stays NaN."""

    name = "Relu6"
    inputs = "features: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    low, high = -3.0, 9.0

    def formula(self, attrs: dict[str, Any], m: Any, x: Any) -> Any:
        """``min(max(x, 0), 6)``."""
        return m.min(m.max(x, 0), 6)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g`` where the output is between 0 and 6."""
        return [call("Relu6Grad", grads[0], op.outputs[0])]


@register
class Relu6Grad(_Gate):
    """``gradients`` where ``0 < features < 6``, 0 elsewhere: the gradient of relu6."""

    name = "Relu6Grad"
    low, high = -3.0, 9.0

    def formula(self, attrs: dict[str, Any], m: Any, a: Any, b: Any) -> Any:
        """``0 < b < 6 ? a : 0``."""
        return m.where(m.gt(b, 0), m.where(m.lt(b, 6), a, 0), 0)


@register
class Elu(_Formula):
    """``x`` where it is not negative, ``exp(x) - 1`` elsewhere."""

    name = "Elu"
    inputs = "features: T"

    def formula(self, attrs: dict[str, Any], m: Any, x: Any) -> Any:
        """``x < 0 ? expm1(x) : x``."""
        return m.where(m.lt(x, 0), m.expm1(x), x)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g`` or ``g (y + 1)``."""
        return [call("EluGrad", grads[0], op.outputs[0])]


class _OutputGrad(GradBinary):
    """A gradient that is ``gradients`` times a piecewise linear function of ``outputs``."""

    inputs = "gradients: T, outputs: T"
    above: ClassVar[float] = 1.0
    shift: ClassVar[float] = 1.0

    def formula(self, attrs: dict[str, Any], m: Any, a: Any, b: Any) -> Any:
        """``b < 0 ? a (b + shift) : a above``."""
        return m.where(m.lt(b, 0), m.mul(a, m.add(b, self.shift)), m.mul(a, self.above))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The same function of ``g``; ``g dy`` where the output is negative."""
        (dy, y), g = op.inputs, grads[0]
        slope = call("SelectV2", call("Less", y, 0), call("Mul", g, dy), 0)
        return [call(op.type, g, y), slope]


@register
class EluGrad(_OutputGrad):
    """``gradients * (outputs + 1)`` where ``outputs < 0``, else ``gradients``."""

    name = "EluGrad"


@register
class Selu(_Formula):
    """``scale * elu(x, alpha)`` with the constants of self-normalising networks."""

    name = "Selu"
    inputs = "features: T"

    def formula(self, attrs: dict[str, Any], m: Any, x: Any) -> Any:
        """``x < 0 ? scale alpha expm1(x) : scale x``."""
        below = m.mul(m.expm1(x), SELU_SCALE_ALPHA)
        return m.where(m.lt(x, 0), below, m.mul(x, SELU_SCALE))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g scale`` or ``g (y + scale alpha)``."""
        return [call("SeluGrad", grads[0], op.outputs[0])]


@register
class SeluGrad(_OutputGrad):
    """``gradients * (outputs + scale alpha)`` where ``outputs < 0``, else ``gradients * scale``."""

    name = "SeluGrad"
    above = SELU_SCALE
    shift = SELU_SCALE_ALPHA


@register
class LeakyRelu(_Formula):
    """``x`` where it is positive, ``alpha * x`` elsewhere."""

    name = "LeakyRelu"
    inputs = "features: T"
    attrs: ClassVar[dict[str, Attr]] = {"alpha": Attr("float", 0.2)}

    def formula(self, attrs: dict[str, Any], m: Any, x: Any) -> Any:
        """``x > 0 ? x : alpha x``."""
        return m.where(m.gt(x, 0), x, m.mul(x, float(attrs["alpha"])))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g`` or ``alpha g``."""
        return [call("LeakyReluGrad", grads[0], op.inputs[0], alpha=op.attrs["alpha"])]


@register
class LeakyReluGrad(GradBinary):
    """``gradients`` where ``features > 0``, ``alpha * gradients`` elsewhere."""

    name = "LeakyReluGrad"
    inputs = "gradients: T, features: T"
    attrs: ClassVar[dict[str, Attr]] = {"alpha": Attr("float", 0.2)}

    def formula(self, attrs: dict[str, Any], m: Any, a: Any, b: Any) -> Any:
        """``b > 0 ? a : alpha a``."""
        return m.where(m.gt(b, 0), a, m.mul(a, float(attrs["alpha"])))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The same function; none to ``features``."""
        x = op.inputs[1]
        return [call("LeakyReluGrad", grads[0], x, alpha=op.attrs["alpha"]), call("ZerosLike", x)]
