"""Comparisons, logical and bitwise ops, and the choice between two tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.loop.scalar import FUNCTIONS
from graphc.op import ElementContext, ElementOp, Gradients, InferContext, Sample, register
from graphc.ops.base import Binary, Compare, Unary, call, grid, merged_sizes, unbroadcast

TRUTH = np.array([[True, False, True], [False, False, True]])


class _Equality(Compare):
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL}

    def samples(self) -> Iterable[Sample]:
        """Those of every comparison, and equal values."""
        yield from super().samples()
        yield Sample((np.array([1, 2, 3]), np.array([1, 0, 3])), note="equal values")


@register
class Equal(_Equality):
    """``x == y`` element by element; NaN equals nothing."""

    name = "Equal"
    fn = "eq"


@register
class NotEqual(_Equality):
    """``x != y`` element by element; NaN differs from everything."""

    name = "NotEqual"
    fn = "ne"


@register
class Less(Compare):
    """``x < y`` element by element; false for NaN."""

    name = "Less"
    fn = "lt"


@register
class LessEqual(Compare):
    """``x <= y`` element by element; false for NaN."""

    name = "LessEqual"
    fn = "le"


@register
class Greater(Compare):
    """``x > y`` element by element; false for NaN."""

    name = "Greater"
    fn = "gt"


@register
class GreaterEqual(Compare):
    """``x >= y`` element by element; false for NaN."""

    name = "GreaterEqual"
    fn = "ge"


class _Predicate(Unary):
    differentiable = False

    def out_dtype(self, dtype: DType) -> DType:
        """Bool."""
        return dtypes.bool_


@register
class IsNan(_Predicate):
    """Whether each element is NaN."""

    name = "IsNan"
    fn = "isnan"


@register
class IsInf(_Predicate):
    """Whether each element is infinite."""

    name = "IsInf"
    fn = "isinf"


@register
class IsFinite(_Predicate):
    """Whether each element is neither infinite nor NaN."""

    name = "IsFinite"
    fn = "isfinite"


class _Logical(Binary):
    inputs = "x: bool, y: bool"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {}
    differentiable = False

    def samples(self) -> Iterable[Sample]:
        """All four combinations, broadcasting, nothing."""
        yield Sample((np.array([False, False, True, True]), np.array([False, True, False, True])))
        yield Sample((TRUTH, TRUTH[0]), note="row broadcast")
        yield Sample((TRUTH, np.bool_(True)), note="scalar operand")
        yield Sample((np.zeros((0, 3), bool), np.zeros((1, 3), bool)), note="empty")


@register
class LogicalAnd(_Logical):
    """Whether both are true, element by element."""

    name = "LogicalAnd"
    fn = "and"


@register
class LogicalOr(_Logical):
    """Whether at least one is true, element by element."""

    name = "LogicalOr"
    fn = "or"


@register
class LogicalNot(Unary):
    """Whether each element is false."""

    name = "LogicalNot"
    inputs = "x: bool"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {}
    fn = "not"
    differentiable = False

    def samples(self) -> Iterable[Sample]:
        """Both values, a scalar, nothing."""
        yield Sample((TRUTH,))
        yield Sample((np.bool_(False),), note="scalar")
        yield Sample((np.zeros((0, 2), bool),), note="empty")


BITS = np.array([0, 1, -1, 2, 5, -6, 127, -128])


class _Bitwise(Binary):
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.INTEGERS}
    differentiable = False

    def samples(self) -> Iterable[Sample]:
        """Every pair of telling patterns, broadcasting, nothing."""
        a, b = np.meshgrid(BITS, BITS)
        yield Sample((a, b))
        yield Sample((a, BITS[0]), note="scalar operand")
        yield Sample((np.zeros((0, 3), int), np.zeros((1, 3), int)), note="empty")


@register
class BitwiseAnd(_Bitwise):
    """The bits that both integers have."""

    name = "BitwiseAnd"
    fn = "and"


@register
class BitwiseOr(_Bitwise):
    """The bits that at least one of the integers has."""

    name = "BitwiseOr"
    fn = "or"


@register
class BitwiseXor(_Bitwise):
    """The bits that exactly one of the integers has."""

    name = "BitwiseXor"
    fn = "xor"


class _Shift(_Bitwise):
    right: ClassVar[bool] = False

    def scalar(self, op: Operation, x: ir.Expr, y: ir.Expr) -> ir.Expr:
        """The shift by the amount, kept between 0 and the width less one."""
        amount = ir.apply("min", ir.apply("max", y, 0), x.dtype.size * 8 - 1)
        return ir.apply(self.shift_fn(x.dtype), x, amount)

    def shift_fn(self, dtype: DType) -> str:
        """The scalar function that shifts integers of that type."""
        if not self.right:
            return "shl"
        return "lshr" if dtype.is_unsigned else "ashr"

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The same by NumPy."""
        x, y = (np.asarray(v) for v in inputs)
        amount = np.clip(y, 0, x.dtype.itemsize * 8 - 1)
        return FUNCTIONS["ashr" if self.right else "shl"].numpy(x, amount)


@register
class LeftShift(_Shift):
    """``x << y``; an amount outside the width counts as the nearest inside."""

    name = "LeftShift"


@register
class RightShift(_Shift):
    """``x >> y``, keeping the sign; an amount outside the width counts as the nearest inside."""

    name = "RightShift"
    right = True


@register
class Invert(Unary):
    """Every bit of each integer turned over."""

    name = "Invert"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.INTEGERS}
    fn = "not"
    differentiable = False

    def samples(self) -> Iterable[Sample]:
        """Telling patterns, nothing."""
        yield Sample((BITS,))
        yield Sample((np.zeros((0, 3), int),), note="empty")


CHOICES = (grid(2, 3), grid(2, 3, low=3.0, high=5.0))


@register
class Select(ElementOp):
    """Elements of ``t`` where ``condition`` holds, of ``e`` elsewhere.

    ``t`` and ``e`` have one shape; ``condition`` has it too, or is a scalar, or is a vector that
    chooses whole rows.
    """

    name = "Select"
    inputs = "condition: bool, t: T, e: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape of ``t`` and ``e``."""
        sizes, cond = merged_sizes(ctx, (1, 2)), ctx.sizes(0)
        if sizes is None or cond is None or len(cond) == 0:
            return [TensorType(ctx.dtype(1), sizes)]
        if len(cond) == 1 and len(sizes) > 1:
            first = ctx.equal(cond[0], sizes[0], "Dimension 0 in both shapes must be equal")
            sizes = (first, *sizes[1:])
        elif len(cond) != len(sizes):
            message = f"Shapes must be equal rank, but are {len(sizes)} and {len(cond)}"
            raise ctx.error(message)
        else:
            both = zip(sizes, cond, strict=True)
            sizes = tuple(
                ctx.equal(a, b, f"Dimension {i} in both shapes must be equal")
                for i, (a, b) in enumerate(both)
            )
        return [TensorType(ctx.dtype(1), sizes)]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The chosen element; a vector condition is indexed by the row."""
        cond = ctx.operand(0, index[: len(ctx.sizes(0))])
        return ir.select(cond, ctx.operand(1, index), ctx.operand(2, index))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient to the chosen operand, zeros to the other."""
        cond, t = op.inputs[:2]
        zeros = call("ZerosLike", t)
        return [None, call("Select", cond, grads[0], zeros), call("Select", cond, zeros, grads[0])]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's where, with the vector condition as a column."""
        cond, t, e = (np.asarray(v) for v in inputs)
        return np.where(cond.reshape(cond.shape + (1,) * (t.ndim - cond.ndim)), t, e)

    def samples(self) -> Iterable[Sample]:
        """The three kinds of conditions; bools; nothing."""
        yield Sample((TRUTH, *CHOICES))
        yield Sample((TRUTH[:, 0], *CHOICES), note="row condition")
        yield Sample((np.bool_(True), *CHOICES), note="scalar condition")
        yield Sample((TRUTH, TRUTH, ~TRUTH), grad=(), dtypes=(dtypes.bool_,))
        yield Sample((np.zeros((0,), bool), np.zeros((0, 2)), np.zeros((0, 2))), grad=())

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike, ...] | None:
        """Not known: the condition is computed."""
        return None


@register
class SelectV2(ElementOp):
    """Elements of ``t`` where ``condition`` holds, of ``e`` elsewhere; all three broadcast."""

    name = "SelectV2"
    inputs = "condition: bool, t: T, e: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL}
    broadcasts = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The broadcast shape of the three operands."""
        sizes = ctx.broadcast(ctx.broadcast(ctx.sizes(0), ctx.sizes(1)), ctx.sizes(2))
        return [TensorType(ctx.dtype(1), sizes)]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The chosen element, each operand at its broadcast index."""
        cond, t, e = (ctx.broadcast_operand(i, index) for i in range(3))
        return ir.select(cond, t, e)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient to the chosen operand, zeros to the other, summed over broadcast dims."""
        cond, t, e = op.inputs
        return [
            None,
            unbroadcast(call("SelectV2", cond, grads[0], 0), t),
            unbroadcast(call("SelectV2", cond, 0, grads[0]), e),
        ]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's where."""
        return np.where(*inputs)

    def samples(self) -> Iterable[Sample]:
        """Equal shapes; each operand broadcast; bools; nothing."""
        t, e = CHOICES
        yield Sample((TRUTH, t, e))
        yield Sample((TRUTH[:, :1], t[0], e), note="broadcast")
        yield Sample((TRUTH, t[0, 0], e[:, :1]), note="scalar operand")
        yield Sample((np.bool_(False), t, e), note="scalar condition")
        yield Sample((TRUTH, TRUTH, np.bool_(False)), grad=(), dtypes=(dtypes.bool_,))
        yield Sample((np.zeros((0, 3), bool), np.ones(3), np.ones((1, 1))), grad=(), note="empty")
