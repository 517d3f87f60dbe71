"""Masked loads that are wider than a register, which LLVM splits."""

import ctypes

import numpy as np
import pytest

from graphc.codegen.llvm import print_kernel
from graphc.loop.parser import parse_kernel
from graphc.runtime import jit

PAD = """kernel k0(b0: f64[6], b1: f64[1], b2: f64[15]):
  for i in 3:
    vectorized l in 8:
      if l < 5:
        b2[i * 5 + l] = guard(i >= 1 and l < 3, b0[(i - 1) * 3 + l], b1[0])
"""


@pytest.mark.parametrize("name", ["avx512", "avx2", "generic"])
def test_a_half_that_is_masked_off_keeps_the_other_value(name: str) -> None:
    target = jit.named_target(name)
    if not target.is_host:
        pytest.skip(f"this machine does not run {name} code")
    loaded = jit.load_object(
        jit.compile_object(print_kernel(parse_kernel(PAD), target), target), exports=("k0",)
    )
    x, other, out = np.arange(1.0, 20.0), np.array([9.0]), np.zeros(15)
    status = np.zeros(8, np.int64)
    args = (ctypes.c_void_p * 4)(*(a.ctypes.data for a in (x, other, out, status)))
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    run(loaded.address("k0"))(ctypes.addressof(args), 0, 1)
    want = np.full((3, 5), 9.0)
    want[1:, :3] = np.arange(1.0, 7.0).reshape(2, 3)
    np.testing.assert_array_equal(out, want.reshape(-1))
