"""Right operands of products of 8-bit integers in words of four, where they can be prepared.

The CPU multiplies unsigned bytes by signed ones: 128 is added to a signed left operand, and the
sums of the right one's columns, times 128, which are prepared too, are taken off.
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
from graphc.passes.plan import is_view
from graphc.passes.prepare import over_stable
from graphc.passes.trace import trace

WIDTHS = (32, 64)
"""Columns of a panel for several rows, and for a single one, which needs more sums at once."""
SHIFT = 128


@dataclass(frozen=True)
class Words:
    """Replace products by ones over words, for a CPU that has dot products of them."""

    name: str = "words"
    outermost: bool = True

    def run(self, fn: Function) -> Function:
        """The function with other products."""
        return with_expanded(fn, over_stable(fn, suits), in_words)


def suits(op: Operation) -> bool:
    """Whether the right operand is a matrix that comes out even, and the left one lies in rows."""
    if op.type != "MatMulInteger" or op.attrs["adj_x"]:
        return False
    x, sizes = op.inputs[0], op.inputs[1].sizes
    if sizes is None or len(sizes) != 2 or x.sizes is None:
        return False
    source = x.op
    if isinstance(source.definition, ElementOp) and not is_view(source) and trace(x).moves:
        return False
    rows, columns = sizes[::-1] if op.attrs["adj_y"] else sizes
    if not isinstance(rows, int) or not isinstance(columns, int) or not rows or not columns:
        return False
    return rows % BYTES == 0 and columns % WIDTHS[0] == 0


def in_words(op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """The ops in the place of a product."""
    left, right = inputs
    if op.attrs["adj_y"]:
        right = call("Transpose", right, int_tensor([1, 0]))
    *rows, columns = op.outputs[0].sizes or ()
    single = dims.product(rows) == 1 and dims.floordiv(columns, WIDTHS[1]) * WIDTHS[1] == columns
    width = WIDTHS[1] if single else WIDTHS[0]
    words = call("PackWords", right, width=width)
    if left.dtype.base_dtype is not int8:
        return [call("WordsMatMul", left, words)]
    shifted = call("BitwiseXor", call("Cast", left, DstT=uint8), int_tensor(SHIFT, uint8))
    sums = call("Sum", call("Cast", right, DstT=int32), int_tensor(0))
    taken = call("Prepared", call("Mul", sums, int_tensor(SHIFT)))
    return [call("Sub", call("WordsMatMul", shifted, words), taken)]
