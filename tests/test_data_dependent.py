"""Results whose sizes the data decide: where of one argument, boolean_mask, unique, partitions."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import InvalidArgumentError, ShapeError
from graphc.runtime.executable import Executable

MODES = ("static", "eager", "reference")
X = np.array([[1.0, -2.0, 3.0], [0.0, 5.0, -6.0]], np.float32)


@pytest.fixture(autouse=True)
def verify(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    with gc.Graph().as_default():
        yield


def check(fetches, feeds, expected):
    for mode in MODES:
        with gc.Session(mode=mode) as session:
            found = session.run(fetches, feeds)
        for a, b in zip(found, expected, strict=True):
            assert np.shape(a) == np.shape(b)
            np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("limit", [0.0, -10.0, 10.0], ids=["some", "all", "none"])
def test_masks(limit):
    x = gc.placeholder("float32", [None, 3])
    mask = x > limit
    y = gc.boolean_mask(x, mask)
    (gradient,) = gc.gradients(y * y, x)
    rows = gc.boolean_mask(x, gc.reduce_any(mask, 1))
    columns = gc.boolean_mask(x, [True, False, True], axis=1)
    assert y.shape.as_list() == [None]
    assert rows.shape.as_list() == [None, 3]
    chosen = limit < X
    check(
        [y, gradient, rows, columns, gc.where(mask), gc.size(y), y[:, None] * 2.0],
        {x: X},
        [
            X[chosen], np.where(chosen, 2 * X, 0), X[chosen.any(1)], X[:, [0, 2]],
            np.argwhere(chosen), chosen.sum(), 2 * X[chosen][:, None],
        ],
    )  # fmt: skip


def test_where_of_other_ranks_and_dtypes():
    cube = np.arange(24).reshape(2, 3, 4) % 5
    check(
        [gc.where(gc.constant(cube)), gc.where(gc.constant(True)), gc.where(gc.constant(0.0))],
        {},
        [np.argwhere(cube), np.zeros((1, 0)), np.zeros((0, 0))],
    )


def test_unique():
    x = gc.placeholder("int32", [None])
    y, idx, count = gc.unique_with_counts(x, "int64")
    assert idx.dtype == gc.int64
    check([y, idx, count], {x: [4, 1, 4, 2, 1, 4]}, [[4, 1, 2], [0, 1, 0, 2, 1, 0], [3, 2, 1]])
    check([y, idx, count], {x: np.zeros(0)}, [[], [], []])


def test_a_nan_is_like_no_other():
    nan = np.float32(np.nan)
    y, idx = gc.unique(gc.constant([nan, 1.0, nan, 1.0], gc.float32))
    check([y, idx], {}, [[nan, 1.0, nan], [0, 1, 2, 1]])


def test_partitions_go_on_into_products():
    x = gc.placeholder("float32", [None])
    a, b = gc.dynamic_partition(x, gc.cast(x > 0.0, "int32"), 2)
    product = gc.reduce_sum(gc.matmul(a[:, None], b[None, :]))
    flat = X.ravel()
    low, high = flat[flat <= 0], flat[flat > 0]
    check([a, b, gc.concat([a, b], 0), product], {x: flat},
          [low, high, np.concatenate([low, high]), low.sum() * high.sum()])  # fmt: skip


def test_one_call_and_one_compilation(monkeypatch):
    x = gc.placeholder("float32", [None])
    y = gc.boolean_mask(x, x > 0.0) * 2.0
    calls = []
    call = Executable.call
    # A run that is known is one call by itself, which cannot be counted here.
    monkeypatch.setattr(gc.Session, "_know", lambda *_: None)
    monkeypatch.setattr(Executable, "call", lambda *a: calls.append(1) or call(*a))
    with gc.Session() as session:
        for n in (3, 50, 1, 0, 7):
            data = np.sin(np.arange(n, dtype="f") + 1)
            np.testing.assert_allclose(session.run(y, {x: data}), 2 * data[data > 0])
        assert session._runner.compilations == 1
    assert len(calls) == 5


@pytest.mark.parametrize("mode", MODES)
def test_a_size_of_one_that_the_data_decide_is_broadcast(mode):
    x = gc.placeholder("float32", [None])
    k, y = gc.placeholder("int32", []), gc.placeholder("float32", [None])
    above, below = gc.boolean_mask(x, x > 0.0), gc.boolean_mask(x, x < 0.0)
    total, table = above + below, gc.reshape(y, [k, -1]) * above
    with gc.Session(mode=mode) as session:
        for data in ([1, 2, -1, -2], [1, -2, -1], [1, 2, 3, -1], [1, -1]):
            data = np.array(data, "f")
            wanted = data[data > 0] + data[data < 0]
            np.testing.assert_array_equal(session.run(total, {x: data}), wanted)
        for rows, count in ((2, 3), (6, 1), (6, 5), (2, 1), (1, 6)):
            ones = np.ones(count, "f")
            found = session.run(table, {x: ones, y: np.arange(6.0), k: rows})
            np.testing.assert_array_equal(found, np.arange(6.0).reshape(rows, -1) * ones)
        with pytest.raises((InvalidArgumentError, ShapeError)):
            session.run(total, {x: np.array([1, 2, 3, -1, -2], "f")})


def test_errors():
    x = gc.placeholder("float32", [None, 3])
    with pytest.raises(ValueError, match="mask cannot be scalar"):
        gc.boolean_mask(x, True)
    with pytest.raises(ValueError, match="incompatible"):
        gc.boolean_mask(x, [True, False], axis=1)
    with pytest.raises(TypeError, match="mask must be bool"):
        gc.boolean_mask(x, [1, 0, 1], axis=1)
    with pytest.raises(ValueError, match="x and y must both be non-None"):
        gc.where(x > 0.0, x)
    with pytest.raises(ValueError, match="unique expects a 1D vector"):
        gc.unique(x)
    with pytest.raises(ValueError, match="known rank"):
        gc.where(gc.placeholder("bool"))
