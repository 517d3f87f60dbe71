"""map_fn, scan, foldl and foldr: values and errors of TensorFlow 1.15.5, gradients as unrolled."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphcError, InvalidArgumentError

X = np.array([1.0, 2.0, 3.0, 4.0], np.float32)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default() as graph:
        yield graph


def run(fetches, feeds=None):
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        return session.run(fetches, feeds)


def twice_and(a, x):
    return 2 * a + x


@pytest.mark.parametrize(
    ("function", "arguments", "options", "expected"),
    [
        (gc.foldl, (), {}, 26.0),
        (gc.foldr, (), {}, 49.0),
        (gc.foldl, (10.0,), {}, 186.0),
        (gc.foldr, (10.0,), {}, 209.0),
        (gc.scan, (), {}, [1, 4, 11, 26]),
        (gc.scan, (10.0,), {}, [21, 44, 91, 186]),
        (gc.scan, (), {"reverse": True}, [49, 24, 11, 4]),
        (gc.scan, (10.0,), {"reverse": True}, [209, 104, 51, 24]),
    ],
)
@pytest.mark.parametrize("sizes", [[4], [None], None])
def test_values_as_tensorflow(function, arguments, options, expected, sizes):
    x = gc.placeholder("float", sizes)
    if sizes is None and arguments:
        with pytest.raises(ValueError, match="has shape <unknown> after one iteration"):
            function(twice_and, x, *arguments, **options)
        return
    found = function(twice_and, x, *arguments, **options)
    np.testing.assert_array_equal(run(found, {x: X}), expected)


def test_structures_of_elements_and_results():
    x = gc.constant(X)
    both = gc.map_fn(lambda v: (v[0] * v[1], v[0]), (x, x + 1))
    assert [v.tolist() for v in run(both)] == [[2, 6, 12, 20], [1, 2, 3, 4]]
    product = gc.map_fn(lambda v: v["a"] * v["b"], {"b": x, "a": x + 1}, dtype="float32")
    assert run(product).tolist() == [2, 6, 12, 20]
    pair = gc.map_fn(lambda v: [v, gc.cast(v, "int32")], x, dtype=[gc.float32, gc.int32])
    assert type(pair) is list
    assert [v.dtype for v in run(pair)] == [np.float32, np.int32]
    named = run(gc.map_fn(lambda v: {"a": -v}, x, dtype={"a": gc.float32}))
    assert named["a"].tolist() == [-1, -2, -3, -4]
    state = gc.scan(lambda a, v: (a[0] + v, a[1] * v), x, (0.0, 1.0))
    assert [v.tolist() for v in run(state)] == [[1, 3, 6, 10], [1, 2, 6, 24]]
    dot = gc.scan(lambda a, v: a + v[0] * v[1], (x, x), 0.0)
    assert run(dot).tolist() == [1, 5, 14, 30]
    fold = gc.foldl(lambda a, v: {"s": a["s"] + v[0], "p": a["p"] * v[1]}, [x, x],
                    {"s": 0.0, "p": 1.0})  # fmt: skip
    assert run(fold) == {"s": 10.0, "p": 24.0}


def test_rows_of_matrices():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    summed = gc.scan(lambda a, v: a + v, x, np.zeros(3, np.float32))
    assert summed.shape == [2, 3]
    assert run(summed).tolist() == x.cumsum(0).tolist()
    outer = gc.map_fn(lambda v: v[:, None] * v, x)
    assert run(outer).tolist() == np.einsum("bi,bj->bij", x, x).tolist()


@pytest.mark.parametrize("sizes", [[0], [None]])
def test_no_elements(sizes):
    x = gc.placeholder("float", sizes)
    none = {x: np.zeros(0, np.float32)}
    assert run(gc.map_fn(lambda v: v * 2, x), none).tolist() == []
    assert run(gc.scan(lambda a, v: a + v, x, 0.0), none).tolist() == []
    assert run(gc.foldl(lambda a, v: a + v, x, 7.0), none) == 7
    assert run(gc.foldr(lambda a, v: a + v, x, 7.0), none) == 7
    with pytest.raises(InvalidArgumentError):
        run(gc.foldl(lambda a, v: a + v, x), none)


def test_static_shapes():
    x = gc.placeholder("float", [None, 3])
    assert gc.map_fn(lambda v: v, x).shape.as_list() == [None, 3]
    assert gc.scan(lambda a, v: a + v, x).shape.as_list() == [None, 3]
    assert gc.map_fn(lambda v: v[:2], gc.zeros([4, 3])).shape.as_list() == [4, 2]
    assert gc.foldl(lambda a, v: a + v, x).shape.as_list() == [3]


def test_default_names():
    x = gc.constant(X)
    assert gc.map_fn(lambda v: v, x).name.startswith("map/")
    assert gc.scan(lambda a, v: v, x).name.startswith("scan/")
    assert gc.foldl(lambda a, v: v, x).name.startswith("foldl/")
    assert gc.foldr(lambda a, v: v, x, name="mine").name.startswith("mine/")


def unrolled(kind, step, x, start):
    order = reversed(range(4)) if kind == "foldr" else range(4)
    a, found = start, []
    for i in order:
        a = step(a, x[i])
        found.append(a)
    return gc.stack(found) if kind == "scan" else a


@pytest.mark.parametrize("kind", ["scan", "foldl", "foldr"])
def test_gradients_as_unrolled(kind):
    x, start, w = gc.constant(X / 4), gc.constant(0.3), gc.constant(0.7)

    def step(a, v):
        return gc.tanh(a * w + v * v)

    results = [getattr(gc, kind)(step, x, start), unrolled(kind, step, x, start)]
    found = []
    for y in results:
        first = gc.gradients(gc.reduce_sum(y * y), [x, start, w])
        second = gc.gradients(gc.reduce_sum(first[0] * first[0]), [x, w])
        found.append([y, *first, *second])
    for loop, plain in zip(*run(found), strict=True):
        np.testing.assert_allclose(loop, plain, rtol=1e-5, atol=1e-6)


def test_gradients_of_map_fn():
    x, w = gc.constant(X), gc.constant([[0.5, 2.0], [1.0, -1.0]])
    y = gc.map_fn(lambda v: gc.sin(w * v), x)
    plain = gc.sin(w * gc.reshape(x, [4, 1, 1]))
    found = [gc.gradients(gc.reduce_sum(t * t), [x, w]) for t in (y, plain)]
    for loop, expected in zip(*run(found), strict=True):
        np.testing.assert_allclose(loop, expected, rtol=1e-5, atol=1e-6)


def test_no_gradients_without_back_prop():
    x = gc.constant(X)
    for y in (
        gc.map_fn(gc.square, x, back_prop=False),
        gc.scan(twice_and, x, back_prop=False),
        gc.foldl(twice_and, x, back_prop=False),
        gc.foldr(twice_and, x, back_prop=False),
    ):
        assert gc.gradients(y, x) == [None]


def test_variables_made_inside():
    def step(a, v):
        w = gc.get_variable("w", [], initializer=gc.constant_initializer(3.0))
        return a * w + v

    with gc.variable_scope("s"):
        y = gc.foldl(step, gc.constant(X))
    assert [v.name for v in gc.global_variables()] == ["s/w:0"]
    assert run(y) == ((1 * 3 + 2) * 3 + 3) * 3 + 4
    assert run(gc.gradients(y, gc.trainable_variables())) == [3 * 9 * 1 + 2 * 2 * 3 + 3]


def test_one_inside_the_other():
    table = gc.constant(np.arange(12, dtype=np.float32).reshape(3, 4))
    rows = gc.map_fn(lambda row: gc.foldl(lambda a, v: a * 2 + v, row), table)
    expected = np.arange(12).reshape(3, 4) @ [8, 4, 2, 1]
    assert run(rows).tolist() == expected.tolist()
    sums = gc.map_fn(lambda row: gc.scan(lambda a, v: a + v, row), table)
    assert run(sums).tolist() == np.arange(12).reshape(3, 4).cumsum(1).tolist()


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda x: gc.map_fn(3, x), TypeError, "fn must be callable"),
        (lambda x: gc.scan(3, x), TypeError, "fn must be callable"),
        (lambda x: gc.foldl(3, x), TypeError, "fn must be callable"),
        (lambda x: gc.foldr(3, x), TypeError, "fn must be callable"),
        (lambda x: gc.map_fn(lambda v: v, 1.0), ValueError, "Tensor, not a scalar"),
        (lambda x: gc.map_fn(lambda v: v, (1.0, x)), ValueError, "Tensors, not scalars"),
        (lambda x: gc.scan(lambda a, v: a, 1.0), ValueError, "not a scalar"),
        (lambda x: gc.map_fn(lambda v: (v, v), x), ValueError, "same nested structure"),
        (lambda x: gc.map_fn(lambda v: [*v], (x, x)), TypeError, "same nested structure"),
        (lambda x: gc.map_fn(lambda v: v[0], (x, x)), ValueError, "same nested structure"),
        (lambda x: gc.map_fn(lambda v: v, (x, gc.ones([5]))), ValueError, "4 and 5"),
        (lambda x: gc.map_fn(lambda v: gc.cast(v, "int32"), x), TypeError, "int32"),
        (lambda x: gc.scan(lambda a, v: gc.stack([a, v]), x), ValueError, r"saw \(2,\)"),
        (lambda x: gc.scan(lambda a, v: (a, v), x), ValueError, "same nested structure"),
        (lambda x: gc.foldl(lambda a, v: (a, v), x), ValueError, "same nested structure"),
        (lambda x: gc.foldl(lambda a, v: gc.stack([a, v]), x), ValueError, "after one iteration"),
    ],
)  # fmt: skip
def test_errors(call, kind, text):
    with pytest.raises(kind, match=text) as caught:
        call(gc.constant(X))
    assert isinstance(caught.value, GraphcError)


SIGNATURES = {
    "map_fn": "fn elems dtype=None parallel_iterations=None back_prop=True swap_memory=False "
    "infer_shape=True name=None",
    "scan": "fn elems initializer=None parallel_iterations=10 back_prop=True swap_memory=False "
    "infer_shape=True reverse=False name=None",
    "foldl": "fn elems initializer=None parallel_iterations=10 back_prop=True swap_memory=False "
    "name=None",
    "foldr": "fn elems initializer=None parallel_iterations=10 back_prop=True swap_memory=False "
    "name=None",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_as_tensorflow(name):
    found = [
        p.name if p.default is p.empty else f"{p.name}={p.default}"
        for p in inspect.signature(getattr(gc, name)).parameters.values()
    ]
    assert " ".join(found) == SIGNATURES[name]
