"""Windows over images whose sizes only a run tells: too small, and empty."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.errors import InvalidArgumentError

MODES = ("static", "eager", "reference")
FILTER = np.ones((3, 3, 2, 4), np.float32)
WINDOW = {"ksize": [1, 3, 3, 1], "strides": [1, 2, 2, 1]}
USES = {
    "Conv2D": lambda x, p: nn.conv2d(x, FILTER, strides=[1, 2, 2, 1], padding=p),
    "MaxPool": lambda x, p: nn.max_pool(x, padding=p, **WINDOW),
    "AvgPool": lambda x, p: nn.avg_pool(x, padding=p, **WINDOW),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", USES)
def test_an_image_smaller_than_the_window_is_refused_by_name(op: str, mode: str):
    with gc.Graph().as_default():
        x = gc.placeholder("float32", [None, None, None, 2])
        y = USES[op](x, "VALID")
        fetches = [gc.reduce_sum(y), *gc.gradients(y, x)]
        with gc.Session(mode=mode) as session:
            assert session.run(fetches, {x: np.ones((1, 5, 4, 2))})[1].shape == (1, 5, 4, 2)
            for small in ((1, 1, 1, 2), (2, 5, 2, 2), (2, 0, 5, 2)):
                with pytest.raises(InvalidArgumentError, match="Negative dimension size") as e:
                    session.run(fetches, {x: np.ones(small)})
                assert f"(op: {op})" in str(e.value)
            session.run(fetches, {x: np.ones((2, 3, 3, 2))})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("op", USES)
def test_an_image_of_no_rows_has_no_places_when_padded(op: str, mode: str, known: bool):
    image = np.ones((2, 0, 5, 2), np.float32)
    with gc.Graph().as_default():
        x = gc.placeholder("float32", image.shape if known else [None, None, None, 2])
        y = USES[op](x, "SAME")
        with gc.Session(mode=mode) as session:
            found, grad = session.run([y, *gc.gradients(y, x)], {x: image})
    assert found.shape == (2, 0, 3, 4 if op == "Conv2D" else 2)
    assert grad.shape == image.shape


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("known", [True, False])
def test_the_filters_gradient_of_no_rows_is_zero(mode: str, known: bool):
    for taps in (1, 3):
        kernel = np.ones((taps, taps, 2, 4), np.float32)
        with gc.Graph().as_default():
            x = gc.placeholder("float32", [2, 0, 5, 2] if known else [None, None, None, 2])
            f = gc.constant(kernel)
            y = nn.conv2d(x, f, strides=[1, 2, 2, 1], padding="SAME")
            with gc.Session(mode=mode) as session:
                grad = session.run(gc.gradients(y, f)[0], {x: np.ones((2, 0, 5, 2))})
        np.testing.assert_array_equal(grad, np.zeros_like(kernel))
