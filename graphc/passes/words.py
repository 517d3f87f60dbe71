"""Right operands of products of 8-bit integers in words, where they can be prepared.

A CPU with dot products of four bytes multiplies unsigned bytes by signed ones: 128 is added to a
signed left operand, and the sums of the right one's columns, times 128, which are prepared too, are
taken off.  One with dot products of two int16 widens both bytes of a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc import dims
from graphc.dtypes import int8, int32, uint8
from graphc.function import Function, with_expanded
from graphc.graph import Operation, Tensor
from graphc.op import ElementOp
from graphc.ops.base import call
from graphc.ops.contraction_integer import BYTES
from graphc.ops.movement_value import int_tensor
from graphc.passes.panels import LEAST_ROWS, WIDTH, rows_of
from graphc.passes.plan import is_view
from graphc.passes.prepare import over_stable
from graphc.passes.trace import trace

SINGLE = 64
"""Columns of a panel for a single row, which needs more sums at once."""
MANY_ROWS = 48
"""For more rows, what is widened where it is read costs more than to widen it in every run."""
SHIFT = 128


@dataclass(frozen=True)
class Words:
    """Replace products by ones over words of ``size`` bytes, of which the CPU has dot products."""

    size: int = BYTES
    width: int = WIDTH
    name: str = "words"

    def run(self, fn: Function) -> Function:
        """The function with other products."""
        size, width = self.size, self.width
        found = over_stable(fn, lambda op: suits(op, size, width))
        return with_expanded(fn, found, lambda op, inputs: in_words(op, inputs, size, width))


def suits(op: Operation, size: int, width: int) -> bool:
    """Whether the right operand is a matrix that comes out even, and the left one lies in rows."""
    if op.type != "MatMulInteger" or op.attrs["adj_x"]:
        return False
    x, sizes = op.inputs[0], op.inputs[1].sizes
    if sizes is None or len(sizes) != 2 or x.sizes is None:
        return False
    source = x.op
    if isinstance(source.definition, ElementOp) and not is_view(source) and trace(x).moves:
        return False
    count = rows_of(op)
    if size != BYTES and count is not None and not LEAST_ROWS <= count <= MANY_ROWS:
        return False
    rows, columns = sizes[::-1] if op.attrs["adj_y"] else sizes
    if not isinstance(rows, int) or not isinstance(columns, int) or not rows or not columns:
        return False
    return rows % size == 0 and columns % width == 0


def in_words(
    op: Operation, inputs: Sequence[Tensor], size: int, width: int
) -> Sequence[Tensor]:
    """The ops in the place of a product."""
    left, right = inputs
    if op.attrs["adj_y"]:
        right = call("Transpose", right, int_tensor([1, 0]))
    *rows, columns = op.outputs[0].sizes or ()
    if dims.product(rows) == 1 and dims.floordiv(columns, SINGLE) * SINGLE == columns:
        width = SINGLE
    words = call("PackWords", right, width=width, size=size)
    if left.dtype.base_dtype is not int8 or size != BYTES:
        return [call("WordsMatMul", left, words)]
    shifted = call("BitwiseXor", call("Cast", left, DstT=uint8), int_tensor(SHIFT, uint8))
    sums = call("Sum", call("Cast", right, DstT=int32), int_tensor(0))
    taken = call("Prepared", call("Mul", sums, int_tensor(SHIFT)))
    return [call("Sub", call("WordsMatMul", shifted, words), taken)]
