"""Matrix products: MatMul, BatchMatMulV2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.build import create, single
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import ShapeError
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop.ir import ZERO, Expr
from graphc.op import (
    DECLARING,
    Attr,
    ContractionForm,
    ContractionOp,
    ElementContext,
    Gradients,
    InferContext,
    Sample,
    register,
)
from graphc.ops.base import grid, unbroadcast
from graphc.shapes import shape_text

MATRIX_TYPES = (*dtypes.FLOATS, dtypes.int32, dtypes.int64)
TRANSPOSED = {"MatMul": ("transpose_a", "transpose_b"), "BatchMatMulV2": ("adj_x", "adj_y")}
"""The products of matrices, with the attributes that say which operand is transposed."""

Index = tuple[Expr, ...]


def wide_product(x: Any, y: Any) -> Any:
    """NumPy's matrix product, floats accumulated in float64."""
    x, y = np.asarray(x), np.asarray(y)
    if not dtypes.is_float(x.dtype):
        return np.matmul(x, y)
    return np.matmul(x.astype(np.float64), y.astype(np.float64)).astype(x.dtype)


def _inner(ctx: InferContext, a: DimLike, b: DimLike) -> None:
    """Check the sizes that are summed over."""
    if ctx.env is DECLARING:
        ctx.equal(a, b)
        return
    a, b = ctx.env.canonical(a), ctx.env.canonical(b)
    if isinstance(a, int) and isinstance(b, int) and a != b:
        raise ShapeError(
            f"Matrix size-incompatible: In[0]: {shape_text(ctx.sizes(0))}, "
            f"In[1]: {shape_text(ctx.sizes(1))}"
        )
    ctx.equal(a, b)


@register
class MatMul(ContractionOp):
    """The product of two matrices, each transposed first where asked.

    Sums of floats of 16 bits are in float32; integers wrap around in their own type.
    """

    name = "MatMul"
    inputs = "a: T, b: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": MATRIX_TYPES}
    attrs: ClassVar[dict[str, Attr]] = {
        "transpose_a": Attr("bool", False),
        "transpose_b": Attr("bool", False),
    }

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The rows of ``a`` and the columns of ``b``."""
        a, b = ctx.rank(0, 2), ctx.rank(1, 2)
        m, k = a[::-1] if ctx.attrs["transpose_a"] else a
        inner, n = b[::-1] if ctx.attrs["transpose_b"] else b
        _inner(ctx, k, inner)
        return [TensorType(ctx.dtype(0), (m, n))]

    def contraction(self, ctx: ElementContext) -> ContractionForm:
        """``out[m, n] = sum over k of a[m, k] * b[k, n]``."""
        ta, tb = ctx.op.attrs["transpose_a"], ctx.op.attrs["transpose_b"]
        a, b = ctx.sizes(0), ctx.sizes(1)

        def lhs(_: Index, m: Index, k: Index) -> Expr:
            return ctx.operand(0, (k[0], m[0]) if ta else (m[0], k[0]))

        def rhs(_: Index, k: Index, n: Expr) -> Expr:
            return ctx.operand(1, (n, k[0]) if tb else (k[0], n))

        return ContractionForm(
            (), (a[1 if ta else 0],), b[0 if tb else 1], (a[0 if ta else 1],), lhs, rhs,
            lambda _, m, n: (m[0], n),
        )  # fmt: skip

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Products of the gradient with the other matrix."""
        a, b = op.inputs
        return _gradients(
            "MatMul", a, b, grads[0], op.attrs["transpose_a"], op.attrs["transpose_b"],
            ("transpose_a", "transpose_b"),
        )  # fmt: skip

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's, floats accumulated in float64."""
        a, b = (np.asarray(v) for v in inputs)
        return wide_product(
            a.T if attrs["transpose_a"] else a, b.T if attrs["transpose_b"] else b
        )

    def samples(self) -> Iterable[Sample]:
        """All transpositions; vectors as matrices; single elements; sums over nothing."""
        a, b = grid(3, 5), grid(5, 4, low=-1.0)
        for ta in (False, True):
            for tb in (False, True):
                attrs = {"transpose_a": ta, "transpose_b": tb}
                yield Sample((a.T if ta else a, b.T if tb else b), attrs, rtol=1e-5)
        yield Sample((grid(1, 7), grid(7, 1)), rtol=1e-5, note="inner product")
        yield Sample((grid(4, 1), grid(1, 6)), rtol=1e-5, note="outer product")
        yield Sample((grid(1, 1), grid(1, 1)), note="size 1")
        yield Sample((grid(19, 33), grid(33, 21)), grad=(), rtol=1e-4, note="several tiles")
        yield Sample((np.zeros((0, 3)), grid(3, 2)), grad=(), note="no rows")
        yield Sample((np.zeros((2, 0)), np.zeros((0, 3))), grad=(), note="summed nothing")


def _gradients(
    op_name: str, a: Tensor, b: Tensor, g: Tensor | None, ta: bool, tb: bool,
    flags: tuple[str, str],
) -> list[Tensor]:  # fmt: skip
    """The gradients of ``a @ b`` with either transposed."""

    def product(x: Tensor | None, y: Tensor | None, tx: bool, ty: bool) -> Tensor:
        return single(create(op_name, [x, y], {flags[0]: tx, flags[1]: ty}))

    ga = product(b, g, tb, True) if ta else product(g, b, False, not tb)
    gb = product(g, a, True, ta) if tb else product(a, g, not ta, False)
    return [ga, gb]


@register
class BatchMatMulV2(ContractionOp):
    """Products of the matrices in the last two dimensions; the others are broadcast.

    ``adj_x`` and ``adj_y`` transpose the matrices first.
    """

    name = "BatchMatMulV2"
    inputs = "x: T, y: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": MATRIX_TYPES}
    attrs: ClassVar[dict[str, Attr]] = {
        "adj_x": Attr("bool", False),
        "adj_y": Attr("bool", False),
    }

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The broadcast leading sizes, the rows of ``x`` and the columns of ``y``."""
        x, y = ctx.sizes(0), ctx.sizes(1)
        for sizes in (x, y):
            if sizes is not None and len(sizes) < 2:
                raise ctx.error(f"Shape must be at least rank 2 but is rank {len(sizes)}")
        if x is None or y is None:
            return [TensorType(ctx.dtype(0), None)]
        m, k = x[:-3:-1] if ctx.attrs["adj_x"] else x[-2:]
        inner, n = y[:-3:-1] if ctx.attrs["adj_y"] else y[-2:]
        batch = ctx.broadcast(x[:-2], y[:-2])
        assert batch is not None
        _inner(ctx, k, inner)
        return [TensorType(ctx.dtype(0), (*batch, m, n))]

    def contraction(self, ctx: ElementContext) -> ContractionForm:
        """``out[b.., m, n] = sum over k of x[b.., m, k] * y[b.., k, n]``."""
        adj_x, adj_y = ctx.op.attrs["adj_x"], ctx.op.attrs["adj_y"]
        x, y, out = ctx.sizes(0), ctx.sizes(1), ctx.out_sizes()

        def batch_index(sizes: tuple[DimLike, ...], b: Index) -> Index:
            tail = b[len(b) - len(sizes) + 2 :]
            return tuple(ZERO if s == 1 else i for s, i in zip(sizes[:-2], tail, strict=True))

        def lhs(b: Index, m: Index, k: Index) -> Expr:
            at = (k[0], m[0]) if adj_x else (m[0], k[0])
            return ctx.operand(0, (*batch_index(x, b), *at))

        def rhs(b: Index, k: Index, n: Expr) -> Expr:
            at = (n, k[0]) if adj_y else (k[0], n)
            return ctx.operand(1, (*batch_index(y, b), *at))

        return ContractionForm(
            out[:-2], (x[-1 if adj_x else -2],), y[-2 if adj_y else -1],
            (x[-2 if adj_x else -1],), lhs, rhs, lambda b, m, n: (*b, m[0], n),
        )  # fmt: skip

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Products of the gradient with the other operand, summed where it was broadcast."""
        x, y = op.inputs
        gx, gy = _gradients(
            "BatchMatMulV2", x, y, grads[0], op.attrs["adj_x"], op.attrs["adj_y"],
            ("adj_x", "adj_y"),
        )  # fmt: skip
        return [unbroadcast(gx, x), unbroadcast(gy, y)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's, floats accumulated in float64."""
        x, y = (np.asarray(v) for v in inputs)
        return wide_product(
            np.swapaxes(x, -1, -2) if attrs["adj_x"] else x,
            np.swapaxes(y, -1, -2) if attrs["adj_y"] else y,
        )

    def samples(self) -> Iterable[Sample]:
        """All transpositions; leading sizes equal, stretched, missing; nothing."""
        x, y = grid(2, 3, 5), grid(2, 5, 4, low=-1.0)
        for adj_x in (False, True):
            for adj_y in (False, True):
                left = np.swapaxes(x, 1, 2) if adj_x else x
                right = np.swapaxes(y, 1, 2) if adj_y else y
                yield Sample((left, right), {"adj_x": adj_x, "adj_y": adj_y}, rtol=1e-5)
        yield Sample((x, y[:1]), rtol=1e-5, note="stretched")
        yield Sample((x[None], y[:, None]), rtol=1e-5, note="both stretched")
        yield Sample((x[0], y), rtol=1e-5, note="a matrix and several")
        yield Sample((x[0], y[0]), rtol=1e-5, note="matrices")
        yield Sample((np.zeros((0, 3, 5)), y[:1]), grad=(), note="no matrices")
        yield Sample((np.zeros((2, 3, 0)), np.zeros((2, 0, 4))), grad=(), note="summed nothing")
