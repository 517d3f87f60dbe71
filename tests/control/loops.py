"""Loops, their derivatives and the memory that they hold, for the tests of this folder."""

from __future__ import annotations

import numpy as np

import graphc as gc

F = gc.float64
POINT = np.array([0.3, -0.5, 0.8])
WEIGHTS = np.cos(np.arange(3) + 1.0)


def loop(n, step, *start, **options):
    """``n`` turns of ``step(i, *values)``, which gives the next values."""
    return gc.while_loop(
        lambda i, *_: i < n, lambda i, *v: (i + 1, *step(i, *v)), [0, *start], **options
    )[1:]


def slope(f, eps=1e-6):
    """The gradient of ``f`` at the point, by central differences."""
    steps = eps * np.eye(POINT.size)
    return np.array([(f(POINT + d) - f(POINT - d)) / (2 * eps) for d in steps])


def differences(run, point, eps=1e-6):
    """The gradients of ``y`` and of the weighted sum of ``first``, by central differences.

    ``run(point)`` gives both: it compiles once what two series of runs would compile twice.
    """
    weights = np.cos(np.arange(point.size) + 1.0).reshape(point.shape)

    def values(at):
        y, first = run(at)
        return y, np.sum(first * weights)

    return slopes(values, point, eps)


def slopes(f, point=POINT, eps=1e-6):
    """The gradients of the numbers that ``f`` gives, by central differences."""
    places = list(np.ndindex(point.shape))
    steps = eps * np.eye(point.size).reshape(-1, *point.shape)
    pairs = [[np.array(f(point + k * s)) for k in (1, -1)] for s in steps]
    found = np.zeros((len(pairs[0][0]), *point.shape))
    for k, (above, below) in zip(places, pairs, strict=True):
        found[:, *k] = (above - below) / (2 * eps)
    return found


def check_slope(session, y, grad, x, feeds, rtol=1e-5):
    """A gradient at the point against differences; ``feeds`` are what is fed besides ``x``."""
    found = session.run(grad, {x: POINT, **feeds})
    wanted = slope(lambda p: session.run(y, {x: p, **feeds}))
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol / 10)


def check_bytes_are_linear(grad, x, n):
    """Four times the turns hold no more than about four times the bytes."""
    found = []
    with gc.Session() as session:
        for turns in (60, 240):
            session.run(grad, {x: np.full(64, 0.3), n: turns})
            found.append(bytes_held(session))
    assert found[1] <= 5 * found[0]


def bytes_held(session):
    """How many bytes hold what its runs keep, in sizes that only a run tells."""
    plans = [e for p in session._plans.values() for e in p.executables.values()]
    return sum(sum(e.context.cells[1::2]) for e in plans)
