"""Words of four bytes in LLVM text: ``pack4`` of what lies side by side, ``dp4a`` by VPDPBUSD.

Likewise pairs of bfloat16: ``pack2``, and ``dot2`` by VDPBF16PS; and of int16: ``pack16``, and
``madd16`` by PMADDWD and an addition.
"""

from __future__ import annotations

from graphc.codegen.llvm_index import Index
from graphc.codegen.llvm_scalef import join, parts
from graphc.codegen.llvm_text import Emitter, Val

_MADD = {4: "sse2.pmadd.wd", 8: "avx2.pmadd.wd", 16: "avx512.pmaddw.d.512"}


def dp4a(e: Emitter, a: Val, b: Val, c: Val) -> Val | None:
    """``c`` plus products of unsigned and signed bytes; None if it takes several instructions."""
    return _dot(e, (a, b, c), "avx512.vpdpbusd", 4, "i8") if e.target.has_vnni else None


def dot2(e: Emitter, a: Val, b: Val, c: Val) -> Val | None:
    """``c`` plus products of two bfloat16; None if it takes several instructions."""
    return _dot(e, (a, b, c), "avx512bf16.dpbf16ps", 2, "bfloat") if e.target.has_bf16 else None


def madd16(e: Emitter, a: Val, b: Val, c: Val) -> Val | None:
    """``c`` plus products of two int16; None if it takes several instructions."""
    if not e.target.has_madd:
        return None
    n = max(v.n for v in (a, b, c))
    values = [e.splat(v, n or 4) for v in (a, b, c)]
    sums = [
        (e.binary("add", register[2], _madd(e, *register[:2])), size)
        for register, size in parts(e, values, 4, e.target.vector_bytes // 4)
    ]
    return join(e, sums) if n else e.lane(sums[0][0], 0)


def _madd(e: Emitter, a: Val, b: Val) -> Val:
    halves = [e.pure(f"bitcast {v.full} to <{2 * v.n} x i16>", "i16", 2 * v.n, v.level)
              for v in (a, b)]  # fmt: skip
    return e.intrinsic(f"llvm.x86.{_MADD[a.n]}", "i32", a.n, *halves, plain=True)


def widened(e: Emitter, v: Val, signed: bool) -> Val:
    """The int32 of the int16 that two 8-bit integers become, which lie in each int16 of ``v``."""
    count = 2 * max(v.n, 1)
    both = e.pure(f"bitcast {v.full} to <{count} x i8>", "i8", count, v.level)
    halves = e.convert("sext" if signed else "zext", both, "i16")
    text = f"bitcast {halves.full} to {f'<{v.n} x i32>' if v.n else 'i32'}"
    return e.pure(text, "i32", v.n, v.level)


def _dot(e: Emitter, values: tuple[Val, Val, Val], name: str, count: int, element: str) -> Val:
    """An instruction that adds products of ``count`` elements of every word, by registers."""
    lanes = max(v.n for v in values)
    values = tuple(e.splat(v, lanes or 4) for v in values)  # type: ignore[assignment]

    def register(a: Val, b: Val, c: Val) -> Val:
        left, right = (
            e.pure(
                f"bitcast {v.full} to <{count * v.n} x {element}>", element, count * v.n, v.level
            )
            for v in (a, b)
        )
        full = f"llvm.x86.{name}.{32 * c.n}"
        return e.intrinsic(full, c.ty, c.n, c, left, right, plain=True)

    if not lanes:
        return e.lane(register(*values), 0)
    return join(e, [(register(*some), size) for some, size in parts(e, values, 4, 16)])


def pack4(e: Emitter, values: list[Val]) -> Val | None:
    """Words of the bytes of four vectors, by shuffles; None where shifts are as good."""
    lanes = values[0].n
    if not e.target.has_avx512 or lanes % 16 or lanes == 0 or any(v.n != lanes for v in values):
        return None
    words = []
    for start in range(0, lanes, 16):
        parts = [e.shuffle(v, None, range(start, start + 16)) if lanes > 16 else v for v in values]
        low, high = (e.shuffle(a, b, range(32)) for a, b in (parts[:2], parts[2:]))
        mixed = e.shuffle(low, high, [16 * byte + lane for lane in range(16) for byte in range(4)])
        text = f"bitcast {mixed.full} to <16 x i32>"
        words.append((e.pure(text, "i32", 16, mixed.level), 16))
    return join(e, words)


def side_by_side(places: list[Index]) -> bool:
    """Whether the places follow each other, and each lane's follow those of the lane before."""
    first = places[0]
    if first.stride not in (0, len(places)):
        return False
    return all(
        p.vec is None and p.terms == first.terms and p.const == first.const + number
        for number, p in enumerate(places)
    )
