"""Convolutions by Winograd's tiles on a GPU: where, and that their values are the direct ones."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.compiler import plan_for_gpu
from graphc.loop.gpu import GpuTarget
from graphc.passes import winograd
from graphc.passes.extract import extract

RNG = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


@pytest.fixture
def everywhere(monkeypatch):
    """As if moving bytes took no time: small images and few channels are enough."""
    monkeypatch.setattr(winograd, "GPU_OPERATIONS", 0)


def layer(batch, size=56, into=128, out=128, dtype=gc.float32):
    x = gc.placeholder(dtype, [batch, size, size, into])
    w = gc.placeholder(dtype, [3, 3, into, out])
    return x, w, gc.nn.conv2d(x, w, strides=1, padding="SAME")


def planned(x, w, *fetches, images=1):
    """The types of the operations that a GPU is given."""
    feeds = {t: tuple(t.shape.as_list()) for t in (x, w)}
    seen = {x: [images, *x.shape.as_list()[1:]]}
    fn = extract(fetches, [], feeds, lambda op: pytest.fail("no variables"))
    return [op.type for op in plan_for_gpu(fn, GpuTarget("sm_90"), seen).function.operations]


@pytest.mark.parametrize(
    ("options", "images", "expected"),
    [
        ({}, 16, True),
        ({"into": 256, "out": 256, "size": 28}, 8, True),
        # Moving the factors takes longer.
        ({"into": 64, "out": 64}, 16, False),
        # Hardly anything is multiplied by the factors of the filter.
        ({"into": 256, "out": 256, "size": 8}, 1, False),
        # Its factors would take 6.6 GiB.
        ({"size": 224}, 32, False),
        ({"dtype": gc.float16}, 16, False),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_where_it_pays(options, images, expected, known):
    x, w, y = layer(images if known else None, **options)
    assert ("WinogradProduct" in planned(x, w, y, images=images)) == expected


def test_tensor_cores_need_no_tiles():
    x, w, y = layer(16)
    with gc.compile_options(tf32=True):
        assert "WinogradProduct" not in planned(x, w, y)


def test_training_goes_by_tiles_forward_and_back():
    x, w, y = layer(16)
    dx, dw = gc.gradients(gc.reduce_sum(y * y), [x, w])
    found = planned(x, w, y, dx, dw)
    assert found.count("WinogradProduct") == 2
    assert found.count("Conv2DFilterCore") == 1
    assert "Conv2DCore" not in found


@pytest.mark.parametrize("padding", ["SAME", "VALID", [[0, 0], [2, 1], [0, 3], [0, 0]]])
def test_values_and_gradients(padding, device, everywhere):
    x = gc.placeholder(gc.float32, [None, 7, 6, 32])
    w, b = gc.placeholder(gc.float32, [3, 3, 32, 40]), gc.placeholder(gc.float32, [40])
    y = gc.nn.relu(gc.nn.conv2d(x, w, strides=1, padding=padding) + b)
    assert "WinogradProduct" in planned(x, w, gc.nn.conv2d(x, w, strides=1, padding=padding))
    fetches = [y, *gc.gradients(gc.reduce_sum(y * y), [x, w, b])]
    with gc.Session(mode="reference") as reference, gc.Session(device=device) as gpu:
        for batch in (3, 0):
            feeds = {
                # A quarter of a multiple of four: factors come out exactly.
                x: RNG.integers(-3, 4, (batch, 7, 6, 32)),
                w: 4.0 * RNG.integers(-2, 3, (3, 3, 32, 40)), b: RNG.integers(-3, 4, 40),
            }  # fmt: skip
            wanted, found = reference.run(fetches, feeds), gpu.run(fetches, feeds)
            for have, want in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(have, want)
