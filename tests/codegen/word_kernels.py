"""What the tests of packed words share: kernels of two operands, three results and a place."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from graphc.codegen import llvm
from graphc.errors import VerifyError
from graphc.loop.interpret import run_kernel
from graphc.loop.parser import parse_kernel
from graphc.loop.verify import verify_kernel
from graphc.runtime.jit import compile_object, load_object, named_target

PLACE = 7
Case = tuple[Sequence[np.ndarray], Sequence[np.ndarray]]


def check_machine_code(target: str, cases: Mapping[str, Case]) -> None:
    """The kernel of each text, on its arrays, gives its results as code of the target."""
    cpu = named_target(target)
    if not cpu.is_host:
        pytest.skip(f"this machine cannot run {target}")
    kernels = {text: verify_kernel(parse_kernel(text)) for text in cases}
    loaded = load_object(
        compile_object(llvm.module(llvm.print_kernel(k, cpu) for k in kernels.values()), cpu)
    )
    for text, (arrays, wanted) in cases.items():
        name = kernels[text].name
        status = np.zeros(8, np.int64)
        places = (*(a.ctypes.data for a in arrays), PLACE, status.ctypes.data)
        table = (ctypes.c_int64 * len(places))(*places)
        entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        entry(loaded.address(name))(ctypes.addressof(table), 0, 1)
        for got, value in zip(arrays[2:], wanted, strict=True):
            np.testing.assert_array_equal(got, value, err_msg=f"{target}, {name}")


def check_interpreted(text: str, case: Case) -> None:
    """The same by the interpreter."""
    arrays, wanted = case
    run_kernel(verify_kernel(parse_kernel(text)), list(arrays), [PLACE])
    for got, value in zip(arrays[2:], wanted, strict=True):
        np.testing.assert_array_equal(got, value)


def check_refused(round_trip: str, value: str, message: str) -> None:
    """A kernel with the head of ``round_trip`` that stores ``value`` is refused."""
    head = round_trip.splitlines()[0]
    broken: Any = parse_kernel(f"{head}\n  out[0] = {value}\n")
    with pytest.raises(VerifyError, match=message):
        verify_kernel(broken)
