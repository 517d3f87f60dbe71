"""Loops and branches of so many steps that they are functions of their own in machine code."""

from __future__ import annotations

import re

import numpy as np
import pytest

import graphc as gc
from graphc.inspect.stages import compile_stages
from graphc.runtime import driver

F = gc.float32
SHORT = 8
STEPS = SHORT // 2 + 2
W = np.linspace(-0.4, 0.5, 9, dtype=np.float32).reshape(3, 3)


@pytest.fixture(autouse=True)
def few_steps_are_many(monkeypatch):
    """No program here is in a cache that knows nothing of it."""
    monkeypatch.setattr(driver, "SHORT", SHORT)


def long_chain(x, bias=0.0):
    """Products between which nothing can be fused with both: a step for each, at least."""
    for k in range(STEPS):
        x = gc.matmul(gc.nn.softmax(x + bias), W + np.float32(k % 5))
        x = x / (1.0 + gc.reduce_max(gc.abs(x)))
    return x


def functions(session, fetches):
    text = "\n".join(s.text for s in compile_stages(session, fetches) if s.name == "llvm")
    return re.findall(r"define internal i32 @(part\d+)", text)


@pytest.fixture
def x():
    return gc.placeholder(F, [20, 3])


VALUE = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)


def test_a_loop(everywhere, x):
    n = gc.placeholder(gc.int32, [])
    y = gc.while_loop(lambda i, _: i < n, lambda i, y: (i + 1, long_chain(y)), [0, x])[1]
    for turns in (0, 1, 5):
        everywhere(y, {x: VALUE, n: turns}, rtol=1e-4)
    with gc.Session() as s:
        assert len(functions(s, y)) == 1


def test_branches(everywhere, x):
    which = gc.placeholder(gc.int32, [])
    y = gc.switch_case(which, [lambda: long_chain(x), lambda: x * 2.0, lambda: long_chain(x, 1.0)])
    for k in (0, 1, 2):
        everywhere(y, {x: VALUE, which: k}, rtol=1e-4)
    with gc.Session() as s:
        assert len(functions(s, y)) == 2


def test_a_long_body_in_a_long_body(everywhere, x):
    def outer(i, y):
        y = gc.while_loop(lambda j, _: j < 2, lambda j, z: (j + 1, long_chain(z)), [0, y])[1]
        return i + 1, long_chain(y, gc.cast(i, F))

    y = gc.while_loop(lambda i, _: i < 3, outer, [0, x])[1]
    everywhere(y, {x: VALUE}, rtol=1e-3)
    with gc.Session() as s:
        assert len(functions(s, y)) == 2


def test_arrays_that_grow_and_sizes_that_turns_learn(everywhere, x):
    """Memory moves and sizes change in the part; the function around it sees them."""
    n = gc.placeholder(gc.int32, [])
    kept = gc.TensorArray(F, size=0, dynamic_size=True, element_shape=[20, 3])

    def body(i, y, rows, kept):
        y = long_chain(y)
        rows = gc.concat([rows, gc.boolean_mask(y, gc.greater(y[:, 0], 0.0))], 0)
        return i + 1, y, rows, kept.write(i, y)

    _, y, rows, kept = gc.while_loop(
        lambda i, *_: i < n, body, [0, x, x[:1], kept],
        shape_invariants=[gc.TensorShape([]), x.shape, gc.TensorShape([None, 3]), None],
    )  # fmt: skip
    found = [y, rows * 2.0, gc.reduce_sum(rows), kept.stack() + 1.0, gc.shape(rows)]
    for turns in (1, 3, 40):
        everywhere(found, {x: VALUE, n: turns}, rtol=1e-3)
    with gc.Session() as s:
        assert functions(s, found)


def test_a_failure_in_a_part_is_told_and_changes_nothing(x):
    at = gc.placeholder(gc.int32, [])
    v = gc.get_variable("v", initializer=np.ones(3, np.float32))

    def body(i, y):
        y = long_chain(y)
        return i + 1, y + gc.gather(v, i + at, name="taken")

    y = gc.while_loop(lambda i, _: i < 2, body, [0, x])[1]
    update = gc.assign_add(v, gc.reduce_sum(y, 0))
    with gc.Session() as s:
        s.run(gc.global_variables_initializer())
        with pytest.raises(gc.errors.InvalidArgumentError, match="taken"):
            s.run(update, {x: VALUE, at: 2})
        np.testing.assert_array_equal(s.run(v), np.ones(3))
        assert np.all(np.isfinite(s.run(update, {x: VALUE, at: 1})))


def test_gradients(x):
    n = gc.placeholder(gc.int32, [])
    y = gc.while_loop(lambda i, _: i < n, lambda i, y: (i + 1, long_chain(y)), [0, x])[1]
    (slope,) = gc.gradients(y, x)
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        assert len(functions(s, slope)) >= 2
        for turns in (0, 2):
            feeds = {x: VALUE, n: turns}
            np.testing.assert_allclose(
                s.run(slope, feeds), reference.run(slope, feeds), rtol=1e-3, atol=1e-6
            )


def test_sizes_seen_first_and_others(x):
    """Products have a version for the sizes of the first run, which a part must ask for itself."""
    a, n = gc.placeholder(F, [None, 3]), gc.placeholder(gc.int32, [])

    def body(i, y):
        for k in range(STEPS):
            y = gc.tanh(gc.matmul(y, W * np.float32(0.1 * k)))
            y = y / (1.0 + gc.reduce_max(gc.abs(y)))
        return i + 1, y

    y = gc.while_loop(lambda i, _: i < n, body, [0, a])[1]
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        for rows in (4, 4, 9, 1, 0):
            value = np.linspace(-1, 1, 3 * rows, dtype=np.float32).reshape(rows, 3)
            feeds = {a: value, n: 2}
            if rows == 0:
                feeds[n] = 0
            found = s.run(y, feeds)
            np.testing.assert_allclose(found, reference.run(y, feeds), rtol=1e-4, atol=1e-6)
