"""Loops and branches in recorded runs: which way they go, the host knows by itself."""

from __future__ import annotations

import numpy as np
import pytest
from control_graphs import SIZE, control
from cuda_support import LateDevice, has_compiler
from hypothesis import HealthCheck, Phase, given, seed, settings

import graphc as gc
from graphc import errors

pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
QUIET = settings(suppress_health_check=list(HealthCheck), deadline=None, phases=PHASES)
SHARDS = [8000, *(pytest.param(8000 + k, marks=pytest.mark.slow) for k in range(1, 4))]
RUNS = 4
X = np.random.default_rng(8).standard_normal((3, 4, 5)).astype(np.float32)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


def runs(device, fetches, feeds, count=RUNS):
    """What several runs give, with the graphs that were launched in each; checked by the CPU's."""
    launched = []
    both = []
    for place in ("cpu", device):
        with gc.Session(device=place) as session:
            session.run(gc.global_variables_initializer())
            found = []
            for k in range(count):
                before = device.graphs
                found.append(session.run(fetches, feeds[k % len(feeds)]))
                launched.append(device.graphs - before)
            both.append(found)
    for wanted, got in zip(*both, strict=True):
        for a, b in zip(wanted, got, strict=True):
            np.testing.assert_allclose(b, a, rtol=2e-5, atol=1e-6)
    return launched[count:]


def test_a_training_step_of_a_recurrent_network_is_recorded(late):
    x = gc.placeholder(gc.float32, [None, 4, 5])
    outputs, _ = gc.nn.dynamic_rnn(gc.nn.rnn_cell.LSTMCell(3), x, dtype=gc.float32)
    loss = gc.reduce_mean(gc.square(outputs - 0.5))
    step = gc.train.GradientDescentOptimizer(0.3).minimize(loss)
    with gc.control_dependencies([step]):
        last = gc.identity(loss)
    assert runs(late, [last], [{x: X}], 4) == [0, 2, 2, 2]


def test_what_turns_count_is_not_computed_on_the_device(late):
    x = gc.placeholder(gc.float32, [None])
    _, last = gc.while_loop(
        lambda k, _: k < 9, lambda k, a: (k + 1, a * 1.5), [gc.constant(0), x]
    )
    with gc.Session(device=late) as session:
        for _ in range(3):
            before = late.launches, late.downloads
            session.run(last, {x: [1.0, 2.0]})
            # A kernel for each turn and none for its number; the fetch alone is read.
            assert late.launches - before[0] == 9
            assert late.downloads - before[1] == 1


@pytest.mark.parametrize("turns", [0, 1, 6])
def test_nested_loops_branches_arrays_and_sizes_that_change(turns, late):
    x = gc.placeholder(gc.float32, [None])

    def turn(k, rows, kept, other):
        _, inner = gc.while_loop(
            lambda j, _: j < k, lambda j, a: (j + 1, gc.tanh(a + 0.1)), [gc.constant(0), x]
        )
        inner = gc.case([(gc.equal(k % 3, 0), lambda: inner * 2.0)], default=lambda: inner - 1.0)
        # The sizes of one variable grow, two others change places.
        return k + 1, gc.concat([rows, inner[:1]], 0), other.write(k % 2, inner), kept

    arrays = [gc.TensorArray(gc.float32, 2, element_shape=[None]).unstack([x, x + k])
              for k in range(2)]  # fmt: skip
    found = gc.while_loop(
        lambda k, *_: k < turns, turn, [gc.constant(0), gc.zeros([1]), *arrays],
        shape_invariants=[gc.TensorShape([]), gc.TensorShape([None]),
                          *(gc.TensorShape(None) for _ in range(2))],
    )  # fmt: skip
    fetches = [found[1], found[2].stack(), found[3].stack()]
    (slope,) = gc.gradients(gc.reduce_sum(gc.square(fetches[0])), [x])
    fetches.append(gc.convert_to_tensor(slope) if turns else x)
    feeds = [{x: X[0, 0]}, {x: X[0, 0, :3]}]
    assert runs(late, fetches, feeds, 8)[4:] == [1, 1, 1, 1]


def test_rows_that_are_not_aligned(late):
    x = gc.placeholder(gc.float32, [None, 4, 3])
    rows = gc.scan(lambda a, b: gc.tanh(a + b) * 1.5, gc.transpose(x, [1, 0, 2]))
    (slope,) = gc.gradients(gc.reduce_sum(rows * rows), [x])
    assert runs(late, [rows, slope], [{x: X[:1, :, :3]}, {x: X[:, :, :3]}], 8)[4:] == [1] * 4


def test_memory_does_not_grow_with_replays_nor_rows_with_turns_twice(late):
    x = gc.placeholder(gc.float32, [4096])
    rows = gc.while_loop(
        lambda k, *_: k < 16,
        lambda k, a, r: (k + 1, gc.sin(a), r.write(k, a)),
        [gc.constant(0), x, gc.TensorArray(gc.float32, 16)],
    )[2].stack()
    (slope,) = gc.gradients(gc.reduce_sum(rows * rows), [x])
    with gc.Session(device=late) as session:
        used = []
        for _ in range(5):
            session.run(slope.op, {x: np.ones(4096)})
            with late.active():
                late.wait()
            used.append(sum(m.nbytes for m in late.live))
    assert used[1] == used[-1]
    # 16 rows of the array, of its gradient, and of what a turn saves; little beside.
    assert used[-1] < 4 * 17 * 4 * 4096


def test_what_the_device_decides_is_read_back_in_every_turn(late):
    x = gc.placeholder(gc.float32, [None])
    count, last = gc.while_loop(
        lambda k, a: gc.reduce_sum(a) < 100.0, lambda k, a: (k + 1, a * 2.0), [gc.constant(0), x]
    )
    assert runs(late, [count, last], [{x: [1.0, 1.0]}], 4) == [0, 0, 0, 0]


def test_a_feed_that_decides_has_recordings_of_its_own(late):
    x = gc.placeholder(gc.float32, [None])
    training, turns = gc.placeholder(gc.bool, []), gc.placeholder(gc.int32, [])
    y = gc.cond(training, lambda: x * 2.0, lambda: x - 1.0)
    _, z = gc.while_loop(
        lambda k, _: k < turns, lambda k, a: (k + 1, gc.tanh(a)), [gc.constant(0), y]
    )
    feeds = [{x: X[0, 0], training: k % 2 == 0, turns: k} for k in range(3)]
    # Of three feeds the first tries to do without; then each is seen, recorded and replayed.
    launched = runs(late, [z], feeds, 15)
    assert launched[-6:] == [1] * 6
    assert launched[:3] == [0] * 3


def test_feeds_that_decide_nothing_are_no_part_of_it(late):
    x = gc.placeholder(gc.float32, [None])
    labels, turns = gc.placeholder(gc.int32, [3]), gc.placeholder(gc.int32, [])
    _, z = gc.while_loop(
        lambda k, _: k < turns, lambda k, a: (k + 1, gc.tanh(a)), [gc.constant(0), x]
    )
    picked = gc.gather(z, labels + 1)
    feeds = [{x: X[0, 0], labels: [k % 4, 0, 1], turns: 2} for k in range(8)]
    # Recorded in the fourth: the second finds out what decides, the third is seen.
    assert runs(late, [picked], feeds, 8) == [0, 0, 0, 1, 1, 1, 1, 1]


def test_more_feeds_that_decide_than_are_kept_are_not_recorded_in_vain(late, monkeypatch):
    monkeypatch.setattr("graphc.runtime.cuda.MOST_REPLAYS", 2)
    x, turns = gc.placeholder(gc.float32, [3]), gc.placeholder(gc.int32, [])
    _, z = gc.while_loop(lambda k, _: k < turns, lambda k, a: (k + 1, a + a), [gc.constant(0), x])
    recorded = []
    begin = type(late).begin_capture
    monkeypatch.setattr(
        type(late), "begin_capture", lambda self: (recorded.append(1), begin(self))[1]
    )
    with gc.Session(device=late) as session:
        for k in range(40):
            wanted = 2.0 ** (k % 5)
            assert session.run(z, {x: [1, 1, 1], turns: k % 5}).tolist() == [wanted] * 3
    assert len(recorded) < 8


def test_chains_of_any_length(late):
    n = gc.placeholder(gc.int32, [])
    a = n
    for i in range(600):
        a = gc.maximum(a, i) - n
    with gc.Session(device=late) as session, gc.Session() as there:
        for _ in range(3):
            assert session.run(a, {n: 3}) == there.run(a, {n: 3})


def test_a_feed_that_decides_may_be_on_the_device(late):
    x, turns = gc.placeholder(gc.float32, [3]), gc.placeholder(gc.int32, [])
    _, z = gc.while_loop(lambda k, _: k < turns, lambda k, a: (k + 1, a + a), [gc.constant(0), x])
    with gc.Session(device=late) as session:
        one = session.run(gc.constant(2) + 0, options=gc.RunOptions(fetch_on_device=True))
        for given in (one, 3, one, 3, one, 3, 2, one, 2, one):
            wanted = 2.0 ** (2 if given is one else given)
            assert session.run(z, {x: [1, 1, 1], turns: given}).tolist() == [wanted] * 3


def test_a_run_that_is_too_long_goes_step_by_step(late, monkeypatch):
    monkeypatch.setattr("graphc.runtime.cuda_recorded.MOST_NODES", 20)
    x = gc.placeholder(gc.float32, [2])
    for turns, wanted in ((8, [0, 1, 1]), (40, [0, 0, 0])):
        _, last = gc.while_loop(
            lambda k, _, n=turns: k < n, lambda k, a: (k + 1, gc.sin(a)), [gc.constant(0), x]
        )
        assert runs(late, [last], [{x: [1.0, 2.0]}], 3) == wanted


def test_a_failure_in_a_recorded_loop_names_the_operation_and_changes_nothing(late):
    v = gc.Variable(np.arange(4, dtype=np.float32))
    at = gc.placeholder(gc.int32, [100])
    total = gc.while_loop(
        lambda k, _: k < 3,
        lambda k, a: (k + 1, a + gc.reduce_sum(gc.gather(v, at[:2], name="picked"))),
        [gc.constant(0), gc.constant(0.0)],
    )[1]
    change = gc.assign_add(v, gc.fill([4], total))
    good, bad = np.zeros(100, np.int32), np.full(100, 9, np.int32)
    with gc.Session(device=late) as session:
        session.run(v.initializer)
        for turn in range(3):
            session.run(change.op, {at: good})
            before = session.run(v)
            with pytest.raises(errors.InvalidArgumentError, match="9 is not in") as caught:
                session.run(change.op, {at: bad})
            assert "picked" in caught.value.op.name
            np.testing.assert_array_equal(session.run(v), before)
            assert turn == 0 or late.graphs


def test_integers_that_the_host_computes_are_the_devices(late):
    """Wrapping, division, comparisons and small vectors, kept over turns and fetched."""
    x = gc.placeholder(gc.int32, [100])

    def turn(k, a, b, bits):
        big = a * 1103515245 + 12345
        return (
            k + 1, big, gc.stack([b[1], gc.floordiv(big, 7), gc.floormod(big, 11)]),
            gc.cast(big, gc.int64) * bits + gc.cast(k, gc.int64),
        )  # fmt: skip

    start = [gc.constant(0), gc.constant(17), gc.constant([1, 2, 3]), gc.constant(5, gc.int64)]
    found = gc.while_loop(
        lambda k, a, b, bits: gc.logical_and(k < 40, gc.not_equal(a, 0)), turn, start
    )
    picked = gc.gather(x, gc.floormod(found[2], 100))
    late.launches = 0
    fetches = [*found, picked, gc.reduce_sum(gc.cast(x, gc.float32))]
    assert runs(late, fetches, [{x: np.arange(100)}], 3) == [0, 1, 1]
    assert late.launches < 40


@pytest.mark.parametrize("shard", SHARDS)
def test_random_loops_and_branches_equal_the_reference(shard):
    device = LateDevice(both_orders=False)

    @seed(shard)
    @settings(QUIET, max_examples=6 if shard == 8000 else 40)
    @given(control())
    def run(case):
        both = []
        for options in ({"device": device}, {"mode": "reference"}):
            with gc.Session(graph=case.graph, **options) as session:
                session.run(case.variable.initializer)
                found = []
                for turn in range(8):
                    n, p = [(3, True), (1, False)][turn % 2]
                    x = np.sin(np.arange(SIZE) * 1.7 + turn) * 0.8
                    feeds = {case.x: x, case.n: n, case.p: p}
                    found += [*session.run(case.fetches, feeds), session.run(case.variable)]
                both.append(found)
        for a, b in zip(*both, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)

    run()
    assert device.graphs > 6
