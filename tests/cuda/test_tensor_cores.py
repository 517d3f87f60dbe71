"""Products on tensor cores: layouts of lanes, copies that are waited for, edges, every dtype."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from cuda_races import RaceDevice
from cuda_support import ShimDevice, ShimFault

import graphc as gc
from graphc.dtypes import bfloat16, float32
from graphc.errors import VerifyError
from graphc.kernels.grid import contraction_grid
from graphc.kernels.problem import Contraction
from graphc.loop.gpu import GpuTarget
from graphc.loop.interpret import KernelFault, run_kernel
from graphc.loop.interpret_warp import tensor_float
from graphc.loop.ir import Buffer, Load, Store, WarpProduct, cast, const, walk_stmt
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import format_kernel
from graphc.loop.verify import verify_kernel

RNG = np.random.default_rng(4)
KINDS = {
    "f16": (gc.float16, gc.float16, {}), "bf16": (gc.bfloat16, gc.bfloat16, {}),
    "tf32": (gc.float32, gc.float32, {}), "i8": (gc.int8, gc.int8, {"output_type": gc.int32}),
    "u8": (gc.uint8, gc.int8, {"output_type": gc.int32}),
}  # fmt: skip
# The second is of whole tiles of 128, in the third nothing is a multiple of anything.
SIZES = [(64, 48, 80), (128, 96, 256), (65, 33, 31), (17, 16, 129), (1, 64, 64), (80, 0, 80)]


def whole(dtype: Any, *shape: int) -> np.ndarray:
    """Small integers: sums are exact in every order."""
    low = 0 if dtype is gc.uint8 else -3
    return RNG.integers(low, 4, shape).astype(dtype.as_numpy_dtype)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default():
        yield


def products(kind: str, device: Any, sizes: list[tuple[int, int, int]], known: bool) -> str:
    """Run products of all transpositions; the text of their kernels."""
    left_type, right_type, more = KINDS[kind]
    fetches, feeds, expected = [], {}, []
    for (m, k, n), left, right in itertools.product(sizes, (False, True), (False, True)):
        a, b = whole(left_type, m, k), whole(right_type, k, n)
        pair = []
        for value, dtype, turn in ((a, left_type, left), (b, right_type, right)):
            value = value.T.copy() if turn else value
            pair.append(gc.placeholder(dtype, value.shape if known else [None, None]))
            feeds[pair[-1]] = value
        fetches.append(gc.matmul(*pair, transpose_a=left, transpose_b=right, **more))
        expected.append(a.astype(np.float64) @ b.astype(np.float64))
    with gc.Session(device=device) as session, gc.compile_options(tf32=True):
        for found, wanted in zip(session.run(fetches, feeds), expected, strict=True):
            np.testing.assert_array_equal(found, wanted.astype(found.dtype))
    return "\n".join(getattr(device, "texts", ()))


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        *((kind, True) for kind in KINDS), ("bf16", False),
        *(pytest.param(k, False, marks=pytest.mark.slow) for k in ("f16", "tf32", "i8", "u8")),
    ],
)  # fmt: skip
def test_every_transposition_and_size(kind, known, device):
    sizes = SIZES if known else SIZES[1:4]
    text = products(kind, device, sizes, known)
    if isinstance(device, ShimDevice):
        assert f"gc_{kind}" in text or "gc_product_tf32<" in text
        assert ("gc_copy_async(left" in text) == known


@pytest.mark.parametrize("kind", ["bf16", "tf32", "u8"])
def test_no_product_has_a_race(kind, shim):
    products(kind, RaceDevice(both_orders=False), SIZES[:3], True)


def test_float32_has_all_its_bits_unless_fewer_are_asked_for(shim):
    a = gc.placeholder(gc.float32, [32, 32])
    x = RNG.standard_normal((32, 32)).astype(np.float32)
    y = gc.matmul(a, a)
    with gc.Session(device=shim) as session:
        exact = session.run(y, {a: x})
    with gc.Session(device=shim) as session, gc.compile_options(tf32=True):
        rounded = session.run(y, {a: x})
    np.testing.assert_allclose(exact, x @ x, rtol=1e-5, atol=1e-5)
    short = tensor_float(x).astype(np.float64)
    np.testing.assert_allclose(rounded, short @ short, rtol=1e-5, atol=1e-5)
    assert not np.allclose(exact, rounded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [16, 12])
def test_convolutions_copy_channels_at_once(channels, device):
    x = gc.placeholder(gc.bfloat16, [None, 9, 8, channels])
    w = gc.placeholder(gc.bfloat16, [3, 3, channels, 24])
    y = gc.nn.relu(gc.nn.conv2d(x, w, strides=[1, 2, 1, 1], padding="SAME"))
    feeds = {x: whole(gc.bfloat16, 2, 9, 8, channels), w: whole(gc.bfloat16, 3, 3, channels, 24)}
    with gc.Session() as cpu, gc.Session(device=device) as gpu:
        np.testing.assert_array_equal(gpu.run(y, feeds), cpu.run(y, feeds))
    if isinstance(device, ShimDevice):
        assert ("gc_copy_async(left" in device.texts[-1]) == (channels == 16)


class Changed(RaceDevice):
    """A device that changes the text of what it compiles."""

    def __init__(self, old: str, new: str, watch: bool) -> None:
        super().__init__(both_orders=not watch)
        self.change, self.watch = (old, new), watch

    def load(self, text: str, functions: Any) -> Any:
        assert self.change[0] in text
        load = RaceDevice.load if self.watch else ShimDevice.load
        return load(self, text.replace(*self.change), functions)

    def _run(self, *args: Any) -> None:
        (RaceDevice if self.watch else ShimDevice)._run(self, *args)


@pytest.mark.parametrize(
    ("old", "new", "watch", "fault"),
    [
        ("gc_copy_wait(1);", "gc_copy_wait(1);", False, None),
        ("gc_copy_wait(1);", "gc_copy_wait(1);", True, None),
        ("gc_copy_wait(1);", "", False, AssertionError),
        ("gc_copy_wait(1);", "gc_copy_wait(2);", False, AssertionError),
        ("gc_copy_wait(1);\n    __syncthreads();", "gc_copy_wait(1);", True, ShimFault),
        ("gc_copy_wait(1);\n    __syncthreads();", "__syncthreads();\ngc_copy_wait(1);", True,
         ShimFault),
        ("    gc_product<", "    if (x > 3) gc_product<", False, ShimFault),
        ("gc_copy_async(left + (", "gc_copy_async(left + 4 + (", False, ShimFault),
        ("lane5 / 4", "lane5 / 8", False, AssertionError),
    ],
    ids=[
        "nothing", "nothing, watched", "no wait", "short wait", "no barrier", "barrier first",
        "lanes", "misaligned", "layout",
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(old, new, watch, fault, shim):
    a = gc.placeholder(gc.bfloat16, [64, 96])
    value = whole(gc.bfloat16, 64, 96)
    y = gc.matmul(a, a, transpose_b=True)
    wanted = (value.astype(np.float64) @ value.T.astype(np.float64)).astype(value.dtype)

    def check() -> None:
        with gc.Session(device=Changed(old, new, watch)) as session:
            np.testing.assert_array_equal(session.run(y, {a: value}), wanted)

    if fault is None:
        check()
        return
    with pytest.raises(fault):
        check()


def test_the_interpreter_runs_a_tile():
    m, k, n = 70, 40, 48
    sizes = {"a": m * k, "b": k * n}
    a, b = (Buffer(name, bfloat16, const(size)) for name, size in sizes.items())
    c = Buffer("c", float32, const(m * n))
    problem = Contraction(
        batch=(), m=(const(m),), n=const(n), k=(const(k),), acc=float32,
        lhs=lambda _, i, t: Load(a, i[0] * k + t[0]),
        rhs=lambda _, t, j: Load(b, t[0] * n + j),
        epilogue=lambda _, i, j, value: (Store(c, i[0] * n + j, cast(value, float32)),),
    )  # fmt: skip
    kernel = verify_kernel(contraction_grid("product", (a, b, c), (), problem, GpuTarget()))
    assert any(isinstance(s, WarpProduct) for s in walk_stmt(kernel.body))
    text = format_kernel(kernel)
    assert format_kernel(verify_kernel(parse_kernel(text))) == text
    left, right = whole(bfloat16, m, k), whole(bfloat16, k, n)
    found = np.zeros((m, n), np.float32)
    run_kernel(kernel, [left, right, found])
    np.testing.assert_array_equal(found, left.astype(np.float32) @ right.astype(np.float32))
    early = parse_kernel(text.replace("await 1", "await 2"))
    with pytest.raises(KernelFault, match="read before it is written"):
        run_kernel(early, [left, right, found])


TILE = """\
kernel tile(x: f16[512], y: f32[256]):
  block b in 1:
    shared s: f16[512]
    thread i in 32:
      local t: f32[8]
      async 8 s[i * 8] = x[i * 8] if true
      commit
      await 0
      barrier
      warpproduct 16 16 16 t += s[0] by 16 1, s[256] by 16 1
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("async 8", "async 3", "a copy has"), ("x: f16", "x: bf16", "a global buffer of f16"),
        ("if true", "if i", "must be b1"), ("in 32", "in 16", "whole warps"),
        ("t: f32[8]", "t: f32[4]", "a thread has 8 sums"), ("t: f32", "t: f16", "no tensor core"),
        ("16 16 16 t", "16 8 16 t", "no multiple of 16"),
        ("s[256] by 16 1", "s[256] by 2 2", "are not 1 and rows"),
        ("s[256] by 16 1", "x[256] by 16 1", "in shared memory"),
        ("      warpproduct", "      if i < 16:\n        warpproduct", "depends on i"),
        ("shared s: f16[512]", "shared s: f32[512]", "a global buffer of f32"),
    ],
)  # fmt: skip
def test_the_verifier_knows_the_rules(old, new, message):
    verify_kernel(parse_kernel(TILE))
    with pytest.raises(VerifyError, match=message):
        verify_kernel(parse_kernel(TILE.replace(old, new)))
