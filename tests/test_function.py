"""gc.function: traced once for every kind of arguments; values are TensorFlow 1.15.5's."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    gc.reset_default_graph()


@pytest.fixture(params=["static", "eager", "reference"])
def session(request):
    return gc.Session(mode=request.param)


def test_it_is_traced_once_for_every_kind(session):
    traces = []

    @gc.function
    def f(x, k=2):
        """Times."""
        traces.append(1)
        return x * k

    one, two = gc.constant(1.0), gc.constant(2.0)
    results = [f(one), f(two), f(gc.constant([1.0, 2.0])), f(one, 3), f(x=two, k=2)]
    found = session.run(results)
    assert found[:2] == [2.0, 4.0]
    np.testing.assert_array_equal(found[2], [2, 4])
    assert found[3:] == [3.0, 4.0]
    assert len(traces) == 3
    assert f.__doc__ == "Times."
    with gc.Graph().as_default():
        assert gc.Session().run(f(np.float32(5.0))) == 10.0
    assert len(traces) == 4


def test_sizes_that_differ_between_calls(session):
    @gc.function
    def f(x):
        return gc.reduce_sum(x, axis=0), gc.shape(x)[0]

    a, b = gc.placeholder(gc.float32, [None, 2]), gc.placeholder(gc.float32, [None, 2])
    (x, n), (y, m) = f(a), f(b)
    found = session.run([x, n, y, m], {a: np.ones((3, 2)), b: np.ones((1, 2))})
    np.testing.assert_array_equal(found[0], [3, 3])
    np.testing.assert_array_equal(found[2], [1, 1])
    assert found[1:4:2] == [3, 1]
    np.testing.assert_array_equal(session.run(a + f(b)[0], {a: np.ones((3, 2)), b: [[1, 2]]})[2],
                                  [2, 3])  # fmt: skip


def test_variables_are_read_and_assigned_in_the_order_of_the_text(session):
    v = gc.Variable(1.0)

    @gc.function
    def f(x):
        before = v + 0.0
        v.assign_add(x)
        return before, v * 10.0, v.read_value()

    first = f(gc.constant(2.0))
    second = f(gc.constant(3.0))
    session.run(v.initializer)
    assert session.run(second) == (1.0, 40.0, 4.0)
    assert session.run(v) == 4.0
    session.run(v.initializer)
    assert session.run(first[2]) == 3.0
    assert session.run(v) == 3.0


def test_effects_run_though_nobody_reads_them(session, capfd):
    log = []

    @gc.function
    def f(x):
        gc.print("x is", x)
        gc.py_func(lambda a: log.append(float(a)), [x], [])
        gc.debugging.assert_positive(x)
        return x + 1

    y = f(gc.placeholder_with_default(2.0, []))
    assert session.run(y) == 3.0
    assert capfd.readouterr().err == "x is 2\n"
    assert log == [2.0]
    bad = f(gc.placeholder_with_default(-2.0, []))
    with pytest.raises(gc.errors.InvalidArgumentError, match="x > 0 did not hold"):
        session.run(bad)

    @gc.function
    def only(x):
        gc.print("only", x)

    step = only(gc.constant(1))
    assert isinstance(step, gc.Operation)
    capfd.readouterr()
    session.run(step)
    assert capfd.readouterr().err == "only 1\n"


def test_gradients_go_through(session):
    w = gc.Variable(3.0)

    @gc.function
    def cube(x):
        return w * x**3

    @gc.function
    def loop(x):
        return gc.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * x), [0, x])[1]

    @gc.function
    def choose(x):
        return gc.cond(x > 1, lambda: cube(x), lambda: x)

    session.run(w.initializer)
    x = gc.constant(2.0)
    for y, value, slope, curve in (
        (cube(x), 24.0, 36.0, 36.0), (loop(x), 16.0, 32.0, 48.0), (choose(x), 24.0, 36.0, 36.0),
    ):  # fmt: skip
        (first,) = gc.gradients(y, x)
        (second,) = gc.gradients(first, x)
        np.testing.assert_allclose(session.run([y, first, second]), [value, slope, curve])
    assert session.run(gc.gradients(cube(x), w)) == [8.0]


def test_in_a_loop_and_in_a_function(session):
    @gc.function
    def inner(x):
        return x * 2 + 1

    @gc.function
    def outer(x):
        return inner(inner(x))

    assert session.run(outer(gc.constant(1))) == 7
    _, y = gc.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, outer(v)), [0, gc.constant(1)])
    assert session.run(y) == 127


def test_nested_results_and_methods(session):
    class Model:
        def __init__(self):
            self.factor = 3

        @gc.function
        def scaled(self, x):
            return {"a": x * self.factor, "b": (x + 1, None)}

    found = Model().scaled(gc.constant(2))
    assert found["b"][1] is None
    assert session.run([found["a"], found["b"][0]]) == [6, 3]


def test_variables_are_made_in_the_first_trace_only(session):
    made = []

    @gc.function
    def f(x):
        if not made:
            made.append(gc.Variable(5.0))
        return x * made[0]

    y = f(gc.constant(2.0)), f(gc.constant([1.0, 2.0]))
    session.run(gc.global_variables_initializer())
    assert session.run(y[0]) == 10.0

    @gc.function
    def always(x):
        return x * gc.Variable(5.0)

    always(gc.constant(1.0))
    with pytest.raises(ValueError, match="create variables on non-first call"):
        always(gc.constant([1.0]))


def test_a_signature(session):
    traces = []
    like = gc.placeholder(gc.float32, [None])

    @gc.function(input_signature=[like])
    def f(x):
        traces.append(1)
        return x * 2

    a, b = f(gc.constant([1.0])), f(np.array([1.0, 2.0], np.float32))
    np.testing.assert_array_equal(session.run(gc.concat([a, b], 0)), [2, 2, 4])
    assert len(traces) == 1
    with pytest.raises(ValueError, match="incompatible with input_signature"):
        f(gc.constant([1]))
    with pytest.raises(ValueError, match="incompatible with input_signature"):
        f(gc.constant(1.0))


def test_what_is_refused():
    @gc.function
    def again(x):
        return again(x)

    @gc.function
    def fails(x):
        raise RuntimeError("mine")

    x = gc.constant(1.0)
    with pytest.raises(ValueError, match="'again' calls itself"):
        again(x)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="mine"):
            fails(x)
    with pytest.raises(TypeError, match="not a callable"):
        gc.function(3)
    with pytest.raises(TypeError):
        fails(x, x)


def test_it_is_saved(tmp_path):
    @gc.function
    def f(x):
        return gc.cond(gc.reduce_sum(x) > 0, lambda: x * 2, lambda: x)

    x = gc.placeholder(gc.float32, [None], name="x")
    gc.save(tmp_path / "m.graphc", gc.Session(), x, {"y": f(x)})
    np.testing.assert_array_equal(gc.load(tmp_path / "m.graphc")(x=[1, 2]), [2, 4])
