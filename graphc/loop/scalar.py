"""The scalar functions of the loop IR: one row each.

*Primitive* rows are what every printer must spell: arithmetic, comparisons, bit operations and
roundings of one machine instruction or so.  *Derived* rows (``exp``, ``tanh``, ...) have an
``expand`` that says them in primitives, which is what every backend prints, so that the CPU and
the GPU compute the same bits; the interpreter uses the NumPy column, and the tests hold the
expansion to the ``ulp`` bound against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dtypes import is_float, rounded
from graphc.loop.ir import Expr


@dataclass(frozen=True, slots=True)
class ScalarFn:
    """One scalar function.

    Attributes:
      name: how the loop IR and the printers call it.
      arity: number of arguments.
      numpy: the same function on arrays: the definition that the interpreter runs.
      expand: None for a primitive; else builds the expression in primitives.
      kinds: which argument kinds it accepts: f(loat), i(nt), u(int), b(ool).
      ulp: the most that the expansion may differ from the correctly rounded result, in units in
        the last place, over all finite inputs.
      cost: relative cost of one element, in additions.
      codes: the codes of the dtypes that it accepts, where these are not all of the kinds.
    """

    name: str
    arity: int
    numpy: Callable[..., Any]
    expand: Callable[..., Expr] | None = None
    kinds: str = "f"
    ulp: float = 0.5
    cost: int = 1
    codes: tuple[str, ...] = ()


FUNCTIONS: dict[str, ScalarFn] = {}


def register(row: ScalarFn) -> ScalarFn:
    """Add a row; a name can be registered once."""
    if row.name in FUNCTIONS:
        raise ValueError(f"scalar function {row.name!r} is registered twice")
    FUNCTIONS[row.name] = row
    return row


def _idiv(a: Any, b: Any) -> Any:
    """C's integer division: rounds towards zero; x / 0 counts as 0; MIN / -1 wraps."""
    a, b = np.asarray(a), np.asarray(b)
    safe = np.where(b == 0, np.ones_like(b), b)
    floor = np.floor_divide(a, safe)
    inexact = (floor * safe != a) & ((a < 0) != (safe < 0))
    return np.where(b == 0, np.zeros_like(floor), floor + inexact.astype(floor.dtype))


def _irem(a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    return np.where(b == 0, np.zeros_like(a), a - _idiv(a, b) * b)


def _floordiv(a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    if is_float(a.dtype):
        return np.floor(a / b)
    safe = np.where(b == 0, np.ones_like(b), b)
    return np.where(b == 0, np.zeros_like(a), np.floor_divide(a, safe))


def _floormod(a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    if is_float(a.dtype):
        return np.mod(a, b)
    safe = np.where(b == 0, np.ones_like(b), b)
    return np.where(b == 0, np.zeros_like(a), np.mod(a, safe))


def _fma(a: Any, b: Any, c: Any) -> Any:
    """Rounded once (through float64); twice for float64."""
    a = np.asarray(a)
    if a.dtype == np.float64:
        return a * b + c
    wide = a.astype(np.float64) * np.asarray(b, np.float64) + np.asarray(c, np.float64)
    return rounded(wide, a.dtype)


def _shift(fn: Callable[..., Any]) -> Callable[..., Any]:
    def shifted(a: Any, b: Any) -> Any:
        a = np.asarray(a)
        bits = a.dtype.itemsize * 8
        return fn(a, np.asarray(b).astype(a.dtype) % a.dtype.type(bits))

    return shifted


def _lshr(a: Any, b: Any) -> Any:
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    return np.right_shift(a.astype(unsigned), b.astype(unsigned)).astype(a.dtype)


def _logical(boolean: Callable[..., Any], bits: Callable[..., Any]) -> Callable[..., Any]:
    def fn(*args: Any) -> Any:
        return (boolean if np.asarray(args[0]).dtype == bool else bits)(*args)

    return fn


_PRIMITIVES: tuple[tuple[str, int, Callable[..., Any], str, int], ...] = (
    ("add", 2, np.add, "fiu", 1),
    ("sub", 2, np.subtract, "fiu", 1),
    ("mul", 2, np.multiply, "fiu", 1),
    ("div", 2, np.divide, "f", 4),
    ("idiv", 2, _idiv, "iu", 12),  # rounds towards zero; a zero divisor gives 0
    ("irem", 2, _irem, "iu", 12),  # the remainder of idiv
    ("floordiv", 2, _floordiv, "fiu", 14),  # rounds down
    ("floormod", 2, _floormod, "iu", 14),  # has the sign of the divisor
    ("neg", 1, np.negative, "fi", 1),
    ("abs", 1, np.abs, "fi", 1),
    ("min", 2, np.minimum, "fiu", 2),  # NaN if either is
    ("max", 2, np.maximum, "fiu", 2),
    ("fma", 3, _fma, "f", 1),  # a * b + c; rounded once where the target can
    ("sqrt", 1, np.sqrt, "f", 6),
    ("floor", 1, np.floor, "f", 1),
    ("ceil", 1, np.ceil, "f", 1),
    ("trunc", 1, np.trunc, "f", 1),
    ("rint", 1, np.rint, "f", 1),  # half to even
    ("copysign", 2, np.copysign, "f", 1),
    ("eq", 2, np.equal, "fiub", 1),
    ("ne", 2, np.not_equal, "fiub", 1),
    ("lt", 2, np.less, "fiub", 1),
    ("le", 2, np.less_equal, "fiub", 1),
    ("gt", 2, np.greater, "fiub", 1),
    ("ge", 2, np.greater_equal, "fiub", 1),
    ("and", 2, _logical(np.logical_and, np.bitwise_and), "iub", 1),
    ("or", 2, _logical(np.logical_or, np.bitwise_or), "iub", 1),
    ("xor", 2, _logical(np.logical_xor, np.bitwise_xor), "iub", 1),
    ("not", 1, _logical(np.logical_not, np.invert), "iub", 1),
    ("shl", 2, _shift(np.left_shift), "iu", 1),  # the amount is taken modulo the width
    ("lshr", 2, _shift(_lshr), "iu", 1),
    ("ashr", 2, _shift(np.right_shift), "i", 1),
    ("isnan", 1, np.isnan, "f", 1),
    ("isinf", 1, np.isinf, "f", 1),
    ("isfinite", 1, np.isfinite, "f", 1),
    ("select", 3, np.where, "fiub", 1),
    # ldexp(x, n): x * 2**n for float x and a float integer n in the exponent's range
    ("scalef", 2, lambda x, n: np.ldexp(x, np.asarray(n).astype(np.int32)), "f", 2),
)
for _name, _arity, _numpy, _kinds, _cost in _PRIMITIVES:
    register(ScalarFn(_name, _arity, _numpy, None, _kinds, 0.5, _cost))
register(ScalarFn("bitcast", 1, lambda x: x, None, "fiu", 0.0, 0))
