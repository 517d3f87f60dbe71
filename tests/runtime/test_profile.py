"""Traced runs: what is counted, that times add up, that values stay the same, what is written."""

from __future__ import annotations

import json
import os
import signal
import threading

import numpy as np
import pytest

import graphc as gc
from graphc.errors import InvalidArgumentError, UnimplementedError
from graphc.runtime import trace as tracing
from graphc.runtime.executable import COMPILATIONS
from graphc.runtime.peak import Peak, machine_peak
from graphc.runtime.profile import Profile, amount, seconds

TRACE = gc.RunOptions(trace=True)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default() as graph:
        yield graph


def profiled(session, fetches, feeds=None, options=TRACE):
    """The values and the profile of one run."""
    metadata = gc.RunMetadata()
    values = session.run(fetches, feeds, options, metadata)
    assert metadata.step_stats is metadata.profile
    return values, metadata.profile


def session_of() -> gc.Session:
    session = gc.Session()
    session.run(gc.global_variables_initializer())
    return session


def holds(profile: Profile) -> None:
    """What is true of every profile."""
    flat = [r for r in profile.records if not r.nested]
    assert sum(r.time for r in flat) <= profile.total
    for r in profile.records:
        assert r.calls > 0
        assert 0 <= r.least <= r.time / r.calls <= r.most <= r.time


def network():
    """A dense layer, its loss, a training step."""
    x = gc.placeholder(gc.float32, [None, 64], name="x")
    w = gc.Variable(np.random.RandomState(0).randn(64, 32).astype(np.float32), name="w")
    loss = gc.reduce_sum(gc.nn.relu(gc.matmul(x, w, name="product")), name="loss")
    return x, loss, gc.train.GradientDescentOptimizer(1e-4).minimize(loss), w


def test_a_training_step():
    x, loss, step, w = network()
    batch = np.random.RandomState(1).randn(16, 64).astype(np.float32)
    plain, traced = session_of(), session_of()
    for _ in range(3):
        expected, _ = plain.run([loss, step], {x: batch})
        (value, _), profile = profiled(traced, [loss, step], {x: batch})
        assert value.tobytes() == expected.tobytes()
        holds(profile)
    assert traced.run(w).tobytes() == plain.run(w).tobytes()
    ops = {name for r in profile.kernels for name in r.ops}
    assert {"product", "loss"} <= ops
    (product,) = (r for r in profile.kernels if "product" in r.ops)
    assert product.calls == 1
    assert product.operations >= 2 * 16 * 64 * 32
    assert product.bytes >= 4 * (16 * 64 + 64 * 32)
    assert product.fraction > 0


def test_tracing_compiles_no_kernel_again():
    x, loss, step, _ = network()
    session = session_of()
    batch = np.ones((4, 64), np.float32)
    session.run([loss, step], {x: batch})
    before = session.compilations, dict(COMPILATIONS)
    _, profile = profiled(session, [loss, step], {x: batch})
    assert (session.compilations, COMPILATIONS) == before
    assert profile.kernels
    # Nor does it stay on.
    assert gc.RunMetadata().profile is None
    metadata = gc.RunMetadata()
    session.run([loss, step], {x: batch}, run_metadata=metadata)
    session.run(loss, {x: batch}, gc.RunOptions(), metadata)
    assert metadata.profile is None


def test_work_follows_the_sizes_of_the_run():
    x = gc.placeholder(gc.float32, [None, 32])
    y = gc.matmul(x, gc.constant(np.ones((32, 8), np.float32)))
    session = gc.Session()
    found = []
    for rows in (10, 20):
        _, profile = profiled(session, y, {x: np.ones((rows, 32), np.float32)})
        (record,) = profile.kernels
        found.append((record.operations, record.bytes))
    assert found == [
        (2.0 * rows * 32 * 8, 4.0 * (rows * 32 + 32 * 8 + rows * 8)) for rows in (10, 20)
    ]
    assert session.compilations == 1


def test_elementwise_work():
    x = gc.placeholder(gc.float64, [1000])
    _, profile = profiled(gc.Session(), gc.reduce_sum(x * 2.0 + 1.0), {x: np.ones(1000)})
    (record,) = profile.kernels
    assert record.bytes == 8 * 1000 + 8
    assert record.operations == 3 * 1000
    assert Peak(1e9, 1e12, 1).floor(record.operations, 0.0, width=8) == 6e-6


def test_rows_that_are_not_read_do_not_count():
    table = gc.placeholder(gc.float32, [10_000, 16])
    rows = gc.gather(table, [3, 5])
    _, profile = profiled(gc.Session(), rows, {table: np.ones((10_000, 16), np.float32)})
    (record,) = profile.kernels
    assert record.bytes <= 4 * (2 * 2 * 16) + 8 * 2 * 16


def test_loops():
    x = gc.placeholder(gc.float32, [8, 8])
    n = gc.placeholder(gc.int32, [])
    loop = gc.while_loop(
        lambda i, _: i < n, lambda i, z: (i + 1, gc.tanh(gc.matmul(z, z))), [0, x]
    )
    session, feeds = gc.Session(), {x: np.eye(8, dtype=np.float32), n: 50}
    expected = session.run(loop, feeds)
    value, profile = profiled(session, loop, feeds)
    assert value[1].tobytes() == expected[1].tobytes()
    holds(profile)
    by_kind = {r.kind: r for r in profile.records}
    (product,) = (r for r in profile.kernels if any("MatMul" in name for name in r.ops))
    assert product.calls == 50
    assert by_kind["loop"].calls == 1
    assert by_kind["loop"].time >= product.time
    assert sorted({r.calls for r in profile.kernels}) in ([50, 51], [1, 50, 51])


def test_events_are_bounded_and_counts_are_not(monkeypatch):
    monkeypatch.setattr(tracing, "MOST_EVENTS", 10)
    loop = gc.while_loop(lambda i: i < 1000, lambda i: i + 1, [0])
    _, profile = profiled(gc.Session(), loop)
    assert max(r.calls for r in profile.kernels) >= 1000
    events = [e for e in profile.chrome_trace()["traceEvents"] if e["ph"] == "X"]
    assert len(events) == 10
    assert profile.dropped == sum(r.calls for r in profile.records) - 10
    assert f"{profile.dropped} calls are counted" in str(profile)


@pytest.mark.parametrize("flag", [True, False])
def test_branches(flag):
    p = gc.placeholder(gc.bool, [])
    x = gc.placeholder(gc.float32, [64, 64])
    y = gc.cond(p, lambda: gc.matmul(x, x, name="taken"), lambda: gc.matmul(x, x + 1.0, name="not"))
    feeds = {p: flag, x: np.ones((64, 64), np.float32)}
    session = gc.Session()
    value, profile = profiled(session, y, feeds)
    np.testing.assert_array_equal(value, session.run(y, feeds))
    holds(profile)
    done = {name for r in profile.kernels for name in r.ops}
    assert ("cond/taken" in done, "cond/not" in done) == (flag, not flag)


def test_host_steps():
    x = gc.placeholder(gc.float32, [4])
    y = gc.py_func(lambda a: a + 1, [x * 2.0], gc.float32, name="python")
    value, profile = profiled(gc.Session(), y, {x: np.arange(4, dtype=np.float32)})
    assert value.tolist() == [1.0, 3.0, 5.0, 7.0]
    (host,) = (r for r in profile.records if r.kind == "host")
    assert host.calls == 1
    assert "python" in host.ops
    holds(profile)


def test_sizes_that_a_run_decides():
    x = gc.placeholder(gc.float32, [None])
    y = gc.reduce_sum(gc.boolean_mask(x, x > 0) * 3.0)
    value, profile = profiled(gc.Session(), y, {x: np.array([1, -1, 2], np.float32)})
    assert value == 9
    holds(profile)
    assert {"kernel", "sizes"} <= {r.kind for r in profile.records}


def test_a_run_that_fails_has_no_profile():
    table = gc.placeholder(gc.float32, [4, 2])
    i = gc.placeholder(gc.int32, [1])
    y = gc.gather(table, i)
    session, metadata = gc.Session(), gc.RunMetadata()
    with pytest.raises(InvalidArgumentError, match="9 is not in"):
        session.run(y, {table: np.ones((4, 2)), i: [9]}, TRACE, metadata)
    assert metadata.profile is None
    _, profile = profiled(session, y, {table: np.ones((4, 2)), i: [1]})
    holds(profile)


def test_a_run_without_a_program():
    x = gc.placeholder(gc.float32, [2])
    value, profile = profiled(gc.Session(), x, {x: [1, 2]})
    assert value.tolist() == [1.0, 2.0]
    assert (profile.records, profile.total) == ([], 0.0)


def test_runs_of_other_threads_are_not_counted():
    x = gc.placeholder(gc.float32, [256, 256])
    y = gc.matmul(x, x)
    session, array = gc.Session(), np.eye(256, dtype=np.float32)
    session.run(y, {x: array})
    stop, wrong = threading.Event(), []

    def work() -> None:
        while not stop.is_set():
            if not np.array_equal(session.run(y, {x: array}), array):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for t in threads:
        t.start()
    try:
        for _ in range(30):
            value, profile = profiled(session, y, {x: array})
            assert [r.calls for r in profile.kernels] == [1]
            np.testing.assert_array_equal(value, array)
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_can_trace_what_its_parent_is_tracing():
    x = gc.placeholder(gc.float32, [4])
    inside, go_on = threading.Event(), threading.Event()
    parent = os.getpid()

    def wait(a):
        if os.getpid() == parent:
            inside.set()
            go_on.wait(30)
        return a

    y, session = gc.py_func(wait, [x], gc.float32), gc.Session()
    thread = threading.Thread(target=profiled, args=(session, y, {x: np.ones(4)}))
    thread.start()
    try:
        assert inside.wait(30)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            try:
                _, profile = profiled(session, y, {x: np.ones(4)})
                calls = [r.calls for r in profile.records if r.kind == "host"]
                os._exit(0 if calls == [1] else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        go_on.set()
        thread.join()


def test_any_number_of_threads_gives_the_same_bits():
    x = gc.placeholder(gc.float32, [300, 300])
    y = gc.nn.softmax(gc.matmul(x, x))
    array = np.random.RandomState(2).randn(300, 300).astype(np.float32)
    session, before = gc.Session(), gc.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            gc.set_num_threads(threads)
            value, profile = profiled(session, y, {x: array})
            assert profile.threads == threads
            found.append(value.tobytes())
    finally:
        gc.set_num_threads(before)
    assert found == [session.run(y, {x: array}).tobytes()] * 2


def test_the_table(monkeypatch):
    monkeypatch.setattr(Profile, "peak", Peak(1e12, 1e11, 2))
    x, loss, step, _ = network()
    _, profile = profiled(session_of(), [loss, step], {x: np.ones((16, 64), np.float32)})
    head, columns, *rows = str(profile).splitlines()
    assert "2 threads, 1000 GFLOP/s and 100 GB/s at most" in head or "1000 GFLOP/s" in head
    assert columns.split() == [
        "step", "calls", "time", "share", "of", "floor", "operations", "bytes", "ops"
    ]
    assert len(rows) == len(profile.records)
    assert any("product" in row for row in rows)


def test_numbers_in_the_table():
    times = [seconds(s) for s in (2.5, 1.25e-3, 9.5e-7, 0.0)]
    assert times == ["2.5 s", "1.25 ms", "950 ns", "0 ns"]
    assert [amount(v) for v in (0, 7, 1234, 2.5e9)] == ["", "7", "1.23k", "2.5G"]


def test_the_trace(tmp_path):
    x, loss, step, _ = network()
    loop = gc.while_loop(lambda i: i < 3, lambda i: i + 1, [0])
    _, profile = profiled(
        session_of(), [loss, step, loop], {x: np.ones((16, 64), np.float32)}
    )
    path = tmp_path / "trace.json"
    given = profile.chrome_trace(path)
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read == given
    events = read["traceEvents"]
    assert {e["name"] for e in events if e["ph"] == "M"} == {"process_name", "thread_name"}
    calls = [e for e in events if e["ph"] == "X"]
    assert len(calls) == sum(r.calls for r in profile.records)
    for e in calls:
        assert {"name", "cat", "ts", "dur", "pid", "tid", "args"} <= e.keys()
        assert 0 <= e["ts"] <= e["ts"] + e["dur"] <= profile.total * 1e6 + 1e-3
    (around,) = (e for e in calls if e["cat"] == "loop")
    kernels = [e for e in calls if e["cat"] == "kernel"]
    inside = [e for e in kernels if "while/" in e["args"]["ops"]]
    assert len(inside) == 4 + 3
    for e in inside:
        assert around["ts"] <= e["ts"]
        assert e["ts"] + e["dur"] <= around["ts"] + around["dur"] + 1e-3


@pytest.mark.parametrize("level", ["SOFTWARE_TRACE", "HARDWARE_TRACE", "FULL_TRACE"])
def test_levels_of_tensorflow(level):
    options = gc.RunOptions(trace_level=getattr(gc.RunOptions, level))
    x = gc.placeholder(gc.float32, [2])
    _, profile = profiled(gc.Session(), x + 1.0, {x: [1, 2]}, options)
    assert len(profile.kernels) == 1
    assert gc.RunOptions(trace=True).trace_level == gc.RunOptions.FULL_TRACE


@pytest.mark.parametrize("own", [False, True])
def test_callables_take_options(own):
    x = gc.placeholder(gc.float32, [2])
    out = np.zeros(2, np.float32) if own else None
    session = gc.Session()
    call = session.make_callable(x + 1.0, [x], accept_options=True, out=out)
    fed = np.array([1, 2], np.float32)
    for _ in range(3):
        assert call(fed).tolist() == [2.0, 3.0]
        metadata = gc.RunMetadata()
        value = call(fed + 1, options=TRACE, run_metadata=metadata)
        assert value.tolist() == [3.0, 4.0]
        assert (value is out) == own
        assert [r.calls for r in metadata.profile.kernels] == [1]
    with pytest.raises(TypeError, match="options must be RunOptions"):
        call(fed, options=3)
    with pytest.raises(TypeError, match="unexpected keyword"):
        call(fed, option=TRACE)


def test_bad_options():
    x, session = gc.constant(1.0), gc.Session()
    with pytest.raises(TypeError, match="options must be RunOptions, not dict"):
        session.run(x, options={"trace": True})
    with pytest.raises(TypeError, match="run_metadata must be RunMetadata, not list"):
        session.run(x, options=TRACE, run_metadata=[])
    with pytest.raises(ValueError, match=r"trace_level must be NO_TRACE .* not 7"):
        session.run(x, options=gc.RunOptions(trace_level=7))
    for mode in ("eager", "reference"):
        with pytest.raises(UnimplementedError, match=f"not of '{mode}'"):
            gc.Session(mode=mode).run(x, options=TRACE)


def test_the_peak_is_measured_once():
    peak = machine_peak(gc.get_num_threads())
    assert peak is machine_peak(gc.get_num_threads())
    # Any machine of this century, and none of this one.
    assert 1e9 < peak.flops < 1e15
    assert 1e8 < peak.bandwidth < 1e13
    assert peak.floor(peak.flops, 0.0) == pytest.approx(1.0)
    assert peak.floor(0.0, 2 * peak.bandwidth) == pytest.approx(2.0)
