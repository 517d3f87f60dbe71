"""The workloads in graphc, in either mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from workloads import BLOCKS, EPSILON, HEADS, LAYERS, TOKENS, WIDTH, resnet_convolutions

import graphc as gc

Data = dict[str, np.ndarray]
VERSION = f"graphc {gc.__version__}"


def set_threads(count: int) -> None:
    gc.set_num_threads(count)


def make(name: str, data: Data, mode: str = "static") -> Callable[[], Any]:
    """A function that does the workload once and returns its value as an array."""
    sess = gc.Session(mode=mode)
    placeholders = {k: gc.placeholder(v.dtype, v.shape, name=k) for k, v in data.items()}
    fetches, used = BUILDERS[name](data, placeholders)
    sess.run(gc.global_variables_initializer())
    if name.endswith("_callable"):
        run = sess.make_callable(fetches, [placeholders[k] for k in used])
        values = [data[k] for k in used]
        return lambda: run(*values)
    feeds = {placeholders[k]: data[k] for k in used}
    value = fetches[0] if isinstance(fetches, list) else None
    if value is not None:
        return lambda: sess.run(fetches, feeds)[0]
    return lambda: sess.run(fetches, feeds)


def variables(data: Data) -> dict[str, gc.Variable]:
    """The weights and biases among the data."""
    return {k: gc.Variable(v, name=f"v_{k}") for k, v in data.items() if k[0] in "wb"}


def x2p1(_: Data, p: Any) -> Any:
    return p["x"] * 2 + 1, ["x"]


def two_layers(data: Data, p: Any) -> Any:
    v = variables(data)
    prediction = gc.matmul(gc.nn.relu(gc.matmul(p["x"], v["w1"])), v["w2"])
    loss = gc.reduce_sum(gc.square(prediction - p["y"]))
    return [loss, gc.train.GradientDescentOptimizer(1e-7).minimize(loss)], ["x", "y"]


def mlp_logits(data: Data, p: Any) -> gc.Tensor:
    v = variables(data)
    hidden = gc.nn.relu(gc.matmul(p["x"], v["w1"]) + v["b1"])
    hidden = gc.nn.relu(gc.matmul(hidden, v["w2"]) + v["b2"])
    return gc.matmul(hidden, v["w3"]) + v["b3"]


def lenet_logits(data: Data, p: Any) -> gc.Tensor:
    v, x, ones, two = variables(data), p["x"], [1, 1, 1, 1], [1, 2, 2, 1]
    for k in ("1", "2"):
        x = gc.nn.conv2d(x, v["w" + k], strides=ones, padding="VALID")
        x = gc.nn.max_pool(gc.nn.relu(gc.nn.bias_add(x, v["b" + k])), two, two, "VALID")
    x = gc.reshape(x, [64, 800])
    x = gc.nn.relu(gc.matmul(x, v["w3"]) + v["b3"])
    return gc.matmul(x, v["w4"]) + v["b4"]


class Lstm(gc.nn.rnn_cell.RNNCell):
    """An LSTM whose weights are given."""

    state_size = gc.nn.rnn_cell.LSTMStateTuple(128, 128)
    output_size = 128

    def __init__(self, v: dict[str, gc.Variable]) -> None:
        super().__init__()
        self.v = v

    def call(self, inputs: Any, state: Any) -> Any:
        """One step: gates i, j, f, o of one product."""
        c, h = state
        gates = gc.matmul(gc.concat([inputs, h], 1), self.v["w1"]) + self.v["b1"]
        i, j, f, o = gc.split(gates, 4, axis=1)
        c = c * gc.sigmoid(f + 1.0) + gc.sigmoid(i) * gc.tanh(j)
        h = gc.tanh(c) * gc.sigmoid(o)
        return h, gc.nn.rnn_cell.LSTMStateTuple(c, h)


def lstm_logits(data: Data, p: Any) -> gc.Tensor:
    v = variables(data)
    _, state = gc.nn.dynamic_rnn(Lstm(v), p["x"], dtype="float32")
    return gc.matmul(state.h, v["w2"]) + v["b2"]


def unrolled_logits(data: Data, p: Any) -> gc.Tensor:
    v = variables(data)
    _, state = gc.nn.static_rnn(Lstm(v), gc.unstack(p["x"], axis=1), dtype="float32")
    return gc.matmul(state.h, v["w2"]) + v["b2"]


def turns(_: Data, p: Any) -> Any:
    i = gc.while_loop(lambda i: i < p["n"], lambda i: i + 1, [gc.constant(0)])
    return i, ["n"]


def trained(logits: Any, optimizer: Any) -> Callable[[Data, Any], Any]:
    def build(data: Data, p: Any) -> Any:
        entropy = gc.nn.sparse_softmax_cross_entropy_with_logits(
            labels=p["y"], logits=logits(data, p)
        )
        loss = gc.reduce_mean(entropy)
        return [loss, optimizer().minimize(loss)], ["x", "y"]

    return build


def inferred(logits: Any) -> Callable[[Data, Any], Any]:
    return lambda data, p: (gc.nn.softmax(logits(data, p)), ["x"])


def encoder(data: Data, p: Any) -> Any:
    v, batch = variables(data), len(data["x"])
    x = gc.reshape(p["x"], [batch * TOKENS, WIDTH])

    def dense(x: Any, part: str) -> Any:
        return gc.matmul(x, v["w" + part]) + v["b" + part]

    def heads(x: Any) -> Any:
        parts = gc.reshape(x, [batch, TOKENS, HEADS, WIDTH // HEADS])
        return gc.transpose(parts, [0, 2, 1, 3])

    for k in range(LAYERS):
        q, key, value = (heads(dense(x, f"{k}_{part}")) for part in "qkv")
        scores = gc.matmul(q, key, transpose_b=True) * (WIDTH // HEADS) ** -0.5
        mixed = gc.transpose(gc.matmul(gc.nn.softmax(scores), value), [0, 2, 1, 3])
        x += dense(gc.reshape(mixed, [batch * TOKENS, WIDTH]), f"{k}_o")
        x = gc.nn.layer_normalization(x, v[f"w{k}_norm1"], v[f"b{k}_norm1"])
        hidden = dense(x, f"{k}_in")
        hidden = 0.5 * hidden * (1 + gc.erf(hidden * 0.7071067811865476))
        x += dense(hidden, f"{k}_out")
        x = gc.nn.layer_normalization(x, v[f"w{k}_norm2"], v[f"b{k}_norm2"])
    return gc.reshape(x, [batch, TOKENS, WIDTH]), ["x"]


def resnet(data: Data, p: Any) -> Any:
    v, sizes = variables(data), resnet_convolutions()

    def convolved(x: Any, name: str) -> Any:
        size, _, _, stride, _ = sizes[name]
        around = [size // 2, size // 2]
        x = gc.nn.conv2d(x, v[f"w_{name}"], [1, stride, stride, 1],
                         [[0, 0], around, around, [0, 0]])  # fmt: skip
        return gc.nn.fused_batch_norm(
            x, v[f"w_{name}_scale"], v[f"b_{name}_offset"], v[f"b_{name}_mean"],
            v[f"w_{name}_variance"], epsilon=EPSILON, is_training=False,
        )[0]  # fmt: skip

    x = gc.nn.relu(convolved(p["x"], "stem"))
    # What is padded is not negative, so that zeros do not change a window's maximum.
    x = gc.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    x = gc.nn.max_pool(x, [1, 3, 3, 1], [1, 2, 2, 1], "VALID")
    for name, _, _, stride, _ in BLOCKS:
        y = convolved(gc.nn.relu(convolved(x, f"{name}_1")), f"{name}_2")
        x = gc.nn.relu(y + (convolved(x, f"{name}_skip") if stride > 1 else x))
    return gc.matmul(gc.reduce_mean(x, [1, 2]), v["w_fc"]) + v["b_fc"], ["x"]


def gelu(_: Data, p: Any) -> Any:
    z = p["x"] + p["b"]
    return 0.5 * z * (1 + gc.erf(z * 0.7071067811865476)) * p["b"], ["x", "b"]


BUILDERS: dict[str, Callable[[Data, Any], Any]] = {
    "x2p1": x2p1,
    "x2p1_callable": x2p1,
    "two_layer_10": two_layers,
    "two_layer_1000": two_layers,
    "mlp_train": trained(mlp_logits, lambda: gc.train.AdamOptimizer(1e-3)),
    "lenet_train": trained(lenet_logits, lambda: gc.train.MomentumOptimizer(0.01, 0.9)),
    "lstm_train": trained(lstm_logits, lambda: gc.train.GradientDescentOptimizer(1e-7)),
    "lstm_unrolled": trained(unrolled_logits, lambda: gc.train.GradientDescentOptimizer(1e-7)),
    "while": turns,
    "mlp_infer": inferred(mlp_logits),
    "lenet_infer": inferred(lenet_logits),
    "encoder_1": encoder,
    "encoder_8": encoder,
    "resnet18": resnet,
    "softmax": lambda _, p: (gc.nn.softmax(p["x"]), ["x"]),
    "layer_norm": lambda _, p: (
        gc.nn.layer_normalization(p["x"], p["g"], p["b"]), ["x", "g", "b"],
    ),
    "gelu": gelu,
}  # fmt: skip
