"""The derived scalar functions against references of higher precision, to their ulp bounds.

An expansion is evaluated four ways: here in NumPy with ``fma`` rounded once and rounded twice, and
as machine code for each CPU target (the generic one has no fused multiply-add).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphc.loop.scalar_math  # noqa: F401  (registers the rows)
from graphc.codegen import llvm
from graphc.dtypes import DType, bfloat16, float16, float32, float64
from graphc.loop.ir import (
    Apply,
    Buffer,
    Cast,
    Const,
    Expr,
    For,
    Kernel,
    Load,
    LoopKind,
    Store,
    Var,
    block,
    const,
    index_div,
    walk_expr,
)
from graphc.loop.scalar import FUNCTIONS, ScalarFn
from graphc.runtime.jit import compile_object, load_object, named_target

# Overflow, division by zero and invalid operations are what is tested.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
Array = np.ndarray[Any, Any]
TARGETS = ("avx512", "avx2", "generic")
ROWS = {
    name: row
    for name, row in FUNCTIONS.items()
    if row.expand is not None and row.expand.__module__.startswith("graphc.loop.scalar_math")
    if "f" in row.kinds and not row.codes
}
UNARY = [n for n, f in ROWS.items() if f.arity == 1 and n not in ("square", "sign")]
BINARY = ["pow", "atan2"]
# Their references are Python, one element at a time.
SLOW = {"erf", "erfc", "erfinv", "lgamma", "digamma"}
LONG_DOUBLE = np.finfo(np.longdouble).nmant >= 63


def evaluate(root: Expr, inputs: dict[Var, Array], fused: bool) -> Array:
    """An expression of primitives on arrays."""
    memo: dict[Expr, Any] = dict(inputs)
    stack = [root]
    while stack:
        node = stack[-1]
        missing = [c for c in node.operands if c not in memo]
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        if node not in memo:
            memo[node] = _value(node, [memo[c] for c in node.operands], fused)
    return np.asarray(memo[root])


def _value(node: Expr, args: list[Any], fused: bool) -> Any:
    if isinstance(node, Const):
        return node.dtype.as_numpy_dtype(node.value)
    if isinstance(node, Cast):
        return _convert(np.asarray(args[0]), node.dtype)
    assert isinstance(node, Apply)
    if node.fn == "bitcast":
        return np.asarray(args[0]).view(node.dtype.numpy)
    if node.fn == "fma":
        return _fused(*args) if fused else args[0] * args[1] + args[2]
    row = FUNCTIONS[node.fn]
    assert row.expand is None, f"{node.fn} is not a primitive"
    return row.numpy(*args)


def _convert(value: Array, dtype: DType) -> Array:
    if value.dtype.kind != "f" or not dtype.is_integer:
        return value.astype(dtype.numpy)
    inside = (value > float(dtype.min)) & (value < float(dtype.max))
    edge = np.where(value > 0, dtype.max, np.where(value < 0, dtype.min, 0)).astype(dtype.numpy)
    return np.where(inside, np.where(inside, value, 0).astype(dtype.numpy), edge)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


def _fused(a: Any, b: Any, c: Any) -> Any:
    """a * b + c rounded once: the exact product and sum as pairs (Dekker, Knuth)."""
    if np.asarray(a).dtype == np.float32:
        wide = np.asarray(a, np.float64) * np.asarray(b, np.float64)
        return (wide + np.asarray(c, np.float64)).astype(np.float32)
    product = a * b
    split = [np.frexp(v) for v in (a, b)]
    (ma, ea), (mb, eb) = split
    p = ma * mb
    high = [(m * 134217729.0) - (m * 134217729.0 - m) for m in (ma, mb)]
    low = [ma - high[0], mb - high[1]]
    error = high[0] * high[1] - p
    error = error + high[0] * low[1] + low[0] * high[1] + low[0] * low[1]
    total, rest = _two_sum(product, c)
    result = total + (rest + np.ldexp(error, ea + eb))
    return np.where(np.isfinite(result), result, product + c)


def native(row: ScalarFn, dtype: DType, target: str) -> Callable[..., Array]:
    """The expansion as machine code. Arrays have a multiple of 64 elements."""
    assert row.expand is not None
    machine = named_target(target)
    lanes = machine.lanes(dtype.size)
    n, base, lane = Var("n"), Var("base"), Var("lane")
    params = tuple(Buffer(f"x{i}", dtype, n) for i in range(row.arity))
    out = Buffer("y", dtype, n)
    at = base * lanes + lane
    store = Store(out, at, row.expand(*(Load(p, at) for p in params)))
    inner = For(lane, const(lanes), LoopKind.VECTORIZED, block(store))
    outer = For(base, index_div(n, lanes), LoopKind.SERIAL, block(inner))
    kernel = Kernel("k", (*params, out), (n,), block(outer))
    loaded = load_object(compile_object(llvm.print_kernel(kernel, machine), machine))
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    call = entry(loaded.address("k"))

    def run(*inputs: Array) -> Array:
        assert len(inputs[0]) % 64 == 0
        inputs = tuple(np.ascontiguousarray(x) for x in inputs)
        y, status = np.empty_like(inputs[0]), np.zeros(8, np.int64)
        slots = [a.ctypes.data for a in (*inputs, y)] + [len(y), status.ctypes.data]
        call(np.array(slots, np.int64).ctypes.data, 0, 0)
        return y

    run.loaded = loaded  # type: ignore[attr-defined]  # the code lives as long as the function
    return run


def ulp_error(y: Array, exact: Array, dtype: DType) -> Array:
    """|y - exact| in units in the last place of ``exact``; overflow counts as the next binade."""
    info = ml_dtypes.finfo(dtype.numpy)
    limit = exact.dtype.type(2.0) ** int(info.maxexp)
    got = np.clip(y.astype(exact.dtype), -limit, limit)
    exact = np.clip(exact, -limit, limit)
    _, exponent = np.frexp(exact)
    exponent = np.clip(exponent, info.minexp + 1, info.maxexp)
    error = np.ldexp(np.abs(got - exact), info.nmant + 1 - exponent)
    return np.where(np.isnan(exact), 0.0, error).astype(np.float64)


def check(name: str, dtype: DType, inputs: tuple[Array, ...], y: Array, exact: Array) -> float:
    """Assert the bound, NaN where there is NaN, and the sign of zero; the largest error."""
    wrong = np.isnan(y) != np.isnan(exact)
    wrong |= (exact == 0) & ((y != 0) | (np.signbit(y) != np.signbit(exact)))
    at = np.flatnonzero(wrong)[:5]
    shown = [(tuple(x[i] for x in inputs), y[i], exact[i]) for i in at]
    assert not shown, f"{name}: (x, got, want): {shown}"
    error = ulp_error(y, exact, dtype)
    worst = int(np.argmax(error))
    where = tuple(x[worst] for x in inputs)
    assert error[worst] <= ROWS[name].ulp, (
        f"{name}{where} = {y[worst]!r}: {error[worst]:.3f} ulp from {exact[worst]!r}"
    )
    return float(error[worst])


def float32_bits(count: int, offset: int = 0) -> Array:
    """``count`` float32 with evenly spread bit patterns, and every special value."""
    step = 2**32 // count | 1
    bits = (np.arange(count, dtype=np.uint64) * step + offset).astype(np.uint32)
    special = SPECIAL.astype(np.float32)
    values = bits.view(np.float32).copy()
    values[: len(special)] = special
    return values


def float64_samples(count: int, rng: np.random.Generator) -> Array:
    """All exponents, and the ranges where most functions do something."""
    part = count // 8
    bits = rng.integers(0, 2**64, part, np.uint64).view(np.float64)
    ranges = ((-1.0, 1.0), (0.4, 1.6), (-5.0, 5.0), (-40.0, 40.0), (-760.0, 760.0))
    flat = [rng.uniform(low, high, part) for low, high in ranges]
    signs = rng.choice([-1.0, 1.0], (2, part))
    spread = [
        signs[0] * np.exp(rng.uniform(-50, 3, part)),
        signs[1] * np.exp(rng.uniform(0, 60, part)),
    ]
    values = np.concatenate([bits, *flat, *spread])
    values[: len(SPECIAL)] = SPECIAL
    return values


_MAGNITUDES = [0.0, 5e-324, 1e-45, 1.2e-38, 1e-300, 0.5, 1.0, 2.0, 3.0, 2.5, 1e30, 1e300, np.inf]
SPECIAL = np.array([s * v for v in _MAGNITUDES for s in (1, -1)] + [np.nan])
EXACT: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2,
    "log1p": np.log1p, "tanh": np.tanh, "sinh": np.sinh, "cosh": np.cosh, "sin": np.sin,
    "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "pow": np.power,
    "atan2": np.arctan2, "reciprocal": lambda x: 1 / x, "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x))),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
}  # fmt: skip


def exact_for(name: str, dtype: DType, *inputs: Array) -> Array:
    """The reference: float64 for float32, the 80-bit format for float64."""
    if dtype is not float64:
        return np.asarray(ROWS[name].numpy(*(x.astype(np.float64) for x in inputs)))
    return np.asarray(EXACT[name](*(x.astype(np.longdouble) for x in inputs)))


def pairs(name: str, dtype: DType, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Arguments for a function of two: all pairs of special values, then mixed magnitudes."""
    info = np.finfo(dtype.numpy)
    x = np.exp(
        rng.uniform(-1, 1, count) * rng.choice([0.001, 1, 30, np.log(info.max) * 1.1], count)
    )
    y = rng.uniform(-1, 1, count) * (info.maxexp * 1.05 / np.abs(np.log2(x)))
    if name == "atan2":
        y = x * np.exp(rng.uniform(-1, 1, count) * rng.choice([0.1, 3, 100], count))
    x, y = x * rng.choice([-1, 1], count, p=[0.3, 0.7]), y * rng.choice([-1, 1], count)
    whole = rng.random(count) < 0.4
    y = np.where(whole & (np.abs(y) < 1e6), np.rint(y), y)
    grid = np.meshgrid(SPECIAL, SPECIAL)
    for values, edge in zip((x, y), grid, strict=True):
        values[: edge.size] = edge.ravel()
    return x.astype(dtype.numpy), y.astype(dtype.numpy)


def arguments(name: str, dtype: DType, count: int) -> tuple[Array, ...]:
    rng = np.random.default_rng(sum(map(ord, name)))
    if FUNCTIONS[name].arity == 2:
        return pairs(name, dtype, count, rng)
    if dtype is float32:
        return (float32_bits(count, int(rng.integers(2**32))),)
    return (float64_samples(count, rng),)


def test_every_float_row_is_checked() -> None:
    assert {*UNARY, *BINARY, "square", "sign"} == set(ROWS)
    assert set(EXACT) | SLOW == {*UNARY, *BINARY}


@pytest.mark.parametrize("name", sorted(ROWS))
@pytest.mark.parametrize("dtype", [float16, bfloat16, float32, float64], ids=str)
def test_expansion_is_primitive_and_keeps_the_dtype(name: str, dtype: DType) -> None:
    row = ROWS[name]
    assert row.expand is not None
    root = row.expand(*(Var(f"x{i}", dtype) for i in range(row.arity)))
    assert root.dtype is dtype
    for node in walk_expr(root):
        assert isinstance(node, (Const, Var, Cast, Apply))
        if isinstance(node, Apply):
            assert FUNCTIONS[node.fn].expand is None


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_float32_in_numpy(name: str, fused: bool) -> None:
    row = ROWS[name]
    inputs = arguments(name, float32, 1 << 13 if name in SLOW else 1 << 15)
    names = [Var(f"x{i}", float32) for i in range(row.arity)]
    assert row.expand is not None
    y = evaluate(row.expand(*names), dict(zip(names, inputs, strict=True)), fused)
    check(name, float32, inputs, y, exact_for(name, float32, *inputs))


@pytest.mark.skipif(not LONG_DOUBLE, reason="needs an 80-bit long double")
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("name", sorted(EXACT))
def test_float64_in_numpy(name: str, fused: bool) -> None:
    row = ROWS[name]
    inputs = arguments(name, float64, 1 << 14)
    names = [Var(f"x{i}", float64) for i in range(row.arity)]
    assert row.expand is not None
    y = evaluate(row.expand(*names), dict(zip(names, inputs, strict=True)), fused)
    check(name, float64, inputs, y, exact_for(name, float64, *inputs))


@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_every_input_of_16_bits(name: str, dtype: DType) -> None:
    x = np.arange(2**16, dtype=np.uint16).view(dtype.numpy)
    var = Var("x", dtype)
    expand = ROWS[name].expand
    assert expand is not None
    y = evaluate(expand(var), {var: x}, fused=False)
    exact = exact_for(name, dtype, x)
    assert np.array_equal(np.isnan(y), np.isnan(exact))
    error = ulp_error(y, exact, dtype)
    worst = int(np.argmax(error))
    assert error[worst] <= 0.51, f"{name}({x[worst]}) = {y[worst]}, not {exact[worst]}"


def runners(row: ScalarFn, dtype: DType) -> Iterator[tuple[str, Callable[..., Array]]]:
    for target in TARGETS:
        if named_target(target).is_host:
            yield target, native(row, dtype, target)


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_float32_native(name: str) -> None:
    inputs = arguments(name, float32, 1 << 14 if name in SLOW else 1 << 19)
    exact = exact_for(name, float32, *inputs)
    for _, run in runners(ROWS[name], float32):
        check(name, float32, inputs, run(*inputs), exact)


@pytest.mark.skipif(not LONG_DOUBLE, reason="needs an 80-bit long double")
@pytest.mark.parametrize("name", sorted(EXACT))
def test_float64_native(name: str) -> None:
    inputs = arguments(name, float64, 1 << 16)
    exact = exact_for(name, float64, *inputs)
    for _, run in runners(ROWS[name], float64):
        check(name, float64, inputs, run(*inputs), exact)


def doubtful(name: str, y: Array, exact: Array) -> Array:
    """Indices of all that a quick look does not pass: few, and they get the proper check."""
    unit = np.spacing(np.abs(exact.astype(np.float32)))
    good = (np.abs(y - exact) <= ROWS[name].ulp * unit) & (np.signbit(y) == np.signbit(exact))
    return np.flatnonzero(~good)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in UNARY if n not in SLOW])
def test_float32_every_input(name: str) -> None:
    """All 2**32 inputs on every target: minutes for each function."""
    compiled = list(runners(ROWS[name], float32))
    chunk = 1 << 14
    low = np.arange(chunk, dtype=np.uint32)
    for start in range(0, 2**32, chunk):
        x = (low + np.uint32(start)).view(np.float32)
        exact = exact_for(name, float32, x)
        for _, run in compiled:
            y = run(x)
            some = doubtful(name, y, exact)
            if some.size:
                check(name, float32, (x[some],), y[some], exact[some])
