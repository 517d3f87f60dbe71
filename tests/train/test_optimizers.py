"""Optimizers: values against NumPy and against what TensorFlow 1.15.5 computed."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

START = np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])
SCALE = np.array([[0.3, 1.0, -2.0], [1.5, 0.1, 0.7]])
STEPS = 5


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default() as g:
        yield g


def train(optimizer, steps=STEPS, dtype=np.float64, mode="static"):
    """The variable after every step of minimizing sum(scale * x ** 2 + x); its gradient."""
    x = gc.Variable(START.astype(dtype), name="x")
    step = optimizer.minimize(gc.reduce_sum(SCALE.astype(dtype) * x * x + x))
    with gc.Session(mode=mode) as session:
        session.run(gc.global_variables_initializer())
        found = [session.run([x, step])[0] for _ in range(steps)]
    return np.array(found)


def gradient(x):
    return 2 * SCALE * x + 1


def expected(update, steps=STEPS):
    """The same with NumPy: ``update(x, gradient, step, state)`` returns the new x."""
    x, state, found = START, {}, []
    for t in range(1, steps + 1):
        x = update(x, gradient(x), t, state)
        found.append(x)
    return np.array(found)


def agree(optimizer, update):
    np.testing.assert_allclose(train(optimizer), expected(update), rtol=2e-6, atol=1e-7)


# Hyperparameters are float32 tensors, as in TensorFlow, also for float64 variables: choose those
# that are exact.


def test_gradient_descent():
    agree(gc.train.GradientDescentOptimizer(0.125), lambda x, g, t, s: x - 0.125 * g)


def test_the_step_is_fetched_with_the_variable_after_it():
    found = train(gc.train.GradientDescentOptimizer(0.125), 1)
    np.testing.assert_allclose(found[0], START - 0.125 * gradient(START))


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum(nesterov):
    def update(x, g, t, s):
        s["m"] = s.get("m", 0) * 0.75 + g
        return x - 0.125 * ((g + 0.75 * s["m"]) if nesterov else s["m"])

    agree(gc.train.MomentumOptimizer(0.125, 0.75, use_nesterov=nesterov), update)


def test_adam():
    def update(x, g, t, s):
        s["m"] = s.get("m", 0) * 0.5 + 0.5 * g
        s["v"] = s.get("v", 0) * 0.75 + 0.25 * g * g
        rate = 0.125 * np.sqrt(1 - 0.75**t) / (1 - 0.5**t)
        return x - rate * s["m"] / (np.sqrt(s["v"]) + 2**-10)

    agree(gc.train.AdamOptimizer(0.125, 0.5, 0.75, 2**-10), update)


def test_adam_with_its_own_defaults_in_float32():
    def update(x, g, t, s):
        s["m"] = s.get("m", 0) * 0.9 + 0.1 * g
        s["v"] = s.get("v", 0) * 0.999 + 0.001 * g * g
        rate = 0.001 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        return x - rate * s["m"] / (np.sqrt(s["v"]) + 1e-8)

    found = train(gc.train.AdamOptimizer(), dtype=np.float32)
    np.testing.assert_allclose(found, expected(update), rtol=1e-5)


@pytest.mark.parametrize("mode", ["eager", "reference"])
def test_every_mode_takes_the_same_steps(mode):
    rate = gc.train.exponential_decay(0.125, gc.train.get_or_create_global_step(), 2, 0.5)
    found = [train(gc.train.AdamOptimizer(rate), mode=m) for m in ("static", mode)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_adagrad():
    def update(x, g, t, s):
        s["a"] = s.get("a", 0.125) + g * g
        return x - 0.5 * g / np.sqrt(s["a"])

    agree(gc.train.AdagradOptimizer(0.5, 0.125), update)


@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop(centered):
    def update(x, g, t, s):
        s["ms"] = s.get("ms", 1.0) * 0.75 + 0.25 * g * g
        s["mg"] = s.get("mg", 0.0) * 0.75 + 0.25 * g
        spread = s["ms"] - s["mg"] ** 2 if centered else s["ms"]
        s["mom"] = s.get("mom", 0.0) * 0.5 + 0.125 * g / np.sqrt(spread + 2**-10)
        return x - s["mom"]

    agree(gc.train.RMSPropOptimizer(0.125, 0.75, 0.5, 2**-10, centered=centered), update)


def test_adadelta():
    def update(x, g, t, s):
        s["a"] = s.get("a", 0.0) * 0.75 + 0.25 * g * g
        step = np.sqrt(s.get("u", 0.0) + 2**-10) / np.sqrt(s["a"] + 2**-10) * g
        s["u"] = s.get("u", 0.0) * 0.75 + 0.25 * step * step
        return x - 0.5 * step

    agree(gc.train.AdadeltaOptimizer(0.5, 0.75, 2**-10), update)


FROM_TENSORFLOW = [
    (
        lambda: gc.train.FtrlOptimizer(
            0.1,
            l1_regularization_strength=0.1,
            l2_regularization_strength=0.2,
            l2_shrinkage_regularization_strength=0.3,
        ),
        [-0.13308497, -0.04120483, 0.01322086],
        {"accum": [0.13, 0.37, 1.5699999], "linear": [0.63307863, 0.36712113, -0.2709452]},
    ),
    (
        lambda: gc.train.FtrlOptimizer(
            0.1, learning_rate_power=-0.7, l1_regularization_strength=0.05
        ),
        [-0.04715395, -0.47861677, 0.1297801],
        {"accum": [0.13, 0.37, 1.5699999], "linear": [0.16305204, 2.4363225, -1.8296633]},
    ),
    (
        lambda: gc.train.RMSPropOptimizer(0.1, momentum=0.5, centered=True),
        [0.9532155, -1.8606141, 0.18530776],
        {
            "rms": [0.73170996, 0.75338995, 0.86179],
            "mg": [0.02710001, -0.08130002, 0.18970004],
            "momentum": [0.0198805, -0.05911194, 0.13223653],
        },
    ),
    (
        lambda: gc.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
        [0.91951, -1.7585299, -0.06343],
        {"momentum": [0.271, -0.813, 1.8969998]},
    ),
]


@pytest.mark.parametrize(("make", "value", "slots"), FROM_TENSORFLOW)
def test_what_tensorflow_computes_in_three_steps(make, value, slots):
    v = gc.Variable([1.0, -2.0, 0.5])
    optimizer = make()
    step = optimizer.apply_gradients([(gc.constant([0.1, -0.3, 0.7]), v)])
    assert optimizer.get_slot_names() == sorted(slots)
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        for _ in range(3):
            session.run(step)
        np.testing.assert_allclose(session.run(v), value, rtol=3e-6)
        for name, wanted in slots.items():
            found = session.run(optimizer.get_slot(v, name))
            np.testing.assert_allclose(found, wanted, rtol=3e-6)


# --- the two steps ------------------------------------------------------------------------------


def test_a_global_step_counts_and_names_the_operation(graph):
    gs = gc.train.get_or_create_global_step()
    v = gc.Variable(1.0)
    step = gc.train.GradientDescentOptimizer(0.25).minimize(v * v, global_step=gs)
    assert (step.name, step.type) == ("GradientDescent", "AssignAdd")
    assert [op.name for op in step.control_inputs] == ["GradientDescent/update"]
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        found = [session.run([step, v, gs])[1:] for _ in range(3)]
    assert found == [[0.5, 1], [0.25, 2], [0.125, 3]]


def test_gradients_between_the_steps_may_be_changed():
    gs = gc.Variable(0, trainable=False, name="gs")
    rate = gc.train.exponential_decay(1.0, gs, 2, 0.5, staircase=True)
    optimizer = gc.train.GradientDescentOptimizer(rate)
    v = gc.Variable(1.0)
    pairs = optimizer.compute_gradients(v * v, [v])
    step = optimizer.apply_gradients([(gc.clip_by_norm(g, 0.5), w) for g, w in pairs], gs)
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        found = [session.run([step, v, gs])[1:] for _ in range(4)]
    assert found == [[0.5, 1], [0.0, 2], [0.0, 3], [0.0, 4]]


def test_all_variables_are_read_before_any_is_updated():
    a, b = gc.Variable(1.0), gc.Variable(2.0)
    step = gc.train.GradientDescentOptimizer(0.5).minimize(a * b)
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        session.run(step)
        assert session.run([a, b]) == [0.0, 1.5]


def test_the_rate_may_be_a_function_a_tensor_or_fed():
    rate = gc.placeholder_with_default(0.25, [])
    for value in (0.25, lambda: 0.25, rate, gc.Variable(0.25, trainable=False)):
        v = gc.Variable(1.0)
        step = gc.train.GradientDescentOptimizer(value).minimize(v * v, var_list=[v])
        with gc.Session() as session:
            session.run(gc.global_variables_initializer())
            session.run(step)
            assert session.run(v) == 0.5
    with gc.Session() as session:
        v = gc.Variable(1.0)
        step = gc.train.GradientDescentOptimizer(rate).minimize(v * v, var_list=[v])
        session.run(v.initializer)
        session.run(step, {rate: 0.5})
        assert session.run(v) == 0.0


def test_variables_without_a_gradient_stay():
    a, b = gc.Variable(1.0), gc.Variable(2.0)
    optimizer = gc.train.AdamOptimizer()
    pairs = optimizer.compute_gradients(a * a)
    assert pairs[1] == (None, b)
    optimizer.apply_gradients(pairs)
    assert optimizer.get_slot(b, "m") is None


def test_constraints_hold_after_the_update():
    v = gc.Variable([1.0, -1.0], constraint=lambda x: gc.clip_by_value(x, 0.0, 0.75))
    step = gc.train.GradientDescentOptimizer(0.125).minimize(gc.reduce_sum(v * v))
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        session.run(step)
        assert session.run(v).tolist() == [0.75, 0.0]


def test_every_gradient_at_once_and_a_weighted_loss():
    a, b = gc.Variable(1.0), gc.Variable(2.0)
    optimizer = gc.train.GradientDescentOptimizer(0.25)
    pairs = optimizer.compute_gradients(
        lambda: a * b, {"x": [a], "y": (b,)}, gate_gradients=optimizer.GATE_GRAPH, grad_loss=2.0
    )
    assert [v for _, v in pairs] == [a, b]
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        assert session.run([g for g, _ in pairs]) == [4.0, 2.0]


def test_variables_of_unknown_shape_get_slots():
    v = gc.Variable(lambda: gc.constant([1.0, 2.0]), validate_shape=False)
    optimizers = (
        gc.train.AdamOptimizer(0.5),
        gc.train.AdagradOptimizer(0.5),
        gc.train.RMSPropOptimizer(0.5),
    )
    grad = gc.constant([1.0, 1.0])
    steps = [optimizer.apply_gradients([(grad, v)]) for optimizer in optimizers]
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        for step in steps:
            session.run(step)
        assert session.run(v).shape == (2,)


def test_an_optimizer_of_the_users_own():
    class Sign(gc.train.Optimizer):
        def __init__(self):
            super().__init__(use_locking=False, name="Sign")

        def _apply_dense(self, grad, var):
            return var.assign_sub(0.5 * gc.sign(grad))

    v = gc.Variable([2.0, -3.0])
    step = Sign().minimize(gc.reduce_sum(v * v))
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        session.run(step)
        assert session.run(v).tolist() == [1.5, -2.5]
