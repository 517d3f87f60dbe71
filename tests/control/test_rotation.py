"""Loop variables that change places: their memory does, and nothing is copied."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import VerifyError
from graphc.program import Copy, Loop, Rotate, walk
from graphc.program_verify import verify_program

F = gc.float32
CASES = {}
half = np.float32(0.5)


def case(*starts):
    def note(fn):
        CASES[fn.__name__] = (fn, starts)
        return fn

    return note


def loop(n, step, *start, **options):
    return gc.while_loop(
        lambda i, *_: i < n, lambda i, *v: (i + 1, *step(i, *v)), [0, *start], **options
    )[1:]


def rows(k):
    return np.linspace(-1, 1, 300, dtype=np.float32) * k


@case(rows(1), rows(2))
def two(i, a, b):
    return b, a


@case(rows(1), rows(2), rows(3), rows(4), rows(5))
def two_cycles(i, a, b, c, d, e):
    return b, a, d, e, c


@case(rows(1), rows(2))
def what_is_computed_is_written_to_what_is_left(i, a, b):
    return b, (a + b) * half


@case(rows(1), rows(2), rows(3))
def the_last_of_three_is_computed(i, a, b, c):
    return b, c, a * half - b


@case(rows(1), rows(2))
def one_is_kept_and_handed_on(i, a, b):
    return a * half, a


@case(rows(1), rows(2), rows(3))
def one_becomes_two(i, a, b, c):
    return b, c, c


@case(rows(1), rows(2), np.zeros(3, np.float32))
def a_small_one_takes_part(i, a, b, c):
    return b, a, c + a[:3]


@case(np.float32(1), np.float32(2))
def scalars(i, a, b):
    return b, a + b


@case(rows(1), rows(2))
def reads_of_the_others(i, a, b):
    return b + a[::-1], a


@case(rows(1), rows(2))
def in_the_other_order(i, a, b):
    return b[::-1], a * half + b


def programs(session):
    return [e.code.program for p in session._plans.values() for e in p.executables.values()]


def copies_in_turns(session):
    loops = (s for p in programs(session) for s in walk(p.steps) if isinstance(s, Loop))
    return [s for lp in loops for s in walk(lp.body) if isinstance(s, Copy)]


@pytest.mark.parametrize("known", [True, False], ids=["static", "symbolic"])
@pytest.mark.parametrize("name", CASES)
def test_values(name, known, everywhere):
    step, starts = CASES[name]
    holders = [gc.placeholder(F, s.shape if known else [None] * s.ndim) for s in starts]
    n = gc.placeholder(gc.int32, [])
    found = loop(n, step, *holders)
    # What the loop gives is used again, and fetched as it is.
    sums = [gc.reduce_sum(t * 2) for t in found]
    for turns in (0, 1, 2, 3, 7):
        values = list(starts)
        for i in range(turns):
            values = step(i, *values)
        expected = [*values, *(2 * np.sum(v) for v in values)]
        feeds = dict(zip(holders, starts, strict=True))
        everywhere([*found, *sums], {**feeds, n: turns}, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["two", "two_cycles", "the_last_of_three_is_computed",
             "what_is_computed_is_written_to_what_is_left"],
)  # fmt: skip
def test_a_turn_copies_nothing(name):
    step, starts = CASES[name]
    n = gc.placeholder(gc.int32, [])
    with gc.Session() as session:
        first = [gc.placeholder_with_default(s, [None]) for s in starts]
        session.run(loop(n, step, *first), {n: 3})
        large = [s for s in copies_in_turns(session) if s.size != 1]
        assert large == []


def test_sizes_that_change_go_with_the_memory(everywhere):
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])
    free = [gc.TensorShape([]), gc.TensorShape([None]), gc.TensorShape([None])]
    a, b = loop(
        n, lambda i, a, b: (gc.concat([b, a[:1]], 0), a), x, x[:2], shape_invariants=free
    )
    for turns in (0, 1, 2, 5):
        p, q = rows(1), rows(1)[:2]
        for _ in range(turns):
            p, q = np.concatenate([q, p[:1]]), p
        everywhere([a, b], {x: rows(1), n: turns}, [p, q])


@pytest.mark.parametrize("grows", [True, False], ids=["grows", "fixed"])
def test_arrays_written_and_exchanged(grows, everywhere):
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])

    def step(i, a, b, s):
        a = a.write(i, gc.sin(s * 0.9 + b.read(0)))
        return b, a, gc.sin(s)

    size = 0 if grows else n + 1
    start = [gc.TensorArray(F, size=size, dynamic_size=grows).write(0, x * k) for k in (1.0, 2.0)]
    a, b, _ = loop(n, step, *start, x)
    y = gc.reduce_sum(a.stack()) + 2 * gc.reduce_sum(b.stack())
    grad = gc.gradients(y, x)[0]
    with gc.Session() as session:
        session.run([y, grad], {x: rows(1)[:4], n: 5})
        assert [s for s in copies_in_turns(session) if not isinstance(s.size, int)] == []
    for turns in (0, 1, 2, 5):
        everywhere([y, grad], {x: rows(1)[:4], n: turns}, rtol=1e-5)


def test_inside_a_loop_and_a_branch(everywhere):
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])

    def step(i, a, b):
        a, b = loop(i, lambda _, c, d: (d, c * half + d), a, b)
        return tuple(gc.cond(gc.equal(i % 2, 0), lambda: (a, b), lambda: (b, a)))

    found = loop(n, step, x, x * 2)
    for turns in (0, 1, 4):
        p, q = rows(1), rows(2)
        for i in range(turns):
            for _ in range(i):
                p, q = q, p * half + q
            p, q = (p, q) if i % 2 == 0 else (q, p)
        everywhere(found, {x: rows(1), n: turns}, [p, q], rtol=1e-4)


def test_variables_are_the_same_memory_afterwards(everywhere):
    v = gc.Variable(rows(1), dtype=F)
    n = gc.placeholder(gc.int32, [])
    a, b = loop(n, two, v.read_value(), v * 2)
    with gc.control_dependencies([v.assign(b - a)]):
        after = gc.identity(v.read_value())
    with gc.Session() as session:
        session.run(v.initializer)
        for turns in (3, 4, 0):
            before = session.run(v)
            found = session.run(after, {n: turns})
            np.testing.assert_allclose(found, -before if turns % 2 else before, rtol=1e-6)
            np.testing.assert_array_equal(session.run(v), found)


def test_runs_of_other_sizes_one_after_the_other():
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])
    found = loop(n, two, x, x * 2)
    with gc.Session() as session:
        for turns in (1, 1, 2, 3):
            for size in (300, 5, 1000):
                a, b = session.run(found, {x: np.full(size, 1.0), n: turns})
                first = 2.0 if turns % 2 else 1.0
                np.testing.assert_array_equal(a, np.full(size, first))
                np.testing.assert_array_equal(b, np.full(size, 3.0 - first))


@pytest.mark.parametrize("fault", ["one slot", "twice", "dtype", "unwritten"])
def test_planted_mistakes_are_found(fault):
    x, n = gc.placeholder(F, [None]), gc.placeholder(gc.int32, [])
    with gc.Session() as session:
        session.run(loop(n, two, x, x * 2), {x: rows(1), n: 2})
        (program,) = programs(session)
    step = next(s for s in walk(program.steps) if isinstance(s, Rotate))
    other = next(s for s in program.slots if s.kind == "temp")
    if fault == "one slot":
        step.slots = step.slots[:1]
    elif fault == "twice":
        step.slots = [step.slots[0], step.slots[0]]
    elif fault == "dtype":
        program.slots[step.slots[1]].dtype = gc.float64
    else:
        step.slots = [step.slots[0], other.number]
    with pytest.raises(VerifyError):
        verify_program(program)
