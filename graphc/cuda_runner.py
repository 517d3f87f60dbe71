"""A runner whose executables run on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphc.compiler import plan_for_gpu
from graphc.function import Function
from graphc.graph import Tensor
from graphc.loop.gpu import GpuTarget
from graphc.passes.extract import extract
from graphc.program import Program
from graphc.runner import Declared, Runner, RunPlan, Values
from graphc.runtime.cuda import CudaExecutable
from graphc.runtime.cuda_kernels import Texts
from graphc.runtime.cuda_state import CudaState
from graphc.runtime.executable import Runnable


def source_text(fn: Function, arch: str) -> str:
    """The CUDA C of a function for an architecture, before anything runs; empty for no kernel."""
    texts = Texts(plan_for_gpu(fn, GpuTarget(arch=arch)))
    return texts.text if texts.names else ""


class CudaRunner(Runner):
    """Runs plans over variables on a device."""

    def __init__(self, state: CudaState) -> None:
        super().__init__(state, "static")
        self.target = GpuTarget(arch=state.device.arch)
        self._variables = state

    def _build(
        self, plan: RunPlan, declared: Declared, known: Values,
        seen: Mapping[Tensor, Sequence[int]], stretch: bool,
    ) -> tuple[Program, Callable[[], Runnable]]:  # fmt: skip
        """The program for these sizes, and what compiles it for the device."""
        fn = extract(
            plan.computed, plan.targets, declared, self.state.variable_state, known, plan.keep,
            stretch,
        )  # fmt: skip
        program = plan_for_gpu(fn, self.target, seen)
        return program, lambda: CudaExecutable(program, self._variables, plan.on_device)
