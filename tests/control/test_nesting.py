"""Loops and branches nested deeper than Python's stack is by default."""

from __future__ import annotations

import sys

import pytest

import graphc as gc
from graphc.errors import GraphError
from graphc.ops import control_build

DEPTH = 260


@pytest.fixture(autouse=True)
def python_as_it_was(monkeypatch):
    # Verifying every stage of a graph this deep takes longer than the rest of the test.
    monkeypatch.delenv("GRAPHC_VERIFY")
    limit = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(limit)


def branches(x, depth):
    if depth == 0:
        return x
    return gc.cond(x > float(depth), lambda: branches(x, depth - 1) + 1.0, lambda: x * 2.0)


def loops(x, depth):
    if depth == 0:
        return x + 1.0
    return gc.while_loop(lambda i, _: i < 1, lambda i, y: (i + 1, loops(y, depth - 1)), [0, x])[1]


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
def test_deep_branches(mode):
    x = gc.placeholder(gc.float32, [])
    y = branches(x, DEPTH if mode != "static" else DEPTH // 2)
    with gc.Session(mode=mode) as session:
        assert session.run(y, {x: 1000.0}) == 1000.0 + DEPTH // (1 + (mode == "static"))
        assert session.run(y, {x: 1.0}) == 2.0


def test_deep_loops():
    x = gc.placeholder(gc.float32, [])
    with gc.Session(mode="eager") as session:
        assert session.run(loops(x, DEPTH), {x: 1.0}) == 2.0


@pytest.mark.parametrize("nested", [branches, loops])
def test_too_deep_is_a_typed_error(nested, monkeypatch):
    monkeypatch.setattr(control_build, "MAX_NESTING", 5)
    x = gc.placeholder(gc.float32, [])
    nested(x, 5)
    with pytest.raises(GraphError, match=r"'(cond|while).*' would be nested 6 deep: at most 5"):
        nested(x, 6)


def test_compiling_does_not_take_the_cube_of_the_depth():
    """The text that the code is found by: every operation is in it as often as it is nested."""
    x = gc.placeholder(gc.float32, [])
    sizes = []
    for depth in (10, 20, 40):
        with gc.Session() as session:
            stages = gc.inspect.compile_stages(session, branches(x, depth))
        (fuse,) = (s.text for s in stages if s.name == "fuse")
        sizes.append(len(fuse.splitlines()))
    assert sizes[2] < 2.5 * sizes[1] < 6 * sizes[0]
