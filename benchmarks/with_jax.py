"""The workloads in JAX, each one jitted function with its old state donated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from workloads import BLOCKS, EPSILON, HEADS, LAYERS, TOKENS, WIDTH, resnet_convolutions

Data = dict[str, Any]
VERSION = f"JAX {jax.__version__}"


def set_threads(count: int) -> None:
    """JAX takes as many threads as the process may use."""


def make(name: str, data: dict[str, np.ndarray]) -> Callable[[], Any]:
    """A function that does the workload once and returns its value as an array."""
    if data.get("y") is not None and data["y"].dtype == np.int64:
        data = {**data, "y": data["y"].astype(np.int32)}
    return BUILDERS[name]({k: jnp.asarray(v) for k, v in data.items()})


def mlp(w: Data, x: Any) -> Any:
    for k in ("1", "2"):
        x = jax.nn.relu(x @ w["w" + k] + w["b" + k])
    return x @ w["w3"] + w["b3"]


def lenet(w: Data, x: Any) -> Any:
    for k in ("1", "2"):
        x = lax.conv_general_dilated(
            x, w["w" + k], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + w["b" + k])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jax.nn.relu(x.reshape(64, 800) @ w["w3"] + w["b3"])
    return x @ w["w4"] + w["b4"]


def lstm(w: Data, x: Any, unroll: int = 1) -> Any:
    def step(state: Any, inputs: Any) -> Any:
        c, h = state
        gates = jnp.concatenate([inputs, h], 1) @ w["w1"] + w["b1"]
        i, j, f, o = jnp.split(gates, 4, axis=1)
        c = c * jax.nn.sigmoid(f + 1.0) + jax.nn.sigmoid(i) * jnp.tanh(j)
        return (c, jnp.tanh(c) * jax.nn.sigmoid(o)), None

    zeros = jnp.zeros((x.shape[0], 128))
    (_, h), _ = lax.scan(step, (zeros, zeros), jnp.swapaxes(x, 0, 1), unroll=unroll)
    return h @ w["w2"] + w["b2"]


def norm(x: Any, gain: Any, bias: Any) -> Any:
    mean = x.mean(axis=-1, keepdims=True)
    variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * gain + bias


def encoder(w: Data, x: Any) -> Any:
    shape = x.shape

    def dense(x: Any, part: str) -> Any:
        return x @ w["w" + part] + w["b" + part]

    def heads(x: Any) -> Any:
        return x.reshape(-1, TOKENS, HEADS, WIDTH // HEADS).swapaxes(1, 2)

    x = x.reshape(-1, WIDTH)
    for k in range(LAYERS):
        q, key, value = (heads(dense(x, f"{k}_{part}")) for part in "qkv")
        scores = jax.nn.softmax(q @ key.swapaxes(2, 3) * (WIDTH // HEADS) ** -0.5)
        x += dense((scores @ value).swapaxes(1, 2).reshape(-1, WIDTH), f"{k}_o")
        x = norm(x, w[f"w{k}_norm1"], w[f"b{k}_norm1"])
        x += dense(jax.nn.gelu(dense(x, f"{k}_in"), approximate=False), f"{k}_out")
        x = norm(x, w[f"w{k}_norm2"], w[f"b{k}_norm2"])
    return x.reshape(shape)


def resnet(w: Data, x: Any) -> Any:
    sizes = resnet_convolutions()

    def convolved(x: Any, name: str) -> Any:
        size, _, _, stride, _ = sizes[name]
        x = lax.conv_general_dilated(
            x, w[f"w_{name}"], (stride, stride), [(size // 2, size // 2)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        scale = w[f"w_{name}_scale"] * lax.rsqrt(w[f"w_{name}_variance"] + EPSILON)
        return (x - w[f"b_{name}_mean"]) * scale + w[f"b_{name}_offset"]

    x = jax.nn.relu(convolved(x, "stem"))
    around = [(0, 0), (1, 1), (1, 1), (0, 0)]
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), around)
    for name, _, _, stride, _ in BLOCKS:
        y = convolved(jax.nn.relu(convolved(x, f"{name}_1")), f"{name}_2")
        x = jax.nn.relu(y + (convolved(x, f"{name}_skip") if stride > 1 else x))
    return x.mean((1, 2)) @ w["w_fc"] + w["b_fc"]


def turns(data: Data) -> Callable[[], Any]:
    jitted = jax.jit(lambda n: lax.while_loop(lambda i: i < n, lambda i: i + 1, jnp.int32(0)))
    return lambda: jax.block_until_ready(jitted(data["n"]))


def squares(w: Data, x: Any, y: Any) -> Any:
    return jnp.square(jax.nn.relu(x @ w["w1"]) @ w["w2"] - y).sum()


def entropy(logits: Any) -> Any:
    def loss(w: Data, x: Any, y: Any) -> Any:
        logs = jax.nn.log_softmax(logits(w, x))
        return -jnp.take_along_axis(logs, y[:, None], axis=1).mean()

    return loss


def descent(w: Any, g: Any, s: Any) -> Any:
    return w - 1e-7 * g, s


def momentum(w: Any, g: Any, s: Any) -> Any:
    s = 0.9 * s + g
    return w - 0.01 * s, s


def adam(w: Any, g: Any, s: Any) -> Any:
    m, v, p = s
    m, v, p = m + 0.1 * (g - m), v + 0.001 * (g * g - v), p * jnp.array([0.9, 0.999])
    rate = 1e-3 * jnp.sqrt(1 - p[1]) / (1 - p[0])
    return w - rate * m / (jnp.sqrt(v) + 1e-8), (m, v, p)


def no_slot(_: Any) -> Any:
    return jnp.zeros(())


def trained(loss: Any, update: Any, start: Any) -> Callable[[Data], Callable[[], Any]]:
    """A training step with ``update(weight, gradient, slot)`` for each weight."""

    def one(w: Data, s: Data, x: Any, y: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(w, x, y)
        new = {k: update(w[k], grads[k], s[k]) for k in w}
        return value, {k: v[0] for k, v in new.items()}, {k: v[1] for k, v in new.items()}

    def build(data: Data) -> Callable[[], Any]:
        step = jax.jit(one, donate_argnums=(0, 1))
        weights = {k: v for k, v in data.items() if k[0] in "wb"}
        state = [weights, {k: start(v) for k, v in weights.items()}]

        def call() -> Any:
            value, state[0], state[1] = step(*state, data["x"], data["y"])
            jax.block_until_ready(state)
            return value

        return call

    return build


def inferred(function: Any) -> Callable[[Data], Callable[[], Any]]:
    def build(data: Data) -> Callable[[], Any]:
        jitted = jax.jit(function)
        return lambda: jax.block_until_ready(jitted(data, data["x"]))

    return build


def layer_norm(d: Data, x: Any) -> Any:
    return norm(x, d["g"], d["b"])


BUILDERS: dict[str, Callable[[Data], Callable[[], Any]]] = {
    "x2p1": inferred(lambda _, x: x * 2 + 1),
    "x2p1_callable": inferred(lambda _, x: x * 2 + 1),
    "two_layer_10": trained(squares, descent, no_slot),
    "two_layer_1000": trained(squares, descent, no_slot),
    "mlp_train": trained(
        entropy(mlp), adam, lambda w: (jnp.zeros_like(w), jnp.zeros_like(w), jnp.ones(2))
    ),
    "lenet_train": trained(entropy(lenet), momentum, jnp.zeros_like),
    "lstm_train": trained(entropy(lstm), descent, no_slot),
    "lstm_unrolled": trained(entropy(partial(lstm, unroll=28)), descent, no_slot),
    "while": turns,
    "mlp_infer": inferred(lambda d, x: jax.nn.softmax(mlp(d, x))),
    "lenet_infer": inferred(lambda d, x: jax.nn.softmax(lenet(d, x))),
    "encoder_1": inferred(encoder),
    "encoder_8": inferred(encoder),
    "resnet18": inferred(resnet),
    "softmax": inferred(lambda _, x: jax.nn.softmax(x)),
    "layer_norm": inferred(layer_norm),
    "gelu": inferred(lambda d, x: jax.nn.gelu(x + d["b"], approximate=False) * d["b"]),
}
