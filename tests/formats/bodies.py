"""Models with loops and branches, for the tests of files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import graphc as gc

Made = tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]


def loop() -> Made:
    """A loop over captured tensors and a variable, with gradients to second order."""
    x = gc.placeholder(gc.float32, [None, 3], name="x")
    turns = gc.placeholder(gc.int32, [], name="turns")
    w = gc.get_variable("w", initializer=np.linspace(-0.8, 0.9, 9, dtype=np.float32).reshape(3, 3))
    _, y = gc.while_loop(
        lambda i, _: i < turns, lambda i, h: (i + 1, gc.tanh(gc.matmul(h, w) + x)), (0, x)
    )
    loss = gc.reduce_sum(y * y, name="loss")
    first, of_w = gc.gradients(loss, [x, w])
    second = gc.gradients(gc.reduce_sum(first * first), [x])[0]
    outs = {"y": y, "loss": loss, "first": first, "of_w": of_w, "second": second}
    feed = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) / 7, "turns": np.array(4, np.int32)}
    return {"x": x, "turns": turns}, outs, feed


def branches() -> Made:
    """All three forms of choices, one in the other; a branch that gives what is around."""
    x = gc.placeholder(gc.float32, [2], name="x")
    which = gc.placeholder(gc.int32, [], name="which")
    low, high = which < 1, which > 1
    chosen = gc.cond(low, lambda: x, lambda: gc.cond(high, lambda: gc.exp(x), lambda: x * x))
    switched = gc.switch_case(which, [lambda: x + 1.0, lambda: gc.sin(x), lambda: x * 3.0])
    cased = gc.case([(low, lambda: (x, x * 2.0)), (high, lambda: (gc.cos(x), x))], lambda: (x, x))
    total = gc.reduce_sum(chosen * switched + cased[0] * cased[1])
    outs = {"chosen": chosen, "switched": switched, "cased": cased[1], "total": total}
    outs["first"] = gc.gradients(total, x)[0]
    outs["second"] = gc.gradients(gc.reduce_sum(outs["first"]), x)[0]
    feed = {"x": np.array([0.3, -1.2], np.float32), "which": np.array(2, np.int32)}
    return {"x": x, "which": which}, outs, feed


def arrays() -> Made:
    """TensorArrays that are read, written and grow, in a loop."""
    x = gc.placeholder(gc.float32, [None, 2], name="x")
    given = gc.TensorArray(gc.float32, gc.shape(x)[0]).unstack(x)
    made = gc.TensorArray(gc.float32, 0, dynamic_size=True, element_shape=[2])

    def body(i: Any, state: Any, out: Any) -> Any:
        state = state * 0.5 + given.read(i)
        return i + 1, state, out.write(i, state * state)

    start = (0, gc.zeros([2]), made)
    _, last, out = gc.while_loop(lambda i, *_: i < gc.shape(x)[0], body, start)
    rows = gc.identity(out.stack(), name="rows")
    outs = {"last": last, "rows": rows, "first": gc.gradients(rows, x)[0]}
    return {"x": x}, outs, {"x": np.arange(10, dtype=np.float32).reshape(5, 2) / 3 - 1}


def state() -> Made:
    """Variables that only bodies use and assign; random numbers in bodies of bodies."""
    gc.set_random_seed(7)
    steps = gc.get_variable("steps", initializer=0, trainable=False)
    scale = gc.get_variable("scale", initializer=np.float32(1.5))
    x = gc.placeholder(gc.float32, [3], name="x")

    def body(i: Any, h: Any) -> Any:
        with gc.control_dependencies([steps.assign_add(2)]):
            noise = gc.random_normal([3], seed=3)
        drawn = gc.cond(
            gc.random_uniform([], seed=5) < 0.5, lambda: gc.random_uniform([3]), lambda: noise
        )
        return i + 1, h * scale + drawn

    _, y = gc.while_loop(lambda i, _: i < 5, body, (0, x))
    loss = gc.reduce_sum(y, name="loss")
    step = gc.train.GradientDescentOptimizer(1e-3).minimize(loss)
    outs = {"y": y, "train": step, "loss": loss, "steps": steps, "scale": scale}
    return {"x": x}, outs, {"x": np.array([1, -2, 3], np.float32)}


def functional() -> Made:
    """map_fn, scan and foldl, one in the other."""
    x = gc.placeholder(gc.float32, [None, 4], name="x")
    mapped = gc.map_fn(lambda row: gc.foldl(lambda a, e: a * 0.5 + e, row), x)
    scanned = gc.scan(lambda a, e: gc.tanh(a + e), mapped)
    outs = {"mapped": mapped, "scanned": scanned, "first": gc.gradients(scanned, x)[0]}
    return {"x": x}, outs, {"x": np.arange(12, dtype=np.float32).reshape(3, 4) / 5}


def recurrent() -> Made:
    """A trained LSTM over sequences of several lengths."""
    x = gc.placeholder(gc.float32, [None, None, 3], name="x")
    lengths = gc.placeholder(gc.int32, [None], name="lengths")
    cell = gc.nn.rnn_cell.LSTMCell(4, initializer=gc.random_uniform_initializer(-0.5, 0.5, seed=2))
    out, last = gc.nn.dynamic_rnn(cell, x, sequence_length=lengths, dtype=gc.float32)
    loss = gc.reduce_mean(gc.square(out), name="loss")
    step = gc.train.AdamOptimizer(0.01).minimize(loss)
    outs = {"out": out, "h": last.h, "loss": loss, "train": step}
    values = np.arange(24, dtype=np.float32).reshape(2, 4, 3) / 24
    return {"x": x, "lengths": lengths}, outs, {"x": values, "lengths": np.array([4, 2], np.int32)}


MODELS: dict[str, Callable[[], Made]] = {
    m.__name__: m for m in (loop, branches, arrays, state, functional, recurrent)
}
