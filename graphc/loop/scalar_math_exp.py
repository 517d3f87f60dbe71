"""exp, exp2, expm1, sigmoid, softplus, tanh, sinh, cosh.

exp(x) = 2**n * exp(r) with n = rint(x / log 2) and r = x - n log 2 taken off in two parts (Cody and
Waite 1980), so that r is right to the last bit without a fused multiply-add; exp(r) is a minimax
polynomial on |r| <= log(2) / 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.loop.ir import Const, Expr, apply, bitcast, select
from graphc.loop.scalar import ScalarFn, register
from graphc.loop.scalar_math_core import (
    Table,
    at_least,
    at_most,
    chain,
    copysign,
    derive,
    div,
    fabs,
    fma,
    format_of,
    in_float32,
    neg,
    pick,
    poly,
    power_of_two,
    shift_exponent,
)

LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453

# exp(r) = 1 + r + r**2 * EXP(r), |r| <= log(2) / 2
EXP: Table = {
    "f32": (  # 2**-28.1
        0.49999994, 0.16666521, 0.04166819, 0.008368755, 0.0013828814,
    ),
    "f64": (  # 2**-57.8
        0.5000000000000011, 0.1666666666666643, 0.04166666666652719, 0.008333333333489446,
        0.001388888894439945, 0.00019841269511686297, 2.480149224222311e-05,
        2.755758383869875e-06, 2.7630581725248547e-07, 2.500072361952354e-08,
    ),
}  # fmt: skip
# the same with the error relative to expm1(r)
EXPM1: Table = {
    "f32": (  # 2**-26.0
        0.49999997, 0.16666546, 0.041667372, 0.0083663305, 0.0013877273,
    ),
    "f64": (  # 2**-61.3
        0.5, 0.16666666666666677, 0.04166666666666668, 0.008333333333321855, 0.001388888888890416,
        0.00019841269885231418, 2.4801587249834148e-05, 2.7557245162446266e-06,
        2.755735799684761e-07, 2.5108725217831134e-08, 2.0884761895150017e-09,
    ),
}  # fmt: skip
# 2**r = 1 + r * EXP2(r), |r| <= 1/2
EXP2: Table = {
    "f32": (  # 2**-26.4
        0.69314724, 0.24022694, 0.055502597, 0.009612295, 0.0013423638, 0.00017152246,
    ),
    "f64": (  # 2**-58.0
        0.6931471805599453, 0.24022650695910022, 0.05550410866482354, 0.009618129107652735,
        0.00133335581459991, 0.000154035303545367, 1.5252734186703323e-05, 1.3215513816788024e-06,
        1.0177930448431993e-07, 7.04641730585705e-09, 4.472638293300735e-10,
        3.556798954050239e-11,
    ),
}  # fmt: skip
# tanh(x) = x + x**3 * TANH(x**2), |x| <= 0.625
TANH: Table = {
    "f32": (  # 2**-27.7
        -0.3333328, 0.13331406, -0.053736515, 0.020628167, -0.0056922957,
    ),
    "f64": (  # 2**-61.2
        -0.33333333333333315, 0.1333333333332996, -0.05396825396614946, 0.021869488470699736,
        -0.00886323433876447, 0.0035921142225575613, -0.001455727210709574, 0.0005894566233196039,
        -0.0002370240035389828, 9.157834179595381e-05, -3.020591107057062e-05,
        6.050170894159701e-06,
    ),
}  # fmt: skip
# log1p(f) = f + f**2 * LOG1P_E(f), -1/4 <= f <= 1/2
LOG1P_E: Table = {
    "f32": (  # 2**-29.8
        -0.49999997, 0.3333333, -0.25000396, 0.20000409, -0.16650915, 0.14256337, -0.1273843,
        0.11842719, -0.09315549, 0.038398508,
    ),
    "f64": (  # 2**-58.6
        -0.5000000000000001, 0.33333333333333337, -0.2499999999999559, 0.20000000000000345,
        -0.1666666666731609, 0.14285714285847048, -0.12499999951449532, 0.11111111069488093,
        -0.10000002098396528, 0.09090912646512857, -0.08333278803032113, 0.07692160654923244,
        -0.07143669384136932, 0.06670018806480785, -0.06244851356369175, 0.05840405846909097,
        -0.05531073811565716, 0.05504217788927757, -0.055494303382462376, 0.04726350054675908,
        -0.02664228516130736, 0.006987477453568619,
    ),
}  # fmt: skip


def reduce_ln2(x: Expr) -> tuple[Expr, Expr, Expr]:
    """``(n, bits, r)``: x = n log(2) + r, |r| <= log(2) / 2; the low bits of ``bits`` are n."""
    fmt = format_of(x)
    shifted = fma(x, LOG2_E, fmt.magic)
    n = shifted - fmt.magic
    r = fma(n, -fmt.ln2_lo, fma(n, -fmt.ln2_hi, x))
    return n, bitcast(shifted, fmt.integer), r


def exp_reduced(r: Expr) -> Expr:
    """exp(r) for |r| <= log(2) / 2."""
    return fma(r * r, poly(r, EXP), r) + 1


def exp_careful(x: Expr, plus: int = 0) -> Expr:
    """exp(x) * 2**plus for an x that is clamped already, to 0.8 ulp: r is used in two parts."""
    fmt = format_of(x)
    shifted = fma(x, LOG2_E, fmt.magic)
    n = shifted - fmt.magic
    r_high = fma(n, -fmt.ln2_hi, x)
    r = fma(n, -fmt.ln2_lo, r_high)
    rest = fma(n, -fmt.ln2_lo, r * r * poly(r, EXP))
    return apply("scalef", (r_high + rest) + 1, n + plus if plus else n)


def minus_abs(x: Expr) -> Expr:
    """-|x|, but not below what exp rounds to 0."""
    return at_least(copysign(fabs(x), Const(-1.0, x.dtype)), lowest(x))


def exp_scaled(x: Expr, plus: int = 0) -> Expr:
    """exp(x) * 2**plus for an x that is clamped already; denormals and infinity come out right."""
    n, _, r = reduce_ln2(x)
    return apply("scalef", exp_reduced(r), n + plus if plus else n)


def exp_normal(x: Expr) -> Expr:
    """exp(x) where x and the result are in the range of normal numbers; NaN is lost."""
    _, bits, r = reduce_ln2(x)
    return shift_exponent(exp_reduced(r), bits)


def lowest(x: Expr) -> float:
    """Below this exp rounds to 0."""
    return float(pick(x, -104.0, -746.0))


@in_float32
def exp(x: Expr) -> Expr:
    """e**x."""
    return exp_scaled(at_most(at_least(x, lowest(x)), pick(x, 89.0, 710.0)))


@in_float32
def exp_negative(x: Expr) -> Expr:
    """e**x for x <= 0 in a third less operations than ``exp`` takes without AVX-512's ``scalef``.

    What is less than 2**-1/2 of the smallest normal number is 0: there n is the exponent of zero,
    whatever r is.
    """
    _, bits, r = reduce_ln2(at_least(x, pick(x, -88.0, -709.0)))
    return exp_reduced(r) * power_of_two(bits, x.dtype)


@in_float32
def exp2(x: Expr) -> Expr:
    """2**x."""
    fmt = format_of(x)
    x = at_most(at_least(x, pick(x, -151.0, -1076.0)), pick(x, 128.0, 1024.0))
    n = fma(x, 1.0, fmt.magic) - fmt.magic
    r = x - n
    return apply("scalef", fma(r, poly(r, EXP2), 1.0), n)


def expm1_parts(x: Expr) -> tuple[Expr, Expr]:
    """``(p, bits)``: exp(x) = 2**n * (1 + p); the low bits of ``bits`` are n."""
    _, bits, r = reduce_ln2(x)
    return fma(r * r, poly(r, EXPM1, chain), r), bits


@in_float32
def expm1(x: Expr) -> Expr:
    """e**x - 1: 2**n p + (2**n - 1), at half size lest 2**128 overflow."""
    clamped = at_most(at_least(x, pick(x, -17.5, -38.0)), pick(x, 89.0, 710.0))
    p, bits = expm1_parts(clamped)
    half = power_of_two(bits, x.dtype, -1)
    y = fma(half, p, half - 0.5)
    return select(fabs(x) < pick(x, 2.0**-25, 2.0**-54), x, y + y)


@in_float32
def sigmoid(x: Expr) -> Expr:
    """e / (1 + e) or 1 / (1 + e) with e = exp(-|x|), so that nothing overflows.

    Written a - a (e / (1 + e)) with a = e or 1: where e is small its error alone counts.
    """
    e = exp_careful(minus_abs(x))
    top = select(x < 0, e, 1.0)
    return fma(neg(top), div(e, e + 1), top)


@in_float32
def softplus(x: Expr) -> Expr:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))."""
    e = exp_careful(minus_abs(x))
    upper = e > 0.5
    f = select(upper, fma(e, 0.5, -0.5), e)
    log = fma(f * f, poly(f, LOG1P_E), f)
    log = select(upper, log + LN_2, log)
    return log + select(x < 0, 0.0, x)


@in_float32
def tanh(x: Expr) -> Expr:
    """1 - 2 / (exp(2 |x|) + 1), and an odd polynomial below 0.625."""
    a = fabs(x)
    doubled = at_most(a + a, pick(x, 20.0, 40.0))
    large = 1 - div(Const(2.0, x.dtype), exp_normal(doubled) + 1)
    square = x * x
    small = fma(square * x, poly(square, TANH), x)
    return copysign(select(a >= 0.625, large, small), x)


def _exp_negative(x: Any) -> Any:
    x = np.asarray(x)
    e = np.exp(x.astype(np.float64))
    least = 2.0**-1022 if x.dtype == np.float64 else 2.0**-126
    return np.where(e < least, 0.0, e).astype(x.dtype)


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


derive("exp", exp, np.exp, ulp=1.1, cost=13)
# For no argument above 0. The cost is that of exp, which it is with AVX-512.
register(
    ScalarFn(
        "exp_negative", 1, _exp_negative, exp_negative, ulp=1.1, cost=13,
        codes=("f16", "bf16", "f32", "f64"),
    )
)  # fmt: skip
derive("exp2", exp2, np.exp2, ulp=1.4, cost=13)
derive("expm1", expm1, np.expm1, ulp=2.0, cost=20)
derive("sigmoid", sigmoid, _sigmoid, ulp=2.0, cost=20)
derive("softplus", softplus, lambda x: np.logaddexp(x, 0.0), ulp=2.0, cost=32)
derive("tanh", tanh, np.tanh, ulp=1.5, cost=28)
