"""The workloads in TensorFlow 2, each one ``tf.function``, by XLA or without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from workloads import BLOCKS, EPSILON, HEADS, LAYERS, TOKENS, WIDTH, resnet_convolutions

Data = dict[str, Any]
Work = tuple[Callable[..., Any], list[Any]]  # a function and its arguments
VERSION = f"TensorFlow {tf.__version__}"


def set_threads(count: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(count)


def make(name: str, data: dict[str, np.ndarray], jit_compile: bool = False) -> Callable[[], Any]:
    """A function that does the workload once and returns its value as an array."""
    function, arguments = BUILDERS[name]({k: tf.constant(v) for k, v in data.items()})
    call = tf.function(function, jit_compile=jit_compile)
    return lambda: call(*arguments).numpy()


def variables(d: Data) -> Data:
    return {**d, **{k: tf.Variable(v) for k, v in d.items() if k[0] in "wb"}}


def mlp(d: Data) -> Any:
    x = d["x"]
    for k in ("1", "2"):
        x = tf.nn.relu(tf.matmul(x, d["w" + k]) + d["b" + k])
    return tf.matmul(x, d["w3"]) + d["b3"]


def lenet(d: Data) -> Any:
    x = d["x"]
    for k in ("1", "2"):
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, d["w" + k], 1, "VALID"), d["b" + k]))
        x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    x = tf.nn.relu(tf.matmul(tf.reshape(x, [64, 800]), d["w3"]) + d["b3"])
    return tf.matmul(x, d["w4"]) + d["b4"]


def cell(d: Data, x: Any, c: Any, h: Any) -> Any:
    gates = tf.matmul(tf.concat([x, h], 1), d["w1"]) + d["b1"]
    i, j, f, o = tf.split(gates, 4, axis=1)
    c = c * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(j)
    return c, tf.tanh(c) * tf.sigmoid(o)


def lstm(d: Data) -> Any:
    inputs = tf.transpose(d["x"], [1, 0, 2])
    zeros = tf.zeros([32, 128])

    def step(t: Any, c: Any, h: Any) -> Any:
        return t + 1, *cell(d, inputs[t], c, h)

    # XLA must know how many steps the gradient keeps.
    state = (tf.constant(0), zeros, zeros)
    _, _, h = tf.while_loop(lambda t, *_: t < 28, step, state, maximum_iterations=28)
    return tf.matmul(h, d["w2"]) + d["b2"]


def unrolled(d: Data) -> Any:
    c = h = tf.zeros([32, 128])
    for x in tf.unstack(d["x"], axis=1):
        c, h = cell(d, x, c, h)
    return tf.matmul(h, d["w2"]) + d["b2"]


def norm(x: Any, gain: Any, bias: Any) -> Any:
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, bias, gain, 1e-5)


def encoder(d: Data) -> Any:
    shape = d["x"].shape

    def dense(x: Any, part: str) -> Any:
        return tf.matmul(x, d["w" + part]) + d["b" + part]

    def heads(x: Any) -> Any:
        parts = tf.reshape(x, [-1, TOKENS, HEADS, WIDTH // HEADS])
        return tf.transpose(parts, [0, 2, 1, 3])

    x = tf.reshape(d["x"], [-1, WIDTH])
    for k in range(LAYERS):
        q, key, value = (heads(dense(x, f"{k}_{part}")) for part in "qkv")
        scores = tf.matmul(q, key, transpose_b=True) * (WIDTH // HEADS) ** -0.5
        mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores), value), [0, 2, 1, 3])
        x += dense(tf.reshape(mixed, [-1, WIDTH]), f"{k}_o")
        x = norm(x, d[f"w{k}_norm1"], d[f"b{k}_norm1"])
        x += dense(tf.nn.gelu(dense(x, f"{k}_in")), f"{k}_out")
        x = norm(x, d[f"w{k}_norm2"], d[f"b{k}_norm2"])
    return tf.reshape(x, shape)


def resnet(d: Data) -> Any:
    sizes = resnet_convolutions()

    def convolved(x: Any, name: str) -> Any:
        size, _, _, stride, _ = sizes[name]
        around = [size // 2, size // 2]
        x = tf.nn.conv2d(x, d[f"w_{name}"], stride, [[0, 0], around, around, [0, 0]])
        return tf.compat.v1.nn.fused_batch_norm(
            x, d[f"w_{name}_scale"], d[f"b_{name}_offset"], d[f"b_{name}_mean"],
            d[f"w_{name}_variance"], epsilon=EPSILON, is_training=False,
        )[0]  # fmt: skip

    x = tf.nn.relu(convolved(d["x"], "stem"))
    # What is padded is not negative, so that zeros do not change a window's maximum.
    x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    x = tf.nn.max_pool2d(x, 3, 2, "VALID")
    for name, _, _, stride, _ in BLOCKS:
        y = convolved(tf.nn.relu(convolved(x, f"{name}_1")), f"{name}_2")
        x = tf.nn.relu(y + (convolved(x, f"{name}_skip") if stride > 1 else x))
    return tf.matmul(tf.reduce_mean(x, [1, 2]), d["w_fc"]) + d["b_fc"]


def turns(d: Data) -> Work:
    def loop(n: Any) -> Any:
        return tf.while_loop(lambda i: i < n, lambda i: (i + 1,), (tf.constant(0),))[0]

    return loop, [d["n"]]


def squares(d: Data) -> Any:
    return tf.reduce_sum(tf.square(tf.matmul(tf.nn.relu(d["x"] @ d["w1"]), d["w2"]) - d["y"]))


def entropy(logits: Any) -> Any:
    return lambda d: tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=d["y"], logits=logits(d))
    )


def descent(_: Data) -> Callable[[Any, Any], None]:
    return lambda w, g: w.assign_sub(1e-7 * g)


def momentum(d: Data) -> Callable[[Any, Any], None]:
    slots = {v.ref(): tf.Variable(tf.zeros_like(v)) for k, v in d.items() if k[0] in "wb"}

    def update(w: Any, g: Any) -> None:
        s = slots[w.ref()]
        tf.raw_ops.ResourceApplyMomentum(
            var=w.handle, accum=s.handle, lr=0.01, grad=g, momentum=0.9
        )

    return update


def adam(d: Data) -> Callable[[Any, Any], None]:
    slots = {
        v.ref(): [tf.Variable(tf.zeros_like(v)), tf.Variable(tf.zeros_like(v)),
                  tf.Variable(0.9), tf.Variable(0.999)]
        for k, v in d.items() if k[0] in "wb"
    }  # fmt: skip

    def update(w: Any, g: Any) -> None:
        m, v, p1, p2 = slots[w.ref()]
        tf.raw_ops.ResourceApplyAdam(
            var=w.handle, m=m.handle, v=v.handle, beta1_power=p1, beta2_power=p2, lr=1e-3,
            beta1=0.9, beta2=0.999, epsilon=1e-8, grad=g,
        )  # fmt: skip
        p1.assign(p1 * 0.9)
        p2.assign(p2 * 0.999)

    return update


def trained(loss: Any, updater: Any) -> Callable[[Data], Work]:
    def build(d: Data) -> Work:
        d = variables(d)
        weights = [v for k, v in d.items() if k[0] in "wb"]
        update = updater(d)

        def step() -> Any:
            with tf.GradientTape() as tape:
                value = loss(d)
            for w, g in zip(weights, tape.gradient(value, weights), strict=True):
                update(w, g)
            return value

        return step, []

    return build


def inferred(function: Any) -> Callable[[Data], Work]:
    def build(d: Data) -> Work:
        fixed = {k: v for k, v in variables(d).items() if k != "x"}
        return lambda x: function({**fixed, "x": x}), [d["x"]]

    return build


def layer_norm(d: Data) -> Any:
    return norm(d["x"], d["g"], d["b"])


BUILDERS: dict[str, Callable[[Data], Work]] = {
    "x2p1": inferred(lambda d: d["x"] * 2 + 1),
    "x2p1_callable": inferred(lambda d: d["x"] * 2 + 1),
    "two_layer_10": trained(squares, descent),
    "two_layer_1000": trained(squares, descent),
    "mlp_train": trained(entropy(mlp), adam),
    "lenet_train": trained(entropy(lenet), momentum),
    "lstm_train": trained(entropy(lstm), descent),
    "lstm_unrolled": trained(entropy(unrolled), descent),
    "while": turns,
    "mlp_infer": inferred(lambda d: tf.nn.softmax(mlp(d))),
    "lenet_infer": inferred(lambda d: tf.nn.softmax(lenet(d))),
    "encoder_1": inferred(encoder),
    "encoder_8": inferred(encoder),
    "resnet18": inferred(resnet),
    "softmax": inferred(lambda d: tf.nn.softmax(d["x"])),
    "layer_norm": inferred(layer_norm),
    "gelu": inferred(lambda d: tf.nn.gelu(d["x"] + d["b"]) * d["b"]),
}
