"""Every optimizer on a device: dense and sparse updates are the CPU's."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

START = np.random.default_rng(3).standard_normal((6, 5))
SCALE = np.linspace(-1.0, 2.0, 30).reshape(6, 5)
# Twice, once and never: rows whose gradients are added up, and rows that stay.
ROWS = [4, 0, 4, 2]
MADE = {
    "descent": lambda: gc.train.GradientDescentOptimizer(0.125),
    "momentum": lambda: gc.train.MomentumOptimizer(0.125, 0.5),
    "nesterov": lambda: gc.train.MomentumOptimizer(0.125, 0.5, use_nesterov=True),
    "adam": lambda: gc.train.AdamOptimizer(0.125),
    "adagrad": lambda: gc.train.AdagradOptimizer(0.125),
    "adadelta": lambda: gc.train.AdadeltaOptimizer(0.5, rho=0.75),
    "rmsprop": lambda: gc.train.RMSPropOptimizer(0.125, momentum=0.5),
    "centered": lambda: gc.train.RMSPropOptimizer(0.125, momentum=0.5, centered=True),
    "ftrl": lambda: gc.train.FtrlOptimizer(
        0.125, l1_regularization_strength=0.25, l2_regularization_strength=0.5
    ),
}


def test_every_optimizer_is_here():
    classes = {type(make()) for make in MADE.values()}
    named = (getattr(gc.train, name) for name in dir(gc.train) if name.endswith("Optimizer"))
    assert classes == {c for c in named if c is not gc.train.Optimizer}


@pytest.mark.parametrize("dtype", [gc.float32, gc.float64], ids=["f32", "f64"])
def test_every_optimizer_makes_the_steps_of_the_cpu(dtype, device):
    with gc.Graph().as_default():
        steps = []
        for make in MADE.values():
            dense, sparse = (gc.Variable(gc.constant(START, dtype)) for _ in range(2))
            loss = gc.reduce_sum(gc.constant(SCALE, dtype) * gc.square(dense) + dense)
            loss += gc.reduce_sum(gc.square(gc.gather(sparse, ROWS)) * 0.5)
            steps.append(make().minimize(loss))
        initialize, found = gc.global_variables_initializer(), []
        for place in ("cpu", device):
            with gc.Session(device=place) as session:
                session.run(initialize)
                for _ in range(3):
                    session.run(steps)
                found.append(session.run(gc.global_variables()))
    assert len(found[0]) > 2 * len(MADE)
    rounding = 1e-5 if dtype is gc.float32 else 1e-12
    for wanted, value in zip(*found, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=rounding, atol=rounding)
