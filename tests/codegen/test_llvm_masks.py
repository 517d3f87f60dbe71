"""Random masked loads and stores of every type and width, as machine code against the interpreter.

Masks are constant in part (a test of the lane against a literal, in an unrolled loop): LLVM then
splits, narrows and folds the accesses.
"""

from __future__ import annotations

import ctypes
import random
from typing import Any

import numpy as np
import pytest

from graphc.codegen.llvm import module, print_kernel
from graphc.dtypes import (
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)
from graphc.loop.interpret import run_kernel
from graphc.loop.ir import (
    Buffer,
    Const,
    Expr,
    For,
    Guard,
    If,
    Kernel,
    Load,
    LoopKind,
    Stmt,
    Store,
    Var,
    add,
    apply,
    block,
    const,
    mul,
    select,
    sub,
)
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import format_kernel
from graphc.loop.verify import verify_kernel
from graphc.runtime.jit import compile_object, load_object, named_target

TYPES = (float32, float64, float16, bfloat16, int8, int16, int32, int64, uint8, bool_)
WIDTHS = (2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 24, 31, 32, 33, 48, 64)
ROUNDS = 3
MARGIN = 64
PATTERNS = 4
Array = np.ndarray[Any, Any]


class Maker:
    """Makes one random kernel: each of a few patterns fills a part of ``y`` of its own."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.dtype: DType = self.r.choice(TYPES)
        self.width = self.r.choice(WIDTHS)
        self.part = ROUNDS * self.width * 3
        size = const(self.part * PATTERNS)
        self.x, self.z = Buffer("x", self.dtype, size), Buffer("z", self.dtype, size)
        self.t, self.y = Buffer("t", int64, size), Buffer("y", self.dtype, size)
        self.n, self.i, self.lane = Var("n"), Var("i"), Var("l")

    def kernel(self, name: str) -> Kernel:
        stmts = []
        for number in range(PATTERNS):
            self.i, self.lane = Var("i"), Var("l")
            vector = For(
                self.lane, const(self.width), LoopKind.VECTORIZED, block(*self.pattern(number))
            )
            kind = self.r.choice([LoopKind.SERIAL, LoopKind.UNROLLED])
            stmts.append(For(self.i, const(ROUNDS), kind, block(vector)))
        return Kernel(name, (self.x, self.z, self.t, self.y), (self.n,), block(*stmts))

    def pattern(self, number: int) -> list[Stmt]:
        base = add(const(number * self.part), mul(self.i, self.width * 3))
        value = self.value(2)
        at = self.r.choice(
            [
                self.lane,
                add(self.lane, self.r.randrange(self.width)),
                sub(const(self.width - 1), self.lane),
                mul(self.lane, self.r.choice([2, 3])),
            ]
        )
        store: Stmt = Store(self.y, add(base, at), value)
        for _ in range(self.r.choice([0, 1, 1, 2])):
            other = None
            if self.r.random() < 0.3:
                other = block(Store(self.y, add(base, at), self.value(1)))
            store = If(self.cond(), block(store), other)
        return [store]

    def cond(self, depth: int = 1) -> Expr:
        r, lane, width = self.r, self.lane, self.width
        bound = r.choice(
            [
                const(r.randrange(width + 2)),
                const(width // 2),
                self.n,
                self.i,
                sub(self.n, mul(self.i, width // 2)),
            ]
        )
        kind = r.randrange(9)
        if kind == 0:
            return r.choice([self.i >= 1, self.i < self.n, apply("eq", self.i, const(1))])
        if kind == 1 and depth:
            return apply(r.choice(["and", "or"]), self.cond(0), self.cond(0))
        if kind == 2:
            return apply("eq", apply("irem", lane, const(r.choice([2, 3, 4]))), const(0))
        if kind == 3:
            return Load(self.t, add(self.where(), 0)) < 40
        return apply(r.choice(["lt", "ge", "le", "gt"]), lane, bound)

    def where(self) -> Expr:
        """A place in ``x``, ``z`` or ``t``: contiguous, reversed, strided or the same for all."""
        r, lane, width = self.r, self.lane, self.width
        base = mul(self.i, r.choice([0, 1, width]))
        step = r.choice(
            [lane, lane, sub(const(width - 1), lane), mul(lane, 2), mul(lane, 3), const(0)]
        )
        return add(add(base, step), r.randrange(5))

    def load(self) -> Expr:
        buffer = self.r.choice([self.x, self.z])
        if self.r.random() < 0.25:
            return Load(buffer, Load(self.t, self.where()))
        return Load(buffer, self.where())

    def value(self, depth: int) -> Expr:
        r = self.r
        kind = r.randrange(8)
        if depth == 0 or kind == 0:
            return r.choice([self.load(), self.literal()])
        if kind == 1:
            return select(self.cond(), self.value(depth - 1), self.value(depth - 1))
        if kind == 2 and self.dtype is not bool_:
            return apply(r.choice(["add", "max"]), self.value(depth - 1), self.value(depth - 1))
        value = self.load() if r.random() < 0.7 else self.value(depth - 1)
        return Guard(self.cond(), value, self.value(depth - 1))

    def literal(self) -> Const:
        return Const(self.r.randrange(2 if self.dtype is bool_ else 100), self.dtype)


class Margins:
    """An array in the middle of a longer one whose ends must stay as they are."""

    def __init__(self, values: Array) -> None:
        self.whole = np.full(len(values) + 2 * MARGIN, 77, values.dtype)
        if values.dtype == np.bool_:
            self.whole[:] = True
        self.before = self.whole.copy()
        self.array = self.whole[MARGIN:-MARGIN]
        self.array[:] = values

    def intact(self) -> bool:
        ends = (slice(None, MARGIN), slice(-MARGIN, None))
        return all(self.whole[e].tobytes() == self.before[e].tobytes() for e in ends)


def data(maker: Maker, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    size = maker.part * PATTERNS
    high = 2 if maker.dtype is bool_ else 100
    values = [rng.integers(0, high, size).astype(maker.dtype.numpy) for _ in range(3)]
    return [*values[:2], rng.integers(0, 80, size) % size, values[2]]


ONE_LANE = """\
kernel {name}(x: f32[64], y: {code}[64]; n):
  vectorized l in {width}:
    if {condition}:
      y[n + {place}] = {code}(x[l])
"""
CONDITIONS = ("l < 1", "l > {last}", "l == 2", "l + 32 < 33", "not (l < {last})")


@pytest.mark.parametrize("name", ["avx512", "avx2", "generic"])
def test_a_store_of_one_lane_stores_one_element(name: str) -> None:
    """LLVM stored four bytes for one or two where it joined the store with a truncation."""
    target, kernels = named_target(name), {}
    if not target.is_host:
        pytest.skip(f"this machine does not run {name} code")
    for code in ("bf16", "f16", "i8", "u8", "i16", "u16", "i32"):
        for width in (4, 16, 32):
            for number, text in enumerate(CONDITIONS):
                for place in ("l", "(31 - l)"):
                    key = f"k_{code}_{width}_{number}_{len(place)}"
                    condition = text.format(last=width - (2 if ">" in text else 1))
                    source = ONE_LANE.format(
                        name=key, code=code, width=width, condition=condition, place=place
                    )
                    kernels[key] = verify_kernel(parse_kernel(source))
    code = load_object(compile_object(module(print_kernel(k, target) for k in kernels.values()),
                                      target))  # fmt: skip
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    x = np.linspace(1, 99, 64, dtype=np.float32)
    for key, kernel in kernels.items():
        dtype = kernel.params[1].dtype.numpy
        found, expected = np.full(64, 77).astype(dtype), np.full(64, 77).astype(dtype)
        run_kernel(kernel, [x, expected], [5])
        status = np.zeros(8, np.int64)
        table = np.array([x.ctypes.data, found.ctypes.data, 5, status.ctypes.data], np.int64)
        entry(code.address(key))(table.ctypes.data, 0, 0)
        assert found.tobytes() == expected.tobytes(), f"{key}: {found} {expected}"
        assert (expected != 77).sum() == 1


def compare(seeds: range, name: str) -> None:
    target = named_target(name)
    makers = {seed: Maker(seed) for seed in seeds}
    kernels = {seed: verify_kernel(m.kernel(f"k{seed}")) for seed, m in makers.items()}
    texts = [print_kernel(kernel, target) for kernel in kernels.values()]
    code = load_object(compile_object(module(texts), target))
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    for seed, kernel in kernels.items():
        maker, start = makers[seed], data(makers[seed], seed)
        for n in (0, 1, maker.width // 2, maker.width):
            expected, found = [a.copy() for a in start], [Margins(a) for a in start]
            run_kernel(kernel, expected, [n])
            status = np.zeros(8, np.int64)
            slots = [f.array.ctypes.data for f in found] + [n, status.ctypes.data]
            table = np.array(slots, np.int64)
            kind(code.address(kernel.name))(table.ctypes.data, 0, 0)
            shown = f"seed {seed}, {name}, n = {n}\n{format_kernel(kernel)}"
            np.testing.assert_array_equal(found[3].array, expected[3], err_msg=shown)
            assert all(f.intact() for f in found), shown


@pytest.mark.parametrize("name", ["avx512", "avx2", "generic"])
def test_random_masks(name: str) -> None:
    if not named_target(name).is_host:
        pytest.skip(f"this machine does not run {name} code")
    compare(range(16), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["avx512", "avx2", "generic"])
@pytest.mark.parametrize("chunk", range(10))
def test_many_random_masks(name: str, chunk: int) -> None:
    if not named_target(name).is_host:
        pytest.skip(f"this machine does not run {name} code")
    compare(range(1000 + chunk * 40, 1040 + chunk * 40), name)
