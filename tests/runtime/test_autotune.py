"""Tiles found by timing: which kernels, what is kept, and that every choice computes the same."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import graphc as gc
from graphc.kernels.tiling import Tiles
from graphc.options import current_options
from graphc.runtime import autotune
from graphc.runtime.autotune import TUNED, Found, decoded, encoded


@pytest.fixture(autouse=True)
def own_graph_and_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(autotune, "ROUNDS", 1)
    with gc.Graph().as_default():
        yield


@pytest.fixture
def cache_files(tmp_path):
    return lambda: sorted((tmp_path / "cache").glob("*.o"))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def counted(work):
    """What ``work`` returns, and by how much it raised the counts."""
    before = dict(TUNED)
    value = work()
    return value, {k: TUNED[k] - before[k] for k in TUNED}


def product(known=True):
    x = gc.placeholder(gc.float32, [64 if known else None, 100])
    w = gc.placeholder(gc.float32, [100, 200])
    y = gc.nn.relu(gc.matmul(x, w) + 1.0)
    return y, {x: normal(64, 100), w: normal(100, 200, seed=1)}


def batched(known=True):
    x = gc.placeholder(gc.float32, [4, 9 if known else None, 33])
    y = gc.placeholder(gc.float32, [4, 33, 70])
    return gc.matmul(x, y), {x: normal(4, 9, 33), y: normal(4, 33, 70)}


def transposed(known=True):
    x = gc.placeholder(gc.float32, [40, 150 if known else None])
    y = gc.placeholder(gc.float32, [40, 70])
    return gc.matmul(x, y, transpose_a=True), {x: normal(40, 150), y: normal(40, 70)}


def convolution(known=True):
    x = gc.placeholder(gc.float32, [2 if known else None, 9, 9, 3])
    w = gc.placeholder(gc.float32, [3, 3, 3, 40])
    return gc.nn.conv2d(x, w, 2, "SAME"), {x: normal(2, 9, 9, 3), w: normal(3, 3, 3, 40)}


def deep(known=True):
    x = gc.placeholder(gc.float32, [300 if known else None, 1100])
    w = gc.placeholder(gc.float32, [1100, 80])
    return gc.matmul(x, w), {x: normal(300, 1100), w: normal(1100, 80)}


def tuned(y, feeds):
    """The value by a new session that compiles with autotuning."""
    with gc.Session() as session, gc.compile_options(autotune=True):
        return session.run(y, feeds), tiles_of(session)


def tiles_of(session):
    codes = [e.code for p in session._plans.values() for e in p.executables.values()]
    return [low.tiles for code in codes for low in code.program.kernels]


def choosing(monkeypatch, number):
    """Let a version of every kernel win, if there are so many."""
    monkeypatch.setattr(
        autotune, "times", lambda runs: [float(k != number % len(runs)) for k in range(len(runs))]
    )


def test_nothing_is_timed_unless_it_is_asked_for():
    y, feeds = product()
    with gc.Session() as session:
        _, counts = counted(lambda: session.run(y, feeds))
    assert counts == {"kernels": 0, "versions": 0, "known": 0}


@pytest.mark.parametrize("known", [True, False])
def test_a_few_versions_are_timed_once(known):
    y, feeds = product(known)
    (first, tiles), counts = counted(lambda: tuned(y, feeds))
    assert counts["kernels"] == 1
    assert 2 <= counts["versions"] <= 8
    (second, again), counts = counted(lambda: tuned(y, feeds))
    assert counts == {"kernels": 0, "versions": 0, "known": 1}
    assert again == tiles
    np.testing.assert_array_equal(first, second)
    with gc.Session() as session:
        np.testing.assert_allclose(session.run(y, feeds), first, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("build", [product, batched, transposed, convolution, deep])
def test_every_version_computes_the_same(build, number, monkeypatch):
    choosing(monkeypatch, number)
    y, feeds = build(known=number % 2 == 0)
    with gc.Session() as session:
        wanted = session.run(y, feeds)
    found, tiles = tuned(y, feeds)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)
    again, same = tuned(y, feeds)
    assert same == tiles
    np.testing.assert_array_equal(again, found)


def test_the_winner_is_taken(monkeypatch):
    choosing(monkeypatch, 1)
    y, feeds = product()
    _, tiles = tuned(y, feeds)
    assert [isinstance(t, Tiles) for t in tiles] == [True]
    choosing(monkeypatch, 0)
    assert tuned(y, feeds)[1] == tiles


def test_a_little_is_not_enough(monkeypatch):
    monkeypatch.setattr(autotune, "times", lambda runs: [1.0] + [0.99] * (len(runs) - 1))
    y, feeds = product()
    assert tuned(y, feeds)[1] == [None]


def test_another_process_times_nothing(tmp_path):
    script = (
        "import numpy as np, graphc as gc\n"
        "from graphc.runtime.autotune import TUNED\n"
        "x = gc.placeholder(gc.float32, [30, 50])\n"
        "y = gc.matmul(x, gc.ones([50, 70]) * x[0, 0])\n"
        "with gc.compile_options(autotune=True), gc.Session() as s:\n"
        "    found = s.run(y, {x: np.ones((30, 50), np.float32)})\n"
        "assert (found == 50).all()\n"
        "print(TUNED['kernels'], TUNED['known'])\n"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", script], env=dict(os.environ), capture_output=True, text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert printed == [["1", "0"], ["0", "1"]]


def test_layers_of_one_form_are_timed_once():
    x = y = gc.placeholder(gc.float32, [64, 96])
    ws = [gc.placeholder(gc.float32, [96, 96]) for _ in range(3)]
    for w in ws:
        y = gc.tanh(gc.matmul(y, w))
    feeds = {t: normal(*t.shape.as_list()) / 10 for t in (x, *ws)}
    with gc.Session() as session:
        wanted = session.run(y, feeds)
    (found, _), counts = counted(lambda: tuned(y, feeds))
    assert counts["kernels"] <= 2  # The last one writes the fetch.
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_damaged_entries_are_ignored(cache_files):
    y, feeds = product()
    wanted, _ = tuned(y, feeds)
    for path in cache_files():
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    (found, _), counts = counted(lambda: tuned(y, feeds))
    assert counts["kernels"] == 1
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_entries_that_say_something_else_are_ignored():
    others = [Tiles(2), Tiles(4, 3, 0.5)]
    for tiles in (None, *others):
        assert decoded(encoded(Found(tiles)), others) == Found(tiles)
    for entry in (None, b"", b"{", b"[]", b"3", b'{"vectors": 2}x', b'{"lanes": 2}', b'"\xff"'):
        assert decoded(entry, others) is None
    # Tiles that nobody would try now.
    assert decoded(encoded(Found(Tiles(7))), others) is None


def test_no_time_leaves_the_estimate_and_nothing_behind():
    y, feeds = product()

    def hurried():
        with gc.Session() as s, gc.compile_options(autotune=True, autotune_seconds=0):
            s.run(y, feeds)
            return tiles_of(s)

    found, counts = counted(hurried)
    assert found == [None]
    assert counts == {"kernels": 0, "versions": 0, "known": 0}
    assert counted(lambda: tuned(y, feeds))[1]["kernels"] == 1


def test_operands_that_are_too_large_are_left(monkeypatch):
    monkeypatch.setattr(autotune, "MOST_BYTES", 1000)
    y, feeds = product()
    (_, tiles), counts = counted(lambda: tuned(y, feeds))
    assert tiles == [None]
    assert counts["versions"] == 0


def test_options_end_with_their_statement():
    assert not current_options().autotune
    with gc.compile_options(autotune=True) as options:
        assert current_options() is options
        with gc.compile_options():
            assert not current_options().autotune
        assert current_options() is options
    assert not current_options().autotune
    negative = pytest.raises(ValueError, match="autotune_seconds must not be negative, but is -1")
    with negative, gc.compile_options(autotune=True, autotune_seconds=-1):
        pass


def test_variables_are_left_alone():
    w = gc.Variable(normal(100, 200))
    x = gc.placeholder(gc.float32, [64, 100])
    loss = gc.reduce_sum(gc.matmul(x, w) ** 2)
    step = gc.train.GradientDescentOptimizer(1e-6).minimize(loss)
    values = []
    for autotuned in (False, True):
        with gc.Session() as session, gc.compile_options(autotune=autotuned):
            session.run(w.initializer)
            session.run(step, {x: normal(64, 100, seed=2)})
            values.append(session.run(w))
    np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(values[0], normal(100, 200))


@pytest.mark.parametrize("known", [False, True])
def test_products_of_one_form_are_tuned_as_one(known, monkeypatch):
    """Also where verifying has built the kernels before: no other keeps what is built again."""
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    other = Tiles(vectors=1, rows=4)
    monkeypatch.setattr(autotune, "_fastest", lambda *_: Found(other))
    xs = [gc.placeholder(gc.float32, [64 if known else None, 100]) for _ in range(3)]
    w = gc.placeholder(gc.float32, [100, 200])
    ys = [gc.nn.relu(gc.matmul(x, w)) for x in xs]
    values = [normal(64, 100, seed=k) for k in range(3)]
    feeds = dict(zip(xs, values, strict=True)) | {w: normal(100, 200, seed=9)}
    with gc.Session() as s, gc.compile_options(autotune=True):
        for found, value in zip(s.run(ys, feeds), values, strict=True):
            expected = np.maximum(value @ normal(100, 200, seed=9), 0)
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        (program,) = {
            id(e.code.program): e.code.program
            for plan in s._plans.values()
            for e in plan.executables.values()
        }.values()
    first, *others = program.kernels
    assert first.tiles == other
    assert all(k.twin is first and k.kernel is first.kernel for k in others)
    assert all(k.fast is first.fast for k in others)
