"""The entry of the contraction template: which schedule a problem gets."""

from __future__ import annotations

from graphc.kernels import dot, pairs, panel, tiling, vnni
from graphc.kernels.problem import Access, Contraction, Target, access, swapped
from graphc.loop.ir import Block, Buffer, Const, Kernel, Var


def contraction_kernel(
    name: str,
    params: tuple[Buffer, ...],
    scalars: tuple[Var, ...],
    problem: Contraction,
    target: Target,
) -> Kernel:
    """A scheduled kernel for the problem on the target CPU."""
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
        schedule = tiling.choose(problem, found, target)
        body, grain = panel.build(problem, schedule)
    return Kernel(name, params, scalars, body, grain)


def prefers_swap(problem: Contraction, found: Access, target: Target) -> bool:
    """Whether vectors should run along ``m``: few columns, and rows that lie side by side."""
    if len(problem.m) != 1 or not found.lhs_m <= {1} or found.lhs_k <= {1}:
        return False
    lanes = target.vector_bytes // problem.acc.size
    n, m = problem.n, problem.m[0]
    if not isinstance(n, Const) or (isinstance(m, Const) and m.value <= n.value):
        return False
    return bool(n.value <= max(1, lanes // 4))
