"""How an operand moves through memory: the strides of its loads."""

from __future__ import annotations

from graphc.loop import ir
from graphc.loop.ir import Apply, Const, Expr, Load, Var


def depends(expr: Expr, var: Var) -> bool:
    """Whether the variable occurs in the expression."""
    return any(node is var for node in ir.walk_expr(expr))


def stride(index: Expr, var: Var) -> int | None:
    """By how much the index grows when ``var`` grows by one; None where that is no constant."""
    if index is var:
        return 1
    if not depends(index, var):
        return 0
    if not isinstance(index, Apply) or index.fn not in ("add", "sub", "mul"):
        return None
    a, b = (stride(arg, var) for arg in index.args)
    if a is None or b is None:
        return None
    if index.fn == "mul":
        for step, factor in ((a, index.args[1]), (b, index.args[0])):
            if isinstance(factor, Const):
                return step * int(factor.value)
        return None
    return a + b if index.fn == "add" else a - b


def strides(value: Expr, var: Var) -> set[int | None]:
    """The strides, in ``var``, of every load that the value makes and that moves with it."""
    loads = (node for node in ir.walk_expr(value) if isinstance(node, Load))
    return {stride(load.index, var) for load in loads} - {0}
