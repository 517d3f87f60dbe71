"""Products and convolutions on a device: tiles in shared memory, edges, every transposition."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_races import RaceDevice
from cuda_support import Recorded, ShimDevice, TextDevice, has_nvrtc

import graphc as gc
from graphc.dtypes import float32
from graphc.kernels.grid import contraction_grid
from graphc.kernels.problem import Contraction
from graphc.loop.gpu import GpuTarget
from graphc.loop.interpret import run_kernel
from graphc.loop.ir import Alloc, Buffer, Load, Scope, Store, const, walk_stmt
from graphc.loop.verify import verify_kernel
from graphc.runtime.cuda_device import Device, compile_cubin

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


SLOW = [pytest.param(t, marks=pytest.mark.slow) for t in (gc.int32, gc.int64)]


@pytest.mark.parametrize("dtype", [gc.float32, gc.float64, *SLOW])
def test_panels_are_copied_where_sizes_are_known(dtype, device: Device):
    fetches, feeds, expected = [], {}, []
    for left in (False, True):
        for right in (False, True):
            a, b = whole(72, 36), whole(36, 68)
            values = a.T.copy() if left else a, b.T.copy() if right else b
            pair = [gc.placeholder(dtype, value.shape) for value in values]
            feeds.update(zip(pair, (v.astype(dtype.as_numpy_dtype) for v in values), strict=True))
            fetches.append(gc.matmul(*pair, transpose_a=left, transpose_b=right))
            expected.append(a @ b)
    with gc.Session(device=device) as session:
        for found, wanted in zip(session.run(fetches, feeds), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
    if isinstance(device, ShimDevice):
        assert "gc_copy_async(left" in device.texts[-1]
        assert "gc_copy_async(right" in device.texts[-1]
        with gc.Session(device=RaceDevice(both_orders=False)) as session:
            session.run(fetches, feeds)


@pytest.mark.parametrize("turn", [False, True])
def test_large_tiles(turn, device: Device):
    a, b = whole(1024, 20), whole(1024, 20) if turn else whole(20, 1024)
    x, y = (gc.placeholder(gc.float32, v.shape) for v in (a, b))
    with gc.Session(device=device) as session:
        found = session.run(gc.matmul(x, y, transpose_b=turn), {x: a, y: b})
    np.testing.assert_array_equal(found, a @ (b.T if turn else b))


def test_a_device_without_such_copies_waits_for_each():
    if not has_nvrtc():
        pytest.skip("no NVRTC")
    x = gc.placeholder(gc.bfloat16, [64, 64])
    device = TextDevice()
    device.arch = "sm_75"
    with pytest.raises(Recorded) as recorded, gc.Session(device=device) as session:
        session.run(gc.matmul(x, x), {x: whole(64, 64).astype(gc.bfloat16.as_numpy_dtype)})
    assert "gc_product<" not in recorded.value.text.split('extern "C"')[-1]
    compile_cubin(recorded.value.text, "sm_75")
