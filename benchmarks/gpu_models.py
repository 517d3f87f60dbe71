"""The transformers of `gpu.py`: their sizes, their weights, and the decoder as a graph.

The encoder is that of `workloads.py` and `graphs.py`, with more tokens.  Both are computed in
bfloat16: products, activations and what is added up between layers.  Scores, norms and the loss are
float32.  Where they are trained the weights are kept in float32, and every step casts them; else
they are kept in bfloat16.  `gpu_torch.py` does the same in PyTorch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import workloads
from graphs import attended, norm

Arrays = dict[str, np.ndarray]
GELU = 0.7978845608028654, 0.044715
"""GPT-2's approximation: sqrt(2 / pi), and the part of the cube."""
MASKED = -1e9


@dataclass(frozen=True)
class Sizes:
    """How large a transformer is; the encoder's heads are `workloads.HEADS`."""

    layers: int
    width: int
    inner: int
    heads: int
    batch: int
    tokens: int
    vocabulary: int = 0

    def flops(self, train: bool) -> float:
        """Floating-point operations of the products of a run; three times those of forward."""
        rows = self.batch * self.tokens
        dense = 4 * workloads.dense_flops(rows, self.width, self.width)
        dense += workloads.dense_flops(rows, self.width, self.inner, self.width)
        dense += 2 * workloads.dense_flops(rows, self.width, self.tokens)
        last = workloads.dense_flops(rows, self.width, self.vocabulary)
        return (3.0 if train else 1.0) * (self.layers * dense + last)


MAKERS: dict[str, Callable[..., Arrays]] = {
    "two_layer_10": functools.partial(workloads.two_layers, 10),
    "two_layer_1000": functools.partial(workloads.two_layers, 1000),
    "mlp_train": workloads.mlp,
    "lenet_train": workloads.lenet,
    "lstm_train": workloads.lstm,
    "lstm_unrolled": workloads.lstm,
}


def is_wide(name: str) -> bool:
    """Whether a weight is float32 in every run: those of norms."""
    return "norm" in name


@functools.cache
def encoder_data(sizes: Sizes) -> Arrays:
    """Weights, the input ``x`` and what the output shall be, ``y``; all float32."""
    shape = sizes.batch, sizes.tokens, sizes.width, sizes.inner, sizes.layers
    data = workloads.encoder(*shape)
    return {**data, "y": workloads.normal(1, *data["x"].shape)}


@functools.cache
def decoder_data(sizes: Sizes) -> Arrays:
    """Weights as GPT-2 begins with, float32; the tokens ``x`` and those that follow, ``y``."""
    random = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 0.02) -> np.ndarray:
        found: np.ndarray = random.standard_normal(shape, np.float32)
        return found * np.float32(scale)

    d, inner = sizes.width, sizes.inner
    ids = random.integers(0, sizes.vocabulary, (sizes.batch, sizes.tokens + 1)).astype(np.int32)
    data = {"x": ids[:, :-1].copy(), "y": ids[:, 1:].astype(np.int64)}
    data |= {"w_token": normal(sizes.vocabulary, d), "w_position": normal(sizes.tokens, d)}
    dense = {"qkv": (d, 3 * d), "o": (d, d), "in": (d, inner), "out": (inner, d)}
    for k in range(sizes.layers):
        for part, shape in dense.items():
            data[f"w{k}_{part}"], data[f"b{k}_{part}"] = normal(*shape), normal(shape[1])
        for part in ("norm1", "norm2"):
            data[f"w{k}_{part}"], data[f"b{k}_{part}"] = 1 + normal(d), normal(d)
    return {**data, "w_norm": 1 + normal(d), "b_norm": normal(d)}


def decoder(tf: Any, sizes: Sizes, v: dict[str, Any], x: Any, dtype: Any) -> Any:
    """GPT-2: the logits of the token that follows each one, [batch * tokens, vocabulary].

    Args:
      tf: graphc.
      sizes: of the decoder.
      v: the weights.
      x: the tokens, int32 [batch, tokens].
      dtype: what it is computed in.
    """
    rows, d = sizes.batch * sizes.tokens, sizes.width
    mask = np.triu(np.full((sizes.tokens, sizes.tokens), MASKED, np.float32), 1)

    def dense(x: Any, part: str) -> Any:
        return tf.matmul(x, tf.cast(v["w" + part], dtype)) + tf.cast(v["b" + part], dtype)

    x = tf.reshape(tf.gather(v["w_token"], x) + v["w_position"], [rows, d])
    x = tf.cast(x, dtype)
    for k in range(sizes.layers):
        shape = [sizes.batch, sizes.tokens, sizes.heads, d // sizes.heads]
        parts = tf.split(dense(norm(tf, x, v[f"w{k}_norm1"], v[f"b{k}_norm1"]), f"{k}_qkv"), 3, 1)
        mixed = attended(tf, [tf.reshape(part, shape) for part in parts], mask)
        x += dense(tf.reshape(mixed, [rows, d]), f"{k}_o")
        hidden = dense(norm(tf, x, v[f"w{k}_norm2"], v[f"b{k}_norm2"]), f"{k}_in")
        cubic = GELU[0] * (hidden + GELU[1] * hidden * hidden * hidden)
        x += dense(0.5 * hidden * (1 + tf.tanh(cubic)), f"{k}_out")
    x = norm(tf, x, v["w_norm"], v["b_norm"])
    return tf.matmul(x, tf.cast(v["w_token"], dtype), transpose_b=True)
