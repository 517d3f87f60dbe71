"""Elementwise kernels that read across the grain: square tiles turned in registers.

A load that walks through memory with one loop while the vectors run along another would gather
lane by lane. Tiles of T x T elements are loaded along the memory instead, into a local buffer, and
read back turned.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.loop.affine import coefficients, known, mentions, multiple_of
from graphc.loop.cpu_cost import body_cost, step
from graphc.loop.ir import (
    Alloc,
    Block,
    Buffer,
    Expr,
    For,
    Guard,
    If,
    Let,
    Load,
    LoopKind,
    Reduce,
    Require,
    Scope,
    Stmt,
    Store,
    Var,
    add,
    block,
    const,
    index_div,
    local,
    logical_and,
    mul,
    sub,
    walk_stmt,
)
from graphc.loop.transform import Loop, Rewriter, instance

MOST = 16  # a tile is unrolled: its text grows with its width
_CHEAP = 8  # a body that may be unrolled as well


def turned_loads(body: Block, along: Var, across: Var) -> list[Load]:
    """Loads that step through memory with ``across`` and jump with ``along``, done in any case."""
    if any(isinstance(s, (If, For, Alloc, Reduce)) for s in walk_stmt(body)):
        return []
    written = {s.buffer for s in walk_stmt(body) if isinstance(s, Store)}
    own = {s.var for s in walk_stmt(body) if isinstance(s, Let)}
    found: dict[Load, None] = {}
    seen: set[Expr] = set()
    stack: list[Expr] = [s.value for s in walk_stmt(body) if isinstance(s, (Store, Let))]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, Load):
            plain = node.buffer.scope is Scope.GLOBAL and node.buffer not in written
            moves = step(node.index, across) == 1 and step(node.index, along) is None
            linear = moves and coefficients(node.index, (along, across)) is not None
            if plain and linear and not mentions(node.index, own):
                found[node] = None
        elif isinstance(node, (Guard, Require)):
            stack.append(node.cond)
        else:
            stack.extend(node.operands)
    return list(found)


def tiles(
    along: Loop, across: Loop, body: Block, loads: Sequence[Load], size: int
) -> tuple[Loop, Block]:
    """A loop over strips of ``size`` iterations of ``along``; in each, tiles over ``across``."""
    strip, tile = Var(f"{along[0].name}b"), Var(f"{across[0].name}b")
    first, top = Var(f"{along[0].name}0"), Var(f"{across[0].name}0")
    whole = _tile(along[0], across[0], body, loads, size, first, top)
    left, below = sub(along[1], first), sub(across[1], top)
    fits: list[Expr] = []
    if not multiple_of(along[1], size):
        fits.append(const(size) <= left)
    if not multiple_of(across[1], size):
        fits.append(const(size) <= below)
    inner: list[Stmt] = [Let(top, mul(tile, size))]
    if fits:
        row = Var(across[0].name)
        at: dict[Var, Expr] = {across[0]: add(top, row)}
        edge = _vector(along[0], first, size, instance(body, at), left)
        rows = If(row < below, block(edge))
        rest = For(row, const(size), LoopKind.SERIAL, block(rows))
        inner.append(If(fits[0] if len(fits) == 1 else logical_and(*fits), whole, block(rest)))
    else:
        inner.extend(whole.stmts)
    count = index_div(add(across[1], size - 1), const(size))
    down = For(tile, count, LoopKind.SERIAL, Block(tuple(inner)))
    strips = index_div(add(along[1], size - 1), const(size))
    return (strip, strips), Block((Let(first, mul(strip, size)), down))


def _vector(var: Var, first: Expr, size: int, body: Block, count: Expr | None) -> For:
    lane = Var("l")
    new = instance(body, {var: add(first, lane)})
    if count is not None:
        new = block(If(lane < count, new))
    return For(lane, const(size), LoopKind.VECTORIZED, new)


def _tile(
    along: Var, across: Var, body: Block, loads: Sequence[Load], size: int, first: Var, top: Var
) -> Block:
    """A whole tile: every load along the memory, then the body over the turned tiles."""
    stmts: list[Stmt] = []
    turned: dict[Load, Buffer] = {}
    direct = body_cost(body) <= _CHEAP * len(loads)
    for load in loads:
        row, lane = Var("k"), Var("l")
        # One more in a row: neighbours in a column are not in the same cache set.
        raw = local("tile", load.dtype, size * (size + 1))
        copy = Rewriter({along: add(first, row), across: add(top, lane)}).expr(load)
        fill = Store(raw, add(mul(row, size + 1), lane), copy)
        stmts += [Alloc(raw), _rows(row, lane, size, fill)]
        turned[load] = raw
        if not direct:
            row, lane = Var("k"), Var("l")
            turned[load] = local("turned", load.dtype, size * size)
            value = Load(raw, add(mul(lane, size + 1), row))
            turn = Store(turned[load], add(mul(row, size), lane), value)
            stmts += [Alloc(turned[load]), _rows(row, lane, size, turn)]
    row, lane = Var(across.name), Var("l")
    fixed: dict[Expr, Expr] = {}
    for load, buffer in turned.items():
        by_lane = add(mul(lane, size + 1), row) if direct else add(mul(row, size), lane)
        fixed[load] = Load(buffer, by_lane)
    rewriter = Rewriter({along: add(first, lane), across: add(top, row)}, fixed=fixed)
    inner = For(lane, const(size), LoopKind.VECTORIZED, rewriter.block(body))
    kind = LoopKind.UNROLLED if direct else LoopKind.SERIAL
    stmts.append(For(row, const(size), kind, block(inner)))
    return Block(tuple(stmts))


def _rows(row: Var, lane: Var, size: int, stmt: Stmt) -> For:
    inner = For(lane, const(size), LoopKind.VECTORIZED, block(stmt))
    return For(row, const(size), LoopKind.UNROLLED, block(inner))


def fits(loop: Loop, size: int) -> bool:
    """Whether a loop is long enough for tiles."""
    extent = known(loop[1])
    return extent is None or extent >= size
