"""Every row of the registry through the compiler, on every CPU target, against its reference."""

from __future__ import annotations

from typing import Any

import pytest
from ops_support import TARGETS, Case, cases, op_dtypes, op_rows, pure_ops, row_id, run_compiled

from graphc import dtypes
from graphc.dtypes import DType
from graphc.graph import Graph
from graphc.op import ContractionOp, Op, TemplateOp, evaluate_reference

pytest.importorskip("graphc.session", exc_type=ImportError)

# The dtypes whose code differs most between targets; the others run everywhere with `slow`.
EVERYWHERE = {None, dtypes.float32, dtypes.int32, dtypes.bool_}
# Integers whose code differs little: each op runs with one of them, with all of them if `slow`.
ALIKE = (dtypes.int8, dtypes.int16, dtypes.uint16, dtypes.uint32, dtypes.uint64)
# So do products, which take longest to compile, with one of these.
FLOATS = (dtypes.float64, dtypes.float16, dtypes.bfloat16)


def target_rows() -> list[Any]:
    """(target, op, dtype), those of the lesser targets and dtypes marked as slow."""
    rows = []
    wide = [op for op in pure_ops() if set(op_dtypes(op)) >= set(ALIKE)]
    one = {op: ALIKE[number % len(ALIKE)] for number, op in enumerate(wide)}
    products = [op for op in pure_ops() if isinstance(op, (ContractionOp, TemplateOp))]
    float_of = {op: FLOATS[number % len(FLOATS)] for number, op in enumerate(products)}
    for target in TARGETS:
        for op, dtype in op_rows():
            lesser = target != TARGETS[0] and dtype not in EVERYWHERE
            # Every other product will do where there are no vectors.
            lesser = lesser or (target == TARGETS[-1] and op in products[1::2])
            lesser = lesser or (dtype in ALIKE and one.get(op, dtype) is not dtype)
            lesser = lesser or (dtype in FLOATS and float_of.get(op, dtype) is not dtype)
            marks = [pytest.mark.slow] if lesser else []
            name = f"{target}-{row_id(op)}-{row_id(dtype)}"
            rows.append(pytest.param(target, op, dtype, marks=marks, id=name))
    return rows


def run_together(rows: list[Case], target: str) -> list[tuple[Case, list[Any]]]:
    """The outputs of many cases by one run, with known and with unknown sizes in turns."""
    graph, feeds = Graph(), {}
    fetches: list[Any] = []
    for i, case in enumerate(rows, TARGETS.index(target)):
        declared = case.declare("rank" if i % 2 else "shape", graph)
        feeds.update(declared.feeds)
        fetches.append(list(declared.op.outputs))
    found = iter(run_compiled([t for outs in fetches for t in outs], feeds, target))
    return [(case, [next(found) for _ in outs]) for case, outs in zip(rows, fetches, strict=True)]


@pytest.mark.parametrize(("target", "op", "dtype"), target_rows())
def test_compiled_values(target: str, op: Op, dtype: DType | None):
    rows = list(cases(op, dtype))
    if not rows:
        pytest.skip("no sample has the dtype")
    for case, found in run_together(rows, target):
        expected = evaluate_reference(case.declare().op, case.values)
        for value, wanted in zip(found, expected, strict=True):
            case.check(value, wanted, target)
