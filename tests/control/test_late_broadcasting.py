"""Broadcasting of sizes that branches, loops and Python functions decide, and that are 1."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

F = gc.float64
MODES = ["static", "eager", "reference"]
ts = gc.reduce_sum


def slope(f, x, eps=1e-6):
    """The gradient of ``f`` at ``x`` by central differences."""
    found = np.zeros_like(x)
    for k in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[k] = eps
        found[k] = (f(x + step) - f(x - step)) / (2 * eps)
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_branch_gives_one_element_or_all(mode, length):
    p, x = gc.placeholder(gc.bool, []), gc.placeholder(F, [None])
    y = gc.cond(p, lambda: x[:1] * 2.0, lambda: gc.sin(x))
    z = gc.where_v2(y * x > 0.1, y + x, x / (y * y + 1.0)) - y
    first = gc.gradients(z, x)[0]
    second = gc.gradients(ts(first * first), x)[0]
    data = np.linspace(0.3, 0.9, length)
    with gc.Session(mode=mode) as session:
        for flag in (False, True, False, True):
            feeds = {p: flag, x: data}
            found = session.run([z, first, second], feeds)
            b = data[:1] * 2.0 if flag else np.sin(data)
            wanted = np.where(b * data > 0.1, b + data, data / (b * b + 1.0)) - b
            np.testing.assert_allclose(found[0], wanted, rtol=1e-12)
            value = lambda v, f=flag: session.run(z, {p: f, x: v}).sum()  # noqa: E731
            np.testing.assert_allclose(found[1], slope(value, data), rtol=1e-6, atol=1e-8)
            square = lambda v, f=flag: np.square(session.run(first, {p: f, x: v})).sum()  # noqa: E731
            np.testing.assert_allclose(found[2], slope(square, data), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_both_operands_are_stretched(mode):
    p = gc.placeholder(gc.bool, [])
    x, y = gc.placeholder(F, [None, 3]), gc.placeholder(F, [4, None])
    a = gc.cond(p, lambda: x[:1], lambda: x)
    b = gc.cond(p, lambda: y[:, :1], lambda: y)
    product = a * b
    grads = gc.gradients(product * product, [x, y])
    left, right = np.arange(12.0).reshape(4, 3), np.arange(12.0).reshape(4, 3) + 1.0
    with gc.Session(mode=mode) as session:
        for flag in (True, False):
            found = session.run([product, *grads], {p: flag, x: left, y: right})
            m, n = (left[:1], right[:, :1]) if flag else (left, right)
            np.testing.assert_allclose(found[0], m * n)
            dm, dn = 2 * m * n * n * np.ones((4, 3)), 2 * m * m * n * np.ones((4, 3))
            if flag:
                wanted = np.zeros((4, 3)), np.zeros((4, 3))
                wanted[0][:1], wanted[1][:, :1] = dm.sum(0), dn.sum(1, keepdims=True)
            else:
                wanted = dm, dn
            np.testing.assert_allclose(found[1], wanted[0])
            np.testing.assert_allclose(found[2], wanted[1])


@pytest.mark.parametrize("mode", MODES)
def test_a_loop_variable_begins_with_one_element(mode):
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])
    free = [gc.TensorShape([]), gc.TensorShape([None])]
    step = lambda i, y: (i + 1, gc.tanh(y + x))  # noqa: E731
    y = gc.while_loop(lambda i, y: i < n, step, [0, x[:1]], shape_invariants=free)[1]
    data = np.linspace(0.1, 0.5, 3)
    with gc.Session(mode=mode) as session:
        for turns in (0, 1, 3):
            wanted = data[:1]
            for _ in range(turns):
                wanted = np.tanh(wanted + data)
            np.testing.assert_allclose(session.run(y, {x: data, n: turns}), wanted, rtol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_a_python_function_gives_one_element_and_is_called_once(mode):
    calls = []

    def first(a):
        calls.append(a)
        return a[:1]

    x = gc.placeholder(F, [None])
    y = gc.py_func(first, [x], F)
    y.set_shape([None])
    with gc.Session(mode=mode) as session:
        for length in (3, 5, 1):
            data = np.arange(float(length)) + 1.0
            np.testing.assert_array_equal(session.run(x + y, {x: data}), data + 1.0)
        assert len(calls) == 3


def test_one_more_compilation_serves_all_sizes():
    p, x = gc.placeholder(gc.bool, []), gc.placeholder(F, [None])
    y = gc.cond(p, lambda: x[:1], lambda: x) * x
    with gc.Session() as session:
        for length in (3, 4, 5, 6):
            for flag in (True, False):
                session.run(y, {p: flag, x: np.ones(length)})
        assert session.compilations == 2


def test_another_error_of_a_run_that_broadcasts_is_its_own():
    p, x = gc.placeholder(gc.bool, []), gc.placeholder(F, [None])
    k = gc.placeholder(gc.int32, [])
    y = gc.gather(gc.cond(p, lambda: x[:1], lambda: x) * x, k)
    with gc.Session() as session:
        for _ in range(2):
            with pytest.raises(gc.errors.InvalidArgumentError, match="= 7 is not in "):
                session.run(y, {p: True, x: np.ones(3), k: 7})
            assert session.run(y, {p: True, x: np.ones(3), k: 2}) == 1.0
        assert session.compilations == 2


@pytest.mark.parametrize("mode", MODES)
def test_sizes_that_do_not_go_together_are_refused(mode):
    p, x, y = gc.placeholder(gc.bool, []), gc.placeholder(F, [None]), gc.placeholder(F, [None])
    z = gc.cond(p, lambda: x[:2], lambda: x) * y
    with gc.Session(mode=mode) as session:
        for _ in range(2):
            np.testing.assert_array_equal(
                session.run(z, {p: True, x: np.ones(3), y: np.ones(2)}), np.ones(2)
            )
            with pytest.raises(gc.errors.InvalidArgumentError):
                session.run(z, {p: True, x: np.ones(3), y: np.ones(3)})
