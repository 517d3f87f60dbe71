"""What has no 80-bit reference, against mpmath; special values; rows of integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc.loop.scalar_math  # noqa: F401  (registers the rows)
from graphc.dtypes import (
    DType,
    bfloat16,
    float16,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint8,
    uint32,
)
from graphc.loop.interpret import run_kernel
from graphc.loop.ir import Buffer, For, Kernel, Load, LoopKind, Store, Var, block
from graphc.loop.scalar import FUNCTIONS

Array = np.ndarray[Any, Any]
INF, NAN = math.inf, math.nan


def run(name: str, dtype: DType, *inputs: Any) -> Array:
    """The row's expansion (not its NumPy column), interpreted."""
    arrays = [np.asarray(x, dtype.numpy) for x in np.broadcast_arrays(*inputs)]
    n, i = Var("n"), Var("i")
    params = [Buffer(f"x{k}", dtype, n) for k in range(len(arrays))]
    out = Buffer("y", dtype, n)
    expand = FUNCTIONS[name].expand
    assert expand is not None
    store = block(Store(out, i, expand(*(Load(p, i) for p in params))))
    kernel = Kernel("k", (*params, out), (n,), block(For(i, n, LoopKind.SERIAL, store)))
    result = np.zeros(arrays[0].size, dtype.numpy)
    run_kernel(kernel, [*map(np.ascontiguousarray, arrays), result], [result.size])
    return result


def erf_arguments(rng: np.random.Generator) -> Array:
    return np.concatenate(
        [rng.uniform(-6, 6, 300), rng.uniform(-1, 1, 200), rng.uniform(0, 27, 300)]
    )


def erfinv_arguments(rng: np.random.Generator) -> Array:
    near_one = 1 - 2.0 ** -rng.uniform(1, 53, 300)
    return np.concatenate([rng.uniform(-1, 1, 300), near_one, 2.0 ** -rng.uniform(1, 1000, 100)])


def gamma_arguments(rng: np.random.Generator) -> Array:
    positive = np.concatenate([rng.uniform(0, 12, 300), 10.0 ** rng.uniform(-30, 30, 200)])
    near = [k + rng.normal(size=50) * 1e-4 for k in (1, 2)]
    return np.concatenate([positive, *near, rng.uniform(-20, 0, 200)])


CASES: dict[str, tuple[str, Callable[[np.random.Generator], Array], float]] = {
    # name: mpmath's name, arguments, absolute error that is allowed next to a zero
    "erf": ("erf", erf_arguments, 0.0),
    "erfc": ("erfc", erf_arguments, 0.0),
    "erfinv": ("erfinv", erfinv_arguments, 0.0),
    "lgamma": ("loggamma", gamma_arguments, 4e-15),
    "digamma": ("digamma", gamma_arguments, 4e-15),
}


@pytest.mark.parametrize("name", CASES)
def test_float64_against_mpmath(name: str) -> None:
    mp = pytest.importorskip("mpmath")
    function, arguments, slack = CASES[name]
    x = arguments(np.random.default_rng(3))
    y = run(name, float64, x)
    with mp.workdps(50):
        for a, got in zip(x.tolist(), y.tolist(), strict=True):
            exact = mp.re(getattr(mp, function)(mp.mpf(a)))
            unit = mp.ldexp(1, max(mp.frexp(exact)[1], -1021) - 53)
            error = float(abs(mp.mpf(got) - exact) / unit)
            assert error <= FUNCTIONS[name].ulp or abs(got - exact) < slack, (a, got, error)


SPECIAL: list[tuple[str, float, float]] = [
    ("erf", INF, 1.0), ("erf", -INF, -1.0), ("erf", -0.0, -0.0), ("erf", NAN, NAN),
    ("erfc", INF, 0.0), ("erfc", -INF, 2.0), ("erfc", 0.0, 1.0), ("erfc", NAN, NAN),
    ("erfinv", 1.0, INF), ("erfinv", -1.0, -INF), ("erfinv", 1.5, NAN), ("erfinv", -0.0, -0.0),
    ("erfinv", NAN, NAN), ("exp", -INF, 0.0), ("exp", INF, INF), ("exp", NAN, NAN),
    ("log", 0.0, -INF), ("log", -0.0, -INF), ("log", -1.0, NAN), ("log", INF, INF),
    ("log1p", -1.0, -INF), ("log1p", -0.0, -0.0), ("tanh", INF, 1.0), ("tanh", -INF, -1.0),
    ("tanh", -0.0, -0.0), ("sigmoid", -INF, 0.0), ("sigmoid", INF, 1.0), ("sigmoid", NAN, NAN),
    ("softplus", -INF, 0.0), ("softplus", INF, INF), ("softplus", NAN, NAN),
    ("lgamma", 0.0, INF), ("lgamma", -3.0, INF), ("lgamma", INF, INF), ("lgamma", -INF, INF),
    ("lgamma", 1.0, 0.0), ("lgamma", 2.0, 0.0), ("lgamma", NAN, NAN), ("digamma", 0.0, -INF),
    ("digamma", -0.0, INF), ("digamma", -2.0, NAN), ("digamma", INF, INF), ("digamma", NAN, NAN),
    ("sin", INF, NAN), ("cos", -INF, NAN), ("tan", NAN, NAN), ("sin", -0.0, -0.0),
    ("rsqrt", 0.0, INF), ("rsqrt", -0.0, -INF), ("rsqrt", -1.0, NAN), ("rsqrt", INF, 0.0),
    ("sign", -0.0, 0.0), ("sign", NAN, NAN), ("sign", -INF, -1.0), ("sign", 5e-39, 1.0),
    ("reciprocal", -0.0, -INF), ("asin", 2.0, NAN), ("acos", 1.0, 0.0), ("acosh", 0.5, NAN),
    ("atanh", 1.0, INF), ("atanh", -2.0, NAN), ("exp2", -1074.0, 5e-324), ("log2", 8.0, 3.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "x", "want"), SPECIAL)
@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_special_values(name: str, x: float, want: float, dtype: DType) -> None:
    got = run(name, dtype, [x])[0]
    assert got == dtype.numpy.type(want) or (math.isnan(want) and np.isnan(got))
    assert math.isnan(want) or np.signbit(got) == np.signbit(want)


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_pow_special_values(dtype: DType) -> None:
    values = [0.0, 0.5, 1.0, 2.0, 3.0, 2.5, 1e10, INF]
    values = [s * v for v in values for s in (1, -1)] + [NAN]
    x, y = (np.asarray(v, dtype.numpy) for v in np.meshgrid(values, values))
    got = run("pow", dtype, x.ravel(), y.ravel())
    want = np.array([_c_pow(float(a), float(b)) for a, b in zip(x.ravel(), y.ravel(), strict=True)])
    want = want.astype(dtype.numpy)
    np.testing.assert_allclose(got, want, rtol=2e-7 if dtype is float32 else 1e-15)
    assert np.array_equal(np.signbit(got)[~np.isnan(want)], np.signbit(want)[~np.isnan(want)])


def _c_pow(x: float, y: float) -> float:
    try:
        return math.pow(x, y)
    except OverflowError:
        return -INF if x < 0 and y % 2 == 1 else INF
    except ValueError:
        if x == 0:
            return math.copysign(INF, x) if y % 2 == 1 else INF
        return NAN


@pytest.mark.parametrize("dtype", [int8, uint8, int32, uint32, int64], ids=str)
def test_ipow_wraps(dtype: DType) -> None:
    low = int(dtype.min)
    bases = [0, 1, 2, 3, 7, 10, int(dtype.max)] + ([-1, -2, -3, low] if low else [])
    powers = [0, 1, 2, 3, 5, 31, 64, int(dtype.max)] + ([-1, -2, -3, low] if low else [])
    x, n = (v.ravel() for v in np.meshgrid(bases, powers))
    got = run("ipow", dtype, x, n)
    width = 8 * dtype.size
    for a, b, y in zip(x.tolist(), n.tolist(), got.tolist(), strict=True):
        if b >= 0:
            want = pow(a, b, 2**width)
        else:
            want = {1: 1, -1: 1 - 2 * (b % 2)}.get(a, 0)
        assert (y - want) % 2**width == 0, (a, b, y)


@pytest.mark.parametrize("dtype", [int8, uint8, int32], ids=str)
def test_integer_square_and_sign(dtype: DType) -> None:
    x = np.array([0, 1, 5, 100, int(dtype.max), int(dtype.min)], dtype.numpy)
    assert run("square", dtype, x).tolist() == (x * x).tolist()
    assert run("sign", dtype, x).tolist() == np.sign(x).tolist()


def test_numpy_columns_of_integers_agree() -> None:
    x = np.array([3, -1, -1, 2, 1, 7], np.int32)
    n = np.array([4, -3, -2, -1, -5, 40], np.int32)
    assert run("ipow", int32, x, n).tolist() == FUNCTIONS["ipow"].numpy(x, n).tolist()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_one_plus_erf() -> None:
    bits = np.arange(1 << 16, dtype=np.uint32) * np.uint32(65521)
    wide = np.random.default_rng(5).uniform(-5, 5, 1 << 16)
    x = np.concatenate([bits.view(np.float32), wide.astype(np.float32), np.linspace(-4.1, 4.1, 99)])
    x = np.concatenate([x, [INF, -INF, NAN, 0.0, -0.0, 4, -4]]).astype(np.float32)
    got = run("one_plus_erf", float32, x).astype(np.float64)
    want = np.array([math.erfc(-float(v)) for v in x])
    assert np.array_equal(np.isnan(got), np.isnan(want))
    error = np.abs(got - want)[~np.isnan(want)]
    assert error.max() <= 1.5e-7
    assert (got[x < -4] == 0).all()
    assert (got[x > 4] == 2).all()
    assert (got[(x >= -4) & (x < 0)] > 0).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [float16, bfloat16, float32, float64], ids=str)
def test_exp_negative(dtype: DType) -> None:
    deep = 90.0 if dtype.size < 8 else 720.0
    rng = np.random.default_rng(6)
    x = np.concatenate([np.linspace(-deep, 0, 1 << 16), -(10.0 ** rng.uniform(-30, 3, 1 << 14))])
    x = np.concatenate([x, [0.0, -0.0, -INF, NAN, -1e4]]).astype(dtype.numpy)
    got = run("exp_negative", dtype, x).astype(np.float64)
    want = np.exp(x.astype(np.longdouble)).astype(np.float64)
    assert np.array_equal(np.isnan(got), np.isnan(want))
    tiny = 2.0**-1022 if dtype is float64 else 2.0**-126
    normal = want >= tiny
    unit = {float16: 2.0**-11, bfloat16: 2.0**-8, float32: 2.0**-23, float64: 2.0**-52}[dtype]
    error = np.abs(got - want)
    least = 2.0**-25 if dtype is float16 else 0.0
    assert (error <= np.maximum(1.1 * unit * want, least))[normal].all()
    assert (error[~normal & ~np.isnan(want)] <= tiny).all()
    # What a mask puts far below the others counts for nothing.
    assert (got[x.astype(np.float64) < -deep + 1] == 0).all()
    assert (got[x == 0] == 1).all()
