"""What kernels read from memory in long runs, asked for some lines before it is read.

A CPU's own prefetchers stop where a page of memory ends, and a kernel that computes much for each
element has too few loads under way to do without.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.loop.affine import coefficients, equal, known
from graphc.loop.ir import (
    LINE_BYTES,
    ZERO,
    Block,
    Buffer,
    Expr,
    For,
    Guard,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Prefetch,
    Require,
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
CACHE_BYTES = 512 << 10
"""A loop that reads no more leaves it in a cache."""
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
            if stmt.kind is not LoopKind.PARALLEL:
                self.far -= _kept(new)
            return new
        return stmt

    def asked(self, vector: For, var: Var) -> list[Stmt]:
        """Prefetches of what the lanes read, if ``var`` goes on where they end."""
        lanes = known(vector.extent) or 0
        starts: dict[Buffer, list[Expr]] = {}
        own = {s.var for s in walk_stmt(vector.body) if isinstance(s, (For, Let))}
        for load in _loads(vector.body):
            if load.buffer not in self.far or not known_before(load.index, own):
                continue
            moves = coefficients(load.index, (vector.var, var))
            step = known(moves[0][var]) if moves and known(moves[0][vector.var]) == 1 else None
            if step is None or not lanes <= step <= _MOST_VECTORS * lanes:
                continue
            start = substitute(load.index, {vector.var: ZERO})
            others = starts.setdefault(load.buffer, [])
            if not any(equal(start, other) for other in others):
                others.append(start)
        return [
            stmt
            for buffer, found in starts.items()
            for start in found
            for stmt in lines(buffer, start, AHEAD_BYTES // buffer.dtype.size, lanes)
        ]


def lines(buffer: Buffer, start: Expr, far: int, count: int) -> list[Stmt]:
    """Prefetches, line by line, of the ``count`` elements that lie ``far`` behind ``start``."""
    step = max(1, LINE_BYTES // buffer.dtype.size)
    return [Prefetch(buffer, add(start, far + at)) for at in range(0, count, step)]


def _kept(loop: For) -> set[Buffer]:
    """What a loop has asked for and leaves in a cache, as it reads no more than that holds."""
    asked = [s for s in walk_stmt(loop.body) if isinstance(s, Prefetch)]
    turns = known(loop.extent)
    if turns is None or turns * LINE_BYTES * len(asked) > CACHE_BYTES:
        return set()
    return {s.buffer for s in asked}


def _loads(body: Block) -> list[Load]:
    """The loads that every lane makes, whatever the values are."""
    found: dict[Load, None] = {}
    seen: set[Expr] = set()  # nodes are shared
    stack = [e for s in body.stmts if not isinstance(s, (If, For, Block)) for e in stmt_exprs(s)]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, (Guard, Require)):
            stack.append(node.cond)
            continue
        if isinstance(node, Load) and node.buffer.scope is Scope.GLOBAL:
            found[node] = None
        stack.extend(node.operands)
    return list(found)


def known_before(index: Expr, own: set[Var]) -> bool:
    """Whether an index needs no variable of a body, which has its ``own``, and no load."""
    return not any(isinstance(n, Load) or n in own for n in walk_expr(index))
