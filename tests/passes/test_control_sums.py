"""Products that a loop only adds up are one product behind it."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.program import Call, Loop, walk

F = gc.float64
ts = gc.reduce_sum
RNG = np.random.RandomState(3)
W1, W2 = RNG.randn(24, 40) * 0.2, RNG.randn(40, 24) * 0.2
X = RNG.randn(6, 3, 24)


@pytest.fixture(autouse=True)
def verify_everything(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")


def network(n, batch, w1, w2, x):
    """A loop of two layers of few rows: the loss after ``n`` turns."""

    def step(i, h):
        a = gc.tanh(gc.matmul(h + x[i], w1))
        return i + 1, gc.matmul(a, w2) * 0.5 + h

    h = gc.while_loop(lambda i, h: i < n, step, [0, gc.zeros([batch, 24], F)])[1]
    return ts(h * h)


def unrolled(n, w1, w2, x):
    h = gc.zeros([3, 24], F)
    for i in range(n):
        h = gc.matmul(gc.tanh(gc.matmul(h + x[i], w1)), w2) * 0.5 + h
    return ts(h * h)


def known(y, xs):
    """Gradients, zeros for none."""
    found = gc.gradients(y, xs)
    return [0.0 * x if g is None else g for g, x in zip(found, xs, strict=True)]


def products(session):
    """How many kernels of products are in turns of loops, and how many are elsewhere."""
    inside = outside = 0
    for plan in session._plans.values():
        for e in plan.executables.values():
            steps = e.code.program.steps
            turns = {id(s) for loop in steps if isinstance(loop, Loop) for s in walk(loop.body)}
            for step in walk(steps):
                template = step.lowered._group.template if isinstance(step, Call) else None
                if template is not None and template.type == "MatMul":
                    inside += id(step) in turns
                    outside += id(step) not in turns
    return inside, outside


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
@pytest.mark.parametrize("batch", [3, None])
@pytest.mark.parametrize("turns", [0, 1, 5])
def test_first_and_second_derivatives(mode, batch, turns):
    n = gc.placeholder(gc.int32, [])
    w1, w2, x = (gc.placeholder(F, s) for s in ([24, 40], [40, 24], [6, batch, 24]))
    rows = 3 if batch else gc.shape(x)[1]
    y = network(n, rows, w1, w2, x)
    first = gc.gradients(y, [w1, w2])
    second = gc.gradients(ts(gc.sin(first[0])) + ts(first[1] * first[1]), [w1, w2])
    wanted = known(unrolled(turns, w1, w2, x), [w1, w2])
    again = known(ts(gc.sin(wanted[0])) + ts(wanted[1] * wanted[1]), [w1, w2])
    feeds = {n: turns, w1: W1, w2: W2, x: X}
    with gc.Session(mode=mode) as session:
        a = session.run([*first, *second], feeds)
        b = session.run([*wanted, *again], feeds)
        for found, expected in zip(a, b, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_gradients_of_weights_are_two_products_behind_the_loop():
    n = gc.placeholder(gc.int32, [])
    w1, w2, x = (gc.placeholder(F, s) for s in ([24, 40], [40, 24], [6, 3, 24]))
    grads = gc.gradients(network(n, 3, w1, w2, x), [w1, w2])
    with gc.Session() as session:
        session.run(grads, {n: 4, w1: W1, w2: W2, x: X})
        # Two of the way forward, two gradients of their left operands; one product of each weight.
        assert products(session) == (4, 2)
        assert session.compilations == 1


def test_a_sum_that_a_turn_reads_stays_in_the_loop():
    a = gc.placeholder(F, [3, 24])

    def step(i, total):
        return i + 1, total + gc.matmul(a * gc.reduce_mean(total), a, transpose_a=True)

    y = gc.while_loop(lambda i, t: i < 3, step, [0, gc.ones([24, 24], F)])[1]
    with gc.Session() as session:
        data = X[0]
        wanted = np.ones((24, 24))
        for _ in range(3):
            wanted = wanted + (data * wanted.mean()).T @ data
        np.testing.assert_allclose(session.run(y, {a: data}), wanted, rtol=1e-9)
        assert products(session) == (1, 0)


@pytest.mark.parametrize("rows", [4, 400])
def test_products_of_many_rows_stay_in_the_loop(rows):
    a = gc.placeholder(F, [rows, 24])
    step = lambda i, total: (  # noqa: E731
        i + 1, total + gc.matmul(a * gc.cast(i, F), a, transpose_a=True)
    )  # fmt: skip
    y = gc.while_loop(lambda i, t: i < 3, step, [0, gc.ones([24, 24], F)])[1]
    with gc.Session() as session:
        data = RNG.randn(rows, 24)
        np.testing.assert_allclose(
            session.run(y, {a: data}), 1.0 + 3.0 * data.T @ data, rtol=1e-9
        )
        assert products(session) == ((0, 1) if rows == 4 else (1, 0))


def test_rows_that_change_from_turn_to_turn_stay_in_the_loop():
    x = gc.placeholder(F, [None, 24])

    def step(i, total):
        rows = x[: i + 1]
        return i + 1, total + gc.matmul(rows, rows, transpose_a=True)

    y = gc.while_loop(lambda i, t: i < 3, step, [0, gc.zeros([24, 24], F)])[1]
    with gc.Session() as session:
        data = RNG.randn(5, 24)
        wanted = sum(data[: i + 1].T @ data[: i + 1] for i in range(3))
        np.testing.assert_allclose(session.run(y, {x: data}), wanted, rtol=1e-9)
