"""Traced runs on a device: what each kernel took by the device's own clock."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cuda_support import has_compiler

import graphc as gc
from graphc import errors, placement
from graphc.__main__ import main
from graphc.runtime import cuda_trace

pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
X = np.random.default_rng(4).standard_normal((5, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


def traced(session, fetches, feeds):
    metadata = gc.RunMetadata()
    values = session.run(fetches, feeds, gc.RunOptions(trace=True), metadata)
    return values, metadata.profile


def test_a_traced_run_tells_of_its_kernels(late):
    x = gc.placeholder(gc.float32, [None, 8], name="x")
    w = gc.Variable(np.ones((8, 3), np.float32))
    y = gc.nn.softmax(gc.matmul(x, w, name="product"), name="y")
    add = gc.assign_add(w, gc.ones([8, 3]))
    with gc.Session(device=late) as session:
        session.run(w.initializer)
        for _ in range(3):
            plain = session.run(y, {x: X})
        found, profile = traced(session, [y, add.op], {x: X})
        np.testing.assert_array_equal(found[0], plain)
        ops = {name for r in profile.kernels for name in r.ops}
        assert {"product", "y"} <= ops
        assert all(r.calls == 1 and r.time > 0 for r in profile.kernels)
        assert profile.total >= max(r.time for r in profile.kernels)
        assert sum(r.operations for r in profile.kernels) > 2 * 5 * 8 * 3
        head = str(profile).splitlines()[0]
        assert "cuda:0 (sm_80), 1 GFLOP/s and 1 GB/s at most" in head
        # Runs before and behind it are replayed as ever, and the variable changed once in each.
        graphs = late.graphs
        np.testing.assert_array_equal(session.run(w), np.full((8, 3), 2.0))
        session.run(y, {x: X})
        assert late.graphs > graphs


def test_loops_are_traced_turn_by_turn(late, tmp_path):
    x = gc.placeholder(gc.float32, [None])
    _, last = gc.while_loop(
        lambda k, _: k < 4, lambda k, a: (k + 1, gc.cumsum(a)), [gc.constant(0), x]
    )
    with gc.Session(device=late) as session:
        _, profile = traced(session, last, {x: [1, 2, 3]})
        (loop,) = [r for r in profile.records if r.kind == "loop"]
        assert loop.calls == 1
        # The host counts, and tests the condition a fifth time.
        assert [r.calls for r in profile.kernels if r.calls] == [4]
        assert loop.time >= sum(r.time for r in profile.records if not r.nested) * 0.5
        trace = profile.chrome_trace(tmp_path / "trace.json")
        assert json.loads((tmp_path / "trace.json").read_text()) == trace
        events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
        assert min(e["ts"] for e in events) == 0
        assert all(e["dur"] >= 0 for e in events)


def test_events_that_are_too_many_are_counted(late, monkeypatch):
    monkeypatch.setattr(cuda_trace, "MOST_EVENTS", 3)
    x = gc.placeholder(gc.float32, [None])
    _, last = gc.while_loop(
        lambda k, _: k < 9, lambda k, a: (k + 1, gc.cumsum(a)), [gc.constant(0), x]
    )
    with gc.Session(device=late) as session:
        _, profile = traced(session, last, {x: [1, 2, 3]})
    assert profile.dropped > 10
    assert "counted but are not among the events" in str(profile)


def test_a_traced_run_that_fails(late):
    at = gc.placeholder(gc.int32, [None])
    y = gc.gather(gc.constant([1.0, 2.0]), at)
    with gc.Session(device=late) as session:
        with pytest.raises(errors.InvalidArgumentError, match="is not in"):
            traced(session, y, {at: [7]})
        found, profile = traced(session, y, {at: [1, 0]})
        assert found.tolist() == [2, 1]
        assert profile.kernels


def test_the_command_line_profiles_a_device(late, tmp_path, capsys, monkeypatch):
    x = gc.placeholder(gc.float32, [None, 8], name="x")
    with gc.Session() as session:
        gc.save(tmp_path / "m.graphc", session, {"x": x}, {"y": gc.nn.softmax(x, name="soft")})
    np.save(tmp_path / "x.npy", X)
    monkeypatch.setattr(placement, "cuda_device", lambda number=None: late)
    command = ["profile", str(tmp_path / "m.graphc"), "--feed", f"x={tmp_path / 'x.npy'}"]
    trace = tmp_path / "trace.json"
    assert main([*command, "--runs", "2", "--device", "cuda", "--trace", str(trace)]) == 0
    out = capsys.readouterr().out
    assert "cuda:0 (sm_80)" in out
    assert "soft" in out
    assert trace.exists()
    assert main([*command, "--device", "tpu"]) == 1
    assert "device must be 'cpu' or 'cuda'" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["eager", "reference"])
def test_the_other_modes_say_that_they_run_on_the_cpu(mode, late):
    with pytest.raises(errors.GraphError, match=f"mode '{mode}' runs on device 'cpu' only"):
        gc.Session(device=late, mode=mode)
