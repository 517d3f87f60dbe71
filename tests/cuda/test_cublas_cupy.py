"""cuBLAS beside CuPy: on which streams it is asked, what becomes of its errors, its numbers."""

from __future__ import annotations

import gc as gc_of_python
import sys

import numpy as np
import pytest
from cuda_fake_cublas import FakeCublas
from cuda_fake_cupy import FakeCupy
from cuda_support import folder, has_compiler

import graphc as gc
from graphc import errors
from graphc.kernels import grid_library
from graphc.runtime import cuda_blas, cuda_cupy, cuda_products

pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
SIDE = 20  # of which a product is worth being measured


@pytest.fixture(autouse=True)
def graph(monkeypatch, tmp_path):
    folder()  # where compiled kernels are is not what the tests change
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda_products, "_found", {})
    # Fibers take their time.
    monkeypatch.setattr(cuda_products, "MOST_REPEATS", 2)
    monkeypatch.setattr(grid_library, "LEAST", 1 << 13)
    with gc.Graph().as_default():
        yield


def large():
    """Two matrices, and what to feed: (tensors, feeds, product)."""
    values = np.random.default_rng(3).integers(-3, 4, (2, SIDE, SIDE)).astype(np.float32)
    tensors = [gc.placeholder(gc.float32, [SIDE, SIDE]) for _ in values]
    return tensors, dict(zip(tensors, values, strict=True)), values[0] @ values[1]


def always():
    return gc.compile_options(cublas="always")

@pytest.fixture
def fake(monkeypatch):
    """In the place of CuPy and of cuBLAS, on a machine with two devices."""
    cupy = FakeCupy(number=1)

    def ask(stream, work, *addresses):
        assert cupy.devices[-1] == 1
        with cupy.on(cupy.pointers[stream]):
            cupy.shim.ask(work, *addresses)

    cupy.cublas = FakeCublas(ask, lambda: list(cupy.shim.live))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cuda_cupy, "cached_cubin", lambda text, arch: text.encode())
    monkeypatch.setattr(cuda_cupy, "cublas_library", lambda: cupy.cublas)
    return cupy


def test_what_is_recorded_is_asked_on_the_streams_of_the_capture(fake):
    (x, w), feeds, wanted = large()
    y = gc.nn.relu(gc.matmul(x, w))
    with gc.Session(device="cuda:1") as session, always():
        device = session._device
        assert device.model == "Fake"
        for _ in range(4):
            np.testing.assert_array_equal(session.run(y, feeds), np.maximum(wanted, 0))
        assert fake.shim.graphs == 3
        first, second = fake.cublas.streams
        assert first == device.stream.ptr
        assert second != first
        assert fake.cublas.workspace[1] == 4 << 20
        assert fake.cublas.done == 4
    assert fake.cublas.handles == 1
    del session, device
    gc_of_python.collect()
    assert fake.cublas.handles == 0


def test_either_is_right_where_both_are_measured(fake):
    (x, w), feeds, wanted = large()
    with gc.Session(device="cuda:1") as session:
        for _ in range(3):
            np.testing.assert_array_equal(session.run(gc.matmul(x, w), feeds), wanted)
    assert fake.cublas.calls
    assert len(cuda_products._found) == 1


def test_what_cublas_refuses_in_a_capture_goes_step_by_step(fake, monkeypatch):
    (x, w), feeds, wanted = large()
    multiply = fake.cublas.cublasGemmEx

    def refuse(*given):
        return 14 if any(s.capturing for s in fake.pointers.values()) else multiply(*given)

    monkeypatch.setattr(fake.cublas, "cublasGemmEx", refuse)
    with gc.Session(device="cuda:1") as session, always():
        y = gc.matmul(x, w)
        for _ in range(3):
            np.testing.assert_array_equal(session.run(y, feeds), wanted)
    assert not fake.shim.graphs
    assert fake.cublas.done == 3


def test_errors_of_cublas_are_ours(fake):
    (x, w), feeds, wanted = large()
    y = gc.matmul(x, w)
    with gc.Session(device="cuda:1") as session, always():
        for status, error, text in (
            (13, errors.InternalError, "cuda:1: cuBLAS answers CUBLAS_STATUS_EXECUTION_FAILED"),
            (3, MemoryError, "CUBLAS_STATUS_ALLOC_FAILED"),
        ):
            fake.cublas.answers["multiply"] = status
            with pytest.raises(error, match=text):
                session.run(y, feeds)
        fake.cublas.answers.clear()
        np.testing.assert_array_equal(session.run(y, feeds), wanted)


def test_numbers_are_those_of_cublas():
    runtime = pytest.importorskip("cupy").cuda.runtime
    names = {
        gc.float32: "32F", gc.float64: "64F", gc.float16: "16F", gc.int8: "8I", gc.bfloat16: "16BF"
    }  # fmt: skip
    for dtype, name in names.items():
        assert cuda_blas.TYPES[dtype] == getattr(runtime, f"CUDA_R_{name}")
    if cuda_blas.cublas_library() is None:
        pytest.skip("CuPy finds no cuBLAS")
    from cupy_backends.cuda.libs import cublas

    wanted = {"f32": "32F", "tf32": "32F_FAST_TF32", "f64": "64F", "i32": "32I"}
    for compute, name in wanted.items():
        assert cuda_blas.COMPUTE_TYPES[compute] == getattr(cublas, f"CUBLAS_COMPUTE_{name}")
    assert (cublas.CUBLAS_OP_N, cublas.CUBLAS_OP_T, cublas.CUBLAS_GEMM_DEFAULT) == (0, 1, -1)
