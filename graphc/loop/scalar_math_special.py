"""erfinv, lgamma, digamma.

erfinv: Giles' variable w = -log(1 - x**2) (2012), with polynomials fitted here.
lgamma, digamma: Stirling's series above 8, the recurrence below, the reflection for x < 0; all in
float64, where the error is absolute next to a zero of the function: see the bounds below.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dtypes import float64
from graphc.loop.ir import Const, Expr, apply, logical_and, select
from graphc.loop.scalar_math_core import (
    INF,
    NAN,
    Table,
    chain,
    copysign,
    derive,
    div,
    eq,
    fabs,
    fma,
    horner,
    in_float32,
    in_float64,
    neg,
    poly,
    sqrt,
)
from graphc.loop.scalar_math_log import log, log_normal
from graphc.loop.scalar_math_trig import cos_reduced, sin_reduced

# erfinv(x) = x * ERFINV_NEAR(w - 2), w = -log(1 - x**2) <= 6.25
ERFINV_NEAR: Table = {
    "f32": (  # 2**-24.6
        1.3772153, 0.24976808, -0.0019684422, -0.0016921499, 0.00021619452, 7.539003e-06,
        -4.939297e-06, 3.3992174e-07, 6.954027e-08, -1.493347e-08, 7.583081e-10, 2.0976788e-11,
    ),
    "f64": (  # 2**-54.1
        1.3772152115148184, 0.2497680688707508, -0.001968143541778898, -0.0016921483697707723,
        0.00021593778926513044, 7.581550375991004e-06, -4.874470667610398e-06,
        3.169428795110352e-07, 6.906211333176821e-08, -1.289603394539542e-08,
        -2.5630594168707e-10, 2.9390724279257894e-10, -2.124307101255734e-11,
        -4.324382756930798e-12, 8.469445711257449e-13, 1.504363553723279e-14,
        -1.9692977181649467e-14, 1.6709721677528838e-15, 2.411712360130684e-16,
        -7.265396028532538e-17, 7.03645420833435e-18, 6.335170151296908e-19,
        -4.0132519829972556e-19, 7.629967218863358e-20, -7.109102961753954e-21,
        2.693117175067887e-22,
    ),
}  # fmt: skip
# erfinv(x) = x * ERFINV_MIDDLE(sqrt(w) - 3.25), 6.25 <= w <= 16 (17 in float32)
ERFINV_MIDDLE: Table = {
    "f32": (  # 2**-25.5
        3.0838857, 1.0052588, 0.0053697177, -0.003744543, 0.0024975464, -0.001733539, 0.00094993,
        -0.00025312064, -8.667984e-06,
    ),
    "f64": (  # 2**-55.0
        3.0838856104922208, 1.0052589676941655, 0.005370914553527467, -0.0037512085082319784,
        0.0024914420993993863, -0.0016882755353798875, 0.0009532893121607674,
        -0.0003550378101637124, 2.4031819422462834e-05, 6.828703272067813e-05,
        -4.732252791805144e-05, 1.2465798836238464e-05, 2.939402316125474e-06,
        -3.9894402177680615e-06, 1.4658890166224612e-06, -1.7146712309215947e-08,
        -2.2350243534138043e-07, 1.1453905247201703e-07, -3.80688814639204e-08,
        -3.311954333794859e-10, 1.3397122181829213e-08, -5.491432647781578e-09,
    ),
}  # fmt: skip
# erfinv(x) = x * ERFINV_FAR(sqrt(w) - 5), 16 <= w <= 37
ERFINV_FAR: Table = {
    "f64": (  # 2**-55.7
        4.849906401408584, 1.0103004648645448, -0.00013871931839227566, -0.00021503011979862025,
        7.599527839790164e-05, -1.9681771206322707e-05, 4.526049646010318e-06,
        -9.930253113848472e-07, 2.2906664247091953e-07, -6.757420155180077e-08,
        2.8981273654940963e-08, -1.5207947870365568e-08, 7.880971202885623e-09,
        -3.546135367937524e-09, 1.2605489978287241e-09, -3.6693235701844714e-10,
        9.74985572264998e-11, 6.443469582533635e-12, -2.6271553233918223e-11,
        7.89085212793279e-12,
    ),
}  # fmt: skip
# lgamma(2 + u) = u * LGAMMA(u), |u| <= 1/2
LGAMMA: Table = {
    "f64": (  # 2**-56.2
        0.42278433509846713, 0.3224670334241132, -0.06735230105319523, 0.020580808427788505,
        -0.0073855510289481474, 0.002890510330492517, -0.001192753901589082,
        0.0005096695308635181, -0.00022315494541342762, 9.945744683266023e-05,
        -4.492429953600559e-05, 2.0507439539810617e-05, -9.451199767808984e-06,
        4.376243294461968e-06, -1.99866903520346e-06, 9.403779428768542e-07,
        -5.211376354191093e-07, 2.588024574693017e-07, -5.970193966347715e-08,
    ),
}  # fmt: skip
# B(2 k) / (2 k): the coefficients of 1 / y**(2 k) in log y - 1 / (2 y) - digamma(y)
_BERNOULLI = (
    1 / 12, -1 / 120, 1 / 252, -1 / 240, 5 / 660, -691 / 32760, 1 / 12, -3617 / 8160,
    43867 / 14364,
)  # fmt: skip


@in_float32
def erfinv(x: Expr) -> Expr:
    """The inverse of erf: infinite at -1 and 1, NaN beyond."""
    a = fabs(x)
    w = neg(log_normal((1 - a) * (a + 1)))
    root = sqrt(w)
    ratio = poly(root - 3.25, ERFINV_MIDDLE, chain)
    if x.dtype is float64:
        ratio = select(w > 16, poly(root - 5, ERFINV_FAR, chain), ratio)
    ratio = select(w > 6.25, ratio, poly(w - 2, ERFINV_NEAR, chain))
    inside = select(a < 1, x * ratio, NAN)
    return select(eq(a, 1.0), copysign(INF, x), inside)


def _sin_cos_pi(a: Expr) -> tuple[Expr, Expr]:
    """|sin(pi a)| and cos(pi a) with the sign of sin(pi a) cos(pi a)."""
    rest = a - apply("rint", a)
    g = fabs(rest)
    steep = g > 0.25
    r = select(steep, 0.5 - g, g) * math.pi
    zero = Const(0.0, a.dtype)
    s, c = sin_reduced(r, zero), cos_reduced(r, zero)
    return select(steep, c, s), copysign(select(steep, s, c), rest)


@in_float64
def lgamma(x: Expr) -> Expr:
    """log |gamma(x)|.

    Below 8, |x| moves by whole steps to [1.5, 2.5), where a polynomial has the factor x - 2; the
    product of the steps counts through its logarithm.
    """
    a = fabs(x)
    small = a < 8
    low, tiny = a < 1.5, a < 0.5
    steps = select(low, a, 1.0)
    steps = select(tiny, a * (a + 1), steps)
    base = select(tiny, a + 2, select(low, a + 1, a))
    for _ in range(6):
        high = base >= 2.5
        less = base - 1
        steps, base = select(high, steps * less, steps), select(high, less, base)
    u = base - 2
    log_a = log(select(small, steps, a))
    near = fma(u, poly(u, LGAMMA), select(low, neg(log_a), log_a))
    series = [b / (2 * k - 1) for k, b in enumerate(_BERNOULLI, start=1)]
    inverse = div(Const(1.0, a.dtype), a)
    tail = fma(inverse, horner(inverse * inverse, series), math.log(2 * math.pi) / 2 - 0.5)
    value = select(small, near, fma(a - 0.5, log_a - 1, tail))
    value = select(a < INF, value, a)
    sine, _ = _sin_cos_pi(a)
    reflected = log(div(Const(math.pi, a.dtype), a * sine)) - value
    return select(logical_and(x < 0, a < INF), reflected, value)


@in_float64
def digamma(x: Expr) -> Expr:
    """The derivative of log gamma(x); NaN at the negative whole numbers.

    digamma(a + 1) comes from Stirling's series at a + 8 and the sum of 1 / (a + 1) ... 1 / (a + 7),
    which is p'(a) / p(a) for their product p.
    """
    a = fabs(x)
    small = a < 8
    p = a + 1
    total: Expr = Const(1.0, a.dtype)
    for k in range(2, 8):
        total = fma(total, a + k, p)
        p = p * (a + k)
    y = select(small, a + 8, a + 1)
    inverse = div(Const(1.0, a.dtype), y)
    z = inverse * inverse
    value = log(y) - fma(z, horner(z, _BERNOULLI), inverse * 0.5)
    value = value - select(small, div(total, p), 0.0)
    sine, cosine = _sin_cos_pi(a)
    reflected = select(eq(sine, 0.0), NAN, value + div(cosine * math.pi, sine))
    value = select(x < 0, reflected, value - div(Const(1.0, a.dtype), a))
    return select(eq(x, 0.0), copysign(INF, neg(x)), value)


def _erfinv_one(x: float) -> float:
    a = abs(x)
    if not a < 1:
        return math.copysign(math.inf, x) if a == 1 else math.nan
    w = -math.log((1 - a) * (1 + a))
    y = math.sqrt(math.pi) / 2 * a if a < 0.5 else math.sqrt(w)
    for _ in range(40):
        if a < 0.5:
            miss = math.erf(y) - a
        else:
            miss = (1 - a) - math.erfc(y)
        step = miss * math.sqrt(math.pi) / 2 * math.exp(y * y)
        y -= step / (1 + y * step)
        if abs(step) <= 1e-17 * y:
            break
    return math.copysign(y, x)


def _lgamma_one(x: float) -> float:
    try:
        return math.lgamma(x)
    except (ValueError, OverflowError):
        return math.inf


def _digamma(x: Any) -> Any:
    wide = np.asarray(x, np.longdouble)
    negative = wide < 0
    y = np.where(negative, 1 - wide, wide)
    total = np.zeros_like(y)
    for _ in range(24):
        step = y < 24
        total = total - np.where(step, 1 / np.where(step, y, 1), 0)
        y = np.where(step, y + 1, y)
    z = 1 / (y * y)
    series = np.zeros_like(y)
    for b in reversed(_BERNOULLI):
        series = (series + b) * z
    value = total + np.log(y) - 0.5 / y - series
    fraction = wide - np.rint(wide)
    pole = negative & (fraction == 0)
    turned = np.longdouble(np.pi) / np.tan(np.longdouble(np.pi) * np.where(pole, 0.5, fraction))
    value = np.where(pole, np.nan, np.where(negative, value - turned, value))
    return np.where(wide == 0, -np.copysign(np.inf, wide), value)


derive("erfinv", erfinv, np.vectorize(_erfinv_one, otypes=[np.float64]), ulp=2.5, cost=80)
# float64: 2 ulp or 4e-15, whichever is more; float32 and float16 are rounded from that.
derive("lgamma", lgamma, np.vectorize(_lgamma_one, otypes=[np.float64]), ulp=2.0, cost=200)
derive("digamma", digamma, _digamma, ulp=2.0, cost=160)
