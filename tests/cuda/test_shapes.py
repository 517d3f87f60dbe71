"""Sizes that are no multiples of anything, none at all, one and just beside a warp; every dtype."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import graphc as gc

RNG = np.random.default_rng(19)
SHAPES = [
    (0, 5), (5, 0), (1, 1), (31, 33), (33, 31), (65, 3), (3, 65), (1, 1025), (1025, 1), (17, 300),
    (300, 17), (64, 64),
]  # fmt: skip
DTYPES = (
    gc.float32, gc.int8, gc.bfloat16, gc.float64, gc.float16, gc.int64, gc.uint8, gc.int32,
    gc.int16, gc.uint16,
)  # fmt: skip


def values(dtype: Any, *shape: int) -> np.ndarray:
    """Small numbers, whose sums are exact."""
    low = 0 if dtype.is_unsigned else -2
    return RNG.integers(low, 3, shape).astype(dtype.as_numpy_dtype)


def kernels(x: Any, dtype: Any, shape: tuple[int, int]) -> list[Any]:
    """What reads and writes in every direction."""
    rows, columns = shape
    found = [
        x + x, gc.transpose(x), gc.transpose(x) + gc.transpose(x), x[::-1, 1::2], x[:, ::-1],
        gc.concat([x, x], 0), gc.concat([x, x[:, :1]], 1), gc.reduce_sum(x, 0),
        gc.reduce_sum(x, 1), gc.reduce_sum(x), gc.tile(x, [2, 3]), gc.pad(x, [[1, 2], [0, 3]]),
        gc.cast(x, gc.float32) * 2.0, gc.cast(x, gc.int64) + 1, gc.equal(x, x),
        gc.stack([x, x], 2), gc.where(gc.greater(x, gc.ones_like(x)), x, x + x),
    ]  # fmt: skip
    if rows:
        found += [gc.reduce_max(x, 0), gc.gather(x, [rows - 1, 0, 0])]
    if columns:
        found += [gc.reduce_max(x, 1), gc.argmax(x, 1), x - gc.reduce_max(x, 1, keepdims=True)]
    if dtype.is_floating and rows and columns:
        found += [gc.nn.softmax(x), *gc.nn.moments(x, [0]), gc.nn.softmax(gc.transpose(x))]
    return found


ALWAYS = ((gc.float32, False),)


@pytest.mark.parametrize(
    ("dtype", "known"),
    [
        pytest.param(
            dtype, known, marks=[] if (dtype, known) in ALWAYS else [pytest.mark.slow],
            id=f"{dtype.name}-{'known' if known else 'unknown'}",
        )
        for dtype in DTYPES
        for known in (True, False)
    ],
)  # fmt: skip
def test_every_kind_of_kernel(dtype, known, device):
    with gc.Graph().as_default():
        fetches, feeds = [], {}
        for shape in SHAPES:
            x = gc.placeholder(dtype, shape if known else [None, None])
            feeds[x] = values(dtype, *shape)
            fetches.append(kernels(x, dtype, shape))
        with gc.Session(mode="reference") as reference, gc.Session(device=device) as session:
            pairs = zip(session.run(fetches, feeds), reference.run(fetches, feeds), strict=True)
            for a, b in itertools.chain.from_iterable(zip(*p, strict=True) for p in pairs):
                assert (a.dtype, np.shape(a)) == (b.dtype, np.shape(b))
                short = a.dtype.itemsize == 2 and a.dtype.kind in "fV"
                tolerance = 2e-2 if short else 1e-5
                np.testing.assert_allclose(
                    np.asarray(a, np.float64), np.asarray(b, np.float64),
                    rtol=tolerance if a.dtype.kind in "fV" else 0, atol=tolerance,
                )  # fmt: skip
