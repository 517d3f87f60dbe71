"""bfloat16: its values, feeds and fetches, state, files, and a network trained in it."""

from __future__ import annotations

import copy
import os
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

import graphc as gc
from graphc import dtypes
from graphc.formats import load, safetensors, save
from graphc.runtime.jit import named_target

BF16 = np.dtype(ml_dtypes.bfloat16)
PATTERNS = np.arange(2**16, dtype=np.uint16)


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


@pytest.fixture(params=["avx512bf16", "avx512", "avx2", "generic"])
def target(request, monkeypatch):
    if not named_target(request.param).is_host:
        pytest.skip(f"this machine does not run {request.param} code")
    monkeypatch.setenv("GRAPHC_TARGET", request.param)


def run(fetches, feeds=None):
    with gc.Session() as session:
        return session.run(fetches, feeds)


def bits(array):
    return np.asarray(array).view(np.uint16)


def nearest(value: float) -> float:
    """The bfloat16 next to a number, of two the even one, by exact arithmetic."""
    start = int(np.float32(value).view(np.uint32)) >> 16
    around = [((start + d) & 0xFFFF) for d in (-1, 0, 1)]
    options = [(float(np.uint32(b << 16).view(np.float32)), b) for b in around]
    ranked = [(abs(Fraction(v) - Fraction(value)), b & 1, v) for v, b in options if np.isfinite(v)]
    return min(ranked)[2]


# --- the type -------------------------------------------------------------------------------------


def test_the_type_is_that_of_tensorflow():
    t = gc.bfloat16
    assert (repr(t), str(t), t.name, t.size) == (
        "tf.bfloat16", "<dtype: 'bfloat16'>", "bfloat16", 2
    )  # fmt: skip
    assert gc.as_dtype("bfloat16") is gc.as_dtype(BF16) is gc.as_dtype(ml_dtypes.bfloat16) is t
    assert t.as_numpy_dtype is ml_dtypes.bfloat16
    assert t.is_floating
    assert not t.is_integer
    assert float(t.max) == -float(t.min) == 2.0**128 * (1 - 2.0**-8)
    assert copy.deepcopy(t) is t


def test_python_numbers_become_bfloat16_and_tensors_do_not():
    x = gc.constant([1.0, 2.5], gc.bfloat16)
    for y in (x + 1, 1.5 * x, x / 3.0, x**2.0, gc.maximum(x, 2)):
        assert y.dtype is gc.bfloat16
    with pytest.raises(TypeError, match="float32 that does not match type bfloat16"):
        x + gc.constant(1.0)


def test_constants_are_rounded_once():
    value = 1 + 2.0**-8 + 2.0**-40  # float32 would drop the last bit, and the tie go to even
    assert float(run(gc.constant(value, gc.bfloat16))) == 1 + 2.0**-7
    assert float(run(gc.constant(np.float64(value), gc.bfloat16))) == 1 + 2.0**-7
    assert float(run(gc.ones([], gc.bfloat16) * value)) == 1 + 2.0**-7


def test_rounding_of_numpy_arrays():
    rng = np.random.default_rng(0)
    halfway = 1 + rng.integers(0, 128, 3000) / 128 + 1 / 256
    halfway = halfway * 2.0 ** rng.integers(-140, 120, 3000)
    values = halfway * (1 + rng.integers(-2, 3, 3000) * 2.0**-51) * rng.choice([-1, 1], 3000)
    found = dtypes.rounded(values, BF16)
    assert [float(v) for v in found] == [nearest(float(v)) for v in values]
    whole = ((rng.integers(128, 256, 3000) * 2 + 1) << rng.integers(0, 54, 3000)) + rng.integers(
        -1, 2, 3000
    )
    found = dtypes.rounded(whole, BF16)
    assert [float(v) for v in found] == [nearest(int(v)) for v in whole]
    assert float(dtypes.rounded(np.uint64(2**64 - 1), BF16)) == 2.0**64


# --- casts ----------------------------------------------------------------------------------------


def test_every_bit_pattern_to_float32_and_back(target):
    x = gc.placeholder(gc.bfloat16, [None])
    wide = gc.cast(x, gc.float32)
    value = PATTERNS.view(BF16)
    to32, back, to64, back64 = run(
        [wide, gc.cast(wide, gc.bfloat16), gc.cast(x, gc.float64),
         gc.cast(gc.cast(x, gc.float64), gc.bfloat16)], {x: value},
    )  # fmt: skip
    np.testing.assert_array_equal(to32.view(np.uint32), PATTERNS.astype(np.uint32) << 16)
    with np.errstate(invalid="ignore"):  # signaling NaN
        np.testing.assert_array_equal(to64, to32.astype(np.float64))
    number = ~np.isnan(to32)
    for found in (back, back64):
        np.testing.assert_array_equal(bits(found)[number], PATTERNS[number])
        assert np.isnan(found[~number].astype(np.float32)).all()


def test_every_upper_half_of_float32_is_rounded_to_even(target):
    x = gc.placeholder(gc.float32, [None])
    y = gc.cast(x, gc.bfloat16)
    with gc.Session() as session:
        for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
            value = ((PATTERNS.astype(np.uint32) << 16) + np.uint32(low)).view(np.float32)
            found = session.run(y, {x: value})
            with np.errstate(all="ignore"):
                expected = value.astype(BF16)
            number = ~np.isnan(value)
            np.testing.assert_array_equal(bits(found)[number], bits(expected)[number])
            np.testing.assert_array_equal(np.isnan(found.astype(np.float32)), ~number)


def test_every_float16_and_bfloat16_to_the_other(target):
    a, b = gc.placeholder(gc.bfloat16, [None]), gc.placeholder(gc.float16, [None])
    values = {a: PATTERNS.view(BF16), b: PATTERNS.view(np.float16)}
    to_half, to_bfloat = run([gc.cast(a, gc.float16), gc.cast(b, gc.bfloat16)], values)
    with np.errstate(all="ignore"):
        half = values[a].astype(np.float32).astype(np.float16)
        bfloat = values[b].astype(np.float32).astype(BF16)
    np.testing.assert_array_equal(to_half, half)
    np.testing.assert_array_equal(to_bfloat.astype(np.float32), bfloat.astype(np.float32))


def test_integers_and_doubles_are_rounded_once(target):
    whole = np.array([(1 << 31) + (1 << 23) + d for d in (-1, 0, 1)])
    large = np.array([(257 << 54) + d for d in (-1, 0, 1)])
    near = np.array([1 + 2.0**-8 + d for d in (-(2.0**-50), 0, 2.0**-50)])
    found = run([gc.cast(gc.constant(v), gc.bfloat16) for v in (whole, large, -large, near)])
    for value, given in zip(found, (whole, large, -large, near), strict=True):
        assert [float(v) for v in value] == [nearest(v) for v in given.tolist()]


# --- feeds, fetches, state ------------------------------------------------------------------------


def test_feeds_and_fetches_of_every_form():
    x = gc.placeholder(gc.bfloat16, [None])
    call = gc.Session().make_callable(x * 2, [x])
    value = np.arange(6).astype(BF16)
    given = [
        value, copy.deepcopy(value), value.view(BF16.newbyteorder("=")),
        value.astype(np.float64), value.astype(np.int8), value.astype(np.float16), list(range(6)),
        np.repeat(value, 2)[::2], np.frombuffer(b"\0" + value.tobytes(), BF16, offset=1),
    ]  # fmt: skip
    for v in given:
        found = call(v)
        assert found.dtype is BF16
        assert found.tolist() == [0, 2, 4, 6, 8, 10]
        assert run(x * 2, {x: v}).tolist() == found.tolist()
    assert type(run(x[1], {x: value})) is ml_dtypes.bfloat16
    with pytest.raises(ValueError, match="Cannot feed value of shape"):
        run(x, {x: value.reshape(2, 3)})
    with pytest.raises(TypeError):
        run(x, {x: "text"})
    wide = gc.placeholder(gc.float32, [None])
    np.testing.assert_array_equal(run(wide, {wide: value}), np.arange(6))


def test_a_feed_is_read_where_it_lies(monkeypatch):
    """Nothing is converted on the way of an array of the very type."""
    x = gc.placeholder(gc.bfloat16, [None])
    session = gc.Session()
    call, value = session.make_callable(x + 1, [x]), np.ones(4, BF16)
    session.run(x + 1, {x: value})
    call(value)

    def refuse(*_):
        raise AssertionError("the feed was converted")

    monkeypatch.setattr("graphc.feeding.numeric_array", refuse)
    for _ in range(3):
        assert call(value).tolist() == [2] * 4
    with pytest.raises(AssertionError, match="converted"):
        call([1.0])


def test_variables_updates_and_initializers():
    w = gc.get_variable("w", [64, 64], gc.bfloat16)
    v = gc.Variable(np.ones(3, BF16))
    add = gc.assign_add(v, gc.constant([0.25, 0.5, 1e-4], gc.bfloat16))
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        assert session.run(w).dtype == BF16
        largest = float(np.abs(session.run(w).astype(np.float32)).max())
        assert 0.1 < largest <= 1.01 * (6 / 128) ** 0.5
        assert session.run(add).tolist() == [1.25, 1.5, 1]
        v.load(np.zeros(3, BF16), session)
        assert session.run(v).tolist() == [0, 0, 0]


@pytest.mark.parametrize("sampler", [gc.random_uniform, gc.random_normal, gc.truncated_normal])
def test_random_numbers(sampler):
    value = run(sampler([4000], dtype=gc.bfloat16, seed=1)).astype(np.float64)
    mean, deviation = {
        "random_uniform": (0.5, 12**-0.5), "random_normal": (0, 1), "truncated_normal": (0, 0.88),
    }[sampler.__name__]  # fmt: skip
    assert abs(value.mean() - mean) < 0.05
    assert abs(value.std() - deviation) < 0.05
    if sampler is gc.random_uniform:
        assert (value < 1).all()


def test_sums_are_kept_in_float32(target):
    x = gc.placeholder(gc.bfloat16, [None])
    value = np.ones(10000, BF16)
    fetches = [gc.reduce_sum(x), gc.reduce_mean(x), gc.cumsum(x)[-1]]
    total, mean, running = run(fetches, {x: value})
    assert float(total) == 9984  # 10,000 rounded; sums in bfloat16 would stay at 256
    assert float(mean) == 1
    assert float(running) == 9984


def test_python_functions_printing_and_loops(capfd):
    x = gc.constant([1.0, 2.5, np.nan], gc.bfloat16)
    doubled = gc.py_func(lambda a: a + a, [x], gc.bfloat16)
    _, powers = gc.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * y), [0, x])
    grad = gc.gradients(powers, x)[0]
    found = run([doubled, powers, grad, gc.Print(x, [x])])
    assert found[0].dtype == BF16
    np.testing.assert_array_equal(found[0].astype(np.float32), [2, 5, np.nan])
    np.testing.assert_array_equal(found[1].astype(np.float32)[:2], [1, 1520])
    np.testing.assert_allclose(found[2].astype(np.float32)[:2], [8, 8 * 2.5**7], rtol=2.0**-6)
    assert "[1 2.5 nan]" in capfd.readouterr().err


@pytest.mark.parametrize("mode", ["eager", "reference"])
def test_other_modes(mode):
    x = gc.constant([1.0, 2.0, 3.0], gc.bfloat16)
    y = gc.exp(x) * gc.reduce_sum(x)
    with gc.Session(mode=mode) as session:
        found = session.run(y)
    assert found.dtype == BF16
    np.testing.assert_array_equal(bits(found), bits(run(y)))


# --- files ----------------------------------------------------------------------------------------


def test_a_model_in_bfloat16_is_saved_and_loaded(tmp_path):
    x = gc.placeholder(gc.bfloat16, [None, 4], name="x")
    w = gc.get_variable("w", [4, 3], gc.bfloat16)
    y = gc.nn.relu(gc.matmul(x, w) + gc.constant(0.5, gc.bfloat16), name="y")
    value = np.arange(8).reshape(2, 4).astype(BF16)
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        save(tmp_path / "m", session, x, y)
        expected = session.run(y, {x: value})
    found = load(tmp_path / "m")(value)
    assert found.dtype == BF16
    assert found.tobytes() == expected.tobytes()


def test_other_readers_of_safetensors(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    array = PATTERNS.view(BF16)
    safetensors.write(tmp_path / "w", {"w": array}, {})
    assert b'"BF16"' in (tmp_path / "w").read_bytes()[:200]
    theirs = numpy.load_file(os.fspath(tmp_path / "w"))["w"]
    assert theirs.tobytes() == array.tobytes()
    arrays, _ = safetensors.read(tmp_path / "w")
    assert arrays["w"].dtype is BF16
    assert arrays["w"].tobytes() == array.tobytes()


# --- products -------------------------------------------------------------------------------------


def within(found, exact, size, steps, shift=0.0):
    """A result against its exact value; ``size`` is the sum of the absolute products."""
    assert found.dtype == BF16
    bound = 2.0**-23 * (steps + 1) * size + 2.0**-8 * np.abs(exact) + 2.0**-8 * abs(shift) + 1e-37
    assert (np.abs(found.astype(np.float64) - exact) <= bound).all()


@pytest.mark.parametrize("shape", [(40, 70, 33), (3, 50, 20), (65, 601, 48)])
def test_products(shape, target):
    m, k, n = shape
    rng = np.random.default_rng(m)
    wide = [rng.standard_normal(s).astype(BF16) for s in ((2, m, k), (2, k, n))]
    a, b = (v.astype(np.float64) for v in wide)
    fetches = []
    for ta in (False, True):
        for tb in (False, True):
            x, y = (np.swapaxes(v, 1, 2).copy() if t else v
                    for v, t in zip(wide, (ta, tb), strict=True))  # fmt: skip
            fetches += [gc.matmul(x, y, transpose_a=ta, transpose_b=tb),
                        gc.matmul(x[0], y[0], transpose_a=ta, transpose_b=tb)]  # fmt: skip
    size = np.abs(a) @ np.abs(b)
    for number, found in enumerate(run(fetches)):
        part = slice(None) if number % 2 == 0 else 0
        within(found, (a @ b)[part], size[part], k)


def test_what_is_fused_with_a_product(target):
    """In front of it in float32, rounded once; behind it from the sums, rounded at each op."""
    rng = np.random.default_rng(1)
    x, w, bias = (rng.standard_normal(s).astype(np.float32) for s in ((30, 40), (40, 24), (24,)))
    a = gc.cast(gc.placeholder(gc.float32, [None, 40], name="a") * 2, gc.bfloat16)
    product = gc.matmul(a, gc.constant(w, gc.bfloat16)) + gc.constant(bias, gc.bfloat16)
    left, right = ((2 * x).astype(BF16).astype(np.float64), w.astype(BF16).astype(np.float64))
    exact = left @ right + bias.astype(BF16).astype(np.float64)
    size = np.abs(left) @ np.abs(right)
    found = run(gc.nn.relu(product), {"a:0": x})
    within(found, np.maximum(exact, 0), size, 40, shift=float(np.abs(left @ right).max()))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [1, 2])
def test_convolutions_and_their_gradients(padding, strides, target):
    rng = np.random.default_rng(2)
    x, w = (rng.standard_normal(s).astype(BF16) for s in ((2, 9, 10, 18), (3, 3, 18, 33)))
    values = {}
    for dtype in (gc.bfloat16, gc.float64):
        for sign in (1, -1) if dtype is gc.float64 else (1,):
            a, b = (gc.constant(v.astype(np.float64), dtype) for v in (x, w))
            a, b = (a, b) if sign == 1 else (abs(a), abs(b))
            y = gc.nn.conv2d(a, b, strides=strides, padding=padding)
            values[dtype, sign] = run([y, *gc.gradients(y, [a, b])])
    steps = (9 * 18, 9 * 33, 2 * 90)
    rows = zip(values[gc.bfloat16, 1], values[gc.float64, 1], values[gc.float64, -1], steps,
               strict=True)  # fmt: skip
    for found, exact, size, count in rows:
        within(found, exact, size, count)


# --- training -------------------------------------------------------------------------------------


def network(dtype):
    """The loss and the gradients of two layers with a softmax, from the same numbers."""
    rng = np.random.default_rng(3)
    sizes = ((16, 24), (24,), (24, 5), (5,))
    values = [rng.standard_normal(s) / 4 for s in sizes]
    x = rng.standard_normal((32, 16)).astype(BF16).astype(np.float64)
    values = [v.astype(BF16).astype(np.float64) for v in values]
    w1, b1, w2, b2 = weights = [gc.constant(v, dtype) for v in values]
    hidden = gc.nn.relu(gc.matmul(gc.constant(x, dtype), w1) + b1)
    logits = gc.matmul(hidden, w2) + b2
    labels = np.arange(32) % 5
    loss = gc.reduce_mean(
        gc.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )
    return [loss, *gc.gradients(loss, weights)]


def test_gradients_of_a_network(target):
    exact = run(network(gc.float64))
    found = run(network(gc.bfloat16))
    for value, expected in zip(found, exact, strict=True):
        assert value.dtype == BF16
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            value.astype(np.float64), expected, rtol=2.0**-5, atol=2.0**-5 * scale
        )


def test_a_network_learns_in_bfloat16():
    x = gc.constant(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), gc.bfloat16)
    y = gc.constant([[0], [1], [1], [0]], gc.bfloat16)
    gc.set_random_seed(4)
    w1, w2 = gc.get_variable("w1", [2, 8], gc.bfloat16), gc.get_variable("w2", [8, 1], gc.bfloat16)
    b1, b2 = gc.Variable(gc.zeros([8], gc.bfloat16)), gc.Variable(gc.zeros([1], gc.bfloat16))
    guess = gc.matmul(gc.tanh(gc.matmul(x, w1) + b1), w2) + b2
    loss = gc.reduce_mean(gc.square(guess - y))
    step = gc.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        for _ in range(300):
            session.run(step)
        assert float(session.run(loss)) < 0.02
