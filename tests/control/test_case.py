"""case: what it demands of its predicates in a run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc as gc
from graphc.errors import InvalidArgumentError

BOOLS = (False, True)


def bools(*names):
    return [gc.placeholder(gc.bool, [], name=name) for name in names]


def outcome(session, fetch, feeds):
    try:
        return session.run(fetch, feeds)
    except InvalidArgumentError as error:
        return str(error)


def chosen(values, exclusive, default):
    """What ``case`` gives: a number, or the beginning of an error."""
    if exclusive and sum(values) > 1:
        return "assertion failed: [Input error: exclusive=True: more than 1 conditions (a:0, b:0)"
    if any(values):
        return float(values.index(True))
    return default or "assertion failed: [Input error: None of conditions evaluated as True:] [0 0]"


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
@pytest.mark.parametrize("default", [None, 9.0])
@pytest.mark.parametrize("exclusive", BOOLS)
def test_every_choice(mode, exclusive, default):
    a, b = bools("a", "b")
    pairs = [(a, lambda: gc.constant(0.0)), (b, lambda: gc.constant(1.0))]
    last = default and (lambda: gc.constant(default))
    fetch = gc.case(pairs, last, exclusive)
    with gc.Session(mode=mode) as session:
        for values in itertools.product(BOOLS, repeat=2):
            found = outcome(session, fetch, dict(zip((a, b), values, strict=True)))
            wanted = chosen(values, exclusive, default)
            if isinstance(wanted, str):
                assert found.startswith(wanted)
                assert "Assert" in found
                assert "test_case.py" in found
            else:
                assert found == wanted


def test_all_predicates_count_without_a_default():
    a, b, c = bools("a", "b", "c")
    fetch = gc.case([(p, lambda k=k: gc.constant(k)) for k, p in enumerate((a, b, c))], None, True)
    with gc.Session() as session:
        assert session.run(fetch, {a: False, b: False, c: True}) == 2
        with pytest.raises(InvalidArgumentError, match=r"more than 1 conditions \(a:0, b:0, c:0\)"):
            session.run(fetch, {a: True, b: False, c: True})


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
def test_functions_that_only_hand_on_a_tensor_are_checked(mode):
    (a,), x = bools("a"), gc.placeholder(gc.float32, [], name="x")
    fetch = gc.case([(a, lambda: x), (gc.logical_not(gc.equal(x, 0)), lambda: x)])
    with gc.Session(mode=mode) as session:
        assert session.run(fetch, {a: True, x: 0.0}) == 0.0
        assert session.run(fetch, {a: False, x: 3.0}) == 3.0
        with pytest.raises(InvalidArgumentError, match="None of conditions evaluated as True"):
            session.run(fetch, {a: False, x: 0.0})


def test_known_predicates_are_checked():
    yes, no = gc.constant(True), gc.constant(False)
    x = gc.placeholder(gc.float32, [])
    both = gc.case([(yes, lambda: x), (yes, lambda: -x)], lambda: x, exclusive=True)
    none = gc.case([(no, lambda: x)])
    with gc.Session() as session:
        with pytest.raises(InvalidArgumentError, match="exclusive=True"):
            session.run(both, {x: 1.0})
        with pytest.raises(InvalidArgumentError, match="None of conditions"):
            session.run(none, {x: 1.0})


def test_a_run_that_fails_assigns_nothing():
    a, b = bools("a", "b")
    v = gc.Variable(1.0)
    op = gc.case([(a, lambda: v.assign_add(1.0).op), (b, gc.no_op)], exclusive=True)
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        session.run(op, {a: True, b: False})
        for wrong in BOOLS:
            with pytest.raises(InvalidArgumentError):
                session.run(op, {a: wrong, b: wrong})
        assert session.run(v) == 2.0


@pytest.mark.parametrize("exclusive", BOOLS)
def test_gradients_go_through_checked_cases(exclusive, everywhere):
    """Twice, and where the case is nested in a loop or a branch, whose way back runs it again."""
    x = gc.placeholder(gc.float32, [])

    def checked(y):
        pairs = [(y < 2, lambda: y * y * x), (y >= 2, lambda: gc.sin(y))]
        return gc.case(pairs, exclusive=exclusive)

    one = checked(x)
    branch = gc.cond(x < 5, lambda: checked(x), lambda: x)
    _, loop = gc.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, checked(y)), [0, x])
    first = [gc.gradients(y, x)[0] for y in (one, branch, loop)]
    second = [gc.gradients(g, x)[0] for g in first]
    # x^3; then sin(x^3).
    x0 = 1.5
    cube = x0**3
    outer = np.cos(cube) * 3 * x0**2
    expected = [3 * x0**2, 3 * x0**2, outer, 6 * x0, 6 * x0]
    expected.append(np.cos(cube) * 6 * x0 - np.sin(cube) * 9 * x0**4)
    everywhere([*first, *second], {x: x0}, expected=expected, rtol=1e-5)


def test_an_assertion_in_a_nested_branch_has_gradients(everywhere):
    x = gc.placeholder(gc.float32, [])

    def guarded():
        with gc.control_dependencies([gc.Assert(x > 0, [x])]):
            return gc.square(x)

    def body(i, y):
        return i + 1, y * gc.cond(x > 0, guarded, lambda: x)

    _, y = gc.while_loop(lambda i, _: i < 2, body, [0, 1.0])
    everywhere(gc.gradients(y, x), {x: 2.0}, expected=[32.0])
