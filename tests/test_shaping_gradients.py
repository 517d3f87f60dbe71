"""Gradients of the movement and indexing ops, which are linear: ``<J v, w> == <v, J^T w>``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc.ops  # noqa: F401 - registers the ops
from graphc import dtypes
from graphc.build import constant, create
from graphc.graph import Graph, Tensor
from graphc.op import REGISTRY, Sample, evaluate_reference
from graphc.ops.array import placeholder

MODULES = (
    "movement", "movement_reshape", "movement_join", "movement_split", "movement_fill",
    "movement_range", "indexing", "indexing_pad", "indexing_mirror", "indexing_gather",
    "indexing_onehot", "indexing_scatter",
)  # fmt: skip

SAMPLES = [
    pytest.param(name, sample, id=f"{name}-{i}")
    for name in sorted(REGISTRY)
    if type(REGISTRY[name]).__module__.rpartition(".")[2] in MODULES
    and REGISTRY[name].differentiable
    for i, sample in enumerate(REGISTRY[name].samples())
]


def value(tensor: Tensor, known: dict[Tensor, Any]) -> np.ndarray:
    """The tensor's value by the references."""
    if tensor not in known:
        inputs = [value(t, known) for t in tensor.op.inputs]
        results = evaluate_reference(tensor.op, inputs)
        for out, array in zip(tensor.op.outputs, results, strict=True):
            if out.sizes is not None:
                assert all(
                    not isinstance(s, int) or s == n
                    for s, n in zip(out.sizes, array.shape, strict=True)
                ), (out, array.shape)
            known[out] = array
    return known[tensor]


@pytest.mark.parametrize("sizes", ["known", "unknown"])
@pytest.mark.parametrize(("name", "sample"), SAMPLES)
def test_gradient_is_the_transpose(name: str, sample: Sample, sizes: str) -> None:
    fed: dict[Tensor, np.ndarray] = {}

    def tensor(array: Any) -> Tensor:
        array = np.asarray(array)
        if array.dtype.kind != "f":
            kind = dtypes.int32 if name in ("OneHot", "Split", "SplitV") else dtypes.int64
            return constant(array.astype(kind.numpy))
        shape = array.shape if sizes == "known" else [None] * array.ndim
        found = placeholder(dtypes.float64, shape)
        fed[found] = np.asarray(array, np.float64)
        return found

    with Graph().as_default():
        inputs = [
            [tensor(v) for v in n] if isinstance(n, list) else tensor(n) for n in sample.inputs
        ]
        op = create(name, inputs, sample.attrs)
        upstream = [
            placeholder(dtypes.float64, t.shape if sizes == "known" else None) for t in op.outputs
        ]
        grads = op.definition.gradient(op, *upstream)
    assert len(grads) == len(op.inputs)
    rng = np.random.default_rng(0)
    outputs = evaluate_reference(op, [value(t, dict(fed)) for t in op.inputs])
    weights = {u: rng.normal(size=v.shape) for u, v in zip(upstream, outputs, strict=True)}
    base = value_of_weighted(op, fed, weights)
    for x, grad in zip(op.inputs, grads, strict=True):
        if x not in fed:
            assert grad is None
            continue
        assert grad is not None
        back = value(grad, {**fed, **weights})
        assert back.shape == fed[x].shape
        step = rng.normal(size=fed[x].shape)
        moved = value_of_weighted(op, {**fed, x: fed[x] + step}, weights)
        np.testing.assert_allclose(moved - base, np.sum(step * back), rtol=1e-9, atol=1e-9)


def value_of_weighted(op: Any, fed: dict[Tensor, np.ndarray], weights: dict[Tensor, Any]) -> float:
    known = dict(fed)
    outputs = [value(t, known) for t in op.outputs]
    return sum(float(np.sum(v * w)) for v, w in zip(outputs, weights.values(), strict=True))


@pytest.mark.parametrize("name", ["Split", "SplitV", "Unpack"])
def test_an_output_without_gradient_counts_as_zeros(name: str) -> None:
    with Graph().as_default():
        x = placeholder(dtypes.float64, [2, 3])
        operands = {"Split": [0, x], "SplitV": [x, [1, 1], 0], "Unpack": [x]}[name]
        attrs = {"num": 2} if name == "Unpack" else {"num_split": 2}
        op = create(name, operands, attrs)
        g = placeholder(dtypes.float64, op.outputs[0].shape)
        grads = op.definition.gradient(op, g, None)
    (grad,) = [t for t in grads if t is not None]
    fed = {x: np.ones((2, 3)), g: np.ones(op.outputs[0].shape.as_list())}
    np.testing.assert_array_equal(value(grad, fed), [[1, 1, 1], [0, 0, 0]])
