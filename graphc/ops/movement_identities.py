"""IdentityN: several tensors as they are, in one operation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.graph import Operation, Tensor, TensorType
from graphc.op import CompositeOp, Gradients, InferContext, Sample, register
from graphc.ops.base import grid

ANY = "|".join(t.name for t in (*dtypes.ALL, dtypes.string))


@register
class IdentityN(CompositeOp):
    """Every operand as it is; ``gc.custom_gradient`` gives such an operation its gradient."""

    name = "IdentityN"
    inputs = f"input: N*{ANY}"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operands' types."""
        return [TensorType(t.dtype.base_dtype, t.sizes) for t in ctx.inputs]

    def decompose(self, op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The operands."""
        return list(inputs)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The outputs' gradients."""
        return list(grads)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The operands."""
        return tuple(inputs)

    def samples(self) -> Iterable[Sample]:
        """One operand, several of different shapes."""
        yield Sample(([grid(2, 3)],))
        yield Sample(([grid(2), grid(3, 1), np.array(1.5)],))
