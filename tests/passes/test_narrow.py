"""Products of which a part is read: which are narrowed, and their values."""

import numpy as np
import pytest
from pass_support import applied, extracted

import graphc as gc
from graphc.passes.basic import DeadCode
from graphc.passes.narrow import NarrowProducts
from graphc.passes.pipeline import default_pipeline, run_passes

PRODUCTS = ("MatMul", "BatchMatMulV2")


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


def operands(left, right):
    return gc.placeholder("float64", left, "a"), gc.placeholder("float64", right, "b")


def shapes_of_products(fn):
    return [op.outputs[0].sizes for op in fn.operations if op.type in PRODUCTS]


def second_of_three():
    a, b = operands([5, 7], [7, 9])
    return gc.split(gc.matmul(a, b), [2, 3, 4], 1)[1]


def rows_of_a_slice():
    a, b = operands([7, 5], [9, 7])
    return gc.matmul(a, b, transpose_a=True, transpose_b=True)[1:3]


def columns_transposed():
    a, b = operands([None, 7], [9, 7])
    return gc.slice(gc.matmul(a, b, transpose_b=True), [0, 4], [-1, 5])


def half_of_a_batch():
    a, b = operands([2, 3, 5, 7], [3, 7, 8])
    return gc.split(gc.matmul(a, b), 2, -1)[0]


def first_rows_of_a_batch():
    a, b = operands([2, 7, 6], [7, 8])
    return gc.split(gc.matmul(a, b, transpose_a=True), [4, 2], 1)[0]


def last_columns():
    a, b = operands([5, 7], [7, 9])
    return gc.matmul(a, b)[..., -2:]


NARROWED = {
    last_columns: (5, 2),
    second_of_three: (5, 3),
    rows_of_a_slice: (2, 9),
    columns_transposed: (None, 5),
    half_of_a_batch: (2, 3, 5, 4),
    first_rows_of_a_batch: (2, 4, 8),
}


@pytest.mark.parametrize("build", NARROWED, ids=lambda f: f.__name__)
def test_a_part_is_computed_alone(build):
    fn = run_passes(extracted(build), default_pipeline())
    (sizes,) = shapes_of_products(fn)
    assert tuple(s if isinstance(s, int) else None for s in sizes) == NARROWED[build]
    y = build()
    a, b = (y.graph.get_tensor_by_name(f"{name}:0") for name in "ab")
    rng = np.random.default_rng(0)
    feeds = {t: rng.standard_normal([s or 3 for s in t.shape.as_list()]) for t in (a, b)}
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        np.testing.assert_allclose(s.run(y, feeds), reference.run(y, feeds), rtol=1e-12)


def read_twice():
    a, b = operands([5, 7], [7, 9])
    y = gc.matmul(a, b)
    return gc.split(y, [2, 7], 1)[1], gc.reduce_sum(y)


def both_parts():
    a, b = operands([5, 7], [7, 9])
    return gc.split(gc.matmul(a, b), [2, 7], 1)


def fetched():
    a, b = operands([5, 7], [7, 9])
    y = gc.matmul(a, b)
    return y, y[:2]


def of_the_batch():
    a, b = operands([4, 5, 7], [4, 7, 9])
    return gc.matmul(a, b)[1:3]


def rows_and_columns():
    a, b = operands([5, 7], [7, 9])
    return gc.matmul(a, b)[1:3, 2:4]


def of_unknown_size():
    a, b = operands([5, 7], [7, 9])
    size = gc.placeholder("int32", [])
    return gc.slice(gc.matmul(a, b), [0, 0], gc.stack([5, size]))


@pytest.mark.parametrize(
    "build",
    [read_twice, both_parts, fetched, of_the_batch, rows_and_columns, of_unknown_size],
    ids=lambda f: f.__name__,
)
def test_other_products_stay(build):
    fn = extracted(build)
    before = shapes_of_products(fn)
    assert shapes_of_products(applied(fn, NarrowProducts(), DeadCode())) == before


def test_the_state_alone_has_a_gradient_in_a_recurrent_loop():
    """Nothing asks for the input's part of the gradient of ``[input, state]``."""

    def build():
        x = gc.placeholder("float32", [4, 6, 3])
        outputs, _ = gc.nn.dynamic_rnn(gc.nn.rnn_cell.BasicLSTMCell(8), x, dtype=gc.float32)
        return gc.gradients(gc.reduce_sum(gc.square(outputs)), gc.trainable_variables())

    fn = run_passes(extracted(build), default_pipeline())
    bodies = [b for op in fn.operations if op.type == "While" for b in op.attrs["bodies"]]
    sizes = {s for body in bodies for s in shapes_of_products(body)}
    assert (4, 8) in sizes
    assert (4, 11) not in sizes
