"""The reference interpreter: order, feeds, memory and hooks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc.ops.math as gm
from graphc.build import constant
from graphc.errors import FetchError, GraphError
from graphc.graph import Graph, Operation, control_dependencies
from graphc.interpret import Interpreter, interpret
from graphc.ops.array import group, identity, placeholder
from graphc.ops.base import call
from graphc.ops.random import random_uniform


@pytest.fixture(autouse=True)
def graph():
    with Graph().as_default() as g:
        yield g


def test_values_and_operations():
    x = placeholder("float32", [None])
    y = x * 2.0
    total = gm.reduce_sum(y)
    found = interpret([total, y.op, y, x], {x: [1, 2]})
    assert found[0] == 6.0
    assert found[1] is None
    np.testing.assert_array_equal(found[2], np.array([2, 4], np.float32), strict=True)
    assert found[3].dtype == np.float32


def test_a_fed_tensor_is_not_computed():
    x = placeholder("float32")
    y = x + 1.0
    z = y * y
    assert interpret([z], {y: 3.0}) == [9.0]
    with pytest.raises(GraphError, match="must be fed"):
        interpret([z])


def test_a_fed_output_keeps_its_value_when_its_operation_runs():
    x = constant(1.0)
    y = identity(x)
    assert interpret([y.op, y], {y: 5.0})[1] == 5.0


def test_deep_graphs_do_not_exhaust_the_stack():
    x = constant(0)
    for _ in range(5000):
        x = x + 1
    assert interpret([x]) == [5000]


def test_every_operation_runs_once_and_after_its_control_inputs():
    order: list[str] = []

    def special(op: Operation, inputs: list[np.ndarray]) -> Any:
        order.append(op.name)
        return None

    first = constant(1.0, name="first")
    with control_dependencies([first]):
        second = constant(2.0, name="second")
    both = group(second, first, name="both")
    interpret([both, second + second], special=special)
    assert order.index("first") < order.index("second") < order.index("both")
    assert len(order) == len(set(order))


def test_specials_replace_references():
    noise = random_uniform([2])

    def special(op: Operation, inputs: list[np.ndarray]) -> Any:
        return (np.array([0.25, 0.5], np.float32),) if op.type == "RandomUniform" else None

    np.testing.assert_array_equal(interpret([noise * 2], special=special)[0], [0.5, 1.0])
    with pytest.raises(GraphError, match="gave 0 values for 1"):
        interpret([noise], special=lambda op, inputs: ())


def test_one_run_computes_once():
    noise = random_uniform([3], seed=1)
    run = Interpreter()
    a, b = run.run([noise, call("Neg", noise)])
    np.testing.assert_array_equal(a, -b)
    assert run.run([noise])[0] is a


def test_only_elements_of_a_graph_are_fetched():
    with pytest.raises(FetchError, match="cannot interpret 'x'"):
        interpret(["x"])  # type: ignore[list-item]
