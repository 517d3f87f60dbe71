"""Indices of 32 bits where these hold them, and of 64 where they may not."""

from __future__ import annotations

import ctypes
import mmap
import re

import numpy as np
import pytest
from cuda_support import compile_shim

from graphc.codegen.cuda import print_kernel, translation_unit
from graphc.codegen.cuda_range import Ranges
from graphc.loop.interpret_values import Evaluator
from graphc.loop.ir import Apply, Expr, Var, const, int64
from graphc.loop.parser import parse_kernel

# Elements that are far apart: products of small numbers that 32 bits do not hold, quotients and
# rests of such, differences, the smaller of two.
FAR = """\
kernel far(y: i8[9000000000]):
  block b in 3:
    thread i in 4:
      let at = b * 65536
      let place = at * 65536 // 2 + i
      let other = (b - 2) * 1500000000 * (0 - 1) + i % 3
      y[place] = i8(b + 1)
      y[min(other + 4000, 8000000000)] = 7i8
"""
NEAR = """\
kernel near(x: f32[n * 32], y: f32[n * 32]; n):
  block b in 3:
    thread i in 32:
      for k in n:
        let lane = i % 8 + k % 4 * 8
        y[k * 32 + i] = x[k * 32 + lane]
"""


def test_places_beyond_32_bits(shim):
    kernel = parse_kernel(FAR)
    library = compile_shim(translation_unit([print_kernel(kernel)]))
    function = library.shim_far
    function.restype = ctypes.c_char_p
    # Pages are there when they are written.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    try:
        memory = mmap.mmap(-1, 9_000_000_000, flags=flags)
    except OSError as error:
        pytest.skip(f"no such address space: {error}")
    y = np.frombuffer(memory, np.int8)
    values = (ctypes.c_longlong * 2)(y.ctypes.data, 0)
    pointers = (ctypes.c_void_p * 2)(*(ctypes.addressof(values) + 8 * k for k in range(2)))
    assert not function(pointers, ctypes.c_longlong(3), 4, 1, 0)
    for b in range(3):
        first, other = b * 65536 * 65536 // 2, (2 - b) * 1_500_000_000 + 4000
        assert y[first : first + 4].tolist() == [b + 1] * 4
        assert y[other : other + 4].tolist() == [7, 7, 7, 0]
    del y
    memory.close()


def test_what_is_declared():
    far, near = (print_kernel(parse_kernel(t)).text for t in (FAR, NEAR))
    for name in ("b", "i", "at"):
        assert f"const int {name} = " in far
    for name in ("place", "other"):
        assert f"const long long {name} = " in far
    assert "(long long)at * 65536" in far
    for name, kind in (("i", "int"), ("lane", "int"), ("b", "int")):
        assert f"const {kind} {name} = " in near
    assert re.search(r"for \(long long k = 0; k < n; \+\+k\)", near)
    short = print_kernel(parse_kernel(NEAR.replace("k in n", "k in 2147483648"))).text
    assert "for (long long k = 0;" in short
    short = print_kernel(parse_kernel(NEAR.replace("k in n", "k in 2147483647"))).text
    assert "for (int k = 0;" in short


@pytest.mark.parametrize("seed", range(40))
def test_limits_hold_all_values(seed):
    rng = np.random.default_rng(seed)
    ranges, evaluator = Ranges(), Evaluator()
    extents = {Var(name): int(rng.integers(1, 9)) for name in "abc"}
    anything = Var("n")
    for var, extent in extents.items():
        ranges.counter(var, const(extent))
    exprs: list[Expr] = [*extents, anything, *map(const, rng.integers(-9, 10, 3).tolist())]
    for _ in range(14):
        fn = rng.choice(["add", "sub", "mul", "idiv", "irem", "min", "max"])
        pair = (exprs[k] for k in rng.integers(0, len(exprs), 2))
        exprs.append(Apply(str(fn), tuple(pair), int64))
    known = [(e, r) for e in exprs if (r := ranges.range(e)) is not None]
    assert known
    for _ in range(50):
        for var, extent in extents.items():
            evaluator.env[var] = int(rng.integers(0, extent))
        evaluator.env[anything] = int(rng.integers(-1000, 1000))
        for expr, (low, high) in known:
            assert low <= evaluator.eval(expr) <= high
