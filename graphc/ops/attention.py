"""Attention as one op, and its gradient: what the fusing of products and softmaxes makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.graph import Operation, TensorType
from graphc.op import Attr, InferContext, Sample, TemplateOp, register
from graphc.ops.base import INF, grid
from graphc.ops.softmax import shifted

LEAST_PART = 64
"""Keys that a part of a gradient has at least, where there are so many left."""


def _scores(attrs: dict[str, Any], query: Any, key: Any, bias: Sequence[Any]) -> Any:
    scores = query @ key * attrs["scale"]
    return scores + bias[0] if bias else scores


def _result(attrs: dict[str, Any], *inputs: Any) -> Any:
    query, key, value, *bias = (np.asarray(v, np.float64) for v in inputs)
    weights = np.exp(shifted(_scores(attrs, query, key, bias), -1))
    return weights / np.sum(weights, -1, keepdims=True) @ value


def _statistics(scores: np.ndarray) -> Any:
    """A row's largest score, and the logarithm of the sum of exponentials of what is below it.

    Both are -inf of a row that sees nothing.
    """
    best = np.max(scores, -1, keepdims=True, initial=-np.inf)
    shift = np.where(best == -np.inf, 0.0, best)
    with np.errstate(divide="ignore"):
        log_sum = np.log(np.sum(np.exp(scores - shift), -1, keepdims=True))
    return np.concatenate([best, log_sum], -1)


def _check_bias(ctx: InferContext, number: int, scores: tuple[DimLike, ...]) -> None:
    """Let an operand broadcast to the scores, and not them to it."""
    bias = ctx.sizes(number)
    found = None if bias is None else ctx.broadcast(scores, bias)
    if found is None:
        return
    if len(found) != len(scores):
        raise ctx.error("The bias must broadcast to the scores")
    for mine, size in zip(scores, found, strict=True):
        ctx.equal(mine, size, "The bias must broadcast to the scores")


@register
class Attention(TemplateOp):
    """``softmax(query @ key * scale + bias) @ value``, the matrix of scores never stored.

    ``query`` is ``[..., m, d]``, ``key`` (transposed) ``[..., d, t]``, ``value`` ``[..., t, n]``;
    ``bias``, of which there are one or none, is broadcast to ``[..., m, t]``. Scores, weights and
    sums of 16-bit floats are computed in float32, to which the bias is added as it is; a kernel
    may round weights to 16 bits before it multiplies them by the values.
    """

    name = "Attention"
    inputs = "query: T, key: T, value: T, bias: N*float16|bfloat16|float32|float64"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = {"scale": Attr("float", 1.0)}
    template = "attention"
    dense_operands: ClassVar[tuple[int, ...]] = (1,)
    differentiable = False

    def dense(self, op: Operation) -> tuple[int, ...]:
        """The keys, but where tensor cores are given them: they take rows as well as columns."""
        short = op.inputs[0].dtype.base_dtype in dtypes.SHORT_FLOATS
        return () if short else self.dense_operands

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A row of values' width for every query."""
        query, key, value = (ctx.sizes(k) for k in range(3))
        if len(ctx.inputs) > 4:
            raise ctx.error("There may be one bias")
        if query is None or key is None or value is None:
            return [TensorType(ctx.dtype(0), None)]
        rank = len(query)
        if rank < 2 or len(key) != rank or len(value) != rank:
            raise ctx.error("Query, key and value must be of one rank, at least 2")
        for k in range(rank - 2):
            ctx.equal(query[k], key[k], "Leading sizes must be equal")
            ctx.equal(query[k], value[k], "Leading sizes must be equal")
        ctx.equal(query[-1], key[-2], "Sizes of query and key must be equal")
        ctx.equal(key[-1], value[-2], "Numbers of keys and values must be equal")
        if len(ctx.inputs) == 4:
            _check_bias(ctx, 3, (*query[:-1], key[-1]))
        return [TensorType(ctx.dtype(0), (*query[:-1], value[-1]))]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The definition, in float64."""
        return _result(attrs, *inputs).astype(np.asarray(inputs[0]).dtype)

    def samples(self) -> Iterable[Sample]:
        """Blocks that are full and that are not, biases of all shapes, masks, one key, nothing."""
        for batch, m, d, t, n in (
            ((2, 3), 5, 8, 7, 6), ((), 70, 16, 300, 20), ((2,), 64, 4, 256, 16), ((1,), 1, 3, 1, 1),
            ((1,), 130, 2, 513, 33),
        ):  # fmt: skip
            tensors = (grid(*batch, m, d), grid(*batch, d, t), grid(*batch, t, n))
            yield Sample((*tensors, []), {"scale": 0.5}, rtol=1e-4)
        tensors = (grid(2, 5, 3), grid(2, 3, 300), grid(2, 300, 4))
        for shape in ((2, 5, 300), (300,), (5, 1), (1, 5, 300)):
            yield Sample((*tensors, [grid(*shape)]), rtol=1e-4, note="bias")
        causal = np.where(np.arange(300) <= 59 * np.arange(5)[:, None], 0.0, -INF)
        yield Sample((*tensors, [causal]), rtol=1e-4, grad=(), note="causal")
        late = np.where(np.arange(300) >= 290, 0.0, -INF)
        yield Sample((*tensors, [late]), rtol=1e-4, grad=(), note="the first keys masked")
        yield Sample((*tensors, [np.full(300, -INF)]), grad=(), note="all keys masked")
        for shapes, note in (
            (((0, 2, 3), (0, 3, 2), (0, 2, 3)), "empty"), (((2, 3), (3, 0), (0, 2)), "no keys"),
            (((2, 0), (0, 4), (4, 3)), "no depth"),
        ):  # fmt: skip
            yield Sample((*(np.zeros(s) for s in shapes), []), grad=(), note=note)


@register
class AttentionWithStatistics(Attention):
    """``Attention``, and what the gradient computes each weight again from, given its score.

    The second result is ``[..., m, 2]``: of every query the largest score, and the logarithm of the
    sum of ``exp(score - largest)``. Their sum would lose the latter where scores are large. Of
    16-bit floats both results are float32: the gradient makes what it subtracts in a whole row of
    the first one, whose rounding would add up there.
    """

    name = "AttentionWithStatistics"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A row of values' width, and two numbers, for every query."""
        (out,) = super().infer(ctx)
        sizes = None if out.sizes is None else (*out.sizes[:-1], 2)
        wide = out.dtype.accumulator
        return [TensorType(wide, out.sizes), TensorType(wide, sizes)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The definition, in float64."""
        query, key, _, *bias = (np.asarray(v, np.float64) for v in inputs)
        found = _statistics(_scores(attrs, query, key, bias))
        wide = dtypes.as_dtype(np.asarray(inputs[0]).dtype).accumulator.numpy
        return _result(attrs, *inputs).astype(wide), found.astype(wide)


@register
class AttentionGradient(TemplateOp):
    """The gradients of attention by its query, key and value, no matrix of weights ever stored.

    ``query`` is ``[..., m, d]``, ``key`` ``[..., t, d]``, ``value`` ``[..., t, n]``, ``grad`` (of
    the result) ``[..., m, n]``; ``statistics`` are those of ``AttentionWithStatistics``, ``mean``
    is the sum of ``grad * result`` along rows, ``[..., m, 1]``; ``bias`` is as in ``Attention``.
    The keys are shared out among ``parts``, of ``ceil(t / parts)`` each and at least 64: the
    gradient of the query is given for each of them, ``[parts, ..., m, d]``, and is their sum.
    Gradients of 16-bit floats are computed in float32 and rounded once; a kernel may round weights
    and the gradients by scores to 16 bits before it multiplies them.
    """

    name = "AttentionGradient"
    inputs = (
        "query: T, key: T, value: T, grad: T, statistics: U, mean: U, "
        "bias: N*float16|bfloat16|float32|float64"
    )
    types: ClassVar[dict[str, tuple[DType, ...]]] = {
        "T": dtypes.FLOATS, "U": (dtypes.float32, dtypes.float64),
    }  # fmt: skip
    attrs: ClassVar[dict[str, Attr]] = {"scale": Attr("float", 1.0), "parts": Attr("int", 1)}
    template = "attention_gradient"
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The types of the query, once for each part, of the key and of the value."""
        if len(ctx.inputs) > 7:
            raise ctx.error("There may be one bias")
        if ctx.attrs["parts"] < 1:
            raise ctx.error("There must be one part at least")
        shapes = [ctx.sizes(k) for k in range(6)]
        known = [s for s in shapes if s is not None]
        if len(known) < len(shapes):
            return [TensorType(ctx.dtype(0), s) for s in (None, *shapes[1:3])]
        query, key, value, grad, statistics, mean = known
        rank = len(query)
        if rank < 2 or any(len(s) != rank for s in known):
            raise ctx.error("All operands must be of one rank, at least 2")
        for sizes in known[1:]:
            for k in range(rank - 2):
                ctx.equal(query[k], sizes[k], "Leading sizes must be equal")
        for sizes in (grad, statistics, mean):
            ctx.equal(query[-2], sizes[-2], "Numbers of queries must be equal")
        ctx.equal(query[-1], key[-1], "Sizes of query and key must be equal")
        ctx.equal(key[-2], value[-2], "Numbers of keys and values must be equal")
        ctx.equal(value[-1], grad[-1], "Sizes of values and gradients must be equal")
        ctx.equal(statistics[-1], 2, "There must be two statistics of each query")
        ctx.equal(mean[-1], 1, "There must be one number for each query")
        if len(ctx.inputs) == 7:
            _check_bias(ctx, 6, (*query[:-1], key[-2]))
        return [
            TensorType(ctx.dtype(0), (ctx.attrs["parts"], *query)),
            TensorType(ctx.dtype(0), key), TensorType(ctx.dtype(0), value),
        ]  # fmt: skip

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The definition, in float64."""
        wide = [np.asarray(v, np.float64) for v in inputs]
        query, key, value, grad, statistics, mean, *bias = wide
        below = _scores(attrs, query, np.swapaxes(key, -1, -2), bias) - statistics[..., :1]
        weights = np.exp(below - statistics[..., 1:])
        slopes = weights * (grad @ np.swapaxes(value, -1, -2) - mean) * attrs["scale"]
        parts, keys = attrs["parts"], key.shape[-2]
        step = max(-(-keys // parts), LEAST_PART)
        slices = [slice(step * k, step * (k + 1)) for k in range(parts)]
        found = (
            np.stack([slopes[..., s] @ key[..., s, :] for s in slices]),
            np.swapaxes(slopes, -1, -2) @ query, np.swapaxes(weights, -1, -2) @ grad,
        )  # fmt: skip
        return tuple(v.astype(np.asarray(inputs[0]).dtype) for v in found)

    def samples(self) -> Iterable[Sample]:
        """Blocks that are full and that are not, parts, biases of all shapes, masks, nothing."""
        for batch, m, d, t, n, parts in (
            ((2, 3), 5, 8, 7, 6, 1), ((), 130, 16, 70, 20, 2), ((2,), 128, 4, 64, 16, 1),
            ((1,), 1, 3, 1, 1, 3), ((1,), 33, 2, 200, 33, 4),
        ):  # fmt: skip
            shapes = (*batch, m, d), (*batch, t, d), (*batch, t, n)
            yield _gradient_sample(shapes, [], parts)
        shapes = (2, 5, 3), (2, 300, 3), (2, 300, 4)
        for shape in ((2, 5, 300), (300,), (5, 1), (1, 5, 300)):
            yield _gradient_sample(shapes, [grid(*shape)], note="bias")
        causal = np.where(np.arange(300) <= 59 * np.arange(5)[:, None], 0.0, -INF)
        yield _gradient_sample(shapes, [causal], 2, note="causal")
        yield _gradient_sample(shapes, [np.full(300, -INF)], note="all keys masked")
        for shapes, note in (
            (((0, 2, 3), (0, 4, 3), (0, 4, 5)), "empty"), (((2, 3), (0, 3), (0, 2)), "no keys"),
            (((2, 0), (4, 0), (4, 3)), "no depth"), (((0, 3), (4, 3), (4, 3)), "no queries"),
        ):  # fmt: skip
            yield _gradient_sample(shapes, [], note=note)


def _gradient_sample(
    shapes: Sequence[tuple[int, ...]], bias: list[np.ndarray], parts: int = 1, note: str = ""
) -> Sample:
    query, key, value = (grid(*s) for s in shapes)
    attrs = {"scale": 0.5, "parts": parts}
    statistics = _statistics(_scores(attrs, query, np.swapaxes(key, -1, -2), bias))
    mean, grad = grid(*query.shape[:-1], 1), grid(*query.shape[:-1], value.shape[-1], low=-1.0)
    inputs = query, key, value, grad, statistics, mean, bias
    return Sample(inputs, attrs, grad=(), rtol=1e-4, note=note)
