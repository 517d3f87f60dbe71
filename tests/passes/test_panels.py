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


# --- what loops and several products read ---------------------------------------------------------


def operations_of(session):
    """The types of a session's operations, by how many loops are around them."""
    found = {}

    def walk(function, depth):
        for op in function.operations:
            found.setdefault(depth, []).append(op.type)
            for body in op.attrs.get("bodies", ()):
                walk(body, depth + 1)

    for plan in session._plans.values():
        for e in plan.executables.values():
            walk(e.code.program.function, 0)
            if e.code.program.function.prepared is not None:
                walk(e.code.program.function.prepared, "prepared")
    return found


def recurrent(w, x, steps):
    """``x`` after some steps of a recurrent layer."""
    return gc.while_loop(
        lambda i, _: i < steps, lambda i, h: (i + 1, gc.tanh(gc.matmul(h, w))), [0, x]
    )[1]


def test_a_loop_packs_what_it_reads_before_its_turns():
    weights, value = normal(256, 256) / 16, normal(8, 256, seed=1)
    x = gc.placeholder(gc.float32, [8, 256])
    w = gc.Variable(weights)
    loss = gc.reduce_sum(recurrent(w, x, 5))
    step = gc.train.GradientDescentOptimizer(0.25).minimize(loss)
    with gc.Session() as s:
        s.run(w.initializer)
        s.run([loss, step], {x: value})
        types = operations_of(s)
        assert types[1].count("PanelMatMul") == 2  # forward, and back by the transposed weights
        assert "PackColumns" not in types[1]
        assert types[0].count("PackColumns") == 2
        states = [value]
        for _ in range(5):
            states.append(np.tanh(states[-1] @ weights))
        back, gradient = np.ones_like(value), np.zeros_like(weights)
        for before, after in zip(states[-2::-1], states[:0:-1], strict=True):
            back = back * (1 - after**2)
            gradient += before.T @ back
            back = back @ weights.T
        wanted = weights - 0.25 * gradient
        np.testing.assert_allclose(s.run(w), wanted, rtol=1e-4, atol=1e-4)


def test_weights_of_an_inner_loop_leave_both():
    x = gc.placeholder(gc.float32, [8, 256])
    w = gc.Variable(normal(256, 256) / 16)
    y = gc.while_loop(lambda i, _: i < 3, lambda i, h: (i + 1, recurrent(w, h, 2)), [0, x])[1]
    with gc.Session() as s:
        s.run(w.initializer)
        found = s.run([y, w.assign(w * 2)], {x: normal(8, 256, seed=1)})[0]
        types = operations_of(s)
        assert (types[0].count("PackColumns"), types[1].count("PackColumns")) == (1, 0)
        assert types[2].count("PanelMatMul") == 1
        assert "PackColumns" not in types[2]
        h = normal(8, 256, seed=1)
        for _ in range(6):
            h = np.tanh(h @ (normal(256, 256) / 16))
        np.testing.assert_allclose(found, h, rtol=1e-4, atol=1e-4)


def test_weights_that_no_run_changes_are_kept_from_run_to_run():
    x = gc.placeholder(gc.float32, [8, 256])
    w = gc.Variable(normal(256, 256) / 16)
    with gc.Session() as s:
        s.run(w.initializer)
        y = recurrent(w, x, 4)
        for factor in (1, 2):
            found = s.run(y, {x: normal(8, 256, seed=1)})
            h = normal(8, 256, seed=1)
            for _ in range(4):
                h = np.tanh(h @ (factor * normal(256, 256) / 16))
            np.testing.assert_allclose(found, h, rtol=1e-4, atol=1e-4)
            s.run(w.assign(w * 2))
        types = operations_of(s)
        assert types["prepared"].count("PackColumns") == 1
        assert "PackColumns" not in types[0] + types[1]


def test_what_changes_with_the_turns_is_left():
    x = gc.placeholder(gc.float32, [256, 256])

    def body(i, h):
        return i + 1, gc.tanh(gc.matmul(h, h))

    def test(i, h):
        return (i < 3) & (gc.reduce_sum(gc.matmul(x, x) * 0.0 + h * 0.0) < 1.0)

    y = gc.while_loop(test, body, [0, x])[1]
    with gc.Session() as s:
        h = value = normal(256, 256) / 16
        found = s.run(y, {x: value})
        for _ in range(3):
            h = np.tanh(h @ h)
        np.testing.assert_allclose(found, h, rtol=1e-3, atol=1e-3)
        types = operations_of(s)
        assert "PackColumns" not in types[0] + types[1]


@pytest.mark.parametrize(("steps", "packed"), [(3, 0), (4, 1), (9, 1)])
def test_what_several_products_read_is_packed_once(steps, packed):
    weights, value = normal(256, 256) / 16, normal(8, 256, seed=1)
    h = x = gc.placeholder(gc.float32, [8, 256])
    w = gc.Variable(weights)
    for _ in range(steps):
        h = gc.tanh(gc.matmul(h, w))
    with gc.Session() as s:
        s.run(w.initializer)
        found = s.run([h, w.assign(-w)], {x: value})[0]
        for _ in range(steps):
            value = np.tanh(value @ weights)
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-4)
        types = operations_of(s)[0]
        assert types.count("PackColumns") == packed
        assert types.count("PanelMatMul") == steps * packed
