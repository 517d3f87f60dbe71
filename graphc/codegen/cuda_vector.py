"""Vectorized loops in CUDA C: elements that lie side by side are read and written at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from graphc.codegen.cuda_expr import Expressions, bare
from graphc.codegen.cuda_text import TYPES
from graphc.errors import CompileError
from graphc.loop.affine import coefficients, known, multiple_of
from graphc.loop.ir import (
    Buffer,
    Expr,
    For,
    Guard,
    Let,
    Load,
    Require,
    Scope,
    Stmt,
    Store,
    Var,
    stmt_exprs,
    walk_expr,
)

_MOST_BYTES = 16


def print_vectors(exprs: Expressions, loop: For, statement: Callable[[Stmt], None]) -> None:
    """The loop, unrolled over its lanes; ``statement`` prints what one lane does.

    What every lane loads is in one access before the loop, what every lane stores in one behind it,
    if it begins at a multiple of the vector's size. What all lanes load below one condition (that a
    row is not beside an image, say) is loaded below it there, too.
    """
    if not all(isinstance(s, (Let, Store)) for s in loop.body.stmts):
        raise CompileError("a vectorized loop of a GPU has Lets and Stores only")
    out, width = exprs.out, known(loop.extent) or 0
    outer = dict(exprs.vectors)
    exprs.ranges.counter(loop.var, loop.extent)
    exprs.declare_index(loop.var, short=True)
    lane = exprs.names[loop.var]
    for read in _reads(loop, width):
        load = read.load
        ty, name = f"gc_vector<{TYPES[load.dtype.code]}, {width}>", out.temporary()
        buffer = exprs.names[load.buffer]
        if read.below is not None:
            (condition,) = exprs.texts(read.below)
            out.add(f"{ty} {name};")
            out.open(f"if ({bare(condition)})")
        (place,) = exprs.texts(read.start)
        target = f"const {ty} {name}" if read.below is None else name
        out.add(f"{target} = *GC_ALIGNED({buffer} + {place}, const {ty});")
        if read.below is not None:
            out.close()
        exprs.vectors[load] = f"{name}.lane[{lane}]"
    stores: dict[Stmt, tuple[str, str]] = {}
    for stmt in loop.body.stmts:
        start_of = isinstance(stmt, Store) and _start(stmt.buffer, stmt.index, loop.var, width)
        if isinstance(stmt, Store) and start_of:
            ty, name = f"gc_vector<{TYPES[stmt.buffer.dtype.code]}, {width}>", out.temporary()
            (place,) = exprs.texts(start_of)
            out.add(f"{ty} {name};")
            target = f"*GC_ALIGNED({exprs.names[stmt.buffer]} + {place}, {ty})"
            stores[stmt] = (name, target)
    out.add("#pragma unroll")
    out.open(f"for (int {lane} = 0; {lane} < {width}; ++{lane})")
    for stmt in loop.body.stmts:
        if isinstance(stmt, Store) and stmt in stores:
            (value,) = exprs.texts(stmt.value)
            out.add(f"{stores[stmt][0]}.lane[{lane}] = {bare(value)};")
        else:
            statement(stmt)
    out.close()
    for name, target in stores.values():
        out.add(f"{target} = {name};")
    exprs.vectors = outer


def _start(buffer: Buffer, index: Expr, lane: Var, width: int) -> Expr | None:
    """Where the elements of all lanes begin, if they lie side by side and may be one access."""
    if buffer.scope is Scope.LOCAL or width * buffer.dtype.size > _MOST_BYTES:
        return None
    found = coefficients(index, (lane,))
    if found is None or known(found[0][lane]) != 1 or not multiple_of(found[1], width):
        return None
    return found[1]


@dataclass(frozen=True)
class _Read:
    """A load that lanes do side by side from ``start`` on; ``below`` a condition, or always."""

    load: Load
    start: Expr
    below: Expr | None


def _reads(loop: For, width: int) -> Iterator[_Read]:
    """The loads that all lanes do, or none, and only before the loop has written there."""
    inside = {loop.var, *(s.var for s in loop.body.stmts if isinstance(s, Let))}
    stored = {s.buffer for s in loop.body.stmts if isinstance(s, Store)}

    def same_for_all(cond: Expr) -> bool:
        return inside.isdisjoint(cond.variables) and not any(
            isinstance(n, Require) or (isinstance(n, Load) and n.buffer in stored)
            for n in walk_expr(cond)
        )

    found: dict[Load, set[Expr | None]] = {}
    late: set[Load] = set()
    for load, conditions, behind in _loads(loop):
        below = conditions[0] if conditions else None
        # Below two conditions it may be that neither lets all lanes load.
        one = len(conditions) < 2 and (below is None or same_for_all(below))
        found.setdefault(load, set()).add(below if one else loop.var)
        if behind:
            late.add(load)
    for load, places in found.items():
        start = _start(load.buffer, load.index, loop.var, width)
        if start is None or load in late:
            continue
        if None in places:
            yield _Read(load, start, None)
        elif len(places) == 1 and loop.var not in places:
            yield _Read(load, start, next(iter(places)))


def _loads(loop: For) -> Iterator[tuple[Load, tuple[Expr, ...], bool]]:
    """The loads, the conditions that each is below, and whether the loop has written there."""
    written: set[Buffer] = set()
    for stmt in loop.body.stmts:
        seen: set[tuple[Expr, tuple[Expr, ...]]] = set()
        stack: list[tuple[Expr, tuple[Expr, ...]]] = [(e, ()) for e in stmt_exprs(stmt)]
        while stack:
            pair = node, conditions = stack.pop()
            if pair in seen:
                continue
            seen.add(pair)
            if isinstance(node, (Guard, Require)):
                # That there are more than two makes no difference.
                below = (*conditions, node.cond)[:2]
                stack += ((node.cond, conditions), (node.value, below))
                if isinstance(node, Guard):
                    stack.append((node.otherwise, conditions))
                else:
                    # Only where the condition does not hold.
                    stack += [(n, (node.cond, node.cond)) for n in node.details]
                continue
            stack += [(n, conditions) for n in node.operands]
            if isinstance(node, Load):
                yield node, conditions, node.buffer in written
        if isinstance(stmt, Store):
            written.add(stmt.buffer)
