"""Cumsum and Cumprod: running sums and products along an axis."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.build import convert_to_tensor, create, single
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType, name_scope
from graphc.op import (
    Attr,
    Gradients,
    InferContext,
    Sample,
    ScanOp,
    register,
)
from graphc.ops.base import INF, NAN, call, grid
from graphc.ops.movement_value import INDEX, result
from graphc.ops.reduction_index import inferred_axis

# Every (exclusive, reverse).
_WAYS = tuple(itertools.product((False, True), repeat=2))


class _Scan(ScanOp):
    inputs = "x: T, axis: Tidx"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC, "Tidx": INDEX}
    attrs: ClassVar[dict[str, Attr]] = {
        "exclusive": Attr("bool", False),
        "reverse": Attr("bool", False),
    }
    value_operands: ClassVar[tuple[int, ...]] = (1,)
    constant_operands: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's type."""
        sizes = ctx.sizes(0)
        ctx.rank(1, 0)
        if sizes is not None:
            inferred_axis(ctx, 1, len(sizes))
        return result(ctx, sizes)

    def _scanned(self, attrs: dict[str, Any], inputs: Sequence[Any], scan: Any, first: int) -> Any:
        axis = int(inputs[1])
        x = np.moveaxis(np.asarray(inputs[0]), axis, 0)
        rows = x.astype(np.float64) if dtypes.is_float(x.dtype) else x
        rows = rows[::-1] if attrs["reverse"] else rows
        if attrs["exclusive"]:
            rows = np.concatenate([np.full_like(rows[:1], first), rows[:-1]])
        rows = scan(rows, axis=0, dtype=rows.dtype)
        rows = rows[::-1] if attrs["reverse"] else rows
        return np.moveaxis(rows, 0, axis).astype(x.dtype)

    def samples(self) -> Iterable[Sample]:
        """Each axis, each way; size 1, nothing, special values, integers that wrap around."""
        x = grid(2, 3, 4, low=0.5, high=1.5)
        for axis in (0, 1, 2, -1, -2):
            for exclusive, reverse in _WAYS:
                attrs = {"exclusive": exclusive, "reverse": reverse}
                if axis in (1, -1) or exclusive == reverse:
                    yield Sample((x, np.int64(axis)), attrs, rtol=1e-5)
        yield Sample((grid(37, low=0.5, high=1.5), np.int64(0)), rtol=1e-5, note="vector")
        yield Sample((grid(1, 3), np.int64(0)), {"exclusive": True}, note="size 1")
        yield Sample((np.zeros((0, 3)), np.int64(0)), grad=(), note="empty rows")
        yield Sample((np.zeros((0, 3)), np.int64(1)), grad=(), note="no rows")
        special = np.array([1.0, INF, 2.0, -INF, NAN, 1.0])
        yield Sample((special, np.int64(0)), {"exclusive": True}, grad=(),
                     dtypes=dtypes.FLOATS, note="special")  # fmt: skip
        extreme = np.array([[127, 127, 3, -128]])
        yield Sample((extreme, np.int64(1)), grad=(), dtypes=dtypes.SIGNED, note="extreme ints")


def _back(op: Operation, value: Tensor) -> Tensor:
    """The running sum of ``value`` the other way round: what an element contributed to."""
    attrs = {"exclusive": op.attrs["exclusive"], "reverse": not op.attrs["reverse"]}
    return call("Cumsum", value, op.inputs[1], **attrs)


@register
class Cumsum(_Scan):
    """The sums of the elements of ``x`` along ``axis`` up to each element.

    With ``exclusive`` the element itself is left out; with ``reverse`` the sums are of the elements
    from each one to the end.
    """

    name = "Cumsum"
    op = "add"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The running sum of the gradient, the other way round."""
        assert grads[0] is not None
        return [_back(op, grads[0]), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's, floats accumulated in float64."""
        return self._scanned(attrs, inputs, np.cumsum, 0)


@register
class Cumprod(_Scan):
    """The products of the elements of ``x`` along ``axis`` up to each element.

    With ``exclusive`` the element itself is left out; with ``reverse`` the products are of the
    elements from each one to the end.
    """

    name = "Cumprod"
    op = "mul"

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The sum over the products that an element is in of the product of the others.

        For an element that is 0: over the products that have no other 0, without that one.
        Second derivatives hold for rows with no more than one 0.
        """
        assert grads[0] is not None
        x, axis = op.inputs
        zero = call("Equal", x, 0)
        rest = call("SelectV2", zero, 1, x)
        count = call("Cumsum", call("Cast", zero, DstT=x.dtype.base_dtype), axis, **op.attrs)
        product = call("Cumprod", rest, axis, **op.attrs)
        alone = call("SelectV2", call("Equal", count, 1), product, 0)
        at_zero = _back(op, call("Mul", grads[0], alone))
        elsewhere = call("RealDiv", _back(op, call("Mul", grads[0], op.outputs[0])), rest)
        return [call("SelectV2", zero, at_zero, elsewhere), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's, floats accumulated in float64."""
        return self._scanned(attrs, inputs, np.cumprod, 1)

    def samples(self) -> Iterable[Sample]:
        """Those of Cumsum; a zero."""
        yield from super().samples()
        zeros = np.array([[2.0, 0.0, 3.0, 0.5], [0.0, 2.0, 0.5, 3.0], [1.5, 2.0, 3.0, 0.0]])
        for exclusive, reverse in _WAYS:
            attrs = {"exclusive": exclusive, "reverse": reverse}
            yield Sample((zeros, np.int64(1)), attrs, note="a zero")


def _declared(
    kind: str, x: Any, axis: Any, exclusive: bool, reverse: bool, name: str | None
) -> Tensor:
    with name_scope(name, kind, [x]) as scope:
        x = convert_to_tensor(x, name="x")
        attrs = {"exclusive": exclusive, "reverse": reverse}
        return single(create(kind, [x, axis], attrs, scope))


def cumsum(
    x: Any, axis: Any = 0, exclusive: bool = False, reverse: bool = False, name: str | None = None
) -> Tensor:
    """The sums of the elements along ``axis`` up to each one.

    Args:
      x: a tensor of numbers.
      axis: the dimension.
      exclusive: whether to leave out the element itself.
      reverse: whether to sum from each element to the end instead.
      name: a name for the operation.
    """
    return _declared("Cumsum", x, axis, exclusive, reverse, name)


def cumprod(
    x: Any, axis: Any = 0, exclusive: bool = False, reverse: bool = False, name: str | None = None
) -> Tensor:
    """The products of the elements along ``axis`` up to each one; see :func:`cumsum`."""
    return _declared("Cumprod", x, axis, exclusive, reverse, name)
