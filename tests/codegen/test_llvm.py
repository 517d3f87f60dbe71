"""Printed kernels against the interpreter: accesses, masks, branches, loops, reductions, errors.

Every array ends where unreadable memory begins, so that an access out of bounds is a crash.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from graphc.codegen import llvm
from graphc.loop.interpret import RequireFailed, run_kernel
from graphc.loop.ir import Kernel
from graphc.loop.parser import parse_kernel
from graphc.loop.verify import verify_kernel
from graphc.runtime.jit import LoadedObject, compile_object, load_object, named_target

Array = np.ndarray[Any, Any]
TARGETS = ("avx512", "avx2", "generic")
_LIBC = ctypes.CDLL(None, use_errno=True)
_PAGE = mmap.PAGESIZE


def fenced(array: Array) -> Array:
    """A copy whose end is the end of readable memory."""
    pages = -(-max(array.nbytes, 1) // _PAGE)
    area = mmap.mmap(-1, (pages + 1) * _PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    fence = ctypes.c_void_p(start + pages * _PAGE)
    assert _LIBC.mprotect(fence, ctypes.c_size_t(_PAGE), 0) == 0
    copy = np.frombuffer(area, array.dtype, array.size, pages * _PAGE - array.nbytes)
    copy[:] = array
    return copy


@functools.cache
def loaded(text: str, name: str) -> tuple[Kernel, LoadedObject]:
    target = named_target(name)
    if not target.is_host:
        pytest.skip(f"this machine does not run {name} code")
    kernel = verify_kernel(parse_kernel(text))
    printed = llvm.module([llvm.print_kernel(kernel, target)])
    return kernel, load_object(compile_object(printed, target))


def call(
    text: str, name: str, arrays: Sequence[Array], scalars: Sequence[int], *span: int
) -> tuple[list[Array], Array]:
    """What the kernel leaves in its arrays, and the status words."""
    kernel, code = loaded(text, name)
    copies = [fenced(a) for a in arrays]
    status = np.zeros(8, np.int64)
    slots = [a.ctypes.data for a in copies] + list(scalars) + [status.ctypes.data]
    table = np.array(slots, np.int64)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    kind(code.address(kernel.name))(table.ctypes.data, *(span or (0, 0)))
    return copies, status


def check(
    text: str, arrays: Sequence[Array], scalars: Sequence[int] = (), span: tuple[int, ...] = ()
) -> None:
    """The same values as the interpreter's, on every target."""
    kernel = parse_kernel(text)
    expected = [a.copy() for a in arrays]
    site, details = 0, (0, 0)
    try:
        limits = {"begin": span[0], "end": span[1]} if span else {}
        run_kernel(kernel, expected, scalars, **limits)
    except RequireFailed as failure:
        site, details = failure.site + 1, (*failure.details, 0, 0)[:2]
    for name in TARGETS:
        found, status = call(text, name, arrays, scalars, *span)
        assert tuple(status[:3]) == (site, *details), name
        if site == 0:
            for f, e in zip(found, expected, strict=True):
                np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-6, err_msg=name)


def floats(n: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


SIZES = (0, 1, 7, 8, 9, 31, 64)

SAXPY = """
kernel saxpy(x: f32[n], y: f32[n]; n):
  parallel i in (n + 7) // 8:
    vectorized l in 8:
      if i * 8 + l < n:
        y[i * 8 + l] = x[i * 8 + l] * 2.0f32 + y[i * 8 + l]
"""


@pytest.mark.parametrize("n", SIZES)
def test_masked_tail(n: int) -> None:
    check(SAXPY, [floats(n), floats(n, 1)], [n], (0, -(-n // 8)))


AHEAD = """
kernel ahead(x: f32[n], y: f32[n]; n):
  for i in n:
    prefetch x[i + 4096]
    prefetch x[i - 4096]
    y[i] = x[i] + 1.0f32
"""


@pytest.mark.parametrize("n", SIZES)
def test_what_is_asked_for_may_be_anywhere(n: int) -> None:
    check(AHEAD, [floats(n), floats(n, 1)], [n])
    printed = llvm.print_kernel(parse_kernel(AHEAD), named_target("generic"))
    assert printed.count("call void @llvm.prefetch") == 2


@pytest.mark.parametrize("span", [(0, 0), (1, 3), (2, 8), (5, 5), (7, 8)])
def test_parallel_loop_runs_the_given_iterations(span: tuple[int, int]) -> None:
    check(SAXPY, [floats(61), floats(61, 1)], [61], span)


def test_begin_and_end_are_ignored_without_a_parallel_loop() -> None:
    text = "kernel k(x: f32[4]):\n  for i in 4:\n    x[i] = x[i] + 1.0f32\n"
    check(text, [floats(4)], [], (2, 3))


@pytest.mark.parametrize("n", [0, 1, 5, 8, 20])
def test_lets_before_a_parallel_loop(n: int) -> None:
    text = """
kernel k(x: f32[n], y: f32[n]; n):
  let chunks = (n + 3) // 4
  let half: f32 = 0.5f32
  parallel i in chunks:
    for j in min(4, n - i * 4):
      y[i * 4 + j] = x[i * 4 + j] * half
"""
    check(text, [floats(n), floats(n)], [n], (0, -(-n // 4)))


@pytest.mark.parametrize(
    "index",
    [
        "l * 3 + i", "l * s + i", "(7 - l) + i * 8", "l // 3 + i * 8", "l % 3 * 4 + i",
        "(i * 8 + l) // 5", "(i * 8 + l) % 8 * 3", "i64(t[i * 8 + l])", "i64(t[i]) + l * 2", "i",
        "select(l < 3, l, 7 - l) + i", "l * l // 2 + i", "(i * 8 + l) * (i + 1) % 64",
        "min(i * 8 + l, s * 4)", "l * i * s % 64",
    ],
)  # fmt: skip
def test_gather(index: str) -> None:
    """Loads at any index, with every lane and with a mask."""
    text = f"""
kernel k(x: f32[64], t: i32[24], y: f32[24], z: f32[24]; s, n):
  for i in 3:
    vectorized l in 8:
      y[i * 8 + l] = x[{index}]
      z[i * 8 + l] = guard(i * 8 + l < n, x[{index}], 7.0f32)
"""
    t = (np.arange(24) * 7 % 40).astype(np.int32)
    for n in (0, 13, 24):
        check(text, [floats(64), t, np.zeros(24, "f"), np.zeros(24, "f")], [8, n])


@pytest.mark.parametrize("code", ["f16", "f32", "f64", "i8", "u16", "i32", "i64", "b1"])
@pytest.mark.parametrize("lanes", [2, 3, 8, 16, 40])
def test_every_dtype_and_width(code: str, lanes: int) -> None:
    """Contiguous, reversed and strided accesses, masked and not."""
    text = f"""
kernel k(x: {code}[n], y: {code}[n], z: {code}[n], w: {code}[2 * n], v: {code}[n]; n):
  for i in (n + {lanes - 1}) // {lanes}:
    vectorized l in {lanes}:
      if i * {lanes} + l < n:
        y[i * {lanes} + l] = x[i * {lanes} + l]
        z[n - 1 - (i * {lanes} + l)] = x[i * {lanes} + l]
        w[(i * {lanes} + l) * 2] = x[i * {lanes} + l]
        v[i * {lanes} + l] = x[n - 1 - (i * {lanes} + l)]
"""
    dtype = parse_kernel(text).params[0].dtype.numpy
    for n in (lanes, 2 * lanes + 1):
        x = (floats(n) * 50).astype(np.int64).astype(dtype)
        outs = [np.zeros(m, dtype) for m in (n, n, 2 * n, n)]
        check(text, [x, *outs], [n])


def test_guard_uniform_and_by_lane() -> None:
    """A pad: what is outside of the source is never read."""
    text = """
kernel pad(x: f32[n], y: f32[n + 11], z: f32[n + 11]; n):
  for i in n + 11:
    y[i] = guard(i >= 5, guard(i < n + 5, x[i - 5], -1.0f32), -2.0f32)
  for i in (n + 26) // 16:
    vectorized l in 16:
      if i * 16 + l < n + 11:
        let at = i * 16 + l - 5
        z[i * 16 + l] = guard(at >= 0 and at < n, x[at], -1.0f32)
"""
    for n in (0, 1, 5, 30):
        check(text, [floats(n), np.zeros(n + 11, "f"), np.zeros(n + 11, "f")], [n])


def test_guard_with_loads_on_both_sides() -> None:
    """A concatenation: each side is read only where it is chosen."""
    text = """
kernel concat(a: f32[n], b: f32[m], y: f32[n + m], z: f32[n + m]; n, m):
  for i in n + m:
    y[i] = guard(i < n, a[i], b[i - n])
  for i in (n + m + 7) // 8:
    vectorized l in 8:
      let at = i * 8 + l
      if at < n + m:
        z[at] = guard(at < n, a[at] * 2.0f32, b[at - n] + 1.0f32)
"""
    for n, m in ((0, 5), (5, 0), (13, 20), (16, 1)):
        a, b = floats(n), floats(m, 1)
        outs = [np.zeros(n + m, "f"), np.zeros(n + m, "f")]
        for name in TARGETS:
            found, _ = call(text, name, [a, b, *outs], [n, m])
            np.testing.assert_array_equal(found[2], np.concatenate([a, b]))
            np.testing.assert_array_equal(found[3], np.concatenate([a * 2, b + 1]))


def test_uniform_loads_under_a_mask_are_not_done_without_lanes() -> None:
    text = """
kernel k(x: f32[n], s: f32[m], y: f32[n]; n, m):
  for i in 4:
    vectorized l in 8:
      if i * 8 + l < n:
        y[i * 8 + l] = x[i * 8 + l] + s[i]
"""
    for n, m in ((0, 0), (8, 1), (9, 2), (31, 4)):
        check(text, [floats(n), floats(m), np.zeros(n, "f")], [n, m])


def test_branches() -> None:
    text = """
kernel k(x: f32[n], y: f32[n], z: f32[n]; n):
  for i in n // 8:
    if x[i * 8] > 0.0f32:
      for j in i:
        y[i * 8 + j % 8] = x[j] + 1.0f32
    else:
      y[i * 8] = -1.0f32
    vectorized l in 8:
      let v: f32 = x[i * 8 + l]
      if v > 0.5f32:
        if v < 1.0f32:
          z[i * 8 + l] = v
        else:
          z[i * 8 + l] = x[l] * 3.0f32
      else:
        z[i * 8 + l] = y[i * 8 + l] - v
"""
    check(text, [floats(64), np.zeros(64, "f"), np.zeros(64, "f")], [64])


def test_loads_are_done_again_after_stores() -> None:
    text = """
kernel k(x: f32[16], y: f32[16]):
  for i in 4:
    vectorized l in 4:
      y[i * 4 + l] = x[i * 4 + l] + 1.0f32
      x[i * 4 + l] = x[i * 4 + l] * 2.0f32
      y[i * 4 + l] = y[i * 4 + l] + x[i * 4 + l]
  let first: f32 = x[0]
  for i in 3:
    x[0] = x[0] + first
    x[i + 1] = x[i] + 1.0f32
"""
    check(text, [floats(16), np.zeros(16, "f")])


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 17), (0, 3, 3), (2, 0, 8), (5, 7, 0)])
def test_nested_loops_of_symbolic_extents(shape: tuple[int, int, int]) -> None:
    text = """
kernel transpose(x: f32[a * b * c], y: f32[a * b * c], s: f32[a]; a, b, c):
  for i in a:
    for j in b:
      for k in c:
        y[(k * b + j) * a + i] = x[(i * b + j) * c + k]
        s[i] += x[(i * b + j) * c + k]
      for k in (c + 3) // 4:
        vectorized l in 4:
          if k * 4 + l < c:
            s[i] max= x[(i * b + j) * c + (k * 4 + l)]
"""
    size = shape[0] * shape[1] * shape[2]
    check(text, [floats(size), np.zeros(size, "f"), np.zeros(shape[0], "f")], shape)


@pytest.mark.parametrize("lanes", [2, 5, 8, 16, 33])
@pytest.mark.parametrize("n", [0, 1, 40])
def test_horizontal_reductions(lanes: int, n: int) -> None:
    text = f"""
kernel k(x: f32[n], i: i32[n], s: f32[4], t: i32[3], b: b1[2]; n):
  for j in (n + {lanes - 1}) // {lanes}:
    vectorized l in {lanes}:
      let at = j * {lanes} + l
      if at < n:
        s[0] += x[at]
        s[1] max= x[at]
        s[2] min= x[at]
        s[3] *= x[at]
        t[0] += i[at]
        t[1] max= i[at]
        t[2] min= i[at]
        b[0] and= x[at] < 2.0f32
        b[1] or= x[at] > 1.9f32
"""
    ints = np.arange(n, dtype=np.int32) * 37 % 23 - 9
    start = [np.ones(4, "f"), np.zeros(3, np.int32), np.array([True, False])]
    check(text, [floats(n), ints, *start], [n])


@pytest.mark.parametrize("op", ["max", "min"])
def test_reductions_keep_nan(op: str) -> None:
    text = f"""
kernel k(x: f32[64], s: f32[8], t: f32[1]):
  for i in 8:
    vectorized l in 8:
      s[l] {op}= x[i * 8 + l]
      t[0] {op}= x[i * 8 + l]
"""
    for at in (0, 20, 63):
        x = floats(64)
        x[at] = np.nan
        check(text, [x, floats(8, 1), floats(1, 2)])


@pytest.mark.parametrize("op", ["<", "<=", ">", ">=", "==", "!="])
def test_comparisons_of_lane_numbers(op: str) -> None:
    """Lanes from or below a bound, forwards and backwards, decided or not while printing."""
    sides = [f"l {op} n", f"n {op} l", f"i * 8 + l {op} n", f"n - l {op} i", f"2 - l {op} n - i"]
    sides += [f"l {op} 3", f"l {op} 8", f"l {op} -1", f"l * 2 {op} n", f"l + i {op} l", f"i {op} l"]
    stores = [f"      y[{k} * 32 + (i * 8 + l)] = {side}" for k, side in enumerate(sides)]
    text = f"kernel k(y: b1[{32 * len(sides)}]; n):\n  for i in 4:\n    vectorized l in 8:\n"
    for n in (-3, 0, 1, 4, 7, 8, 17, 40):
        check(text + "\n".join(stores) + "\n", [np.zeros(32 * len(sides), np.bool_)], [n])


def test_histogram_counts_lanes_that_meet() -> None:
    text = """
kernel k(t: i32[n], h: i64[4]; n):
  for i in (n + 7) // 8:
    vectorized l in 8:
      if i * 8 + l < n:
        h[i64(t[i * 8 + l])] += 1
"""
    t = (np.arange(30) * 5 % 4).astype(np.int32)
    t[:9] = 2
    for name in TARGETS:
        found, _ = call(text, name, [t, np.zeros(4, np.int64)], [30])
        np.testing.assert_array_equal(found[1], np.bincount(t))


def test_local_accumulators_and_private_buffers() -> None:
    text = """
kernel k(x: f32[n * 8], y: f32[8], z: f32[n * 8]; n):
  local acc: f32[8]
  vectorized l in 8:
    acc[l] = 0.0f32
  for i in n:
    vectorized l in 8:
      local own: f32[3]
      unrolled j in 3:
        own[j] = x[i * 8 + l] * f32(j + 1)
      if x[i * 8 + l] > 0.0f32:
        own[1] += 10.0f32
      let which = i64(x[i * 8 + l] > 0.5f32) + 1
      acc[l] += own[0] + own[which]
      for j in 3:
        own[j] *= 0.5f32
      z[i * 8 + l] = own[i % 3]
  vectorized l in 8:
    y[l] = acc[l]
"""
    for n in (0, 1, 6):
        check(text, [floats(n * 8), np.zeros(8, "f"), np.zeros(n * 8, "f")], [n])


@pytest.mark.parametrize("bad", [None, 0, 9, 20])
def test_require(bad: int | None) -> None:
    """The first failing lane reports; the row is counted as 0 and never read."""
    text = """
kernel take(x: f32[m], t: i32[n], y: f32[n], z: f32[n]; n, m):
  for i in (n + 7) // 8:
    vectorized l in 8:
      if i * 8 + l < n:
        let at = i64(t[i * 8 + l])
        y[i * 8 + l] = require#5(at >= 0 and at < m, x[at], at, i * 8 + l)
  for i in n:
    let at = i64(t[i])
    z[i] = require#6(at >= 0 and at < m, x[at], at, i)
"""
    t = (np.arange(21) * 5 % 12).astype(np.int32)
    if bad is not None:
        t[bad:] = 1 << 30
    arrays = [floats(12), t, np.ones(21, "f"), np.ones(21, "f")]
    check(text, arrays, [21, 12])
    for name in TARGETS:
        found, status = call(text, name, arrays, [21, 12])
        if bad is not None:
            assert list(status[:3]) == [6, 1 << 30, bad]
            np.testing.assert_array_equal(found[2][bad:], 0)
            np.testing.assert_array_equal(found[3][bad:], 0)


def test_require_of_a_pure_value_and_uniform_condition() -> None:
    text = """
kernel k(y: f32[8]; n):
  vectorized l in 8:
    y[l] = f32(require#2(n > 3, n + l, n))
"""
    check(text, [np.zeros(8, "f")], [7])
    check(text, [np.zeros(8, "f")], [-1])


def test_casts_of_lane_numbers() -> None:
    text = """
kernel k(a: u8[40], b: f32[40], c: i32[40], d: u64[40]):
  for i in 5:
    vectorized l in 8:
      a[i * 8 + l] = u8(i * 100 + l * 50)
      b[i * 8 + l] = f32(i * 8 + l) - f32(i32(l * 3 - i))
      c[i * 8 + l] = i32(i * 8 + l) * i32(l)
      d[i * 8 + l] = u64(l - i)
"""
    check(text, [np.zeros(40, t) for t in (np.uint8, np.float32, np.int32, np.uint64)])
