"""Index arithmetic while printing: int64 values as polynomials over scalar registers.

Keeping sums and products symbolic lets constant offsets end up in addresses, lets each loop add
only what changes in it, and shows how an index depends on the lane of a vectorized loop: lanes
are never materialised for contiguous accesses.
"""

from __future__ import annotations

import math

from graphc.codegen.llvm_text import Emitter, Region, Val, signed

LANE = "%lane"
"""The lane number, as an atom of polynomials. It is never printed."""

_HUGE = 1 << 62
_MOST_TERMS = 12
Mono = tuple[str, ...]
Sum = tuple[str, frozenset[tuple[Mono, int]]]


class Index:
    """``const + sum(coefficient * product of atoms) + vec``, modulo 2**64.

    Atoms are names of scalar registers, and ``LANE``; ``vec`` is what depends on the lane in any
    other way.
    """

    __slots__ = ("_parts", "const", "level", "terms", "vec")

    def __init__(
        self, terms: dict[Mono, int], const: int = 0, vec: Val | None = None, level: int = 0
    ) -> None:
        self.terms = terms
        self.const = const
        self.vec = vec
        self.level = level  # of the region in which all of it is defined
        self._parts: tuple[dict[Mono, int], dict[Mono, int]] | None = None

    @property
    def number(self) -> int | None:
        """The value, when it is a constant."""
        return self.const if not self.terms and self.vec is None else None

    @property
    def varies(self) -> bool:
        """Whether it depends on the lane."""
        return self.vec is not None or bool(self.split()[1])

    def split(self) -> tuple[dict[Mono, int], dict[Mono, int]]:
        """The terms without the lane, and the terms of the lane's coefficient."""
        if self._parts is None:
            self._parts = self._split()
        return self._parts

    def _split(self) -> tuple[dict[Mono, int], dict[Mono, int]]:
        uniform: dict[Mono, int] = {}
        lane: dict[Mono, int] = {}
        for mono, coef in self.terms.items():
            if LANE in mono:
                lane[tuple(a for a in mono if a != LANE)] = coef
            else:
                uniform[mono] = coef
        return uniform, lane

    @property
    def stride(self) -> int | None:
        """What one lane adds, when that is a constant and all there is."""
        lane = self.split()[1]
        if self.vec is not None or len(lane) > 1:
            return None
        return lane.get(()) if lane else 0


class Indices:
    """Index arithmetic over an emitter. ``width`` is the extent of the open vectorized loop."""

    def __init__(self, e: Emitter) -> None:
        self.e = e
        self.width = 0
        self.levels: dict[str, int] = {LANE: 0}
        self.ranges: dict[str, tuple[int, int]] = {}
        self._sums: dict[Sum, tuple[Val, Region]] = {}

    def of(self, v: Val) -> Index:
        """An i64 operand as an Index."""
        if v.n:
            return Index({}, 0, v, v.level)
        if v.const is not None:
            return Index({}, v.const)
        self.levels[v.text] = v.level
        return Index({(v.text,): 1}, 0, None, v.level)

    def atom(self, name: str, level: int, low: int = -_HUGE, high: int = _HUGE) -> Index:
        """A named register as an Index, with the range it is known to be in."""
        self.levels[name] = level
        self.ranges[name] = (low, high)
        return Index({(name,): 1}, 0, None, level)

    # --- arithmetic ---------------------------------------------------------------------------

    def add(self, a: Index, b: Index, sign: int = 1) -> Index:
        """``a + sign * b``."""
        if not b.terms and b.vec is None:
            return Index(a.terms, a.const + sign * b.const, a.vec, a.level)
        terms = dict(a.terms)
        for mono, coef in b.terms.items():
            total = terms.get(mono, 0) + sign * coef
            if total:
                terms[mono] = total
            else:
                terms.pop(mono, None)
        vec = a.vec
        if b.vec is not None:
            op, left = ("add", vec) if sign > 0 else ("sub", vec or self.e.number(0, "i64"))
            vec = b.vec if left is None else self.e.binary(op, left, b.vec)
        return self._bounded(Index(terms, a.const + sign * b.const, vec, max(a.level, b.level)))

    def mul(self, a: Index, b: Index) -> Index:
        """``a * b``."""
        if a.number is not None:
            a, b = b, a
        if b.number is not None:
            return self._scale(a, b.number)
        if a.varies and b.varies:
            return self.of(self.e.binary("mul", self.value(a), self.value(b)))
        if b.varies:
            a, b = b, a
        if a.vec is not None:
            product = self.e.binary("mul", a.vec, self.value(b))
            rest = self.mul(Index(a.terms, a.const, None, a.level), b)
            return Index(rest.terms, rest.const, product, max(rest.level, product.level))
        if (len(a.terms) + 1) * (len(b.terms) + 1) > _MOST_TERMS and not a.varies:
            return self.of(self.e.binary("mul", self.value(a), self.value(b)))
        return self._bounded(self._product(a, b))

    def _product(self, a: Index, b: Index) -> Index:
        terms: dict[Mono, int] = {}
        for x, p in [*a.terms.items(), ((), a.const)]:
            for y, q in [*b.terms.items(), ((), b.const)]:
                mono = tuple(sorted(x + y))
                terms[mono] = terms.get(mono, 0) + p * q
        const = terms.pop((), 0)
        return Index({m: c for m, c in terms.items() if c}, const, None, max(a.level, b.level))

    def _scale(self, a: Index, by: int) -> Index:
        if by == 0:
            return Index({})
        vec = a.vec
        if vec is not None and by != 1:
            vec = self.e.binary("mul", vec, self.e.number(by, "i64"))
        return Index({m: c * by for m, c in a.terms.items()}, a.const * by, vec, a.level)

    def _bounded(self, ix: Index) -> Index:
        if len(ix.terms) <= _MOST_TERMS:
            return ix
        uniform, lane = ix.split()
        short = self.of(self.total(uniform, 0))
        for mono, coef in lane.items():
            short.terms[tuple(sorted((*mono, LANE)))] = coef
        return Index(short.terms, short.const + ix.const, ix.vec, max(short.level, ix.level))

    # --- ranges -------------------------------------------------------------------------------

    def bounds(self, ix: Index) -> tuple[int, int]:
        """Limits of the value; far out where nothing is known."""
        if ix.vec is not None:
            return -_HUGE, _HUGE
        return self._bounds(ix.terms, ix.const)

    def _bounds(self, terms: dict[Mono, int], const: int) -> tuple[int, int]:
        low = high = const
        for mono, coef in terms.items():
            least, most = 1, 1
            for name in mono:
                a, b = self.ranges.get(name, (-_HUGE, _HUGE))
                if name == LANE:
                    a, b = 0, self.width - 1
                if a < 0:
                    return -_HUGE, _HUGE
                least, most = least * a, min(most * b, _HUGE)
            ends = (least * coef, most * coef)
            low, high = low + min(ends), high + max(ends)
        return max(low, -_HUGE), min(high, _HUGE)

    def divmod(self, ix: Index, by: int) -> tuple[Index, Index] | None:
        """Quotient and remainder of a value that is not negative, without lanes where possible.

        ``by`` is positive.  With ``g`` dividing ``by`` and ``0 <= small < g``,
        ``(g * x + small) // by == x // (by // g)``.
        """
        if ix.vec is not None or self.bounds(ix)[0] < 0:
            return None
        order = sorted(ix.terms.items(), key=lambda t: (abs(t[1]), t[0]))
        found: tuple[Index, Index, int] | None = None
        for count in range(len(order) + 1):
            small = dict(order[:count])
            rest = dict(order[count:])
            g = math.gcd(by, *rest.values())
            low, high = self._bounds(small, ix.const % g)
            if low >= 0 and high < g:
                wide = Index({m: c // g for m, c in rest.items()}, ix.const // g, None, ix.level)
                found = wide, Index(small, ix.const % g, None, ix.level), g
                if not wide.varies:
                    break
        return self._divided(found[0], by // found[2], *found[1:]) if found else None

    def _divided(self, x: Index, by: int, small: Index, g: int) -> tuple[Index, Index]:
        if by == 1:
            return x, small
        if x.varies:
            return self._lane_division(x, by, small, g)
        if x.number is not None:
            return Index({}, x.number // by), self.add(Index({}, x.number % by * g), small)
        v, d = self.value(x), self.e.number(by, "i64")
        q = self.of(self.e.costly(f"udiv i64 {v.text}, {d.text}", "i64", 0, v.level))
        self._note_quotient(q, x, by)
        rest = self.add(x, self._scale(q, by), -1)
        r = self.of(self.value(rest))
        self._note_range(r, 0, by - 1)
        return q, self.add(self._scale(r, g), small)

    def _note_quotient(self, q: Index, x: Index, by: int) -> None:
        low, high = self.bounds(x)
        self._note_range(q, low // by, high // by)

    def _note_range(self, ix: Index, low: int, high: int) -> None:
        for mono in ix.terms:
            self.ranges[mono[0]] = (low, high)

    def _lane_division(self, x: Index, by: int, small: Index, g: int) -> tuple[Index, Index]:
        v = self.value(x)
        narrow = self.bounds(x)[1] < 1 << 31
        if narrow:  # 64-bit lanes have no high product
            v = self.e.convert("trunc", v, "i32")
        d = self.e.splat(self.e.number(by, v.ty), v.n)
        q = self.e.costly(f"udiv {v.full}, {d.text}", v.ty, v.n, v.level)
        r = self.e.binary("sub", v, self.e.binary("mul", q, d))
        if narrow:
            q, r = self.e.convert("zext", q, "i64"), self.e.convert("zext", r, "i64")
        return self.of(q), self.add(self._scale(self.of(r), g), small)

    def simplified(self, fn: str, xs: list[Index]) -> Index | None:
        """``fn`` of int64 values where that is an Index without an instruction, or a better one."""
        if fn == "neg":
            return self._scale(xs[0], -1)
        if fn in ("idiv", "irem", "floordiv", "floormod"):
            by = xs[1].number
            found = self.divmod(xs[0], by) if by is not None and by > 0 else None
            return found and found[fn in ("irem", "floormod")]
        if fn in ("min", "max"):
            low, high = self.bounds(self.add(xs[0], xs[1], -1))
            if low >= 0 or high <= 0:
                return xs[(low >= 0) == (fn == "min")]
        return None

    # --- text ---------------------------------------------------------------------------------

    def value(self, ix: Index) -> Val:
        """The operand: a scalar where all lanes agree, else a vector."""
        if not ix.varies:
            return self.total(ix.terms, ix.const)
        uniform, lane = ix.split()
        base = self.total(uniform, ix.const)
        vec = self.lanes(lane, ix.vec)
        if base.const == 0:
            return vec
        return self.e.binary("add", vec, base)

    def lanes(self, coefficient: dict[Mono, int], vec: Val | None) -> Val:
        """``coefficient * lane + vec`` as a vector."""
        part: Val | None = None
        if set(coefficient) == {()}:
            step = coefficient[()]
            part = self.e.vector([signed(i * step, 64) for i in range(self.width)], "i64")
        elif coefficient:
            iota = self.e.vector(range(self.width), "i64")
            part = self.e.binary("mul", self.total(coefficient, 0), iota)
        if part is None or vec is None:
            found = part or vec
            assert found is not None
            return found
        return self.e.binary("add", vec, part)

    def groups(self, terms: dict[Mono, int]) -> list[tuple[int, list[tuple[Mono, int]]]]:
        """The terms by the depth of the region in which they change, outermost first."""
        levels = self.levels
        found: dict[int, list[tuple[Mono, int]]] = {}
        for item in terms.items():
            depth = max([levels[name] for name in item[0]], default=0)
            found.setdefault(depth, []).append(item)
        return [(depth, sorted(found[depth])) for depth in sorted(found)]

    def total(self, terms: dict[Mono, int], const: int) -> Val:
        """A sum without lanes as a scalar, summed from the outermost region inwards."""
        if () in terms:
            const += terms[()]
            terms = {m: c for m, c in terms.items() if m}
        if not terms:
            return self.e.number(const, "i64")
        key = ("", frozenset(terms.items()))
        found = self._sums.get(key)
        if found is None or not found[1].alive:
            total: Val | None = None
            for _, items in self.groups(terms):
                for mono, coef in items:
                    part = self._monomial(mono, coef)
                    total = part if total is None else self.e.binary("add", total, part)
            assert total is not None
            found = self._sums[key] = (total, self.e.regions[total.level])
        return self.e.binary("add", found[0], self.e.number(const, "i64")) if const else found[0]

    def _monomial(self, mono: Mono, coef: int) -> Val:
        names = sorted(mono, key=lambda name: (self.levels[name], name))
        part = Val(names[0], "i64", 0, self.levels[names[0]])
        for name in names[1:]:
            part = self.e.binary("mul", part, Val(name, "i64", 0, self.levels[name]))
        if coef != 1:
            part = self.e.binary("mul", part, self.e.number(coef, "i64"))
        return part

    def address(self, pointer: str, ty: str, terms: dict[Mono, int], const: int) -> Val:
        """The address of element ``terms + const``: what is outermost is added first."""
        key = (pointer, frozenset(terms.items()))
        found = self._sums.get(key)
        if found is None or not found[1].alive:
            here = Val(pointer, "ptr")
            for _, items in self.groups(terms):
                here = self._element(ty, here, self.total(dict(items), 0))
            found = self._sums[key] = (here, self.e.regions[here.level])
        if const:
            return self._element(ty, found[0], self.e.number(const, "i64"))
        return found[0]

    def _element(self, ty: str, base: Val, offset: Val) -> Val:
        text = f"getelementptr {ty}, ptr {base.text}, i64 {offset.text}"
        return self.e.pure(text, "ptr", 0, max(base.level, offset.level))
