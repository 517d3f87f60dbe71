"""Attention as one kernel: what is fused, what is not, its values and its memory."""

import numpy as np
import pytest
from pass_support import extracted

import graphc as gc
from graphc.passes.pipeline import default_pipeline, run_passes

T = 512


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


def feeds_of(*shapes, dtype="float32"):
    return [gc.placeholder(dtype, s, name) for s, name in zip(shapes, "qkvb", strict=False)]


def plain():
    q, k, v = feeds_of([2, T, 8], [2, T, 8], [2, T, 24])
    return gc.matmul(gc.nn.softmax(gc.matmul(q, k, transpose_b=True)), v)


def scaled_by_division():
    q, k, v = feeds_of([T, 8], [T, 8], [T, 5])
    return gc.matmul(gc.nn.softmax(gc.matmul(q, k, transpose_b=True) / 2.5), v)


def scaled_and_biased():
    q, k, v, b = feeds_of([2, 1, T, 8], [2, 1, T, 8], [2, 1, T, 8], [2, 1, 1, T])
    scores = 0.25 * gc.matmul(q, k, transpose_b=True)
    return gc.matmul(gc.nn.softmax(b + scores, axis=3), v)


def causal():
    q, k, v = feeds_of([T, 8], [T, 8], [T, 5])
    mask = np.where(np.tri(T, dtype=bool), 0.0, -np.inf).astype(np.float32)
    return gc.matmul(gc.nn.softmax(gc.matmul(q, k, transpose_b=True) * 0.5 + mask), v)


def keys_turned_already():
    q, k, v = feeds_of([2, 600, 8], [2, 8, T], [2, T, 8])
    return gc.matmul(gc.nn.softmax(gc.matmul(q, k)), v)


def heads():
    q, k, v = (gc.reshape(t, [2, T, 4, 8]) for t in feeds_of(*[[2, T, 32]] * 3))
    q, k, v = (gc.transpose(t, [0, 2, 1, 3]) for t in (q, k, v))
    mixed = gc.matmul(gc.nn.softmax(gc.matmul(q, k, transpose_b=True)), v)
    return gc.reshape(gc.transpose(mixed, [0, 2, 1, 3]), [2, T, 32])


def of_any_length():
    q, k, v = feeds_of([2, None, 8], [2, None, 8], [2, None, 8], dtype="float64")
    return gc.matmul(gc.nn.softmax(gc.matmul(q, k, transpose_b=True)), v)


FUSED = [
    plain, scaled_by_division, scaled_and_biased, causal, keys_turned_already, heads, of_any_length,
]  # fmt: skip


def types(build):
    return [op.type for op in run_passes(extracted(build), default_pipeline()).operations]


def values(y, length=T):
    rng = np.random.default_rng(0)
    graph = y.graph
    found = [op.outputs[0] for op in graph.get_operations() if op.type == "Placeholder"]
    shapes = {t: [s or length for s in t.shape.as_list()] for t in found}
    return {t: rng.standard_normal(s).astype(t.dtype.numpy) for t, s in shapes.items()}


@pytest.mark.parametrize("build", FUSED, ids=lambda f: f.__name__)
def test_what_is_one_kernel(build):
    found = types(build)
    assert found.count("Attention") == 1
    assert not {"BatchMatMulV2", "MatMul", "Exp"} & set(found)
    y = build()
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        for length in (T, 70, 1) if build is of_any_length else (T,):
            feeds = values(y, length)
            a, b = s.run(y, feeds), reference.run(y, feeds)
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
        assert s.compilations == 1


def short():
    q, k, v = feeds_of([2, 128, 8], [2, 128, 8], [2, 128, 8])
    return gc.matmul(gc.nn.softmax(gc.matmul(q, k, transpose_b=True)), v)


def weights_fetched():
    q, k, v = feeds_of([T, 8], [T, 8], [T, 8])
    weights = gc.nn.softmax(gc.matmul(q, k, transpose_b=True))
    return weights, gc.matmul(weights, v)


def keys_for_all():
    q, k, v = feeds_of([2, T, 8], [1, T, 8], [2, T, 8])
    return gc.matmul(gc.nn.softmax(gc.matmul(q, k, transpose_b=True)), v)


def other_axis():
    q, k, v = feeds_of([T, 8], [T, 8], [T, 8])
    return gc.matmul(gc.nn.softmax(gc.matmul(q, k, transpose_b=True), axis=0), v)


def divided_the_other_way():
    q, k, v = feeds_of([T, 8], [T, 8], [T, 8])
    return gc.matmul(gc.nn.softmax(2.0 / gc.matmul(q, k, transpose_b=True)), v)


def softmax_in_float32():
    q, k, v = feeds_of([T, 8], [T, 8], [T, 8], dtype="float64")
    weights = gc.nn.softmax(gc.cast(gc.matmul(q, k, transpose_b=True), gc.float32))
    return gc.matmul(gc.cast(weights, gc.float64), v)


@pytest.mark.parametrize(
    "build",
    [
        short, weights_fetched, keys_for_all, other_axis, divided_the_other_way,
        softmax_in_float32,
    ],
    ids=lambda f: f.__name__,
)
def test_what_is_not(build):
    assert "Attention" not in types(build)


def test_no_matrix_of_scores_is_stored():
    q, k, v = feeds_of([2048, 16], [2048, 16], [2048, 16])
    y = gc.matmul(gc.nn.softmax(gc.matmul(q, k, transpose_b=True)), v)
    with gc.Session() as session:
        session.run(y, values(y))
        (plan,) = session._plans.values()
        (executable,) = plan.executables.values()
        program = executable.code.program
        assert sum(size * width for size, width in program.blocks) <= 4 * 2048 * 16


def test_rows_that_see_nothing_are_no_numbers():
    """As those of the softmax: the weights of a row sum up to 1, or are no numbers."""
    q, k, v, b = feeds_of([T, 8], [600, 8], [600, 8], [T, 600])
    y = gc.matmul(gc.nn.softmax(gc.matmul(q, k, transpose_b=True) + b), v)
    feeds = values(y)
    bias = np.zeros((T, 600), np.float32)
    bias[1] = -np.inf
    bias[2, :500] = -np.inf
    bias[3, 7] = np.nan
    with gc.Session() as session:
        found = session.run(y, feeds | {b: bias})
    assert np.isfinite(found[[0, 2, T - 1]]).all()
    assert np.isnan(found[[1, 3]]).all()
