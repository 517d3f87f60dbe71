"""Large results are written past the caches: which ones, and that they are right."""

import numpy as np
import pytest

import graphc as gc
from graphc.codegen import llvm
from graphc.loop.printer import format_kernel
from graphc.runtime import jit

ROWS, COLUMNS = 2048, 1029  # 8 MiB and a bit, with a rest in every row


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


def fed(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def program_of(session):
    (plan,) = session._plans.values()
    return plan.single.code.program


def streamed(session):
    return [k.name for k in program_of(session).kernels if k.streamed]


CASES = {
    "elementwise": (lambda x: x * 2 + 1, lambda x: x * 2 + 1),
    "rows": (gc.nn.softmax, softmax),
    "transposed": (lambda x: gc.transpose(x) + 1, lambda x: x.T + 1),
    "several": (lambda x: x - gc.reduce_max(x, 1, keepdims=True), lambda x: x - x.max(1)[:, None]),
}


@pytest.mark.parametrize("sizes", [(ROWS, COLUMNS), (None, COLUMNS), (None, None)])
@pytest.mark.parametrize("case", CASES)
def test_values(case, sizes):
    make, reference = CASES[case]
    x = gc.placeholder(gc.float32, sizes)
    value = fed(ROWS, COLUMNS)
    with gc.Session() as s:
        y = make(x)
        found = s.run(y, {x: value})
        assert len(streamed(s)) == 1
        np.testing.assert_allclose(found, reference(value), rtol=1e-5, atol=1e-7)
        if sizes[0] is None:
            np.testing.assert_allclose(s.run(y, {x: value[:7]}), reference(value[:7]), rtol=1e-5)
            assert s.compilations == 1


def test_only_large_results_that_nothing_reads():
    x = gc.placeholder(gc.float32, [ROWS, COLUMNS])
    y = gc.exp(x)
    value = fed(ROWS, COLUMNS)
    product = gc.matmul(y, y, transpose_a=True)
    for fetches, count in ((y, 1), (gc.exp(x[:100]), 0), ([y, product], 0)):
        with gc.Session() as s:
            s.run(fetches, {x: value})
            assert len(streamed(s)) == count


def test_the_given_array_may_be_anywhere():
    x = gc.placeholder(gc.float32, [ROWS, COLUMNS])
    value = fed(ROWS, COLUMNS)
    memory = np.zeros(ROWS * COLUMNS + 64, np.float32)
    with gc.Session() as s:
        for start in (0, 1, 5, 16):
            memory[:] = -1
            y = memory[start : start + value.size].reshape(value.shape)
            call = s.make_callable(gc.nn.relu(x), [x], out=y)
            for _ in range(2):
                assert call(value) is y
                np.testing.assert_array_equal(y, np.maximum(value, 0))
            assert (memory[:start] == -1).all()
            assert (memory[start + value.size :] == -1).all()


@pytest.mark.parametrize("target", ["host", "avx2", "avx512", "generic"])
def test_the_code_says_so(target):
    x = gc.placeholder(gc.float32, [1 << 21])
    with gc.Session() as s:
        s.run(x + 1.0, {x: np.zeros(1 << 21, np.float32)})
        (low,) = program_of(s).kernels
    machine = jit.host_target() if target == "host" else jit.named_target(target)
    text = llvm.print_kernel(low.fast, machine)
    assert "!nontemporal !2" in text
    assert "fence" in text
    assert "!nontemporal !2" not in llvm.print_kernel(low.kernel, machine)
    jit.compile_object(llvm.module([text]), machine)


def test_a_row_is_kept_aside_until_it_is_done():
    x = gc.placeholder(gc.float32, [ROWS, COLUMNS])
    with gc.Session() as s:
        s.run(gc.nn.softmax(x), {x: fed(ROWS, COLUMNS)})
        (low,) = program_of(s).kernels
    assert f"local row0: f32[{COLUMNS}]" in format_kernel(low.fast)
    assert "local row0" not in format_kernel(low.kernel)
