"""Integer division in LLVM text: no divisor traps, and small lanes divide as floats."""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.llvm_cast import resize
from graphc.codegen.llvm_text import Emitter, Val
from graphc.dtypes import DType


def _op(e: Emitter, op: str, a: Val, b: Val) -> Val:
    return e.costly(f"{op} {a.full}, {b.text}", a.ty, a.n, max(a.level, b.level))


def _truncated(e: Emitter, dtype: DType, a: Val, b: Val) -> Val:
    """The quotient for a divisor that is neither 0 nor (for signed types) -1."""
    op = "udiv" if dtype.is_unsigned else "sdiv"
    if not a.n or b.const is not None or dtype.size == 8:
        return _op(e, op, a, b)
    # The quotient of two integers rounds to below the next integer: truncation is exact.
    ty = "float" if dtype.size < 4 else "double"
    x, y = (_exact_float(e, dtype, v, ty) for v in (a, b))
    quotient = e.binary("fdiv", x, y)
    if dtype.is_unsigned and dtype.size == 4:
        return e.convert("fptoui", quotient, "i32")
    return resize(e, e.convert("fptosi", quotient, "i32"), a.ty, signed=True)


def _exact_float(e: Emitter, dtype: DType, v: Val, ty: str) -> Val:
    if dtype.size < 4:
        v = resize(e, v, "i32", signed=not dtype.is_unsigned)
        return e.convert("sitofp", v, ty)
    return e.convert("uitofp" if dtype.is_unsigned else "sitofp", v, ty)


def quotient(e: Emitter, dtype: DType, a: Val, b: Val) -> Val:
    """Rounded towards zero; 0 for a zero divisor; MIN / -1 wraps."""
    zero, one = e.number(0, a.ty), e.number(1, a.ty)
    if b.const is not None:
        if b.const == 0:
            return e.splat(zero, a.n) if a.n else zero
        if b.const == -1 and not dtype.is_unsigned:
            return e.binary("sub", zero, a)
        return _truncated(e, dtype, a, b)
    is_zero = e.compare("icmp eq", b, zero)
    if dtype.is_unsigned:
        q = _truncated(e, dtype, a, e.choose(is_zero, one, b))
    else:
        is_minus = e.compare("icmp eq", b, e.number(-1, a.ty))
        q = _truncated(e, dtype, a, e.choose(e.binary("or", is_zero, is_minus), one, b))
        q = e.choose(is_minus, e.binary("sub", zero, a), q)
    return e.choose(is_zero, zero, q)


def remainder(e: Emitter, dtype: DType, a: Val, b: Val) -> Val:
    """``a - quotient(a, b) * b``; 0 for a zero divisor."""
    q = quotient(e, dtype, a, b)
    rest = e.binary("sub", a, e.binary("mul", q, b))
    return _unless_zero(e, b, rest)


def _unless_zero(e: Emitter, b: Val, v: Val) -> Val:
    zero = e.number(0, b.ty)
    if b.const is not None:
        return v if b.const != 0 else e.splat(zero, b.n) if b.n else zero
    return e.choose(e.compare("icmp eq", b, zero), zero, v)


def _needs_correction(e: Emitter, rest: Val, b: Val) -> Val:
    """Whether a remainder is not zero and has not the sign of the divisor."""
    zero = e.number(0, b.ty)
    opposite = e.compare("icmp slt", e.binary("xor", rest, b), zero)
    return e.binary("and", e.compare("icmp ne", rest, zero), opposite)


def floor_quotient(e: Emitter, dtype: DType, a: Val, b: Val) -> Val:
    """Rounded down; 0 for a zero divisor."""
    q = quotient(e, dtype, a, b)
    if dtype.is_unsigned:
        return q
    wrong = _needs_correction(e, remainder(e, dtype, a, b), b)
    return e.choose(wrong, e.binary("sub", q, e.number(1, a.ty)), q)


def floor_remainder(e: Emitter, dtype: DType, a: Val, b: Val) -> Val:
    """The remainder that has the sign of the divisor; 0 for a zero divisor."""
    rest = remainder(e, dtype, a, b)
    if dtype.is_unsigned:
        return rest
    return e.choose(_needs_correction(e, rest, b), e.binary("add", rest, b), rest)


DIVISIONS: dict[str, Callable[[Emitter, DType, Val, Val], Val]] = {
    "idiv": quotient,
    "irem": remainder,
    "floordiv": floor_quotient,
    "floormod": floor_remainder,
}
