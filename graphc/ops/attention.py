"""Attention as one op: what the fusing of products and a softmax makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.graph import Operation, TensorType
from graphc.op import Attr, InferContext, Sample, TemplateOp, register
from graphc.ops.base import INF, grid
from graphc.ops.softmax import shifted


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
        short = op.outputs[0].dtype.base_dtype in dtypes.SHORT_FLOATS
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
            bias = ctx.sizes(3)
            scores = (*query[:-1], key[-1])
            if bias is not None:
                found = ctx.broadcast(scores, bias)
                if found is not None and len(found) != rank:
                    raise ctx.error("The bias must broadcast to the scores")
        return [TensorType(ctx.dtype(0), (*query[:-1], value[-1]))]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The definition, in float64."""
        query, key, value, *bias = (np.asarray(v, np.float64) for v in inputs)
        scores = query @ key * attrs["scale"]
        weights = np.exp(shifted(scores + bias[0] if bias else scores, -1))
        weights /= np.sum(weights, -1, keepdims=True)
        return (weights @ value).astype(np.asarray(inputs[0]).dtype)

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
