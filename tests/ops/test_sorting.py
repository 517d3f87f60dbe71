"""top_k, in_top_k, sort, argsort and unique: values, ties, NaN, computed sizes, errors."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import InvalidArgumentError

MODES = ("static", "eager", "reference")
NAN = float("nan")


@pytest.fixture(autouse=True)
def graph(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    with gc.Graph().as_default() as graph:
        yield graph


def in_modes(fetches, feeds=None):
    """The arrays, which all modes agree on."""
    found = []
    for mode in MODES:
        with gc.Session(mode=mode) as session:
            found.append([np.asarray(v) for v in session.run(list(fetches), feeds)])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    return found[0]


def failures(fetch, feeds):
    for mode in MODES:
        with gc.Session(mode=mode) as session, pytest.raises(InvalidArgumentError) as caught:
            session.run(fetch, feeds)
        yield str(caught.value)


def test_ties_nan_and_types():
    found = gc.nn.top_k([[1.0, 3.0, 3.0, 2.0, 3.0], [NAN, 1.0, NAN, -np.inf, np.inf]], 3)
    assert type(found).__name__ == "TopKV2"
    assert found.values.name == "TopKV2:0"
    values, indices = in_modes(found)
    assert indices.dtype == np.int32
    np.testing.assert_array_equal(values, [[3, 3, 3], [NAN, NAN, np.inf]])
    np.testing.assert_array_equal(indices, [[1, 2, 4], [0, 2, 4]])
    assert gc.math.top_k is gc.nn.top_k
    values, _ = in_modes(gc.nn.top_k(np.array([1, 200, 3], np.uint8)))
    assert (values.tolist(), values.dtype) == ([200], np.uint8)


def test_a_k_and_sizes_that_a_run_tells():
    x, k = gc.placeholder(gc.float32, [None, None]), gc.placeholder(gc.int32, [])
    found = gc.nn.top_k(x, k)
    assert found.values.shape.as_list() == [None, None]
    array = np.arange(8.0).reshape(2, 4)
    for count in (0, 1, 4):
        values, indices = in_modes(found, {x: array, k: count})
        np.testing.assert_array_equal(values, array[:, ::-1][:, :count])
        np.testing.assert_array_equal(indices, [[3, 2, 1, 0][:count]] * 2)
    assert in_modes(found, {x: np.zeros((0, 3)), k: 2})[0].shape == (0, 2)
    assert in_modes(found, {x: np.zeros((3, 0)), k: 0})[0].shape == (3, 0)
    for text in failures(found.values, {x: array, k: 5}):
        assert "input must have at least k columns. Had 4, needed 5" in text
        assert "TopKV2" in text
        assert "test_sorting.py" in text


def test_a_negative_k_fails():
    x, k = gc.placeholder(gc.float32, [2, 4]), gc.placeholder(gc.int32, [])
    with gc.Session() as session, pytest.raises(InvalidArgumentError, match="TopKV2"):
        session.run(gc.nn.top_k(x, k).values, {x: np.zeros((2, 4)), k: -1})


@pytest.mark.parametrize(
    ("x", "k", "error", "message"),
    [
        ([1.0, 2.0], 3, ValueError, "input must have last dimension >= k = 3 but is 2"),
        ([1.0, 2.0], -1, ValueError, "given by scalar input 1, must be non-negative but is -1"),
        (1.0, 1, ValueError, "Shape must be at least rank 1 but is rank 0"),
        ([1.0], [1, 1], ValueError, "rank"),
        ([True], 1, TypeError, "bool not in list of allowed values"),
        ([1.0], 1.5, TypeError, "Expected int32"),
    ],
)
def test_what_is_refused(x, k, error, message):
    with pytest.raises(error, match=message):
        gc.nn.top_k(x, k)


def test_long_rows_and_few_kept():
    x = gc.placeholder(gc.float32, [None, None])
    array = np.random.RandomState(0).randint(0, 500, [7, 3001]).astype(np.float32)
    values, places, up, down = in_modes(
        [*gc.nn.top_k(x, 64), gc.argsort(x), gc.argsort(x, direction="DESCENDING")], {x: array}
    )
    order = np.argsort(-array, 1, kind="stable")
    np.testing.assert_array_equal(places, order[:, :64])
    np.testing.assert_array_equal(values, np.take_along_axis(array, order[:, :64], 1))
    np.testing.assert_array_equal(down, order)
    np.testing.assert_array_equal(up, np.argsort(array, 1, kind="stable"))


@pytest.mark.parametrize("shape", [[None, None, None], None])
def test_gradients_of_values(shape):
    """Twice: of the squares, at the places that the values came from."""
    x = gc.placeholder(gc.float32, shape)
    array = np.random.RandomState(3).permutation(24).reshape(2, 3, 4).astype(np.float32)
    values = gc.nn.top_k(x, 2).values
    (first,) = gc.gradients(gc.square(values), x)
    (second,) = gc.gradients(first * first, x)
    kept = array >= np.sort(array, -1)[..., 2:3]
    found = in_modes([first, second], {x: array})
    np.testing.assert_array_equal(found[0], np.where(kept, 2 * array, 0))
    np.testing.assert_array_equal(found[1], np.where(kept, 8 * array, 0))


def test_in_top_k():
    p = gc.placeholder(gc.float32, [None, None])
    t, k = gc.placeholder(gc.int32, [None]), gc.placeholder(gc.int32, [])
    found = gc.nn.in_top_k(p, t, k)
    assert found.name == "in_top_k/InTopKV2:0"
    rows = [[1, 2, 3, 3]] * 2 + [[3, 2, 3, 3], [1, 2, NAN, 3], [1, 2, np.inf, 3]]
    rows += [[1, 2, 3, 4]] * 2
    feeds = {p: rows, t: [2, 0, 1, 1, 3, -1, 4]}
    # As TensorFlow 1.15.5.
    (values,) = in_modes([found], {**feeds, k: 2})
    assert values.tolist() == [True, False, False, False, False, False, False]
    assert not in_modes([found], {**feeds, k: 0})[0].any()
    assert in_modes([found], {**feeds, k: 4})[0].tolist() == [True] * 3 + [False] * 4
    with gc.Session() as session, pytest.raises(InvalidArgumentError, match="InTopKV2"):
        session.run(found, {p: rows, t: [0], k: 1})
    with pytest.raises(ValueError, match="Dimensions must be equal, but are 2 and 1"):
        gc.nn.in_top_k(gc.zeros([2, 3]), [1], 2)
    with pytest.raises(TypeError):
        gc.nn.in_top_k(gc.zeros([2, 3]), gc.constant([1, 1], gc.int64), gc.constant(2))


@pytest.mark.parametrize("direction", ["ASCENDING", "DESCENDING"])
@pytest.mark.parametrize("axis", [-1, 0, 1, -3])
def test_sort_and_argsort_along_an_axis(axis, direction):
    x = gc.placeholder(gc.int32, [None, 3, None])
    array = np.random.RandomState(1).randint(0, 5, [4, 3, 6])
    options = dict(axis=axis, direction=direction)
    found = in_modes([gc.sort(x, **options), gc.argsort(x, **options)], {x: array})
    keys = array if direction == "ASCENDING" else -array
    order = np.argsort(keys, axis, kind="stable")
    np.testing.assert_array_equal(found[1], order)
    np.testing.assert_array_equal(found[0], np.take_along_axis(array, order, axis))
    assert gc.sort(x, axis).shape.as_list() == [None, 3, None]


def test_sort_of_extreme_values_and_nan():
    ints = np.array([0, -128, 127, 5], np.int8)
    floats = np.array([NAN, 1, -np.inf, NAN, np.inf], np.float32)
    found = in_modes([gc.sort(ints), gc.sort(floats), gc.argsort(floats)])
    np.testing.assert_array_equal(found[0], [-128, 0, 5, 127])
    np.testing.assert_array_equal(found[1], [-np.inf, 1, np.inf, NAN, NAN])
    np.testing.assert_array_equal(found[2], [2, 1, 4, 0, 3])


def test_sort_of_an_unknown_rank():
    x = gc.placeholder(gc.float32, None)
    (found,) = in_modes([gc.sort(x)], {x: [[3.0, 1.0], [2.0, 5.0]]})
    np.testing.assert_array_equal(found, [[1, 3], [2, 5]])
    with pytest.raises(ValueError, match="set_shape"):
        gc.sort(x, axis=0)


def test_what_sort_refuses():
    with pytest.raises(ValueError, match="X should be one of ASCENDING, DESCENDING"):
        gc.sort([1.0], direction="X")
    with pytest.raises(ValueError, match=r"axis 5 is not in the range \[-1, 1\)"):
        gc.argsort([1.0], axis=5)
    with pytest.raises(ValueError, match="axis"):
        gc.sort(1.0)
    with pytest.raises(ValueError, match="axis must be a constant scalar"):
        gc.sort([1.0], axis=gc.placeholder(gc.int32, []))


def test_the_gradient_of_sort():
    x = gc.placeholder(gc.float32, [None, 2])
    (grad,) = gc.gradients(gc.sort(x, 0) * [[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]], x)
    (found,) = in_modes([grad], {x: [[5.0, 1.0], [4.0, 2.0], [6.0, 0.0]]})
    np.testing.assert_array_equal(found, [[2, 20], [1, 30], [3, 10]])


def test_matvec():
    a, b = gc.placeholder(gc.float32, [None, 2, 3]), gc.placeholder(gc.float32, [None, 3])
    y = gc.linalg.matvec(a, b)
    assert y.name == "MatVec/Squeeze:0"
    assert y.shape.as_list() == [None, 2]
    first = np.random.RandomState(0).rand(4, 2, 3).astype(np.float32)
    second = np.random.RandomState(1).rand(4, 3).astype(np.float32)
    back = gc.linalg.matvec(a, y, transpose_a=True, name="back")
    assert back.name == "back/Squeeze:0"
    with gc.Session() as session:
        found = session.run([y, back], {a: first, b: second})
    wanted = np.einsum("nij,nj->ni", first, second)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5)
    np.testing.assert_allclose(found[1], np.einsum("nij,ni->nj", first, wanted), rtol=1e-5)
    with pytest.raises(ValueError, match="Dimensions must be equal, but are 3 and 2"):
        gc.linalg.matvec(gc.ones([2, 3]), gc.ones([2]))


@pytest.mark.parametrize("size", [0, 1, 2, 5000])
def test_unique_of_many(size):
    x = gc.placeholder(gc.int64, [None])
    array = np.random.RandomState(2).randint(-300, 300, [size])
    y, idx, count = in_modes(gc.unique_with_counts(x, out_idx=gc.int64), {x: array})
    kinds, first, counts = np.unique(array, return_index=True, return_counts=True)
    order = np.argsort(first)
    np.testing.assert_array_equal(y, kinds[order])
    np.testing.assert_array_equal(count, counts[order])
    np.testing.assert_array_equal(y[idx], array)
