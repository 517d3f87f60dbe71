"""The primitive scalar functions in LLVM text: one printer for each row of ``scalar.py``."""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.llvm_cast import narrow, resize, widen
from graphc.codegen.llvm_divide import DIVISIONS
from graphc.codegen.llvm_scalef import scalef
from graphc.codegen.llvm_text import TYPES, Emitter, Val
from graphc.dtypes import DType

_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_FCMP = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
COMPARISONS = frozenset(_FCMP)
OPCODES = {(fn, code): op for fn, op in _FLOAT.items() for code in ("f32", "f64")}
"""The functions that are one instruction."""


def primitive(e: Emitter, fn: str, dtype: DType, args: tuple[Val, ...]) -> Val:
    """``fn`` of operands of ``dtype``: the dtype of its last argument."""
    if fn == "select":
        return e.choose(*args)
    if dtype.is_floating:
        return _float(e, fn, dtype, args)
    if dtype.is_bool:
        return _bool(e, fn, args)
    return _integer(e, fn, dtype, args)


# --- bool and integers ------------------------------------------------------------------------


def _bool(e: Emitter, fn: str, args: tuple[Val, ...]) -> Val:
    if fn == "not":
        return invert(e, args[0])
    a, b = args
    if fn in ("and", "or"):
        for x, y in ((a, b), (b, a)):
            if isinstance(x.const, bool):
                return y if x.const == (fn == "and") else x
    if fn in ("and", "or", "xor"):
        return e.binary(fn, a, b)
    sign = "" if fn in ("eq", "ne") else "u"
    return e.compare(f"icmp {sign}{fn}", a, b)


def invert(e: Emitter, v: Val) -> Val:
    """The other truth value."""
    if isinstance(v.const, bool):
        return e.truth(not v.const)
    if isinstance(v.const, tuple):
        return e.mask([not some for some in v.const])
    return e.binary("xor", v, e.truth(True))


def _integer(e: Emitter, fn: str, dtype: DType, args: tuple[Val, ...]) -> Val:
    if fn in _INT:
        return e.binary(_INT[fn], args[0], args[1])
    if fn in _FCMP:
        sign = "" if fn in ("eq", "ne") else "u" if dtype.is_unsigned else "s"
        return e.compare(f"icmp {sign}{fn}", args[0], args[1])
    if fn in DIVISIONS:
        return DIVISIONS[fn](e, dtype, *e.match(*args))
    return _INTEGERS[fn](e, dtype, *e.match(*args))


def _shift(op: str) -> Callable[..., Val]:
    def shift(e: Emitter, dtype: DType, a: Val, b: Val) -> Val:
        amount = e.binary("and", b, e.number(dtype.size * 8 - 1, a.ty))
        return e.binary(op, a, amount)

    return shift


def _int_extreme(which: str) -> Callable[..., Val]:
    def extreme(e: Emitter, dtype: DType, a: Val, b: Val) -> Val:
        sign = "u" if dtype.is_unsigned else "s"
        return e.intrinsic(f"llvm.{sign}{which}", a.ty, a.n, a, b)

    return extreme


def _int_abs(e: Emitter, dtype: DType, a: Val) -> Val:
    if dtype.is_unsigned:
        return a
    return e.intrinsic("llvm.abs", a.ty, a.n, a, e.truth(False))


_INTEGERS: dict[str, Callable[..., Val]] = {
    "neg": lambda e, _, a: e.binary("sub", e.number(0, a.ty), a),
    "not": lambda e, _, a: e.binary("xor", a, e.number(-1, a.ty)),
    "abs": _int_abs,
    "min": _int_extreme("min"),
    "max": _int_extreme("max"),
    "shl": _shift("shl"),
    "lshr": _shift("lshr"),
    "ashr": _shift("ashr"),
}


# --- floats -----------------------------------------------------------------------------------


def _float(e: Emitter, fn: str, dtype: DType, args: tuple[Val, ...]) -> Val:
    if dtype.size != 2:
        return _wide_float(e, fn, args)
    if fn in ("neg", "abs", "copysign"):
        return _half_sign(e, fn, args)
    if fn == "floordiv":  # the quotient is rounded before it is floored
        return _float(e, "floor", dtype, (_float(e, "div", dtype, args),))
    result = _wide_float(e, fn, tuple(widen(e, a, dtype) for a in args))
    return result if result.ty == "i1" else narrow(e, result, dtype)


def _half_sign(e: Emitter, fn: str, args: tuple[Val, ...]) -> Val:
    sign, size = e.number(-0x8000, "i16"), e.number(0x7FFF, "i16")
    if fn == "neg":
        return e.binary("xor", args[0], sign)
    if fn == "abs":
        return e.binary("and", args[0], size)
    return e.binary("or", e.binary("and", args[0], size), e.binary("and", args[1], sign))


def _wide_float(e: Emitter, fn: str, args: tuple[Val, ...]) -> Val:
    if fn in _FLOAT:
        return e.binary(_FLOAT[fn], args[0], args[1])
    if fn in _FCMP:
        return e.compare(f"fcmp {_FCMP[fn]}", args[0], args[1])
    return _FLOATS[fn](e, *e.match(*args))


def _float_extreme(order: str) -> Callable[..., Val]:
    def extreme(e: Emitter, a: Val, b: Val) -> Val:
        # The first select is one instruction that gives b if either is NaN; b's NaN stays.
        best = e.choose(e.compare(f"fcmp {order}", a, b), a, b)
        return e.choose(e.compare("fcmp uno", a, a), a, best)

    return extreme


def fma(e: Emitter, a: Val, b: Val, c: Val) -> Val:
    """``a * b + c``, rounded once where the target can."""
    a, b, c = e.match(a, b, c)
    if e.target.has_fma:
        return e.intrinsic("llvm.fma", a.ty, a.n, a, b, c)
    return e.binary("fadd", e.binary("fmul", a, b), c)


def _abs(e: Emitter, a: Val) -> Val:
    return e.intrinsic("llvm.fabs", a.ty, a.n, a)


def _negate(e: Emitter, a: Val) -> Val:
    return e.pure(f"fneg {a.full}", a.ty, a.n, a.level)


def _copysign(e: Emitter, a: Val, b: Val) -> Val:
    return e.intrinsic("llvm.copysign", a.ty, a.n, a, b)


def _nearest(e: Emitter, a: Val) -> Val:
    """Half to even, for values that are smaller than 2**52 (2**23); others are integers."""
    magic = e.real(2.0**52 if a.ty == "double" else 2.0**23, a.ty)
    signed = _copysign(e, e.splat(magic, a.n), a)
    return e.binary("fsub", e.binary("fadd", a, signed), signed)


def _keep_large(e: Emitter, a: Val, rounded: Val) -> Val:
    """``rounded`` with the sign of ``a``; ``a`` itself where it has no fraction, and NaN."""
    limit = e.real(2.0**52 if a.ty == "double" else 2.0**23, a.ty)
    small = e.compare("fcmp olt", _abs(e, a), limit)
    return e.choose(small, _copysign(e, rounded, a), a)


def _rounding(intrinsic: str, correct: str, step: float) -> Callable[..., Val]:
    """A rounding; by additions where the target would call a function for each lane."""

    def rounding(e: Emitter, a: Val) -> Val:
        if e.target.has_fma or e.target.vector_bytes >= 32:
            return e.intrinsic(intrinsic, a.ty, a.n, a)
        near = _nearest(e, a)
        if correct:
            off = e.compare(f"fcmp {correct}", near, a)
            moved = e.binary("fadd", near, e.real(step, a.ty))
            near = e.choose(off, moved, near)
        return _keep_large(e, a, near)

    return rounding


def _truncate(e: Emitter, a: Val) -> Val:
    if e.target.has_fma or e.target.vector_bytes >= 32:
        return e.intrinsic("llvm.trunc", a.ty, a.n, a)
    size = _abs(e, a)
    near = _nearest(e, size)
    lower = e.binary("fsub", near, e.real(1.0, a.ty))
    return _keep_large(e, a, e.choose(e.compare("fcmp ogt", near, size), lower, near))


_floor = _rounding("llvm.floor", "ogt", -1.0)


def _floor_mod(e: Emitter, a: Val, b: Val) -> Val:
    zero = e.real(0.0, a.ty)
    rest = e.pure(f"frem {a.full}, {b.text}", a.ty, a.n, max(a.level, b.level))
    wrong = e.binary("xor", e.compare("fcmp olt", rest, zero), e.compare("fcmp olt", b, zero))
    moved = e.choose(wrong, e.binary("fadd", rest, b), rest)
    return e.choose(e.compare("fcmp oeq", rest, zero), _copysign(e, e.splat(zero, a.n), b), moved)


def _is_infinite(e: Emitter, a: Val) -> Val:
    return e.compare("fcmp oeq", _abs(e, a), e.real(float("inf"), a.ty))


def _is_finite(e: Emitter, a: Val) -> Val:
    return e.compare("fcmp olt", _abs(e, a), e.real(float("inf"), a.ty))


_FLOATS: dict[str, Callable[..., Val]] = {
    "neg": _negate,
    "abs": _abs,
    "min": _float_extreme("olt"),
    "max": _float_extreme("ogt"),
    "fma": fma,
    "sqrt": lambda e, a: e.intrinsic("llvm.sqrt", a.ty, a.n, a),
    "floor": _floor,
    "ceil": _rounding("llvm.ceil", "olt", 1.0),
    "trunc": _truncate,
    "rint": _rounding("llvm.roundeven", "", 0.0),
    "copysign": _copysign,
    "floordiv": lambda e, a, b: _floor(e, e.binary("fdiv", a, b)),
    "floormod": _floor_mod,
    "isnan": lambda e, a: e.compare("fcmp uno", a, a),
    "isinf": _is_infinite,
    "isfinite": _is_finite,
    "scalef": scalef,
}


def bitcast(e: Emitter, v: Val, dst: DType) -> Val:
    """The bits as another dtype of the same size."""
    ty = TYPES[dst.code]
    if v.ty == "i1":
        return resize(e, v, ty, signed=False)
    return v if v.ty == ty else e.convert("bitcast", v, ty)
