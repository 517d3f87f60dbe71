"""pow: x**y = 2**(y log2 |x|), with the logarithm to more than the precision of the result.

float32 computes in float64. float64 carries the logarithm as a sum of two numbers (Dekker 1971):
log2 m = 2 / log 2 atanh((m - 1) / (m + 1)), where only the tail of the series is in one number.
"""

from __future__ import annotations

import numpy as np

from graphc.dtypes import float32, float64
from graphc.loop.ir import Const, Expr, apply, bitcast, cast, logical_and, select
from graphc.loop.scalar_math_core import (
    INF,
    NAN,
    Table,
    at_least,
    at_most,
    derive,
    div,
    eq,
    fabs,
    fma,
    format_of,
    horner,
    in_float32,
    power_of_two,
    product_error,
)
from graphc.loop.scalar_math_exp import EXP2
from graphc.loop.scalar_math_log import normalize, split_exponent, unbias

# log2(1 + f) = f * LOG2_WIDE(f), sqrt(1/2) - 1 <= f <= sqrt(2) - 1, in float64 for float32
LOG2_WIDE: Table = {
    "f32": (  # 2**-35.8
        1.4426950408686998, -0.7213475208685589, 0.48089836139931263, -0.36067367484748336,
        0.2885372932520839, -0.24045316470821193, 0.20617536379346083, -0.18030062003040467,
        0.1587697699660198, -0.1431562782198405, 0.1447484485818718, -0.14283999237920872,
        0.07737101963063363,
    ),
}  # fmt: skip
# atanh(s) = s + s**3 * (1/3 + s**2 * ATANH(s**2)), |s| <= 0.1716
ATANH: Table = {
    "f64": (  # 2**-73.3
        0.19999999999999987, 0.14285714285723522, 0.11111111108534955, 0.09090909463589737,
        0.07692276508269161, 0.06668232389060286, 0.058359228334106526, 0.06006810655316949,
    ),
}  # fmt: skip
TWO_LOG2_E = float.fromhex("0x1.71547652b82fep+1")
TWO_LOG2_E_LOW = float.fromhex("0x1.777d0ffda0d24p-55")
THIRD = float.fromhex("0x1.5555555555555p-2")
THIRD_LOW = float.fromhex("0x1.5555555555555p-56")


def _pow32(a: Expr, y: Expr, one: Expr) -> Expr:
    """a**y for a >= 0; where ``one`` holds it is 1."""
    x = cast(a, float64)
    fmt = format_of(x)
    biased, m = split_exponent(x)
    e = unbias(biased, fmt) - (fmt.magic + fmt.bias)
    f = m - 1
    log = fma(f, horner(f, LOG2_WIDE["f32"]), e)
    log = select(x < INF, log, x)  # NaN too
    log = select(x > 0, log, select(eq(x, 0.0), Const(-INF, float64), log))
    t = select(one, 0.0, cast(y, float64) * log)
    t = at_most(at_least(t, -160.0), 130.0)
    shifted = t + fmt.magic
    r = t - (shifted - fmt.magic)
    power = power_of_two(bitcast(shifted, fmt.integer), float64)
    return cast(fma(r, horner(r, EXP2["f32"]), 1.0) * power, float32)


def _times(a: tuple[Expr, Expr], b: tuple[Expr, Expr]) -> tuple[Expr, Expr]:
    """The product of two sums of two."""
    product = a[0] * b[0]
    error = product_error(a[0], b[0], product)
    return product, error + fma(a[0], b[1], a[1] * b[0])


def _plus(a: tuple[Expr, Expr], b: tuple[Expr, Expr]) -> tuple[Expr, Expr]:
    """The sum of two sums of two, the first of which is the larger or 0."""
    total = a[0] + b[0]
    return total, (b[0] - (total - a[0])) + (a[1] + b[1])


def _log2_sum(a: Expr) -> tuple[Expr, Expr]:
    """log2(a) as a sum of two, for finite a > 0."""
    e, f = normalize(a)
    denominator = f + 2
    lost = f - (denominator - 2)
    s = div(f, denominator)
    product = s * denominator
    missing = (f - product) - product_error(s, denominator, product)
    ratio = (s, div(missing - s * lost, denominator))
    square = _times(ratio, ratio)
    tail = square[0] * horner(square[0], ATANH["f64"])
    zero = Const(0.0, float64)
    factor = _plus((Const(THIRD, float64), Const(THIRD_LOW, float64)), (tail, zero))
    series = _plus(ratio, _times(_times(ratio, square), factor))
    scale = (Const(TWO_LOG2_E, float64), Const(TWO_LOG2_E_LOW, float64))
    return _plus((e, zero), _times(series, scale))


def _pow64(a: Expr, y: Expr, one: Expr) -> Expr:
    """a**y for a >= 0; where ``one`` holds it is 1."""
    y = at_most(at_least(y, -(2.0**70)), 2.0**70)  # all the same from there on
    log = _log2_sum(a)
    t, t_low = _times((y, Const(0.0, float64)), log)
    inside = logical_and(a > 0, a < INF)
    edge = y * select(eq(a, 0.0), Const(-INF, float64), a)
    wanted = select(one, 0.0, select(inside, t, edge))
    t = at_most(at_least(wanted, -1080.0), 1030.0)
    inside = logical_and(inside, eq(t, wanted))
    fmt = format_of(a)
    n = (t + fmt.magic) - fmt.magic
    r = (t - n) + select(inside, t_low, 0.0)
    return apply("scalef", fma(r, horner(r, EXP2["f64"]), 1.0), n)


def _is_whole(x: Expr) -> Expr:
    return eq(apply("trunc", x), x)


@in_float32
def pow_(x: Expr, y: Expr) -> Expr:
    """x**y with every special case of C's ``pow``."""
    a = fabs(x)
    one = apply("or", eq(a, 1.0), eq(y, 0.0))
    value = (_pow64 if x.dtype is float64 else _pow32)(a, y, one)
    whole = _is_whole(y)
    odd = logical_and(whole, apply("not", _is_whole(y * 0.5)))
    flipped = select(odd, apply("copysign", value, x), value)
    # A finite negative base has a real power for whole exponents only.
    bad = logical_and(logical_and(x < 0, a < INF), apply("not", whole))
    return select(eq(x, 1.0), 1.0, select(bad, Const(NAN, x.dtype), flipped))


derive("pow", pow_, np.power, arity=2, ulp=1.5, cost=110)
