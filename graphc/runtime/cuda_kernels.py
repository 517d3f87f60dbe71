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
from graphc.runtime.cuda_device import Blas, Device, Memory
from graphc.runtime.cuda_products import Products, Room


class Texts:
    """The kernels of a program as one source text.

    Attributes:
      kernels: by what they were lowered from.
      printed: by name.
      names: the functions of the text.

    Raises:
      UnimplementedError: there is no way to compute one on a device; names the operation.
    """

    def __init__(self, program: Program) -> None:
        self.kernels: dict[int, Kernel] = {}
        self.printed: dict[str, Printed] = {}
        for low in program.kernels:
            self.kernels[id(low)] = self._add(low)
        launches = [launch for p in self.printed.values() for launch in p.launches]
        self.text = translation_unit(self.printed.values())
        self.names = [launch.function for launch in launches]

    def _add(self, low: Lowered) -> Kernel:
        try:
            kernel = low.kernel
            rest = low.library.epilogue if low.library is not None else None
            for each in (kernel, rest):
                if each is not None and each.name not in self.printed:
                    self.printed[each.name] = print_kernel(each)
        except CompileError as error:
            op = low.operations[-1]
            raise UnimplementedError(
                op.node_def, op, f"device 'cuda' cannot compute {op.type}: {error}"
            ) from None
        return kernel


class Kernels:
    """Compiled kernels, launched by what they were lowered from."""

    def __init__(self, program: Program, device: Device) -> None:
        self.device = device
        texts = Texts(program)
        self._kernels, self._printed = texts.kernels, texts.printed
        loaded = device.load(texts.text, texts.names) if texts.names else []
        self._functions: dict[str, Any] = dict(zip(texts.names, loaded, strict=True))
        self.fallible = any(low.fallible for low in program.kernels)
        with device.active():
            self._spaces = {low.kernel.name: self._workspaces(low) for low in program.kernels}
            self.products = Products(device, self._blas(program), self)

    def _blas(self, program: Program) -> Blas | None:
        """The device's library, if there is something for it to compute."""
        if all(low.library is None for low in program.kernels):
            return None
        try:
            return self.device.blas()
        except MemoryError:
            return None

    def launch(
        self, low: Lowered, addresses: Sequence[int], sizes: Sequence[int], status: int,
        room: Room,
    ) -> bool:  # fmt: skip
        """Run a kernel on slots at these addresses; whether a library computes it.

        Which of both is faster may be measured first, as ``room`` says.
        """
        theirs = self.products.launch(low, addresses, sizes, status, room)
        if not theirs:
            self.ours(low, addresses, sizes, status)
        return theirs

    def ours(
        self, low: Lowered, addresses: Sequence[int], sizes: Sequence[int], status: int
    ) -> None:
        """Run our own kernel."""
        kernel = self._kernels[id(low)]
        spaces = [m.address for m in self._spaces[kernel.name]]
        self._launch(kernel, (*addresses, *spaces), sizes, status)

    def rest(
        self, low: Lowered, addresses: Sequence[int], sizes: Sequence[int], status: int
    ) -> None:
        """Run what goes over a product that a library has computed."""
        library = low.library
        if library is not None and library.epilogue is not None:
            self._launch(library.epilogue, addresses, sizes, status)

    def _launch(
        self, kernel: Kernel, addresses: Sequence[int], sizes: Sequence[int], status: int
    ) -> None:
        scalars = dict(zip(kernel.scalars, sizes, strict=True))
        arguments = (*addresses, *sizes, status)
        for launch in self._printed[kernel.name].launches:
            blocks = launch.blocks(scalars)
            if blocks > 0:
                function = self._functions[launch.function]
                self.device.launch(function, blocks, launch.threads, arguments)

    def has_spaces(self, low: Lowered) -> bool:
        """Whether calls of a kernel share memory beside their slots."""
        return bool(self._spaces[low.kernel.name])

    def _workspaces(self, low: Lowered) -> list[Memory]:
        """What a kernel needs behind its slots; its calls use it one after the other.

        Raises:
          MemoryError: there is not so much left.
        """
        evaluator = Evaluator()
        wanted = self._kernels[id(low)].params[len(low.buffers) :]
        return [self.device.allocate(int(evaluator.eval(p.size)) * p.dtype.size) for p in wanted]
