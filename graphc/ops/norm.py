"""Normalisation: FusedBatchNormV3, LayerNorm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.build import constant_of
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.op import Attr, CompositeOp, Gradients, InferContext, Sample, register
from graphc.ops.base import call, check_choice, grid, unbroadcast
from graphc.ops.movement_value import int_tensor, pick, shape_tensor
from graphc.ops.softmax import narrowed, widened


def as_type(x: Tensor, dtype: DType) -> Tensor:
    """A tensor in a dtype."""
    return x if x.dtype.base_dtype is dtype else call("Cast", x, DstT=dtype)


def mean_over(x: Tensor, axes: Sequence[int], keep: bool = False) -> Tensor:
    """The mean over fixed axes."""
    return call("Mean", x, np.array(axes, np.int32), keep_dims=keep)


def sum_over(x: Tensor, axes: Sequence[int]) -> Tensor:
    """The sum over fixed axes."""
    return call("Sum", x, np.array(axes, np.int32))


class _Channels:
    """How the statistics of a batch norm go with its images."""

    def __init__(self, op: Operation) -> None:
        self.nchw = op.attrs["data_format"] == "NCHW"
        self.axes = (0, 2, 3) if self.nchw else (0, 1, 2)
        types = (op.inputs[0].dtype.base_dtype, op.inputs[1].dtype.base_dtype)
        self.dtype = dtypes.float64 if dtypes.float64 in types else dtypes.float32
        self.epsilon = self.dtype.numpy.type(op.attrs["epsilon"])

    def wide(self, x: Tensor) -> Tensor:
        """A tensor in the type that everything is computed in."""
        return as_type(x, self.dtype)

    def spread(self, statistic: Tensor) -> Tensor:
        """A vector over the channels that broadcasts against images."""
        return call("Reshape", statistic, int_tensor([-1, 1, 1])) if self.nchw else statistic

    def inverse(self, variance: Tensor) -> Tensor:
        """``1 / sqrt(variance + epsilon)``."""
        return call("Rsqrt", call("AddV2", variance, self.epsilon))

    def count(self, x: Tensor) -> Tensor:
        """How many elements a channel has, as a scalar."""
        sizes = pick(shape_tensor(x, dtypes.int64), self.axes)
        return as_type(call("Prod", sizes, np.array([0], np.int32)), self.dtype)

    def unbiased(self, x: Tensor) -> Tensor:
        """``count / (count - 1)``, the latter at least 1."""
        count = self.count(x)
        return call("RealDiv", count, call("Maximum", call("Sub", count, 1), 1))


@register
class FusedBatchNormV3(CompositeOp):
    """Images normalised over everything but their channels, scaled and shifted.

    In training the mean and the variance are those of ``x`` (``mean`` and ``variance`` are not
    used), else the operands.  Outputs ``y``; the mean and the unbiased variance of the batch; and,
    for the gradient, the mean and the biased variance, and an empty vector.
    """

    name = "FusedBatchNormV3"
    inputs = "x: T, scale: U, offset: U, mean: U, variance: U"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {
        "T": dtypes.FLOATS, "U": (dtypes.float32, dtypes.float64),
    }  # fmt: skip
    attrs: ClassVar[dict[str, Attr]] = {
        "epsilon": Attr("float", 1e-4),
        "data_format": Attr("str", "NHWC"),
        "is_training": Attr("bool", True),
    }

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The images' type, and vectors over the channels."""
        sizes = list(ctx.rank(0, 4))
        check_choice(ctx, "data_format", ("NHWC", "NCHW"))
        at = 1 if ctx.attrs["data_format"] == "NCHW" else 3
        used = (1, 2) if ctx.attrs["is_training"] else (1, 2, 3, 4)
        for i in used:
            sizes[at] = ctx.equal(sizes[at], ctx.rank(i, 1)[0])
        statistic = TensorType(ctx.dtype(1), (sizes[at],))
        empty = TensorType(ctx.dtype(1), (0,))
        return [TensorType(ctx.dtype(0), tuple(sizes)), *[statistic] * 4, empty]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Means over the axes, and one product and sum for each element."""
        c = _Channels(op)
        x, scale, offset, mean, variance = (c.wide(t) for t in inputs)
        sample = variance
        if op.attrs["is_training"]:
            mean = mean_over(x, c.axes)
            square = call("SquaredDifference", x, c.spread(mean))
            variance = mean_over(square, c.axes)
            sample = call("Mul", variance, c.unbiased(inputs[0]))
        factor = c.spread(call("Mul", c.inverse(variance), scale))
        y = call("Mul", call("Sub", x, c.spread(mean)), factor)
        y = call("AddV2", y, c.spread(offset))
        empty = constant_of(np.zeros(0, inputs[1].dtype.numpy))
        outs = (narrowed(t, inputs[1]) for t in (mean, sample, mean, variance))
        return [narrowed(y, inputs[0]), *outs, empty]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Of the images through ``y`` and through the statistics of the batch."""
        c, training = _Channels(op), op.attrs["is_training"]
        x, scale = c.wide(op.inputs[0]), c.wide(op.inputs[1])
        mean, variance = (c.wide(t) for t in (op.outputs[3:5] if training else op.inputs[3:5]))
        inverse, found = c.inverse(variance), _BatchNormGradients()
        centred = call("Sub", x, c.spread(mean))
        if grads[0] is not None:
            g = c.wide(grads[0])
            normal = call("Mul", centred, c.spread(inverse))
            found.offset = sum_over(g, c.axes)
            found.scale = sum_over(call("Mul", g, normal), c.axes)
            factor = call("Mul", inverse, scale)
            if training:
                count = c.count(x)
                means = [call("RealDiv", t, count) for t in (found.offset, found.scale)]
                g = call("Sub", g, c.spread(means[0]))
                g = call("Sub", g, call("Mul", normal, c.spread(means[1])))
            else:
                found.mean.append(call("Neg", call("Mul", found.offset, factor)))
                slope = call("Mul", call("Mul", found.scale, factor), inverse)
                found.variance.append(call("Mul", slope, -0.5))
            found.x.append(call("Mul", g, c.spread(factor)))
        found.statistics(c, op, grads, centred)
        return found.result(op)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's mean and variance, in float64."""
        nchw = attrs["data_format"] == "NCHW"
        x, scale, offset, mean, variance = (np.asarray(v, np.float64) for v in inputs)
        axes = (0, 2, 3) if nchw else (0, 1, 2)
        sample = variance
        if attrs["is_training"]:
            count = np.prod([x.shape[a] for a in axes])
            mean, variance = x.mean(axes), x.var(axes)
            sample = variance * (count / max(count - 1, 1))

        def spread(v: np.ndarray) -> np.ndarray:
            return v[:, None, None] if nchw else v

        inverse = 1 / np.sqrt(variance + attrs["epsilon"])
        y = (x - spread(mean)) * spread(inverse * scale) + spread(offset)
        dtype = np.asarray(inputs[1]).dtype
        statistics = (v.astype(dtype) for v in (mean, sample, mean, variance))
        return (y.astype(np.asarray(inputs[0]).dtype), *statistics, np.zeros(0, dtype))

    def samples(self) -> Iterable[Sample]:
        """Training and inference, both layouts; one element a channel."""
        x, none = grid(2, 3, 4, 5), np.zeros(0)
        scale, offset = grid(5, low=0.5), grid(5)
        statistics = (grid(5), grid(5, low=0.5, high=2.0))
        yield Sample((x, scale, offset, none, none), {"epsilon": 1e-3}, rtol=1e-5)
        yield Sample((x, scale, offset, *statistics), {"is_training": False}, rtol=1e-5)
        nchw = np.moveaxis(x, 3, 1)
        attrs = {"data_format": "NCHW", "epsilon": 1e-2}
        yield Sample((nchw, scale, offset, none, none), attrs, rtol=1e-5, note="NCHW")
        attrs = {**attrs, "is_training": False}
        yield Sample((nchw, scale, offset, *statistics), attrs, rtol=1e-5, note="NCHW")
        yield Sample((grid(1, 1, 1, 5), scale, offset, none, none), {"epsilon": 0.1}, grad=())


class _BatchNormGradients:
    """The contributions to the gradient of each operand of a batch norm."""

    def __init__(self) -> None:
        self.x: list[Tensor] = []
        self.scale: Tensor | None = None
        self.offset: Tensor | None = None
        self.mean: list[Tensor] = []
        self.variance: list[Tensor] = []

    def statistics(
        self, c: _Channels, op: Operation, grads: Sequence[Tensor | None], centred: Tensor
    ) -> None:
        """What comes through the outputs that are means and variances."""
        means = [c.wide(g) for g in (grads[1], grads[3]) if g is not None]
        biased = [c.wide(grads[4])] if grads[4] is not None else []
        if not op.attrs["is_training"]:
            self.mean += means
            self.variance += biased
            self.variance += [c.wide(grads[2])] if grads[2] is not None else []
            return
        if grads[2] is not None:
            biased.append(call("Mul", c.wide(grads[2]), c.unbiased(op.inputs[0])))
        if not (means or biased):
            return
        count, ones = c.count(op.inputs[0]), call("OnesLike", centred)
        for g in means:
            self.x.append(call("Mul", ones, c.spread(call("RealDiv", g, count))))
        for g in biased:
            slope = c.spread(call("RealDiv", call("Mul", g, 2), count))
            self.x.append(call("Mul", centred, slope))

    def result(self, op: Operation) -> list[Tensor | None]:
        """The sums, in the dtypes of the operands."""
        parts: tuple[Sequence[Tensor | None], ...] = (
            self.x, [self.scale], [self.offset], self.mean, self.variance
        )  # fmt: skip
        found: list[Tensor | None] = []
        for operand, terms in zip(op.inputs, parts, strict=True):
            there = [t for t in terms if t is not None]
            total = there[0] if len(there) == 1 else call("AddN", there) if there else None
            found.append(None if total is None else narrowed(total, operand))
        return found


@register
class LayerNorm(CompositeOp):
    """``x`` normalised over its dimensions from ``begin_norm_axis`` on, scaled and shifted.

    ``gamma`` and ``beta`` have the sizes of those dimensions; ``epsilon`` is added to the (biased)
    variance.
    """

    name = "LayerNorm"
    inputs = "x: T, gamma: T, beta: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = {
        "epsilon": Attr("float", 1e-5),
        "begin_norm_axis": Attr("int", -1),
    }

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The type of ``x``."""
        sizes, first = ctx.sizes(0), ctx.attrs["begin_norm_axis"]
        if sizes is None:
            return [TensorType(ctx.dtype(0), None)]
        if not -len(sizes) <= first < len(sizes):
            raise ctx.error(f"begin_norm_axis {first} must be an axis of rank {len(sizes)}")
        begin = first % len(sizes)
        tail = list(sizes[begin:])
        for i in (1, 2):
            given = ctx.rank(i, len(tail))
            tail = [ctx.equal(a, b) for a, b in zip(tail, given, strict=True)]
        return [TensorType(ctx.dtype(0), (*sizes[:begin], *tail))]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Means over the trailing dimensions, and a product and a sum for each element."""
        x, gamma, beta = (widened(t) for t in inputs)
        normal, _, _ = normalised(op, x)
        return [narrowed(call("AddV2", call("Mul", normal, gamma), beta), inputs[0])]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """``(g gamma - mean(g gamma) - normal mean(g gamma normal)) / deviation``."""
        assert grads[0] is not None
        x, gamma, beta = (widened(t) for t in op.inputs)
        g = widened(grads[0])
        normal, inverse, axes = normalised(op, x)
        weighted = call("Mul", g, gamma)
        slope = call("Mean", call("Mul", weighted, normal), axes, keep_dims=True)
        level = call("Mean", weighted, axes, keep_dims=True)
        rest = call("Sub", call("Sub", weighted, level), call("Mul", normal, slope))
        return [
            narrowed(call("Mul", rest, inverse), op.inputs[0]),
            narrowed(unbroadcast(call("Mul", g, normal), gamma), op.inputs[0]),
            narrowed(unbroadcast(g, beta), op.inputs[0]),
        ]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's mean and variance, in float64."""
        x, gamma, beta = (np.asarray(v, np.float64) for v in inputs)
        axes = tuple(range(attrs["begin_norm_axis"] % x.ndim, x.ndim))
        mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        y = (x - mean) / np.sqrt(variance + attrs["epsilon"]) * gamma + beta
        return y.astype(np.asarray(inputs[0]).dtype)

    def samples(self) -> Iterable[Sample]:
        """The last dimension, the last two; a vector; nothing."""
        x = grid(2, 3, 8)
        yield Sample((x, grid(8, low=0.5), grid(8)), {"epsilon": 1e-3}, rtol=1e-5)
        pair = (grid(3, 8, low=0.5), grid(3, 8))
        yield Sample((x, *pair), {"begin_norm_axis": 1}, rtol=1e-5)
        yield Sample((x, *pair), {"begin_norm_axis": -2}, rtol=1e-5)
        yield Sample((grid(70), grid(70, low=0.5), grid(70)), rtol=1e-5, note="vector")
        yield Sample((np.zeros((0, 4)), grid(4), grid(4)), grad=(), note="empty")


def normalised(op: Operation, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` less its mean over its deviation; one over the deviation; the axes."""
    first = op.attrs["begin_norm_axis"]
    if first < 0:
        axes = int_tensor(range(first, 0))
    elif x.sizes is not None:
        axes = int_tensor(range(first, len(x.sizes)))
    else:
        axes = call("Range", first, call("Rank", x), 1)
    mean = call("Mean", x, axes, keep_dims=True)
    variance = call("Mean", call("SquaredDifference", x, mean), axes, keep_dims=True)
    epsilon = x.dtype.numpy.type(op.attrs["epsilon"])
    inverse = call("Rsqrt", call("AddV2", variance, epsilon))
    return call("Mul", call("Sub", x, mean), inverse), inverse, axes
