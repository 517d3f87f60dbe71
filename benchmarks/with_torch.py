"""The workloads in PyTorch, eager or compiled."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from workloads import BLOCKS, EPSILON, HEADS, encoder_layers, resnet_convolutions

Data = dict[str, np.ndarray]
Work = tuple[Callable[[], torch.Tensor], Any]  # a function, and what it is trained with or None
VERSION = f"PyTorch {torch.__version__}"


def set_threads(count: int) -> None:
    torch.set_num_threads(count)


def gap(name: str, compiled: bool = False) -> str | None:
    """Why a workload is left out."""
    if name == "while":
        return "PyTorch has no public loop op"
    if not compiled:
        return None
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        return "torch.compile needs a C++ compiler, and there is no g++ and no CXX"
    if name == "lstm_train":
        return "torch.compile does not trace torch.nn.LSTM; a loop over the steps, it unrolls"
    return None


def make(name: str, data: Data, compiled: bool = False) -> Callable[[], Any]:
    """A function that does the workload once and returns its value as an array."""
    call = prepared(name, data, compiled)
    return lambda: call().numpy()


def prepared(
    name: str, data: Data, compiled: bool = False, place: str = "cpu", mode: str | None = None
) -> Callable[[], torch.Tensor]:
    """A function that does the workload once, on a device, in a mode of ``torch.compile``."""
    tensors = {k: torch.from_numpy(v.copy()).to(place) for k, v in data.items()}
    if name.startswith("lenet"):
        tensors = native(tensors)
    if name == "resnet18":
        tensors = {k: first(v, k) for k, v in tensors.items()}
    function, optimizer = BUILDERS[name](tensors)
    if compiled:
        # Attention's ready-made kernel would be all that the compiler sees of an encoder.
        torch.backends.mha.set_fastpath_enabled(False)
        # A part that falls back to eager mode would not be the compiler's time.
        function = torch.compile(function, fullgraph=True, mode=mode)
    if optimizer is None:
        return torch.inference_mode()(function)
    update = None
    if compiled:
        for group in optimizer.param_groups:
            if "capturable" in group:  # a count of steps on the host is in no CUDA graph
                group["capturable"] = place != "cpu"
        update = torch.compile(optimizer.step, mode=mode)
    return trained(function, optimizer, update)


def first(v: torch.Tensor, name: str) -> torch.Tensor:
    """Channels before height and width, filters with the outputs before those."""
    if v.dim() < 4:
        return v
    return v.permute((0, 3, 1, 2) if name == "x" else (3, 2, 0, 1)).contiguous()


def native(t: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Images and filters in PyTorch's own layout; the first dense layer reads it too."""
    t["x"] = t["x"].permute(0, 3, 1, 2).contiguous()
    for k in ("w1", "w2"):
        t[k] = t[k].permute(3, 2, 0, 1).contiguous()
    rows, hidden = t["w3"].shape
    channels = len(t["w2"])
    left = math.isqrt(rows // channels)
    images = t["w3"].reshape(left, left, channels, hidden)
    t["w3"] = images.permute(2, 0, 1, 3).reshape(rows, hidden).contiguous()
    return t


def parameters(t: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [v.requires_grad_() for k, v in t.items() if k[0] in "wb"]


def two_layers(t: dict[str, torch.Tensor]) -> Work:
    def loss() -> torch.Tensor:
        return (F.relu(t["x"] @ t["w1"]) @ t["w2"] - t["y"]).square().sum()

    return loss, torch.optim.SGD(parameters(t), 1e-7)


def mlp(t: dict[str, torch.Tensor]) -> torch.Tensor:
    x = t["x"]
    for k in ("1", "2"):
        x = F.relu(torch.addmm(t["b" + k], x, t["w" + k]))
    return torch.addmm(t["b3"], x, t["w3"])


def lenet(t: dict[str, torch.Tensor]) -> torch.Tensor:
    x = t["x"]
    for k in ("1", "2"):
        x = F.max_pool2d(F.relu(F.conv2d(x, t["w" + k], t["b" + k])), 2)
    x = F.relu(torch.addmm(t["b3"], x.flatten(1), t["w3"]))
    return torch.addmm(t["b4"], x, t["w4"])


def lstm_train(t: dict[str, torch.Tensor]) -> Work:
    """PyTorch's fused LSTM; its gates are in the order i, f, j, o, and it has two biases."""
    units, d_in = len(t["w2"]), t["x"].shape[2]
    layer = torch.nn.LSTM(d_in, units, batch_first=True, device=t["x"].device)
    i, j, f, o = t["w1"].T.split(units)
    kernel = torch.cat([i, f, j, o])
    bias = torch.zeros(4 * units, device=kernel.device)
    bias[units : 2 * units] = 1.0
    with torch.no_grad():
        layer.weight_ih_l0.copy_(kernel[:, :d_in])
        layer.weight_hh_l0.copy_(kernel[:, d_in:])
        layer.bias_ih_l0.copy_(bias)
        layer.bias_hh_l0.zero_()
    w2, b2 = t["w2"].requires_grad_(), t["b2"].requires_grad_()

    def loss() -> torch.Tensor:
        _, (h, _) = layer(t["x"])
        return F.cross_entropy(torch.addmm(b2, h[0], w2), t["y"])

    return loss, torch.optim.SGD([*layer.parameters(), w2, b2], 1e-7)


def lstm_unrolled(t: dict[str, torch.Tensor]) -> torch.Tensor:
    c = h = t["x"].new_zeros(len(t["x"]), len(t["w2"]))
    for x in t["x"].unbind(1):
        gates = torch.addmm(t["b1"], torch.cat([x, h], 1), t["w1"])
        i, j, f, o = gates.chunk(4, 1)
        c = c * torch.sigmoid(f + 1.0) + torch.sigmoid(i) * torch.tanh(j)
        h = torch.tanh(c) * torch.sigmoid(o)
    return torch.addmm(t["b2"], h, t["w2"])


def encoder(t: dict[str, torch.Tensor]) -> Work:
    """PyTorch's own encoder; its weights have the outputs first, those of q, k, v in one."""
    layers = []
    for k in range(encoder_layers(t)):
        layer = torch.nn.TransformerEncoderLayer(
            *(len(t["w0_in"]), HEADS, len(t["w0_out"])), dropout=0.0, activation="gelu",
            batch_first=True, device=t["x"].device,
        )  # fmt: skip
        names = {"self_attn.out_proj": "o", "linear1": "in", "linear2": "out"}
        state = {f"{n}.weight": t[f"w{k}_{p}"].T for n, p in names.items()}
        for norm in ("norm1", "norm2"):
            state[f"{norm}.weight"], names[norm] = t[f"w{k}_{norm}"], norm
        state |= {f"{n}.bias": t[f"b{k}_{p}"] for n, p in names.items()}
        state["self_attn.in_proj_weight"] = torch.cat([t[f"w{k}_{p}"].T for p in "qkv"])
        state["self_attn.in_proj_bias"] = torch.cat([t[f"b{k}_{p}"] for p in "qkv"])
        layer.load_state_dict(state)
        layers.append(layer.eval())
    model = torch.nn.Sequential(*layers)
    return lambda: model(t["x"]), None


def resnet(t: dict[str, torch.Tensor]) -> torch.Tensor:
    sizes = resnet_convolutions()

    def convolved(x: torch.Tensor, name: str) -> torch.Tensor:
        size, _, _, stride, _ = sizes[name]
        x = F.conv2d(x, t[f"w_{name}"], stride=stride, padding=size // 2)
        return F.batch_norm(
            x, t[f"b_{name}_mean"], t[f"w_{name}_variance"], t[f"w_{name}_scale"],
            t[f"b_{name}_offset"], eps=EPSILON,
        )  # fmt: skip

    x = F.max_pool2d(F.relu(convolved(t["x"], "stem")), 3, 2, 1)
    for name, _, _, stride, _ in BLOCKS:
        y = convolved(F.relu(convolved(x, f"{name}_1")), f"{name}_2")
        x = F.relu(y + (convolved(x, f"{name}_skip") if stride > 1 else x))
    return torch.addmm(t["b_fc"], x.mean((2, 3)), t["w_fc"])


def trained(loss: Callable[[], torch.Tensor], optimizer: Any, update: Any) -> Callable[[], Any]:
    update = update or optimizer.step

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        update()
        return value.detach()

    return step


def classifier(logits: Any, optimizer: Any) -> Callable[[dict[str, torch.Tensor]], Work]:
    return lambda t: (lambda: F.cross_entropy(logits(t), t["y"]), optimizer(parameters(t)))


def inferred(function: Any) -> Callable[[dict[str, torch.Tensor]], Work]:
    return lambda t: (lambda: function(t), None)


BUILDERS: dict[str, Callable[[dict[str, torch.Tensor]], Work]] = {
    "x2p1": inferred(lambda t: t["x"] * 2 + 1),
    "x2p1_callable": inferred(lambda t: t["x"] * 2 + 1),
    "two_layer_10": two_layers,
    "two_layer_1000": two_layers,
    "mlp_train": classifier(mlp, lambda p: torch.optim.Adam(p, 1e-3)),
    "lenet_train": classifier(lenet, lambda p: torch.optim.SGD(p, 0.01, momentum=0.9)),
    "lstm_train": lstm_train,
    "lstm_unrolled": classifier(lstm_unrolled, lambda p: torch.optim.SGD(p, 1e-7)),
    "mlp_infer": inferred(lambda t: F.softmax(mlp(t), dim=-1)),
    "lenet_infer": inferred(lambda t: F.softmax(lenet(t), dim=-1)),
    "encoder_1": encoder,
    "encoder_8": encoder,
    "resnet18": inferred(resnet),
    "softmax": inferred(lambda t: F.softmax(t["x"], dim=-1)),
    "layer_norm": inferred(lambda t: F.layer_norm(t["x"], (1024,), t["g"], t["b"])),
    "gelu": inferred(lambda t: F.gelu(t["x"] + t["b"]) * t["b"]),
}
