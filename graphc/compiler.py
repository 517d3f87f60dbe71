"""The compiler: from fetches and feeds to native code, the stages in order on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphc.dims import Dim, DimLike, Symbol
from graphc.function import Function
from graphc.graph import Operation, Tensor
from graphc.kernels.grid_tensor import LEAST_ARCH
from graphc.loop.gpu import GpuTarget
from graphc.options import current_options
from graphc.passes.extract import VariableState, extract
from graphc.passes.pipeline import Pass, default_pipeline, run_passes, verifying
from graphc.passes.winograd import GpuWinograd
from graphc.program import Program, build_program
from graphc.program_verify import verify_program
from graphc.runtime import executable, jit
from graphc.runtime.autotune import autotune
from graphc.runtime.executable import Code

Shapes = Mapping[Tensor, Sequence[int]]

FOR_CPUS = frozenset({"products", "panels", "prepare"})
"""Passes that rewrite products for templates of the CPU."""


def compile_function(
    fn: Function, target: Any = None, seen: Shapes | None = None,
    passes: Sequence[Pass] | None = None,
) -> Code:  # fmt: skip
    """Passes, fusion, lowering, scheduling, code generation, loading."""
    target = target or jit.host_target()
    program = plan_function(fn, target, seen, passes)
    options = current_options()
    if options.autotune:
        autotune(program, target, options.autotune_seconds)
    code = executable.load(program, target)
    if program.function.prepared is not None:
        # It is part of what the passes have made.
        code.prepare = compile_function(program.function.prepared, target, passes=())
    return code


def plan_function(
    fn: Function, target: Any, seen: Shapes | None = None, passes: Sequence[Pass] | None = None
) -> Program:
    """The program of a function, before code generation; ``passes`` are all if not given."""
    hints = size_hints(fn, seen or {})
    if passes is None:
        passes = default_pipeline(target.word, target.lanes(4), hints=hints)
    passed = run_passes(fn, passes)
    program = build_program(passed, target, hints)
    return verify_program(program) if verifying() else program


def plan_for_gpu(
    fn: Function, target: GpuTarget, seen: Shapes | None = None
) -> Program:
    """The program of a function for a GPU."""
    short, hints = target.capability >= LEAST_ARCH, size_hints(fn, seen or {})
    options = current_options()
    pipeline = default_pipeline(
        short_attention=short, iterations=1, hints=hints, winograd=GpuWinograd(hints)
    )
    # Tensor cores have done the products before their factors are moved.
    without = FOR_CPUS | {"winograd"} if options.tf32 else FOR_CPUS
    passes = [p for p in pipeline if p.name not in without]
    asked = replace(target, tf32=options.tf32, cublas=options.cublas)
    return plan_function(fn, asked, seen, passes)


def size_hints(fn: Function, seen: Shapes) -> dict[Symbol, int]:
    """The values that the symbols have for the shapes of the feeds seen first."""
    hints: dict[Symbol, int] = {}
    for i in fn.inputs:
        for size, value in zip(i.raw, seen.get(i.source, ()), strict=False):
            symbol = size.as_symbol if isinstance(size, Dim) else None
            if symbol is not None:
                hints[symbol] = value
    return hints


def compile_graph(
    fetches: Sequence[Tensor],
    targets: Sequence[Operation],
    feeds: Mapping[Tensor, tuple[DimLike | None, ...]],
    variable_state: Callable[[Operation], VariableState],
    target: Any = None,
    known: Shapes | None = None,
    seen: Shapes | None = None,
    keep: bool = True,
    stretch: bool = False,
) -> Code:
    """Native code that computes ``fetches`` and runs ``targets``.

    Args:
      fetches: tensors whose values are wanted, in order.
      targets: operations to run for their effect.
      feeds: fed tensors, with the sizes to compile for; None accepts any size.
      variable_state: what is known of a variable.
      target: the CPU to compile for; this machine's by default.
      known: values of integer tensors to compile for, where sizes depend on them.
      seen: the feeds' shapes in the first run: hints for fast versions of kernels, no more.
      keep: False leaves every variable as it was.
      stretch: whether sizes that a run decides may be 1 where they are broadcast.
    """
    fn = extract(fetches, targets, feeds, variable_state, known, keep, stretch)
    return compile_function(fn, target, seen)
