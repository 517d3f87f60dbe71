"""A graph of its own for every test, and a way to run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from graphc.graph import Graph
from graphc.session import Session


@pytest.fixture(autouse=True)
def graph() -> Iterator[Graph]:
    """The default graph of the test."""
    with Graph().as_default() as graph:
        yield graph


@pytest.fixture
def run(graph: Graph) -> Callable[..., Any]:
    """``run(fetches, feeds)`` through the compiler; arrays as nested lists."""

    def values(fetches: Any, feeds: Any = None) -> Any:
        with Session(graph=graph) as session:
            found = session.run(fetches, feeds)
        if isinstance(fetches, (list, tuple)):
            return [np.asarray(v).tolist() for v in found]
        return np.asarray(found).tolist()

    return values
