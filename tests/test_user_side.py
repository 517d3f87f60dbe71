"""What TensorFlow 1 scripts do and TensorFlow 1.15.5 answers, beyond the samples of the ops."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
import graphc.linalg
import graphc.math
import graphc.random


@pytest.fixture(autouse=True)
def session():
    with gc.Graph().as_default(), gc.Session() as s:
        yield s


@pytest.mark.parametrize("shape", [[0], [2, 0], [0, 3], [2, 0, 1]])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "string"])
def test_zeros_and_ones_without_elements(shape, dtype):
    for made in (gc.zeros(shape, dtype), gc.ones(shape, dtype) if dtype != "string" else None):
        if made is not None:
            assert made.shape.as_list() == shape
            assert made.dtype == dtype
    if dtype != "string":
        assert made.eval().shape == tuple(shape)


def test_python_bools_are_numbers_where_numbers_are_asked_for(session):
    x = gc.constant([1.0, 2.0])
    one, both = gc.constant(True, "int32"), gc.constant([True, False], "float32")
    values = session.run([one, both, x * True])
    np.testing.assert_array_equal(values[0], 1)
    np.testing.assert_array_equal(values[1], [1, 0])
    np.testing.assert_array_equal(values[2], [1, 2])
    with pytest.raises(TypeError, match="Expected bool"):
        gc.constant(1, "bool")


# --- sizes that the values of a vector of unknown length say --------------------------------------


@pytest.fixture(params=[[None], None], ids=["vector", "unknown rank"])
def v(request):
    return gc.placeholder("int32", request.param)


def test_split_by_fed_sizes(session, v):
    parts = gc.split(gc.range(5), v, num=2)
    for fed, expected in (([2, 3], [2, 3]), ([1, 4], [1, 4]), ([-1, 3], [2, 3]), ([5, 0], [5, 0])):
        assert [len(p) for p in session.run(parts, {v: fed})] == expected
    message = r"values in operand|must be equal"
    for wrong in ([2], [1, 2, 2]):
        with pytest.raises(gc.errors.InvalidArgumentError, match=message):
            session.run(parts, {v: wrong})


def test_parts_of_a_negative_size_are_refused(session, v):
    with pytest.raises(gc.errors.InvalidArgumentError, match="size_splits must be >= -1"):
        session.run(gc.split(gc.range(3), v, num=2), {v: [-2, 5]})


def test_a_negative_size_is_refused_by_broadcast_to(session, v):
    with pytest.raises(gc.errors.InvalidArgumentError, match="must be >= 0"):
        session.run(gc.broadcast_to([1.0], v), {v: [-1, 1]})


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 6])
def test_reshape_to_a_fed_shape_takes_one_program_for_all_ranks_and_sizes(session, rank):
    x, shape = gc.placeholder("float32"), gc.placeholder("int32", [rank])
    out = gc.reshape(x, shape) + 1.0
    ones = [1] * (rank - 1)
    for wanted in ([6, *ones], [*ones, 8], [-1, *ones]):
        value = np.arange(8.0 if 8 in wanted else 6.0)
        found = session.run(out, {x: value, shape: wanted})
        np.testing.assert_array_equal(found, value.reshape(wanted) + 1)
    compiled = session._runner.compilations
    session.run(out, {x: np.arange(10.0), shape: [10, *ones]})
    assert session._runner.compilations == compiled
    with pytest.raises(gc.errors.InvalidArgumentError, match="Input to reshape"):
        session.run(out, {x: np.arange(10.0), shape: [7, *ones]})


@pytest.mark.parametrize("where", [lambda x, i: x[i], lambda x, i: x[i:], lambda x, i: x[::1, i]])
def test_an_index_of_unknown_rank_is_a_number(session, where):
    x, i = gc.placeholder("float32", [None, None]), gc.placeholder("int32")
    value = np.arange(6.0).reshape(2, 3)
    assert where(x, i).shape.ndims == where(value, 1).ndim
    for fed in (0, 1, -1):
        found = session.run(where(x, i), {x: value, i: fed})
        np.testing.assert_array_equal(found, where(value, fed))
    with pytest.raises(TypeError, match="valid indices"):
        where(x, gc.placeholder("int32", [None]))


def test_gather_nd_by_indices_of_unknown_shape(session):
    x, i = gc.placeholder("float32", [None, None]), gc.placeholder("int32")
    value = np.arange(6.0).reshape(2, 3)
    out = gc.gather_nd(x, i)
    for rows in ([[1, 2], [0, 0]], [[1]], [[[0, 1]]]):
        expected = value[tuple(np.moveaxis(np.array(rows), -1, 0))]
        np.testing.assert_array_equal(session.run(out, {x: value, i: rows}), expected)


def test_reshape_to_a_computed_size(session, v):
    out = gc.reshape(gc.range(6), [gc.reduce_prod(v)])
    np.testing.assert_array_equal(session.run(out, {v: [2, 3]}), np.arange(6))


def test_sequence_mask(session, v):
    out = gc.sequence_mask(v)
    assert out.dtype == gc.bool
    np.testing.assert_array_equal(session.run(out, {v: [2, 0]}), [[True, True], [False, False]])


def test_a_slice_of_unknown_rank_has_the_sizes_asked_for(session):
    x = gc.placeholder("float32")
    assert gc.slice(x, [0, 1], [2, 2]).shape.as_list() == [2, 2]
    assert gc.slice(x, [0, 1], [2, -1]).shape.ndims == 2


# --- broadcasting against sizes that may be 1 -----------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2])
def test_gradients_do_not_claim_the_size_of_what_their_operand_is_broadcast_to(session, rows):
    x = gc.placeholder("float32", [None, 3])
    y = x + gc.constant([[1.0], [2.0]])
    (grad,) = gc.gradients(y, x)
    assert grad.shape.as_list() == [None, 3]
    (second,) = gc.gradients(gc.gradients(y * y * y, x)[0], x)
    assert second.shape.as_list() == [None, 3]
    value, other = session.run([grad, second], {x: np.ones((rows, 3))})
    np.testing.assert_array_equal(value, np.full((rows, 3), 2 // rows))
    np.testing.assert_array_equal(other, 6 * np.broadcast_to(
        [[5.0]] if rows == 1 else [[2.0], [3.0]], (rows, 3)
    ))  # fmt: skip


# --- a run that fails commits nothing -------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "good", "bad"),
    [
        (lambda x, i: x[i], 1, 4),
        (lambda x, i: gc.slice(x, [i], [2]), 1, 3),
        (lambda x, i: gc.pad(x, [[i, 0]], "REFLECT"), 2, 4),
        (gc.gather, 1, 4),
        (lambda x, i: gc.cast(12 // i, "float32"), 1, 0),
        (lambda x, i: gc.cast(2**i, "float32"), 1, -1),
    ],
    ids=["index", "slice", "mirror pad", "gather", "division", "power"],
)
def test_what_can_fail_does_so_before_any_variable_changes(session, make, good, bad):
    x = gc.placeholder("float32", [None])
    i = gc.placeholder("int32", [])
    w = gc.Variable(np.zeros(1000, np.float32))
    value = make(x, i)
    update = w.assign_add(gc.ones([1000]))
    session.run(w.initializer)
    feeds = {x: np.arange(4.0), i: good}
    session.run([update, value], feeds)
    with pytest.raises(gc.errors.OpError):
        session.run([update.op, value], {**feeds, i: bad})
    np.testing.assert_array_equal(session.run(w), np.ones(1000))


@pytest.mark.parametrize(("mode", "most"), [("REFLECT", 3), ("SYMMETRIC", 4)])
def test_fed_paddings_are_no_longer_than_the_mirror(session, mode, most):
    x, p = gc.placeholder("float32", [None]), gc.placeholder("int32", [1, 2])
    out = gc.pad(x, p, mode)
    value = np.arange(4.0)
    for good in ((most, most), (0, most), (most, 0), (0, 0)):
        expected = np.pad(value, good, mode.lower())
        np.testing.assert_array_equal(session.run(out, {x: value, p: [good]}), expected)
    for bad in ((most + 1, 0), (0, most + 1), (most + 5, 1)):
        with pytest.raises(gc.errors.InvalidArgumentError, match="paddings must be"):
            session.run(out, {x: value, p: [bad]})


# --- names ----------------------------------------------------------------------------------------


def test_modules_of_names():
    assert graphc.math.reduce_std is gc.reduce_std
    assert graphc.math.divide_no_nan is gc.div_no_nan
    assert graphc.random.normal is gc.random_normal
    assert graphc.linalg.norm is gc.norm
    for module in (graphc.math, graphc.random, graphc.linalg):
        assert sorted(module.__all__) == module.__all__
        assert all(hasattr(module, name) for name in module.__all__)


def test_floor_div_is_named_after_its_op():
    assert gc.floor_div(7, 2).op.name == "FloorDiv"
    with gc.Graph().as_default():
        assert gc.floordiv(7, 2).op.name == "floordiv"


def test_matrix_transpose(session):
    x = np.arange(24.0).reshape(2, 3, 4).astype(np.float32)
    known, unknown = gc.placeholder("float32", [None, 3, 4]), gc.placeholder("float32")
    out = graphc.linalg.matrix_transpose(known)
    assert out.name == "matrix_transpose/transpose:0"
    assert out.shape.as_list() == [None, 4, 3]
    for p, t in ((known, out), (unknown, graphc.linalg.matrix_transpose(unknown))):
        np.testing.assert_array_equal(session.run(t, {p: x}), np.swapaxes(x, 1, 2))
    with pytest.raises(ValueError, match="rank >= 2"):
        graphc.linalg.matrix_transpose([1.0])


def test_shapes_of_at_least_and_at_most_a_rank():
    shape = gc.TensorShape([None, 3])
    assert shape.with_rank_at_least(1) == shape
    assert shape.with_rank_at_most(2).as_list() == [None, 3]
    assert gc.TensorShape(None).with_rank_at_least(3).ndims is None
    with pytest.raises(ValueError, match="must have rank at least 3"):
        shape.with_rank_at_least(3)
    with pytest.raises(ValueError, match="must have rank at most 1"):
        shape.with_rank_at_most(1)
