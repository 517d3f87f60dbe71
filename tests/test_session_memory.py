"""What a session keeps: nothing that grows with the number of runs."""

from __future__ import annotations

import gc as collector
import tracemalloc
import weakref

import numpy as np
import pytest

import graphc as gc
from graphc.errors import InvalidArgumentError, ResourceExhaustedError
from graphc.graph import Graph
from graphc.ops.contraction_functions import matmul


@pytest.fixture(autouse=True)
def graph():
    with Graph().as_default() as g:
        yield g


def arenas(session) -> int:
    """The bytes of scratch memory that the session's programs hold."""
    plans = {id(p): p for p in session._plans.values()}.values()
    found = [e for p in plans for e in p.executables.values()]
    return sum(e.context.struct.arena_capacity for e in found)


def growth(run, times: int) -> int:
    for _ in range(50):
        run()
    collector.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(times):
            run()
        collector.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_ten_thousand_runs_take_no_more_memory_than_one():
    x = gc.placeholder(gc.float32, [None, 8])
    w = gc.Variable(np.ones((8, 4), np.float32))
    loss = gc.reduce_mean(gc.square(gc.tanh(matmul(x, w))))
    step = gc.train.GradientDescentOptimizer(0.01).minimize(loss)
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        sizes = iter(range(10**9))
        data = {n: np.ones((n, 8), np.float32) for n in range(1, 9)}

        def run() -> None:
            session.run([loss, {"s": step}], {x: data[next(sizes) % 8 + 1]})

        run()
        assert growth(run, 10_000) < 20_000
        assert session.compilations == 2
        assert arenas(session) < 100_000


def test_runs_that_convert_broadcast_and_compute_sizes_keep_nothing():
    x, y = gc.placeholder(gc.float32), gc.placeholder(gc.float32, [None])
    n = gc.placeholder(gc.int32, [])
    total = x + y
    rows = gc.fill([n], 1.0)
    with gc.Session() as session:

        def run() -> None:
            session.run(total, {x: [1.0, 2.0], y: [1.0]})
            session.run(total, {x: 1.0, y: [1.0, 3.0]})
            session.run(rows, {n: 3})
            session.run(rows[:1] if False else rows, {n: 5})

        assert growth(run, 500) < 20_000


def test_a_failing_run_keeps_nothing():
    i = gc.placeholder(gc.int32, [None])
    y = gc.gather(gc.constant([1.0, 2.0]), i)
    with gc.Session() as session:

        def run() -> None:
            with pytest.raises(gc.errors.InvalidArgumentError):
                session.run(y, {i: [7]})

        assert growth(run, 500) < 40_000


def test_specialised_programs_are_bounded():
    """Shapes that each need a program of their own do not pile up for ever."""
    x, y = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.float32, [None])
    total = gc.reshape(x, [-1, 2]) + y
    with gc.Session() as session:
        for k in range(1, 6):
            session.run(total, {x: np.ones(2 * k), y: np.ones(2)})
            session.run(total, {x: np.ones(2 * k), y: np.ones(1)})
        (plan,) = {id(p): p for p in session._plans.values()}.values()
        assert len(plan.executables) <= 3


def test_a_session_is_freed_when_nobody_has_it():
    v = gc.Variable(np.ones(1000, np.float32))
    session = gc.Session()
    session.run(v.initializer)
    gone = weakref.ref(session)
    array = weakref.ref(session._state.cells["Variable"].array)
    del session
    collector.collect()
    assert gone() is None
    assert array() is None


def test_closing_frees_the_variables():
    v = gc.Variable(np.ones(1000, np.float32))
    session = gc.Session()
    session.run(v.initializer)
    array = weakref.ref(session._state.cells["Variable"].array)
    session.close()
    collector.collect()
    assert array() is None


@pytest.mark.parametrize("index", [10**10, 10**15, 2**59], ids=str)
def test_an_array_that_no_memory_holds_is_refused(index):
    """The system would grant it, and end the process when it is used."""
    with gc.Graph().as_default(), gc.Session() as session:
        i = gc.placeholder(gc.int64, [])
        array = gc.TensorArray(gc.float32, 1, dynamic_size=True).write(i, gc.ones([1000]))
        loop = gc.while_loop(
            lambda k, a: k < 3,
            lambda k, a: (k + 1, a.write(i * k, 1.0)),
            (gc.constant(0, gc.int64), gc.TensorArray(gc.float32, 0, dynamic_size=True)),
        )[1]
        for rows in (array.stack(), loop.stack()):
            with pytest.raises((ResourceExhaustedError, InvalidArgumentError)):
                session.run(rows, {i: index * 10})
            assert len(session.run(rows, {i: 2})) >= 3
