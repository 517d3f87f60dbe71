"""Gradients through loops whose values change their shape from turn to turn; arrays that grow."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from tests.control.loops import differences

F = gc.float64
POINT = np.array([0.3, -0.5, 0.8, 0.1])
FREE = [gc.TensorShape([]), gc.TensorShape([None])]
ROWS = [gc.TensorShape([]), gc.TensorShape([None, 2])]
CASES = {}
ts = gc.reduce_sum


def case(fn):
    CASES[fn.__name__] = fn
    return fn


def loop(n, step, *start, **options):
    return gc.while_loop(
        lambda i, *_: i < n, lambda i, *v: (i + 1, *step(i, *v)), [0, *start], **options
    )[1:]


@pytest.mark.parametrize(
    "known",
    [pytest.param(True, id="static", marks=pytest.mark.slow), pytest.param(False, id="symbolic")],
)
@pytest.mark.parametrize("name", CASES)
def test_first_and_second(name, known, everywhere):
    x = gc.placeholder(F, [4] if known else [None])
    n = gc.placeholder(gc.int32, [])
    y = CASES[name](x, n)
    weights = np.cos(np.arange(4) + 1.0)
    first = gc.gradients(y, x)[0]
    second = gc.gradients(ts(first * weights), x)[0]
    for turns in (3,) if known else (0, 3):
        a, b = everywhere([first, second], {x: POINT, n: turns}, rtol=1e-9)
    with gc.Session() as session:
        wanted = differences(lambda p: session.run([y, first], {x: p, n: 3}), POINT)
        np.testing.assert_allclose(a, wanted[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(b, wanted[1], rtol=1e-4, atol=1e-5)
        session.run([y, first], {x: POINT, n: 0})
        assert session.compilations == 1


# --- shapes that change ---------------------------------------------------------------------------


def longer(y):
    return gc.concat([gc.tanh(y * ts(y)), gc.sin(y[:1])], 0)


@case
def one_longer_every_turn(x, n):
    return ts(loop(n, lambda i, y: (longer(y),), x, shape_invariants=FREE)[0])


@case
def one_shorter_every_turn(x, n):
    start = gc.concat([x, x * 2.0, x * x], 0)
    step = lambda i, y: (gc.tanh(y[1:] * ts(gc.sin(y))),)  # noqa: E731
    return ts(loop(n, step, start, shape_invariants=FREE)[0])


@case
def attention_over_all_rows_so_far(x, n):
    weights = gc.constant([[0.3, -0.4], [0.2, 0.5]], F)

    def step(i, rows, last):
        scores = gc.matmul(gc.matmul(last, weights), rows, transpose_b=True)
        last = gc.tanh(gc.matmul(gc.nn.softmax(scores), rows))
        return gc.concat([rows, last], 0), last

    start = gc.reshape(x, [-1, 2])
    shapes = [*ROWS, gc.TensorShape([1, 2])]
    rows, last = loop(n, step, start, start[:1], shape_invariants=shapes)
    return ts(rows * rows) + ts(last)


@case
def products_of_all_rows(x, n):
    def step(i, y):
        square = gc.matmul(gc.tanh(y), y, transpose_b=True)
        return (gc.concat([gc.sin(y), ts(gc.matmul(square, y), 0, keepdims=True) * 0.1], 0),)

    return ts(loop(n, step, gc.reshape(x, [-1, 2]), shape_invariants=ROWS)[0])


@case
def in_an_inner_loop(x, n):
    def outer(i, y):
        z = loop(i + 1, lambda j, z: (longer(z),), y, shape_invariants=FREE)[0]
        return (y * 0.5 + gc.tanh(ts(z * z)),)

    return ts(loop(n, outer, x)[0])


@case
def in_three_loops(x, n):
    def outer(i, y):
        def middle(j, z):
            w = loop(j + 1, lambda k, q: (longer(q),), z, shape_invariants=FREE)[0]
            return (gc.concat([z, w[:1] * ts(w)], 0),)

        return (gc.tanh(y * ts(loop(2, middle, y, shape_invariants=FREE)[0])),)

    return ts(loop(n, outer, x)[0])


@case
def an_inner_loop_over_what_grows(x, n):
    def outer(i, y):
        z = loop(2, lambda j, z: (gc.tanh(z * ts(y)),), y)[0]
        return (gc.concat([z, y[:1]], 0),)

    return ts(loop(n, outer, x, shape_invariants=FREE)[0])


@case
def in_a_branch_of_the_loop(x, n):
    def step(i, y):
        return (gc.cond(gc.equal(i % 2, 0), lambda: longer(y), lambda: gc.tanh(y * ts(y))),)

    return ts(loop(n, step, x, shape_invariants=FREE)[0])


@case
def in_a_branch_around_the_loop(x, n):
    deep = lambda: ts(loop(n, lambda i, y: (longer(y),), x, shape_invariants=FREE)[0])  # noqa: E731
    return gc.cond(ts(x) > 0.0, deep, lambda: ts(x * x))


@case
def sizes_that_the_data_decides(x, n):
    def step(i, y):
        positive = gc.boolean_mask(y, y > 0.05)
        return (gc.concat([gc.tanh(positive * ts(positive)), x], 0),)

    return ts(loop(n, step, x, shape_invariants=FREE)[0])


# --- arrays that grow -----------------------------------------------------------------------------


def array(*first):
    found = gc.TensorArray(F, size=0, dynamic_size=True)
    for k, row in enumerate(first):
        found = found.write(k, row)
    return found


@case
def rows_read_one_turn_later(x, n):
    def step(i, a, s):
        a = a.write(i, gc.sin(s) * x)
        return a, gc.tanh(a.read(gc.maximum(i - 1, 0)) * s + x)

    a, s = loop(n, step, array(), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def rows_read_and_only_that(x, n):
    def step(i, a, s):
        a = a.write(i, gc.sin(s) * x)
        return a, gc.tanh(a.read(i // 2) * s + x)

    return ts(loop(n, step, array(), x)[1])


@case
def rows_written_twice(x, n):
    def step(i, a, s):
        b = a.write(i + 1, gc.sin(s) * x)
        s = gc.tanh(b.read(i + 1) * a.read(i) + a.read(0))
        return b.write(i, s), s

    a, s = loop(n, step, array(x * x), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def rows_read_in_a_branch(x, n):
    def step(i, a, s):
        a = a.write(i, gc.sin(s) * x)
        read = lambda: gc.tanh(a.read(i // 2) * s)  # noqa: E731
        return a, gc.cond(gc.equal(i % 2, 0), read, lambda: s * 0.5 + x)

    a, s = loop(n, step, array(), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def rows_written_in_a_branch(x, n):
    def step(i, a, s):
        even = gc.equal(i % 2, 0)
        a = gc.cond(even, lambda: a.write(i + 1, gc.tanh(s)), lambda: a)
        return a, gc.sin(s) + a.read(0) * x

    a, s = loop(n, step, array(x * x), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def rows_read_by_an_inner_loop(x, n):
    def step(i, a, s):
        a = a.write(i, gc.sin(s) * x)
        return a, loop(i + 1, lambda j, t: (gc.tanh(t + a.read(j)),), s)[0]

    a, s = loop(n, step, array(), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def rows_written_by_an_inner_loop(x, n):
    def step(i, a, s):
        def inner(j, a, s):
            return a.write(2 * i + j, gc.sin(s) * x), gc.tanh(s + a.read(i))

        return tuple(loop(2, inner, a, s))

    a, s = loop(n, step, array(x * x), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def an_array_that_stays_inside(x, n):
    def step(i, a, s):
        b = gc.TensorArray(F, size=0, dynamic_size=True).unstack(gc.tanh(gc.stack([x, s])))
        b = b.write(3, s * x)
        return a.write(i + 1, gc.sin(s) * b.read(1) + b.read(3)), gc.tanh(s + a.read(i))

    start = gc.TensorArray(F, size=0, dynamic_size=True).unstack(gc.reshape(gc.sin(x), [1, -1]))
    a, s = loop(n, step, start, x)
    return ts(s) + ts(gc.square(a.stack()))


# --- against the same without a loop --------------------------------------------------------------


def test_it_equals_the_unrolled_graph(everywhere):
    x = gc.constant(POINT)
    turned = loop(3, lambda i, y: (longer(y),), x, shape_invariants=FREE)[0]
    unrolled = longer(longer(longer(x)))
    grads = []
    for y in (turned, unrolled):
        first = gc.gradients(ts(gc.square(y)), x)[0]
        grads.append([first, gc.gradients(ts(gc.sin(first)), x)[0]])
    found = everywhere(grads, rtol=1e-9)
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


# --- memory ---------------------------------------------------------------------------------------


def kept(session) -> int:
    """The bytes that grow with the number of turns."""
    found = [e for plan in session._plans.values() for e in plan.executables.values()]
    return sum(sum(e.context.cells[1::2]) for e in found)


def test_ragged_values_take_as_much_as_all_turns_together():
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])
    y = loop(n, lambda i, y: (gc.concat([gc.tanh(y), y[:1]], 0),), x, shape_invariants=FREE)[0]
    grad = gc.gradients(ts(y), x)[0]
    with gc.Session() as session:
        for turns in (100, 1000):
            session.run(grad, {x: np.ones(8), n: turns})
            elements = sum(8 + k for k in range(turns))
            # The loop variable and its tanh, of every turn; what growing leaves free: a half.
            assert 8 * elements <= kept(session) <= 1.5 * 16 * elements + 200 * turns + 4096
        assert session._runner.compilations == 1


def test_rows_that_are_read_take_a_row_a_turn():
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])
    grad = gc.gradients(rows_read_and_only_that(x, n), x)[0]
    row = 8 * 64
    with gc.Session() as session:
        for turns in (100, 400):
            session.run(grad, {x: np.full(64, 0.5), n: turns})
            # The array; s, its sine and tanh, the row; counters; what growing leaves free.
            assert kept(session) <= 1.5 * turns * (6 * row + 100) + 4096


# --- what is refused ------------------------------------------------------------------------------


def test_a_third_derivative_of_a_nested_loop_is_refused():
    """The gradient of an inner loop's ragged value is ragged itself, in every turn of the outer."""
    x, n = gc.placeholder(F, [4]), gc.placeholder(gc.int32, [])
    grad = in_an_inner_loop(x, n)
    for _ in range(3):
        grad = ts(gc.gradients(grad, x)[0])
    with (
        gc.Session() as session,
        pytest.raises(gc.errors.InvalidArgumentError, match="changes from turn to turn") as e,
    ):
        session.run(grad, {x: POINT, n: 2})
    assert __file__ in str(e.value)
