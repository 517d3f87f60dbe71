"""gradients(): the chain rule, its names, its Nones, and TensorFlow 1.15 at the corners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc.ops.math as gm
from graphc.build import constant
from graphc.errors import DTypeError, GraphError
from graphc.gradients import UnconnectedGradients, gradients
from graphc.graph import Graph, Tensor
from graphc.interpret import interpret
from graphc.ops.array import identity, placeholder, stop_gradient
from graphc.ops.base import call


@pytest.fixture(autouse=True)
def graph():
    with Graph().as_default() as g:
        yield g


def values(tensors: list[Tensor | None]) -> list[Any]:
    assert all(t is not None for t in tensors)
    return [v.tolist() for v in interpret([t for t in tensors if t is not None])]


def test_the_lines_of_the_probe():
    x = constant(3.0)
    y = x * x
    z = y * 2 + x
    assert values(gradients(z, [x, y])) == [13.0, 2.0]
    assert values(gradients([z, y], x)) == [19.0]
    assert values(gradients(z, x, grad_ys=[constant(10.0)])) == [130.0]
    assert values(gradients(z, x, stop_gradients=[y])) == [1.0]
    assert gradients(x, constant(1.0)) == [None]
    assert values(gradients(z, x, name="G")) == [13.0]
    assert [g.name for g in gradients(z, x) if g is not None] == ["gradients_5/AddN:0"]
    assert values(gradients(stop_gradient(y) * x, x)) == [9.0]
    assert gradients(gm.argmax(call("Pack", [x, y])), x) == [None]
    assert gradients(gm.cast(gm.cast(x, "int32"), "float32"), x) == [None]
    assert gradients(z, "x") == [None]
    assert gradients(constant(1), constant(1)) == [None]


def at(fn: Any, *points: Any) -> list[Any]:
    xs = [constant(p) for p in points]
    found = gradients(fn(*xs), xs)
    known = iter(values([g for g in found if g is not None]))
    return [None if g is None else next(known) for g in found]


# What TensorFlow 1.15.5 printed.
CORNERS: list[tuple[Any, tuple[Any, ...], list[Any]]] = [
    (gm.maximum, (3.0, 3.0), [1.0, 0.0]),
    (gm.minimum, (3.0, 3.0), [1.0, 0.0]),
    (gm.floordiv, (7.0, 2.0), [None, None]),
    (gm.floormod, (7.0, 2.0), [1.0, -3.0]),
    (gm.div_no_nan, (1.0, 0.0), [0.0, 0.0]),
    (gm.squared_difference, (1.0, 3.0), [-4.0, 4.0]),
    (gm.atan2, (1.0, 2.0), [0.4, -0.2]),
    (gm.abs, (0.0,), [0.0]),
    (gm.sign, (2.0,), [0.0]),
    (gm.round, (2.0,), [None]),
    (gm.sqrt, (0.0,), [np.inf]),
    (gm.pow, (0.0, 0.0), [np.nan, 0.0]),
    (gm.pow, (0.0, 2.0), [0.0, 0.0]),
    (gm.pow, (-2.0, 2.0), [-4.0, 0.0]),
    (gm.pow, (0.0, 0.5), [np.inf, 0.0]),
    (gm.pow, (0.0, -1.0), [-np.inf, np.nan]),
    (gm.xlogy, (0.0, 0.0), [0.0, 0.0]),
    (gm.xdivy, (0.0, 0.0), [0.0, 0.0]),
    (lambda x: gm.clip_by_value(x, 0.0, 3.0), (3.0,), [1.0]),
    (lambda x: gm.where(x > 5, gm.log(x - 3.0), x), (3.0,), [np.nan]),
    (gm.norm, ([0.0, 0.0],), [[np.nan, np.nan]]),
    (gm.reduce_max, ([1.0, 2.0, 2.0],), [[0.0, 0.5, 0.5]]),
    (gm.reduce_prod, ([0.0, 2.0, 3.0],), [[6.0, 0.0, 0.0]]),
    (gm.reduce_prod, ([0.0, 0.0, 3.0],), [[0.0, 0.0, 0.0]]),
    (gm.reduce_mean, ([1.0, 2.0],), [[0.5, 0.5]]),
    (lambda x: call("Relu", x), (0.0,), [0.0]),
    (lambda x: call("Relu6", x), (6.0,), [0.0]),
    (lambda x: call("Selu", x), (0.0,), [1.0507010221481323]),
    (lambda x: call("Elu", x), (0.0,), [1.0]),
    (lambda x: call("LeakyRelu", x), (0.0,), [0.2]),
    (lambda x: call("Softsign", x), (-1.0,), [0.25]),
    (lambda x: call("L2Loss", x), ([3.0, 4.0],), [[3.0, 4.0]]),
]


@pytest.mark.parametrize(("fn", "points", "expected"), CORNERS)
def test_corners_are_tensorflows(fn: Any, points: Any, expected: list[Any]):
    for found, wanted in zip(at(fn, *points), expected, strict=True):
        if wanted is None:
            assert found is None
        else:
            np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_of_itself_and_of_several():
    x = constant([1.0, 2.0])
    assert values(gradients(x, x)) == [[1.0, 1.0]]
    assert values(gradients([x, x * 2], x)) == [[3.0, 3.0]]


def test_broadcasting_is_summed():
    a, b = constant(np.ones((2, 3))), constant(np.ones((3,)))
    assert values(gradients(a * b, [a, b])) == [np.ones((2, 3)).tolist(), [2.0, 2.0, 2.0]]


def test_scopes(graph: Graph):
    x = constant(2.0)
    gradients(gm.exp(x, name="deep"), x)
    names = [op.name for op in graph.get_operations()]
    expected = ["gradients/Shape", "gradients/grad_ys_0", "gradients/Fill"]
    assert names[-4:] == [*expected, "gradients/deep_grad/Mul"]


def test_grad_ys():
    x = constant([1.0, 2.0])
    y = x * x
    assert values(gradients(y, x, grad_ys=[[1.0, 10.0]])) == [[2.0, 40.0]]
    with pytest.raises(GraphError, match="Passed 2 grad_ys for 1 ys"):
        gradients(y, x, grad_ys=[None, None])
    with pytest.raises(DTypeError, match="must be real or integer"):
        gradients(y, x, grad_ys=[constant([True, False])])
    with pytest.raises(DTypeError, match="must be numeric"):
        gradients(y > 0, x)


def test_stop_gradients_cut_every_path():
    x = constant(3.0)
    y = x * x
    z = y * y + y
    assert gradients(z, x, stop_gradients=[y]) == [None]
    assert values(gradients(z, [x, y], stop_gradients=[x])) == [114.0, 19.0]


def test_unconnected():
    x, y = constant([1.0, 2.0]), constant(1.0)
    found = gradients(y, x, unconnected_gradients=UnconnectedGradients.ZERO)
    assert values(found) == [[0.0, 0.0]]
    assert values(gradients(y, x, unconnected_gradients="zero")) == [[0.0, 0.0]]
    with pytest.raises(ValueError, match="Unknown value for unconnected_gradients: 'some'"):
        gradients(y, x, unconnected_gradients="some")


def test_higher_orders():
    x = constant(0.5)
    y = gm.exp(x * x)
    for order in range(4):
        (y,) = gradients(y, x)
        assert y is not None, order
    t = np.float64(0.5)
    fourth = (12 + 48 * t**2 + 16 * t**4) * np.exp(t * t)
    np.testing.assert_allclose(values([y]), [fourth], rtol=1e-5)


def test_through_a_deep_graph():
    x = constant(1.0)
    y = x
    for _ in range(3000):
        y = y + x
    assert values(gradients(y, x)) == [3001.0]


def test_a_variable_is_its_handle():
    handle = identity(constant([1.0, 2.0]))

    class Variable:
        graph = handle.graph

        def _ref(self) -> Tensor:
            return handle

    assert values(gradients(handle * handle, Variable())) == [[2.0, 4.0]]


def test_unknown_shapes():
    x, w = placeholder("float32", [None, 3]), placeholder("float32")
    loss = gm.reduce_mean(gm.square(x * w))
    gx, gw = gradients(loss, [x, w])
    assert gx is not None
    assert gw is not None
    assert gx.shape.as_list() == [None, 3]
    assert gw.shape.ndims is None
    feeds = {x: np.ones((2, 3)), w: np.array([1.0, 2.0, 3.0])}
    found = interpret([gx, gw], feeds)
    np.testing.assert_allclose(found[0], np.tile([1 / 3, 4 / 3, 3], (2, 1)), rtol=1e-6)
    np.testing.assert_allclose(found[1], [2 / 3, 4 / 3, 2], rtol=1e-6)
    scalar = interpret([gw], {x: np.ones((2, 3)), w: 2.0})
    np.testing.assert_allclose(scalar, [4.0], rtol=1e-6)


def test_other_graph_is_refused():
    x = constant(1.0)
    with Graph().as_default():
        y = constant(2.0)
    with pytest.raises(ValueError, match="same graph"):
        gradients(y, x)
