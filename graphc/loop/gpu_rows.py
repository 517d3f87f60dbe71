"""Items of a nest shared out among the threads of a warp or a block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.loop.affine import equal, mentions
from graphc.loop.gpu_grid import GpuTarget, grid_stride
from graphc.loop.ir import (
    ONE,
    TRUE,
    ZERO,
    Alloc,
    AllReduce,
    Barrier,
    Block,
    Buffer,
    Const,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Reduce,
    Scope,
    Stmt,
    Store,
    Var,
    add,
    apply,
    block,
    const,
    logical_and,
    mul,
    reduce_identity,
    stmt_exprs,
    substitute,
    walk_expr,
    walk_stmt,
)
from graphc.loop.transform import Loop, Rewriter, close_nest, fuse_counters, instance, open_nest
from graphc.loop.transform_vector import accumulators, vector_count

_BLOCKS = 256  # that a sum of everything is shared out among


def loaded(stmts: Sequence[Stmt]) -> set[Buffer]:
    """What statements read."""
    return {
        node.buffer
        for top in stmts
        for stmt in walk_stmt(top)
        for node in walk_expr(*stmt_exprs(stmt))
        if isinstance(node, Load)
    }


def stored(stmt: Stmt) -> set[Buffer]:
    """The global buffers that a statement writes."""
    return {
        s.buffer
        for s in walk_stmt(stmt)
        if isinstance(s, (Store, Reduce)) and s.buffer.scope is Scope.GLOBAL
    }


def waits(body: Block) -> bool:
    """Whether threads read what others of them have stored."""
    return any(needs_barrier(body, at) for at in range(len(body.stmts)))


def needs_barrier(body: Block, at: int) -> bool:
    """Whether what a statement stores is read by other threads later.

    Nests with the same extents are shared out alike: an iteration finds what the same one stored.
    """
    stmt, later = body.stmts[at], body.stmts[at + 1 :]
    written = stored(stmt)
    return any(
        written & loaded((other,)) and not _same_thread(stmt, other, written) for other in later
    )


def _same_thread(first: Stmt, second: Stmt, buffers: set[Buffer]) -> bool:
    """Whether iterations of a nest read, of these buffers, what the same ones of another stored."""
    if not isinstance(first, For) or not isinstance(second, For):
        return False
    (loops, stores), (again, reads) = open_nest(first), open_nest(second)
    alike = zip([e for _, e in loops], [e for _, e in again], strict=False)
    if len(loops) != len(again) or not all(equal(a, b) for a, b in alike):
        return False
    binding: dict[Var, Expr] = {v: w for (v, _), (w, _) in zip(again, loops, strict=True)}
    places = {s.buffer: s.index for s in walk_stmt(stores) if isinstance(s, Store)}
    return all(
        node.buffer in places and equal(substitute(node.index, binding), places[node.buffer])
        for stmt in walk_stmt(reads)
        for node in walk_expr(*stmt_exprs(stmt))
        if isinstance(node, Load) and node.buffer in buffers
    )


def has_spread(body: Block) -> bool:
    """Whether there are nests and threads may share out the iterations of all of them."""
    nests = [s for s in body.stmts if isinstance(s, For)]
    plain = all(isinstance(s, (For, Alloc, Let, Store)) for s in body.stmts)
    return plain and bool(nests) and all(_by_threads(*open_nest(s)) for s in nests)


def _by_threads(loops: Sequence[Loop], body: Block) -> bool:
    """Whether the iterations may be done in any order, but for what they reduce into."""
    variables = {v for v, _ in loops}
    if not loops or any(mentions(extent, variables) for _, extent in loops):
        return False
    own = {s.buffer for s in walk_stmt(body) if isinstance(s, Alloc)}
    kept: set[Buffer] = set()
    for stmt in walk_stmt(body):
        if isinstance(stmt, Store) and stmt.buffer not in own:
            if stmt.buffer.scope is not Scope.GLOBAL:
                return False
        elif isinstance(stmt, Reduce) and stmt.buffer not in own:
            kept.add(stmt.buffer)
    return kept <= set(accumulators(body)) and not kept & loaded(body.stmts)


def spread_rows(body: Block, x: Var, across: int) -> Block:
    """The body of an item by ``across`` threads, of which this is number ``x``."""
    stmts: list[Stmt] = []
    for at, stmt in enumerate(body.stmts):
        if isinstance(stmt, For):
            stmts += _nest(stmt, x, across)
        elif isinstance(stmt, Store) and stmt.buffer.scope is Scope.GLOBAL:
            stmts.append(If(apply("eq", x, ZERO), block(stmt)))
        else:
            stmts.append(stmt)
        if needs_barrier(body, at):
            stmts.append(Barrier())
    return Block(tuple(stmts))


def _nest(stmt: For, thread: Expr, threads: int) -> list[Stmt]:
    """A nest by threads, whose totals are combined."""
    stmts, totals = shared_out(stmt, thread, threads)
    for own, reduce in totals:
        stmts.append(AllReduce(own, ZERO, reduce.op))
        stmts.append(replace(reduce, value=Load(own, ZERO)))
    return stmts


def shared_out(
    stmt: For, thread: Expr, threads: int, cond: Expr = TRUE
) -> tuple[list[Stmt], list[tuple[Buffer, Reduce]]]:
    """A nest of which each thread does every ``threads``-th iteration, into totals of its own.

    Nothing is done where ``cond`` does not hold. The totals come with what they belong to.
    """
    loops, inner = open_nest(stmt)
    counter, count, lets = fuse_counters(loops, "q")
    reduces = accumulators(inner)
    totals = {acc: replace(acc, name=f"{acc.name}t") for acc in reduces}
    stmts: list[Stmt] = []
    for acc, own in totals.items():
        stmts += [Alloc(own), Store(own, ZERO, reduce_identity(reduces[acc].op, acc.dtype))]
    rewriter = Rewriter({})
    rewriter.buffers.update(totals)
    turn = Var("t")
    place = Let(counter, add(mul(turn, threads), thread))
    inside = logical_and(counter < count, cond)
    body = If(inside, Block((*lets, *rewriter.block(inner).stmts)))
    stmts += close_nest([(turn, vector_count(count, threads))], Block((place, body))).stmts
    return stmts, [(own, reduces[acc]) for acc, own in totals.items()]


def total_of_everything(kernel: Kernel, body: Block, target: GpuTarget) -> Kernel | None:
    """One nest that reduces, by many blocks; a second launch combines what they have left.

    The workspaces stand behind the kernel's own parameters. None where the body is another.
    """
    nests = [at for at, stmt in enumerate(body.stmts) if isinstance(stmt, For)]
    nest = body.stmts[nests[0]]
    assert isinstance(nest, For)
    reduces = accumulators(open_nest(nest)[1])
    before, after = body.stmts[: nests[0]], body.stmts[nests[0] + 1 :]
    if len(nests) > 1 or stored(nest) or not begin_with_identities(before, reduces):
        return None
    blocks = min(_BLOCKS, target.blocks)
    spaces = {
        acc: Buffer(f"{acc.name}w", acc.dtype, const(blocks)) for acc in reduces
    }

    def part(b: Var, x: Var) -> Block:
        stmts = [*before, *_nest(nest, add(mul(b, target.threads), x), blocks * target.threads)]
        put = [Store(spaces[acc], b, Load(acc, r.index)) for acc, r in reduces.items()]
        return instance(Block((*stmts, If(apply("eq", x, ZERO), block(*put)))), {})

    def whole(_: Var, x: Var) -> Block:
        nests: list[Stmt] = []
        for acc, reduce in reduces.items():
            i = Var("i")
            again = replace(reduce, value=Load(spaces[acc], i))
            nests += close_nest([(i, const(blocks))], block(again)).stmts
        return spread_rows(Block((*before, *nests, *after)), x, target.threads)

    shape = (1, target.threads)
    first = grid_stride(const(blocks), target, shape, part)
    second = grid_stride(ONE, target, shape, whole)
    params = (*kernel.params, *spaces.values())
    return replace(kernel, params=params, body=Block((first, second)))


def begin_with_identities(stmts: Sequence[Stmt], reduces: dict[Buffer, Reduce]) -> bool:
    """Whether all that is done beforehand is to clear what is reduced into."""
    for stmt in stmts:
        if isinstance(stmt, Store) and stmt.buffer in reduces:
            identity = reduce_identity(reduces[stmt.buffer].op, stmt.buffer.dtype)
            if not isinstance(stmt.value, Const) or stmt.value.value != identity.value:
                return False
        elif not isinstance(stmt, (Alloc, Let)):
            return False
    return bool(reduces)
