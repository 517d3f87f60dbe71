"""What the derived scalar functions share: formats, polynomials, widening, registration.

Every expansion is branch-free and runs in float32 or float64; floats of 16 bits are computed in
float32. ``fma`` may round twice (targets without it), so constants that must multiply exactly are
short.

Coefficients come from ``tools/minimax.py`` (Remez' exchange on the relative error, coefficients
rounded one by one); the bound beside each table is the approximation error before rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dtypes import DType, float32, float64, int32, int64, rounded
from graphc.loop.ir import Const, Expr, apply, bitcast, cast, select
from graphc.loop.scalar import ScalarFn, register

Table = dict[str, tuple[float, ...]]
INF = float("inf")
NAN = float("nan")
LONG = 8


@dataclass(frozen=True, slots=True)
class Format:
    """A binary float format and constants split for it.

    ``magic`` added to a small float rounds it to an integer (half to even) and leaves that
    integer in the low bits. ``ln2_hi`` is short enough that an exponent times it is exact;
    ``ln2_lo`` is the rest of log(2).
    """

    dtype: DType
    integer: DType
    mantissa: int
    bias: int
    magic: float
    ln2_hi: float
    ln2_lo: float
    tiny: float


_F32 = Format(
    float32, int32, 23, 127, 1.5 * 2.0**23, float.fromhex("0x1.62e4p-1"),
    float.fromhex("0x1.7f7d1cp-20"), 2.0**-126,
)  # fmt: skip
_F64 = Format(
    float64, int64, 52, 1023, 1.5 * 2.0**52, float.fromhex("0x1.62e42fefa38p-1"),
    float.fromhex("0x1.ef35793c7673p-45"), 2.0**-1022,
)  # fmt: skip


def format_of(x: Expr) -> Format:
    """The format that ``x`` is computed in."""
    return _F64 if x.dtype is float64 else _F32


def fma(a: Expr, b: Any, c: Any) -> Expr:
    """``a * b + c``."""
    return apply("fma", a, b, c)


def div(a: Any, b: Any) -> Expr:
    """``a / b``."""
    return apply("div", a, b)


def neg(a: Expr) -> Expr:
    """``-a``."""
    return apply("neg", a)


def fabs(a: Expr) -> Expr:
    """``|a|``."""
    return apply("abs", a)


def sqrt(a: Expr) -> Expr:
    """The square root."""
    return apply("sqrt", a)


def eq(a: Expr, b: Any) -> Expr:
    """Whether both are equal."""
    return apply("eq", a, b)


def copysign(a: Any, b: Expr) -> Expr:
    """``a`` with the sign of ``b``."""
    return apply("copysign", a if isinstance(a, Expr) else Const(a, b.dtype), b)


def at_most(x: Expr, bound: float) -> Expr:
    """``x`` but no more than ``bound``; NaN stays."""
    return select(x > bound, bound, x)


def at_least(x: Expr, bound: float) -> Expr:
    """``x`` but no less than ``bound``; NaN stays."""
    return select(x < bound, bound, x)


def chain(x: Expr, coefs: Sequence[float]) -> Expr:
    """The polynomial with ``coefs``, constant term first, by Horner's rule."""
    total: Expr = Const(coefs[-1], x.dtype)
    for c in reversed(coefs[:-1]):
        total = fma(total, x, c)
    return total


def horner(x: Expr, coefs: Sequence[float]) -> Expr:
    """The same, but a long polynomial is two in x**2, side by side.

    One chain of dependent operations would be longer than what a CPU overlaps of the iterations
    of a loop. Where terms of alternating sign are all large (atan), one chain rounds better.
    """
    if len(coefs) < LONG:
        return chain(x, coefs)
    square = x * x
    return fma(horner(square, coefs[1::2]), x, horner(square, coefs[::2]))


def poly(x: Expr, table: Table, how: Callable[[Expr, Sequence[float]], Expr] = horner) -> Expr:
    """The polynomial of a table that has one row per format."""
    return how(x, table[x.dtype.code])


def pick(x: Expr, single: Any, double: Any) -> Any:
    """``single`` or ``double``, after the format that ``x`` is computed in."""
    return double if x.dtype is float64 else single


def high_part(a: Expr) -> Expr:
    """``a`` without its lower bits, at least half of them: products of two such are exact."""
    fmt = format_of(a)
    mask = Const(-(1 << (fmt.mantissa // 2 + 1)), fmt.integer)
    return bitcast(apply("and", bitcast(a, fmt.integer), mask), fmt.dtype)


def product_error(a: Expr, b: Expr, product: Expr) -> Expr:
    """``a * b - product`` (float64) with or without a fused multiply-add (Dekker 1971)."""
    a_high, b_high = high_part(a), high_part(b)
    a_low, b_low = a - a_high, b - b_high
    error = fma(a_high, b_high, neg(product))
    return fma(a_low, b_low, fma(a_low, b_high, fma(a_high, b_low, error)))


def shift_exponent(x: Expr, n: Expr) -> Expr:
    """``x * 2**n`` for an integer ``n`` (its low bits count), x and result normal; NaN is lost."""
    fmt = format_of(x)
    moved = apply("shl", n, fmt.mantissa)
    return bitcast(bitcast(x, fmt.integer) + moved, fmt.dtype)


def power_of_two(n: Expr, dtype: DType, plus: int = 0) -> Expr:
    """``2**(n + plus)``, a normal number, for an integer ``n`` (its low bits count)."""
    return shift_exponent(Const(2.0**plus, dtype), n)


def in_float32(fn: Callable[..., Expr]) -> Callable[..., Expr]:
    """``fn`` for every float dtype: those of 16 bits go through float32."""

    @functools.wraps(fn)
    def expand(*args: Expr) -> Expr:
        dtype = args[0].dtype
        if dtype.accumulator is dtype:
            return fn(*args)
        return cast(fn(*(cast(a, dtype.accumulator) for a in args)), dtype)

    return expand


def in_float64(fn: Callable[..., Expr]) -> Callable[..., Expr]:
    """``fn`` computed in float64 whatever the dtype: for functions that are seldom hot."""

    @functools.wraps(fn)
    def expand(*args: Expr) -> Expr:
        dtype = args[0].dtype
        return cast(fn(*(cast(a, float64) for a in args)), dtype)

    return expand


def in_double(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A NumPy function that computes floats below float64 in float64, without warnings."""

    @functools.wraps(fn)
    def reference(*args: Any) -> Any:
        arrays = [np.asarray(a) for a in args]
        dtype = arrays[0].dtype
        with np.errstate(all="ignore"):
            result = fn(*(a.astype(np.float64) for a in arrays))
            return rounded(result, dtype)

    return reference


def derive(
    name: str,
    expand: Callable[..., Expr],
    reference: Callable[..., Any],
    *,
    arity: int = 1,
    kinds: str = "f",
    ulp: float,
    cost: int,
) -> None:
    """Register a derived row of float functions."""
    register(ScalarFn(name, arity, in_double(reference), expand, kinds, ulp, cost))
