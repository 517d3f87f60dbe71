"""Random graphs run again and again on a device: replays give what the NumPy references give."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_support import LateDevice, has_compiler
from hypothesis import HealthCheck, Phase, given, seed, settings
from random_graphs import cases, tolerances, wide

import graphc as gc

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
QUIET = settings(suppress_health_check=list(HealthCheck), deadline=None, phases=PHASES)
RUNS = 4
pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
SHARDS = [7000, *(pytest.param(7000 + k, marks=pytest.mark.slow) for k in range(1, 10))]


@pytest.mark.parametrize("shard", SHARDS)
def test_runs_that_are_replayed_equal_the_reference(shard):
    device = LateDevice(both_orders=False)

    @seed(shard)
    @settings(QUIET, max_examples=6 if shard == 7000 else 40)
    @given(cases())
    def run(case):
        both = []
        for options in ({"device": device}, {"mode": "reference"}):
            with gc.Session(graph=case.graph, **options) as session:
                session.run([v.initializer for v in case.variables])
                found = []
                for _ in range(RUNS):
                    values, _ = session.run([case.fetches, case.updates], case.feeds)
                    found += values
                both.append([*found, *session.run([v._ref() for v in case.variables])])
        for a, b in zip(*both, strict=True):
            assert a.dtype == b.dtype
            # What a run adds to variables, the next one begins with, rounding and all.
            limits = {k: 4 * v for k, v in tolerances(b).items()}
            np.testing.assert_allclose(wide(a), wide(b), **limits, equal_nan=True)

    run()
    assert device.graphs > 6
