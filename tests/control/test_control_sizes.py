"""Sizes of loop variables that the body settles."""

from __future__ import annotations

import pytest

import graphc as gc
from graphc.errors import InvalidArgumentError


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
@pytest.mark.parametrize("first", [None, 1, -1], ids=["fed", "rest", "last"])
def test_a_size_that_the_body_needs_to_be_one(first, mode, monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        x = gc.placeholder(gc.float32, [None])
        two = gc.constant([[2.0]])
        start = x if first is None else x[first:]
        _, y = gc.while_loop(
            lambda i, y: i < 3,
            lambda i, y: (i + 1, gc.reduce_sum(gc.concat([y[:, None], two], 1), 1)),
            (gc.constant(0), start),
        )
        for data in ([3.0], [1.0, 2.0], [1.0, 2.0, 3.0]):
            row = data[first:]
            if len(row) == 1:
                assert session.run(y, {x: data}).tolist() == [row[0] + 6.0]
            else:
                with pytest.raises(InvalidArgumentError, match="should match"):
                    session.run(y, {x: data})


def test_sizes_at_the_end_may_be_assumed():
    with gc.Graph().as_default(), gc.Session() as session:
        n = gc.placeholder(gc.int32, [])
        array = gc.TensorArray(gc.float32, 0, dynamic_size=True)
        _, array = gc.while_loop(
            lambda i, a: i < n,
            lambda i, a: (i + 1, a.write(i, gc.cast(i, gc.float32))),
            (gc.constant(0), array),
        )
        y = array.stack() + gc.constant([1.0, 2.0, 3.0])
        assert session.run(y, {n: 3}).tolist() == [1.0, 3.0, 5.0]
        with pytest.raises(InvalidArgumentError):
            session.run(y, {n: 2})
