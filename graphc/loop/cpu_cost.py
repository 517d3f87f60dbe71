"""What statements cost on a CPU: the numbers that its schedules are chosen by.

Costs are relative, in scalar additions for a vector of lanes; times are picoseconds for one
element. Both only have to rank choices and to size chunks of work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import graphc.loop.scalar_math  # noqa: F401  registers the derived functions
from graphc.dtypes import bool_, int64
from graphc.loop.affine import coefficients, known, mentions
from graphc.loop.ir import (
    ZERO,
    Alloc,
    Apply,
    Block,
    Const,
    Expr,
    For,
    If,
    Let,
    Load,
    Reduce,
    Scope,
    Stmt,
    Store,
    Var,
    add,
    const,
    mul,
    walk_stmt,
)
from graphc.loop.scalar import FUNCTIONS

SYMBOLIC = 256  # what an extent is taken for that is known at run time only
_UNKNOWN_FUNCTION = 20


class Target(Protocol):
    """What a schedule asks of a CPU."""

    @property
    def vector_bytes(self) -> int:
        """The size of a vector register."""

    @property
    def has_avx512(self) -> bool:
        """Whether masked accesses are as fast as others."""


def trips(extent: Expr) -> int:
    """The iterations of a loop, guessed where they are symbolic."""
    size = known(extent)
    return SYMBOLIC if size is None else size


def value_nodes(stmt: Stmt) -> Iterator[Expr]:
    """The nodes that are computed in lanes: all but what only serves to index."""
    roots: list[Expr] = []
    if isinstance(stmt, (Store, Reduce, Let)):
        roots = [stmt.value]
    elif isinstance(stmt, If):
        roots = [stmt.cond]
    seen: set[Expr] = set()
    while roots:
        node = roots.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        if not isinstance(node, Load):
            roots.extend(node.operands)


def accesses(stmt: Stmt) -> Iterator[tuple[Expr, int, bool]]:
    """``(index, bytes, is a write)`` of the accesses to global buffers."""
    if isinstance(stmt, (Store, Reduce)) and stmt.buffer.scope is Scope.GLOBAL:
        yield stmt.index, stmt.buffer.dtype.size, True
    seen: set[Expr] = set()
    stack = list(value_nodes(stmt))
    while stack:
        node = stack.pop()
        if isinstance(node, Load) and node not in seen:
            seen.add(node)
            stack.append(node.index)
            if node.buffer.scope is Scope.GLOBAL:
                yield node.index, node.buffer.dtype.size, False
        elif not isinstance(node, Load):
            stack.extend(c for c in node.operands if isinstance(c, Load))


def step(index: Expr, var: Var) -> int | None:
    """How an index moves with a variable: 0, 1, -1, or None for anything else."""
    if not mentions(index, {var}):
        return 0
    found = coefficients(index, (var,))
    size = None if found is None else known(found[0][var])
    return size if size in (-1, 0, 1) else None


def compute_cost(stmt: Stmt) -> int:
    """The arithmetic of one element of a statement."""
    total = 1 if isinstance(stmt, Reduce) else 0
    for node in value_nodes(stmt):
        if isinstance(node, Apply):
            row = FUNCTIONS.get(node.fn)
            total += _UNKNOWN_FUNCTION if row is None else row.cost
        elif not isinstance(node, (Const, Var)):
            total += 1
    return total


def body_cost(body: Block) -> int:
    """The arithmetic and accesses of one element of all statements, each taken once."""
    return sum(
        compute_cost(s) + len(list(accesses(s))) for s in walk_stmt(body) if not isinstance(s, For)
    )


def _statement(stmt: Stmt, var: Var | None, lanes: int) -> float:
    """A vector of lanes along ``var``, or one element where it is None."""
    total = float(compute_cost(stmt))
    for index, _, write in accesses(stmt):
        if var is None:
            total += 1.0
            continue
        moves = step(index, var)
        if moves == 0:
            total += 0.5
        elif moves is not None:
            total += 2.0 if write else 1.0
        else:
            total += lanes * (4.0 if write else 3.0)
    return total


def vector_cost(body: Block, var: Var, extent: Expr, lanes: int) -> float:
    """The whole loop over ``var``, in vectors, with what is inside of it."""
    return -(-trips(extent) // lanes) * _inside(body, var, lanes)


def _inside(body: Block, var: Var | None, lanes: int) -> float:
    total = 0.0
    for stmt in body.stmts:
        total += _statement(stmt, var, lanes)
        if isinstance(stmt, For):
            total += trips(stmt.extent) * _inside(stmt.body, var, lanes)
        elif isinstance(stmt, If):
            total += _inside(stmt.then, var, lanes)
            total += 0.0 if stmt.otherwise is None else _inside(stmt.otherwise, var, lanes)
        elif isinstance(stmt, Block):
            total += _inside(stmt, var, lanes)
    return total


def scalar_cost(stmt: Stmt) -> float:
    """One statement that is not vectorized."""
    return _inside(Block((stmt,)), None, 1)


# --- widths -------------------------------------------------------------------------------------


def lane_bytes(body: Block, var: Var) -> int:
    """The size of the widest element that lanes along ``var`` hold.

    int64 that is computed and not data (a test of the position) counts as half: it is a small
    part of the work.
    """
    widest = 1
    for stmt in walk_stmt(body):
        if isinstance(stmt, (Alloc, Store, Reduce)):
            widest = max(widest, stmt.buffer.dtype.size)
        for node in value_nodes(stmt):
            if node.dtype is bool_ or (isinstance(node, Const) and node.dtype is int64):
                continue
            if node.dtype is not int64 or isinstance(node, Load):
                widest = max(widest, node.dtype.size)
            elif mentions(node, {var}):
                widest = max(widest, 4)
        if any(step(index, var) is None for index, _, _ in accesses(stmt)):
            widest = max(widest, 4)
    return widest


def vector_width(body: Block, var: Var, extent: Expr, target: Target, most: int = 4) -> int:
    """Lanes for a loop: registers of the widest element, several at once where work is cheap."""
    lanes = max(1, target.vector_bytes // lane_bytes(body, var))
    cost = body_cost(body)
    registers = max(1, most if cost <= 12 else most // 2 if cost <= 40 else most // 4)
    size = known(extent)
    if size is None:
        return lanes * registers
    if size <= lanes * registers:
        return max(1, 1 << (size - 1).bit_length()) if size > 1 else 1
    rounds = {r: -(-size // (lanes * r)) * r for r in (1, 2, 4, 8, 16) if r <= registers}
    fewest = min(rounds.values())
    return lanes * max(r for r, count in rounds.items() if count <= 1.15 * fewest)


def narrow_lanes(body: Block, var: Var, target: Target) -> int:
    """Lanes for what whole vectors leave of a loop; 0 for one vector under a mask.

    Where the CPU has no masks for elements so small, LLVM makes a branch for each lane of each
    access: much code, hardly faster than one element after the other.
    """
    sizes = [
        size for s in walk_stmt(body) for index, size, _ in accesses(s) if step(index, var) != 0
    ]
    masked = 1 if target.has_avx512 else 4 if target.vector_bytes >= 32 else 16
    if min(sizes, default=masked) >= masked:
        return 0
    return max(1, target.vector_bytes // lane_bytes(body, var))


# --- time ---------------------------------------------------------------------------------------

_BYTE_PS = 25  # a byte to or from memory
_LANE_PS = 25  # an addition in one lane of 64-byte vectors of float32


def _element_time(stmt: Stmt, target: Target) -> int:
    total = compute_cost(stmt) * _LANE_PS * 64 // target.vector_bytes
    return total + sum(size * _BYTE_PS for _, size, _ in accesses(stmt))


def work(body: Block, target: Target, size: Callable[[Expr], Expr]) -> Expr:
    """Picoseconds of a block; ``size`` says an extent in terms that the result may have."""
    total: Expr = ZERO
    for stmt in body.stmts:
        total = add(total, const(_element_time(stmt, target)))
        if isinstance(stmt, For):
            total = add(total, mul(work(stmt.body, target, size), size(stmt.extent)))
        elif isinstance(stmt, If):
            total = add(total, work(stmt.then, target, size))
        elif isinstance(stmt, Block):
            total = add(total, work(stmt, target, size))
    return total
