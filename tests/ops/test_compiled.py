"""Every row of the registry through the compiler, on every CPU target, against its reference."""

from __future__ import annotations

from typing import Any

import pytest
from ops_support import TARGETS, Case, cases, op_rows, row_id, run_compiled

from graphc.dtypes import DType
from graphc.graph import Graph
from graphc.op import Op, evaluate_reference

pytest.importorskip("graphc.session", exc_type=ImportError)


def run_together(rows: list[Case], target: str) -> list[tuple[Case, list[Any]]]:
    """The outputs of many cases by one run, with known and with unknown sizes in turns."""
    graph, feeds = Graph(), {}
    fetches: list[Any] = []
    for i, case in enumerate(rows):
        declared = case.declare("rank" if i % 2 else "shape", graph)
        feeds.update(declared.feeds)
        fetches.append(list(declared.op.outputs))
    found = iter(run_compiled([t for outs in fetches for t in outs], feeds, target))
    return [(case, [next(found) for _ in outs]) for case, outs in zip(rows, fetches, strict=True)]


@pytest.mark.parametrize(("op", "dtype"), op_rows(), ids=row_id)
@pytest.mark.parametrize("target", TARGETS)
def test_compiled_values(op: Op, dtype: DType | None, target: str):
    rows = [case for case in cases(op, dtype) for _ in range(2)]
    for case, found in run_together(rows, target):
        expected = evaluate_reference(case.declare().op, case.values)
        for value, wanted in zip(found, expected, strict=True):
            case.check(value, wanted, target)
