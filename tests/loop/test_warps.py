"""Products of warps whose threads hold the left matrix, in two thread loops, interpreted."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.errors import VerifyError
from graphc.loop.interpret import run_kernel
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import format_kernel
from graphc.loop.verify import verify_kernel

RNG = np.random.default_rng(5)
# Two warps in rows of 4 threads: thread (i, j) holds rows i % 8 and i % 8 + 8 of its warp's.
HELD = """\
kernel held(x: f16[1024], y: f16[512], z: f32[512]):
  block b in 1:
    shared s: f16[512]
    thread i in 16:
      thread j in 4:
        local w: f16[16]
        local t: f32[8]
        for a in 8:
          s[(i * 4 + j) * 8 + a] = y[(i * 4 + j) * 8 + a]
        for q in 4:
          for e in 4:
            let row = i // 8 * 16 + i % 8 + e // 2 * 8
            w[q * 4 + e] = x[row * 32 + q * 8 + j * 2 + e % 2]
        for c in 8:
          t[c] = 0f32
        barrier
        warpproduct 16 16 32 t += w[0] by 0 0, s[0] by 16 1
        for p in 2:
          for e in 4:
            let row = i // 8 * 16 + i % 8 + e // 2 * 8
            z[row * 16 + p * 8 + j * 2 + e % 2] = t[p * 4 + e]
"""


def test_threads_hold_the_left_matrix():
    kernel = verify_kernel(parse_kernel(HELD))
    assert format_kernel(verify_kernel(parse_kernel(format_kernel(kernel)))) == format_kernel(
        kernel
    )
    left, right = (RNG.integers(-3, 4, s).astype(np.float16) for s in ((32, 32), (32, 16)))
    found = np.zeros((32, 16), np.float32)
    run_kernel(kernel, [left, right, found])
    np.testing.assert_array_equal(found, left.astype(np.float32) @ right.astype(np.float32))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("local w: f16[16]", "local w: f16[8]", "holds 16 floats of 16 bits"),
        ("w[0] by 0 0", "w[0] by 16 1", "from its first element on"),
        ("w[0] by 0 0", "w[4] by 0 0", "from its first element on"),
        ("w[0] by 0 0, s[0] by 16 1", "s[0] by 32 1, w[0] by 16 1", "in shared memory"),
        ("w[0] by 0 0", "x[0] by 32 1", "in shared memory"),
        ("thread i in 16", "thread i in 12", "whole warps"),
    ],
)
def test_the_verifier_knows_the_rules(old, new, message):
    assert old in HELD
    with pytest.raises(VerifyError, match=message):
        verify_kernel(parse_kernel(HELD.replace(old, new)))
