"""Contractions on a GPU whose results are few and whose sums are long: many blocks share a sum.

The gradient of a filter, say, is a tile or two that is summed up over all images.  A first launch
leaves partial sums in a workspace, a second one adds them up in their order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from graphc.kernels import emit
from graphc.kernels.problem import Contraction, Indices
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.gpu import GpuTarget, thread_per_item
from graphc.loop.ir import ZERO, Alloc, Block, Buffer, Expr, Guard, Kernel, Load, Reduce, Store, Var

_BLOCKS = 256  # that are wanted of a launch: about two for each multiprocessor
_PARTS = 64  # of a sum, at most: one thread adds them up
_TERMS = 128  # of a part, at least
_EACH = 8  # for each block: where results are many, parts of them take time, too
_DEPTH = 16  # terms that a tile takes at once
_UNKNOWN = 32  # parts of a sum over images whose number is not known
_LONG = 64  # elements of such an image, at least; else a quarter of that


@dataclass(frozen=True)
class Share:
    """``parts`` parts of dimension ``dim`` of a sum, ``chunk`` terms each.

    ``ragged``: the last ones may have fewer.
    """

    dim: int
    parts: int
    chunk: Expr
    ragged: bool


def share(problem: Contraction, blocks: int | None) -> Share | None:
    """How the sums are shared out where their results give so many blocks; None if they are not."""
    sizes = [known(e) for e in (*problem.batch, *problem.m, problem.n)]
    total = known(emit.product(problem.k))
    if blocks is None or None in sizes or not blocks:
        return None
    most = min(_PARTS, _BLOCKS // blocks)
    if total is None:
        inner = known(emit.product(problem.k[1:]))
        most = min(most, _UNKNOWN if inner is not None and inner >= _LONG else _UNKNOWN // 4)
    else:
        most = min(most, total // max(_TERMS, _EACH * blocks))
    if most < 2:
        return None
    if len(problem.k) == 1:
        return _of_one(problem.k[0], most)
    if known(problem.k[0]) is None:
        return Share(0, most, emit.ceil_div(problem.k[0], most), True)
    # The innermost dimension stays whole: its neighbours are read together.
    outer = [known(e) or 1 for e in problem.k[:-1]]
    best = [max(p for p in range(1, most + 1) if size % p == 0) for size in outer]
    dim = best.index(max(best))
    parts = best[dim]
    return Share(dim, parts, ir.const(outer[dim] // parts), False) if parts > 1 else None


def _of_one(extent: Expr, most: int) -> Share:
    size = known(extent)
    for parts in range(most, 1, -1):
        if size is not None and size % (parts * _DEPTH) == 0:
            return Share(0, parts, ir.const(size // parts), False)
    chunk = ir.mul(emit.ceil_div(extent, most * _DEPTH), _DEPTH)
    parts = most if size is None else -(-size // (known(chunk) or 1))
    return Share(0, parts, chunk, True)


def shared_sums(
    kernel: Kernel,
    problem: Contraction,
    found: Share,
    target: GpuTarget,
    whole: Callable[[Kernel, Contraction], Kernel],
) -> Kernel:
    """Two launches; ``whole`` makes the kernel of the problem of partial sums."""
    results = (*problem.batch, *problem.m, problem.n)
    count = emit.product(results)
    space = Buffer("partial", problem.acc, ir.mul(count, found.parts))
    kernel = replace(kernel, params=(*kernel.params, space))

    def place(part: Expr, at: Indices) -> Expr:
        flat: Expr = part
        for index, extent in zip(at, results, strict=True):
            flat = ir.add(ir.mul(flat, extent), index)
        return flat

    def terms(part: Expr, k: Indices) -> Indices:
        here = ir.add(ir.mul(part, found.chunk), k[found.dim])
        return (*k[: found.dim], here, *k[found.dim + 1 :])

    def within(part: Expr, k: Indices, value: Callable[[Indices], Expr]) -> Expr:
        all_of_it = terms(part, k)
        element = value(all_of_it)
        if not found.ragged:
            return element
        inside = all_of_it[found.dim] < problem.k[found.dim]
        return Guard(inside, element, ir.Const(0, element.dtype))

    nonzero = problem.nonzero
    partial = replace(
        problem,
        batch=(ir.const(found.parts), *problem.batch),
        k=(*problem.k[: found.dim], found.chunk, *problem.k[found.dim + 1 :]),
        lhs=lambda b, m, k: within(b[0], k, lambda at: problem.lhs(b[1:], m, at)),
        rhs=lambda b, k, n: within(b[0], k, lambda at: problem.rhs(b[1:], at, n)),
        epilogue=lambda b, m, n, value: (Store(space, place(b[0], (*b[1:], *m, n)), value),),
        nonzero=None if nonzero is None else lambda b, m, k: nonzero(b[1:], m, terms(b[0], k)),
    )  # fmt: skip
    first = whole(kernel, partial)
    batch = tuple(emit.fresh("b") for _ in problem.batch)
    rows = tuple(emit.fresh("m") for _ in problem.m)
    at: tuple[Var, ...] = (*batch, *rows, emit.fresh("n"))
    total = ir.local("total", problem.acc, 1)

    def add(part: Expr) -> list[ir.Stmt]:
        return [Reduce(total, ZERO, "add", Load(space, place(part, at)))]

    body = Block((
        Alloc(total), Store(total, ZERO, ir.Const(0, problem.acc)),
        *emit.loop(ir.const(found.parts), add),
        *problem.epilogue(batch, rows, at[-1], Load(total, ZERO)),
    ))  # fmt: skip
    loops = list(zip(at, results, strict=True))
    second = thread_per_item(kernel, loops, body, target)
    return replace(kernel, body=Block((first.body, second.body)))
