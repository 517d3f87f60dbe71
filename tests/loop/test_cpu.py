"""CPU schedules of typical kernels, as text, and the decisions behind them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import graphc as gc
from graphc.loop.cpu import schedule_cpu
from graphc.loop.ir import Const, Kernel
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import format_kernel
from graphc.loop.verify import verify_kernel

WIDE = SimpleNamespace(vector_bytes=64, has_avx512=True, has_fma=True)

SCALE = """\
kernel scale(x: f32[n], y: f32[n]; n):
  for i in n:
    y[i] = x[i] * 2.0f32 + 1.0f32
"""
BIAS = """\
kernel bias(x: f32[n * 400], b: f32[400], y: f32[n * 400]; n):
  for i in n:
    for c in 4:
      for j in 100:
        y[i * 400 + c * 100 + j] = max(x[i * 400 + c * 100 + j] + b[c * 100 + j], 0.0f32)
"""
SOFTMAX = """\
kernel softmax(x: f32[n * m], y: f32[n * m]; n, m):
  for i in n:
    local top: f32[1]
    top[0] = -inf_f32
    for j in m:
      top[0] max= x[i * m + j]
    local s: f32[1]
    s[0] = 0.0f32
    for j in m:
      s[0] += exp(x[i * m + j] - top[0])
    for j in m:
      y[i * m + j] = exp(x[i * m + j] - top[0]) / s[0]
"""
COLUMNS = """\
kernel columns(x: f32[n * 1024], y: f32[1024]; n):
  for j in 1024:
    local s: f32[1]
    s[0] = 0.0f32
    for i in n:
      s[0] += x[i * 1024 + j]
    y[j] = s[0]
"""
TURN = """\
kernel turn(x: f32[n * m], y: f32[n * m]; n, m):
  for i in n:
    for j in m:
      y[i * m + j] = x[j * n + i]
"""
MEAN = """\
kernel mean(x: f16[1 * 128 * 10], y: f32[1]):
  for i in 1:
    local s: f32[1]
    s[0] = 0.0f32
    for j in 128:
      for k in 10:
        s[0] += f32(x[i * 1280 + j * 10 + k])
    y[i] = s[0] / 1280.0f32
"""
TYPICAL = dict(scale=SCALE, bias=BIAS, softmax=SOFTMAX, columns=COLUMNS, turn=TURN, mean=MEAN)


def scheduled(text: str, target=WIDE) -> Kernel:
    return verify_kernel(schedule_cpu(verify_kernel(parse_kernel(text)), target))


@pytest.mark.parametrize("name", TYPICAL)
def test_typical_kernels(name, golden):
    golden(f"cpu_{name}", format_kernel(scheduled(TYPICAL[name])))


def test_small_problems_run_on_one_thread():
    small = SCALE.replace("; n", "").replace("[n]", "[1000]").replace("in n", "in 1000")
    assert scheduled(small).parallel is None
    large = small.replace("1000", "10000000")
    assert scheduled(large).parallel is not None


def test_grains_follow_from_the_work():
    large = SCALE.replace("; n", "").replace("[n]", "[9999999]").replace("in n", "in 9999999")
    cheap, costly = scheduled(large), scheduled(large.replace("x[i] * 2.0f32", "exp(x[i])"))
    assert isinstance(cheap.grain, Const)
    assert isinstance(costly.grain, Const)
    assert cheap.grain.value > costly.grain.value >= 1


def test_narrow_targets_get_narrow_vectors():
    narrow = SimpleNamespace(vector_bytes=16, has_avx512=False, has_fma=False)
    assert "vectorized l in 64:" in format_kernel(scheduled(SCALE))
    assert "vectorized l in 16:" in format_kernel(scheduled(SCALE, narrow))
    doubles = SCALE.replace("f32", "f64")
    assert "vectorized l in 32:" in format_kernel(scheduled(doubles))


@pytest.mark.parametrize(
    "text",
    [
        # Reduces into a parameter: the order is the kernel's meaning.
        "kernel k(x: f32[n], y: f32[1]; n):\n  for i in n:\n    y[0] += x[i]\n",
        # Reads what another iteration writes.
        "kernel k(x: f32[n]; n):\n  for i in n - 1:\n    x[i + 1] = x[i]\n",
    ],
)
def test_what_is_not_independent_stays_as_it_is(text):
    kernel = parse_kernel(text)
    assert schedule_cpu(kernel, WIDE) is kernel


def test_an_update_in_place_is_independent():
    text = "kernel k(x: f32[n], g: f32[n]; n):\n  for i in n:\n    x[i] = x[i] - g[i]\n"
    assert "vectorized" in format_kernel(scheduled(text))


def test_lets_before_the_nest_stay_there():
    text = "kernel k(x: f32[n]; n):\n  let m = n // 2\n  for i in m:\n    x[i] = 1.0f32\n"
    kernel = scheduled(text)
    assert kernel.parallel is not None
    assert format_kernel(kernel).splitlines()[1] == "  let m = n // 2"


def test_nothing_is_left_of_empty_loops():
    text = "kernel k(x: f32[4]):\n  for i in 4:\n    for j in 0:\n      x[j] = 1.0f32\n"
    assert format_kernel(scheduled(text)) == "kernel k(x: f32[4]):\n  pass\n"


def asked(kernel: Kernel) -> list[str]:
    lines = format_kernel(verify_kernel(kernel)).splitlines()
    return [line.strip().removeprefix("prefetch ") for line in lines if "prefetch" in line]


FAR_SCALE = """\
kernel scale(x: f32[33554432], y: f32[33554432]):
  for i in 33554432:
    y[i] = x[i] * 2.0f32 + 1.0f32
"""
FAR_ROWS = """\
kernel rows(x: f32[33554432], y: f32[33554432]):
  for i in 8192:
    local top: f32[1]
    top[0] = -inf_f32
    for j in 4096:
      top[0] max= x[i * 4096 + j]
    for j in 4096:
      y[i * 4096 + j] = x[i * 4096 + j] - top[0]
"""
FAR_TURN = """\
kernel turn(x: f32[33554432], y: f32[33554432]):
  for i in 8192:
    for j in 4096:
      y[i * 4096 + j] = x[j * 8192 + i]
"""


def test_what_is_far_is_asked_for_a_page_ahead():
    kernel = schedule_cpu(parse_kernel(FAR_SCALE), WIDE)
    printed = format_kernel(kernel)
    lanes = next(int(s.split()[-1][:-1]) for s in printed.splitlines() if "vectorized" in s)
    ends = [place.rsplit("+ ", 1)[1] for place in asked(kernel)]
    # Each of the lines, of 16 elements, that a vector reads.
    assert ends == [f"{1024 + 16 * k}]" for k in range(lanes // 16)]
    assert all(place.startswith("x[") for place in asked(kernel))


def test_what_a_row_has_read_is_at_hand():
    printed = format_kernel(schedule_cpu(parse_kernel(FAR_ROWS), WIDE))
    _, largest, differences = printed.split("for jv")
    assert "prefetch x[" in largest
    assert "prefetch" not in differences


FAR_MIDDLE = """\
kernel middle(x: f32[16777216], y: f32[4194304]):
  for i in 65536:
    for j in 64:
      local s: f32[1]
      s[0] = 0.0f32
      for k in 4:
        s[0] += x[i * 256 + k * 64 + j]
      y[i * 64 + j] = s[0]
"""
FAR_GUARDED = """\
kernel guarded(x: f32[33554432], ids: i64[64], y: f32[34603008]):
  for i in 66:
    for j in 524288:
      y[i * 524288 + j] = guard(i >= 1 and i < 65, x[ids[i - 1] * 524288 + j], 0.0f32)
"""
FAR_NAMED = """\
kernel named(x: f32[33554432], ids: i64[64], y: f32[33554432]):
  for i in 64:
    for j in 524288:
      let t: i64 = ids[i]
      y[i * 524288 + j] = x[t * 524288 + j]
"""


@pytest.mark.parametrize(
    "text",
    [
        SCALE, FAR_SCALE.replace("33554432", "4096"), FAR_TURN, FAR_MIDDLE, FAR_GUARDED, FAR_NAMED,
    ],
    ids=["of unknown size", "small", "across the grain", "inner loop", "guarded", "named inside"],
)
def test_what_is_not_asked_for(text):
    assert asked(schedule_cpu(parse_kernel(text), WIDE)) == []


def test_two_runs_of_one_parameter_are_both_asked_for():
    text = FAR_SCALE.replace("x[i] * 2.0f32", "x[i] * x[i + 1048576]")
    places = asked(schedule_cpu(parse_kernel(text.replace("in 33554432", "in 32505856")), WIDE))
    second = [place for place in places if "+ 1048576 +" in place]
    assert len(places) == 2 * len(second) > 0


@pytest.mark.parametrize("reduce", [gc.reduce_sum, gc.reduce_max, gc.argmax])
def test_a_small_axis_of_what_is_far(reduce):
    x = np.random.default_rng(0).normal(size=(8200, 4, 64)).astype(np.float32)
    with gc.Graph().as_default():
        fed = gc.placeholder(gc.float32, x.shape)
        with gc.Session() as s:
            found = s.run(reduce(fed, 1), {fed: x})
    numpy = {gc.reduce_sum: np.sum, gc.reduce_max: np.max, gc.argmax: np.argmax}[reduce]
    np.testing.assert_allclose(found, numpy(x, 1), rtol=1e-5, atol=1e-5)


def test_expressions_that_share_their_parts_are_walked_once():
    """One that is added to itself a hundred times would be read 2**100 times."""
    lines = ["    %1 = x[i] * 2.0f32"]
    lines += [f"    %{k} = %{k - 1} + %{k - 1}" for k in range(2, 102)]
    head = FAR_SCALE.rsplit("    y[i]", 1)[0]
    kernel = parse_kernel(head + "\n".join([*lines, "    y[i] = %101", ""]))
    assert asked(schedule_cpu(kernel, WIDE))


def test_a_large_tensor_of_random_numbers():
    with gc.Graph().as_default():
        value = gc.reduce_mean(gc.random_normal([2048, 1040], seed=1))
        large = gc.Variable(gc.random_normal([2048, 1040], seed=2))
        with gc.Session() as s:
            s.run(large.initializer)
            assert abs(s.run(value)) < 0.01
            assert abs(s.run(large).std() - 1) < 0.01
