"""On a GPU: running sums and products along long rows, a block of threads for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.dtypes import DType
from graphc.kernels import emit
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.gpu_grid import GpuTarget, grid_stride
from graphc.loop.ir import (
    Alloc,
    Barrier,
    Block,
    Buffer,
    Expr,
    Guard,
    Kernel,
    Load,
    LoopKind,
    Scope,
    Stmt,
    Store,
    Var,
)

_SHORT = 64  # elements that a thread goes through as fast alone
_EACH = 8  # elements of a thread that lie side by side


def scan_grid(
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
    target: GpuTarget,
) -> Kernel | None:
    """``out[outer, length]``; None where rows are short or lie side by side.

    Threads go through some elements each, and combine their totals by Hillis and Steele's scheme.
    """
    size = known(length)
    if not emit.is_const(inner, 1) or (size is not None and size <= _SHORT):
        return None
    threads = target.threads
    identity = ir.reduce_identity(op, acc)
    # Two rows of totals: threads read one and write the other, in turns.
    totals = Buffer("totals", acc, ir.const(2 * threads), Scope.SHARED)

    def item(o: Var, x: Var) -> Block:
        carry, total = ir.local("carry", acc, 1), ir.local("total", acc, 1)
        parts = ir.local("parts", acc, _EACH)

        def through(body: Callable[[Expr], list[Stmt]]) -> list[Stmt]:
            return emit.loop(ir.const(_EACH), body, LoopKind.UNROLLED)

        def chunk(number: Expr) -> list[Stmt]:
            stmts: list[Stmt] = []
            place = ir.add(ir.mul(number, threads), x)
            first = emit.let(stmts, "first", ir.mul(place, _EACH))

            def at(u: Expr, lets: list[Stmt]) -> tuple[Expr, Expr]:
                e = emit.let(lets, "e", ir.add(first, u))
                i = ir.sub(ir.sub(length, ir.ONE), e) if reverse else e
                return e < length, emit.let(lets, "i", i)

            def take(u: Expr) -> list[Stmt]:
                lets: list[Stmt] = []
                inside, i = at(u, lets)
                value = Guard(inside, ir.cast(element(o, i, ir.ZERO), acc), identity)
                more = Store(total, ir.ZERO, _combined(op, Load(total, ir.ZERO), value))
                keep = Store(parts, u, Load(total, ir.ZERO))
                return [*lets, *((keep, more) if exclusive else (more, keep))]

            stmts += [Store(total, ir.ZERO, identity), *through(take)]
            stmts += [Store(totals, x, Load(total, ir.ZERO)), Barrier()]
            steps = threads.bit_length() - 1
            for step in range(steps):
                source, into = (threads * ((step + k) % 2) for k in (0, 1))
                here, there = ir.add(x, source), ir.add(x, source - (1 << step))
                earlier = Guard(x >= (1 << step), Load(totals, there), identity)
                value = _combined(op, earlier, Load(totals, here))
                stmts += [Store(totals, ir.add(x, into), value), Barrier()]
            last = threads * (steps % 2)
            before = Guard(x >= 1, Load(totals, ir.add(x, last - 1)), identity)
            start = emit.let(stmts, "start", _combined(op, Load(carry, ir.ZERO), before))

            def put(u: Expr) -> list[Stmt]:
                lets: list[Stmt] = []
                inside, i = at(u, lets)
                value = ir.cast(_combined(op, start, Load(parts, u)), out.dtype)
                where = ir.add(ir.mul(o, length), i)
                return [*lets, *emit.where(inside, [Store(out, where, value)])]

            every = Load(totals, ir.const(last + threads - 1))
            on = Store(carry, ir.ZERO, _combined(op, Load(carry, ir.ZERO), every))
            return [*stmts, *through(put), on, Barrier()]

        chunks = emit.loop(emit.ceil_div(length, threads * _EACH), chunk)
        begun = Store(carry, ir.ZERO, identity)
        return Block((Alloc(carry), Alloc(total), Alloc(parts), begun, *chunks))

    launch = grid_stride(outer, target, (1, threads), item, (totals,))
    return Kernel(name, tuple(params), tuple(scalars), launch)


def _combined(op: str, a: Expr, b: Expr) -> Expr:
    return ir.apply(op, a, b)
