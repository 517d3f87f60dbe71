"""The loop IR's interpreter: what kernels mean, and what it reports."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import dtypes
from graphc.loop.interpret import KernelFault, RequireFailed, run_kernel
from graphc.loop.interpret_values import convert
from graphc.loop.parser import parse_kernel
from graphc.loop.verify import verify_kernel


def run(text: str, *arrays: np.ndarray, scalars=(), **chunk) -> None:
    run_kernel(verify_kernel(parse_kernel(text)), arrays, scalars, **chunk)


SOFTMAX = """\
kernel softmax(x: f32[n * 64], y: f32[n * 64]; n):
  for i in n:
    local m: f32[1]
    m[0] = -inf_f32
    for j in 64:
      m[0] max= x[i * 64 + j]
    local s: f32[1]
    s[0] = 0.0f32
    for j in 64:
      s[0] += exp(x[i * 64 + j] - m[0])
    for j in 64:
      y[i * 64 + j] = exp(x[i * 64 + j] - m[0]) / s[0]
"""


@pytest.mark.parametrize("rows", [0, 1, 3, 100])
def test_softmax(rows):
    x = np.random.default_rng(1).standard_normal((rows, 64)).astype(np.float32)
    y = np.zeros_like(x)
    run(SOFTMAX, x, y, scalars=[rows])
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=1e-5)


LANES = """\
kernel lanes(x: f32[n], y: f32[1]; n):
  local acc: f32[16]
  vectorized l in 16:
    acc[l] = 0.0f32
  for b in n // 16:
    vectorized l in 16:
      acc[l] += x[b * 16 + l]
  vectorized l in 16:
    local own: f32[1]
    own[0] = 0.0f32
    if n // 16 * 16 + l < n:
      own[0] += x[n // 16 * 16 + l]
    acc[l] += own[0]
  y[0] = 0.0f32
  vectorized l in 16:
    y[0] += acc[l]
"""


@pytest.mark.parametrize("n", [0, 1, 16, 131])
def test_lanes_masks_and_horizontal_reductions(n):
    x = np.arange(n, dtype=np.float32)
    y = np.zeros(1, np.float32)
    run(LANES, x, y, scalars=[n])
    assert y[0] == x.sum()


def test_threads_meet_at_barriers():
    text = """\
kernel turn(x: f32[256], y: f32[256]):
  block b in 2:
    shared t: f32[128]
    thread ty in 4:
      thread tx in 32:
        for round in 2:
          t[ty * 32 + tx] = x[b * 128 + ty * 32 + tx] + f32(round)
          barrier
          y[b * 128 + ty * 32 + tx] = t[127 - (ty * 32 + tx)]
          barrier
"""
    x = np.arange(256, dtype=np.float32)
    y = np.zeros_like(x)
    run(text, x, y)
    np.testing.assert_array_equal(y.reshape(2, 128)[:, ::-1], x.reshape(2, 128) + 1)


def test_a_piece_of_the_parallel_loop():
    y = np.zeros(10, np.int64)
    run("kernel k(y: i64[10]):\n  parallel i in 10:\n    y[i] = i\n", y, begin=3, end=5)
    assert y.tolist() == [0, 0, 0, 3, 4, 0, 0, 0, 0, 0]


def test_a_loop_that_carries_a_value_is_run_in_order():
    y = np.ones(10, np.int64)
    run("kernel k(y: i64[10]):\n  for i in 9:\n    y[i + 1] = y[i] * 2\n", y)
    assert y.tolist() == [2**i for i in range(10)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("for i in 8:\n    x[i] = 0.0f32", "index 4 out of bounds of x[4] in lane 4\n  in: x[i]"),
        ("x[0] = x[-1]", "index -1 out of bounds of x[4]"),
        ("local t: f32[2]\n  x[0] = t[1]", "t[1] is read before it is written"),
        ("vectorized l in 2:\n    local t: f32[1]\n    x[l] = t[0]", "is read before"),
        ("parallel i in 4:\n    x[i // 2] = f32(i)", "two iterations write element 0"),
        ("parallel i in 4:\n    x[0] = f32(i)", "store different values to x[0]"),
        ("parallel i in 4:\n    x[0] += 1.0f32", "parallel iterations reduce into x[0]"),
        ("vectorized l in 4:\n    x[l // 2] = 0.0f32", "two iterations write element 0"),
    ],
)
def test_faults_are_reported_with_the_statement(body, message):
    with pytest.raises(KernelFault) as caught:
        run(f"kernel k(x: f32[4]):\n  {body}\n", np.zeros(4, np.float32))
    assert message in str(caught.value)


def test_a_barrier_that_some_threads_do_not_reach_is_reported():
    text = "kernel k(x: f32[4]):\n  thread i in 4:\n    if i < 2:\n      barrier\n"
    with pytest.raises(KernelFault, match="a divergent barrier"):
        run_kernel(parse_kernel(text), [np.zeros(4, np.float32)])


def test_threads_combine_what_they_have():
    text = """\
kernel k(x: f32[2 * 8], y: f32[2 * 8]):
  block b in 1:
    thread r in 2:
      thread i in 8:
        local t: f32[1]
        t[0] = x[r * 8 + i]
        allreduce max t[0]
        y[r * 8 + i] = t[0]
"""
    x, y = np.arange(16, dtype=np.float32), np.zeros(16, np.float32)
    run(text, x, y)
    assert y.tolist() == [7] * 8 + [15] * 8


def test_guards_hide_what_is_out_of_bounds():
    text = "kernel k(x: f32[4], y: f32[9]):\n  for i in 9:\n    y[i] = guard(i < 4, x[i], 7.0f32)\n"
    y = np.zeros(9, np.float32)
    run(text, np.arange(4, dtype=np.float32), y)
    assert y.tolist() == [0, 1, 2, 3, 7, 7, 7, 7, 7]


def test_a_requirement_that_fails_says_where():
    text = """\
kernel k(x: i64[9], y: i64[9]):
  for i in 9:
    y[i] = guard(i > 1, require#5(x[i] < 3, x[i], x[i], i), 0)
"""
    with pytest.raises(RequireFailed) as caught:
        run(text, np.array([9, 9, 2, 1, 4, 5, 0, 0, 0]), np.zeros(9, np.int64))
    assert (caught.value.site, caught.value.details) == (5, (4, 4))


def test_arrays_must_fit_the_parameters():
    text = "kernel k(x: f32[n]; n):\n  pass\n"
    with pytest.raises(ValueError, match=r"x is f32\[3\], got float32\[4\]"):
        run(text, np.zeros(4, np.float32), scalars=[3])
    with pytest.raises(ValueError, match="takes 1 arrays and 1 scalars"):
        run(text, scalars=[3])
    with pytest.raises(ValueError, match="not contiguous"):
        run(text, np.zeros(8, np.float32)[::2], scalars=[4])


@pytest.mark.parametrize(
    ("source", "target", "values", "expected"),
    [
        ("float32", "int32", [1.9, -1.9, np.nan, 1e20, -np.inf], [1, -1, 0, 2**31 - 1, -(2**31)]),
        ("float64", "int64", [2.0**63, -(2.0**63), 1e300], [2**63 - 1, -(2**63), 2**63 - 1]),
        ("float32", "uint8", [-1, 255, 256, 300], [0, 255, 255, 255]),
        ("int64", "int8", [127, 128, -129], [127, -128, 127]),
        ("float32", "bool", [0, -0.0, np.nan, 0.1], [False, False, True, True]),
        ("float64", "float32", [0.1, 1e300], [np.float32(0.1), np.inf]),
    ],
)
def test_casts_saturate_wrap_and_round(source, target, values, expected):
    a, b = dtypes.as_dtype(source), dtypes.as_dtype(target)
    with np.errstate(all="ignore"):
        found = convert(np.array(values, a.numpy), a, b)
    assert found.dtype == b.numpy
    assert found.tolist() == np.array(expected, b.numpy).tolist()
