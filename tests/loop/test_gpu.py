"""Schedules for GPUs: what they look like, and that they do what the naive kernel does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc.errors import VerifyError
from graphc.loop.gpu import GpuTarget, schedule_gpu
from graphc.loop.gpu_template import thread_per_iteration
from graphc.loop.interpret import run_kernel
from graphc.loop.interpret_values import Evaluator
from graphc.loop.ir import Alloc, Block, For, Kernel, LoopKind, Scope, Stmt, Var, walk_stmt
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import format_kernel
from graphc.loop.transform import ScheduleError, instance
from graphc.loop.verify import verify_kernel

SMALL = GpuTarget(threads=64, blocks=3)

SCALE = """\
kernel scale(x: f32[n], y: f32[n]; n):
  for i in n:
    y[i] = x[i] * 2.0f32 + 1.0f32
"""
BIAS = """\
kernel bias(x: f32[n * 12], b: f32[12], y: f32[n * 12]; n):
  for i in n:
    for j in 12:
      let v: f32 = x[i * 12 + j] + b[j]
      y[i * 12 + j] = max(v, 0.0f32)
"""
TURNED = """\
kernel turned(x: f32[n * 40], y: f32[n * 40]; n):
  for i in n:
    for j in 40:
      y[i * 40 + j] = x[j * n + i] + y[i * 40 + j]
"""
SOFTMAX = """\
kernel softmax(x: f32[n * 50], y: f32[n * 50]; n):
  for i in n:
    local m: f32[1]
    m[0] = -inf_f32
    for j in 50:
      m[0] max= x[i * 50 + j]
    let most: f32 = m[0]
    local s: f32[1]
    s[0] = 0.0f32
    for j in 50:
      let e: f32 = exp(x[i * 50 + j] - most)
      y[i * 50 + j] = e
      s[0] += e
    let sum: f32 = s[0]
    for j in 50:
      y[i * 50 + j] = y[i * 50 + j] / sum
"""
ROWS = """\
kernel rows(x: f32[n * 50], y: f32[n]; n):
  for i in n:
    local s: f32[1]
    s[0] = 0.0f32
    for j in 50:
      s[0] += x[i * 50 + j]
    y[i] = s[0] / 50.0f32
"""
COLUMNS = """\
kernel columns(x: f32[50 * n], y: f32[n]; n):
  for i in n:
    local s: f32[1]
    s[0] = 0.0f32
    for j in 50:
      s[0] += x[j * n + i]
    y[i] = s[0]
"""
CENTRED = """\
kernel centred(x: f32[50 * n], y: f32[50 * n], m: f32[n]; n):
  for i in n:
    local s: f32[1]
    s[0] = 0.0f32
    for j in 50:
      s[0] += x[j * n + i]
    let mean: f32 = s[0] / 50.0f32
    m[i] = mean
    for j in 50:
      y[j * n + i] = x[j * n + i] - mean
"""
EVERYTHING = """\
kernel everything(x: f32[n], y: f32[1]; n):
  local s: f32[1]
  s[0] = 0.0f32
  for i in n:
    s[0] += x[i]
  y[0] = s[0] * 0.5f32
"""
CHAIN = """\
kernel chain(x: f32[n], y: f32[n]; n):
  local s: f32[1]
  s[0] = 0.0f32
  for i in n:
    s[0] += x[i]
    y[i] = s[0]
"""
LANES = """\
kernel lanes(x: f32[n * 16], y: f32[n * 16]; n) grain 4:
  let first = 0
  parallel i in n:
    vectorized l in 16:
      if l < 15:
        y[i * 16 + l] = x[first + i * 16 + l] + 1.0f32
"""
PUT = """\
kernel put(x: f32[n * 5], row: f32[5], y: f32[n * 5]; n):
  let at = n // 2
  for c in (n * 5) // 4:
    vectorized l in 4:
      y[c * 4 + l] = x[c * 4 + l]
  if n * 5 % 4 > 0:
    vectorized l in 4:
      if (n * 5) // 4 * 4 + l < n * 5:
        y[(n * 5) // 4 * 4 + l] = x[(n * 5) // 4 * 4 + l]
  if at < n:
    for c in 5:
      y[at * 5 + c] += row[c]
"""
COUNTED = """\
kernel counted(x: f32[n], y: f32[n]; n):
  local k: i64[1]
  k[0] = 0
  for i in n:
    y[k[0]] = x[i]
    if x[i] > 0.0f32:
      k[0] += 1
"""
NAIVE = {
    k.split("(")[0].split()[-1]: k
    for k in (SCALE, BIAS, TURNED, SOFTMAX, ROWS, COLUMNS, CENTRED, EVERYTHING, CHAIN)
}


def naive(text: str) -> Kernel:
    """A kernel as lowering makes them: loops of one name in a row share their variable."""
    kernel = parse_kernel(text)
    first: dict[str, Var] = {}

    def shared(stmt: Stmt) -> Stmt:
        if isinstance(stmt, Block):
            return Block(tuple(shared(s) for s in stmt.stmts))
        if not isinstance(stmt, For):
            return stmt
        var = first.setdefault(stmt.var.name, stmt.var)
        body = stmt.body if var is stmt.var else instance(stmt.body, {stmt.var: var})
        return replace(stmt, var=var, body=shared(body))

    return replace(kernel, body=shared(kernel.body))


def workspaces(kernel: Kernel, given: int) -> list[np.ndarray]:
    evaluator = Evaluator()
    return [
        np.full(evaluator.eval(p.size), np.nan, p.dtype.numpy) for p in kernel.params[given:]
    ]


def outputs(kernel: Kernel, size: int, workspace: list[np.ndarray]) -> list[np.ndarray]:
    rng = np.random.default_rng(size)
    arrays = []
    for param in kernel.params[: len(kernel.params) - len(workspace)]:
        evaluator = Evaluator()
        evaluator.env.update(dict.fromkeys(kernel.scalars, size))
        arrays.append(rng.standard_normal(evaluator.eval(param.size)).astype(param.dtype.numpy))
    run_kernel(kernel, [*arrays, *workspace], [size])
    return arrays


@pytest.mark.parametrize("name", NAIVE)
def test_the_schedule(name, golden):
    kernel = verify_kernel(schedule_gpu(naive(NAIVE[name]), GpuTarget()))
    text = format_kernel(kernel)
    assert format_kernel(parse_kernel(text)) == text
    golden(f"gpu-{name}", text)


@pytest.mark.parametrize("size", [0, 1, 5, 130])
@pytest.mark.parametrize("name", NAIVE)
def test_a_schedule_does_what_the_naive_kernel_does(name, size):
    plain = naive(NAIVE[name])
    kernel = verify_kernel(schedule_gpu(plain, SMALL))
    found = outputs(kernel, size, workspaces(kernel, len(plain.params)))
    for value, wanted in zip(found, outputs(plain, size, []), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [0, 1, 5, 200])
@pytest.mark.parametrize("text", [LANES, PUT, COUNTED], ids=["lanes", "put", "counted"])
def test_a_template_for_cpus_has_a_thread_for_each_iteration(text, size):
    cpu = parse_kernel(text)
    kernel = verify_kernel(thread_per_iteration(cpu, SMALL))
    for value, wanted in zip(outputs(kernel, size, []), outputs(cpu, size, []), strict=True):
        np.testing.assert_array_equal(value, wanted)


def threads(kernel: Kernel) -> list[int]:
    loops = [s for s in walk_stmt(kernel.body) if isinstance(s, For)]
    return [s.extent.value for s in loops if s.kind is LoopKind.THREAD]


def test_what_depends_on_its_order_is_one_threads_work():
    assert threads(thread_per_iteration(parse_kernel(PUT), SMALL)) == [64, 64, 64]
    assert threads(thread_per_iteration(parse_kernel(COUNTED), SMALL)) == [1]
    overlapping = PUT.replace("y[at * 5 + c] +=", "y[at * 5 + c // 2] +=")
    assert threads(thread_per_iteration(parse_kernel(overlapping), SMALL)) == [64, 64, 1]


def test_how_many_threads_there_are_must_be_known_before_a_launch():
    text = "kernel k(x: i64[1], y: i64[9]):\n  parallel i in x[0]:\n    y[i] = i\n"
    with pytest.raises(ScheduleError, match="known when it runs only"):
        thread_per_iteration(parse_kernel(text), SMALL)


def test_totals_that_shared_memory_does_not_hold_are_a_threads_own():
    stages = "".join(
        f"    local s{k}: f64[1]\n    s{k}[0] = 0.0f64\n    for j in 50:\n"
        f"      s{k}[0] += x[j * n + i] * {k}.0f64\n    y[i * 60 + {k}] = s{k}[0]\n"
        for k in range(60)
    )
    head = "kernel many(x: f64[50 * n], y: f64[60 * n]; n):\n  for i in n:\n"
    plain = naive(head + stages)
    kernel = verify_kernel(schedule_gpu(plain, GpuTarget()))
    assert not any(isinstance(s, Alloc) and s.buffer.scope is Scope.SHARED
                   for s in walk_stmt(kernel.body))  # fmt: skip
    for value, wanted in zip(outputs(kernel, 5, []), outputs(plain, 5, []), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-12)
    few = parse_kernel(
        "kernel k(x: f64[1]):\n  block b in 1:\n    shared s: f64[6144]\n    shared t: f64[1]\n"
        "    thread i in 1:\n      x[0] = 0.0f64\n"
    )
    with pytest.raises(VerifyError, match="shares 49152 bytes at most"):
        verify_kernel(few)
