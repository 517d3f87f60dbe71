"""Walking and rewriting loop IR."""

from __future__ import annotations

from collections.abc import Iterator

from graphc.dtypes import int64
from graphc.loop.ir.exprs import (
    Apply,
    Cast,
    Expr,
    Guard,
    Load,
    Require,
    Var,
    add,
    index_div,
    index_mod,
    mul,
    sub,
)
from graphc.loop.ir.stmts import (
    AllReduce,
    Block,
    For,
    If,
    Kernel,
    Let,
    Prefetch,
    Reduce,
    Stmt,
    Store,
)
from graphc.loop.ir.warp import AsyncCopy, WarpProduct


def walk_expr(*roots: Expr) -> Iterator[Expr]:
    """Every node under the roots, each once, operands after the node that uses them."""
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            stack.extend(node.operands)


def stmt_exprs(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions that stand directly in a statement."""
    if isinstance(stmt, (Store, Reduce)):
        return (stmt.index, stmt.value)
    if isinstance(stmt, (AllReduce, Prefetch)):
        return (stmt.index,)
    if isinstance(stmt, AsyncCopy):
        return (stmt.index, stmt.value, stmt.cond)
    if isinstance(stmt, WarpProduct):
        return (stmt.left, stmt.right)
    if isinstance(stmt, For):
        return (stmt.extent,)
    if isinstance(stmt, If):
        return (stmt.cond,)
    if isinstance(stmt, Let):
        return (stmt.value,)
    return ()


def walk_stmt(stmt: Stmt) -> Iterator[Stmt]:
    """The statement and every statement in it, in program order."""
    yield stmt
    if isinstance(stmt, Block):
        for inner in stmt.stmts:
            yield from walk_stmt(inner)
    elif isinstance(stmt, For):
        yield from walk_stmt(stmt.body)
    elif isinstance(stmt, If):
        yield from walk_stmt(stmt.then)
        if stmt.otherwise is not None:
            yield from walk_stmt(stmt.otherwise)


def stored_buffers(kernel: Kernel) -> set[str]:
    """The names of the parameters that the kernel writes."""
    names = {p.name for p in kernel.params}
    return {
        s.buffer.name
        for s in walk_stmt(kernel.body)
        if isinstance(s, (Store, Reduce)) and s.buffer.name in names
    }


def substitute(expr: Expr, binding: dict[Var, Expr], memo: dict[Expr, Expr] | None = None) -> Expr:
    """The expression with variables replaced; nodes that do not change are shared.

    ``memo`` holds what was replaced before, for expressions that share nodes.
    """
    memo = {} if memo is None else memo
    stack = [expr]
    while stack:
        node = stack[-1]
        if node in memo:
            stack.pop()
        elif node.variables.isdisjoint(binding):
            memo[stack.pop()] = node
        elif isinstance(node, Var):
            memo[stack.pop()] = binding[node]
        else:
            old = node.operands
            missing = [c for c in old if c not in memo]
            if missing:
                stack.extend(missing)
                continue
            new = tuple([memo[c] for c in old])
            same = all(a is b for a, b in zip(old, new, strict=True))
            memo[stack.pop()] = node if same else rebuild(node, new)
    return memo[expr]


_SMART = {"add": add, "sub": sub, "mul": mul, "idiv": index_div, "irem": index_mod}


def rebuild(expr: Expr, args: tuple[Expr, ...]) -> Expr:
    """The same node over other operands."""
    if isinstance(expr, Apply):
        smart = _SMART.get(expr.fn)
        if smart is not None and expr.dtype is int64:
            return smart(args[0], args[1])
        return Apply(expr.fn, args, expr.dtype)
    if isinstance(expr, Load):
        return Load(expr.buffer, args[0])
    if isinstance(expr, Cast):
        return Cast(args[0], expr.dtype)
    if isinstance(expr, Guard):
        return Guard(*args)
    assert isinstance(expr, Require)
    return Require(args[0], args[1], expr.site, args[2:])
