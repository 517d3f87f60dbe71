"""sin, cos, tan of every finite argument.

The argument is reduced in integers (Payne and Hanek 1983): x = m 2**k with an integer m, and the
product of m with the bits of 2 / pi that matter for this k, kept modulo 4, holds the quadrant in
its two highest bits and the rest of the quarter turn below. No table look-up: the words of 2 / pi
are chosen by a shifter of selects, one step for each bit of the exponent.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from graphc.dtypes import float32, float64, int64, uint32, uint64
from graphc.loop.ir import Const, Expr, apply, bitcast, cast, select
from graphc.loop.scalar_math_core import (
    Format,
    Table,
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
)

# The first 1232 bits of 2 / pi.
TWO_OVER_PI = int(
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e0"
    "06492eea09d1921cfe1deb1cb129a73ee88235f52ebb4484e99c7026b45f7e413991d639835339f4"
    "9c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b74f463f669e5fea2d"
    "7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6babf0cf",
    16,
)
# pi / 2 in two parts; the first has 26 bits.
HALF_PI = math.pi / 2
HALF_PI_HIGH = float.fromhex("0x1.921fb58p0")
HALF_PI_LOW = float.fromhex("-0x1.dde973dcb3b3ap-27")

# sin(r) = r + r**3 * SIN(r**2), |r| <= pi / 4
SIN: Table = {
    "f32": (  # 2**-32.5
        -0.16666667, 0.008333379, -0.00019853064, 2.8325237e-06,
    ),
    "f64": (  # 2**-63.2
        -0.16666666666666666, 0.008333333333333042, -0.00019841269840962478,
        2.7557319073991117e-06, -2.5052070925935394e-08, 1.605431206928363e-10,
        -7.389493544763186e-13,
    ),
}  # fmt: skip
# cos(r) = 1 - r**2 / 2 + r**4 * COS(r**2), |r| <= pi / 4
COS: Table = {
    "f32": (  # 2**-33.0
        0.041666646, -0.001388731, 2.4432327e-05,
    ),
    "f64": (  # 2**-63.9
        0.041666666666666595, -0.001388888888887332, 2.480158728897908e-05,
        -2.7557314208334956e-07, 2.0875703989945237e-09, -1.1358666865456045e-11,
    ),
}  # fmt: skip
# tan(r) = r + r**3 * TAN(r**2), |r| <= pi / 4
TAN: Table = {
    "f32": (  # 2**-29.5
        0.3333335, 0.13332674, 0.054059178, 0.021284506, 0.010832519, 9.112869e-05, 0.0043764943,
    ),
    "f64": (  # 2**-59.9
        0.3333333333333338, 0.13333333333325342, 0.053968253972903016, 0.02186948839932808,
        0.008863237922033878, 0.003592100886678433, 0.0014560454985962116, 0.0005888648047571388,
        0.00024375066465762146, 8.355859206719267e-05, 6.722527306739585e-05,
        -2.5641668072113866e-05, 4.864557399909378e-05, -2.4280228884015732e-05,
        9.80078676542361e-06,
    ),
}  # fmt: skip


def _words(fmt: Format, count: int) -> list[Expr]:
    """2 / pi as 64-bit words for the smallest exponent, -1; the first bit is worth 2."""
    bits = 64 * count - 2 - (fmt.mantissa + 1)
    whole = TWO_OVER_PI >> (1232 - bits)
    return [Const((whole >> (64 * (count - 1 - k))) & (2**64 - 1), uint64) for k in range(count)]


def _window(words: list[Expr], start: Expr, count: int) -> list[Expr]:
    """``count`` words of 64 bits from bit ``start`` (a uint64) on."""
    largest = 1 << (len(words) - count - 1).bit_length() - 1
    need = count + 1
    while largest:
        keep = min(len(words), need + largest - 1)
        here = eq(apply("and", start, 64 * largest), 0)
        words = [
            select(here, words[k], words[k + largest]) if k + largest < len(words) else words[k]
            for k in range(keep)
        ]
        largest //= 2
    rest = apply("not", start)  # the shifts take their amount modulo 64
    return [
        apply("or", apply("shl", a, start), apply("lshr", apply("lshr", b, 1), rest))
        for a, b in itertools.pairwise(words)
    ]


def _signed_rest(turn: Expr) -> tuple[Expr, Expr]:
    """``(quadrant, rest)`` of a uint64 whose highest bit is worth 2 quarter turns."""
    quadrant = apply("lshr", turn + (1 << 61), 62)
    return quadrant, bitcast(turn - apply("shl", quadrant, 62), int64)


def _reduce32(a: Expr) -> tuple[Expr, Expr, Expr]:
    """``(quadrant, r, r_low)`` of a = |x|: the quadrant is a uint32, |r| <= pi / 4."""
    bits = bitcast(a, uint32)
    mantissa = apply("or", apply("and", bits, (1 << 23) - 1), 1 << 23)
    m = cast(mantissa, uint64)
    start = cast(apply("lshr", bits, 23) - 126, uint64)
    high, low = _window(_words(format_of(a), 5), start, 2)
    turn = m * high + apply("lshr", m * apply("lshr", low, 32), 32)
    quadrant, rest = _signed_rest(turn)
    wide = cast(rest, float64) * (HALF_PI * 2.0**-62)
    r = cast(wide, float32)
    near = a < 0.5
    r_low = select(near, 0.0, cast(wide - cast(r, float64), float32))
    return select(near, Const(0, uint32), cast(quadrant, uint32)), select(near, a, r), r_low


def _product(m: Expr, words: list[Expr]) -> tuple[Expr, Expr]:
    """Bits 64 to 191 of m (53 bits) times three words, as two words."""

    def halves(word: Expr) -> tuple[Expr, Expr]:
        return apply("lshr", word, 32), apply("and", word, 0xFFFFFFFF)

    first, second, third = words
    (m1, m0), (b1, b0), (c1, c0) = halves(m), halves(second), halves(third)
    cross, other = halves(m0 * b1), halves(m1 * b0)
    carry = apply("lshr", apply("lshr", m0 * b0, 32) + cross[1] + other[1], 32)
    above = m1 * b1 + cross[0] + other[0] + carry
    below = m1 * c1 + apply("lshr", m0 * c1, 32) + apply("lshr", m1 * c0, 32)
    low = m * second + below
    wrapped = select(low < below, Const(1, uint64), 0)
    return m * first + above + wrapped, low


def _reduce64(a: Expr) -> tuple[Expr, Expr, Expr]:
    """``(quadrant, r, r_low)`` of a = |x|: the quadrant is a uint64, r + r_low the rest."""
    bits = bitcast(a, uint64)
    m = apply("or", apply("and", bits, (1 << 52) - 1), 1 << 52)
    start = apply("lshr", bits, 52) - 1022
    turn, below = _product(m, _window(_words(format_of(a), 20), start, 3))
    quadrant, rest = _signed_rest(turn)
    # The upper 26 bits of the rest times HALF_PI_HIGH are exact.
    upper = apply("and", rest + (1 << 35), -(1 << 36))
    lower = fma(cast(bitcast(apply("lshr", below, 12), int64), float64), 2.0**-52,
                cast(rest - upper, float64)) * 2.0**-62  # fmt: skip
    top = cast(upper, float64) * 2.0**-62
    high = top * HALF_PI_HIGH
    low = fma(top, HALF_PI_LOW, lower * HALF_PI)
    r = high + low
    near = a < 0.5
    r_low = select(near, 0.0, low - (r - high))
    return select(near, Const(0, uint64), quadrant), select(near, a, r), r_low


def _reduce(x: Expr) -> tuple[Expr, Expr, Expr]:
    quadrant, r, low = (_reduce64 if x.dtype is float64 else _reduce32)(fabs(x))
    return quadrant, r + (x - x), low  # infinity has no rest: x - x is NaN there, else 0


def sin_reduced(r: Expr, low: Expr) -> Expr:
    """sin(r + low) for |r| <= pi / 4; float32 does without ``low``."""
    z = r * r
    if r.dtype is float32:
        return fma(z * r, poly(z, SIN), r)
    return r + fma(z * r, poly(z, SIN), low)


def cos_reduced(r: Expr, low: Expr) -> Expr:
    """cos(r + low) for |r| <= pi / 4; float32 does without ``low``."""
    z = r * r
    inner = fma(z, poly(z, COS), -0.5)
    if r.dtype is float32:
        return fma(z, inner, 1.0)
    return fma(z, inner, neg(r * low)) + 1


def _with_sign(value: Expr, bit: Expr, x: Expr | None) -> Expr:
    """``value`` negated where bit 1 of ``bit`` is set, and where ``x`` is negative."""
    kind = bit.dtype
    width = 8 * kind.size
    flip = apply("shl", apply("lshr", bit, 1), width - 1)
    if x is not None:
        flip = apply("xor", flip, apply("and", bitcast(x, kind), 1 << (width - 1)))
    return bitcast(apply("xor", bitcast(value, kind), flip), value.dtype)


@in_float32
def sin(x: Expr) -> Expr:
    """The sine of x radians."""
    quadrant, r, low = _reduce(x)
    even = eq(apply("and", quadrant, 1), 0)
    return _with_sign(select(even, sin_reduced(r, low), cos_reduced(r, low)), quadrant, x)


@in_float32
def cos(x: Expr) -> Expr:
    """The cosine of x radians."""
    quadrant, r, low = _reduce(x)
    even = eq(apply("and", quadrant, 1), 0)
    return _with_sign(select(even, cos_reduced(r, low), sin_reduced(r, low)), quadrant + 1, None)


@in_float32
def tan(x: Expr) -> Expr:
    """The tangent of x radians."""
    quadrant, r, low = _reduce(x)
    z = r * r
    t = r + fma(low, z + 1, z * r * poly(z, TAN))
    even = eq(apply("and", quadrant, 1), 0)
    value = select(even, t, div(Const(-1.0, x.dtype), t))
    return _with_sign(value, Const(0, pick(x, uint32, uint64)), x)


derive("sin", sin, np.sin, ulp=1.6, cost=80)
derive("cos", cos, np.cos, ulp=1.6, cost=80)
derive("tan", tan, np.tan, ulp=2.0, cost=86)
