"""How `gpu.py` takes times: of graphc and of PyTorch in the same way."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

ROUNDS, ROUND, RUNS = 5, 0.1, 200
"""How many rounds there are, the seconds of each, and the most runs in it."""


def seconds(work: Callable[[], Any], wait: Callable[[], Any], quick: bool = False) -> float:
    """The median time of one call, of several that follow each other.

    Args:
      work: what is timed.
      wait: returns when the device has done all that it was asked for.
      quick: whether few calls are enough.
    """
    # The first ones compile, and record CUDA graphs.
    for _ in range(3):
        work()
    wait()

    def one(runs: int) -> float:
        start = time.perf_counter()
        for _ in range(runs):
            work()
        wait()
        return (time.perf_counter() - start) / runs

    if quick:
        return one(1)
    runs = max(1, min(RUNS, int(ROUND / one(2))))
    return statistics.median(one(runs) for _ in range(ROUNDS))
