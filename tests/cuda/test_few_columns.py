"""Reductions of long rows that lie side by side, where there are few: parts in several launches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_races import RaceDevice
from cuda_support import ShimDevice

import graphc as gc
from graphc.runtime.cuda_device import Device

RNG = np.random.default_rng(4)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


def normalized(x: Any) -> list[Any]:
    """Batch normalization: two sums that depend on each other, and their gradients."""
    channels = int(x.shape[-1])
    scale, offset = (gc.Variable(np.full(channels, v, np.float32)) for v in (1.5, 0.5))
    y, mean, variance = gc.nn.fused_batch_norm(x, scale, offset)
    return [y, mean, variance, *gc.gradients(gc.reduce_sum(y * y * y), [x, scale, offset])]


def check(fetches: list[Any], feeds: list[dict[Any, Any]], device: Any, **tolerance: Any) -> None:
    """The same as on the CPU, to ``tolerance``."""
    with gc.Session() as cpu, gc.Session(device=device) as gpu:
        for s in (cpu, gpu):
            s.run(gc.global_variables_initializer())
        for feed in feeds:
            for a, b in zip(gpu.run(fetches, feed), cpu.run(fetches, feed), strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a.astype(float), b.astype(float), **tolerance)


@pytest.mark.parametrize("channels", [3, 40])
@pytest.mark.parametrize("known", [True, False])
def test_batch_normalization(channels, known, device: Device):
    x = gc.placeholder(gc.float32, [4 if known else None, 16, 16, channels])
    sizes = (4,) if known else (4, 1, 5)
    feeds = [{x: RNG.normal(3, 2, (n, 16, 16, channels))} for n in sizes]
    check(normalized(x), feeds, device, rtol=2e-3, atol=2e-4)
    if isinstance(device, ShimDevice):
        assert any("acc1w" in text for text in device.texts)


@pytest.mark.parametrize("dtype", [gc.float32, gc.int32, gc.bfloat16, gc.int8])
def test_every_reduction(dtype, device: Device):
    """Of whole numbers: sums are exact in every order."""
    x, rows = gc.placeholder(dtype, [1030, 5]), gc.placeholder(dtype, [None, 35])
    fetches = []
    for t in (x, rows):
        fetches += [gc.reduce_sum(t, 0), gc.reduce_max(t, 0) + gc.reduce_min(t, 0),
                    gc.reduce_prod(gc.minimum(gc.maximum(t, 1), 1), 0)]  # fmt: skip
    first = (RNG.random((1030, 5)) < 0.1).astype(dtype.as_numpy_dtype)
    feeds = [
        {x: first, rows: (RNG.random((n, 35)) < 0.1).astype(dtype.as_numpy_dtype)}
        for n in (1, 700, 0)
    ]
    check(fetches, feeds if dtype in (gc.int32, gc.int8) else feeds[:2], device)


def test_a_bias_that_its_gradient_changes(device: Device):
    """The result is where an operand was."""
    x, b = gc.placeholder(gc.float32, [1500, 20]), gc.Variable(np.ones(20, np.float32))
    y = gc.tanh(x + b)
    step = gc.train.MomentumOptimizer(0.1, 0.9).minimize(gc.reduce_mean(y * y), var_list=[b])
    feeds = [{x: RNG.normal(size=(1500, 20))} for _ in range(4)]
    with gc.Session() as cpu, gc.Session(device=device) as gpu:
        for s in (cpu, gpu):
            s.run(gc.global_variables_initializer())
            for feed in feeds:
                s.run(step, feed)
        np.testing.assert_allclose(*(s.run(b) for s in (gpu, cpu)), rtol=1e-5)


def test_a_row_of_a_lookup_fails(device: Device):
    """A number out of range that one of the parts comes upon."""
    table, numbers = gc.Variable(np.ones((50, 12), np.float32)), gc.placeholder(gc.int32, [2000])
    total = gc.reduce_sum(gc.gather(table, numbers), 0)
    with gc.Session(device=device) as s:
        s.run(table.initializer)
        np.testing.assert_array_equal(s.run(total, {numbers: np.arange(2000) % 50}), [2000] * 12)
        with pytest.raises(gc.errors.InvalidArgumentError, match="is not in"):
            s.run(total, {numbers: np.arange(2000) - 1})


def test_no_races_between_parts(device: Device):
    if not isinstance(device, ShimDevice):
        pytest.skip("the detector of races is the shim's")
    x = gc.placeholder(gc.float32, [2, 16, 32, 6])
    check(normalized(x), [{x: RNG.normal(1, 2, (2, 16, 32, 6))}], RaceDevice(both_orders=False),
          rtol=2e-3, atol=2e-4)  # fmt: skip
