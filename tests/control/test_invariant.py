"""What is the same in every turn is computed once, before the loop."""

import numpy as np
import pytest

import graphc as gc


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


def compiled(session):
    """The compiled function, and the types of the operations in its loops' bodies."""
    (executable,) = [e for plan in session._plans.values() for e in plan.executables.values()]
    fn = executable.code.program.function
    inside = [
        op.type
        for owner in fn.operations
        if owner.type == "While"
        for op in owner.attrs["bodies"][1].operations
    ]
    return fn, inside


def powers(matrix, x, turns=5):
    return gc.while_loop(
        lambda i, y: i < turns, lambda i, y: (i + 1, gc.tanh(matrix(y))), [0, x]
    )[1]


def test_work_on_captured_values():
    w, x = gc.placeholder(gc.float32, [3, 3]), gc.placeholder(gc.float32, [2, 3])
    y = powers(lambda y: gc.matmul(y, gc.exp(w)), x)
    with gc.Session() as s:
        value, start = np.eye(3, dtype=np.float32), np.ones((2, 3), np.float32)
        found = s.run(y, {w: value, x: start})
        fn, inside = compiled(s)
    assert "Exp" not in inside
    assert "Exp" in [op.type for op in fn.operations]
    for _ in range(5):
        start = np.tanh(start @ np.exp(value))
    np.testing.assert_allclose(found, start, rtol=1e-5)


@pytest.mark.parametrize("first", ["variable", "computed"])
def test_a_transposed_operand_is_turned_once(first):
    w, x = gc.placeholder(gc.float32, [3, 3]), gc.placeholder(gc.float32, [2, 3])
    m = w if first == "variable" else w * 2.0
    y = powers(lambda y: gc.matmul(y, m, transpose_b=True), x)
    with gc.Session() as s:
        value = np.arange(9, dtype=np.float32).reshape(3, 3) / 9
        found = s.run(y, {w: value, x: np.ones((2, 3))})
        fn, inside = compiled(s)
    assert "Transpose" not in inside
    assert [op.type for op in fn.operations].count("Transpose") == 1
    expected = np.ones((2, 3))
    for _ in range(5):
        expected = np.tanh(expected @ value.T * (1 if first == "variable" else 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_operand_that_changes_is_read_as_it_lies():
    x = gc.placeholder(gc.float32, [3, 3])
    y = powers(lambda y: gc.matmul(y, y, transpose_b=True), x)
    with gc.Session() as s:
        s.run(y, {x: np.eye(3)})
        fn, inside = compiled(s)
    assert "Transpose" not in [op.type for op in fn.operations] + inside
