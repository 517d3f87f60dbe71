"""Arrays that several loop variables, branches and inner loops have at once: values, gradients."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from tests.control.loops import POINT, WEIGHTS, F, check_bytes_are_linear, differences, loop

CASES = {}
ts = gc.reduce_sum


def case(fn):
    CASES[fn.__name__] = fn
    return fn


def growing(x):
    return gc.TensorArray(F, size=3, dynamic_size=True).unstack(gc.stack([x, x * x, gc.sin(x)]))


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name, everywhere):
    x, n = gc.placeholder(F, [3]), gc.placeholder(gc.int32, [])
    y = CASES[name](x, n)
    first = gc.gradients(y, x)[0]
    second = gc.gradients(ts(first * WEIGHTS), x)[0]
    with gc.Session() as session:
        for turns in (0, 5, 2):
            found = everywhere([y, first, second], {x: POINT, n: turns}, rtol=1e-9)
            wanted = differences(lambda p: session.run([y, first], {x: p, n: turns}), POINT)  # noqa: B023
            np.testing.assert_allclose(found[1], wanted[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found[2], wanted[1], rtol=1e-4, atol=1e-5)


@case
def one_array_for_two_variables(x, n):
    def step(i, a, b, s):
        a = a.write(i, gc.sin(s * b.read(1)))
        return a, a, gc.sin(s + a.read(0))

    a, b, s = loop(n, step, growing(x), growing(2 * x), x)
    return ts(gc.sin(a.stack())) + ts(gc.sin(2 * b.stack())) + ts(s)


@case
def an_inner_loop_changes_a_copy(x, n):
    def step(i, a, b, s):
        b = a.write(i, gc.sin(s * b.read(1)))
        inner = lambda j, d: (d.write(j, gc.sin(d.read(j) * b.read(0))),)  # noqa: E731
        a = loop(2, inner, b)[0]
        return a, b, gc.sin(s + a.read(0))

    a, b, s = loop(n, step, growing(x), growing(2 * x), x)
    return ts(gc.sin(a.stack())) + ts(gc.sin(2 * b.stack())) + ts(gc.sin(s))


@case
def handed_through_an_inner_loop(x, n):
    def step(i, a, b):
        a = a.write(i, x)
        inner = lambda _, c, d: (c, gc.sin(d * gc.reduce_mean(c.stack(), 0)))  # noqa: E731
        return loop(2, inner, a, b)

    a, b = loop(n, step, growing(x), x)
    return ts(gc.sin(a.stack())) + ts(gc.sin(2 * b))


@case
def rows_that_an_inner_loop_in_a_branch_reads(x, n):
    c = gc.TensorArray(F, size=3).unstack(gc.stack([x, x * x, gc.sin(x)]))

    def step(i, s):
        inner = lambda _, t: (gc.sin(t + c.read(i % 3)),)  # noqa: E731
        odd = lambda: loop(2, inner, s)[0] + c.read(0)  # noqa: E731
        return (gc.cond(gc.equal(i % 2, 0), lambda: s, odd),)

    return ts(gc.sin(loop(n, step, x)[0]))


@case
def branches_that_hand_on(x, n):
    """What the inner ones give, and no branch reads, is nobody's operand any more."""

    def step(i, s, a):
        def positive():
            b = gc.cond(ts(s) > 0, lambda: (s, a), lambda: (s, a))
            return gc.cond(gc.equal(i % 2, 0), lambda: tuple(b), lambda: tuple(b))

        return gc.cond(ts(s) > 0, positive, lambda: (s, a))

    s, a = loop(n, step, x, gc.TensorArray(F, size=7).write(0, x))
    return ts(gc.sin(a.stack())) + ts(gc.sin(2 * s))


@case
def places_change_among_arrays_of_their_own_sizes(x, n):
    def step(i, a, b, s):
        a = a.write(i // 2, gc.sin(s))
        return b, a, gc.sin(s) + gc.reduce_mean(b.stack(), 0) * 0.2

    start = [gc.TensorArray(F, size=n + 4).write(0, x * k) for k in (1.0, 2.0)]
    a, b, s = loop(n, step, *start, x)
    return ts(gc.sin(a.stack())) + ts(gc.sin(2 * b.stack())) + ts(s)


@case
def rows_of_a_sum(x, n):
    """The gradient of the sum is that of both its terms: a loop may not add to it for one."""
    return ts(loop(n, lambda i, z: (ts(gc.map_fn(gc.sin, z + x)) * z * 0.3,), x)[0])


@case
def rows_of_a_sum_and_what_is_computed_of_it(x, n):
    def step(i, z):
        rows = gc.TensorArray(F, size=3).unstack(z + gc.sin(x))
        total = loop(3, lambda k, s: (s + gc.sin(rows.read(k)),), gc.constant(0.0, F))[0]
        return (gc.cond(gc.equal(i % 2, 0), lambda: total * z * 0.5, lambda: total - z),)

    return ts(loop(n, step, x)[0])


# --- values ---------------------------------------------------------------------------------------


def row(i):
    return gc.cast(i + 1, F) * gc.ones([2], F)


def new(size):
    return gc.TensorArray(F, size=size, dynamic_size=True, element_shape=[2])


def twice(i, a, b):
    return (a.write(i, row(i)),) * 2


def after_and_before(i, a, b):
    return a.write(i, row(i)), a


def read_by_the_loop_that_writes(i, a, b):
    b = a.write(i, row(i))
    return loop(2, lambda j, d: (d.write(j, d.read(j) + b.read(0)),), b)[0], b


def a_later_version_and_this(i, a, b):
    a = a.write(i, row(i))
    return a.write(0, row(i) * 2), a


@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.parametrize(
    "step",
    [twice, after_and_before, read_by_the_loop_that_writes, a_later_version_and_this],
    ids=lambda f: f.__name__,
)
def test_an_array_that_grows_is_copied_as_long_as_it_is(step, size, everywhere):
    n = gc.placeholder(gc.int32, [])
    a, b = loop(n, step, new(size + 2), new(size + 2))
    for turns in (0, 2, 7, 3):
        everywhere([a.stack(), b.stack()], {n: turns}, rtol=1e-12)


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [False, True], ids=["row", "loop"])
def test_a_version_that_is_dropped_is_not_kept(inner):
    """Of what a turn reads of it, the shape is that of any of the arrays."""
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])

    def step(i, a, s):
        b = a.write(0, a.read(0) * s)
        if inner:
            b = loop(2, lambda j, d: (d.write(j, d.read(j) * s),), a)[0]
        return a.write(i, s), gc.sin(s + b.read(0))

    a, s = loop(n, step, gc.TensorArray(F, size=n + 4).write(0, x).write(1, x * x), x)
    grad = gc.gradients(ts(gc.sin(a.stack())) + ts(s), x)[0]
    check_bytes_are_linear(grad, x, n)
