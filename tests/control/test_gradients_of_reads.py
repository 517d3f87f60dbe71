"""What loops and branches read, as it was when they read it; odd uses of arrays."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

F = gc.float64
MODES = ["static", "eager", "reference"]
POINT = np.array([0.3, -0.5, 0.8, 0.1])
WEIGHTS = np.cos(np.arange(4) + 1.0)
ts = gc.reduce_sum
READERS = {}


def reader(fn):
    READERS[fn.__name__] = fn
    return fn


def loop(n, step, *start):
    return gc.while_loop(
        lambda i, *_: i < n, lambda i, *v: (i + 1, *step(i, *v)), [0, *start]
    )[1:]


def slope(f):
    steps = 1e-6 * np.eye(4)
    return np.array([(f(POINT + d) - f(POINT - d)) / 2e-6 for d in steps])


@reader
def a_loop(x, n, v):
    return loop(n, lambda i, s: (gc.sin(s) * v,), x)[0]


@reader
def a_loop_that_assigns(x, n, v):
    return loop(n, lambda i, s: (gc.sin(s) * v.assign_add(np.full(4, 0.25)),), x)[0]


@reader
def a_branch(x, n, v):
    return gc.cond(n > 0, lambda: gc.sin(x * v) * gc.exp(x), lambda: x)


@reader
def a_branch_of_a_loop(x, n, v):
    branch = lambda s: lambda: gc.sin(s * v) + v  # noqa: E731
    return loop(n, lambda i, s: (gc.cond(i < 2, branch(s), lambda: gc.tanh(s)),), x)[0]


@reader
def a_branch_beside_one_that_assigns(x, n, v):
    def step(i, s):
        assigned = lambda: gc.sin(s) * v.assign_add(np.full(4, 0.25))  # noqa: E731
        read = lambda: gc.tanh(s) * v.read_value()  # noqa: E731
        return (gc.cond(gc.equal(i % 2, 0), assigned, read),)

    return loop(n, step, x)[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", READERS)
def test_a_variable_is_assigned_behind_what_has_read_it(name, mode):
    x, n = gc.placeholder(F, [4]), gc.placeholder(gc.int32, [])
    v = gc.Variable(np.full(4, 0.5), dtype=F)
    s = READERS[name](x, n, v)
    with gc.control_dependencies([gc.identity(s)]):
        reset = v.assign(np.full(4, 2.0))
    with gc.control_dependencies([reset]):
        y = ts(gc.sin(gc.identity(s)))
    first = gc.gradients(y, x)[0]
    weighted = ts(first * WEIGHTS)
    second = gc.gradients(weighted, x)[0]
    with gc.Session(mode=mode) as session:

        def run(fetch, point, turns):
            session.run(v.initializer)
            return session.run(fetch, {x: point, n: turns})

        for turns in (0, 1, 3):
            for value, grad in ((y, first), (weighted, second)):
                wanted = slope(lambda p, f=value, k=turns: run(f, p, k))
                np.testing.assert_allclose(run(grad, POINT, turns), wanted, rtol=1e-4, atol=1e-6)


# --- arrays ---------------------------------------------------------------------------------------


def check(y, x, n, everywhere, turns=5):
    """The gradient, in all modes, by differences."""
    first = gc.gradients(y, x)[0]
    (found,) = everywhere([first], {x: POINT, n: turns}, rtol=1e-9)
    with gc.Session() as session:
        wanted = slope(lambda p: session.run(y, {x: p, n: turns}))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


def test_a_number_goes_through_a_branch_in_which_an_array_grows(everywhere):
    x, n = gc.placeholder(F, [4]), gc.placeholder(gc.int32, [])

    def step(i, k, a, s):
        grow = lambda: (k, a.write(i + 1, s))  # noqa: E731
        k, a = gc.cond(i < 3, grow, lambda: (k, a.write(0, s)))
        return k, a, gc.sin(s) * gc.cast(k, F)

    a = gc.TensorArray(F, size=1, dynamic_size=True).write(0, x)
    _, a, s = loop(n, step, gc.constant(2), a, x)
    check(ts(s) + ts(a.stack()), x, n, everywhere)


def test_the_row_comes_from_the_array_that_is_written(everywhere):
    x, n = gc.placeholder(F, [4]), gc.placeholder(gc.int32, [])

    def step(i, a, p, s):
        k = gc.reshape(p.stack(), [])
        return a.write(k, s * a.read(k)), p.write(k - k, (k + 1) % 2), gc.sin(s)

    a = gc.TensorArray(F, size=2).write(0, x).write(1, x * x)
    p = gc.TensorArray(gc.int32, size=1).write(0, 0)
    a, _, s = loop(n, step, a, p, x)
    check(ts(s) + ts(gc.sin(a.stack())), x, n, everywhere)


def test_a_row_is_counted_by_a_view_of_another_array(everywhere):
    x, n = gc.placeholder(F, [4]), gc.placeholder(gc.int32, [])

    def step(i, a, p, s):
        k = gc.reshape(p.stack()[:1], [])
        return a.write(k + i - i, s * a.read(k)), p.write(0, (k + 1) % 2), gc.sin(s)

    a = gc.TensorArray(F, size=n + 3).write(0, x).write(1, x * x)
    p = gc.TensorArray(gc.int32, size=n + 1).write(0, 0)
    a, _, s = loop(n, step, a, p, x)
    y = ts(s) + ts(gc.sin(a.stack()))
    check(y, x, n, everywhere)
    check(ts(gc.gradients(y, x)[0] * WEIGHTS), x, n, everywhere)


def test_an_array_that_could_grow_and_does_not(everywhere):
    x, n = gc.placeholder(F, [4]), gc.placeholder(gc.int32, [])
    rows = gc.stack([x, x * x, x * 2.0])
    a = gc.TensorArray(F, size=3, dynamic_size=True).unstack(rows)
    a, s = loop(n, lambda i, a, s: (a.write(0, s), gc.sin(s) * a.read(0)), a, x)
    check(ts(gc.square(a.stack())) + ts(s), x, n, everywhere)


@pytest.mark.parametrize("mode", MODES)
def test_a_scatter_leaves_what_was_written(mode):
    a = gc.TensorArray(gc.float32, size=4).write(1, 5.0)
    b = a.scatter([0, 2], gc.constant([1.0, 2.0]))
    with gc.Session(mode=mode) as session:
        np.testing.assert_array_equal(session.run(b.stack()), [1.0, 5.0, 2.0, 0.0])
