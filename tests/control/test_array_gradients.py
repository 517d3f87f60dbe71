"""Gradients of loops that write arrays row by row: what the way back keeps of them."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.program import Copy, Loop, walk
from graphc.program_steps import slots_of
from tests.control.loops import differences

F = gc.float64
POINT = np.array([0.3, -0.5, 0.8, 0.1])
CASES = {}
ts = gc.reduce_sum


def case(fn):
    CASES[fn.__name__] = fn
    return fn


def loop(n, step, *start, **options):
    return gc.while_loop(
        lambda i, *_: i < n, lambda i, *v: (i + 1, *step(i, *v)), [0, *start], **options
    )[1:]


def array(n, grows, dtype=F):
    """An array for so many elements."""
    return gc.TensorArray(dtype, size=0 if grows else n + 1, dynamic_size=grows)


def derivatives(y, x):
    """The gradient, and that of its weighted sum."""
    first = gc.gradients(y, x)[0]
    return first, gc.gradients(ts(first * np.cos(np.arange(4) + 1.0)), x)[0]


WAYS = [(True, True), (False, False), (True, False), (False, True)]


def pytest_generate_tests(metafunc):
    """Every case in one of the first two ways, in turns; in the others if ``slow``."""
    if metafunc.definition.name == "test_first_and_second":
        metafunc.parametrize(("name", "known", "grows"), [
            pytest.param(
                name, known, grows,
                id=f"{name}-{'static' if known else 'symbolic'}-{'grows' if grows else 'fixed'}",
                marks=[pytest.mark.slow] if way != turn % 2 else [],
            )
            for turn, name in enumerate(CASES)
            for way, (known, grows) in enumerate(WAYS)
        ])  # fmt: skip


def test_first_and_second(name, known, grows, everywhere):
    x = gc.placeholder(F, [4] if known else [None])
    n = gc.placeholder(gc.int32, [])
    y = CASES[name](x, n, grows)
    first, second = derivatives(y, x)
    a, b = everywhere([first, second], {x: POINT, n: 5}, rtol=1e-9)
    with gc.Session() as session:
        wanted = differences(lambda p: session.run([y, first], {x: p, n: 5}), POINT)
        np.testing.assert_allclose(a, wanted[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(b, wanted[1], rtol=1e-4, atol=1e-5)
        session.run([y, first], {x: POINT, n: 0})


@case
def read_in_a_branch(x, n, grows):
    def step(i, a, s):
        old = lambda: gc.tanh(a.read(i // 2) * s)  # noqa: E731
        s = gc.cond(gc.equal(i % 2, 0), old, lambda: gc.sin(s) * x)
        return a.write(i + 1, s), s

    a, s = loop(n, step, array(n, grows).write(0, x), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def written_in_both_branches(x, n, grows):
    def step(i, a, s):
        def even():
            b = a.write(i + 1, gc.tanh(s))
            return b.write(i // 2, b.read(i + 1) * x), gc.sin(s)

        odd = lambda: (a.write(i // 2, s * a.read(i - 1)), gc.tanh(s) + x)  # noqa: E731
        return gc.cond(gc.equal(i % 2, 0), even, odd)

    a, s = loop(n, step, array(n, grows).write(0, x), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def written_in_one_of_nested_branches(x, n, grows):
    def step(i, a, s):
        third = lambda: (a.write(i + 1, gc.tanh(s * x)), s)  # noqa: E731
        other = lambda: (a, gc.sin(s) * a.read(0))  # noqa: E731
        inner = lambda: gc.cond(gc.equal(i % 3, 0), third, other)  # noqa: E731
        b, s = gc.cond(i < 4, inner, lambda: (a.write(0, s), gc.tanh(s)))
        return b.write(0, gc.sin(b.read(0)) + s), s

    a, s = loop(n, step, array(n, grows).write(0, x), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def a_stack_machine(x, n, grows):
    """Two values are pushed, then their product: as a program over a stack does it."""

    def step(i, top, a):
        combine = lambda: (  # noqa: E731
            top - 1,
            a.write(top - 2, gc.tanh(a.read(top - 2) * a.read(top - 1))),
        )
        push = lambda: (top + 1, a.write(top, gc.sin(x * gc.cast(i + 1, F))))  # noqa: E731
        again = gc.logical_and(gc.equal(i % 3, 2), top > 1)
        return gc.cond(again, combine, push)

    top, a = loop(n, step, 1, array(n, grows).write(0, x))
    return ts(gc.square(a.read(top - 1))) + ts(a.stack())


@case
def read_by_an_inner_loop(x, n, grows):
    def step(i, a, s):
        s = loop(2, lambda j, t: (gc.tanh(t * a.read(i // (j + 1))),), s)[0]
        return a.write(i + 1, s + x), s

    a, s = loop(n, step, array(n, grows).write(0, x), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def read_as_a_whole(x, n, grows):
    def step(i, a, s):
        mean = lambda: gc.tanh(gc.reduce_mean(a.stack(), 0) * s)  # noqa: E731
        s = gc.cond(gc.equal(i % 2, 0), mean, lambda: gc.sin(s) + x)
        return a.write(i + 1, s), s

    a, s = loop(n, step, array(n, grows).write(0, x), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def numbers_that_say_which_row(x, n, grows):
    def step(i, a, places, s):
        read = lambda: a.read(places.read(i // 2)) * s  # noqa: E731
        s = gc.cond(gc.equal(i % 2, 1), read, lambda: gc.tanh(s) + x)
        return a.write(i + 1, s), places.write(i + 1, i // 2), s

    places = array(n, grows, gc.int32).write(0, 0)
    a, _, s = loop(n, step, array(n, grows).write(0, x), places, x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def written_by_an_inner_loop(x, n, grows):
    def step(i, a, s):
        def inner(j, b, t):
            t = gc.tanh(t * b.read(i // 2) + x)
            return b.write(i + 1, t), t

        a, s = loop(i % 3, inner, a, s)
        return a.write(i + 1, a.read(i // 2) + gc.sin(s)), s

    a, s = loop(n, step, array(n, grows).write(0, x), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def written_by_loops_in_branches(x, n, grows):
    """Their turns have branches of their own, which write two rows or none."""

    def step(i, a, s):
        def inner(j, b, t):
            both = lambda: (b.write(j, gc.tanh(t)).write(i + 1, b.read(j) * x), gc.sin(t))  # noqa: E731
            return gc.cond(gc.equal(j % 2, 0), both, lambda: (b, t * b.read(i)))

        odd = lambda: loop(i, inner, a, s)  # noqa: E731
        a, s = gc.cond(gc.equal(i % 2, 1), lambda: tuple(odd()), lambda: (a.write(i + 1, s), s))
        return a.write(i + 1, gc.sin(a.read(i)) + s), s

    a, s = loop(n, step, array(n, grows).write(0, x), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def sorted_by_insertion(x, n, grows):
    """What an inner loop writes depends on how many turns its data give it."""

    def step(i, a):
        value = gc.sin(x * gc.cast(i * i + 1, F))

        def greater(j, b):
            return gc.logical_and(j > 0, ts(b.read(gc.maximum(j - 1, 0))) > ts(value))

        move = lambda j, b: (j - 1, b.write(j, b.read(j - 1)))  # noqa: E731
        j, a = gc.while_loop(greater, move, [i + 1, a])
        return (a.write(j, gc.tanh(value) * a.read(gc.maximum(j - 1, 0))),)

    a = loop(n, step, array(n, grows).write(0, x))[0]
    weights = gc.cast(gc.range(n + 1), F)[:, None]
    return ts(gc.square(a.stack()) * weights)


@case
def scattered(x, n, grows):
    def step(i, a, s):
        a = a.write(i, s * a.read(0)).scatter([0, 1], gc.stack([s, gc.tanh(a.read(1))]))
        return a, gc.sin(s)

    a = array(n + 2, grows).unstack(gc.stack([x, x * x, x])) if grows else array(n + 2, grows)
    a, s = loop(n, step, a.write(0, x).write(1, x), x)
    return ts(s) + ts(gc.square(a.stack()))


@case
def three_arrays_that_go_round(x, n, grows):
    def step(i, a, b, c, s):
        s = gc.tanh(a.read(0) * s + b.read(i // 2))
        return c, a.write(i // 2, s).write(i + 1, s * x), b, gc.sin(s)

    start = [array(n, grows).write(0, x * k) for k in (1.0, 2.0, 3.0)]
    a, b, c, s = loop(n, step, *start, x)
    return ts(s) + ts(a.stack()) + ts(gc.square(b.stack())) + ts(gc.sin(c.stack()))


@case
def another_array_by_an_inner_loop(x, n, grows):
    """It gives back one from around."""

    def step(i, a, b, s):
        b = b.write(i, a.read(0) * s)
        b = loop(1, lambda j, _: (a,), b)[0]
        return a.write(i + 1, s), b, gc.sin(s)

    _, b, s = loop(n, step, array(n, grows).write(0, x), array(n, grows).write(0, x), x)
    return ts(gc.sin(b.stack())) + ts(s)


@case
def two_arrays_that_change_places(x, n, grows):
    def step(i, a, b, s):
        s = gc.cond(gc.equal(i % 2, 0), lambda: gc.tanh(a.read(0) * s), lambda: gc.sin(s) + x)
        return b, a.write(0, s), s

    a, b, s = loop(n, step, array(n, grows).write(0, x), array(n, grows).write(0, x * x), x)
    return ts(s) + ts(a.stack()) + ts(gc.square(b.stack()))


# --- memory ---------------------------------------------------------------------------------------


def kept(session) -> int:
    """The bytes that grow with the number of turns."""
    found = [e for plan in session._plans.values() for e in plan.executables.values()]
    return sum(sum(e.context.cells[1::2]) for e in found)


@pytest.mark.parametrize("grows", [True, False], ids=["grows", "fixed"])
@pytest.mark.parametrize(
    "name",
    [
        "a_stack_machine",
        "numbers_that_say_which_row",
        "read_by_an_inner_loop",
        "read_in_a_branch",
        "written_in_both_branches",
        "written_in_one_of_nested_branches",
    ],
)
def test_the_way_back_keeps_some_rows_of_every_turn(name, grows):
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])
    grad = gc.gradients(CASES[name](x, n, grows), x)[0]
    row = 8 * 64
    with gc.Session() as session:
        for turns in (100, 400):
            session.run(grad, {x: np.full(64, 0.5), n: turns})
            # At most 14 rows of every turn, and what growing leaves free: a half.
            assert kept(session) <= 1.5 * turns * (14 * row + 200) + 4096
        assert session.compilations == 1


@pytest.mark.parametrize("grows", [True, False], ids=["grows", "fixed"])
@pytest.mark.parametrize(
    "name",
    [
        "three_arrays_that_go_round",
        "two_arrays_that_change_places",
        "written_by_an_inner_loop",
    ],
)
def test_four_times_the_turns_keep_four_times_the_bytes(name, grows):
    """There are more arrays, or more turns in a turn: so many rows, and not whole arrays."""
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])
    grad = gc.gradients(CASES[name](x, n, grows), x)[0]
    with gc.Session() as session:
        found = []
        for turns in (100, 400):
            session.run(grad, {x: np.full(64, 0.5), n: turns})
            found.append(kept(session))
        assert found[1] <= 6 * found[0]


@pytest.mark.parametrize("grows", [True, False], ids=["grows", "fixed"])
def test_second_derivatives_keep_some_rows_of_every_turn(grows):
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])
    first = gc.gradients(a_stack_machine(x, n, grows), x)[0]
    second = gc.gradients(ts(first * first), x)[0]
    with gc.Session() as session:
        found = []
        for turns in (100, 400):
            session.run(second, {x: np.full(64, 0.3), n: turns})
            found.append(kept(session))
        # Four times the turns; with whole arrays it would be sixteen times the bytes.
        assert found[1] <= 6 * found[0]


# --- time -----------------------------------------------------------------------------------------


def copied_in_turns(session, temporaries=True):
    """Names of slots as long as an array that turns copy to, or have for themselves."""
    found = []
    for plan in session._plans.values():
        for executable in plan.executables.values():
            program = executable.code.program
            around = {k for s in program.steps for k in slots_of(s)}
            for step in program.steps:
                for inner in walk(step.body) if isinstance(step, Loop) else ():
                    copied = [inner.target] if isinstance(inner, Copy) else []
                    own = [k for k in slots_of(inner) if k not in around]
                    slots = [program.slots[k] for k in copied or own]
                    long = (s for s in slots if not isinstance(s.size, int))
                    found += [s.name for s in long if copied or (temporaries and s.kind == "temp")]
    return found


@pytest.mark.parametrize("grows", [True, False], ids=["grows", "fixed"])
@pytest.mark.parametrize(
    "name",
    [
        "a_stack_machine",
        "read_by_an_inner_loop",
        "read_in_a_branch",
        "written_in_one_of_nested_branches",
    ],
)
def test_a_turn_copies_no_array(name, grows):
    """Branches write rows where the array is, on the way forward and on the way back."""
    x, n = gc.placeholder(F, [4]), gc.placeholder(gc.int32, [])
    y = CASES[name](x, n, grows)
    with gc.Session() as session:
        session.run([y, gc.gradients(y, x)[0]], {x: POINT, n: 5})
        assert copied_in_turns(session) == []


@pytest.mark.parametrize("grows", [True, False], ids=["grows", "fixed"])
def test_a_turn_copies_no_array_that_an_inner_loop_writes(grows):
    """The inner loop runs again on the way back, where the array is, and is undone by its gradient.

    What a turn has for itself are the rows that the inner loop has replaced.
    """
    x, n = gc.placeholder(F, [4]), gc.placeholder(gc.int32, [])
    y = written_by_an_inner_loop(x, n, grows)
    with gc.Session() as session:
        session.run([y, gc.gradients(y, x)[0]], {x: POINT, n: 5})
        assert copied_in_turns(session, temporaries=False) == []
