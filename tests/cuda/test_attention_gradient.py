"""The gradient of attention on a device: two launches, whatever the sizes, layouts and masks."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from cuda_races import RaceDevice
from cuda_support import ShimDevice

import graphc as gc
from graphc.passes import attention

RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """Scores of sizes that were first seen to be small would be stored."""
    for name in ("LEAST_SEEN_BYTES", "LEAST_QUERIES"):
        monkeypatch.setattr(attention, name, 0)


def step(dtype: Any, shape: tuple[int, ...], known: bool, turned: bool) -> tuple[Any, Any]:
    """Attention below a causal mask, its gradients, and feeds for (batch, queries, keys, ...)."""
    batch, queries, keys, depth, width = shape
    arrays = [
        RNG.standard_normal(s).astype(dtype.as_numpy_dtype)
        for s in (
            (batch, queries, depth), (batch, keys, depth) if turned else (batch, depth, keys),
            (batch, keys, width), (batch, queries, width),
        )
    ]  # fmt: skip
    some = [
        [None, None, depth], [None, None, depth] if turned else [None, depth, None],
        [None, None, width], [None, None, width],
    ]  # fmt: skip
    tensors = [
        gc.placeholder(dtype, a.shape if known else s) for a, s in zip(arrays, some, strict=True)
    ]
    mask = np.where(np.arange(keys) <= np.arange(queries)[:, None] + 3, 0.0, -np.inf)
    bias = gc.placeholder(dtype, [queries, keys] if known else [None, None])
    scores = gc.matmul(tensors[0], tensors[1], transpose_b=turned) * 0.25 + bias
    y = gc.matmul(gc.nn.softmax(scores), tensors[2])
    fetches = [y, *gc.gradients(y, tensors[:3], grad_ys=tensors[3])]
    feeds = dict(zip((*tensors, bias), (*arrays, mask.astype(dtype.as_numpy_dtype)), strict=True))
    return fetches, feeds


def tiles_of_weights(device: ShimDevice) -> int:
    """In how many launches a block goes over tiles of weights."""
    return len(re.findall(r"__shared__ .* weights\b", device.texts[-1]))


@pytest.mark.parametrize(
    ("dtype", "shape", "known", "turned"),
    [
        (gc.float32, (2, 70, 33, 16, 20), False, True),
        (gc.float32, (1, 33, 65, 5, 128), False, False),
        (gc.float64, (2, 31, 64, 8, 40), False, False),
        (gc.float64, (1, 40, 33, 256, 250), False, False),
        pytest.param(gc.float32, (1, 520, 520, 32, 64), True, True, marks=pytest.mark.slow),
        pytest.param(gc.float32, (1, 512, 600, 64, 256), True, False, marks=pytest.mark.slow),
        pytest.param(gc.float64, (1, 400, 400, 16, 16), True, True, marks=pytest.mark.slow),
    ],
)
def test_values(dtype, shape, known, turned, device):
    fetches, feeds = step(dtype, shape, known, turned)
    with gc.Session(mode="reference") as reference, gc.Session(device=device) as session:
        rtol = 1e-5 if dtype is gc.float32 else 1e-12
        found, wanted = session.run(fetches, feeds), reference.run(fetches, feeds)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1, np.abs(b).max()))
    if isinstance(device, ShimDevice):
        # Of float64, matrices that are as wide as may be are too wide for attention's own tiles.
        assert tiles_of_weights(device) == (2 if shape[3] == 256 else 3)


def test_rows_far_from_zero(device):
    fetches, feeds = step(gc.float32, (1, 40, 33, 8, 8), False, True)
    *_, bias = feeds
    feeds[bias] = np.zeros((40, 33), np.float32)
    feeds[bias][[3, 30]] = -1e9
    with gc.Session(mode="reference") as reference, gc.Session(device=device) as session:
        found, wanted = session.run(fetches, feeds), reference.run(fetches, feeds)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("dtype", [gc.float32, pytest.param(gc.float64, marks=pytest.mark.slow)])
def test_there_is_no_race(dtype, shim):
    fetches, feeds = step(dtype, (1, 66, 130, 20, 36), False, True)
    device = RaceDevice(both_orders=False)
    with gc.Session(device=device) as session:
        session.run(fetches, feeds)
    assert tiles_of_weights(device) == 3
