"""Feeds: every kind of value, every kind of tensor, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc import errors
from graphc.graph import Graph

MODES = ("static", "eager", "reference")


@pytest.fixture(autouse=True)
def graph():
    with Graph().as_default() as g:
        yield g


@pytest.fixture(params=MODES)
def session(request):
    with gc.Session(mode=request.param) as s:
        yield s


def misaligned(values: np.ndarray) -> np.ndarray:
    raw = np.zeros(values.nbytes + 1, np.uint8)[1:]
    array = raw.view(values.dtype).reshape(values.shape)
    array[...] = values
    assert not array.flags.aligned
    return array


def read_only(values: np.ndarray) -> np.ndarray:
    array = values.copy()
    array.flags.writeable = False
    return array


class Convertible:
    def __array__(self, dtype=None, copy=None):
        return np.arange(6, dtype=dtype or "f4").reshape(2, 3)


VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
LAYOUTS = {
    "array": VALUES,
    "list": VALUES.tolist(),
    "tuple": tuple(map(tuple, VALUES.tolist())),
    "rows": list(VALUES),
    "ints": VALUES.astype(np.int64),
    "doubles": VALUES.astype(np.float64),
    "halves": VALUES.astype(np.float16),
    "fortran": np.asfortranarray(VALUES),
    "swapped": VALUES.astype(">f4"),
    "strided": np.repeat(VALUES, 2, 1)[:, ::2],
    "reversed": VALUES[::-1, ::-1].copy()[::-1, ::-1],
    "broadcast": np.broadcast_to(VALUES, (2, 3)),
    "read only": read_only(VALUES),
    "misaligned": misaligned(VALUES),
    "memoryview": memoryview(VALUES),
    "convertible": Convertible(),
    "matrix": np.ma.array(VALUES),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 3), (None, 3), (None, None), None], ids=str)
def test_any_layout_gives_the_same(session, layout, shape):
    x = gc.placeholder(gc.float32, shape)
    y = x * 2.0 + 1.0
    for _ in range(2):
        np.testing.assert_array_equal(session.run(y, {x: VALUES}), VALUES * 2 + 1)
        np.testing.assert_array_equal(session.run(y, {x: LAYOUTS[layout]}), VALUES * 2 + 1)


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("float32", 3, np.float32(3)),
        ("float32", np.float64(0.1), np.float32(0.1)),
        ("float32", True, np.float32(1)),
        ("float64", 0.1, np.float64(0.1)),
        ("float16", 0.1, np.float16(0.1)),
        ("int32", 7, np.int32(7)),
        ("int32", 7.9, np.int32(7)),
        ("int64", 2**40, np.int64(2**40)),
        ("uint8", 255, np.uint8(255)),
        ("bool", 1, np.bool_(True)),
        ("bool", 0.0, np.bool_(False)),
    ],
)
def test_scalars(session, dtype, value, expected):
    x = gc.placeholder(dtype, [])
    found = session.run(gc.identity(x), {x: value})
    assert type(found) is type(expected)
    assert found == expected


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (0, 0)])
def test_empty_arrays(session, shape):
    x = gc.placeholder(gc.float32, [None] * len(shape))
    fetches = [x * 2.0, gc.reduce_sum(x), gc.reduce_max(x), gc.concat([x, x], 0), gc.shape(x)]
    doubled, total, largest, joined, found = session.run(fetches, {x: np.zeros(shape)})
    assert doubled.shape == shape
    assert (total, largest) == (0.0, -np.inf)
    assert joined.shape == (2 * shape[0], *shape[1:])
    assert tuple(found) == shape


def test_a_placeholder_of_unknown_rank(session):
    x = gc.placeholder(gc.float32)
    total = gc.reduce_sum(x)
    y = x + x
    for _ in range(2):
        for shape in ((), (3,), (2, 3), (4, 3), (1, 2, 3)):
            value = np.ones(shape, np.float32)
            a, b = session.run([total, y], {x: value})
            assert a == value.size
            assert b.shape == shape


def test_intermediate_tensors_and_constants_can_be_fed(session):
    x = gc.placeholder(gc.float32)
    c = gc.constant(2.0)
    y = x * c
    z = y + 1.0
    assert session.run(z, {y: 10.0}) == 11.0
    assert session.run([y, z], {y: 10.0}) == [10.0, 11.0]
    assert session.run(z, {x: 1.0, c: 5.0}) == 6.0
    assert session.run([x, c, y, z], {x: 1.0, c: 5.0, z: 0.0}) == [1.0, 5.0, 5.0, 0.0]


def test_a_fed_tensor_cuts_off_what_it_depends_on(session):
    bad = gc.gather(gc.constant([1.0]), gc.constant(7))
    v = gc.Variable(1.0)
    y = bad + v
    assert session.run(y + 1.0, {y: 1.0}) == 2.0
    assert session.run(gc.identity(bad), {bad: 3.0}) == 3.0


def test_one_output_of_an_operation_is_fed(session):
    a, b, c = gc.split(gc.constant([1.0, 2.0, 3.0]), 3)
    assert [float(t[0]) for t in session.run([a, b, c], {b: [9.0]})] == [1.0, 9.0, 3.0]


def test_variables_can_be_fed(session):
    v = gc.Variable(1.0)
    y = v * 2.0
    assert session.run(y, {v: 21.0}) == 42.0
    assert session.run([v, y, v.read_value()], {v: 4.0}) == [4.0, 8.0, 4.0]
    session.run(v.initializer)
    assert session.run([v, y], {v: 4.0}) == [4.0, 8.0]
    assert session.run([v, y]) == [1.0, 2.0]
    assert session.run(y, {v.value(): 3.0}) == 6.0
    with pytest.raises(errors.InvalidArgumentError, match="expected float32_ref"):
        session.run(v.assign_add(1.0), {v: 4.0})
    assert session.run(v) == 1.0


def test_a_placeholder_with_a_default(session):
    for shape, value in (([2], [1.0, 2.0]), ([None], [1.0, 2.0]), (None, 3.0), ([], 3.0)):
        x = gc.placeholder_with_default(value, shape)
        y = x * 2.0
        np.testing.assert_array_equal(session.run(y), np.float32(value) * 2)
        np.testing.assert_array_equal(session.run(x), np.float32(value))
        other = np.ones(np.shape(value), np.float32) * 7
        np.testing.assert_array_equal(session.run(y, {x: other}), other * 2)
    x = gc.placeholder_with_default(gc.Variable([1.0, 2.0]), [None])
    session.run(gc.global_variables_initializer())
    assert session.run(gc.reduce_sum(x)) == 3.0
    assert session.run(gc.reduce_sum(x), {x: [1.0, 1.0, 5.0]}) == 7.0


def test_tuples_of_tensors_as_keys(session):
    x, y = gc.placeholder(gc.float32), gc.placeholder(gc.float32)
    assert session.run(x - y, {(x, y): (5.0, 2.0)}) == 3.0
    with pytest.raises(ValueError, match="needs a value for each"):
        session.run(x - y, {(x, y): (5.0,)})


@pytest.mark.parametrize(
    ("dtype", "shape", "value", "error", "message"),
    [
        ("float32", [None, 3], np.zeros((2, 4)), ValueError, r"feed value of shape \(2, 4\)"),
        ("float32", [2], np.zeros(3), ValueError, "which has shape '\\(2,\\)'"),
        ("float32", [], [1.0], ValueError, "Cannot feed value of shape"),
        ("float32", None, "abc", ValueError, "could not convert string to float"),
        ("float32", None, object(), TypeError, "float"),
        ("float32", None, None, TypeError, "cannot be None"),
        ("float32", None, {"a": 1}, TypeError, "dict"),
        ("float32", None, [[1.0], [1.0, 2.0]], ValueError, "setting an array element"),
        ("int8", [], 300, TypeError, "not compatible with"),
        ("uint8", [], -1, TypeError, "not compatible with"),
        ("int8", [None], [300], ValueError, "300 out of bounds"),
    ],
)
def test_what_cannot_be_fed(session, dtype, shape, value, error, message):
    x = gc.placeholder(dtype, shape, name="x")
    with pytest.raises(error, match=message) as caught:
        session.run(gc.identity(x), {x: value})
    assert isinstance(caught.value, errors.GraphcError)
    if error is ValueError:
        assert "'x:0'" in str(caught.value)
        assert f"{__file__}:" in str(caught.value)


def test_tensors_are_no_values(session):
    x = gc.placeholder(gc.float32)
    for value in (gc.constant(1.0), gc.Variable(1.0)):
        with pytest.raises(TypeError, match=r"cannot be a tf\.Tensor object"):
            session.run(x + 1.0, {x: value})


@pytest.mark.parametrize("key", [1, "nothing:0", "x", None, 1.5])
def test_what_is_no_key(session, key):
    gc.placeholder(gc.float32, name="x")
    with pytest.raises(TypeError, match="Cannot interpret feed_dict key as Tensor"):
        session.run(gc.constant(1.0), {key: 1.0})


def test_a_feed_dict_must_be_a_dict(session):
    with pytest.raises(TypeError, match="feed_dict must be a dict"):
        session.run(gc.constant(1.0), [1])


def test_feeds_are_not_changed_and_not_kept(session):
    x = gc.placeholder(gc.float32, [None])
    v = gc.Variable(np.zeros(4, np.float32))
    session.run(v.initializer)
    data = np.arange(4, dtype=np.float32)
    assign = v.assign(x)
    session.run(assign, {x: data})
    data[:] = 9
    assert session.run(v).tolist() == [0.0, 1.0, 2.0, 3.0]
    found = session.run(gc.identity(x), {x: data})
    found[:] = 1
    assert data.tolist() == [9.0] * 4


def test_strings(session):
    x = gc.placeholder(gc.string, [None])
    y = gc.placeholder(gc.float32)
    c = gc.constant(["a", "b"])
    names, constant, doubled = session.run([x, c, y * 2.0], {x: ["p", "q"], y: 2.0})
    assert names.tolist() == ["p", "q"]
    assert constant.tolist() == [b"a", b"b"]
    assert doubled == 4.0
    assert session.run(gc.identity(c)).tolist() == [b"a", b"b"]
    with pytest.raises(errors.InvalidArgumentError, match="You must feed"):
        session.run(gc.identity(x))
