"""Large results that are written past the caches, of kernels with rows."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.loop.cpu_stream import STREAM_BYTES


@pytest.mark.parametrize("known", [True, False], ids=["static", "symbolic"])
def test_the_gradient_of_a_layer_norm_that_is_large(known, monkeypatch):
    """What the rows keep lies in a result's place, or beside it where the result is streamed."""
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    rng = np.random.default_rng(0)
    rows = STREAM_BYTES // 4 // 256
    x_value, scale_value = rng.normal(size=(rows, 256)), rng.normal(size=256)
    with gc.Graph().as_default():
        x = gc.placeholder(gc.float32, [rows if known else None, 256])
        scale = gc.placeholder(gc.float32, [256])
        mean, variance = gc.nn.moments(x, [-1], keep_dims=True)
        y = (x - mean) * gc.rsqrt(variance + 1e-5)
        grads = gc.gradients(gc.reduce_sum((y * scale) ** 2), [x, scale])
        found = {}
        for mode in ("static", "reference"):
            with gc.Session(mode=mode) as session:
                found[mode] = session.run(grads, {x: x_value, scale: scale_value})
    for a, b in zip(found["static"], found["reference"], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4)
