"""The compiler: from fetches and feeds to native code, the stages in order on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphc.dims import DimLike
from graphc.function import Function
from graphc.graph import Operation, Tensor
from graphc.passes.extract import VariableState, extract
from graphc.passes.pipeline import default_pipeline, run_passes
from graphc.program import Program, build_program
from graphc.runtime import executable, jit
from graphc.runtime.executable import Code


def compile_function(fn: Function, target: Any = None) -> Code:
    """Passes, fusion, lowering, scheduling, code generation, loading."""
    target = target or jit.host_target()
    return executable.load(plan_function(fn, target), target)


def plan_function(fn: Function, target: Any) -> Program:
    """The program of a function, before code generation."""
    return build_program(run_passes(fn, default_pipeline()), target)


def compile_graph(
    fetches: Sequence[Tensor],
    targets: Sequence[Operation],
    feeds: Mapping[Tensor, tuple[DimLike | None, ...]],
    variable_state: Callable[[Operation], VariableState],
    target: Any = None,
) -> Code:
    """Native code that computes ``fetches`` and runs ``targets``.

    Args:
      fetches: tensors whose values are wanted, in order.
      targets: operations to run for their effect.
      feeds: fed tensors, with the sizes to compile for; None accepts any size.
      variable_state: what is known of a variable.
      target: the CPU to compile for; this machine's by default.
    """
    return compile_function(extract(fetches, targets, feeds, variable_state), target)
