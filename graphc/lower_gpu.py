"""Templates for GPUs: products get a schedule of their own, others a thread for each iteration."""

from __future__ import annotations

from collections.abc import Callable

from graphc.dims import product
from graphc.kernels.grid import contraction_grid
from graphc.kernels.grid_attention import attention_grid
from graphc.kernels.grid_attention_gradient import attention_gradient_grid
from graphc.kernels.grid_attention_gradient_tensor import attention_gradient_tensor_grid
from graphc.kernels.grid_attention_tensor import attention_tensor_grid
from graphc.kernels.grid_library import LibraryProduct, library_product
from graphc.kernels.grid_positions import positions_grid
from graphc.kernels.grid_scan import scan_grid
from graphc.kernels.grid_scatter import scatter_add_grid
from graphc.kernels.grid_sort import first_sorted_grid
from graphc.kernels.grid_windows import windows_grid
from graphc.loop.gpu_grid import GpuTarget
from graphc.loop.gpu_template import thread_per_iteration
from graphc.loop.ir import Buffer, Kernel
from graphc.lower_operands import Reader
from graphc.lower_template import TemplateLowering, delinearize


def grid_template(
    template: TemplateLowering, build: Callable[[], Kernel], target: GpuTarget
) -> Callable[[], Kernel]:
    """What builds a template's kernel for a GPU; ``build`` makes the one for CPUs."""
    problem, op = template.contracted, template.group.template
    assert op is not None
    params, scalars = tuple(template.buffers.values()), tuple(template.symbols.values())
    if problem is not None:
        return lambda: contraction_grid(template.name, params, scalars, problem, target)
    kind = getattr(op.definition, "template", None)
    reader, out = Reader(template, op, 0), template.buffer(op.outputs[0])
    if kind == "positions":
        shape, found = op.inputs[0].sizes, op.outputs[0].sizes
        assert shape is not None
        assert found is not None
        return lambda: positions_grid(
            template.name, params, scalars, size=template.size(product(shape)),
            count=template.size(found[0]), target=target, out=out,
            condition=lambda flat: reader.operand(0, delinearize(template, flat, shape)),
        )  # fmt: skip
    if kind == "attention":
        shape_of = template.attended
        assert shape_of is not None
        return lambda: (
            attention_tensor_grid(template.name, params, scalars, shape_of, target)
            or attention_grid(template.name, params, scalars, shape_of, target)
            or thread_per_iteration(build(), target)
        )
    if kind == "attention_gradient":
        gradient_of = template.descended
        assert gradient_of is not None
        return lambda: (
            attention_gradient_tensor_grid(template.name, params, scalars, gradient_of, target)
            or attention_gradient_grid(template.name, params, scalars, gradient_of, target)
            or thread_per_iteration(build(), target)
        )
    rows: dict[str | None, Callable[..., Kernel | None]] = {
        "scan": scan_grid, "first_sorted": first_sorted_grid, "scatter_add": scatter_add_grid
    }  # fmt: skip
    row = rows.get(kind)
    if row is not None:
        return lambda: (
            row(template.name, params, scalars, **template.arguments, target=target)
            or thread_per_iteration(build(), target)
        )
    if kind == "windows":
        return _windows(template, reader, out, target)
    return lambda: thread_per_iteration(build(), target)


def template_library(template: TemplateLowering, target: GpuTarget) -> LibraryProduct | None:
    """A template's contraction as a library can compute it; None if none can."""
    problem, op = template.contracted, template.group.template
    if problem is None:
        return None
    assert op is not None
    return library_product(
        f"{template.name}_rest", tuple(template.buffers.values()),
        tuple(template.symbols.values()), problem, op.outputs[0].dtype.base_dtype, target,
    )  # fmt: skip


def _windows(
    template: TemplateLowering, reader: Reader, out: Buffer, target: GpuTarget
) -> Callable[[], Kernel]:
    """Products added up where the taps of windows fall on an image."""
    params, scalars = tuple(template.buffers.values()), tuple(template.symbols.values())
    shape = template.windows_on_images(reader)
    return lambda: windows_grid(
        template.name, params, scalars, windows=shape, target=target, out=out,
        gradient=lambda *at: reader.operand(0, at), weight=lambda *at: reader.operand(1, at),
    )  # fmt: skip
