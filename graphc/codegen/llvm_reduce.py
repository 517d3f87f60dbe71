"""``Reduce`` in LLVM text: combining values, across lanes too."""

from __future__ import annotations

from graphc.codegen.llvm_index import Index
from graphc.codegen.llvm_memory import Memory, Storage
from graphc.codegen.llvm_ops import primitive
from graphc.codegen.llvm_text import Emitter, Val
from graphc.dtypes import DType
from graphc.loop.ir import reduce_identity


def neutral(e: Emitter, op: str, dtype: DType) -> Val:
    """What leaves every other value unchanged, the sign of zero included."""
    if op == "add" and dtype.is_floating:
        return e.const(-0.0, dtype)
    return e.const(reduce_identity(op, dtype).value, dtype)


def across(e: Emitter, op: str, dtype: DType, v: Val) -> Val:
    """All lanes combined: halves first, so that the order depends on their number alone."""
    if v.ty == "i1":
        name = f"llvm.vector.reduce.{op}.v{v.n}i1"
        return e.intrinsic(name, "i1", 0, v, plain=True)
    n = 1 << (v.n - 1).bit_length()
    if n != v.n:
        fill = e.splat(neutral(e, op, dtype), v.n)
        v = e.shuffle(v, fill, range(n))
    while n > 1:
        n //= 2
        low, high = e.shuffle(v, None, range(n)), e.shuffle(v, None, range(n, 2 * n))
        v = primitive(e, op, dtype, (low, high))
    return e.lane(v, 0)


class Reduction:
    """Prints ``Reduce`` for places in memory."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.e = memory.e
        self.indices = memory.indices

    def combines_lanes(self, st: Storage, ix: Index) -> bool:
        """Whether all lanes go to one place."""
        return self.indices.width > 0 and not ix.varies

    def may_collide(self, st: Storage, ix: Index) -> bool:
        """Whether lanes may go to the same place, but need not."""
        return ix.varies and not st.private and not ix.stride

    def horizontal(self, st: Storage, ix: Index, op: str, v: Val, mask: Val | None) -> None:
        """Combine all lanes, then the place in memory once."""
        v = self.e.splat(v, self.indices.width)
        if mask is not None:
            v = self.e.choose(mask, v, neutral(self.e, op, st.dtype))
        total = across(self.e, op, st.dtype, v)
        old = self.memory.load(st, ix, mask)
        new = primitive(self.e, op, st.dtype, (old, total))
        self.memory.store(st, ix, new, mask)

    def lane_by_lane(self, st: Storage, ix: Index, op: str, v: Val, mask: Val | None) -> None:
        """One lane after the other, because they may meet."""
        e = self.e
        pointers = self.memory.pointers(st, ix)
        v = e.splat(v, pointers.n)
        for i in range(pointers.n):
            address = e.lane(pointers, i)
            if mask is not None:
                address = e.choose(e.lane(mask, i), address, self.memory.dummy())
            old = self.memory.at(st, address)
            new = primitive(e, op, st.dtype, (old, e.lane(v, i)))
            self.memory.put(st, address, new)
