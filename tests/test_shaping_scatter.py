"""The kernel of ScatterAddRows, run by the loop interpreter, against its reference."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.dtypes import as_dtype
from graphc.kernels.scatter import COLUMNS, scatter_add_kernel
from graphc.loop import ir
from graphc.loop.interpret import run_kernel
from graphc.loop.verify import verify_kernel
from graphc.op import REGISTRY


def scatter(rows: int, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """The kernel's result for rows of one dimension."""
    count, columns = updates.shape
    n, width = ir.Var("n"), ir.Var("width")
    where = ir.Buffer("indices", as_dtype(indices.dtype), n)
    what = ir.Buffer("updates", as_dtype(updates.dtype), n * width)
    out = ir.Buffer("out", as_dtype(updates.dtype), ir.const(rows) * width)
    kernel = scatter_add_kernel(
        "scatter", [where, what, out], [n, width],
        rows=rows, count=n, columns=width,
        index=lambda i: ir.Load(where, i),
        update=lambda i, c: ir.Load(what, i * width + c),
        out=out,
    )  # fmt: skip
    verify_kernel(kernel)
    found = np.full(rows * columns, np.nan if updates.dtype.kind == "f" else 9, updates.dtype)
    run_kernel(kernel, [indices, updates.reshape(-1), found], [count, columns])
    return found.reshape(rows, columns)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize(
    ("rows", "indices", "columns"),
    [
        (4, [2, 0, 2, 2], 3),
        (3, [], 2),
        (2, [1, 5, -1], 2),
        (3, [0, 1], 0),
        (2, [1, 1], COLUMNS + 3),
    ],
)
def test_rows_are_added_up(rows: int, indices: list[int], columns: int, dtype: type) -> None:
    where = np.array(indices, np.int64)
    updates = (np.arange(len(indices) * columns) % 17).astype(dtype)
    updates = updates.reshape(len(indices), columns)
    want = REGISTRY["ScatterAddRows"].reference({}, np.array([rows, columns]), where, updates)
    np.testing.assert_array_equal(scatter(rows, where, updates), want)
