"""Every row of the registry, on its own samples: inference, reference, decomposition, gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ops_support import (
    Case,
    as_numbers,
    cases,
    flat_operand,
    number_kind,
    op_dtypes,
    op_rows,
    pure_ops,
    row_id,
)

from graphc import dtypes
from graphc.dtypes import DType
from graphc.gradients import gradients
from graphc.graph import Tensor
from graphc.interpret import interpret
from graphc.op import CompositeOp, Op, evaluate_reference
from graphc.ops.base import call
from graphc.shapes import TensorShape

rows = pytest.mark.parametrize(("op", "dtype"), op_rows(), ids=row_id)


def reference(case: Case) -> tuple[np.ndarray, ...]:
    return evaluate_reference(case.declare().op, case.values)


@rows
def test_inference_agrees_with_the_reference(op: Op, dtype: DType | None):
    for case in cases(op, dtype):
        declared = case.declare()
        with np.errstate(all="ignore"):
            raw = op.reference(declared.op.attrs, *case.values)
        results = raw if isinstance(raw, tuple) else (raw,)
        for out, value in zip(declared.op.outputs, results, strict=True):
            found = np.asarray(value)
            assert out.shape.is_compatible_with(found.shape), f"{case}: {out} {found.shape}"
            same = number_kind(out.dtype.numpy) == number_kind(found.dtype)
            assert same, f"{case}: {out} {found.dtype}"


@rows
@pytest.mark.parametrize("known", ["rank", "nothing"])
def test_unknown_shapes_infer_consistently(op: Op, dtype: DType | None, known: str):
    for case in cases(op, dtype):
        concrete, vague = case.declare().op, case.declare(known).op
        for a, b in zip(concrete.outputs, vague.outputs, strict=True):
            assert a.shape.is_compatible_with(b.shape), f"{case}: {a} is not a {b}"
            assert a.dtype is b.dtype


@rows
def test_interpreter_runs_the_reference(op: Op, dtype: DType | None):
    for case in cases(op, dtype):
        declared = case.declare("nothing")
        found = interpret(declared.op.outputs, declared.feeds)
        for value, expected in zip(found, reference(case), strict=True):
            np.testing.assert_array_equal(
                as_numbers(value), as_numbers(expected), err_msg=str(case), strict=True
            )


COMPOSITES = [(op, dtype) for op, dtype in op_rows() if isinstance(op, CompositeOp)]


@pytest.mark.parametrize(("op", "dtype"), COMPOSITES, ids=row_id)
def test_decomposition_computes_the_reference(op: CompositeOp, dtype: DType | None):
    for case in cases(op, dtype):
        declared = case.declare()
        with declared.op.graph.as_default():
            parts = op.decompose(declared.op, declared.op.inputs)
        found = interpret(list(parts), declared.feeds)
        for part, out in zip(parts, declared.op.outputs, strict=True):
            assert part.dtype is out.dtype, str(case)
            assert part.shape.is_compatible_with(out.shape), f"{case}: {part} is not {out}"
        for value, expected in zip(found, reference(case), strict=True):
            case.check(value, expected, "decomposition")


# --- gradients ----------------------------------------------------------------------------------


def weighted_sum(tensors: list[Tensor], seed: int) -> Tensor:
    """A scalar that depends on every element of every tensor, each in its own measure."""
    total = []
    for k, t in enumerate(tensors):
        shape = TensorShape(t.sizes).as_list()
        count = int(np.prod(shape))
        weights = np.cos(np.arange(1, count + 1) * (0.7 + seed) + k).reshape(shape)
        axes = np.arange(len(shape), dtype=np.int32)
        total.append(call("Sum", call("Mul", t, weights), axes))
    return call("AddN", total)


def numeric(y: Tensor, x: Tensor, feeds: dict[Tensor, Any], positions: list[int]) -> list[float]:
    """Central differences of a scalar at some elements of x."""
    step = 1e-6
    slopes = []
    for position in positions:
        values = []
        for sign in (1, -1):
            moved = feeds[x].copy()
            moved.reshape(-1)[position] += sign * step
            values.append(float(interpret([y], {**feeds, x: moved})[0]))
        slopes.append((values[0] - values[1]) / (2 * step))
    return slopes


def check_gradient(case: Case, y: Tensor, xs: list[Tensor], feeds: Any, order: int) -> None:
    found = gradients(y, xs)
    values = interpret([g for g in found if g is not None], feeds)
    grads = iter(values)
    for x, grad in zip(xs, found, strict=True):
        size = feeds[x].size
        positions = list(range(0, size, max(1, size // 12)))
        expected = np.array(numeric(y, x, feeds, positions))
        value = np.zeros(feeds[x].shape) if grad is None else next(grads)
        assert value.shape == feeds[x].shape, f"{case}: gradient of shape {value.shape}"
        np.testing.assert_allclose(
            value.reshape(-1)[positions], expected, rtol=2e-5, atol=2e-6,
            err_msg=f"{case}: derivative {order} by operand {x.name}",
        )  # fmt: skip


def differentiable_cases(op: Op) -> list[tuple[Case, list[int]]]:
    found: list[tuple[Case, list[int]]] = []
    if dtypes.float64 not in op_dtypes(op):
        return found
    for case in cases(op, dtypes.float64):
        floats = {t.dtype for t in case.declare().op.outputs if t.dtype.is_floating}
        if floats != {dtypes.float64}:
            continue
        wanted = case.sample.grad
        operands = range(len(case.groups)) if wanted is None else wanted
        flat = [i for o in operands for i in flat_operand(case, o)]
        flat = [i for i in flat if case.values[i].dtype == np.float64 and case.values[i].size]
        if flat:
            found.append((case, flat))
    return found


DIFFERENTIABLE = [
    op for op in pure_ops() if op.differentiable and differentiable_cases(op)
]


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=row_id)
@pytest.mark.parametrize("order", [1, 2])
def test_gradient_matches_differences(op: Op, order: int):
    for case, flat in differentiable_cases(op):
        declared = case.declare()
        xs = [declared.operands[i] for i in flat]
        with declared.op.graph.as_default():
            outputs = [t for t in declared.op.outputs if t.dtype.is_floating]
            y = weighted_sum(outputs, seed=0)
            if order == 2:
                firsts = [g for g in gradients(y, xs) if g is not None]
                if not firsts:
                    continue
                y = weighted_sum(firsts, seed=1)
            check_gradient(case, y, xs, declared.feeds, order)


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=row_id)
@pytest.mark.parametrize("known", ["rank", "nothing"])
def test_gradient_of_unknown_shapes_is_the_same(op: Op, known: str):
    for case, flat in differentiable_cases(op):
        results = []
        for what in ("shape", known):
            declared = case.declare(what)
            outputs = [t for t in declared.op.outputs if t.dtype.is_floating]
            found = gradients(outputs, [declared.operands[i] for i in flat])
            assert all(
                g is None or g.dtype is declared.operands[i].dtype
                for g, i in zip(found, flat, strict=True)
            )
            results.append(interpret([g for g in found if g is not None], declared.feeds))
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, err_msg=str(case))
