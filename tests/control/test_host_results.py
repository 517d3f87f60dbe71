"""Results of Python functions that leave a loop or a branch: the rank is enough."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import InvalidArgumentError

X = [1.0, 2.0, 3.0]


def from_python(function, x, shape):
    result = gc.py_func(function, [x], gc.float32)
    result.set_shape(shape)
    return result


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
@pytest.mark.parametrize("shape", [[None], [2]])
def test_out_of_a_branch(mode, shape):
    p, x = gc.placeholder(gc.bool, []), gc.constant(X)
    y = gc.cond(p, lambda: from_python(lambda v: v[:2], x, shape), lambda: x) * 2.0
    with gc.Session(mode=mode) as session:
        assert session.run(y, {p: True}).tolist() == [2.0, 4.0]
        assert session.run(y, {p: False}).tolist() == [2.0, 4.0, 6.0]


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
def test_of_two_branches(mode):
    p, x = gc.placeholder(gc.bool, []), gc.constant([X])
    shape = [None, None]
    y = gc.cond(
        p, lambda: from_python(lambda v: v[:, :2], x, shape),
        lambda: from_python(lambda v: v.T.copy(), x, shape),
    )  # fmt: skip
    with gc.Session(mode=mode) as session:
        assert session.run(y, {p: True}).tolist() == [[1.0, 2.0]]
        assert session.run(gc.reduce_sum(y, 0), {p: False}).tolist() == [6.0]


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
def test_out_of_a_loop_in_which_it_grows(mode):
    def body(i, v):
        return i + 1, from_python(lambda a: np.concatenate([a, a]), v, [None])

    invariants = [gc.TensorShape([]), gc.TensorShape([None])]
    _, y = gc.while_loop(lambda i, _: i < 2, body, [0, gc.constant(X)], invariants)
    with gc.Session(mode=mode) as session:
        assert session.run(y).tolist() == X * 4


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
def test_an_unknown_rank_is_refused_with_what_to_do(mode):
    p, x = gc.placeholder(gc.bool, []), gc.constant(X)
    y = gc.cond(p, lambda: gc.py_func(lambda v: v, [x], gc.float32), lambda: x)
    z = gc.map_fn(lambda e: gc.py_func(np.sin, [e], gc.float32), x)
    with gc.Session(mode=mode) as session:
        for fetch in (y, z):
            with pytest.raises(InvalidArgumentError) as caught:
                session.run(fetch, {p: True})
            assert "the rank of " in str(caught.value)
            assert "is not known: state its shape by set_shape" in str(caught.value)
            assert "test_host_results.py" in str(caught.value)


def test_a_result_of_another_rank_fails_the_run():
    p, x = gc.placeholder(gc.bool, []), gc.constant(X)
    y = gc.cond(p, lambda: from_python(lambda v: v[None], x, [None]), lambda: x)
    with gc.Session() as session:
        assert session.run(y, {p: False}).tolist() == X
        with pytest.raises(InvalidArgumentError, match="PyFunc"):
            session.run(y, {p: True})
