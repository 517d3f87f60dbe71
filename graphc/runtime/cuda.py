"""Programs on a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dims import Dim, Symbol
from graphc.errors import InvalidArgumentError, OpError, ResourceExhaustedError
from graphc.program import Program
from graphc.runtime.cuda_device import Device, Memory
from graphc.runtime.cuda_kernels import Kernels
from graphc.runtime.cuda_run import Failed, Run
from graphc.runtime.cuda_state import CudaState
from graphc.runtime.executable import BadSize, Changes, GuardBroken, Mismatch, Runnable

__all__ = ["CudaExecutable"]


class CudaExecutable(Runnable):
    """One program, compiled for a device, over the variables that a session has there."""

    def __init__(self, program: Program, state: CudaState) -> None:
        super().__init__(program, state.layout)
        self.state = state
        self.device: Device = state.device
        self.kernels = Kernels(program, self.device)
        self.constants: dict[int, Memory] = {}
        for slot in program.slots:
            if slot.kind == "const":
                self.constants[slot.number] = self._uploaded(np.ascontiguousarray(slot.source))
        self.inputs = [i for i in program.inputs if i.kind == "feed"]
        self.numbers = {id(s.source): s.number for s in program.slots if s.kind == "input"}

    def _uploaded(self, array: np.ndarray) -> Memory:
        memory = self.device.allocate(array.nbytes)
        if array.nbytes:
            self.device.write(memory.address, array)
        return memory

    def call(self, *feeds: Any) -> tuple[Any, ...]:
        """Run the program; one upload for each feed, one download for each fetch."""
        binding = self.bind(feeds)
        try:
            given = {
                self.numbers[id(i)]: self._uploaded(feed)
                for i, feed in zip(self.inputs, feeds, strict=True)
            }
            for slot in self.program.slots:
                if slot.kind == "variable":
                    given[slot.number] = self.state.memory(slot.source)
            run = Run(self, binding, given)
            run.run()
            results = run.results()
        except MemoryError as error:
            raise self.out_of_memory(error) from None
        except Failed as failure:
            raise self.site_error(failure.site, failure.details) from None
        except (GuardBroken, BadSize) as error:
            raise self.final(error) from None
        self.state.run_has_changed(self.program.updated)
        return results

    def prepare(self, state: Changes) -> None:
        """Nothing is prepared for a device: what depends on variables is computed in every run."""

    def final(self, error: GuardBroken | BadSize) -> Exception:
        """What a run that broke an assumption raises: none that calls Python is begun anew."""
        if not self.program.hosts:
            return error
        if isinstance(error, BadSize):
            return InvalidArgumentError(None, None, error.message)
        return self.guard_error()

    def bind(self, feeds: tuple[Any, ...]) -> dict[Symbol, int]:
        """The sizes that the feeds tell.

        Raises:
          Mismatch: a feed is not the array that the program takes.
        """
        binding: dict[Symbol, int] = {}
        for k, (i, feed) in enumerate(zip(self.inputs, feeds, strict=True)):
            plain = isinstance(feed, np.ndarray) and feed.flags.c_contiguous
            dtype = i.tensor.dtype.base_dtype.numpy
            if not plain or feed.dtype != dtype or feed.ndim != len(i.raw):
                raise Mismatch(k)
            for size, value in zip(i.raw, feed.shape, strict=True):
                symbol = size.as_symbol if isinstance(size, Dim) else None
                known = size if symbol is None else binding.setdefault(symbol, value)
                if known != value:
                    raise Mismatch(k)
        return binding

    def out_of_memory(self, error: MemoryError) -> OpError:
        """The error of a run for which there was not memory enough."""
        sizes = {
            s.name: s.size * s.dtype.size for s in self.program.slots if isinstance(s.size, int)
        }
        largest = max(sizes, key=lambda name: sizes[name], default="of unknown size")
        return ResourceExhaustedError(
            None, None,
            f"OOM on the device: {error}; the largest buffer is {largest}; no variable was changed",
        )  # fmt: skip
