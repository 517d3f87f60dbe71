"""The workloads as TensorFlow 1 graphs, in whichever module ``tf`` is: graphc or TensorFlow 1.15.

Python 3.7 reads this file, worker.py and workloads.py: TensorFlow 1.15 has no later one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workloads import BLOCKS, EPSILON, HEADS, encoder_layers, resnet_convolutions

Data = dict


def make(tf: Any, sess: Any, name: str, data: Data) -> Callable[[], Any]:
    """A function that does the workload once and returns its value as an array."""
    placeholders = {k: tf.placeholder(v.dtype, v.shape, name=k) for k, v in data.items()}
    fetches, used = BUILDERS[name](tf, data, placeholders)
    sess.run(tf.global_variables_initializer())
    if name.endswith("_callable"):
        run = sess.make_callable(fetches, [placeholders[k] for k in used])
        values = [data[k] for k in used]
        return lambda: run(*values)
    feeds = {placeholders[k]: data[k] for k in used}
    if isinstance(fetches, list):
        return lambda: sess.run(fetches, feeds)[0]
    return lambda: sess.run(fetches, feeds)


def variables(tf: Any, data: Data) -> dict[str, Any]:
    """The weights and biases among the data."""
    return {k: tf.Variable(v, name=f"v_{k}") for k, v in data.items() if k[0] in "wb"}


def x2p1(_tf: Any, _: Data, p: Any) -> Any:
    return p["x"] * 2 + 1, ["x"]


def two_layers(tf: Any, data: Data, p: Any) -> Any:
    v = variables(tf, data)
    prediction = tf.matmul(tf.nn.relu(tf.matmul(p["x"], v["w1"])), v["w2"])
    loss = tf.reduce_sum(tf.square(prediction - p["y"]))
    return [loss, tf.train.GradientDescentOptimizer(1e-7).minimize(loss)], ["x", "y"]


def mlp_logits(tf: Any, data: Data, p: Any) -> Any:
    v = variables(tf, data)
    hidden = tf.nn.relu(tf.matmul(p["x"], v["w1"]) + v["b1"])
    hidden = tf.nn.relu(tf.matmul(hidden, v["w2"]) + v["b2"])
    return tf.matmul(hidden, v["w3"]) + v["b3"]


def lenet_logits(tf: Any, data: Data, p: Any) -> Any:
    v, x, ones, two = variables(tf, data), p["x"], [1, 1, 1, 1], [1, 2, 2, 1]
    for k in ("1", "2"):
        x = tf.nn.conv2d(x, v["w" + k], strides=ones, padding="VALID")
        x = tf.nn.max_pool(tf.nn.relu(tf.nn.bias_add(x, v["b" + k])), two, two, "VALID")
    x = tf.reshape(x, [-1, int(v["w3"].shape[0])])
    x = tf.nn.relu(tf.matmul(x, v["w3"]) + v["b3"])
    return tf.matmul(x, v["w4"]) + v["b4"]


def lstm_cell(tf: Any, v: dict[str, Any]) -> Any:
    """An LSTM whose weights are given."""
    units = int(v["b1"].shape[0]) // 4

    class Lstm(tf.nn.rnn_cell.RNNCell):  # type: ignore[misc, name-defined]
        state_size = tf.nn.rnn_cell.LSTMStateTuple(units, units)
        output_size = units

        def call(self, inputs: Any, state: Any) -> Any:
            """One step: gates i, j, f, o of one product."""
            c, h = state
            gates = tf.matmul(tf.concat([inputs, h], 1), v["w1"]) + v["b1"]
            i, j, f, o = tf.split(gates, 4, axis=1)
            c = c * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(j)
            h = tf.tanh(c) * tf.sigmoid(o)
            return h, tf.nn.rnn_cell.LSTMStateTuple(c, h)

    return Lstm()


def lstm_logits(tf: Any, data: Data, p: Any) -> Any:
    v = variables(tf, data)
    _, state = tf.nn.dynamic_rnn(lstm_cell(tf, v), p["x"], dtype="float32")
    return tf.matmul(state.h, v["w2"]) + v["b2"]


def unrolled_logits(tf: Any, data: Data, p: Any) -> Any:
    v = variables(tf, data)
    inputs = tf.unstack(p["x"], axis=1)
    _, state = tf.nn.static_rnn(lstm_cell(tf, v), inputs, dtype="float32")
    return tf.matmul(state.h, v["w2"]) + v["b2"]


def turns(tf: Any, _: Data, p: Any) -> Any:
    i = tf.while_loop(lambda i: i < p["n"], lambda i: i + 1, [tf.constant(0)])
    return i, ["n"]


def trained(logits: Any, optimizer: Any) -> Callable[[Any, Data, Any], Any]:
    def build(tf: Any, data: Data, p: Any) -> Any:
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=p["y"], logits=logits(tf, data, p)
        )
        loss = tf.reduce_mean(entropy)
        return [loss, optimizer(tf).minimize(loss)], ["x", "y"]

    return build


def inferred(logits: Any) -> Callable[[Any, Data, Any], Any]:
    return lambda tf, data, p: (tf.nn.softmax(logits(tf, data, p)), ["x"])


def norm(tf: Any, x: Any, gain: Any, bias: Any) -> Any:
    """TensorFlow 1 has no op for it; this is what its ``contrib.layers.layer_norm`` calls.

    Of shorter floats than those of ``gain`` it is done in the longer ones.
    """
    long = gain.dtype.base_dtype
    if x.dtype != long:
        return tf.cast(norm(tf, tf.cast(x, long), gain, bias), x.dtype)
    if hasattr(tf.nn, "layer_normalization"):
        return tf.nn.layer_normalization(x, gain, bias)
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, bias, gain, 1e-5)


def attended(tf: Any, parts: Any, mask: Any = None) -> Any:
    """The values of each head, mixed: queries, keys and values are [batch, tokens, heads, depth].

    Scores are float32, whatever the parts are; ``mask`` is added to them.
    """
    q, key, value = (tf.transpose(x, [0, 2, 1, 3]) for x in parts)
    scores = tf.cast(tf.matmul(q, key, transpose_b=True), "float32") * int(q.shape[-1]) ** -0.5
    weights = tf.nn.softmax(scores if mask is None else scores + mask)
    return tf.transpose(tf.matmul(tf.cast(weights, q.dtype), value), [0, 2, 1, 3])


def encoder(tf: Any, data: Data, p: Any) -> Any:
    return encoded(tf, variables(tf, data), p["x"]), ["x"]


def encoded(tf: Any, v: dict[str, Any], x: Any) -> Any:
    """The encoder of some weights, in the dtype of its input; norms keep the weights' own."""
    batch, tokens, width = shape = [int(size) for size in x.shape]
    parts = [batch, tokens, HEADS, width // HEADS]
    x = tf.reshape(x, [batch * tokens, width])

    def dense(x: Any, part: str) -> Any:
        return tf.matmul(x, tf.cast(v["w" + part], x.dtype)) + tf.cast(v["b" + part], x.dtype)

    for k in range(encoder_layers(v)):
        mixed = attended(tf, [tf.reshape(dense(x, f"{k}_{part}"), parts) for part in "qkv"])
        x += dense(tf.reshape(mixed, [batch * tokens, width]), f"{k}_o")
        x = norm(tf, x, v[f"w{k}_norm1"], v[f"b{k}_norm1"])
        hidden = dense(x, f"{k}_in")
        hidden = 0.5 * hidden * (1 + tf.erf(hidden * 0.7071067811865476))
        x += dense(hidden, f"{k}_out")
        x = norm(tf, x, v[f"w{k}_norm2"], v[f"b{k}_norm2"])
    return tf.reshape(x, shape)


def resnet(tf: Any, data: Data, p: Any) -> Any:
    v, sizes = variables(tf, data), resnet_convolutions()

    def convolved(x: Any, name: str) -> Any:
        size, _, _, stride, _ = sizes[name]
        around = [size // 2, size // 2]
        x = tf.nn.conv2d(x, v[f"w_{name}"], [1, stride, stride, 1],
                         [[0, 0], around, around, [0, 0]])  # fmt: skip
        return tf.nn.fused_batch_norm(
            x, v[f"w_{name}_scale"], v[f"b_{name}_offset"], v[f"b_{name}_mean"],
            v[f"w_{name}_variance"], epsilon=EPSILON, is_training=False,
        )[0]  # fmt: skip

    x = tf.nn.relu(convolved(p["x"], "stem"))
    # What is padded is not negative, so that zeros do not change a window's maximum.
    x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    x = tf.nn.max_pool(x, [1, 3, 3, 1], [1, 2, 2, 1], "VALID")
    for name, _, _, stride, _ in BLOCKS:
        y = convolved(tf.nn.relu(convolved(x, f"{name}_1")), f"{name}_2")
        x = tf.nn.relu(y + (convolved(x, f"{name}_skip") if stride > 1 else x))
    return tf.matmul(tf.reduce_mean(x, [1, 2]), v["w_fc"]) + v["b_fc"], ["x"]


def gelu(tf: Any, _: Data, p: Any) -> Any:
    z = p["x"] + p["b"]
    return 0.5 * z * (1 + tf.erf(z * 0.7071067811865476)) * p["b"], ["x", "b"]


def descent(tf: Any) -> Any:
    return tf.train.GradientDescentOptimizer(1e-7)


BUILDERS: dict[str, Callable[[Any, Data, Any], Any]] = {
    "x2p1": x2p1,
    "x2p1_callable": x2p1,
    "two_layer_10": two_layers,
    "two_layer_1000": two_layers,
    "mlp_train": trained(mlp_logits, lambda tf: tf.train.AdamOptimizer(1e-3)),
    "lenet_train": trained(lenet_logits, lambda tf: tf.train.MomentumOptimizer(0.01, 0.9)),
    "lstm_train": trained(lstm_logits, descent),
    "lstm_unrolled": trained(unrolled_logits, descent),
    "while": turns,
    "mlp_infer": inferred(mlp_logits),
    "lenet_infer": inferred(lenet_logits),
    "encoder_1": encoder,
    "encoder_8": encoder,
    "resnet18": resnet,
    "softmax": lambda tf, _, p: (tf.nn.softmax(p["x"]), ["x"]),
    "layer_norm": lambda tf, _, p: (norm(tf, p["x"], p["g"], p["b"]), ["x", "g", "b"]),
    "gelu": gelu,
}
