"""Counter-based random bits and what is made of them.

Threefry-2x32 with 20 rounds is of Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
1, 2, 3" (2011). The helpers build expressions; operations call them directly.
"""

from __future__ import annotations

import math

from graphc.dtypes import float32, float64, int32
from graphc.loop.ir import Const, Expr, apply, bitcast, cast, select
from graphc.loop.scalar_math_core import eq, neg, sqrt
from graphc.loop.scalar_math_log import log_normal
from graphc.loop.scalar_math_trig import cos_reduced, sin_reduced

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def _rotate(x: Expr, by: int) -> Expr:
    return apply("or", apply("shl", x, by), apply("lshr", x, 32 - by))


def threefry2x32(k0: Expr, k1: Expr, c0: Expr, c1: Expr) -> tuple[Expr, Expr]:
    """Two uint32 of random bits from a key of two and a counter of two uint32."""
    keys = (k0, k1, apply("xor", apply("xor", k0, k1), _PARITY))
    x0, x1 = c0 + keys[0], c1 + keys[1]
    for group in range(5):
        for by in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = apply("xor", _rotate(x1, by), x0)
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + (group + 1)
    return x0, x1


def _whole(bits: Expr) -> Expr:
    """A uint32 below 2**31 as an int32, whose conversion to float every target has."""
    return bitcast(bits, int32)


def uniform_f32(bits: Expr) -> Expr:
    """A float32 in [0, 1): the upper 24 bits of a uint32."""
    return cast(_whole(apply("lshr", bits, 8)), float32) * 2.0**-24


def uniform_f64(high: Expr, low: Expr) -> Expr:
    """A float64 in [0, 1): the upper 27 bits of one uint32 above the upper 26 of another."""
    upper = cast(_whole(apply("lshr", high, 5)), float64)
    lower = cast(_whole(apply("lshr", low, 6)), float64)
    return (upper * 2.0**26 + lower) * 2.0**-53


def _circle(bits: Expr, turn: Expr) -> tuple[Expr, Expr]:
    """cos and sin of an angle: the quadrant from uint32 ``bits``, the rest ``turn`` in radians."""
    quadrant = apply("lshr", bits + (1 << 29), 30)
    zero = Const(0.0, turn.dtype)
    c, s = cos_reduced(turn, zero), sin_reduced(turn, zero)
    even = eq(apply("and", quadrant, 1), 0)
    x, y = select(even, c, s), select(even, s, c)
    # Quadrants 1 and 2 have x < 0, quadrants 2 and 3 have y < 0.
    left = eq(apply("and", quadrant + 1, 2), 2)
    lower = eq(apply("and", quadrant, 2), 2)
    return select(left, neg(x), x), select(lower, neg(y), y)


def _quarter_rest(bits: Expr) -> Expr:
    """What is left of ``bits`` / 2**32 turns beside its nearest quarter turn, as an int32."""
    quadrant = apply("lshr", bits + (1 << 29), 30)
    return bitcast(bits - apply("shl", quadrant, 30), int32)


def normal_f32(b0: Expr, b1: Expr) -> tuple[Expr, Expr]:
    """Two independent standard normal float32 from two uint32 (Box and Muller 1958).

    The radius comes from all 32 bits of ``b0``, so that the tails reach 6.7.
    """
    upper = cast(_whole(apply("lshr", b0, 16)), float32)
    lower = cast(_whole(apply("and", b0, 0xFFFF)), float32)
    u = upper * 2.0**-16 + (lower + 0.5) * 2.0**-32
    radius = sqrt(log_normal(u) * -2.0)
    x, y = _circle(b1, cast(_quarter_rest(b1), float32) * (2 * math.pi * 2.0**-32))
    return radius * x, radius * y


def normal_f64(b0: Expr, b1: Expr, b2: Expr, b3: Expr) -> tuple[Expr, Expr]:
    """Two independent standard normal float64 from four uint32."""
    u = uniform_f64(b0, b1) + 2.0**-54
    radius = sqrt(log_normal(u) * -2.0)
    fine = cast(_whole(apply("lshr", b3, 8)), float64) * 2.0**-24
    rest = cast(_quarter_rest(b2), float64) + fine
    x, y = _circle(b2, rest * (2 * math.pi * 2.0**-32))
    return radius * x, radius * y
