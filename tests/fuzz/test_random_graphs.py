"""Random graphs through the whole compiler, against the NumPy references of the ops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from random_graphs import Case, cases, tolerances

import graphc as gc

SHARDS, EXAMPLES = 8, 65


@pytest.fixture(autouse=True)
def verify_everything(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")


def outcome(case: Case, mode: str) -> list[np.ndarray]:
    """What the fetches and, after the run, the variables are."""
    with gc.Session(graph=case.graph, mode=mode) as session:
        session.run([v.initializer for v in case.variables])
        found, _ = session.run([case.fetches, case.updates], case.feeds)
        return [*found, *session.run([v._ref() for v in case.variables])]


def check(case: Case, mode: str = "static") -> None:
    expected = outcome(case, "reference")
    found = outcome(case, mode)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, **tolerances(b), equal_nan=True)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_compiled_equals_reference(shard):
    # Every shard has its own examples: derandomised, hypothesis seeds by the function's text.
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
    @given(cases())
    def run(case):
        check(case)

    run.hypothesis.inner_test.__qualname__ += str(shard)
    run()
