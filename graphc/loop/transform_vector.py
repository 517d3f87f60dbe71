"""Schedule primitives for vectors: loops by lanes, reductions by lanes with totals of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.loop.affine import known, multiple_of
from graphc.loop.ir import (
    ZERO,
    Alloc,
    Block,
    Buffer,
    Const,
    Expr,
    For,
    If,
    Let,
    Load,
    LoopKind,
    Reduce,
    Scope,
    Stmt,
    Store,
    Var,
    add,
    block,
    const,
    index_div,
    local,
    mul,
    reduce_identity,
    sub,
    walk_stmt,
)
from graphc.loop.transform import Loop, ScheduleError, close_nest, instance


def _lanes(body: Block, var: Var, base: Expr, width: int, count: Expr | None) -> For:
    """One vector of iterations from ``base`` on; only ``count`` of them, unless it is None."""
    lane = Var("l")
    new = instance(body, {var: add(base, lane)})
    if count is not None:
        new = block(If(lane < count, new))
    return For(lane, const(width), LoopKind.VECTORIZED, new)


def vectorize(
    loop: Loop,
    body: Block,
    width: int,
    *,
    start: Expr = ZERO,
    between: Sequence[Loop] = (),
    shrink: bool = True,
    narrow: int = 0,
) -> Block:
    """The loop by vectors of ``width``: full ones, then one under a mask for what is left.

    ``start`` is added to the loop variable, for a loop that is a piece of a longer one. The loops
    ``between`` are put inside of the loop over vectors, around each vector. With ``shrink``, a rest
    of known size gets a vector that is no wider than it needs. With ``narrow`` there are no masks:
    a rest is done by vectors of so many lanes, and by ever smaller ones, or one by one if its size
    is unknown.
    """
    var, extent = loop
    size = known(extent)

    def vector(base: Expr, count: Expr | None, lanes: int = width) -> Stmt:
        one = _lanes(body, var, base, lanes, count)
        return instance(close_nest(between, block(one)), {}).stmts[0] if between else one

    if size is not None and narrow and size < min(width, narrow):
        pieces, at = [], 0
        for lanes in _powers(size):
            pieces.append(vector(add(start, at), None, lanes))
            at += lanes
        return block(*pieces)
    if size is not None and narrow and size < width:
        return vectorize(loop, body, narrow, start=start, between=between, narrow=narrow)
    if size is not None and size <= width:
        return block(vector(start, None if size == width else extent)) if size else Block(())
    whole = index_div(extent, const(width))
    rounds = Var(f"{var.name}v")
    full = vector(add(start, mul(rounds, width)), None)
    main = For(rounds, whole, LoopKind.SERIAL, block(full))
    if multiple_of(extent, width):
        return block(main)
    done = mul(whole, width)
    if size is not None:
        rest = size % width
        if narrow:
            tail = vectorize(
                (var, const(rest)), body, width, start=add(start, done), between=between,
                narrow=narrow,
            )  # fmt: skip
            return block(main, tail)
        lanes = 1 << (rest - 1).bit_length() if shrink else width
        return block(main, vector(add(start, done), None if rest == lanes else const(rest), lanes))
    first = Var(f"{var.name}d")
    base, left = add(start, first), sub(extent, first)
    if not narrow:
        return Block((main, Let(first, done), If(first < extent, block(vector(base, left)))))
    if width > narrow:
        tail = vectorize((var, left), body, narrow, start=base, between=between, narrow=narrow)
    else:
        one = Var(f"{var.name}r")
        single = close_nest(between, instance(body, {var: add(base, one)}))
        tail = instance(block(For(one, left, LoopKind.SERIAL, single)), {})
    return Block((main, Let(first, done), *tail.stmts))


def _powers(size: int) -> list[int]:
    """Powers of two that add up to a size, the largest first."""
    return [1 << k for k in reversed(range(size.bit_length())) if size >> k & 1]


def vectorize_block(
    loop: Loop, body: Block, width: int, index: Expr, narrow: int = 0
) -> Block:
    """Vector number ``index`` of the loop: full, or under a mask if it is the last of an odd size.

    For a loop over vectors that is itself outermost: ``vector_count`` says how many there are.
    ``narrow`` is that of :func:`vectorize`.
    """
    var, extent = loop
    base = Var(f"{var.name}b")
    let = Let(base, mul(index, width))
    full = _lanes(body, var, base, width, None)
    if multiple_of(extent, width):
        return Block((let, full))
    left = sub(extent, base)
    part = block(_lanes(body, var, base, width, left))
    size = known(extent)
    if narrow:
        rest = left if size is None else const(size % width)
        part = vectorize((var, rest), body, narrow, start=base, narrow=narrow)
    if (size or width) < width:
        return Block((let, *part.stmts))
    return Block((let, If(left < width, part, block(full))))


def vector_count(extent: Expr, width: int) -> Expr:
    """How many vectors of ``width`` an extent takes, the last one maybe not full."""
    return index_div(add(extent, width - 1), const(width))


def accumulators(body: Block) -> dict[Buffer, Reduce]:
    """The buffers that a loop body reduces into at one place, with the statement that does.

    Empty when a buffer is reduced into in a way that lanes cannot take over.
    """
    found: dict[Buffer, Reduce] = {}
    own = {s.buffer for s in walk_stmt(body) if isinstance(s, Alloc)}
    for stmt in walk_stmt(body):
        if isinstance(stmt, Reduce) and stmt.buffer not in own:
            fixed = stmt.buffer.scope is Scope.LOCAL and isinstance(stmt.index, Const)
            if not fixed or stmt.buffer in found:
                return {}
            found[stmt.buffer] = stmt
    return found


def vectorize_reduction(
    outer: Sequence[Loop], loop: Loop, body: Block, width: int, narrow: int = 0
) -> Block:
    """A nest that reduces into scalars, by ``width`` lanes that each have their own totals.

    ``outer`` are the loops of the nest around ``loop``. The lanes' totals start as the identity
    and are combined once, at the end. With ``narrow``, which is that of :func:`vectorize`, the rest
    goes into the scalars at once.
    """
    wide = accumulators(body)
    if not wide:
        raise ScheduleError(f"the loop {loop[0].name!r} does not reduce into scalars")
    before: list[Stmt] = []
    after: list[Stmt] = []
    lanes: dict[Buffer, Buffer] = {}
    for acc, reduce in wide.items():
        own = lanes[acc] = local(f"{acc.name}v", acc.dtype, width)
        first, last = Var("l"), Var("l")
        identity = reduce_identity(reduce.op, acc.dtype)
        before.append(Alloc(own))
        before.append(_vector(first, width, Store(own, first, identity)))
        total = Reduce(acc, reduce.index, reduce.op, Load(own, last))
        after.append(_vector(last, width, total))
    inner = _to_lanes(vectorize(loop, body, width, shrink=False, narrow=narrow), lanes, None)
    return Block((*before, *close_nest(outer, inner).stmts, *after))


def _vector(lane: Var, width: int, stmt: Stmt) -> For:
    return For(lane, const(width), LoopKind.VECTORIZED, block(stmt))


def _to_lanes(body: Block, lanes: dict[Buffer, Buffer], lane: Var | None) -> Block:
    """Reductions inside vectorized loops go into the lanes' own totals."""

    def spread(stmt: Stmt) -> Stmt:
        if isinstance(stmt, Reduce) and lane is not None and stmt.buffer in lanes:
            return replace(stmt, buffer=lanes[stmt.buffer], index=lane)
        if isinstance(stmt, For):
            inside = stmt.var if stmt.kind is LoopKind.VECTORIZED else lane
            return replace(stmt, body=_to_lanes(stmt.body, lanes, inside))
        if isinstance(stmt, If):
            other = stmt.otherwise and _to_lanes(stmt.otherwise, lanes, lane)
            return If(stmt.cond, _to_lanes(stmt.then, lanes, lane), other)
        return _to_lanes(stmt, lanes, lane) if isinstance(stmt, Block) else stmt

    return Block(tuple([spread(s) for s in body.stmts]))
