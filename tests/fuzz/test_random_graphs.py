"""Random graphs through the whole compiler, against the NumPy references of the ops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from random_graphs import Case, cases, tolerances, wide

import graphc as gc

SHARDS, EXAMPLES = 8, 100


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
        np.testing.assert_allclose(wide(a), wide(b), **tolerances(b), equal_nan=True)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_compiled_equals_reference(shard):
    @seed(shard)  # every shard has its own examples, the same in every run
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
    @given(cases())
    def run(case):
        check(case)

    run()


@pytest.mark.parametrize("shard", range(2))
def test_eager_equals_reference(shard):
    @seed(100 + shard)
    @settings(max_examples=30, suppress_health_check=list(HealthCheck), deadline=None)
    @given(cases(max_ops=6))
    def run(case):
        check(case, "eager")

    run()


def test_one_program_serves_other_sizes():
    """What was compiled for the sizes seen first is right for others."""

    @seed(200)
    @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
    @given(cases(max_ops=6))
    def run(case):
        unknown = {t for t in case.feeds if t.sizes is not None and len(t.sizes)
                   and not isinstance(t.sizes[0], int)}  # fmt: skip
        if not unknown:
            return
        with (
            gc.Session(graph=case.graph) as static,
            gc.Session(graph=case.graph, mode="reference") as reference,
        ):
            for session in (static, reference):
                session.run([v.initializer for v in case.variables])
            for size in (None, 1, 5):
                feeds = {
                    t: a if size is None or t not in unknown
                    else np.resize(a, (size, *a.shape[1:])) if a.size else a
                    for t, a in case.feeds.items()
                }  # fmt: skip
                assert_same_outcome(static, reference, case.fetches, feeds)

    run()


def assert_same_outcome(static, reference, fetches, feeds) -> None:
    """The same values, or an error in both."""
    try:
        expected = reference.run(fetches, feeds)
    except gc.errors.InvalidArgumentError:
        with pytest.raises(gc.errors.InvalidArgumentError):
            static.run(fetches, feeds)
        return
    for a, b in zip(static.run(fetches, feeds), expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(wide(a), wide(b), **tolerances(b), equal_nan=True)
