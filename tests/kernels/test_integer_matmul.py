"""Products of 8-bit integers, exact: interpreted on small shapes, native on every target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from graphc.dtypes import DType, int8, int32, uint8
from graphc.kernels import matmul
from graphc.loop import ir
from graphc.loop.ir import Buffer, Expr, Kernel, Load, Var
from graphc.loop.printer import format_kernel
from graphc.runtime.jit import named_target

TARGETS = ("generic", "avx2", "avx512", "avx512vnni")
EDGES = [
    *((0, 5, 8), (3, 0, 20), (4, 3, 0), (1, 1, 1), (1, 7, 5), (7, 5, 1), (1, 64, 16), (1, 3, 33)),
    *((2, 300, 70), (5, 17, 31), (14, 20, 32), (15, 9, 33), (29, 64, 100), (28, 66, 16)),
    *((64, 100, 10), (37, 300, 4), (31, 130, 48), (100, 7, 17), (3, 1, 200), (1, 1100, 300)),
    *((43, 2050, 37), (9, 4100, 65), (520, 30, 40), (30, 40, 600), (13, 256, 64)),
]


ON_TARGETS = pytest.mark.parametrize("batch", TARGETS, indirect=True)


@dataclass
class Case:
    """A product of one shape: its kernel, operands and result."""

    m: int
    k: int
    n: int
    lhs: DType = int8
    ta: bool = False
    tb: bool = False
    symbolic: str = ""
    shift: int = 0  # added to the left operand by what is fused in front of the product

    @property
    def name(self) -> str:
        flags = f"{'t' * self.ta}_{'t' * self.tb}_{self.symbolic}_{self.shift}"
        return f"mm_{self.m}_{self.k}_{self.n}_{self.lhs.name}_{flags}"

    def kernel(self, target: str) -> Kernel:
        size: dict[str, Any] = dict(m=self.m, k=self.k, n=self.n)
        size.update({s: Var(s) for s in self.symbolic})
        m, k, n = size["m"], size["k"], size["n"]
        shapes = ((k, m) if self.ta else (m, k)), ((n, k) if self.tb else (k, n)), (m, n)
        buffers = [
            Buffer(name, dtype, ir.mul(*matmul.extents(shape)))
            for name, dtype, shape in zip("abc", (self.lhs, int8, int32), shapes, strict=True)
        ]
        a, b, c = buffers
        dense = matmul.dense(a, shapes[0], 0, self.ta)

        def left(batch: Any, row: Expr, column: Expr) -> Expr:
            value = dense(batch, row, column)
            assert isinstance(value, Load)
            return ir.add(value, self.shift) if self.shift else value

        return matmul.matmul_kernel(
            self.name, buffers, [v for v in (m, k, n) if isinstance(v, Var)], m=m, n=n, k=k,
            lhs=left, rhs=matmul.dense(b, shapes[1], 0, self.tb),
            finish=matmul.store_dense(c, (), m, n), dtype=self.lhs, acc=int32,
            target=named_target(target),
        )  # fmt: skip

    @property
    def scalars(self) -> list[int]:
        return [getattr(self, name) for name in "mkn" if name in self.symbolic]

    def arrays(self, rng: np.random.Generator) -> list[np.ndarray]:
        shapes = (self.k, self.m) if self.ta else (self.m, self.k)
        low, high = self.lhs.limits
        a = rng.integers(low, high, shapes, self.lhs.numpy, endpoint=True)
        shapes = (self.n, self.k) if self.tb else (self.k, self.n)
        b = rng.integers(-128, 127, shapes, np.int8, endpoint=True)
        # What saturates where sums of two products are kept in 16 bits.
        a[:1], b[:1] = high, -128
        return [a, b, np.full((self.m, self.n), 77, np.int32)]

    def check(self, arrays: list[np.ndarray]) -> None:
        a, b, out = arrays
        a = (a + self.lhs.numpy.type(self.shift)).astype(np.int64)
        expected = (a.T if self.ta else a) @ (b.T if self.tb else b).astype(np.int64)
        np.testing.assert_array_equal(out, expected, err_msg=self.name)


def check(batch: Any, cases: list[Case]) -> None:
    rng = np.random.default_rng(0)
    kernels = [batch.add(case.kernel(batch.target)) for case in cases]
    for case, kernel in zip(cases, kernels, strict=True):
        arrays = case.arrays(rng)
        batch.run(kernel, arrays, case.scalars)
        case.check(arrays)


@ON_TARGETS
@pytest.mark.parametrize("lhs", [int8, uint8], ids=lambda t: t.name)
@pytest.mark.parametrize("tb", [False, True])
@pytest.mark.parametrize("ta", [False, True])
def test_tile_edges(batch: Any, ta: bool, tb: bool, lhs: DType) -> None:
    check(batch, [Case(m, k, n, lhs, ta, tb) for m, k, n in EDGES])


@ON_TARGETS
@pytest.mark.parametrize("lhs", [int8, uint8], ids=lambda t: t.name)
@pytest.mark.parametrize("symbolic", ["m", "k", "mkn"])
def test_symbolic_extents(batch: Any, symbolic: str, lhs: DType) -> None:
    rng = np.random.default_rng(1)
    turned = (False, True)
    first = [Case(14, 40, 37, lhs, t, t, symbolic).kernel(batch.target) for t in turned]
    for t, kernel in zip(turned, [batch.add(k) for k in first], strict=True):
        for m in (0, 1, 4, 9, 14, 15, 43) if "m" in symbolic else (14,):
            for k in (0, 1, 40, 1027) if "k" in symbolic else (40,):
                for n in (0, 1, 16, 65) if "n" in symbolic else (37,):
                    case = Case(m, k, n, lhs, t, t, symbolic)
                    arrays = case.arrays(rng)
                    batch.run(kernel, arrays, case.scalars)
                    case.check(arrays)


@ON_TARGETS
def test_a_fused_left_operand(batch: Any) -> None:
    check(batch, [Case(m, k, n, uint8, ta=ta, shift=3)
                  for m, k, n in EDGES[8:14] for ta in (False, True)])  # fmt: skip


def small_cases() -> Iterator[Case]:
    for lhs in (int8, uint8):
        for ta, tb in ((False, False), (True, True)):
            yield from (Case(m, k, n, lhs, ta, tb) for m, k, n in ((3, 5, 9), (15, 8, 33)))
        yield Case(15, 2060, 17, lhs)
        yield Case(2, 6, 9, lhs, symbolic="mkn")


@pytest.mark.parametrize(("target", "function"), [("avx512vnni", "dp4a"), ("avx2", "madd16")])
@pytest.mark.parametrize("case", list(small_cases()), ids=lambda c: c.name)
def test_interpreted(interpret: Any, case: Case, target: str, function: str) -> None:
    kernel = case.kernel(target)
    few = case.m <= 4 or (case.k <= 8 and not case.symbolic)
    assert function in format_kernel(kernel) or (target == "avx2" and few)
    arrays = case.arrays(np.random.default_rng(2))
    interpret(kernel, arrays, case.scalars)
    case.check(arrays)


@ON_TARGETS
@pytest.mark.parametrize(("lhs", "value"), [(uint8, 255), (int8, -128)], ids=["uint8", "int8"])
def test_sums_wrap(batch: Any, lhs: DType, value: int) -> None:
    """2**31 is more than an int32 holds: sums are those of int32 additions."""
    k = 140_000
    kernel = batch.add(Case(2, k, 16, lhs).kernel(batch.target))
    a, b = np.full((2, k), value, lhs.numpy), np.full((k, 16), -128, np.int8)
    out = np.zeros((2, 16), np.int32)
    batch.run(kernel, [a, b, out])
    exact = k * value * -128
    assert abs(exact) > 2**31
    assert (out == (exact + 2**31) % 2**32 - 2**31).all()
