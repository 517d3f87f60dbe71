"""What the printers of CUDA C share: types, literals, the functions that kernels may call."""

from __future__ import annotations

import struct

import numpy as np

from graphc.dtypes import DType, float64
from graphc.loop.ir import Const

TYPES = {
    "b1": "bool", "i8": "signed char", "u8": "unsigned char", "i16": "short",
    "u16": "unsigned short", "i32": "int", "u32": "unsigned int", "i64": "long long",
    "u64": "unsigned long long", "f16": "unsigned short", "bf16": "unsigned short",
    "f32": "float", "f64": "double",
}  # fmt: skip
"""The C type of each dtype by its code; a float of 16 bits is held as its bits."""

_SMALL = 1 << 31
_SUFFIX = {"u32": "u", "i64": "ll", "u64": "ull"}


def literal(node: Const) -> str:
    """A constant with all its bits."""
    dtype, value = node.dtype, node.value
    if dtype.is_bool:
        return "true" if value else "false"
    if dtype.is_floating:
        return _real(float(value), dtype)
    if dtype.code == "i64" and 0 <= value < _SMALL:
        return str(value)  # the other operand makes it long long
    text = f"{value}{_SUFFIX.get(dtype.code, '')}"
    if dtype.code in ("i32", "i64") and value == dtype.min:  # its absolute value has no literal
        return f"({value + 1}{_SUFFIX.get(dtype.code, '')} - 1)"
    if dtype.size < 4:
        return f"({TYPES[dtype.code]}){text}"
    return f"({text})" if value < 0 else text


def _real(value: float, dtype: DType) -> str:
    array = np.array(value, dtype.numpy)
    if dtype.size == 2:
        return f"(unsigned short){array.view(np.uint16)[()]:#06x}"
    if not np.isfinite(array):
        bits = array.view(np.uint64 if dtype is float64 else np.uint32)[()]
        suffix = "ull" if dtype is float64 else "u"
        return f"gc_bits<{TYPES[dtype.code]}>({bits:#x}{suffix})"
    text = repr(value) if dtype is float64 else repr(float(str(array)))
    if dtype is not float64:
        if struct.pack("<f", float(text)) != array.tobytes():
            text = repr(value)
        text += "f"
    return f"({text})" if text.startswith("-") else text


def unsigned(dtype: DType) -> str:
    """The unsigned type that integer arithmetic of a dtype wraps around in."""
    return "unsigned long long" if dtype.size == 8 else "unsigned int"


PRELUDE = r"""
// Elements that are read or written at once.
template <class T, int N> struct alignas(sizeof(T) * N) gc_vector { T lane[N]; };
#ifndef GC_ALIGNED
#define GC_ALIGNED(address, ...) reinterpret_cast<__VA_ARGS__*>(address)
#endif

#define GC_FN template <class T> static __device__ __forceinline__

template <class To, class From> static __device__ __forceinline__ To gc_bits(From x) {
  static_assert(sizeof(To) == sizeof(From), "a bitcast keeps the size");
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}

// The first condition that fails in a launch is what the run reports.
static __device__ void gc_fail(long long* status, long long site, long long a, long long b) {
  unsigned long long* word = reinterpret_cast<unsigned long long*>(status);
  if (atomicCAS(word, 0ull, (unsigned long long)site) == 0ull) {
    status[1] = a;
    status[2] = b;
  }
}

// Integer division: a zero divisor gives 0, MIN / -1 wraps around.
GC_FN T gc_checked(T a, T b) {
  if (b == T(0)) return T(0);
  if (T(-1) < T(0) && b == T(-1)) return T(0ull - (unsigned long long)a);
  return T(a / b);
}
GC_FN T gc_idiv(T a, T b) { return gc_checked(a, b); }
// Of 64 bits it is much code, so there is one of it; most operands are small, and quickly divided.
static __device__ __noinline__ long long gc_idiv64(long long a, long long b) {
  if ((unsigned long long)(a | b) >> 32 == 0 && b != 0) {
    return (unsigned int)a / (unsigned int)b;
  }
  return gc_checked(a, b);
}
template <> __device__ __forceinline__ long long gc_idiv<long long>(long long a, long long b) {
  return gc_idiv64(a, b);
}
GC_FN T gc_irem(T a, T b) {
  if (b == T(0) || (T(-1) < T(0) && b == T(-1))) return T(0);
  return T(a % b);
}
static __device__ __noinline__ long long gc_irem64(long long a, long long b) {
  if ((unsigned long long)(a | b) >> 32 == 0 && b != 0) {
    return (unsigned int)a % (unsigned int)b;
  }
  return b == 0 || b == -1 ? 0 : a % b;
}
template <> __device__ __forceinline__ long long gc_irem<long long>(long long a, long long b) {
  return gc_irem64(a, b);
}
GC_FN T gc_floordiv(T a, T b) {
  const T q = gc_idiv(a, b), r = gc_irem(a, b);
  return r != T(0) && (r < T(0)) != (b < T(0)) ? T(q - T(1)) : q;
}
GC_FN T gc_floormod(T a, T b) {
  const T r = gc_irem(a, b);
  return r != T(0) && (r < T(0)) != (b < T(0)) ? T(r + b) : r;
}

// NaN if either is.
GC_FN T gc_min(T a, T b) { return a != a ? a : a < b ? a : b; }
GC_FN T gc_max(T a, T b) { return a != a ? a : a > b ? a : b; }

static __device__ __forceinline__ float gc_power(float n) {
  return gc_bits<float>(gc_bits<unsigned int>(n + (12582912.0f + 127.0f)) << 23);
}
static __device__ __forceinline__ double gc_power(double n) {
  return gc_bits<double>(gc_bits<unsigned long long>(n + (6755399441055744.0 + 1023.0)) << 52);
}
// x * 2**n, rounded once: first by what is beyond the exponent's range, then by what is within.
GC_FN T gc_scalef(T x, T n) {
  const T bias = sizeof(T) == 8 ? T(1023) : T(127);
  n = n < 2 - 2 * bias ? 2 - 2 * bias : n;
  n = n > 2 * bias ? 2 * bias : n;
  T within = n < 1 - bias ? 1 - bias : n;
  within = within > bias ? bias : within;
  return x * gc_power(n - within) * gc_power(within);
}

// Float to integer: towards zero, saturating, NaN to 0. `low` and `high` are the limits of To;
// `above` is the first float beyond.
template <class To, class From>
static __device__ __forceinline__ To gc_to_integer(From x, To low, To high, From above) {
  if (x != x) return To(0);
  return x <= From(low) ? low : x >= above ? high : To(x);
}

// Floats of 16 bits.
static __device__ __forceinline__ float gc_widen_bf16(unsigned short x) {
  return gc_bits<float>((unsigned int)x << 16);
}
static __device__ __forceinline__ unsigned short gc_narrow_bf16(float x) {
  const unsigned int bits = gc_bits<unsigned int>(x);
  if (x != x) return (unsigned short)((bits | 0x7fc00000u) >> 16);
  return (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
static __device__ __forceinline__ float gc_widen_f16(unsigned short x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
#else
  const unsigned int size = x & 0x7fffu, sign = (unsigned int)(x & 0x8000u) << 16;
  unsigned int bits = gc_bits<unsigned int>(gc_bits<float>(size << 13) * 0x1p112f);
  if (size >= 0x7c00u) bits |= 0x7f800000u;
  return gc_bits<float>(bits | sign);
#endif
}
static __device__ __forceinline__ unsigned short gc_narrow_f16(float x) {
#ifdef __CUDA_ARCH__
  unsigned short y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
#else
  const unsigned int bits = gc_bits<unsigned int>(x), size = bits & 0x7fffffffu;
  unsigned int y;
  if (size > 0x7f800000u) y = 0x7e00u;
  else if (size >= 0x47800000u) y = 0x7c00u;
  else if (size < 0x38800000u)
    y = gc_bits<unsigned int>(gc_bits<float>(size) + 0.5f) - 0x3f000000u;
  else y = (size - 0x37fff001u + ((size >> 13) & 1u)) >> 13;
  return (unsigned short)(y | (bits ^ size) >> 16);
#endif
}
// The float next to x with an odd last bit, unless x is one: rounding that again rounds x once.
static __device__ __forceinline__ float gc_round_to_odd(double x) {
  const float near = (float)x;
  if (x != x || (double)near == x) return near;
  const double size = x < 0 ? -x : x, back = near < 0 ? -(double)near : (double)near;
  const unsigned int bits = gc_bits<unsigned int>(near);
  return gc_bits<float>((back > size ? bits - 1u : bits) | 1u);
}
// A 64-bit integer that double holds exactly and 16 bits round as the given one.
static __device__ __forceinline__ double gc_sticky(long long x) {
  const long long rest = x & 0x7ff, limit = 1ll << 53;
  return (double)(x < limit && x >= -limit ? x : (x - rest) | (rest != 0 ? 0x800 : 0));
}
static __device__ __forceinline__ double gc_sticky(unsigned long long x) {
  const unsigned long long rest = x & 0x7ff;
  return (double)(x < (1ull << 53) ? x : (x - rest) | (rest != 0 ? 0x800 : 0));
}
"""
