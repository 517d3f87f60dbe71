"""Products whose right operand lies in panels: some columns, one step of ``k`` after the other.

A product reads its right operand from far away, or packs it in every run.  In panels it is read in
one long run; where it is of variables alone, a session keeps it so (``passes/panels.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike
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
from graphc.ops.base import grid
from graphc.ops.contraction import wide_product
from graphc.ops.conv_core import SPATIAL, check_pairs, forward_reference
from graphc.ops.conv_window import Index, slide

FLOATS: dict[str, tuple[DType, ...]] = {"T": dtypes.FLOATS}


def panels(x: np.ndarray, width: int) -> np.ndarray:
    """The last dimension in panels of ``width``, which come first."""
    return np.moveaxis(x.reshape(*x.shape[:-1], x.shape[-1] // width, width), -2, 0)


def columns(x: np.ndarray) -> np.ndarray:
    """The reverse of :func:`panels`."""
    moved = np.moveaxis(x, 0, -2)
    return moved.reshape(*moved.shape[:-2], moved.shape[-2] * moved.shape[-1])


@register
class PackColumns(ElementOp):
    """The last dimension of an operand in panels of ``width``: ``[panel, ..., column]``."""

    name = "PackColumns"
    inputs = "x: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = FLOATS
    attrs: ClassVar[dict[str, Attr]] = {"width": Attr("int")}
    differentiable = False
    prepared = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """As many panels as the columns make, without a rest."""
        sizes, width = ctx.sizes(0), ctx.attrs["width"]
        if width < 1 or (sizes is not None and not sizes):
            raise ctx.error(f"{sizes} has no columns for panels of {width}")
        if sizes is None:
            return [TensorType(ctx.dtype(0), None)]
        count = dims.floordiv(sizes[-1], width)
        ctx.equal(count * width, sizes[-1], f"Columns must make panels of {width}")
        return [TensorType(ctx.dtype(0), (count, *sizes[:-1], width))]

    def element(self, ctx: ElementContext, index: Index) -> ir.Expr:
        """The column of the panel."""
        panel, *row, lane = index
        column = ir.add(ir.mul(panel, ctx.op.attrs["width"]), lane)
        return ctx.operand(0, (*row, column))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's reshape and transpose."""
        return panels(np.asarray(inputs[0]), attrs["width"])

    def samples(self) -> Iterable[Sample]:
        """Matrices, filters, a vector, nothing."""
        yield Sample((grid(3, 8),), {"width": 4})
        yield Sample((grid(2, 3, 4, 6),), {"width": 2})
        yield Sample((grid(6),), {"width": 6}, note="one panel")
        yield Sample((np.zeros((0, 4)),), {"width": 2}, note="empty")


class _Panels(ContractionOp):
    types: ClassVar[dict[str, tuple[DType, ...]]] = FLOATS
    differentiable = False


def _column(panel: ir.Expr, lane: ir.Expr, width: DimLike, ctx: ElementContext) -> ir.Expr:
    return ir.add(ir.mul(panel, ctx.size(width)), lane)


@register
class PanelMatMul(_Panels):
    """The product of a matrix with one in panels, or with each of several."""

    name = "PanelMatMul"
    inputs = "a: T, b: T"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The rows of ``a`` and the columns of all panels, for each matrix."""
        (m, k), right = ctx.rank(0, 2), ctx.sizes(1)
        if right is None:
            return [TensorType(ctx.dtype(0), None)]
        if len(right) < 3:
            raise ctx.error(f"Shape must be at least rank 3 but is rank {len(right)}")
        count, *several, inner, width = right
        ctx.equal(k, inner, "In[0] and In[1] have mismatched inner sizes")
        return [TensorType(ctx.dtype(0), (*several, m, count * width))]

    def contraction(self, ctx: ElementContext) -> ContractionForm:
        """Panels are like the matrices of a batch, too."""
        (rows, depth), (*batch, _, width) = ctx.sizes(0), ctx.sizes(1)

        def lhs(_: Index, m: Index, k: Index) -> ir.Expr:
            return ctx.operand(0, (*m, *k))

        def rhs(b: Index, k: Index, n: ir.Expr) -> ir.Expr:
            return ctx.operand(1, (*b, *k, n))

        def index(b: Index, m: Index, n: ir.Expr) -> Index:
            return (*b[1:], *m, _column(b[0], n, width, ctx))

        return ContractionForm(tuple(batch), (rows,), width, (depth,), lhs, rhs, index)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's product with the columns put back."""
        return wide_product(np.asarray(inputs[0]), columns(np.asarray(inputs[1])))

    def samples(self) -> Iterable[Sample]:
        """Several rows and panels, one, several matrices, nothing."""
        yield Sample((grid(5, 7), grid(3, 7, 4)), rtol=1e-5)
        yield Sample((grid(1, 7), grid(2, 7, 32)), rtol=1e-5, note="one row")
        yield Sample((grid(40, 9), grid(2, 9, 64)), rtol=1e-5, note="several tiles")
        yield Sample((grid(5, 7), grid(2, 3, 7, 4)), rtol=1e-5, note="several matrices")
        yield Sample((np.zeros((0, 3)), grid(2, 3, 2)), note="no rows")
        yield Sample((np.zeros((2, 0)), np.zeros((2, 0, 2))), note="summed nothing")


@register
class PanelConv2D(_Panels):
    """A convolution of an image (NHWC) that needs no padding with a filter (HWIO) in panels."""

    name = "PanelConv2D"
    inputs = "input: T, filter: T"
    attrs: ClassVar[dict[str, Attr]] = SPATIAL

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The places of the window and the columns of all panels."""
        image, (count, *taps, depth, width) = ctx.rank(0, 4), ctx.rank(1, 5)
        check_pairs(ctx, "strides", "dilations")
        ctx.equal(image[3], depth, "Numbers of channels must be equal")
        places = [
            slide(s, k, stride, dilation).out
            for s, k, stride, dilation in zip(
                image[1:3], taps, ctx.attrs["strides"], ctx.attrs["dilations"], strict=True
            )
        ]
        if any(isinstance(place, int) and place < 0 for place in places):
            raise ctx.error(f"The window {taps} is larger than the image {image[1:3]}")
        return [TensorType(ctx.dtype(0), (image[0], *places, count * width))]

    def contraction(self, ctx: ElementContext) -> ContractionForm:
        """Rows are the places; panels are like the matrices of a batch."""
        (sh, sw), (dh, dw) = ctx.op.attrs["strides"], ctx.op.attrs["dilations"]
        (count, kh, kw, depth, width), out = ctx.sizes(1), ctx.out_sizes()

        def lhs(_: Index, m: Index, k: Index) -> ir.Expr:
            h = ir.add(ir.mul(m[1], sh), ir.mul(k[0], dh))
            w = ir.add(ir.mul(m[2], sw), ir.mul(k[1], dw))
            return ctx.operand(0, (m[0], h, w, k[2]))

        def rhs(b: Index, k: Index, n: ir.Expr) -> ir.Expr:
            return ctx.operand(1, (*b, *k, n))

        def index(b: Index, m: Index, n: ir.Expr) -> Index:
            return (*m, _column(b[0], n, width, ctx))

        return ContractionForm((count,), out[:3], width, (kh, kw, depth), lhs, rhs, index)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The convolution with the columns put back."""
        x, f = (np.asarray(v) for v in inputs)
        return forward_reference(x, columns(f), attrs | {"groups": 1}).astype(x.dtype)

    def samples(self) -> Iterable[Sample]:
        """Windows of one and more taps, strides, dilations, nothing."""
        x = grid(2, 6, 7, 4)
        yield Sample((x, grid(3, 3, 2, 4, 5)), rtol=1e-5)
        yield Sample((x, grid(1, 1, 1, 4, 32)), rtol=1e-5, note="pointwise")
        yield Sample((x, grid(2, 2, 3, 4, 2)), {"strides": (2, 3)}, rtol=1e-5)
        yield Sample((x, grid(2, 3, 2, 4, 2)), {"dilations": (2, 3)}, rtol=1e-5)
        yield Sample((np.zeros((0, 3, 3, 2)), grid(2, 2, 2, 2, 3)), note="empty")


@register
class PanelWinogradProduct(_Panels):
    """For each of the 4x4 factors of tiles a product with factors of a filter in panels."""

    name = "PanelWinogradProduct"
    inputs = "input: T, filter: T"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """Factors, tiles, the columns of all panels."""
        tiles, (count, *factors, width) = ctx.rank(0, 4), ctx.rank(1, 5)
        for a, b in zip((*tiles[:2], tiles[3]), factors, strict=True):
            ctx.equal(a, b, "Factors and channels must be equal")
        return [TensorType(ctx.dtype(0), (*tiles[:3], count * width))]

    def contraction(self, ctx: ElementContext) -> ContractionForm:
        """Panels are like the matrices of a batch, as the factors are."""
        tiles, (count, _, _, depth, width) = ctx.sizes(0), ctx.sizes(1)

        def lhs(b: Index, m: Index, k: Index) -> ir.Expr:
            return ctx.operand(0, (*b[:2], *m, *k))

        def rhs(b: Index, k: Index, n: ir.Expr) -> ir.Expr:
            return ctx.operand(1, (b[2], *b[:2], *k, n))

        def index(b: Index, m: Index, n: ir.Expr) -> Index:
            return (*b[:2], *m, _column(b[2], n, width, ctx))

        return ContractionForm(
            (*tiles[:2], count), (tiles[2],), width, (depth,), lhs, rhs, index
        )

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's products with the columns put back, in float64."""
        x, f = (np.asarray(v) for v in inputs)
        return (x.astype(np.float64) @ columns(f).astype(np.float64)).astype(x.dtype)

    def samples(self) -> Iterable[Sample]:
        """Several tiles and panels, nothing."""
        yield Sample((grid(4, 4, 12, 5), grid(2, 4, 4, 5, 6)), rtol=1e-5)
        yield Sample((np.zeros((4, 4, 0, 2)), grid(1, 4, 4, 2, 3)), note="empty")
