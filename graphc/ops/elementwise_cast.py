"""Conversion between dtypes, and rounding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    Attr,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Sample,
    register,
    value_sizes,
)
from graphc.ops.base import SPECIAL, Unary, call, grid

HALVES = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.4999999, 2.0, -3.0])


@register
class Cast(ElementOp):
    """``x`` converted to ``DstT``.

    Floats are truncated towards zero on the way to integers and saturate at the limits, NaN gives
    0; integers wrap around; anything to bool is ``x != 0``.
    """

    name = "Cast"
    inputs = "x: SrcT"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"SrcT": dtypes.ALL}
    attrs: ClassVar[dict[str, Attr]] = {"DstT": Attr("dtype")}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's shape in the new dtype."""
        return [TensorType(ctx.attrs["DstT"], ctx.sizes(0))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element, cast."""
        return ir.cast(ctx.operand(0, index), ctx.op.outputs[0].dtype)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient cast back; none to or from a type without derivatives."""
        source = op.inputs[0].dtype.base_dtype
        if not (source.is_floating and op.outputs[0].dtype.is_floating):
            return [None]
        return [call("Cast", grads[0], DstT=source)]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's astype, with the saturation written out."""
        return saturating_cast(np.asarray(inputs[0]), attrs["DstT"])

    def samples(self) -> Iterable[Sample]:
        """Every pair of dtypes that matters."""
        for target in dtypes.ALL:
            attrs = {"DstT": target}
            ints = np.array([0, 1, -1, 127, -128])
            yield Sample((grid(2, 5, low=-3, high=3),), attrs)
            yield Sample((SPECIAL,), attrs, grad=(), dtypes=dtypes.FLOATS)
            yield Sample((ints,), attrs, grad=(), dtypes=dtypes.SIGNED)

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike, ...] | None:
        """Sizes stay sizes in another integer dtype."""
        return value_sizes(op.inputs[0]) if op.outputs[0].dtype.is_integer else None


def saturating_cast(x: np.ndarray, dtype: DType) -> np.ndarray:
    """``x.astype``, but floats saturate at the limits of an integer type and NaN gives 0."""
    target = dtype.numpy
    if dtypes.is_float(x.dtype) and dtype.is_integer:
        low, high = dtype.limits
        whole = np.trunc(np.where(np.isnan(x), 0.0, x.astype(np.float64)))
        inside = np.clip(whole, float(low), np.nextafter(float(high) + 1, 0)).astype(target)
        result = np.where(whole >= float(high), target.type(high), inside)
        return np.asarray(np.where(whole <= float(low), target.type(low), result))
    return dtypes.rounded(x, target)


class _Rounding(Unary):
    differentiable = False

    def samples(self) -> Iterable[Sample]:
        """Those of every unary op, and halves."""
        yield from super().samples()
        yield Sample((HALVES,), grad=(), note="halves")


@register
class Floor(_Rounding):
    """The largest whole number that is not above ``x``."""

    name = "Floor"
    fn = "floor"


@register
class Ceil(_Rounding):
    """The smallest whole number that is not below ``x``."""

    name = "Ceil"
    fn = "ceil"


@register
class Rint(_Rounding):
    """The nearest whole number; of two, the even one."""

    name = "Rint"
    fn = "rint"


@register
class Round(_Rounding):
    """The nearest whole number; of two, the even one. Integers stay."""

    name = "Round"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.FLOATS + dtypes.SIGNED}

    def scalar(self, op: Operation, x: ir.Expr) -> ir.Expr:
        """Rounded, if it is a float."""
        return ir.apply("rint", x) if x.dtype.is_floating else x

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's."""
        return np.rint(inputs[0]) if dtypes.is_float(np.asarray(inputs[0]).dtype) else inputs[0]
