"""Writing LLVM text: values, regions of text that hoist what is invariant, value numbering.

A *region* is the text of a loop body, of one side of a branch, or of the function; it stays open
while what is in it is printed.  A pure instruction goes to the outermost open region in front of
the loops it is invariant in, so that loop-invariant code never enters a loop.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Protocol

from graphc.dtypes import DType

TYPES = {"f16": "i16", "bf16": "i16", "f32": "float", "f64": "double", "b1": "i1"} | {
    f"{sign}{bits}": f"i{bits}" for sign in "iu" for bits in (8, 16, 32, 64)
}
"""The register type of each dtype. Floats of 16 bits live as their bits: see ``llvm_cast``."""

_SUFFIX = {"float": "f32", "double": "f64", "ptr": "p0"}


class Target(Protocol):
    """What the printer must know of the machine."""

    @property
    def vector_bytes(self) -> int:
        """Bytes of the widest vector register."""

    @property
    def has_fma(self) -> bool:
        """Whether there are fused multiply-adds (and roundings to integers)."""

    @property
    def has_f16c(self) -> bool:
        """Whether there are conversions of float16."""

    @property
    def has_avx512(self) -> bool:
        """Whether there is AVX-512 F, BW, CD, DQ and VL."""

    @property
    def has_vnni(self) -> bool:
        """Whether there are dot products of four bytes, AVX-512 VNNI."""

    @property
    def has_bf16(self) -> bool:
        """Whether there are dot products of two bfloat16, AVX-512 BF16."""

    @property
    def has_madd(self) -> bool:
        """Whether there are dot products of two int16: on every x86, PMADDWD."""


class Val:
    """An LLVM operand: ``n`` lanes (0: a scalar) of ``ty``, defined at region depth ``level``.

    ``const`` is the number that a constant stands for.
    """

    __slots__ = ("const", "level", "n", "text", "ty")

    def __init__(self, text: str, ty: str, n: int = 0, level: int = 0, const: Any = None) -> None:
        self.text = text
        self.ty = ty
        self.n = n
        self.level = level
        self.const = const

    @property
    def full(self) -> str:
        """The type and the operand."""
        return f"<{self.n} x {self.ty}> {self.text}" if self.n else f"{self.ty} {self.text}"


class Region:
    """Text that is still being written, from block ``first``; ``label`` is the block at its end."""

    __slots__ = ("alive", "depth", "first", "hoist", "label", "lines", "scope")

    def __init__(self, label: str, depth: int, hoist: list[int], scope: int) -> None:
        self.lines: list[str] = []
        self.first = self.label = label
        self.depth = depth
        self.hoist = hoist
        self.scope = scope
        self.alive = True


def type_name(ty: str, n: int) -> str:
    """The LLVM type of ``n`` lanes of ``ty``."""
    return f"<{n} x {ty}>" if n else ty


def float_bits(value: float) -> str:
    """A float or double literal: LLVM wants the bits of the double in both cases."""
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def signed(value: int, bits: int) -> int:
    """``value`` modulo 2**bits, as a signed number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


class Emitter:
    """The text of one function under construction."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.allocas: list[str] = []
        self.cold: list[str] = []
        self.declares: dict[str, str] = {}
        self.count = 0
        self.clock = 0
        self.regions = [Region("entry", 0, [0], 0)]
        self.region = self.regions[0]
        self.conditional = [0]  # for each open region, the depth of the innermost branch
        self._numbers: dict[str, tuple[Val, Region]] = {}
        self._consts: dict[tuple[str, Any], Val] = {}

    # --- regions ------------------------------------------------------------------------------

    def label(self) -> str:
        """A fresh block label."""
        self.count += 1
        return f"b{self.count}"

    def open(self, label: str, scope: int, *, loop: bool) -> Region:
        """Begin the text of a loop body or of a branch's side."""
        top = self.region
        depth = top.depth + 1
        hoist = list(top.hoist)
        if not loop:  # what no loop separates from here stays in the branch
            hoist = [depth if t == top.depth else t for t in hoist]
        hoist.append(depth)
        region = Region(label, depth, hoist, scope)
        self.conditional.append(self.conditional[-1] if loop else depth)
        self.regions.append(region)
        self.region = region
        return region

    def close(self) -> Region:
        """End the innermost region; its text is the caller's to place."""
        region = self.regions.pop()
        self.conditional.pop()
        region.alive = False
        self.region = self.regions[-1]
        return region

    def reopen(self, region: Region) -> None:
        """Go on with a region that was closed just now and not placed yet."""
        region.alive = True
        self.regions.append(region)
        self.conditional.append(region.depth)
        self.region = region

    def line(self, text: str) -> None:
        """An instruction without a result, here."""
        self.region.lines.append("  " + text)

    def start(self, label: str) -> None:
        """Begin a basic block here."""
        self.region.lines.append(label + ":")
        self.region.label = label

    # --- instructions -------------------------------------------------------------------------

    def pure(self, text: str, ty: str, n: int, level: int) -> Val:
        """A pure instruction over operands of ``level``: hoisted, and written once."""
        found = self._numbers.get(text)
        if found is not None and found[1].alive:
            return found[0]
        region = self.regions[self.region.hoist[level]]
        self.count += 1
        name = f"%v{self.count}"
        region.lines.append(f"  {name} = {text}")
        value = Val(name, ty, n, region.depth)
        self._numbers[text] = (value, region)
        return value

    def costly(self, text: str, ty: str, n: int, level: int) -> Val:
        """A pure instruction that is not worth computing where a condition may forbid it."""
        return self.pure(text, ty, n, max(level, self.conditional[-1]))

    def here(self, text: str, ty: str, n: int, key: str | None = None) -> Val:
        """An instruction that stays where it is; written once for one ``key``."""
        if key is not None:
            found = self._numbers.get(key)
            if found is not None and found[1].alive:
                return found[0]
        self.count += 1
        name = f"%v{self.count}"
        self.region.lines.append(f"  {name} = {text}")
        value = Val(name, ty, n, self.region.depth)
        if key is not None:
            self._numbers[key] = (value, self.region)
        return value

    def const(self, value: Any, dtype: DType) -> Val:
        """A literal of a dtype."""
        if dtype.is_floating:
            return self._float(value, dtype)
        if dtype.is_bool:
            return self.truth(bool(value))
        return self.number(int(value), TYPES[dtype.code])

    def _float(self, value: float, dtype: DType) -> Val:
        ty = TYPES[dtype.code]
        if dtype.size == 2:
            bits = int.from_bytes(dtype.as_numpy_dtype(value).tobytes(), "little")
            return Val(str(signed(bits, 16)), ty)
        return self.real(value, ty)

    def real(self, value: float, ty: str) -> Val:
        """A literal of type float or double."""
        return Val(float_bits(value), ty, 0, 0, value)

    def number(self, value: int, ty: str) -> Val:
        """A literal of an integer type."""
        found = self._consts.get((ty, value))
        if found is None:
            number = signed(value, int(ty[1:]))
            found = self._consts[ty, value] = Val(str(number), ty, 0, 0, number)
        return found

    def truth(self, value: bool) -> Val:
        """A literal of type i1."""
        return Val("true" if value else "false", "i1", 0, 0, value)

    def mask(self, lanes: Sequence[bool]) -> Val:
        """A literal mask; its ``const`` is the lanes."""
        text = f"<{', '.join(f'i1 {int(some)}' for some in lanes)}>"
        return Val(text, "i1", len(lanes), 0, tuple(lanes))

    def splat(self, v: Val, n: int) -> Val:
        """A scalar in every lane."""
        if v.n == n:
            return v
        ty = v.ty
        if v.text[0] != "%":
            return self._literal(v, n)
        first = self.pure(
            f"insertelement <{n} x {ty}> poison, {ty} {v.text}, i64 0", ty, n, v.level
        )
        return self.pure(
            f"shufflevector <{n} x {ty}> {first.text}, <{n} x {ty}> poison, "
            f"<{n} x i32> zeroinitializer",
            ty,
            n,
            v.level,
        )

    def _literal(self, v: Val, n: int) -> Val:
        key = (v.full, n)
        found = self._consts.get(key)
        if found is None:
            text = f"splat ({v.ty} {v.text})"
            found = self._consts[key] = Val(text, v.ty, n, 0, v.const)
        return found

    def match(self, *vals: Val) -> tuple[Val, ...]:
        """The operands with as many lanes as the widest of them."""
        n = max([v.n for v in vals])
        return tuple([v if v.n == n else self.splat(v, n) for v in vals])

    def binary(self, op: str, a: Val, b: Val) -> Val:
        """``op`` of two operands of one type."""
        n = a.n
        if n != b.n:
            n = max(n, b.n)
            a, b = self.splat(a, n), self.splat(b, n)
        level = a.level if a.level > b.level else b.level
        ty = a.ty
        full = f"<{n} x {ty}>" if n else ty
        return self.pure(f"{op} {full} {a.text}, {b.text}", ty, n, level)

    def compare(self, op: str, a: Val, b: Val) -> Val:
        """``op`` (an icmp or fcmp with its predicate) as i1."""
        if a.n != b.n:
            a, b = self.match(a, b)
        level = a.level if a.level > b.level else b.level
        return self.pure(f"{op} {a.full}, {b.text}", "i1", a.n, level)

    def choose(self, cond: Val, a: Val, b: Val) -> Val:
        """``a`` where ``cond``, else ``b``."""
        if isinstance(cond.const, bool):
            return a if cond.const else b
        if cond.n:
            cond, a, b = self.match(cond, a, b)
        elif a.n != b.n:
            a, b = self.match(a, b)
        level = max(cond.level, a.level, b.level)
        return self.pure(f"select {cond.full}, {a.full}, {b.full}", a.ty, a.n, level)

    def convert(self, op: str, v: Val, ty: str) -> Val:
        """``op`` (trunc, sext, fpext, bitcast, ...) to another type of as many lanes."""
        return self.pure(f"{op} {v.full} to {type_name(ty, v.n)}", ty, v.n, v.level)

    def convert_bits(self, mask: Val) -> Val:
        """The lanes of a mask as the bits of one integer."""
        ty = f"i{mask.n}"
        return self.pure(f"bitcast {mask.full} to {ty}", ty, 0, mask.level)

    def shuffle(self, a: Val, b: Val | None, lanes: Sequence[int]) -> Val:
        """The given lanes of ``a`` followed by ``b``; -1 for a lane that does not matter."""
        full = type_name(a.ty, a.n)
        picks = ", ".join("i32 poison" if i < 0 else f"i32 {i}" for i in lanes)
        n = len(lanes)
        other = b.text if b is not None else "poison"
        level = max(a.level, b.level) if b is not None else a.level
        text = f"shufflevector {full} {a.text}, {full} {other}, <{n} x i32> <{picks}>"
        return self.pure(text, a.ty, n, level)

    def lane(self, v: Val, i: int) -> Val:
        """Lane ``i`` as a scalar."""
        if not v.n:
            return v
        return self.pure(f"extractelement {v.full}, i64 {i}", v.ty, 0, v.level)

    def vector(self, values: Sequence[int], ty: str) -> Val:
        """A literal vector of integers."""
        return Val(f"<{', '.join(f'{ty} {v}' for v in values)}>", ty, len(values))

    def intrinsic(self, name: str, ty: str, n: int, *args: Val, plain: bool = False) -> Val:
        """A pure intrinsic; its name gets the type's suffix unless ``plain``."""
        head = self.signature(name, ty, n, args, plain=plain)
        level = max(a.level for a in args)
        return self.pure(f"call {head}({', '.join(a.full for a in args)})", ty, n, level)

    def signature(
        self, name: str, ty: str, n: int, args: Sequence[Val], *, plain: bool = False
    ) -> str:
        """The declared result type and name of an intrinsic."""
        if not plain:
            name = f"{name}.{suffix(ty, n)}"
        result = type_name(ty, n)
        if name not in self.declares:
            types = ", ".join(type_name(a.ty, a.n) for a in args)
            self.declares[name] = f"declare {result} @{name}({types})"
        return f"{result} @{name}"


def suffix(ty: str, n: int) -> str:
    """The mangled name of a type in an intrinsic's name."""
    scalar = _SUFFIX.get(ty, ty)
    return f"v{n}{scalar}" if n else scalar
