"""Which serial loops the interpreter may run in lanes: those whose iterations cannot see each
other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.loop.ir import (
    Alloc,
    AllReduce,
    AsyncCommit,
    AsyncCopy,
    AsyncWait,
    Barrier,
    Block,
    Buffer,
    Expr,
    For,
    Let,
    Load,
    LoopKind,
    Reduce,
    Stmt,
    Store,
    Var,
    WarpProduct,
    stmt_exprs,
    walk_expr,
    walk_stmt,
)

_TOGETHER = (Barrier, AllReduce, AsyncCopy, AsyncCommit, AsyncWait, WarpProduct)
_PLAIN = (LoopKind.SERIAL, LoopKind.UNROLLED)


def independent(loop: For) -> bool:
    """Whether all iterations at once, statement by statement, do what one after the other does."""
    made: set[Buffer] = set()  # private to an iteration
    own: set[Var] = {loop.var}
    read: set[Buffer] = set()
    written: list[Buffer] = []
    for stmt in walk_stmt(loop.body):
        if isinstance(stmt, _TOGETHER):
            return False
        if isinstance(stmt, For) and stmt.kind not in _PLAIN:
            return False
        if isinstance(stmt, Alloc):
            made.add(stmt.buffer)
        elif isinstance(stmt, Let):
            own.add(stmt.var)
        elif isinstance(stmt, For):
            own.add(stmt.var)
            # An extent must be the same in all iterations.
            for node in walk_expr(stmt.extent):
                if node in own or (isinstance(node, Load) and node.buffer in made):
                    return False
        elif isinstance(stmt, (Store, Reduce)):
            written.append(stmt.buffer)
        read.update(n.buffer for n in walk_expr(*stmt_exprs(stmt)) if isinstance(n, Load))
    outside = [b for b in written if b not in made]
    if loop.kind is LoopKind.PARALLEL:
        return True
    if len(set(outside)) < len(outside) or any(b in read for b in outside):
        return False
    return not any(
        isinstance(s, (Store, Reduce)) and s.buffer not in made for s in _in_inner_loops(loop.body)
    )


def _in_inner_loops(stmt: Stmt) -> list[Stmt]:
    if isinstance(stmt, For):
        return list(walk_stmt(stmt.body))
    if isinstance(stmt, Block):
        return [found for inner in stmt.stmts for found in _in_inner_loops(inner)]
    return [
        found
        for inner in walk_stmt(stmt)
        if inner is not stmt and isinstance(inner, For)
        for found in walk_stmt(inner.body)
    ]


def inner_extents(
    loop: For, env: dict[Var, Any], evaluate: Callable[[Expr], Any], free: Callable[[For], bool]
) -> list[int]:
    """The extents of the independent loops inside that are known before the loop is entered."""
    return [
        int(evaluate(stmt.extent))
        for stmt in walk_stmt(loop.body)
        if isinstance(stmt, For) and _known(stmt.extent, env) and free(stmt)
    ]


def _known(expr: Expr, env: dict[Var, Any]) -> bool:
    if isinstance(expr, Load):
        return False
    if isinstance(expr, Var):
        return isinstance(env.get(expr), int)
    return all(_known(c, env) for c in expr.operands)
