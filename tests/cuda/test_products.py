"""Products and convolutions on a device: tiles in shared memory, edges, every transposition."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.dtypes import float32
from graphc.kernels.grid import contraction_grid
from graphc.kernels.problem import Contraction
from graphc.loop.gpu import GpuTarget
from graphc.loop.interpret import run_kernel
from graphc.loop.ir import Alloc, Buffer, Load, Scope, Store, const, walk_stmt
from graphc.loop.verify import verify_kernel
from graphc.runtime.cuda_device import Device

RNG = np.random.default_rng(3)


def whole(*shape: int) -> np.ndarray:
    """Small integers: sums are exact in every dtype and order."""
    return RNG.integers(-3, 4, shape).astype(np.float64)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


@pytest.mark.parametrize("dtype", [gc.float32, gc.float64, gc.int32, gc.bfloat16])
def test_every_transposition(dtype, device: Device):
    fetches, feeds, expected = [], {}, []
    for known in (True, False):
        for left in (False, True):
            for right in (False, True):
                a, b = whole(70, 33), whole(33, 67)
                values = a.T.copy() if left else a, b.T.copy() if right else b
                pair = []
                for value in values:
                    shape = value.shape if known else [None, None]
                    pair.append(gc.placeholder(dtype, shape))
                    feeds[pair[-1]] = value.astype(dtype.as_numpy_dtype)
                fetches.append(gc.matmul(*pair, transpose_a=left, transpose_b=right))
                expected.append(a @ b)
    with gc.Session(device=device) as session:
        for found, wanted in zip(session.run(fetches, feeds), expected, strict=True):
            np.testing.assert_array_equal(
                np.asarray(found, np.float64), wanted.astype(dtype.as_numpy_dtype).astype(float)
            )


def test_batches_edges_and_what_is_fused_behind(device: Device):
    sizes = [(1, 17, 16, 16), (3, 64, 64, 64), (2, 65, 15, 129), (0, 20, 20, 20), (2, 20, 0, 20)]
    a, b = (gc.placeholder(gc.float32, [None, None, None]) for _ in range(2))
    bias = gc.placeholder(gc.float32, [None])
    y = gc.nn.relu(gc.matmul(a, b) + bias)
    with gc.Session(device=device) as session:
        for batch, m, k, n in sizes:
            left, right, add = whole(batch, m, k), whole(batch, k, n), whole(n)
            found = session.run(y, {a: left, b: right, bias: add})
            np.testing.assert_array_equal(found, np.maximum(left @ right + add, 0))
        assert session.compilations <= 2


def test_convolutions_and_their_gradients(device: Device):
    x = gc.placeholder(gc.float32, [None, 9, 8, 16])
    w = gc.placeholder(gc.float32, [3, 3, 16, 20])
    y = gc.nn.conv2d(x, w, strides=[1, 1, 1, 1], padding="SAME")
    fetches = [y, *gc.gradients(gc.reduce_sum(y * y), [x, w])]
    feeds = {x: whole(2, 9, 8, 16), w: whole(3, 3, 16, 20)}
    with gc.Session() as cpu, gc.Session(device=device) as gpu:
        wanted, found = cpu.run(fetches, feeds), gpu.run(fetches, feeds)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_tile_as_the_interpreter_runs_it():
    m, k, n = 20, 17, 18
    sizes = {"a": m * k, "b": k * n, "c": m * n}
    a, b, c = (Buffer(name, float32, const(size)) for name, size in sizes.items())
    problem = Contraction(
        batch=(), m=(const(m),), n=const(n), k=(const(k),), acc=float32,
        lhs=lambda _, i, t: Load(a, i[0] * k + t[0]),
        rhs=lambda _, t, j: Load(b, t[0] * n + j),
        epilogue=lambda _, i, j, value: (Store(c, i[0] * n + j, value),),
    )  # fmt: skip
    kernel = verify_kernel(contraction_grid("product", (a, b, c), (), problem, GpuTarget()))
    allocs = [s.buffer.scope for s in walk_stmt(kernel.body) if isinstance(s, Alloc)]
    assert allocs.count(Scope.SHARED) == 2
    left, right = whole(m, k).astype(np.float32), whole(k, n).astype(np.float32)
    found = np.zeros((m, n), np.float32)
    run_kernel(kernel, [left, right, found])
    np.testing.assert_array_equal(found, left @ right)
