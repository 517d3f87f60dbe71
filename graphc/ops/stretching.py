"""Broadcasting of sizes that only a run tells, and of which it may tell that they are 1.

A graph is compiled as if sizes that meet were equal, none 1.  Where a run shows that a late size
(that a branch, a loop or a Python function decides) was 1, the graph is compiled anew with these
ops in front of what broadcasts (:mod:`graphc.passes.extract_stretching`): they look at the sizes
when they run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike, in_order
from graphc.dtypes import DType
from graphc.graph import TensorType
from graphc.loop import ir
from graphc.op import Attr, ElementContext, ElementOp, InferContext, Sample, register
from graphc.ops.base import grid


def joint_size(a: DimLike, b: DimLike) -> DimLike:
    """What two sizes broadcast to that are equal, or of which one is 1."""
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int) or isinstance(b, int):
        return a if isinstance(a, int) else b
    a, b = sorted((a, b), key=in_order)
    # With one of them 0 the other is 0 or 1.
    return dims.maximum(a, b) * dims.minimum(a, 1) * dims.minimum(b, 1)


@register
class Stretch(ElementOp):
    """``x``, where a size of it is 1 repeated up to that of ``like``.

    With ``joint`` the result has the sizes that both broadcast to; without, ``like`` has these
    already.  Of ``like`` nothing but the shape is used; dimensions that only one of them has stay
    as ``x`` has them.
    """

    name = "Stretch"
    inputs = "x: T, like: L"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "L": dtypes.ALL}
    attrs: ClassVar[dict[str, Attr]] = {"joint": Attr("bool", True)}
    shape_operands: ClassVar[tuple[int, ...]] = (1,)
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes of ``x``, joined with those of ``like``."""
        x, like = ctx.sizes(0), ctx.sizes(1)
        if x is None or like is None:
            return [TensorType(ctx.dtype(0), None)]
        front = len(x) - len(like)
        out = [ctx.env.canonical(s) for s in x]
        for i in range(max(front, 0), len(x)):
            size = ctx.env.canonical(like[i - front])
            if isinstance(out[i], int) and isinstance(size, int) and 1 not in {out[i], size}:
                ctx.equal(out[i], size)
            if ctx.attrs["joint"]:
                out[i] = joint_size(out[i], size)
            elif out[i] != 1 or size == 1:
                out[i] = size
        return [TensorType(ctx.dtype(0), tuple(out))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The element at the same place, or the only one there is."""
        return ctx.operand(0, tuple(
            i if a == b else ir.apply("min", i, ctx.size(a) - 1)
            for i, a, b in zip(index, ctx.sizes(0), ctx.out_sizes(), strict=True)
        ))  # fmt: skip

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's broadcast_to."""
        x, like = (np.asarray(v) for v in inputs)
        both = min(x.ndim, like.ndim)
        shape = list(x.shape)
        for i in range(1, both + 1):
            shape[-i] = like.shape[-i] if x.shape[-i] == 1 else x.shape[-i]
        return np.broadcast_to(x, shape)

    def samples(self) -> Iterable[Sample]:
        """Sizes of 1 in ``x``, in ``like``, in both; other ranks; nothing."""
        for a, b in (((1, 4), (3, 4)), ((3, 4), (3, 1)), ((4,), (3, 4)), ((3, 1, 4), (2, 1)),
                     ((1,), (0,)), ((), (3,))):  # fmt: skip
            yield Sample((grid(*a), np.zeros(b)), grad=())


@register
class Unstretch(ElementOp):
    """The gradient of a :class:`Stretch` along one dimension.

    ``total``, the sum of ``grad`` along ``axis``, where ``like`` has 1 there; ``grad`` otherwise.
    ``like`` has dimensions of the result, the last ones.
    """

    name = "Unstretch"
    inputs = "grad: T, total: T, like: L"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC, "L": dtypes.ALL}
    attrs: ClassVar[dict[str, Attr]] = {"axis": Attr("int")}
    shape_operands: ClassVar[tuple[int, ...]] = (2,)
    differentiable = False

    def _like(self, sizes: Sequence[DimLike], like: Sequence[DimLike], axis: int) -> DimLike:
        return like[axis - len(sizes) + len(like)]

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes of ``grad``, but for one of ``like``."""
        sizes, like, axis = ctx.sizes(0), ctx.sizes(2), ctx.attrs["axis"]
        if sizes is None or like is None:
            return [TensorType(ctx.dtype(0), None)]
        out = list(sizes)
        out[axis] = ctx.env.canonical(self._like(sizes, like, axis))
        return [TensorType(ctx.dtype(0), tuple(out))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The sum or the element."""
        axis = ctx.op.attrs["axis"]
        only = ir.apply("eq", ctx.size(self._like(ctx.sizes(0), ctx.sizes(2), axis)), 1)
        first = (*index[:axis], ir.Const(0, dtypes.int64), *index[axis + 1 :])
        return ir.select(only, ctx.operand(1, first), ctx.operand(0, index))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """One of the two."""
        grad, total, like = (np.asarray(v) for v in inputs)
        size = like.shape[attrs["axis"] - grad.ndim + like.ndim]
        return total if size == 1 else grad

    def samples(self) -> Iterable[Sample]:
        """Summed or not, of equal and of lower rank."""
        for shape, axis in (((1, 4), 0), ((3, 4), 0), ((3, 1), 1), ((1,), 1), ((4,), 1)):
            grad = grid(3, 4)
            total = grad.sum(axis, keepdims=True)
            yield Sample((grad, total, np.zeros(shape)), {"axis": axis}, grad=())
