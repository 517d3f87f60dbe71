"""Softmax and LogSoftmax."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.op import Attr, CompositeOp, Gradients, InferContext, Sample, register
from graphc.ops.base import INF, NAN, call, grid


def widened(x: Tensor) -> Tensor:
    """Floats of 16 bits as float32; anything else as it is."""
    dtype = x.dtype.base_dtype
    return x if dtype.accumulator is dtype else call("Cast", x, DstT=dtype.accumulator)


def narrowed(x: Tensor, like: Tensor) -> Tensor:
    """A tensor in the dtype of another."""
    dtype = like.dtype.base_dtype
    return x if x.dtype.base_dtype is dtype else call("Cast", x, DstT=dtype)


def axis_tensor(axis: int) -> np.ndarray:
    """An axis as reductions take it."""
    return np.array([axis], np.int32)


class _Softmax(CompositeOp):
    inputs = "logits: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = {"axis": Attr("int", -1)}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's type."""
        sizes, axis = ctx.sizes(0), ctx.attrs["axis"]
        if sizes is not None:
            if not sizes:
                raise ctx.error("Shape must be at least rank 1 but is rank 0")
            if not -len(sizes) <= axis < len(sizes):
                raise ctx.error(
                    f"Dimension ({axis}) must be in the range [{-len(sizes)}, {len(sizes)}) where "
                    f"{len(sizes)} is the number of dimensions in the input."
                )
        return [TensorType(ctx.dtype(0), sizes)]

    def samples(self) -> Iterable[Sample]:
        """Each axis, large and equal and infinite elements, size 1, nothing."""
        x = grid(3, 4, 5, low=-4.0, high=4.0)
        for axis in (-1, 2, 1, 0, -3):
            yield Sample((x,), {"axis": axis}, rtol=1e-5)
        yield Sample((grid(70),), rtol=1e-5, note="vector")
        yield Sample((grid(5, 1),), note="size 1")
        yield Sample((np.array([[1000.0, 1001.0, 999.0], [-1e4, -1e4, -1e4]]),), rtol=1e-5)
        special = np.array([[0.0, -INF, 1.0], [INF, 0.0, 1.0], [NAN, 0.0, 1.0]])
        yield Sample((special,), grad=(), rtol=1e-5, note="special")
        yield Sample((np.zeros((0, 3)),), grad=(), note="no rows")
        yield Sample((np.zeros((2, 0)),), grad=(), note="empty rows")


def shifted(x: np.ndarray, axis: int) -> np.ndarray:
    """An array in float64, less the largest element along an axis."""
    wide = np.asarray(x, np.float64)
    found: np.ndarray = wide - np.max(wide, axis, keepdims=True, initial=-np.inf)
    return found


@register
class Softmax(_Softmax):
    """``exp(x) / sum(exp(x))`` along ``axis``, without overflow."""

    name = "Softmax"

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The exponentials of the difference to the largest, over their sum.

        One division for a row; the sum is at least 1.
        """
        x, axis = widened(inputs[0]), axis_tensor(op.attrs["axis"])
        e = call("ExpNegative", call("Sub", x, call("Max", x, axis, keep_dims=True)))
        y = call("Mul", e, call("Reciprocal", call("Sum", e, axis, keep_dims=True)))
        return [narrowed(y, inputs[0])]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``(g - sum(g y)) y``."""
        y, axis = op.outputs[0], axis_tensor(op.attrs["axis"])
        total = call("Sum", call("Mul", grads[0], y), axis, keep_dims=True)
        return [call("Mul", call("Sub", grads[0], total), y)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The definition, in float64."""
        e = np.exp(shifted(inputs[0], attrs["axis"]))
        return (e / np.sum(e, attrs["axis"], keepdims=True)).astype(np.asarray(inputs[0]).dtype)


@register
class LogSoftmax(_Softmax):
    """``x - log(sum(exp(x)))`` along ``axis``, without overflow."""

    name = "LogSoftmax"

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The difference to the largest, less the logarithm of the exponentials' sum."""
        x, axis = widened(inputs[0]), axis_tensor(op.attrs["axis"])
        d = call("Sub", x, call("Max", x, axis, keep_dims=True))
        total = call("Log", call("Sum", call("ExpNegative", d), axis, keep_dims=True))
        return [narrowed(call("Sub", d, total), inputs[0])]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g - sum(g) exp(y)``."""
        total = call("Sum", grads[0], axis_tensor(op.attrs["axis"]), keep_dims=True)
        return [call("Sub", grads[0], call("Mul", total, call("Exp", op.outputs[0])))]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The definition, in float64."""
        d = shifted(inputs[0], attrs["axis"])
        total = np.log(np.sum(np.exp(d), attrs["axis"], keepdims=True))
        return (d - total).astype(np.asarray(inputs[0]).dtype)
