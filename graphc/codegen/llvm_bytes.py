"""Words of four bytes in LLVM text: ``pack4`` of what lies side by side, ``dp4a`` by VPDPBUSD."""

from __future__ import annotations

from graphc.codegen.llvm_index import Index
from graphc.codegen.llvm_scalef import join, parts
from graphc.codegen.llvm_text import Emitter, Val


def dp4a(e: Emitter, a: Val, b: Val, c: Val) -> Val | None:
    """``c`` plus products of unsigned and signed bytes; None if it takes several instructions."""
    if not e.target.has_vnni:
        return None
    lanes = max(a.n, b.n, c.n)
    a, b, c = (e.splat(v, lanes or 4) for v in (a, b, c))
    if not lanes:
        return e.lane(_register(e, a, b, c), 0)
    pieces = [(_register(e, *some), count) for some, count in parts(e, (a, b, c), 4, 16)]
    return join(e, pieces)


def _register(e: Emitter, a: Val, b: Val, c: Val) -> Val:
    name = f"llvm.x86.avx512.vpdpbusd.{32 * c.n}"
    left, right = (
        e.pure(f"bitcast {v.full} to <{4 * v.n} x i8>", "i8", 4 * v.n, v.level) for v in (a, b)
    )
    return e.intrinsic(name, c.ty, c.n, c, left, right, plain=True)


def side_by_side(places: list[Index]) -> bool:
    """Whether four places follow each other, and each lane's follow those of the lane before."""
    first = places[0]
    if first.stride not in (0, 4):
        return False
    return all(
        p.vec is None and p.terms == first.terms and p.const == first.const + number
        for number, p in enumerate(places)
    )
