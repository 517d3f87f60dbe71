"""One program for every size: guards, specialisation, sizes that are computed in the run."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import graphc as gc
from graphc import dims, errors, nn
from graphc.graph import Graph
from graphc.ops.contraction_functions import matmul

MODES = ("static", "eager", "reference")


@pytest.fixture(autouse=True)
def graph():
    with Graph().as_default() as g:
        yield g


@pytest.fixture(params=MODES)
def session(request):
    with gc.Session(mode=request.param) as s:
        yield s


@pytest.fixture
def static():
    with gc.Session() as s:
        yield s


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


# --- one compilation ------------------------------------------------------------------------------


def classifier():
    x, y = gc.placeholder(gc.float32, [None, 20]), gc.placeholder(gc.int32, [None])
    w = gc.Variable(random(20, 10))
    b = gc.Variable(np.zeros(10, np.float32))
    logits = matmul(nn.relu(x), w) + b
    loss = gc.reduce_mean(
        nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
    )
    accuracy = gc.reduce_mean(gc.cast(gc.equal(gc.argmax(logits, 1), gc.cast(y, gc.int64)), "f4"))
    train = gc.train.GradientDescentOptimizer(0.1).minimize(loss)
    return x, y, [nn.softmax(logits), loss, accuracy, train]


@pytest.mark.parametrize("first", [1, 7, 64])
def test_one_compilation_for_all_batches(static, first):
    x, y, fetches = classifier()
    static.run(gc.global_variables_initializer())
    before = static.compilations
    for n in (first, 1, 7, 64, 1000, 2):
        found = static.run(fetches, {x: random(n, 20), y: np.arange(n) % 10})
        assert found[0].shape == (n, 10)
        np.testing.assert_allclose(found[0].sum(1), 1, rtol=1e-5)
    assert static.compilations == before + 1


def test_the_values_do_not_depend_on_the_size_seen_first():
    found = []
    for first in (1, 5, 64):
        with Graph().as_default(), gc.Session() as s:
            x, _, fetches = classifier()
            s.run(gc.global_variables_initializer())
            s.run(fetches[:1], {x: random(first, 20)})
            found.append(s.run(fetches[0], {x: random(33, 20)}))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 15, 16, 17, 31, 63, 64, 65, 1023, 4097, 100_003])
def test_sizes_around_every_vector_width(static, n):
    x = gc.placeholder(gc.float32, [None])
    data = random(n)
    found = static.run(
        [x * 2 + 1, gc.reduce_sum(x), gc.reduce_max(x), x[::-1], gc.reshape(x, [1, -1]) - x[:, None]
         if n < 70 else x],
        {x: data},
    )  # fmt: skip
    np.testing.assert_allclose(found[0], data * 2 + 1, rtol=1e-6)
    np.testing.assert_allclose(found[1], data.astype("f8").sum(), rtol=1e-4, atol=1e-3)
    assert found[2] == (data.max() if n else -np.inf)
    np.testing.assert_array_equal(found[3], data[::-1])
    if n < 70:
        np.testing.assert_array_equal(found[4], data[None] - data[:, None])


# --- guards ---------------------------------------------------------------------------------------


def test_equal_then_broadcast_then_a_mismatch(session):
    x, y = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.float32, [None])
    total = x + y
    assert session.run(total, {x: [1.0, 2.0], y: [3.0, 4.0]}).tolist() == [4.0, 6.0]
    assert session.run(total, {x: [1.0], y: [3.0, 4.0]}).tolist() == [4.0, 5.0]
    assert session.run(total, {x: [1.0, 2.0], y: [3.0]}).tolist() == [4.0, 5.0]
    assert session.run(total, {x: [1.0], y: [3.0]}).tolist() == [4.0]
    assert session.run(total, {x: [], y: [3.0]}).tolist() == []
    with pytest.raises(errors.InvalidArgumentError, match=r"\[2\].*\[3\]"):
        session.run(total, {x: np.zeros(2), y: np.zeros(3)})
    assert session.run(total, {x: np.ones(3), y: np.ones(3)}).tolist() == [2.0] * 3


def test_broadcasting_over_any_batch_is_compiled_once(static):
    x, y = gc.placeholder(gc.float32, [None, None]), gc.placeholder(gc.float32, [None, None])
    total = gc.tanh(x) + y
    static.run(total, {x: random(4, 3), y: random(4, 3)})
    assert static.compilations == 1
    for n in (2, 5, 9, 4):
        found = static.run(total, {x: random(n, 3), y: random(1, 3)})
        np.testing.assert_allclose(found, np.tanh(random(n, 3)) + random(1, 3), rtol=1e-5)
    assert static.compilations == 2
    static.run(total, {x: random(6, 3), y: random(6, 3)})
    assert static.compilations == 2


def test_the_broadcast_may_come_first(static):
    x, y = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.float32, [None])
    product = x * y
    for _ in range(3):
        assert static.run(product, {x: [2.0], y: [3.0, 4.0]}).tolist() == [6.0, 8.0]
        assert static.run(product, {x: [2.0, 3.0], y: [3.0, 4.0]}).tolist() == [6.0, 12.0]
    assert static.compilations == 2


def test_a_stated_shape_is_used_and_may_be_wrong(session):
    x = gc.placeholder(gc.float32)
    y = x * 2.0
    y.set_shape([2])
    for _ in range(2):
        assert session.run(y + 1.0, {x: [1.0, 2.0]}).tolist() == [3.0, 5.0]
        # As in TensorFlow, a run does not hold the user to it.
        assert session.run(y + 1.0, {x: [1.0, 2.0, 3.0]}).tolist() == [3.0, 5.0, 7.0]


def test_gradients_of_broadcasting(session):
    x, y = gc.placeholder(gc.float32, [None, None]), gc.placeholder(gc.float32, [None, None])
    gx, gy = gc.gradients(gc.reduce_sum(x * y), [x, y])
    for a, b in (((2, 3), (2, 3)), ((2, 3), (1, 3)), ((1, 1), (4, 3)), ((2, 1), (1, 3))):
        u, v = random(*a), random(*b)
        found = session.run([gx, gy], {x: u, y: v})
        wide = np.broadcast_shapes(a, b)
        for got, shape, other in ((found[0], a, v), (found[1], b, u)):
            axes = tuple(i for i in range(2) if shape[i] == 1 != wide[i])
            expected = np.broadcast_to(other, wide).sum(axes, keepdims=True)
            np.testing.assert_allclose(got, expected.reshape(shape), rtol=1e-4, atol=1e-5)


# --- sizes that are computed ----------------------------------------------------------------------


def test_reshape_to_fed_shapes(session):
    x, shape = gc.placeholder(gc.float32), gc.placeholder(gc.int32, [None])
    y = gc.reshape(x, shape) + 1.0
    data = np.arange(12, dtype=np.float32)
    for wanted in ([3, 4], [-1, 4], [2, -1], [12], [-1], [1, 12], [2, 3, 2], [2, -1, 2]):
        np.testing.assert_array_equal(session.run(y, {x: data, shape: wanted}),
                                      data.reshape(wanted) + 1)  # fmt: skip
    np.testing.assert_array_equal(session.run(y, {x: data[:0], shape: [0, 4]}), np.zeros((0, 4)))
    for wrong in ([5, 2], [-1, 5], [-1, -1], [-2, 6]):
        with pytest.raises(errors.InvalidArgumentError):
            session.run(y, {x: data, shape: wrong})
    assert session.run(y, {x: data, shape: [4, 3]}).shape == (4, 3)


def test_fill_with_fed_sizes_is_compiled_once(static):
    n, m = gc.placeholder(gc.int32, []), gc.placeholder(gc.int32, [])
    y = gc.fill([n, m], 2.0) * 3.0
    for a, b in ((2, 3), (0, 5), (1, 1), (7, 2), (64, 64)):
        found = static.run(y, {n: a, m: b})
        assert found.shape == (a, b)
        assert (found == 6.0).all()
    # The program, and the one that computes its sizes beforehand.
    assert static.compilations <= 2
    with pytest.raises(errors.InvalidArgumentError):
        static.run(y, {n: -1, m: 2})
    assert static.run(y, {n: 1, m: 2}).shape == (1, 2)


def test_range_tile_and_slice_with_fed_values(session):
    n = gc.placeholder(gc.int32, [])
    x = gc.placeholder(gc.float32, [None])
    numbers = gc.range(n) * 2
    tiled = gc.tile(x, [n])
    part = gc.slice(x, [n - 1], [-1])
    window = x[n : n + 2]
    data = np.arange(10, dtype=np.float32)
    for k in (1, 2, 5, 9):
        a, b, c, d = session.run([numbers, tiled, part, window], {n: k, x: data})
        assert a.tolist() == list(range(0, 2 * k, 2))
        np.testing.assert_array_equal(b, np.tile(data, k))
        np.testing.assert_array_equal(c, data[k - 1 :])
        np.testing.assert_array_equal(d, data[k : k + 2])


def test_a_batch_size_placeholder(session):
    batch = gc.placeholder(gc.int32, [])
    x = gc.placeholder(gc.float32, [None, 3])
    state = gc.zeros([batch, 3])
    y = gc.concat([x, state + 1.0], 1) + gc.ones([batch, 1])
    for n in (2, 5, 1):
        found = session.run(y, {batch: n, x: random(n, 3)})
        np.testing.assert_allclose(found[:, :3], random(n, 3) + 1, rtol=1e-6)
        np.testing.assert_array_equal(found[:, 3:], 2.0)
    with pytest.raises(errors.InvalidArgumentError):
        session.run(y, {batch: 3, x: random(2, 3)})


def test_sizes_from_shapes_of_tensors(static):
    x = gc.placeholder(gc.float32, [None, None])
    n, m = gc.shape(x)[0], gc.shape(x)[1]
    y = gc.reshape(gc.transpose(x), [n * m // 2, 2]) + gc.fill([n * m // 2, 2], 1.0)
    for a, b in ((2, 3), (4, 4), (1, 2), (6, 1)):
        found = static.run(y, {x: random(a, b)})
        np.testing.assert_allclose(found, random(a, b).T.reshape(-1, 2) + 1, rtol=1e-6)
    assert static.compilations == 1


def test_axes_and_permutations_may_be_fed(session):
    x = gc.placeholder(gc.float32, [None, None])
    axis, perm = gc.placeholder(gc.int32, []), gc.placeholder(gc.int32, [2])
    total, turned = gc.reduce_sum(x, axis), gc.transpose(x, perm)
    data = random(3, 4)
    for k in (0, 1, -1, 0):
        found = session.run(total, {x: data, axis: k})
        np.testing.assert_allclose(found, data.sum(k), rtol=1e-5, atol=1e-6)
    for p in ([0, 1], [1, 0]):
        np.testing.assert_array_equal(
            session.run(turned, {x: data, perm: p}), data.transpose(p)
        )


def test_a_computed_size_that_breaks_a_guard(static):
    """``fill([n]) + x`` assumes that n is the size of x; n = 1 is another program, kept."""
    x, n = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.int32, [])
    y = gc.fill([n], 1.0) + x
    for _ in range(3):
        assert static.run(y, {x: np.ones(3), n: 3}).tolist() == [2.0] * 3
        assert static.run(y, {x: np.ones(3), n: 1}).tolist() == [2.0] * 3
    most = static.compilations
    for _ in range(3):
        static.run(y, {x: np.ones(3), n: 1})
    assert static.compilations == most


def test_sizes_that_are_too_large_are_refused(static):
    n = gc.placeholder(gc.int64, [])
    y = gc.reduce_sum(gc.fill([n, n], 1.0), 1)[::-1]
    x = gc.fill([n, n], 1.0)
    with pytest.raises((errors.ResourceExhaustedError, errors.InvalidArgumentError, MemoryError)):
        static.run(x, {n: 2**40})
    assert static.run(y, {n: 3}).tolist() == [3.0] * 3


def test_sizes_travel_to_other_processes():
    """They are equal there to those that are made there, whose hashes are others."""
    d, e = dims.Dim.symbol("d"), dims.Dim.symbol("e", positive=False)
    sizes = [d, d * e + 3, dims.floordiv(d * 4 + 1, 3), dims.maximum(e, 0), 7]
    text = pickle.dumps((sizes, {s: str(s) for s in sizes}, {*d.symbols()})).hex()
    program = f"""
import pickle
from graphc import dims
sizes, names, symbols = pickle.loads(bytes.fromhex({text!r}))
d, e = dims.Dim.symbol("d"), dims.Dim.symbol("e", positive=False)
made = [d, d * e + 3, dims.floordiv(d * 4 + 1, 3), dims.maximum(e, 0), 7]
assert sizes == made
assert [names[s] for s in made] == [str(s) for s in made]
assert symbols == {{dims.Symbol("d")}}
"""
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", program], env=env, check=True)
    assert copy.deepcopy(sizes) == sizes
