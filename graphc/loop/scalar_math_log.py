"""log, log2, log1p.

log(x) = e log 2 + log(1 + f) with x = 2**e (1 + f) and 1 + f from sqrt(1/2) to sqrt(2), taken
apart with integer operations on the bits; log(1 + f) is a minimax polynomial.
"""

from __future__ import annotations

import math

import numpy as np

from graphc.loop.ir import Const, Expr, apply, bitcast, select
from graphc.loop.scalar_math_core import (
    INF,
    NAN,
    Format,
    Table,
    copysign,
    derive,
    eq,
    fma,
    format_of,
    high_part,
    in_float32,
    pick,
    poly,
)

# log(1 + f) = f - f**2 / 2 + f**3 * LOG(f), sqrt(1/2) - 1 <= f <= sqrt(2) - 1
LOG: Table = {
    "f32": (  # 2**-27.3
        0.3333333, -0.2500082, 0.20001258, -0.16623437, 0.14201054, -0.13158596, 0.12765871,
        -0.07644173,
    ),
    "f64": (  # 2**-59.0
        0.33333333333333454, -0.24999999999999006, 0.1999999999994732, -0.16666666666910093,
        0.14285714293675117, -0.12499999981649801, 0.11111110524547867, -0.10000000419810942,
        0.09090933297436347, -0.08333344488581233, 0.07691716778130818, -0.07142023015495695,
        0.06675147538052141, -0.06269575327398058, 0.05817536953211025, -0.053278720007765186,
        0.05418217566391524, -0.06273664532843079, 0.05690251465977029, -0.024230647280501713,
    ),
}  # fmt: skip
# log2(1 + f) = f / log(2) + f**2 * LOG2(f), the same interval
LOG2: Table = {
    "f32": (  # 2**-27.7
        -0.72134733, 0.4808982, -0.36069867, 0.28857142, -0.23956765, 0.20448682, -0.19138817,
        0.18708608, -0.110258795,
    ),
    "f64": (  # 2**-58.5
        -0.7213475204444817, 0.48089834696298933, -0.3606737602222298, 0.2885390081771038,
        -0.24044917348483377, 0.20609929166331853, -0.1803368798408044, 0.16029944085521156,
        -0.1442695109255, 0.13115443568814122, -0.12022471802818356, 0.11096812271763132,
        -0.10303818355360096, 0.0963015062914549, -0.09044484130689202, 0.08392603302101502,
        -0.07689653873837712, 0.0782189100041084, -0.0904598860224057, 0.08192052179869154,
        -0.0348458653704762,
    ),
}  # fmt: skip


def _bits(value: float, fmt: Format) -> int:
    number = np.asarray(value, fmt.dtype.numpy)
    return int(number.view(fmt.integer.numpy))


def split_exponent(x: Expr) -> tuple[Expr, Expr]:
    """``(biased, m)``: x = 2**(biased - bias) m, sqrt(1/2) <= m < sqrt(2), for a normal x > 0."""
    fmt = format_of(x)
    low = _bits(math.sqrt(0.5), fmt)
    moved = bitcast(x, fmt.integer) + (_bits(1.0, fmt) - low)
    fraction = apply("and", moved, (1 << fmt.mantissa) - 1) + low
    return apply("lshr", moved, fmt.mantissa), bitcast(fraction, fmt.dtype)


def unbias(biased: Expr, fmt: Format) -> Expr:
    """The exponent as a float, still with ``magic + bias`` added to it."""
    return bitcast(biased + _bits(fmt.magic, fmt), fmt.dtype)


def normalize(x: Expr) -> tuple[Expr, Expr]:
    """``(e, f)``: x = 2**e (1 + f) for finite x > 0, denormals too."""
    fmt = format_of(x)
    small = x < fmt.tiny
    up = fmt.mantissa + 2.0
    biased, m = split_exponent(select(small, x * 2.0**up, x))
    base = fmt.magic + fmt.bias
    return unbias(biased, fmt) - select(small, Const(base + up, fmt.dtype), base), m - 1


def log_sum(e: Expr, f: Expr, low: Expr | None = None) -> Expr:
    """e log 2 + log(1 + f), or log(1 + f + low) for a ``low`` less than f's last bit."""
    fmt = format_of(f)
    rest = f * f * fma(f, poly(f, LOG), -0.5)
    if low is not None:
        rest = fma(low, 1 - f, rest)
    return fma(e, fmt.ln2_hi, f + fma(e, fmt.ln2_lo, rest))


def outside(x: Expr, value: Expr, at_zero: float = -INF) -> Expr:
    """``value`` for finite x > 0; else what a logarithm gives there."""
    value = select(x < INF, value, x)
    return select(x > 0, value, select(eq(x, 0.0), Const(at_zero, x.dtype), NAN))


@in_float32
def log(x: Expr) -> Expr:
    """The natural logarithm."""
    return outside(x, log_sum(*normalize(x)))


@in_float32
def log2(x: Expr) -> Expr:
    """The logarithm to base 2; exact for powers of 2."""
    e, f = normalize(x)
    high = pick(x, float.fromhex("0x1.716p0"), float.fromhex("0x1.7154768p0"))
    low = pick(x, float.fromhex("-0x1.7135a8p-13"), float.fromhex("-0x1.6a3e80f444178p-27"))
    # high_part(f) * high is exact, so that the sum loses nothing without a fused multiply-add.
    top = high_part(f)
    rest = fma(f - top, high, fma(f * f, poly(f, LOG2), f * low))
    return outside(x, e + fma(top, high, rest))


def log_normal(x: Expr) -> Expr:
    """The natural logarithm where x is positive and normal."""
    fmt = format_of(x)
    biased, m = split_exponent(x)
    return log_sum(unbias(biased, fmt) - (fmt.magic + fmt.bias), m - 1)


def normalize_plus_1(x: Expr) -> tuple[Expr, Expr, Expr]:
    """``(e, f, 2**-e)``: 1 + x = 2**e (1 + f) for finite x > -1, and for all bits of x.

    Above 2**60 the scale 2**-e may be out of range, and the 1 does not count.
    """
    fmt = format_of(x)
    biased, m = split_exponent(x + 1)
    scale = bitcast(apply("shl", Const(2 * fmt.bias, fmt.integer) - biased, fmt.mantissa), x.dtype)
    f = select(x > 2.0**60, m - 1, fma(x, scale, scale - 1))
    return unbias(biased, fmt) - (fmt.magic + fmt.bias), f, scale


@in_float32
def log1p(x: Expr) -> Expr:
    """log(1 + x)."""
    e, f, _ = normalize_plus_1(x)
    return copysign(outside(x + 1, log_sum(e, f)), x)


derive("log", log, np.log, ulp=1.0, cost=25)
derive("log2", log2, np.log2, ulp=1.5, cost=26)
derive("log1p", log1p, np.log1p, ulp=1.6, cost=30)
