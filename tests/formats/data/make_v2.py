"""Writes the stored file of format version 2, and what it computed when it was written.

    python tests/formats/data/make_v2.py

Once version 2 has been released the files stay as they are for ever: a graphc that cannot read
them, or computes something else, is broken.  Then this script only says what is in them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc
from graphc.formats import save

HERE = Path(__file__).parent


def declare() -> tuple[dict[str, Any], dict[str, Any]]:
    """Loops and branches in each other, with gradients, a training step and TensorArrays."""
    gc.set_random_seed(21)
    x = gc.placeholder(gc.float32, [None, 3], name="x")
    turns = gc.placeholder(gc.int32, [], name="turns")
    start = np.array([[0.5, -0.3, 0.1], [0.2, 0.4, -0.6], [-0.1, 0.7, 0.3]], np.float32)
    w = gc.Variable(start, name="w")
    visits = gc.Variable(0, trainable=False, name="visits")
    rows = gc.TensorArray(gc.float32, turns, element_shape=[3])

    def body(i: Any, h: Any, rows: Any) -> Any:
        with gc.control_dependencies([visits.assign_add(1)]):
            h = gc.matmul(gc.tanh(h), w) + x
        odd = gc.equal(gc.floormod(i, 2), 1)
        h = gc.cond(odd, lambda: gc.sin(h), lambda: gc.cond(i > 2, lambda: h * w[0], lambda: h))
        return i + 1, h, rows.write(i, gc.reduce_sum(h, 0))

    _, h, rows = gc.while_loop(lambda i, *_: i < turns, body, (0, x, rows), name="loop")
    stacked = gc.identity(rows.stack(), name="stacked")
    loss = gc.reduce_sum(stacked * stacked, name="loss")
    of_x, of_w = gc.gradients(loss, [x, w])
    train = gc.train.GradientDescentOptimizer(0.01).minimize(loss)
    _, small = gc.while_loop(
        lambda i, _: i < turns, lambda i, t: (i + 1, gc.tanh(t) * x), (0, x), name="small"
    )
    first = gc.gradients(small, x)[0]
    second = gc.gradients(gc.reduce_sum(first * first), x)[0]

    def grow(i: Any, found: Any) -> Any:
        return i * 2, found.write(found.size(), gc.cast(i, gc.float32))

    powers = gc.TensorArray(gc.float32, 0, dynamic_size=True, element_shape=[])
    _, powers = gc.while_loop(lambda i, _: i < 100, grow, (1, powers))
    noise = gc.while_loop(
        lambda i, _: i < 3, lambda i, t: (i + 1, t + gc.random_uniform([2], seed=4)),
        (0, np.zeros(2, np.float32)), name="noise",
    )[1]  # fmt: skip
    outputs = {
        "h": h,
        "stacked": stacked,
        "loss": loss,
        "of_x": of_x,
        "of_w": of_w,
        "second": second,
        "chosen": gc.switch_case(turns - 3, [lambda: x, lambda: x + 1.0, lambda: h]),
        "mapped": gc.map_fn(lambda row: gc.reduce_max(row) * row, x),
        "powers": powers.stack(),
        "noise": noise,
        "visits": visits,
        "train": train,
    }
    return {"x": x, "turns": turns}, outputs


def feeds() -> dict[str, np.ndarray]:
    """The inputs."""
    x = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32) / 2
    return {"x": x, "turns": np.array(5, np.int32)}


def main() -> None:
    """Write ``v2.graphc``, and ``v2.npz`` with the inputs and the outputs of two calls."""
    with gc.Graph().as_default():
        inputs, outputs = declare()
        session = gc.Session(mode="reference")
        session.run(gc.global_variables_initializer())
        save(HERE / "v2.graphc", session, inputs, outputs)
        stored = {f"in/{name}": value for name, value in feeds().items()}
        for call in range(2):
            feed = {inputs[name]: value for name, value in feeds().items()}
            for name, value in session.run(outputs, feed).items():
                if name != "train":
                    stored[f"out{call}/{name}"] = value
    np.savez_compressed(HERE / "v2.npz", **stored)


if __name__ == "__main__":
    main()
