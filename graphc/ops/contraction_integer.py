"""Products of 8-bit integers with 32-bit sums: MatMulInteger, as ONNX calls it.

Where the right operand is of variables alone it lies in words of four bytes or two, as the CPU's
dot products read it (``passes/words.py``): ``PackWords`` makes them, ``WordsMatMul`` multiplies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dtypes import DType
from graphc.graph import TensorType
from graphc.loop import ir
from graphc.op import (
    Attr,
    ContractionForm,
    ContractionOp,
    ElementContext,
    ElementOp,
    InferContext,
    Sample,
    register,
)
from graphc.ops.contraction import BatchMatMulV2

Index = tuple[ir.Expr, ...]
BYTES = 4
"""Bytes of a word, if nothing else is said."""


@register
class MatMulInteger(BatchMatMulV2):
    """Products of int8 or uint8 matrices with int8 ones, their sums in int32.

    The matrices are in the last two dimensions; the others are broadcast.  ``adj_x`` and ``adj_y``
    transpose the matrices first.  Sums are exact as long as an int32 holds them, and wrap around
    beyond, as additions of int32 do: for that, more than 65,000 products must be added up.
    """

    name = "MatMulInteger"
    inputs = "x: T1, y: T2"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {
        "T1": (dtypes.int8, dtypes.uint8),
        "T2": (dtypes.int8,),
    }
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The broadcast leading sizes, the rows of ``x`` and the columns of ``y``, in int32."""
        (product,) = super().infer(ctx)
        return [TensorType(dtypes.int32, product.sizes)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's, in int64, cut down to int32."""
        x, y = (np.asarray(v).astype(np.int64) for v in inputs)
        x = np.swapaxes(x, -1, -2) if attrs["adj_x"] else x
        y = np.swapaxes(y, -1, -2) if attrs["adj_y"] else y
        return np.matmul(x, y).astype(np.int32)

    def samples(self) -> Iterable[Sample]:
        """Transpositions, broadcast sizes, extreme values, vectors, single elements, nothing."""
        x, y = spread(2, 3, 5), spread(2, 5, 4)
        for adj_x in (False, True):
            for adj_y in (False, True):
                left = np.swapaxes(x, 1, 2) if adj_x else x
                right = np.swapaxes(y, 1, 2) if adj_y else y
                yield Sample((left, right), {"adj_x": adj_x, "adj_y": adj_y})
        yield Sample((x[0], y[0]), note="matrices")
        yield Sample((x, y[:1]), note="stretched")
        yield Sample((x[None], y[:, None]), note="both stretched")
        yield Sample((x[0], y), note="a matrix and several")
        yield Sample((spread(1, 70), spread(70, 33)), note="a row")
        yield Sample((spread(9, 6), spread(6, 1)), note="a column")
        yield Sample((spread(1, 1), spread(1, 1)), note="size 1")
        yield Sample((spread(19, 67), spread(67, 37)), note="several tiles, ends of words")
        for a, b in ((-128, -128), (127, -128), (255, -128), (-128, 127)):
            yield Sample((np.full((3, 9), a), np.full((9, 18), b)), note=f"{a} by {b}")
        yield Sample((np.zeros((0, 3, 5), int), y[:1]), note="no matrices")
        yield Sample((np.zeros((0, 3), int), spread(3, 20)), note="no rows")
        yield Sample((np.zeros((2, 3, 0), int), np.zeros((2, 0, 4), int)), note="summed nothing")


def spread(*shape: int) -> np.ndarray:
    """Integers all over the range of int8."""
    return ((np.arange(np.prod(shape)) * 89 + 17) % 256 - 128).reshape(shape)


@register
class PackWords(ElementOp):
    """The rows of an int8 matrix in words of some: ``[panel, word, column, byte]``.

    ``width`` is the columns of a panel, ``size`` the bytes of a word.
    """

    name = "PackWords"
    inputs = "y: int8"
    attrs: ClassVar[dict[str, Attr]] = {"width": Attr("int"), "size": Attr("int", BYTES)}
    differentiable = False
    prepared = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """As many words and panels as there are, without a rest."""
        (rows, columns), width, size = ctx.rank(0, 2), ctx.attrs["width"], ctx.attrs["size"]
        if width < 1 or size < 1:
            raise ctx.error(f"{rows} rows and {columns} columns make no panels of {size} x {width}")
        words, count = dims.floordiv(rows, size), dims.floordiv(columns, width)
        ctx.equal(words * size, rows, f"Rows must make words of {size}")
        ctx.equal(count * width, columns, f"Columns must make panels of {width}")
        return [TensorType(dtypes.int8, (count, words, width, size))]

    def element(self, ctx: ElementContext, index: Index) -> ir.Expr:
        """The element of the word and the panel."""
        panel, word, lane, byte = index
        row = ir.add(ir.mul(word, ctx.op.attrs["size"]), byte)
        column = ir.add(ir.mul(panel, ctx.op.attrs["width"]), lane)
        return ctx.operand(0, (row, column))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's reshape and transpose."""
        y, width, size = np.asarray(inputs[0]), attrs["width"], attrs["size"]
        parts = y.reshape(y.shape[0] // size, size, y.shape[1] // width, width)
        return parts.transpose(2, 0, 3, 1)

    def samples(self) -> Iterable[Sample]:
        """Several panels and words, one of each, nothing."""
        yield Sample((spread(8, 6),), {"width": 3})
        yield Sample((spread(4, 2),), {"width": 2}, note="one")
        yield Sample((spread(6, 8),), {"width": 4, "size": 2}, note="pairs")
        yield Sample((np.zeros((0, 4), int),), {"width": 2}, note="empty")


@register
class WordsMatMul(ContractionOp):
    """The product of 8-bit matrices with an int8 one in words, summed in int32."""

    name = "WordsMatMul"
    inputs = "x: T, y: int8"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": (dtypes.uint8, dtypes.int8)}
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The rows of ``x`` and the columns of all panels, in int32."""
        x, (count, words, width, size) = ctx.sizes(0), ctx.rank(1, 4)
        if x is None:
            return [TensorType(dtypes.int32, None)]
        if len(x) < 2:
            raise ctx.error(f"Shape must be at least rank 2 but is rank {len(x)}")
        ctx.equal(x[-1], words * size, "In[0] and In[1] have mismatched inner sizes")
        return [TensorType(dtypes.int32, (*x[:-1], count * width))]

    def contraction(self, ctx: ElementContext) -> ContractionForm:
        """Panels are like the matrices of a batch; ``k`` is words and their bytes."""
        x, (count, words, width, size) = ctx.sizes(0), ctx.sizes(1)

        def lhs(_: Index, m: Index, k: Index) -> ir.Expr:
            return ctx.operand(0, (*m, ir.add(ir.mul(k[0], ctx.size(size)), k[1])))

        def rhs(b: Index, k: Index, n: ir.Expr) -> ir.Expr:
            return ctx.operand(1, (*b, k[0], n, k[1]))

        def index(b: Index, m: Index, n: ir.Expr) -> Index:
            return (*m, ir.add(ir.mul(b[0], ctx.size(width)), n))

        return ContractionForm((count,), x[:-1], width, (words, size), lhs, rhs, index)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's product with the matrix put together again, in int64, cut down to int32."""
        x, words = (np.asarray(v).astype(np.int64) for v in inputs)
        count, height, width, size = words.shape
        matrix = words.transpose(1, 3, 0, 2).reshape(height * size, count * width)
        return np.matmul(x, matrix).astype(np.int32)

    def samples(self) -> Iterable[Sample]:
        """Several rows and panels, several matrices, one of each, nothing."""
        x, y = spread(5, 8), spread(2, 2, 16, 4)
        yield Sample((x, y))
        yield Sample((spread(1, 12), spread(1, 3, 64, 4)), note="one row")
        yield Sample((spread(2, 3, 8), y), note="several matrices")
        yield Sample((spread(40, 8), y), note="several tiles")
        yield Sample((spread(7, 12), spread(2, 6, 16, 2)), note="pairs")
        yield Sample((spread(7, 12), spread(2, 4, 16, 3)), note="words of three")
        yield Sample((np.zeros((0, 8), int), y), note="no rows")
