"""Clipping of gradients: values, gradients at zero, TensorFlow's names."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default() as g:
        yield g


def value(fetch):
    with gc.Session() as session:
        return session.run(fetch)


def test_clip_by_norm():
    x = np.array([[3.0, 0.0], [0.0, 4.0]], np.float32)
    np.testing.assert_allclose(value(gc.clip_by_norm(x, 1.0)), x / 5)
    np.testing.assert_allclose(value(gc.clip_by_norm(x, 10.0)), x)
    rows = value(gc.clip_by_norm(x, 1.0, axes=[1]))
    np.testing.assert_allclose(rows, [[1.0, 0.0], [0.0, 1.0]])
    assert gc.clip_by_norm(x, 1.0, name="mine").name == "mine:0"


def test_the_gradient_of_clipping_at_zero_is_finite():
    x = gc.constant([0.0, 0.0])
    (grad,) = gc.gradients(gc.clip_by_norm(x, 2.0), x)
    assert value(grad).tolist() == [1.0, 1.0]


def test_clip_by_average_norm():
    x = np.array([3.0, 4.0], np.float32)
    np.testing.assert_allclose(value(gc.clip_by_average_norm(x, 1.0)), x * 0.4, rtol=1e-6)
    np.testing.assert_allclose(value(gc.clip_by_average_norm(x, 9.0)), x, rtol=1e-6)


def test_clip_by_global_norm():
    tensors = [gc.constant([3.0]), None, gc.constant([4.0])]
    clipped, norm = gc.clip_by_global_norm(tensors, 1.0)
    assert clipped[1] is None
    got = value([clipped[0], clipped[2], norm])
    np.testing.assert_allclose(np.concatenate(got[:2]), [0.6, 0.8], rtol=1e-6)
    assert got[2] == 5.0
    assert [clipped[0].name, clipped[2].name, norm.name] == [
        "clip_by_global_norm/clip_by_global_norm/_0:0",
        "clip_by_global_norm/clip_by_global_norm/_2:0",
        "global_norm/global_norm:0",
    ]


def test_a_norm_that_is_given_is_used():
    clipped, norm = gc.clip_by_global_norm([gc.constant([3.0])], 1.0, use_norm=gc.constant(6.0))
    assert value([clipped[0], norm])[0].tolist() == [0.5]


def test_a_norm_that_is_not_finite_makes_nans():
    clipped, _ = gc.clip_by_global_norm([gc.constant([3.0, np.inf])], 1.0)
    assert np.isnan(value(clipped[0])).all()


@pytest.mark.parametrize("wrong", ["text", 3, gc.float32])
def test_lists_are_wanted(wrong):
    with pytest.raises(TypeError, match="t_list should be a sequence"):
        gc.global_norm(wrong)
    with pytest.raises(TypeError, match="t_list should be a sequence"):
        gc.clip_by_global_norm(wrong, 1.0)
