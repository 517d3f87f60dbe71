"""What the tests of loops and branches share: every value in all modes, with all verifiers on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nest
from graphc.graph import Graph

MODES = ("static", "eager", "reference")


@pytest.fixture(autouse=True)
def verify_everything(monkeypatch):
    monkeypatch.setenv("GRAPHC_VERIFY", "1")


@pytest.fixture(autouse=True)
def graph():
    with Graph().as_default() as g:
        yield g


def flat(value: Any) -> list[np.ndarray]:
    return [np.asarray(v) for v in nest.flatten(value)]


@pytest.fixture
def everywhere() -> Iterator[Callable[..., Any]]:
    """``everywhere(fetches, feeds)``: the values, the same in every mode (and of ``expected``).

    All calls of a test have the same sessions: what they have compiled is run again.
    """
    sessions: dict[str, gc.Session] = {}

    def run(
        fetches: Any, feeds: Any = None, expected: Any = None, rtol: float = 1e-6
    ) -> Any:
        found = {}
        for mode in MODES:
            if mode not in sessions:
                sessions[mode] = gc.Session(mode=mode)
            session = sessions[mode]
            session.run(gc.global_variables_initializer())
            found[mode] = session.run(fetches, feeds)
        wanted = flat(found["reference"])
        for mode in MODES:
            values = flat(found[mode])
            assert [(v.dtype, v.shape) for v in values] == [(w.dtype, w.shape) for w in wanted]
            for a, b in zip(values, wanted, strict=True):
                np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, err_msg=mode)
        if expected is not None:
            for a, b in zip(wanted, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
                assert a.shape == np.shape(b)
        return found["static"]

    yield run
    for session in sessions.values():
        session.close()


@pytest.fixture
def in_modes() -> Callable[[Callable[[Any], Any]], list[Any]]:
    """``in_modes(work)``: what ``work(session)`` gives in a session, and a graph, of every mode."""

    def run(work: Callable[[Any], Any]) -> list[Any]:
        found = []
        for mode in MODES:
            with Graph().as_default(), gc.Session(mode=mode) as session:
                found.append(work(session))
        for other in found[1:]:
            for a, b in zip(flat(found[0]), flat(other), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        return found[0]

    return run
