"""The workloads of inference in ONNX Runtime, at its full level of optimization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from workloads import BLOCKS, EPSILON, HEADS, LAYERS, resnet_convolutions

Data = dict[str, np.ndarray]
VERSION = f"ONNX Runtime {onnxruntime.__version__}"
OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]

options = onnxruntime.SessionOptions()


def set_threads(count: int) -> None:
    options.intra_op_num_threads = count
    options.inter_op_num_threads = 1


def make(name: str, data: Data) -> Callable[[], Any]:
    """A function that does the workload once and returns its value as an array."""
    graph = Graph()
    x, y = BUILDERS[name](graph, {k: v.copy() for k, v in data.items()})
    model = graph.model({"x": x}, y)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    # Bound operands cost less than a dictionary; the result has the same place in every run.
    kept = onnxruntime.OrtValue.ortvalue_from_numpy(x)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(session.run(None, {"x": x})[0])
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", kept)
    binding.bind_ortvalue_output("y", value)

    def call() -> np.ndarray:
        session.run_with_iobinding(binding)
        return value.numpy()  # a view

    return call


class Graph:
    """Nodes and weights of a model in the making; values are known by their names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, value: Any) -> str:
        """The name of a constant."""
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def __call__(self, kind: str, *inputs: Any, **attrs: Any) -> str:
        """The name of a node's result; what is no name is a constant."""
        names = [v if isinstance(v, str) else self.weight(v) for v in inputs]
        name = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [name], **attrs))
        return name

    def dense(self, x: str, d: Data, k: str) -> str:
        """A layer of matrices."""
        return self("Gemm", x, d["w" + k], d["b" + k])

    def model(self, inputs: Data, result: str) -> Any:
        """The model that computes a result, as ``y``."""
        self.nodes.append(helper.make_node("Identity", [result], ["y"]))
        given = [helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape)
                 for k, v in inputs.items()]  # fmt: skip
        found = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "workload", given, [found], self.weights)
        return helper.make_model(graph, opset_imports=OPSETS, ir_version=9)


def mlp(g: Graph, d: Data) -> Any:
    x = "x"
    for k in ("1", "2"):
        x = g("Relu", g.dense(x, d, k))
    return d["x"], g("Softmax", g.dense(x, d, "3"), axis=-1)


def first(x: np.ndarray) -> np.ndarray:
    """Images with their channels before height and width, as ONNX has them."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def lenet(g: Graph, d: Data) -> Any:
    x = "x"
    for k in ("1", "2"):
        x = g("Relu", g("Conv", x, d["w" + k].transpose(3, 2, 0, 1), d["b" + k]))
        x = g("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    d["w3"] = d["w3"].reshape(4, 4, 50, 500).transpose(2, 0, 1, 3).reshape(800, 500)
    x = g("Relu", g.dense(g("Flatten", x), d, "3"))
    return first(d["x"]), g("Softmax", g.dense(x, d, "4"), axis=-1)


def encoder(g: Graph, d: Data) -> Any:
    """Attention is the operation of ONNX Runtime's own that its optimizer of transformers makes."""

    def normalized(x: str, y: str, part: str) -> str:
        return g("SkipLayerNormalization", x, y, d["w" + part], d["b" + part],
                 domain="com.microsoft", epsilon=1e-5)  # fmt: skip

    def dense(x: str, part: str) -> str:
        return g("Add", g("MatMul", x, d["w" + part]), d["b" + part])

    x = "x"
    for k in range(LAYERS):
        weights, biases = (
            np.concatenate([d[f"{kind}{k}_{p}"] for p in "qkv"], axis=-1) for kind in "wb"
        )
        mixed = g("Attention", x, weights, biases, domain="com.microsoft", num_heads=HEADS)
        x = normalized(dense(mixed, f"{k}_o"), x, f"{k}_norm1")
        hidden = g("Gelu", dense(x, f"{k}_in"), approximate="none")
        x = normalized(dense(hidden, f"{k}_out"), x, f"{k}_norm2")
    return d["x"], x


def resnet(g: Graph, d: Data) -> Any:
    sizes = resnet_convolutions()

    def convolved(x: str, name: str) -> str:
        size, _, _, stride, _ = sizes[name]
        kernel = d[f"w_{name}"].transpose(3, 2, 0, 1)
        x = g("Conv", x, kernel, strides=[stride] * 2, pads=[size // 2] * 4)
        return g(
            "BatchNormalization", x, d[f"w_{name}_scale"], d[f"b_{name}_offset"],
            d[f"b_{name}_mean"], d[f"w_{name}_variance"], epsilon=EPSILON,
        )  # fmt: skip

    x = g("Relu", convolved("x", "stem"))
    x = g("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for name, _, _, stride, _ in BLOCKS:
        y = convolved(g("Relu", convolved(x, f"{name}_1")), f"{name}_2")
        x = g("Relu", g("Add", y, convolved(x, f"{name}_skip") if stride > 1 else x))
    return first(d["x"]), g.dense(g("Flatten", g("GlobalAveragePool", x)), d, "_fc")


def plain(build: Callable[[Graph, Data], str]) -> Callable[[Graph, Data], Any]:
    return lambda g, d: (d["x"], build(g, d))


BUILDERS: dict[str, Callable[[Graph, Data], Any]] = {
    "x2p1": plain(lambda g, _: g("Add", g("Mul", "x", np.float32(2)), np.float32(1))),
    "mlp_infer": mlp,
    "lenet_infer": lenet,
    "encoder_1": encoder,
    "encoder_8": encoder,
    "resnet18": resnet,
    "softmax": plain(lambda g, _: g("Softmax", "x", axis=-1)),
    "layer_norm": plain(
        lambda g, d: g("LayerNormalization", "x", d["g"], d["b"], axis=-1, epsilon=1e-5)
    ),
    "gelu": plain(
        lambda g, d: g("Mul", g("Gelu", g("Add", "x", d["b"]), approximate="none"), d["b"])
    ),
}
