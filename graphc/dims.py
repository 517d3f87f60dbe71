"""Symbolic sizes: integers, symbols and expressions of them.

A size is a Python ``int`` wherever it is known; otherwise it is a :class:`Dim`, a polynomial with
integer coefficients over *atoms*: symbols (a ``None`` of a placeholder) and the functions
``floordiv``, ``mod``, ``max`` and ``min`` of two sizes.  Polynomials are kept in one canonical
form, so that two sizes that are equal as polynomials compare equal, and an expression that turns
out constant becomes an ``int`` again.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

_NUMBER = re.compile(r"\d+")


def in_order(size: object) -> str:
    """By what sizes and symbols are put in order: their text, ``d9`` before ``d10``."""
    return _NUMBER.sub(lambda found: found[0].zfill(9), str(size))


@dataclass(frozen=True, slots=True)
class Symbol:
    """A size that is bound when a program runs.

    Attributes:
      name: unique within one graph or program.
      positive: True for sizes (never negative); False for numbers read out of a tensor, which
        may have either sign.
    """

    name: str
    positive: bool = True
    sort_key: str = field(init=False, repr=False, compare=False)
    """A stable order of atoms in polynomials: that in which symbols were made."""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sort_key", in_order(self.name))
        object.__setattr__(self, "_hash", hash((self.name, self.positive)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        # Texts have another hash in another process.
        return Symbol, (self.name, self.positive)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Func:
    """``floordiv``, ``mod``, ``max`` or ``min`` of two sizes, as one opaque atom."""

    fn: str
    a: DimLike
    b: DimLike
    sort_key: str = field(init=False, repr=False, compare=False)
    """A stable order of atoms in polynomials."""

    def __post_init__(self) -> None:
        # Kept: every sum and product of sizes is put in order by it.
        object.__setattr__(self, "sort_key", f"~{in_order(self)}")

    def __hash__(self) -> int:
        return hash(self.sort_key)

    def __str__(self) -> str:
        if self.fn == "floordiv":
            return f"({self.a}) // ({self.b})"
        if self.fn == "mod":
            return f"({self.a}) % ({self.b})"
        return f"{self.fn}({self.a}, {self.b})"


Atom = Symbol | Func
Monomial = tuple[Atom, ...]
DimLike = Union[int, "Dim"]


class Dim:
    """A size that is not known yet: a canonical polynomial over symbols and functions."""

    __slots__ = ("_hash", "_symbols", "_text", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)
        self._symbols: frozenset[Symbol] | None = None
        self._text: str | None = None

    @staticmethod
    def symbol(name: str, positive: bool = True) -> Dim:
        """The size that is just the named symbol."""
        return Dim((((Symbol(name, positive),), 1),))

    def __reduce__(self) -> tuple[Any, ...]:
        return Dim, (self.terms,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self._hash == other._hash and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: DimLike) -> DimLike:
        return _sum(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: DimLike) -> DimLike:
        return _sum(self, other, -1)

    def __rsub__(self, other: DimLike) -> DimLike:
        return _sum(self * -1, other, 1)

    def __mul__(self, other: DimLike) -> DimLike:
        product: dict[Monomial, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in _terms(other):
                mono = tuple(sorted(m1 + m2, key=lambda a: a.sort_key)) if m2 else m1
                product[mono] = product.get(mono, 0) + c1 * c2
        return _make(product)

    __rmul__ = __mul__

    def __neg__(self) -> DimLike:
        return self * -1

    def __floordiv__(self, other: DimLike) -> DimLike:
        return floordiv(self, other)

    def __rfloordiv__(self, other: DimLike) -> DimLike:
        return floordiv(other, self)

    def __mod__(self, other: DimLike) -> DimLike:
        return mod(self, other)

    def __str__(self) -> str:
        if self._text is None:
            self._text = self._written()
        return self._text

    __repr__ = __str__

    def _written(self) -> str:
        parts = []
        for mono, coef in self.terms:
            factors = "*".join(str(a) for a in mono)
            if not mono:
                parts.append(str(coef))
            elif coef == 1:
                parts.append(factors)
            else:
                parts.append(f"{coef}*{factors}")
        return " + ".join(parts)

    @property
    def as_symbol(self) -> Symbol | None:
        """The symbol, if this size is nothing but one."""
        if len(self.terms) == 1:
            (mono, coef), = self.terms
            if coef == 1 and len(mono) == 1 and isinstance(mono[0], Symbol):
                return mono[0]
        return None

    def symbols(self) -> frozenset[Symbol]:
        """Every symbol in the expression."""
        if self._symbols is None:
            found: set[Symbol] = set()
            for mono, _ in self.terms:
                for atom in mono:
                    if isinstance(atom, Symbol):
                        found.add(atom)
                    else:
                        found |= symbols_of(atom.a) | symbols_of(atom.b)
            self._symbols = frozenset(found)
        return self._symbols


def _terms(value: DimLike) -> Iterable[tuple[Monomial, int]]:
    if isinstance(value, Dim):
        return value.terms
    return (((), int(value)),) if value else ()


def _make(terms: Mapping[Monomial, int]) -> DimLike:
    live = {m: c for m, c in terms.items() if c}
    if not live:
        return 0
    if len(live) == 1 and () in live:
        return live[()]
    order = sorted(live.items(), key=lambda t: (-len(t[0]), [a.sort_key for a in t[0]]))
    return Dim(tuple(order))


def _sum(a: DimLike, b: DimLike, sign: int) -> DimLike:
    total = dict(_terms(a))
    for mono, coef in _terms(b):
        total[mono] = total.get(mono, 0) + sign * coef
    return _make(total)


_NO_SYMBOLS: frozenset[Symbol] = frozenset()


def symbols_of(value: DimLike) -> frozenset[Symbol]:
    """Every symbol of a size; none for an int."""
    return value.symbols() if isinstance(value, Dim) else _NO_SYMBOLS


def is_static(value: DimLike) -> bool:
    """Whether the size is a known integer."""
    return not isinstance(value, Dim)


def _atom(fn: str, a: DimLike, b: DimLike) -> DimLike:
    return Dim((((Func(fn, a, b),), 1),))


def floordiv(a: DimLike, b: DimLike) -> DimLike:
    """``a // b`` rounded down; exact polynomial division where it is exact."""
    if isinstance(b, int):
        if b == 1:
            return a
        if isinstance(a, int):
            return a // b if b else 0
        if b > 0:
            whole = {m: c // b for m, c in a.terms if c % b == 0}
            rest = {m: c for m, c in a.terms if c % b}
            if not rest:
                return _make(whole)
            if whole:
                return _make(whole) + floordiv(_make(rest), b)
        return _atom("floordiv", a, b)
    quotient = exact_div(a, b)
    return _atom("floordiv", a, b) if quotient is None else quotient


def exact_div(a: DimLike, b: DimLike) -> DimLike | None:
    """``a / b`` when the polynomial ``b`` is one term that divides every term of ``a``."""
    if a == b:
        return 1
    if isinstance(a, int) and a == 0:
        return 0
    divisor = list(_terms(b))
    if len(divisor) != 1:
        return None
    (mono, coef), = divisor
    quotient: dict[Monomial, int] = {}
    for m, c in _terms(a):
        left = list(m)
        for atom in mono:
            if atom not in left:
                return None
            left.remove(atom)
        if c % coef:
            return None
        quotient[tuple(left)] = c // coef
    return _make(quotient)


def ceildiv(a: DimLike, b: DimLike) -> DimLike:
    """``a / b`` rounded up."""
    return floordiv(a + (b - 1), b)


def mod(a: DimLike, b: DimLike) -> DimLike:
    """``a - (a // b) * b``."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b if b else 0
    if exact_div(a, b) is not None:
        return 0
    return _atom("mod", a, b)


def is_nonnegative(value: DimLike) -> bool:
    """True only when the size can be seen to be at least zero."""
    return lower_bound(value) >= 0


_NO_BOUND = -(1 << 62)


def lower_bound(value: DimLike) -> int:
    """A number that the size is never below; a very negative one when none is known."""
    if isinstance(value, int):
        return value
    total = 0
    for mono, coef in value.terms:
        if not mono:
            total += coef
        elif coef < 0 or not all(_atom_nonnegative(a) for a in mono):
            return _NO_BOUND
    return total


def _atom_nonnegative(atom: Atom) -> bool:
    if isinstance(atom, Symbol):
        return atom.positive
    if atom.fn == "max":
        return is_nonnegative(atom.a) or is_nonnegative(atom.b)
    return is_nonnegative(atom.a) and is_nonnegative(atom.b)


def maximum(a: DimLike, b: DimLike) -> DimLike:
    """The larger of two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    if lower_bound(a - b) >= 0:
        return a
    if lower_bound(b - a) >= 0:
        return b
    return _atom("max", a, b)


def minimum(a: DimLike, b: DimLike) -> DimLike:
    """The smaller of two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    if lower_bound(a - b) >= 0:
        return b
    if lower_bound(b - a) >= 0:
        return a
    return _atom("min", a, b)


def product(sizes: Iterable[DimLike]) -> DimLike:
    """The product of sizes; 1 for none."""
    total: DimLike = 1
    for size in sizes:
        total = total * size
    return total


_FUNCTIONS: dict[str, Callable[[DimLike, DimLike], DimLike]] = {
    "floordiv": floordiv,
    "mod": mod,
    "max": maximum,
    "min": minimum,
}


def substitute(value: DimLike, binding: Mapping[Symbol, DimLike]) -> DimLike:
    """The size with symbols replaced; symbols that are not bound stay."""
    if isinstance(value, int) or value.symbols().isdisjoint(binding):
        return value
    total: DimLike = 0
    for mono, coef in value.terms:
        term: DimLike = coef
        for atom in mono:
            if isinstance(atom, Symbol):
                term = term * binding.get(atom, Dim((((atom,), 1),)))
            else:
                fn = _FUNCTIONS[atom.fn]
                term = term * fn(substitute(atom.a, binding), substitute(atom.b, binding))
        total = total + term
    return total


_fresh = itertools.count()


def fresh(prefix: str = "d", positive: bool = True) -> Dim:
    """A new symbol that equals no other."""
    return Dim.symbol(f"{prefix}{next(_fresh)}", positive)
