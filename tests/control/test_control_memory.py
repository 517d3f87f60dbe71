"""How much memory a loop and its gradient keep, and how much code they are."""

from __future__ import annotations

import numpy as np

import graphc as gc
from graphc.passes import extract_control, grouping

SIZE = 1000


def executables(session):
    plans = session._plans.values()
    return [e for plan in plans for e in plan.executables.values()]


def kept(session) -> int:
    """The bytes that grow with the number of turns."""
    return sum(sum(e.context.cells[1::2]) for e in executables(session))


def gradient_of_a_loop():
    x = gc.placeholder("float32", [None], name="x")
    n = gc.placeholder("int32", [], name="n")
    y = gc.while_loop(lambda i, y: i < n, lambda i, y: (i + 1, gc.tanh(y * x)), [0, x])[1]
    return x, n, gc.gradients(y, x)[0]


def test_a_gradient_keeps_so_many_bytes_a_turn():
    x, n, g = gradient_of_a_loop()
    data = np.linspace(0.1, 0.9, SIZE, dtype=np.float32)
    row = 4 * SIZE
    for turns in (10, 100, 1000):
        with gc.Session() as session:
            session.run(g, {x: data, n: turns})
            # The loop variable and its tanh, a counter, and what growing leaves free: a half.
            assert kept(session) <= 1.5 * turns * (2 * row + 4) + 4096
            assert kept(session) >= turns * row


def test_without_a_gradient_nothing_is_kept():
    x = gc.placeholder("float32", [None], name="x")
    y = gc.while_loop(lambda i, y: i < 50, lambda i, y: (i + 1, gc.tanh(y * x)), [0, x])[1]
    gc.gradients(y, x)
    with gc.Session() as session:
        session.run(y, {x: np.ones(SIZE)})
        assert kept(session) == 0


def test_the_code_does_not_depend_on_the_turns():
    x, n, g = gradient_of_a_loop()
    with gc.Session() as session:
        for turns in (0, 1, 10, 1000):
            session.run(g, {x: np.ones(3), n: turns})
        assert session._runner.compilations == 1
        (executable,) = executables(session)
        assert len(executable.code.program.kernels) < 20


def test_a_second_run_allocates_nothing_more():
    x, n, g = gradient_of_a_loop()
    with gc.Session() as session:
        session.run(g, {x: np.ones(SIZE), n: 64})
        before = kept(session)
        session.run(g, {x: np.ones(SIZE), n: 64})
        session.run(g, {x: np.ones(SIZE), n: 5})
        assert kept(session) == before


def test_the_work_of_compiling_does_not_grow_with_the_square_of_the_loop_variables(monkeypatch):
    """What a body holds is looked through a few times in all, not for every result of its loop."""
    found = []
    for module, name in ((grouping, "symbols_in"), (extract_control, "region_operations")):
        own = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, own=own: found.append(own) or own(*args)
        )
    start = [gc.constant(float(k)) for k in range(100)]
    turned = gc.while_loop(
        lambda i, *_: i < 3, lambda i, *v: (i + 1, *v[1:], v[0]), [gc.constant(0), *start]
    )
    values = gc.Session().run(turned)
    assert list(values[1:4]) == [3.0, 4.0, 5.0]
    assert len(found) < 50


def test_of_what_only_the_shape_is_needed_no_more_is_kept():
    """The sizes change from turn to turn; the elements would take memory in the square."""
    free = [gc.TensorShape([]), gc.TensorShape([None])]
    x, n = gc.placeholder(gc.float64, [None]), gc.placeholder(gc.int32, [])
    _, b = gc.while_loop(
        lambda i, _: i < n, lambda i, b: (i + 1, gc.concat([b * 2.0, x], 0)), [0, x],
        shape_invariants=free,
    )  # fmt: skip
    grad = gc.gradients(gc.reduce_sum(b), x)[0]
    found = []
    with gc.Session() as session:
        for turns in (60, 240):
            value = session.run(grad, {x: np.full(64, 0.3), n: turns % 16})
            np.testing.assert_allclose(value, np.full(64, 2.0 ** (turns % 16 + 1) - 1.0))
            session.run(grad, {x: np.full(64, 0.3), n: turns})
            found.append(kept(session))
    assert found[1] <= 5 * found[0]
