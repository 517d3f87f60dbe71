"""Comparisons of int64 values in LLVM text: decided while printing, or cheap masks of lanes."""

from __future__ import annotations

from graphc.codegen.llvm_index import LANE, Index, Indices
from graphc.codegen.llvm_memory import Memory
from graphc.codegen.llvm_ops import invert
from graphc.codegen.llvm_text import Emitter, Val

_SWAPPED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


class Comparisons:
    """Compares int64 values of one kernel."""

    def __init__(self, e: Emitter, indices: Indices, memory: Memory) -> None:
        self.e = e
        self.indices = indices
        self.memory = memory

    def of(self, fn: str, a: Index, b: Index) -> Val:
        """``fn`` of two int64 values."""
        if self._exact(a) and self._exact(b):
            difference = self.indices.add(a, b, -1)
            decided = self._decided(fn, *self.indices.bounds(difference))
            if decided is not None:
                return self.e.truth(decided)
            uniform, lane = difference.split()
            if difference.varies and not uniform and set(lane) == {()}:
                step, start = lane[()], difference.const
                values = [start + step * i for i in range(self.indices.width)]
                return self.e.mask([self._decided(fn, v, v) is True for v in values])
            if fn in _SWAPPED and difference.stride in (1, -1):
                return self._lanes(fn, difference)
        x, y = self.indices.value(a), self.indices.value(b)
        sign = "" if fn in ("eq", "ne") else "s"
        return self.e.compare(f"icmp {sign}{fn}", x, y)

    def _exact(self, ix: Index) -> bool:
        """Whether it is made of loop variables and sizes alone, which do not overflow."""
        known = self.indices.ranges
        return ix.vec is None and all(
            name in known or name == LANE for mono in ix.terms for name in mono
        )

    def _decided(self, fn: str, low: int, high: int) -> bool | None:
        """Whether a difference in the limits is negative, zero, ...; None: it depends."""
        yes, no = {
            "lt": (high < 0, low >= 0),
            "le": (high <= 0, low > 0),
            "gt": (low > 0, high <= 0),
            "ge": (low >= 0, high < 0),
            "eq": (low == high == 0, low > 0 or high < 0),
            "ne": (low > 0 or high < 0, low == high == 0),
        }[fn]
        return True if yes else False if no else None

    def _lanes(self, fn: str, difference: Index) -> Val:
        """Where ``rest + lane`` (or ``- lane``) is less than zero, ...: a range of lanes."""
        uniform, lane = difference.split()
        rest = Index(uniform, difference.const, None, difference.level)
        if lane[()] < 0:  # rest - lane < 0 is lane - rest > 0
            fn = _SWAPPED[fn]
        else:
            rest = self.indices.add(Index({}), rest, -1)
        if fn in ("le", "gt"):
            rest = self.indices.add(rest, Index({}, 1))
        below = self._below(rest)
        return below if fn in ("lt", "le") else self._inverse(below, rest)

    def _below(self, limit: Index) -> Val:
        """The lanes with a number less than ``limit``, compared in small integers."""
        n = self.indices.width
        low, high = self.indices.bounds(limit)
        if low >= n:
            return self.e.truth(True)
        if high <= 0:
            return self.e.truth(False)
        v = self.indices.value(limit)
        if v.const is not None:
            return self.e.mask([i < v.const for i in range(n)])
        clamped = v
        if high > n:
            clamped = self.e.intrinsic("llvm.smin", "i64", 0, clamped, self.e.number(n, "i64"))
        if low < 0:
            clamped = self.e.intrinsic("llvm.smax", "i64", 0, clamped, self.e.number(0, "i64"))
        ty = self._small(n)
        count = self.e.convert("trunc", clamped, ty)
        mask = self.e.compare("icmp ugt", count, self.e.vector(range(n), ty))
        self.memory.note_any(mask, self.e.compare("icmp sgt", v, self.e.number(0, "i64")))
        return mask

    def _small(self, n: int) -> str:
        """The integer type to compare lane numbers in."""
        if self.e.target.has_avx512:
            bits = 32 if n <= 16 else 16 if n <= 32 else 8
        else:
            bits = min(32, max(8, self.e.target.vector_bytes * 8 // n))
        return f"i{1 << (max(bits, (n + 1).bit_length()) - 1).bit_length()}"

    def _inverse(self, below: Val, limit: Index) -> Val:
        mask = invert(self.e, below)
        if mask.n and mask.text[0] == "%":
            v = self.indices.value(limit)
            some = self.e.compare("icmp slt", v, self.e.number(self.indices.width, "i64"))
            self.memory.note_any(mask, some)
        return mask
