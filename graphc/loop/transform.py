"""Schedule primitives: loops to loops that do the same, each a pure function.

A primitive takes a loop (or a kernel) and gives new statements; it raises ``ScheduleError`` where
it cannot be applied, so that a schedule is a readable list of steps. Bodies that end up twice in a
kernel get their own copies of the variables and buffers declared in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphc.errors import CompileError
from graphc.loop.affine import coefficients, equal, known, mentions, multiple_of
from graphc.loop.ir import (
    ONE,
    ZERO,
    Alloc,
    AllReduce,
    AsyncCopy,
    Block,
    Buffer,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Prefetch,
    Reduce,
    Scope,
    Stmt,
    Store,
    Var,
    WarpProduct,
    add,
    block,
    const,
    index_div,
    index_mod,
    mul,
    rebuild,
    stmt_exprs,
    sub,
    walk_expr,
    walk_stmt,
)

Loop = tuple[Var, Expr]  # a loop without its body: variable and extent


class ScheduleError(CompileError):
    """A schedule primitive that cannot be applied to this loop."""


class Rewriter:
    """Copies expressions and statements with other variables and buffers.

    Nodes without a change are shared with the original, and what was shared stays shared.
    Variables and buffers declared inside copied statements are new objects.
    """

    def __init__(
        self,
        variables: dict[Var, Expr],
        *,
        index: Callable[[Expr], Expr] | None = None,
        fixed: dict[Expr, Expr] | None = None,
    ) -> None:
        self.vars: dict[Var, Expr] = dict(variables)
        self.buffers: dict[Buffer, Buffer] = {}
        self.index = index  # applied to every index of a global buffer
        self.fixed = fixed or {}  # nodes that are replaced as they are
        self.memo: dict[Expr, Expr] = dict(self.fixed)

    def expr(self, root: Expr) -> Expr:
        """The copy of an expression."""
        memo = self.memo
        stack = [root]
        while stack:
            node = stack[-1]
            if node in memo:
                stack.pop()
                continue
            missing = [c for c in node.operands if c not in memo]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            memo[node] = self._node(node)
        return memo[root]

    def _node(self, node: Expr) -> Expr:
        if isinstance(node, Var):
            return self.vars.get(node, node)
        old = node.operands
        new = tuple([self.memo[c] for c in old])
        if isinstance(node, Load):
            buffer = self.buffers.get(node.buffer, node.buffer)
            at = self._at(buffer, new[0])
            return node if at is node.index and buffer is node.buffer else Load(buffer, at)
        if all(a is b for a, b in zip(old, new, strict=True)):
            return node
        return rebuild(node, new)

    def _at(self, buffer: Buffer, index: Expr) -> Expr:
        if self.index is None or buffer.scope is not Scope.GLOBAL:
            return index
        return self.index(index)

    def _declare(self, var: Var) -> Var:
        new = Var(var.name, var.dtype)
        if var in self.memo:  # declared before, by a loop that has ended
            self.memo = dict(self.fixed)
        self.vars[var] = new
        return new

    def block(self, old: Block) -> Block:
        """The copy of a block."""
        return Block(tuple([self.stmt(s) for s in old.stmts]))

    def stmt(self, stmt: Stmt) -> Stmt:
        """The copy of a statement."""
        if isinstance(stmt, (Store, Reduce)):
            buffer = self.buffers.get(stmt.buffer, stmt.buffer)
            at = self._at(buffer, self.expr(stmt.index))
            return replace(stmt, buffer=buffer, index=at, value=self.expr(stmt.value))
        if isinstance(stmt, Prefetch):
            buffer = self.buffers.get(stmt.buffer, stmt.buffer)
            return replace(stmt, buffer=buffer, index=self._at(buffer, self.expr(stmt.index)))
        if isinstance(stmt, AllReduce):
            buffer = self.buffers.get(stmt.buffer, stmt.buffer)
            return replace(stmt, buffer=buffer, index=self.expr(stmt.index))
        if isinstance(stmt, AsyncCopy):
            buffer = self.buffers.get(stmt.buffer, stmt.buffer)
            at, value, cond = (self.expr(e) for e in stmt_exprs(stmt))
            assert isinstance(value, Load)
            return replace(stmt, buffer=buffer, index=at, value=value, cond=cond)
        if isinstance(stmt, WarpProduct):
            total = self.buffers.get(stmt.total, stmt.total)
            left, right = self.expr(stmt.left), self.expr(stmt.right)
            assert isinstance(left, Load)
            assert isinstance(right, Load)
            return replace(stmt, total=total, left=left, right=right)
        if isinstance(stmt, For):
            extent = self.expr(stmt.extent)
            return For(self._declare(stmt.var), extent, stmt.kind, self.block(stmt.body))
        if isinstance(stmt, Let):
            value = self.expr(stmt.value)
            return Let(self._declare(stmt.var), value)
        if isinstance(stmt, Alloc):
            new = replace(stmt.buffer)
            if stmt.buffer in self.buffers:
                self.memo = dict(self.fixed)
            self.buffers[stmt.buffer] = new
            return Alloc(new)
        if isinstance(stmt, If):
            otherwise = None if stmt.otherwise is None else self.block(stmt.otherwise)
            return If(self.expr(stmt.cond), self.block(stmt.then), otherwise)
        return self.block(stmt) if isinstance(stmt, Block) else stmt


def instance(body: Block, binding: dict[Var, Expr]) -> Block:
    """A copy of ``body`` with variables replaced, its own declarations fresh."""
    return Rewriter(binding).block(body)


class _Copy(Rewriter):
    """One of several copies that are in scope together: what it declares has its number."""

    def __init__(self, variables: dict[Var, Expr], number: int) -> None:
        super().__init__(variables)
        self.number = number

    def _declare(self, var: Var) -> Var:
        super()._declare(var)
        return self.named(var, Var(f"{var.name}u{self.number}", var.dtype))

    def named(self, var: Var, new: Var) -> Var:
        """``new`` stands for a variable from here on."""
        self.vars[var] = new
        return new

    def stmt(self, stmt: Stmt) -> Stmt:
        """The copy of a statement."""
        new = super().stmt(stmt)
        if isinstance(stmt, Alloc):
            assert isinstance(new, Alloc)
            name = f"{stmt.buffer.name}u{self.number}"
            self.buffers[stmt.buffer] = replace(new.buffer, name=name)
            return Alloc(self.buffers[stmt.buffer])
        return new


def jam(body: Block, var: Var, base: Expr, count: int) -> Block:
    """The iterations of ``var`` from ``base`` on, so many, one statement of all after the other.

    Loops are run once for all, so that what does not depend on ``var`` is loaded once.  The
    iterations must be independent, and no extent may depend on ``var``.
    """
    copies = [_Copy({var: add(base, const(k))}, k) for k in range(count)]

    def together(stmts: Sequence[Stmt]) -> list[Stmt]:
        found: list[Stmt] = []
        for s in stmts:
            if isinstance(s, Block):
                found.append(Block(tuple(together(s.stmts))))
            elif isinstance(s, For):
                shared = Var(s.var.name)
                extent = copies[0].expr(s.extent)
                for copy in copies:
                    copy._declare(s.var)
                    copy.named(s.var, shared)
                found.append(For(shared, extent, s.kind, Block(tuple(together(s.body.stmts)))))
            else:
                found += [copy.stmt(s) for copy in copies]
        return found

    return Block(tuple(together(body.stmts)))


# --- nests ----------------------------------------------------------------------------------------


def open_nest(stmt: Stmt) -> tuple[list[Loop], Block]:
    """The perfectly nested serial loops from ``stmt`` inwards and the innermost body."""
    loops: list[Loop] = []
    body = block(stmt)
    while len(body.stmts) == 1:
        (inner,) = body.stmts
        if isinstance(inner, Block):
            body = inner
        elif isinstance(inner, For) and inner.kind is LoopKind.SERIAL:
            loops.append((inner.var, inner.extent))
            body = inner.body
        else:
            break
    return loops, body


def close_nest(loops: Sequence[Loop], body: Block) -> Block:
    """Serial loops around a body, the first outermost."""
    for var, extent in reversed(loops):
        body = block(For(var, extent, LoopKind.SERIAL, body))
    return body


def drop_unit_loops(loops: Sequence[Loop], body: Block) -> tuple[list[Loop], Block]:
    """The nest without its loops of extent 1."""
    units = [v for v, extent in loops if known(extent) == 1]
    if not units:
        return list(loops), body
    binding: dict[Var, Expr] = dict.fromkeys(units, ZERO)
    rewriter = Rewriter(binding)
    kept = [(v, rewriter.expr(e)) for v, e in loops if known(e) != 1]
    return kept, rewriter.block(body)


# --- split, reorder, collapse ---------------------------------------------------------------------


def split(loop: For, factor: int, tail: str = "guard") -> Block:
    """Two loops for one: the inner one runs ``factor`` iterations.

    ``tail`` says what becomes of an extent that is no multiple: ``"exact"`` (it is one),
    ``"guard"`` (the last round tests every iteration) or ``"loop"`` (a loop of its own for the
    rest). Where the extent is known to be a multiple the three are the same.
    """
    outer, inner = Var(f"{loop.var.name}o"), Var(f"{loop.var.name}i")
    at = add(mul(outer, factor), inner)
    whole = index_div(loop.extent, const(factor))
    body = instance(loop.body, {loop.var: at})
    if tail == "exact" or multiple_of(loop.extent, factor):
        if (known(loop.extent) or 0) % factor:
            raise ScheduleError(f"the extent of {loop.var.name!r} is no multiple of {factor}")
        return close_nest([(outer, whole), (inner, const(factor))], body)
    if tail == "guard":
        rounds = index_div(add(loop.extent, factor - 1), const(factor))
        guarded = block(If(at < loop.extent, body))
        return close_nest([(outer, rounds), (inner, const(factor))], guarded)
    done = mul(whole, factor)
    rest = Var(loop.var.name)
    main = close_nest([(outer, whole), (inner, const(factor))], body)
    left = instance(loop.body, {loop.var: add(done, rest)})
    return block(main, close_nest([(rest, sub(loop.extent, done))], left))


def interchange(loop: For) -> For:
    """The loop and the one perfectly nested in it, swapped; the caller knows that it is legal."""
    inner = loop.body.stmts[0] if len(loop.body.stmts) == 1 else None
    if not isinstance(inner, For) or mentions(inner.extent, {loop.var}):
        raise ScheduleError(f"no loop to interchange {loop.var.name!r} with")
    return replace(inner, body=block(replace(loop, body=inner.body)))


def collapse(loops: Sequence[Loop], body: Block) -> tuple[list[Loop], Block]:
    """Adjacent loops made one wherever every access walks through both without a gap."""
    kept = list(loops)
    at = len(kept) - 2
    while at >= 0:
        fused = _collapse_pair(kept[at], kept[at + 1], body)
        if fused is not None:
            kept[at : at + 2] = [fused[0]]
            body = fused[1]
        at = min(at, len(kept) - 1) - 1
    return kept, body


def _collapse_pair(outer: Loop, inner: Loop, body: Block) -> tuple[Loop, Block] | None:
    """One loop for two, if coefficient(outer) == coefficient(inner) * extent(inner) throughout."""
    (outer_var, outer_extent), (inner_var, inner_extent) = outer, inner
    if mentions(inner_extent, {outer_var}):
        return None
    fused = Var(inner_var.name)
    both = {outer_var, inner_var}

    def flatten(index: Expr) -> Expr:
        if not mentions(index, both):
            return index
        found = coefficients(index, (outer_var, inner_var))
        if found is None:
            return index
        by, rest = found
        if not equal(by[outer_var], mul(by[inner_var], inner_extent)):
            return index
        return add(mul(fused, by[inner_var]), rest)

    new = Rewriter({}, index=flatten).block(body)
    roots = [e for s in walk_stmt(new) for e in stmt_exprs(s)]
    if any(node in both for node in walk_expr(*roots)):
        return None
    return (fused, mul(outer_extent, inner_extent)), new


def fuse_counters(loops: Sequence[Loop], name: str = "p") -> tuple[Var, Expr, list[Stmt]]:
    """One counter for several loops, by division: the loop, and the Lets that give their variables.

    The way to make a parallel loop of loops that ``collapse`` cannot join.
    """
    if len(loops) == 1:
        return loops[0][0], loops[0][1], []
    counter = Var(name)
    lets: list[Stmt] = []
    left: Expr = counter
    for at in range(len(loops) - 1, 0, -1):
        var, extent = loops[at]
        lets.append(Let(var, index_mod(left, extent)))
        left = index_div(left, extent)
        if at > 1:
            above = Var(f"{name}{at}")
            lets.append(Let(above, left))
            left = above
    lets.append(Let(loops[0][0], left))
    total: Expr = ONE
    for _, extent in loops:
        total = mul(total, extent)
    return counter, total, lets


# --- kinds ----------------------------------------------------------------------------------------


def unroll(loop: For) -> For:
    """The loop as copies of its body."""
    if (known(loop.extent) or 0) < 1:
        raise ScheduleError(f"the extent of {loop.var.name!r} is not a positive constant")
    return replace(loop, kind=LoopKind.UNROLLED)


def parallelize(kernel: Kernel, grain: Expr = ONE) -> Kernel:
    """The kernel with its last top-level loop, which only Lets may precede, made parallel."""
    *before, loop = kernel.body.stmts
    if not isinstance(loop, For) or any(not isinstance(s, Let) for s in before):
        raise ScheduleError(f"kernel {kernel.name!r} is not one loop")
    body = Block((*before, replace(loop, kind=LoopKind.PARALLEL)))
    return replace(kernel, body=body, grain=grain)
