"""Attention on a device: one kernel, whatever the sizes, layouts and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_races import RaceDevice
from cuda_support import ShimDevice

import graphc as gc

RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


def attention(dtype: Any, shape: tuple[int, ...], known: bool, turned: bool) -> tuple[Any, Any]:
    """Attention below a causal mask, with feeds for (batch, queries, keys, depth, width)."""
    batch, queries, keys, depth, width = shape
    arrays = [
        RNG.standard_normal(s).astype(dtype.as_numpy_dtype)
        for s in (
            (batch, queries, depth), (batch, keys, depth) if turned else (batch, depth, keys),
            (batch, keys, width),
        )
    ]  # fmt: skip
    some = [
        [None, None, depth], [None, None, depth] if turned else [None, depth, None],
        [None, None, width],
    ]  # fmt: skip
    tensors = [
        gc.placeholder(dtype, a.shape if known else s) for a, s in zip(arrays, some, strict=True)
    ]
    mask = np.where(np.arange(keys) <= np.arange(queries)[:, None] + 3, 0.0, -np.inf)
    bias = gc.placeholder(dtype, [queries, keys] if known else [None, None])
    scores = gc.matmul(tensors[0], tensors[1], transpose_b=turned) * 0.25 + bias
    y = gc.matmul(gc.nn.softmax(scores), tensors[2])
    feeds = dict(zip((*tensors, bias), (*arrays, mask.astype(dtype.as_numpy_dtype)), strict=True))
    return y, feeds


@pytest.mark.parametrize(
    ("dtype", "shape", "known", "turned"),
    [
        (gc.float32, (1, 520, 520, 32, 64), True, True),
        (gc.float32, (2, 70, 33, 16, 20), False, True),
        (gc.float32, (1, 1, 65, 5, 128), False, False),
        (gc.float64, (2, 31, 64, 8, 40), False, False),
        pytest.param(gc.float32, (1, 512, 600, 64, 256), True, False, marks=pytest.mark.slow),
        pytest.param(gc.float64, (1, 400, 400, 16, 16), True, True, marks=pytest.mark.slow),
    ],
)
def test_values(dtype, shape, known, turned, device):
    y, feeds = attention(dtype, shape, known, turned)
    with gc.Session(mode="reference") as reference, gc.Session(device=device) as session:
        tolerance = 1e-5 if dtype is gc.float32 else 1e-12
        np.testing.assert_allclose(
            session.run(y, feeds), reference.run(y, feeds), rtol=tolerance, atol=tolerance
        )
    if isinstance(device, ShimDevice):
        assert "weights" in device.texts[-1]


@pytest.mark.parametrize("dtype", [gc.float32, pytest.param(gc.float64, marks=pytest.mark.slow)])
def test_there_is_no_race(dtype, shim):
    y, feeds = attention(dtype, (1, 66, 130, 20, 36), False, True)
    device = RaceDevice(both_orders=False)
    with gc.Session(device=device) as session:
        session.run(y, feeds)
    assert "weights" in device.texts[-1]
