"""The workloads in graphc, in either mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphs
import numpy as np

import graphc as gc

VERSION = f"graphc {gc.__version__}"
BUILDERS = graphs.BUILDERS


def set_threads(count: int) -> None:
    gc.set_num_threads(count)


def make(name: str, data: dict[str, np.ndarray], mode: str = "static") -> Callable[[], Any]:
    """A function that does the workload once and returns its value as an array."""
    return graphs.make(gc, gc.Session(mode=mode), name, data)
