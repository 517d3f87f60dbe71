"""Every row of the registry on a device, against its reference: kernels as the shim runs them."""

from __future__ import annotations

from typing import Any

import pytest
from cuda_support import ShimDevice
from ops_support import Case, cases, op_dtypes, op_rows, pure_ops, row_id

from graphc import dtypes
from graphc.dtypes import DType
from graphc.graph import Graph
from graphc.op import Op, evaluate_reference
from graphc.session import Session

# A compilation takes a second: the rows of one share it.
TOGETHER = 24
# The dtypes whose code differs most; every op runs with one of the others in turn.
ALWAYS = (None, dtypes.float32)


def chosen_rows() -> tuple[list[Any], list[Any]]:
    """(op, dtype): what every run of the tests has, and the rest."""
    always, rest = [], []
    for number, op in enumerate(pure_ops()):
        others = [t for t in op_dtypes(op) if t not in ALWAYS]
        turn = others[number % len(others)] if others else None
        for dtype in op_dtypes(op):
            (always if dtype in ALWAYS or dtype is turn else rest).append((op, dtype))
    return always, rest


def batches() -> list[Any]:
    """Rows by batches, those of the rest marked as slow."""
    found = []
    for rows, marks in zip(chosen_rows(), ([], [pytest.mark.slow]), strict=True):
        for at in range(0, len(rows), TOGETHER):
            batch = rows[at : at + TOGETHER]
            (first, _), (last, _) = batch[0], batch[-1]
            found.append(pytest.param(batch, marks=marks, id=f"{first.name}-{last.name}"))
    return found


def run_together(rows: list[Case], device: ShimDevice) -> list[tuple[Case, list[Any]]]:
    """The outputs of many cases by one run, with known and with unknown sizes in turns."""
    graph, feeds = Graph(), {}
    fetches: list[Any] = []
    for i, case in enumerate(rows):
        declared = case.declare("rank" if i % 2 else "shape", graph)
        feeds.update(declared.feeds)
        fetches.append(list(declared.op.outputs))
    with Session(graph=graph, device=device) as session:
        found = iter(session.run([t for outs in fetches for t in outs], feeds))
    return [(case, [next(found) for _ in outs]) for case, outs in zip(rows, fetches, strict=True)]


@pytest.mark.parametrize("batch", batches())
def test_values(batch: list[tuple[Op, DType | None]], shim: ShimDevice):
    rows = [case for op, dtype in batch for case in cases(op, dtype)]
    for case, found in run_together(rows, shim):
        expected = evaluate_reference(case.declare().op, case.values)
        for value, wanted in zip(found, expected, strict=True):
            case.check(value, wanted, "cuda")


def test_no_row_is_left_out():
    always, rest = chosen_rows()
    assert {(o.name, row_id(t)) for o, t in always + rest} == {
        (o.name, row_id(t)) for o, t in op_rows()
    }
