"""Schedules for the CPU: a naive kernel made fast.

A naive kernel is a nest of serial loops over the kept dimensions whose body is a sequence of
stages: scalars that are reduced into by nests of serial loops, and stores, of one element or of
rows. The schedule

1. drops loops of one iteration and joins loops that walk through memory without a gap;
2. chooses what to vectorize by cost: the rows of each stage (softmax over the last axis), or one
   of the kept dimensions (elementwise; a sum over the first axis), where every scalar becomes one
   for each lane;
3. makes the outermost iterations, or blocks of a long vector loop, a parallel loop whose grain
   follows from an estimate of the work, never from the number of threads;
4. cuts loops where tests of positions change their answers (``cpu_split``);
5. asks for what comes from memory ahead of its use (``cpu_ahead``).

The iterations of the kept dimensions are independent by the meaning of a naive kernel; where a
kernel does something else, such as reducing into a parameter, it stays as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.dtypes import int64
from graphc.loop.affine import equal, known, mentions, multiple_of
from graphc.loop.cpu_ahead import ahead
from graphc.loop.cpu_cost import (
    SYMBOLIC,
    Target,
    body_cost,
    narrow_lanes,
    step,
    trips,
    vector_cost,
    vector_width,
    work,
)
from graphc.loop.cpu_cost import accesses as accesses_of
from graphc.loop.cpu_rows import row_cost, schedule_rows, tidy_nest
from graphc.loop.cpu_split import split_at_tests
from graphc.loop.cpu_tile import MOST, fits, tiles, turned_loads
from graphc.loop.ir import (
    ONE,
    Alloc,
    Apply,
    Block,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    LoopKind,
    Reduce,
    Scope,
    Stmt,
    Store,
    Var,
    block,
    const,
    index_div,
    mul,
    stmt_exprs,
    sub,
    walk_expr,
    walk_stmt,
)
from graphc.loop.transform import (
    Loop,
    Rewriter,
    close_nest,
    fuse_counters,
    jam,
    open_nest,
    unroll,
)
from graphc.loop.transform_vector import vector_count, vectorize, vectorize_block

__all__ = ["Target", "schedule_cpu"]

_CHUNK_PS = (10_000_000, 40_000_000)  # the work of one chunk of a parallel loop: least and most
_WORTH_PS = 10_000_000  # less than this is not split
_CHUNKS = 16  # of a loop whose chunks are neither the smallest nor the largest
_BLOCK = 4096  # elements of a long vector loop that make one parallel iteration
_LONG = 4 * _BLOCK
_MANY = 64  # parallel iterations that are enough for any machine
_COPIES = 25  # of what a vector does with each of a few taps: the sums stay in registers
_TOGETHER = (4, 3, 2)  # iterations that share what they load, if the extent has such a factor
_SMALL = 1024  # work in a parallel iteration beside which a division is cheap


def schedule_cpu(kernel: Kernel, target: Target) -> Kernel:
    """A naive kernel, vectorized for the target and split into parallel iterations."""
    lets: list[Stmt] = []
    for stmt in kernel.body.stmts:
        if not isinstance(stmt, Let):
            break
        lets.append(stmt)
    rest = Block(kernel.body.stmts[len(lets) :])
    loops, body = open_nest(rest) if len(rest.stmts) == 1 else ([], rest)
    if not iterations_are_independent(body, loops):
        return kernel
    loops, body = tidy_nest(loops, body)
    if any(known(extent) == 0 for _, extent in loops):
        return replace(kernel, body=Block(tuple(lets)))
    sizes = _Sizes(kernel, lets)
    plan = _Plan(loops, body, target, _chosen(loops, body, target), sizes)
    parallel, grain = plan.build()
    scheduled = replace(kernel, body=Block((*lets, *parallel.stmts)), grain=grain)
    return ahead(split_at_tests(scheduled))


def iterations_are_independent(body: Block, loops: Sequence[Loop]) -> bool:
    """Whether the iterations of the kept dimensions may be done in any order."""
    variables = {v for v, _ in loops}
    if any(mentions(extent, variables) for _, extent in loops):
        return False
    written: dict[str, list[Expr]] = {}
    for stmt in walk_stmt(body):
        if isinstance(stmt, (Store, Reduce)) and stmt.buffer.scope is Scope.GLOBAL:
            if isinstance(stmt, Reduce):
                return False
            written.setdefault(stmt.buffer.name, []).append(stmt.index)
        if isinstance(stmt, For) and stmt.kind is not LoopKind.SERIAL:
            return False
    # A parameter that is read too must be read just where the iteration writes it.
    return all(
        equal(node.index, index)
        for stmt in walk_stmt(body)
        for node in walk_expr(*stmt_exprs(stmt))
        if isinstance(node, Load) and node.buffer.scope is Scope.GLOBAL
        for index in written.get(node.buffer.name, ())
    )


def _chosen(loops: Sequence[Loop], body: Block, target: Target) -> int | None:
    """The kept dimension to vectorize, or None for the rows of each stage."""
    nested = any(isinstance(s, For) for s in walk_stmt(body))
    costs: dict[int | None, float] = {}
    total = 1.0
    for _, extent in loops:
        total *= max(trips(extent), 1)
    for at in range(len(loops) - 1, -1, -1):
        var, extent = loops[at]
        if _uniform_inside(body, var):
            lanes = vector_width(body, var, extent, target, most=1)
            others = total / max(trips(extent), 1)
            costs[at] = others * vector_cost(body, var, extent, lanes)
    if nested or not costs:
        costs[None] = total * row_cost(body, target)
    return min(costs, key=lambda at: costs[at])


def _uniform_inside(body: Block, var: Var) -> bool:
    """Whether the loops inside run alike in all lanes along ``var``."""
    return not any(
        isinstance(s, For) and (mentions(s.extent, {var}) or _loads(s.extent))
        for s in walk_stmt(body)
    )


def _loads(expr: Expr) -> bool:
    return any(isinstance(n, Load) for n in walk_expr(expr))


class _Sizes:
    """Extents in terms of the kernel's scalars, for its grain."""

    def __init__(self, kernel: Kernel, lets: Sequence[Stmt]) -> None:
        self.scalars = set(kernel.scalars)
        self.rewriter = Rewriter({})
        for stmt in lets:
            assert isinstance(stmt, Let)
            self.rewriter.vars[stmt.var] = self.rewriter.expr(stmt.value)

    def of(self, extent: Expr) -> Expr:
        """The extent, or a guess where it depends on more than the scalars."""
        size = self.rewriter.expr(extent)
        for node in walk_expr(size):
            if isinstance(node, Load) or (isinstance(node, Var) and node not in self.scalars):
                return const(SYMBOLIC)
        return size

    def volume(self, loops: Sequence[Loop]) -> Expr:
        """The number of iterations of a nest."""
        total: Expr = ONE
        for _, extent in loops:
            total = mul(total, self.of(extent))
        return total


def _maximum(a: Expr, b: Expr, fn: str = "max") -> Expr:
    x, y = known(a), known(b)
    if x is not None and y is not None:
        return const(max(x, y) if fn == "max" else min(x, y))
    return Apply(fn, (a, b), int64)


def _few_unrolled(stmt: Stmt, most: int) -> Stmt:
    """A loop, and those in it, as copies of their bodies where these are at most so many."""
    if not isinstance(stmt, For) or stmt.kind is not LoopKind.SERIAL:
        return stmt
    count = known(stmt.extent)
    if count is None or not 0 < count <= most:
        return stmt
    inner = tuple(_few_unrolled(s, most // count) for s in stmt.body.stmts)
    if any(isinstance(s, For) and s.kind is LoopKind.SERIAL for s in inner):
        return replace(stmt, body=Block(inner))
    return replace(unroll(stmt), body=Block(inner))


def _jammed(
    others: list[Loop], body: Block, lane: Var
) -> tuple[list[Loop], Block]:
    """Several iterations of the loop around the vectors at once, where they share operands.

    Such is the filter of a depthwise convolution, which every place of the window multiplies.
    """
    sums = [s for s in walk_stmt(body) if isinstance(s, Reduce)]
    if not others or not sums or any(isinstance(s, If) for s in walk_stmt(body)):
        return others, body
    var, extent = others[-1]
    loads = [
        n for s in sums for n in walk_expr(s.value)
        if isinstance(n, Load) and n.buffer.scope is Scope.GLOBAL
    ]  # fmt: skip
    alone = [n for n in loads if mentions(n.index, {lane}) and not mentions(n.index, {var})]
    size = known(extent)
    factor = next((f for f in _TOGETHER if size is not None and size % f == 0), 1)
    if not alone or len(alone) == len(loads) or factor == 1:
        return others, body
    outer = Var(f"{var.name}j")
    body = jam(body, var, mul(outer, factor), factor)
    return [*others[:-1], (outer, const((size or 0) // factor))], body


@dataclass
class _Plan:
    """One nest, what of it is vectorized, and how it becomes parallel."""

    loops: list[Loop]
    body: Block
    target: Target
    chosen: int | None
    sizes: _Sizes

    @functools.cached_property
    def per_iteration(self) -> Expr:
        """The work of one iteration."""
        return work(self.body, self.target, self.sizes.of)

    @functools.cached_property
    def total(self) -> int | None:
        """The work of all iterations, if it is known."""
        return known(mul(self.sizes.volume(self.loops), self.per_iteration))

    def build(self) -> tuple[Block, Expr]:
        """The scheduled statements and the grain."""
        parallel = bool(self.loops) and (self.total is None or self.total >= _WORTH_PS)
        if self.chosen is None:
            inner = schedule_rows(self.body, self.target)
            return self._rows(inner, self.per_iteration) if parallel else (self._nest(inner), ONE)
        if any(isinstance(s, For) for s in walk_stmt(self.body)):
            return self._columns(parallel, self.per_iteration)
        return self._elements(parallel, self.per_iteration)

    def _nest(self, inner: Block) -> Block:
        return close_nest(self.loops, inner)

    # --- rows ---

    def _rows(self, inner: Block, per_iteration: Expr) -> tuple[Block, Expr]:
        outside, inside = self._split(self.loops, int(row_cost(self.body, self.target)))
        each = mul(self.sizes.volume(inside), per_iteration)
        return self._parallel(outside, close_nest(inside, inner), each)

    # --- kept dimensions in lanes ---

    def _columns(self, parallel: bool, per_iteration: Expr) -> tuple[Block, Expr]:
        """Vectors over a kept dimension with whole stages in them, one block for each."""
        assert self.chosen is not None
        var, extent = self.loops[self.chosen]
        others = [loop for at, loop in enumerate(self.loops) if at != self.chosen]
        body = Block(tuple(_few_unrolled(s, _COPIES) for s in self.body.stmts))
        others, body = _jammed(others, body, var)
        width, narrow = self._column_width(var, extent, body), self._narrow(var)
        if not parallel:
            return close_nest(others, vectorize((var, extent), body, width, narrow=narrow)), ONE
        count = vector_count(extent, width)
        blocks = Var(f"{var.name}v")
        inner = vectorize_block((var, extent), body, width, blocks, narrow)
        outside = others if known(count) == 1 else [*others, (blocks, count)]
        if known(count) == 1:
            inner = vectorize((var, extent), body, width)
        if not outside:
            return inner, ONE
        return self._parallel(outside, inner, mul(per_iteration, width))

    def _narrow(self, var: Var) -> int:
        """Lanes for what whole vectors leave, if it is not for one vector under a mask."""
        return narrow_lanes(self.body, var, self.target)

    def _column_width(self, var: Var, extent: Expr, body: Block) -> int:
        """Several registers for each total: rows of memory are used by whole stretches."""
        totals = sum(isinstance(s, Alloc) for s in walk_stmt(body))
        size = known(extent)
        # Narrower, where that leaves more blocks to share out.
        most = 8 if size is not None and size < _BLOCK else 16
        most = max(1, most >> max(totals - 1, 0).bit_length())
        return vector_width(body, var, extent, self.target, most=most)

    def _elements(self, parallel: bool, per_iteration: Expr) -> tuple[Block, Expr]:
        """Elementwise: vectors over one dimension, the others around them."""
        assert self.chosen is not None
        var, extent = self.loops[self.chosen]
        others = [loop for at, loop in enumerate(self.loops) if at != self.chosen]
        width = vector_width(self.body, var, extent, self.target)
        between = self._transposed(others, var)
        if between:
            tiled = self._tiles(others, between[0], parallel, per_iteration)
            if tiled is not None:
                return tiled
        others = [loop for loop in others if loop not in between]
        if not parallel:
            narrow = self._narrow(var)
            inner = vectorize((var, extent), self.body, width, between=between, narrow=narrow)
            return close_nest(others, inner), ONE
        size = known(extent)
        if others and not between and size is not None and size <= _LONG:
            inner = vectorize((var, extent), self.body, width)
            outside, inside = self._split(others, size * body_cost(self.body))
            each = mul(mul(self.sizes.volume(inside), size), per_iteration)
            return self._parallel(outside, close_nest(inside, inner), each)
        return self._blocks(others, (var, extent), width, between, per_iteration)

    def _blocks(
        self,
        others: list[Loop],
        loop: Loop,
        width: int,
        between: list[Loop],
        per_iteration: Expr,
    ) -> tuple[Block, Expr]:
        """A long vector loop in pieces that are parallel iterations."""
        var, extent = loop
        length = width if between else max(_BLOCK, width)
        piece, start = Var(f"{var.name}b"), Var(f"{var.name}0")
        whole = multiple_of(extent, length)
        count = const(length) if whole else _maximum(const(length), sub(extent, start), "min")
        stmts: list[Stmt] = [Let(start, mul(piece, length))]
        if not whole:
            left = Var(f"{var.name}c")
            stmts.append(Let(left, count))
            count = left
        stmts += vectorize(
            (var, count), self.body, width, start=start, between=between, narrow=self._narrow(var)
        ).stmts
        each = mul(mul(per_iteration, length), self.sizes.volume(between))
        return self._parallel(
            [*others, (piece, vector_count(extent, length))], Block(tuple(stmts)), each
        )

    def _tiles(
        self, others: list[Loop], across: Loop, parallel: bool, per_iteration: Expr
    ) -> tuple[Block, Expr] | None:
        """Square tiles of the vectorized loop and the one that walks through memory."""
        assert self.chosen is not None
        along = self.loops[self.chosen]
        lanes = vector_width(self.body, along[0], const(1 << 30), self.target, most=1)
        size = min(lanes, MOST)
        loads = turned_loads(self.body, along[0], across[0])
        if not loads or size < 4 or not fits(along, size) or not fits(across, size):
            return None
        strips, inner = tiles(along, across, self.body, loads, size)
        outside = [*(loop for loop in others if loop is not across), strips]
        if not parallel:
            return close_nest(outside, inner), ONE
        each = mul(mul(per_iteration, size), self.sizes.of(across[1]))
        return self._parallel(outside, inner, each)

    def _transposed(self, others: Sequence[Loop], var: Var) -> list[Loop]:
        """A loop that walks through memory where ``var`` jumps: best just around the vectors.

        The cache lines that one vector touches are then used up by the vectors that follow.
        """
        for loop in reversed(others):
            for stmt in walk_stmt(self.body):
                for index, _, _ in accesses_of(stmt):
                    if step(index, loop[0]) == 1 and step(index, var) is None:
                        return [loop]
        return []

    # --- parallel ---

    def _split(self, loops: Sequence[Loop], inner: int) -> tuple[list[Loop], list[Loop]]:
        """The loops that count parallel iterations, and those inside of each."""
        at = len(loops)
        while at > 1 and inner < _SMALL:
            enough = 1
            for _, extent in loops[: at - 1]:
                enough *= known(extent) or _MANY
            if enough < _MANY:
                break
            at -= 1
            inner *= trips(loops[at][1])
        return list(loops[:at]), list(loops[at:])

    def _parallel(self, loops: Sequence[Loop], inner: Block, each: Expr) -> tuple[Block, Expr]:
        counter, extent, lets = fuse_counters(loops)
        loop = For(counter, extent, LoopKind.PARALLEL, block(*lets, *inner.stmts))
        least, most = _CHUNK_PS
        chunk = max(least, min(most, (self.total or 0) // _CHUNKS))
        grain = index_div(const(chunk), _maximum(ONE, each))
        return block(loop), _maximum(ONE, grain)
