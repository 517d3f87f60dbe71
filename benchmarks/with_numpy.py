"""The workloads in NumPy, with gradients worked out by hand; not those that take pages of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Data = dict[str, np.ndarray]
VERSION = f"NumPy {np.__version__}"


def set_threads(count: int) -> None:
    """NumPy's BLAS has taken the number of threads from the environment."""


def make(name: str, data: Data) -> Callable[[], Any]:
    """A function that does the workload once and returns its value as an array."""
    return BUILDERS[name]({k: v.copy() for k, v in data.items()})


def two_layers(d: Data) -> Callable[[], Any]:
    x, y, w1, w2 = d["x"], d["y"], d["w1"], d["w2"]
    rate = np.float32(1e-7)

    def step() -> Any:
        hidden = x @ w1
        active = np.maximum(hidden, 0)
        difference = active @ w2 - y
        loss = np.square(difference).sum()
        by_output = 2 * difference
        by_hidden = (by_output @ w2.T) * (hidden > 0)
        w2[...] -= rate * (active.T @ by_output)
        w1[...] -= rate * (x.T @ by_hidden)
        return loss

    return step


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    e /= e.sum(axis=-1, keepdims=True)
    return e


def mlp_forward(d: Data) -> list[np.ndarray]:
    """The inputs of the three layers, and the probabilities."""
    first = np.maximum(d["x"] @ d["w1"] + d["b1"], 0)
    second = np.maximum(first @ d["w2"] + d["b2"], 0)
    return [d["x"], first, second, softmax(second @ d["w3"] + d["b3"])]


def mlp_train(d: Data) -> Callable[[], Any]:
    names = [k for k in d if k[0] in "wb"]
    first = {k: np.zeros_like(d[k]) for k in names}
    second = {k: np.zeros_like(d[k]) for k in names}
    rows, count = np.arange(len(d["y"])), np.float32(len(d["y"]))
    powers = np.ones(2)

    def step() -> Any:
        *inputs, share = mlp_forward(d)
        loss = -np.log(share[rows, d["y"]]).mean()
        by = share.copy()
        by[rows, d["y"]] -= 1
        by /= count
        grads = {}
        for k in (3, 2, 1):
            grads[f"w{k}"], grads[f"b{k}"] = inputs[k - 1].T @ by, by.sum(axis=0)
            if k > 1:
                by = (by @ d[f"w{k}"].T) * (inputs[k - 1] > 0)
        powers[...] *= (0.9, 0.999)
        rate = np.float32(1e-3 * np.sqrt(1 - powers[1]) / (1 - powers[0]))
        for k in names:
            g, m, v = grads[k], first[k], second[k]
            m += (g - m) * np.float32(0.1)
            v += (g * g - v) * np.float32(0.001)
            d[k] -= rate * m / (np.sqrt(v) + np.float32(1e-8))
        return loss

    return step


def layer_norm(d: Data) -> Callable[[], Any]:
    def step() -> Any:
        x = d["x"] - d["x"].mean(axis=-1, keepdims=True)
        x /= np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(1e-5))
        x *= d["g"]
        x += d["b"]
        return x

    return step


BUILDERS: dict[str, Callable[[Data], Callable[[], Any]]] = {
    "x2p1": lambda d: lambda: d["x"] * 2 + 1,
    "x2p1_callable": lambda d: lambda: d["x"] * 2 + 1,
    "two_layer_10": two_layers,
    "two_layer_1000": two_layers,
    "mlp_train": mlp_train,
    "mlp_infer": lambda d: lambda: mlp_forward(d)[-1],
    "softmax": lambda d: lambda: softmax(d["x"]),
    "layer_norm": layer_norm,
}
