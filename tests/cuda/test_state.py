"""Variables on a device: no run that fails, and nothing that happens meanwhile, loses a value."""

from __future__ import annotations

import gc as collector
import signal
import threading

import numpy as np
import pytest
from cuda_support import LateDevice, ShimDevice, ShimFault, has_compiler

import graphc as gc
from graphc import errors
from graphc.runtime.cuda_run import Run

pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
MIB = 1 << 20


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


def two_variables():
    """Two variables, and what changes both at once."""
    v = gc.Variable(np.arange(300, dtype=np.float32))
    w = gc.Variable(np.ones(300, np.float32))
    return v, w, gc.group(gc.assign_add(v, gc.ones([300])), gc.assign(w, w * 2.0))


def test_a_session_closed_during_a_run_says_so(late):
    v = gc.Variable(np.zeros(4, np.float32))

    def close(x):
        session.close()
        return x

    value = gc.py_func(close, [v.read_value()], gc.float32)
    value.set_shape([4])
    session = gc.Session(device=late)
    session.run(v.initializer)
    with pytest.raises(errors.FinalizedError, match="closed"):
        session.run(gc.assign(v, value))


def test_a_value_that_cannot_be_stored_leaves_the_old_one(late, monkeypatch):
    v = gc.Variable(np.zeros(4, np.float32))
    with gc.Session(device=late) as session:
        session.run(v.initializer)
        session.run(gc.assign_add(v, gc.ones([4])).op)

        def full(*_):
            raise MemoryError("no room")

        with monkeypatch.context() as patch:
            patch.setattr("graphc.runtime.state.aligned_array", full)
            with pytest.raises(MemoryError):
                session.load_variable(v.op, np.zeros((2, 2), np.float32))
        assert session.run(v).tolist() == [1, 1, 1, 1]
        assert session.read_variable(v.op).tolist() == [1, 1, 1, 1]


def test_a_loaded_value_keeps_its_place_on_the_device(late):
    v = gc.Variable(np.zeros(300, np.float32))
    add = gc.assign_add(v, gc.ones([300])).op
    with gc.Session(device=late) as session:
        session.run(v.initializer)
        for _ in range(3):
            session.run(add)
        before = late.graphs
        v.load(np.full(300, 5.0, np.float32), session)
        session.run(add)
        assert late.graphs == before + 1
        assert session.run(v).tolist() == [6.0] * 300
        session.load_variable(v.op, np.zeros(300, np.float32))
        assert session.read_variable(v.op).tolist() == [0.0] * 300


def test_a_fetch_without_room_on_the_host_changes_nothing(late, monkeypatch):
    v, w, change = two_variables()
    with gc.Session(device=late) as session:
        session.run([v.initializer, w.initializer])

        def full(_):
            raise MemoryError("no room on the host")

        for _ in range(3):  # step by step, then recorded
            with monkeypatch.context() as patch:
                patch.setattr(Run, "rooms", full)
                with pytest.raises(errors.ResourceExhaustedError, match="allocating a fetch"):
                    session.run([change, v + 0.0])
        assert session.run(v)[1] == 1.0
        assert session.read_variable(w.op)[0] == 1.0


@pytest.fixture
def interruptible():
    """Ctrl-C interrupts; a process that was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_changes_all_variables_or_none(late, monkeypatch):
    v, w, change = two_variables()
    with gc.Session(device=late) as session:
        session.run([v.initializer, w.initializer])
        finish = Run.finish

        def interrupted(run):
            signal.raise_signal(signal.SIGINT)
            finish(run)

        with monkeypatch.context() as patch:
            patch.setattr(Run, "finish", interrupted)
            with pytest.raises(KeyboardInterrupt):
                session.run(change)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert session.read_variable(v.op)[0] == 1.0
        assert session.read_variable(w.op)[0] == 2.0
        begin = Run.begin

        def broken_off(run):
            begin(run)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Run, "begin", broken_off)
            with pytest.raises(KeyboardInterrupt):
                session.run([change, v + 0.0])
        assert [session.read_variable(x.op)[0] for x in (v, w)] == [1.0, 2.0]
        assert [a[0] for a in session.run([v, w])] == [1.0, 2.0]


def test_a_run_inside_a_run_is_refused_and_so_is_a_change(late):
    v = gc.Variable(np.zeros(3, np.float32))
    double = v * 2.0
    session = gc.Session(device=late)
    works = {
        "a run was started inside a run": lambda: session.run(double),
        "already inside a run": lambda: session.load_variable(v.op, np.ones(3, np.float32)),
    }
    session.run(v.initializer)
    for match, work in works.items():

        def inner(a, work=work):
            work()
            return a

        value = gc.py_func(inner, [v.read_value()], gc.float32)
        value.set_shape([3])
        with pytest.raises(errors.UnknownError, match=match):
            session.run(gc.assign_add(v, value + 1.0))
        assert session.run(v).tolist() == [0, 0, 0]
    other = gc.Session(device=ShimDevice())
    other.run(v.initializer)
    nested = gc.py_func(lambda a: a + other.run(double), [v.read_value()], gc.float32)
    assert session.run(nested).tolist() == [0, 0, 0]


def test_threads_of_one_session_lose_no_change(late):
    v = gc.Variable(np.zeros(300, np.float32))
    x = gc.placeholder(gc.float32, [None])
    add = gc.assign_add(v, gc.fill([300], gc.reduce_sum(x))).op
    session = gc.Session(device=late)
    session.run(v.initializer)
    wrong = []

    def work(number):
        for turn in range(6):
            session.run(add, {x: np.full(number + 1 + turn % 2, 1.0 / (number + 1 + turn % 2))})
            found = session.run(v)
            if not (found == found[0]).all():
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    np.testing.assert_allclose(session.run(v), np.full(300, 24.0), rtol=1e-5)
    assert late.graphs > 20


# --- memory ---------------------------------------------------------------------------------------


def test_out_of_memory_names_the_largest_buffers_and_loses_nothing():
    device = LateDevice(limit=4 * MIB)
    x = gc.placeholder(gc.float32, [None, 64], name="x")
    v = gc.Variable(np.ones((64, 64), np.float32), name="v")
    big = gc.matmul(x, x, transpose_b=True, name="big")
    small = gc.reduce_sum(x, name="small")
    change = gc.assign_add(v, gc.fill([64, 64], gc.reduce_max(gc.nn.softmax(big))))
    with gc.Session(device=device) as session:
        session.run(v.initializer)
        before = session.run(v)
        fits = np.ones((100, 64), np.float32)
        session.run(change.op, {x: fits})
        kept = session.run(v)
        for _ in range(2):
            with pytest.raises(errors.ResourceExhaustedError) as caught:
                session.run(change.op, {x: np.ones((2000, 64), np.float32)})
            text = str(caught.value)
            assert text.startswith("OOM on cuda:0: 16000000 bytes were asked for")
            assert "no variable was changed. Variables hold 16.0 KiB" in text
            assert "15.3 MiB" in text
            assert "big (MatMul), declared at" in text
            assert "test_state.py" in text
            assert caught.value.op is big.op
        np.testing.assert_array_equal(session.run(v), kept)
        assert not np.array_equal(kept, before)
        assert session.run(small, {x: fits}) == 6400


def test_what_a_failed_run_had_is_free_while_its_error_is_held():
    device = ShimDevice(limit=4 * MIB)
    x = gc.placeholder(gc.float32, [None, 64])
    total = gc.reduce_sum(gc.nn.softmax(gc.matmul(x, x, transpose_b=True)))
    with gc.Session(device=device) as session:
        session.run(total, {x: np.ones((8, 64), np.float32)})
        collector.collect()
        collector.disable()
        try:
            before = sum(m.nbytes for m in device.live)
            with pytest.raises(errors.ResourceExhaustedError) as caught:
                session.run(total, {x: np.ones((4000, 64), np.float32)})
            assert sum(m.nbytes for m in device.live) == before
            assert caught.value.code == 8
        finally:
            collector.enable()


def test_memory_that_only_makes_runs_quick_is_given_up():
    device = LateDevice(limit=3 * MIB)
    x = gc.placeholder(gc.float32, [None])
    y, z = gc.cumsum(gc.sin(x)), gc.cos(x)
    with gc.Session(device=device) as session:
        for _ in range(3):
            session.run(z, {x: np.ones(9, np.float32)})
            session.run(y, {x: np.ones(100_000, np.float32)})
        assert device.graphs
        for _ in range(3):
            found = session.run(y, {x: np.zeros(250_000, np.float32)})
        assert not found.any()
        assert device.trims
        # Others, and other sizes where they have room, are recorded again.
        trims = device.trims
        for fetch in (x * 2.0, z):
            graphs = device.graphs
            for _ in range(3):
                session.run(fetch, {x: np.ones(9, np.float32)})
            assert device.graphs == graphs + 2
        assert device.trims == trims


def test_constants_without_room_are_an_error_of_the_run():
    device = ShimDevice(limit=1000)
    table = gc.constant(np.arange(1000, dtype=np.float32), name="table")
    at = gc.placeholder(gc.int32, [None])
    picked = gc.gather(table, at)
    full = pytest.raises(errors.ResourceExhaustedError, match="constant, 1000 x float32")
    with gc.Session(device=device) as session, full:
        session.run(picked, {at: [1, 2]})


def test_a_session_that_is_gone_leaves_nothing():
    device = LateDevice()
    x = gc.placeholder(gc.float32, [None])
    v = gc.Variable(np.ones(50, np.float32))
    with gc.Session(device=device) as session:
        session.run(v.initializer)
        for _ in range(4):
            session.run(x * 2.0 + v, {x: np.ones(50, np.float32)})
    with device.active():
        device.wait()
    del session
    collector.collect()
    assert not device.live


def test_the_device_finds_threads_that_have_not_made_it_their_own(late):
    with pytest.raises(ShimFault, match="its own"):
        late.allocate(4)
