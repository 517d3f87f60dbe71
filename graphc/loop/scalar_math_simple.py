"""square, reciprocal, rsqrt, sign, ipow: a few operations each."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.loop.ir import Const, Expr, apply, select
from graphc.loop.scalar import ScalarFn, register
from graphc.loop.scalar_math_core import derive, div, eq, in_float32, sqrt


def square(x: Expr) -> Expr:
    """x * x; integers wrap."""
    return apply("mul", x, x)


@in_float32
def reciprocal(x: Expr) -> Expr:
    """1 / x."""
    return div(Const(1.0, x.dtype), x)


@in_float32
def rsqrt(x: Expr) -> Expr:
    """1 / sqrt(x): -inf at -0, as the C library has it."""
    return div(Const(1.0, x.dtype), sqrt(x))


def sign(x: Expr) -> Expr:
    """-1, 0 or 1; NaN stays, and -0 gives 0, both as in NumPy."""
    if x.dtype.is_unsigned:
        return select(x > 0, Const(1, x.dtype), 0)
    one = select(x < 0, Const(-1, x.dtype), x + 0.0 if x.dtype.is_floating else 0)
    return select(x > 0, 1, one)


def ipow(x: Expr, n: Expr) -> Expr:
    """x**n of integers by repeated squaring, wrapping; for n < 0 what 1 / x**|n| rounds to."""
    dtype = x.dtype
    total: Expr = Const(1, dtype)
    power = x
    one = Const(1, dtype)
    for bit in range(8 * dtype.size - (0 if dtype.is_unsigned else 1)):
        used = apply("and", apply("lshr", n, bit), 1)
        total = apply("mul", total, select(eq(used, 1), power, one))
        power = apply("mul", power, power)
    if dtype.is_unsigned:
        return total
    odd = eq(apply("and", n, 1), 1)
    inverse = select(eq(x, -1), select(odd, Const(-1, dtype), 1), select(eq(x, 1), one, 0))
    return select(n < 0, inverse, total)


def _ipow(x: Any, n: Any) -> Any:
    x, n = np.asarray(x), np.asarray(n)
    with np.errstate(all="ignore"):
        total = np.power(x, np.where(n < 0, 0, n).astype(x.dtype))
    inverse = np.where(x == 1, 1, np.where(x == -1, np.where(n % 2 == 0, 1, -1), 0))
    return np.where(n < 0, inverse.astype(x.dtype), total)


def _reciprocal(x: Any) -> Any:
    return 1.0 / x


register(ScalarFn("square", 1, np.square, square, "fiu", 0.5, 1))
register(ScalarFn("sign", 1, np.sign, sign, "fiu", 0.0, 4))
register(ScalarFn("ipow", 2, _ipow, ipow, "iu", 0.0, 128))
derive("reciprocal", reciprocal, _reciprocal, ulp=0.5, cost=4)
derive("rsqrt", rsqrt, lambda x: 1.0 / np.sqrt(x), ulp=1.6, cost=10)
