"""Vectorized loops in CUDA C: elements that lie side by side are read and written at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
)

_MOST_BYTES = 16


def print_vectors(exprs: Expressions, loop: For, statement: Callable[[Stmt], None]) -> None:
    """The loop, unrolled over its lanes; ``statement`` prints what one lane does.

    What every lane loads is in one access before the loop, what every lane stores in one behind it,
    if it begins at a multiple of the vector's size.
    """
    if not all(isinstance(s, (Let, Store)) for s in loop.body.stmts):
        raise CompileError("a vectorized loop of a GPU has Lets and Stores only")
    out, width = exprs.out, known(loop.extent) or 0
    outer = dict(exprs.vectors)
    exprs.ranges.counter(loop.var, loop.extent)
    exprs.declare_index(loop.var, short=True)
    lane = exprs.names[loop.var]
    for load, start in _loads(loop, width):
        ty, name = f"gc_vector<{TYPES[load.dtype.code]}, {width}>", out.temporary()
        (place,) = exprs.texts(start)
        buffer = exprs.names[load.buffer]
        out.add(f"const {ty} {name} = *GC_ALIGNED({buffer} + {place}, const {ty});")
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


def _loads(loop: For, width: int) -> Iterator[tuple[Load, Expr]]:
    """The loads that every lane does, whatever is true, of what the loop has not written."""
    written: set[Buffer] = set()
    seen: set[Expr] = set()
    for stmt in loop.body.stmts:
        stack = list(stmt_exprs(stmt))
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if isinstance(node, Guard):
                stack += (node.cond, node.otherwise)
                continue
            stack += (node.cond,) if isinstance(node, Require) else node.operands
            if isinstance(node, Load) and node.buffer not in written:
                start = _start(node.buffer, node.index, loop.var, width)
                if start is not None:
                    yield node, start
        if isinstance(stmt, Store):
            written.add(stmt.buffer)
