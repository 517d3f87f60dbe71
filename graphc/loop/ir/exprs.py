"""The expressions of the loop IR and what builds them; the grammar is in the package's text."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from graphc.dims import Dim, DimLike, Func, Symbol
from graphc.dtypes import DType, bfloat16, bool_, float32, int32, int64, rounded


class Scope(enum.Enum):
    """Where a buffer lives."""

    GLOBAL = "global"
    SHARED = "shared"
    LOCAL = "local"


_NO_VARIABLES: frozenset[Var] = frozenset()


class Expr:
    """A value: one scalar per lane. ``dtype`` is its type.

    ``operands`` are the expressions it is made of; ``variables`` are all that occur in it, in the
    indices of loads too.
    """

    __slots__ = ("dtype", "operands", "variables")
    dtype: DType
    operands: tuple[Expr, ...]
    variables: frozenset[Var]

    def __init__(self, dtype: DType, operands: tuple[Expr, ...]) -> None:
        self.dtype = dtype
        self.operands = operands
        found = _NO_VARIABLES
        for operand in operands:
            # Most operands have the same variables or none: one set serves many nodes.
            if not operand.variables <= found:
                found = found | operand.variables if found else operand.variables
        self.variables = found

    def __add__(self, other: Any) -> Expr:
        return add(self, other)

    def __radd__(self, other: Any) -> Expr:
        return add(wrap(other, self.dtype), self)

    def __sub__(self, other: Any) -> Expr:
        return sub(self, other)

    def __rsub__(self, other: Any) -> Expr:
        return sub(wrap(other, self.dtype), self)

    def __mul__(self, other: Any) -> Expr:
        return mul(self, other)

    def __rmul__(self, other: Any) -> Expr:
        return mul(wrap(other, self.dtype), self)

    def __floordiv__(self, other: Any) -> Expr:
        return index_div(self, other)

    def __mod__(self, other: Any) -> Expr:
        return index_mod(self, other)

    def __lt__(self, other: Any) -> Expr:
        return apply("lt", self, other)

    def __le__(self, other: Any) -> Expr:
        return apply("le", self, other)

    def __gt__(self, other: Any) -> Expr:
        return apply("gt", self, other)

    def __ge__(self, other: Any) -> Expr:
        return apply("ge", self, other)


class Const(Expr):
    """A literal: an int, a float (NaN and infinities included) or a bool."""

    __slots__ = ("value",)

    def __init__(self, value: Any, dtype: DType) -> None:
        self.dtype = dtype
        self.operands = ()
        self.variables = _NO_VARIABLES
        if dtype is bfloat16:
            value = rounded(value, dtype.numpy)[()]
        self.value = dtype.as_numpy_dtype(value).item()


class Var(Expr):
    """A loop variable, a Let variable or a scalar parameter. Identity is by object."""

    __slots__ = ("name",)

    def __init__(self, name: str, dtype: DType = int64) -> None:
        self.dtype = dtype
        self.operands = ()
        self.name = name
        self.variables = frozenset((self,))


class Load(Expr):
    """The element of ``buffer`` at a flat index."""

    __slots__ = ("buffer", "index")

    def __init__(self, buffer: Buffer, index: Expr) -> None:
        super().__init__(buffer.dtype, (index,))
        self.buffer = buffer
        self.index = index


class Apply(Expr):
    """A scalar function of ``scalar.py`` applied to arguments."""

    __slots__ = ("args", "fn")

    def __init__(self, fn: str, args: tuple[Expr, ...], dtype: DType) -> None:
        super().__init__(dtype, args)
        self.fn = fn
        self.args = args


class Cast(Expr):
    """A value converted to another dtype.

    Float to integer truncates, saturates at the limits and takes NaN to 0; integer to integer
    wraps; anything to bool is ``!= 0``; float to float rounds to nearest even.
    """

    __slots__ = ("value",)

    def __init__(self, value: Expr, dtype: DType) -> None:
        super().__init__(dtype, (value,))
        self.value = value


class Guard(Expr):
    """``value`` where ``cond`` holds, else ``otherwise``; loads in ``value`` are not done there."""

    __slots__ = ("cond", "otherwise", "value")

    def __init__(self, cond: Expr, value: Expr, otherwise: Expr) -> None:
        super().__init__(value.dtype, (cond, value, otherwise))
        self.cond = cond
        self.value = value
        self.otherwise = otherwise


class Require(Expr):
    """``value``, provided that ``cond`` holds; otherwise the run fails with error site ``site``.

    ``details`` are up to two int64 expressions that the error message shows.
    """

    __slots__ = ("cond", "details", "site", "value")

    def __init__(self, cond: Expr, value: Expr, site: int, details: tuple[Expr, ...] = ()) -> None:
        super().__init__(value.dtype, (cond, value, *details))
        self.cond = cond
        self.value = value
        self.site = site
        self.details = details


ZERO = Const(0, int64)
ONE = Const(1, int64)
TRUE = Const(True, bool_)
FALSE = Const(False, bool_)


@dataclass(frozen=True, eq=False, slots=True)
class Buffer:
    """One-dimensional storage of ``size`` elements (an int64 expression of the symbols)."""

    name: str
    dtype: DType
    size: Expr
    scope: Scope = Scope.GLOBAL


# --- construction -----------------------------------------------------------------------------

_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite")
_RESULTS: dict[str, DType] = {
    **dict.fromkeys(_COMPARISONS, bool_), "pack4": int32, "pack16": int32,
    "pack2": float32,
}  # fmt: skip


def const(value: Any, dtype: DType = int64) -> Const:
    """A literal of the given dtype (int64 by default)."""
    return Const(value, dtype)


def wrap(value: Any, dtype: DType) -> Expr:
    """``value`` as an expression: expressions stay, Python numbers become literals."""
    return value if isinstance(value, Expr) else Const(value, dtype)


def apply(fn: str, *args: Any) -> Expr:
    """``fn`` applied; Python numbers take the dtype of the first expression among the args.

    The result has the dtype of the (last) argument, but for comparisons and predicates (bool), and
    for ``pack4`` and ``pack16`` (int32) and ``pack2`` (float32).
    """
    first = next(a for a in args if isinstance(a, Expr))
    if fn == "select":
        cond, a, b = args
        typed = a if isinstance(a, Expr) else b
        choice = (wrap(cond, bool_), wrap(a, typed.dtype), wrap(b, typed.dtype))
        return Apply(fn, choice, typed.dtype)
    exprs = tuple(wrap(a, first.dtype) for a in args)
    return Apply(fn, exprs, _RESULTS.get(fn, first.dtype))


def select(cond: Expr, a: Any, b: Any) -> Expr:
    """``a`` where ``cond`` holds, else ``b``; both are evaluated."""
    if isinstance(cond, Const):
        chosen, other = (a, b) if cond.value else (b, a)
        return wrap(chosen, other.dtype if isinstance(other, Expr) else int64)
    return apply("select", cond, a, b)


def cast(value: Expr, dtype: DType) -> Expr:
    """``value`` as ``dtype``; itself when it already is."""
    if value.dtype is dtype:
        return value
    return Cast(value, dtype)


def bitcast(value: Expr, dtype: DType) -> Expr:
    """The bits of ``value`` read as another dtype of the same size."""
    return value if value.dtype is dtype else Apply("bitcast", (value,), dtype)


def logical_and(a: Expr, b: Expr) -> Expr:
    """Both hold."""
    if isinstance(a, Const):
        return b if a.value else a
    if isinstance(b, Const):
        return a if b.value else b
    return apply("and", a, b)


def logical_or(a: Expr, b: Expr) -> Expr:
    """One of them holds."""
    if isinstance(a, Const):
        return a if a.value else b
    if isinstance(b, Const):
        return b if b.value else a
    return apply("or", a, b)


def _is(value: Expr, number: int) -> bool:
    return isinstance(value, Const) and value.dtype.is_integer and value.value == number


_INT64 = range(int64.min, int64.max + 1)


def _fold(fn: str, a: Expr, b: Expr) -> Expr | None:
    """The literal that two literals give; None where that is none of the dtype."""
    if isinstance(a, Const) and isinstance(b, Const) and a.dtype is int64:
        x, y = a.value, b.value
        value = {"add": x + y, "sub": x - y, "mul": x * y}[fn]
        return Const(value, int64) if value in _INT64 else None
    return None


def add(a: Expr, b: Any) -> Expr:
    """``a + b``, folding integer literals, and ``x // c * c + x % c`` to ``x``."""
    right = wrap(b, a.dtype)
    if _is(a, 0):
        return right
    if _is(right, 0):
        return a
    if isinstance(right, Apply) and right.fn == "irem":
        x, c = right.args
        if isinstance(c, Const) and c.value and _is_multiple(a, x, c):
            return x
    return _fold("add", a, right) or Apply("add", (a, right), a.dtype)


def _is_multiple(a: Expr, x: Expr, c: Const) -> bool:
    """Whether ``a`` is ``x // c * c``."""
    if not isinstance(a, Apply) or a.fn != "mul" or not _is(a.args[1], c.value):
        return False
    whole = a.args[0]
    if not isinstance(whole, Apply) or whole.fn != "idiv" or whole.args[0] is not x:
        return False
    return _is(whole.args[1], c.value)


def sub(a: Expr, b: Any) -> Expr:
    """``a - b``, folding integer literals."""
    b = wrap(b, a.dtype)
    if _is(b, 0):
        return a
    return _fold("sub", a, b) or Apply("sub", (a, b), a.dtype)


def mul(a: Expr, b: Any) -> Expr:
    """``a * b``, folding integer literals."""
    right = wrap(b, a.dtype)
    if _is(a, 0) or _is(right, 1):
        return a
    if _is(right, 0) or _is(a, 1):
        return right
    return _fold("mul", a, right) or Apply("mul", (a, right), a.dtype)


def index_div(a: Expr, b: Any) -> Expr:
    """``a // b`` of index expressions, which are never negative."""
    b = wrap(b, a.dtype)
    if _is(b, 1) or _is(a, 0):
        return a
    if isinstance(a, Const) and isinstance(b, Const) and b.value:
        return Const(a.value // b.value, int64)
    return Apply("idiv", (a, b), a.dtype)


def index_mod(a: Expr, b: Any) -> Expr:
    """``a % b`` of index expressions, which are never negative."""
    b = wrap(b, a.dtype)
    if _is(b, 1) or _is(a, 0):
        return ZERO
    if isinstance(a, Const) and isinstance(b, Const) and b.value:
        return Const(a.value % b.value, int64)
    return Apply("irem", (a, b), a.dtype)


def dim_expr(size: DimLike, symbols: dict[Symbol, Var]) -> Expr:
    """A size as an int64 expression over the kernel's scalar parameters.

    ``symbols`` maps the graph's symbols to parameters; missing ones are added to it.
    """
    if not isinstance(size, Dim):
        return const(size)
    total: Expr = ZERO
    for mono, coef in size.terms:
        term: Expr = ONE
        for atom in mono:
            term = mul(term, _atom_expr(atom, symbols))
        total = add(total, mul(term, coef))
    return total


def _atom_expr(atom: Symbol | Func, symbols: dict[Symbol, Var]) -> Expr:
    if isinstance(atom, Symbol):
        var = symbols.get(atom)
        if var is None:
            var = symbols[atom] = Var(atom.name)
        return var
    a, b = dim_expr(atom.a, symbols), dim_expr(atom.b, symbols)
    return Apply({"mod": "floormod"}.get(atom.fn, atom.fn), (a, b), int64)


def local(name: str, dtype: DType, size: int) -> Buffer:
    """A LOCAL buffer of constant size."""
    return Buffer(name, dtype, const(size), Scope.LOCAL)
