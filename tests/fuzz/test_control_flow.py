"""Random loops and branches, one in another: compiled against the reference, all verified."""

from __future__ import annotations

import numpy as np
import pytest
from control_graphs import SIZE, control
from hypothesis import HealthCheck, Phase, given, seed, settings

import graphc as gc

SHARDS, EXAMPLES = 4, 120
GRADIENT_SHARDS, GRADIENT_EXAMPLES = 4, 40
REFUSED = ("would have to run it twice", "needs the value that the variable")
FED = [(0, True), (1, False), (3, True)]
# A failing graph is printed as it is: making it smaller takes minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
QUIET = settings(suppress_health_check=list(HealthCheck), deadline=None, phases=PHASES)


@pytest.fixture(autouse=True)
def verify_everything(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")


def sessions(case):
    found = [gc.Session(graph=case.graph, mode=mode) for mode in ("static", "reference")]
    for session in found:
        session.run(case.variable.initializer)
    return found


def point(turn: int) -> np.ndarray:
    return np.sin(np.arange(SIZE) * 1.7 + turn) * 0.8


def shards(count: int) -> list[object]:
    """The first, and with `slow` the others."""
    marks = [[] if k < 1 else [pytest.mark.slow] for k in range(count)]
    return [pytest.param(k, marks=mark) for k, mark in enumerate(marks)]


@pytest.mark.parametrize("shard", shards(SHARDS))
def test_values_and_variables_equal_the_reference(shard):
    @seed(shard)
    @settings(QUIET, max_examples=EXAMPLES)
    @given(control())
    def run(case):
        both = sessions(case)
        for turn, (n, p) in enumerate(FED):
            feeds = {case.x: point(turn), case.n: n, case.p: p}
            a, b = ([*s.run(case.fetches, feeds), s.run(case.variable)] for s in both)
            for found, wanted in zip(a, b, strict=True):
                np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)

    run()


@pytest.mark.parametrize("shard", shards(GRADIENT_SHARDS))
def test_gradients_equal_the_reference_and_differences(shard):
    """To assign a second time on the way back is refused, and to read what was assigned since."""

    @seed(1000 + shard)
    @settings(QUIET, max_examples=GRADIENT_EXAMPLES)
    @given(control(left_out=["update"] if shard else []))
    def run(case):
        with case.graph.as_default():
            total = gc.add_n([gc.reduce_sum(t) for t in case.fetches])
            try:
                grads = gc.gradients(total, [case.x, case.variable])
            except gc.errors.GraphError as e:
                if any(text in str(e) for text in REFUSED):
                    return
                raise
        fetches = [total, *(g for g in grads if g is not None)]
        static, reference = sessions(case)
        for n, p in FED[1:]:
            feeds = {case.x: point(n), case.n: n, case.p: p}
            found = static.run(fetches, feeds)
            for a, b in zip(found, reference.run(fetches, feeds), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)
            # What is assigned is not differentiated.
            if grads[0] is not None and not any("update" in s for s in case.steps):
                compare_with_differences(static, case.x, total, found[1], feeds)

    run()


def compare_with_differences(session, x, total, grad, feeds):
    """The slope in one direction."""
    way, eps = np.cos(np.arange(SIZE) * 2.3), 1e-6
    above, below = (session.run(total, {**feeds, x: feeds[x] + d * way}) for d in (eps, -eps))
    slope = (above - below) / (2 * eps)
    np.testing.assert_allclose(np.sum(grad * way), slope, rtol=1e-4, atol=1e-6)
