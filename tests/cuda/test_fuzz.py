"""Random graphs on a device, against the NumPy references of the ops."""

from __future__ import annotations

import numpy as np
import pytest
from control_graphs import SIZE, control
from hypothesis import HealthCheck, Phase, given, seed, settings
from random_graphs import cases, tolerances, wide

import graphc as gc

# A failing graph is printed as it is: making it smaller takes minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
QUIET = settings(suppress_health_check=list(HealthCheck), deadline=None, phases=PHASES)


@pytest.fixture(autouse=True)
def verify_everything(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")


def shards(first: int, count: int) -> list:
    """Examples of one shard always, those of the others with `slow`."""
    slow = [pytest.param(first + k, marks=pytest.mark.slow) for k in range(1, count)]
    return [first, *slow]


@pytest.mark.parametrize("shard", shards(4000, 22))
def test_random_graphs_equal_the_reference(shard, device):
    @seed(shard)
    @settings(QUIET, max_examples=10 if shard == 4000 else 50)
    @given(cases())
    def run(case):
        both = []
        for options in ({"device": device}, {"mode": "reference"}):
            with gc.Session(graph=case.graph, **options) as session:
                session.run([v.initializer for v in case.variables])
                found, _ = session.run([case.fetches, case.updates], case.feeds)
                both.append([*found, *session.run([v._ref() for v in case.variables])])
        for a, b in zip(*both, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(wide(a), wide(b), **tolerances(b), equal_nan=True)

    run()


@pytest.mark.parametrize("shard", shards(5000, 4))
def test_random_loops_and_branches_equal_the_reference(shard, device):
    @seed(shard)
    @settings(QUIET, max_examples=6 if shard == 5000 else 25)
    @given(control())
    def run(case):
        both = []
        for options in ({"device": device}, {"mode": "reference"}):
            with gc.Session(graph=case.graph, **options) as session:
                session.run(case.variable.initializer)
                found = []
                for turn, (n, p) in enumerate([(0, True), (1, False), (3, True)]):
                    x = np.sin(np.arange(SIZE) * 1.7 + turn) * 0.8
                    feeds = {case.x: x, case.n: n, case.p: p}
                    found += [*session.run(case.fetches, feeds), session.run(case.variable)]
                both.append(found)
        for a, b in zip(*both, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)

    run()
