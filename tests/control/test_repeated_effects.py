"""Gradients through nested loops and branches that draw numbers, assign, print and check."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.formats import load, save
from tests.control.loops import POINT, WEIGHTS, F, loop, slopes

MODES = ["static", "eager", "reference"]
ts = gc.reduce_sum
CASES = {}


def case(fn):
    CASES[fn.__name__] = fn
    return fn


def uniform(seed=7):
    return gc.random_uniform([3], seed=seed, dtype=F)


@case
def in_an_inner_loop(x, n):
    def outer(i, y):
        return loop(i + 1, lambda j, z: (gc.tanh(z * x) + z * uniform(),), y)

    return ts(loop(n, outer, x)[0])


@case
def in_a_branch(x, n):
    def step(i, y):
        even = gc.equal(i % 2, 0)
        return (gc.cond(even, lambda: gc.sin(y) * uniform(), lambda: gc.tanh(y) * x),)

    return ts(loop(n, step, x)[0])


@case
def in_a_branch_of_the_third_loop(x, n):
    def outer(i, y):
        def middle(j, z):
            def inner(k, q):
                draw = lambda: gc.tanh(q * x) * gc.random_normal([3], seed=3, dtype=F)  # noqa: E731
                even = gc.equal((k + i) % 2, 0)
                return (gc.cond(even, draw, lambda: gc.sin(q) * uniform(None)),)

            return loop(j + 1, inner, z)

        return loop(2, middle, y * x)

    return ts(loop(n, outer, x)[0])


@case
def in_loops_in_a_branch(x, n):
    return gc.cond(ts(x) > 0.0, lambda: in_an_inner_loop(x, n), lambda: ts(x * x * uniform()))


@case
def dropout(x, n):
    def outer(i, y):
        return loop(2, lambda j, z: (gc.tanh(gc.nn.dropout(z, rate=0.3) * x + z),), y)

    return ts(loop(n, outer, x)[0])


@pytest.mark.parametrize("name", CASES)
def test_first_and_second(name):
    """In the second run of a session: the counters have gone on."""
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])
    y = CASES[name](x, n)
    first = gc.gradients(y, x)[0]
    weighted = ts(first * WEIGHTS)
    second = gc.gradients(weighted, x)[0]

    def values(point, fetches, mode="static"):
        with gc.Session(mode=mode) as session:
            return [session.run(fetches, {x: point, n: 3}) for _ in range(2)][-1]

    found = values(POINT, [first, second])
    for mode in MODES[1:]:
        for a, b in zip(found, values(POINT, [first, second], mode), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)
    wanted = slopes(lambda p: values(p, [y, weighted]))
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_the_numbers_are_the_same_to_the_bit(mode):
    x = gc.constant(np.ones(3))
    n = gc.placeholder(gc.int32, [])

    def outer(i, y):
        # One turn of one inner loop draws: what comes out is what is drawn.
        return loop(gc.where(gc.equal(i, 1), 1, 0), lambda j, z: (z * uniform(),), y)

    y = loop(n, outer, x)[0]
    grad = gc.gradients(y, x)[0]
    with gc.Session(mode=mode) as session:
        seen = set()
        for _ in range(3):
            drawn, again = session.run([y, grad], {n: 3})
            assert drawn.tobytes() == again.tobytes()
            seen.add(drawn.tobytes())
        assert len(seen) == 3


# --- other effects --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_what_the_gradient_does_not_need_is_done_once(mode, capsys):
    x, n = gc.placeholder(F, [3]), gc.placeholder(gc.int32, [])
    count = gc.Variable(0)

    def outer(i, y):
        def inner(j, z):
            z = gc.tanh(z * x)
            checked = gc.Assert(ts(z) < 100.0, [z])
            with gc.control_dependencies([count.assign_add(1), checked]):
                return (gc.Print(gc.identity(z), [j], message="turn "),)

        return loop(i + 1, inner, y)

    y = ts(loop(n, outer, x)[0])
    grad = gc.gradients(y, x)[0]
    with gc.Session(mode=mode) as session:
        session.run(count.initializer)
        found = session.run(grad, {x: POINT, n: 3})
        assert session.run(count) == 6
        assert capsys.readouterr().err.count("turn ") == 6
        wanted = slopes(lambda p: [session.run(y, {x: p, n: 3})])
        np.testing.assert_allclose(found, wanted[0], rtol=1e-6)


KEPT = {}


def kept(fn):
    KEPT[fn.__name__] = fn
    return fn


@kept
def assigned_in_an_inner_loop(x, n, v, calls):
    def outer(i, y):
        def inner(j, z):
            return (gc.tanh(z * x) * v.assign(v * 1.1 + 0.1 * gc.cast(j, F)),)

        return loop(i + 1, inner, y)

    return ts(loop(n, outer, x)[0])


@kept
def assigned_in_the_third_loop(x, n, v, calls):
    def outer(i, y):
        def middle(j, z):
            step = lambda k, q: (gc.sin(q * x) * v.assign_add(np.full(3, 0.1)),)  # noqa: E731
            return loop(j + i, step, z)

        return loop(i + 1, middle, y)

    return ts(loop(n, outer, x)[0])


@kept
def assigned_in_branches_of_loops(x, n, v, calls):
    def outer(i, y):
        def middle(j, z):
            def inner(k, q):
                assigned = lambda: gc.sin(q * x) * v.assign_add(np.full(3, 0.1))  # noqa: E731
                return (gc.cond(gc.equal(k % 2, 0), assigned, lambda: gc.tanh(q) * x),)

            even = gc.equal(j % 2, 0)
            return (gc.cond(even, lambda: loop(i + j, inner, z)[0], lambda: z * x),)

        z = loop(i + 2, middle, y)[0]
        last = lambda k, q: (gc.sin(q) * v.assign(v * 0.9) * x,)  # noqa: E731
        return (gc.cond(i > 0, lambda: loop(2, last, z)[0], lambda: z * 1.1),)

    return ts(loop(n, outer, x)[0])


@kept
def read_in_the_turn_in_which_it_is_assigned(x, n, v, calls):
    def outer(i, y):
        def inner(j, z):
            with gc.control_dependencies([v.assign(v * 1.1)]):
                return (gc.sin(z * x) * v.read_value(),)

        return loop(i + 1, inner, y)

    return ts(loop(n, outer, x)[0])


@kept
def called_in_an_inner_loop(x, n, v, calls):
    def count(a):
        calls.append(a)
        return a * 0 + np.sin(len(calls))

    def outer(i, y):
        def inner(j, z):
            seen = gc.py_func(count, [z], F)
            seen.set_shape([3])
            return (gc.sin(z * x) * seen,)

        return loop(i + 1, inner, y)

    return ts(loop(n, outer, x)[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", KEPT)
def test_what_happens_once_is_kept_of_every_turn(name, mode, monkeypatch):
    """Nothing is assigned or called a second time: loops hand out what was given."""
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    x, n, calls = gc.placeholder(F, [3]), gc.placeholder(gc.int32, []), []
    v = gc.Variable(np.ones(3), dtype=F)
    y = KEPT[name](x, n, v, calls)
    first = gc.gradients(y, x)[0]
    weighted = ts(first * WEIGHTS)
    second = gc.gradients(weighted, x)[0]
    with gc.Session(mode=mode) as session:

        def run(fetch, at, turns):
            session.run(v.initializer)
            del calls[:]
            return session.run(fetch, {x: at, n: turns})

        for turns in (0, 3, 2):
            run(y, POINT, turns)
            called, left = len(calls), session.run(v)
            found = run([first, second], POINT, turns)
            assert len(calls) == called
            np.testing.assert_array_equal(session.run(v), left)
            if mode == "static" or turns == 2:
                wanted = slopes(lambda p: run([y, weighted], p, turns))  # noqa: B023
                np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5, atol=1e-8)
                np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4, atol=1e-7)


def test_an_assigned_value_of_a_condition_that_the_gradient_needs_is_refused():
    x = gc.constant([1.0, 2.0])
    v = gc.Variable(0.0)

    def outer(i, y):
        few = lambda z: v.assign_add(1.0) < 3.0  # noqa: E731
        return (gc.while_loop(few, lambda z: gc.sin(z) * v.read_value(), [y]),)

    y = loop(2, outer, x)[0]
    with pytest.raises(ValueError, match="in the condition of a nested loop") as e:
        gc.gradients(y, x)
    assert "AssignAdd" in str(e.value)
    assert __file__ in str(e.value)


def test_a_variable_read_in_a_condition_is_to_be_read_in_the_body():
    x = gc.constant([1.0, 2.0])
    v = gc.Variable(0.0)

    def outer(i, y):
        with gc.control_dependencies([v.assign_add(1.0)]):
            few = lambda j, z: gc.cast(j, gc.float32) < v.read_value()  # noqa: E731
            return (gc.while_loop(few, lambda j, z: (j + 1, gc.sin(z)), [0, y])[1],)

    y = loop(2, outer, x)[0]
    with pytest.raises(ValueError, match="read it in the body") as e:
        gc.gradients(y, x)
    assert __file__ in str(e.value)


@pytest.mark.parametrize("down", [1, 2])
def test_a_called_value_of_no_known_shape_in_loops_is_refused(down):
    x = gc.constant([1.0, 2.0])

    def step(i, y):
        seen = gc.py_func(lambda a: a, [y], gc.float32)
        seen.set_shape([None])
        return (gc.sin(y) * seen,)

    inner = step if down == 1 else lambda j, b: loop(2, step, b)
    y = loop(2, lambda i, a: loop(2, inner, a), x)[0]
    with pytest.raises(ValueError, match="state the shape by set_shape") as e:
        gc.gradients(y, x)
    assert "PyFunc" in str(e.value)
    assert __file__ in str(e.value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("nested", [False, True])
def test_what_an_effect_in_a_branch_gives_is_kept(mode, nested):
    """The gradient takes the value from the turn: nothing is assigned or called a second time."""
    x = gc.placeholder(F, [3])
    v = gc.Variable(np.ones(3), dtype=F)
    calls = []

    def tripled(a):
        calls.append(a)
        return 3.0 * a

    def step(i, y):
        def even():
            seen = gc.py_func(tripled, [v.assign_add(np.full(3, 0.5))], F)
            seen.set_shape([3])
            return gc.sin(y) * seen * x

        inner = lambda: gc.cond(gc.equal(i % 2, 0), even, lambda: gc.tanh(y))  # noqa: E731
        return (gc.cond(i < 4, inner, lambda: y * x) if nested else inner(),)

    y = ts(loop(6, step, x)[0])
    grad = gc.gradients(y, x)[0]
    with gc.Session(mode=mode) as session:

        def run(fetch, at):
            session.run(v.initializer)
            del calls[:]
            return session.run(fetch, {x: at})

        found = run(grad, POINT)
        turns = 2 if nested else 3
        assert len(calls) == turns
        np.testing.assert_array_equal(session.run(v), np.full(3, 1.0 + 0.5 * turns))
        wanted = slopes(lambda p: [run(y, p)])
        np.testing.assert_allclose(found, wanted[0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("nested", [False, True])
def test_a_variable_that_the_loop_assigns_is_not_read_afterwards(nested):
    """The value after the loop is not the one that a turn has seen."""
    x = gc.constant(0.7, F)
    v = gc.Variable(2.0, dtype=F)

    def step(i, y):
        with gc.control_dependencies([v.assign(v * 1.5)]):
            if nested:
                return (gc.cond(y > -9.0, lambda: gc.sin(y) * v, lambda: y),)
            return (gc.sin(y) * v,)

    y = loop(3, step, x)[0]
    with pytest.raises(ValueError, match=r"the value that the variable 'Variable' had"):
        gc.gradients(y, x)


@pytest.mark.parametrize("mode", MODES)
def test_a_value_read_in_the_loop_is_the_one_of_the_turn(mode):
    x = gc.placeholder(F, [])
    v = gc.Variable(2.0, dtype=F)

    def step(i, y):
        with gc.control_dependencies([v.assign(v * 1.5)]):
            return (gc.sin(y) * v.read_value() * x,)

    y = loop(3, step, x)[0]
    grad = gc.gradients(y, x)[0]
    with gc.Session(mode=mode) as session:

        def run(fetch, at):
            session.run(v.initializer)
            return session.run(fetch, {x: at})

        found = (run(y, 0.7 + 1e-6) - run(y, 0.7 - 1e-6)) / 2e-6
        np.testing.assert_allclose(run(grad, 0.7), found, rtol=1e-6)


# --- files ----------------------------------------------------------------------------------------


def test_saved_and_loaded(tmp_path):
    x, n = gc.placeholder(F, [None], name="x"), gc.placeholder(gc.int32, [], name="n")
    free = [gc.TensorShape([]), gc.TensorShape([None])]

    def longer(i, y):
        y = loop(2, lambda j, z: (gc.tanh(z * gc.random_uniform([], seed=5, dtype=F)),), y)[0]
        return i + 1, gc.concat([y * ts(y), y[:1]], 0)

    y = gc.while_loop(lambda i, y: i < n, longer, [0, x], shape_invariants=free)[1]
    first = gc.gradients(ts(y), x)[0]
    second = gc.gradients(ts(first * first), x)[0]
    feeds = {"x": POINT, "n": 3}
    with gc.Session() as session:
        wanted = session.run([first, second], {x: POINT, n: 3})
        outputs = {"a": first, "b": second}
        save(tmp_path / "m.graphc", session, {"x": x, "n": n}, outputs)
    found = load(tmp_path / "m.graphc").run(**feeds)
    np.testing.assert_allclose(found["a"], wanted[0], rtol=1e-12)
    np.testing.assert_allclose(found["b"], wanted[1], rtol=1e-12)
