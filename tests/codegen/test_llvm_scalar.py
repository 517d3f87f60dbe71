"""Every primitive scalar function and every conversion, on each CPU target, against NumPy."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphc import dtypes
from graphc.codegen import llvm
from graphc.dtypes import DType
from graphc.loop.ir import (
    Alloc,
    Apply,
    Block,
    Buffer,
    Cast,
    Expr,
    For,
    If,
    Kernel,
    Load,
    LoopKind,
    Store,
    Var,
    apply,
    block,
    const,
    index_div,
    local,
)
from graphc.loop.scalar import FUNCTIONS, ScalarFn
from graphc.runtime.jit import CpuTarget, compile_object, load_object, named_target

TARGETS = ("avx512", "avx2", "generic")
CODES = [t.code for t in dtypes.ALL]


def target_of(name: str) -> CpuTarget:
    target = named_target(name)
    if not target.is_host:
        pytest.skip(f"this machine does not run {name} code")
    return target


def kernel_of(name: str, inputs: list[DType], output: DType, f: Any, lanes: int) -> Kernel:
    """Three outputs: a scalar loop's, a vector loop's with a masked end, one of five lanes."""
    n = Var("n")
    params = tuple(Buffer(f"x{i}", t, n) for i, t in enumerate(inputs))
    outs = tuple(Buffer(f"y{i}", output, n) for i in range(3))

    def value(i: Expr) -> Expr:
        return f(*(Load(p, i) for p in params))

    i = Var("i")
    loops = [For(i, n, LoopKind.SERIAL, block(Store(outs[0], i, value(i))))]
    for out, width in ((outs[1], lanes), (outs[2], 5)):
        base, lane = Var("base"), Var("lane")
        at = base * width + lane
        masked = If(at < n, block(Store(out, at, value(at))))
        vector = For(lane, const(width), LoopKind.VECTORIZED, block(masked))
        extent = index_div(n + (width - 1), width)
        loops.append(For(base, extent, LoopKind.SERIAL, block(vector)))
    return Kernel(name, params + outs, (n,), block(*loops))


def compute(
    target: CpuTarget, jobs: dict[str, tuple[Kernel, list[Any]]]
) -> dict[str, list[np.ndarray[Any, Any]]]:
    """Compile all kernels as one module and run each."""
    text = llvm.module(llvm.print_kernel(k, target) for k, _ in jobs.values())
    loaded = load_object(compile_object(text, target))
    results = {}
    for name, (kernel, inputs) in jobs.items():
        size = len(inputs[0])
        outs = [np.zeros(size, kernel.params[-1].dtype.numpy) for _ in range(3)]
        status = np.zeros(8, np.int64)
        slots = [a.ctypes.data for a in [*inputs, *outs]] + [size, status.ctypes.data]
        table = np.array(slots, np.int64)
        run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        run(loaded.address(kernel.name))(table.ctypes.data, 0, 0)
        results[name] = outs
    return results


def edges(dtype: DType) -> np.ndarray[Any, Any]:
    if dtype.is_bool:
        return np.array([False, True])
    if dtype.is_integer:
        low, high = int(dtype.min), int(dtype.max)
        near = {low, low + 1, low // 2, -7, -2, -1, 0, 1, 2, 3, 8, 100, high // 3, high - 1, high}
        return np.array(sorted(v for v in near if low <= v <= high), dtype.numpy)
    info = ml_dtypes.finfo(dtype.numpy)
    sizes = [0.0, float(info.smallest_subnormal), float(info.tiny), 0.3, 0.5, 1.0, 1.5, 2.5, 7.0]
    sizes += [1e3, 2.0**info.nmant, 2.0**info.nmant - 0.5, float(info.max), np.inf]
    return np.array([s * v for v in sizes for s in (1, -1)] + [np.nan], dtype.numpy)


def samples(dtype: DType, count: int, seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    if dtype.is_bool:
        return rng.random(count) < 0.5
    if dtype.is_integer:
        return rng.integers(dtype.min, dtype.max, count, dtype.numpy, endpoint=True)
    scale = 10.0 ** rng.uniform(-4, 4, count)
    with np.errstate(over="ignore"):
        return (rng.standard_normal(count) * scale).astype(dtype.numpy)


def inputs_for(row: ScalarFn, dtype: DType) -> list[np.ndarray[Any, Any]]:
    """All pairs of edge cases, then random values; an odd number of them."""
    some = edges(dtype)
    first, second = (g.ravel() for g in np.meshgrid(some, some))
    grid = [first, second, np.resize(np.roll(some, 3), first.size)]
    columns = [
        np.concatenate([grid[i], samples(dtype, 61 + (grid[i].size + 61) % 2, i)]) for i in range(3)
    ]
    if row.name == "select":
        columns[0] = np.arange(columns[0].size) % 3 == 0
    if row.name == "scalef":
        limit = {"f16": 30, "bf16": 250, "f32": 250, "f64": 2040}[dtype.code]
        power = np.arange(columns[1].size) * 7919 % (2 * limit + 1) - limit
        columns[1] = power.astype(dtype.numpy)
    return columns[: row.arity]


def rows_for(dtype: DType) -> list[ScalarFn]:
    kind = {"float": "f", "int": "i", "uint": "u", "bool": "b"}[dtype.kind]
    rows = [r for r in FUNCTIONS.values() if r.expand is None and kind in r.kinds]
    extra = [FUNCTIONS["floormod"]] if kind == "f" else []
    return [r for r in rows + extra if r.name != "bitcast"]


def assert_same(
    found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], what: str, row: str = ""
) -> None:
    assert found.dtype == expected.dtype, what
    if not dtypes.is_float(found.dtype):
        np.testing.assert_array_equal(found, expected, err_msg=what)
        return
    # NumPy takes bfloat16 for no number: its NaNs would not be equal.
    short = found.dtype == dtypes.bfloat16.numpy
    plain = [a.astype(np.float32) if short else a for a in (found, expected)]
    np.testing.assert_array_equal(*plain, err_msg=what)
    if row not in ("min", "max"):  # either zero is right
        solid = ~np.isnan(expected)
        signs = np.signbit(found)[solid] == np.signbit(expected)[solid]
        assert signs.all(), f"{what}: the sign of a zero"


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", TARGETS)
def test_primitives(name: str, code: str) -> None:
    target, dtype = target_of(name), dtypes.as_dtype(code)
    lanes = max(2, target.vector_bytes // dtype.size)
    jobs = {}
    for row in rows_for(dtype):
        columns = inputs_for(row, dtype)
        types = [dtypes.as_dtype(c.dtype) for c in columns]
        result = apply(row.name, *(Var("t", t) for t in types)).dtype

        def call(*args: Expr, row: ScalarFn = row) -> Expr:
            return apply(row.name, *args)

        jobs[row.name] = (kernel_of(row.name, types, result, call, lanes), columns)
    for fn, outs in compute(target, jobs).items():
        columns = jobs[fn][1]
        with np.errstate(all="ignore"):
            expected = np.asarray(FUNCTIONS[fn].numpy(*columns))
        for out, how in zip(outs, ("scalar", "vector", "five lanes"), strict=True):
            check(out, expected, columns, fn, f"{fn} {code} {how}", target)


def check(
    found: np.ndarray[Any, Any],
    expected: np.ndarray[Any, Any],
    columns: list[np.ndarray[Any, Any]],
    fn: str,
    what: str,
    target: CpuTarget,
) -> None:
    if fn != "fma":
        assert_same(found, dtypes.converted(expected, dtypes.as_dtype(found.dtype)), what, fn)
        return
    # One rounding or two: they may differ by the rounding of the product.
    with np.errstate(all="ignore"):
        a, b, c = (x.astype(np.longdouble) for x in columns)
        exact = a * b + c
        info = ml_dtypes.finfo(found.dtype)
        room = np.abs(exact) * info.eps
        if not target.has_fma:
            room = room + np.abs(a * b) * info.eps
        usual = np.isfinite(exact) & (np.abs(a * b) < info.max) & (np.abs(exact) < info.max)
        off = np.abs(found.astype(np.longdouble) - exact)
    assert (off[usual] <= (room + info.smallest_subnormal)[usual]).all(), what
    if target.has_fma:
        unusual = ~usual | np.isnan(exact)
        assert (np.isnan(found) == np.isnan(exact))[unusual].all(), what


def near_limits(dtype: DType) -> np.ndarray[Any, Any]:
    """Floats at the ends of the integer types."""
    limits = [float(2**b + d) for b in (7, 8, 15, 16, 31, 32, 63, 64) for d in (-1, 0, 1)]
    return np.array([s * v for v in limits for s in (1, -1)]).astype(dtype.numpy)


def cast_samples(src: DType) -> np.ndarray[Any, Any]:
    values = [edges(src), samples(src, 60, 5)]
    if src.is_floating:
        with np.errstate(over="ignore"):
            values.append(near_limits(src))
        # Halfway between two float16 (two bfloat16), and next to it: what is rounded twice goes
        # wrong here.
        half = np.arange(1, 40) * 2.0**-11 + 1
        tiny = (np.arange(1, 40) + 0.5) * 2.0**-24
        short = np.arange(1, 40) * 2.0**-8 + 1
        least = (np.arange(1, 40) + 0.5) * 2.0**-133
        for exact in (half, tiny, short, least):
            near = exact.astype(src.numpy)
            values += [near, np.nextafter(near, np.inf), np.nextafter(near, 0)]
    elif src.is_integer and src.size >= 4:
        # Halfway between two bfloat16, and one more or less, of every size.
        shifts = range(src.size * 8 - 10)
        odd = np.array([(2 * m + 1) << s for m in range(128, 140) for s in shifts])
        values += [odd - 1, odd, odd + 1]
    joined = np.concatenate([np.asarray(v, src.numpy) for v in values])
    return np.concatenate([joined, joined[: 1 + joined.size % 2]])


def converted(values: np.ndarray[Any, Any], dst: DType) -> np.ndarray[Any, Any]:
    """The rules of ``Cast``, in NumPy."""
    if dst.is_bool:
        return values != 0
    if not dtypes.is_float(values.dtype) or dst.is_floating:
        return dtypes.rounded(values, dst.numpy)
    low, high = int(dst.min), int(dst.max)
    result = [0 if np.isnan(v) else low if v <= low else high if v >= high else int(v)
              for v in values.astype(np.float64)]  # fmt: skip
    return np.array(result, dst.numpy)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", TARGETS)
def test_casts(name: str, code: str) -> None:
    target, src = target_of(name), dtypes.as_dtype(code)
    values = cast_samples(src)
    lanes = max(2, target.vector_bytes // src.size)
    jobs = {}
    for dst in dtypes.ALL:
        if dst is not src:
            kernel = kernel_of(dst.code, [src], dst, lambda x, dst=dst: Cast(x, dst), lanes)
            jobs[dst.code] = (kernel, [values])
    for to, outs in compute(target, jobs).items():
        with np.errstate(all="ignore"):
            expected = converted(values, dtypes.as_dtype(to))
        for out, how in zip(outs, ("scalar", "vector", "five lanes"), strict=True):
            assert_same(out, expected, f"{code} to {to}, {how}")


@pytest.mark.parametrize("name", TARGETS)
def test_bitcast_keeps_the_bits(name: str) -> None:
    pairs = [("f16", "u16"), ("f32", "i32"), ("f64", "i64"), ("i64", "f64"), ("u32", "f32")]
    pairs += [("i64", "u64"), ("i8", "u8"), ("i16", "f16"), ("bf16", "u16"), ("f16", "bf16")]
    jobs = {}
    for a, b in pairs:
        src, dst = dtypes.as_dtype(a), dtypes.as_dtype(b)
        values = np.concatenate([samples(src, 20, 1), np.zeros(1, src.numpy)])
        kernel = kernel_of(
            f"{a}_{b}", [src], dst, lambda x, dst=dst: Apply("bitcast", (x,), dst), 4
        )
        jobs[f"{a}_{b}"] = (kernel, [values])
    for pair, outs in compute(target_of(name), jobs).items():
        for out in outs:
            assert out.tobytes() == jobs[pair][1][0].tobytes(), pair


@pytest.mark.parametrize("name", TARGETS)
def test_scalef_of_any_width(name: str) -> None:
    """More lanes than a register has, and numbers of lanes that are no power of two."""
    jobs = {}
    for code in ("f32", "f64", "f16", "bf16"):
        dtype = dtypes.as_dtype(code)
        columns = inputs_for(FUNCTIONS["scalef"], dtype)
        for lanes in (2, 3, 17, 32, 40):
            kernel = kernel_of(
                f"{code}_{lanes}", [dtype] * 2, dtype, lambda x, n: apply("scalef", x, n), lanes
            )
            jobs[kernel.name] = (kernel, columns)
    for key, outs in compute(target_of(name), jobs).items():
        with np.errstate(all="ignore"):
            expected = FUNCTIONS["scalef"].numpy(*jobs[key][1])
        assert_same(outs[1], expected, key)


@pytest.mark.parametrize("name", TARGETS)
def test_division_by_constants(name: str) -> None:
    jobs = {}
    for code in ("i8", "u8", "i32", "u32", "i64", "u64"):
        dtype = dtypes.as_dtype(code)
        values = np.concatenate([edges(dtype), samples(dtype, 50, 2)])
        for by in (-3, -1, 0, 1, 2, 7, 16):
            for fn in ("idiv", "irem", "floordiv", "floormod"):
                if by >= 0 or not dtype.is_unsigned:
                    kernel = kernel_of(
                        f"{fn}_{code}_{by}".replace("-", "m"), [dtype], dtype,
                        lambda x, fn=fn, by=by: apply(fn, x, by), 8,
                    )  # fmt: skip
                    jobs[f"{fn} {code} {by}"] = (kernel, [values])
    for key, outs in compute(target_of(name), jobs).items():
        fn, code, by = key.split()
        values = jobs[key][1][0]
        with np.errstate(all="ignore"):
            expected = FUNCTIONS[fn].numpy(values, values.dtype.type(int(by)))
        for out in outs:
            assert_same(out, expected.astype(values.dtype), key)


def test_local_buffers_of_every_dtype() -> None:
    """Values stay what they are in a buffer that is private to the lane."""
    target = target_of("generic")
    jobs = {}
    for dtype in dtypes.ALL:
        n, i, j, lane = Var("n"), Var("i"), Var("j"), Var("lane")
        x, y = Buffer("x", dtype, n), tuple(Buffer(f"y{k}", dtype, n) for k in range(3))
        own = local("own", dtype, 3)
        at = i * 4 + lane
        inner = Block((
            Alloc(own),
            For(j, const(3), LoopKind.UNROLLED, block(Store(own, j, Load(x, at)))),
            Store(y[0], at, Load(own, const(1))),
        ))  # fmt: skip
        vector = For(lane, const(4), LoopKind.VECTORIZED, inner)
        loop = For(i, index_div(n, 4), LoopKind.SERIAL, block(vector))
        values = samples(dtype, 12, 3)
        jobs[dtype.code] = (Kernel(dtype.code, (x, *y), (n,), block(loop)), [values])
    for code, outs in compute(target, jobs).items():
        assert outs[0].tobytes() == jobs[code][1][0].tobytes(), code
