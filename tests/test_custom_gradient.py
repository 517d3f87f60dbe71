"""custom_gradient, RegisterGradient and gradient_override_map; values are TensorFlow 1.15.5's."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.backward import GRADIENTS


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    gc.reset_default_graph()
    before = dict(GRADIENTS)
    yield
    GRADIENTS.clear()
    GRADIENTS.update(before)


@pytest.fixture(params=["static", "eager", "reference"])
def session(request):
    return gc.Session(mode=request.param)


def test_a_function_says_its_gradient(session):
    @gc.custom_gradient
    def f(x):
        """Squares."""
        return x * x, lambda dy: dy * 10.0

    x = gc.constant(3.0)
    y = f(x)
    assert session.run([y, gc.gradients(y, x)[0]]) == [9.0, 10.0]
    assert f.__doc__ == "Squares."


def test_several_results_and_arguments(session):
    @gc.custom_gradient
    def f(x, y):
        return [x * x, y * y], lambda a, b: (a + b, a - b)

    x, y = gc.constant(3.0), gc.constant(2.0)
    r = f(x, y)
    assert type(r) is list
    assert session.run(gc.gradients(r, [x, y])) == [2.0, 0.0]
    # Zeros come for a result that nothing depends on.
    assert session.run(gc.gradients(r[0], [x, y])) == [1.0, 1.0]


def test_second_derivatives_are_those_of_the_gradient(session):
    @gc.custom_gradient
    def log1pexp(x):
        e = gc.exp(x)
        return gc.log(1 + e), lambda dy: dy * (1 - 1 / (1 + e))

    x = gc.constant(1.0)
    (first,) = gc.gradients(log1pexp(x), x)
    (second,) = gc.gradients(first, x)
    np.testing.assert_allclose(session.run([first, second]), [0.7310586, 0.19661194], rtol=1e-6)
    large = gc.constant(100.0)
    assert session.run(gc.gradients(log1pexp(large), large)) == [1.0]


@pytest.mark.parametrize("inside", [True, False])
def test_variables(inside, session):
    w = None if inside else gc.get_variable("w", [], initializer=gc.constant_initializer(2.0))

    @gc.custom_gradient
    def f(x):
        v = gc.get_variable("w", [], initializer=gc.constant_initializer(2.0)) if inside else w

        def grad(dy, variables=None):
            assert [v.op.name for v in variables] == ["w"]
            return dy * 7.0, [dy * 11.0 for _ in variables]

        return x * v, grad

    x = gc.constant(3.0)
    y = f(x)
    session.run(gc.global_variables_initializer())
    assert session.run([y, *gc.gradients(y, [x, *gc.trainable_variables()])]) == [6.0, 7.0, 11.0]


def test_variables_must_be_taken():
    w = gc.Variable(1.0)

    @gc.custom_gradient
    def f(x):
        return x * w, lambda dy: dy

    with pytest.raises(TypeError, match="grad_fn must accept a keyword argument 'variables'"):
        f(gc.constant(1.0))


def test_what_is_wrong_with_a_function():
    @gc.custom_gradient
    def f(x, y):
        return x * y, lambda dy: dy

    x, y = gc.constant(3.0), gc.constant(2.0)
    with pytest.raises(ValueError, match=r"Num gradients 1 generated .* num inputs 2"):
        gc.gradients(f(x, y), [x, y])
    with pytest.raises(ValueError, match="keywords arguments"):
        f(x, y=y)

    @gc.custom_gradient
    def none(x):
        return x * 2, lambda dy: None

    assert gc.gradients(none(x), x) == [None]


def test_in_a_loop(session):
    @gc.custom_gradient
    def clipped(x):
        return x * 2, lambda dy: gc.minimum(dy, 1.5) * 2

    x = gc.constant(1.0)
    _, y = gc.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, clipped(v)), [0, x])
    # 1 -> 2 -> min(2, 1.5) * 2 = 3 -> 3
    assert session.run([y, gc.gradients(y, x)[0]]) == [8.0, 3.0]


def test_training_with_a_gradient_of_its_own(session):
    @gc.custom_gradient
    def straight_through(x):
        return gc.round(x), lambda dy: dy

    v = gc.Variable(0.2)
    loss = gc.square(straight_through(v) - 3.0)
    step = gc.train.GradientDescentOptimizer(0.1).minimize(loss)
    session.run(gc.global_variables_initializer())
    for _ in range(20):
        session.run(step)
    assert session.run(loss) == 0.0


# --- registered gradients -------------------------------------------------------------------------


def test_override(session):
    @gc.RegisterGradient("Hundred")
    def hundred(op, grad):
        assert op.type == "Sign"
        return grad * 100.0

    x = gc.constant(2.0)
    with gc.get_default_graph().gradient_override_map({"Sign": "Hundred"}):
        y, z = gc.sign(x), gc.exp(x)
    w = gc.sign(x)
    np.testing.assert_allclose(session.run(gc.gradients([y, z], x)), [107.38905], rtol=1e-6)
    assert session.run(gc.gradients(w, x)) == [0.0]
    assert y.op.get_attr("_gradient_op_type") == "Hundred"


def test_override_of_py_func(session):
    @gc.RegisterGradient("OfProduct")
    def grads(op, grad):
        return grad * op.inputs[1], grad * op.inputs[0]

    x, y = gc.constant(2.0), gc.constant(5.0)
    with gc.get_default_graph().gradient_override_map({"PyFunc": "OfProduct"}):
        z = gc.py_func(lambda a, b: a * b, [x, y], gc.float32)
    z.set_shape([])
    assert session.run(gc.gradients(z * z, [x, y])) == [100.0, 40.0]


def test_what_is_wrong_with_an_override():
    x, y = gc.constant(2.0), gc.constant(3.0)
    graph = gc.get_default_graph()
    with graph.gradient_override_map({"Sign": "Nope", "Mul": "Few"}):
        unknown, product = gc.sign(x), x * y
    with pytest.raises(LookupError, match=r"No gradient defined for operation 'Sign'"):
        gc.gradients(unknown, x)
    gc.RegisterGradient("Few")(lambda op, g: [g])
    with pytest.raises(ValueError, match=r"Num gradients 1 generated .* num inputs 2"):
        gc.gradients(product, x)
    for wrong in ({"Sign": 3}, [1]):
        context = graph.gradient_override_map(wrong)
        with pytest.raises(TypeError, match="dictionary mapping strings to strings"), context:
            pass
    with pytest.raises(KeyError, match="Registering two gradient with name 'Few'"):
        gc.RegisterGradient("Few")(lambda op, g: [g])
    with pytest.raises(KeyError, match="Registering two"):
        gc.RegisterGradient("Mul")(lambda op, g: [g])
    with pytest.raises(TypeError, match="must be a string"):
        gc.RegisterGradient(3)
    with pytest.raises(TypeError, match="must be a string"):
        gc.no_gradient(3)


def test_an_op_without_a_gradient_gets_one(session):
    @gc.RegisterGradient("PyFunc")
    def grad(op, g):
        return g * 3.0

    x = gc.constant(2.0)
    z = gc.py_func(lambda a: a * 2, [x], gc.float32)
    z.set_shape([])
    assert session.run(gc.gradients(z, x)) == [3.0]


def test_no_gradient():
    x = gc.constant(2.0)
    gc.NotDifferentiable("PyFunc")
    gc.NoGradient("Exp")
    assert gc.gradients(gc.exp(x), x) == [None]
