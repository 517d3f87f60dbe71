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
