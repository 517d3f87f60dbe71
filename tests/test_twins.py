"""Kernels that are equal but for what they are called on are built once."""

import numpy as np
import pytest

import graphc as gc


@pytest.fixture(autouse=True)
def own_graph(monkeypatch):
    # A kernel that is not what its twin is does not pass.
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    with gc.Graph().as_default():
        yield


def kernels(session):
    (executable,) = [
        e
        for plan in session._plans.values()
        for e in plan.executables.values()
        if e.code.program.kernels
    ]
    program = executable.code.program
    return program.kernels, program.loops


def fed(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_layers_of_one_form():
    x = gc.placeholder(gc.float32, [None, 40])
    weights = [gc.placeholder(gc.float32, [40, 40]) for _ in range(6)]
    y = x
    for w in weights:
        y = gc.nn.softmax(gc.tanh(gc.matmul(y, w)))
    values = [fed(40, 40) + k for k in range(6)]
    with gc.Session() as s:
        found = s.run(y, {x: fed(5, 40), **dict(zip(weights, values, strict=True))})
        called, built = kernels(s)
    assert len(called) == 12
    assert len({k.name for k in built} - {k.kernel.name for k in called}) <= 2  # fast versions
    assert len({k.kernel for k in called}) == 2
    expected = fed(5, 40)
    for w in values:
        z = np.exp(np.tanh(expected @ w))
        expected = z / z.sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def case(name):
    x = gc.placeholder(gc.float32, [4, 6])
    v = gc.placeholder(gc.float32, [4, 6])
    pairs = {
        "constants": lambda: (gc.exp(x) * 2.0, gc.exp(x) * 3.0),
        "attributes": lambda: (gc.reduce_sum(x, 0), gc.reduce_sum(x, 1)),
        "functions": lambda: (gc.exp(x), gc.tanh(x)),
        "order": lambda: (gc.subtract(x, gc.exp(v)), gc.subtract(gc.exp(x), v)),
        "permutation": lambda: (
            gc.transpose(gc.reshape(x, [2, 3, 4]), [2, 0, 1]) + 0.0,
            gc.transpose(gc.reshape(x, [2, 3, 4]), [1, 2, 0]) + 0.0,
        ),
        "sizes": lambda: (gc.exp(x[:2]), gc.exp(x[:3])),
        "places": lambda: (x[1:3] * 2.0, x[0:2] * 2.0),
        "one operand twice": lambda: (x * gc.exp(x), x * gc.exp(v)),
        "types": lambda: (gc.cast(x, gc.float16), gc.cast(x, gc.bfloat16)),
        "tables": lambda: (x * np.arange(6.0, dtype="f"), x * np.arange(1.0, 7, dtype="f")),
    }
    return x, v, pairs[name]()


@pytest.mark.parametrize(
    "name",
    ["constants", "attributes", "functions", "order", "permutation", "sizes", "places",
     "one operand twice", "types", "tables"],
)  # fmt: skip
def test_what_differs_in_anything_is_built_for_itself(name):
    x, v, pair = case(name)
    feeds = {x: fed(4, 6), v: fed(4, 6) + 1}
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        for a, b in zip(s.run(pair, feeds), reference.run(pair, feeds), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_large_results_stream_apart():
    n = 1 << 21
    x, v = gc.placeholder(gc.float32, [n]), gc.placeholder(gc.float32, [n])
    first, second = gc.exp(x), gc.exp(v)
    fetches = [first, second, gc.reduce_sum(second)]
    with gc.Session() as s:
        a, b = np.linspace(-1, 1, n, dtype=np.float32), np.linspace(0, 1, n, dtype=np.float32)
        found = s.run(fetches, {x: a, v: b})
    np.testing.assert_allclose(found[0], np.exp(a), rtol=1e-5)
    np.testing.assert_allclose(found[1], np.exp(b), rtol=1e-5)
    np.testing.assert_allclose(found[2], np.exp(b).sum(dtype=np.float64), rtol=1e-5)


def test_what_can_fail_names_its_own_operation():
    x, v = gc.placeholder(gc.int32, [3]), gc.placeholder(gc.int32, [3])
    first = gc.floordiv(x, v, name="first")
    second = gc.floordiv(v, x, name="second")
    one, none = np.ones(3, np.int32), np.zeros(3, np.int32)
    with gc.Session() as s:
        with pytest.raises(gc.errors.InvalidArgumentError) as e:
            s.run([first, second], {x: one, v: none})
        assert e.value.op.name == "first"
        with pytest.raises(gc.errors.InvalidArgumentError) as e:
            s.run([first, second], {x: none, v: one})
        assert e.value.op.name == "second"


def test_sizes_of_other_names():
    """Rows of unknown numbers: what is done with each is one kernel, called with its own sizes."""
    fed_in = [gc.placeholder(gc.float32, [None, 3]) for _ in range(4)]
    found = [gc.nn.softmax(gc.exp(gc.sin(x)) * 2.0, axis=0) for x in fed_in]
    values = [fed(n, 3) for n in (5, 1, 300, 0)]
    feeds = dict(zip(fed_in, values, strict=True))
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        # The second run with other sizes, through what was compiled for the first.
        for turn in (feeds, dict(zip(fed_in, reversed(values), strict=True))):
            for a, b in zip(s.run(found, turn), reference.run(found, turn), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5)
        called, _ = kernels(s)
    assert len({k.kernel.name for k in called}) * 4 == len(called)


def test_templates_for_the_sizes_seen_first_have_their_own():
    xs = [gc.placeholder(gc.float32, [None, 64]) for _ in range(3)]
    w = gc.placeholder(gc.float32, [64, 32])
    ys = [gc.matmul(x, w) for x in xs]
    values = [fed(n, 64) for n in (70, 70, 9)]
    with gc.Session() as s:
        for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
            feeds = {x: values[k] for x, k in zip(xs, order, strict=True)}
            found = s.run(ys, feeds | {w: fed(64, 32)})
            for got, k in zip(found, order, strict=True):
                np.testing.assert_allclose(got, values[k] @ fed(64, 32), rtol=1e-4, atol=1e-4)
        called, _ = kernels(s)
    assert len({k.kernel.name for k in called}) == 2


def test_sizes_in_another_order_are_other_kernels():
    x = gc.placeholder(gc.float32, [None, None])
    rows, columns = gc.shape(x)[0], gc.shape(x)[1]
    wide = gc.zeros([rows, columns]) + gc.reduce_sum(x)
    high = gc.zeros([columns, rows]) + gc.reduce_sum(x)
    value = fed(7, 2)
    with gc.Session() as s:
        a, b = s.run([gc.exp(wide), gc.exp(high)], {x: value})
    assert a.shape == (7, 2)
    assert b.shape == (2, 7)
    np.testing.assert_allclose(a, np.exp(np.full((7, 2), value.sum())), rtol=1e-4)
    np.testing.assert_allclose(b, a.T)


def test_parallel_loops_of_twins_have_their_own_extents():
    a, b = gc.placeholder(gc.float32, [None]), gc.placeholder(gc.float32, [None])
    ys = gc.exp(gc.tanh(a)), gc.exp(gc.tanh(b))
    with gc.Session() as s:
        for sizes in ((3, 400_000), (400_000, 3), (100_000, 0)):
            u, v = (np.linspace(-1, 1, n, dtype=np.float32) for n in sizes)
            for found, value in zip(s.run(ys, {a: u, b: v}), (u, v), strict=True):
                np.testing.assert_allclose(found, np.exp(np.tanh(value)), rtol=1e-5)
        called, _ = kernels(s)
    assert len({k.kernel.name for k in called}) == 1
    assert len(called) == 2

