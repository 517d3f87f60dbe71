"""Index expressions as sums: coefficients of variables, equality of polynomials.

Schedules ask two things of an index: how it moves with a loop variable (its coefficient), and
whether two symbolic sizes are the same (``n * 4`` and ``4 * n``).
"""

from __future__ import annotations

from collections.abc import Iterable

from graphc.dtypes import int64
from graphc.loop.ir import (
    ONE,
    ZERO,
    Apply,
    Cast,
    Const,
    Expr,
    Guard,
    Load,
    Require,
    Var,
    add,
    mul,
    sub,
)

Key = tuple[object, ...]
Poly = dict[tuple[Key, ...], int]


def mentions(expr: Expr, variables: Iterable[Var]) -> bool:
    """Whether one of the variables occurs anywhere in the expression, in a load's index too."""
    return not expr.variables.isdisjoint(variables)


def linear(expr: Expr, var: Var) -> tuple[Expr, Expr] | None:
    """``(coefficient, rest)`` with ``expr == coefficient * var + rest``, neither with ``var``.

    None when the expression is not linear in ``var``, as far as sums and products show.
    """
    found = coefficients(expr, (var,))
    return None if found is None else (found[0][var], found[1])


def coefficients(expr: Expr, variables: Iterable[Var]) -> tuple[dict[Var, Expr], Expr] | None:
    """The coefficient of each variable and the rest; no coefficient has any of the variables.

    None when the expression is not linear in all of them together (``i * j`` is not).
    """
    names = tuple(variables)
    wanted = frozenset(names)
    memo: dict[Expr, _Sum | None] = {}
    stack = [expr]
    while stack:
        node = stack[-1]
        if node in memo:
            stack.pop()
            continue
        if node.variables.isdisjoint(wanted):
            memo[stack.pop()] = ({}, node)
        elif isinstance(node, Var):
            memo[stack.pop()] = ({node: ONE}, ZERO)
        elif isinstance(node, Apply) and node.fn in _SUMS and node.dtype is int64:
            missing = [c for c in node.args if c not in memo]
            if missing:
                stack.extend(missing)
            else:
                memo[stack.pop()] = _combine(node, [memo[c] for c in node.args])
        else:
            memo[stack.pop()] = None
    total = memo[expr]
    if total is None:
        return None
    return {v: total[0].get(v, ZERO) for v in names}, total[1]


_Sum = tuple[dict[Var, Expr], Expr]
_SUMS = frozenset({"add", "sub", "mul", "neg"})


def _combine(node: Apply, parts: list[_Sum | None]) -> _Sum | None:
    if any(p is None for p in parts):
        return None
    known = [p for p in parts if p is not None]
    if node.fn == "neg":
        return _scale(known[0], Const(-1, int64))
    left, right = known
    if node.fn == "mul":
        if left[0] and right[0]:
            return None
        return _scale(left, right[1]) if left[0] else _scale(right, left[1])
    step = add if node.fn == "add" else sub
    both = dict(left[0])
    for var, coefficient in right[0].items():
        both[var] = step(both.get(var, ZERO), coefficient)
    return both, step(left[1], right[1])


def _scale(part: _Sum, factor: Expr) -> _Sum:
    return {v: mul(c, factor) for v, c in part[0].items()}, mul(part[1], factor)


# --- equality -----------------------------------------------------------------------------------


def equal(a: Expr, b: Expr) -> bool:
    """Whether two int64 expressions are the same polynomial (False means: not known to be)."""
    return a is b or polynomial(a) == polynomial(b)


def polynomial(expr: Expr) -> Poly:
    """The canonical form of an int64 expression: monomials of atoms with integer coefficients."""
    memo: dict[Expr, Poly] = {}
    stack = [expr]
    while stack:
        node = stack[-1]
        missing = [c for c in node.operands if c not in memo] if node not in memo else []
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        if node not in memo:
            memo[node] = _poly(node, [memo[c] for c in node.operands])
    return memo[expr]


def _poly(node: Expr, parts: list[Poly]) -> Poly:
    if isinstance(node, Const) and node.dtype is int64:
        return {(): node.value} if node.value else {}
    if isinstance(node, Apply) and node.dtype is int64:
        if node.fn in ("add", "sub"):
            sign = 1 if node.fn == "add" else -1
            return _clean({**parts[0]}, parts[1], sign)
        if node.fn == "neg":
            return _clean({}, parts[0], -1)
        if node.fn == "mul":
            product: Poly = {}
            for m1, c1 in parts[0].items():
                for m2, c2 in parts[1].items():
                    mono = tuple(sorted(m1 + m2, key=repr))
                    product[mono] = product.get(mono, 0) + c1 * c2
            return {m: c for m, c in product.items() if c}
    return {(_key(node, parts),): 1}


def _clean(total: Poly, more: Poly, sign: int) -> Poly:
    for mono, coefficient in more.items():
        total[mono] = total.get(mono, 0) + sign * coefficient
    return {m: c for m, c in total.items() if c}


def _key(node: Expr, parts: list[Poly]) -> Key:
    """What an opaque node is the same as another by; order among keys does not matter."""
    inner = tuple(tuple(sorted(p.items(), key=repr)) for p in parts)
    if isinstance(node, Var):
        return ("var", id(node))
    if isinstance(node, Const):
        return ("const", node.dtype.code, repr(node.value))
    if isinstance(node, Load):
        return ("load", id(node.buffer), inner)
    if isinstance(node, Apply):
        return (node.fn, node.dtype.code, inner)
    if isinstance(node, Require):
        return ("require", node.site, inner)
    assert isinstance(node, (Cast, Guard))
    return (type(node).__name__, node.dtype.code, inner)


# --- extents ------------------------------------------------------------------------------------


def known(expr: Expr) -> int | None:
    """The value of a constant, or None."""
    return int(expr.value) if isinstance(expr, Const) else None


def multiple_of(expr: Expr, factor: int) -> bool:
    """Whether the expression is a multiple of ``factor`` whatever its variables are."""
    return all(c % factor == 0 for c in polynomial(expr).values())
