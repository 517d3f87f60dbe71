"""The memory of large fetches: reused when it is dropped, never while somebody has it."""

import gc as garbage
import threading

import numpy as np
import pytest
from numpy._core.multiarray import get_handler_name  # type: ignore[attr-defined]

import graphc as gc
from graphc.runtime.library import RETAINED, memory_bytes, runtime

LARGE = 1 << 19  # elements of two MiB


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


def doubled(n=None):
    x = gc.placeholder(gc.float32, [n])
    return gc.Session().make_callable(x * 2.0, [x])


def ones(n):
    return np.ones(n, np.float32)


def test_dropped_memory_is_used_again():
    call, x = doubled(), ones(LARGE)
    first = call(x)
    place = first.ctypes.data
    assert place % 64 == 0
    del first
    for _ in range(20):
        y = call(x)
        assert y.ctypes.data == place
        del y


def test_what_somebody_has_stays():
    call = doubled()
    kept = [(k, call(np.full(LARGE, k, np.float32))) for k in range(40)]
    view = kept.pop()[1][5:]
    kept += [(k, call(np.full(LARGE, k, np.float32))) for k in range(5)]
    assert len({a.ctypes.data for _, a in kept}) == len(kept)
    for k, a in kept:
        assert (a == 2 * k).all()
    assert (view == 2 * 39).all()


def test_only_large_fetches_and_only_fetches():
    call = doubled()
    assert get_handler_name(call(ones(LARGE))) == "graphc"
    assert get_handler_name(call(ones(1000))) == "default_allocator"
    assert get_handler_name(np.empty(LARGE, np.float32)) == "default_allocator"


def test_retained_memory_has_a_limit():
    call = doubled()
    limit = min(RETAINED, memory_bytes() // 32)
    n = limit // 4 // 6
    held = [call(ones(n)) for _ in range(9)]
    del held
    garbage.collect()
    assert 0 < runtime().retained() <= limit


def test_the_memory_that_was_dropped_last_is_kept():
    call = doubled()
    limit = min(RETAINED, memory_bytes() // 32)
    old = [call(ones(limit // 4 // 9 + 7000 * k)) for k in range(9)]
    del old
    new = call(ones(limit // 4 // 2))
    place = new.ctypes.data
    del new
    assert call(ones(limit // 4 // 2)).ctypes.data == place
    assert runtime().retained() <= limit


def test_another_size_takes_memory_that_fits_closely():
    call = doubled()
    place = call(ones(2 * LARGE)).ctypes.data
    assert call(ones(2 * LARGE - 100)).ctypes.data == place
    assert call(ones(LARGE)).ctypes.data != place


@pytest.mark.parametrize("n", [LARGE // 2, 4 * LARGE])
def test_resize(n):
    y = doubled()(ones(LARGE))
    y.resize(n, refcheck=False)
    m = min(n, LARGE)
    assert (y[:m] == 2).all()
    assert (y[m:] == 0).all()


def test_too_large_a_fetch_is_an_error():
    n = gc.placeholder(gc.int32, [])
    fetch = gc.ones(gc.stack([n, 1 << 20]))
    with gc.Session() as s, pytest.raises(gc.errors.ResourceExhaustedError, match="OOM"):
        s.run(fetch, {n: 1 << 18})


def test_threads():
    x = gc.placeholder(gc.float32, [LARGE])
    wrong = []
    with gc.Session() as s:
        call = s.make_callable(x * 2.0, [x])

        def work(k):
            for i in range(30):
                y = call(np.full(LARGE, 100 * k + i, np.float32))
                if not (y == 2 * (100 * k + i)).all():
                    wrong.append((k, i))

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not wrong
