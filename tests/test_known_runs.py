"""Runs whose fetches and feeds are known: they are called at once, and mean what they meant."""

import gc as garbage
import itertools
import operator
import signal
import threading
import weakref
from collections import OrderedDict, namedtuple
from functools import partial, reduce

import numpy as np
import pytest

import graphc as gc
from graphc.errors import FinalizedError, InvalidArgumentError

Pair = namedtuple("Pair", "a b")
VALUE = np.arange(4, dtype=np.float32)


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


@pytest.fixture
def x():
    return gc.placeholder(gc.float32, [None], name="x")


def same(found, expected):
    """Equal in values, structure and types."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            same(a, b)
    elif expected is not None:
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_every_structure_keeps_its_kind(x):
    a, b = x * 2, x + 1
    nothing = gc.no_op()
    total = gc.reduce_sum(x)
    two, one, six = VALUE * 2, VALUE + 1, np.float32(6)
    # In an order in which equal keys of other kinds come before and behind.
    rows = [
        (a, two), ([a], [two]), ((a,), (two,)), ([a, b], [two, one]), ((a, b), (two, one)),
        (Pair(a, b), Pair(two, one)), ([Pair(a, b)], [Pair(two, one)]), ([(a, b)], [(two, one)]),
        ([[a, b]], [[two, one]]), ({"k": a, "l": [b]}, {"k": two, "l": [one]}),
        (OrderedDict(z=a, y=b), OrderedDict(z=two, y=one)), ([b, a, b], [one, two, one]),
        (nothing, None), ([nothing], [None]), ([nothing, a], [None, two]),
        ([total, nothing, a], [six, None, two]), ("x:0", VALUE), (a.name, two),
        ([a.name, b], [two, one]), ([x], [VALUE]), ([x, a], [VALUE, two]), ([], []),
    ]  # fmt: skip
    with gc.Session() as s:
        for _ in range(3):
            for fetches, expected in rows:
                same(s.run(fetches, {x: VALUE}), expected)


def test_feeds_by_any_order_name_or_mapping(x):
    y = gc.placeholder(gc.float32, [None])
    z = x - y
    other = VALUE * 3
    with gc.Session() as s:
        for _ in range(3):
            for feed in (
                {x: other, y: VALUE}, {y: VALUE, x: other}, {"x:0": other, y: VALUE},
                OrderedDict([(y, VALUE), (x, other)]), {(x, y): (other, VALUE)},
                {x: other.tolist(), y: VALUE.astype(np.float64)}, {x: other[::1], y: VALUE},
            ):  # fmt: skip
                np.testing.assert_array_equal(s.run(z, feed), other - VALUE)
            with pytest.raises(InvalidArgumentError, match=r"x"):
                s.run(z, {y: VALUE})
            # A tensor that is fed is not computed.
            np.testing.assert_array_equal(s.run(z, {z: VALUE}), VALUE)
            constant = gc.constant(1.0)
            assert s.run(constant) == s.run(constant, {}) == s.run(constant, None) == 1


def test_what_is_wrong_stays_wrong(x):
    row = gc.placeholder(gc.int32, [])
    table = gc.Variable(VALUE)
    taken = gc.gather(table, row)
    step = table.assign_add(gc.zeros([4]) * taken)
    with gc.Session() as s:
        s.run(table.initializer)
        for fetches in (taken, [taken], step, [step.op, taken]):
            for _ in range(2):
                s.run(fetches, {row: np.int32(0)})
                with pytest.raises(InvalidArgumentError, match="test_known_runs"):
                    s.run(fetches, {row: np.int32(7)})
                for bad in (None, taken, "text", [1, 2]):
                    with pytest.raises((TypeError, ValueError)):
                        s.run(fetches, {row: bad})
        np.testing.assert_array_equal(s.run(table), VALUE)


def test_steps_change_what_others_read(x):
    w = gc.Variable(np.zeros(4, np.float32))
    step, read = w.assign_add(x), w * 1
    prepared = gc.matmul(gc.reshape(x, [1, 4]), gc.reshape(w, [4, 1]))
    with gc.Session() as s:
        s.run(w.initializer)
        for k in range(1, 6):
            s.run([step.op], {x: VALUE})
            np.testing.assert_array_equal(s.run(read), k * VALUE)
            assert s.run(prepared, {x: VALUE}) == k * (VALUE * VALUE).sum()
        w.load(VALUE, s)
        np.testing.assert_array_equal(s.run(read), VALUE)
        assert s.run(prepared, {x: VALUE}) == (VALUE * VALUE).sum()


def test_a_variable_of_another_shape(x):
    w = gc.Variable(VALUE, validate_shape=False)
    value = gc.placeholder(gc.float32, None)
    change = gc.assign(w, value, validate_shape=False)
    with gc.Session() as s:
        s.run(w.initializer)
        for n in (4, 3, 1, 4):
            s.run(change.op, {value: np.ones(n, np.float32)})
            for _ in range(3):
                assert s.run(w + 1).shape == (n,)
                assert s.run([w * 2])[0].shape == (n,)


def test_shapes_in_turn(x):
    y = gc.placeholder(gc.float32, [None])
    with gc.Session() as s:
        for _ in range(3):
            for n, m in ((4, 4), (1, 4), (4, 1), (2, 2), (0, 0), (0, 1)):
                found = s.run(x + y, {x: np.ones(n, np.float32), y: np.ones(m, np.float32)})
                assert found.shape == np.broadcast_shapes((n,), (m,))


def test_a_closed_session_says_so(x):
    w = gc.Variable(VALUE)
    y, step = x * 2, w.assign_add(x)
    s = gc.Session()
    s.run(w.initializer)
    for _ in range(3):
        s.run(y, {x: VALUE})
        s.run([step], {x: VALUE})
    s.close()
    for fetches in (y, [step]):
        with pytest.raises(FinalizedError):
            s.run(fetches, {x: VALUE})


def test_a_session_that_nobody_has_is_freed_at_once(x):
    w = gc.Variable(VALUE)
    y, step = x * w, w.assign_add(x)
    s = gc.Session()
    s.run(w.initializer)
    for _ in range(3):
        s.run(y, {x: VALUE})
        s.run([step], {x: VALUE})
    array, session = weakref.ref(s._state.cells[w.op.name].array), weakref.ref(s)
    garbage.disable()
    try:
        del s
        assert session() is None
        assert array() is None
    finally:
        garbage.enable()


def test_random_numbers_go_on(x):
    y = gc.random_uniform([4], seed=1) + x
    with gc.Session() as s:
        found = [s.run(y, {x: VALUE * 0}) for _ in range(5)]
    for a, b in itertools.pairwise(found):
        assert not np.array_equal(a, b)


def test_python_is_called_every_time(x):
    calls = []

    def note(value):
        calls.append(value)
        return value

    y = gc.py_func(note, [x], gc.float32)
    with gc.Session() as s:
        for _ in range(4):
            np.testing.assert_array_equal(s.run(y, {x: VALUE}), VALUE)
    assert len(calls) == 4


def test_threads_step_and_read():
    w = gc.Variable(np.zeros(8, np.float32))
    step, both = w.assign_add(np.ones(8, np.float32)), w * 1.0
    wrong = []
    with gc.Session() as s:
        s.run(w.initializer)

        def work():
            for _ in range(300):
                s.run(step.op)
                found = s.run(both)
                wrong.extend([1] if (found != found[0]).any() else [])

        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong
        np.testing.assert_array_equal(s.run(w), 1200)


def test_runs_that_are_traced_or_have_options(x):
    y = x * 2
    with gc.Session() as s:
        for _ in range(3):
            s.run(y, {x: VALUE})
        metadata = gc.RunMetadata()
        options = gc.RunOptions(trace=True)
        np.testing.assert_array_equal(s.run(y, {x: VALUE}, options, metadata), VALUE * 2)
        assert metadata.profile is not None


def test_no_step_is_done_twice_where_memory_is_short(monkeypatch):
    """What a run allocates last, it allocates after its changes."""
    w, mask = gc.Variable(np.zeros(4, np.float32)), gc.placeholder(gc.bool, [4])
    step = w.assign_add(np.ones(4, np.float32))
    some = gc.boolean_mask(w.value(), mask)
    with gc.Session() as s:
        s.run(w.initializer)
        feeds = {mask: np.ones(4, bool)}
        call = s.make_callable([step.op, some], [mask])
        for _ in range(3):
            s.run([step.op, some], feeds)
            call(feeds[mask])
        (executable,) = {p.single for p in s._plans.values() if p.targets and p.computed}
        real, mine = executable.function, feeds[mask]
        row = gc.placeholder(gc.float32, [1, 4])
        product, ones = gc.matmul(row, gc.reshape(w, [4, 1])), {row: np.ones((1, 4), np.float32)}
        for run in (lambda: s.run([step.op, some], feeds), lambda: call(mine)):
            before = s.read_variable(w.op)
            assert s.run(product, ones) == before.sum()
            # As NumPy fails: in C, where there are no frames, and after the step.
            both = map(operator.call, [partial(real, mine), partial(operator.mul, b"x", 1 << 62)])
            monkeypatch.setattr(executable, "function", partial(reduce, operator.is_, both))
            with pytest.raises(gc.errors.ResourceExhaustedError, match="may have been changed"):
                run()
            np.testing.assert_array_equal(s.read_variable(w.op), before + 1)
            # What was prepared of the weights is not what it was.
            assert s.run(product, ones) == before.sum() + 4


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers of signals")
@pytest.mark.parametrize("error", [ValueError, MemoryError, KeyboardInterrupt])
def test_what_a_handler_of_signals_raises_is_raised(x, error):
    y, n = x * 2, gc.placeholder(gc.int32, [])
    long = gc.while_loop(lambda i, v: i < n, lambda i, v: [i + 1, gc.sin(v)], [0, 0.5])[1]
    w = gc.Variable(np.zeros(4, np.float32))
    step = w.assign_add(gc.ones([4]) * long)

    class Late(error):
        pass

    def late(*_):
        raise Late

    def soon(run, times):
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        run(times)

    old = signal.signal(signal.SIGALRM, late)
    try:
        with gc.Session() as s:
            s.run(w.initializer)
            call = s.make_callable(long, [n])
            for k in range(3):
                s.run(long, {n: np.int32(k)})
                s.run([step], {n: np.int32(k)})
                call(np.int32(k))
                s.run({"it": long}, {n: np.int32(k)})
            before = s.read_variable(w.op)
            for run in (
                lambda v: s.run(long, {n: v}), lambda v: s.run([step], {n: v}), call,
                lambda v: s.run({"it": long}, {n: v}),  # Never a known run.
            ):  # fmt: skip
                with pytest.raises(Late):
                    soon(run, np.int32(2**31 - 1))
            np.testing.assert_array_equal(s.read_variable(w.op), before)
            assert s.run(y, {x: VALUE})[1] == 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_keys_that_are_no_feeds(x):
    y = x * 2
    with gc.Session() as s:
        for _ in range(3):
            np.testing.assert_array_equal(s.run([y], {x: VALUE}), [VALUE * 2])
            # The later one of two feeds of one tensor counts.
            np.testing.assert_array_equal(s.run(y, {"x:0": -VALUE, x: VALUE}), VALUE * 2)
            for wrong in (list, 3, "no such:0"):
                with pytest.raises(TypeError, match="feed_dict key"):
                    s.run(y, {wrong: 3, x: VALUE})
                with pytest.raises(TypeError, match="feed_dict key"):
                    s.run(y, {x: VALUE, wrong: 3})


def test_a_layout_that_changes_while_a_run_becomes_known(x, monkeypatch):
    w = gc.Variable(VALUE, validate_shape=False)
    grow = gc.assign(w, gc.concat([w, w], 0), validate_shape=False)
    y = w + gc.reduce_sum(x)
    with gc.Session() as s:
        s.run(w.initializer)
        s.run(y, {x: VALUE})
        aim = gc.Session._aim

        def late(self, direct, plan):
            monkeypatch.undo()
            self.run(grow.op)
            aim(self, direct, plan)

        s._calls.clear()
        monkeypatch.setattr(gc.Session, "_aim", late)
        s.run(y, {x: VALUE})
        for _ in range(3):
            assert s.run(y, {x: VALUE}).shape == (8,)


@pytest.mark.parametrize("what", ["run", "load", "compile"])
def test_python_in_a_run_and_other_threads_wait_for_nothing(x, what):
    w = gc.Variable(VALUE)
    step = w.assign_add(gc.ones([4]))
    stop, refused = threading.Event(), []

    def inside(value):
        try:
            if what == "run":
                s.run(step.op)
            elif what == "load":
                s.load_variable(w.op, VALUE)
            else:
                s.run(x * float(len(refused)), {x: VALUE})
        except (RuntimeError, InvalidArgumentError) as e:
            refused.append(e)
        return value

    y = gc.py_func(inside, [x], gc.float32)
    with gc.Session() as s:
        s.run(w.initializer)

        def others(work):
            while not stop.is_set():
                work()

        works = (lambda: s.run(step.op), lambda: s.load_variable(w.op, VALUE))
        threads = [threading.Thread(target=others, args=(f,), daemon=True) for f in works]

        def work():
            for _ in range(30):
                s.run(y, {x: VALUE})

        runs = threading.Thread(target=work, daemon=True)
        for t in (*threads, runs):
            t.start()
        runs.join(60)
        stop.set()
        for t in threads:
            t.join(60)
        assert not any(t.is_alive() for t in (*threads, runs))


def test_a_variable_that_is_refused_another_shape_keeps_its_value(x):
    w = gc.Variable(VALUE, validate_shape=False)
    refused = []

    def inside(value):
        try:
            s.load_variable(w.op, np.full(7, 5, np.float32))
        except RuntimeError as e:
            refused.append(e)
        return value

    with gc.Session() as s:
        s.run(w.initializer)
        s.run(gc.py_func(inside, [x], gc.float32), {x: VALUE})
        assert refused
        np.testing.assert_array_equal(s.read_variable(w.op), VALUE)
