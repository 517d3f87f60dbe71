"""Threefry against its published vectors, and the distributions made of its bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from graphc.dtypes import DType, float32, float64, uint32
from graphc.loop.interpret import run_kernel
from graphc.loop.ir import (
    Buffer,
    Const,
    Expr,
    For,
    Kernel,
    Load,
    LoopKind,
    Store,
    Var,
    block,
    walk_expr,
)
from graphc.loop.scalar_math_random import (
    normal_f32,
    normal_f64,
    threefry2x32,
    uniform_f32,
    uniform_f64,
)

Array = np.ndarray[Any, Any]


def run(build: Any, out: DType, *inputs: Array) -> list[Array]:
    """The expressions that ``build`` makes of the uint32 inputs, interpreted."""
    n, i = Var("n"), Var("i")
    params = [Buffer(f"x{k}", uint32, n) for k in range(len(inputs))]
    built = build(*(Load(p, i) for p in params))
    values: tuple[Expr, ...] = built if isinstance(built, tuple) else (built,)
    outs = [Buffer(f"y{k}", out, n) for k in range(len(values))]
    stores = block(*(Store(o, i, v) for o, v in zip(outs, values, strict=True)))
    kernel = Kernel("k", (*params, *outs), (n,), block(For(i, n, LoopKind.SERIAL, stores)))
    results = [np.zeros(len(inputs[0]), out.numpy) for _ in outs]
    run_kernel(kernel, [*inputs, *results], [len(inputs[0])])
    return results


def words(*values: int) -> Array:
    return np.array(values, np.uint32)


def bits(count: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 2**32, count, np.uint32)


# The known-answer vectors of the Random123 distribution: key, counter, result, with 20 rounds.
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "result"), KNOWN)
def test_threefry_known_answers(key: Any, counter: Any, result: Any) -> None:
    inputs = [words(v) for v in (*key, *counter)]
    assert [int(v[0]) for v in run(threefry2x32, uint32, *inputs)] == list(result)


def test_threefry_of_constant_keys_and_one_evaluation_for_both_words() -> None:
    key = [Const(v, uint32) for v in (1, 2)]
    counter = [Var("a", uint32), Var("b", uint32)]
    first, second = threefry2x32(*key, *counter)
    alone = len(list(walk_expr(second)))
    assert len(list(walk_expr(first, second))) <= alone + 2


def test_uniform_f32_bounds_and_steps() -> None:
    (u,) = run(uniform_f32, float32, words(0, 255, 256, 0x80000000, 0xFFFFFFFF))
    assert u.tolist() == [0.0, 0.0, 2.0**-24, 0.5, 1 - 2.0**-24]


def test_uniform_f64_bounds_and_steps() -> None:
    high, low = words(0, 0, 0, 32, 0xFFFFFFFF), words(0, 63, 64, 0, 0xFFFFFFFF)
    (u,) = run(uniform_f64, float64, high, low)
    assert u.tolist() == [0.0, 0.0, 2.0**-53, 2.0**-27, 1 - 2.0**-53]


def box_muller(u: Array, turn: Array) -> tuple[Array, Array]:
    radius = np.sqrt(-2 * np.log(u))
    return radius * np.cos(2 * math.pi * turn), radius * np.sin(2 * math.pi * turn)


def test_normal_f32_is_box_muller() -> None:
    b0, b1 = bits(20000, 1), bits(20000, 2)
    b0[:4], b1[:8] = words(0, 1, 0xFFFFFFFF, 0x80000000), np.arange(8, dtype=np.uint32) << 29
    got = run(normal_f32, float32, b0, b1)
    u = ((b0.astype(np.float64) + 0.5) / 2**32).astype(np.float32).astype(np.float64)
    for y, exact in zip(got, box_muller(u, b1 / 2**32), strict=True):
        assert np.isfinite(y).all()
        # Next to an axis the other coordinate is 0 or as good as 0.
        np.testing.assert_allclose(y, exact, rtol=6e-7, atol=1e-15)
    assert max(np.abs(got[0]).max(), np.abs(got[1]).max()) > 6.6  # b0 = 0


def test_normal_f64_is_box_muller() -> None:
    words4 = [bits(20000, seed) for seed in range(4)]
    words4[0][:2], words4[1][:2] = words(0, 0xFFFFFFFF), words(0, 0xFFFFFFFF)
    got = run(normal_f64, float64, *words4)
    u = ((words4[0] >> 5) * 2.0**26 + (words4[1] >> 6)) * 2.0**-53 + 2.0**-54
    turn = (words4[2] + (words4[3] >> 8) * 2.0**-24) * 2.0**-32
    for y, exact in zip(got, box_muller(u, turn), strict=True):
        assert np.isfinite(y).all()
        np.testing.assert_allclose(y, exact, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "dtype", "count"), [(normal_f32, float32, 2), (normal_f64, float64, 4)]
)
def test_normal_moments(make: Any, dtype: DType, count: int) -> None:
    size = 100_000
    counter = np.arange(size, dtype=np.uint32)
    zeros = np.zeros(size, np.uint32)
    stream = run(threefry2x32, uint32, zeros + 7, zeros, counter, zeros)
    stream += run(threefry2x32, uint32, zeros + 7, zeros, counter, zeros + 1)
    x, y = (v.astype(np.float64) for v in run(make, dtype, *stream[:count]))
    for z in (x, y):
        assert abs(z.mean()) < 4 / math.sqrt(size)
        assert abs(z.var() - 1) < 4 * math.sqrt(2 / size)
        assert abs((z**3).mean()) < 4 * math.sqrt(15 / size)
        assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / size)
    assert abs((x * y).mean()) < 4 / math.sqrt(size)
