"""Dot products of pairs of bfloat16: one instruction of x86, VDPBF16PS.

A *pair* is two bfloat16 side by side, held as the float32 that has their bits; it is no number.
The expansions are what a target without the instruction computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import bfloat16, float32, int32, uint16
from graphc.loop.ir import Expr, apply, bitcast, cast
from graphc.loop.scalar import ScalarFn, register


def pack2(low: Expr, high: Expr) -> Expr:
    """The pair of two bfloat16, the first one in the low half."""
    bits = [cast(bitcast(v, uint16), int32) for v in (low, high)]
    return bitcast(apply("or", bits[0], apply("shl", bits[1], 16)), float32)


def dot2(a: Expr, b: Expr, c: Expr) -> Expr:
    """``c`` plus the products of two pairs: of the high halves first, and rounded after each."""

    def halves(pair: Expr) -> tuple[Expr, Expr]:
        bits = bitcast(pair, int32)
        high, low = apply("and", bits, -0x10000), apply("shl", bits, 16)
        return bitcast(high, float32), bitcast(low, float32)

    (a_high, a_low), (b_high, b_low) = halves(a), halves(b)
    return apply("fma", a_low, b_low, apply("fma", a_high, b_high, c))


def _pack2(low: Any, high: Any) -> Any:
    bits = [np.asarray(v).view(np.uint16).astype(np.uint32) for v in (low, high)]
    return np.asarray(bits[0] | bits[1] << np.uint32(16)).view(np.float32)


def _dot2(a: Any, b: Any, c: Any) -> Any:
    pairs = [np.asarray(v).view(np.uint32) for v in (a, b)]
    high = [np.asarray(p & np.uint32(0xFFFF0000)).view(np.float32) for p in pairs]
    low = [np.asarray(p << np.uint32(16)).view(np.float32) for p in pairs]
    total = np.asarray(c)
    with np.errstate(all="ignore"):
        for x, y in (high, low):  # the product of two bfloat16 is exact
            total = (x.astype(np.float64) * y + total).astype(np.float32)
    return total


register(ScalarFn("pack2", 2, _pack2, pack2, "f", 0.0, 3, (bfloat16.code,)))
register(ScalarFn("dot2", 3, _dot2, dot2, "f", 1.0, 2, (float32.code,)))
