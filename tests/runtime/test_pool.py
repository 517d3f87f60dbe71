"""The thread pool: every index once, the same results with any number of threads."""

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.runtime import jit, native

KERNELS = """
declare void @gc_parallel(ptr, ptr, ptr, i64, i64)
declare i32 @sched_yield()

; counts[i] += 1 and ends[begin] = end; arg is { ptr counts, ptr ends }
define void @count(ptr %arg, i64 %begin, i64 %end) {
entry:
  %counts = load ptr, ptr %arg
  %ends.at = getelementptr ptr, ptr %arg, i64 1
  %ends = load ptr, ptr %ends.at
  %chunk.at = getelementptr i64, ptr %ends, i64 %begin
  store i64 %end, ptr %chunk.at
  br label %each

each:
  %i = phi i64 [ %begin, %entry ], [ %next, %each ]
  %at = getelementptr i64, ptr %counts, i64 %i
  %ignored = atomicrmw add ptr %at, i64 1 monotonic
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %each, label %exit

exit:
  ret void
}

; partial[begin / grain] = the chunk's sum in order; arg is { ptr x, ptr partial, i64 grain }
define void @sum(ptr %arg, i64 %begin, i64 %end) {
entry:
  %x = load ptr, ptr %arg
  %partial.at = getelementptr ptr, ptr %arg, i64 1
  %partial = load ptr, ptr %partial.at
  %grain.at = getelementptr i64, ptr %arg, i64 2
  %grain = load i64, ptr %grain.at
  br label %each

each:
  %i = phi i64 [ %begin, %entry ], [ %next, %each ]
  %total = phi float [ 0.0, %entry ], [ %sum, %each ]
  %at = getelementptr float, ptr %x, i64 %i
  %value = load float, ptr %at
  %sum = fadd float %total, %value
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %each, label %exit

exit:
  %index = udiv i64 %begin, %grain
  %out = getelementptr float, ptr %partial, i64 %index
  store float %sum, ptr %out
  ret void
}

; Waits, for a while, until two threads are inside; arg is { i64 inside, i64 met }
define void @meet(ptr %arg, i64 %begin, i64 %end) {
entry:
  %ignored = atomicrmw add ptr %arg, i64 1 seq_cst
  br label %look

look:
  %tries = phi i64 [ 0, %entry ], [ %tried, %again ]
  %inside = load atomic i64, ptr %arg seq_cst, align 8
  %both = icmp sge i64 %inside, 2
  br i1 %both, label %met, label %again

again:
  %yielded = call i32 @sched_yield()
  %tried = add i64 %tries, 1
  %lost = icmp sgt i64 %tried, 5000000
  br i1 %lost, label %exit, label %look

met:
  %met.at = getelementptr i64, ptr %arg, i64 1
  %counted = atomicrmw add ptr %met.at, i64 1 seq_cst
  br label %exit

exit:
  ret void
}

; A parallel loop inside each chunk; arg is { ptr pool, ptr inner, i64 extent, i64 grain }
define void @nest(ptr %arg, i64 %begin, i64 %end) {
  %pool = load ptr, ptr %arg
  %inner.at = getelementptr ptr, ptr %arg, i64 1
  %inner = load ptr, ptr %inner.at
  %extent.at = getelementptr i64, ptr %arg, i64 2
  %extent = load i64, ptr %extent.at
  %grain.at = getelementptr i64, ptr %arg, i64 3
  %grain = load i64, ptr %grain.at
  call void @gc_parallel(ptr %pool, ptr @count, ptr %inner, i64 %extent, i64 %grain)
  ret void
}
"""

COUNTS = [1, 2, 4]


@pytest.fixture(scope="module")
def kernels() -> jit.LoadedObject:
    data = jit.compile_object(KERNELS, jit.named_target("generic"))
    return jit.load_object(data, native.symbols())


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = native.get_num_threads()
    yield
    native.set_num_threads(before)


def words(*values: int) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def counted(kernels: jit.LoadedObject, extent: int, grain: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each index was visited, and the chunks' ends at their beginnings."""
    counts = np.zeros(max(extent, 0) + 1, np.int64)
    ends = np.zeros_like(counts)
    arg = words(counts.ctypes.data, ends.ctypes.data)
    native.parallel(kernels.address("count"), ctypes.addressof(arg), extent, grain)
    return counts, ends


def expected_ends(extent: int, grain: int) -> np.ndarray:
    ends = np.zeros(max(extent, 0) + 1, np.int64)
    step = max(grain, 1)
    for begin in range(0, extent, step):
        ends[begin] = min(extent, begin + step)
    return ends


@pytest.mark.parametrize("count", COUNTS)
def test_every_index_once_in_the_same_chunks(kernels: jit.LoadedObject, count: int) -> None:
    native.set_num_threads(count)
    for extent in (0, 1, 2, 3, 7, 64, 1000, 4097):
        for grain in (1, 2, 3, 64, 999, 1000, 1001, 5000, 2**62):
            counts, ends = counted(kernels, extent, grain)
            assert (counts[:-1] == 1).all()
            assert counts[-1] == 0
            np.testing.assert_array_equal(ends, expected_ends(extent, grain))


@pytest.mark.parametrize("extent", [-1, -(2**62)])
def test_nothing_runs_for_a_negative_extent(kernels: jit.LoadedObject, extent: int) -> None:
    counts, _ = counted(kernels, extent, 1)
    assert not counts.any()


@pytest.mark.parametrize("grain", [0, -5])
def test_a_grain_below_one_is_one(kernels: jit.LoadedObject, grain: int) -> None:
    counts, ends = counted(kernels, 10, grain)
    assert (counts[:-1] == 1).all()
    np.testing.assert_array_equal(ends, expected_ends(10, 1))


def test_many_jobs_in_a_row(kernels: jit.LoadedObject) -> None:
    native.set_num_threads(3)
    counts = np.zeros(17, np.int64)
    ends = np.zeros_like(counts)
    arg = words(counts.ctypes.data, ends.ctypes.data)
    for _ in range(20_000):
        native.parallel(kernels.address("count"), ctypes.addressof(arg), 16, 3)
    assert (counts[:-1] == 20_000).all()


@pytest.mark.skipif(sys.platform != "linux", reason="the pool has workers on Linux only")
def test_two_threads_work_on_one_job(kernels: jit.LoadedObject) -> None:
    native.set_num_threads(2)
    arg = words(0, 0)
    native.parallel(kernels.address("meet"), ctypes.addressof(arg), 2, 1)
    assert list(arg) == [2, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="the pool has workers on Linux only")
def test_a_sleeping_worker_wakes(kernels: jit.LoadedObject) -> None:
    native.set_num_threads(2)
    counted(kernels, 2, 1)
    asleep = threading.Event()
    for _ in range(1000):
        if native._pool._struct.asleep == 1:
            break
        asleep.wait(0.005)
    assert native._pool._struct.asleep == 1
    arg = words(0, 0)
    native.parallel(kernels.address("meet"), ctypes.addressof(arg), 2, 1)
    assert list(arg) == [2, 2]


def test_results_do_not_depend_on_the_number_of_threads(kernels: jit.LoadedObject) -> None:
    x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    grain = 777
    sums = []
    for count in COUNTS:
        native.set_num_threads(count)
        partial = np.zeros(-(-x.size // grain), np.float32)
        arg = words(x.ctypes.data, partial.ctypes.data, grain)
        native.parallel(kernels.address("sum"), ctypes.addressof(arg), x.size, grain)
        sums.append(partial.tobytes())
    assert len(set(sums)) == 1


def test_callers_from_several_threads_at_once(kernels: jit.LoadedObject) -> None:
    native.set_num_threads(4)
    wrong: list[tuple[int, int]] = []

    def call(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(300):
            extent, grain = int(random.integers(1, 500)), int(random.integers(1, 50))
            counts, ends = counted(kernels, extent, grain)
            if not (counts[:-1] == 1).all() or (ends != expected_ends(extent, grain)).any():
                wrong.append((extent, grain))

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_a_nested_call_runs_serially(kernels: jit.LoadedObject) -> None:
    native.set_num_threads(3)
    counts = np.zeros(101, np.int64)
    ends = np.zeros_like(counts)
    inner = words(counts.ctypes.data, ends.ctypes.data)
    outer = words(native._pool.address, ctypes.addressof(inner), 100, 7)
    native.parallel(kernels.address("nest"), ctypes.addressof(outer), 20, 1)
    assert (counts[:-1] == 20).all()
    np.testing.assert_array_equal(ends, expected_ends(100, 7))


def test_the_number_of_threads_can_change_while_jobs_run(kernels: jit.LoadedObject) -> None:
    done = threading.Event()

    def resize() -> None:
        for turn in range(60):
            native.set_num_threads(1 + turn % 4)
        done.set()

    other = threading.Thread(target=resize)
    other.start()
    while not done.is_set():
        counts, _ = counted(kernels, 300, 7)
        assert (counts[:-1] == 1).all()
    other.join()


def test_the_workers_are_as_many_as_asked_for(kernels: jit.LoadedObject) -> None:
    for count in (3, 1, 2):
        native.set_num_threads(count)
        counted(kernels, 100, 1)
        workers = [t for t in threading.enumerate() if t.name.startswith("graphc-")]
        expected = count - 1 if sys.platform == "linux" else 0
        assert len(workers) == expected
        assert all(worker.daemon for worker in workers)


@pytest.mark.parametrize("count", [0, -1])
def test_a_number_of_threads_that_makes_no_sense(count: int) -> None:
    with pytest.raises(ValueError, match=f"not {count}"):
        native.set_num_threads(count)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own(kernels: jit.LoadedObject) -> None:
    native.set_num_threads(2)
    counted(kernels, 100, 1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            counts, _ = counted(kernels, 1000, 3)
            arg = words(0, 0)
            native.parallel(kernels.address("meet"), ctypes.addressof(arg), 2, 1)
            met = sys.platform != "linux" or list(arg) == [2, 2]
            status = 0 if (counts[:-1] == 1).all() and met else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    counts, _ = counted(kernels, 1000, 3)
    assert (counts[:-1] == 1).all()


def script(text: str, *arguments: str, **environment: str) -> str:
    root = Path(graphc.__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", text, *arguments],
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def test_the_default_is_the_cpus_of_the_process_or_the_variable() -> None:
    text = "from graphc.runtime import native; print(native.get_num_threads())"
    assert script(text, GRAPHC_NUM_THREADS="") == f"{len(os.sched_getaffinity(0))}\n"
    assert script(text, GRAPHC_NUM_THREADS="3") == "3\n"
    bad = """
from graphc.runtime import native
try:
    native.get_num_threads()
except ValueError as error:
    print(error)
"""
    assert "GRAPHC_NUM_THREADS='many'" in script(bad, GRAPHC_NUM_THREADS="many")


@pytest.mark.parametrize("imported", ["before", "late"])
def test_the_first_run_may_be_at_exit(imported: str) -> None:
    text = """
import atexit, sys
if sys.argv[1:] == ["before"]:
    import graphc
def late():
    import graphc
    print(graphc.Session().run(graphc.ones([2]) * 3))
atexit.register(late)
"""
    assert script(text, imported) == "[3. 3.]\n"


@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_the_process_ends_cleanly_with_workers_awake_or_asleep(pause: float) -> None:
    text = f"""
import time
from graphc.runtime import native
native.set_num_threads(4)
native._pool.start()
time.sleep({pause})
print("done")
"""
    assert script(text) == "done\n"
