"""``pack2`` and ``dot2``: text, rules, the interpreter, and machine code of every target."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphc.codegen import llvm
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import format_kernel
from graphc.loop.verify import verify_kernel
from graphc.runtime.jit import emit_assembly, named_target
from tests.codegen.word_kernels import (
    PLACE,
    Case,
    check_interpreted,
    check_machine_code,
    check_refused,
)

TARGETS = ("generic", "avx2", "avx512", "avx512vnni", "avx512bf16")
WIDTHS = (1, 2, 3, 4, 7, 8, 16, 20, 32, 48)
BF16 = ml_dtypes.bfloat16
ROUND_TRIP = """\
kernel pairs(x: bf16[2 * n], y: bf16[2 * n], out: f32[n]; n):
  for i in n:
    let pair: f32 = pack2(y[i * 2], y[i * 2 + 1])
    out[i] = dot2(pack2(x[i * 2], x[i * 2 + 1]), pair, out[i])
"""


def kernel_text(width: int) -> str:
    """Pairs by vectors, the last of them masked; a pair for all lanes; elements far apart."""
    return f"""\
kernel pairs{width}(x: bf16[100], y: bf16[100], near: f32[50], all: f32[50], far: f32[50]; z):
  for v in {-(-50 // width)}:
    vectorized l in {width}:
      if v * {width} + l < 50:
        let i = v * {width} + l
        let b: f32 = pack2(y[i * 2], y[i * 2 + 1])
        near[i] = dot2(pack2(x[i * 2], x[i * 2 + 1]), b, near[i])
        far[i] = dot2(pack2(x[i], x[i + 50]), b, 1.5f32)
  for v in {50 // width}:
    vectorized l in {width}:
      let i = v * {width} + l
      let a: f32 = pack2(x[z * 2], x[z * 2 + 1])
      all[i] = dot2(a, pack2(y[i * 2], y[i * 2 + 1]), all[i])
"""


def dot(c: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Two fused multiply-adds, the high halves first."""
    products = a.astype(np.float64) * b.astype(np.float64)
    first = (c + products[..., 1]).astype(np.float32)
    return (first + products[..., 0]).astype(np.float32)


def expected(width: int, arrays: list[np.ndarray], z: int) -> list[np.ndarray]:
    x, y, near, all_ = arrays[:4]
    pairs = y.reshape(50, 2)
    everywhere = dot(all_, x[2 * z : 2 * z + 2][None], pairs)
    done = np.arange(50) < 50 // width * width
    return [dot(near, x.reshape(50, 2), pairs), np.where(done, everywhere, all_),
            dot(np.float64(1.5), x.reshape(2, 50).T, pairs)]  # fmt: skip


def operands(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = (rng.standard_normal(100) * 2.0 ** rng.integers(-9, 9, 100) for _ in range(2))
    return [x.astype(BF16), y.astype(BF16), *rng.standard_normal((3, 50)).astype(np.float32)]


def case(width: int) -> Case:
    arrays = operands(width)
    return arrays, expected(width, arrays, PLACE)


@pytest.mark.parametrize("target", TARGETS)
def test_machine_code(target: str) -> None:
    check_machine_code(target, {kernel_text(w): case(w) for w in WIDTHS})


@pytest.mark.parametrize("width", WIDTHS)
def test_interpreted(width: int) -> None:
    check_interpreted(kernel_text(width), case(width))


def test_a_pair_is_one_load_and_a_product_one_instruction() -> None:
    text = """\
kernel k(x: bf16[64], y: bf16[64], out: f32[16]; n):
  vectorized l in 16:
    out[l] = dot2(pack2(x[n], x[n + 1]), pack2(y[l * 2], y[l * 2 + 1]), out[l])
"""
    cpu = named_target("avx512bf16")
    printed = llvm.print_kernel(verify_kernel(parse_kernel(text)), cpu)
    assembly = emit_assembly(printed, cpu, comments=False).split("k:", 1)[1]
    words = [line.split()[0] for line in assembly.splitlines() if line.startswith("\t")]
    instructions = [w for w in words if w.startswith("v") and w != "vzeroupper"]
    assert len(instructions) <= 4
    assert instructions.count("vdpbf16ps") == 1


def test_printed_and_read_back() -> None:
    assert format_kernel(verify_kernel(parse_kernel(ROUND_TRIP))) == ROUND_TRIP


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("pack2(y[0])", "pack2 takes 2 arguments, got 1"),
        ("pack2(y[0], out[0])", "one dtype, got bf16, f32"),
        ("pack2(out[0], out[0])", "pack2 is of bf16, not of f32"),
        ("dot2(y[0], y[0], y[0])", "dot2 is of f32, not of bf16"),
    ],
)
def test_rules(value: str, message: str) -> None:
    check_refused(ROUND_TRIP, value, message)
