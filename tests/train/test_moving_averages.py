"""Moving averages: values against NumPy, names, what to restore."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.train import ExponentialMovingAverage


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default() as g:
        yield g


def test_the_average_follows_a_variable():
    v = gc.Variable([1.0, 2.0])
    ema = ExponentialMovingAverage(0.75)
    update = ema.apply([v])
    average = ema.average(v)
    assert (update.name, update.type) == ("ExponentialMovingAverage", "NoOp")
    assert average.name == "Variable/ExponentialMovingAverage:0"
    assert ema.average_name(v) == "Variable/ExponentialMovingAverage"
    assert not average.trainable
    assert gc.moving_average_variables() == [v]
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        assert session.run(average).tolist() == [1.0, 2.0]
        session.run(v.assign([5.0, 6.0]))
        session.run(update)
        assert session.run(average).tolist() == [2.0, 3.0]
        session.run(update)
        assert session.run(average).tolist() == [2.75, 3.75]


def test_few_updates_weigh_more():
    steps = gc.Variable(2, trainable=False)
    v = gc.Variable(1.0)
    ema = ExponentialMovingAverage(0.99, num_updates=steps)
    update = ema.apply([v])
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        session.run(v.assign(5.0))
        session.run(update)
        np.testing.assert_allclose(session.run(ema.average(v)), 5 - 4 * 0.25, rtol=1e-6)


@pytest.mark.parametrize("debias", [False, True])
def test_averages_of_tensors_start_at_zero(debias):
    x = gc.placeholder_with_default(gc.constant(4.0), [], name="x")
    ema = ExponentialMovingAverage(0.75, zero_debias=debias)
    update = ema.apply([x])
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        assert session.run(ema.average(x)) == 0.0
        found, state = [], 0.0
        wanted = []
        for i in range(1, 4):
            session.run(update)
            found.append(session.run(ema.average(x)))
            state += (4.0 - state) * 0.25
            wanted.append(state / (1 - 0.75**i) if debias else state)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_all_trainable_variables_by_default():
    a, b = gc.Variable(1.0), gc.Variable(2.0)
    ema = ExponentialMovingAverage(0.5, name="avg")
    ema.apply()
    assert [ema.average(v).op.name for v in (a, b)] == ["Variable/avg", "Variable_1/avg"]
    assert ema.name == "avg"


def test_variables_to_restore():
    a, b = gc.Variable(1.0, name="a"), gc.Variable(2, trainable=False, name="b")
    ema = ExponentialMovingAverage(0.5)
    ema.apply([a])
    c = gc.Variable(3.0, name="c")
    names = ema.variables_to_restore()
    assert names["a/ExponentialMovingAverage"] is a
    assert names["b"] is b
    assert names["c/ExponentialMovingAverage"] is c
    assert sorted(ema.variables_to_restore([a])) == ["a/ExponentialMovingAverage", "b", "c"]
    assert ema.average(c) is None


def test_only_floats_are_averaged():
    with pytest.raises(TypeError, match="The variables must be half, float, or double: n:0"):
        ExponentialMovingAverage(0.5).apply([gc.Variable(1, name="n")])
