"""The primitive scalar functions and the conversions in CUDA C, one row each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.codegen.cuda_text import TYPES, unsigned
from graphc.dtypes import DType, float32, float64
from graphc.errors import CompileError

_INFIX = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*"}
_BITS = {"and": "&", "or": "|", "xor": "^"}
_DIVISIONS = ("idiv", "irem", "floordiv", "floormod")
_SAME = {"sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "rint",
         "abs": "fabs", "copysign": "copysign", "fma": "fma"}  # fmt: skip


def primitive(fn: str, dtype: DType, args: Sequence[str]) -> str:
    """``fn`` of operands of ``dtype`` (that of its last argument) as an expression."""
    if fn == "select":
        return f"({args[0]} ? {args[1]} : {args[2]})"
    short = dtype.is_floating and dtype.size == 2
    if fn in _INFIX and not short:
        return f"({args[0]} {_INFIX[fn]} {args[1]})"
    if dtype.is_floating:
        return _short(fn, dtype, args) if short else _float(fn, dtype, args)
    if dtype.is_bool:
        return f"(!{args[0]})" if fn == "not" else f"({args[0]} {_BITS[fn]} {args[1]})"
    return _integer(fn, dtype, args)


# --- integers -------------------------------------------------------------------------------------


def _integer(fn: str, dtype: DType, args: Sequence[str]) -> str:
    ty, wide = TYPES[dtype.code], unsigned(dtype)
    if fn in _ARITHMETIC:
        return f"({ty})(({wide}){args[0]} {_ARITHMETIC[fn]} ({wide}){args[1]})"
    if fn in _BITS:
        return f"({ty})({args[0]} {_BITS[fn]} {args[1]})"
    if fn in _DIVISIONS:
        return f"gc_{fn}<{ty}>({args[0]}, {args[1]})"
    if fn in ("min", "max"):
        return f"gc_{fn}<{ty}>({args[0]}, {args[1]})"
    if fn == "not":
        return f"({ty})(~{args[0]})"
    if fn == "neg":
        return f"({ty})(({wide})0 - ({wide}){args[0]})"
    if fn == "abs":
        minus = f"({ty})(({wide})0 - ({wide}){args[0]})"
        return args[0] if dtype.is_unsigned else f"({args[0]} < 0 ? {minus} : {args[0]})"
    if fn in ("shl", "lshr", "ashr"):
        return _shift(fn, dtype, args)
    raise CompileError(f"no CUDA spelling of {fn!r} for {dtype.code}")


def _shift(fn: str, dtype: DType, args: Sequence[str]) -> str:
    ty = TYPES[dtype.code]
    amount = f"({args[1]} & {dtype.size * 8 - 1})"
    if fn == "shl":
        return f"({ty})(({unsigned(dtype)}){args[0]} << {amount})"
    if fn == "lshr":
        return f"({ty})(({TYPES[f'u{dtype.size * 8}']}){args[0]} >> {amount})"
    return f"({ty})(({ty}){args[0]} >> {amount})"


# --- floats ---------------------------------------------------------------------------------------


def _float(fn: str, dtype: DType, args: Sequence[str]) -> str:
    ty = TYPES[dtype.code]
    suffix = "f" if dtype is float32 else ""
    if fn in _ARITHMETIC or fn == "div":
        return f"({args[0]} {_ARITHMETIC.get(fn, '/')} {args[1]})"
    if fn in _SAME:
        return f"{_SAME[fn]}{suffix}({', '.join(args)})"
    if fn in ("min", "max", "scalef"):
        return f"gc_{fn}<{ty}>({args[0]}, {args[1]})"
    spell: dict[str, Callable[[], str]] = {
        "neg": lambda: f"(-{args[0]})",
        "floordiv": lambda: f"floor{suffix}({args[0]} / {args[1]})",
        "isnan": lambda: f"({args[0]} != {args[0]})",
        "isinf": lambda: f"(fabs{suffix}({args[0]}) == {_infinity(dtype)})",
        "isfinite": lambda: f"(fabs{suffix}({args[0]}) < {_infinity(dtype)})",
    }
    if fn not in spell:
        raise CompileError(f"no CUDA spelling of {fn!r} for {dtype.code}")
    return spell[fn]()


def _infinity(dtype: DType) -> str:
    if dtype is float64:
        return "gc_bits<double>(0x7ff0000000000000ull)"
    return "gc_bits<float>(0x7f800000u)"


def _short(fn: str, dtype: DType, args: Sequence[str]) -> str:
    """A function of floats of 16 bits: computed in float32, and rounded."""
    if fn in ("neg", "abs"):
        bits = "^ 0x8000" if fn == "neg" else "& 0x7fff"
        return f"(unsigned short)({args[0]} {bits})"
    if fn == "copysign":
        return f"(unsigned short)(({args[0]} & 0x7fff) | ({args[1]} & 0x8000))"
    if fn == "floordiv":  # the quotient is rounded before it is floored
        return _short("floor", dtype, (_short("div", dtype, args),))
    result = primitive(fn, float32, [widen(a, dtype) for a in args])
    if fn in _INFIX or fn in ("isnan", "isinf", "isfinite"):
        return result
    return f"gc_narrow_{dtype.code}({result})"


def widen(value: str, dtype: DType) -> str:
    """A float of 16 bits as a float."""
    return f"gc_widen_{dtype.code}({value})"


# --- conversions ----------------------------------------------------------------------------------


def cast(value: str, src: DType, dst: DType) -> str:
    """``value`` of dtype ``src`` as ``dst``, by the rules of ``graphc.loop.ir.Cast``."""
    ty = TYPES[dst.code]
    if src.is_floating and src.size == 2:
        value, src = widen(value, src), float32
    if dst.is_bool:
        return f"({value} != 0)"
    if dst.is_floating and dst.size == 2:
        return f"gc_narrow_{dst.code}({_once(value, src)})"
    if src.is_floating and dst.is_integer:
        low, high = int(dst.min), int(dst.max)
        suffix = "ull" if dst.is_unsigned else "ll"
        least = f"({ty})({low + 1}{suffix} - 1{suffix})" if low else f"({ty})0"
        above = f"({TYPES[src.code]}){high + 1}.0"
        return f"gc_to_integer<{ty}>({value}, {least}, ({ty}){high}{suffix}, {above})"
    return f"({ty}){value}"


def _once(value: str, src: DType) -> str:
    """A value as a float that 16 bits round as they would the value itself."""
    if src is float64:
        return f"gc_round_to_odd({value})"
    if src.is_integer and src.size >= 4:
        exact = f"gc_sticky(({TYPES[src.code]}){value})" if src.size == 8 else f"(double){value}"
        return f"gc_round_to_odd({exact})"
    return value if src is float32 else f"(float){value}"
