"""Running sums and products: one pass over each row, other rows side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.dtypes import DType
from graphc.kernels import emit
from graphc.loop import ir
from graphc.loop.ir import ONE, ZERO, Buffer, Expr, Kernel, LoopKind, Reduce, Stmt, Store, Var

LANES = 16
STEPS = 1 << 14
"""Elements of one chunk of work."""


def scan_kernel(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    *,
    outer: Expr,
    length: Expr,
    inner: Expr,
    element: Callable[[Expr, Expr, Expr], Expr],
    op: str,
    acc: DType,
    exclusive: bool,
    reverse: bool,
    out: Buffer,
) -> Kernel:
    """``out[outer, length, inner]``: ``op`` over the elements up to each along the middle.

    A row is one serial loop with an accumulator of type ``acc``; where the elements of several
    rows lie side by side, a vector of them is taken at once.
    """

    def scanned(o: Expr, column: Expr, mask: Expr | None) -> list[Stmt]:
        total = ir.local("total", acc, 1)

        def step(e: Expr) -> list[Stmt]:
            stmts: list[Stmt] = []
            i = emit.let(stmts, "i", length - 1 - e) if reverse else e
            place = ir.add(ir.mul(ir.add(ir.mul(o, length), i), inner), column)
            more = emit.where(mask, [Reduce(total, ZERO, op, ir.cast(element(o, i, column), acc))])
            now = ir.cast(ir.Load(total, ZERO), out.dtype)
            put = emit.where(mask, [Store(out, place, now)])
            return stmts + (put + more if exclusive else more + put)

        start = ir.reduce_identity(op, acc)
        return [ir.Alloc(total), Store(total, ZERO, start), *emit.loop(length, step)]

    if emit.is_const(inner, 1):
        rows = emit.loop(outer, lambda o: scanned(o, ZERO, None), LoopKind.PARALLEL)
        width = ONE
    else:
        blocks = emit.ceil_div(inner, LANES)
        width = ir.const(LANES)

        def block(at: Expr) -> list[Stmt]:
            stmts: list[Stmt] = []
            o = emit.let(stmts, "row", ir.index_div(at, blocks))
            first = emit.let(stmts, "first", ir.mul(ir.index_mod(at, blocks), LANES))

            def lane_body(lane: Expr) -> list[Stmt]:
                column = ir.add(first, lane)
                return scanned(o, column, column < inner)

            return stmts + emit.loop(width, lane_body, LoopKind.VECTORIZED)

        rows = emit.loop(ir.mul(outer, blocks), block, LoopKind.PARALLEL)
    grain = ir.index_div(ir.const(STEPS), ir.add(ir.mul(length, width), ONE))
    return Kernel(name, tuple(params), tuple(scalars), ir.block(*rows), ir.add(grain, ONE))
