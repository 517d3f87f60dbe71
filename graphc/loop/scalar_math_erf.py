"""erf, erfc, 1 + erf.

erf: an odd polynomial up to 1, then 1 - 2**P(|x|), whose error fades with erfc(x).
erfc: exp(-x**2) G(t) / (x + 1/2) with t = (x - 2) / (x + 2), the kind of variable that Schonfelder
(1978) expands erfc in; G is nearly constant. x**2 is taken in two parts, for its error counts x**2
times.
1 + erf: erfc(|x|) as one power of two, to an absolute error.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dtypes import float32, float64
from graphc.loop.ir import Expr, apply, bitcast, cast, select
from graphc.loop.scalar import ScalarFn, register
from graphc.loop.scalar_math_core import (
    Table,
    at_most,
    chain,
    copysign,
    derive,
    div,
    fabs,
    fma,
    format_of,
    high_part,
    horner,
    in_double,
    in_float32,
    neg,
    pick,
    poly,
    product_error,
    shift_exponent,
)
from graphc.loop.scalar_math_exp import EXP2, EXPM1, LOG2_E

# erf(x) = x + x * ERF(x**2), |x| <= 1
ERF: Table = {
    "f32": (  # 2**-29.4
        0.12837917, -0.37612626, 0.11283579, -0.026853347, 0.005187162, -0.0007997853,
        7.806903e-05,
    ),
    "f64": (  # 2**-56.3
        0.1283791670955126, -0.376126389031841, 0.11283791670971101, -0.02686617064803225,
        0.005223977652709047, -0.000854832853706307, 0.00012055386250560282,
        -1.4926883092478249e-05, 1.64810888974023e-06, -1.6557487603104198e-07,
        1.6015892881097977e-08, -1.6475992558043633e-09, 1.4364130502213244e-10,
    ),
}  # fmt: skip
# erfc(x) = 2**ERF_TAIL(x - 1), 1 <= x <= 4 (f32) or 6 (f64)
ERF_TAIL: Table = {
    "f32": (  # 2**-27.2
        -2.6684167, -3.8072255, -1.216321, -0.06017462, 0.015125232, -0.0037455815, 0.00092562794,
        -0.00014302283,
    ),
    "f64": (  # 2**-56.7
        -2.6684166967815997, -3.8072253458536087, -1.2163466576855424, -0.059959990056453534,
        0.014475750336387514, -0.002853511884931278, 0.00034239158947307663,
        3.788738561101724e-05, -3.913113142513598e-05, 1.378251099947154e-05,
        -2.8793399073171763e-06, 1.2742536748016463e-07, 1.9056611637974463e-07,
        -9.83634796629095e-08, 2.9417091708087053e-08, -6.022067847250368e-09,
        8.324818563813316e-10, -7.023004585670131e-11, 2.7283725006654012e-12,
    ),
}  # fmt: skip
# erfc(x) = exp(-x**2) (39 / 64 + ERFC(t)) / (x + 1/2), t = (x - 2) / (x + 2), x >= 0.7
ERFC: Table = {
    "f32": (  # 2**-28.2
        0.029114189575181686, -0.04638188522671839, -0.08301503315105292, 0.08202425308686659,
        -0.027113225754331505, -0.003997365452915306, 0.0043779395815532205,
        0.0005259991647558371, -0.0007291465567530878,
    ),
    "f64": (  # 2**-58.3
        0.02911419077626436, -0.04638191329287301, -0.08301519880764491, 0.08202564001672147,
        -0.027110000495987278, -0.004017007541242432, 0.004361326936207481, 0.0006356694847442662,
        -0.0007284069313276083, -0.00022717047443901266, 0.00010318301248756909,
        7.552066631602187e-05, -7.501834891924796e-07, -1.8223057802866848e-05,
        -6.766376030309018e-06, 1.9259735885222875e-06, 2.635794006373224e-06,
        5.048679985913982e-07, -2.1052272330764026e-07, -7.704572835891208e-09,
        -6.985824224832893e-07, 2.655118629733656e-09, 6.907432559936374e-07,
        -4.4017296894820836e-07, 8.67653240748514e-08,
    ),
}  # fmt: skip

# erfc(x) = 2**(x ERFC_WHOLE(x)), 0 <= x <= 4, within 2**-25.9 of it
ERFC_WHOLE: Table = {
    "f32": (
        -1.6279086, -0.9184164, -0.14848161, 0.02825368, -0.0007746287, -0.0014894422,
        0.0004455078, -4.5358614e-05,
    ),
}  # fmt: skip

CENTRE = 39 / 64


@in_float32
def erf(x: Expr) -> Expr:
    """The error function."""
    fmt = format_of(x)
    a = fabs(x)
    exponent = poly(at_most(a, pick(x, 4.0, 6.0)) - 1, ERF_TAIL)
    shifted = exponent + fmt.magic
    r = exponent - (shifted - fmt.magic)
    tail = shift_exponent(fma(r, poly(r, EXP2), 1.0), bitcast(shifted, fmt.integer))
    near = fma(a, poly(x * x, ERF), a)
    return copysign(select(a >= 1, 1 - tail, near), x)


def one_plus_erf(x: Expr) -> Expr:
    """1 + erf(x), within 1.5e-7 of it: what the sum of the two would keep of its digits."""
    fmt = format_of(x)
    a = fabs(x)
    clamped = at_most(a, 4.0)
    exponent = clamped * poly(clamped, ERFC_WHOLE)
    shifted = exponent + fmt.magic
    r = exponent - (shifted - fmt.magic)
    tail = shift_exponent(fma(r, poly(r, EXP2), 1.0), bitcast(shifted, fmt.integer))
    tail = select(a <= 4, tail, 0.0)
    return select(x < 0, tail, select(x >= 0, 2 - tail, x))


def _exp_of_minus_square(a: Expr) -> tuple[Expr, Expr]:
    """``(p, n)``: exp(-a**2) = 2**n (1 + p), in float64, right for every bit of a**2."""
    fmt = format_of(a)
    high = high_part(a)
    low = (a - high) * (a + high)
    square = high * high
    n = fma(square, -LOG2_E, fmt.magic) - fmt.magic
    rest = fma(n, fmt.ln2_lo, low)
    r = fma(n, -fmt.ln2_hi, neg(square)) - rest
    return fma(r * r, poly(r, EXPM1, chain), r), n


def _erfc64(x: Expr) -> Expr:
    a = at_most(fabs(x), 27.5)
    p, n = _exp_of_minus_square(a)
    g = horner(div(a - 2, a + 2), ERFC["f64"])
    rest = fma(p, g + CENTRE, g)
    top = rest + CENTRE
    total = a + 0.5
    ratio = div(top, total)
    # Below half a unit of the ratio: what the numerator, the quotient and a + 1/2 lost.
    product = ratio * total
    missing = (top - product) - product_error(ratio, total, product)
    missing = missing + (rest - (top - CENTRE)) - ratio * (a - (total - 0.5))
    far = apply("scalef", ratio + div(missing, total), n)
    near = fma(neg(x), poly(x * x, ERF), 1 - x)
    return select(a < 0.75, near, select(x < 0, 2 - far, far))


def _erfc32(x: Expr) -> Expr:
    """In float64 with short polynomials: nothing there loses what float32 shows."""
    x = cast(x, float64)
    fmt = format_of(x)
    a = at_most(fabs(x), 10.5)
    square = a * a
    n = fma(square, -LOG2_E, fmt.magic) - fmt.magic
    r = fma(n, -math.log(2.0), neg(square))
    p = fma(r, fma(r, horner(r, EXPM1["f32"]), 1.0), 1.0)
    g = horner(div(a - 2, a + 2), ERFC["f32"]) + CENTRE
    far = apply("scalef", div(p * g, a + 0.5), n)
    near = fma(neg(x), horner(square, ERF["f32"]), 1 - x)
    return cast(select(a < 0.75, near, select(x < 0, 2 - far, far)), float32)


@in_float32
def erfc(x: Expr) -> Expr:
    """1 - erf(x), also where erf(x) is next to 1."""
    return _erfc64(x) if x.dtype is float64 else _erfc32(x)


def _each(fn: Any) -> Any:
    return np.vectorize(fn, otypes=[np.float64])


derive("erf", erf, _each(math.erf), ulp=1.5, cost=36)
derive("erfc", erfc, _each(math.erfc), ulp=2.0, cost=80)
# In float32 alone; the error is absolute.
register(
    ScalarFn(
        "one_plus_erf", 1, in_double(_each(lambda x: math.erfc(-x))), one_plus_erf,
        cost=28, codes=("f32",),
    )
)  # fmt: skip
