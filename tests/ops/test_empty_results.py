"""What is out of range is refused where the result has no elements, too; and words of such errors.

The wrong numbers are fed: static shapes cannot tell.
"""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import InvalidArgumentError

MODES = ("static", "eager", "reference")


@pytest.fixture(autouse=True)
def graph(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    with gc.Graph().as_default() as graph:
        yield graph


def slice_(x):
    begin, size = gc.placeholder(gc.int32, [2]), gc.placeholder(gc.int32, [2])
    return gc.slice(x, begin, size), (begin, size)


def reflected(x):
    paddings = gc.placeholder(gc.int32, [2, 2])
    return gc.pad(x, paddings, "REFLECT"), (paddings,)


def symmetric(x):
    paddings = gc.placeholder(gc.int32, [2, 2])
    return gc.pad(x, paddings, "SYMMETRIC"), (paddings,)


def top_k(x):
    k = gc.placeholder(gc.int32, [])
    return gc.nn.top_k(x, k).values, (k,)


NO_ROWS, ROWS = np.zeros((0, 4)), np.zeros((3, 4))
WRONG = {
    "slice, size": (slice_, NO_ROWS, ([0, 3], [0, 3]), r"size\[1\] in \[0, 1\], but got 3"),
    "slice, begin": (slice_, ROWS, ([9, 0], [0, 2]), r"begin\[0\] in \[0, 3\], but got 9"),
    "slice, below": (slice_, ROWS, ([-1, 0], [0, 2]), r"Expected begin\[0\] in \[0, 3\]"),
    "reflect": (reflected, NO_ROWS, ([[0, 0], [9, 0]],), "must be less than the dimension size"),
    "reflect, rows": (reflected, NO_ROWS, ([[1, 0], [0, 0]],), "less than the dimension size"),
    "symmetric": (symmetric, NO_ROWS, ([[0, 0], [0, 5]],), "no greater than the dimension size"),
    "top_k": (top_k, NO_ROWS, (7,), "at least k columns. Had 4, needed 7"),
}  # fmt: skip
RIGHT = [
    (slice_, NO_ROWS, ([0, 3], [0, 1]), (0, 1)),
    (slice_, NO_ROWS, ([0, 0], [-1, -1]), (0, 4)),
    (slice_, ROWS, ([3, 4], [0, 0]), (0, 0)),
    (slice_, ROWS, ([1, 1], [2, -1]), (2, 3)),
    (reflected, NO_ROWS, ([[0, 0], [3, 2]],), (0, 9)),
    (reflected, ROWS, ([[2, 0], [3, 2]],), (5, 9)),
    (symmetric, NO_ROWS, ([[0, 0], [4, 4]],), (0, 12)),
    (top_k, NO_ROWS, (4,), (0, 4)),
    (top_k, ROWS, (0,), (3, 0)),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [[None, 4], [None, None]], ids=str)
@pytest.mark.parametrize("name", WRONG)
def test_out_of_range_in_an_empty_result(name, shape, mode):
    make, array, values, message = WRONG[name]
    x = gc.placeholder(gc.float32, shape)
    y, fed = make(x)
    with gc.Session(mode=mode) as session:
        with pytest.raises(InvalidArgumentError, match=message) as caught:
            session.run(y, {x: array, **dict(zip(fed, values, strict=True))})
        assert "test_empty_results.py" in str(caught.value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", RIGHT, ids=lambda row: row[0].__name__)
def test_in_range(row, mode):
    make, array, values, shape = row
    x = gc.placeholder(gc.float32, [None, None])
    y, fed = make(x)
    with gc.Session(mode=mode) as session:
        found = session.run(y, {x: array, **dict(zip(fed, values, strict=True))})
    assert found.shape == shape


def test_numbers_of_range_that_the_run_computes():
    """One program serves them all: nothing is compiled for the right ones."""
    x, n = gc.placeholder(gc.float32, [None, 4]), gc.placeholder(gc.int32, [])
    y = gc.slice(x, [0, n * 2], [-1, 1])
    with gc.Session() as session:
        for array in (ROWS, NO_ROWS):
            assert session.run(y, {x: array, n: 1}).shape == (len(array), 1)
            with pytest.raises(InvalidArgumentError, match=r"Expected size\[1\]|begin\[1\]"):
                session.run(y, {x: array, n: 2})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["scan", "foldl", "foldr"])
def test_no_elements_and_no_initializer(name, mode):
    x = gc.placeholder(gc.float32, [None])
    y = getattr(gc, name)(lambda a, b: a + b, x)
    message = r"index (0|-1) is not in \[0, 0\)"
    with gc.Session(mode=mode) as session:
        assert np.sum(session.run(y, {x: [2.0]})) == 2.0
        with pytest.raises(InvalidArgumentError, match=message) as caught:
            session.run(y, {x: []})
    assert name in caught.value.op.name
