"""Drawn categories and shuffled rows."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ShapeError

MODES = ("static", "eager", "reference")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_categories_come_as_often_as_their_logits_say(dtype: str, mode: str):
    chances = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])
    with np.errstate(divide="ignore"):
        logits = np.log(chances).astype(dtype) + 3
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        x = gc.placeholder(dtype, [None, None])
        drawn = session.run(gc.multinomial(x, 4000, seed=1), {x: logits})
    assert drawn.dtype == np.int64
    assert drawn.shape == (2, 4000)
    for row, expected in zip(drawn, chances, strict=True):
        np.testing.assert_allclose(np.bincount(row, minlength=3) / 4000, expected, atol=0.03)


def test_multinomials_arguments():
    with gc.Graph().as_default(), gc.Session() as session:
        count = gc.placeholder("int32", [])
        drawn = gc.multinomial(np.zeros((2, 3), np.float32), count, output_dtype="int32")
        assert session.run(drawn, {count: 0}).shape == (2, 0)
        assert session.run(drawn, {count: 5}).dtype == np.int32
        with pytest.raises(ShapeError, match="rank 2 but is rank 1"):
            gc.multinomial([0.0, 1.0], 1)


@pytest.mark.parametrize(
    ("logits", "drawn"),
    [
        ([np.nan, 1.0, -np.inf], {1}),
        ([-np.inf, -np.inf, 0.0], {2}),
        ([np.inf, 0.0, 0.0], {1, 2}),
        ([1e30, -1e30, 1e30], {0, 2}),
        ([-np.inf] * 3, {0}),
    ],
)
def test_what_is_not_finite_is_never_drawn(logits, drawn):
    with gc.Graph().as_default(), gc.Session() as session:
        found = session.run(gc.multinomial(np.array([logits], np.float32), 100, seed=2))
    assert set(found[0]) == drawn


def test_many_rows_are_shuffled():
    """In a time that goes with their number: all pairs would be 10 ** 10."""
    with gc.Graph().as_default(), gc.Session() as session:
        found = session.run(gc.random_shuffle(np.arange(100_000), seed=1))
    assert np.array_equal(np.sort(found), np.arange(100_000))
    assert (found != np.arange(100_000)).mean() > 0.99


@pytest.mark.parametrize("mode", MODES)
def test_shuffled_rows_are_the_rows_in_another_order(mode: str):
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        x = gc.placeholder("int32", None)
        y = gc.random_shuffle(x, seed=3)
        for shape in ((50,), (20, 2), (1, 3), (0, 3)):
            value = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
            found = session.run(y, {x: value})
            assert sorted(map(str, found)) == sorted(map(str, value))
        rows = np.arange(20)
        first, second = session.run(y, {x: rows}), session.run(y, {x: rows})
        assert (first != rows).any()
        assert (first != second).any()
        with pytest.raises(ShapeError, match="a scalar has none"):
            gc.random_shuffle(1.0)


def test_every_order_is_equally_likely():
    with gc.Graph().as_default(), gc.Session() as session:
        y = gc.random_shuffle([0, 1, 2], seed=5)
        orders = [tuple(session.run(y)) for _ in range(1200)]
    counts = [orders.count(o) for o in set(orders)]
    assert len(counts) == 6
    assert min(counts) > 140
    assert max(counts) < 260
