"""The loop IR's rules: each one broken, and what the verifier says."""

from __future__ import annotations

import pytest

from graphc.dtypes import float32
from graphc.errors import VerifyError
from graphc.loop.ir import (
    TRUE,
    ZERO,
    Apply,
    Buffer,
    For,
    Kernel,
    Let,
    Load,
    LoopKind,
    Store,
    Var,
    block,
    const,
)
from graphc.loop.parser import parse_kernel
from graphc.loop.verify import verify_kernel

T, T2 = (f"{' ' * n}local t: f32[1]\n{' ' * n}t[0] = 0.0f32\n" for n in (4, 6))
HEAD = "kernel k(x: f32[n], y: i32[n], f: b1[n]; n):\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x[0] = 1", "the value stored to 'x' must be f32, got i64"),
        ("x[0.5f32] = 1.0f32", "the index of 'x' must be i64"),
        ("x[0] = x[0] + 1.0f64", "add needs arguments of one dtype, got f32, f64"),
        ("x[0] = exp(x[0], x[0])", "exp takes 1 arguments, got 2"),
        ("x[0] = nothing(x[0])", "no scalar function 'nothing'"),
        ("y[0] = exp(y[0])", "exp is not defined for i32"),
        ("x[0] = sqrt.f64(x[0])", "sqrt of f32 cannot be f64"),
        ("x[0] = bitcast.f32(1)", "the sizes differ"),
        ("x[0] = select(x[0], x[0], x[0])", "the condition of a select must be b1"),
        ("x[0] = guard(n, x[0], x[0])", "the condition of a guard must be b1"),
        ("x[0] = guard(n < 1, x[0], 1)", "the other value of a guard must be f32"),
        ("x[0] = require#1(n < 1, x[0], n, n, n)", "two are shown"),
        ("if n:\n    pass", "the condition must be b1"),
        ("let a: f32 = n", "the value of 'a' must be f32"),
        ("for i in x[0]:\n    pass", "the extent must be i64"),
        ("vectorized l in n:\n    pass", "must be a constant of at least 1"),
        ("unrolled l in 0:\n    pass", "must be a constant of at least 1"),
        ("for i in n:\n    parallel j in n:\n      pass", "only statement beside Lets"),
        ("x[0] = 1.0f32\n  parallel j in n:\n    pass", "only statement beside Lets"),
        ("vectorized l in 4:\n    vectorized k in 4:\n      pass", "inside a vectorized loop"),
        ("vectorized l in 4:\n    for k in l:\n      pass", "differs from lane to lane"),
        ("vectorized l in 4:\n    x[0] = f32(l)", "every lane stores its own value"),
        ("thread i in 4:\n    block b in 4:\n      pass", "inside block loops only"),
        ("for i in 4:\n    thread b in 4:\n      pass", "inside block and thread loops only"),
        ("barrier", "inside a thread loop"),
        ("prefetch x[0.5f32]", "the index of 'x' must be i64"),
        ("local a: f32[1]\n  prefetch a[0]", "of a parameter in scope, not 'a'"),
        ("local a: f32[n]", "must be constant"),
        ("local a: f32[0]", "must be at least 1"),
        ("global a: f32[4]", "no global ones"),
        ("shared a: f32[4]", "allocated in block loops"),
        ("block b in 4:\n    local a: f32[4]\n    thread t in 2:\n      pass", "inside its thread"),
        ("thread i in 4:\n    if i < 2:\n      barrier", "a thread comes here depends on i"),
        ("thread i in 4:\n    let a = i + 1\n    for j in a:\n      barrier", "depends on i"),
        ("thread i in 2048:\n    pass", "a block has 1 to 1024 threads"),
        ("thread i in n:\n    pass", "a block has 1 to 1024 threads"),
        ("thread i in 2:\n    thread j in 2:\n      thread k in 2:\n        pass", "or two loops"),
        ("allreduce add x[0]", "inside a thread loop"),
        ("thread i in 4:\n    allreduce add x[0]", "of a local buffer in scope, not 'x'"),
        (f"thread i in 4:\n{T}    allreduce and t[0]", "the reduction and is not defined for f32"),
        (f"thread i in 4:\n{T}    allreduce sub t[0]", "no reduction 'sub'"),
        (f"thread i in 33:\n{T}    allreduce add t[0]", "whole warps, not 33 threads"),
        (f"thread i in 4:\n{T}    if i < 1:\n      allreduce add t[0]", "depends on i"),
        (
            f"thread r in 2:\n    thread i in 64:\n{T2}      if r < 1:\n        allreduce add t[0]",
            "depends on r",
        ),
        ("x[0] and= 1.0f32", "the reduction and is not defined for f32"),
    ],
)
def test_a_broken_rule_is_reported_below_its_line(body, message):
    kernel = parse_kernel(HEAD + "  " + body + "\n")
    with pytest.raises(VerifyError) as caught:
        verify_kernel(kernel)
    lines = str(caught.value).splitlines()
    assert message in lines[0]
    marked = [line for line in lines if line.lstrip().startswith("^ ")]
    assert len(marked) == 1
    assert message in marked[0]


def test_the_complaint_stands_below_the_statement():
    text = HEAD + "  for i in n:\n    x[i] = 1.0f32\n    y[i] = 2\n    f[i] = true\n"
    with pytest.raises(VerifyError) as caught:
        verify_kernel(parse_kernel(text))
    lines = str(caught.value).splitlines()
    at = lines.index("    y[i] = 2")
    assert lines[at + 1] == "    ^ the value stored to 'y' must be i32, got i64: 2"


X = Buffer("x", float32, const(4))
INDEX = Var("i")


@pytest.mark.parametrize(
    ("stmts", "message"),
    [
        ((Store(X, INDEX, const(1, float32)),), "the variable 'i' is not in scope"),
        ((Let(INDEX, ZERO), Let(INDEX, ZERO)), "'i' is already in scope"),
        ((Store(Buffer("z", float32, const(4)), ZERO, const(1, float32)),), "the buffer 'z'"),
        ((Store(X, ZERO, Load(Buffer("z", float32, const(4)), ZERO)),), "the buffer 'z'"),
        ((For(Var("i", float32), const(4), LoopKind.SERIAL, block()),), "the loop variable"),
        ((Let(INDEX, Apply("add", (TRUE, TRUE), TRUE.dtype)),), "add is not defined for b1"),
    ],
)
def test_what_text_cannot_say_is_refused(stmts, message):
    with pytest.raises(VerifyError, match=message):
        verify_kernel(Kernel("k", (X,), (), block(*stmts)))


def test_the_same_variable_may_be_used_again_after_its_loop():
    loop = For(INDEX, const(4), LoopKind.SERIAL, block(Store(X, INDEX, const(1, float32))))
    verify_kernel(Kernel("k", (X,), (), block(loop, loop)))


def test_parameters_have_names_of_their_own_and_sizes_of_the_scalars():
    other = Buffer("x", float32, const(4))
    with pytest.raises(VerifyError, match="names of their own"):
        verify_kernel(Kernel("k", (X, other), (), block()))
    with pytest.raises(VerifyError, match="not in scope"):
        verify_kernel(Kernel("k", (Buffer("x", float32, INDEX),), (), block()))
