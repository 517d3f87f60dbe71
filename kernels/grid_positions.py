"""On a GPU: the positions of true elements, by three launches."""

from __future__ import annotations

from collections.abc import Callable

from graphc.dtypes import int64
from graphc.kernels import emit
from graphc.loop import ir
from graphc.loop.gpu_grid import GpuTarget, grid_stride
from graphc.loop.ir import (
    ONE,
    ZERO,
    Alloc,
    Block,
    Buffer,
    Expr,
    If,
    Kernel,
    Load,
    Reduce,
    Stmt,
    Store,
    Var,
)

_PIECES = 4096  # that the elements are cut into, each of which one thread goes through
_SIDE = 64


def positions_grid(
    name: str,
    params: tuple[Buffer, ...],
    scalars: tuple[Var, ...],
    *,
    size: Expr,
    count: Expr,
    condition: Callable[[Expr], Expr],
    out: Buffer,
    target: GpuTarget,
) -> Kernel:
    """``out[count]``: the flat positions below ``size`` where ``condition`` holds, in order.

    Threads count what is true in their pieces; one adds the counts up; then every thread knows
    where the positions of its piece begin.
    """
    starts = Buffer("starts", int64, ir.const(_PIECES))
    length = emit.ceil_div(size, _PIECES)

    def through(piece: Expr, found: Callable[[Expr], list[Stmt]]) -> list[Stmt]:
        stmts: list[Stmt] = []
        first = emit.let(stmts, "first", ir.mul(piece, length))

        def look(i: Expr) -> list[Stmt]:
            body: list[Stmt] = []
            at = emit.let(body, "at", ir.add(first, i))
            return [*body, If(at < size, ir.block(If(condition(at), ir.block(*found(at)))))]

        return [*stmts, *emit.loop(length, look)]

    def counting(piece: Var, _: Var) -> Block:
        total = ir.local("total", int64, 1)
        more: list[Stmt] = [Reduce(total, ZERO, "add", ONE)]
        stmts = through(piece, lambda _: more)
        put = Store(starts, piece, Load(total, ZERO))
        return Block((Alloc(total), Store(total, ZERO, ZERO), *stmts, put))

    def adding(_n: Var, _x: Var) -> Block:
        total, here = ir.local("total", int64, 1), emit.fresh("here")

        def piece(at: Expr) -> list[Stmt]:
            put = Store(starts, at, Load(total, ZERO))
            return [ir.Let(here, Load(starts, at)), put, Reduce(total, ZERO, "add", here)]

        every = emit.loop(ir.const(_PIECES), piece)
        return Block((Alloc(total), Store(total, ZERO, ZERO), *every))

    def writing(piece: Var, _: Var) -> Block:
        place = ir.local("place", int64, 1)

        def take(at: Expr) -> list[Stmt]:
            here = Load(place, ZERO)
            # A count that is too small must not write behind the end.
            put = If(here < count, ir.block(Store(out, here, ir.cast(at, out.dtype))))
            return [put, Reduce(place, ZERO, "add", ONE)]

        start = Store(place, ZERO, Load(starts, piece))
        return Block((Alloc(place), start, *through(piece, take)))

    pieces = ir.const(_PIECES)
    launches = (
        grid_stride(pieces, target, (_SIDE, 1), counting),
        grid_stride(ONE, target, (1, 1), adding),
        grid_stride(pieces, target, (_SIDE, 1), writing),
    )
    return Kernel(name, (*params, starts), scalars, Block(launches))
