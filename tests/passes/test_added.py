"""Products that are only added up: which become one, and their values."""

import numpy as np
import pytest
from pass_support import applied, extracted

import graphc as gc
from graphc.passes.added import JoinProducts
from graphc.passes.basic import DeadCode
from graphc.passes.pipeline import default_pipeline, run_passes

PRODUCTS = ("MatMul", "BatchMatMulV2")


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


def operands(count, left, right, dtype="float64"):
    return [
        (gc.placeholder(dtype, left, f"a{i}"), gc.placeholder(dtype, right, f"b{i}"))
        for i in range(count)
    ]


def products(fn):
    return [op for op in fn.operations if op.type in PRODUCTS]


def steps(op):
    """How long the sums of a product are."""
    turned = op.attrs["transpose_a" if op.type == "MatMul" else "adj_x"]
    return op.inputs[0].sizes[-2 if turned else -1]


def gradients_of_a_weight():
    return gc.add_n([gc.matmul(a, b, transpose_a=True) for a, b in operands(5, [3, 8], [3, 9])])


def as_they_are():
    return gc.add_n([gc.matmul(a, b) for a, b in operands(3, [8, 2], [2, 9])])


def both_transposed():
    pairs = operands(2, [2, 8], [9, 2])
    return gc.add_n([gc.matmul(a, b, transpose_a=True, transpose_b=True) for a, b in pairs])


def by_a_plus():
    (a, b), (c, d) = operands(2, [8, 2], [2, 9])
    return gc.matmul(a, b) + gc.matmul(c, d)


def batches():
    pairs = operands(3, [2, 1, 2, 8], [2, 1, 2, 9], "float32")
    return gc.add_n([gc.matmul(a, b, transpose_a=True) for a, b in pairs])


def beside_other_terms():
    (a, b), (c, d) = operands(2, [8, 2], [2, 9])
    other = gc.placeholder("float64", [8, 9], "c0")
    return gc.add_n([gc.matmul(a, b), gc.exp(other), gc.matmul(c, d), other])


def steps_that_differ():
    (a, b), *_ = operands(1, [4, 8], [4, 9])
    c = gc.placeholder("float64", [1, 8], "c0")
    d = gc.placeholder("float64", [1, 9], "d0")
    return gc.add_n([gc.matmul(a, b, transpose_a=True), gc.matmul(c, d, transpose_a=True)])


def no_steps():
    return gc.add_n([gc.matmul(a, b) for a, b in operands(2, [8, 0], [0, 9])])


def unknown_steps():
    pairs = operands(3, [None, 200], [None, 300])
    return gc.add_n([gc.matmul(a, b, transpose_a=True) for a, b in pairs])


JOINED = {
    gradients_of_a_weight: 15, as_they_are: 6, both_transposed: 4, by_a_plus: 4, batches: 6,
    beside_other_terms: 4, steps_that_differ: 5, no_steps: 0, unknown_steps: None,
}  # fmt: skip


@pytest.mark.parametrize("build", JOINED, ids=lambda f: f.__name__)
def test_products_become_one(build):
    fn = run_passes(extracted(build), default_pipeline())
    if build is not no_steps:
        (product,) = products(fn)
        assert JOINED[build] in (None, steps(product))
    y = build()
    rng = np.random.default_rng(0)
    feeds = {
        op.outputs[0]: rng.standard_normal([s or 3 if s is None else s for s in t.shape.as_list()])
        for op in y.graph.get_operations()
        if op.type == "Placeholder"
        for t in op.outputs
    }
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        rtol = 1e-5 if y.dtype is gc.float32 else 1e-12
        found, expected = s.run(y, feeds), reference.run(y, feeds)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


def read_twice():
    (a, b), (c, d) = operands(2, [8, 2], [2, 9])
    y = gc.matmul(a, b)
    return gc.add_n([y, gc.matmul(c, d)]), y


def twice_in_the_sum():
    ((a, b),) = operands(1, [8, 2], [2, 9])
    y = gc.matmul(a, b)
    return gc.add_n([y, y])


def long_ones():
    return gc.add_n([gc.matmul(a, b) for a, b in operands(2, [8, 7], [7, 9])])


def transposed_otherwise():
    (a, b), _ = operands(2, [2, 8], [2, 9])
    c, d = gc.placeholder("float64", [8, 2]), gc.placeholder("float64", [2, 9])
    return gc.matmul(a, b, transpose_a=True) + gc.matmul(c, d)


def broadcast_over_rows():
    (a, b), *_ = operands(1, [8, 2], [2, 9])
    c, d = gc.placeholder("float64", [1, 2]), gc.placeholder("float64", [2, 9])
    return gc.matmul(a, b) + gc.matmul(c, d)


def broadcast_batch():
    a, b = gc.placeholder("float64", [5, 8, 2]), gc.placeholder("float64", [1, 2, 9])
    c, d = gc.placeholder("float64", [5, 8, 2]), gc.placeholder("float64", [1, 2, 9])
    return gc.matmul(a, b) + gc.matmul(c, d)


def broadcast_products():
    a, b = gc.placeholder("float64", [1, 8, 2]), gc.placeholder("float64", [1, 2, 9])
    c, d = gc.placeholder("float64", [5, 8, 2]), gc.placeholder("float64", [5, 2, 9])
    e, f = gc.placeholder("float64", [1, 8, 2]), gc.placeholder("float64", [1, 2, 9])
    return (gc.matmul(a, b) + gc.matmul(c, d)), gc.matmul(c, d) * 2 + gc.matmul(e, f)


def of_many_steps():
    return gc.add_n([gc.matmul(a, b) for a, b in operands(2, [900, 129], [129, 900])])


def of_16_bits():
    return gc.add_n([gc.matmul(a, b) for a, b in operands(2, [8, 2], [2, 9], "bfloat16")])


def of_integers():
    return gc.add_n([gc.matmul(a, b) for a, b in operands(2, [8, 2], [2, 9], "int32")])


@pytest.mark.parametrize(
    "build",
    [
        read_twice, twice_in_the_sum, long_ones, transposed_otherwise, broadcast_over_rows,
        broadcast_batch, broadcast_products, of_many_steps, of_16_bits, of_integers,
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_other_sums_stay(build):
    fn = extracted(build)
    before = [steps(op) for op in products(fn)]
    assert [steps(op) for op in products(applied(fn, JoinProducts(), DeadCode()))] == before


def test_an_unrolled_network_has_one_product_for_the_gradient_of_its_weights():
    def build():
        x = [gc.placeholder("float32", [4, 3]) for _ in range(6)]
        outputs, _ = gc.nn.static_rnn(gc.nn.rnn_cell.BasicRNNCell(8), x, dtype=gc.float32)
        return gc.gradients(gc.reduce_sum(gc.square(outputs)), gc.trainable_variables()[:1])

    fn = run_passes(extracted(build), default_pipeline())
    of_weights = [op for op in products(fn) if op.outputs[0].sizes == (11, 8)]
    assert [steps(op) for op in of_weights] == [24]
