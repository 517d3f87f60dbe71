"""No kernel of the registry's samples leaves to chance who comes first."""

from __future__ import annotations

from typing import Any

import pytest
from cuda_races import RaceDevice
from cuda_rows import batches, run_together
from ops_support import cases


@pytest.mark.slow
@pytest.mark.parametrize("batch", batches())
def test_no_kernel_has_a_race(batch: list[Any], shim):
    rows = [case for op, dtype in batch for case in cases(op, dtype)]
    run_together(rows, RaceDevice(both_orders=False))
