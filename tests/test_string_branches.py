"""Branches that give tensors of strings, which no program computes."""

from __future__ import annotations

import pytest

import graphc as gc


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
def test_strings_of_the_branch_that_is_taken(mode):
    with gc.Graph().as_default(), gc.Session(mode=mode) as session:
        x = gc.placeholder(gc.int32, [])
        word = gc.case(
            [(x > 5, lambda: gc.constant("big")), (x > 1, lambda: gc.constant("mid"))],
            default=lambda: gc.constant("low"),
        )
        sign, size = gc.cond(
            x > 0, lambda: (gc.constant(["+"]), x), lambda: (gc.constant(["-"]), -x)
        )
        for value, expected in ((7, b"big"), (3, b"mid"), (-2, b"low")):
            found = session.run([word, gc.identity(word), sign, size, x + 1], {x: value})
            assert found[:2] == [expected, expected]
            assert found[2].tolist() == [b"+" if value > 0 else b"-"]
            assert found[3:] == [abs(value), value + 1]
        assert session.run(word, {x: 6}) == b"big"
