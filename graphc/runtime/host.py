"""Host steps at run time: what a native program calls to have Python compute something."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from graphc.dims import DimLike
from graphc.errors import ResourceExhaustedError
from graphc.ops.host import check_shape, host_values
from graphc.program import Host, Program, walk
from graphc.program_steps import HostCall
from graphc.runtime.layout import cells
from graphc.runtime.library import runtime
from graphc.runtime.structs import i64


class HostCaller:
    """The callable of one executable's host steps.

    Attributes:
      called: whether some step has run since it was last set to False.
    """

    def __init__(self, program: Program, places: list[int], context: Any) -> None:
        self.called = False
        self._dims = context.dims
        self._cells = context.cells
        self._address = context.address
        cell_of, _ = cells(program)
        steps = {s.number: s for s in walk(program.steps) if isinstance(s, Host)}
        self._steps = [
            _Step(program, call, steps.get(k), place, cell_of)
            for k, (call, place) in enumerate(zip(program.hosts, places, strict=True))
        ]

    def __call__(self, number: int, arguments: int) -> None:
        """Run a step.

        Raises:
          OpError: the function raised, or gave what was not declared.
        """
        self.called = True
        step = self._steps[number]
        table = (i64 * max(1, step.count)).from_address(arguments)
        sizes = self._dims[step.place : step.place + step.stated]
        results = host_values(step.call.op, step.operands(table, sizes))
        step.check(results, sizes)
        for k, value in enumerate(results):
            address = table[len(step.inputs) + k]
            cell = step.cells[k]
            if cell is not None:
                self._grow(cell, value.nbytes)
                address = self._cells[2 * cell]
            if value.nbytes:
                ctypes.memmove(address, value.ctypes.data, value.nbytes)

    def _grow(self, cell: int, need: int) -> None:
        if not runtime().ensure(self._address, cell, need, 0):
            raise ResourceExhaustedError(
                None, None, f"OOM when allocating {need} bytes; no variable was changed"
            )


class _Step:
    """One step: the shapes of its operands, what is stated of its results, where these go."""

    def __init__(
        self, program: Program, call: HostCall, step: Host | None, place: int, cell_of: Any
    ) -> None:
        self.call = call
        self.place = place
        self.stated = len(call.stated())
        self.inputs = [
            (t.dtype.base_dtype.numpy, len(sizes))
            for t, sizes in zip(call.op.inputs, call.inputs, strict=True)
        ]
        self.wanted: list[list[DimLike | None]] = call.fixed()
        self.count = len(self.inputs) + len(self.wanted)
        outputs = step.outputs if step is not None else []
        self.cells = [cell_of.get(n) for n in outputs]

    def operands(self, table: Any, sizes: list[int]) -> list[np.ndarray]:
        """Copies of the operands, which the function may keep."""
        found = []
        at = 0
        for k, (dtype, rank) in enumerate(self.inputs):
            shape = tuple(sizes[at : at + rank])
            at += rank
            array = np.empty(shape, dtype)
            if array.nbytes:
                ctypes.memmove(array.ctypes.data, table[k], array.nbytes)
            found.append(array)
        return found

    def check(self, results: list[np.ndarray], sizes: list[int]) -> None:
        """Refuse results that are not as large as the program takes them to be."""
        source = self.call.op.attrs["source"]
        known = iter(sizes[sum(rank for _, rank in self.inputs) :])
        for k, (result, wanted) in enumerate(zip(results, self.wanted, strict=True)):
            shape = [None if s is None else next(known) for s in wanted]
            check_shape(source, k, result.shape, shape)
