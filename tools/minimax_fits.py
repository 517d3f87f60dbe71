"""What ``graphc/loop/scalar_math*.py`` approximates, on which interval, to which error.

Each entry is one coefficient table there, under the same name.
"""

from __future__ import annotations

import mpmath as mp
from minimax import Fit, Fn

FITS: dict[str, Fit] = {}
LN2 = mp.log(2)


def _both(name: str, f: Fn, lo: object, hi: object, counts: tuple[int, int], weight: Fn) -> None:
    """One fit per format; ``counts`` are the numbers of coefficients."""
    for suffix, bits, n in zip(("f32", "f64"), (24, 53), counts, strict=True):
        if n:
            FITS[f"{name}_{suffix}"] = Fit(f, lo, hi, tuple(range(n)), weight, bits)


# exp(r) = 1 + r + r**2 * EXP(r), |r| <= ln(2) / 2
_both(
    "exp",
    lambda r: (mp.expm1(r) - r) / r**2,
    -LN2 / 2 - 0.001,
    LN2 / 2 + 0.001,
    (5, 10),
    lambda r: r**2 / mp.exp(r),
)
# expm1(r) = r + r**2 * EXPM1(r): the same with the error relative to expm1
_both(
    "expm1",
    lambda r: (mp.expm1(r) - r) / r**2,
    -LN2 / 2 - 0.001,
    LN2 / 2 + 0.001,
    (5, 11),
    lambda r: r**2 / mp.expm1(r),
)
# 2**r = 1 + r * EXP2(r), |r| <= 1/2
_both(
    "exp2",
    lambda r: mp.expm1(r * LN2) / r,
    mp.mpf(-0.5),
    mp.mpf(0.5),
    (6, 12),
    lambda r: r / mp.exp(r * LN2),
)
# tanh(x) = x + x**3 * TANH(x**2), |x| <= 0.625
_both(
    "tanh",
    lambda z: (mp.tanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
    mp.mpf(0),
    mp.mpf("0.625") ** 2,
    (5, 12),
    lambda z: z / (mp.tanh(mp.sqrt(z)) / mp.sqrt(z)),
)
# log1p(f) = f - f**2 / 2 + f**3 * LOG(f), sqrt(1/2) - 1 <= f <= sqrt(2) - 1
_both(
    "log",
    lambda f: (mp.log1p(f) - f + f * f / 2) / f**3,
    mp.sqrt(0.5) - 1,
    mp.sqrt(2) - 1,
    (8, 20),
    lambda f: f**3 / mp.log1p(f),
)
# log2(1 + f) = f / log(2) + f**2 * LOG2(f), the same interval
_both(
    "log2",
    lambda f: (mp.log1p(f) - f) / f**2 / LN2,
    mp.sqrt(0.5) - 1,
    mp.sqrt(2) - 1,
    (9, 21),
    lambda f: f**2 * LN2 / mp.log1p(f),
)
# log1p(f) = f + f**2 * LOG1P(f), -1/4 <= f <= 1/2  (softplus)
_both(
    "log1p_e",
    lambda f: (mp.log1p(f) - f) / f**2,
    mp.mpf(-0.25),
    mp.mpf(0.5),
    (10, 22),
    lambda f: f**2 / mp.log1p(f),
)
# erf(x) = x + x * ERF(x**2), |x| <= 1
_both(
    "erf",
    lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1,
    mp.mpf(0),
    mp.mpf(1),
    (7, 13),
    lambda z: mp.sqrt(z) / mp.erf(mp.sqrt(z)),
)
# erfc(x) = 2**ERF_TAIL(x - 1), 1 <= x <= 4 (f32) or 6 (f64); the error is that of erf(x)
for _code, _top, _n, _bits in (("f32", 3, 8, 24), ("f64", 5, 19, 53)):
    FITS[f"erf_tail_{_code}"] = Fit(
        lambda u: mp.log(mp.erfc(u + 1), 2),
        mp.mpf(-0.01),
        mp.mpf(_top),
        tuple(range(_n)),
        lambda u: mp.erfc(u + 1),
        _bits,
    )


def _erfcx_scaled(t: mp.mpf) -> mp.mpf:
    """erfc(x) exp(x**2) (x + 1/2) at x = 2 (1 + t) / (1 - t): from 0.56 to 0.65."""
    x = 2 * (1 + t) / (1 - t)
    return mp.erfc(x) * mp.exp(x * x) * (x + 0.5)


# erfc(x) = exp(-x**2) (39 / 64 + ERFC(t)) / (x + 1/2), t = (x - 2) / (x + 2), x >= 0.7
# float32 is computed in float64, so its row is for float64 arithmetic too
for _code, _top, _n in (("f32", 10.2, 9), ("f64", 27.3, 25)):
    FITS[f"erfc_{_code}"] = Fit(
        lambda t: _erfcx_scaled(t) - mp.mpf(39) / 64,
        mp.mpf(-1.3) / 2.7,
        mp.mpf(_top - 2) / (_top + 2),
        tuple(range(_n)),
        lambda t: 1 / _erfcx_scaled(t),
        53,
    )
# sin(r) = r + r**3 * SIN(r**2), cos(r) = 1 - r**2 / 2 + r**4 * COS(r**2), |r| <= pi / 4
_Q = (mp.pi / 4 + mp.mpf("0.0005")) ** 2
_both(
    "sin",
    lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
    mp.mpf(0),
    _Q,
    (4, 7),
    lambda z: z / (mp.sin(mp.sqrt(z)) / mp.sqrt(z)),
)
_both(
    "cos",
    lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2,
    mp.mpf(0),
    _Q,
    (3, 6),
    lambda z: z**2 / mp.cos(mp.sqrt(z)),
)
# tan(r) = r + r**3 * TAN(r**2), |r| <= pi / 4
_both(
    "tan",
    lambda z: (mp.tan(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
    mp.mpf(0),
    _Q,
    (7, 15),
    lambda z: z / (mp.tan(mp.sqrt(z)) / mp.sqrt(z)),
)
# log2(1 + f) = f * LOG2_WIDE(f), sqrt(1/2) - 1 <= f <= sqrt(2) - 1 (pow of float32)
FITS["log2_wide_f32"] = Fit(
    lambda f: mp.log1p(f) / f / LN2,
    mp.sqrt(0.5) - 1,
    mp.sqrt(2) - 1,
    tuple(range(13)),
    lambda f: f * LN2 / mp.log1p(f),
    53,
)
# atanh(s) = s + s**3 * (1/3 + s**2 * ATANH(s**2)), |s| <= (sqrt(2) - 1) / (sqrt(2) + 1)
FITS["atanh_f64"] = Fit(
    lambda z: ((mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z - mp.mpf(1) / 3) / z,
    mp.mpf(0),
    mp.mpf("0.0296"),
    tuple(range(8)),
    lambda z: z**2,
    53,
)
# asin(x) = x + x**3 * ASIN(x**2), |x| <= 1/2
_both(
    "asin",
    lambda z: (mp.asin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
    mp.mpf(0),
    mp.mpf(0.25),
    (5, 12),
    lambda z: z / (mp.asin(mp.sqrt(z)) / mp.sqrt(z)),
)
# atan(x) = x + x**3 * ATAN(x**2), |x| <= 1
_both(
    "atan",
    lambda z: (mp.atan(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
    mp.mpf(0),
    mp.mpf(1),
    (9, 20),
    lambda z: z / (mp.atan(mp.sqrt(z)) / mp.sqrt(z)),
)
# sinh(x) = x + x**3 * SINH(x**2), |x| <= 1
_both(
    "sinh",
    lambda z: (mp.sinh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
    mp.mpf(0),
    mp.mpf(1),
    (4, 8),
    lambda z: z / (mp.sinh(mp.sqrt(z)) / mp.sqrt(z)),
)
# atanh(x) = x + x**3 * ATANH_NEAR(x**2), |x| <= 1/2
_both(
    "atanh_near",
    lambda z: (mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
    mp.mpf(0),
    mp.mpf(0.25),
    (6, 14),
    lambda z: z / (mp.atanh(mp.sqrt(z)) / mp.sqrt(z)),
)


def _erfinv_ratio(w: mp.mpf) -> mp.mpf:
    """erfinv(x) / x where w = -log(1 - x**2)."""
    if w == 0:
        return mp.sqrt(mp.pi) / 2
    x = mp.sqrt(-mp.expm1(-w))
    y = mp.sqrt(w) if w > 1 else x * mp.sqrt(mp.pi) / 2
    tail = -mp.expm1(-w)  # x**2
    gap = mp.exp(-w) / (1 + mp.sqrt(tail))  # 1 - x
    for _ in range(60):  # Newton on erfc, in logarithms: quadratic, and monotone in the tail
        c = mp.erfc(y)
        step = c * mp.log(c / gap) * mp.sqrt(mp.pi) / 2 * mp.exp(y * y)
        y += step
        if abs(step) < mp.mpf(10) ** -70:
            break
    return y / x


# erfinv(x) = x * ERFINV_*(...), w = -log(1 - x**2): NEAR(w - 2), w <= 6.25;
# MIDDLE(sqrt(w) - 3.25), w <= 16; FAR(sqrt(w) - 5), w <= 37 (Giles 2012 has the idea).
_both(
    "erfinv_near",
    lambda u: _erfinv_ratio(u + 2),
    mp.mpf(-2),
    mp.mpf("4.26"),
    (12, 26),
    lambda u: 1 / _erfinv_ratio(u + 2),
)
_both(
    "erfinv_middle",
    lambda u: _erfinv_ratio((u + 3.25) ** 2),
    mp.mpf("-0.76"),
    mp.mpf("0.91"),
    (9, 22),
    lambda u: 1 / _erfinv_ratio((u + 3.25) ** 2),
)
_both(
    "erfinv_far",
    lambda u: _erfinv_ratio((u + 5) ** 2),
    mp.mpf("-1.01"),
    mp.mpf("1.1"),
    (0, 20),
    lambda u: 1 / _erfinv_ratio((u + 5) ** 2),
)
# lgamma(2 + u) = u * LGAMMA(u), |u| <= 1/2
FITS["lgamma_f64"] = Fit(
    lambda u: mp.loggamma(2 + u) / u,
    mp.mpf(-0.5),
    mp.mpf(0.5),
    tuple(range(19)),
    lambda u: u / mp.loggamma(2 + u),
    53,
)
