"""Elementwise division in its many kinds, remainders and powers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor
from graphc.loop import ir
from graphc.loop.scalar import FUNCTIONS
from graphc.loop.scalar_math_core import product_error
from graphc.op import ElementContext, Gradients, Sample, register, value_sizes
from graphc.ops.base import INF, NAN, Binary, call, grid

DIVISION_BY_ZERO = "Integer division by zero"
NEGATIVE_POWER = "Integers to negative integer powers are not allowed"


def all_known(tensor: Tensor, condition: Callable[[int], bool]) -> bool:
    """Whether the graph tells every element of an integer tensor, and all meet the condition."""
    if tensor.op.type == "Const":
        return all(condition(int(n)) for n in np.unique(tensor.op.attrs["value"]))
    known = value_sizes(tensor)
    return known is not None and all(isinstance(n, int) and condition(n) for n in known)


def _exact_mod(x: ir.Expr, y: ir.Expr) -> ir.Expr:
    """``x - trunc(x / y) * y`` in float64, with the sign of ``x``."""
    rest = x
    # The remainder of a correctly rounded quotient is representable: each step is exact.
    for _ in range(2):
        quotient = ir.apply("trunc", ir.apply("div", rest, y))
        product = ir.mul(quotient, y)
        rest = ir.sub(ir.sub(rest, product), product_error(quotient, y, product))
    # The quotient may have been rounded up to the next integer.
    wrong = ir.logical_and(
        ir.apply("ne", rest, 0), ir.apply("ne", ir.apply("lt", rest, 0), ir.apply("lt", x, 0))
    )
    step = ir.apply("copysign", ir.apply("abs", y), x)
    rest = ir.apply("copysign", ir.select(wrong, ir.add(rest, step), rest), x)
    whole = ir.logical_and(ir.apply("isinf", y), ir.apply("isfinite", x))
    return ir.select(whole, x, rest)


def fmod(x: ir.Expr, y: ir.Expr) -> ir.Expr:
    """The remainder with the sign of ``x``, exact while ``|x / y| < 2**100``."""
    return ir.cast(_exact_mod(ir.cast(x, dtypes.float64), ir.cast(y, dtypes.float64)), x.dtype)


def floor_mod(x: ir.Expr, y: ir.Expr) -> ir.Expr:
    """The remainder with the sign of ``y``."""
    rest = fmod(x, y)
    other_sign = ir.apply("ne", ir.apply("lt", rest, 0), ir.apply("lt", y, 0))
    wrong = ir.logical_and(ir.apply("ne", rest, 0), other_sign)
    nothing = ir.apply("copysign", ir.const(0.0, x.dtype), y)
    return ir.select(ir.apply("eq", rest, 0), nothing, ir.select(wrong, ir.add(rest, y), rest))


class _Division(Binary):
    """Samples that stay away from zero divisors."""

    def samples(self) -> Iterable[Sample]:
        """All signs; broadcasting; special floats; extreme ints."""
        x = grid(2, 3, 4, low=-9.0, high=9.0)
        y = grid(2, 3, 4, low=1.2, high=3.9) * np.where(np.arange(4) % 2, -1.0, 1.0)
        yield Sample((x, y[::-1]), rtol=self.rtol)
        yield Sample((x, y[0, 0]), rtol=self.rtol, note="row broadcast")
        yield Sample((x[:, :, :1], y[:1]), rtol=self.rtol, note="both broadcast")
        yield Sample((x[0, 0, 0], y[1]), rtol=self.rtol, note="scalar operand")
        yield Sample((np.zeros((0, 3)), np.ones((1, 3))), grad=(), note="empty")
        large = (grid(9, low=1.0, high=60000.0), grid(9, low=0.01, high=0.02))
        yield Sample(large, grad=(), rtol=self.rtol, dtypes=dtypes.FLOATS, note="large quotients")
        left, right = np.meshgrid(
            np.array([0.0, -0.0, 1.0, -7.5, 6.0, INF, -INF, NAN]),
            np.array([1.0, -2.0, 2.5, -2.5, INF, -INF, NAN, 0.0, -0.0]),
        )
        yield Sample((left, right), grad=(), rtol=self.rtol, dtypes=dtypes.FLOATS, note="special")
        a, b = np.meshgrid(
            np.array([0, 1, -1, 7, -7, 127, -128]), np.array([1, -1, 2, -3, 7, 127, -128])
        )
        yield Sample((a, b), grad=(), dtypes=dtypes.SIGNED, note="extreme ints")


class _IntegerDivision(_Division):
    """A division that fails where an integer divisor is zero."""

    fallible = True
    float_fn: ClassVar[str] = ""
    int_fn: ClassVar[str] = ""

    def can_fail(self, op: Operation) -> bool:
        """Only of integers, by what is not known to be no zero."""
        divisor = op.inputs[1]
        return not divisor.dtype.is_floating and not all_known(divisor, lambda n: n != 0)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The quotient or remainder; an integer divisor of zero fails the run."""
        x, y = ctx.broadcast_operand(0, index), ctx.broadcast_operand(1, index)
        if x.dtype.is_floating:
            return self.floats(x, y)
        quotient = ir.apply(self.int_fn, x, y)
        if not self.can_fail(ctx.op):
            return quotient
        return ir.Require(ir.apply("ne", y, 0), quotient, ctx.site(DIVISION_BY_ZERO))

    def floats(self, x: ir.Expr, y: ir.Expr) -> ir.Expr:
        """The element for floating operands."""
        return ir.apply(self.float_fn, x, y)

    def numpy_floats(self, x: Any, y: Any) -> Any:
        """The reference for floating operands."""
        return FUNCTIONS[self.float_fn].numpy(x, y)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's, which for integers must not meet a zero divisor."""
        x, y = inputs
        if dtypes.is_float(np.asarray(x).dtype):
            return self.numpy_floats(x, y)
        broadcast = np.broadcast_shapes(np.shape(x), np.shape(y))
        if np.any(np.asarray(y) == 0) and np.prod(broadcast) > 0:
            raise ZeroDivisionError(DIVISION_BY_ZERO)
        return FUNCTIONS[self.int_fn].numpy(x, y)


class _Quotient(Binary):
    """The gradients of a true division."""

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g / y`` and ``g * (-x / y / y)``; none for integers."""
        x, y = op.inputs
        if not x.dtype.is_floating:
            return [None, None]
        gy = call("RealDiv", call("RealDiv", call("Neg", x), y), y)
        return self.grads(op, call("RealDiv", grads[0], y), call("Mul", grads[0], gy))


@register
class RealDiv(_Quotient, _Division):
    """``x / y`` of floats, element by element; division by zero gives infinities and NaN."""

    name = "RealDiv"
    fn = "div"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}


@register
class Div(_Quotient, _IntegerDivision):
    """``x / y``; of integers, rounded towards zero, and a zero divisor is an error."""

    name = "Div"
    float_fn = "div"
    int_fn = "idiv"


@register
class FloorDiv(_IntegerDivision):
    """``x / y`` rounded down: what the Python operator ``//`` declares.

    An integer division by zero is an error.
    """

    name = "FloorDiv"
    float_fn = "floordiv"
    int_fn = "floordiv"
    differentiable = False

    def symbolic_value(self, a: DimLike, b: DimLike) -> DimLike | None:
        """The quotient of sizes, by anything but zero."""
        return None if isinstance(b, int) and b == 0 else dims.floordiv(a, b)


@register
class TruncateDiv(_IntegerDivision):
    """``x / y`` of integers rounded towards zero; a zero divisor is an error."""

    name = "TruncateDiv"
    int_fn = "idiv"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.INTEGERS}
    differentiable = False


@register
class FloorMod(_IntegerDivision):
    """``x - floor(x / y) * y``: what the Python operator ``%`` declares.

    The result has the sign of ``y``.  An integer division by zero is an error; of floats, exact
    while ``|x / y| < 2**100``.
    """

    name = "FloorMod"
    int_fn = "floormod"

    def floats(self, x: ir.Expr, y: ir.Expr) -> ir.Expr:
        """The remainder with the divisor's sign."""
        return floor_mod(x, y)

    def numpy_floats(self, x: Any, y: Any) -> Any:
        """NumPy's."""
        return np.mod(x, y)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g`` and ``-g * floor(x / y)``."""
        x, y = op.inputs
        gy = call("Mul", grads[0], call("Neg", call("FloorDiv", x, y)))
        return self.grads(op, grads[0], gy)

    def symbolic_value(self, a: DimLike, b: DimLike) -> DimLike | None:
        """The remainder of sizes, by anything but zero."""
        return None if isinstance(b, int) and b == 0 else dims.mod(a, b)


@register
class TruncateMod(_IntegerDivision):
    """``x - trunc(x / y) * y``, with the sign of ``x``, as C's ``%`` and ``fmod``.

    An integer division by zero is an error; of floats, exact while ``|x / y| < 2**100``.
    """

    name = "TruncateMod"
    int_fn = "irem"

    def floats(self, x: ir.Expr, y: ir.Expr) -> ir.Expr:
        """The remainder with the dividend's sign."""
        return fmod(x, y)

    def numpy_floats(self, x: Any, y: Any) -> Any:
        """NumPy's."""
        return np.fmod(x, y)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g`` and ``-g * trunc(x / y)``."""
        x, y = op.inputs
        ratio = call("RealDiv", x, y)
        whole = call("Mul", call("Sign", ratio), call("Floor", call("Abs", ratio)))
        return self.grads(op, grads[0], call("Mul", grads[0], call("Neg", whole)))


@register
class DivNoNan(_Division):
    """``x / y`` of floats, but 0 where ``y`` is 0."""

    name = "DivNoNan"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}

    def scalar(self, op: Operation, x: ir.Expr, y: ir.Expr) -> ir.Expr:
        """The quotient, or 0."""
        return ir.select(ir.apply("eq", y, 0), 0, ir.apply("div", x, y))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The quotient, or 0."""
        return np.where(np.equal(inputs[1], 0), 0, np.divide(*inputs))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """As of a division, with the same exception."""
        x, y = op.inputs
        gy = call("DivNoNan", call("DivNoNan", call("Neg", x), y), y)
        return self.grads(op, call("DivNoNan", grads[0], y), call("Mul", grads[0], gy))


@register
class MulNoNan(Binary):
    """``x * y`` of floats, but 0 where ``y`` is 0, even if ``x`` is infinite or NaN."""

    name = "MulNoNan"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}

    def scalar(self, op: Operation, x: ir.Expr, y: ir.Expr) -> ir.Expr:
        """The product, or 0."""
        return ir.select(ir.apply("eq", y, 0), 0, ir.mul(x, y))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The product, or 0."""
        return np.where(np.equal(inputs[1], 0), 0, np.multiply(*inputs))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """As of a product, with the same exception."""
        x, y = op.inputs
        return self.grads(op, call("MulNoNan", grads[0], y), call("MulNoNan", x, grads[0]))


@register
class Pow(Binary):
    """``x`` to the power ``y``, element by element: what the Python operator ``**`` declares.

    Of integers by repeated multiplication, wrapping around; a negative exponent is an error.
    """

    name = "Pow"
    fn = "pow"
    fallible = True
    low = 0.2
    rtol = 1e-5

    def can_fail(self, op: Operation) -> bool:
        """Only of signed integers, with an exponent that may be negative."""
        exponent = op.inputs[1]
        if exponent.dtype.is_floating or exponent.dtype.is_unsigned:
            return False
        return not all_known(exponent, lambda n: n >= 0)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The power; a negative integer exponent fails the run."""
        x, y = ctx.broadcast_operand(0, index), ctx.broadcast_operand(1, index)
        if x.dtype.is_floating:
            return ir.apply("pow", x, y)
        value = ir.apply("ipow", x, y)
        if not self.can_fail(ctx.op):
            return value
        return ir.Require(ir.apply("ge", y, 0), value, ctx.site(NEGATIVE_POWER))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's, which refuses negative integer exponents too."""
        return np.power(*inputs)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g y x**(y-1)`` and ``g x**y log(x)``, the latter 0 where ``x <= 0``."""
        (x, y), g = op.inputs, grads[0]
        gx = call("Mul", call("Mul", g, y), call("Pow", x, call("Sub", y, 1)))
        positive = call("Greater", x, 0)
        log = call("Log", call("SelectV2", positive, x, 1))
        log_x = call("SelectV2", positive, log, 0)
        return self.grads(op, gx, call("Mul", call("Mul", g, op.outputs[0]), log_x))

    def samples(self) -> Iterable[Sample]:
        """Positive bases; whole exponents of negative ones; the special values; integers."""
        for sample in super().samples():
            if sample.note != "extreme ints":
                yield Sample(
                    sample.inputs, sample.attrs, sample.grad, dtypes.FLOATS, sample.rtol,
                    sample.note,
                )  # fmt: skip
        whole = (grid(5, low=-3.0, high=-1.0), np.array([2.0, 3.0, -1.0, 0.0, -2.0]))
        yield Sample(whole, grad=(0,), dtypes=dtypes.FLOATS, rtol=1e-5, note="negative bases")
        a, b = np.meshgrid(np.array([0, 1, -1, 2, -3, 5]), np.array([0, 1, 2, 3, 5]))
        yield Sample((a, b), grad=(), dtypes=dtypes.SIGNED, note="integers")
        yield Sample((np.abs(a), b), grad=(), dtypes=dtypes.UNSIGNED, note="unsigned")
