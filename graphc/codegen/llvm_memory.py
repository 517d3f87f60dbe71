"""Loads and stores in LLVM text: one element, contiguous lanes, or gathers and scatters."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.codegen.llvm_index import LANE, Index, Indices
from graphc.codegen.llvm_text import TYPES, Emitter, Val, type_name
from graphc.codegen.llvm_turn import column
from graphc.dtypes import DType
from graphc.loop.ir import LINE_BYTES

NONTEMPORAL = "!2"
PREFETCH = "llvm.prefetch.p0"


@dataclass(eq=False, slots=True)
class Storage:
    """Where a buffer is.

    Attributes:
      pointer: the register of its address.
      dtype: of its elements.
      constant: a parameter that the kernel never stores to.
      local: an alloca, of ``size`` elements.
      private: how many lanes have a copy of their own; element i of lane l is at i * private + l.
      stamp: the time of the last store.
    """

    pointer: str
    dtype: DType
    constant: bool = False
    local: bool = False
    size: int = 0
    private: int = 0
    stamp: int = 0

    @property
    def ty(self) -> str:
        """The LLVM type in memory."""
        return "i8" if self.dtype.is_bool else TYPES[self.dtype.code]


class Memory:
    """Accesses to storage. A mask has a truth value for each lane of the open vectorized loop."""

    def __init__(self, e: Emitter, indices: Indices) -> None:
        self.e = e
        self.indices = indices
        self.streamed = False  # whether anything has been stored past the caches
        self._any: dict[str, Val] = {}

    # --- masks --------------------------------------------------------------------------------

    def note_any(self, mask: Val, value: Val) -> None:
        """Remember a cheap scalar that says whether any lane of ``mask`` holds."""
        self._any[mask.text] = value

    def any(self, mask: Val) -> Val:
        """Whether any lane holds."""
        found = self._any.get(mask.text)
        if found is not None:
            return found
        name = f"llvm.vector.reduce.or.v{mask.n}i1"
        return self.e.intrinsic(name, "i1", 0, mask, plain=True)

    def dummy(self) -> Val:
        """The address of eight bytes that may be read and written at will."""
        if "%dummy = alloca i64, align 8" not in self.e.allocas:
            self.e.allocas += ["%dummy = alloca i64, align 8", "store i64 0, ptr %dummy, align 8"]
        return Val("%dummy", "ptr")

    # --- places -------------------------------------------------------------------------------

    def place(self, st: Storage, ix: Index) -> Index:
        """The element's number in memory."""
        if not st.private:
            return ix
        scaled = self.indices.mul(ix, Index({}, st.private))
        return self.indices.add(scaled, Index({(LANE,): 1}))

    def address(self, st: Storage, ix: Index, shift: int = 0) -> Val:
        """The address of lane 0."""
        return self.indices.address(st.pointer, st.ty, ix.split()[0], ix.const + shift)

    def pointers(self, st: Storage, ix: Index) -> Val:
        """The addresses of all lanes, as a vector."""
        n = self.indices.width
        base = self.address(st, ix)
        if not ix.varies:
            return self.e.splat(base, n)
        lanes = self.indices.lanes(ix.split()[1], ix.vec)
        text = f"getelementptr {st.ty}, ptr {base.text}, {lanes.full}"
        # Not hoisted: LLVM sees the scalar base of a gather only in the same basic block, and
        # keeps vectors of addresses in registers, or in memory, where it does not.
        return self.e.here(text, "ptr", n, f"{text} {self.e.region.label}")

    def _whole(self, st: Storage, ix: Index) -> bool:
        """Whether all lanes of a contiguous access are memory of ours, whatever the mask."""
        if st.private:
            return True
        base = None if ix.split()[0] else ix.const
        return st.local and base is not None and 0 <= base <= st.size - self.indices.width

    def prefetch(self, st: Storage, ix: Index) -> None:
        """Ask for the line of the element (of lane 0), to be read, into every cache."""
        address = self.address(st, self.place(st, ix))
        self.e.declares[PREFETCH] = f"declare void @{PREFETCH}(ptr, i32, i32, i32)"
        self.e.line(f"call void @{PREFETCH}(ptr {address.text}, i32 0, i32 3, i32 1)")

    # --- loads --------------------------------------------------------------------------------

    def load(
        self, st: Storage, ix: Index, mask: Val | None = None, other: Val | None = None
    ) -> Val:
        """The elements at ``ix``; lanes without mask are not read and give ``other``, or zero."""
        if not ix.varies:
            return self._load_one(st, ix, mask, other)
        stride = ix.stride
        if stride in (1, -1):
            return self._load_lanes(st, ix, stride == -1, mask, other)
        tile = self._tile(st, ix) if mask is None else None
        if tile is not None:
            return self._register(st, tile)
        n = self.indices.width
        chosen = mask or self.e.splat(self.e.truth(True), n)
        args = (self.pointers(st, ix), chosen, self._passthru(st, other, n))
        return self._masked(st, "gather", args, n)

    def _tile(self, st: Storage, ix: Index) -> Val | None:
        """Every ``pitch``-th element of a local buffer: a column of a tile, turned in registers."""
        n, pitch = self.indices.width, ix.stride
        if not st.local or st.private or ix.split()[0] or pitch is None or pitch < n:
            return None
        number = ix.const % pitch % n
        first = ix.const - number
        whole = first >= 0 and first + (n - 1) * pitch + n <= st.size
        if n & (n - 1) or not whole:
            return None
        starts = (Index({}, first + row * pitch) for row in range(n))
        rows = [self._plain(st, self.address(st, start), n) for start in starts]
        return column(self.e, rows, st.dtype.size, number)

    def words(self, st: Storage, ix: Index, size: int) -> Val:
        """The integer of ``size`` bytes from ``ix`` on; in lanes, of bytes that follow those."""
        n = self.indices.width if ix.varies else 0
        ty = f"i{8 * size}"
        text = f"load {type_name(ty, n)}, ptr {self.address(st, ix).text}, align 1"
        if st.constant:
            text += ", !invariant.load !0"
        return self.e.here(text, ty, n, f"{text} {st.stamp}")

    def _load_one(self, st: Storage, ix: Index, mask: Val | None, other: Val | None) -> Val:
        address = self.address(st, ix)
        if mask is not None and not (st.local and ix.number is not None):
            address = self.e.choose(self.any(mask), address, self.dummy())
        v = self._register(st, self._plain(st, address, 0))
        return v if mask is None or other is None else self.e.choose(mask, v, other)

    def _plain(self, st: Storage, address: Val, n: int) -> Val:
        size = st.dtype.size
        text = f"load {type_name(st.ty, n)}, ptr {address.text}, align {size}"
        if st.constant:
            text += ", !invariant.load !0"
        return self.e.here(text, st.ty, n, f"{text} {st.stamp}")

    def _load_lanes(
        self, st: Storage, ix: Index, reverse: bool, mask: Val | None, other: Val | None
    ) -> Val:
        n = self.indices.width
        address = self.address(st, ix, 1 - n if reverse else 0)
        if mask is None or self._whole(st, ix):
            v = self._plain(st, address, n)
            v = self._register(st, self._reversed(v) if reverse else v)
            return v if mask is None or other is None else self.e.choose(mask, v, other)
        if reverse:
            mask = self._reversed(mask)
        zero = Val("zeroinitializer", st.ty, n)
        v = self._masked(st, "load", (address, mask, zero), n, raw=True)
        if other is not None:
            # LLVM 22 splits a load that is wider than a register wrongly if its mask is false in
            # a whole half and its passthru is not zero: it then loads that half without a mask.
            passthru = self._passthru(st, other, n)
            v = self.e.choose(mask, v, self._reversed(passthru) if reverse else passthru)
        return self._register(st, self._reversed(v) if reverse else v)

    def _passthru(self, st: Storage, other: Val | None, n: int) -> Val:
        if other is None:
            return Val("zeroinitializer", st.ty, n)
        return self._to_memory(self.e.splat(other, n))

    def _masked(
        self, st: Storage, kind: str, args: tuple[Val, Val, Val], n: int, *, raw: bool = False
    ) -> Val:
        pointer, mask, passthru = args
        head = self._masked_head(kind, st.ty, n, pointer, [mask, passthru])
        operands = f"{self._aligned(pointer, st)}, {mask.full}, {passthru.full}"
        text = f"call {head}({operands})"
        v = self.e.here(text, st.ty, n, f"{text} {st.stamp}")
        return v if raw else self._register(st, v)

    def _aligned(self, pointer: Val, st: Storage) -> str:
        return f"{type_name('ptr', pointer.n)} align {st.dtype.size} {pointer.text}"

    def _masked_head(self, kind: str, ty: str, n: int, pointer: Val, rest: list[Val]) -> str:
        short = {"float": "f32", "double": "f64"}.get(ty, ty)
        name = f"llvm.masked.{kind}.v{n}{short}.{f'v{n}p0' if pointer.n else 'p0'}"
        result = "void" if kind in ("store", "scatter") else type_name(ty, n)
        if name not in self.e.declares:
            pointers = type_name("ptr", pointer.n)
            others = [type_name(v.ty, v.n) for v in rest]
            order = [others[0], pointers, *others[1:]] if result == "void" else [pointers, *others]
            self.e.declares[name] = f"declare {result} @{name}({', '.join(order)})"
        return f"{result} @{name}"

    def _reversed(self, v: Val) -> Val:
        if v.text == "zeroinitializer" or v.text.startswith("splat"):
            return v
        if isinstance(v.const, tuple):
            return self.e.mask(v.const[::-1])
        return self.e.shuffle(v, None, range(v.n - 1, -1, -1))

    def _register(self, st: Storage, v: Val) -> Val:
        return self.e.compare("icmp ne", v, self.e.number(0, "i8")) if st.dtype.is_bool else v

    def _to_memory(self, v: Val) -> Val:
        return self.e.convert("zext", v, "i8") if v.ty == "i1" else v

    # --- stores -------------------------------------------------------------------------------

    def store(
        self, st: Storage, ix: Index, v: Val, mask: Val | None = None, streaming: bool = False
    ) -> None:
        """Store ``v`` in the lanes of the mask; of lanes with one place the last one counts."""
        v = self._to_memory(v)
        n = self.indices.width
        if not ix.varies:
            self._store_one(st, ix, v, mask)
        elif ix.stride in (1, -1):
            v = self.e.splat(v, n)
            if not (streaming and mask is None and ix.stride == 1 and self._stream(st, ix, v)):
                self._store_lanes(st, ix, v, mask, reverse=ix.stride == -1)
        else:
            self._scatter(st, ix, self.e.splat(v, n), mask)
        self.e.clock += 1
        st.stamp = self.e.clock

    def _store_one(self, st: Storage, ix: Index, v: Val, mask: Val | None) -> None:
        if mask is not None and v.n:
            return self._scatter(st, ix, v, mask)
        address = self.address(st, ix)
        if mask is not None:
            address = self.e.choose(self.any(mask), address, self.dummy())
        last = self.e.lane(v, v.n - 1)
        return self.e.line(f"store {last.full}, ptr {address.text}, align {st.dtype.size}")

    def _stream(self, st: Storage, ix: Index, v: Val) -> bool:
        """Store past the caches, if the place is aligned for it: the buffer is, to a line."""
        size = st.dtype.size
        terms = (size * c for c in (ix.const, *ix.split()[0].values()))
        alignment = math.gcd(LINE_BYTES, *terms)
        if alignment < min(self.e.target.vector_bytes, v.n * size):
            return False
        address = self.address(st, ix)
        self.e.line(
            f"store {v.full}, ptr {address.text}, align {alignment}, !nontemporal {NONTEMPORAL}"
        )
        self.streamed = True
        return True

    def _store_lanes(
        self, st: Storage, ix: Index, v: Val, mask: Val | None, *, reverse: bool
    ) -> None:
        start = 1 - v.n if reverse else 0
        address = self.address(st, ix, start)
        if reverse:
            v = self._reversed(v)
            mask = mask and self._reversed(mask)
        if mask is not None and self._whole(st, ix):
            v = self.e.choose(mask, v, self._plain(st, address, v.n))
            mask = None
        if mask is None:
            self.e.line(f"store {v.full}, ptr {address.text}, align {st.dtype.size}")
            return
        if isinstance(mask.const, tuple) and sum(mask.const) == 1:
            # LLVM makes this one store itself, but if it has joined a truncation with it, it
            # stores as many bytes as the value had before.
            lane = mask.const.index(True)
            one, place = self.e.lane(v, lane), self.address(st, ix, start + lane)
            self.e.line(f"store {one.full}, ptr {place.text}, align {st.dtype.size}")
            return
        head = self._masked_head("store", st.ty, v.n, address, [v, mask])
        self.e.line(f"call {head}({v.full}, {self._aligned(address, st)}, {mask.full})")

    def _scatter(self, st: Storage, ix: Index, v: Val, mask: Val | None) -> None:
        mask = mask or self.e.splat(self.e.truth(True), v.n)
        pointers = self.pointers(st, ix)
        head = self._masked_head("scatter", st.ty, v.n, pointers, [v, mask])
        self.e.line(f"call {head}({v.full}, {self._aligned(pointers, st)}, {mask.full})")

    def at(self, st: Storage, address: Val) -> Val:
        """The element at an address."""
        text = f"load {st.ty}, ptr {address.text}, align {st.dtype.size}"
        return self._register(st, self.e.here(text, st.ty, 0))

    def put(self, st: Storage, address: Val, v: Val) -> None:
        """Store one element at an address."""
        self.e.line(f"store {self._to_memory(v).full}, ptr {address.text}, align {st.dtype.size}")
        self.e.clock += 1
        st.stamp = self.e.clock
