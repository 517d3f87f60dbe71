"""The gradient of attention on tensor cores, interpreted."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.dtypes import bfloat16, float16, float32
from graphc.kernels.attention_gradient_problem import AttentionGradient
from graphc.kernels.grid_attention_gradient_tensor import attention_gradient_tensor_grid
from graphc.loop import ir
from graphc.loop.gpu import GpuTarget
from graphc.loop.interpret import run_kernel
from graphc.loop.ir import Buffer, Load, Scope, WarpProduct, const, walk_stmt
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import format_kernel
from graphc.loop.verify import verify_kernel

RNG = np.random.default_rng(5)
SCALE = 0.25


def problem(dtype, queries, keys, depth, width, parts=1, least=64):
    """The gradient over buffers, a bias for every score, and the buffers."""
    q, k, v, g, for_q, for_k, for_v = (
        Buffer(name, dtype, const(size), Scope.GLOBAL)
        for name, size in (
            ("q", queries * depth), ("k", keys * depth), ("v", keys * width),
            ("g", queries * width), ("for_q", parts * queries * depth), ("for_k", keys * depth),
            ("for_v", keys * width),
        )
    )  # fmt: skip
    bias, statistics = (
        Buffer(name, float32, const(size), Scope.GLOBAL)
        for name, size in (("bias", queries * keys), ("statistics", 3 * queries))
    )

    def row(columns):
        return lambda _, i, at: ir.add(ir.mul(i, columns), at)

    made = AttentionGradient(
        batch=(), queries=const(queries), keys=const(keys), depth=const(depth),
        width=const(width), parts=parts, least=least,
        query=lambda b, i, d: Load(q, row(depth)(b, i, d)),
        key=lambda b, j, d: Load(k, row(depth)(b, j, d)),
        value=lambda b, j, n: Load(v, row(width)(b, j, n)),
        grad=lambda b, i, n: Load(g, row(width)(b, i, n)),
        score=lambda b, i, j, s: ir.add(ir.mul(s, ir.const(SCALE, float32)),
                                        Load(bias, row(keys)(b, i, j))),
        statistics=lambda b, i: tuple(Load(statistics, row(3)(b, i, const(n))) for n in range(3)),
        scale=SCALE, outs=(for_q, for_k, for_v),
        for_query=lambda p, _, i, d: ir.add(ir.mul(ir.add(ir.mul(p, queries), i), depth), d),
        for_key=row(depth), for_value=row(width),
    )  # fmt: skip
    return made, (q, k, v, g, bias, statistics, for_q, for_k, for_v)


def products(kernel):
    """The products of warps in each launch."""
    return [
        sum(isinstance(s, WarpProduct) for s in walk_stmt(launch))
        for launch in kernel.body.stmts
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "sizes", "parts", "rounded"),
    [(float16, (40, 70, 16, 8), 1, 2.0**-11), (bfloat16, (17, 39, 20, 9), 3, 2.0**-8)],
)
def test_gradients(dtype, sizes, parts, rounded):
    queries, keys, depth, width = sizes
    made, params = problem(dtype, *sizes, parts, least=10)
    kernel = attention_gradient_tensor_grid("gradient", params, (), made, GpuTarget())
    assert kernel is not None
    kernel = verify_kernel(kernel)
    assert products(kernel) == [3, 4]
    text = format_kernel(kernel)
    assert format_kernel(verify_kernel(parse_kernel(text))) == text
    shapes = (queries, depth), (keys, depth), (keys, width), (queries, width)
    arrays = [RNG.standard_normal(s).astype(dtype.numpy) for s in shapes]
    q, k, v, g = (a.astype(np.float64) for a in arrays)
    bias = np.where(np.arange(keys) <= 2 * np.arange(queries)[:, None], 0, -np.inf)
    scores = q @ k.T * SCALE + bias
    largest = scores.max(1, keepdims=True)
    total = np.exp(scores - largest).sum(1, keepdims=True)
    weights = np.exp(scores - largest) / total
    inner = g @ v.T
    mean = (weights * inner).sum(1, keepdims=True)
    slopes = SCALE * weights * (inner - mean)
    statistics = np.concatenate([largest, np.log(total), mean], 1).astype(np.float32)
    found = [np.zeros((parts, *shapes[0]), dtype.numpy),
             *(np.zeros(s, dtype.numpy) for s in shapes[1:3])]  # fmt: skip
    run_kernel(kernel, [*arrays, bias.astype(np.float32), statistics, *found])
    wide = [a.astype(np.float64) for a in found]
    wide[0] = wide[0].sum(0)
    wanted = slopes @ k, slopes.T @ q, weights.T @ g
    sizes_of = np.abs(slopes) @ np.abs(k), np.abs(slopes.T) @ np.abs(q), weights.T @ np.abs(g)
    for a, b, size in zip(wide, wanted, sizes_of, strict=True):
        # What is multiplied is rounded once, and so is every part of a result.
        assert (np.abs(a - b) <= 2 * rounded * size + 1e-5).all()


@pytest.mark.parametrize(
    ("dtype", "sizes", "arch"),
    [
        (float16, (64, 64, 257, 8), "sm_90"), (float32, (64, 64, 8, 8), "sm_90"),
        (bfloat16, (64, 64, 8, 8), "sm_75"),
    ],
)  # fmt: skip
def test_what_is_not_for_tensor_cores(dtype, sizes, arch):
    made, params = problem(dtype, *sizes)
    target = GpuTarget(arch=arch)
    assert attention_gradient_tensor_grid("gradient", params, (), made, target) is None


@pytest.mark.parametrize("width", [1, 16, 64, 80, 96, 112, 127, 128])
def test_every_width_has_registers_and_shared_memory(width):
    for depth in (1, 64, width, 128):
        made, params = problem(bfloat16, 64, 128, depth, width)
        kernel = attention_gradient_tensor_grid("gradient", params, (), made, GpuTarget())
        assert kernel is not None
        verify_kernel(kernel)
        # Keys and values together, or launches of their own.
        assert products(kernel) == ([3, 4] if depth + width <= 160 else [3, 3, 2])
