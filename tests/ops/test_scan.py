"""Running sums and products: the public functions, zeros, errors."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ShapeError
from graphc.ops.reduction_scan import cumprod, cumsum

MODES = ("static", "eager", "reference")


@pytest.mark.parametrize("mode", MODES)
def test_values_for_sizes_that_a_run_tells(mode: str):
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        x = gc.placeholder("float32", [None, None])
        fetches = [cumsum(x), cumsum(x, 1, exclusive=True), cumprod(x, -1, reverse=True)]
        for shape in ((2, 3), (1, 5), (5, 1), (0, 2), (2, 0)):
            value = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
            found = session.run(fetches, {x: value})
            np.testing.assert_array_equal(found[0], np.cumsum(value, 0))
            np.testing.assert_array_equal(found[1], np.cumsum(value, 1) - value)
            np.testing.assert_allclose(found[2], np.cumprod(value[:, ::-1], 1)[:, ::-1])


@pytest.mark.parametrize("mode", MODES)
def test_the_axis_may_be_computed(mode: str):
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        x, axis = gc.placeholder("int32", [None, None]), gc.placeholder("int32", [])
        y = cumsum(x, axis)
        value = np.array([[1, 2], [3, 4]])
        for a in (0, 1, -1):
            found = session.run(y, {x: value, axis: a})
            np.testing.assert_array_equal(found, np.cumsum(value, a))


def test_the_gradient_of_a_product_with_several_zeros():
    value = np.array([2.0, 0.0, 3.0, 0.0, 5.0])
    weight = np.array([1.0, 10.0, 100.0, 1000.0, 10000.0])
    with gc.Graph().as_default(), gc.Session() as session:
        x = gc.placeholder("float64", [5])
        (grad,) = gc.gradients(cumprod(x) * weight, x)
        found = session.run(grad, {x: value})
    expected = [
        sum(w * np.prod(np.delete(value[: i + 1], j)) for i, w in enumerate(weight) if i >= j)
        for j in range(5)
    ]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_out_of_range_is_refused(axis: int):
    with gc.Graph().as_default(), pytest.raises(ShapeError, match=r"range \[-2, 2\).*Cumsum"):
        cumsum(np.zeros((2, 3)), axis)


def test_names():
    with gc.Graph().as_default():
        assert cumsum([1.0]).name == "Cumsum:0"
        assert cumprod([1.0], name="p").name == "p:0"
