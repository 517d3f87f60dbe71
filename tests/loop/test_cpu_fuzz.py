"""Random naive kernels: what schedule_cpu makes of them computes the same."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc import dtypes
from graphc.codegen.llvm import print_kernel
from graphc.dtypes import DType, bool_, int32, int64
from graphc.loop.cpu import schedule_cpu
from graphc.loop.interpret import run_kernel
from graphc.loop.ir import (
    ONE,
    ZERO,
    Alloc,
    Block,
    Buffer,
    Expr,
    For,
    Guard,
    Kernel,
    Load,
    LoopKind,
    Reduce,
    Store,
    Var,
    apply,
    block,
    cast,
    const,
    local,
    reduce_identity,
)
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import format_kernel
from graphc.loop.verify import verify_kernel
from graphc.runtime.jit import compile_object, host_target, load_object

TARGETS = [
    SimpleNamespace(vector_bytes=64, has_avx512=True, has_fma=True),
    SimpleNamespace(vector_bytes=16, has_avx512=False, has_fma=False),
    SimpleNamespace(vector_bytes=32, has_avx512=False, has_fma=True),
]
VALUES = (
    dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16, int32, dtypes.uint8, int64,
)  # fmt: skip
SIZES = (1, 2, 3, 5, 16, 17, 40, 130, 0)


@dataclass
class Dim:
    """A dimension of the iteration space: its loop variable, its extent and what it is bound to."""

    var: Var
    extent: Expr
    size: int


@dataclass
class Case:
    """A kernel under construction, with the arrays to run it on."""

    draw: object
    dims: list[Dim]
    scalars: list[Var] = field(default_factory=list)
    bound: list[int] = field(default_factory=list)
    params: list[Buffer] = field(default_factory=list)
    arrays: list[np.ndarray] = field(default_factory=list)

    def flat(self, dims: list[Dim], gap: int = 0) -> tuple[Expr, Expr, int]:
        """A row-major index over dimensions, the size of the buffer and what it is bound to."""
        index, size, bound = ZERO, ONE, 1
        for dim in reversed(dims):
            index = dim.var * size + index
            size, bound = dim.extent * size, dim.size * bound
            size, bound = size + gap, bound + gap
        return index, size, bound

    def param(self, dtype: DType, size: Expr, bound: int) -> Buffer:
        draw = self.draw
        buffer = Buffer(f"p{len(self.params)}", dtype, size)
        seed = draw(st.integers(0, 99))
        low = 0 if dtype.is_unsigned or dtype is bool_ else -2
        values = np.random.default_rng(seed).integers(low, 3, size=bound)
        self.params.append(buffer)
        self.arrays.append(values.astype(dtype.numpy))
        return buffer

    def leaf(self, dtype: DType, dims: list[Dim]) -> Expr:
        """A load: of all or some dimensions, in another order, with gaps, or through a table."""
        draw = self.draw
        kind = draw(
            st.sampled_from(["full", "some", "turned", "turned", "gap", "table", "edge", "count"])
        )
        picked = list(dims)
        if kind == "some":
            picked = [d for d in dims if draw(st.booleans())]
        elif kind == "turned":
            picked = draw(st.permutations(dims))
        index, size, bound = self.flat(picked, gap=3 if kind == "gap" else 0)
        if kind == "count" and dims:
            return cast(dims[-1].var % 3, dtype)
        if kind == "table":
            places = self.param(int64, size, bound)
            table = self.param(dtype, const(5), 5)
            where = apply("min", apply("max", Load(places, index), 0), 4)
            return Load(table, where)
        if kind == "edge" and dims:
            # A pad: only the first places of the last dimension are there.
            limit = draw(st.integers(0, 20))
            value = Load(self.param(dtype, size, bound), index)
            return Guard(dims[-1].var < limit, value, const(1, dtype))
        return Load(self.param(dtype, size, bound), index)

    def value(self, dtype: DType, dims: list[Dim], depth: int = 2) -> Expr:
        draw = self.draw
        if depth == 0 or draw(st.booleans()):
            return self.leaf(dtype, dims)
        a = self.value(dtype, dims, depth - 1)
        kind = draw(st.sampled_from(["add", "sub", "max", "select", "cast", "exp", "let"]))
        if kind == "select":
            b = self.value(dtype, dims, 0)
            return apply("select", a < b, a, b)
        if kind == "cast":
            other = draw(st.sampled_from(VALUES))
            return cast(cast(a, other), dtype)
        if kind == "exp" and dtype in (dtypes.float32, dtypes.float64):
            return apply("exp", a)
        if kind in ("add", "sub", "max"):
            return apply(kind, a, self.value(dtype, dims, depth - 1))
        return a


class Sample:
    """A kernel and what to run it on; hypothesis shows it as text."""

    def __init__(self, kernel: Kernel, arrays: list[np.ndarray], scalars: list[int]) -> None:
        self.kernel, self.arrays, self.scalars = kernel, arrays, scalars

    def __repr__(self) -> str:
        return f"\n{format_kernel(self.kernel)}on {self.scalars}"


@st.composite
def cases(draw: object) -> Sample:
    scalars: list[Var] = []
    bound: list[int] = []

    def dim(name: str, budget: int) -> Dim:
        size = draw(st.sampled_from([s for s in SIZES if s <= budget]))
        if draw(st.booleans()):
            var = Var(f"n{len(scalars)}")
            scalars.append(var)
            bound.append(size)
            return Dim(Var(name), var, size)
        return Dim(Var(name), const(size), size)

    def space(names: str, budget: int) -> list[Dim]:
        dims = []
        for name in names:
            dims.append(dim(name, budget))
            budget = max(1, budget // max(dims[-1].size, 1))
        return dims

    outer = space("ijk"[: draw(st.integers(0, 3))], 2000)
    left = max(3, 4000 // max(int(np.prod([d.size for d in outer])), 1))
    case = Case(draw, outer, scalars, bound)
    stmts = []
    for stage in range(draw(st.integers(0, 2))):
        stmts += reduce_stage(case, space("rs"[: draw(st.integers(1, 2))], left), stage)
    totals = [s.buffer for s in stmts if isinstance(s, Alloc)]
    for _ in range(draw(st.integers(0 if stmts else 1, 2))):
        dtype = draw(st.sampled_from(VALUES))
        row = space("t", left) if draw(st.booleans()) else []
        dims = [*outer, *row]
        index, size, n = case.flat(dims)
        value = case.value(dtype, dims)
        for total in totals:
            value = apply("add", value, cast(Load(total, ZERO), dtype))
        out = case.param(dtype, size, n)
        stmts.append(nest(row, block(Store(out, index, value))))
    for total in totals:
        index, size, n = case.flat(outer)
        stmts.append(Store(case.param(total.dtype, size, n), index, Load(total, ZERO)))
    body = nest(outer, Block(tuple(flat(stmts))))
    kernel = Kernel("k", tuple(case.params), tuple(scalars), block(body))
    return Sample(kernel, case.arrays, bound)


def flat(stmts: list) -> list:
    found = []
    for stmt in stmts:
        found += stmt.stmts if isinstance(stmt, Block) else [stmt]
    return found


def nest(dims: list[Dim], body: Block) -> Block:
    for dim in reversed(dims):
        body = block(For(dim.var, dim.extent, LoopKind.SERIAL, body))
    return body


def reduce_stage(case: Case, dims: list[Dim], stage: int) -> list:
    draw = case.draw
    before, inside = [], []
    for at in range(draw(st.integers(1, 2))):
        dtype = draw(st.sampled_from((*VALUES, bool_)))
        op = "or" if dtype is bool_ else draw(st.sampled_from(["add", "max", "min"]))
        acc = local(f"a{stage}{at}", dtype, 1)
        before += [Alloc(acc), Store(acc, ZERO, reduce_identity(op, dtype))]
        value = case.value(int32 if dtype is bool_ else dtype, [*case.dims, *dims])
        if dtype is bool_:
            value = value > 1
        inside.append(Reduce(acc, ZERO, op, value))
    return [*before, *nest(dims, Block(tuple(inside))).stmts]


def same(a: np.ndarray, b: np.ndarray) -> None:
    if not dtypes.is_float(a.dtype):
        # A value that was rounded on its way may be truncated to either side.
        one = a.dtype.type(1)
        assert ((a == b) | (a + one == b) | (b + one == a)).all()
        return
    tolerance = {2: 3e-2, 4: 1e-4, 8: 1e-9}[a.dtype.itemsize]
    if a.dtype == dtypes.bfloat16.numpy:
        tolerance, a, b = 0.25, a.astype(np.float32), b.astype(np.float32)
    scale = np.max(np.abs(a[np.isfinite(a)]), initial=1.0)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


def run(kernel: Kernel, arrays: list[np.ndarray], scalars: list[int], runner) -> list[np.ndarray]:
    copies = [a.copy() for a in arrays]
    runner(kernel, copies, scalars)
    return copies


@pytest.mark.parametrize("target", TARGETS, ids=["wide", "narrow", "middle"])
@settings(max_examples=80)
@given(case=cases())
def test_scheduled_kernels_compute_the_same(target, case):
    kernel, arrays, scalars = case.kernel, case.arrays, case.scalars
    verify_kernel(kernel)
    scheduled = verify_kernel(schedule_cpu(kernel, target))
    text = format_kernel(scheduled)
    assert format_kernel(parse_kernel(text)) == text
    assert format_kernel(schedule_cpu(kernel, target)) == text
    expected = run(kernel, arrays, scalars, run_kernel)
    found = run(scheduled, arrays, scalars, run_kernel)
    for a, b in zip(expected, found, strict=True):
        same(a, b)


def native(kernel: Kernel, arrays: list[np.ndarray], scalars: list[int]) -> None:
    """Run a kernel as machine code, all iterations of its parallel loop."""
    code = load_object(compile_object(print_kernel(kernel, host_target()), host_target()))
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
        code.address("k")
    )
    status = np.zeros(8, np.int64)
    table = [*(a.ctypes.data for a in arrays), *scalars, status.ctypes.data]
    end = np.zeros(1, np.int64)
    loop = kernel.parallel
    if loop is not None:
        lets = kernel.body.stmts[:-1]
        count = Buffer("count", int64, ONE)
        body = Block((*lets, Store(count, ZERO, loop.extent)))
        run_kernel(Kernel("count", (count,), kernel.scalars, body), [end], scalars)
    call(np.array(table, np.int64).ctypes.data, 0, int(end[0]))
    assert status[0] == 0


@settings(max_examples=40)
@given(case=cases())
def test_scheduled_kernels_compute_the_same_as_machine_code(case):
    scheduled = schedule_cpu(case.kernel, host_target())
    expected = run(case.kernel, case.arrays, case.scalars, run_kernel)
    found = run(scheduled, case.arrays, case.scalars, native)
    for a, b in zip(expected, found, strict=True):
        same(a, b)
