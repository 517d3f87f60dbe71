"""The rows of the registry in batches that are compiled together."""

from __future__ import annotations

from typing import Any

import pytest
from ops_support import Case, op_dtypes, pure_ops

from graphc import dtypes
from graphc.graph import Graph
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


def run_together(rows: list[Case], device: Any) -> list[tuple[Case, list[Any]]]:
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
