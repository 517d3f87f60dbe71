"""Matrix products against NumPy: interpreted on small shapes, native on many."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from graphc import dtypes
from graphc.codegen import llvm
from graphc.dtypes import DType, bfloat16, float16, float32, float64
from graphc.kernels import matmul
from graphc.kernels.problem import accumulator
from graphc.kernels.tiling import COLLIDING_ROWS, ROW_PANELS
from graphc.loop import ir
from graphc.loop.ir import Buffer, Expr, Kernel, LoopKind, Store, Var
from graphc.loop.printer import format_kernel
from graphc.runtime.jit import emit_assembly, named_target

SHAPES = [
    *((0, 5, 3), (3, 0, 5), (4, 3, 0), (1, 1, 1), (1, 7, 5), (7, 5, 1), (1, 40, 1), (1, 3, 33)),
    *((2, 300, 70), (5, 17, 31), (13, 11, 97), (14, 20, 32), (15, 9, 33), (29, 64, 100)),
    *((64, 100, 10), (37, 300, 2), (31, 130, 48), (100, 7, 17), (3, 1, 200), (65, 530, 3)),
]


@dataclass
class Case:
    """A product of one shape: its kernel, operands and result."""

    m: int
    k: int
    n: int
    ta: bool = False
    tb: bool = False
    dtype: DType = float32
    symbolic: str = ""
    batch: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    @property
    def name(self) -> str:
        flags = f"{'t' * self.ta}_{'t' * self.tb}_{self.symbolic}"
        dims = "_".join(str(d) for d in (*self.batch[0], 9, *self.batch[1]))
        return f"mm_{self.m}_{self.k}_{self.n}_{flags}_{self.dtype.name}_{dims}"

    def kernel(self, target: str) -> Kernel:
        size: dict[str, Any] = dict(m=self.m, k=self.k, n=self.n)
        size.update({s: Var(s) for s in self.symbolic})
        m, k, n = size["m"], size["k"], size["n"]
        batch = np.broadcast_shapes(*self.batch)
        acc = accumulator(self.dtype)
        out_type = acc if self.dtype.is_integer else self.dtype
        shapes = ((k, m) if self.ta else (m, k)), ((n, k) if self.tb else (k, n)), (m, n)
        buffers = [
            Buffer(name, dtype, total((*b, *shape)))
            for name, dtype, b, shape in zip(
                "abc", (self.dtype, self.dtype, out_type), (*self.batch, batch), shapes, strict=True
            )
        ]
        a, b, c = buffers
        return matmul.matmul_kernel(
            self.name,
            buffers,
            [v for v in (m, k, n) if isinstance(v, Var)],
            batch=batch,
            m=m,
            n=n,
            k=k,
            lhs=matmul.dense(a, (*self.batch[0], *shapes[0]), len(batch), self.ta),
            rhs=matmul.dense(b, (*self.batch[1], *shapes[1]), len(batch), self.tb),
            finish=matmul.store_dense(c, batch, m, n),
            dtype=self.dtype,
            target=named_target(target),
        )

    @property
    def scalars(self) -> list[int]:
        return [getattr(self, name) for name in "mkn" if name in self.symbolic]

    def arrays(self, rng: np.random.Generator) -> list[Any]:
        acc = accumulator(self.dtype)
        out_type = acc if self.dtype.is_integer else self.dtype
        shapes = (
            (*self.batch[0], *((self.k, self.m) if self.ta else (self.m, self.k))),
            (*self.batch[1], *((self.n, self.k) if self.tb else (self.k, self.n))),
        )
        if self.dtype.is_integer:
            low, high = self.dtype.limits
            a, b = (rng.integers(low, high, s, self.dtype.numpy, endpoint=True) for s in shapes)
        else:
            a, b = (rng.standard_normal(s).astype(self.dtype.numpy) for s in shapes)
        out = np.full((*np.broadcast_shapes(*self.batch), self.m, self.n), 77, out_type.numpy)
        return [a, b, out]

    def check(self, arrays: list[Any]) -> None:
        a, b, out = arrays
        a = a.swapaxes(-1, -2) if self.ta else a
        b = b.swapaxes(-1, -2) if self.tb else b
        if self.dtype.is_integer:
            with np.errstate(over="ignore"):
                np.testing.assert_array_equal(out, a.astype(out.dtype) @ b.astype(out.dtype))
            return
        a, b = a.astype(np.float64), b.astype(np.float64)
        exact = a @ b
        # Each of k products and sums is rounded; the error is bounded by what was added up.
        acc = accumulator(self.dtype)
        bound = dtypes.finfo(acc.numpy).eps * (self.k + 1) * (np.abs(a) @ np.abs(b))
        info = dtypes.finfo(self.dtype.numpy)
        bound += np.abs(exact) * float(info.eps) + float(info.tiny)
        assert (np.abs(out.astype(np.float64) - exact) <= bound).all(), self.name


def total(shape: tuple[Any, ...]) -> Expr:
    size: Expr = ir.ONE
    for extent in shape:
        size = ir.mul(size, extent)
    return size


def check_native(batch: Any, cases: list[Case]) -> None:
    rng = np.random.default_rng(0)
    kernels = [batch.add(case.kernel(batch.target)) for case in cases]
    for case, kernel in zip(cases, kernels, strict=True):
        arrays = case.arrays(rng)
        batch.run(kernel, arrays, case.scalars)
        case.check(arrays)


@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_shapes(batch: Any, ta: bool, tb: bool) -> None:
    check_native(batch, [Case(m, k, n, ta, tb) for m, k, n in SHAPES])


@pytest.mark.parametrize("symbolic", ["m", "mkn"])
@pytest.mark.parametrize("tb", [False, True])
def test_symbolic_extents(batch: Any, symbolic: str, tb: bool) -> None:
    rng = np.random.default_rng(1)
    for ta in (False, True):
        kernels = [
            batch.add(Case(0, 40, 37, ta, tb, symbolic=symbolic).kernel(batch.target)),
            batch.add(Case(0, 140, 11, ta, tb, symbolic=symbolic).kernel(batch.target)),
        ]
        for m in (0, 1, 2, 4, 5, 8, 9, 13, 14, 15, 43):
            for kernel, (k, n) in zip(kernels, ((40, 37), (140, 11)), strict=True):
                sizes = [(k, n)] if symbolic == "m" else [(k, n), (0, n), (k, 0), (3, 1), (700, 65)]
                for some_k, some_n in sizes:
                    case = Case(m, some_k, some_n, ta, tb, symbolic=symbolic)
                    arrays = case.arrays(rng)
                    batch.run(kernel, arrays, case.scalars)
                    case.check(arrays)
        batch.kernels.clear()
        batch.loaded = None


@pytest.mark.parametrize(
    "dtype", [t for t in dtypes.NUMERIC if t != float32], ids=lambda t: str(t.name)
)
def test_dtypes(batch: Any, dtype: DType) -> None:
    shapes = [(9, 33, 21), (1, 20, 3), (17, 5, 70), (3, 300, 1)]
    flags = [(False, False), (True, False), (False, True)]
    check_native(batch, [Case(*s, *f, dtype=dtype) for s in shapes for f in flags])


def test_large_enough_to_block_and_pack(batch: Any) -> None:
    cases = [Case(m, k, n) for m, k, n in ((130, 600, 520), (16, 300, 1000))]
    cases += [Case(130, 530, 150, tb=True), Case(200, 270, 40, True, True), Case(70, 530, 90, True)]
    cases += [Case(530, 1100, 300), Case(1100, 530, 70, tb=True)]
    cases += [Case(90, 300, 300, dtype=t) for t in (float16, bfloat16, float64)]
    cases += [Case(1, 20, 1000), Case(2, 30, 400), Case(300, 270, 520)]
    cases += [Case(m, 40, 700 + m, symbolic="m") for m in (1, 5)]
    check_native(batch, cases)


@pytest.mark.parametrize(
    ("case", "asks"),
    [
        (Case(9, 1100, 32), True),
        (Case(9, 1000, 32), False),  # less than 128 KiB, in one run
        (Case(9, 600, 224), True),
        (Case(9, 580, 224), False),  # less than 512 KiB, row by row
        (Case(40, 600, 1000, symbolic="m"), True),
        (Case(40, 600, 1000, symbolic="k"), False),
        (Case(9, 1100, 32, dtype=float64), True),
        (Case(600, 600, 900), False),  # packed
    ],
)
def test_large_right_operands_are_asked_for_ahead(batch: Any, case: Case, asks: bool) -> None:
    assert ("prefetch b[" in format_kernel(case.kernel(batch.target))) == asks
    check_native(batch, [case])


@pytest.mark.parametrize(
    ("k", "dtype", "apart"),
    [
        (1024, float32, False), (2048, float32, False), (1040, float32, True),
        (512, float32, True), (512, float64, False), (520, float64, True),
    ],
)  # fmt: skip
def test_rows_that_share_their_places_in_the_cache(k: int, dtype: DType, apart: bool) -> None:
    """Fewer of them are in a tile."""
    case = Case(112, k, 64, dtype=dtype)
    text = format_kernel(case.kernel("avx512"))
    rows = {int(size) for size in re.findall(r"unrolled u\d+ in (\d+)", text)}
    assert (max(rows) > COLLIDING_ROWS) == apart


@pytest.mark.parametrize(
    ("target", "m", "n", "packed"),
    [
        ("avx2", 48, 256, True), ("avx2", 12, 256, False), ("avx2", 48, 32, False),
        ("generic", 48, 256, True), ("avx512", 48, 256, False),
    ],
)  # fmt: skip
def test_short_vectors_pack_sooner(target: str, m: int, n: int, packed: bool) -> None:
    """Where a panel is a line of the caches wide, few of its rows stay in the first one."""
    text = format_kernel(Case(m, 256, n).kernel(target))
    assert ("rhs_panel" in text) == packed


@pytest.mark.parametrize("m", [3, 32, 96])
@pytest.mark.parametrize("n", [8, 16, 20, 24, 40, 512])
def test_sums_stay_in_16_registers(m: int, n: int) -> None:
    cpu = named_target("avx2")
    assembly = emit_assembly(llvm.print_kernel(Case(m, 100, n).kernel("avx2"), cpu), cpu)
    assert not re.findall(r"%ymm\d+, .*Spill", assembly)


@pytest.mark.parametrize(("m", "k", "n", "parallel"), [
    (1, 1000, 1000, True), (2, 1000, 1000, True), (1, 300, 300, False), (2, 500, 500, False),
])  # fmt: skip
def test_few_rows_of_a_large_right_operand_are_for_several_threads(m, k, n, parallel) -> None:
    """What counts is how much is read."""
    loop = Case(m, k, n).kernel("avx512").parallel
    assert (loop is not None) == parallel
    if loop is not None and m == 1:
        assert loop.extent.value >= ROW_PANELS


def test_products_of_such_rows(batch: Any) -> None:
    check_native(batch, [Case(m, 1024, n) for m in (3, 10, 11, 25) for n in (40, 96)])


def test_batches_broadcast(batch: Any) -> None:
    shapes = (((3,), (3,)), ((2, 3), (1, 3)), ((2, 1), (4,)), ((), (5,)), ((6,), ()), ((0,), (1,)))
    flags = ((False, False), (True, False), (False, True))
    check_native(batch, [Case(5, 9, 19, *f, batch=b) for b in shapes for f in flags])


ON_PAIRS = pytest.mark.parametrize("batch", ["avx512bf16"], indirect=True)
PAIRED = [(16, 16, 16), (33, 17, 20), (70, 1000, 130), (29, 2051, 90), (25, 9, 700), (600, 20, 9)]


@ON_PAIRS
@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
def test_pairs_of_bfloat16(batch: Any, ta: bool, tb: bool) -> None:
    cases = [Case(m, k, n, ta, tb, dtype=bfloat16) for m, k, n in SHAPES + PAIRED]
    cases += [Case(6, 11, 19, ta, tb, dtype=bfloat16, batch=((2, 1), (3,)))]
    check_native(batch, cases)


@ON_PAIRS
def test_pairs_of_symbolic_extents(batch: Any) -> None:
    rng = np.random.default_rng(4)
    for ta, tb in ((False, False), (True, True)):
        some = Case(0, 0, 0, ta, tb, bfloat16, "mkn")
        kernel = batch.add(some.kernel(batch.target))
        for m, k, n in [*SHAPES, *PAIRED]:
            case = Case(m, k, n, ta, tb, bfloat16, "mkn")
            arrays = case.arrays(rng)
            batch.run(kernel, arrays, case.scalars)
            case.check(arrays)
        batch.kernels.clear()
        batch.loaded = None


def test_pairs_interpreted(interpret: Any) -> None:
    rng = np.random.default_rng(5)
    for ta, tb in ((False, False), (True, False), (False, True)):
        for shape in ((25, 10, 35), (26, 33, 9)):
            for symbolic in ("", "k"):
                case = Case(*shape, ta, tb, bfloat16, symbolic)
                kernel, arrays = case.kernel("avx512bf16"), case.arrays(rng)
                assert "dot2" in format_kernel(kernel)
                interpret(kernel, arrays, case.scalars)
                case.check(arrays)


def test_which_products_go_by_pairs() -> None:
    def paired(m: int, k: int, n: int, dtype: DType = bfloat16, target: str = "avx512bf16") -> bool:
        return "dot2" in format_kernel(Case(m, k, n, dtype=dtype).kernel(target))

    assert paired(64, 64, 64)
    assert not paired(64, 64, 64, float16)
    assert not paired(64, 64, 64, float32)
    assert not paired(64, 64, 64, target="avx512vnni")
    # The right operand is read so few times that nothing pays for packing it.
    assert not paired(12, 64, 64)
    assert paired(13, 64, 64)
    assert not paired(64, 64, 3)
    assert not paired(64, 3, 64)


@ON_PAIRS
def test_pairs_take_subnormal_numbers_for_zero(batch: Any) -> None:
    """Within the bound that docs/guide.md states."""
    case, rng = Case(20, 31, 24, dtype=bfloat16), np.random.default_rng(6)
    kernel, arrays = batch.add(case.kernel(batch.target)), case.arrays(rng)
    a, b, _ = arrays
    a[:] = (a.astype(np.float32) * 2.0 ** rng.integers(-140, -60, a.shape)).astype(a.dtype)
    b[:] = (b.astype(np.float32) * 2.0 ** rng.integers(-140, 60, b.shape)).astype(b.dtype)
    batch.run(kernel, arrays)
    wide = [v.astype(np.float64) for v in arrays]
    exact, size = wide[0] @ wide[1], np.abs(wide[0]) @ np.abs(wide[1])
    flushed = np.abs(wide[0]).sum(1)[:, None] + np.abs(wide[1]).sum(0) + case.k
    bound = 2.0**-23 * case.k * size + 2.0**-126 * flushed + 2.0**-8 * np.abs(exact) + 2.0**-126
    assert (np.abs(wide[2] - exact) <= bound).all()
    assert ((np.abs(a.astype(np.float32)) < 2.0**-126) & (a != 0)).any()


@ON_PAIRS
def test_pairs_with_nan_and_infinity(batch: Any) -> None:
    case = Case(15, 21, 19, dtype=bfloat16)
    a, b, out = case.arrays(np.random.default_rng(7))
    a[:], b[:] = 1, 1
    a[0, 20], a[1, 4], b[7, 18] = np.nan, np.inf, -np.inf
    batch.run(batch.add(case.kernel(batch.target)), [a, b, out])
    found = out.astype(np.float32)
    assert np.isnan(found[0]).all()
    assert np.isposinf(found[1, :18]).all()
    assert math.isnan(found[1, 18])
    assert np.isneginf(found[2:, 18]).all()
    assert (found[2:, :18] == 21).all()


@pytest.mark.parametrize("target", ["generic", "avx512"])
def test_interpreted(interpret: Any, target: str) -> None:
    rng = np.random.default_rng(2)
    cases = [
        *(Case(*shape) for shape in ((0, 2, 3), (2, 0, 3), (15, 5, 35), (3, 40, 2), (1, 9, 70))),
        *(Case(16, 6, 33, symbolic=s) for s in ("m", "mkn")),
        *(Case(6, 300, 9, symbolic=s, tb=True) for s in ("", "m", "mkn")),
        Case(100, 4, 10, True),
        Case(7, 33, 5, dtype=float16),
        Case(7, 33, 5, dtype=bfloat16),
        Case(7, 33, 5, dtype=dtypes.int8),
        Case(3, 5, 7, batch=((2, 1), (3,))),
        Case(100, 12, 9, tb=True),
        Case(2, 260, 5, dtype=float16),
        Case(2, 260, 5, dtype=bfloat16),
    ]
    for case in cases:
        arrays = case.arrays(rng)
        interpret(case.kernel(target), arrays, case.scalars)
        case.check(arrays)


def _relu(value: Expr) -> Expr:
    return ir.apply("max", value, 0.0)


@pytest.mark.parametrize("heavy", [False, True])
def test_fused_prologue_and_epilogue(batch: Any, heavy: bool) -> None:
    rng = np.random.default_rng(3)
    for number, (m, k, n) in enumerate([(21, 30, 41), (1, 64, 40), (33, 50, 1), (70, 300, 130)]):
        shapes = dict(a=(m, k), shift=(k,), b=(k, n), bias=(n,), rest=(m, n), c=(m, n))
        buffers = {name: Buffer(name, float32, total(s)) for name, s in shapes.items()}
        rows = Var("rows")
        plain = matmul.dense(buffers["a"], (rows, k), 0)

        def lhs(
            b: tuple[Expr, ...], i: Expr, j: Expr, load: Any = plain, at: Any = buffers
        ) -> Expr:
            return _relu(load(b, i, j) + ir.Load(at["shift"], j))

        def finish(
            b: Any, i: Expr, j: Expr, value: Expr, n: int = n, at: Any = buffers
        ) -> tuple[ir.Stmt, ...]:
            place = ir.add(ir.mul(i, n), j)
            value = _relu(value + ir.Load(at["bias"], j))
            for _ in range(20 if heavy else 0):
                value = value * 1.5 - value * 0.5
            return (Store(at["c"], place, value + ir.Load(at["rest"], place)),)

        kernel = matmul.matmul_kernel(
            f"fused{number}",
            list(buffers.values()),
            [rows],
            m=rows,
            n=n,
            k=k,
            lhs=lhs,
            rhs=matmul.dense(buffers["b"], (k, n), 0),
            finish=finish,
            dtype=float32,
            target=named_target(batch.target),
        )
        batch.kernels.clear()
        batch.loaded = None
        arrays = {s: rng.standard_normal(shapes[s]).astype(np.float32) for s in shapes}
        batch.run(batch.add(kernel), list(arrays.values()), [m])
        a = np.maximum(arrays["a"] + arrays["shift"], 0)
        expected = np.maximum(a @ arrays["b"] + arrays["bias"], 0) + arrays["rest"]
        np.testing.assert_allclose(arrays["c"], expected, rtol=1e-4, atol=1e-4)


def test_small_products_run_on_one_thread() -> None:
    small, large = Case(64, 100, 10).kernel("avx512"), Case(512, 512, 512).kernel("avx512")
    assert small.parallel is None
    assert large.parallel is not None
    assert large.parallel.kind is LoopKind.PARALLEL


def test_nan_and_infinity_go_through(batch: Any) -> None:
    kernel = batch.add(Case(3, 20, 19).kernel(batch.target))
    a, b = np.ones((3, 20), np.float32), np.ones((20, 19), np.float32)
    a[0, 3], a[1, 4], b[7, 18] = np.nan, np.inf, -np.inf
    out = np.empty((3, 19), np.float32)
    batch.run(kernel, [a, b, out])
    assert np.isnan(out[0]).all()
    assert np.isposinf(out[1, :18]).all()
    assert math.isnan(out[1, 18])
    assert np.isneginf(out[2, 18])
    assert (out[2, :18] == 20).all()


@pytest.mark.parametrize(
    ("sizes", "target", "packs"),
    [
        ((64, 512, 10), "avx512", False),  # most of a vector's lanes would idle
        ((64, 512, 70), "avx512", False),  # a last vector of six
        ((64, 128, 64), "avx512", True), ((64, 512, 100), "avx512", True),
        ((32, 512, 512), "avx512", False), ((33, 512, 512), "avx512", True),
        ((64, 1024, 512), "avx512", False), ((97, 1024, 512), "avx512", True),
        ((64, 512, 10), "avx2", False), ((64, 1024, 64), "avx2", True),
        ((64, 512, 20), "generic", True),
    ],
)  # fmt: skip
def test_when_a_transposed_operand_is_packed(
    sizes: tuple[int, int, int], target: str, packs: bool
) -> None:
    assert ("rhs_panel" in format_kernel(Case(*sizes, tb=True).kernel(target))) == packs
