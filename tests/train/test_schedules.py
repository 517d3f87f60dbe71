"""Learning rates that fall, against what TensorFlow 1.15.5 computed, and the global step."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import train


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default() as g:
        yield g


# (schedule of a global step, its value at step 7, the name of the operation)
SCHEDULES = [
    (lambda s: train.exponential_decay(0.5, s, 3, 0.9), 0.3910231590270996, "ExponentialDecay"),
    (
        lambda s: train.exponential_decay(0.5, s, 3, 0.9, staircase=True),
        0.4049999713897705,
        "ExponentialDecay",
    ),
    (lambda s: train.natural_exp_decay(0.5, s, 3, 0.9), 0.061228204518556595, "ExponentialDecay"),
    (lambda s: train.inverse_time_decay(0.5, s, 3, 0.9), 0.16129031777381897, "InverseTimeDecay"),
    (
        lambda s: train.inverse_time_decay(0.5, s, 3, 0.9, True),
        0.1785714328289032,
        "InverseTimeDecay",
    ),
    (
        lambda s: train.polynomial_decay(0.5, s, 10, 0.01, 2.0),
        0.054099999368190765,
        "PolynomialDecay",
    ),
    (
        lambda s: train.polynomial_decay(0.5, s, 3, 0.01, 2.0),
        0.009999999776482582,
        "PolynomialDecay",
    ),
    (
        lambda s: train.polynomial_decay(0.5, s, 3, 0.01, 2.0, cycle=True),
        0.034197527915239334,
        "PolynomialDecay",
    ),
    (lambda s: train.cosine_decay(0.5, s, 10, 0.1), 0.14274832606315613, "CosineDecay/Mul_3"),
    (
        lambda s: train.cosine_decay_restarts(0.5, s, 2, 2.0, 0.8, 0.1),
        0.3270386755466461,
        "SGDRDecay",
    ),
    (
        lambda s: train.cosine_decay_restarts(0.5, s, 2, 1.0, 0.8, 0.1),
        0.16519999504089355,
        "SGDRDecay",
    ),
    (lambda s: train.linear_cosine_decay(0.5, s, 10), 0.03141611069440842, "LinearCosineDecay"),
]


@pytest.mark.parametrize(("schedule", "value", "name"), SCHEDULES)
def test_what_tensorflow_computes(schedule, value, name):
    rate = schedule(gc.Variable(7, trainable=False))
    assert rate.op.name == name
    assert rate.dtype == gc.float32
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        np.testing.assert_allclose(session.run(rate), value, rtol=2e-6)


def test_a_cycle_starts_at_the_learning_rate():
    rate = train.polynomial_decay(0.5, gc.constant(0), 3, 0.01, cycle=True)
    with gc.Session() as session:
        assert session.run(rate) == 0.5


def test_the_dtype_is_the_learning_rates():
    step = gc.placeholder(gc.int64, [])
    rate = train.exponential_decay(np.float64(0.5), step, 10, 0.5)
    assert rate.dtype == gc.float64
    with gc.Session() as session:
        assert session.run(rate, {step: 10}) == 0.25


@pytest.mark.parametrize("dtype", [gc.int32, gc.int64])
def test_piecewise_constant(dtype):
    step = gc.placeholder(dtype, [])
    rate = train.piecewise_constant(step, [3, 7, 9], [1.0, 0.5, 0.25, 0.125])
    with gc.Session() as session:
        found = [session.run(rate, {step: i}) for i in (0, 3, 4, 7, 8, 9, 10, 1000)]
    assert found == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: train.piecewise_constant(gc.constant(1), [1], [1.0]),
            "The length of boundaries should be 1 less than the length of values",
        ),
        (
            lambda: train.piecewise_constant(gc.constant(1), [1.5], [1.0, 2.0]),
            "Boundaries (<dtype: 'float32'>) must have the same dtype as x (<dtype: 'int32'>).",
        ),
        (
            lambda: train.piecewise_constant(gc.constant(1), [1], [1.0, 2]),
            "Values must have elements all with the same dtype",
        ),
        (
            lambda: train.exponential_decay(0.1, None, 1, 0.5),
            "global_step and the parameters of a decay must not be None",
        ),
    ],
)
def test_errors(make, text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make()
    assert str(caught.value).startswith(text)


# --- the global step ----------------------------------------------------------------------------


def test_there_is_one_global_step(graph):
    assert train.get_global_step() is None
    step = train.get_or_create_global_step()
    assert (step.name, step.dtype.name, step.trainable) == ("global_step:0", "int64_ref", False)
    assert train.get_global_step() is step
    assert train.get_or_create_global_step(graph) is step
    assert gc.get_collection("global_step") == [step]
    with pytest.raises(ValueError, match='"global_step" already exists'):
        train.create_global_step()


def test_its_name_knows_no_scope():
    with gc.name_scope("s"):
        assert train.create_global_step().name == "global_step:0"


def test_a_tensor_of_that_name_is_found():
    v = gc.Variable(3, name="global_step", trainable=False)
    assert train.get_global_step() is v._ref()
    with gc.Session() as session:
        session.run(v.initializer)
        assert train.global_step(session, v) == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, 'Existing "global_step" must be a Variable or Tensor: 3.'),
        (1.5, "does not have integer type"),
        ([1, 2], 'Existing "global_step" is not scalar: (2,)'),
    ],
)
def test_what_can_be_a_global_step(value, text):
    step = value if value == 3 else gc.Variable(value)
    with pytest.raises(TypeError) as caught:
        train.assert_global_step(step)
    assert text in str(caught.value)
