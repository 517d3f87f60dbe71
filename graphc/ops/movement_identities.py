"""Tensors as they are: several in one operation, or one that is kept from run to run."""

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


@register
class Prepared(ElementOp):
    """The operand, which a session keeps while the variables that it depends on stay as they are.

    Passes put it behind what they make of weights, so that no run makes it again.
    """

    name = "Prepared"
    inputs = "x: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL}
    differentiable = False
    prepared = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's type."""
        return [TensorType(ctx.dtype(0), ctx.sizes(0))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element."""
        return ctx.operand(0, index)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The operand."""
        return np.asarray(inputs[0])

    def samples(self) -> Iterable[Sample]:
        """A matrix, a scalar, nothing."""
        yield Sample((grid(2, 3),))
        yield Sample((grid(),), note="scalar")
        yield Sample((np.zeros((0, 2)),), note="empty")
