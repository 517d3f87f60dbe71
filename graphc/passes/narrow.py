"""Products of which only a part is read: the part alone is computed, from a part of an operand.

The gradient of a product of joined operands, say, of which only one is asked for: a recurrent
cell's ``[input, state]``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from graphc import dims
from graphc.dims import DimLike
from graphc.function import Function, Rebuilder
from graphc.graph import Operation, Tensor
from graphc.op import value_sizes
from graphc.ops.base import call
from graphc.ops.contraction import TRANSPOSED
from graphc.ops.indexing import entry_list
from graphc.ops.indexing_spec import from_front
from graphc.ops.movement_value import int_tensor

SOURCES = {"Slice": 0, "Split": 1, "SplitV": 0, "StridedSlice": 0}
"""Ops that give parts, with the operand of which they do."""


@dataclass(frozen=True)
class Part:
    """A part of a product along one of its last two dimensions.

    ``axis`` counts from the end: -2 for rows, -1 for columns.  ``read`` is the tensor that is it.
    """

    product: Operation
    read: Tensor
    axis: int
    start: int
    size: int


@dataclass(frozen=True)
class NarrowProducts:
    """Replace a part of a product by the product of a part."""

    name: str = "narrow"

    def run(self, fn: Function) -> Function:
        """The function with smaller products; the large ones are dead."""
        parts = _parts(fn)
        if not parts:
            return fn
        rebuilder = Rebuilder(fn)
        for op in fn.operations:
            part = parts.get(op)
            if part is None:
                rebuilder.copy(op)
                continue
            operands = [rebuilder.map[t] for t in part.product.inputs]
            build = functools.partial(_narrowed, part, operands)
            (rebuilder.map[part.read],) = rebuilder.declared(part.product, build)
        return rebuilder.finish()


def _parts(fn: Function) -> dict[Operation, Part]:
    """The operations that read all that is read of a product, with the one part that they take."""
    results = set(fn.results())
    readers: dict[Tensor, set[Operation]] = {}
    for op in fn.operations:
        for t in op.inputs:
            readers.setdefault(t, set()).add(op)
    found = {}
    for op in fn.operations:
        product = op.outputs[0] if op.type in TRANSPOSED else None
        if product is None or product in results or len(readers.get(product, ())) != 1:
            continue
        (reader,) = readers[product]
        used = [t for t in reader.outputs if t in results or t in readers]
        source = SOURCES.get(reader.type)
        if len(used) == 1 and source is not None and reader.inputs[source] is product:
            part = _part(op, used[0])
            if part is not None:
                found[reader] = part
    return found


def _part(product: Operation, read: Tensor) -> Part | None:
    """The part of a product that a tensor is, where that is one of whole rows or columns."""
    whole, sizes = product.outputs[0].sizes, read.sizes
    if whole is None or sizes is None or len(whole) != len(sizes):
        return None
    smaller = [k - len(whole) for k, (a, b) in enumerate(zip(whole, sizes, strict=True)) if a != b]
    starts = _starts(read)
    if len(smaller) != 1 or smaller[0] < -2 or starts is None:
        return None
    size = sizes[smaller[0]]
    if not isinstance(size, int):
        return None
    return Part(product, read, smaller[0], starts[smaller[0]], size)


def _starts(read: Tensor) -> list[int] | None:
    """Where a part begins in every dimension, if that is known."""
    op = read.op
    if op.definition.can_fail(op):
        return None
    if op.type == "Slice":
        return _known(value_sizes(op.inputs[1]))
    if op.type == "StridedSlice":
        return _strided_starts(op)
    axis = _known(value_sizes(op.inputs[0 if op.type == "Split" else 2]))
    if axis is None:
        return None
    before = _known([(t.sizes or (None,))[axis[0]] for t in op.outputs[: read.index]])
    if before is None:
        return None
    starts = [0] * len(read.sizes or ())
    starts[axis[0]] = sum(before)
    return starts


def _strided_starts(op: Operation) -> list[int] | None:
    """Where a slice that keeps all dimensions, and the order, begins in every one."""
    whole = op.inputs[0].sizes or ()
    begins = _known(value_sizes(op.inputs[1]))
    found = entry_list(op, 1, len(whole))
    if begins is None or any(e.shrink or e.source is None or e.stride != 1 for e in found):
        return None
    starts: list[DimLike] = []
    for entry, size in zip(found, whole, strict=True):
        begin = 0
        if entry.position is not None and not entry.begin_masked:
            begin = begins[entry.position]
        starts.append(dims.maximum(0, from_front(begin, size)))
    return _known(starts)


def _known(sizes: Sequence[DimLike | None] | None) -> list[int] | None:
    """The sizes, if all of them are numbers."""
    found = [s for s in sizes or () if isinstance(s, int)]
    return found if sizes is not None and len(found) == len(sizes) else None


def _narrowed(part: Part, operands: Sequence[Tensor]) -> list[Tensor]:
    """The product of a part of the left operand's rows, or of the right one's columns."""
    op = part.product
    which = 0 if part.axis == -2 else 1
    exchanged = op.attrs[TRANSPOSED[op.type][which]]
    rank = len(operands[which].sizes or ())
    axis = rank + (-3 - part.axis if exchanged else part.axis)
    begin, size = [0] * rank, [-1] * rank
    begin[axis], size[axis] = part.start, part.size
    inputs = list(operands)
    inputs[which] = call("Slice", operands[which], int_tensor(begin), int_tensor(size))
    return [call(op.type, *inputs, **op.attrs)]
