"""Conditions of loops that draw numbers, assign variables or count calls: once for every test."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.formats import load, save

F = gc.float64
POINT = np.array([0.3, -0.5, 0.8])
WEIGHTS = np.cos(np.arange(3) + 1.0)
MODES = ["static", "eager", "reference"]


def draws(count, seed=3):
    """The first numbers of a random op."""
    with gc.Graph().as_default(), gc.Session() as session:
        number = gc.random_uniform([], seed=seed)
        return [session.run(number) for _ in range(count)]


def expected_turns(limit, first=0):
    """How many numbers are below the limit before one is not."""
    numbers = draws(40)[first:]
    return next(k for k, v in enumerate(numbers) if not v < limit)


def counter(start=0):
    return gc.get_variable("counter", initializer=start)


@pytest.mark.parametrize("mode", MODES)
def test_a_random_condition_draws_for_every_test_and_goes_on_in_the_next_run(mode):
    limit = 0.9
    turns = gc.while_loop(
        lambda i: gc.random_uniform([], seed=3) < limit, lambda i: i + 1, [0]
    )
    with gc.Session(mode=mode) as session:
        drawn = 0
        for _ in range(3):
            wanted = expected_turns(limit, drawn)
            assert session.run(turns) == wanted
            drawn += wanted + 1
    assert drawn > 6


@pytest.mark.parametrize("mode", MODES)
def test_an_assignment_is_made_for_every_test_and_seen_by_the_body(mode):
    tests = counter()
    n = gc.placeholder(gc.int32, [])

    def condition(i, total):
        return tests.assign_add(1) < n

    turns, total = gc.while_loop(
        condition, lambda i, total: (i + 1, total + tests.read_value()), [0, 0]
    )
    with gc.control_dependencies([turns]):
        after = tests.read_value()
    with gc.Session(mode=mode) as session:
        session.run(tests.initializer)
        assert session.run([turns, total, after], {n: 5}) == [4, 1 + 2 + 3 + 4, 5]
        assert session.run(tests) == 5
        # The first test fails: it has been made all the same.
        assert session.run([turns, total, after], {n: 5}) == [0, 0, 6]
        assert session.run(tests) == 6


def test_the_body_and_the_condition_assign_the_same_variable(everywhere):
    value = counter(1)

    def condition(i):
        return value.assign(value.read_value() * 2) < 100

    def body(i):
        with gc.control_dependencies([value.assign_add(1)]):
            return i + 1

    turns = gc.while_loop(condition, body, [0])
    with gc.control_dependencies([turns]):
        after = value.read_value()
    wanted, number = 0, 2
    while number < 100:
        wanted, number = wanted + 1, (number + 1) * 2
    everywhere([turns, after], expected=[wanted, number])


def test_effects_in_a_branch_and_in_a_loop_of_the_condition(everywhere):
    tests = counter()

    def condition(i, v):
        often = gc.while_loop(
            lambda j: j < i, lambda j: (j + 1) + 0 * tests.assign_add(1), [0]
        )
        more = gc.cond(gc.equal(i % 2, 0), lambda: tests.assign_add(10), lambda: often)
        with gc.control_dependencies([more, often]):
            return tests.read_value() < 40

    turns, v = gc.while_loop(
        condition, lambda i, v: (i + 1, gc.concat([v, v[:1] + 1], 0)), [0, gc.constant([1])],
        shape_invariants=[gc.TensorShape([]), gc.TensorShape([None])],
    )  # fmt: skip
    with gc.control_dependencies([turns]):
        after = tests.read_value()
    total = k = 0
    while True:
        total += k + (10 if k % 2 == 0 else 0)
        if total >= 40:
            break
        k += 1
    everywhere([turns, v, after], expected=[k, [1] + [2] * k, total])


def test_the_limit_of_turns_ends_a_loop_with_effects(everywhere):
    tests = counter()
    turns = gc.while_loop(
        lambda i: tests.assign_add(1) > 0, lambda i: i + 1, [0], maximum_iterations=6
    )
    with gc.control_dependencies([turns]):
        after = tests.read_value()
    everywhere([turns, after], expected=[6, 7])


def slope(f, eps=1e-6):
    steps = [eps * row for row in np.eye(3)]
    return np.array([(f(POINT + s) - f(POINT - s)) / (2 * eps) for s in steps])


def plain(x):
    """A loop over a random number of turns."""
    return gc.while_loop(
        lambda i, v: gc.random_uniform([], seed=3) < 0.9,
        lambda i, v: (i + 1, gc.sin(v) * x + 0.2),
        [0, x],
    )[1]


def nested(x):
    """Such a loop in another one."""
    return gc.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, plain(x) * gc.cos(v)), [0, x])[1]


def in_a_branch(x):
    """Such a loop in a branch in another one."""

    def body(i, v):
        even = gc.equal(i % 2, 0)
        return i + 1, gc.cond(even, lambda: plain(x) * gc.cos(v), lambda: gc.tanh(v))

    return gc.while_loop(lambda i, v: i < 4, body, [0, x])[1]


def assigning(x):
    """A loop whose condition assigns what the body reads."""
    w = gc.get_variable("w", initializer=np.float64(1.0))

    def condition(i, v):
        return w.assign(w.read_value() * 1.5) < 5

    return gc.while_loop(condition, lambda i, v: (i + 1, gc.sin(v * w.read_value()) * x), [0, x])[1]


def growing(x):
    """A random number of turns, each of which makes a loop variable longer."""
    r = gc.while_loop(
        lambda i, v: gc.random_uniform([], seed=3) < 0.9,
        lambda i, v: (i + 1, gc.concat([gc.sin(v) * x[0], x[1:2]], 0)),
        [0, x],
        shape_invariants=[gc.TensorShape([]), gc.TensorShape([None])],
    )[1]
    return gc.exp(r)


@pytest.mark.parametrize("form", [plain, nested, in_a_branch, assigning, growing])
def test_gradients_and_files(form, tmp_path):
    x = gc.placeholder(F, [3])
    y = gc.reduce_sum(gc.square(form(x)))
    first = gc.gradients(y, x)[0]
    second = gc.gradients(gc.reduce_sum(first * WEIGHTS), x)[0]
    fetches = [y, first, second]

    def run(wanted, point=POINT, mode="reference"):
        with gc.Session(mode=mode) as session:
            session.run(gc.global_variables_initializer())
            return session.run(wanted, {x: point})

    expected = run(fetches)
    for mode in ("static", "eager"):
        for a, b in zip(run(fetches, mode=mode), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)
    np.testing.assert_allclose(slope(lambda p: run(y, p)), expected[1], rtol=1e-5, atol=1e-7)
    sums = slope(lambda p: np.sum(run(first, p) * WEIGHTS))
    np.testing.assert_allclose(sums, expected[2], rtol=1e-4, atol=1e-6)
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        save(
            tmp_path / "m.graphc", session, inputs={"x": x},
            outputs=dict(zip("abc", fetches, strict=True)),
        )  # fmt: skip
    found = load(tmp_path / "m.graphc")(x=POINT)
    for key, b in zip("abc", expected, strict=True):
        np.testing.assert_allclose(found[key], b, rtol=1e-9)


def test_a_failed_run_commits_no_test():
    tests = counter()
    rows = gc.constant([1.0, 2.0, 3.0])
    found = gc.while_loop(
        lambda i, v: tests.assign_add(1) < 9, lambda i, v: (i + 1, gc.gather(rows, i)), [0, 0.0]
    )
    with gc.Session() as session:
        session.run(tests.initializer)
        with pytest.raises(gc.errors.InvalidArgumentError, match="indices = 3 is not in"):
            session.run(found)
        assert session.run(tests) == 0
