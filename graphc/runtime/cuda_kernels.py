"""The kernels of one program on a device: printed, compiled, and launched with their workspaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.codegen.cuda import Printed, print_kernel, translation_unit
from graphc.errors import CompileError, UnimplementedError
from graphc.loop.interpret_values import Evaluator
from graphc.loop.ir import Kernel
from graphc.lower import Lowered
from graphc.program import Program
from graphc.runtime.cuda_device import Device, Memory

_ITEM = 8  # bytes: no element is larger


class Kernels:
    """Compiled kernels, launched by what they were lowered from."""

    def __init__(self, program: Program, device: Device) -> None:
        self.device = device
        self._kernels: dict[int, Kernel] = {}
        self._printed: dict[str, Printed] = {}
        for low in program.kernels:
            self._kernels[id(low)] = self._add(low)
        launches = [launch for p in self._printed.values() for launch in p.launches]
        self.text = translation_unit(self._printed.values())
        names = [launch.function for launch in launches]
        loaded = device.load(self.text, names) if names else []
        self._functions: dict[str, Any] = dict(zip(names, loaded, strict=True))
        self.fallible = any(low.fallible for low in program.kernels)
        with device.active():
            self._spaces = {low.kernel.name: self._workspaces(low) for low in program.kernels}

    def _add(self, low: Lowered) -> Kernel:
        """The kernel, printed.

        Raises:
          UnimplementedError: there is no way to compute it on a device; names the operation.
        """
        try:
            kernel = low.kernel
            if kernel.name not in self._printed:
                self._printed[kernel.name] = print_kernel(kernel)
        except CompileError as error:
            op = low.operations[-1]
            raise UnimplementedError(
                op.node_def, op, f"device 'cuda' cannot compute {op.type}: {error}"
            ) from None
        return kernel

    def launch(
        self, low: Lowered, addresses: Sequence[int], sizes: Sequence[int], status: int
    ) -> None:
        """Run a kernel on slots at these addresses."""
        kernel = self._kernels[id(low)]
        scalars = dict(zip(kernel.scalars, sizes, strict=True))
        spaces = [m.address for m in self._spaces[kernel.name]]
        arguments = (*addresses, *spaces, *sizes, status)
        for launch in self._printed[kernel.name].launches:
            blocks = launch.blocks(scalars)
            if blocks > 0:
                function = self._functions[launch.function]
                self.device.launch(function, blocks, launch.threads, arguments)

    def _workspaces(self, low: Lowered) -> list[Memory]:
        """What a kernel needs behind its slots; its calls use it one after the other.

        Raises:
          MemoryError: there is not so much left.
        """
        evaluator = Evaluator()
        wanted = self._kernels[id(low)].params[len(low.buffers) :]
        return [self.device.allocate(int(evaluator.eval(p.size)) * _ITEM) for p in wanted]
