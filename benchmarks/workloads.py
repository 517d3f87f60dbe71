"""What is measured: sizes, data, and how much work each workload is.

Peers read this file: it needs NumPy and Python 3.7 only, the last that TensorFlow 1.15 has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Arrays = dict  # of arrays by name


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
    return normal(seed, *shape, scale=math.sqrt(2.0 / np.prod(shape[:-1])))


def labels(count: int) -> np.ndarray:
    return np.random.RandomState(7).randint(0, 10, count).astype(np.int64)


def ten_floats() -> Arrays:
    return {"x": np.arange(10, dtype=np.float32)}


def two_layers(d_out: int, batch: int = 64, d_in: int = 1000, hidden: int = 100) -> Arrays:
    return {
        "x": normal(0, batch, d_in), "y": normal(1, batch, d_out),
        "w1": normal(2, d_in, hidden), "w2": normal(3, hidden, d_out),
    }  # fmt: skip


def mlp(batch: int = 128, d_in: int = 784, hidden: int = 512) -> Arrays:
    data = {"x": normal(0, batch, d_in), "y": labels(batch)}
    for k, (inputs, outputs) in enumerate([(d_in, hidden), (hidden, hidden), (hidden, 10)], 1):
        data[f"w{k}"], data[f"b{k}"] = layer(k, inputs, outputs), np.zeros(outputs, np.float32)
    return data


def lenet(
    batch: int = 64, side: int = 28, channels: tuple = (20, 50), hidden: int = 500
) -> Arrays:
    data = {"x": normal(0, batch, side, side, 1), "y": labels(batch)}
    first, second = channels
    left = ((side - 4) // 2 - 4) // 2  # of each side, behind two convolutions and two poolings
    shapes = [(5, 5, 1, first), (5, 5, first, second), (left * left * second, hidden)]
    for k, shape in enumerate([*shapes, (hidden, 10)], 1):
        data[f"w{k}"], data[f"b{k}"] = layer(k, *shape), np.zeros(shape[-1], np.float32)
    return data


def rows() -> Arrays:
    return {"x": normal(0, 4096, 1024), "g": normal(1, 1024) + 1, "b": normal(2, 1024)}


def square() -> Arrays:
    return {"x": normal(0, 4096, 4096), "b": normal(1, 4096)}


def lstm(batch: int = 32, steps: int = 28, d_in: int = 28, units: int = 128) -> Arrays:
    return {
        "x": normal(0, batch, steps, d_in), "y": labels(batch),
        "w1": layer(1, d_in + units, 4 * units), "b1": np.zeros(4 * units, np.float32),
        "w2": layer(2, units, 10), "b2": np.zeros(10, np.float32),
    }  # fmt: skip


# The encoder of the transformer rows, its layers normalized after each residual sum.
LAYERS, TOKENS, WIDTH, INNER, HEADS = 4, 128, 256, 1024, 8


def encoder(
    batch: int, tokens: int = TOKENS, width: int = WIDTH, inner: int = INNER, layers: int = LAYERS
) -> Arrays:
    data = {"x": normal(0, batch, tokens, width)}
    for k in range(layers):
        shapes = dict.fromkeys("qkvo", (width, width))
        shapes.update({"in": (width, inner), "out": (inner, width)})
        for j, (part, shape) in enumerate(shapes.items()):
            seed = 100 * k + 10 * j
            data[f"w{k}_{part}"] = layer(seed + 1, *shape)
            data[f"b{k}_{part}"] = normal(seed + 2, shape[1], scale=0.1)
        for j, part in enumerate(("norm1", "norm2")):
            data[f"w{k}_{part}"] = 1 + normal(100 * k + 70 + j, width, scale=0.1)
            data[f"b{k}_{part}"] = normal(100 * k + 80 + j, width, scale=0.1)
    return data


def encoder_layers(data: Arrays) -> int:
    """How many layers the weights of an encoder are of."""
    return sum(k.startswith("w") and k.endswith("_norm2") for k in data)


def encoder_flops(batch: int) -> float:
    """Of the six dense layers, and of the two products of attention."""
    rows = batch * TOKENS
    dense = 4 * dense_flops(rows, WIDTH, WIDTH) + dense_flops(rows, WIDTH, INNER, WIDTH)
    return LAYERS * (dense + 2 * dense_flops(rows, WIDTH, TOKENS))


# ResNet-18's blocks of two convolutions: name, channels in and out, stride, height of the output.
BLOCKS = [
    ("a1", 64, 64, 1, 56), ("a2", 64, 64, 1, 56), ("b1", 64, 128, 2, 28), ("b2", 128, 128, 1, 28),
    ("c1", 128, 256, 2, 14), ("c2", 256, 256, 1, 14), ("d1", 256, 512, 2, 7),
    ("d2", 512, 512, 1, 7),
]  # fmt: skip
EPSILON = 1e-3  # of ResNet-18's batch norms


def resnet_convolutions() -> dict[str, tuple[int, int, int, int, int]]:
    """By name: height of the filter, channels in and out, stride, height of the output."""
    found = {"stem": (7, 3, 64, 2, 112)}
    for name, inputs, outputs, stride, height in BLOCKS:
        found[f"{name}_1"] = (3, inputs, outputs, stride, height)
        found[f"{name}_2"] = (3, outputs, outputs, 1, height)
        if stride > 1:
            found[f"{name}_skip"] = (1, inputs, outputs, stride, height)
    return found


def resnet() -> Arrays:
    data = {"x": normal(0, 1, 224, 224, 3)}
    for k, (name, sizes) in enumerate(resnet_convolutions().items(), 1):
        size, inputs, outputs, *_ = sizes
        data[f"w_{name}"] = layer(10 * k, size, size, inputs, outputs)
        data[f"w_{name}_scale"] = 1 + normal(10 * k + 1, outputs, scale=0.1)
        data[f"b_{name}_offset"] = normal(10 * k + 2, outputs, scale=0.1)
        data[f"b_{name}_mean"] = normal(10 * k + 3, outputs, scale=0.1)
        data[f"w_{name}_variance"] = 1 + np.abs(normal(10 * k + 4, outputs))
    data["w_fc"], data["b_fc"] = layer(500, 512, 1000), normal(501, 1000, scale=0.1)
    return data


def resnet_flops() -> float:
    convolutions = resnet_convolutions().values()
    return dense_flops(1, 512, 1000) + sum(
        2.0 * k * k * m * n * height * height for k, m, n, _, height in convolutions
    )


def turns() -> Arrays:
    return {"n": np.array(1_000_000, np.int32)}


def dense_flops(batch: int, *sizes: int) -> float:
    """Of the products of a row of dense layers, forward."""
    return sum(2.0 * batch * sizes[k - 1] * sizes[k] for k in range(1, len(sizes)))


LENET_FORWARD = 64 * 2.0 * (24 * 24 * 20 * 25 + 8 * 8 * 50 * 500 + 800 * 500 + 500 * 10)
# Two thirds of the backward pass's products; a first layer needs no gradient by its input.
LENET_STEP = 3 * LENET_FORWARD - 64 * 2.0 * 24 * 24 * 20 * 25


def two_layer_flops(d_out: int) -> float:
    return 2 * dense_flops(64, 1000, 100) + 3 * dense_flops(64, 100, d_out)


MLP = (784, 512, 512, 10)
MB = 2.0**20

WORKLOADS = [
    Workload("x2p1", "x * 2 + 1 on ten floats", ten_floats),
    Workload("x2p1_callable", "the same, by make_callable", ten_floats),
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
    Workload("encoder_1", "transformer, 4 layers, d 256, ff 1024, 8 heads, 128 tokens, batch 1",
             lambda: encoder(1), encoder_flops(1)),
    Workload("encoder_8", "the same, batch 8", lambda: encoder(8), encoder_flops(8)),
    Workload("resnet18", "ResNet-18, 224x224, batch 1, inference", resnet, resnet_flops()),
    Workload("softmax", "softmax of 4096x1024", rows, bytes=32 * MB),
    Workload("layer_norm", "layer norm of 4096x1024", rows, bytes=32 * MB),
    Workload("gelu", "gelu(x + b) * b, 4096x4096", square, bytes=128 * MB),
]  # fmt: skip
BY_NAME = {w.name: w for w in WORKLOADS}
