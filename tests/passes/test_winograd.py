"""Convolutions by Winograd's tiles: which ones, their values, when filters are prepared."""

import threading

import numpy as np
import pytest

import graphc as gc
from graphc.program_interpret import run_program
from graphc.program_verify import verify_program
from graphc.runtime.executable import PREPARATIONS

CHANNELS = 32


@pytest.fixture(autouse=True)
def own_graph():
    with gc.Graph().as_default():
        yield


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def net(kernel, padding="SAME", size=(None, 14, 15, CHANNELS), **options):
    x = gc.placeholder(gc.float32, size)
    w = gc.Variable(kernel)
    y = gc.nn.conv2d(x, w, padding=padding, **({"strides": 1} | options))
    return x, w, y


def ops_of(session):
    return {
        op.type
        for plan in session._plans.values()
        for e in plan.executables.values()
        for op in e.code.program.function.operations
    }


def is_tiled(session):
    return "WinogradProduct" in ops_of(session)


@pytest.mark.parametrize("padding", ["SAME", "VALID", [[0, 0], [2, 1], [0, 3], [0, 0]]])
@pytest.mark.parametrize("batch", [None, 2])
def test_values(padding, batch):
    kernel = normal(3, 3, CHANNELS, 40) / 10
    x, w, y = net(kernel, padding, (batch, 14, 15, CHANNELS))
    y = gc.nn.relu(y + 0.5)
    value = normal(2, 14, 15, CHANNELS)
    with gc.Session() as s, gc.Session(mode="reference") as reference:
        for session in (s, reference):
            session.run(w.initializer)
        found = s.run(y, {x: value})
        assert is_tiled(s)
        np.testing.assert_allclose(found, reference.run(y, {x: value}), rtol=2e-5, atol=2e-5)
        if batch is None:
            five = normal(5, 14, 15, CHANNELS, seed=1)
            np.testing.assert_allclose(
                s.run(y, {x: five}), reference.run(y, {x: five}), rtol=2e-5, atol=2e-5
            )
            assert s.run(y, {x: five[:0]}).shape[0] == 0


def test_nothing_is_read_beside_the_image():
    x, w, y = net(normal(3, 3, CHANNELS, CHANNELS), "VALID", (1, 13, 14, CHANNELS))
    value = normal(1, 13, 14, CHANNELS)
    value[0, 5, 6, 7] = np.nan
    value[0, 12, 13, 0] = np.inf
    with gc.Session() as s:
        s.run(w.initializer)
        found = s.run(y, {x: value})
        assert is_tiled(s)
    touched = np.isnan(found).any(-1)[0]
    # A tile of 2x2 results shares its products.
    assert touched[2:6, 4:8].any()
    assert not touched[7:10, :10].any()


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 3, CHANNELS, CHANNELS), {"strides": [1, 2, 2, 1]}),
        ((3, 3, CHANNELS, CHANNELS), {"dilations": [1, 2, 2, 1]}),
        ((5, 5, CHANNELS, CHANNELS), {}),
        ((1, 1, CHANNELS, CHANNELS), {}),
        ((3, 3, CHANNELS // 2, CHANNELS), {}),
        ((3, 3, CHANNELS, 3), {}),
    ],
)
def test_others_are_left(shape, options):
    x, w, y = net(normal(*shape), **options)
    with gc.Session() as s:
        s.run(w.initializer)
        s.run(y, {x: normal(1, 14, 15, CHANNELS)})
        assert not is_tiled(s)


def test_a_filter_that_the_run_changes_or_that_is_fed_is_left():
    x, w, y = net(normal(3, 3, CHANNELS, CHANNELS))
    k = gc.placeholder(gc.float32, [3, 3, CHANNELS, CHANNELS])
    step = gc.train.GradientDescentOptimizer(0.1).minimize(gc.reduce_sum(y))
    with gc.Session() as s:
        s.run(w.initializer)
        s.run([y, step], {x: normal(1, 14, 15, CHANNELS)})
        fed = {x: normal(1, 14, 15, CHANNELS), k: normal(3, 3, CHANNELS, CHANNELS)}
        s.run(gc.nn.conv2d(x, k, 1, "SAME"), fed)
        assert not is_tiled(s)


def test_the_filter_is_prepared_once_for_each_of_its_values():
    kernel = normal(3, 3, CHANNELS, CHANNELS)
    x, w, y = net(kernel)
    other = gc.Variable(0.0)
    change, touch = w.assign(2 * w), other.assign_add(1.0)
    value = normal(1, 14, 15, CHANNELS)
    with gc.Session() as s:
        s.run(gc.global_variables_initializer())
        before = PREPARATIONS["runs"]
        first = s.run(y, {x: value})
        for _ in range(3):
            np.testing.assert_array_equal(s.run(y, {x: value}), first)
            s.run(touch)
        assert PREPARATIONS["runs"] == before + 1
        s.run(change)
        np.testing.assert_array_equal(s.run(y, {x: value}), 2 * first)
        assert PREPARATIONS["runs"] == before + 2
        w.load(kernel, s)
        np.testing.assert_array_equal(s.run(y, {x: value}), first)
        call = s.make_callable(y, [x])
        for k in (1, 2, 4):
            np.testing.assert_array_equal(call(value), k * first)
            s.run(change)
        assert is_tiled(s)


def test_each_session_prepares_its_own():
    x, w, y = net(normal(3, 3, CHANNELS, CHANNELS))
    value = normal(1, 14, 15, CHANNELS)
    with gc.Session() as one, gc.Session() as two:
        one.run(w.initializer)
        two.run(w.initializer)
        two.run(w.assign(-w))
        np.testing.assert_array_equal(one.run(y, {x: value}), -two.run(y, {x: value}))


def test_training_and_inference_side_by_side():
    x, w, y = net(normal(3, 3, CHANNELS, CHANNELS) / 10)
    scale = gc.Variable(1.0)
    # One run changes both; no other run may see one of them changed.
    grow = gc.group(w.assign(2 * w), scale.assign(scale / 2))
    fetch = y * scale
    value = normal(1, 14, 15, CHANNELS)
    with gc.Session() as s:
        s.run(gc.global_variables_initializer())
        call = s.make_callable(fetch, [x])
        first, wrong = call(value), []

        def infer():
            found = (call(value) for _ in range(60))
            wrong.extend(1 for f in found if not np.array_equal(f, first))

        threads = [threading.Thread(target=infer) for _ in range(2)]
        for t in threads:
            t.start()
        for _ in range(40):
            s.run(grow)
        for t in threads:
            t.join()
        assert not wrong


def test_a_saved_model(tmp_path):
    x, w, y = net(normal(3, 3, CHANNELS, CHANNELS))
    value = normal(2, 14, 15, CHANNELS)
    with gc.Session() as s:
        s.run(w.initializer)
        expected = s.run(y, {x: value})
        gc.save(tmp_path / "m.graphc", s, [x], [y])
    np.testing.assert_array_equal(gc.load(tmp_path / "m.graphc")(**{x.op.name: value}), expected)


def test_the_program_interpreter_prepares_too():
    kernel = normal(3, 3, CHANNELS, CHANNELS)
    x, w, y = net(kernel, size=(1, 10, 10, CHANNELS))
    value = normal(1, 10, 10, CHANNELS)
    with gc.Session() as s:
        s.run(w.initializer)
        expected = s.run(y, {x: value})
        (program,) = [
            e.code.program
            for plan in s._plans.values()
            for e in plan.executables.values()
            if e.code.program.function.prepared is not None
        ]
    verify_program(program)
    (found,) = run_program(program, {x.name: value}, {w.op.name: kernel})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
