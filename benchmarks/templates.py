"""What each template and memory pass is worth: the same values with it and without (micro.py).

Without a template a graph says the same in elementwise ops and reductions, which the compiler
fuses to loops of its own.  What is no op but a decision of the compiler is switched off instead.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from workloads import normal

import graphc as gc

Build = Callable[..., gc.Tensor]
Call = Callable[[], np.ndarray]
Arrays = list[np.ndarray]
NEVER = 1 << 60


@contextlib.contextmanager
def switched(settings: dict[str, Any]) -> Iterator[None]:
    """Constants of the compiler, by their names below graphc, with other values for a while."""
    before = []
    for name, value in settings.items():
        module_name, _, attribute = name.rpartition(".")
        module = importlib.import_module(f"graphc.{module_name}")
        before.append((module, attribute, getattr(module, attribute)))
        setattr(module, attribute, value)
    try:
        yield
    finally:
        for module, attribute, value in before:
            setattr(module, attribute, value)


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """A cache of compiled code with nothing in it, for a while."""
    before = os.environ.get("GRAPHC_CACHE")
    with tempfile.TemporaryDirectory(prefix="graphc-bench-") as folder:
        os.environ["GRAPHC_CACHE"] = folder
        yield
    os.environ.pop("GRAPHC_CACHE")
    if before is not None:
        os.environ["GRAPHC_CACHE"] = before


def compiled(build: Build, *fed: np.ndarray, kept: Sequence[np.ndarray] = ()) -> Call:
    """A call of ``build`` on placeholders for what is fed, then variables for what is kept."""
    with gc.Graph().as_default() as graph:
        inputs = [gc.placeholder(a.dtype, a.shape) for a in fed]
        result = build(*inputs, *(gc.Variable(a) for a in kept))
        session = gc.Session(graph=graph)
        session.run(gc.global_variables_initializer())
        run = session.make_callable(result, inputs)
    return lambda: run(*fed)


def loop_product(a: gc.Tensor, b: gc.Tensor) -> gc.Tensor:
    return gc.reduce_sum(a[:, :, None] * b[None], 1)


def convolution(x: gc.Tensor, w: gc.Tensor) -> gc.Tensor:
    return gc.nn.conv2d(x, w, 1, "VALID")


def _taps(x: gc.Tensor, w: gc.Tensor, one: Callable[[gc.Tensor, gc.Tensor], gc.Tensor]) -> Any:
    rows, columns = (int(size) - 2 for size in x.shape[1:3])
    parts = [
        one(x[:, i : i + rows, j : j + columns], w[i, j]) for i in range(3) for j in range(3)
    ]
    return gc.add_n(parts)


def loop_convolution(x: gc.Tensor, w: gc.Tensor) -> gc.Tensor:
    return _taps(x, w, lambda part, tap: gc.reduce_sum(part[..., None] * tap, 3))


def depthwise(x: gc.Tensor, w: gc.Tensor) -> gc.Tensor:
    return gc.nn.depthwise_conv2d(x, w, [1, 1, 1, 1], "VALID")


def loop_depthwise(x: gc.Tensor, w: gc.Tensor) -> gc.Tensor:
    return _taps(x, w, lambda part, tap: part * tap[:, 0])


def attention(q: gc.Tensor, k: gc.Tensor, v: gc.Tensor) -> gc.Tensor:
    return gc.matmul(gc.nn.softmax(gc.matmul(q, k, transpose_b=True) * 0.125), v)


def scatter(at: gc.Tensor, rows: gc.Tensor) -> gc.Tensor:
    """The gradient of an embedding."""
    table = gc.zeros([1000, 64])
    (found,) = gc.gradients(gc.gather(table, at), table, rows)
    return gc.convert_to_tensor(found)


def loop_scatter(at: gc.Tensor, rows: gc.Tensor) -> gc.Tensor:
    chosen = gc.equal(gc.range(1000)[:, None], at[None])
    return gc.reduce_sum(gc.cast(chosen, gc.float32)[:, :, None] * rows[None], 1)


def loop_cumsum(x: gc.Tensor) -> gc.Tensor:
    size = int(x.shape[1])
    before = gc.range(size)[:, None] <= gc.range(size)[None]
    return gc.reduce_sum(x[:, :, None] * gc.cast(before, gc.float32)[None], 1)


def joined(*parts: gc.Tensor) -> gc.Tensor:
    return gc.concat(parts, 1)


def recurrent(x: gc.Tensor, w: gc.Tensor) -> gc.Tensor:
    return gc.while_loop(
        lambda i, _: i < 20, lambda i, h: (i + 1, gc.tanh(gc.matmul(h, w))), [0, x]
    )[1]


def gelu(x: gc.Tensor) -> gc.Tensor:
    return 0.5 * x * (1 + gc.erf(x * 0.7071067811865476))


# What, with it, fed, kept; then another way to say it, or what is switched off.
CASES: list[tuple[str, Build, Arrays, Arrays, Build | dict[str, Any]]] = [
    ("product 256x256x256", gc.matmul, [normal(0, 256, 256), normal(0, 256, 256)], [],
     loop_product),
    ("product 1x1000x1000", gc.matmul, [normal(0, 1, 1000), normal(0, 1000, 1000)], [],
     loop_product),
    ("convolution 3x3, 4x32x32x32", convolution,
     [normal(0, 4, 32, 32, 32), normal(0, 3, 3, 32, 32)], [], loop_convolution),
    ("depthwise 3x3, 8x64x64x32", depthwise, [normal(0, 8, 64, 64, 32), normal(0, 3, 3, 32, 1)],
     [], loop_depthwise),
    ("scatter, 4096 rows of 64",
     scatter, [np.arange(4096, dtype=np.int32) * 7 % 1000, normal(0, 4096, 64)], [], loop_scatter),
    ("cumulative sums, 64 rows of 1000", lambda x: gc.cumsum(x, 1), [normal(0, 64, 1000)], [],
     loop_cumsum),
    ("attention, 8 heads, 2048 keys, 64 wide", attention,
     [normal(s, 8, 2048, 64) for s in range(3)], [], {"passes.attention.LEAST_BYTES": NEVER}),
    ("Winograd, 3x3, 1x56x56x64", convolution, [normal(0, 1, 58, 58, 64)],
     [normal(0, 3, 3, 64, 64)], {"passes.winograd.TILES": NEVER}),
    ("weights in panels, 128x1024x1024", gc.matmul, [normal(0, 128, 1024)], [normal(0, 1024, 1024)],
     {"passes.panels.LEAST_BYTES": NEVER}),
    ("panels of a loop, 20 turns of 32x256x256", recurrent,
     [normal(0, 32, 256), normal(0, 256, 256) / 16], [], {"passes.panels.LEAST_BYTES": NEVER}),
    ("loops cut at seams, four of 256x64 joined", joined, [normal(s, 256, 64) for s in range(4)],
     [], {"loop.cpu_split.MOST_RANGES": 0}),
    ("weights asked for ahead, 16x1024x4096", gc.matmul, [normal(0, 16, 1024)],
     [normal(0, 1024, 4096)], {"kernels.tiling.NEAR_BYTES": (NEVER, NEVER)}),
    ("stores past the caches, 4096x4096", gelu, [normal(0, 4096, 4096)], [],
     {"program.STREAM_BYTES": NEVER}),
    ("loads asked for ahead, 4096x4096", gelu, [normal(0, 4096, 4096)], [],
     {"loop.cpu_ahead.FAR_BYTES": NEVER}),
]  # fmt: skip


def pair(
    with_it: Build, fed: Arrays, kept: Arrays, without: Build | dict[str, Any]
) -> dict[str, Call]:
    """The two calls, whose values are the same."""
    first = compiled(with_it, *fed, kept=kept)
    wanted = first()
    # A cache of its own: the key of what it holds does not tell of the switches.
    with empty_cache(), switched(without if isinstance(without, dict) else {}):
        second = compiled(with_it if isinstance(without, dict) else without, *fed, kept=kept)
        np.testing.assert_allclose(second(), wanted, rtol=1e-3, atol=1e-3)
    return {"with": first, "without": second}
