"""``pack16`` and ``madd16``: text, rules, the interpreter, and machine code of every target."""

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
CODES = {"i8": np.int8, "u8": np.uint8, "i16": np.int16}
ROUND_TRIP = """\
kernel pairs(x: u8[2 * n], y: i16[2 * n], out: i32[n]; n):
  for i in n:
    let pair: i32 = pack16(y[i * 2], y[i * 2 + 1])
    out[i] = madd16(pack16(x[i * 2], x[i * 2 + 1]), pair, out[i])
"""


def kernel_text(code: str, width: int) -> str:
    """Pairs by vectors, the last of them masked; a pair for all lanes; elements far apart."""
    loop = f"for v in {-(-50 // width)}:\n    vectorized l in {width}:"
    return f"""\
kernel {code}_{width}(x: {code}[100], y: i16[100], near: i32[50], all: i32[50], far: i32[50]; z):
  {loop}
      if v * {width} + l < 50:
        let i = v * {width} + l
        let b: i32 = pack16(y[i * 2], y[i * 2 + 1])
        near[i] = madd16(pack16(x[i * 2], x[i * 2 + 1]), b, near[i])
        far[i] = madd16(pack16(x[i], x[i + 50]), b, 2147483647i32)
  for v in {50 // width}:
    vectorized l in {width}:
      let i = v * {width} + l
      let b: i32 = pack16(y[i * 2], y[i * 2 + 1])
      all[i] = madd16(pack16(x[z * 2], x[z * 2 + 1]), b, all[i])
"""


def expected(width: int, arrays: list[np.ndarray], z: int) -> list[np.ndarray]:
    x, y, near, all_ = (a.astype(np.int64) for a in arrays[:4])
    pairs = y.reshape(50, 2)
    results = [
        near + (x.reshape(50, 2) * pairs).sum(1),
        all_ + np.where(np.arange(50) < 50 // width * width, pairs @ x[2 * z : 2 * z + 2], 0),
        (2**31 - 1) + (x.reshape(2, 50).T * pairs).sum(1),
    ]
    return [r.astype(np.int32) for r in results]


def operands(seed: int, code: str) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    types = np.iinfo(CODES[code]), np.iinfo(np.int16)
    x, y = (rng.integers(t.min, t.max, 100, t.dtype, endpoint=True) for t in types)
    # The one pair of products whose sum an int32 does not hold, and others at the ends.
    x[:4], y[:6] = types[0].min, types[1].min
    x[4:8] = types[0].max
    limits = np.iinfo(np.int32)
    outs = [rng.integers(limits.min, limits.max, 50, np.int32) for _ in range(3)]
    return [x, y, *outs]


def case(code: str, width: int) -> Case:
    arrays = operands(width, code)
    return arrays, expected(width, arrays, PLACE)


@pytest.mark.parametrize("target", TARGETS)
def test_machine_code(target: str) -> None:
    check_machine_code(target, {kernel_text(c, w): case(c, w) for c in CODES for w in WIDTHS})


@pytest.mark.parametrize("code", CODES)
def test_interpreted(code: str) -> None:
    for width in WIDTHS:
        check_interpreted(kernel_text(code, width), case(code, width))


@pytest.mark.parametrize("code", ["i16", "i8"])
@pytest.mark.parametrize("target", ["generic", "avx2", "avx512"])
def test_a_pair_is_one_load_and_a_product_one_instruction(target: str, code: str) -> None:
    cpu = named_target(target)
    text = f"""\
kernel k(x: i16[64], y: {code}[64], out: i32[16]; n):
  vectorized l in {cpu.vector_bytes // 4}:
    out[l] = madd16(pack16(x[n], x[n + 1]), pack16(y[l * 2], y[l * 2 + 1]), out[l])
"""
    printed = llvm.print_kernel(verify_kernel(parse_kernel(text)), cpu)
    assembly = emit_assembly(printed, cpu, comments=False).split("k:", 1)[1]
    words = [line.split()[0].lstrip("v") for line in assembly.splitlines() if line[:1] == "\t"]
    assert words.count("pmaddwd") == 1
    assert words.count("paddd") == 1
    if code == "i16":
        assert not [w for w in words if w.startswith(("psll", "psrl", "psra", "pand", "por"))]
    elif target != "generic":
        assert words.count("pmovsxbw") == 1


def test_printed_and_read_back() -> None:
    assert format_kernel(verify_kernel(parse_kernel(ROUND_TRIP))) == ROUND_TRIP


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("pack16(y[0])", "pack16 takes 2 arguments, got 1"),
        ("pack16(y[0], x[0])", "one dtype, got i16, u8"),
        ("pack16(out[0], out[0])", "pack16 is of i8 or u8 or i16, not of i32"),
        ("pack16.i64(y[0], y[0])", "pack16 of i16, i16 cannot be i64"),
        ("madd16(y[0], y[0], y[0])", "madd16 is of i32, not of i16"),
    ],
)
def test_rules(value: str, message: str) -> None:
    check_refused(ROUND_TRIP, value, message)
