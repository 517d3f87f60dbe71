"""What is measured: sizes, data, and how much work each workload is. NumPy only: peers read it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Workload:
    """One thing to measure.

    Attributes:
      name: how it is called on the command line.
      title: what the tables say.
      data: makes the arrays, the same ones for every contender.
      flops: floating-point operations of one call (products only; a multiply-add is two).
      bytes: what one call must at least move between memory and the core.
    """

    name: str
    title: str
    data: Callable[[], Arrays]
    flops: float = 0.0
    bytes: float = 0.0


def normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Normal values in float32, the same on every machine."""
    return (np.random.RandomState(seed).standard_normal(shape) * scale).astype(np.float32)


def layer(seed: int, *shape: int) -> np.ndarray:
    """Weights whose last dimension is the output, scaled for ReLU."""
    return normal(seed, *shape, scale=math.sqrt(2.0 / math.prod(shape[:-1])))


def labels(count: int) -> np.ndarray:
    return np.random.RandomState(7).randint(0, 10, count).astype(np.int64)


def ten_floats() -> Arrays:
    return {"x": np.arange(10, dtype=np.float32)}


def two_layers(d_out: int) -> Arrays:
    return {
        "x": normal(0, 64, 1000), "y": normal(1, 64, d_out),
        "w1": normal(2, 1000, 100), "w2": normal(3, 100, d_out),
    }  # fmt: skip


def mlp() -> Arrays:
    data = {"x": normal(0, 128, 784), "y": labels(128)}
    for k, (inputs, outputs) in enumerate([(784, 512), (512, 512), (512, 10)], 1):
        data |= {f"w{k}": layer(k, inputs, outputs), f"b{k}": np.zeros(outputs, np.float32)}
    return data


def lenet() -> Arrays:
    data = {"x": normal(0, 64, 28, 28, 1), "y": labels(64)}
    shapes = [(5, 5, 1, 20), (5, 5, 20, 50), (800, 500), (500, 10)]
    for k, shape in enumerate(shapes, 1):
        data |= {f"w{k}": layer(k, *shape), f"b{k}": np.zeros(shape[-1], np.float32)}
    return data


def rows() -> Arrays:
    return {"x": normal(0, 4096, 1024), "g": normal(1, 1024) + 1, "b": normal(2, 1024)}


def square() -> Arrays:
    return {"x": normal(0, 4096, 4096), "b": normal(1, 4096)}


def lstm() -> Arrays:
    return {
        "x": normal(0, 32, 28, 28), "y": labels(32), "w1": layer(1, 156, 512),
        "b1": np.zeros(512, np.float32), "w2": layer(2, 128, 10), "b2": np.zeros(10, np.float32),
    }  # fmt: skip


def turns() -> Arrays:
    return {"n": np.array(1_000_000, np.int32)}


def dense_flops(batch: int, *sizes: int) -> float:
    """Of the products of a row of dense layers, forward."""
    return sum(2.0 * batch * m * n for m, n in itertools.pairwise(sizes))


LENET_FORWARD = 64 * 2.0 * (24 * 24 * 20 * 25 + 8 * 8 * 50 * 500 + 800 * 500 + 500 * 10)
# Two thirds of the backward pass's products; a first layer needs no gradient by its input.
LENET_STEP = 3 * LENET_FORWARD - 64 * 2.0 * 24 * 24 * 20 * 25


def two_layer_flops(d_out: int) -> float:
    return 2 * dense_flops(64, 1000, 100) + 3 * dense_flops(64, 100, d_out)


MLP = (784, 512, 512, 10)
MB = 2.0**20

WORKLOADS = [
    Workload("x2p1", "x * 2 + 1 on ten floats", ten_floats),
    Workload("two_layer_10", "two layers, 64x1000-100-10, step", lambda: two_layers(10),
             two_layer_flops(10)),
    Workload("two_layer_1000", "two layers, 64x1000-100-1000, step", lambda: two_layers(1000),
             two_layer_flops(1000)),
    Workload("mlp_train", "MLP 784-512-512-10, batch 128, Adam step", mlp,
             3 * dense_flops(128, *MLP) - dense_flops(128, 784, 512)),
    Workload("lenet_train", "LeNet, batch 64, momentum step", lenet, LENET_STEP),
    Workload("lstm_train", "LSTM 128, batch 32, 28 steps of 28, step", lstm,
             3 * 28 * dense_flops(32, 156, 512) - 28 * dense_flops(32, 28, 512)),
    Workload("lstm_unrolled", "the same, unrolled", lstm,
             3 * 28 * dense_flops(32, 156, 512) - 28 * dense_flops(32, 28, 512)),
    Workload("while", "a loop that adds 1 to a scalar 1,000,000 times", turns),
    Workload("mlp_infer", "MLP, batch 128, inference", mlp, dense_flops(128, *MLP)),
    Workload("lenet_infer", "LeNet, batch 64, inference", lenet, LENET_FORWARD),
    Workload("softmax", "softmax of 4096x1024", rows, bytes=32 * MB),
    Workload("layer_norm", "layer norm of 4096x1024", rows, bytes=32 * MB),
    Workload("gelu", "gelu(x + b) * b, 4096x4096", square, bytes=128 * MB),
]  # fmt: skip
BY_NAME = {w.name: w for w in WORKLOADS}
