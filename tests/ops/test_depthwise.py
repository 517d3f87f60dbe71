"""Depthwise convolutions and their gradients: sizes, strides, targets, and what they compile to."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.inspect import compile_stages
from tests.ops.support import TARGETS, run_compiled

# Image, taps, stride, dilation, filters for each channel.
CASES = [
    ((2, 8, 8, 16), (3, 3), 1, 1, 1),
    ((1, 7, 9, 33), (5, 3), 1, 1, 1),
    ((2, 9, 8, 64), (3, 3), 2, 1, 1),
    ((1, 6, 12, 2), (1, 1), 1, 1, 1),
    ((1, 10, 9, 5), (3, 2), 1, 2, 1),
    ((3, 5, 4, 140), (3, 3), 1, 1, 1),
    ((2, 6, 6, 4), (3, 3), 1, 1, 2),
]


def graph(case, dtype, known):
    image, taps, stride, dilation, each = case
    x = gc.placeholder(dtype, image if known else [None, None, None, image[3]])
    f = gc.placeholder(dtype, [*taps, image[3], each])
    y = nn.depthwise_conv2d(x, f, [1, stride, stride, 1], "SAME", rate=[dilation] * 2)
    y = nn.relu(y + 0.25)
    return x, f, [y, *gc.gradients(y * y, [x, f])]


def feeds(case):
    rng = np.random.default_rng(3)
    image, taps, *_, each = case
    return rng.normal(size=image), rng.normal(size=(*taps, image[3], each))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_values_and_gradients(case, target):
    known = case[0][0] != 2
    for dtype, rtol in ((gc.float32, 1e-5), (gc.float64, 1e-12), (gc.bfloat16, 3e-2)):
        with gc.Graph().as_default():
            x, f, fetches = graph(case, dtype, known)
            given = dict(zip((x, f), feeds(case), strict=True))
            found = run_compiled(fetches, given, target)
            with gc.Session(mode="reference") as session:
                wanted = session.run(fetches, given)
        for a, b in zip(found, wanted, strict=True):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


def test_a_channel_for_every_lane_and_places_that_share_the_filter():
    case = CASES[0]
    with gc.Graph().as_default(), gc.Session() as session:
        x, f, (y, *_) = graph(case, gc.float32, True)
        shapes = dict(zip((x, f), (a.shape for a in feeds(case)), strict=True))
        stages = compile_stages(session, y, shapes, "avx512")
    loops = next(s.text for s in stages if s.name == "loops")
    text = loops.rpartition("kernel ")[2]
    assert "vectorized l in 16" in text
    assert text.count("local ") == 4
    assert "max(" in text  # and the rectifier is in the same kernel
