"""Attention with its gradient: what is fused, what is not, its values and its memory."""

import numpy as np
import pytest
from pass_support import extracted

import graphc as gc
from graphc.dims import symbols_of
from graphc.ops.base import call
from graphc.passes import attention
from graphc.passes.pipeline import default_pipeline, run_passes

T = 512
FUSED_TYPES = ("AttentionWithStatistics", "AttentionGradient")


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


def feeds_of(*shapes, dtype="float32"):
    return [gc.placeholder(dtype, s, name) for s, name in zip(shapes, "qkvb", strict=False)]


def softmax_of(scores, value):
    return gc.matmul(gc.nn.softmax(scores), value)


def with_gradients(y, operands):
    """The result, and the gradients of something that depends on each element in its own way."""
    return [y, *gc.gradients(gc.reduce_sum(gc.sin(y) * y), operands)]


def plain(dtype="float32"):
    q, k, v = feeds_of([2, T, 8], [2, T, 8], [2, T, 24], dtype=dtype)
    return with_gradients(softmax_of(gc.matmul(q, k, transpose_b=True), v), [q, k, v])


def scaled_by_division(dtype="float32"):
    q, k, v = feeds_of([600, 8], [T, 8], [T, 5], dtype=dtype)
    return with_gradients(softmax_of(gc.matmul(q, k, transpose_b=True) / 2.5, v), [q, k, v])


def scaled_and_biased(dtype="float32"):
    shapes = [2, 1, 530, 8], [2, 1, 601, 8], [2, 1, 601, 8], [2, 1, 1, 601]
    q, k, v, b = feeds_of(*shapes, dtype=dtype)
    scores = 0.25 * gc.matmul(q, k, transpose_b=True)
    return with_gradients(softmax_of(b + scores, v), [q, k, v])


def causal(dtype="float32"):
    q, k, v = feeds_of([T, 8], [T, 8], [T, 5], dtype=dtype)
    mask = np.where(np.tri(T, dtype=bool), 0.0, -np.inf).astype(dtype)
    scores = gc.matmul(q, k, transpose_b=True) * 0.5 + mask
    return with_gradients(softmax_of(scores, v), [q, k, v])


def keys_turned_already(dtype="float32"):
    q, k, v = feeds_of([2, 600, 8], [2, 8, T], [2, T, 8], dtype=dtype)
    return with_gradients(softmax_of(gc.matmul(q, k) * 0.125, v), [q, k, v])


def for_queries_alone(dtype="float32"):
    q, k, v = feeds_of([T, 8], [T, 8], [T, 8], dtype=dtype)
    return with_gradients(softmax_of(gc.matmul(q, k, transpose_b=True), v), [q])


def for_keys_alone(dtype="float32"):
    q, k, v = feeds_of([T, 8], [T, 8], [T, 8], dtype=dtype)
    return with_gradients(softmax_of(gc.matmul(q, k, transpose_b=True), v), [k])


def heads(dtype="float32"):
    xs = feeds_of(*[[2, T, 12]] * 3, dtype=dtype)
    q, k, v = (gc.transpose(gc.reshape(t, [2, T, 3, 4]), [0, 2, 1, 3]) for t in xs)
    mixed = softmax_of(gc.matmul(q, k, transpose_b=True) * 0.5, v)
    y = gc.reshape(gc.transpose(mixed, [0, 2, 1, 3]), [2, T, 12])
    return with_gradients(y, xs)


def of_a_sum(dtype="float32"):
    """The gradient of the result is ones, which nothing is computed for."""
    q, k, v = feeds_of([T, 8], [T, 8], [T, 8], dtype=dtype)
    y = softmax_of(gc.matmul(q, k, transpose_b=True) * 0.5, v)
    return gc.gradients(gc.reduce_sum(y), [q, k, v])


def of_any_length(dtype="float32"):
    shapes = [3, None, 8], [3, None, 8], [3, None, 6], [None, None]
    q, k, v, b = feeds_of(*shapes, dtype=dtype)
    scores = gc.matmul(q, k, transpose_b=True) * 0.25 + b
    return with_gradients(softmax_of(scores, v), [q, k, v])


FUSED = [
    plain, scaled_by_division, scaled_and_biased, causal, keys_turned_already, for_queries_alone,
    for_keys_alone, heads, of_a_sum, of_any_length,
]  # fmt: skip


def types(build):
    return [op.type for op in run_passes(extracted(build), default_pipeline()).operations]


def values(fetches, **sizes):
    """Feeds; ``sizes`` are those unknown of a placeholder, by its name."""
    rng = np.random.default_rng(0)
    feeds = {}
    for op in fetches[0].graph.get_operations():
        if op.type == "Placeholder":
            t, unknown = op.outputs[0], iter(sizes.get(op.name, ()))
            shape = [next(unknown) if s is None else s for s in t.shape.as_list()]
            feeds[t] = rng.standard_normal(shape).astype(t.dtype.as_numpy_dtype)
    return feeds


@pytest.mark.parametrize("build", FUSED, ids=lambda f: f.__name__)
def test_what_is_two_kernels(build):
    found = types(build)
    assert [found.count(t) for t in FUSED_TYPES] == [1, 1]
    assert not {"Attention", "BatchMatMulV2", "MatMul", "Exp", "ExpNegative"} & set(found)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("build", FUSED, ids=lambda f: f.__name__)
def test_values(build, dtype):
    fetches = build(dtype)
    lengths = [{}]
    if build is of_any_length:
        lengths = [
            {"q": [m], "k": [t], "v": [t], "b": [m, t]}
            for m, t in ((T, T), (70, 129), (130, 64), (1, 3))
        ]
    rtol = 1e-11 if dtype == "float64" else 2e-4
    with gc.Session() as session, gc.Session(mode="reference") as reference:
        for sizes in lengths:
            feeds = values(fetches, **sizes)
            found, wanted = session.run(fetches, feeds), reference.run(fetches, feeds)
            for a, b in zip(found, wanted, strict=True):
                np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())
        assert session.compilations == 1


def biased_by_what_is_trained():
    q, k, v, b = feeds_of([T, 8], [T, 8], [T, 8], [T, T])
    y = softmax_of(gc.matmul(q, k, transpose_b=True) + b, v)
    return with_gradients(y, [q, k, v, b])


def weights_fetched():
    q, k, v = feeds_of([T, 8], [T, 8], [T, 8])
    weights = gc.nn.softmax(gc.matmul(q, k, transpose_b=True))
    return [weights, *with_gradients(gc.matmul(weights, v), [q, k, v])]


def weights_dropped():
    q, k, v = feeds_of([T, 8], [T, 8], [T, 8])
    weights = gc.nn.dropout(gc.nn.softmax(gc.matmul(q, k, transpose_b=True)), rate=0.5)
    return with_gradients(gc.matmul(weights, v), [q, k, v])


def for_values_alone():
    q, k, v = feeds_of([T, 8], [T, 8], [T, 8])
    return with_gradients(softmax_of(gc.matmul(q, k, transpose_b=True), v), [v])


def short():
    q, k, v = feeds_of([128, 8], [128, 8], [128, 8])
    return with_gradients(softmax_of(gc.matmul(q, k, transpose_b=True), v), [q, k, v])


def second_derivatives():
    q, k, v = feeds_of([T, 4], [T, 4], [T, 4], dtype="float64")
    y = softmax_of(gc.matmul(q, k, transpose_b=True) * 0.25, v)
    firsts = gc.gradients(gc.reduce_sum(gc.sin(y) * y), [q, k, v])
    total = gc.add_n([gc.reduce_sum(g * g) for g in firsts])
    return [y, *firsts, *gc.gradients(total, [q, k, v])]


ALONE = [
    biased_by_what_is_trained, weights_fetched, weights_dropped, for_values_alone, short,
    second_derivatives,
]  # fmt: skip


def few_queries():
    q, k, v = feeds_of([2, 63, 8], [2, 8192, 8], [2, 8192, 8])
    return with_gradients(softmax_of(gc.matmul(q, k, transpose_b=True), v), [q, k, v])


ALONE.append(few_queries)


@pytest.mark.parametrize("build", ALONE, ids=lambda f: f.__name__)
def test_what_is_left_alone(build):
    assert not {"Attention", *FUSED_TYPES} & set(types(build))


def test_values_of_second_derivatives():
    fetches = second_derivatives()
    feeds = values(fetches)
    with gc.Session() as session, gc.Session(mode="reference") as reference:
        found, wanted = session.run(fetches, feeds), reference.run(fetches, feeds)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [-1e9, 1e6, np.finfo(np.float32).min, -40.0])
def test_rows_far_from_zero(offset, dtype, monkeypatch):
    """The logarithm of a sum is not lost beside a score of any size."""

    def build():
        q, k, v, b = feeds_of([T, 8], [T, 8], [T, 8], [T, T], dtype=dtype)
        scores = gc.matmul(q, k, transpose_b=True) * 0.35 + b
        return with_gradients(softmax_of(scores, v), [q, k, v])

    assert {*FUSED_TYPES} <= set(types(build))
    fetches = build()
    feeds = values(fetches)
    for t, array in feeds.items():
        if t.op.name == "b":
            array[...] = 0.0
            array[[3, 70]] = offset
    with gc.Session() as session:
        found = session.run(fetches, feeds)
    monkeypatch.setattr(attention, "LEAST_BYTES", 1 << 60)
    with gc.Session() as session:
        wanted = session.run(fetches, feeds)
    rtol = 1e-5 if dtype == "float32" else 1e-12
    for a, w in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, w, rtol=rtol, atol=rtol * np.abs(w).max())


@pytest.mark.parametrize("name", ["Attention", "AttentionWithStatistics"])
def test_scores_do_not_broadcast_to_a_bias(name):
    q, k, v, b = feeds_of([1, 8], [8, 8], [8, 8], [4, 8])
    with pytest.raises(gc.errors.ShapeError, match="The bias must broadcast to the scores"):
        call(name, q, k, v, [b])


def test_rows_that_see_nothing_are_as_without(monkeypatch):
    q, k, v, b = feeds_of([T, 8], [600, 8], [600, 8], [T, 600], dtype="float64")
    fetches = with_gradients(softmax_of(gc.matmul(q, k, transpose_b=True) + b, v), [q, k, v])
    feeds = values(fetches)
    bias = np.zeros((T, 600))
    bias[2, :500] = -np.inf
    some = feeds | {b: bias.copy()}
    bias[1] = -np.inf
    with gc.Session() as session:
        found = [session.run(fetches, f) for f in (some, feeds | {b: bias})]
    monkeypatch.setattr(attention, "LEAST_BYTES", 1 << 60)
    with gc.Session() as session:
        wanted = [session.run(fetches, f) for f in (some, feeds | {b: bias})]
    for pair in zip(found, wanted, strict=True):
        for x, y in zip(*pair, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12)
    assert all(np.isfinite(a).all() for a in found[0])
    # What a row that sees nothing gives: to its query, and to every key and value.
    assert np.isnan(found[1][1][1]).all()
    assert np.isfinite(found[1][1][[0, 2]]).all()
    assert all(np.isnan(a).all() for a in found[1][2:])


@pytest.mark.parametrize("shape", [(1, 8), (16, 8), (None, 8)])
def test_any_number_of_threads_gives_the_same_bits(shape):
    pairs, depth = shape
    q, k, v = feeds_of(*[[pairs, 700, depth]] * 3)
    fetches = with_gradients(softmax_of(gc.matmul(q, k, transpose_b=True), v), [q, k, v])
    feeds = values(fetches, **{name: [2] for name in "qkv"} if pairs is None else {})
    before, results = gc.get_num_threads(), []
    try:
        for threads in (1, 2):
            gc.set_num_threads(threads)
            with gc.Session() as session:
                results.append(session.run(fetches, feeds))
    finally:
        gc.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("pairs", "keys", "parts"),
    [
        (1, T, 2), (1, 9000, 16), (8, 9000, 2), (16, 9000, 1), (1, None, 4), (8, None, 2),
        (None, None, 2),
    ],
)  # fmt: skip
def test_keys_are_shared_out_where_there_are_few_pairs(pairs, keys, parts):
    def build():
        q, k, v = feeds_of([pairs, T, 4], [pairs, keys, 4], [pairs, keys, 4])
        return with_gradients(softmax_of(gc.matmul(q, k, transpose_b=True), v), [q, k, v])

    fn = run_passes(extracted(build), default_pipeline())
    (op,) = (op for op in fn.operations if op.type == "AttentionGradient")
    assert op.attrs["parts"] == parts


def bytes_of_arena(length):
    with gc.Graph().as_default():
        q, k, v = feeds_of(*[[2, length, 16]] * 3)
        fetches = with_gradients(softmax_of(gc.matmul(q, k, transpose_b=True), v), [q, k, v])
        with gc.Session() as session:
            session.run(fetches, values(fetches))
            (plan,) = session._plans.values()
            (executable,) = plan.executables.values()
            return sum(size * width for size, width in executable.code.program.blocks)


def test_no_matrix_of_scores_is_stored():
    """The temporaries grow with the queries, and stay far below one matrix of scores."""
    small, large = bytes_of_arena(2048), bytes_of_arena(4096)
    assert large <= 2 * small + 4096
    assert large <= 2 * 4096 * 4096 * 4 / 16


@pytest.mark.parametrize(("rows", "fused"), [(16, False), (64, False), (128, True), (600, True)])
def test_unknown_sizes_are_taken_for_those_first_seen(rows, fused):
    def build():
        q, k, v = feeds_of([None, None, 8], [None, None, 8], [None, None, 8])
        return with_gradients(softmax_of(gc.matmul(q, k, transpose_b=True), v), [q, k, v])

    fn = extracted(build)
    hints = {s: rows for i in fn.inputs for size in i.raw for s in symbols_of(size)}
    found = [op.type for op in run_passes(fn, default_pipeline(hints=hints)).operations]
    assert [t in found for t in FUSED_TYPES] == [fused, fused]
    fetches = build()
    array = np.random.default_rng(3).standard_normal((2, rows, 8)).astype(np.float32)
    feeds = {op.outputs[0]: array for op in fetches[0].graph.get_operations()
             if op.type == "Placeholder"}  # fmt: skip
    with gc.Session() as session, gc.Session(mode="reference") as reference:
        for a, b in zip(session.run(fetches, feeds), reference.run(fetches, feeds), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4 * np.abs(b).max())
