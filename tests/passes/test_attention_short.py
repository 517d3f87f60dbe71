"""Attention of 16-bit floats as one op: the ways that mixed precision is written."""

import pytest
from pass_support import extracted

import graphc as gc
from graphc.passes.pipeline import default_pipeline, run_passes

T = 1024


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


def feeds(dtype="bfloat16"):
    """Query, key and value of 16 bits."""
    return [gc.placeholder(dtype, [2, T, 8], name) for name in "qkv"]


def bias_of(dtype):
    return gc.placeholder(dtype, [T, T], "b")


def wide(x):
    return gc.cast(x, gc.float32)


def all_in_16_bits():
    q, k, v = feeds("float16")
    scores = gc.matmul(q, k, transpose_b=True) * 0.5 + bias_of("float16")
    return gc.matmul(gc.nn.softmax(scores), v)


def scores_widened():
    q, k, v = feeds()
    scores = wide(gc.matmul(q, k, transpose_b=True)) * 0.5 + bias_of("float32")
    return gc.matmul(gc.cast(gc.nn.softmax(scores), v.dtype), v)


def scaled_scores_widened():
    q, k, v = feeds()
    scores = bias_of("float32") + wide(gc.matmul(q, k, transpose_b=True) / 2.0)
    return gc.matmul(gc.cast(gc.nn.softmax(scores), v.dtype), v)


def biased_scores_widened():
    q, k, v = feeds()
    scores = wide(gc.matmul(q, k, transpose_b=True) * 0.5 + bias_of("bfloat16"))
    return gc.matmul(gc.cast(gc.nn.softmax(scores), v.dtype), v)


def not_scaled():
    q, k, v = feeds("float16")
    scores = wide(gc.matmul(q, k, transpose_b=True))
    return gc.matmul(gc.cast(gc.nn.softmax(scores), v.dtype), v)


FUSED = [
    all_in_16_bits, scores_widened, scaled_scores_widened, biased_scores_widened, not_scaled
]  # fmt: skip


def operations(build, short=True):
    pipeline = default_pipeline(short_attention=short)
    return run_passes(extracted(build), pipeline).operations


@pytest.mark.parametrize("build", FUSED, ids=lambda f: f.__name__)
def test_what_is_one_kernel(build):
    found = operations(build)
    (attention,) = (op for op in found if op.type == "Attention")
    assert not {"BatchMatMulV2", "ExpNegative", "Cast"} & {op.type for op in found}
    assert attention.attrs["scale"] == (1.0 if build is not_scaled else 0.5)
    # A bias is added as it is.
    types = [t.dtype for t in attention.inputs]
    assert all(t is attention.outputs[0].dtype for t in types[:3])
    if build in (scores_widened, scaled_scores_widened):
        assert types[3] is gc.float32
    assert "Attention" not in [op.type for op in operations(build, short=False)]


def weights_of_float32():
    q, k, v = feeds()
    weights = gc.nn.softmax(wide(gc.matmul(q, k, transpose_b=True)))
    return gc.matmul(weights, wide(v))


def other_16_bits():
    q, k, _ = feeds()
    v = gc.placeholder("float16", [2, T, 8])
    scores = wide(gc.matmul(q, k, transpose_b=True))
    return gc.matmul(gc.cast(gc.nn.softmax(scores), v.dtype), v)


def scores_of_float64():
    q, k, v = feeds()
    scores = gc.cast(gc.matmul(q, k, transpose_b=True), gc.float64)
    return gc.matmul(gc.cast(gc.nn.softmax(scores), v.dtype), v)


def scores_in_the_other_16_bits():
    q, k, v = feeds()
    scores = gc.cast(gc.matmul(q, k, transpose_b=True), gc.float16)
    return gc.matmul(gc.cast(gc.nn.softmax(wide(scores)), v.dtype), v)


def widened_scores_fetched():
    q, k, v = feeds()
    scores = wide(gc.matmul(q, k, transpose_b=True))
    return scores, gc.matmul(gc.cast(gc.nn.softmax(scores), v.dtype), v)


def weights_fetched():
    q, k, v = feeds()
    weights = gc.nn.softmax(wide(gc.matmul(q, k, transpose_b=True)))
    return weights, gc.matmul(gc.cast(weights, v.dtype), v)


@pytest.mark.parametrize(
    "build",
    [
        weights_of_float32, other_16_bits, scores_of_float64, scores_in_the_other_16_bits,
        widened_scores_fetched, weights_fetched,
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_what_is_not(build):
    assert "Attention" not in [op.type for op in operations(build)]


def test_division_by_a_power_of_two_in_float32():
    """It has become a product by then; the division that nobody reads is no reader."""

    def build():
        q, k, v = feeds("float32")
        scores = gc.matmul(q, k, transpose_b=True) / 8.0
        return gc.matmul(gc.nn.softmax(scores), v)

    assert "Attention" in [op.type for op in operations(build, short=False)]
