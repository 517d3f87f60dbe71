"""Runs that are recorded once and replayed: they give what the first run gave, faults and all."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_support import ShimDevice, ShimFault, has_compiler

import graphc as gc
from graphc import errors
from graphc.runtime import cuda_memory
from graphc.runtime.cuda_device import CaptureError

pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
RNG = np.random.default_rng(3)
TURNS = 5


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


def test_a_training_step_is_replayed_and_is_that_of_the_cpu(late):
    x = gc.placeholder(gc.float32, [None, 20])
    w = gc.Variable(gc.random_normal([20, 3], seed=4))
    noise = gc.random_uniform([3], seed=7)
    loss = gc.reduce_mean(gc.square(gc.nn.softmax(gc.matmul(x, w) + noise) - 0.5))
    step = gc.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
    initialize = gc.global_variables_initializer()
    batches = RNG.standard_normal((TURNS, 9, 20)).astype(np.float32)
    results = []
    for place in ("cpu", late):
        with gc.Session(device=place) as session:
            session.run(initialize)
            losses = [session.run([step, loss], {x: b})[1] for b in batches]
            results.append([*losses, *session.run([w, noise])])
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert late.graphs == TURNS - 1
    assert len(late.texts) == 3


def test_sizes_have_recordings_of_their_own(late):
    x = gc.placeholder(gc.float32, [None])
    y, total = gc.cumsum(x) + 1.0, gc.reduce_sum(x)
    with gc.Session(device=late) as session:
        for _ in range(3):
            for n in (4, 9, 0, 1):
                values = RNG.integers(-9, 9, n).astype(np.float32)
                found, added = session.run([y, total], {x: values})
                np.testing.assert_array_equal(found, np.cumsum(values) + 1.0)
                assert added == values.sum()
                assert isinstance(added, np.float32)
        assert session.compilations == 1


def test_more_sizes_than_are_kept(late, monkeypatch):
    monkeypatch.setattr("graphc.runtime.cuda.MOST_REPLAYS", 2)
    x = gc.placeholder(gc.float32, [None])
    with gc.Session(device=late) as session:
        y = x * 2.0
        for n in (1, 2, 3, 1, 2, 3, 1, 2, 3):
            assert session.run(y, {x: np.full(n, n, np.float32)}).tolist() == [2.0 * n] * n
        (single,) = [p.single for p in session._plans.values()][:1]
        assert len(single._replays) == 2


def test_results_of_one_run_are_not_overwritten_by_the_next(late):
    x = gc.placeholder(gc.float32, [None])
    y = x + 1.0
    with gc.Session(device=late) as session:
        kept = [session.run(y, {x: np.full(30_000, k, np.float32)}) for k in range(TURNS)]
        kept += [session.run(y, {x: np.full(30, k, np.float32)}) for k in range(TURNS)]
    for k, array in enumerate(kept):
        assert (array == k % TURNS + 1).all()
        assert array.flags.owndata


def test_feeds_may_change_as_soon_as_a_run_returns(late, monkeypatch):
    """Nothing waits for a run without fetches; pinned pieces are used again in their turn."""
    monkeypatch.setattr(cuda_memory, "PIECE", 64)
    x = gc.placeholder(gc.float32, [200])
    v = gc.Variable(np.zeros(200, np.float32))
    add = gc.assign_add(v, x).op
    values = np.zeros(200, np.float32)
    with gc.Session(device=late) as session:
        session.run(v.initializer)
        waits = late.waits
        for k in range(1, TURNS + 1):
            values[:] = k
            session.run(add, {x: values})
            values[:] = np.nan
        assert late.waits == waits
        assert session.run(v).tolist() == [15.0] * 200
        assert 1 < len(session._state.staging._pieces) <= cuda_memory.PIECES


def test_feeds_of_many_pieces_and_kinds(late, monkeypatch):
    monkeypatch.setattr(cuda_memory, "PIECE", 64)
    plain = RNG.standard_normal((9, 30)).astype(np.float32)
    fixed = plain.copy()
    fixed.flags.writeable = False
    x = gc.placeholder(gc.float32, [None, 30])
    y = x * 2.0
    with gc.Session(device=late) as session:
        matrix = plain.view(np.matrix)
        kinds = [plain, matrix, fixed, plain[::-1], np.asfortranarray(plain), plain.tolist()]
        for _ in range(2):
            for value in kinds:
                np.testing.assert_array_equal(session.run(y, {x: value}), 2 * np.asarray(value))
    b = gc.placeholder(gc.bfloat16, [None])
    with gc.Session(device=late) as session:
        for _ in range(3):
            found = session.run(b + b, {b: plain[0].astype(b.dtype.as_numpy_dtype)})
            assert found.dtype == b.dtype.as_numpy_dtype


def test_a_failure_of_a_replay_names_the_operation_and_changes_nothing(late):
    v = gc.Variable(np.arange(4, dtype=np.float32))
    at = gc.placeholder(gc.int32, [2])
    picked = gc.gather(v, at, name="picked")
    change = gc.assign_add(v, gc.fill([4], gc.reduce_sum(picked)))
    with gc.Session(device=late) as session:
        session.run(v.initializer)
        for _ in range(3):
            before = session.run(v)
            session.run(change.op, {at: [0, 1]})
            for _ in range(2):
                with pytest.raises(errors.InvalidArgumentError, match=r"= 4 is not in") as caught:
                    session.run(change.op, {at: [1, 4]})
                assert caught.value.op is picked.op
                assert "test_replay.py" in str(caught.value)
            after = session.run(v)
            np.testing.assert_array_equal(after, before + before[0] + before[1])
        assert late.graphs > 4


def test_a_run_without_a_change_fails_likewise(late):
    x, y = gc.placeholder(gc.int32, [None]), gc.placeholder(gc.int32, [None])
    z = gc.floordiv(x, y)
    with gc.Session(device=late) as session:
        for _ in range(4):
            assert session.run(z, {x: [7, 9], y: [2, 3]}).tolist() == [3, 3]
            with pytest.raises(errors.InvalidArgumentError, match="zero"):
                session.run(z, {x: [7, 9], y: [2, 0]})
            with pytest.raises(errors.InvalidArgumentError, match="zero"):
                session.run(z.op, {x: [7, 9], y: [0, 0]})


def test_kernels_that_can_fail_are_not_waited_for_one_by_one(late):
    at = gc.placeholder(gc.int32, [None])
    x = gc.placeholder(gc.float32, [None])
    y = x
    for _ in range(6):
        y = gc.cumsum(gc.gather(y, at))
    with gc.Session(device=late) as session:
        feeds = {at: [2, 1, 0], x: [1, 2, 3]}
        first = session.run(y, feeds)
        waits = late.waits
        np.testing.assert_array_equal(session.run(y, feeds), first)
        assert late.waits <= waits + 1
        with pytest.raises(errors.InvalidArgumentError, match="= 3 is not in"):
            session.run(y, feeds | {at: [0, 0, 3]})


@pytest.mark.parametrize("what", ["loop", "size", "host", "shape"])
def test_what_the_host_decides_is_not_recorded(what, late):
    x = gc.placeholder(gc.float32, [None])
    v = gc.Variable(np.zeros(2, np.float32), validate_shape=False)
    fetch = {
        "loop": lambda: gc.while_loop(lambda a: gc.reduce_sum(a) < 9.0, lambda a: a * 2.0, [x]),
        "size": lambda: gc.boolean_mask(x, x > 1.0),
        "host": lambda: gc.py_func(lambda a: a, [x], gc.float32),
        "shape": lambda: gc.assign(v, x, validate_shape=False),
    }[what]()
    with gc.Session(device=late) as session:
        session.run(v.initializer)
        graphs = late.graphs
        first = session.run(fetch, {x: [1, 2, 3]})
        for _ in range(3):
            np.testing.assert_array_equal(session.run(fetch, {x: [1, 2, 3]}), first)
        assert late.graphs == graphs


def test_what_cannot_be_recorded_runs_step_by_step(late, monkeypatch):
    def refuse():
        ShimDevice.end_capture(late)
        raise CaptureError("not today")

    monkeypatch.setattr(late, "end_capture", refuse)
    x = gc.placeholder(gc.float32, [3])
    with gc.Session(device=late) as session:
        y = gc.cumsum(x)
        for _ in range(4):
            assert session.run(y, {x: [1, 2, 3]}).tolist() == [1, 3, 6]
    assert not late.graphs


def test_an_exception_while_recording_ends_the_capture(late, monkeypatch):
    x = gc.placeholder(gc.float32, [3])
    with gc.Session(device=late) as session:
        y = gc.cumsum(x)
        session.run(y, {x: [1, 2, 3]})
        launch = late.launch

        def interrupted(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr(late, "launch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.run(y, {x: [1, 2, 3]})
        monkeypatch.setattr(late, "launch", launch)
        for _ in range(3):
            assert session.run(y, {x: [1, 2, 3]}).tolist() == [1, 3, 6]
        assert late.graphs == 3


@pytest.mark.parametrize(
    ("name", "work"),
    [
        ("waits", lambda d, m: d.wait()),
        ("waits", lambda d, m: d.read(m.address, np.zeros(4, np.uint8))),
        ("copies from memory that may", lambda d, m: d.write(m.address, np.zeros(4, np.uint8))),
        ("allocates", lambda d, m: d.allocate(4)),
        ("begins another", lambda d, m: d.begin_capture()),
        ("waits for an event", lambda d, m: d.event().wait()),
    ],
)
def test_the_device_refuses_what_cuda_refuses_in_a_capture(name, work):
    device = ShimDevice()
    memory = device.allocate(4)
    device.begin_capture()
    with pytest.raises(ShimFault, match=name):
        work(device, memory)
    device.clear(memory.address, 4)
    assert memory.data[0] == 0xFF  # it was recorded, and not done
    graph = device.end_capture()
    graph.launch()
    assert memory.data[0] == 0
    del memory
    with pytest.raises(ShimFault, match="has been freed"):
        graph.launch()
