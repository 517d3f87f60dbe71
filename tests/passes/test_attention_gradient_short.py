"""Attention of 16-bit floats with its gradient: what is fused for a GPU, and what is not."""

import importlib
from pathlib import Path

import pytest
from pass_support import extracted

import graphc as gc
from graphc.dims import symbols_of
from graphc.passes.pipeline import default_pipeline, run_passes

T = 1024
FUSED_TYPES = ("AttentionWithStatistics", "AttentionGradient")
BENCHMARKS = Path(gc.__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


def feeds(dtype="bfloat16", depth=8, queries=T):
    """Query, key and value of 16 bits."""
    sizes = zip("qkv", (queries, T, T), strict=True)
    return [gc.placeholder(dtype, [2, n, depth], name) for name, n in sizes]


def bias_of(dtype):
    return gc.placeholder(dtype, [T, T], "b")


def wide(x):
    return gc.cast(x, gc.float32)


def product(q, k):
    return gc.matmul(q, k, transpose_b=True)


def mixed(scores, value):
    """The softmax in float32, its weights of the values' dtype."""
    return gc.matmul(gc.cast(gc.nn.softmax(scores), value.dtype), value)


def with_gradients(y, operands):
    """The result, and the gradients of something that depends on each element in its own way."""
    return [y, *gc.gradients(gc.reduce_sum(gc.sin(y) * y), operands)]


def all_in_16_bits():
    q, k, v = feeds("float16")
    scores = product(q, k) * 0.5 + bias_of("float16")
    return with_gradients(gc.matmul(gc.nn.softmax(scores), v), [q, k, v])


def scores_widened():
    q, k, v = feeds()
    scores = wide(product(q, k)) * 0.5 + bias_of("float32")
    return with_gradients(mixed(scores, v), [q, k, v])


def scaled_scores_widened():
    q, k, v = feeds()
    scores = bias_of("float32") + wide(product(q, k) / 2.0)
    return with_gradients(mixed(scores, v), [q, k, v])


def biased_scores_widened():
    q, k, v = feeds()
    scores = wide(product(q, k) * 0.5 + bias_of("bfloat16"))
    return with_gradients(mixed(scores, v), [q, k, v])


def not_scaled():
    q, k, v = feeds("float16")
    return with_gradients(mixed(wide(product(q, k)), v), [q, k, v])


def for_keys_alone():
    q, k, v = feeds()
    return with_gradients(mixed(wide(product(q, k)) * 0.5, v), [k])


def queries_are_keys_and_values():
    q, _, _ = feeds()
    return with_gradients(mixed(wide(product(q, q)) * 0.5, q), [q])


FUSED = [
    all_in_16_bits, scores_widened, scaled_scores_widened, biased_scores_widened, not_scaled,
    for_keys_alone, queries_are_keys_and_values,
]  # fmt: skip


def for_gpu(fn, **hints):
    """The operations of a function as a GPU gets them."""
    pipeline = default_pipeline(short_attention=True, iterations=1, **hints)
    return run_passes(fn, pipeline).operations


def matrices(operations, tokens):
    """The types of operations that compute a matrix of scores."""
    tensors = [t for op in operations for t in op.outputs if (t.sizes or ())[-2:] == (tokens,) * 2]
    return {t.op.type for t in tensors} - {"Const", "Placeholder"}


@pytest.mark.parametrize("build", FUSED, ids=lambda f: f.__name__)
def test_what_is_fused(build):
    found = for_gpu(extracted(build))
    assert [sum(op.type == t for op in found) for t in FUSED_TYPES] == [1, 1]
    assert not {"BatchMatMulV2", "ExpNegative"} & {op.type for op in found}
    assert not matrices(found, T)
    forward, backward = (op for op in found if op.type in FUSED_TYPES)
    scale = 1.0 if build is not_scaled else 0.5
    assert [op.attrs["scale"] for op in (forward, backward)] == [scale, scale]
    # Gradients are of 16 bits, what they are made of of float32, a bias is added as it is.
    short = forward.inputs[0].dtype
    assert [t.dtype for t in forward.outputs] == [gc.float32] * 2
    assert [t.dtype for t in backward.outputs] == [short] * 3
    assert [t.dtype for t in backward.inputs[4:6]] == [gc.float32] * 2
    assert backward.inputs[6:] == forward.inputs[3:]
    if build is scores_widened:
        assert backward.inputs[6].dtype is gc.float32


@pytest.mark.parametrize("build", FUSED, ids=lambda f: f.__name__)
def test_a_cpu_stores_scores_of_16_bits(build):
    found = {op.type for op in run_passes(extracted(build), default_pipeline()).operations}
    assert not {"Attention", *FUSED_TYPES} & found


def bias_trained():
    q, k, v = feeds()
    b = bias_of("float32")
    return with_gradients(mixed(wide(product(q, k)) * 0.5 + b, v), [q, k, v, b])


def bias_of_16_bits_trained():
    q, k, v = feeds()
    b = bias_of("bfloat16")
    return with_gradients(mixed(wide(product(q, k) * 0.5 + b), v), [q, k, v, b])


def weights_dropped():
    q, k, v = feeds()
    weights = gc.nn.dropout(gc.nn.softmax(wide(product(q, k))), rate=0.5)
    return with_gradients(gc.matmul(gc.cast(weights, v.dtype), v), [q, k, v])


def narrow_weights_dropped():
    q, k, v = feeds()
    weights = gc.cast(gc.nn.softmax(wide(product(q, k))), v.dtype)
    return with_gradients(gc.matmul(gc.nn.dropout(weights, rate=0.5), v), [q, k, v])


def weights_fetched():
    q, k, v = feeds()
    weights = gc.nn.softmax(wide(product(q, k)))
    y = gc.matmul(gc.cast(weights, v.dtype), v)
    return [weights, *with_gradients(y, [q, k, v])]


def narrow_weights_fetched():
    q, k, v = feeds()
    weights = gc.cast(gc.nn.softmax(wide(product(q, k))), v.dtype)
    return [weights, *with_gradients(gc.matmul(weights, v), [q, k, v])]


def gradient_by_scores_fetched():
    q, k, v = feeds()
    scores = product(q, k)
    y = mixed(wide(scores) * 0.5, v)
    return with_gradients(y, [q, k, v, scores])


def for_values_alone():
    q, k, v = feeds()
    return with_gradients(mixed(wide(product(q, k)), v), [v])


def few_queries():
    q, k, v = feeds(queries=63)
    return with_gradients(mixed(wide(product(q, k)), v), [q, k, v])


def wider_than_registers():
    q, k, v = feeds(depth=129)
    return with_gradients(mixed(wide(product(q, k)), v), [q, k, v])


def gradients_of_other_values():
    """What looks like the gradient of attention, but for one of its products."""
    q, k, v = feeds()
    grad, other = feeds()[:2]
    weights = gc.nn.softmax(wide(product(q, k)))
    narrow = gc.cast(weights, v.dtype)
    by = wide(product(grad, other))
    slopes = gc.cast((by - gc.reduce_sum(by * weights, -1, keepdims=True)) * weights, v.dtype)
    return [gc.matmul(narrow, v), gc.matmul(slopes, k)]


ALONE = [
    bias_trained, bias_of_16_bits_trained, weights_dropped, narrow_weights_dropped,
    weights_fetched, narrow_weights_fetched, gradient_by_scores_fetched, for_values_alone,
    few_queries, wider_than_registers, gradients_of_other_values,
]  # fmt: skip


@pytest.mark.parametrize("build", ALONE, ids=lambda f: f.__name__)
def test_what_is_left_alone(build):
    found = {op.type for op in for_gpu(extracted(build))}
    assert not {"Attention", *FUSED_TYPES} & found


@pytest.mark.parametrize(
    ("in_float32", "tokens", "fused"),
    [(True, 511, False), (True, 512, True), (False, 724, False), (False, 725, True)],
)
def test_scores_count_as_the_softmax_reads_them(in_float32, tokens, fused):
    """A megabyte of them, in float32 or in 16 bits."""

    def build():
        q, k, v = (gc.placeholder("bfloat16", [2, tokens, 8], name) for name in "qkv")
        scores = product(q, k)
        if in_float32:
            return with_gradients(mixed(wide(scores), v), [q, k, v])
        return with_gradients(gc.matmul(gc.nn.softmax(scores), v), [q, k, v])

    found = [op.type for op in for_gpu(extracted(build))]
    assert [t in found for t in FUSED_TYPES] == [fused, fused]


@pytest.mark.parametrize(("rows", "fused"), [(16, False), (63, False), (128, True)])
def test_unknown_sizes_are_taken_for_those_first_seen(rows, fused):
    def build():
        q, k, v = (gc.placeholder("bfloat16", [None, None, 8], name) for name in "qkv")
        return with_gradients(mixed(wide(product(q, k)) * 0.5, v), [q, k, v])

    fn = extracted(build)
    hints = {s: rows for i in fn.inputs for size in i.raw for s in symbols_of(size)}
    found = [op.type for op in for_gpu(fn, hints=hints)]
    assert [t in found for t in FUSED_TYPES] == [fused, fused]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("what", ["encoder", "decoder"])
def test_transformers_as_they_are_measured(what, train, monkeypatch):
    """At the length that `make gpu-check` gives them, with fewer layers of fewer heads."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    graphs, models = (importlib.import_module(name) for name in ("graphs", "gpu_models"))
    tokens, layers = 512, 2
    sizes = models.Sizes(layers, 64, 96, 8, 1, tokens, 50)

    def build():
        arrays = getattr(models, f"{what}_data")(sizes)
        weights = {
            k: gc.Variable(gc.zeros(a.shape, gc.float32), name=f"v_{k}")
            for k, a in arrays.items() if k[0] in "wb"
        }  # fmt: skip
        x = gc.placeholder(arrays["x"].dtype, arrays["x"].shape)
        if what == "encoder":
            y = graphs.encoded(gc, weights, gc.cast(x, gc.bfloat16))
        else:
            y = models.decoder(gc, sizes, weights, x, gc.bfloat16)
        if not train:
            return [y]
        loss = gc.reduce_mean(gc.square(gc.cast(y, gc.float32)))
        return [loss, gc.train.AdamOptimizer(1e-3).minimize(loss)]

    operations = for_gpu(extracted(build))
    types = [op.type for op in operations]
    forward, other = ("AttentionWithStatistics", "Attention")[:: 1 if train else -1]
    assert types.count(forward) == layers
    assert other not in types
    assert types.count("AttentionGradient") == (layers if train else 0)
    assert not matrices(operations, tokens)
