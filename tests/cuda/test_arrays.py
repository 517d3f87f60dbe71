"""Feeds and fetches that are on the device already, and stay there."""

from __future__ import annotations

import gc as collector

import numpy as np
import pytest
from cuda_support import LateDevice, ShimArray, has_compiler

import graphc as gc
from graphc import errors

pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
X = np.random.default_rng(4).standard_normal((5, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


def test_arrays_on_the_device_are_taken_without_a_copy(late):
    x = gc.placeholder(gc.float32, [None, 8])
    y = gc.cumsum(x, axis=1) + 1.0
    wanted = np.cumsum(X, axis=1) + 1.0
    array, other = late.array(X), late.array(X[:2] * 2)
    with gc.Session(device=late) as session:
        call = session.make_callable(y, [x])
        uploads = late.uploads
        for _ in range(3):
            np.testing.assert_allclose(session.run(y, {x: array}), wanted, rtol=1e-6)
            np.testing.assert_allclose(call(array), wanted, rtol=1e-6)
            np.testing.assert_allclose(session.run(y, {x: other}), wanted[:2] * 2 - 1, rtol=1e-6)
        assert late.uploads == uploads
        assert late.conversions == 0
        assert late.graphs >= 4
        # One in other memory, of the same shape, is not mistaken for it.
        np.testing.assert_allclose(
            session.run(y, {x: late.array(-X)}), 2.0 - wanted, rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(session.run(y, {x: X}), wanted, rtol=1e-6)
        assert session.compilations == 1


def test_arrays_that_begin_anywhere(late):
    """Kernels need aligned memory: neither a graph nor the user's array may suffer from that."""
    x = gc.placeholder(gc.float32, [None])
    values = np.arange(65, dtype=np.float32)
    array = late.array(values)
    with gc.Session(device=late) as session:
        y = gc.cumsum(x * 2.0)
        for k in range(1, 5):
            for _ in range(3):
                found = session.run(y, {x: array[k:]})
                np.testing.assert_array_equal(found, np.cumsum(values[k:] * 2))
        assert late.graphs == 8
    np.testing.assert_array_equal(array.get(), values)


def test_copies_aside_do_not_write_to_the_users_array(late):
    """The user's own stream may have changed it when the run is done."""
    x = gc.placeholder(gc.float32, [None])
    array = late.array(np.zeros(65, np.float32))
    targets = []
    copy = late.copy
    late.copy = lambda target, source, n: (targets.append(target), copy(target, source, n))
    first = array.memory.address
    with gc.Session(device=late) as session:
        for _ in range(3):
            session.run(x + 1.0, {x: array[1:]})
    assert targets
    assert not [t for t in targets if first <= t < first + 260]


def test_arrays_in_other_places_have_one_recording(late):
    x = gc.placeholder(gc.float32, [None, 8])
    arrays = [late.array(X * k) for k in range(6)]
    with gc.Session(device=late) as session:
        call = session.make_callable(gc.reduce_sum(x, 1), [x])
        captures, begin = [], late.begin_capture
        late.begin_capture = lambda: (captures.append(1), begin())
        for _ in range(2):
            for k, array in enumerate(arrays):
                np.testing.assert_allclose(call(array), (X * k).sum(1), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(call(X), X.sum(1), rtol=1e-5)
        assert len(captures) == 1
        assert late.graphs == 13


def test_what_is_laid_out_otherwise_is_converted_on_the_device(late):
    x = gc.placeholder(gc.float32, [2])
    array = late.array(np.array([1, 2], np.int32))
    with gc.Session(device=late) as session:
        downloads = late.downloads
        assert session.run(x * 2.0, {x: array}).tolist() == [2, 4]
        assert (late.conversions, late.downloads) == (1, downloads + 1)


def test_arrays_that_cannot_be_fed(late):
    x = gc.placeholder(gc.float32, [None, 3], name="x")
    elsewhere = LateDevice().array(X)
    with gc.Session(device=late) as session:
        with pytest.raises(errors.FeedError, match=r"(?s)'x:0'.*not in the memory of cuda:0.*py:"):
            session.run(x + 1.0, {x: elsewhere})
        with pytest.raises(errors.FeedError, match=r"shape \(5, 8\) for Tensor 'x:0'"):
            session.run(x + 1.0, {x: late.array(X)})
    y = x + 1.0
    refused = pytest.raises((errors.FeedError, errors.DTypeError))
    with gc.Session(device="cpu") as session, refused:
        session.run(y, {x: elsewhere})


def test_sizes_that_are_fed_on_the_device(late):
    x, shape = gc.placeholder(gc.float32, [None, 8]), gc.placeholder(gc.int32, [None])
    axis = gc.placeholder(gc.int32, [])
    fetches = [gc.reshape(x, shape), gc.reduce_sum(x, axis)]
    feeds = {
        x: late.array(X), shape: late.array(np.array([4, 10], np.int32)),
        axis: late.array(np.array(1, np.int32)),
    }  # fmt: skip
    with gc.Session(device=late) as session:
        for _ in range(3):
            found, sums = session.run(fetches, feeds)
            np.testing.assert_array_equal(found, X.reshape(4, 10))
            np.testing.assert_allclose(sums, X.sum(1), rtol=1e-5)


def test_fetches_stay_on_the_device(late):
    x = gc.placeholder(gc.float32, [None, 8])
    v = gc.Variable(np.zeros(8, np.float32))
    change = gc.assign_add(v, gc.reduce_sum(x, 0))
    fetches = {"y": [x * 2.0, gc.reduce_sum(x)], "v": v, "x": x, "step": change.op}
    options = gc.RunOptions(fetch_on_device=True)
    kept = []
    with gc.Session(device=late) as session:
        session.run(v.initializer)
        downloads = late.downloads
        for turn in range(1, 4):
            found = session.run(fetches, {x: X * turn}, options)
            kept.append((turn, found["y"][0]))
            assert found["step"] is None
            assert isinstance(found["v"], ShimArray)
            assert found["x"] is not None
        assert late.downloads == downloads
        assert late.joins == 3
        np.testing.assert_allclose(found["v"].get(), X.sum(0) * 6, rtol=1e-5)
        assert found["y"][1].get().shape == ()
        # A later run has not written to what an earlier one gave.
        for turn, array in kept:
            np.testing.assert_array_equal(array.get(), X * turn * 2)
        # They can be fed again, and are no variable's memory.
        again = session.run(x + 1.0, {x: kept[0][1]})
        np.testing.assert_array_equal(again, X * 2 + 1)
        held = found["v"]
        session.run(change.op, {x: X})
        np.testing.assert_allclose(held.get(), X.sum(0) * 6, rtol=1e-5)
        # Without the option they come to the host.
        assert isinstance(session.run(fetches, {x: X})["y"][0], np.ndarray)
    del session, found
    collector.collect()
    np.testing.assert_array_equal(kept[2][1].get(), X * 6)


def test_callables_whose_results_stay(late):
    x = gc.placeholder(gc.float32, [None, 8])
    with gc.Session(device=late) as session:
        call = session.make_callable(gc.sin(x), [x], on_device=True)
        first = call(X)
        second = call(first)
        third = call(second)
        np.testing.assert_allclose(third.get(), np.sin(np.sin(np.sin(X))), rtol=1e-5)
        with pytest.raises(errors.GraphError, match="not written to arrays"):
            session.make_callable(x + 1.0, [x], out=np.zeros(2, np.float32), on_device=True)
    with gc.Session(device="cpu") as session:
        with pytest.raises(errors.GraphError, match="where the session runs on one"):
            session.make_callable(x + 1.0, [x], on_device=True)
        with pytest.raises(errors.GraphError, match="where the session runs on one"):
            session.run(x + 1.0, {x: X}, gc.RunOptions(fetch_on_device=True))


def test_results_of_sizes_that_a_run_decides_stay(late):
    x = gc.placeholder(gc.float32, [None, 8])
    unknown = gc.placeholder(gc.float32)
    with gc.Session(device=late) as session:
        picked = gc.boolean_mask(x, x > 0.0)
        call = session.make_callable([picked, gc.where(x > 0.5)], [x], on_device=True)
        for _ in range(2):
            found, places = call(X)
            np.testing.assert_array_equal(found.get(), X[X > 0])
            np.testing.assert_array_equal(places.get(), np.argwhere(X > 0.5))
        flat = session.make_callable(unknown * 2.0, [unknown], on_device=True)
        np.testing.assert_array_equal(np.asarray(_host(flat(X))), X * 2)


def _host(array):
    return array.get() if isinstance(array, ShimArray) else array


def test_a_failure_leaves_the_users_stream_in_order(late):
    at = gc.placeholder(gc.int32, [None])
    y = gc.gather(gc.constant([1.0, 2.0]), at)
    with gc.Session(device=late) as session:
        for _ in range(3):
            with pytest.raises(errors.InvalidArgumentError, match="is not in"):
                session.run(y, {at: late.array(np.array([0, 5], np.int32))})
        assert late.joins == 3
