"""Random numbers: the published test vectors, the distributions, the seeds."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from graphc import dtypes
from graphc.build import constant, constant_of
from graphc.graph import Graph, get_default_graph
from graphc.interpret import interpret
from graphc.op import evaluate_reference
from graphc.ops import random_bits
from graphc.ops.base import call
from graphc.ops.random import (
    get_seed,
    random_normal,
    random_uniform,
    set_random_seed,
    stateless_form,
    truncated_normal,
)
from graphc.ops.random_bits import ARRAYS, seed_key
from graphc.session import Session

COUNT = 100_000
PINNED = [0.4860239624977112, 0.321200966835022, 0.2961618900299072]


@pytest.fixture(autouse=True)
def graph():
    with Graph().as_default() as g:
        yield g


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_known_answers(key, counter, expected):
    words = [np.array([w], np.uint32) for w in (*key, *counter)]
    found = random_bits.threefry2x32(ARRAYS, *words)
    assert tuple(int(x[0]) for x in found) == expected


def sample(kind: str, run: int = 0, seed: int = 1, dtype: dtypes.DType = dtypes.float32):
    key = constant_of(seed_key(seed, 2))
    counter = constant_of(np.array(run, np.int64))
    out = call(kind, constant([COUNT]), key, counter, dtype=dtype)
    return evaluate_reference(out.op, interpret(list(out.op.inputs)))[0]


def distance(values: np.ndarray, distribution) -> float:
    """The Kolmogorov-Smirnov statistic, times the root of the count."""
    ordered = np.sort(values.astype(np.float64))
    at = np.vectorize(distribution)(ordered)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    gap = max(np.max(steps[1:] - at), np.max(at - steps[:-1]))
    return float(gap * math.sqrt(len(ordered)))


def gauss(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def truncated(x: float) -> float:
    low, high = gauss(-2.0), gauss(2.0)
    return (gauss(x) - low) / (high - low)


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)
@pytest.mark.parametrize(
    ("kind", "distribution"),
    [
        ("StatelessUniform", lambda x: x),
        ("StatelessNormal", gauss),
        ("StatelessTruncatedNormal", truncated),
    ],
)
def test_distributions(kind, distribution, dtype):
    values = sample(kind, dtype=dtype)
    # Exceeded by one sample in a thousand; the samples are fixed.
    assert distance(values, distribution) < 1.95
    assert np.all(np.isfinite(values))
    correlation = np.corrcoef(values[:-1], values[1:])[0, 1]
    assert abs(correlation) < 4 / math.sqrt(COUNT)


def test_ranges():
    uniform = sample("StatelessUniform")
    assert uniform.min() >= 0
    assert uniform.max() < 1
    half = sample("StatelessUniform", dtype=dtypes.float16)
    assert half.dtype == np.float16
    assert half.max() < 1
    bounded = sample("StatelessTruncatedNormal")
    assert np.abs(bounded).max() <= 2


def test_runs_and_seeds_and_elements_differ():
    streams = [sample("StatelessUniform", run, seed) for run in (0, 1) for seed in (1, 5)]
    late = sample("StatelessUniform", 2**32)
    for i, a in enumerate([*streams, late]):
        assert len(np.unique(a)) > 0.99 * COUNT
        for b in streams[:i]:
            assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(COUNT)
    np.testing.assert_array_equal(streams[0], sample("StatelessUniform"))


def test_the_numbers_stay_what_they_were():
    """A saved model that is run again must draw the same numbers: these never change."""
    np.testing.assert_array_equal(
        sample("StatelessUniform", 3, 7)[:3],
        np.array(PINNED, np.float32),
    )


def test_integers():
    out = random_uniform([COUNT], -3, 5, dtypes.int32, seed=3)
    counts = np.bincount(interpret([out])[0] + 3)
    assert len(counts) == 8
    assert np.all(np.abs(counts - COUNT / 8) < 5 * math.sqrt(COUNT / 8))
    wide = interpret([random_uniform([COUNT], dtypes.int64.min, dtypes.int64.max, "int64", 3)])[0]
    assert wide.min() < -(2**62)
    assert wide.max() > 2**62
    with pytest.raises(ValueError, match="Need minval < maxval"):
        interpret([random_uniform([2], 5, 5, dtypes.int32)])


def test_names_and_seeds_are_tensorflows(graph: Graph):
    set_random_seed(1234)
    random_uniform([2])
    random_normal([2], seed=7)
    random_uniform([2], seed=7)
    truncated_normal([2])
    found = [
        (op.name, op.type, op.get_attr("seed"), op.get_attr("seed2"))
        for op in graph.get_operations()
        if "seed" in op.attrs
    ]
    assert found == [
        ("random_uniform/RandomUniform", "RandomUniform", 1234, 3),
        ("random_normal/RandomStandardNormal", "RandomStandardNormal", 1234, 7),
        ("random_uniform_1/RandomUniform", "RandomUniform", 1234, 7),
        ("truncated_normal/TruncatedNormal", "TruncatedNormal", 1234, 23),
    ]
    assert [op.name for op in graph.get_operations()][:7] == [
        "random_uniform/shape", "random_uniform/min", "random_uniform/max",
        "random_uniform/RandomUniform", "random_uniform/sub", "random_uniform/mul",
        "random_uniform",
    ]  # fmt: skip


def test_get_seed():
    assert get_seed(None) == (None, None)
    assert get_seed(7) == (87654321, 7)
    set_random_seed(0)
    assert get_seed(0) == (0, 2**31 - 1)
    assert get_seed(2**31) == (0, 1)
    constant(1)
    assert get_seed(None) == (0, get_default_graph().version)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="Must specify maxval"):
        random_uniform([2], dtype="int32")
    with pytest.raises(ValueError, match="Invalid dtype"):
        random_uniform([2], dtype="int8")
    with pytest.raises(ValueError, match="rank 1"):
        random_uniform(2)


def test_the_stateless_form_gives_the_same_numbers():
    for out in (random_uniform([5], seed=3), random_uniform([5], 0, 9, "int32", seed=3)):
        op = next(o for o in out.graph.get_operations()[::-1] if "seed" in o.attrs)
        counter = constant_of(np.zeros((), np.int64))
        name, operands, attrs = stateless_form(op, op.inputs, counter)
        same = call(name, *operands, **attrs)
        np.testing.assert_array_equal(*interpret([op.outputs[0], same]))


def drawn_without_seeds() -> list[np.ndarray]:
    with Graph().as_default() as graph:
        outs = [random_uniform([5]), random_normal([5]), random_uniform([5])]
        outs.append(random_uniform([5], seed=outs[0].op.inputs[0].op.inputs[0].op.serial))
        with Session(graph=graph) as session:
            return [*session.run(outs), *session.run(outs)]


def test_without_seeds_the_same_graph_gives_the_same_numbers():
    first, second = drawn_without_seeds(), drawn_without_seeds()
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    for i, a in enumerate(first):
        for b in first[:i]:
            assert not np.array_equal(a, b)


TRAIN_WITHOUT_SEEDS = """
import graphc as gc
from graphc.runtime.cache import default_cache

w = gc.get_variable("w", [3, 4])
y = gc.nn.dropout(gc.matmul(gc.random_normal([5, 3]), w), keep_prob=0.5)
train = gc.train.AdamOptimizer(0.1).minimize(gc.reduce_sum(y * y))
with gc.Session() as session:
    session.run(gc.global_variables_initializer())
    for _ in range(3):
        session.run(train)
    print(session.run(w).tobytes().hex(), default_cache().stats().misses)
"""


def test_without_seeds_another_process_finds_the_code_in_the_cache(tmp_path):
    environment = dict(os.environ, GRAPHC_CACHE=str(tmp_path))
    printed = [
        subprocess.run(
            [sys.executable, "-c", TRAIN_WITHOUT_SEEDS], env=environment, check=True,
            capture_output=True, text=True,
        ).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert printed[0][0] == printed[1][0]
    assert int(printed[0][1]) > 0
    assert int(printed[1][1]) == 0
