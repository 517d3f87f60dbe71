"""Counter-based random bits: Threefry-2x32, written once for expressions and for arrays.

Every random number is a function of a key (from the seeds), the number of the run and the index of
the element, and of nothing else: what ran before or in parallel makes no difference.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.loop import ir
from graphc.loop.scalar import FUNCTIONS

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA

Bits = tuple[Any, Any]


class _OnExpressions:
    """What the formulas below are written in, over the loop IR."""

    fn: Callable[..., Any] = staticmethod(ir.apply)

    @staticmethod
    def cast(x: Any, dtype: DType) -> Any:
        """``x`` as another type."""
        return ir.cast(x, dtype)


class _OnArrays:
    """The same over NumPy arrays."""

    @staticmethod
    def fn(name: str, *args: Any) -> Any:
        """A scalar function; Python numbers take the type of the first array."""
        kind = next(a for a in args if isinstance(a, np.ndarray)).dtype.type
        wrapped = [a if isinstance(a, np.ndarray) else kind(a) for a in args]
        with np.errstate(over="ignore"):
            return np.asarray(FUNCTIONS[name].numpy(*wrapped))

    @staticmethod
    def cast(x: Any, dtype: DType) -> Any:
        """``x`` as another type."""
        return np.asarray(x).astype(dtype.numpy)


EXPRESSIONS = _OnExpressions()
ARRAYS = _OnArrays()


def threefry2x32(m: Any, k0: Any, k1: Any, c0: Any, c1: Any) -> Bits:
    """Two words of random bits for a key and a counter of two words each, all uint32."""
    fn = m.fn
    keys = (k0, k1, fn("xor", fn("xor", k0, k1), _PARITY))
    x0, x1 = fn("add", c0, k0), fn("add", c1, k1)
    for block in range(5):
        for turn in _ROTATIONS[block % 2]:
            x0 = fn("add", x0, x1)
            x1 = fn("xor", fn("or", fn("shl", x1, turn), fn("lshr", x1, 32 - turn)), x0)
        x0 = fn("add", x0, keys[(block + 1) % 3])
        x1 = fn("add", fn("add", x1, keys[(block + 2) % 3]), block + 1)
    return x0, x1


def element_bits(m: Any, k0: Any, k1: Any, run: Any, index: Any) -> Bits:
    """The bits of one element: ``run`` and ``index`` are int64.

    Their low words are the counter, so that no two elements of 2**32 runs of 2**32 elements share
    one; the high words go into the key.
    """
    word = dtypes.uint32
    high_index = m.cast(m.fn("ashr", index, 32), word)
    high_run = m.cast(m.fn("ashr", run, 32), word)
    k0 = m.fn("xor", k0, m.fn("mul", high_index, 0x9E3779B9))
    k1 = m.fn("xor", k1, m.fn("mul", high_run, 0x85EBCA6B))
    return threefry2x32(m, k0, k1, m.cast(index, word), m.cast(run, word))


def seed_key(seed: int, seed2: int) -> np.ndarray:
    """The key of an operation with the attributes ``seed`` and ``seed2``: two uint32."""
    words = [(s & 0xFFFFFFFF) ^ ((s >> 32) * 0x85EBCA6B & 0xFFFFFFFF) for s in (seed, seed2)]
    return np.array(words, dtype=np.uint32)


def uniform(m: Any, bits: Bits, dtype: DType) -> Any:
    """A float in [0, 1): a multiple of the type's precision, every one as likely."""
    x0, x1 = bits
    if dtype is dtypes.float64:
        high = m.cast(m.fn("lshr", x0, 5), dtype)
        low = m.cast(m.fn("lshr", x1, 6), dtype)
        return m.fn("mul", m.fn("add", m.fn("mul", high, 2.0**26), low), 2.0**-53)
    keep = {dtypes.float16: 11, dtypes.bfloat16: 8}.get(dtype, 24)
    whole = m.cast(m.cast(m.fn("lshr", x0, 32 - keep), dtypes.int32), dtypes.float32)
    return m.cast(m.fn("mul", whole, 2.0**-keep), dtype)


def symmetric(m: Any, bits: Bits, dtype: DType) -> Any:
    """A float32 or float64 in (-1, 1), never 0, as likely as its negative."""
    x0, x1 = bits
    if dtype is dtypes.float64:
        high = m.fn("shl", m.cast(x0, dtypes.int64), 32)
        word = m.fn("or", high, m.cast(x1, dtypes.int64))
        return m.fn("mul", m.fn("add", m.cast(m.fn("ashr", word, 11), dtype), 0.5), 2.0**-52)
    word = m.fn("ashr", m.cast(x0, dtypes.int32), 8)
    return m.fn("mul", m.fn("add", m.cast(word, dtypes.float32), 0.5), 2.0**-23)


def normal(m: Any, bits: Bits, dtype: DType) -> Any:
    """A normally distributed float, by the inverse of the distribution function."""
    return m.cast(m.fn("mul", m.fn("erfinv", symmetric(m, bits, dtype)), math.sqrt(2)), dtype)


def truncated_normal(m: Any, bits: Bits, dtype: DType) -> Any:
    """A normally distributed float that is at most 2 away from 0."""
    inside = m.fn("mul", symmetric(m, bits, dtype), math.erf(math.sqrt(2)))
    value = m.fn("mul", m.fn("erfinv", inside), math.sqrt(2))
    return m.cast(m.fn("max", m.fn("min", value, 2.0), -2.0), dtype)


def uniform_int(m: Any, bits: Bits, low: Any, high: Any, dtype: DType) -> Any:
    """An integer in [low, high); the bias is below the range over 2**32 (2**64 for int64)."""
    x0, x1 = bits
    wide = dtypes.uint64
    if dtype is dtypes.int64:
        span = m.cast(m.fn("sub", high, low), wide)
        word = m.fn("or", m.fn("shl", m.cast(x0, wide), 32), m.cast(x1, wide))
        return m.fn("add", low, m.cast(m.fn("irem", word, span), dtype))
    span = m.cast(m.cast(m.fn("sub", high, low), dtypes.uint32), wide)
    offset = m.fn("lshr", m.fn("mul", m.cast(x0, wide), span), 32)
    return m.fn("add", low, m.cast(offset, dtype))
