"""Threads, processes and forks: right answers, exact counts, the same bits."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.graph import Graph
from graphc.ops.contraction_functions import matmul

THREADS, RUNS = 4, 200


def in_threads(work, count: int = THREADS) -> list[BaseException]:
    """Run ``work(k)`` in threads of their own; what they raised."""
    raised: list[BaseException] = []

    def guarded(k: int) -> None:
        try:
            work(k)
        except BaseException as e:  # noqa: BLE001 - reported by the test
            raised.append(e)

    threads = [threading.Thread(target=guarded, args=(k,)) for k in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not any(t.is_alive() for t in threads)
    return raised


@pytest.mark.parametrize("size", [3, 300_000])
def test_many_threads_share_a_session_without_state(size):
    with Graph().as_default(), gc.Session() as session:
        x = gc.placeholder(gc.float32, [None])
        fetches = [x * 2.0 + 1.0, gc.reduce_sum(x)]

        def work(k: int) -> None:
            data = np.full(size + k, k, np.float32)
            for _ in range(20 if size > 1000 else RUNS):
                doubled, total = session.run(fetches, {x: data})
                assert doubled.shape == data.shape
                assert (doubled == 2 * k + 1).all()
                assert total == k * len(data)

        assert in_threads(work) == []
        assert session.compilations == 1


@pytest.mark.parametrize("size", [1, 1000, 200_000])
def test_a_counter_reaches_the_exact_total(size):
    runs = RUNS if size <= 1000 else 25
    with Graph().as_default(), gc.Session() as session:
        v = gc.Variable(np.zeros(size, np.float32))
        add = v.assign_add(np.ones(size, np.float32))
        session.run(v.initializer)
        seen: list[float] = []

        def work(k: int) -> None:
            for _ in range(runs):
                value = session.run(add)
                assert (value == value[0]).all()
                seen.append(float(value[0]))

        assert in_threads(work) == []
        assert (session.run(v) == THREADS * runs).all()
        assert sorted(seen) == list(range(1, THREADS * runs + 1))


def test_threads_that_compile_different_things_at_once():
    with Graph().as_default(), gc.Session() as session:
        x = gc.placeholder(gc.float32, [None])
        v = gc.Variable(1.0)
        session.run(v.initializer)
        fetches = [x * float(k) + v for k in range(2, 8)]

        def work(k: int) -> None:
            for i in range(30):
                n = (i + k) % len(fetches)
                found = session.run(fetches[n], {x: [1.0, 2.0]})
                np.testing.assert_array_equal(found, np.float32([1, 2]) * (n + 2) + 1)

        assert in_threads(work) == []
        assert session.compilations == len(fetches) + 1


def test_sizes_that_the_state_decides_are_consistent_between_threads():
    with Graph().as_default(), gc.Session() as session:
        v = gc.Variable(1)
        grow = v.assign(v % 7 + 1)
        rows = gc.fill([v.read_value()], 1.0)
        both = [gc.shape(rows)[0], v.read_value(), rows]
        session.run(v.initializer)

        def work(k: int) -> None:
            for _ in range(RUNS):
                if k % 2:
                    session.run(grow.op)
                else:
                    size, value, found = session.run(both)
                    assert size == value == len(found)

        assert in_threads(work) == []


def test_shape_changes_and_reads_in_threads():
    with Graph().as_default(), gc.Session() as session:
        v = gc.Variable(np.ones(1, np.float32), validate_shape=False)
        x = gc.placeholder(gc.float32, [None])
        change = gc.assign(v, x, validate_shape=False)
        session.run(v.initializer)

        def work(k: int) -> None:
            for i in range(60):
                if k == 0:
                    session.run(change.op, {x: np.ones(1 + i % 5)})
                else:
                    total, size = session.run([gc_total, gc_size])
                    assert total == size

        gc_total, gc_size = gc.reduce_sum(v), gc.cast(gc.size(v), gc.float32)
        assert in_threads(work, 3) == []


def test_counts_stay_exact_while_another_variable_moves():
    with Graph().as_default(), gc.Session() as session:
        v = gc.Variable(np.ones(1, np.float32), validate_shape=False)
        w = gc.Variable(np.zeros(5, np.float32), validate_shape=False)
        x = gc.placeholder(gc.float32, [None])
        change = gc.assign(v, x, validate_shape=False)
        add = w.assign_add(np.ones(5, np.float32))
        both = gc.assign(w, gc.concat([w, w[-1:]], 0), validate_shape=False)
        session.run([v.initializer, w.initializer])

        def work(k: int) -> None:
            for i in range(40):
                if k == 0:
                    session.run(change.op, {x: np.ones(1 + i % 5)})
                else:
                    session.run(add.op)

        assert in_threads(work) == []
        assert session.run(w).tolist() == [3.0 * 40] * 5
        session.run(both.op)
        assert session.run(w).shape == (6,)


# --- the same bits --------------------------------------------------------------------------------


def workloads() -> list[np.ndarray]:
    """Large products, reductions, softmax and convolutions, forward and backward."""
    rng = np.random.default_rng(0)
    found: list[np.ndarray] = []
    with Graph().as_default(), gc.Session() as session:
        gc.set_random_seed(1)
        a, b = gc.placeholder(gc.float32, [None, 700]), gc.placeholder(gc.float32, [700, 310])
        feeds = {a: rng.normal(size=(513, 700)), b: rng.normal(size=(700, 310))}
        y = nn.relu(matmul(a, b))
        fetches = [
            y, gc.reduce_sum(y), gc.reduce_mean(y, 0), gc.reduce_max(y, 1), nn.softmax(y),
            gc.reduce_sum(gc.square(y), 1),
            *gc.gradients(gc.reduce_mean(nn.log_softmax(y)), [a, b]),
        ]  # fmt: skip
        image = gc.placeholder(gc.float32, [None, 28, 28, 3])
        kernel = gc.Variable(rng.normal(size=(5, 5, 3, 16)).astype("f"))
        feeds[image] = rng.normal(size=(9, 28, 28, 3))
        z = nn.max_pool(
            nn.relu(nn.conv2d(image, kernel, strides=[1, 1, 1, 1], padding="SAME")),
            [1, 2, 2, 1], [1, 2, 2, 1], "VALID",
        )  # fmt: skip
        loss = gc.reduce_mean(z * gc.random_uniform(gc.shape(z)))
        step = gc.train.AdamOptimizer(0.1).minimize(loss)
        session.run(gc.global_variables_initializer())
        found += session.run(fetches, feeds)
        for _ in range(3):
            found += session.run([z, loss, step], feeds)[:2]
        found.append(session.run(kernel))
        long = gc.placeholder(gc.float32, [None])
        data = {long: rng.normal(size=1_000_003)}
        found += session.run([gc.reduce_sum(long), gc.reduce_max(gc.exp(long)), long * 3 + 1], data)
    return found


def digest(arrays: list[np.ndarray]) -> str:
    total = hashlib.sha256()
    for a in arrays:
        total.update(np.ascontiguousarray(a).tobytes())
    return total.hexdigest()


def test_any_number_of_threads_gives_the_same_bits():
    before = gc.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3, 1):
            gc.set_num_threads(threads)
            found.append(workloads())
    finally:
        gc.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_another_process_gives_the_same_bits():
    here = digest(workloads())
    script = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('w', {__file__!r})\n"
        "m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)\n"
        "print(m.digest(m.workloads()))\n"
    )
    for extra in ({"GRAPHC_NUM_THREADS": "1"}, {"PYTHONHASHSEED": "7"}):
        environment = dict(os.environ, **extra, PYTHONPATH=str(Path(gc.__file__).parents[1]))
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.stdout.strip() == here, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_session_goes_on_in_a_forked_child():
    with Graph().as_default(), gc.Session() as session:
        x = gc.placeholder(gc.float32, [None, 300])
        v = gc.Variable(np.ones((300, 300), np.float32))
        y = matmul(x, v)
        update = v.assign_add(v)
        session.run(v.initializer)
        data = np.ones((200, 300), np.float32)
        assert session.run(y, {x: data})[0, 0] == 300
        stop = threading.Event()

        def busy() -> None:
            while not stop.is_set():
                session.run(y, {x: data})

        thread = threading.Thread(target=busy)
        thread.start()
        try:
            child = os.fork()
            if child == 0:
                session.run(update.op)
                right = session.run(y, {x: data})[0, 0] == 600
                fresh = session.run(y * 2.0, {x: data})[0, 0] == 1200
                os._exit(0 if right and fresh else 1)
            assert wait(child) == 0
        finally:
            stop.set()
            thread.join()
        assert session.run(y, {x: data})[0, 0] == 300


def wait(child: int, seconds: float = 60) -> int | None:
    """The child's exit status; None if it did not end in time."""
    done = threading.Event()
    status: list[int] = []

    def waiting() -> None:
        status.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        done.set()

    threading.Thread(target=waiting, daemon=True).start()
    if not done.wait(seconds):
        os.kill(child, 9)
        done.wait(10)
        return None
    return status[0]
