"""Templates for GPUs: products get a schedule of their own, others a thread for each iteration."""

from __future__ import annotations

from collections.abc import Callable

from graphc.kernels.grid import contraction_grid
from graphc.loop.gpu_grid import GpuTarget
from graphc.loop.gpu_template import thread_per_iteration
from graphc.loop.ir import Kernel
from graphc.lower_template import TemplateLowering


def grid_template(
    template: TemplateLowering, build: Callable[[], Kernel], target: GpuTarget
) -> Callable[[], Kernel]:
    """What builds a template's kernel for a GPU; ``build`` makes the one for CPUs."""
    problem = template.contracted
    if problem is None:
        return lambda: thread_per_iteration(build(), target)
    params, scalars = tuple(template.buffers.values()), tuple(template.symbols.values())
    return lambda: contraction_grid(template.name, params, scalars, problem, target)
