"""Right operands in panels: which products, their values, and that they are prepared."""

import numpy as np
import pytest

import graphc as gc
from graphc.function import format_function
from graphc.runtime import jit


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def types_of(session):
    return [
        op.type
        for plan in session._plans.values()
        for e in plan.executables.values()
        for op in e.code.program.function.operations
    ]


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize(("rows", "fed"), [(None, 5), (3, 3), (8, 8), (64, 64), (300, 300)])
def test_products(rows, fed, transpose):
    x = gc.placeholder(gc.float32, [rows, 200])
    weights = normal(*(256, 200) if transpose else (200, 256))
    w = gc.Variable(weights)
    y = gc.nn.relu(gc.matmul(x, w, transpose_b=transpose) + 1.0)
    with gc.Session() as s:
        s.run(w.initializer)
        value = normal(fed, 200)
        found = s.run(y, {x: value})
        assert "PanelMatMul" in types_of(s)
        wanted = value @ (weights.T if transpose else weights) + 1
        np.testing.assert_allclose(found, np.maximum(wanted, 0), rtol=1e-4, atol=1e-4)
        if rows is None:
            for n in (0, 1, 130):
                value = normal(n, 200, seed=n)
                wanted = value @ (weights.T if transpose else weights) + 1
                np.testing.assert_allclose(
                    s.run(y, {x: value}), np.maximum(wanted, 0), rtol=1e-4, atol=1e-4
                )
            assert s.compilations <= 3
        s.run(w.assign(-w))
        found = s.run(y, {x: value})
        np.testing.assert_allclose(found, np.maximum(2 - wanted, 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [gc.float32, gc.float64])
@pytest.mark.parametrize("options", [{}, {"strides": 2}, {"dilations": 2}, {"padding": "VALID"}])
def test_convolutions(options, dtype):
    options = {"padding": "SAME", "strides": 1} | options
    kernel = normal(3, 3, 64, 128)
    x = gc.placeholder(dtype, [1, 6, 7, 64])
    w = gc.Variable(kernel.astype(dtype.as_numpy_dtype))
    y = gc.nn.conv2d(x, w, **options)
    value = normal(1, 6, 7, 64)
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        for session in (s, reference):
            session.run(w.initializer)
        found = s.run(y, {x: value})
        assert {"PanelConv2D", "PanelWinogradProduct"} & set(types_of(s))
        np.testing.assert_allclose(found, reference.run(y, {x: value}), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [7, 14, 30])
def test_winograds_products(size):
    x = gc.placeholder(gc.float32, [1, size, size, 64])
    w = gc.Variable(normal(3, 3, 64, 64))
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        for session in (s, reference):
            session.run(w.initializer)
        y = gc.nn.conv2d(x, w, 1, "SAME")
        value = normal(1, size, size, 64)
        found = s.run(y, {x: value})
        assert "PanelWinogradProduct" in types_of(s)
        np.testing.assert_allclose(found, reference.run(y, {x: value}), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("rows", "shape", "transpose_a"),
    [
        (1, (200, 256), False), (2, (200, 256), False), (8, (200, 250), False),
        (8, (20, 32), False), (8, (200, 256), True),
    ],
)
def test_others_are_left(rows, shape, transpose_a):
    x = gc.placeholder(gc.float32, (shape[0], rows) if transpose_a else (rows, shape[0]))
    w = gc.Variable(normal(*shape))
    y = gc.matmul(x, w, transpose_a=transpose_a)
    with gc.Session() as s:
        s.run(w.initializer)
        s.run(y, {x: normal(*x.shape.as_list())})
        assert "PanelMatMul" not in types_of(s)


def test_a_training_step_is_left():
    x = gc.placeholder(gc.float32, [8, 200])
    w = gc.Variable(normal(200, 256))
    loss = gc.reduce_sum(gc.matmul(x, w) ** 2)
    step = gc.train.GradientDescentOptimizer(0.1).minimize(loss)
    with gc.Session() as s:
        s.run(w.initializer)
        s.run([loss, step], {x: normal(8, 200)})
        assert "PanelMatMul" not in types_of(s)


def test_the_text_shows_what_is_prepared():
    x = gc.placeholder(gc.float32, [8, 200])
    w = gc.Variable(normal(200, 256))
    with gc.Session() as s:
        s.run(w.initializer)
        s.run(gc.matmul(x, w), {x: normal(8, 200)})
        texts = [
            format_function(e.code.program.function)
            for plan in s._plans.values()
            for e in plan.executables.values()
        ]
    (text,) = [t for t in texts if "prepare:" in t]
    before, after = text.split("prepare:\n")
    width = 2 * jit.host_target().lanes(4)
    assert f"prepared %MatMul/PackColumns: f32[{256 // width}, 200, {width}]" in before
    assert "  %MatMul/PackColumns = PackColumns(%Variable" in after
