"""Right operands of products brought into panels, where they can be prepared.

A product of several rows takes as long as its right operand takes to come from memory, and that
comes faster in one run than row by row.  One of many rows is spared the packing of every run.
A single row reads wide pieces of rows, which come as fast as they lie.

Prepared is what is the same in every run, or in every turn of a loop, and what several products
read (the weights of a recurrent cell, in a loop or in a row of steps).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphc import dims
from graphc.dtypes import float32, float64
from graphc.function import Function, with_expanded
from graphc.graph import Operation, Tensor
from graphc.ops.base import call
from graphc.ops.movement_value import int_tensor
from graphc.passes.prepare import over_stable

LEAST_BYTES = 128 << 10
"""A smaller operand stays in a cache from run to run."""
LEAST_ROWS = 3
LEAST_READERS = 4
"""So many products of one operand, brought into panels in the run, make up for it."""
WIDTH = 32
"""Columns of a panel of float32, two vectors: as many as a register tile has, so that each row of a
panel is read whole. Of float64 it has half as many."""
PLAIN = {"MatMul": "PanelMatMul", "BatchMatMulV2": "PanelMatMul", "Conv2DCore": "PanelConv2D",
         "WinogradProduct": "PanelWinogradProduct"}  # fmt: skip


@dataclass(frozen=True)
class Panels:
    """Replace products by ones over panels of ``width`` columns of float32."""

    width: int = WIDTH
    name: str = "panels"

    def run(self, fn: Function) -> Function:
        """The function with other products."""
        width = self.width
        found = set(over_stable(fn, lambda op: suits(op, width)))
        rest = [op for op in fn.operations if op not in found and suits(op, width)]
        found.update(over_shared(rest))
        return with_expanded(fn, found, lambda op, inputs: in_panels(op, inputs, width))


def suits(op: Operation, width: int) -> bool:
    """Whether panels of the right operand pay, and come out even."""
    if op.type not in PLAIN:
        return False
    right, out = op.inputs[1], op.outputs[0]
    sizes = right.sizes or ()
    if out.dtype.base_dtype not in (float32, float64) or op.attrs.get("transpose_a"):
        return False
    if op.attrs.get("groups", 1) != 1 or op.attrs.get("adj_x"):
        return False
    if op.type == "BatchMatMulV2" and len(op.inputs[0].sizes or ()) != 2:
        return False
    count = dims.product(sizes)
    if not isinstance(count, int) or count * out.dtype.base_dtype.size < LEAST_BYTES:
        return False
    rows = rows_of(op)
    columns = (out.sizes or ())[-1]
    several = rows is None or rows >= LEAST_ROWS
    return several and isinstance(columns, int) and columns % columns_of(op, width) == 0


def over_shared(products: Iterable[Operation]) -> list[Operation]:
    """The products of which several have one right operand, that they all read one way."""
    readers: dict[tuple[Tensor, bool], list[Operation]] = {}
    for op in products:
        readers.setdefault((op.inputs[1], is_turned(op)), []).append(op)
    return [op for ops in readers.values() if len(ops) >= LEAST_READERS for op in ops]


def is_turned(op: Operation) -> bool:
    """Whether a product reads its right operand transposed."""
    return bool(op.attrs.get("transpose_b") or op.attrs.get("adj_y"))


def columns_of(op: Operation, width: int) -> int:
    """The columns of its panels, if those of float32 have ``width``."""
    return width * float32.size // op.outputs[0].dtype.base_dtype.size


def rows_of(op: Operation) -> int | None:
    """The rows of the product, if they are known."""
    sizes = op.outputs[0].sizes or ()
    apart = {"WinogradProduct": slice(2, 3), "BatchMatMulV2": slice(-2, -1)}
    count = dims.product(sizes[apart.get(op.type, slice(-1))])
    return count if isinstance(count, int) else None


def in_panels(op: Operation, inputs: Sequence[Tensor], width: int) -> Sequence[Tensor]:
    """The ops in the place of a product."""
    left, right = inputs
    if is_turned(op):
        *outer, k, n = range(len(right.sizes or ()))
        right = call("Transpose", right, int_tensor([*outer, n, k]))
    packed = call("PackColumns", right, width=columns_of(op, width))
    attrs = {k: op.attrs[k] for k in ("strides", "dilations") if k in op.attrs}
    return [call(PLAIN[op.type], left, packed, **attrs)]
