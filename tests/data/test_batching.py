"""Batches: every row once, rows that belong together stay together, orders that repeat."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.data import batches


@given(
    count=st.integers(0, 40),
    size=st.integers(1, 12),
    seed=st.integers(0, 2**63),
    shuffle=st.booleans(),
    drop=st.booleans(),
)
def test_every_row_comes_once(count, size, seed, shuffle, drop):
    rows = np.arange(count)
    found = list(
        batches((rows, rows * 10), size, seed=seed, shuffle=shuffle, drop_remainder=drop)
    )
    kept = count - count % size if drop else count
    assert sum(len(left) for left, _ in found) == kept
    assert all(len(left) == size for left, _ in found[:-1])
    together = np.concatenate([left for left, _ in found]) if found else rows[:0]
    assert len(set(together.tolist())) == kept
    assert all((left * 10 == right).all() for left, right in found)
    if not shuffle:
        assert together.tolist() == rows[:kept].tolist()


def test_the_order_is_made_of_the_seed():
    rows = np.arange(10)
    (first,) = batches(rows, 10, seed=7)
    (second,) = batches(rows, 10, seed=7)
    (epoch_0,), (epoch_1,) = batches(rows, 10, seed=[7, 0]), batches(rows, 10, seed=[7, 1])
    assert first.tolist() == second.tolist() == [4, 5, 9, 8, 1, 7, 6, 0, 2, 3]
    assert epoch_0.tolist() != epoch_1.tolist()


def test_dictionaries_keep_their_keys():
    key = object()
    (batch,) = batches({key: np.arange(3), "y": [4, 5, 6]}, 3, seed=0, shuffle=False)
    assert batch[key].tolist() == [0, 1, 2]
    assert batch["y"].tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    ("arrays", "size", "message"),
    [
        ((np.zeros(3), np.zeros(4)), 2, "number of rows"),
        ((), 2, "no arrays"),
        ({}, 2, "no arrays"),
        (np.zeros(3), 0, "batch_size is 0"),
        (np.zeros(()), 1, "scalar"),
    ],
)
def test_mistakes_are_found_before_the_first_batch(arrays, size, message):
    with pytest.raises(ValueError, match=message):
        batches(arrays, size, seed=0)
