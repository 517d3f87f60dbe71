"""Eager and reference mode give what static mode gives, with the same errors."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import graphc as gc
from graphc import errors, nn
from graphc.graph import Graph
from graphc.ops.contraction_functions import matmul

OTHERS = ("eager", "reference")


def network():
    """A step of training with noise, an embedding and an update of a moving average."""
    rng = np.random.default_rng(1)
    gc.set_random_seed(3)
    words = gc.placeholder(gc.int32, [None, 4])
    labels = gc.placeholder(gc.int32, [None])
    table = gc.Variable(rng.normal(size=(11, 6)).astype("f"))
    w = gc.Variable(rng.normal(size=(24, 3)).astype("f"))
    mean = gc.Variable(np.zeros(3, "f"))
    x = gc.reshape(gc.gather(table, words), [-1, 24])
    x += gc.random_normal(gc.shape(x), stddev=0.1)
    logits = matmul(gc.tanh(x), w)
    loss = gc.reduce_mean(
        nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )
    step = gc.train.AdamOptimizer(0.01).minimize(loss)
    average = mean.assign(0.9 * mean + 0.1 * gc.reduce_mean(logits, 0))
    return words, labels, [loss, nn.softmax(logits), average, step], [table, w, mean]


def trained(mode: str) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    with Graph().as_default(), gc.Session(mode=mode) as session:
        words, labels, fetches, variables = network()
        session.run(gc.global_variables_initializer())
        found = []
        for n in (5, 2, 5, 1):
            feeds = {words: rng.integers(0, 11, (n, 4)), labels: rng.integers(0, 3, n)}
            found += session.run(fetches, feeds)[:3]
            with pytest.raises(errors.InvalidArgumentError):
                session.run(fetches, {words: np.full((2, 4), 99), labels: [0, 1]})
        return [*found, *session.run(variables)]


@pytest.mark.parametrize("mode", OTHERS)
def test_training_agrees_step_by_step(mode):
    for a, b in zip(trained("static"), trained(mode), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_eager_mode_compiles_an_operation_once():
    with Graph().as_default(), gc.Session(mode="eager") as session:
        words, labels, fetches, _ = network()
        session.run(gc.global_variables_initializer())
        feeds = {words: np.zeros((3, 4)), labels: np.zeros(3)}
        session.run(fetches, feeds)
        kernels = len(session._runner.kernels)
        for _ in range(3):
            session.run(fetches, feeds)
        assert len(session._runner.kernels) == kernels


@pytest.mark.parametrize("mode", OTHERS)
def test_errors_name_the_users_operation(mode):
    with Graph().as_default(), gc.Session(mode=mode) as session:
        i = gc.placeholder(gc.int32, [None], name="positions")
        y = gc.gather(gc.constant([1.0, 2.0]), i, name="look_up") * 2.0
        with pytest.raises(errors.InvalidArgumentError) as caught:
            session.run(y, {i: [3]})
        assert caught.value.op.name == "look_up"
        assert f"{__file__}:" in str(caught.value)
        with pytest.raises(errors.InvalidArgumentError, match="positions"):
            session.run(y)


@pytest.mark.parametrize("mode", OTHERS)
def test_threads(mode):
    with Graph().as_default(), gc.Session(mode=mode) as session:
        v = gc.Variable(0.0)
        add = v.assign_add(1.0)
        session.run(v.initializer)
        call = session.make_callable(add.op)
        threads = [threading.Thread(target=lambda: [call() for _ in range(50)]) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert session.run(v) == 150.0
