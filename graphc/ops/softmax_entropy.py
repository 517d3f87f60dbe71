"""Cross entropies between labels and the softmax of logits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    CompositeOp,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Sample,
    register,
)
from graphc.ops.base import call, grid, unbroadcast
from graphc.ops.movement_value import INDEX, int_tensor, refuse_outside
from graphc.ops.softmax import axis_tensor, narrowed, shifted, widened

LABEL_TYPES: dict[str, tuple[DType, ...]] = {"T": dtypes.FLOATS, "Tlabels": INDEX}
LAST = axis_tensor(-1)


def softmax_parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of every row: the largest logit, the exponentials of the differences, and their sum."""
    largest = call("Max", x, LAST, keep_dims=True)
    e = call("ExpNegative", call("Sub", x, largest))
    return largest, e, call("Sum", e, LAST, keep_dims=True)


def as_column(x: Tensor) -> Tensor:
    """A vector as a matrix of one column."""
    return call("ExpandDims", x, int_tensor(-1))


def logits_gradient(op: Operation, grads: Sequence[Tensor | None]) -> Tensor | None:
    """The gradient of the logits: through the loss, and through ``backprop``."""
    parts: list[Tensor] = []
    if grads[0] is not None:
        parts.append(call("Mul", as_column(grads[0]), op.outputs[1]))
    if grads[1] is not None:
        y = call("Softmax", op.inputs[0])
        total = call("Sum", call("Mul", grads[1], y), LAST, keep_dims=True)
        parts.append(call("Mul", call("Sub", grads[1], total), y))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else call("AddN", parts)


@register
class SoftmaxCrossEntropyWithLogits(CompositeOp):
    """The cross entropy of each row of ``labels`` with the softmax of the row of ``features``.

    Outputs ``loss``, one element a row, and ``backprop``, its gradient by the features where the
    labels of a row add up to 1: ``softmax(features) - labels``.  The two are broadcast.
    """

    name = "SoftmaxCrossEntropyWithLogits"
    inputs = "features: T, labels: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The rows, and the broadcast shape."""
        sizes = ctx.broadcast(ctx.rank(0, 2), ctx.rank(1, 2))
        assert sizes is not None
        return [TensorType(ctx.dtype(0), sizes[:1]), TensorType(ctx.dtype(0), sizes)]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """``sum(labels (log(sum(e)) + largest - x))`` and ``e / sum(e) - labels``."""
        x, labels = (widened(t) for t in inputs)
        largest, e, total = softmax_parts(x)
        surprise = call("Sub", call("Log", total), call("Sub", x, largest))
        loss = call("Sum", call("MulNoNan", surprise, labels), LAST)
        backprop = call("Sub", call("RealDiv", e, total), labels)
        return [narrowed(loss, inputs[0]), narrowed(backprop, inputs[0])]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Of the labels: ``-log_softmax`` for the loss, -1 for ``backprop``."""
        x, labels = op.inputs
        first = logits_gradient(op, grads)
        parts: list[Tensor] = []
        if grads[0] is not None:
            parts.append(
                call("Mul", as_column(grads[0]), call("Neg", call("LogSoftmax", x)))
            )
        if grads[1] is not None:
            parts.append(call("Neg", grads[1]))
        second = parts[0] if len(parts) == 1 else call("AddV2", *parts)
        return [
            None if first is None else unbroadcast(first, x),
            unbroadcast(second, labels),
        ]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The definition, in float64."""
        x, labels = (np.asarray(v) for v in inputs)
        d, dtype = shifted(x, -1), x.dtype
        e = np.exp(d)
        total = np.sum(e, -1, keepdims=True)
        weights = labels.astype(np.float64)
        terms = np.where(weights == 0, 0, weights * (np.log(total) - d))
        return np.sum(terms, -1).astype(dtype), (e / total - weights).astype(dtype)

    def samples(self) -> Iterable[Sample]:
        """Labels that add up to 1, one hot among them; large logits; nothing."""
        x = grid(4, 7, low=-3.0, high=3.0)
        labels = np.abs(grid(4, 7)) + 0.1
        labels /= labels.sum(1, keepdims=True)
        yield Sample((x, labels), rtol=1e-5)
        hot = np.eye(7)[[0, 6, 2, 2]]
        yield Sample((x, hot), rtol=1e-5, note="one hot")
        yield Sample((x * 300, hot), grad=(), rtol=1e-5, note="large")
        yield Sample((x, labels[:1]), rtol=1e-5, note="broadcast")
        yield Sample((grid(3, 1), np.ones((3, 1))), note="size 1")
        yield Sample((np.zeros((0, 3)), np.zeros((0, 3))), grad=(), note="empty")


class _Labels(ElementOp):
    inputs = "labels: Tlabels, features: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = LABEL_TYPES
    differentiable = False


@register
class CheckLabels(_Labels):
    """The vector ``labels`` as a column; each must be the number of a column of ``features``.

    A label out of range fails the run.
    """

    name = "CheckLabels"
    shape_operands: ClassVar[tuple[int, ...]] = (1,)
    fallible = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A column of labels."""
        rows = ctx.equal(ctx.rank(0, 1)[0], ctx.rank(1, 2)[0])
        return [TensorType(ctx.dtype(0), (rows, 1))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The label."""
        classes = ctx.size(ctx.sizes(1)[1])
        label = ctx.operand(0, index[:1])
        number = ir.cast(label, dtypes.int64)
        site = ctx.site(
            "Received a label value of %d which is outside the valid range of [0, %d)."
        )
        inside = ir.logical_and(number >= 0, number < classes)
        return ir.Require(inside, label, site, (number, classes))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The labels, checked by NumPy's take."""
        labels, features = (np.asarray(v) for v in inputs)
        refuse_outside(labels, features.shape[1])
        return labels[:, None]

    def samples(self) -> Iterable[Sample]:
        """Labels in range, none."""
        yield Sample((np.array([0, 2, 1, 2]), grid(4, 3)))
        yield Sample((np.zeros((0,), np.int64), np.zeros((0, 3))))


@register
class PickLabels(_Labels):
    """The element of each row of ``features`` in the column that is its label, as a column."""

    name = "PickLabels"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A column, one element a row."""
        rows = ctx.equal(ctx.rank(1, 2)[0], ctx.rank(0, 2)[0])
        return [TensorType(ctx.dtype(1), (rows, 1))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The element in the label's column; 0 where a row has none."""
        label = ir.cast(ctx.operand(0, index), dtypes.int64)
        value = ctx.operand(1, (index[0], label))
        inside = ir.logical_and(label >= 0, label < ctx.size(ctx.sizes(1)[1]))
        return ir.Guard(inside, value, ir.const(0, value.dtype))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's take_along_axis."""
        labels, features = (np.asarray(v) for v in inputs)
        return np.take_along_axis(features, labels.astype(np.int64), 1)

    def samples(self) -> Iterable[Sample]:
        """Labels in range, none."""
        yield Sample((np.array([[0], [2], [1], [2]]), grid(4, 3)))
        yield Sample((np.zeros((0, 1), np.int64), np.zeros((0, 3))))


@register
class MarkLabels(_Labels):
    """1 in each row's column that is its label, 0 elsewhere, in the shape of ``features``."""

    name = "MarkLabels"
    shape_operands: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The type of the features."""
        rows, classes = ctx.rank(1, 2)
        rows = ctx.equal(rows, ctx.rank(0, 2)[0])
        return [TensorType(ctx.dtype(1), (rows, classes))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """Whether the column is the label."""
        label = ir.cast(ctx.operand(0, (index[0], ir.ZERO)), dtypes.int64)
        dtype = ctx.op.outputs[0].dtype
        same = ir.apply("eq", label, index[1])
        return ir.select(same, ir.const(1, dtype), ir.const(0, dtype))

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's comparison with an arange."""
        labels, features = (np.asarray(v) for v in inputs)
        return (labels == np.arange(features.shape[1])).astype(features.dtype)

    def samples(self) -> Iterable[Sample]:
        """Labels in range, none; one class."""
        yield Sample((np.array([[0], [2], [1], [2]]), grid(4, 3)))
        yield Sample((np.zeros((2, 1), np.int64), grid(2, 1)))
        yield Sample((np.zeros((0, 1), np.int64), np.zeros((0, 3))))


@register
class SparseSoftmaxCrossEntropyWithLogits(CompositeOp):
    """The cross entropy of each row of ``features`` with the class that is its label.

    Outputs ``loss``, one element a row, and ``backprop``, its gradient by the features.  A label
    that is not the number of a column fails the run.
    """

    name = "SparseSoftmaxCrossEntropyWithLogits"
    inputs = "features: T, labels: Tlabels"
    types: ClassVar[dict[str, tuple[DType, ...]]] = LABEL_TYPES
    fallible = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The rows, and the shape of the features."""
        (rows, classes), (count,) = ctx.rank(0, 2), ctx.rank(1, 1)
        rows = ctx.equal(rows, count)
        dtype = ctx.dtype(0)
        return [TensorType(dtype, (rows,)), TensorType(dtype, (rows, classes))]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """``log(sum(e)) - (x[label] - largest)`` and ``e / sum(e)`` less 1 at the label."""
        x = widened(inputs[0])
        labels = call("CheckLabels", inputs[1], x)
        largest, e, total = softmax_parts(x)
        picked = call("Sub", call("PickLabels", labels, x), largest)
        column = call("Sub", call("Log", total), picked)
        loss = call("Squeeze", column, squeeze_dims=(1,))
        backprop = call("Sub", call("RealDiv", e, total), call("MarkLabels", labels, x))
        return [narrowed(loss, inputs[0]), narrowed(backprop, inputs[0])]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``g`` times ``backprop``."""
        return [logits_gradient(op, grads), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The definition, in float64."""
        x, labels = np.asarray(inputs[0]), np.asarray(inputs[1]).astype(np.int64)
        d, dtype = shifted(x, -1), x.dtype
        e = np.exp(d)
        total = np.sum(e, -1, keepdims=True)
        refuse_outside(labels, x.shape[1])
        picked = np.take_along_axis(np.log(total) - d, labels[:, None], 1)[:, 0]
        hot = labels[:, None] == np.arange(x.shape[1])
        return picked.astype(dtype), (e / total - hot).astype(dtype)

    def samples(self) -> Iterable[Sample]:
        """Labels first and last; large logits; size 1; nothing."""
        x = grid(4, 7, low=-3.0, high=3.0)
        labels = np.array([0, 6, 2, 2])
        yield Sample((x, labels), rtol=1e-5)
        yield Sample((x * 300, labels), grad=(), rtol=1e-5, note="large")
        yield Sample((grid(3, 1), np.zeros((3,), np.int64)), note="size 1")
        yield Sample((np.zeros((0, 3)), np.zeros((0,), np.int64)), grad=(), note="empty")
