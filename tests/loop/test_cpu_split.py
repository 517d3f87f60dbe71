"""Loops cut where tests of their position change their answers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import graphc as gc
from graphc.dtypes import float32
from graphc.loop import ir
from graphc.loop.cpu import schedule_cpu
from graphc.loop.cpu_split import split_at_tests
from graphc.loop.interpret import run_kernel
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import format_kernel
from graphc.loop.verify import verify_kernel

AVX2 = SimpleNamespace(vector_bytes=32, has_avx512=False, has_fma=True)

JOINED = """\
kernel joined(a: f32[4096], b: f32[8192], y: f32[12288]):
  for i in 32:
    for j in 384:
      y[i * 384 + j] = guard(j < 128, a[i * 128 + j], b[i * 256 + (j - 128)])
"""


def lines(text: str, target=AVX2) -> list[str]:
    kernel = verify_kernel(schedule_cpu(verify_kernel(parse_kernel(text)), target))
    return [line.strip() for line in format_kernel(kernel).splitlines()]


def same(text: str, *arrays: np.ndarray) -> str:
    """The text of the kernel after the cuts, which must compute what it did before."""
    kernel = verify_kernel(parse_kernel(text))
    cut = verify_kernel(split_at_tests(kernel))
    wanted, found = [a.copy() for a in arrays], [a.copy() for a in arrays]
    run_kernel(kernel, wanted, [])
    run_kernel(cut, found, [])
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(b, a)
    return format_kernel(cut)


def test_what_is_joined_is_copied_part_by_part():
    printed = lines(JOINED)
    assert not [line for line in printed if "guard" in line]
    assert sum(" = a[" in line for line in printed) == 1
    assert sum(" = b[" in line for line in printed) == 1


def test_a_vector_across_the_seam_keeps_its_tests():
    printed = lines(JOINED.replace("128", "100").replace("4096", "3200").replace("256", "284"))
    assert sum("guard" in line for line in printed) == 1
    assert sum(" = a[" in line and "guard" not in line for line in printed) == 1
    assert sum(" = b[" in line and "guard" not in line for line in printed) == 1


@pytest.mark.parametrize("test", ["lt", "le", "gt", "ge"])
@pytest.mark.parametrize("slope", [-3, -1, 1, 2])
@pytest.mark.parametrize("limit", [-40, -1, 0, 1, 7, 8, 9, 23, 24, 25, 60])
def test_every_comparison_is_answered_rightly(test, slope, limit):
    sign = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}[test]
    text = (
        "kernel k(x: f32[32], y: f32[32]):\n"
        "  for i in 8:\n"
        "    vectorized l in 4:\n"
        f"      y[i * 4 + l] = guard(i * {4 * slope} + l * {slope} {sign} {limit}, "
        "x[i * 4 + l], 5.0f32)\n"
    )
    same(text, np.arange(32, dtype=np.float32), np.zeros(32, np.float32))


def test_conditions_of_statements_and_sums_keep_their_order():
    x = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    text = (
        "kernel k(x: f32[100], y: f32[2]):\n"
        "  for i in 100:\n"
        "    if i < 30:\n"
        "      y[0] += x[i] * 1.5f32\n"
        "    else:\n"
        "      y[1] += x[i] * 0.1f32\n"
    )
    printed = same(text, x, np.zeros(2, np.float32))
    assert "if" not in printed
    assert printed.count("for i") == 2


def test_a_position_that_is_always_inside_is_not_tested():
    text = (
        "kernel k(x: f32[64], y: f32[64]):\n"
        "  vectorized l in 64:\n"
        "    y[l] = guard(l >= 0 and l < 64, x[l], 0.0f32)\n"
    )
    assert "guard" not in same(text, np.arange(64, dtype=np.float32), np.zeros(64, np.float32))


@pytest.mark.parametrize(
    "cond", ["i < n", "i * i < 9", "k[i] < 3", "i + k[0] < 9", "i % 4 < 2", "i == 3"]
)
def test_what_is_not_known_stays(cond):
    text = (
        "kernel k(k: i64[8], x: f32[8], y: f32[8]; n):\n"
        "  for i in 8:\n"
        f"    y[i] = guard({cond}, x[i], 0.0f32)\n"
    )
    kernel = parse_kernel(text)
    assert format_kernel(split_at_tests(kernel)) == format_kernel(kernel)


@pytest.mark.parametrize(
    "cond",
    [
        "i * 4611686018427387904 < 5", "i + 9223372036854775803 < 0",
        "i + 9223372036854775803 < 9223372036854775805", "i - 9223372036854775807 < i * 3",
        "i > -9223372036854775808", "i - 9223372036854775807 < 9223372036854775807",
    ],
)  # fmt: skip
def test_numbers_that_wrap_around_are_compared_as_they_are(cond):
    text = (
        "kernel k(x: f32[32], y: f32[32]):\n"
        "  for i in 32:\n"
        f"    y[i] = guard({cond}, x[i], -1.0f32)\n"
    )
    same(text, np.arange(32, dtype=np.float32), np.zeros(32, np.float32))


@pytest.mark.parametrize("limit", [-(2**63), 2**63 - 1])
def test_values_at_the_limits_of_int64_are_compared(limit):
    x = gc.placeholder(gc.float32, [2, 8200])
    i = gc.range(8200, dtype=gc.int64)
    y = gc.where((i > gc.constant(limit, gc.int64)) & (x > -5.0), x, -x)
    z = gc.where((i - gc.constant(limit + (limit < 0), gc.int64) < limit) & (x > -5.0), x, -x)
    value = np.random.default_rng(0).standard_normal((2, 8200)).astype(np.float32)
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        found, wanted = s.run([y, z], {x: value}), reference.run([y, z], {x: value})
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_variable_of_two_loops_has_the_larger_extent():
    x, y = (ir.Buffer(name, float32, ir.const(32)) for name in "xy")
    i, j = ir.Var("i"), ir.Var("j")
    chosen = ir.Guard(j < 6, ir.Load(x, j), ir.const(7.0, float32))
    stores = [
        ir.For(j, ir.const(n), ir.LoopKind.VECTORIZED, ir.block(ir.Store(y, j + start, chosen)))
        for n, start in ((8, 0), (4, 8))
    ]
    body = ir.block(ir.For(i, ir.const(2), ir.LoopKind.SERIAL, ir.block(*stores)))
    cut = verify_kernel(split_at_tests(verify_kernel(ir.Kernel("k", (x, y), (), body))))
    assert format_kernel(cut).count("guard") == 2


def test_many_seams_and_much_work_are_not_copied():
    def text(seams: int, value: str) -> str:
        for k in range(seams):
            value = f"guard(i < {10 * k + 5}, x[i], {value})"
        return f"kernel k(x: f32[100], y: f32[100]):\n  for i in 100:\n    y[i] = {value}\n"

    arrays = (np.arange(100, dtype=np.float32), np.zeros(100, np.float32))
    assert same(text(3, "0.0f32"), *arrays).count("for i") == 4
    assert same(text(9, "0.0f32"), *arrays).count("for i") == 1
    long = " + ".join(["exp(x[i])"] * 40)
    assert same(text(3, long), *arrays).count("for i") == 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "bool"])
def test_joined_and_padded_tensors(dtype):
    rng = np.random.default_rng(0)
    parts = [(rng.random((9, n)) * 2).astype(dtype) for n in (64, 28, 1, 0, 70)]
    joined = gc.concat([gc.constant(p) for p in parts], 1)
    padded = gc.pad(gc.cast(joined, gc.float32), [[1, 2], [3, 40]], constant_values=2.5)
    with gc.Session() as s:
        found = s.run([joined, padded])
    wanted = np.concatenate(parts, 1)
    np.testing.assert_array_equal(found[0], wanted)
    np.testing.assert_array_equal(
        found[1], np.pad(wanted.astype(np.float32), [(1, 2), (3, 40)], constant_values=2.5)
    )


# --- rests of elements without masks --------------------------------------------------------------

BYTES = """\
kernel bytes(x: u8[n * 3], y: u8[n]; n):
  for i in n:
    y[i] = max(max(x[i], x[i + n]), x[i + n * 2])
"""


@pytest.mark.parametrize(
    ("target", "type_name", "masked"),
    [
        (AVX2, "u8", False), (AVX2, "f16", False), (AVX2, "f32", True), (AVX2, "f64", True),
        (SimpleNamespace(vector_bytes=16, has_avx512=False, has_fma=False), "f32", False),
        (SimpleNamespace(vector_bytes=64, has_avx512=True, has_fma=True), "u8", True),
    ],
)  # fmt: skip
def test_a_rest_is_masked_where_masks_are_cheap(target, type_name, masked):
    printed = lines(BYTES.replace("u8", type_name), target)
    assert any(line.startswith("if l <") for line in printed) == masked
    # Whole vectors, one register at a time, one by one.
    assert sum(line.startswith("vectorized") for line in printed) == 2
    assert any(line.startswith("for ir in") for line in printed) != masked


def test_what_does_not_move_needs_no_mask():
    text = (
        "kernel k(x: f32[n], f: u8[1], y: f32[n]; n):\n"
        "  for i in n:\n"
        "    y[i] = x[i] * f32(f[0])\n"
    )
    assert any(line.startswith("if l <") for line in lines(text))


@pytest.mark.parametrize(
    ("size", "widths"),
    [(28, [16, 8, 4]), (3, [2, 1]), (32, [32]), (100, [32, 4]), (530, [64, 16, 2]), (1, [])],
)
def test_a_known_rest_without_masks_is_done_by_smaller_vectors(size, widths):
    text = BYTES.replace("; n", "").replace("[n]", f"[{size}]").replace("in n", f"in {size}")
    text = text.replace("[n * 3]", f"[{3 * size}]").replace("i + n * 2", f"i + {2 * size}")
    text = text.replace("i + n]", f"i + {size}]")
    printed = lines(text)
    found = [int(s.split()[-1][:-1]) for s in printed if s.startswith("vectorized")]
    assert found == widths
    assert not [line for line in printed if line.startswith("if ")]
    kernel = parse_kernel(text)
    x = np.random.default_rng(0).integers(0, 256, 3 * size, np.uint8)
    y = np.zeros(size, np.uint8)
    run_kernel(schedule_cpu(kernel, AVX2), [x, y], [])
    np.testing.assert_array_equal(y, x.reshape(3, size).max(0))
