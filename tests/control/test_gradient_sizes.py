"""Gradients where branches, and an array before and after it grew, have other sizes."""

from __future__ import annotations

import pytest

import graphc as gc

MODES = ["static", "eager", "reference"]


@pytest.mark.parametrize("mode", MODES)
def test_branches_of_other_sizes(mode, monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        x = gc.placeholder(gc.float32, [None])
        p = gc.placeholder(gc.bool, [])
        y = gc.cond(p, lambda: x[:2] * x[1:], lambda: x * x)
        (first,) = gc.gradients(y, x)
        (second,) = gc.gradients(first, x)
        found = session.run([y, first, second], {x: [1.0, 2.0, 3.0], p: True})
        assert [f.tolist() for f in found] == [[2.0, 6.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]
        found = session.run([y, first, second], {x: [1.0, 2.0, 3.0], p: False})
        assert [f.tolist() for f in found] == [[1.0, 4.0, 9.0], [2.0, 4.0, 6.0], [2.0, 2.0, 2.0]]


@pytest.mark.parametrize("mode", MODES)
def test_an_array_before_and_after_it_grew(mode, monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        x = gc.placeholder(gc.float32, [None])
        short = gc.TensorArray(gc.float32, 0, dynamic_size=True).write(0, x)
        long = short.write(3, x * 2.0)
        (gradient,) = gc.gradients([short.stack(), long.stack() * long.stack()], x)
        # Of x, x**2 and (2 x)**2.
        assert session.run(gradient, {x: [1.0, 2.0]}).tolist() == [11.0, 21.0]


@pytest.mark.parametrize("mode", MODES)
def test_a_variable_that_a_turn_does_not_use_had_another_size(mode, monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    free = [gc.TensorShape([]), gc.TensorShape([None]), gc.TensorShape([None])]
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        x, n = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.int32, [])
        _, a, b = gc.while_loop(
            lambda i, *_: i < n,
            lambda i, a, b: (i + 1, gc.boolean_mask(b, b > 1.0), b * b),
            [0, x, x],
            shape_invariants=free,
        )  # fmt: skip
        (first,) = gc.gradients([a * a, b], x)
        (second,) = gc.gradients(first, x)
        at = {x: [1.0, 2.0, 3.0]}
        found = [session.run([first, second], at | {n: k}) for k in range(3)]
    # Of x**2 and x; of x[1:]**2 and x**2; of x[1:]**4 and x**4, without the one that is not more.
    assert [[f.tolist() for f in pair] for pair in found] == [
        [[3.0, 5.0, 7.0], [2.0, 2.0, 2.0]],
        [[2.0, 8.0, 12.0], [2.0, 4.0, 4.0]],
        [[4.0, 64.0, 216.0], [12.0, 96.0, 216.0]],
    ]


@pytest.mark.parametrize("mode", MODES)
def test_rows_of_two_sizes_that_a_branch_exchanges(mode):
    """What another branch hands out is zeros of a size that only the function around knows."""
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        x, n = gc.placeholder(gc.float64, [None]), gc.placeholder(gc.int32, [])
        long, short = (gc.TensorArray(gc.float64, size=2).write(0, r) for r in (x, x[1:]))

        def turn(i, a, b):
            return i + 1, *gc.cond(i < 1, lambda: (a, b.write(1, b.read(0) * 2.0)), lambda: (a, b))

        _, a, b = gc.while_loop(lambda i, *_: i < n, turn, [0, long, short])
        y = gc.reduce_sum(a.stack()) + gc.reduce_sum(b.stack())
        (grad,) = gc.gradients(y, x)
        for turns, wanted in ((0, [1.0, 2.0, 2.0]), (1, [1.0, 4.0, 4.0]), (3, [1.0, 4.0, 4.0])):
            assert session.run(grad, {x: [1.0, 2.0, 3.0], n: turns}).tolist() == wanted
