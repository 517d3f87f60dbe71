"""The entry of the contraction template: which schedule a problem gets."""

from __future__ import annotations

from graphc.kernels import dot, pairs, panel, tiling, vnni
from graphc.kernels.problem import Access, Contraction, Target, access, swapped
from graphc.kernels.tiling import Tiles
from graphc.loop.ir import Block, Buffer, Const, Kernel, Var


def contraction_kernel(
    name: str,
    params: tuple[Buffer, ...],
    scalars: tuple[Var, ...],
    problem: Contraction,
    target: Target,
    tiles: Tiles | None = None,
) -> Kernel:
    """A scheduled kernel for the problem on the target CPU; by estimates, if no tiles are given."""
    if any(tiling.known(extent) == 0 for extent in (*problem.batch, *problem.m, problem.n)):
        return Kernel(name, params, scalars, Block(()))
    if vnni.applies(problem, target):
        return Kernel(name, params, scalars, *vnni.build(problem, target))
    if pairs.applies(problem, target):
        return Kernel(name, params, scalars, *pairs.build(problem, target))
    found = access(problem)
    if prefers_swap(problem, found, target):
        problem = swapped(problem)
        found = access(problem)
    if dot.applies(problem, found, target):
        body, grain = dot.build(problem, target)
    else:
        schedule = tiling.choose(problem, found, target, tiles)
        body, grain = panel.build(problem, schedule)
    return Kernel(name, params, scalars, body, grain)


def other_tiles(problem: Contraction, target: Target) -> list[Tiles]:
    """Tiles that may be better than the estimate's; none where there is nothing to choose."""
    extents = (*problem.batch, *problem.m, problem.n)
    if any(tiling.known(extent) in (0, None) for extent in extents):
        return []
    if vnni.applies(problem, target) or pairs.applies(problem, target):
        return []
    found = access(problem)
    if prefers_swap(problem, found, target):
        problem = swapped(problem)
        found = access(problem)
    if dot.applies(problem, found, target):
        return []
    best = tiling.choose(problem, found, target)
    widest = min(8, -(-(tiling.known(problem.n) or 1) // best.lanes))
    near = (best.vectors + 1, best.vectors - 1, 4, 2, 1)
    others = [Tiles(v) for v in dict.fromkeys(near) if 1 <= v <= widest and v != best.vectors]
    fewer = best.rows.tile - max(1, best.rows.tile // 4)
    others = [Tiles(best.vectors, blocks=2.0), *others[:3], Tiles(best.vectors, blocks=0.5)]
    return others + ([Tiles(best.vectors, fewer)] if fewer >= 1 and not best.rows.inner else [])


def prefers_swap(problem: Contraction, found: Access, target: Target) -> bool:
    """Whether vectors should run along ``m``: few columns, and rows that lie side by side."""
    if len(problem.m) != 1 or not found.lhs_m <= {1} or found.lhs_k <= {1}:
        return False
    lanes = target.vector_bytes // problem.acc.size
    n, m = problem.n, problem.m[0]
    if not isinstance(n, Const) or (isinstance(m, Const) and m.value <= n.value):
        return False
    return bool(n.value <= max(1, lanes // 4))
