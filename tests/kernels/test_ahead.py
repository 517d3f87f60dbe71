"""What a product's epilogue reads is asked for while the products are added up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.dtypes import DType, bfloat16, float32, float64
from graphc.kernels import panel_ahead
from graphc.kernels.contraction import contraction_kernel
from graphc.kernels.problem import Contraction
from graphc.kernels.tiles import Panel, RowTile, Steps
from graphc.loop import ir
from graphc.loop.ir import Buffer, Expr, Kernel, Load, Prefetch, Store, Var
from graphc.loop.printer import format_kernel
from graphc.runtime.jit import named_target


def update(m: int, k: int, n: int, dtype: DType = float32, slots: int = 3) -> Any:
    """``v -= a^T b`` and each slot half of itself and the product, all in place."""
    a, b = (Buffer(x, dtype, ir.const(k * size)) for x, size in (("a", m), ("b", n)))
    state = [Buffer(f"v{i}", dtype, ir.const(m * n)) for i in range(slots)]

    def epilogue(_: Any, rows: Any, column: Expr, value: Expr) -> tuple[Store, ...]:
        at = ir.add(ir.mul(rows[0], n), column)
        value = ir.cast(value, dtype)
        stores = [Store(state[0], at, ir.sub(Load(state[0], at), value))]
        half = ir.const(0.5, dtype)
        stores += [Store(v, at, ir.add(ir.mul(Load(v, at), half), value)) for v in state[1:]]
        return tuple(stores)

    problem = Contraction(
        (), (ir.const(m),), ir.const(n), (ir.const(k),), dtype.accumulator,
        lambda _, rows, ks: Load(a, ir.add(ir.mul(ks[0], m), rows[0])),
        lambda _, ks, column: Load(b, ir.add(ir.mul(ks[0], n), column)),
        epilogue,
    )  # fmt: skip
    return problem, (a, b, *state)


def kernel(name: str, target: str, *sizes: Any) -> Kernel:
    problem, buffers = update(*sizes)
    return contraction_kernel(name, buffers, (), problem, named_target(target))


@pytest.mark.parametrize(
    ("sizes", "asks"),
    [
        ((300, 60, 200), True),
        ((300, 60, 200, float64), True),
        ((40, 60, 40), False),  # such variables stay in a near cache
        ((300, 5, 200), False),  # no time for it
        ((300, 60, 200, float32, 1), True),
    ],
)
def test_variables_are_asked_for_and_updated(batch: Any, sizes: Any, asks: bool) -> None:
    m, k, n, *rest = sizes
    made = batch.add(kernel("update", batch.target, *sizes))
    assert ("prefetch v0[" in format_kernel(made)) == asks
    dtype, slots = rest[0] if rest else float32, rest[1] if len(rest) > 1 else 3
    rng = np.random.default_rng(0)
    shapes = [(k, m), (k, n), *[(m, n)] * slots]
    arrays = [rng.standard_normal(s).astype(dtype.numpy) for s in shapes]
    product = arrays[0].T @ arrays[1]
    expected = [arrays[2] - product, *(v / 2 + product for v in arrays[3:])]
    batch.run(made, arrays)
    for v, e in zip(arrays[2:], expected, strict=True):
        np.testing.assert_allclose(v, e, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("slots", "asks"), [(4, True), (5, False)])
def test_no_more_is_asked_for_than_the_first_cache_has_room_for(slots: int, asks: bool) -> None:
    problem, _ = update(700, 99, 320, float32, slots)
    tile, panel = RowTile((), ir.ZERO, 28, ()), Panel(ir.ZERO, ir.ZERO, 32, None)
    found = panel_ahead.asked(problem, (), tile, panel, Steps.whole(problem.k), Var("k"))
    assert bool(found) == asks


@pytest.mark.parametrize("dtype", [float32, float64, bfloat16])
@pytest.mark.parametrize(("width", "rows", "inner"), [(32, 14, ()), (24, 4, ()), (48, 2, (4,))])
@pytest.mark.parametrize("steps", [(8,), (31,), (128,), (5, 30)])
def test_every_line_is_asked_for_in_time(
    dtype: DType, width: int, rows: int, inner: tuple[int, ...], steps: tuple[int, ...]
) -> None:
    """The steps' prefetches, all indices known, against the lines that the epilogue reads."""
    columns = 480
    v = Buffer("v", dtype, ir.const(1000 * columns))

    def epilogue(_: Any, m: Any, n: Expr, value: Expr) -> tuple[Store, ...]:
        row = m[0] if len(m) == 1 else ir.add(ir.mul(m[0], inner[0]), m[1])
        at = ir.add(ir.mul(row, columns), n)
        return (Store(v, at, ir.add(Load(v, at), ir.cast(value, dtype))),)

    sizes = tuple(map(ir.const, steps))
    problem = Contraction(
        (), (ir.const(1000), *map(ir.const, inner)), ir.const(columns), sizes, dtype.accumulator,
        lambda *_: ir.const(0, dtype), lambda *_: ir.const(0, dtype), epilogue,
    )  # fmt: skip
    tile = RowTile((), ir.const(28), rows, inner)
    panel = Panel(ir.const(2 * width), ir.ZERO, width, None)
    line = ir.LINE_BYTES // dtype.size
    asked = set()
    count = int(np.prod(steps))
    for number in range(count):
        found = panel_ahead.asked(problem, (), tile, panel, Steps.whole(sizes), ir.const(number))
        assert found
        if number >= count - count // 8:
            continue  # nothing new
        for stmt in found:
            assert isinstance(stmt, Prefetch)
            asked.add(int(stmt.index.value) // line)  # type: ignore[attr-defined]
    per = inner[0] if inner else 1
    first = 28 * per
    needed = {
        (row * columns + column) // line
        for row in range(first, first + rows * per)
        for column in range(2 * width, 3 * width)
    }
    assert needed <= asked
    # What is asked for beside it lies behind it.
    assert len(asked) <= 2 * len(needed) + 2 * rows * per


def test_what_is_looked_up_is_not_asked_for() -> None:
    """An index that must be loaded first would stall the loop that it is to help."""
    table = Buffer("rows", ir.ZERO.dtype, ir.const(4000))
    v = Buffer("v", float32, ir.const(4000 * 64))

    def epilogue(_: Any, m: Any, n: Expr, value: Expr) -> tuple[Store, ...]:
        at = ir.add(ir.mul(Load(table, m[0]), 64), n)
        return (Store(v, at, ir.add(Load(v, at), value)),)

    problem = Contraction(
        (), (ir.const(400),), ir.const(64), (ir.const(99),), float32,
        lambda *_: ir.const(0.0, float32), lambda *_: ir.const(0.0, float32), epilogue,
    )  # fmt: skip
    tile, panel = RowTile((), ir.ZERO, 4, ()), Panel(ir.ZERO, ir.ZERO, 32, None)
    whole = Steps.whole((ir.const(99),))
    assert panel_ahead.asked(problem, (), tile, panel, whole, Var("k")) == []
