"""PyTorch on the same GPU as `gpu.py`: eager, and `torch.compile` with CUDA graphs."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any


def has_torch(place: str = "cuda") -> bool:
    """Whether PyTorch can run there."""
    try:
        import torch
    except ImportError:
        return False
    return place == "cpu" or torch.cuda.is_available()


def timed(work: Callable[[], Any], place: str, rounds: int = 5, runs: int = 20) -> float:
    """The median time of one call, of several that follow each other."""
    import torch

    def one() -> float:
        start = time.perf_counter()
        for _ in range(runs):
            work()
        if place == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / runs

    for _ in range(2):
        one()
    return statistics.median(one() for _ in range(rounds))


def torch_rows(
    elements: int, layers: list[int], batch: int, place: str = "cuda"
) -> dict[str, dict[str, float]]:
    """Seconds of each workload that `gpu.py` has too, by name: eager and compiled."""
    import torch

    torch.manual_seed(0)
    matrix = torch.rand(max(1, elements // 1024), 1024, device=place)
    works: dict[str, Callable[[], Any]] = {
        "elementwise": lambda: torch.tanh(matrix) + 0.5,
        "softmax": lambda: torch.softmax(matrix, 1),
    }
    found: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        for name, work in works.items():
            compiled = torch.compile(work)
            found[name] = {"eager": timed(work, place), "compiled": timed(compiled, place)}
    found["MLP step"] = mlp_step(layers, batch, place)
    return found


def mlp_step(layers: list[int], batch: int, place: str) -> dict[str, float]:
    """Seconds of a training step of the perceptron that `gpu.py` trains."""
    import torch

    parts: list[Any] = []
    for k, (a, b) in enumerate(itertools.pairwise(layers)):
        parts += [torch.nn.Linear(a, b), *([torch.nn.ReLU()] if k < len(layers) - 2 else [])]
    model = torch.nn.Sequential(*parts).to(place)
    x = torch.rand(batch, layers[0], device=place)
    labels = torch.randint(0, layers[-1], (batch,), device=place)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss_of = torch.nn.CrossEntropyLoss()

    def step(forward: Any) -> None:
        optimizer.zero_grad()
        loss_of(forward(x), labels).backward()
        optimizer.step()

    compiled = torch.compile(model, mode="reduce-overhead" if place == "cuda" else None)
    return {
        "eager": timed(lambda: step(model), place),
        "compiled": timed(lambda: step(compiled), place),
    }
