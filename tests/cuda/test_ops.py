"""Every row of the registry on a device, against its reference: by the shim, or on a GPU."""

from __future__ import annotations

import pytest
from cuda_rows import batches, chosen_rows, run_together
from ops_support import cases, op_rows, row_id

from graphc.dtypes import DType
from graphc.op import Op, evaluate_reference
from graphc.runtime.cuda_device import Device


@pytest.mark.parametrize("batch", batches())
def test_values(batch: list[tuple[Op, DType | None]], device: Device):
    rows = [case for op, dtype in batch for case in cases(op, dtype)]
    for case, found in run_together(rows, device):
        expected = evaluate_reference(case.declare().op, case.values)
        for value, wanted in zip(found, expected, strict=True):
            case.check(value, wanted, "cuda")


def test_no_row_is_left_out():
    always, rest = chosen_rows()
    assert {(o.name, row_id(t)) for o, t in always + rest} == {
        (o.name, row_id(t)) for o, t in op_rows()
    }
