"""What kernels read from memory in long runs, asked for some lines before it is read.

A CPU's own prefetchers stop where a page of memory ends, and a kernel that computes much for each
element has too few loads under way to do without.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.loop.affine import coefficients, known
from graphc.loop.ir import (
    ZERO,
    Block,
    Buffer,
    For,
    If,
    Kernel,
    Load,
    LoopKind,
    Prefetch,
    Scope,
    Stmt,
    Var,
    add,
    stmt_exprs,
    substitute,
    walk_expr,
    walk_stmt,
)

FAR_BYTES = 8 << 20
"""A parameter of so many bytes is read from memory, not from a cache."""
AHEAD_BYTES = 4096
"""How far in front of what is read is asked for: a page."""
LINE_BYTES = 64
"""What one access brings to a cache."""
_MOST_VECTORS = 8  # of one iteration of a loop that is still a walk through memory


def ahead(kernel: Kernel) -> Kernel:
    """The kernel with prefetches of large parameters where their elements are read first."""
    far = {p for p in kernel.params if (known(p.size) or 0) * p.dtype.size >= FAR_BYTES}
    return replace(kernel, body=_Walks(far).block(kernel.body)) if far else kernel


class _Walks:
    """The loops that walk through what is far, in program order."""

    def __init__(self, far: set[Buffer]) -> None:
        self.far = far

    def block(self, old: Block, loop: For | None = None) -> Block:
        """The block, in the body of a serial loop or of none."""
        stmts: list[Stmt] = []
        for stmt in old.stmts:
            if isinstance(stmt, For) and stmt.kind is LoopKind.VECTORIZED:
                stmts += [] if loop is None else self.asked(stmt, loop.var)
            stmts.append(self.stmt(stmt, loop))
        return Block(tuple(stmts))

    def stmt(self, stmt: Stmt, loop: For | None) -> Stmt:
        """The statement with what is asked for in it."""
        if isinstance(stmt, Block):
            return self.block(stmt, loop)
        if isinstance(stmt, If):
            other = stmt.otherwise and self.block(stmt.otherwise, loop)
            return replace(stmt, then=self.block(stmt.then, loop), otherwise=other)
        if isinstance(stmt, For) and stmt.kind is not LoopKind.VECTORIZED:
            new = replace(stmt, body=self.block(stmt.body, stmt))
            # What a loop has read is in a cache for the ones behind it.
            self.far -= {s.buffer for s in walk_stmt(new.body) if isinstance(s, Prefetch)}
            return new
        return stmt

    def asked(self, vector: For, var: Var) -> list[Stmt]:
        """Prefetches of what the lanes read, if ``var`` goes on where they end."""
        lanes = known(vector.extent) or 0
        found: dict[tuple[Buffer, int], Prefetch] = {}
        for load in _loads(vector.body):
            moves = coefficients(load.index, (vector.var, var)) if load.buffer in self.far else None
            if moves is None or known(moves[0][vector.var]) != 1:
                continue
            step = known(moves[0][var])
            if step is None or not lanes <= step <= _MOST_VECTORS * lanes:
                continue
            size = load.buffer.dtype.size
            start = substitute(load.index, {vector.var: ZERO})
            for at in range(0, lanes, max(1, LINE_BYTES // size)):
                index = add(start, AHEAD_BYTES // size + at)
                found.setdefault((load.buffer, at), Prefetch(load.buffer, index))
        return list(found.values())


def _loads(body: Block) -> list[Load]:
    exprs = (e for stmt in walk_stmt(body) for e in stmt_exprs(stmt))
    nodes = walk_expr(*exprs)
    return [n for n in nodes if isinstance(n, Load) and n.buffer.scope is Scope.GLOBAL]
