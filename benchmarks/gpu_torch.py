"""PyTorch's half of `gpu.py`: the same rows on the same GPU, eager and by ``torch.compile``.

Every function takes the name of a device, how ("eager" or "compiled"), whether few calls are
enough, and the row's arguments.  It returns figures by their units.  Training steps and
transformers are compiled with CUDA graphs (``mode="reduce-overhead"``).  Float32 is float32: TF32
is off in products and convolutions, as it is in graphc, but in the rows that say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gpu_clock
import torch
import with_torch
from gpu_models import MAKERS, Sizes, decoder_data, encoder_data, is_wide
from torch.nn import functional as F

Figures = dict[str, float]
Weights = dict[str, torch.Tensor]
DTYPES = {
    "float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16,
    "int8": torch.int8,
}  # fmt: skip
EAGER, COMPILED = "eager", "compiled"


def seconds(place: str, work: Callable[[], Any], quick: bool) -> float:
    """The median time of one call, of several that follow each other."""
    wait = torch.cuda.synchronize if place == "cuda" else lambda: None
    return gpu_clock.seconds(work, wait, quick)


def graphs_mode(place: str) -> str | None:
    """The mode of ``torch.compile`` that has CUDA graphs."""
    return "reduce-overhead" if place == "cuda" else None


def set_tf32(on: bool) -> None:
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on


MEMORY: dict[str, Callable[[Any, Any, Any], Any]] = {
    "tanh": lambda v, *_: torch.tanh(v) + 0.5,
    "gelu": lambda v, _, b: F.gelu(v + b) * b,
    "softmax": lambda v, *_: torch.softmax(v, 1),
    "layer norm": lambda v, g, b: F.layer_norm(v, (1024,), g, b),
    "sum of columns": lambda v, *_: v.sum(0),
    "sum of everything": lambda v, *_: v.sum(),
    "transpose": lambda v, *_: v.T.contiguous(),
}  # fmt: skip


@torch.no_grad()
def memory(place: str, how: str, quick: bool, what: str, elements: int) -> Figures:
    """A pass over a large tensor; compiled without CUDA graphs, which would copy it."""
    v = torch.rand(elements // 1024, 1024, device=place)
    g, b = torch.rand(2, 1024, device=place)
    function = torch.compile(MEMORY[what]) if how == COMPILED else MEMORY[what]
    return {"ms": 1e3 * seconds(place, lambda: function(v, g, b), quick)}


@torch.no_grad()
def product(place: str, _: str, quick: bool, side: int, dtype: str) -> Figures:
    """A product of square matrices by cuBLAS."""
    set_tf32(dtype == "tf32")
    a, b = operands(place, side, dtype)
    spent = seconds(place, lambda: multiplied(a, b), quick)
    return {"ms": spent * 1e3, "TFLOP/s": 2 * side**3 / spent / 1e12}


def operands(place: str, side: int, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two square matrices."""
    if dtype == "int8":
        a, b = torch.randint(-128, 128, (2, side, side), dtype=torch.int8, device=place)
    else:
        a, b = torch.rand(2, side, side, device=place).mul_(2).sub_(1).to(DTYPES[dtype])
    return a, b


def multiplied(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The product, of int8 with sums of int32."""
    return torch._int_mm(a, b) if a.dtype == torch.int8 else a @ b


@torch.no_grad()
def epilogue(place: str, _: str, quick: bool, side: int, dtype: str) -> Figures:
    """relu(a b + bias): eager is cuBLAS and what comes behind it."""
    set_tf32(dtype == "tf32")
    a, b = operands(place, side, dtype)
    bias = torch.rand(side, device=place).to(DTYPES[dtype])
    return {"ms": 1e3 * seconds(place, lambda: torch.relu(torch.addmm(bias, a, b)), quick)}


@torch.no_grad()
def small(place: str, _: str, quick: bool) -> Figures:
    """x * 2 + 1 of eight floats, from the host and back to it."""
    x = torch.ones(8)

    def run() -> torch.Tensor:
        return (x.to(place) * 2.0 + 1.0).cpu()

    return {"us": 1e6 * seconds(place, run, quick)}


def timed_steps(place: str, quick: bool, step: Callable[[], torch.Tensor]) -> Figures:
    """The time of a run, and its first two values."""

    def call() -> torch.Tensor:
        # What an earlier run has given is not read any more: CUDA graphs may write over it.
        torch.compiler.cudagraph_mark_step_begin()
        return step()

    found = [float(call().abs().double().mean()) for _ in range(2)]
    spent = seconds(place, call, quick)
    return {"ms": spent * 1e3, "value": found[0], "value, second": found[1]}


def model(place: str, how: str, quick: bool, name: str, **sizes: int) -> Figures:
    """A training step of a workload of `workloads.py`."""
    set_tf32(False)
    data = MAKERS[name](**sizes)
    step = with_torch.prepared(name, data, how == COMPILED, place, graphs_mode(place))
    return timed_steps(place, quick, step)


# --- transformers ---------------------------------------------------------------------------------


def transformer(
    place: str, how: str, quick: bool, what: str, sizes: Sizes, train: bool,
    dtype: str = "bfloat16",
) -> Figures:  # fmt: skip
    """The encoder or the decoder: a step of Adam, or the output alone."""
    set_tf32(False)
    data = encoder_data(sizes) if what == "encoder" else decoder_data(sizes)
    tensors = {k: torch.from_numpy(v).to(place) for k, v in data.items()}
    weights = {k: v for k, v in joined(tensors, sizes).items() if k[0] in "wb"}
    x, y, short = tensors["x"], tensors["y"], DTYPES[dtype]
    forward = encoded if what == "encoder" else decoded
    if not train:
        weights = {k: v if is_wide(k) else v.to(short) for k, v in weights.items()}
        output = compiled(lambda: forward(weights, x, sizes, short), how, place)
        step = torch.inference_mode()(output)
    else:
        weights = {k: v.clone().requires_grad_() for k, v in weights.items()}
        # All of its work is one launch or few, of which torch.compile would make no less.
        adam = torch.optim.Adam(list(weights.values()), 1e-3, fused=place == "cuda")

        def loss() -> torch.Tensor:
            output = forward(weights, x, sizes, short).float()
            if what == "encoder":
                return F.mse_loss(output, y)
            return F.cross_entropy(output, y.flatten())

        step = with_torch.trained(compiled(loss, how, place), adam, None)
    found = timed_steps(place, quick, step)
    return {**found, "TFLOP/s": sizes.flops(train) / found["ms"] / 1e9}


def compiled(function: Callable[[], torch.Tensor], how: str, place: str) -> Any:
    """The function, or what ``torch.compile`` makes of it."""
    if how != COMPILED:
        return function
    return torch.compile(function, fullgraph=True, mode=graphs_mode(place))


def joined(t: Weights, sizes: Sizes) -> Weights:
    """The weights, those of queries, keys and values as one: PyTorch's own layers have them so."""
    found = {k: v for k, v in t.items() if k[-2:] not in ("_q", "_k", "_v")}
    for k in range(sizes.layers):
        for name in (f"w{k}", f"b{k}"):
            if f"{name}_q" in t:
                found[f"{name}_qkv"] = torch.cat([t[f"{name}_{p}"] for p in "qkv"], -1)
    return found


def dense(w: Weights, x: torch.Tensor, part: str) -> torch.Tensor:
    return torch.addmm(w["b" + part].to(x.dtype), x, w["w" + part].to(x.dtype))


def norm(w: Weights, x: torch.Tensor, part: str) -> torch.Tensor:
    gain, bias = (w[kind + part].to(x.dtype) for kind in "wb")
    return F.layer_norm(x, x.shape[-1:], gain, bias)


def attended(w: Weights, x: torch.Tensor, part: str, sizes: Sizes, causal: bool) -> torch.Tensor:
    """Attention within each sequence of x, [batch * tokens, width]."""
    shape = sizes.batch, sizes.tokens, sizes.heads, sizes.width // sizes.heads
    q, k, v = (p.view(shape).transpose(1, 2) for p in dense(w, x, f"{part}_qkv").chunk(3, 1))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return dense(w, mixed.transpose(1, 2).reshape(-1, sizes.width), f"{part}_o")


def encoded(w: Weights, x: torch.Tensor, sizes: Sizes, dtype: torch.dtype) -> torch.Tensor:
    """The encoder: `graphs.encoded`."""
    shape = x.shape
    x = x.to(dtype).view(-1, sizes.width)
    for k in range(sizes.layers):
        x = norm(w, x + attended(w, x, f"{k}", sizes, False), f"{k}_norm1")
        x = norm(w, x + dense(w, F.gelu(dense(w, x, f"{k}_in")), f"{k}_out"), f"{k}_norm2")
    return x.view(shape)


def decoded(w: Weights, x: torch.Tensor, sizes: Sizes, dtype: torch.dtype) -> torch.Tensor:
    """The decoder: `gpu_models.decoder`."""
    x = (F.embedding(x, w["w_token"]) + w["w_position"]).to(dtype).view(-1, sizes.width)
    for k in range(sizes.layers):
        x = x + attended(w, norm(w, x, f"{k}_norm1"), f"{k}", sizes, True)
        hidden = dense(w, norm(w, x, f"{k}_norm2"), f"{k}_in")
        x = x + dense(w, F.gelu(hidden, approximate="tanh"), f"{k}_out")
    return norm(w, x, "_norm") @ w["w_token"].to(dtype).T


KINDS: dict[str, Callable[..., Figures]] = {
    "memory": memory, "product": product, "epilogue": epilogue, "small": small, "model": model,
    "transformer": transformer,
}  # fmt: skip
