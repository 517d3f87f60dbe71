"""How an operand moves through memory: the strides of its loads."""

from __future__ import annotations

from graphc.loop.ir import Apply, Const, Expr, Load, Var, walk_expr


def stride(index: Expr, var: Var) -> int | None:
    """By how much the index grows when ``var`` grows by one; None where that is no constant."""
    found: dict[Expr, int | None] = {}
    stack = [index]
    while stack:
        node = stack[-1]
        sums = isinstance(node, Apply) and node.fn in ("add", "sub", "mul")
        missing = [arg for arg in node.operands if arg not in found] if sums else []
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        if node in found:
            continue
        if isinstance(node, Apply) and sums:
            found[node] = _combined(node, *(found[arg] for arg in node.args))
        elif node is var:
            found[node] = 1
        else:
            found[node] = None if var in node.variables else 0
    return found[index]


def _combined(node: Apply, a: int | None, b: int | None) -> int | None:
    """The stride of a sum, a difference or a product of operands with strides ``a`` and ``b``."""
    if a is None or b is None:
        return None
    if node.fn != "mul":
        return a + b if node.fn == "add" else a - b
    if a == 0 and b == 0:
        return 0
    for step, factor in ((a, node.args[1]), (b, node.args[0])):
        if isinstance(factor, Const):
            return step * int(factor.value)
    return None


def strides(value: Expr, var: Var) -> set[int | None]:
    """The strides, in ``var``, of every load that the value makes and that moves with it."""
    loads = (node for node in walk_expr(value) if isinstance(node, Load))
    return {stride(load.index, var) for load in loads} - {0}
