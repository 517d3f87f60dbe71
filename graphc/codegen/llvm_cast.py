"""Conversions between dtypes in LLVM text.

A float of 16 bits is held as its bits in an i16.  Where the target has no instructions for
float16, its conversions are integer arithmetic, because LLVM would call functions that are not
there.  So are those of bfloat16 on every target: AVX-512's ``vcvtneps2bf16`` takes subnormal
numbers for zero, and telling these apart costs as much as the few integer instructions.
"""

from __future__ import annotations

from graphc.codegen.llvm_text import TYPES, Emitter, Val
from graphc.dtypes import DType


def cast(e: Emitter, v: Val, src: DType, dst: DType) -> Val:
    """``v`` of dtype ``src`` as ``dst``, by the rules of ``graphc.loop.ir.Cast``."""
    if src is dst:
        return v
    if src.is_floating:
        return _from_float(e, v, src, dst)
    if dst.is_floating:
        return _to_float(e, v, src, dst)
    if dst.is_bool:
        return e.compare("icmp ne", v, e.number(0, v.ty))
    return resize(e, v, TYPES[dst.code], signed=src.kind == "int")


def resize(e: Emitter, v: Val, ty: str, *, signed: bool) -> Val:
    """An integer (or i1) made narrower or wider."""
    have, want = int(v.ty[1:]), int(ty[1:])
    if have == want:
        return v
    if v.const is not None and not v.n:
        value = int(v.const)
        return e.number(value if signed or value >= 0 else value + (1 << have), ty)
    return e.convert("trunc" if want < have else "sext" if signed else "zext", v, ty)


def _from_float(e: Emitter, v: Val, src: DType, dst: DType) -> Val:
    if src.size == 2:
        v = widen(e, v, src)
    if dst.is_bool:
        return e.compare("fcmp une", v, e.real(0.0, v.ty))
    if dst.is_floating:
        if dst.size == 2:
            return narrow(e, v, dst)
        return resize_float(e, v, TYPES[dst.code])
    return _saturate(e, v, dst)


def resize_float(e: Emitter, v: Val, ty: str) -> Val:
    """Float to double or back."""
    if v.ty == ty:
        return v
    return e.convert("fpext" if ty == "double" else "fptrunc", v, ty)


def _saturate(e: Emitter, v: Val, dst: DType) -> Val:
    if v.n:
        return _saturate_lanes(e, v, dst)
    name = "llvm.fptoui.sat" if dst.is_unsigned else "llvm.fptosi.sat"
    ty = TYPES[dst.code]
    source = {"float": "f32", "double": "f64"}[v.ty]
    return e.intrinsic(f"{name}.{ty}.{source}", ty, 0, v, plain=True)


def _saturate_lanes(e: Emitter, v: Val, dst: DType) -> Val:
    """By a clamp: LLVM would convert lane by lane."""
    least, most = int(dst.min), int(dst.max)
    digits = 53 if v.ty == "double" else 24
    exact = most.bit_length() <= digits
    # Else the greatest float below, and a selection of the limit where v is beyond it.
    spare = 0 if exact else most.bit_length() - digits
    top = float(most >> spare << spare)
    low, high = e.real(float(least), v.ty), e.real(top, v.ty)
    clamped = e.choose(e.compare("fcmp olt", v, low), low, v)
    clamped = e.choose(e.compare("fcmp ogt", clamped, high), high, clamped)
    clamped = e.choose(e.compare("fcmp uno", v, v), e.real(0.0, v.ty), clamped)
    wide = "i32" if dst.size < 4 else TYPES[dst.code]
    op = "fptoui" if dst.is_unsigned and dst.size >= 4 else "fptosi"
    result = e.convert(op, clamped, wide)
    if not exact:
        limit = e.number(most, wide)
        result = e.choose(e.compare("fcmp ogt", v, high), limit, result)
    return resize(e, result, TYPES[dst.code], signed=True)


def _to_float(e: Emitter, v: Val, src: DType, dst: DType) -> Val:
    op = "sitofp" if src.kind == "int" else "uitofp"
    if src.size < 4 and not src.is_bool:  # what every target has an instruction for
        v, op = resize(e, v, "i32", signed=src.kind == "int"), "sitofp"
    if src.is_bool:
        v, op = e.convert("zext", v, "i32"), "sitofp"
    if dst.size > 2:
        return e.convert(op, v, TYPES[dst.code])
    # Integers that float32 rounds are beyond what float16 holds: both conversions are exact.
    exact = dst.code == "f16" or src.size < 4
    if not exact and src.size == 8:
        v = _sticky(e, v, src)
    return narrow(e, e.convert(op, v, "float" if exact else "double"), dst)


def _sticky(e: Emitter, v: Val, src: DType) -> Val:
    """A 64-bit integer that float64 holds exactly and bfloat16 rounds as the given one.

    What float64 has no place for counts only as whether it is zero.
    """
    rest = e.binary("and", v, e.number(0x7FF, v.ty))
    some = e.convert("zext", e.compare("icmp ne", rest, e.number(0, v.ty)), v.ty)
    short = e.binary("or", e.binary("sub", v, rest), e.binary("shl", some, e.number(11, v.ty)))
    limit = e.number(1 << 53, v.ty)
    if src.is_unsigned:
        return e.choose(e.compare("icmp ult", v, limit), v, short)
    shifted = e.binary("add", v, limit)
    small = e.compare("icmp ult", shifted, e.number(1 << 54, v.ty))
    return e.choose(small, v, short)


# --- floats of 16 bits ------------------------------------------------------------------------


def widen(e: Emitter, v: Val, src: DType) -> Val:
    """The bits of a float16 or bfloat16 as a float."""
    if src.code == "f16":
        return widen_half(e, v)
    bits = e.binary("shl", e.convert("zext", v, "i32"), e.number(16, "i32"))
    return e.convert("bitcast", bits, "float")


def narrow(e: Emitter, v: Val, dst: DType) -> Val:
    """A float or double as the bits of a float16 or bfloat16, rounded once."""
    if v.ty == "double":
        v = _round_to_odd(e, v)
    return narrow_to_half(e, v) if dst.code == "f16" else _narrow_to_bfloat(e, v)


def _narrow_to_bfloat(e: Emitter, v: Val) -> Val:
    bits = e.convert("bitcast", v, "i32")
    odd = e.binary("and", e.binary("lshr", bits, e.number(16, "i32")), e.number(1, "i32"))
    near = e.binary("add", e.binary("add", bits, e.number(0x7FFF, "i32")), odd)
    quiet = e.binary("or", bits, e.number(0x7FC00000, "i32"))
    near = e.choose(e.compare("fcmp uno", v, v), quiet, near)
    return e.convert("trunc", e.binary("lshr", near, e.number(16, "i32")), "i16")


def widen_half(e: Emitter, v: Val) -> Val:
    """float16 bits as a float."""
    if e.target.has_f16c:
        return e.convert("fpext", e.convert("bitcast", v, "half"), "float")
    bits = e.convert("zext", v, "i32")
    size = e.binary("and", bits, e.number(0x7FFF, "i32"))
    sign = e.binary("shl", e.binary("xor", bits, size), e.number(16, "i32"))
    small = e.binary("shl", size, e.number(13, "i32"))
    # The product puts the exponent right, for subnormals too; infinity and NaN keep all its bits.
    scaled = e.binary("fmul", e.convert("bitcast", small, "float"), e.real(2.0**112, "float"))
    result = e.convert("bitcast", scaled, "i32")
    special = e.binary("or", result, e.number(0x7F800000, "i32"))
    is_special = e.compare("icmp uge", size, e.number(0x7C00, "i32"))
    result = e.choose(is_special, special, result)
    return e.convert("bitcast", e.binary("or", result, sign), "float")


def narrow_to_half(e: Emitter, v: Val) -> Val:
    """A float as float16 bits."""
    if e.target.has_f16c:
        return e.convert("bitcast", e.convert("fptrunc", v, "half"), "i16")
    bits = e.convert("bitcast", v, "i32")
    size = e.binary("and", bits, e.number(0x7FFFFFFF, "i32"))
    sign = e.binary("xor", bits, size)
    # Subnormals: the addition of 0.5 rounds at the last bit of float16.
    magic = e.real(0.5, "float")
    tiny = e.convert("bitcast", e.binary("fadd", e.convert("bitcast", size, "float"), magic), "i32")
    tiny = e.binary("sub", tiny, e.number(0x3F000000, "i32"))
    odd = e.binary("and", e.binary("lshr", size, e.number(13, "i32")), e.number(1, "i32"))
    normal = e.binary("add", size, e.number(((15 - 127) << 23) + 0xFFF, "i32"))
    normal = e.binary("lshr", e.binary("add", normal, odd), e.number(13, "i32"))
    result = e.choose(e.compare("icmp ult", size, e.number(0x38800000, "i32")), tiny, normal)
    infinite = e.number(0x7C00, "i32")
    result = e.choose(e.compare("icmp uge", size, e.number(0x47800000, "i32")), infinite, result)
    nan = e.compare("icmp ugt", size, e.number(0x7F800000, "i32"))
    result = e.choose(nan, e.number(0x7E00, "i32"), result)
    result = e.binary("or", result, e.binary("lshr", sign, e.number(16, "i32")))
    return e.convert("trunc", result, "i16")


def _round_to_odd(e: Emitter, v: Val) -> Val:
    """A double as the float next to it with an odd last bit, unless it is exact.

    Rounding that once more to fewer bits gives what rounding the double once gives.
    """
    near = e.convert("fptrunc", v, "float")
    back = e.convert("fpext", near, "double")
    inexact = e.compare("fcmp one", back, v)
    size = e.intrinsic("llvm.fabs", "double", v.n, v)
    beyond = e.compare("fcmp ogt", e.intrinsic("llvm.fabs", "double", v.n, back), size)
    bits = e.convert("bitcast", near, "i32")
    lower = e.choose(beyond, e.binary("sub", bits, e.number(1, "i32")), bits)
    odd = e.binary("or", lower, e.number(1, "i32"))
    return e.convert("bitcast", e.choose(inexact, odd, bits), "float")
