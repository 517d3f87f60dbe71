"""The rows of `gpu.py`: what each one measures, about how long that takes, and its targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpu_models import Sizes

GIB = 1 << 30
GRAPHC, EAGER, COMPILED = "graphc", "eager", "compiled"
CONTENDERS = GRAPHC, EAGER, COMPILED
Cells = dict[str, dict[str, Any]]  # a row's figures by contender and unit

COPY, UNROLLED = "copy", "LSTM step, unrolled"
FULL: dict[str, Any] = {
    "elements": GIB // 4, "sides": (512, 1024, 2048, 4096, 8192), "epilogue": (1024, 4096),
    "products": ("float32", "tf32", "bfloat16", "int8"),
    "epilogues": ("float32", "tf32", "bfloat16"),
    "two_layer_10": {}, "two_layer_1000": {}, "mlp_train": {}, "lenet_train": {"batch": 256},
    "lstm_train": {}, "lstm_unrolled": {},
    "encoder": Sizes(4, 256, 1024, 8, 8, 512),
    "decoder": Sizes(12, 768, 3072, 12, 8, 512, 50257),
}  # fmt: skip
_DENSE = {"batch": 4, "d_in": 6, "hidden": 5}
_LSTM = {"batch": 2, "steps": 3, "d_in": 4, "units": 4}
SMALL: dict[str, Any] = {
    "elements": 4096, "sides": (32,), "epilogue": (32,), "products": ("tf32", "int8"),
    "epilogues": ("bfloat16",),
    "two_layer_10": _DENSE, "two_layer_1000": _DENSE, "mlp_train": _DENSE,
    "lenet_train": {"batch": 2, "side": 16, "channels": (2, 3), "hidden": 5},
    "lstm_train": _LSTM, "lstm_unrolled": _LSTM,
    "encoder": Sizes(1, 16, 32, 8, 2, 8),
    "decoder": Sizes(1, 16, 32, 2, 2, 8, 20),
}  # fmt: skip
"""Sizes that say nothing, for a test of `gpu.py` itself."""


@dataclass(frozen=True)
class Target:
    """What a row shall reach.

    Attributes:
      text: what is asked for.
      least: the least figure that is enough.
      figure: from the row's cells and the table, by names of rows; a KeyError where one is missing.
    """

    text: str
    least: float
    figure: Callable[[Cells, dict[str, Cells]], float]

    def judged(self, cells: Cells, table: dict[str, Cells]) -> dict[str, Any]:
        """The text, what is reached and whether that is enough; None where it is not known."""
        try:
            found = self.figure(cells, table)
        except KeyError:
            return {"target": self.text, "least": self.least, "reached": None, "met": None}
        met = found >= self.least
        return {"target": self.text, "least": self.least, "reached": found, "met": met}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
      name: how the table calls it.
      kind: the function of `gpu_graphc.py` and `gpu_torch.py` that measures it.
      given: its arguments.
      seconds: how long it takes about, by contender; those that it has not, it is not for.
      targets: what it shall reach.
    """

    name: str
    kind: str
    given: dict[str, Any]
    seconds: Mapping[str, float]
    targets: tuple[Target, ...] = ()


# --- targets --------------------------------------------------------------------------------------


def of_copy(least: float) -> Target:
    """A part of the bandwidth of a copy."""
    text = f"{100 * least:.0f} % of the bandwidth of a copy"
    return Target(text, least, lambda c, t: c[GRAPHC]["GB/s"] / t[COPY][GRAPHC]["GB/s"])


def than(peer: str, text: str, least: float = 1.0) -> Target:
    """So many times as fast as another contender."""
    return Target(text, least, lambda c, _: c[peer]["ms"] / c[GRAPHC]["ms"])


def within(unit: str, most: float, text: str) -> Target:
    """At most so many of a unit; what is reached is how often the time fits into that."""
    return Target(text, 1.0, lambda c, _: most / c[GRAPHC][unit])


def fused(cells: Cells, _: dict[str, Cells]) -> float:
    """How many times as fast a product is with its epilogue as before a pass of its own."""
    ours = cells[GRAPHC]
    return float((ours["ms, product"] + ours["ms, pass"]) / ours["ms"])


COMPILE = "no slower than torch.compile"
GRAPHS = "no slower than torch.compile with CUDA graphs"
STEP = than(EAGER, "3 times as fast as PyTorch, eager", 3.0), than(COMPILED, GRAPHS)


# --- rows -----------------------------------------------------------------------------------------


def rows(small: bool = False) -> list[Row]:
    """The table, in its order.

    Args:
      small: sizes that say nothing, quickly.
    """
    sizes = SMALL if small else FULL
    found = [Row(COPY, "copy", {"elements": sizes["elements"]}, {GRAPHC: 2})]
    found += memory_rows(sizes["elements"])
    eight = within("us", 8.0, "run of a small graph, replayed: 8 us")
    found.append(Row("small run", "small", {}, {GRAPHC: 2, EAGER: 1}, (eight,)))
    found += step_rows(sizes) + transformer_rows(sizes) + product_rows(sizes)
    first = (within("s, cold", 2.0, "cold: 2 s"), within("s, cached", 0.2, "cached: 0.2 s"))
    given = {"name": "mlp_train", **sizes["mlp_train"]}
    found.append(Row("MLP step, first run", "first", given, {GRAPHC: 5}, first))
    return found


def memory_rows(elements: int) -> list[Row]:
    """What is bound by memory."""
    goals = of_copy(0.9), than(COMPILED, COMPILE)
    title = {"tanh": "tanh(x) + 0.5", "gelu": "gelu(x + b) * b"}
    found = []
    for what in ("tanh", "gelu", "softmax", "layer norm", "sum of columns", "sum of everything",
                 "transpose"):  # fmt: skip
        judged = what in {"tanh", "gelu", "softmax", "layer norm"}
        spent: dict[str, float] = {GRAPHC: 3, EAGER: 1, **({COMPILED: 8} if judged else {})}
        given = {"what": what, "elements": elements}
        found.append(Row(title.get(what, what), "memory", given, spent, goals if judged else ()))
    return found


def step_rows(sizes: dict[str, Any]) -> list[Row]:
    """Training steps of small models, float32."""
    titles = {
        "two_layer_10": ("two layers of 10, step", 15), "mlp_train": ("MLP step", 15),
        "two_layer_1000": ("two layers of 1000, step", 15), "lenet_train": ("LeNet step", 20),
        "lstm_train": ("LSTM step", 60), "lstm_unrolled": (UNROLLED, 60),
    }  # fmt: skip
    found = []
    for name, (title, compiling) in titles.items():
        ours = 15 if "lstm" in name else 5
        spent: dict[str, float] = {GRAPHC: ours, EAGER: 2, COMPILED: compiling}
        goals: tuple[Target, ...] = STEP
        if name == "lstm_train":
            # torch.compile does not trace torch.nn.LSTM, which eager runs by cuDNN.
            del spent[COMPILED]
            goals = STEP[0], Target(GRAPHS, 1.0, unrolled)
        found.append(Row(title, "model", {"name": name, **sizes[name]}, spent, goals))
    return found


def unrolled(cells: Cells, table: dict[str, Cells]) -> float:
    """How many times as fast an LSTM is as what ``torch.compile`` makes of its unrolled steps."""
    return float(table[UNROLLED][COMPILED]["ms"] / cells[GRAPHC]["ms"])


def transformer_rows(sizes: dict[str, Any]) -> list[Row]:
    """The encoder and the decoder, in bfloat16."""
    spent = {
        ("encoder", False): (10, 2, 15), ("encoder", True): (20, 2, 30),
        ("decoder", False): (20, 6, 35), ("decoder", True): (60, 8, 75),
    }  # fmt: skip
    return [
        Row(
            f"{what}, {'training' if train else 'inference'}", "transformer",
            {"what": what, "sizes": sizes[what], "train": train},
            dict(zip(CONTENDERS, times, strict=True)), (than(COMPILED, GRAPHS),),
        )
        for (what, train), times in spent.items()
    ]  # fmt: skip


def product_rows(sizes: dict[str, Any]) -> list[Row]:
    """Square products, alone and with what comes behind them."""
    cublas = than(EAGER, "no slower than cuBLAS (torch.matmul)")
    found = [
        Row(f"{dtype} product {side}", "product", {"side": side, "dtype": dtype},
            {GRAPHC: 2, EAGER: 1}, (cublas,))
        for dtype in sizes["products"] for side in sizes["sides"]
    ]  # fmt: skip
    pays = Target("faster than the product and a separate pass", 1.0, fused)
    found += [
        Row(f"{dtype} relu(a b + bias) {side}", "epilogue", {"side": side, "dtype": dtype},
            {GRAPHC: 4, EAGER: 1}, (pays,))
        for dtype in sizes["epilogues"] for side in sizes["epilogue"]
    ]  # fmt: skip
    return found
