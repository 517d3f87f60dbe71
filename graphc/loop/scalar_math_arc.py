"""asin, acos, atan, atan2: odd minimax polynomials after the usual reflections."""

from __future__ import annotations

import math

import numpy as np

from graphc.loop.ir import Const, Expr, bitcast, select
from graphc.loop.scalar_math_core import (
    Table,
    chain,
    copysign,
    derive,
    div,
    eq,
    fabs,
    fma,
    format_of,
    in_float32,
    neg,
    pick,
    poly,
    sqrt,
)

# asin(x) = x + x**3 * ASIN(x**2), |x| <= 1/2
ASIN: Table = {
    "f32": (  # 2**-27.6
        0.16666752, 0.074953094, 0.045469154, 0.024184741, 0.0421584,
    ),
    "f64": (  # 2**-55.9
        0.16666666666665408, 0.07500000000337163, 0.044642856828191524, 0.030381959142984184,
        0.022371757899314167, 0.017359707126946358, 0.01388521140302171, 0.012169373810436625,
        0.006527257291176282, 0.019530272891059224, -0.016227467423376083, 0.03191451553825574,
    ),
}  # fmt: skip
# atan(x) = x + x**3 * ATAN(x**2), |x| <= 1
ATAN: Table = {
    "f32": (  # 2**-28.5
        -0.333333, 0.1999853, -0.14264016, 0.109508805, -0.08399303, 0.057881203, -0.031096566,
        0.01086828, -0.001782678,
    ),
    "f64": (  # 2**-57.6
        -0.3333333333333307, 0.19999999999951748, -0.14285714282588005, 0.11111111007340019,
        -0.09090907007770611, 0.0769227988865032, -0.06666404421602216, 0.05880529800010564,
        -0.052535267556093425, 0.04722348313077092, -0.04219243553038544, 0.03664316157553762,
        -0.029905752961032483, 0.021987087417236578, -0.013902587831715392, 0.007197891403041148,
        -0.0028856114221689007, 0.0008315597483380472, -0.00015221106468137595,
        1.322998201354398e-05,
    ),
}  # fmt: skip


def _half_pi(x: Expr) -> tuple[float, float]:
    """pi / 2 and what its rounding to the format of ``x`` leaves out."""
    single = float(np.float32(math.pi / 2))
    pair: tuple[float, float] = pick(
        x, (single, math.pi / 2 - single), (math.pi / 2, float.fromhex("0x1.1a62633145c07p-54"))
    )
    return pair


def _asin_parts(x: Expr) -> tuple[Expr, Expr, Expr]:
    """``(big, s, rest)``: asin(s) = s + rest; s = |x|, or sqrt((1 - |x|) / 2) if |x| is big."""
    a = fabs(x)
    big = a > 0.5
    z = select(big, fma(a, -0.5, 0.5), a * a)
    s = select(big, sqrt(z), a)
    return big, s, s * z * poly(z, ASIN)


@in_float32
def asin(x: Expr) -> Expr:
    """The angle in [-pi / 2, pi / 2] whose sine is x: pi / 2 - 2 asin(s) for big |x|."""
    big, s, rest = _asin_parts(x)
    high, low = _half_pi(x)
    twice = s * 2
    top = high - twice
    reflected = top + fma(rest, -2.0, (high - top) - twice + low)
    return copysign(select(big, reflected, s + rest), x)


@in_float32
def acos(x: Expr) -> Expr:
    """The angle in [0, pi] whose cosine is x."""
    big, s, rest = _asin_parts(x)
    high, low = _half_pi(x)
    negative = x < 0
    near_one = (s + rest) * 2
    near_minus_one = (2 * high - s * 2) + fma(rest, -2.0, 2 * low)
    signed, signed_rest = select(negative, neg(s), s), select(negative, neg(rest), rest)
    middle = high - (signed - (low - signed_rest))
    return select(big, select(negative, near_minus_one, near_one), middle)


def _atan_rest(t: Expr) -> Expr:
    """atan(t) - t for 0 <= t <= 1."""
    z = t * t
    return t * z * poly(z, ATAN, chain)


@in_float32
def atan(x: Expr) -> Expr:
    """The angle in [-pi / 2, pi / 2] whose tangent is x: pi / 2 - atan(1 / x) above 1."""
    a = fabs(x)
    big = a > 1
    t = div(select(big, 1.0, a), select(big, a, 1.0))
    rest = _atan_rest(t)
    high, low = _half_pi(x)
    return copysign(select(big, high - (t - (low - rest)), t + rest), x)


@in_float32
def atan2(y: Expr, x: Expr) -> Expr:
    """The angle of the point (x, y), with C's results at zeros and infinities."""
    fmt = format_of(x)
    a, b = fabs(y), fabs(x)
    steep = a > b
    t = div(select(steep, b, a), select(steep, a, b))
    same = select(eq(a, 0.0), Const(0.0, x.dtype), 1.0)  # 0 / 0 and inf / inf
    t = select(eq(a, b), same, t)
    angle = t + _atan_rest(t)
    left = bitcast(x, fmt.integer) < 0
    high, low = _half_pi(x)
    zero = Const(0.0, x.dtype)
    base = select(steep, Const(high, x.dtype), select(left, Const(2 * high, x.dtype), zero))
    base_low = select(steep, Const(low, x.dtype), select(left, Const(2 * low, x.dtype), zero))
    turned = select(left, select(steep, angle, neg(angle)), select(steep, neg(angle), angle))
    return copysign(base + (turned + base_low), y)


derive("asin", asin, np.arcsin, ulp=1.5, cost=24)
derive("acos", acos, np.arccos, ulp=1.5, cost=30)
derive("atan", atan, np.arctan, ulp=1.5, cost=28)
derive("atan2", atan2, np.arctan2, arity=2, ulp=2.0, cost=44)
