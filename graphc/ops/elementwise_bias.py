"""The bias of a layer, added along its channels, and its gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    Attr,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Reduction,
    ReductionOp,
    Sample,
    register,
)
from graphc.ops.base import call, check_choice, grid

FORMATS = ("NHWC", "NCHW")


def _channel(attrs: dict[str, Any], rank: int) -> int:
    """The dimension of the channels: the last, or in NCHW the second."""
    return 1 if attrs["data_format"] == "NCHW" and rank > 2 else rank - 1


@register
class BiasAdd(ElementOp):
    """``value`` plus ``bias`` along the channels: the last dimension, or the second in NCHW."""

    name = "BiasAdd"
    inputs = "value: T, bias: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    attrs: ClassVar[dict[str, Attr]] = {"data_format": Attr("str", "NHWC")}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape of ``value``, whose channels must be as many as ``bias`` has elements."""
        check_choice(ctx, "data_format", FORMATS)
        (count,) = ctx.rank(1, 1)
        sizes = ctx.sizes(0)
        if sizes is not None:
            if len(sizes) < 2:
                raise ctx.error(f"Shape must be at least rank 2 but is rank {len(sizes)}")
            at = _channel(ctx.attrs, len(sizes))
            size = ctx.equal(sizes[at], count)
            sizes = (*sizes[:at], size, *sizes[at + 1 :])
        return [TensorType(ctx.dtype(0), sizes)]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The sum of the element and its channel's bias."""
        channel = index[_channel(ctx.op.attrs, len(index))]
        return ir.add(ctx.operand(0, index), ctx.operand(1, (channel,)))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g``, and its sum over everything but the channels."""
        bias = call("BiasAddGrad", grads[0], data_format=op.attrs["data_format"])
        return [grads[0], bias]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's sum with the bias brought to the channels."""
        value, bias = (np.asarray(v) for v in inputs)
        behind = value.ndim - 1 - _channel(attrs, value.ndim)
        return np.add(value, bias.reshape((-1,) + (1,) * behind))

    def samples(self) -> Iterable[Sample]:
        """Both layouts, a matrix, nothing."""
        yield Sample((grid(2, 3, 4, 5), grid(5)))
        yield Sample((grid(2, 3, 4, 5), grid(3)), {"data_format": "NCHW"})
        yield Sample((grid(4, 3), grid(3)), note="matrix")
        yield Sample((np.zeros((0, 3)), grid(3)), grad=(), note="empty")


@register
class BiasAddGrad(ReductionOp):
    """The sum of ``out_backprop`` over everything but the channels: the gradient of a bias."""

    name = "BiasAddGrad"
    inputs = "out_backprop: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    attrs: ClassVar[dict[str, Attr]] = {"data_format": Attr("str", "NHWC")}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A vector as long as there are channels."""
        check_choice(ctx, "data_format", FORMATS)
        sizes = ctx.sizes(0)
        if sizes is None:
            return [TensorType(ctx.dtype(0), (dims.fresh(),))]
        if len(sizes) < 2:
            raise ctx.error(f"Shape must be at least rank 2 but is rank {len(sizes)}")
        return [TensorType(ctx.dtype(0), (sizes[_channel(ctx.attrs, len(sizes))],))]

    def reduction(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> Reduction:
        """The sum over the other dimensions."""
        sizes = ctx.sizes(0)
        at = _channel(ctx.op.attrs, len(sizes))

        def body(inner: tuple[ir.Expr, ...]) -> ir.Expr:
            return ctx.operand(0, (*inner[:at], index[0], *inner[at:]))

        return Reduction("add", (*sizes[:at], *sizes[at + 1 :]), body)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g`` along the channels, repeated everywhere else."""
        zeros = call("ZerosLike", op.inputs[0])
        return [call("BiasAdd", zeros, grads[0], data_format=op.attrs["data_format"])]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's sum."""
        x = np.asarray(inputs[0])
        at = _channel(attrs, x.ndim)
        axes = tuple(i for i in range(x.ndim) if i != at)
        wide = np.float64 if dtypes.is_float(x.dtype) else x.dtype
        return np.sum(x, axes, dtype=wide).astype(x.dtype)

    def samples(self) -> Iterable[Sample]:
        """Both layouts, a matrix, nothing."""
        yield Sample((grid(2, 3, 4, 5),))
        yield Sample((grid(2, 3, 4, 5),), {"data_format": "NCHW"})
        yield Sample((grid(4, 3),), note="matrix")
        yield Sample((np.zeros((0, 3)),), grad=(), note="empty")
