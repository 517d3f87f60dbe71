"""Positions: where a condition holds, in order; as many as there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.graph import Tensor, TensorType
from graphc.op import Gradients, InferContext, Sample, TemplateOp, register


@register
class Positions(TemplateOp):
    """The flat positions of the true elements of ``condition``, in order: int64, of size ``count``.

    ``count`` must be the number of true elements: a run learns from it how long the result is.
    """

    name = "Positions"
    family = "scatter"
    inputs = "condition: bool, count: int64"
    value_operands: ClassVar[tuple[int, ...]] = (1,)
    template = "positions"
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A vector of ``count`` elements."""
        ctx.rank(1, 0)
        return [TensorType(dtypes.int64, ctx.value(1))]

    def gradient(self, op: Any, *grads: Tensor | None) -> Gradients:
        """None: positions are integers."""
        return [None, None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's flatnonzero."""
        return np.flatnonzero(inputs[0])[: int(inputs[1])]

    def samples(self) -> Iterable[Sample]:
        """Some, all, none; a scalar; nothing at all."""
        yield Sample((np.array([[True, False], [True, True]]), np.int64(3)), grad=())
        yield Sample((np.array([True, True]), np.int64(2)), grad=())
        yield Sample((np.array([False, False]), np.int64(0)), grad=())
        yield Sample((np.array(True), np.int64(1)), grad=())
        yield Sample((np.zeros((0, 2), bool), np.int64(0)), grad=())
