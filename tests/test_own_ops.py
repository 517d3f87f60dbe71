"""Ops that are registered from Python: fused like any other, or computed by NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import CompileError, InvalidArgumentError
from graphc.op import REGISTRY
from graphc.own_ops import apply, select


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    gc.reset_default_graph()
    before = dict(REGISTRY)
    yield
    for name in REGISTRY.keys() - before.keys():
        del REGISTRY[name]


@pytest.fixture(params=["static", "eager", "reference"])
def session(request):
    return gc.Session(mode=request.param)


def swish():
    return gc.register_op(
        "OwnSwish", lambda x: x / (1 + np.exp(-x)),
        element=lambda x: x * apply("div", 1.0, apply("exp", 0.0 - x) + 1.0),
        gradient=lambda op, g: g * (
            gc.sigmoid(op.inputs[0]) * (1 + op.inputs[0] * (1 - gc.sigmoid(op.inputs[0])))
        ),
    )  # fmt: skip


def test_an_element_expression(session):
    own = swish()
    x = gc.placeholder(gc.float32, [None, 3])
    y = own(x + 1, name="mine")
    assert y.op.type == "OwnSwish"
    assert y.name == "mine:0"
    assert y.shape.as_list() == [None, 3]
    data = np.linspace(-3, 3, 6, dtype=np.float32).reshape(2, 3)
    total = gc.reduce_sum(y * 2)
    found, grad = session.run([y, gc.gradients(total, x)[0]], {x: data})
    z = data + 1
    s = 1 / (1 + np.exp(-z))
    np.testing.assert_allclose(found, z * s, rtol=2e-6)
    np.testing.assert_allclose(grad, 2 * s * (1 + z * (1 - s)), rtol=2e-5)


def test_it_is_fused():
    own = swish()
    x = gc.placeholder(gc.float32, [8])
    out = gc.sqrt(own(x * 2) + 3)
    stages = {s.name: s.text for s in gc.inspect.compile_stages(gc.Session(), out)}
    assert "OwnSwish" in stages["cse"]
    assert stages["fuse"].count("kernel") == 1
    assert stages["loops"].count("sqrt(") == stages["loops"].count("exp(") == 1


def test_code_of_another_expression_is_not_taken_from_the_cache():
    found = []
    for factor in (2.0, 3.0):
        own = gc.register_op(
            "OwnScaled", lambda x, f=factor: x * f, element=lambda x, f=factor: x * f
        )
        with gc.Graph().as_default():
            x = gc.placeholder(gc.float32, [2])
            found.append(gc.Session().run(own(x), {x: [1, 2]}).tolist())
        del REGISTRY["OwnScaled"]
    assert found == [[2, 4], [3, 6]]


def test_operands_broadcast_and_conditions(session):
    larger = gc.register_op(
        "OwnLarger", lambda x, y: np.where(x > y, x * x, y), operands=2,
        element=lambda x, y: select(x > y, x * x, y),
    )  # fmt: skip
    x, y = gc.placeholder(gc.int32, [None, 1]), gc.placeholder(gc.int32, [2])
    found = session.run(larger(x, y), {x: [[1], [5]], y: [2, 3]})
    np.testing.assert_array_equal(found, [[2, 3], [25, 25]])
    assert larger(x, y).dtype is gc.int32
    assert gc.gradients(gc.reduce_sum(larger(gc.constant([1.0]), 2.0)), [x]) == [None]


def test_a_numpy_function(session):
    calls = []

    def sort(x, k):
        calls.append(1)
        order = np.argsort(x)[: int(k)]
        return x[order], order

    smallest = gc.register_op(
        "OwnSmallest", sort, operands=2, shape=lambda x, k: [(None,), (None,)],
        dtype=lambda x, k: [x, gc.int64],
    )  # fmt: skip
    x, k = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.int32, [])
    values, order = smallest(x, k)
    assert values.shape.as_list() == [None]
    data = np.array([3, 1, 2, 0], np.float32)
    found, places, double = session.run([values, order, values * 2], {x: data, k: 2})
    np.testing.assert_array_equal(found, [0, 1])
    np.testing.assert_array_equal(places, [3, 1])
    np.testing.assert_array_equal(double, [0, 2])
    assert calls == [1]


def test_a_numpy_function_with_a_gradient_and_a_shape_of_its_operand(session):
    cube = gc.register_op(
        "OwnCube", lambda x: x**3, gradient=lambda op, g: g * 3 * op.inputs[0] ** 2
    )
    x = gc.placeholder(gc.float64, [None, 2])
    y = cube(x)
    (grad,) = gc.gradients(gc.reduce_sum(y + x), x)
    data = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    found, slope = session.run([y + x, grad], {x: data})
    np.testing.assert_array_equal(found, data**3 + data)
    np.testing.assert_array_equal(slope, 3 * data**2 + 1)


def test_sizes_may_be_computed_from_sizes(session):
    twice = gc.register_op(
        "OwnTwice", lambda x: np.concatenate([x, x]), shape=lambda x: (x[0] * 2, *x[1:])
    )
    x = gc.placeholder(gc.float32, [None, 3])
    y = gc.reduce_sum(twice(x) * 2, axis=1)
    np.testing.assert_array_equal(session.run(y, {x: np.ones((2, 3))}), [6, 6, 6, 6])
    wrong = gc.register_op("OwnWrong", lambda x: x[1:])
    with pytest.raises(InvalidArgumentError, match=r"has shape \(1, 3\)"):
        session.run(wrong(x), {x: np.ones((2, 3))})


def test_it_is_saved_by_its_name(tmp_path):
    own = swish()
    x = gc.placeholder(gc.float32, [3], name="x")
    gc.save(tmp_path / "m.graphc", gc.Session(), x, {"y": own(x)})
    np.testing.assert_allclose(gc.load(tmp_path / "m.graphc")(x=[0, 1, 2])[1], 0.7310586, rtol=1e-6)
    del REGISTRY["OwnSwish"]
    with pytest.raises((CompileError, ValueError), match="OwnSwish"):
        gc.load(tmp_path / "m.graphc")


def test_what_is_refused():
    with pytest.raises(ValueError, match="'MatMul': that is taken"):
        gc.register_op("MatMul", np.matmul, operands=2)
    with pytest.raises(ValueError, match="no name"):
        gc.register_op("a b", np.abs)
    with pytest.raises(ValueError, match="must have an operand"):
        gc.register_op("OwnNothing", np.abs, operands=0)
    with pytest.raises(ValueError, match="has an element expression"):
        gc.register_op("OwnBoth", np.abs, element=lambda x: x, shape=lambda x: x)
    own = gc.register_op("OwnText", np.abs, element=lambda x: "no")
    with pytest.raises(TypeError, match="gives 'no'"):
        own(gc.constant(1.0))
    with pytest.raises(TypeError, match="takes 1 tensors"):
        own(1.0, 2.0)
    few = gc.register_op(
        "OwnFew", np.add, operands=2, element=lambda x, y: x + y, gradient=lambda op, g: [g]
    )
    x = gc.constant(1.0)
    with pytest.raises(ValueError, match="gives 1 values for 2 operands"):
        gc.gradients(few(x, x), x)
