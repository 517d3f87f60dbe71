"""sinh, cosh, asinh, acosh, atanh, out of exp and log1p."""

from __future__ import annotations

import numpy as np

from graphc.loop.ir import Const, Expr, select
from graphc.loop.scalar_math_core import (
    NAN,
    Table,
    at_most,
    copysign,
    derive,
    div,
    fabs,
    fma,
    in_float32,
    pick,
    poly,
    sqrt,
)
from graphc.loop.scalar_math_exp import exp_careful
from graphc.loop.scalar_math_log import log_sum, normalize_plus_1, outside

# sinh(x) = x + x**3 * SINH(x**2), |x| <= 1
SINH: Table = {
    "f32": (  # 2**-31.6
        0.16666667, 0.0083333105, 0.00019842896, 2.7822132e-06,
    ),
    "f64": (  # 2**-63.0
        0.16666666666666666, 0.008333333333333573, 0.00019841269841061157, 2.755731931009361e-06,
        2.505208941162096e-08, 1.6061339368307307e-10, 7.503248932056214e-13,
        6.4758352337681495e-15,
    ),
}  # fmt: skip
# atanh(x) = x + x**3 * ATANH_NEAR(x**2), |x| <= 1/2
ATANH_NEAR: Table = {
    "f32": (  # 2**-29.4
        0.33333302, 0.20002453, 0.14223784, 0.1181641, 0.05160312, 0.1763806,
    ),
    "f64": (  # 2**-60.9
        0.3333333333333328, 0.20000000000018558, 0.1428571428338826, 0.11111111258239456,
        0.0909090358430663, 0.07692440725280691, 0.06664482241829828, 0.05907480934934152,
        0.05057640256351339, 0.05958340356976531, -0.005396520210689941, 0.17507313750312203,
        -0.19628822884324348, 0.24122443227655826,
    ),
}  # fmt: skip


def _half_exp(a: Expr) -> Expr:
    """exp(a) / 2, which overflows no earlier than sinh and cosh do."""
    return exp_careful(at_most(a, pick(a, 91.0, 712.0)), -1)


@in_float32
def sinh(x: Expr) -> Expr:
    """(exp(x) - exp(-x)) / 2."""
    a = fabs(x)
    half = _half_exp(a)
    square = x * x
    near = fma(square * a, poly(square, SINH), a)
    return copysign(select(a < 1, near, half - div(Const(0.25, half.dtype), half)), x)


@in_float32
def cosh(x: Expr) -> Expr:
    """(exp(x) + exp(-x)) / 2."""
    half = _half_exp(fabs(x))
    return half + div(Const(0.25, half.dtype), half)


def _log1p_of_sum(a: Expr, b: Expr, large: Expr, x: Expr) -> Expr:
    """log(1 + a + b) for a >= b, with what rounding a + b loses; log(2 x) where x is ``large``."""
    total = a + b
    lost = b - (total - a)
    y = select(large, x, total)
    e, f, scale = normalize_plus_1(y)
    low = lost * scale
    value = log_sum(e + select(large, Const(1.0, x.dtype), 0.0), f, select(large, 0.0, low))
    return outside(y + 1, value)


@in_float32
def asinh(x: Expr) -> Expr:
    """log(a + sqrt(a**2 + 1)) = log1p(a + a**2 / (1 + sqrt(a**2 + 1))) for a = |x|."""
    a = fabs(x)
    square = a * a
    part = div(square, sqrt(square + 1) + 1)
    return copysign(_log1p_of_sum(a, part, a > 2.0**58, a), x)


@in_float32
def acosh(x: Expr) -> Expr:
    """log(x + sqrt(x**2 - 1)) = log1p(t + sqrt(2 t + t**2)) with t = x - 1; NaN below 1."""
    t = x - 1
    value = _log1p_of_sum(sqrt(fma(t, t, t + t)), t, x > 2.0**58, x)
    return select(x < 1, NAN, value)


@in_float32
def atanh(x: Expr) -> Expr:
    """log((1 + a) / (1 - a)) / 2 = log1p(2 a / (1 - a)) / 2 for a = |x|; a polynomial below 1/2."""
    a = fabs(x)
    square = x * x
    near = fma(square * a, poly(square, ATANH_NEAR), a)
    y = div(a + a, 1 - a)
    e, f, _ = normalize_plus_1(y)
    far = outside(y + 1, log_sum(e, f)) * 0.5
    return copysign(select(a < 0.5, near, far), x)


derive("sinh", sinh, np.sinh, ulp=2.0, cost=34)
derive("cosh", cosh, np.cosh, ulp=2.0, cost=24)
derive("asinh", asinh, np.arcsinh, ulp=2.0, cost=48)
derive("acosh", acosh, np.arccosh, ulp=2.0, cost=46)
derive("atanh", atanh, np.arctanh, ulp=2.0, cost=48)
