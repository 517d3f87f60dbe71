"""The shim finds what is wrong with kernels: one planted fault of each kind."""

from __future__ import annotations

import re

import numpy as np
import pytest
from cuda_races import RaceDevice
from cuda_support import ShimDevice, ShimFault

from graphc.codegen.cuda import print_kernel, translation_unit
from graphc.loop.ir import Kernel
from graphc.loop.parser import parse_kernel

# Rows are turned around in shared memory, 64 elements at a time.
TURN = """\
kernel turn(x: f32[n * 64], y: f32[n * 64]; n):
  block b in n:
    shared t: f32[64]
    thread i in 64:
      t[i] = x[b * 64 + i]
      barrier
      y[b * 64 + i] = t[63 - i]
"""
TOTAL = """\
kernel total(x: f32[n * 64], y: f32[n]; n):
  block b in n:
    thread i in 64:
      local t: f32[1]
      t[0] = x[b * 64 + i]
      allreduce add t[0]
      if i == 0:
        y[b] = t[0]
"""


def source(kernel: Kernel, *changes: tuple[str, str]) -> str:
    """The kernel's text with changes, each of which is made once."""
    text = translation_unit([print_kernel(kernel)])
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
        text = text.replace(old, new)
    return text


def run(device: ShimDevice, text: str, x: np.ndarray, size: int, blocks: int) -> np.ndarray:
    (function,) = device.load(text, [re.search(r"__launch_bounds__\(64\) (\w+)", text)[1]])
    given, taken = device.allocate(x.nbytes), device.allocate(4 * size)
    status = device.allocate(24)
    device.clear(status.address, 24)
    device.write(given.address, x)
    arguments = (given.address, taken.address, blocks, status.address)
    device.launch(function, blocks, (64, 1), arguments)
    found = np.empty(size, np.float32)
    device.read(taken.address, found)
    return found


X = np.random.default_rng(5).standard_normal(3 * 64).astype(np.float32)


def test_threads_see_what_others_have_stored_behind_a_barrier(shim):
    found = run(shim, source(parse_kernel(TURN)), X, X.size, 3)
    np.testing.assert_array_equal(found.reshape(3, 64), X.reshape(3, 64)[:, ::-1])


def test_warps_combine_what_they_have(shim):
    found = run(shim, source(parse_kernel(TOTAL)), X, 3, 3)
    np.testing.assert_allclose(found, X.reshape(3, 64).sum(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "change", "message"),
    [
        (TURN, ("__syncthreads();", ""), "depends on the order"),
        (TURN, ("__syncthreads();", "if (i < 32) __syncthreads();"), "a divergent barrier"),
        (
            TURN,
            ("__syncthreads();", "if (i < 32) __syncthreads();\nelse\n__syncthreads();"),
            r"a divergent barrier: thread \d+ waits in line \d+, thread \d+ waits in line \d+",
        ),
        (TURN, ("y[(b * 64) + i]", "y[b]"), "depends on the order"),
        (TURN, ("y[(b * 64) + i]", "y[(b * 64) + i + 1]"), "beside its 768 bytes"),
        (TOTAL, ("0xffffffffu", "0xfffeffffu"), "not in its mask|a divergent barrier"),
    ],
    ids=["no barrier", "few at a barrier", "two barriers", "race", "out of bounds", "mask"],
)
def test_a_planted_fault_is_found(text, change, message, shim):
    with pytest.raises(ShimFault, match=message):
        run(shim, source(parse_kernel(text), change), X, X.size, 3)


def test_what_nobody_wrote_is_poison(shim):
    text = source(parse_kernel(TURN), ("t[i] = x[(b * 64) + i];", "if (i != 7) t[i] = 0;"))
    found = run(shim, text, X, X.size, 3).reshape(3, 64)
    assert np.isnan(found[:, 56]).all()
    assert np.isnan(found).sum() == 3


# Two threads write one element the same; a block reads what another writes; a warp takes its own.
RACES = {
    "no barrier": (TURN, ("__syncthreads();", ""), "of shared memory"),
    "the same value": (
        TURN, ("t[i] = x[(b * 64) + i];", "t[i] = x[(b * 64) + i]; t[0] = x[b * 64];"),
        "writes byte 0 of shared memory 0, which thread 0 of block 0 has written",
    ),
    "behind the barrier": (
        TURN, ("y[(b * 64) + i] = t[63 - i];", "y[(b * 64) + i] = t[63 - i]; t[i] = 0;"),
        "has read|reads",
    ),
    "another block": (TURN, ("y[(b * 64) + i]", "y[i]"), "of argument 2, which thread"),
    "within a warp": (
        TURN, ("t[63 - i];", "t[63 - i]; t[i] = 0; t[i ^ 1] += 1;"), "of shared memory"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RACES)
def test_a_planted_race_is_found(name, shim):
    text, change, message = RACES[name]
    with pytest.raises(ShimFault, match=f"a race: .*({message})"):
        run(RaceDevice(both_orders=False), source(parse_kernel(text), change), X, X.size, 3)


def test_what_barriers_put_in_order_is_no_race(shim):
    for text in (TURN, TOTAL):
        run(RaceDevice(), source(parse_kernel(text)), X, X.size, 3)
    fence = ("t[63 - i];", "t[63 - i]; __syncthreads(); t[i] = 0; __syncwarp(); t[i ^ 1] += 1;")
    run(RaceDevice(), source(parse_kernel(TURN), fence), X, X.size, 3)


def test_a_misaligned_vector_is_found(shim):
    text = """\
kernel four(x: f32[n * 64], y: f32[n * 64]; n):
  block b in n:
    thread i in 64:
      if i < 16:
        vectorized l in 4:
          y[b * 64 + i * 4 + l] = x[b * 64 + i * 4 + l]
"""
    good = source(parse_kernel(text))
    np.testing.assert_array_equal(run(shim, good, X, X.size, 3), X)
    for parameter in "xy":
        place = f"{parameter} + "
        assert place in good
        with pytest.raises(ShimFault, match="a misaligned access of 16 bytes in line"):
            run(shim, good.replace(place, f"{place}1 + "), X, X.size, 3)
