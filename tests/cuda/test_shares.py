"""Products of few results and long sums, which many blocks share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_races import RaceDevice
from cuda_support import ShimDevice

import graphc as gc
from graphc.dtypes import float32
from graphc.kernels.grid_shares import share
from graphc.kernels.problem import Contraction
from graphc.loop import ir
from graphc.loop.ir import Expr, Var
from graphc.runtime.cuda_device import Device

RNG = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


def whole(*shape: int) -> np.ndarray:
    """Small integers: sums are exact in every dtype and order."""
    return RNG.integers(-2, 3, shape).astype(np.float64)


def summed(m: tuple[Any, ...], n: Any, k: tuple[Any, ...], batch: tuple[Any, ...] = ()) -> Any:
    """A contraction of these extents; None is one that is not known."""

    def extents(sizes: tuple[Any, ...]) -> tuple[Expr, ...]:
        return tuple(Var("s") if s is None else ir.const(s) for s in sizes)

    zero = ir.Const(0, float32)
    return Contraction(
        extents(batch), extents(m), *extents((n,)), extents(k), float32,
        lambda *_: zero, lambda *_: zero, lambda *_: (),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("problem", "blocks", "expected"),
    [
        (summed((144,), 16, (32, 32, 32)), 3, (0, 32, 1024, False)),
        (summed((144,), 16, (1, 60, 60)), 3, (1, 20, 180, False)),
        (summed((144,), 16, (7, 90, 90)), 3, (1, 45, 1260, False)),
        (summed((64,), 64, (4096,)), 1, (0, 32, 128, False)),
        (summed((64,), 64, (1009,)), 1, (0, 7, 160, True)),
        (summed((64,), 64, (None,)), 1, (0, 8, None, True)),
        (summed((64,), 64, (None,)), 100, (0, 2, None, True)),
        (summed((64,), 64, (1024,)), 60, (0, 2, 512, False)),
        (summed((64,), 64, (None, 30, 30)), 1, (0, 32, None, True)),
        (summed((64,), 64, (255,)), 1, None),
        (summed((64,), 64, (4096,)), 129, None),
        (summed((64,), None, (4096,)), None, None),
        (summed((64,), 64, (4096,), (None,)), None, None),
    ],
)
def test_into_how_many_parts(problem, blocks, expected):
    found = share(problem, blocks)
    if expected is None:
        assert found is None
        return
    dim, parts, terms, ragged = expected
    assert (found.dim, found.parts, found.ragged) == (dim, parts, ragged)
    if terms is not None:
        others = [e.value for e in problem.k[: found.dim] + problem.k[found.dim + 1 :]]
        assert found.chunk.value * np.prod(others) == terms


def is_shared(device: Device, times: int) -> None:
    """Whether the kernels have as many workspaces, where their text can be seen."""
    if isinstance(device, ShimDevice):
        assert sum(text.count("partial,") > 0 for text in device.texts) >= times


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_the_gradient_of_a_filter(channels, known, device: Device):
    images = 6
    x = gc.placeholder(gc.float32, [images if known else None, 14, 14, channels])
    w = gc.Variable(whole(3, 3, channels, 18).astype(np.float32))
    y = gc.nn.conv2d(x, w, strides=[1, 1, 1, 1], padding="VALID")
    (grad,) = gc.gradients(gc.reduce_sum(y * y), [w])
    step = w.assign_sub(grad * 0.5)
    found = []
    for chosen in ("cpu", device):
        with gc.Session(device=chosen) as s:
            s.run(w.initializer)
            for count in (images, images) if known else (images, 1, 0, 5):
                value = np.arange(count * 196 * channels).reshape(count, 14, 14, channels) % 5 - 2
                found.append(s.run([grad, step], {x: value}))
                w.load(found[0][0] * 0 + 1, s)
    half = len(found) // 2
    for a, b in zip(found[:half], found[half:], strict=True):
        for one, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(one, other)
    is_shared(device, 1)


@pytest.mark.parametrize("dtype", [gc.float32, gc.bfloat16, gc.int8, gc.float64])
@pytest.mark.parametrize("depth", [512, 333, None])
def test_products_of_long_rows(dtype, depth, device: Device):
    """Of batches, with what is fused behind, turned and not, by tiles and by threads."""
    length, fetches, feeds, expected = depth or 300, [], {}, []
    for rows, columns, turned in ((20, 33, True), (20, 33, False), (3, 40, True)):
        a, b = whole(2, rows, length), whole(2, length, columns)
        if turned:
            a = a.swapaxes(1, 2).copy()
        sizes = [2, depth, rows] if turned else [2, rows, depth]
        x = gc.placeholder(dtype, sizes)
        y = gc.placeholder(dtype, [2, depth, columns])
        feeds |= {x: a.astype(dtype.as_numpy_dtype), y: b.astype(dtype.as_numpy_dtype)}
        wide = {"output_type": gc.int32} if dtype is gc.int8 else {}
        z = gc.matmul(x, y, transpose_a=turned, **wide)
        fetches += [z, gc.maximum(gc.cast(z, gc.float32) + 1.0, 0.0)]
        product = (a.swapaxes(1, 2) if turned else a) @ b
        expected += [product, np.maximum(product + 1, 0)]
    with gc.Session(device=device) as session:
        for found, wanted in zip(session.run(fetches, feeds), expected, strict=True):
            np.testing.assert_allclose(
                np.asarray(found, np.float64), wanted, rtol=8e-3 if dtype is gc.bfloat16 else 0
            )
    is_shared(device, 1)


def test_no_races_between_parts(device: Device):
    if not isinstance(device, ShimDevice):
        pytest.skip("the detector of races is the shim's")
    x, y = (gc.placeholder(gc.float32, [640, n]) for n in (20, 24))
    z = gc.matmul(x, y, transpose_a=True)
    a, b = whole(640, 20), whole(640, 24)
    with gc.Session(device=RaceDevice(both_orders=False)) as session:
        np.testing.assert_array_equal(session.run(z, {x: a, y: b}), a.T @ b)
