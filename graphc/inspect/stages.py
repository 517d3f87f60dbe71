"""Every stage of one compilation as text: graphs, fusion, loops, program, LLVM IR, assembly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc import feeding
from graphc.compiler import size_hints
from graphc.dtypes import string
from graphc.errors import FeedError
from graphc.feeding import FetchTree
from graphc.function import format_function
from graphc.graph import Tensor
from graphc.loop.printer import format_kernel
from graphc.passes.extract import extract, reachable
from graphc.passes.pipeline import default_pipeline, run_nested
from graphc.passes.plan import format_plan
from graphc.program import build_program, format_program
from graphc.runtime import jit
from graphc.runtime.executable import llvm_text
from graphc.session import Session


@dataclass(frozen=True)
class Stage:
    """One stage: its name and its text."""

    name: str
    text: str


def compile_stages(
    session: Session,
    fetches: Any,
    feeds: Mapping[Any, Any] | None = None,
    target: str | None = None,
) -> list[Stage]:
    """The stages of compiling ``fetches``.

    Args:
      session: whose graph and variables are compiled; nothing is run.
      fetches: as for ``Session.run``.
      feeds: shapes by fed tensor; None as a shape takes the tensor's own, None as a size accepts
        any size.  Placeholders that are not named here are fed with their declared shapes.
      target: ``avx512``, ``avx2`` or ``generic``; this machine by default.
    Returns:
      The function after extraction and after every pass, the fusion plan, the scheduled kernels,
      the program, LLVM IR and assembly.
    """
    tree = FetchTree(session.graph, fetches)
    declared = _declared(session, tree, feeds or {})
    chosen = jit.host_target() if target is None else jit.named_target(target)
    fn = extract(tree.tensors, tree.operations, declared, session._variable_state)
    stages = [Stage("extract", format_function(fn))]
    hints = size_hints(fn, {})
    for p in default_pipeline(chosen.word, chosen.lanes(4)):
        fn = run_nested(p, fn)
        stages.append(Stage(p.name, format_function(fn)))
    program = build_program(fn, chosen, hints)
    stages.append(Stage("fuse", "\n".join(format_plan(plan) for plan in program.plans)))
    stages.append(Stage("loops", "\n".join(format_kernel(k) for k in program.loops)))
    stages.append(Stage("program", format_program(program)))
    text = llvm_text(program, chosen)
    stages.append(Stage("llvm", text))
    stages.append(Stage("assembly", jit.emit_assembly(text, chosen)))
    return stages


def _declared(session: Session, tree: FetchTree, feeds: Mapping[Any, Any]) -> dict[Any, Any]:
    declared = {}
    for key, shape in feeds.items():
        tensor = feeding.resolve_feed(session.graph, key)
        declared[tensor] = _sizes(tensor, shape)
    roots = [t.op for t in tree.tensors] + tree.operations
    for op in reachable(roots, declared):
        if op.type == "Placeholder" and op.outputs[0] not in declared:
            declared[op.outputs[0]] = _sizes(op.outputs[0], None)
    return {t: s for t, s in declared.items() if t.dtype.base_dtype is not string}


def _sizes(tensor: Tensor, shape: Any) -> tuple[int | None, ...]:
    """The sizes to compile for: what was given, which must fit, else the tensor's own."""
    if shape is None and tensor.sizes is None:
        raise FeedError(
            f"{tensor.name} has a shape of unknown rank (declared at {tensor.op.location}): say "
            "for which shape it is to be compiled"
        )
    merged = tensor.shape.merge_with(tensor.shape if shape is None else list(shape))
    return tuple(merged.as_list())


def write_stages(stages: list[Stage], folder: Any) -> list[Path]:
    """Write each stage to ``NN-name.txt`` in a folder; the paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, stage in enumerate(stages):
        path = folder / f"{k:02}-{stage.name}.txt"
        path.write_text(stage.text, encoding="utf-8")
        paths.append(path)
    return paths
