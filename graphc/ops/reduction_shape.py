"""What gradients need to go between a shape and a reduced or broadcast one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    DECLARING,
    Attr,
    CompositeOp,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Sample,
    register,
)
from graphc.ops.base import call, grid
from graphc.ops.reduction import axes_of, inferred_axes, numpy_axes


@register
class ExpandReduced(ElementOp):
    """``reduced`` repeated along the axes that a reduction of ``like`` took away.

    ``reduced`` has the shape of a reduction of ``like`` over ``axes`` (``keep_dims`` as there); the
    result has the shape of ``like``, of which nothing but the shape is used.  With ``mean`` the
    result is divided by the number of elements that were reduced to one.
    """

    name = "ExpandReduced"
    inputs = "reduced: T, like: L, axes: int32|int64"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC, "L": dtypes.ALL}
    attrs: ClassVar[dict[str, Attr]] = {
        "keep_dims": Attr("bool", False),
        "mean": Attr("bool", False),
    }
    shape_operands: ClassVar[tuple[int, ...]] = (1,)
    value_operands: ClassVar[tuple[int, ...]] = (2,)
    constant_operands: ClassVar[tuple[int, ...]] = (2,)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape of ``like``."""
        sizes, reduced = ctx.sizes(1), ctx.sizes(0)
        if sizes is not None and reduced is not None:
            axes = inferred_axes(ctx, 2, len(sizes))
            if axes is not None:
                sizes = self._merged(ctx, reduced, sizes, axes)
        return [TensorType(ctx.dtype(0), sizes)]

    def _merged(
        self,
        ctx: InferContext,
        reduced: tuple[DimLike, ...],
        sizes: tuple[DimLike, ...],
        axes: tuple[int, ...],
    ) -> tuple[DimLike, ...]:
        keep = ctx.attrs["keep_dims"]
        left = list(range(len(sizes))) if keep else [i for i in range(len(sizes)) if i not in axes]
        if len(left) != len(reduced):
            raise ctx.error(f"A reduction over {list(axes)} does not leave {len(reduced)} axes")
        out = list(sizes)
        for i, size in zip(left, reduced, strict=True):
            if i not in axes:
                out[i] = ctx.equal(sizes[i], size)
        return tuple(out)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The reduced element that this one went into."""
        sizes = ctx.sizes(1)
        axes = axes_of(ctx.op, 2, len(sizes))
        if ctx.op.attrs["keep_dims"]:
            at = tuple(ir.ZERO if i in axes else x for i, x in enumerate(index))
        else:
            at = tuple(x for i, x in enumerate(index) if i not in axes)
        value = ctx.operand(0, at)
        if not ctx.op.attrs["mean"]:
            return value
        count = ir.cast(ctx.size(dims.product(sizes[a] for a in axes)), value.dtype)
        return ir.apply("div" if value.dtype.is_floating else "idiv", value, count)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient reduced again."""
        kind = "Mean" if op.attrs["mean"] else "Sum"
        back = call(kind, grads[0], op.inputs[2], keep_dims=op.attrs["keep_dims"])
        return [back, None, None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's broadcast."""
        reduced, like = (np.asarray(v) for v in inputs[:2])
        axes = numpy_axes(inputs[2], like.ndim)
        kept = [1 if i in axes else s for i, s in enumerate(like.shape)]
        out = np.broadcast_to(reduced.reshape(kept), like.shape)
        if attrs["mean"]:
            count = np.prod([like.shape[a] for a in axes], dtype=np.float64)
            ratio = np.true_divide(out, count)
            out = ratio if dtypes.is_float(out.dtype) else np.trunc(ratio)
        return out.astype(reduced.dtype)

    def samples(self) -> Iterable[Sample]:
        """Each axis, several, all, none; kept or not; scaled or not; nothing."""
        like = grid(2, 3, 4)
        for axes in ([0], [1, -1], [0, 1, 2], []):
            for keep in (False, True):
                reduced = np.sum(like, tuple(axes), keepdims=keep)
                attrs = {"keep_dims": keep, "mean": keep != (len(axes) == 1)}
                yield Sample((reduced, like, np.array(axes, np.int64)), attrs, grad=(0,))
        yield Sample((np.zeros(3), np.zeros((0, 3)), np.array([0])), grad=(), note="empty")


@register
class SumToShape(CompositeOp):
    """``grad`` summed over the dimensions that broadcasting ``like`` to its shape stretched.

    The result has the shape of ``like``, of which nothing but the shape is used: leading
    dimensions are summed away, and those are summed to 1 where ``like`` has 1.
    """

    name = "SumToShape"
    inputs = "grad: T, like: L"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC, "L": dtypes.ALL}
    shape_operands: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape of ``like``."""
        grad, like = ctx.sizes(0), ctx.sizes(1)
        if grad is None or like is None:
            return [TensorType(ctx.dtype(0), like)]
        extra = len(grad) - len(like)
        if extra < 0:
            raise ctx.error(f"A shape of rank {len(like)} does not broadcast to {len(grad)}")
        out = []
        for size, given in zip(like, grad[extra:], strict=True):
            size = ctx.env.canonical(size)
            # A size that is not known yet may be 1, which `given` is summed to.
            known = isinstance(size, int) or ctx.env is not DECLARING
            summed = size == 1 or not known
            out.append(size if summed and given != 1 else ctx.equal(size, given))
        return [TensorType(ctx.dtype(0), tuple(out))]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Sums over the dimensions, or nothing at all."""
        grad, like = inputs
        assert grad.sizes is not None
        assert like.sizes is not None
        extra = len(grad.sizes) - len(like.sizes)
        behind = zip(like.sizes, grad.sizes[extra:], strict=True)
        stretched = [i for i, (size, given) in enumerate(behind) if size == 1 and given != 1]
        axes = np.array([*range(extra), *(extra + i for i in stretched)], np.int32)
        if extra and stretched:
            total = call("Sum", grad, axes)
            return [call("ExpandReduced", total, like, np.array(stretched, np.int32))]
        if extra or stretched:
            return [call("Sum", grad, axes, keep_dims=not extra)]
        return [grad]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient, broadcast again."""
        return [call("BroadcastLike", grads[0], op.inputs[0]), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's sums."""
        grad, like = (np.asarray(v) for v in inputs)
        extra = grad.ndim - like.ndim
        axes = [*range(extra)]
        axes += [extra + i for i, s in enumerate(like.shape) if s == 1 != grad.shape[extra + i]]
        wide = np.float64 if dtypes.is_float(grad.dtype) else grad.dtype
        return np.sum(grad, tuple(axes), dtype=wide).reshape(like.shape).astype(grad.dtype)

    def samples(self) -> Iterable[Sample]:
        """Nothing to sum; leading, stretched and both; a scalar; nothing at all."""
        for shape in ((2, 3, 4), (3, 4), (2, 1, 4), (1, 4), (1, 1, 1), (4,), (1,), ()):
            yield Sample((grid(2, 3, 4), np.zeros(shape)), grad=(0,))
        yield Sample((np.zeros((0, 3)), np.zeros((1, 3))), grad=(), note="summed nothing")


@register
class BroadcastLike(ElementOp):
    """``input`` broadcast to the shape of ``like``, of which nothing but the shape is used."""

    name = "BroadcastLike"
    inputs = "input: T, like: L"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "L": dtypes.ALL}
    shape_operands: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape of ``like``, which ``input`` must broadcast to."""
        sizes, like = ctx.sizes(0), ctx.sizes(1)
        if sizes is None or like is None:
            return [TensorType(ctx.dtype(0), like)]
        extra = len(like) - len(sizes)
        if extra < 0:
            raise ctx.error(f"A shape of rank {len(sizes)} does not broadcast to {len(like)}")
        out = list(like)
        for i, size in enumerate(sizes):
            size = ctx.env.canonical(size)
            known = isinstance(size, int) or ctx.env is not DECLARING
            if size != 1 and known:
                out[extra + i] = ctx.equal(like[extra + i], size)
        return [TensorType(ctx.dtype(0), tuple(out))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The element at the broadcast index."""
        return ctx.broadcast_operand(0, index)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient summed to the input's shape."""
        return [call("SumToShape", grads[0], op.inputs[0]), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's."""
        return np.broadcast_to(inputs[0], np.shape(inputs[1]))

    def samples(self) -> Iterable[Sample]:
        """Equal shapes; leading, stretched and both; a scalar; nothing."""
        for shape in ((2, 3, 4), (3, 4), (2, 1, 4), (1, 4), ()):
            yield Sample((grid(*shape), np.zeros((2, 3, 4))), grad=(0,))
        yield Sample((np.zeros((1, 3)), np.zeros((0, 3))), grad=(), note="empty")
