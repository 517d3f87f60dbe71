"""Writes the stored file of format version 1, and what it computed when it was written.

    python tests/formats/data/make_v1.py

Once version 1 has been released the files stay as they are for ever: a graphc that cannot read
them, or computes something else, is broken.  Then this script only says what is in them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc
from graphc.formats import save

HERE = Path(__file__).parent


def declare() -> tuple[dict[str, Any], dict[str, Any], Any]:
    """A small convolutional network with a training step, and ops of every family beside it."""
    gc.set_random_seed(11)
    image = gc.placeholder(gc.float32, [None, 6, 6, 2], name="image")
    label = gc.placeholder(gc.int32, [None], name="label")
    anything = gc.placeholder(gc.float32, name="anything")
    scale = gc.placeholder_with_default(np.float32(2.0), [], name="scale")
    with gc.name_scope("net"):
        filters = gc.Variable(gc.truncated_normal([3, 3, 2, 4], stddev=0.3, seed=1), name="filters")
        weights = gc.Variable(gc.random_normal([36, 5], stddev=0.2, seed=2), name="weights")
        bias = gc.Variable(np.linspace(-1, 1, 5, dtype=np.float32), name="bias")
        hidden = gc.nn.relu(gc.nn.conv2d(image, filters, strides=[1, 1, 1, 1], padding="SAME"))
        pooled = gc.nn.max_pool(hidden, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")
        logits = gc.matmul(gc.reshape(pooled, [-1, 36]), weights) + bias
    losses = gc.nn.sparse_softmax_cross_entropy_with_logits(labels=label, logits=logits)
    loss = gc.reduce_mean(losses, name="loss")
    steps = gc.Variable(0, trainable=False, name="steps", dtype=gc.int64)
    train = gc.train.GradientDescentOptimizer(0.1).minimize(loss, global_step=steps)
    probabilities = gc.nn.softmax(logits, name="probabilities")
    left, right = gc.split(logits[:, 1:], 2, axis=1)
    with gc.control_dependencies([probabilities]), gc.device("/cpu:0"):
        picked = gc.gather(logits, [0, 0], name="picked")
    outputs = {
        "probabilities": probabilities,
        "class": gc.argmax(logits, 1, name="class"),
        "joined": gc.concat([left, right, gc.zeros_like(left)], 0),
        "stacked": gc.transpose(gc.stack([left, right]), [1, 0, 2]),
        "picked": picked,
        "padded": gc.pad(gc.expand_dims(bias, 0), [[1, 0], [0, 2]]),
        "tiled": gc.tile(gc.cast(label, gc.float64)[:, None], [1, 2]),
        "one_hot": gc.one_hot(label, 5, on_value=True, off_value=False),
        "where": gc.where(logits > 0.0, gc.exp(-logits), gc.square(logits)),
        "elementwise": gc.clip_by_value(gc.tanh(anything) * scale, -1.5, float("inf")),
        "integers": gc.floormod(label * 7, 5) + gc.cast(gc.reduce_any(logits > 1.0), gc.int32),
        "reduced": gc.reduce_max(gc.reduce_prod(image, [1, 2]), keepdims=True),
        "normal": gc.random_normal([3], seed=5, name="normal"),
        "range": gc.range(0, gc.shape(label)[0] * 2, 2),
        "names": gc.constant([["a", "\u00fc"]], name="names"),
        "special": gc.constant(np.array([np.nan, -np.inf, -0.0, 5e-324]), gc.float64),
        "empty": gc.constant(np.zeros((0, 2), np.float16)),
        "flags": gc.constant([True, False]),
        "steps": steps,
        "loss": loss,
        "train": train,
    }
    inputs = {"image": image, "label": label, "anything": anything, "scale": scale}
    return inputs, outputs, filters


def feeds() -> dict[str, np.ndarray]:
    """The inputs."""
    rng = np.random.default_rng(1)
    return {
        "image": rng.normal(size=(3, 6, 6, 2)).astype(np.float32),
        "label": np.array([4, 0, 2], np.int32),
        "anything": rng.normal(size=(2, 1, 3)).astype(np.float32),
    }


def main() -> None:
    """Write ``v1.graphc``, and ``v1.npz`` with the inputs and the outputs of two calls."""
    with gc.Graph().as_default():
        inputs, outputs, _ = declare()
        session = gc.Session(mode="reference")
        session.run(gc.global_variables_initializer())
        save(HERE / "v1.graphc", session, inputs, outputs)
        stored = {f"in/{name}": value for name, value in feeds().items()}
        for call in range(2):
            feed = {inputs[name]: value for name, value in feeds().items()}
            for name, value in session.run(outputs, feed).items():
                if name not in ("names", "train"):
                    stored[f"out{call}/{name}"] = value
    np.savez_compressed(HERE / "v1.npz", **stored)


if __name__ == "__main__":
    main()
