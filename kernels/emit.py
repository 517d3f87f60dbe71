"""Small builders that the templates share: sizes, declarations and loop nests."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable

from graphc.loop import ir
from graphc.loop.ir import Block, Buffer, Const, Expr, For, If, Let, LoopKind, Stmt, Store, Var


class _Numbering(threading.local):
    """Numbers for names, which need to differ within one kernel only."""

    def __init__(self) -> None:
        self.count = itertools.count()


_names = _Numbering()


def restart() -> None:
    """Number names from 0 again: a kernel's text does not depend on what was built before it."""
    _names.count = itertools.count()


def fresh(prefix: str) -> Var:
    """A new index variable."""
    return Var(f"{prefix}{next(_names.count)}")


def product(extents: Iterable[Expr]) -> Expr:
    """The product of extents; 1 for none."""
    total: Expr = ir.ONE
    for extent in extents:
        total = ir.mul(total, extent)
    return total


def ceil_div(a: Expr, b: int) -> Expr:
    """``a / b`` rounded up."""
    return ir.index_div(ir.add(a, ir.const(b - 1)), ir.const(b))


def minimum(a: Expr, b: Expr) -> Expr:
    """The smaller of two sizes."""
    if isinstance(a, Const) and isinstance(b, Const):
        return a if a.value <= b.value else b
    return ir.apply("min", a, b)


def maximum(a: Expr, b: Expr) -> Expr:
    """The larger of two sizes."""
    if isinstance(a, Const) and isinstance(b, Const):
        return a if a.value >= b.value else b
    return ir.apply("max", a, b)


def part_of(extent: Expr, start: Expr, most: int) -> Expr:
    """How many of an extent are in a block that begins at ``start``."""
    size = extent.value if isinstance(extent, Const) else None
    if size is not None and size % most == 0:
        return ir.const(most)
    if size is not None and size < most:
        return extent
    return minimum(ir.sub(extent, start), ir.const(most))


def is_const(expr: Expr, value: int) -> bool:
    """Whether the expression is this literal."""
    return isinstance(expr, Const) and bool(expr.value == value)


def let(out: list[Stmt], prefix: str, value: Expr) -> Expr:
    """Declare a value that is used more than once; literals and variables stay themselves."""
    if isinstance(value, (Const, Var)):
        return value
    var = Var(f"{prefix}{next(_names.count)}", value.dtype)
    out.append(Let(var, value))
    return var


def unflatten(out: list[Stmt], flat: Expr, extents: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The row-major indices that a flat index stands for, declared in ``out``."""
    indices: list[Expr] = []
    rest = flat
    for place, extent in reversed(list(enumerate(extents))):
        if place == 0:
            indices.insert(0, let(out, "i", rest))
        else:
            indices.insert(0, let(out, "i", ir.index_mod(rest, extent)))
            rest = let(out, "q", ir.index_div(rest, extent))
    return tuple(indices)


def loop(
    extent: Expr, body: Callable[[Expr], list[Stmt]], kind: LoopKind = LoopKind.SERIAL
) -> list[Stmt]:
    """A loop around what ``body`` makes of its index; none around a single iteration."""
    if is_const(extent, 0):
        return []
    if is_const(extent, 1) and kind is not LoopKind.PARALLEL:
        return [scope(body(ir.ZERO))]
    var = fresh({LoopKind.VECTORIZED: "lane", LoopKind.UNROLLED: "u"}.get(kind, "x"))
    return [For(var, extent, kind, ir.block(*body(var)))]


def filled(buffer: Buffer, value: Expr) -> list[Stmt]:
    """Every element of a buffer of known size becomes a value."""
    return loop(buffer.size, lambda i: [Store(buffer, i, value)], LoopKind.UNROLLED)


def scope(stmts: list[Stmt]) -> Stmt:
    """The statements as one, with their declarations to themselves."""
    return stmts[0] if len(stmts) == 1 else Block(tuple(stmts))


def nest(
    extents: tuple[Expr, ...],
    body: Callable[[tuple[Expr, ...]], list[Stmt]],
    kind: LoopKind = LoopKind.SERIAL,
) -> list[Stmt]:
    """Nested loops, the last extent innermost."""
    if not extents:
        return body(())
    return loop(extents[0], lambda i: nest(extents[1:], lambda rest: body((i, *rest)), kind), kind)


def where(cond: Expr | None, then: list[Stmt], otherwise: list[Stmt] | None = None) -> list[Stmt]:
    """``then`` where the condition holds; None is a condition that always does."""
    if cond is None:
        return then
    return [If(cond, ir.block(*then), None if otherwise is None else ir.block(*otherwise))]


def chunks(
    extent: Expr, lanes: int, body: Callable[[Expr, Expr, Expr | None], list[Stmt]]
) -> list[Stmt]:
    """Vectors along an extent: ``body(index, lane, mask)``; only the last one has a mask."""

    def vectors(start: Expr, mask: bool) -> list[Stmt]:
        def lane_body(lane: Expr) -> list[Stmt]:
            at = ir.add(start, lane)
            return body(at, lane, ir.apply("lt", at, extent) if mask else None)

        return loop(ir.const(lanes), lane_body, LoopKind.VECTORIZED)

    whole = ir.index_div(extent, ir.const(lanes))
    rest = ir.index_mod(extent, ir.const(lanes))
    out = loop(whole, lambda c: vectors(ir.mul(c, lanes), False))
    if is_const(rest, 0) or lanes == 1:
        return out
    tail = vectors(ir.mul(whole, lanes), True)
    return out + where(None if isinstance(rest, Const) else ir.apply("gt", rest, ir.ZERO), tail)
