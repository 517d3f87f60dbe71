"""Rows that a block of threads sorts or adds up, of every length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_races import RaceDevice
from cuda_support import ShimDevice

import graphc as gc

RNG = np.random.default_rng(11)
LENGTHS = (0, 1, 31, 33, 65, 1000, 2049, 4500)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


def few(dtype: Any, *shape: int) -> np.ndarray:
    """Values of which many are equal; some are no numbers."""
    values = RNG.integers(-40, 40, shape)
    found = np.abs(values) if dtype.is_unsigned else values
    found = found.astype(dtype.as_numpy_dtype)
    if dtype.is_floating:
        found[RNG.random(shape) < 0.05] = np.nan
        found[RNG.random(shape) < 0.05] = -np.inf
    return found


def wide(values: np.ndarray) -> np.ndarray:
    """bfloat16 as a dtype whose NaN NumPy knows to be equal."""
    return values.astype(np.float64) if values.dtype.kind == "V" else values


def both(fetches: Any, feeds: Any, device: Any) -> None:
    """The same on the CPU and on a device, to the bit."""
    with gc.Session() as cpu, gc.Session(device=device) as gpu:
        for a, b in zip(gpu.run(fetches, feeds), cpu.run(fetches, feeds), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(wide(a), wide(b))


@pytest.mark.parametrize(
    "dtype", [gc.float32, *(pytest.param(t, marks=pytest.mark.slow)
                            for t in (gc.bfloat16, gc.float64, gc.int8, gc.uint16, gc.int64))],
)  # fmt: skip
def test_sorting(dtype, device):
    fetches, feeds = [], {}
    row = gc.placeholder(dtype, [None, None])
    feeds[row] = few(dtype, 3, 700)
    fetches += [gc.sort(row), gc.argsort(row, direction="DESCENDING")]
    fetches += [*gc.nn.top_k(row, 7)]
    for length in LENGTHS:
        x = gc.placeholder(dtype, [2, length])
        feeds[x] = few(dtype, 2, length)
        fetches += [gc.argsort(x)]
        if length:
            fetches += [*gc.nn.top_k(x, min(length, 40))]
    both(fetches, feeds, device)
    if isinstance(device, ShimDevice):
        assert "held" in device.texts[-1]


SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in (0, 2, 63, 5000)]


@pytest.mark.parametrize("columns", [1, 700, *SLOW])
def test_rows_of_any_length_are_sorted_where_they_are(columns, device):
    x = gc.placeholder(gc.int32, [None, None])
    y = gc.sort(x, direction="DESCENDING")
    with gc.Session(device=device) as session:
        value = RNG.integers(-9, 9, (2, columns)).astype(np.int32)
        np.testing.assert_array_equal(session.run(y, {x: value}), -np.sort(-value))


def test_more_than_there_are_is_an_error(device):
    x = gc.placeholder(gc.float32, [None, None])
    y = gc.nn.top_k(x, 100)[0]
    with gc.Session(device=device) as session:
        assert session.run(y, {x: np.zeros((1, 100))}).shape == (1, 100)
        with pytest.raises(gc.errors.InvalidArgumentError, match=r"at least k columns\. Had 99"):
            session.run(y, {x: np.zeros((1, 99))})


@pytest.mark.parametrize("dtype", [gc.int32, pytest.param(gc.int64, marks=pytest.mark.slow)])
def test_running_sums_and_products(dtype, device):
    fetches, feeds = [], {}
    unknown = gc.placeholder(dtype, [None, None])
    feeds[unknown] = few(dtype, 3, 2100)
    for exclusive in (False, True):
        for reverse in (False, True):
            flags = {"exclusive": exclusive, "reverse": reverse}
            fetches.append(gc.cumsum(unknown, 1, **flags))
            for length in (0, 65, 3000):
                x = gc.placeholder(dtype, [2, length])
                feeds[x] = few(dtype, 2, length)
                fetches += [gc.cumsum(x, 1, **flags), gc.cumprod(x, 1, **flags)]
    both(fetches, feeds, device)
    if isinstance(device, ShimDevice):
        assert "totals" in device.texts[-1]


def test_running_sums_of_floats(device):
    x = gc.placeholder(gc.float32, [None])
    half = gc.placeholder(gc.bfloat16, [5000])
    value = RNG.standard_normal(5000)
    with gc.Session(device=device) as session:
        found, short = session.run([gc.cumsum(x), gc.cumsum(half)], {x: value, half: value})
    np.testing.assert_allclose(found, np.cumsum(value.astype(np.float32).astype(float)), atol=1e-3)
    exact = np.cumsum(value.astype(gc.bfloat16.as_numpy_dtype).astype(float))
    np.testing.assert_allclose(short.astype(float), exact, rtol=1e-2, atol=1e-3)


def test_there_is_no_race(shim):
    x, y = gc.placeholder(gc.float32, [None, None]), gc.placeholder(gc.float32, [2, 300])
    fetches = [gc.sort(x), gc.nn.top_k(x, 9)[0], gc.sort(y), gc.cumsum(x, 1)]
    with gc.Session(device=RaceDevice(both_orders=False)) as session:
        session.run(fetches, {x: few(gc.float32, 2, 2500), y: few(gc.float32, 2, 300)})


@pytest.mark.parametrize("columns", [None, 1, 7, 64, 600])
def test_rows_added_up_by_number(columns, device):
    """Blocks with some rows each, whose threads have some columns; most rows go to the last one."""
    rows, count, width = 37, 300, columns or 70
    where = np.minimum(RNG.integers(0, 2 * rows, count), rows - 1)
    updates = gc.placeholder(gc.float32, [None, columns])
    feed = gc.placeholder(gc.int32, [None])
    params = gc.placeholder(gc.float32, [None, columns])
    (found,) = gc.gradients(gc.gather(params, feed), [params], grad_ys=[updates])
    what = RNG.normal(size=(count, width)).astype(np.float32)
    table = np.zeros((rows, width), np.float32)
    both([found], {feed: where, updates: what, params: table}, device)
    nothing = {feed: where[:0], updates: what[:0], params: table}
    both([found], nothing, device)


def test_lookups_that_are_summed_up(device):
    feed, table = gc.placeholder(gc.int32, [None, 9]), RNG.normal(size=(50, 40)).astype(np.float32)
    weights = gc.Variable(table)
    found = gc.reduce_sum(gc.nn.embedding_lookup(weights, feed), 1)
    (grad,) = gc.gradients(found, [weights])
    numbers = RNG.integers(0, 50, (6, 9))
    with gc.Session(device=device) as s:
        s.run(weights.initializer)
        sums, spread = s.run([found, grad], {feed: numbers})
        np.testing.assert_allclose(sums, table[numbers].sum(1), rtol=1e-5, atol=1e-5)
        times = np.bincount(numbers.ravel(), minlength=50)
        np.testing.assert_array_equal(spread, np.repeat(times[:, None], 40, 1))
        with pytest.raises(gc.errors.InvalidArgumentError, match="is not in"):
            s.run(found, {feed: numbers + 50})
