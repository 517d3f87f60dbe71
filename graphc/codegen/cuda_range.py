"""Which indices are known to fit 32 bits: between what limits the values of expressions are.

Arithmetic of 64 bits takes a GPU several instructions, and two registers for each value.
"""

from __future__ import annotations

from graphc.dtypes import int64
from graphc.loop.ir import Apply, Const, Expr, Var

__all__ = ["Ranges"]

Range = tuple[int, int]
_LIMIT = 1 << 31
_ANY = 1 << 63
_FOLLOWED = frozenset({"add", "sub", "mul", "idiv", "irem", "min", "max"})


class Ranges:
    """Limits of the int64 expressions of one function.

    Attributes:
      of: those of variables; what is not there may be anything.
    """

    def __init__(self) -> None:
        self.of: dict[Var, Range] = {}
        self._memo: dict[Expr, Range | None] = {}

    def counter(self, var: Var, extent: Expr) -> None:
        """``var`` counts from 0 to below ``extent``."""
        found = self.range(extent)
        self._set(var, None if found is None else (0, max(found[1] - 1, 0)))

    def let(self, var: Var, value: Expr) -> None:
        """``var`` is ``value``."""
        self._set(var, self.range(value) if var.dtype is int64 else None)

    def _set(self, var: Var, found: Range | None) -> None:
        # Loops that follow each other may share a variable.
        self._memo.clear()
        self.of.pop(var, None)
        if found is not None:
            self.of[var] = found

    def is_short(self, node: Expr) -> bool:
        """Whether 32 bits hold the value."""
        found = self.range(node)
        return found is not None and found[0] > -_LIMIT and found[1] < _LIMIT

    def is_at_most(self, node: Expr) -> bool:
        """Whether 32 bits hold the value if it is positive."""
        found = self.range(node)
        return found is not None and found[1] < _LIMIT

    def range(self, root: Expr) -> Range | None:
        """The least and the largest value that an expression may have, if that is known."""
        memo = self._memo
        stack = [root]
        while stack:
            node = stack[-1]
            if node in memo:
                stack.pop()
                continue
            followed = isinstance(node, Apply) and node.fn in _FOLLOWED and node.dtype is int64
            missing = [c for c in node.operands if c not in memo] if followed else []
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            memo[node] = self._node(node, memo) if followed else self._leaf(node)
        return memo[root]

    def _leaf(self, node: Expr) -> Range | None:
        if isinstance(node, Const) and node.dtype is int64:
            return (int(node.value), int(node.value))
        return self.of.get(node) if isinstance(node, Var) else None

    def _node(self, node: Expr, memo: dict[Expr, Range | None]) -> Range | None:
        assert isinstance(node, Apply)
        a, b = (memo[arg] for arg in node.args)
        if a is None or b is None:
            return _one_sided(node.fn, a, b)
        if node.fn == "add":
            return (a[0] + b[0], a[1] + b[1])
        if node.fn == "sub":
            return (a[0] - b[1], a[1] - b[0])
        if node.fn == "mul":
            corners = [x * y for x in a for y in b]
            return (min(corners), max(corners))
        if node.fn in ("min", "max"):
            pick = min if node.fn == "min" else max
            return (pick(a[0], b[0]), pick(a[1], b[1]))
        if a[0] < 0 or b[0] <= 0:
            return None
        if node.fn == "idiv":
            return (a[0] // b[1], a[1] // b[0])
        return (0, min(a[1], b[1] - 1))


def _one_sided(fn: str, a: Range | None, b: Range | None) -> Range | None:
    """What one operand says alone."""
    known = b if a is None else a
    if known is None:
        return None
    if fn == "min":
        return (-_ANY, known[1])
    if fn == "max":
        return (known[0], _ANY)
    if fn == "irem" and a is None:
        most = max(abs(known[0]), abs(known[1]), 1) - 1
        return (-most, most)
    return None
