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
