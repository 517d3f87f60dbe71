"""Index arithmetic and schedule primitives, each checked by running what it makes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc.loop.affine import equal, linear, multiple_of
from graphc.loop.interpret import run_kernel
from graphc.loop.ir import For, Kernel, LoopKind, Var, apply, block, const
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import format_expr, format_kernel, format_stmt
from graphc.loop.transform import (
    Rewriter,
    ScheduleError,
    close_nest,
    collapse,
    drop_unit_loops,
    fuse_counters,
    interchange,
    jam,
    open_nest,
    parallelize,
    split,
    unroll,
)
from graphc.loop.transform_vector import (
    vector_count,
    vectorize,
    vectorize_block,
    vectorize_reduction,
)
from graphc.loop.verify import verify_kernel

ROW, COLUMN, N = Var("i"), Var("j"), Var("n")


@pytest.mark.parametrize(
    ("expr", "coefficient", "rest"),
    [
        (ROW, "1", "0"),
        (ROW * 4 + COLUMN, "4", "j"),
        (N - ROW * 2 + ROW * N, "-2 + n", "n"),
        ((ROW + COLUMN) * N + 3, "n", "j * n + 3"),
        (COLUMN * N, "0", "j * n"),
    ],
)
def test_linear_expressions(expr, coefficient, rest):
    found = linear(expr, ROW)
    assert found is not None
    assert equal(found[0], parse(coefficient))
    assert equal(found[1], parse(rest))


def parse(text):
    kernel = parse_kernel(f"kernel k(x: i64[1]; i, j, n):\n  x[0] = {text}\n")
    names = {v.name: v for v in kernel.scalars}
    binding = {names["i"]: ROW, names["j"]: COLUMN, names["n"]: N}
    return Rewriter(binding).expr(kernel.body.stmts[0].value)


def test_what_is_not_linear():
    for expr in (ROW * ROW, ROW // 2, apply("min", ROW, COLUMN), (ROW + 1) * (ROW + 2)):
        assert linear(expr, ROW) is None


def test_sizes_are_compared_as_polynomials():
    assert equal((N + 1) * (N + 1), N * N + N * 2 + 1)
    assert equal(N // 4 * 4, const(4) * (N // 4))
    assert not equal(N // 4 * 4, N)
    assert multiple_of(N * 8 + 16, 8)
    assert not multiple_of(N * 8 + 4, 8)


COPY = "kernel k(x: f32[n], y: f32[n]; n):\n  for i in n:\n    y[i] = x[i] + f32(i)\n"


def check(kernel: Kernel, n: int) -> None:
    verify_kernel(kernel)
    x = np.arange(n, dtype=np.float32)
    y = np.zeros(n, np.float32)
    run_kernel(kernel, [x, y], [n])
    np.testing.assert_array_equal(y, x * 2)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 23])
@pytest.mark.parametrize("tail", ["guard", "loop"])
def test_split(n, tail):
    kernel = parse_kernel(COPY)
    check(replace(kernel, body=split(kernel.body.stmts[0], 8, tail)), n)


def test_split_exact():
    kernel = parse_kernel(COPY)
    check(replace(kernel, body=split(kernel.body.stmts[0], 8, "exact")), 24)
    with pytest.raises(ScheduleError):
        split(replace(kernel.body.stmts[0], extent=const(9)), 8, "exact")


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 64])
def test_vectorize(n):
    kernel = parse_kernel(COPY)
    loops, body = open_nest(kernel.body.stmts[0])
    check(replace(kernel, body=vectorize(loops[0], body, 16)), n)
    if n:
        known = (loops[0][0], const(n))
        made = vectorize(known, body, 16)
        check(replace(kernel, body=made), n)
        # A rest of one element needs no mask.
        assert ("if l" in format_stmt(made)) == (n % 16 not in (0, 1) or n == 1)


@pytest.mark.parametrize("n", [0, 1, 16, 40])
def test_vectorize_block(n):
    kernel = parse_kernel(COPY)
    loops, body = open_nest(kernel.body.stmts[0])
    at = Var("b")
    inner = vectorize_block(loops[0], body, 16, at)
    loop = For(at, vector_count(loops[0][1], 16), LoopKind.SERIAL, inner)
    check(parallelize(replace(kernel, body=block(loop)), const(4)), n)


NEST = """\
kernel k(x: f32[n * m], y: f32[n * m]; n, m):
  for i in n:
    for j in m:
      y[i * m + j] = x[i * m + j] + 1.0f32
"""


def check_nest(kernel: Kernel, n: int, m: int) -> None:
    verify_kernel(kernel)
    x = np.arange(n * m, dtype=np.float32)
    y = np.zeros_like(x)
    run_kernel(kernel, [x, y], [n, m])
    np.testing.assert_array_equal(y, x + 1)


def test_loops_without_a_gap_become_one():
    kernel = parse_kernel(NEST)
    loops, body = collapse(*open_nest(kernel.body.stmts[0]))
    assert [format_expr(e) for _, e in loops] == ["n * m"]
    check_nest(replace(kernel, body=close_nest(loops, body)), 3, 5)


@pytest.mark.parametrize("change", ["x[j * n + i]", "f32(j)", "x[i * m + j + i]", "x[i]"])
def test_loops_with_a_gap_stay(change):
    kernel = parse_kernel(NEST.replace("x[i * m + j]", change))
    loops, _ = collapse(*open_nest(kernel.body.stmts[0]))
    assert len(loops) == 2


def test_interchange_and_unroll():
    kernel = parse_kernel(NEST)
    outer = interchange(kernel.body.stmts[0])
    assert outer.var.name == "j"
    check_nest(replace(kernel, body=block(outer)), 3, 5)
    with pytest.raises(ScheduleError):
        interchange(outer.body.stmts[0])
    with pytest.raises(ScheduleError):
        unroll(outer)
    assert unroll(replace(outer, extent=const(2))).kind is LoopKind.UNROLLED


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_iterations_together(factor):
    """One loop for the taps, a total for each of them, in the order of the statements."""
    text = """\
kernel k(x: f32[40], w: f32[3], y: f32[6]):
  for i in 6:
    local s: f32[1]
    s[0] = 0.5f32
    for t in 3:
      let at = i * 5 + t
      s[0] += x[at] * w[t]
    let v: f32 = s[0]
    y[i] = v
"""
    kernel = parse_kernel(text)
    (loop,) = kernel.body.stmts
    outer = Var("io")
    body = jam(loop.body, loop.var, outer * factor, factor)
    made = For(outer, const(6 // factor), LoopKind.SERIAL, body)
    made = verify_kernel(replace(kernel, body=block(made)))
    shown = format_kernel(made)
    assert shown.count("for t") == 1
    assert shown.count("local ") == factor
    assert format_kernel(parse_kernel(shown)) == shown
    x, w = np.arange(40, dtype=np.float32), np.array([1, 2, 4], np.float32)
    found, wanted = np.zeros(6, np.float32), np.zeros(6, np.float32)
    run_kernel(made, [x, w, found], [])
    run_kernel(kernel, [x, w, wanted], [])
    assert found.tolist() == wanted.tolist() == [0.5 + x[5 * i : 5 * i + 3] @ w for i in range(6)]


def test_one_counter_for_several_loops():
    kernel = parse_kernel(NEST)
    loops, body = open_nest(kernel.body.stmts[0])
    counter, extent, lets = fuse_counters(loops)
    loop = For(counter, extent, LoopKind.SERIAL, block(*lets, *body.stmts))
    check_nest(parallelize(replace(kernel, body=block(loop))), 3, 5)


def test_loops_of_one_iteration_go():
    text = NEST.replace("for j in m", "for j in 1").replace(" * m", "")
    kernel = parse_kernel(text)
    loops, body = drop_unit_loops(*open_nest(kernel.body.stmts[0]))
    assert len(loops) == 1
    assert format_stmt(body.stmts[0]) == "y[i] = x[i] + 1.0f32"


@pytest.mark.parametrize("n", [0, 1, 16, 100])
@pytest.mark.parametrize("m", [1, 3])
def test_reductions_by_lanes(n, m):
    text = """\
kernel k(x: f32[m * n], y: f32[2]; n, m):
  local s: f32[1]
  s[0] = 0.5f32
  local t: f32[1]
  t[0] = -inf_f32
  for j in m:
    for i in n:
      s[0] += x[j * n + i]
      t[0] max= x[j * n + i]
  y[0] = s[0]
  y[1] = t[0]
"""
    kernel = parse_kernel(text)
    stmts = list(kernel.body.stmts)
    loops, body = open_nest(stmts[4])
    stmts[4] = vectorize_reduction(loops[:1], loops[1], body, 16)
    made = verify_kernel(replace(kernel, body=block(*stmts)))
    x = np.arange(m * n, dtype=np.float32)
    y = np.zeros(2, np.float32)
    run_kernel(made, [x, y], [n, m])
    assert y.tolist() == [x.sum() + 0.5, x.max(initial=-np.inf)]
    assert "sv[l] +=" in format_kernel(made)


def test_a_loop_without_scalars_has_no_lanes_to_combine():
    kernel = parse_kernel(COPY)
    loops, body = open_nest(kernel.body.stmts[0])
    with pytest.raises(ScheduleError):
        vectorize_reduction([], loops[0], body, 16)
