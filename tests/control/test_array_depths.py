"""Arrays that loops in loops write, below the loop that is differentiated."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from tests.control.loops import POINT, WEIGHTS, F, check_bytes_are_linear, differences, loop

CASES, LONG = {}, set()
ts = gc.reduce_sum


def case(fn):
    CASES[fn.__name__] = fn
    return fn


def long(fn):
    """A case that takes long to compile."""
    LONG.add(fn.__name__)
    return case(fn)


def fixed(x, n):
    """An array whose elements tell their shape when they are written, or stated."""
    return gc.TensorArray(F, size=n + 2).write(0, x)


def below(x, n, start, inner, first=None, last=None):
    """``inner`` is in a loop, in a loop; so many turns as the numbers of those around."""

    def step(i, a, s):
        def middle(j, b):
            b = b if first is None else first(i, j, b)
            b = loop(j + 1, lambda k, c: inner(i, j, k, c, s), b)[0]
            return (b if last is None else last(i, j, b),)

        a = loop(i + 1, middle, a)[0]
        return a, gc.sin(s + a.read(i % (n + 1)))

    a, s = loop(n, step, start, x)
    return ts(gc.sin(a.stack())) + ts(gc.sin(s))


@case
def written_two_loops_down(x, n):
    def inner(i, j, k, c, s):
        return (c.write((i + j * 2 + k) % (n + 1), gc.sin(c.read((i + k) % (n + 1)) + s)),)

    return below(x, n, fixed(x, n), inner)


@long
def before_and_after_and_twice(x, n):
    """A turn replaces rows in an order in which they must not be put back."""

    def inner(i, j, k, c, s):
        at = (i + j * 2 + k) % (n + 1)
        c = c.write(at, gc.sin(c.read((i + k) % (n + 1)) + s))
        return (c.write((at + 1) % (n + 1), c.read(at) * c.read((at + 1) % (n + 1))),)

    def first(i, j, b):
        return b.write((i + j) % (n + 1), gc.sin(b.read(j % (n + 1))))

    def last(i, j, b):
        return b.write(0, b.read((i + j) % (n + 1)) * 1.1)

    return below(x, n, fixed(x, n), inner, first, last)


@long
def a_loop_in_a_branch_too(x, n):
    def inner(i, j, k, c, s):
        return (c.write((i + j + k) % (n + 1), gc.sin(c.read(i % (n + 1)) * s)),)

    def last(i, j, b):
        def cosines():
            step = lambda k, c: (c.write(k, gc.cos(c.read(k))),)  # noqa: E731
            return loop(gc.minimum(i, n), step, b)[0]

        return gc.cond(gc.equal(j % 2, 0), lambda: b, cosines)

    return below(x, n, fixed(x, n), inner, last=last)


@case
def an_array_that_grows(x, n):
    start = gc.TensorArray(F, size=1, dynamic_size=True, element_shape=[3]).write(0, x)

    def inner(i, j, k, c, s):
        at = i + j + k
        return (c.write(at, gc.sin(c.read(gc.maximum(at - 1, 0)) + s)),)

    return below(x, n, start, inner)


@long
def scalars_three_loops_down(x, n):
    def inner(i, j, k, c, s):
        def last(m, d):
            at = (i + j * 2 + k + m) % (n + 1)
            return (d.write(at, gc.sin(d.read((i + k) % (n + 1)) + ts(s))),)

        return loop(k + 1, last, c)

    return below(x, n, gc.TensorArray(F, size=n + 2).write(0, ts(x)), inner)


@case
def nothing_is_in_an_element(x, n):
    def inner(i, j, k, c, s):
        return (c.write(k % (n + 1), c.read(0) + 1.0),)

    def step(i, a, s):
        a = loop(2, lambda j, b: loop(j + 1, lambda k, c: inner(i, j, k, c, s), b), a)[0]
        return a, gc.sin(s + ts(a.read(0)))

    a, s = loop(n, step, gc.TensorArray(F, size=n + 2).write(0, x[:0]), x)
    return ts(a.stack()) + ts(s)


@pytest.mark.parametrize(
    "name", [pytest.param(c, marks=[pytest.mark.slow] if c in LONG else []) for c in CASES]
)
def test_derivatives(name, everywhere, monkeypatch):
    x, n = gc.placeholder(F, [3]), gc.placeholder(gc.int32, [])
    y = CASES[name](x, n)
    first = gc.gradients(y, x)[0]
    second = gc.gradients(ts(first * WEIGHTS), x)[0]
    everywhere([y, first], {x: POINT, n: 2}, rtol=1e-8)
    # The verifiers have seen the loops; second derivatives are long.
    monkeypatch.delenv("GRAPHC_VERIFY")
    with gc.Session() as session:
        for turns in (0, 3):
            found = session.run([y, first, second], {x: POINT, n: turns})
            wanted = differences(lambda p: session.run([y, first], {x: p, n: turns}), POINT)  # noqa: B023
            np.testing.assert_allclose(found[1], wanted[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found[2], wanted[1], rtol=1e-4, atol=1e-5)


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("grows", [False, True], ids=["fixed", "grows"])
def test_four_times_the_turns_keep_four_times_the_bytes(grows):
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])

    def step(i, a, s):
        def inner(k, c):
            return (c.write(i + k, gc.sin(c.read(i) + s)),)

        a = loop(2, lambda j, b: loop(j + 1, inner, b), a)[0]
        return a, gc.sin(s + a.read(i))

    start = gc.TensorArray(F, size=1 if grows else n + 2, dynamic_size=grows).write(0, x)
    a, s = loop(n, step, start, x)
    grad = gc.gradients(ts(gc.sin(a.stack())) + ts(s), x)[0]
    check_bytes_are_linear(grad, x, n)
