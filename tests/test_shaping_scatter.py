"""The kernels of ScatterAddRows, run by the loop interpreter, against its reference."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from graphc.dtypes import as_dtype
from graphc.kernels import grid_scatter, scatter
from graphc.kernels.scatter import COLUMNS
from graphc.loop import ir
from graphc.loop.gpu_grid import GpuTarget
from graphc.loop.interpret import run_kernel
from graphc.loop.verify import verify_kernel
from graphc.op import REGISTRY

KERNELS = {
    "cpu": scatter.scatter_add_kernel,
    "gpu": partial(grid_scatter.scatter_add_grid, target=GpuTarget()),
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even few rows are divided."""
    monkeypatch.setattr(scatter, "WORTH", 8)
    monkeypatch.setattr(grid_scatter, "_BLOCKS", 3)


def scattered(
    make: str, rows: int, indices: np.ndarray, updates: np.ndarray, known: bool
) -> np.ndarray:
    """The kernel's result for rows of one dimension, their sizes known or not."""
    count, columns = updates.shape
    symbols = [ir.Var(name) for name in ("rows", "count", "columns")]
    sizes = [rows, count, columns]
    n, k, width = map(ir.const, sizes) if known else symbols
    where = ir.Buffer("indices", as_dtype(indices.dtype), k)
    what = ir.Buffer("updates", as_dtype(updates.dtype), ir.mul(k, width))
    out = ir.Buffer("out", as_dtype(updates.dtype), ir.mul(n, width))
    kernel = KERNELS[make](
        "scatter", (where, what, out), () if known else tuple(symbols),
        rows=n, count=k, columns=width,
        index=lambda i: ir.Load(where, i),
        update=lambda i, c: ir.Load(what, ir.add(ir.mul(i, width), c)),
        out=out,
    )  # fmt: skip
    verify_kernel(kernel)
    found = np.full(rows * columns, np.nan if updates.dtype.kind == "f" else 9, updates.dtype)
    run_kernel(kernel, [indices, updates.reshape(-1), found], [] if known else sizes)
    return found.reshape(rows, columns)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("make", KERNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize(
    ("rows", "indices", "columns"),
    [
        (4, [2, 0, 2, 2], 3),
        (3, [], 2),
        (2, [1, 5, -1], 2),
        (3, [0, 1], 0),
        (0, [0, 1], 3),
        (7, [6, 0, 3, 3, 6, 5], 21),
        (7, [6, 0, 3, 3, 6, 5], 53),
        (2, [1, 1], COLUMNS + 3),
    ],
)
def test_rows_are_added_up(
    rows: int, indices: list[int], columns: int, dtype: type, make: str, known: bool
) -> None:
    where = np.array(indices, np.int64)
    updates = (np.arange(len(indices) * columns) % 17).astype(dtype)
    updates = updates.reshape(len(indices), columns)
    want = REGISTRY["ScatterAddRows"].reference({}, np.array([rows, columns]), where, updates)
    np.testing.assert_array_equal(scattered(make, rows, where, updates, known), want)


@pytest.mark.parametrize("make", KERNELS)
def test_rows_are_added_in_their_order(make: str) -> None:
    where = np.zeros(100, np.int64)
    updates = np.random.default_rng(0).normal(size=(100, 1)).astype(np.float32)
    updates *= np.float32(10) ** (np.arange(100, dtype=np.float32)[:, None] % 5)
    total = np.float32(0)
    for row in updates[:, 0]:
        total += row
    assert scattered(make, 1, where, updates, True)[0, 0] == total
