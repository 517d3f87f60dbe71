"""``matmul`` of 8-bit integers with sums in int32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ops_support import cases, run_compiled

import graphc as gc
from graphc.dtypes import DType
from graphc.errors import DTypeError, ShapeError
from graphc.op import evaluate_reference, get_op
from graphc.runtime.jit import named_target

LEFT = pytest.mark.parametrize("left", [gc.int8, gc.uint8], ids=lambda t: t.name)


def integers(seed: int, dtype: DType, *shape: int) -> np.ndarray:
    low, high = dtype.limits
    return np.random.default_rng(seed).integers(low, high, shape, dtype.numpy, endpoint=True)


def wide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.matmul(x.astype(np.int64), y.astype(np.int64)).astype(np.int32)


def product(*args: Any, **kwargs: Any) -> gc.Tensor:
    return gc.matmul(*args, output_type=gc.int32, **kwargs)


@pytest.fixture(autouse=True)
def graph() -> Iterator[None]:
    with gc.Graph().as_default():
        yield


@LEFT
def test_samples_with_vnni(left: DType) -> None:
    """What the generated tests run on other targets."""
    if not named_target("avx512vnni").is_host:
        pytest.skip("this machine cannot run avx512vnni")
    for known in ("shape", "rank"):
        declared = [(c, c.declare(known)) for c in cases(get_op("MatMulInteger"), left)]
        for case, d in declared:
            (found,) = run_compiled(d.op.outputs, d.feeds, "avx512vnni")
            (wanted,) = evaluate_reference(case.declare().op, case.values)
            np.testing.assert_array_equal(found, wanted, err_msg=str(case))
            assert found.dtype == np.int32


@LEFT
@pytest.mark.parametrize("target", ["generic", "avx512vnni"])
def test_unknown_ranks_and_sizes(left: DType, target: str) -> None:
    if not named_target(target).is_host:
        pytest.skip(f"this machine cannot run {target}")
    x, y = gc.placeholder(left), gc.placeholder(gc.int8, [None, 21])
    z = product(x, y)
    assert (z.dtype, z.shape.ndims) == (gc.int32, None)
    for shape in ((3, 70), (2, 5, 9), (2, 1, 4, 1)):
        a, b = integers(1, left, *shape), integers(2, gc.int8, shape[-1], 21)
        (found,) = run_compiled([z], {x: a, y: b}, target)
        np.testing.assert_array_equal(found, wide(a, b))


@LEFT
def test_what_is_fused_around(left: DType) -> None:
    """Quantizing in front, rescaling and a bias behind."""
    x = gc.placeholder(gc.float32, [None, 50])
    w = integers(3, gc.int8, 50, 40)
    bias = np.arange(40, dtype=np.float32)
    zero = 128.0 if left is gc.uint8 else 0.0
    quantized = gc.cast(gc.clip_by_value(gc.round(x) + zero, zero - 128, zero + 127), left)
    y = gc.nn.relu(gc.cast(product(quantized, w), gc.float32) * 0.25 + bias)
    value = np.random.default_rng(4).uniform(-150, 150, (17, 50)).astype(np.float32)
    a = np.clip(np.rint(value) + zero, zero - 128, zero + 127).astype(left.numpy)
    wanted = np.maximum(wide(a, w).astype(np.float32) * 0.25 + bias, 0)
    np.testing.assert_array_equal(gc.Session().run(y, {x: value}), wanted)


@LEFT
def test_threads(left: DType) -> None:
    a, b = integers(5, left, 300, 400), integers(6, gc.int8, 400, 500)
    x, y = gc.placeholder(left, a.shape), gc.placeholder(gc.int8, b.shape)
    run = gc.Session().make_callable(product(x, y), [x, y])
    before = gc.get_num_threads()
    try:
        for threads in (1, 2):
            gc.set_num_threads(threads)
            np.testing.assert_array_equal(run(a, b), wide(a, b))
    finally:
        gc.set_num_threads(before)


def test_transposed_and_adjoint() -> None:
    a, b = integers(7, gc.uint8, 6, 3), integers(8, gc.int8, 5, 6)
    z = [product(a, b, transpose_a=True, transpose_b=True),
         product(a, b, adjoint_a=True, adjoint_b=True)]  # fmt: skip
    for found in gc.Session().run(z):
        np.testing.assert_array_equal(found, wide(a.T, b.T))


def test_refusals() -> None:
    a, b = integers(9, gc.int8, 4, 4), np.ones((4, 4), np.float32)
    with pytest.raises(DTypeError, match="DataType int8 not in list of allowed values: float16"):
        gc.matmul(a, a)
    with pytest.raises(DTypeError, match=r"'x' has DataType float32 .* int8, uint8"):
        product(b, a)
    with pytest.raises(DTypeError, match=r"'y' has DataType uint8 not in list .*: int8"):
        product(a, a.astype(np.uint8))
    with pytest.raises(DTypeError, match="int8 and int8 cannot be int64"):
        gc.matmul(a, a, output_type=gc.int64)
    with pytest.raises(ShapeError, match="must be equal, but are 4 and 3"):
        product(a, a[:3])
    with pytest.raises(ShapeError, match="at least rank 2"):
        product(a[0], a)


def test_output_type_that_changes_nothing() -> None:
    x = gc.ones([2, 2], gc.int32)
    assert gc.matmul(x, x, output_type="int32").op.type == "MatMul"
    assert gc.matmul(x, x, output_type=None).op.type == "MatMul"


def test_no_gradient() -> None:
    x = gc.placeholder(gc.float32, [2, 2])
    z = product(gc.cast(x, gc.int8), np.ones((2, 2), np.int8))
    assert gc.gradients(gc.cast(z, gc.float32), x) == [None]
