"""Attention on tensor cores, interpreted."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.dtypes import bfloat16, float16, float32
from graphc.kernels.attention import Attention
from graphc.kernels.grid_attention_tensor import attention_tensor_grid
from graphc.loop import ir
from graphc.loop.gpu import GpuTarget
from graphc.loop.interpret import run_kernel
from graphc.loop.ir import Buffer, Load, Scope, Var, WarpProduct, cast, const, walk_stmt
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import format_kernel
from graphc.loop.verify import verify_kernel

RNG = np.random.default_rng(5)


def problem(dtype, queries, keys, depth, width):
    """Attention of buffers q, k (by rows), v, with a bias for every score."""
    sizes = {"q": queries * depth, "k": keys * depth, "v": keys * width, "out": queries * width}
    q, k, v, out = (Buffer(n, dtype, const(s), Scope.GLOBAL) for n, s in sizes.items())
    bias = Buffer("bias", float32, const(queries * keys), Scope.GLOBAL)
    made = Attention(
        batch=(), queries=const(queries), keys=const(keys), depth=const(depth),
        width=const(width), read=dtype, out=out,
        query=lambda _, i, d: Load(q, i * depth + d), key=lambda _, d, j: Load(k, j * depth + d),
        value=lambda _, j, n: Load(v, j * width + n),
        score=lambda _, i, j, s: ir.add(ir.mul(s, ir.const(0.25, float32)),
                                        cast(Load(bias, i * keys + j), float32)),
        place=lambda _, i, n: ir.add(ir.mul(i, width), n),
    )  # fmt: skip
    return made, (q, k, v, bias, out)


@pytest.mark.parametrize(
    ("dtype", "sizes", "rounded"),
    [(float16, (40, 70, 16, 8), 2.0**-11), (bfloat16, (17, 33, 20, 9), 2.0**-8)],
)
def test_attention(dtype, sizes, rounded):
    queries, keys, depth, width = sizes
    made, params = problem(dtype, *sizes)
    kernel = attention_tensor_grid("attention", params, (), made, GpuTarget())
    assert kernel is not None
    kernel = verify_kernel(kernel)
    assert len([s for s in walk_stmt(kernel.body) if isinstance(s, WarpProduct)]) == 2
    text = format_kernel(kernel)
    assert format_kernel(verify_kernel(parse_kernel(text))) == text
    shapes = ((queries, depth), (keys, depth), (keys, width))
    q, k, v = (RNG.standard_normal(s).astype(dtype.numpy) for s in shapes)
    bias = np.where(np.arange(keys) <= 2 * np.arange(queries)[:, None], 0, -np.inf)
    found = np.zeros((queries, width), dtype.numpy)
    run_kernel(kernel, [q, k, v, bias.astype(np.float32), found])
    a, b, c = (x.astype(np.float64) for x in (q, k, v))
    weights = np.exp(a @ b.T / 4 + bias)
    weights /= weights.sum(1, keepdims=True)
    expected, size = weights @ c, weights @ np.abs(c)
    # Every weight is rounded once, their sum with them, and the result.
    allowed = rounded * (size + 2 * np.abs(expected)) + 1e-5
    assert (np.abs(found.astype(np.float64) - expected) <= allowed).all()


@pytest.mark.parametrize(
    ("dtype", "sizes", "arch"),
    [
        (float16, (64, 64, 257, 8), "sm_90"), (float16, (64, 64, 8, 257), "sm_90"),
        (float32, (64, 64, 8, 8), "sm_90"), (bfloat16, (64, 64, 8, 8), "sm_75"),
    ],
)  # fmt: skip
def test_what_is_not_for_tensor_cores(dtype, sizes, arch):
    made, params = problem(dtype, *sizes)
    assert attention_tensor_grid("attention", params, (), made, GpuTarget(arch=arch)) is None


@pytest.mark.parametrize("width", [1, 16, 64, 100, 129, 160, 192, 200, 256])
def test_every_width_fits_shared_memory(width):
    for depth in (1, width, 256):
        made, params = problem(bfloat16, 64, 128, depth, width)
        kernel = attention_tensor_grid("attention", params, (), made, GpuTarget())
        assert kernel is not None
        verify_kernel(kernel)


def test_the_number_of_keys_may_be_a_scalar():
    size = Var("t")
    made, params = problem(bfloat16, 16, 40, 16, 16)
    made = Attention(**{**made.__dict__, "keys": size})
    kernel = verify_kernel(
        attention_tensor_grid("attention", params, (size,), made, GpuTarget())
    )
    q, k, v = (RNG.standard_normal((n, 16)).astype(bfloat16.numpy) for n in (16, 40, 40))
    bias = np.zeros((16, 40), np.float32)
    for keys in (33, 0):
        found = np.ones((16, 16), bfloat16.numpy)
        run_kernel(kernel, [q, k, v, bias, found], [keys])
        a, b, c = (x.astype(np.float64) for x in (q, k[:keys], v[:keys]))
        weights = np.exp(a @ b.T / 4)
        expected = weights @ c / np.maximum(weights.sum(1, keepdims=True), 1e-30)
        assert np.abs(found.astype(np.float64) - expected).max() < 2e-2
