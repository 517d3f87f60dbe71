"""Runs kernels: through the interpreter, and as machine code for every target of this machine."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from graphc.codegen.llvm import module, print_kernel
from graphc.loop.interpret import run_kernel
from graphc.loop.ir import Const, Expr, Kernel, Var
from graphc.loop.scalar import FUNCTIONS
from graphc.loop.verify import verify_kernel
from graphc.runtime.jit import LoadedObject, compile_object, load_object, named_target

TARGETS = ("generic", "avx2", "avx512")
Array = np.ndarray[Any, Any]


def evaluate(expr: Expr, scalars: dict[Var, int]) -> int:
    """The value of a size."""
    if isinstance(expr, Const):
        return int(expr.value)
    if isinstance(expr, Var):
        return scalars[expr]
    args = [np.int64(evaluate(a, scalars)) for a in expr.operands]
    return int(FUNCTIONS[expr.fn].numpy(*args))  # type: ignore[attr-defined]


@dataclass
class Batch:
    """Kernels that are compiled together and called one by one."""

    target: str
    kernels: dict[str, Kernel] = field(default_factory=dict)
    loaded: LoadedObject | None = None

    def add(self, kernel: Kernel) -> Kernel:
        assert kernel.name not in self.kernels
        self.kernels[kernel.name] = verify_kernel(kernel)
        return kernel

    def run(self, kernel: Kernel, arrays: Sequence[Array], scalars: Sequence[int] = ()) -> None:
        """Native, in two chunks of the parallel loop, as two threads would."""
        cpu = named_target(self.target)
        if self.loaded is None:
            texts = [print_kernel(k, cpu) for k in self.kernels.values()]
            self.loaded = load_object(compile_object(module(texts), cpu))
        status = np.zeros(8, np.int64)
        slots = [*(a.ctypes.data for a in arrays), *scalars, status.ctypes.data]
        table = (ctypes.c_int64 * len(slots))(*slots)
        entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        call = entry(self.loaded.address(kernel.name))
        sizes = dict(zip(kernel.scalars, scalars, strict=True))
        loop = kernel.parallel
        end = evaluate(loop.extent, sizes) if loop else 1
        assert evaluate(kernel.grain, sizes) >= 1
        half = end // 2 if loop else 0
        for begin, stop in ((half, end), (0, half)):
            if begin < stop:
                call(ctypes.addressof(table), begin, stop)
        assert not status.any()


@pytest.fixture(params=TARGETS)
def batch(request: pytest.FixtureRequest) -> Batch:
    target = named_target(request.param)
    if not target.is_host:
        pytest.skip(f"this machine cannot run {request.param}")
    return Batch(request.param)


@pytest.fixture
def interpret() -> Any:
    """``interpret(kernel, arrays, scalars)``: verified, then run by the interpreter."""

    def run(kernel: Kernel, arrays: Sequence[Array], scalars: Sequence[int] = ()) -> None:
        run_kernel(verify_kernel(kernel), arrays, scalars)

    return run
