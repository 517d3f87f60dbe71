"""Numbers that must be finite: CheckNumerics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.errors import InvalidArgumentError
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import Attr, ElementContext, ElementOp, Gradients, InferContext, Sample, register
from graphc.ops.base import call, grid

IN_GRADIENT = "Not a number (NaN) or infinity (Inf) values detected in gradient. "


@register
class CheckNumerics(ElementOp):
    """The operand as it is; a run fails with ``message`` if some element is infinite or no number.

    It is checked whenever a run needs the operation, whoever reads the result.
    """

    name = "CheckNumerics"
    inputs = "tensor: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS}
    attrs: ClassVar[dict[str, Attr]] = {"message": Attr("str", "")}
    fallible = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's type."""
        return [TensorType(ctx.dtype(0), ctx.sizes(0))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element, if it is finite."""
        message = ctx.op.attrs["message"].replace("%", "%%")
        x = ctx.operand(0, index)
        number = ir.apply("eq", x, x)
        finite = ir.apply("isfinite", x)
        inf = ctx.site(f"{message} : Tensor had Inf values")
        nan = ctx.site(f"{message} : Tensor had NaN values")
        return ir.Require(number, ir.Require(finite, x, inf), nan)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The output's gradient, checked too."""
        return [call("CheckNumerics", grads[0], message=IN_GRADIENT + op.attrs["message"])]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The operand."""
        for bad, kind in ((np.isnan, "NaN"), (np.isinf, "Inf")):
            if bad(inputs[0]).any():
                text = f"{attrs['message']} : Tensor had {kind} values"
                raise InvalidArgumentError(None, None, text)
        return inputs[0]

    def samples(self) -> Iterable[Sample]:
        """A matrix, a scalar, nothing."""
        yield Sample((grid(3, 4),), {"message": "100% sure: %d"})
        yield Sample((grid(2, 1, 17),), {"message": "a size of 1"})
        yield Sample((np.array(1.5),), {"message": "scalar"})
        yield Sample((np.zeros((0, 3)),), {"message": "empty"}, grad=())
