"""One function per elementwise op, under the names and signatures of TensorFlow 1.15."""

from __future__ import annotations

from typing import Any

from graphc.build import create, single
from graphc.graph import Tensor, name_scope


def _declare(op_name: str, name: str | None, *inputs: Any) -> Tensor:
    return single(create(op_name, inputs, None, name))


def add(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x + y`` element by element, broadcast as NumPy does."""
    return _declare("Add", name, x, y)


def subtract(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x - y`` element by element."""
    return _declare("Sub", name, x, y)


def multiply(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x * y`` element by element."""
    return _declare("Mul", name, x, y)


def realdiv(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x / y`` of floats, element by element."""
    return _declare("RealDiv", name, x, y)


def floordiv(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x / y`` rounded down; an integer division by zero is an error."""
    with name_scope(name, "floordiv", [x, y]) as scope:
        return _declare("FloorDiv", scope, x, y)


def floormod(x: Any, y: Any, name: str | None = None) -> Tensor:
    """The remainder of ``floordiv``, with the sign of ``y``."""
    return _declare("FloorMod", name, x, y)


def truncatediv(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x / y`` of integers, rounded towards zero."""
    return _declare("TruncateDiv", name, x, y)


def truncatemod(x: Any, y: Any, name: str | None = None) -> Tensor:
    """The remainder of ``truncatediv``, with the sign of ``x``."""
    return _declare("TruncateMod", name, x, y)


def pow(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x`` to the power ``y``, element by element."""
    return _declare("Pow", name, x, y)


def maximum(x: Any, y: Any, name: str | None = None) -> Tensor:
    """The larger of ``x`` and ``y``; NaN if either is."""
    return _declare("Maximum", name, x, y)


def minimum(x: Any, y: Any, name: str | None = None) -> Tensor:
    """The smaller of ``x`` and ``y``; NaN if either is."""
    return _declare("Minimum", name, x, y)


def squared_difference(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``(x - y) ** 2`` element by element."""
    return _declare("SquaredDifference", name, x, y)


def div_no_nan(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x / y``, but 0 where ``y`` is 0."""
    with name_scope(name, "div_no_nan", [x, y]) as scope:
        return _declare("DivNoNan", scope, x, y)


def multiply_no_nan(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x * y``, but 0 where ``y`` is 0, whatever ``x`` is."""
    with name_scope(name, "multiply_no_nan", [x, y]) as scope:
        return _declare("MulNoNan", scope, x, y)


def xlogy(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x * log(y)``, but 0 where ``x`` is 0."""
    return _declare("Xlogy", name, x, y)


def xdivy(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x / y``, but 0 where ``x`` is 0."""
    return _declare("Xdivy", name, x, y)


def equal(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x == y`` element by element."""
    return _declare("Equal", name, x, y)


def not_equal(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x != y`` element by element."""
    return _declare("NotEqual", name, x, y)


def less(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x < y`` element by element."""
    return _declare("Less", name, x, y)


def less_equal(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x <= y`` element by element."""
    return _declare("LessEqual", name, x, y)


def greater(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x > y`` element by element."""
    return _declare("Greater", name, x, y)


def greater_equal(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x >= y`` element by element."""
    return _declare("GreaterEqual", name, x, y)


def logical_and(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Whether both are true, element by element."""
    return _declare("LogicalAnd", name, x, y)


def logical_or(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Whether at least one is true, element by element."""
    return _declare("LogicalOr", name, x, y)


def bitwise_and(x: Any, y: Any, name: str | None = None) -> Tensor:
    """The bits that both integers have."""
    return _declare("BitwiseAnd", name, x, y)


def bitwise_or(x: Any, y: Any, name: str | None = None) -> Tensor:
    """The bits that at least one of the integers has."""
    return _declare("BitwiseOr", name, x, y)


def bitwise_xor(x: Any, y: Any, name: str | None = None) -> Tensor:
    """The bits that exactly one of the integers has."""
    return _declare("BitwiseXor", name, x, y)


def left_shift(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x << y`` of integers."""
    return _declare("LeftShift", name, x, y)


def right_shift(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x >> y`` of integers, keeping the sign."""
    return _declare("RightShift", name, x, y)


def atan2(y: Any, x: Any, name: str | None = None) -> Tensor:
    """The angle of the point with ordinate ``y`` and abscissa ``x``."""
    return _declare("Atan2", name, y, x)


def abs(x: Any, name: str | None = None) -> Tensor:
    """``|x|`` element by element."""
    return _declare("Abs", name, x)


def negative(x: Any, name: str | None = None) -> Tensor:
    """``-x`` element by element."""
    return _declare("Neg", name, x)


def sign(x: Any, name: str | None = None) -> Tensor:
    """-1, 0 or 1 element by element; NaN stays NaN."""
    return _declare("Sign", name, x)


def square(x: Any, name: str | None = None) -> Tensor:
    """``x * x`` element by element."""
    return _declare("Square", name, x)


def sqrt(x: Any, name: str | None = None) -> Tensor:
    """The square root element by element; NaN below 0."""
    return _declare("Sqrt", name, x)


def rsqrt(x: Any, name: str | None = None) -> Tensor:
    """``1 / sqrt(x)`` element by element."""
    return _declare("Rsqrt", name, x)


def reciprocal(x: Any, name: str | None = None) -> Tensor:
    """``1 / x`` of floats, element by element."""
    return _declare("Reciprocal", name, x)


def exp(x: Any, name: str | None = None) -> Tensor:
    """``e`` to the power ``x``."""
    return _declare("Exp", name, x)


def expm1(x: Any, name: str | None = None) -> Tensor:
    """``exp(x) - 1``, accurate near 0."""
    return _declare("Expm1", name, x)


def log(x: Any, name: str | None = None) -> Tensor:
    """The natural logarithm."""
    return _declare("Log", name, x)


def log1p(x: Any, name: str | None = None) -> Tensor:
    """``log(1 + x)``, accurate near 0."""
    return _declare("Log1p", name, x)


def sin(x: Any, name: str | None = None) -> Tensor:
    """The sine of ``x`` in radians."""
    return _declare("Sin", name, x)


def cos(x: Any, name: str | None = None) -> Tensor:
    """The cosine of ``x`` in radians."""
    return _declare("Cos", name, x)


def tan(x: Any, name: str | None = None) -> Tensor:
    """The tangent of ``x`` in radians."""
    return _declare("Tan", name, x)


def asin(x: Any, name: str | None = None) -> Tensor:
    """The angle whose sine is ``x``."""
    return _declare("Asin", name, x)


def acos(x: Any, name: str | None = None) -> Tensor:
    """The angle whose cosine is ``x``."""
    return _declare("Acos", name, x)


def atan(x: Any, name: str | None = None) -> Tensor:
    """The angle whose tangent is ``x``."""
    return _declare("Atan", name, x)


def sinh(x: Any, name: str | None = None) -> Tensor:
    """The hyperbolic sine."""
    return _declare("Sinh", name, x)


def cosh(x: Any, name: str | None = None) -> Tensor:
    """The hyperbolic cosine."""
    return _declare("Cosh", name, x)


def asinh(x: Any, name: str | None = None) -> Tensor:
    """The inverse of the hyperbolic sine."""
    return _declare("Asinh", name, x)


def acosh(x: Any, name: str | None = None) -> Tensor:
    """The inverse of the hyperbolic cosine."""
    return _declare("Acosh", name, x)


def atanh(x: Any, name: str | None = None) -> Tensor:
    """The inverse of the hyperbolic tangent."""
    return _declare("Atanh", name, x)


def tanh(x: Any, name: str | None = None) -> Tensor:
    """The hyperbolic tangent."""
    return _declare("Tanh", name, x)


def sigmoid(x: Any, name: str | None = None) -> Tensor:
    """``1 / (1 + exp(-x))``."""
    return _declare("Sigmoid", name, x)


def erf(x: Any, name: str | None = None) -> Tensor:
    """The error function."""
    return _declare("Erf", name, x)


def erfc(x: Any, name: str | None = None) -> Tensor:
    """One minus the error function."""
    return _declare("Erfc", name, x)


def rint(x: Any, name: str | None = None) -> Tensor:
    """The nearest whole number; of two, the even one."""
    return _declare("Rint", name, x)


def floor(x: Any, name: str | None = None) -> Tensor:
    """The largest whole number that is not above ``x``."""
    return _declare("Floor", name, x)


def ceil(x: Any, name: str | None = None) -> Tensor:
    """The smallest whole number that is not below ``x``."""
    return _declare("Ceil", name, x)


def is_nan(x: Any, name: str | None = None) -> Tensor:
    """Whether each element is NaN."""
    return _declare("IsNan", name, x)


def is_inf(x: Any, name: str | None = None) -> Tensor:
    """Whether each element is infinite."""
    return _declare("IsInf", name, x)


def is_finite(x: Any, name: str | None = None) -> Tensor:
    """Whether each element is neither infinite nor NaN."""
    return _declare("IsFinite", name, x)


def logical_not(x: Any, name: str | None = None) -> Tensor:
    """Whether each element is false."""
    return _declare("LogicalNot", name, x)


def invert(x: Any, name: str | None = None) -> Tensor:
    """Every bit of each integer turned over."""
    return _declare("Invert", name, x)
