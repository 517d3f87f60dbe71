"""The loop IR's text: printing, and reading back."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from graphc import dtypes
from graphc.dtypes import bfloat16, float16, float32, float64, int32
from graphc.errors import CompileError
from graphc.loop.ir import (
    ONE,
    Block,
    Buffer,
    Const,
    Expr,
    For,
    Kernel,
    Load,
    LoopKind,
    Store,
    Var,
    apply,
    bitcast,
    block,
    cast,
    const,
)
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import format_expr, format_kernel, format_stmt, format_unnamed

EVERYTHING = """\
kernel everything(x: f32[n * m], y: f32[n * m], flags: b1[4]; n, m) grain max(1, 4096 // m):
  let half = (n + 1) // 2
  parallel i in half:
    local acc: f32[2]
    acc[0] = -inf_f32
    acc[1] = -0.0f32
    for j in m:
      prefetch x[i * m + j + 512]
      acc[0] max= x[i * m + j]
      acc[1] += f32(j) * (x[i * m + j] - 1e-05f32)
    vectorized l in 16:
      local own: i32[1]
      own[0] = i32(l) - -3i32
      if l < m and not(flags[l % 4]):
        stream y[i * m + l] = guard(own[0] > 2i32, x[i * m + l], nan_f32)
      else:
        y[0] = require#7(i < n, acc[0], i, n)
    unrolled k in 2:
      scope:
        let bits: u32 = bitcast.u32(acc[k])
        y[k] = bitcast.f32(lshr(bits, 1u32) xor bits)
    if i == 0:
      pass
"""

GRID = """\
kernel grid(x: f32[256], y: f32[256]):
  block b in 2:
    shared t: f32[128]
    thread ty in 4:
      thread tx in 32:
        t[ty * 32 + tx] = x[b * 128 + ty * 32 + tx]
        barrier
        local m: f32[1]
        m[0] = t[tx]
        allreduce max m[0]
        y[b * 128 + ty * 32 + tx] = t[127 - (ty * 32 + tx)]
"""


@pytest.mark.parametrize("text", [EVERYTHING, GRID], ids=["everything", "grid"])
def test_what_was_read_prints_as_it_was(text):
    assert format_kernel(parse_kernel(text)) == text


def nan(bits: int) -> float:
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (0.1, float32, "0.1f32"),
        (0.1, float64, "0.1f64"),
        (-0.0, float32, "-0.0f32"),
        (float("-inf"), float16, "-inf_f16"),
        (0.1, bfloat16, "0.100098bf16"),
        (2.5, bfloat16, "2.5bf16"),
        (float("inf"), bfloat16, "inf_bf16"),
        (float("nan"), float64, "nan_f64"),
        (nan(0xFFF8000020000000), float32, "nan_0xfff8000020000000_f32"),
        (5e-324, float64, "5e-324f64"),
        (3.4028234663852886e38, float32, "3.4028235e+38f32"),
        (-3, int32, "-3i32"),
        (-3, dtypes.int64, "-3"),
        (True, dtypes.bool_, "true"),
    ],
)
def test_constants_keep_their_bits(value, dtype, text):
    made = Const(value, dtype)
    assert format_expr(made) == text
    out = Buffer("y", dtype, ONE)
    printed = format_kernel(Kernel("k", (out,), (), block(Store(out, const(0), made))))
    back = parse_kernel(printed).body.stmts[0].value
    assert back.dtype is dtype
    raw = [np.asarray(c.value, dtype.numpy).tobytes() for c in (made, back)]
    assert raw[0] == raw[1]


def test_what_differs_prints_differently():
    a, b = Var("a", float32), Var("b", float32)
    exprs: list[Expr] = [
        (a + b) + a,
        a + (b + a),
        a - (b - a),
        (a - b) - a,
        apply("eq", a < b, b < a),
        (a + 1.0) < b,
        cast(cast(a, int32), float32),
        bitcast(bitcast(a, int32), float32),
        a + const(0.1, float32),
        a + const(0.1 + 1e-8, float32),
        apply("select", a < b, a, b),
    ]
    assert len({format_expr(e) for e in exprs}) == len(exprs)


def serial(var: Var, extent: int, body: Block) -> For:
    return For(var, const(extent), LoopKind.SERIAL, body)


def test_names_that_clash_get_numbers():
    x = Buffer("x", float32, const(8))
    outer, inner, again, word = Var("i"), Var("i"), Var("i"), Var("for")
    first = Store(x, outer + inner, const(1, float32))
    second = Store(x, outer + again, const(1, float32))
    loops = (serial(inner, 2, block(first)), serial(again, 2, block(second)))
    body = block(serial(outer, 2, block(*loops)), serial(word, 2, Block(())))
    text = format_kernel(Kernel("k", (x,), (), body))
    assert text == (
        "kernel k(x: f32[8]):\n"
        "  for i in 2:\n"
        "    for i_1 in 2:\n"
        "      x[i + i_1] = 1.0f32\n"
        "    for i_1 in 2:\n"
        "      x[i + i_1] = 1.0f32\n"
        "  for for_ in 2:\n"
        "    pass\n"
    )
    assert format_kernel(parse_kernel(text)) == text


def test_shared_and_long_expressions_stand_before_the_statement():
    x = Buffer("x", float32, const(8))
    value: Expr = Load(x, const(0))
    for _ in range(60):  # 2**60 nodes as a tree
        value = apply("add", apply("exp", value), apply("exp", value))
    text = format_kernel(Kernel("k", (x,), (), block(Store(x, const(0), value))))
    assert len(text) < 10_000
    assert "  %1 = " in text
    assert format_kernel(parse_kernel(text)) == text


def test_a_chain_of_thousands_needs_no_recursion():
    x = Buffer("x", float32, const(8))
    value: Expr = Load(x, const(0))
    for _ in range(3000):
        value = value * 0.5 + 1.0
    text = format_kernel(Kernel("k", (x,), (), block(Store(x, const(0), value))))
    assert max(map(len, text.splitlines())) < 200
    assert format_kernel(parse_kernel(text)) == text


def test_statements_print_out_of_context():
    x, i = Buffer("x", float32, const(8)), Var("i")
    assert format_stmt(Store(x, i, Load(x, i + 1))) == "x[i] = x[i + 1]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kernal k():\n", "expected 'kernel"),
        ("kernel k(x: f32[4]):\n  x[i] = 1.0f32\n", "line 2: no variable 'i' in scope"),
        ("kernel k(x: f32[4]):\n  x[0] = y[0]\n", "no buffer 'y' in scope"),
        ("kernel k(x: f32[4]):\n  x[0] = 1.0f32 +\n", "found 'the end'"),
        ("kernel k(x: f32[4]):\n    x[0] = 1.0f32\n", "unexpected indentation"),
        ("kernel k(x: f32[4]):\n  x[0] = %1\n", "%1 is not defined above"),
        ("kernel k(x: f32[4]):\n  x[0] = 1.0f31\n", "cannot read"),
        ("kernel k(x: f32[4]):\n  let a: q8 = 1\n", "no dtype 'q8'"),
        ("kernel k(x: f32[4]):\n  call x\n", "no such statement"),
    ],
)
def test_wrong_text_is_refused_with_its_line(text, message):
    with pytest.raises(CompileError) as caught:
        parse_kernel(text)
    assert message in str(caught.value)


def test_texts_without_names_tell_variables_apart():
    """Also behind a variable that two loops declare, one after the other."""
    x, i, j, n = Buffer("x", float32, const(16)), Var("i"), Var("j"), Var("n")

    def kernel(at, size=16):
        one, two = (Const(v, float32) for v in (1.0, 2.0))
        first = For(i, const(4), LoopKind.SERIAL, Block((Store(x, i, one),)))
        inner = For(j, const(4), LoopKind.SERIAL, Block((Store(x, at, two),)))
        second = For(i, const(size), LoopKind.SERIAL, Block((inner,)))
        return Kernel("k", (x,), (n,), Block((first, second)))

    texts = {format_unnamed(kernel(at)) for at in (i, j, n)} | {format_unnamed(kernel(i, 5))}
    assert len(texts) == 4


def test_texts_without_names_are_the_same_for_any_names():
    text = "kernel {k}({x}: f32[{n}]; {n}):\n  for {i} in {n}:\n    {x}[{i}] = {x}[{i}] + 1.0f32\n"
    long = "a" * 60
    one, two = (
        parse_kernel(text.format(k=k, x=x, n=n, i=i))
        for k, x, n, i in (("k", "x", "n", "i"), ("f", "b12", long + "1", long + "2"))
    )
    assert format_kernel(one) != format_kernel(two)
    assert format_unnamed(one) == format_unnamed(two)
