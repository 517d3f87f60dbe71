"""Stages vectorized along their own rows: reductions by lanes with totals of their own."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.loop.affine import known, mentions
from graphc.loop.cpu_cost import (
    Target,
    narrow_lanes,
    scalar_cost,
    trips,
    vector_cost,
    vector_width,
)
from graphc.loop.ir import (
    Alloc,
    Block,
    Buffer,
    For,
    If,
    Load,
    LoopKind,
    Reduce,
    Scope,
    Stmt,
    Store,
    stmt_exprs,
    walk_expr,
    walk_stmt,
)
from graphc.loop.transform import Loop, close_nest, collapse, drop_unit_loops, open_nest
from graphc.loop.transform_vector import accumulators, vectorize, vectorize_reduction

_COMBINE = 16.0  # adding up the lanes of one accumulator


def row_cost(body: Block, target: Target) -> float:
    """The cost of a body whose nests are vectorized one by one."""
    total = 0.0
    for stmt in body.stmts:
        if not isinstance(stmt, For):
            total += scalar_cost(stmt)
            continue
        loops, inner = open_nest(stmt)
        times = 1.0
        for _, extent in loops:
            times *= trips(extent)
        if any(isinstance(s, For) for s in walk_stmt(inner)):
            total += times * row_cost(inner, target)
        elif not loops or not _by_lanes(loops, inner):
            total += times * scalar_cost(inner)
        else:
            _, cost = _best(loops, inner, target)
            total += cost + _COMBINE * len(accumulators(inner))
    return total


def tidy(body: Block) -> Block:
    """Every nest inside without loops of one iteration or none, and collapsed where it can be."""
    stmts: list[Stmt] = []
    for stmt in body.stmts:
        if isinstance(stmt, For) and stmt.kind is LoopKind.SERIAL:
            loops, inner = tidy_nest(*open_nest(stmt))
            if any(known(extent) == 0 for _, extent in loops):
                continue
            made = close_nest(loops, inner)
            stmts.extend(made.stmts if len(made.stmts) == 1 else (made,))
        elif isinstance(stmt, If):
            stmts.append(If(stmt.cond, tidy(stmt.then), stmt.otherwise and tidy(stmt.otherwise)))
        else:
            stmts.append(tidy(stmt) if isinstance(stmt, Block) else stmt)
    return Block(tuple(stmts))


def tidy_nest(loops: Sequence[Loop], body: Block) -> tuple[list[Loop], Block]:
    """The same of a nest and everything in its body."""
    loops, body = drop_unit_loops(loops, tidy(body))
    return collapse(loops, body)


def _best(loops: Sequence[Loop], body: Block, target: Target) -> tuple[int, float]:
    """The loop of a nest to vectorize, and what the nest costs then."""
    found: list[tuple[float, int]] = []
    for at in range(len(loops) - 1, -1, -1):
        var, extent = loops[at]
        lanes = vector_width(body, var, extent, target, most=1)
        cost = vector_cost(body, var, extent, lanes)
        for other, (_, size) in enumerate(loops):
            cost *= 1 if other == at else trips(size)
        found.append((cost, at))
    cost, at = min(found, key=lambda c: c[0])
    return at, cost


def schedule_rows(body: Block, target: Target) -> Block:
    """Every nest of the body vectorized along one of its own loops."""
    stmts: list[Stmt] = []
    for stmt in body.stmts:
        if isinstance(stmt, For) and stmt.kind is LoopKind.SERIAL:
            made = _nest(stmt, target)
            # Totals of one nest are not in scope in the next.
            stmts.extend(made.stmts if len(made.stmts) == 1 else (made,))
        elif isinstance(stmt, If):
            other = stmt.otherwise and schedule_rows(stmt.otherwise, target)
            stmts.append(If(stmt.cond, schedule_rows(stmt.then, target), other))
        elif isinstance(stmt, Block):
            stmts.append(schedule_rows(stmt, target))
        else:
            stmts.append(stmt)
    return Block(tuple(stmts))


def _nest(stmt: For, target: Target) -> Block:
    loops, body = open_nest(stmt)
    if any(isinstance(s, For) for s in walk_stmt(body)):
        return close_nest(loops, schedule_rows(body, target))
    if not loops or not _by_lanes(loops, body):
        return close_nest(loops, body)
    at, _ = _best(loops, body, target)
    loop = loops[at]
    others = [other for i, other in enumerate(loops) if i != at]
    width, narrow = vector_width(body, *loop, target), narrow_lanes(body, loop[0], target)
    if accumulators(body):
        return vectorize_reduction(others, loop, body, width, narrow)
    return close_nest(others, vectorize(loop, body, width, narrow=narrow))


def _by_lanes(loops: Sequence[Loop], body: Block) -> bool:
    """Whether the iterations of a nest may be done in any order, but for what they reduce into."""
    variables = {v for v, _ in loops}
    if any(mentions(extent, variables) for _, extent in loops):
        return False
    own: set[Buffer] = set()
    kept: set[Buffer] = set()
    for stmt in walk_stmt(body):
        if isinstance(stmt, Alloc):
            own.add(stmt.buffer)
        elif isinstance(stmt, Store) and stmt.buffer not in own:
            # One element of a local buffer would be every lane's; a row of them is not.
            if stmt.buffer.scope is not Scope.GLOBAL and not all(
                mentions(stmt.index, {v}) for v in variables
            ):
                return False
        elif isinstance(stmt, Reduce) and stmt.buffer not in own:
            kept.add(stmt.buffer)
    if not kept <= set(accumulators(body)):
        return False
    read = {
        node.buffer
        for stmt in walk_stmt(body)
        for node in walk_expr(*stmt_exprs(stmt))
        if isinstance(node, Load)
    }
    return not kept & read
