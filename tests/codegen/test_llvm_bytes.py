"""``pack4`` and ``dp4a``: text, rules, the interpreter, and machine code of every target."""

from __future__ import annotations

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

TARGETS = ("generic", "avx2", "avx512", "avx512vnni")
WIDTHS = (1, 2, 3, 4, 7, 8, 16, 20, 32, 48)
ROUND_TRIP = """\
kernel words(x: u8[4 * n], y: i8[4 * n], out: i32[n]; n):
  for i in n:
    let word: i32 = pack4(y[i * 4], y[i * 4 + 1], y[i * 4 + 2], y[i * 4 + 3])
    out[i] = dp4a(pack4(x[i * 4], x[i * 4 + 1], x[i * 4 + 2], x[i * 4 + 3]), word, out[i])
"""


def kernel_text(width: int) -> str:
    """Words by vectors, the last of them masked; a word for all lanes; bytes far apart."""
    loop = f"for v in {-(-50 // width)}:\n    vectorized l in {width}:"
    return f"""\
kernel bytes{width}(x: u8[200], y: i8[200], near: i32[50], all: i32[50], far: i32[50]; z):
  {loop}
      if v * {width} + l < 50:
        let i = v * {width} + l
        let a: i32 = pack4(x[i * 4], x[i * 4 + 1], x[i * 4 + 2], x[i * 4 + 3])
        let b: i32 = pack4(y[i * 4], y[i * 4 + 1], y[i * 4 + 2], y[i * 4 + 3])
        near[i] = dp4a(a, b, near[i])
        far[i] = dp4a(pack4(x[i], x[i + 50], x[i + 100], x[i + 150]), b, 2147483647i32)
  for v in {50 // width}:
    vectorized l in {width}:
      let i = v * {width} + l
      let a: i32 = pack4(x[z * 4], x[z * 4 + 1], x[z * 4 + 2], x[z * 4 + 3])
      let b: i32 = pack4(y[i * 4], y[i * 4 + 1], y[i * 4 + 2], y[i * 4 + 3])
      all[i] = dp4a(a, b, all[i])
"""


def expected(width: int, arrays: list[np.ndarray], z: int) -> list[np.ndarray]:
    x, y, near, all_ = (a.astype(np.int64) for a in arrays[:4])
    words = y.reshape(50, 4)
    results = [
        near + (x.reshape(50, 4) * words).sum(1),
        all_ + np.where(np.arange(50) < 50 // width * width, words @ x[4 * z : 4 * z + 4], 0),
        (2**31 - 1) + (x.reshape(4, 50).T * words).sum(1),
    ]
    return [r.astype(np.int32) for r in results]


def operands(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(t.min, t.max, 200, t.dtype, endpoint=True)
            for t in (np.iinfo(np.uint8), np.iinfo(np.int8)))  # fmt: skip
    # Sums of two products that 16 bits do not hold.
    x[:8], y[:8] = 255, [127] * 4 + [-128] * 4
    limits = np.iinfo(np.int32)
    outs = [rng.integers(limits.min, limits.max, 50, np.int32) for _ in range(3)]
    return [x, y, *outs]


def case(width: int) -> Case:
    arrays = operands(width)
    return arrays, expected(width, arrays, PLACE)


@pytest.mark.parametrize("target", TARGETS)
def test_machine_code(target: str) -> None:
    check_machine_code(target, {kernel_text(w): case(w) for w in WIDTHS})


@pytest.mark.parametrize("width", WIDTHS)
def test_interpreted(width: int) -> None:
    check_interpreted(kernel_text(width), case(width))


def test_a_word_is_one_load_and_a_product_one_instruction() -> None:
    text = """\
kernel k(x: u8[64], y: i8[64], out: i32[16]; n):
  vectorized l in 16:
    let b: i32 = pack4(y[l * 4], y[l * 4 + 1], y[l * 4 + 2], y[l * 4 + 3])
    out[l] = dp4a(pack4(x[n], x[n + 1], x[n + 2], x[n + 3]), b, out[l])
"""
    cpu = named_target("avx512vnni")
    printed = llvm.print_kernel(verify_kernel(parse_kernel(text)), cpu)
    assembly = emit_assembly(printed, cpu, comments=False).split("k:", 1)[1]
    words = [line.split()[0] for line in assembly.splitlines() if line.startswith("\t")]
    instructions = [w for w in words if w.startswith("v")]
    assert sorted(set(instructions) - {"vzeroupper"}) == ["vmovdqu64", "vpbroadcastd", "vpdpbusd"]
    assert instructions.count("vpdpbusd") == 1


def test_printed_and_read_back() -> None:
    assert format_kernel(verify_kernel(parse_kernel(ROUND_TRIP))) == ROUND_TRIP


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("pack4(y[0], y[0], y[0])", "pack4 takes 4 arguments, got 3"),
        ("pack4(y[0], x[0], y[0], y[0])", "one dtype, got i8, u8, i8, i8"),
        ("pack4(out[0], out[0], out[0], out[0])", "pack4 is of i8 or u8, not of i32"),
        ("pack4.i64(y[0], y[0], y[0], y[0])", "pack4 of i8, i8, i8, i8 cannot be i64"),
        ("dp4a(y[0], y[0], y[0])", "dp4a is of i32, not of i8"),
        ("dp4a(out[0], out[0], n)", "one dtype, got i32, i32, i64"),
    ],
)
def test_rules(value: str, message: str) -> None:
    check_refused(ROUND_TRIP, value, message)
