"""From a fused group to a loop kernel: the only bridge between graph and loop.

A loop group becomes a *naive* kernel (plain nested loops over its frame, stages in order) that the
target's schedule makes fast; a template's group is built by :mod:`graphc.kernels` with the group's
inlined operands as prologue and its members as epilogue.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping

from graphc.dims import DimLike, Symbol, product
from graphc.errors import CompileError, VerifyError
from graphc.graph import Operation, Tensor
from graphc.kernels import emit
from graphc.kernels.contraction import other_tiles
from graphc.kernels.grid_library import LibraryProduct
from graphc.kernels.tiling import Tiles
from graphc.loop.cpu import schedule_cpu
from graphc.loop.cpu_stream import stream
from graphc.loop.gpu import GpuTarget, schedule_gpu
from graphc.loop.ir import Kernel
from graphc.loop.printer import format_unnamed
from graphc.loop.verify import verify_kernel
from graphc.lower_cost import Cost, kernel_cost
from graphc.lower_gpu import grid_template, template_library
from graphc.lower_host import HostPart
from graphc.lower_loops import LoopLowering
from graphc.lower_operands import GroupOperands, Lowering, Reader, Site
from graphc.lower_template import TemplateLowering
from graphc.op import ContractionOp
from graphc.passes.plan import Group, is_literal

__all__ = ["Lowered", "Lowering", "Site", "lower_group"]


class Lowered:
    """A kernel and what to bind its parameters to.

    The kernel itself is built when it is first asked for: a program whose code is in the cache
    never asks.

    Attributes:
      name: the kernel's name.
      buffers: the storage root of each parameter, in order.
      writes: those that the kernel writes.
      symbols: the sizes of the kernel's scalar parameters, in order.
      fallible: whether a run of it can fail.
      work: roughly the bytes and operations of one run.
      streamed: those that a fast version writes past the caches; it needs them on a cache line.
      has_fast: whether there is a version for the sizes that were seen first.
      tiles: of a contraction for known sizes, those that were found to be best; None for what the
        template estimates.
      twin: another one with the same kernels, which are built once and have its name.
    """

    def __init__(self, lowering: Lowering, group: Group, name: str) -> None:
        self.name = name
        self._lowering = lowering
        self._group = group
        first, self._build = prepare(lowering, group, name)
        self.buffers = list(first.buffers)
        self.writes = list(first.writes)
        self.symbols = list(first.symbols)
        self.fallible = first.fallible
        self.work = work(first)
        self._template = first if isinstance(first, TemplateLowering) else None
        self.twin: Lowered | None = None
        self.tiles: Tiles | None = None
        self.streamed: list[Tensor] = []
        self.has_fast = group.template is not None and bool(self.symbols) and self._hinted()

    def _hinted(self) -> bool:
        """Whether a fast version is worth having; a GPU's kernels take every size alike."""
        if isinstance(self._lowering.target, GpuTarget):
            return False
        return all(s in self._lowering.hints for s in self.symbols)

    def stream(self, root: Tensor) -> None:
        """Let the fast version write a result past the caches, if a loop nest computes it."""
        if self._group.template is None and self._hinted():
            self.streamed.append(root)
            self.has_fast = True
            self.__dict__.pop("_fast", None)

    @property
    def kernel(self) -> Kernel:
        """The scheduled kernel."""
        # A twin keeps none: the other one's may be built again, by other tiles.
        if self.twin is None:
            return self._kernel
        if self._lowering.verify and self._unnamed != self.twin._unnamed:
            raise VerifyError(f"kernel {self.name} is not {self.twin.name}:\n{self._unnamed}")
        return self.twin.kernel

    @functools.cached_property
    def _kernel(self) -> Kernel:
        if self.tiles is not None and not self.has_fast:
            return self.tiled(self.name, self.tiles)
        emit.restart()
        return self._verified(self._build())

    @functools.cached_property
    def library(self) -> LibraryProduct | None:
        """What a library can compute of it; None if nothing, and on a CPU."""
        if self.twin is not None:
            return self.twin.library
        target = self._lowering.target
        if self._template is None or not isinstance(target, GpuTarget):
            return None
        emit.restart()
        found = template_library(self._template, target)
        if found is not None and found.epilogue is not None:
            self._verified(found.epilogue)
        return found

    @property
    def hints(self) -> Mapping[Symbol, int]:
        """The sizes seen first."""
        return self._lowering.hints

    def retile(self, tiles: Tiles | None) -> None:
        """Take these tiles for the sizes that are known."""
        self.tiles = tiles
        self.__dict__.pop("_fast", None)
        if not self.has_fast:
            self.__dict__.pop("_kernel", None)

    def other_tiles(self) -> list[Tiles]:
        """What may be better than the estimate, where a contraction's sizes are known."""
        template = self._group.template
        if template is None or not isinstance(template.definition, ContractionOp):
            return []
        if self.symbols and not self.has_fast:
            return []
        second, _ = self._for_known_sizes(self.name)
        assert isinstance(second, TemplateLowering)
        assert second.contracted is not None
        return other_tiles(second.contracted, self._lowering.target)

    def tiled(self, name: str, tiles: Tiles | None) -> Kernel:
        """The kernel for known sizes, by these tiles."""
        second, build = self._for_known_sizes(name)
        assert isinstance(second, TemplateLowering)
        second.tiles = tiles
        emit.restart()
        return self._verified(build())

    def _for_known_sizes(self, name: str) -> tuple[GroupOperands, Callable[[], Kernel]]:
        hints = self._lowering.hints if self.has_fast else None
        second, build = prepare(
            self._lowering, self._group, name, hints, self.streamed, self.buffers
        )
        if list(second.buffers) != self.buffers or (hints and second.symbols):
            raise CompileError(f"kernel {self.name}: its fast version has other parameters")
        return second, build

    @functools.cached_property
    def _unnamed(self) -> str:
        """The kernel, built for itself, by a text in which names do not count."""
        emit.restart()
        return format_unnamed(self._build())

    @property
    def fast(self) -> Kernel | None:
        """The kernel for the sizes that were seen first, as constants: it takes no scalars."""
        if not self.has_fast:
            return None
        return self._fast if self.twin is None else self.twin.fast

    @functools.cached_property
    def _fast(self) -> Kernel:
        if self.tiles is not None:
            return self.tiled(f"{self.name}_fast", self.tiles)
        second, build = self._for_known_sizes(f"{self.name}_fast")
        emit.restart()
        kernel = build()
        if self.streamed:
            kernel = stream(kernel, [second.buffers[t] for t in self.streamed])
        return self._verified(kernel)

    @functools.cached_property
    def host_part(self) -> HostPart:
        """What of it a host can compute beside a device."""
        return HostPart(self._lowering, self._group)

    def cost(self, sizes: Mapping[Symbol, int]) -> Cost:
        """What one call has to do where the symbols have these values."""
        return kernel_cost(self._lowering, self._group, sizes)

    @property
    def operations(self) -> list[Operation]:
        """The user's operations that the kernel computes, in the order of their dependencies."""
        origin = self._lowering.origin
        found: dict[Operation, None] = {}
        stack = [(t.op, False) for t in reversed(self._group.tensors)]
        while stack:
            op, complete = stack.pop()
            if complete:
                found[op] = None
            elif op not in found:
                stack.append((op, True))
                stack += [(t.op, False) for t in reversed(op.inputs) if self._computes(t)]
        return list(dict.fromkeys(origin.get(op.name, op) for op in found))

    def _computes(self, tensor: Tensor) -> bool:
        """Whether the kernel computes a tensor where it reads it."""
        plan = self._lowering.plan
        inside = tensor in plan.inlined or tensor in plan.aliases
        return inside and not is_literal(tensor) and tensor.op.type != "Placeholder"

    def _verified(self, kernel: Kernel) -> Kernel:
        if self._lowering.verify:
            try:
                verify_kernel(kernel)
            except VerifyError as e:
                operations = ", ".join(t.op.name for t in self._group.tensors)
                raise VerifyError(f"lowering of {operations}: {e}") from e
        return kernel


def prepare(
    lowering: Lowering, group: Group, name: str,
    hints: dict[Symbol, int] | None = None, streamed: Collection[Tensor] = (),
    order: Collection[Tensor] = (),
) -> tuple[GroupOperands, Callable[[], Kernel]]:
    """The settled parameters of a group's kernel, and what builds it.

    Loops that write past the caches come upon their buffers in another ``order`` than others.
    """
    if group.template is not None:
        template = TemplateLowering(lowering, group, name, hints)
        build = template.prepare()
        if isinstance(lowering.target, GpuTarget):
            return template, grid_template(template, build, lowering.target)
        return template, build
    loops = LoopLowering(lowering, group, name, hints, streamed)
    body = loops.loops()
    if loops.buffers.keys() == set(order):
        loops.buffers = {t: loops.buffers[t] for t in order}
    params, scalars = tuple(loops.buffers.values()), tuple(loops.symbols.values())
    kernel = Kernel(name, params, scalars, body)
    if not lowering.scheduled:
        return loops, lambda: kernel
    if isinstance(lowering.target, GpuTarget):
        return loops, lambda: schedule_gpu(kernel, lowering.target)
    return loops, lambda: schedule_cpu(kernel, lowering.target)


def work(operands: GroupOperands) -> DimLike:
    """Roughly the bytes and operations of one run, for choosing how to run it."""
    group = operands.group
    op = group.template
    if op is not None and isinstance(op.definition, ContractionOp):
        form = op.definition.contraction(Reader(operands, op, 0))
        read = product((*form.batch, form.n, *form.k))
        return product(form.m) * read // 2 + 4 * read
    return product(group.frame) * 4 * (1 + len(group.members))


def lower_group(lowering: Lowering, group: Group, name: str) -> Lowered:
    """The kernel of one group; a template gets a fast version for the sizes seen first, too."""
    return Lowered(lowering, group, name)
