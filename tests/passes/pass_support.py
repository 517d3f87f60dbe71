"""What the tests of passes share: functions of small graphs, and what passes make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import graphc as gc
from graphc.function import Function, format_function
from graphc.graph import Graph, Operation, Tensor
from graphc.passes.extract import extract
from graphc.passes.pipeline import Pass, default_pipeline, run_passes
from graphc.passes.verify import verify_function
from graphc.program import Program, build_program
from graphc.runtime import jit


def extracted(build: Callable[[], Any], any_size: bool = True) -> Function:
    """The function of what ``build`` returns, its placeholders fed, its variables initialized."""
    with Graph().as_default() as graph:
        made = build()
        fetches = list(made) if isinstance(made, (list, tuple)) else [made]
        initializer = gc.global_variables_initializer()
    feeds: dict[Tensor, tuple[Any, ...]] = {
        op.outputs[0]: tuple(op.outputs[0].shape.as_list())
        for op in graph.get_operations()
        if op.type == "Placeholder"
    }
    with gc.Session(graph=graph, mode="reference") as session:
        session.run(initializer)
        return extract(
            [f for f in fetches if isinstance(f, Tensor)],
            [f for f in fetches if isinstance(f, Operation)],
            feeds,
            session._variable_state,
        )


def applied(fn: Function, *passes: Pass) -> Function:
    """The function after the passes, verified after each."""
    for p in passes:
        fn = verify_function(p.run(fn))
    return fn


def sections(rows: Sequence[tuple[str, Callable[[], Any]]], *passes: Pass) -> str:
    """For each row its function before and after the passes."""
    parts = []
    for name, build in rows:
        before = verify_function(extracted(build))
        after = applied(before, *passes)
        parts.append(f"=== {name}\n{format_function(before)}--- after\n{format_function(after)}")
    return "\n".join(parts)


def program_of(build: Callable[[], Any]) -> Program:
    """The program of what ``build`` returns, for AVX-512."""
    fn = run_passes(extracted(build), default_pipeline())
    return build_program(fn, jit.named_target("avx512"))
