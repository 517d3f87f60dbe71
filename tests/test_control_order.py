"""Control dependencies across the boundary of a body."""

from __future__ import annotations

import pytest

import graphc as gc


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default() as graph:
        yield graph


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
def test_what_a_body_waits_for_runs_before_it(mode, depth):
    v = gc.Variable(1.0, name="v")
    assign = v.assign(5.0)

    def read(depth):
        if depth:
            pred = gc.placeholder_with_default(True, [])
            return gc.cond(pred, lambda: read(depth - 1), lambda: gc.constant(0.0))
        with gc.control_dependencies([assign]):
            return gc.identity(v) * 2.0

    y = read(depth)
    with gc.Session(mode=mode) as session:
        session.run(v.initializer)
        assert session.run(y) == 10.0
        assert session.run(v) == 5.0


def test_nothing_outside_waits_for_a_part_of_a_body():
    v = gc.Variable(1.0, name="v")
    inside = []

    def branch():
        inside.append(v.assign(5.0).op)
        with gc.control_dependencies(inside):
            return gc.identity(v) + 0.0

    y = gc.cond(gc.placeholder_with_default(False, []), branch, lambda: gc.constant(0.0))
    with (
        gc.control_dependencies(inside),
        pytest.raises(ValueError, match=r"Assign' \(declared at .* is inside 'branch' and cannot"),
    ):
        gc.identity(y)
    with gc.Session() as session:
        session.run(v.initializer)
        assert session.run(y) == 0.0
        assert session.run(v) == 1.0
