"""Dot products of four bytes or two int16, as many CPUs and GPUs have one instruction for.

``dp4a`` has its name from CUDA; it is VPDPBUSD on x86, USDOT on ARM.  ``madd16`` is PMADDWD on x86
and an addition.  The expansions are what a target without such an instruction computes; they are
right, and slow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import int32, uint8
from graphc.loop.ir import Expr, apply, cast
from graphc.loop.scalar import ScalarFn, register


def pack4(*values: Expr) -> Expr:
    """Four 8-bit integers as the bytes of an int32, the first one lowest."""
    word, *rest = (cast(cast(v, uint8), int32) for v in values)
    for number, value in enumerate(rest, 1):
        word = apply("or", word, apply("shl", value, 8 * number))
    return word


def dp4a(a: Expr, b: Expr, c: Expr) -> Expr:
    """``c`` plus the products of the unsigned bytes of ``a`` and the signed bytes of ``b``."""
    for number in range(4):
        left = apply("and", apply("lshr", a, 8 * number), 255)
        right = apply("ashr", apply("shl", b, 24 - 8 * number), 24)
        c = c + left * right
    return c


def pack16(low: Expr, high: Expr) -> Expr:
    """Two integers of at most 16 bits as the int16 halves of an int32, the first one lowest."""
    bits = [cast(v, int32) for v in (low, high)]
    return apply("or", apply("and", bits[0], 0xFFFF), apply("shl", bits[1], 16))


def madd16(a: Expr, b: Expr, c: Expr) -> Expr:
    """``c`` plus the products of the int16 halves of ``a`` and ``b``, modulo 2**32."""
    low = [apply("ashr", apply("shl", word, 16), 16) for word in (a, b)]
    high = [apply("ashr", word, 16) for word in (a, b)]
    return c + (low[0] * low[1] + high[0] * high[1])


def _pack4(*values: Any) -> Any:
    bits = [np.asarray(v).astype(np.uint8).astype(np.uint32) for v in values]
    word = bits[0] | bits[1] << np.uint32(8) | bits[2] << np.uint32(16) | bits[3] << np.uint32(24)
    return word.astype(np.int32)


def _dp4a(a: Any, b: Any, c: Any) -> Any:
    total = np.asarray(c).astype(np.int64)
    words = np.asarray(a).astype(np.uint32), np.asarray(b).astype(np.uint32)
    for number in range(4):
        left, right = ((w >> np.uint32(8 * number) & np.uint32(255)) for w in words)
        total = total + left.astype(np.int64) * right.astype(np.uint8).astype(np.int8)
    return total.astype(np.int32)


def _pack16(low: Any, high: Any) -> Any:
    halves = [np.asarray(v).astype(np.int64) & 0xFFFF for v in (low, high)]
    return (halves[0] | halves[1] << 16).astype(np.uint32).astype(np.int32)


def _madd16(a: Any, b: Any, c: Any) -> Any:
    words = np.asarray(a).astype(np.int64), np.asarray(b).astype(np.int64)
    low = [(w & 0xFFFF).astype(np.uint16).astype(np.int16).astype(np.int64) for w in words]
    total = np.asarray(c).astype(np.int64) + low[0] * low[1] + (words[0] >> 16) * (words[1] >> 16)
    return total.astype(np.int32)


register(ScalarFn("pack4", 4, _pack4, pack4, "iu", 0.0, 6, ("i8", "u8")))
register(ScalarFn("dp4a", 3, _dp4a, dp4a, "i", 0.0, 2, ("i32",)))
register(ScalarFn("pack16", 2, _pack16, pack16, "iu", 0.0, 3, ("i8", "u8", "i16")))
register(ScalarFn("madd16", 3, _madd16, madd16, "i", 0.0, 2, ("i32",)))
