"""Arrays that change places in loops and branches, below the loop that is differentiated."""

from __future__ import annotations

import pytest

import graphc as gc
from tests.control.loops import POINT, WEIGHTS, F, check_bytes_are_linear, check_slope, loop

CASES, DEEP = {}, set()
ts = gc.reduce_sum


def case(fn):
    CASES[fn.__name__] = fn
    return fn


def deep(fn):
    """A case whose second derivatives take long to compile."""
    DEEP.add(fn.__name__)
    return case(fn)


def arrays(x, n, count=2):
    return [gc.TensorArray(F, size=n + 4).write(0, x * (k + 1)) for k in range(count)]


def total(*values):
    return gc.add_n([ts(gc.sin(v if isinstance(v, gc.Tensor) else v.stack())) for v in values])


def around(x, n, start, inner, after=lambda i, *v: v):
    """An outer loop over ``inner(i, arrays, s)``, which gives the arrays after an inner loop."""

    def step(i, *values):
        *found, s = values
        found = inner(i, found, s)
        reads = gc.add_n([a.read(i) * (k + 1.0) for k, a in enumerate(found)])
        return (*after(i, *found), gc.sin(s + reads))

    return total(*loop(n, step, *start, x))


@case
def in_an_inner_loop(x, n):
    def inner(i, found, s):
        def turn(j, a, b):
            return b.write(i + 1, s), a.write(i, gc.sin(a.read(i) * s) + gc.cast(j, F))

        return loop(3, turn, *found)

    return around(x, n, arrays(x, n), inner)


@deep
def so_many_times_as_the_turn_says(x, n):
    def inner(i, found, s):
        return loop(
            i % 3, lambda j, a, b: (b.write(j, gc.sin(b.read(i) + s)), a.write(i + 1, s)), *found
        )

    return around(x, n, arrays(x, n), inner)


@deep
def in_both_loops(x, n):
    def inner(i, found, s):
        return loop(i, lambda j, a, b: (b, a.write(j, gc.sin(b.read(i) * s))), *found)

    return around(x, n, arrays(x, n), inner, after=lambda i, a, b: (b.write(i + 1, x), a))


@deep
def three_in_a_circle(x, n):
    def inner(i, found, s):
        return loop(
            i + 1, lambda j, a, b, c: (c.write(j, a.read(i) * s), a, b.write(i + 1, s)), *found
        )

    return around(x, n, arrays(x, n, 3), inner)


@deep
def two_pairs_and_one_alone(x, n):
    def inner(i, found, s):
        def turn(j, a, b, c, d, e):
            return b, a.write(i, s), d.write(j, gc.sin(a.read(i))), c, e.write(i + 1, c.read(0))

        return loop(2, turn, *found)

    return around(x, n, arrays(x, n, 5), inner)


@case
def exchanged_and_written_elsewhere(x, n):
    def inner(i, found, s):
        a, b = loop(i % 2 + 1, lambda j, a, b: (b, a), *found)
        return a.write(i + 1, s), b.write(i, gc.sin(a.read(i) + s))

    return around(x, n, arrays(x, n), inner)


@case
def by_a_branch(x, n):
    def inner(i, found, s):
        a, b = found
        a, b = gc.cond(
            gc.equal(i % 3, 1), lambda: (b, a.write(i + 1, s)), lambda: (a.write(i, x), b)
        )
        return a, b.write(i + 1, gc.sin(a.read(i) * s))

    return around(x, n, arrays(x, n), inner)


@case
def by_a_branch_that_the_values_choose(x, n):
    def inner(i, found, s):
        a, b = found
        return gc.cond(
            ts(s + a.read(i)) > 0.4,
            lambda: (b.write(i + 1, s), a),
            lambda: (a.write(i + 1, s), b.write(i + 1, gc.sin(s))),
        )

    return around(x, n, arrays(x, n), inner)


@case
def by_a_branch_in_an_inner_loop(x, n):
    def inner(i, found, s):
        def turn(j, a, b):
            even = gc.equal((i + j) % 2, 0)
            return gc.cond(
                even, lambda: (b, a.write(j, gc.sin(b.read(i) + s))), lambda: (a.write(i, s), b)
            )

        return loop(i + 1, turn, *found)

    return around(x, n, arrays(x, n), inner)


@case
def by_a_loop_in_a_branch(x, n):
    def inner(i, found, s):
        a, b = found
        return gc.cond(
            gc.equal(i % 2, 1),
            lambda: loop(
                i, lambda j, a, b: (b, a.write(j, gc.sin(a.read(i) * s))), a.write(i, s), b
            ),
            lambda: (a.write(i + 1, s), b),
        )

    return around(x, n, arrays(x, n), inner)


def two_loops_down(turn):
    def f(x, n):
        def inner(i, found, s):
            def middle(j, *found):
                return loop(j + 1, lambda k, *v: turn(i, j, k, s, *v), *found)

            return loop(i + 1, middle, *found)

        return around(x, n, arrays(x, n), inner)

    return f


@deep
def two_loops_down_at_every_turn(x, n):
    def turn(i, j, k, s, a, b):
        return b.write(k, gc.sin(a.read(i) + s)), a.write(i + 1, s)

    return two_loops_down(turn)(x, n)


@deep
def two_loops_down_by_a_branch(x, n):
    def turn(i, j, k, s, a, b):
        return gc.cond(
            gc.equal((j + k) % 2, 0),
            lambda: (b, a.write(k, gc.sin(b.read(i) + s))),
            lambda: (a.write(j, gc.sin(a.read(i) * s)), b),
        )

    return two_loops_down(turn)(x, n)


@deep
def exchanged_around_a_loop_that_writes(x, n):
    def inner(i, found, s):
        def middle(j, a, b):
            a = loop(j, lambda k, c: (c.write(k, gc.sin(c.read(i) + s)),), a)[0]
            return b, a

        return loop(i + 1, middle, *found)

    return around(x, n, arrays(x, n), inner)


@deep
def a_branch_of_a_loop_in_a_loop_that_writes_in_one(x, n):
    def inner(i, found, s):
        def middle(j, a, b):
            def writes():
                return b, loop(j + 1, lambda k, c: (c.write(k, gc.sin(c.read(i) + s)),), a)[0]

            return gc.cond(gc.equal((i + j) % 3, 0), writes, lambda: (a.write(i, s), b))

        return loop(i + 1, middle, *found)

    return around(x, n, arrays(x, n), inner)


@case
def one_is_left_behind(x, n):
    """Only one of the two comes back to the outer loop."""

    def inner(i, found, s):
        b = gc.TensorArray(F, size=n + 4).write(i, s)
        a, _ = loop(2, lambda j, a, b: (b.write(i + 1, s), a.write(i, x)), found[0], b)
        return (a.write(0, x),)

    return around(x, n, arrays(x, n, 1), inner)


@case
def one_array_begins_both(x, n):
    def inner(i, found, s):
        a = found[0].write(i, gc.sin(s))
        return loop(i, lambda j, a, b: (b.write(i + 1, s), a.write(j, x)), a, a)

    return around(x, n, arrays(x, n), inner)


@case
def growing(x, n):
    start = [gc.TensorArray(F, size=1, dynamic_size=True).write(0, x * k) for k in (1, 2)]

    def inner(i, found, s):
        def turn(j, a, b):
            return b.write(i + 1, gc.sin(a.read(0) * s)), a.write(i, s)

        a, b = loop(2, turn, *found)
        return a.write(i + 1, s), b.write(i + 2, x)

    return around(x, n, start, inner)


@deep
def growing_two_loops_down(x, n):
    start = [gc.TensorArray(F, size=1, dynamic_size=True).write(0, x * k) for k in (1, 2)]

    def inner(i, found, s):
        def middle(j, a, b):
            return loop(
                j + 1, lambda k, a, b: (b.write(i + k, gc.sin(a.read(0) * s)), a.write(i, s)), a, b
            )

        a, b = loop(i + 1, middle, *found)
        return a.write(i + 1, s), b.write(i + 2, x)

    return around(x, n, start, inner)


@case
def replaced_by_what_no_turn_of_the_inner_loop_changes(x, n):
    """The inner loop writes to the other array, at a place that it carries unchanged."""

    def grown(scale):
        start = gc.TensorArray(F, size=3, dynamic_size=True)
        return start.unstack(gc.stack([gc.sin(scale * x)] * 3))

    def step(i, k, a, b):
        def inner(j, k, c):
            return k, b.write(k, b.read(0) * 0.5 + ts(x))

        k, a = loop(k % 3, inner, k, a)
        a, b = gc.cond(gc.equal(i % 3, 0), lambda: (a, b), lambda: (a, a))
        return k, a, b

    _, a, b = loop(n, step, gc.constant(1), grown(1.0), grown(2.0))
    return total(a, b)


@deep
def scalars_in_a_loop_that_exchanges_arrays(x, n):
    def step(i, a, b, s, p, q):
        a, b, p, q = loop(
            i + 1,
            lambda j, a, b, p, q: (b.write(j, p), a.write(i, gc.sin(s)), q, p * 0.5),
            a, b, p, q,
        )  # fmt: skip
        return a, b, gc.sin(s + a.read(i)), p, q

    return total(*loop(n, step, *arrays(x, n), x, x, x * 2.0))


@pytest.fixture
def inputs():
    return gc.placeholder(F, [3]), gc.placeholder(gc.int32, [])


# Each case by one of two tests; by both if `slow`.
@pytest.mark.parametrize(
    "name", [pytest.param(c, marks=[] if c in DEEP else [pytest.mark.slow]) for c in CASES]
)
def test_first_derivatives(name, inputs, everywhere):
    x, n = inputs
    y = CASES[name](x, n)
    grad = gc.gradients(y, x)[0]
    everywhere([y, grad], {x: POINT, n: 3}, rtol=1e-8)
    with gc.Session() as session:
        for turns in (0, 4, 1):
            check_slope(session, y, grad, x, {n: turns})


@pytest.mark.parametrize(
    "name", [pytest.param(c, marks=[pytest.mark.slow] if c in DEEP else []) for c in CASES]
)
def test_second_derivatives(name, inputs, monkeypatch):
    monkeypatch.delenv("GRAPHC_VERIFY")
    x, n = inputs
    first = gc.gradients(CASES[name](x, n), x)[0]
    weighted = ts(first * WEIGHTS)
    second = gc.gradients(weighted, x)[0]
    with gc.Session() as session:
        for turns in (0, 4, 1):
            check_slope(session, weighted, second, x, {n: turns}, rtol=1e-4)


# --- memory ---------------------------------------------------------------------------------------


def one_loop(i, s, a, b):
    return loop(2, lambda j, a, b: (b.write(i + 1, s), a.write(i, gc.sin(a.read(i) * s))), a, b)


def two_loops(i, s, a, b):
    return loop(2, lambda j, a, b: loop(
        2, lambda k, a, b: (b.write(i + 1, s), a.write(i, gc.sin(a.read(i) * s))), a, b
    ), a, b)  # fmt: skip


def branch(i, s, a, b):
    return gc.cond(gc.equal(i % 3, 0), lambda: (b, a.write(i, s)), lambda: (a.write(i, s), b))


@pytest.mark.parametrize("grows", [False, True], ids=["fixed", "grows"])
@pytest.mark.parametrize("exchange", [one_loop, two_loops, branch])
def test_four_times_the_turns_keep_four_times_the_bytes(exchange, grows):
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])
    size = 1 if grows else n + 2
    start = [gc.TensorArray(F, size=size, dynamic_size=grows).write(0, x * k) for k in (1, 2)]

    def step(i, a, b, s):
        a, b = exchange(i, s, a, b)
        return a.write(i + 1, s), b.write(i + 1, s), gc.sin(s + a.read(i))

    a, b, s = loop(n, step, *start, x)
    grad = gc.gradients(ts(gc.sin(a.stack())) + ts(gc.sin(b.stack())) + ts(s), x)[0]
    check_bytes_are_linear(grad, x, n)
