"""Initializers: their values, their configurations, the names of what they declare."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import initializers


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default() as g:
        g.seed = 7
        yield g


def value(initializer, shape, dtype=None):
    tensor = initializer(shape, dtype=dtype)
    with gc.Session() as session:
        return session.run(tensor)


def test_zeros_and_ones():
    assert value(initializers.Zeros(), [2]).tolist() == [0.0, 0.0]
    assert value(initializers.Ones(), [2], gc.int32).tolist() == [1, 1]
    assert value(initializers.Zeros(gc.bool), [1]).tolist() == [False]
    assert value(initializers.Ones(gc.float64), []).dtype == np.float64


def test_constant():
    assert value(initializers.Constant(4.0), [2, 2]).tolist() == [[4.0, 4.0], [4.0, 4.0]]
    assert value(initializers.Constant([1, 2, 3]), [2, 2]).tolist() == [[1.0, 2.0], [3.0, 3.0]]
    assert value(initializers.Constant(np.arange(4)), [2, 2], gc.int64).tolist() == [[0, 1], [2, 3]]


def test_constant_refuses_what_does_not_fit():
    with pytest.raises(TypeError, match="Invalid type for initial value"):
        initializers.Constant(object())
    with pytest.raises(ValueError, match="Too many elements provided"):
        initializers.Constant([1, 2, 3])([2])
    with pytest.raises(ValueError, match="Expected Tensor's shape"):
        initializers.Constant([1, 2, 3], verify_shape=True)([4])


def test_large_constants_are_computed_not_kept(graph):
    tensor = initializers.Constant(2.5)([40, 50])
    assert (tensor.name, tensor.op.type) == ("Const:0", "Fill")
    small = initializers.Constant(2.5)([4, 5])
    assert (small.name, small.op.type) == ("Const_1:0", "Const")
    with gc.Session() as session:
        assert (session.run(tensor) == 2.5).all()


def test_constants_of_a_shape_that_is_a_tensor():
    shape = gc.placeholder(gc.int32, [2])
    tensor = initializers.Constant(3)(shape, gc.int32)
    with gc.Session() as session:
        assert session.run(tensor, {shape: [1, 2]}).tolist() == [[3, 3]]


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3), (2, 3, 4)])
def test_orthogonal(shape):
    found = value(initializers.Orthogonal(2.0, seed=3), shape)
    assert found.shape == shape
    assert found.dtype == np.float32
    matrix = found.reshape(-1, shape[-1])
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    np.testing.assert_allclose(matrix @ matrix.T, 4 * np.eye(len(matrix)), atol=1e-5)
    assert (found == value(initializers.Orthogonal(2.0, seed=3), shape)).all()
    assert (found != value(initializers.Orthogonal(2.0, seed=4), shape)).any()
    unseeded = initializers.Orthogonal()
    assert (value(unseeded, shape) != value(unseeded, shape)).any()
    with pytest.raises(ValueError, match="at least two-dimensional"):
        initializers.Orthogonal()([3])


def test_identity():
    assert value(initializers.Identity(2.0), [2, 3]).tolist() == [[2, 0, 0], [0, 2, 0]]
    with pytest.raises(ValueError, match="can only be used for 2D matrices"):
        initializers.Identity()([2])


@pytest.mark.parametrize(
    ("initializer", "mean", "stddev", "limit"),
    [
        (initializers.RandomUniform(-1.0, 3.0), 1.0, 4 / 12**0.5, 3.0),
        (initializers.RandomNormal(1.0, 2.0), 1.0, 2.0, None),
        (initializers.TruncatedNormal(1.0, 2.0), 1.0, 2.0 * 0.8796, 5.0),
        (initializers.GlorotUniform(), 0.0, (2 / 500) ** 0.5, (6 / 500) ** 0.5),
        (initializers.GlorotNormal(), 0.0, (2 / 500) ** 0.5, 2 * (2 / 500) ** 0.5 / 0.8796),
        (initializers.he_normal(), 0.0, (2 / 300) ** 0.5, None),
        (initializers.he_uniform(), 0.0, (2 / 300) ** 0.5, (6 / 300) ** 0.5),
        (initializers.lecun_normal(), 0.0, (1 / 300) ** 0.5, None),
        (initializers.lecun_uniform(), 0.0, (1 / 300) ** 0.5, (3 / 300) ** 0.5),
        (
            initializers.VarianceScaling(3.0, "fan_out", "untruncated_normal"),
            0.0,
            (3 / 200) ** 0.5,
            None,
        ),
        (initializers.UniformUnitScaling(), 0.0, (1 / 300) ** 0.5, (3 / 300) ** 0.5),
    ],
)
def test_random_initializers(initializer, mean, stddev, limit):
    x = value(initializer, [300, 200])
    assert x.dtype == np.float32
    assert abs(x.mean() - mean) < 5 * stddev / x.size**0.5
    assert abs(x.std() / stddev - 1) < 0.02
    if limit is not None:
        assert abs(x).max() <= limit * 1.0001


@pytest.mark.parametrize(
    ("shape", "fans"),
    [([], (1, 1)), ([5], (5, 5)), ([3, 4], (3, 4)), ([5, 5, 3, 4], (75, 100))],
)
def test_fans(shape, fans):
    assert initializers._fans(shape) == fans


def test_seeds_make_equal_values():
    a = value(initializers.GlorotUniform(seed=3), [4])
    b = value(initializers.GlorotUniform(seed=3), [4])
    assert a.tolist() == b.tolist()


@pytest.mark.parametrize(
    "initializer",
    [
        initializers.Zeros(gc.int32),
        initializers.Ones(),
        initializers.Constant(3.0, gc.float64),
        initializers.RandomUniform(1, 2, 3),
        initializers.RandomNormal(1.0, 2.0, 3),
        initializers.TruncatedNormal(1.0, 2.0, 3),
        initializers.UniformUnitScaling(2.0, 3),
        initializers.VarianceScaling(2.0, "fan_out", "uniform", 5),
        initializers.GlorotUniform(4),
        initializers.GlorotNormal(4, gc.float64),
        initializers.Identity(2.0),
        initializers.Orthogonal(2.0, seed=3),
    ],
)
def test_configurations_make_equal_initializers(initializer):
    config = initializer.get_config()
    again = type(initializer).from_config(config)
    assert again.get_config() == config
    assert all(isinstance(v, (int, float, str, type(None))) for v in config.values())
    assert config["dtype"] in ("int32", "float32", "float64")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: initializers.VarianceScaling(0.0), "`scale` must be positive float."),
        (lambda: initializers.VarianceScaling(mode="in"), "Invalid `mode` argument: in"),
        (
            lambda: initializers.VarianceScaling(distribution="flat"),
            "Invalid `distribution` argument: flat",
        ),
        (lambda: initializers.RandomNormal(dtype=gc.int32), "Expected floating point type, got"),
    ],
)
def test_errors(make, text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make()
    assert str(caught.value).startswith(text)


def test_tensorflows_names():
    for name in (
        "zeros", "ones", "constant", "random_uniform", "random_normal", "truncated_normal",
        "variance_scaling", "glorot_uniform", "glorot_normal", "identity", "uniform_unit_scaling",
        "orthogonal",
    ):  # fmt: skip
        assert getattr(initializers, name) is getattr(initializers, name + "_initializer")
