"""Lookups and their gradients: what is fused with them, the order of sums, and what fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pass_support import program_of

import graphc as gc
from graphc import nn
from graphc.passes.plan import format_plan

RNG = np.random.default_rng(5)
ROWS, COLUMNS = 300, 24
NUMBERS = RNG.integers(0, ROWS, (40, 9)).astype(np.int32)
TABLE = RNG.normal(size=(ROWS, COLUMNS)).astype(np.float32)
BAD = np.where(NUMBERS[7, 3] == NUMBERS, ROWS, NUMBERS)


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default() as made:
        yield made


def numbers() -> Any:
    return gc.placeholder(gc.int32, [None, 9], name="numbers")


def table() -> gc.Variable:
    return gc.Variable(TABLE, name="table")


def bags() -> Any:
    return gc.reduce_mean(nn.embedding_lookup(table(), numbers()), 1)


def placed() -> Any:
    return nn.embedding_lookup(table(), numbers()) * 8.0 + np.ones((9, COLUMNS), np.float32)


def trained_bags() -> Any:
    weights = table()
    found = gc.reduce_mean(nn.embedding_lookup(weights, numbers()), 1)
    return gc.gradients(gc.reduce_sum(found * found), [weights])[0]


def twice() -> Any:
    rows = nn.embedding_lookup(table(), numbers())
    return [gc.reduce_max(rows, 1), gc.reduce_min(rows, 2)]


@pytest.mark.parametrize(
    ("build", "kernels", "temporaries"),
    [(bags, 1, 0), (placed, 1, 0), (trained_bags, 2, 1), (twice, 2, 1)],
)
def test_kernels_and_what_they_store(build, kernels, temporaries):
    """Rows that are summed up, or go into one sum, are not stored; the sums' gradients neither."""
    program = program_of(build)
    found = len(program.kernels), sum(s.kind == "temp" for s in program.slots)
    assert found == (kernels, temporaries), format_plan(program.plan)


@pytest.mark.parametrize("build", [bags, placed, twice])
def test_a_number_out_of_range_fails_wherever_the_row_goes(build, graph):
    fetches = build()
    feed = graph.get_tensor_by_name("numbers:0")
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        for session in (s, reference):
            session.run(gc.global_variables_initializer())
            with pytest.raises(gc.errors.InvalidArgumentError, match=rf"{ROWS} is not in \[0, "):
                session.run(fetches, {feed: BAD})
        found, want = (session.run(fetches, {feed: NUMBERS}) for session in (s, reference))
        pairs = zip(found, want, strict=True) if isinstance(found, list) else [(found, want)]
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_a_number_fails_where_nothing_needs_the_row(graph):
    """Neither a sum of which only the shape counts nor what is chosen instead hides it."""
    feed = numbers()
    rows = nn.embedding_lookup(table(), feed)
    sums = gc.reduce_sum(rows, 1)
    (spread,) = gc.gradients(gc.reduce_sum(sums), [rows])
    never = gc.placeholder(gc.bool, [])
    other = gc.cond(never, lambda: sums, lambda: gc.zeros_like(sums))
    fill = gc.where(gc.fill(gc.shape(sums), never), sums, gc.zeros_like(sums))
    none = gc.placeholder(gc.float32, [None, 9, COLUMNS, 0])
    empty = gc.expand_dims(rows, 3) + none
    nothing = np.zeros((len(BAD), 9, COLUMNS, 0), np.float32)
    with gc.Session() as s:
        s.run(gc.global_variables_initializer())
        for fetch in ([spread, sums], other, fill, [rows, empty], [gc.shape(sums), rows], empty):
            feeds = {feed: BAD, never: False, none: nothing}
            with pytest.raises(gc.errors.InvalidArgumentError, match="is not in"):
                s.run(fetch, feeds)
            s.run(fetch, {**feeds, feed: NUMBERS})


def chosen_away(rows: Any) -> list[Any]:
    """What literals make of a condition while kernels are made."""
    zero, never = gc.zeros_like(rows), gc.fill(gc.shape(rows), False)
    found = [
        gc.where(gc.constant(False), rows, zero), gc.where(gc.constant(True), zero, rows * 2.0),
        gc.where(never, rows, zero), gc.where(gc.equal(gc.rank(rows), 7), rows, zero),
        gc.where(gc.less(gc.shape(rows)[2], 0), rows + 1.0, zero),
        gc.logical_and(never, rows > 0), gc.cast(rows, gc.int32) * 0,
        gc.cast(rows, gc.int32) * gc.zeros_like(rows, gc.int32), rows * 0.0, gc.pow(rows, 0.0),
    ]  # fmt: skip
    return [*found, gc.reduce_sum(found[0], 1)]


def test_a_number_fails_where_literals_choose_something_else(graph):
    feed = numbers()
    cases = chosen_away(nn.embedding_lookup(table(), feed))
    with gc.Session() as s:
        s.run(gc.global_variables_initializer())
        for fetch in cases:
            with pytest.raises(gc.errors.InvalidArgumentError, match="is not in"):
                s.run(fetch, {feed: BAD})


@pytest.mark.parametrize(
    ("shape", "window", "strides"),
    [((1, 3, 1, 2), (1, 1), (3, 1)), ((1, 3, 1, 2), (2, 1), (3, 1)), ((2, 4, 4, 2), (2, 3), (4, 4)),
     ((1, 4, 1, 2), (4, 1), (3, 1)), ((1, 3, 3, 16), (2, 2), (2, 2))],
)  # fmt: skip
def test_windows_that_leave_elements_out(shape, window, strides):
    """Not each element of the image is read: its rows are stored, and are all checked."""
    image = gc.Variable(RNG.normal(size=shape).astype(np.float32))
    feed = gc.placeholder(gc.int32, [shape[1]])
    rows = gc.gather(image, feed, axis=1)
    sizes, steps = [1, *window, 1], [1, *strides, 1]
    fetches = [f(x, sizes, steps, "VALID") for f in (nn.avg_pool, nn.max_pool)
               for x in (image * 1.0, rows)]  # fmt: skip
    every = np.arange(shape[1])
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        for session in (s, reference):
            session.run(gc.global_variables_initializer())
        reference.run(image.assign(s.run(image)))
        for a, b in zip(*(t.run(fetches, {feed: every}) for t in (s, reference)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
        for fetch in fetches[1::2]:
            with pytest.raises(gc.errors.InvalidArgumentError, match="is not in"):
                s.run(fetch, {feed: np.where(every == shape[1] - 1, 99, every)})


def test_a_lookup_beside_python_keeps_its_place(graph):
    """What can fail behind a step in Python waits for it, also inside of a sum."""
    feed, calls = numbers(), []

    def note(v: Any) -> Any:
        calls.append(1)
        return v

    seen = gc.py_func(note, [gc.constant(1.0)], gc.float32)
    with gc.control_dependencies([seen]):
        sums = gc.reduce_sum(nn.embedding_lookup(table(), feed), 1)
    with gc.Session() as s:
        s.run(gc.global_variables_initializer())
        with pytest.raises(gc.errors.InvalidArgumentError, match="is not in"):
            s.run([sums, seen], {feed: BAD})
        assert calls == [1]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("columns", [1, 3, 20, 64, 300])
def test_rows_are_added_up_in_order_by_any_number_of_threads(dtype, columns):
    """More elements than one part has, most numbers of one row, some out of the part's range."""
    rows, count = 1 + 70000 // columns, 500
    where = np.minimum(RNG.integers(0, 2 * rows, count), rows - 1).astype(np.int32)
    what = RNG.integers(-9, 9, (count, columns)) * 0.3
    what = what.astype(gc.as_dtype(dtype).as_numpy_dtype)
    updates = gc.placeholder(dtype, [None, columns])
    feed = gc.placeholder(gc.int32, [None])
    params = gc.placeholder_with_default(gc.zeros([rows, columns], dtype), [rows, columns])
    (found,) = gc.gradients(gc.gather(params, feed), [params], grad_ys=[updates])
    want = np.zeros((rows, columns), what.dtype)
    for k, row in enumerate(where):
        want[row] = want[row] + what[k]
    for threads in (1, 2):
        with gc.Session(config=gc.ConfigProto(intra_op_parallelism_threads=threads)) as s:
            got = s.run(found, {feed: where, updates: what})
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got.astype(np.float64), want.astype(np.float64))
