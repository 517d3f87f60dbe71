"""TensorArray: written, read, put together and taken apart, inside loops and outside."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

CASES = {}


def case(fn):
    CASES[fn.__name__] = fn
    return fn


@pytest.mark.parametrize("name", CASES)
def test_values(name, everywhere):
    fetches, expected, *feeds = CASES[name]()
    everywhere(fetches, *feeds, expected=expected)


def loop(n, step, *start):
    found = gc.while_loop(
        lambda i, *_: i < n, lambda i, *v: (i + 1, *step(i, *v)), [0, *start]
    )
    return found[1:]


def array(size, **options):
    return gc.TensorArray(gc.float32, size=size, **options)


def real(i):
    return gc.cast(i, gc.float32)


# --- outside loops --------------------------------------------------------------------------------


@case
def writes_give_new_arrays():
    a = array(3, element_shape=[2]).write(0, [1.0, 2.0])
    b = a.write(1, [3.0, 4.0])
    rows = [[1, 2], [0, 0], [0, 0]]
    return [a.stack(), b.stack(), a.stack()], [rows, [[1, 2], [3, 4], [0, 0]], rows]


@case
def elements_never_written_are_zeros():
    a = array(3).write(1, 5.0)
    return [a.stack(), a.read(0), a.size()], [[0, 5, 0], 0, 3]


@case
def rows_of_a_tensor():
    x = gc.placeholder(gc.float32, [None, 2])
    a = array(gc.shape(x)[0]).unstack(x)
    fetches = [a.stack(), a.concat(), a.gather([2, 0]), a.read(1), a.size()]
    data = np.arange(6.0).reshape(3, 2)
    return fetches, [data, data.ravel(), data[[2, 0]], data[1], 3], {x: data}


@case
def fewer_rows_than_the_size():
    a = array(4).unstack([1.0, 2.0])
    return [a.stack(), a.size(), a.read(3)], [[1, 2, 0, 0], 4, 0]


@case
def fewer_rows_than_a_size_that_is_fed():
    x, n = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.int32, [])
    a, b = array(n).unstack(x), array(5).unstack(x)
    c = array(2, dynamic_size=True).unstack(x[:1])
    d = array(2, dynamic_size=True).unstack(x)
    fetches = [a.stack(), a.size(), a.write(3, 7.0).stack(), b.stack(), c.stack(), d.size()]
    fetches += gc.gradients(gc.reduce_sum(gc.square(a.stack())), x)
    expected = [[1, 2, 3, 0], 4, [1, 2, 3, 7], [1, 2, 3, 0, 0], [1, 0], 3, [2, 4, 6]]
    return fetches, expected, {x: [1, 2, 3], n: 4}


@case
def scattered_rows():
    places = gc.placeholder(gc.int32, [None])
    rows = [[1.0], [2.0]]
    a = array(4, element_shape=[1]).write(1, [9.0]).scatter(places, rows)
    b = array(4).scatter(places, rows)
    return [a.stack(), b.stack()], [[[0], [9], [2], [1]], [[0], [0], [2], [1]]], {places: [3, 2]}


@case
def scattering_makes_an_array_longer():
    a = array(0, dynamic_size=True).scatter([3, 2], [[1.0], [2.0]])
    b = a.scatter([0, 5], [[5.0], [6.0]])
    return [a.stack(), b.stack(), b.size()], [
        [[0], [0], [2], [1]], [[5], [0], [2], [1], [0], [6]], 6,
    ]  # fmt: skip


@case
def parts_of_one_length():
    a = array(3).split([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 2, 2])
    return [a.stack(), a.read(1), a.concat()], [[[1, 2], [3, 4], [5, 6]], [3, 4], np.arange(1.0, 7)]


@case
def parts_of_a_length_that_is_fed():
    x, lengths = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.int32, [None])
    a = array(gc.size(lengths)).split(x, lengths)
    feeds = {x: np.arange(6.0), lengths: [2, 2, 2]}
    return [a.read(1), a.concat()], [[2, 3], np.arange(6.0)], feeds


@case
def other_dtypes_and_wide_indices():
    a = gc.TensorArray(gc.int64, size=3, element_shape=[])
    for i in range(3):
        a = a.write(gc.constant(i, gc.int64), gc.constant(i * i, gc.int64))
    return [a.stack(), a.read(gc.constant(2, gc.int64))], [[0, 1, 4], 4]


@case
def an_empty_array_of_known_elements():
    a = array(0, dynamic_size=True, element_shape=[2])
    return [a.stack(), a.size()], [np.zeros((0, 2)), 0]


@case
def growing_outside_a_loop():
    a = array(0, dynamic_size=True).write(0, [1.0]).write(3, [4.0])
    return [a.stack(), a.size()], [[[1], [0], [0], [4]], 4]


# --- in loops -------------------------------------------------------------------------------------


@case
def one_write_a_turn():
    a = loop(5, lambda i, a: (a.write(i, real(i) * 2),), array(5))[0]
    return [a.stack(), a.size(), a.read(2), a.gather([0, 3])], [[0, 2, 4, 6, 8], 5, 4, [0, 6]]


@case
def running_sums():
    x = gc.placeholder(gc.float32, [None, 2])
    a = array(gc.shape(x)[0]).unstack(x)

    def step(i, out, s):
        s = s + a.read(i)
        return out.write(i, s), s

    out, last = loop(a.size(), step, array(a.size()), gc.zeros([2]))
    sums = [[0, 1], [2, 4], [6, 9]]
    return [out.stack(), last], [sums, [6, 9]], {x: np.arange(6.0).reshape(3, 2)}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("turns", [0, 1, 4])
def test_an_array_grows_in_a_loop(known, turns, everywhere):
    n = gc.placeholder(gc.int32, [])
    a = array(0, dynamic_size=True, **({"element_shape": [2]} if known else {}))
    a = loop(n, lambda i, a: (a.write(i, [1.0, real(i)]),), a)[0]
    rows = np.array([[1, i] for i in range(turns)], np.float32).reshape(-1, 2)
    everywhere([a.stack(), a.size()], {n: turns}, [rows, turns])


@case
def an_array_that_grows_in_some_turns():
    def step(i, k, a):
        return gc.cond(gc.equal(i % 2, 0), lambda: (k + 1, a.write(k, real(i))), lambda: (k, a))

    k, a = loop(7, step, 0, array(0, dynamic_size=True, element_shape=[]))
    return [k, a.stack()], [4, [0, 2, 4, 6]]


@case
def through_a_loop_in_a_loop():
    def outer(i, a):
        return loop(3, lambda j, a: (a.write(i * 3 + j, real(i * 10 + j)),), a)

    return loop(2, outer, array(6))[0].stack(), [[0, 1, 2, 10, 11, 12]]


@case
def an_array_of_the_turn():
    def step(i, s):
        inner = loop(i, lambda j, a: (a.write(j, real(i + j)),), array(i, element_shape=[]))[0]
        return (s + gc.reduce_sum(inner.stack()),)

    return loop(4, step, 0.0), [sum(i + j for i in range(4) for j in range(i))]


@case
def captured_and_only_read():
    a = array(3).unstack([1.0, 2.0, 3.0])
    return loop(3, lambda i, s: (s * 10 + a.read(i),), 0.0), [123]


@case
def read_before_and_after_the_write():
    def step(i, a, s):
        b = a.write(i, a.read(i) * 2)
        return b, s + a.read(i) + b.read(i)

    a, s = loop(3, step, array(3).unstack([1.0, 2.0, 3.0]), 0.0)
    return [a.stack(), s], [[2, 4, 6], 18]


@case
def rows_that_read_other_rows():
    def step(i, a):
        return (a.write((i + 1) % 3, a.read(i % 3) + a.read((i + 1) % 3)),)

    x = [1.0, 2.0, 3.0]
    a = loop(7, step, array(3).unstack(x))[0]
    for i in range(7):
        x[(i + 1) % 3] += x[i % 3]
    return a.stack(), [x]


@case
def two_arrays_that_change_places():
    def step(i, a, b):
        return b, a.write(0, a.read(0) + 10)

    a, b = loop(3, step, array(2).unstack([1.0, 2.0]), array(2).unstack([3.0, 4.0]))
    return [a.stack(), b.stack()], [[13, 4], [21, 2]]


@case
def the_array_before_the_loop_is_kept():
    a = array(2).unstack([1.0, 2.0])
    b = loop(2, lambda i, a: (a.write(i, 0.0),), a)[0]
    return [a.stack(), b.stack(), a.read(1)], [[1, 2], [0, 0], 2]


@case
def chosen_by_a_branch():
    a = array(2, element_shape=[])
    yes = gc.placeholder(gc.bool, [])
    b = gc.cond(yes, lambda: a.write(0, 1.0), lambda: a.write(1, 2.0))
    return b.stack(), [[0, 2]], {yes: False}


@case
def an_array_that_comes_out_with_another_size():
    def step(i, a, x):
        x = gc.concat([x, x], 0)
        return array(0, dynamic_size=True, element_shape=[]).unstack(x), x

    start = gc.constant([1.0])
    found = gc.while_loop(
        lambda i, *_: i < 3, lambda i, a, x: (i + 1, *step(i, a, x)),
        [0, array(0, dynamic_size=True, element_shape=[]).unstack(start), start],
        shape_invariants=[gc.TensorShape([]), None, gc.TensorShape([None])],
    )  # fmt: skip
    return found[1].stack(), [np.ones(8)]


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
def test_parts_of_other_lengths_that_are_fed(mode):
    """The elements have one shape: there is no part that is not as long as was asked."""
    x, lengths = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.int32, [None])
    part = array(gc.size(lengths)).split(x, lengths).read(0)
    with pytest.raises(gc.errors.InvalidArgumentError, match="6 values, but the requested shape"):
        gc.Session(mode=mode).run(part, {x: np.arange(6.0), lengths: [2, 1, 3]})


# --- what is known and what is refused ------------------------------------------------------------


def test_shapes_are_those_of_tensorflow():
    a = array(3, element_shape=[2, None])
    shapes = [t.shape.as_list() for t in (a.stack(), a.read(0), a.concat(), a.gather([0]))]
    assert shapes == [[None, 2, None], [2, None], [None, None], [None, 2, None]]
    b = array(3)
    assert b.element_shape.ndims is None
    assert b.write(0, [1.0, 2.0]).element_shape.as_list() == [2]
    assert b.stack().shape.ndims is None
    out = loop(3, lambda i, a: (a.write(i, [1.0, 2.0]),), array(3))[0]
    assert out.element_shape.as_list() == [2]
    assert a.read(0).name == "TensorArrayReadV3_1:0"
    assert a.stack(name="all").name == "all/TensorArrayGatherV3:0"


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: gc.TensorArray(gc.float32), ValueError, "Size must be provided"),
        (lambda: array(2, flow=gc.zeros([2])), ValueError, "both a flow and a size"),
        (lambda: array(2).write(0, gc.constant(1)), TypeError, "trying to write dtype int32"),
        (lambda: array(2).read(1.5), TypeError, "index .* must be an integer"),
        (
            lambda: array(2).write(0, [1.0]).write(1, [1.0, 2.0]), ValueError,
            r"Inconsistent shapes: saw \(2,\) but expected \(1,\)",
        ),
        (
            lambda: array(3, element_shape=[2]).unstack([1.0, 2.0, 3.0]), ValueError,
            r"Inconsistent shapes: saw \(\) but expected \(2,\)",
        ),
        (
            lambda: array(2).unstack([1.0, 2.0, 3.0]), ValueError,
            r"Max scatter index must be < array size \(2 vs. 2\)",
        ),
        (lambda: array(2).unstack(1.0), ValueError, "a scalar has no rows"),
        (lambda: array(2).split([1.0, 2.0, 3.0], [1, 2]), ValueError, "have one shape"),
    ],
)  # fmt: skip
def test_refused_while_declaring(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
@pytest.mark.parametrize(
    "make",
    [
        lambda k: array(3).write(0, 1.0).read(k),
        lambda k: array(3).write(k, 1.0).stack(),
        lambda k: array(3).scatter(gc.stack([0, k]), [1.0, 2.0]).stack(),
        lambda k: array(3).unstack([1.0, 2.0, 3.0]).gather([k]),
        lambda k: loop(3, lambda i, a: (a.write(i + k, 1.0),), array(3))[0].stack(),
        lambda k: loop(3, lambda i, s: (s + array(3).write(0, 1.0).read(i + k),), 0.0)[0],
    ],
)
def test_an_index_out_of_range_fails_the_run(make, mode):
    k = gc.placeholder(gc.int32, [])
    fetch = make(k)
    with gc.Session(mode=mode) as session:
        for bad in (3, -1, 1000):
            with pytest.raises(gc.errors.InvalidArgumentError) as e:
                session.run(fetch, {k: bad})
            assert str(bad) in str(e.value)
            assert __file__ in str(e.value)
        if "scatter" not in e.value.op.name.lower():
            session.run(fetch, {k: 0})


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
@pytest.mark.parametrize("wrong", [2, 4])
def test_parts_of_another_number_than_the_array_has_elements(mode, wrong):
    x, n = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.int32, [])
    fetch = array(n).split(x, [1, 1, 1]).stack()
    with gc.Session(mode=mode) as session:
        assert session.run(fetch, {x: [1, 2, 3], n: 3}).tolist() == [[1], [2], [3]]
        with pytest.raises(gc.errors.InvalidArgumentError, match=__file__):
            session.run(fetch, {x: [1, 2, 3], n: wrong})


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
def test_more_rows_than_the_array_has_elements(mode):
    x, n = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.int32, [])
    fetch = array(n).unstack(x).stack()
    with gc.Session(mode=mode) as session:
        assert session.run(fetch, {x: [1, 2, 3], n: 4}).tolist() == [1, 2, 3, 0]
        with pytest.raises(gc.errors.InvalidArgumentError, match=__file__):
            session.run(fetch, {x: [1, 2, 3], n: 2})


def test_an_array_that_nothing_was_written_to_has_no_shape_to_stack():
    with gc.Graph().as_default():
        stacked = gc.TensorArray(gc.float32, size=3).stack()
        for mode in ("static", "eager", "reference"):
            expected = pytest.raises(
                gc.errors.InvalidArgumentError, match="before anything is written"
            )
            with gc.Session(mode=mode) as session, expected:
                session.run(stacked)
