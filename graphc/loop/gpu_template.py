"""Kernels scheduled for CPUs as grids: a thread for every iteration of their outermost loops."""

from __future__ import annotations

from dataclasses import replace

from graphc.loop.affine import coefficients, equal, known, mentions
from graphc.loop.gpu_grid import GpuTarget, grid_stride
from graphc.loop.ir import (
    ONE,
    Alloc,
    Block,
    Buffer,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Reduce,
    Require,
    Stmt,
    Store,
    Var,
    logical_and,
    stmt_exprs,
    substitute,
    walk_expr,
    walk_stmt,
)
from graphc.loop.transform import ScheduleError, instance

__all__ = ["thread_per_iteration"]

_SIDE = 64  # threads of a block that each do a long piece of work alone


def thread_per_iteration(kernel: Kernel, target: GpuTarget) -> Kernel:
    """A kernel scheduled for CPUs: a thread for every iteration of its parallel loop.

    A kernel without such a loop becomes a launch for each of its statements: those loops whose
    iterations write elements of their own have a thread for each iteration, all else has one.
    Lanes of vectors come one after the other.
    """
    body = serial_block(kernel.body)
    launches = _Launches(target)
    if kernel.parallel is not None or _begins_alike(body):
        launches.add(body, (), None)
    else:
        launches.alone(body.stmts, (), None)
    return replace(kernel, body=Block(tuple(launches.stmts)), grain=ONE)


class _Launches:
    """Collects launches; in each, the declarations before a statement are made again."""

    def __init__(self, target: GpuTarget) -> None:
        self.target = target
        self.stmts: list[Stmt] = []

    def add(self, body: Block, lets: tuple[Let, ...], cond: Expr | None) -> None:
        """The statements of a block, done where ``cond`` holds."""
        for stmt in body.stmts:
            if isinstance(stmt, Let):
                lets = (*lets, stmt)
            elif isinstance(stmt, Block):
                self.add(stmt, lets, cond)
            elif isinstance(stmt, If) and stmt.otherwise is None:
                both = stmt.cond if cond is None else logical_and(cond, stmt.cond)
                self.add(stmt.then, lets, both)
            elif isinstance(stmt, For) and (stmt.kind is LoopKind.PARALLEL or _apart(stmt)):
                self.each(stmt, lets, cond)
            else:
                self.alone((stmt,), lets, cond)

    def each(self, loop: For, lets: tuple[Let, ...], cond: Expr | None) -> None:
        """A thread for each iteration of a loop."""
        count = _over_scalars(loop.extent, {let.var: let.value for let in lets})

        def iteration(number: Var, _: Var) -> Block:
            inner = Block((Let(loop.var, number), *loop.body.stmts))
            return instance(_where(cond, lets, inner), {})

        self.stmts.append(grid_stride(count, self.target, (_SIDE, 1), iteration))

    def alone(self, stmts: tuple[Stmt, ...], lets: tuple[Let, ...], cond: Expr | None) -> None:
        """One thread for all."""
        body = instance(_where(cond, lets, Block(stmts)), {})
        self.stmts.append(grid_stride(ONE, self.target, (1, 1), lambda _n, _x: body))


def _begins_alike(body: Block) -> bool:
    """Whether what stands before a statement is the same whatever other statements have done."""
    written = {s.buffer for s in walk_stmt(body) if isinstance(s, (Store, Reduce))}
    before = [s for s in body.stmts if not isinstance(s, For)]
    read = {
        node.buffer
        for stmt in before
        for node in walk_expr(*stmt_exprs(stmt))
        if isinstance(node, Load)
    }
    return not any(isinstance(s, Alloc) for s in before) and not read & written


def _where(cond: Expr | None, lets: tuple[Let, ...], body: Block) -> Block:
    return Block((*lets, *(body.stmts if cond is None else (If(cond, body),))))


def _apart(loop: For) -> bool:
    """Whether every iteration writes elements of its own, and reads no others that are written."""
    stmts = list(walk_stmt(loop.body))
    inner = {s.var: known(s.extent) or 0 for s in stmts if isinstance(s, For)}
    declared = {s.var for s in stmts if isinstance(s, Let)}
    own = {s.buffer for s in stmts if isinstance(s, Alloc)}
    places: dict[Buffer, Expr] = {}
    for write in stmts:
        if isinstance(write, (Store, Reduce)) and write.buffer not in own:
            known_place = equal(places.setdefault(write.buffer, write.index), write.index)
            found = coefficients(write.index, (loop.var, *inner))
            if not known_place or found is None or mentions(found[1], declared):
                return False
            steps = {v: known(step) for v, step in found[0].items()}
            reach = 0
            for v, count in inner.items():
                step = steps[v]
                if step is None or step < 0 or count < 1:
                    return False
                reach += step * (count - 1)
            if (steps[loop.var] or 0) <= reach:
                return False
    return bool(places) and all(
        equal(node.index, places[node.buffer])
        for stmt in stmts
        for node in walk_expr(*stmt_exprs(stmt))
        if isinstance(node, Load) and node.buffer in places
    )


def _over_scalars(extent: Expr, lets: dict[Var, Expr]) -> Expr:
    """An extent without the variables that are declared beside the loop."""
    while any(node in lets for node in walk_expr(extent)):
        extent = substitute(extent, lets)
    if any(isinstance(node, (Load, Require)) for node in walk_expr(extent)):
        raise ScheduleError("how many threads a kernel needs is known when it runs only")
    return extent


def serial(stmt: Stmt) -> Stmt:
    """The statement with its vectorized loops as serial ones."""
    if isinstance(stmt, Block):
        return serial_block(stmt)
    if isinstance(stmt, For):
        kind = LoopKind.SERIAL if stmt.kind is LoopKind.VECTORIZED else stmt.kind
        return replace(stmt, kind=kind, body=serial_block(stmt.body))
    if isinstance(stmt, If):
        other = None if stmt.otherwise is None else serial_block(stmt.otherwise)
        return If(stmt.cond, serial_block(stmt.then), other)
    return stmt


def serial_block(body: Block) -> Block:
    """The same of every statement of a block."""
    return Block(tuple([serial(s) for s in body.stmts]))
