"""What the printed text and the machine code look like: hoisting, folding, registers, joining."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest

from graphc.codegen import llvm
from graphc.dtypes import float32
from graphc.errors import CompileError
from graphc.loop.ir import Buffer, Expr, For, Kernel, Load, LoopKind, Store, Var, block, const
from graphc.loop.parser import parse_kernel
from graphc.runtime.jit import compile_object, emit_assembly, load_object, named_target


def printed(text: str, name: str = "avx512") -> str:
    return llvm.print_kernel(parse_kernel(text), named_target(name))


def blocks(text: str) -> dict[str, list[str]]:
    """The instructions of each basic block."""
    found: dict[str, list[str]] = {}
    for line in text[text.index("entry:") : text.index("\n}")].splitlines():
        if line.endswith(":"):
            found[line[:-1]] = current = []
        else:
            current.append(line.strip())
    return found


def loops(text: str) -> list[list[str]]:
    """The blocks that begin with a loop's variable, in order."""
    return [b for b in blocks(text).values() if b and " = phi i64 " in b[0]]


def test_what_is_invariant_stands_before_the_loop() -> None:
    text = printed("""
kernel k(x: f32[n * m], y: f32[n * m], s: f32[n]; n, m):
  for i in n:
    for j in m:
      y[i * m + j] = x[i * m + j] * f32(n * m + 3) + f32(i)
""")
    outer, inner = loops(text)
    assert not any("mul" in line or "sitofp" in line for line in inner if "fmul" not in line)
    work = [line.split(" = ")[-1].split()[0] for line in inner[1:-3]]
    assert work == ["getelementptr", "load", "fmul", "fadd", "getelementptr", "store"]
    assert sum("sitofp" in line for line in outer) == 1


def test_equal_index_arithmetic_is_printed_once() -> None:
    text = printed("""
kernel k(x: f32[n], y: f32[n]; n):
  for i in n // 16:
    vectorized l in 16:
      y[i * 16 + l] = x[i * 16 + l] + x[(l + i * 8) + i * 8]
""")
    (body,) = loops(text)
    assert sum("mul i64" in line for line in body) == 1
    assert sum("load <16 x float>" in line for line in body) == 1
    assert "x i64>" not in text  # no vector of lane numbers


def test_loads_and_divisions_stay_behind_their_condition() -> None:
    text = printed("""
kernel k(x: f32[n], y: f32[n]; n, d):
  for i in n:
    if d > 0:
      y[i] = x[0] + f32(n // d)
""")
    (body,) = [b for b in blocks(text).values() if any("store" in line for line in b)]
    assert any("sdiv" in line for line in body)
    assert any("load float" in line for line in body)


def test_what_only_one_side_of_a_branch_needs_stays_there() -> None:
    text = printed("""
kernel k(x: f32[n], y: f32[n]; n):
  for i in n:
    if x[i] > 0.0f32:
      y[i] = 1.0f32 / x[i] + sqrt(f32(n))
""")
    found = blocks(text)
    assert [any("fdiv" in line for line in b) for b in found.values()].count(True) == 1
    assert any("sqrt" in line for line in found["entry"])  # invariant: once is cheaper
    for name, body in found.items():
        if any("fdiv" in line for line in body):
            assert not any("phi" in line for line in body), name


def test_a_shared_load_is_done_again_after_a_store() -> None:
    x, y = Buffer("x", float32, const(4)), Buffer("y", float32, const(4))
    value = Load(x, const(1)) * 2.0
    stores = (Store(y, const(0), value), Store(x, const(1), value), Store(y, const(1), value))
    kernel = Kernel("again", (x, y), (), block(*stores, Store(y, const(2), value)))
    text = llvm.print_kernel(kernel, named_target("generic"))
    assert text.count("= load float") == 2
    assert text.count("fmul") == 2


def test_constant_conditions_and_loops_of_one_iteration_leave_nothing() -> None:
    text = printed("""
kernel k(x: f32[64]):
  for i in 1:
    unrolled j in 4:
      vectorized l in 16:
        if j * 16 + l < 64:
          x[j * 16 + l] = guard(j * 16 + l >= 0, x[j * 16 + l], 0.0f32) * 2.0f32
""")
    assert "br " not in text
    assert "masked" not in text
    assert text.count("load <16 x float>") == 4


def test_division_of_lane_numbers_by_multiples_of_the_width() -> None:
    """A flat index that is split into rows and columns stays contiguous."""
    text = printed("""
kernel k(x: f32[n], y: f32[n]; n):
  for i in n // 16:
    vectorized l in 16:
      y[(i * 16 + l) // 48 * 48 + (i * 16 + l) % 48] = x[(i * 16 + l) % 48]
""")
    assert "masked" not in text
    assert "x i64>" not in text


def test_a_tall_expression_needs_no_recursion() -> None:
    n = Var("n")
    x, y = Buffer("x", float32, n), Buffer("y", float32, n)
    i = Var("i")
    value: Expr = Load(x, i)
    for _ in range(5000):
        value = value + 1.0
    loop = For(i, n, LoopKind.SERIAL, block(Store(y, i, value)))
    text = llvm.print_kernel(Kernel("tall", (x, y), (n,), block(loop)), named_target("generic"))
    assert text.count("fadd float") == 5000


TILE = """
kernel tile(a: f32[14 * 1000], b: f32[1000 * 100], c: f32[14 * 100]):
  local acc: f32[448]
  unrolled i in 14:
    unrolled j in 2:
      vectorized l in 16:
        acc[i * 32 + (j * 16 + l)] = 0.0f32
  for k in 1000:
    unrolled i in 14:
      unrolled j in 2:
        vectorized l in 16:
          acc[i * 32 + (j * 16 + l)] += a[i * 1000 + k] * b[k * 100 + (j * 16 + l)]
  unrolled i in 14:
    unrolled j in 2:
      vectorized l in 16:
        c[i * 100 + (j * 16 + l)] = acc[i * 32 + (j * 16 + l)]
"""


def test_a_register_tile_of_a_product_stays_in_registers() -> None:
    assembly = emit_assembly(printed(TILE), named_target("avx512"))
    start = assembly.index("Inner Loop Header")
    body = assembly[start : assembly.index("\tj", start)]
    assert "Spill" not in assembly
    assert "Reload" not in assembly
    assert len(re.findall(r"\tvfmadd\d+ps", body)) == 28
    assert len(re.findall(r"\tvbroadcastss", body)) == 14
    assert len(re.findall(r"\tvmovups", body)) == 2
    assert len(re.findall(r"\t[a-z]\w+\t", body)) <= 28 + 14 + 2 + 3


def test_kernels_join_to_one_module() -> None:
    target = named_target("host")
    texts = [
        f"kernel k{i}(x: f32[n]; n):\n  for i in n:\n    x[i] = fma(x[i], 2.0f32, {i}.5f32)\n"
        for i in range(3)
    ]
    kernels = [parse_kernel(t) for t in [*texts, "kernel empty(x: f32[4]):\n  pass\n"]]
    text = llvm.module(llvm.print_kernel(k, target) for k in kernels)
    assert text.count("!0 = !{}") == 1
    assert text.count("declare float @llvm.fma.f32") == target.has_fma
    code = load_object(compile_object(text, target))
    for i, kernel in enumerate(kernels):
        x = np.arange(5, dtype=np.float32)
        table = np.array([x.ctypes.data, 5, np.zeros(8, np.int64).ctypes.data], np.int64)
        run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        run(code.address(kernel.name))(table.ctypes.data, 0, 0)
        expected = np.arange(5) * 2 + i + 0.5 if i < 3 else np.arange(5)
        np.testing.assert_array_equal(x, expected.astype(np.float32))


def test_a_kernel_may_have_any_name() -> None:
    text = 'kernel "fused/add:1 x"(x: f32[1]):\n  x[0] = 1.0f32\n'
    code = compile_object(printed(text, "generic"), named_target("generic"))
    assert b"fused/add:1 x" in code


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("  block i in 4:\n    x[i] = 0.0f32\n", "a block loop is for GPUs only"),
        ("  thread i in 4:\n    x[i] = 0.0f32\n", "a thread loop is for GPUs only"),
        ("  barrier\n", "a Barrier is for GPUs only"),
        ("  shared s: f32[4]\n", "buffer 's' is shared, not local"),
        ("  for i in 2:\n    parallel j in 2:\n      x[j] = 0.0f32\n", "parallel loop must be"),
        ("  vectorized i in 2:\n    vectorized j in 2:\n      x[j] = 0.0f32\n", "inside another"),
        ("  vectorized i in n:\n    x[i] = 0.0f32\n", "the extent of the vectorized loop 'i'"),
        ("  vectorized i in 2:\n    for j in i:\n      x[j] = 0.0f32\n", "depends on the lane"),
    ],
)
def test_what_no_cpu_runs_is_refused(body: str, message: str) -> None:
    kernel = parse_kernel("kernel odd(x: f32[4]; n):\n" + body)
    with pytest.raises(CompileError, match=f"kernel 'odd': .*{message}"):
        llvm.print_kernel(kernel, named_target("generic"))
