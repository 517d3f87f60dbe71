"""Products of 8-bit integers with 32-bit sums: MatMulInteger, as ONNX calls it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.graph import TensorType
from graphc.op import InferContext, Sample, register
from graphc.ops.contraction import BatchMatMulV2


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
