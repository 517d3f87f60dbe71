"""Random programs over rows: reductions of the rows, and what is computed from them, in one kernel.

Softmax and layer normalization are two of them; these go on from there, with several outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.graph import Graph, Tensor

SHARDS, EXAMPLES = 4, 75
POINT: dict[str, Callable[[Any], Any]] = {
    "exp": lambda v: gc.exp(gc.tanh(v)), "tanh": gc.tanh, "sigmoid": gc.sigmoid,
    "square": lambda v: gc.square(v) * 0.25, "cheap": lambda v: v * 0.5 + 1.0,
}  # fmt: skip
REDUCE = {"sum": gc.reduce_sum, "mean": gc.reduce_mean, "max": gc.reduce_max}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "sub": lambda a, b: a - b, "mul": lambda a, b: gc.tanh(a * b), "add": lambda a, b: a + b,
    "div": lambda a, b: a / (1.0 + gc.square(b)),
}  # fmt: skip


@dataclass
class Rows:
    """A graph over ``x`` of shape [n, k], with all its values, the fetches and the updates."""

    graph: Graph
    x: Tensor
    shape: tuple[int, int]
    fetches: list[Tensor] = field(default_factory=list)
    updates: list[Any] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        fetched = ", ".join(t.name for t in self.fetches)
        return f"Rows({list(self.shape)}: {'; '.join(self.steps)} -> {fetched}, {self.updates})"


@st.composite
def rows(draw: Callable[..., Any]) -> Rows:
    shape = (draw(st.sampled_from([1, 3, 20])), draw(st.sampled_from([1, 5, 16, 33, 100])))
    case = Rows(Graph(), None, shape)  # type: ignore[arg-type]
    with case.graph.as_default():
        declared = draw(st.sampled_from([(None, None), (None, shape[1]), shape]))
        case.x = gc.placeholder("float32", declared)
        v = gc.Variable(np.linspace(-1, 1, shape[0] * shape[1], dtype="f").reshape(shape))
        full, row = [case.x, v.value()], []
        for _ in range(draw(st.integers(5, 16))):
            kinds = ["point", "point", "reduce", "reduce", "binary", "binary", "row"]
            kind = draw(st.sampled_from(kinds))
            pick = draw(st.sampled_from(full[-5:]))
            if kind == "point":
                name = draw(st.sampled_from(sorted(POINT)))
                full.append(POINT[name](pick))
            elif kind == "reduce":
                name = draw(st.sampled_from(sorted(REDUCE)))
                made = REDUCE[name](pick, 1, keepdims=True)
                row.append(made / np.float32(shape[1]) if name == "sum" else made)
            elif kind == "row" and row:
                name = "row"
                row.append(gc.tanh(draw(st.sampled_from(row))))
            else:
                name = draw(st.sampled_from(sorted(BINARY)))
                other = draw(st.sampled_from([*row[-3:], *full[-5:]]))
                full.append(BINARY[name](pick, other))
            case.steps.append(f"{kind} {name}")
        chosen = {full[-1]: None}
        for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
            chosen[draw(st.sampled_from([*full, *row]))] = None
        case.fetches = list(chosen)
        if draw(st.booleans()):
            case.updates.append(v.assign(draw(st.sampled_from(full))).op)
        case.updates.append(v)
    return case


@pytest.fixture(autouse=True)
def verify_everything(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")


@pytest.mark.parametrize("shard", range(SHARDS))
def test_rows_equal_the_reference(shard):
    @seed(shard)
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
    @given(rows())
    def run(case):
        data = np.sin(np.arange(case.shape[0] * case.shape[1], dtype="f")).reshape(case.shape)
        outcomes = []
        for mode in ("static", "reference"):
            with gc.Session(graph=case.graph, mode=mode) as session:
                session.run([o for o in case.graph.get_operations() if o.name == "Variable/Assign"])
                for _ in range(2):
                    found = session.run([case.fetches, case.updates], {case.x: data})
                outcomes.append([*found[0], found[1][-1]])
        for a, b in zip(*outcomes, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)

    run()


def test_what_is_not_stored_reads_nothing_that_was_overwritten():
    """``late`` is computed again in every nest, from ``e``: the output that ``e`` could be kept in
    until then is stored before the last of them."""
    data = np.sin(np.arange(280, dtype="f")).reshape(7, 40)
    with Graph().as_default() as graph:
        x = gc.placeholder("float32", [None, 40])
        e = gc.exp(gc.tanh(x))
        total = gc.reduce_sum(e, 1, keepdims=True)
        late = gc.tanh(gc.exp(e * 0.3))
        y = e / total
        first = gc.reduce_sum(late * total, 1, keepdims=True)
        second = gc.reduce_max(late * y, 1, keepdims=True)
        third = gc.reduce_sum(late * second, 1, keepdims=True)
    found = []
    for mode in ("static", "reference"):
        with gc.Session(graph=graph, mode=mode) as session:
            found.append(session.run([y, first, second, third], {x: data}))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
