"""TakeRow and PutRow: one slice of a tensor by its number, read and replaced.

They are what a TensorArray is made of: the tensor holds the elements, a read takes a row and a
write puts one, in place wherever nobody needs the tensor without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dtypes import DType
from graphc.errors import InvalidArgumentError
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    DECLARING,
    Attr,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Sample,
    TemplateOp,
    register,
)
from graphc.ops.base import call, grid
from graphc.ops.movement_value import INDEX, all_of, guarded, zero_of
from graphc.shapes import shape_text

_CHECKED = {"checked": Attr("bool", True)}


def _check(attrs: dict[str, Any], index: Any, count: int) -> None:
    if attrs["checked"] and not 0 <= int(index) < count:
        raise InvalidArgumentError(None, None, f"index {int(index)} is not in [0, {count})")


@register
class EmptyRows(ElementOp):
    """``size`` rows of zeros: what a TensorArray holds before anything is written.

    The attribute ``row`` is the shape of a row; None where only what is written tells it.
    """

    name = "EmptyRows"
    inputs = "size: Tindex"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"Tindex": INDEX}
    attrs: ClassVar[dict[str, Attr]] = {"dtype": Attr("dtype"), "row": Attr("shape", None)}
    value_operands: ClassVar[tuple[int, ...]] = (0,)
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The rows; of unknown rank while the shape of a row is unknown."""
        ctx.rank(0, 0)
        row, count = ctx.attrs["row"], ctx.value(0)
        if row is None or count is None:
            return [TensorType(ctx.attrs["dtype"], None)]
        sizes = (count[0], *(ctx.env.canonical(s) for s in row))
        return [TensorType(ctx.attrs["dtype"], sizes)]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """Zero."""
        return ir.Const(0, ctx.op.attrs["dtype"])

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's zeros."""
        return np.zeros((int(inputs[0]), *(attrs["row"] or ())), attrs["dtype"].numpy)

    def samples(self) -> Iterable[Sample]:
        """Rows of vectors and scalars, no rows."""
        yield Sample((np.int64(3),), {"dtype": dtypes.float32, "row": (2, 5)})
        yield Sample((np.int64(4),), {"dtype": dtypes.int32, "row": ()})
        yield Sample((np.int64(0),), {"dtype": dtypes.float64, "row": (3,)})


@register
class TakeRow(ElementOp):
    """``x[index]``: the slice of ``x`` along its first dimension.

    An index that is out of range fails the run if ``checked``; otherwise it gives zeros.
    """

    name = "TakeRow"
    inputs = "x: T, index: Tindex"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tindex": INDEX}
    attrs: ClassVar[dict[str, Attr]] = _CHECKED
    fallible = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes of ``x`` but for the first."""
        sizes = ctx.sizes(0)
        ctx.rank(1, 0)
        if sizes is not None and not sizes:
            raise ctx.error("Shape must be at least rank 1 but is rank 0")
        return [TensorType(ctx.dtype(0), None if sizes is None else sizes[1:])]

    def can_fail(self, op: Operation) -> bool:
        """Where the index is checked."""
        return bool(op.attrs["checked"])

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The element of the row."""
        row = ir.cast(ctx.operand(1, ()), dtypes.int64)
        value = ctx.operand(0, (row, *index))
        size = ctx.sizes(0)[0]
        inside = ir.apply("and", row >= 0, row < ctx.size(size))
        if not self.can_fail(ctx.op):
            # A loaded graph may say what no gradient does: memory outside is never read.
            return ir.Guard(inside, value, ir.Const(0, ctx.op.outputs[0].dtype.base_dtype))
        site = ctx.site("index %d is not in [0, %d)")
        return ir.Require(inside, value, site, (row, ctx.size(size)))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Zeros but for the row."""
        x, index = op.inputs
        return [call("PutRow", call("ZerosLike", x), index, grads[0], add=True), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """Indexing; zeros for what is out of range."""
        x, index = inputs
        _check(attrs, index, len(x))
        inside = 0 <= int(index) < len(x)
        return x[int(index)] if inside else np.zeros(np.shape(x)[1:], np.asarray(x).dtype)

    def samples(self) -> Iterable[Sample]:
        """Rows of scalars, vectors and matrices, of nothing."""
        yield Sample((grid(5), np.int64(3)))
        yield Sample((grid(3, 4), np.int64(2)))
        yield Sample((grid(2, 3, 2), np.int64(0)), {"checked": False})
        yield Sample((grid(2, 3), np.int64(2)), {"checked": False})
        yield Sample((grid(2, 3), np.int64(-(2**40))), {"checked": False})
        yield Sample((np.zeros((0, 3)), np.int64(0)), {"checked": False})
        yield Sample((np.zeros((2, 0)), np.int64(1)), grad=())


@register
class PutRow(TemplateOp):
    """``x`` with ``row`` in the place of ``x[index]``, or added to it where ``add`` is set.

    An index that is out of range fails the run if ``checked``; otherwise nothing is put.
    """

    name = "PutRow"
    family = "scatter"
    inputs = "x: T, index: Tindex, row: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tindex": INDEX}
    attrs: ClassVar[dict[str, Attr]] = {"add": Attr("bool", False), "checked": Attr("bool", False)}
    template = "put_row"
    fallible = True
    overwrites = 0

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The type of ``x``, which ``row`` must fit."""
        sizes, row = ctx.sizes(0), ctx.sizes(2)
        ctx.rank(1, 0)
        if ctx.attrs["add"] and ctx.dtype(0) is dtypes.bool_:
            raise ctx.error("bools cannot be added")
        if sizes is None or row is None:
            return [TensorType(ctx.dtype(0), sizes)]
        if len(sizes) != len(row) + 1:
            raise ctx.error(f"A row of shape {shape_text(row)} does not fit {shape_text(sizes)}")
        for a, b in zip(sizes[1:], row, strict=True):
            if ctx.env is not DECLARING or (isinstance(a, int) and isinstance(b, int)):
                ctx.equal(a, b)
        return [TensorType(ctx.dtype(0), sizes)]

    def can_fail(self, op: Operation) -> bool:
        """Where the index is checked."""
        return bool(op.attrs["checked"])

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient's row; the others are those of ``x``."""
        grad = grads[0]
        _, index, row = op.inputs
        taken = call("TakeRow", grad, index, checked=False)
        assert grad is not None
        rest = grad
        if not op.attrs["add"]:
            rest = call("PutRow", grad, index, call("ZerosLike", row))
        return [rest if op.region is None else array_gradient(rest, op.inputs[0]), None, taken]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """A copy with one row changed."""
        x, index, row = inputs
        _check(attrs, index, len(x))
        out = np.array(x)
        if 0 <= int(index) < len(out):
            out[int(index)] = out[int(index)] + row if attrs["add"] else row
        return out

    def samples(self) -> Iterable[Sample]:
        """Put and added; scalars, matrices, nothing; out of range."""
        yield Sample((grid(5), np.int64(3), grid()))
        yield Sample((grid(3, 40), np.int64(2), grid(40)), {"checked": True})
        yield Sample((grid(3, 4), np.int64(0), grid(4)), {"add": True}, dtypes=dtypes.NUMERIC)
        yield Sample((grid(2, 3, 2), np.int64(1), grid(3, 2)))
        yield Sample((grid(3, 4), np.int64(7), grid(4)), grad=(0,))
        yield Sample((np.zeros((2, 0)), np.int64(1), np.zeros(0)), grad=())


@register
class PutRowGrowing(TemplateOp):
    """``x`` with ``row`` in the place of ``x[index]``; longer, where the index is past its end.

    Rows between the old end and the index are zeros.  A negative index fails the run if
    ``checked``; otherwise nothing is put.
    """

    name = "PutRowGrowing"
    family = "scatter"
    inputs = "x: T, index: Tindex, row: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tindex": INDEX}
    attrs: ClassVar[dict[str, Attr]] = _CHECKED
    value_operands: ClassVar[tuple[int, ...]] = (1,)
    template = "put_row"
    fallible = True
    overwrites = 0
    grows = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """As many rows as ``x`` has, or up to the index."""
        sizes, row, index = ctx.sizes(0), ctx.sizes(2), ctx.value(1)
        ctx.rank(1, 0)
        if sizes is None:
            if row is None or ctx.env is not DECLARING:
                return [TensorType(ctx.dtype(0), None)]
            return [TensorType(ctx.dtype(0), (dims.fresh(), *row))]
        if row is not None and len(sizes) != len(row) + 1:
            raise ctx.error(f"A row of shape {shape_text(row)} does not fit {shape_text(sizes)}")
        for a, b in zip(sizes[1:], row or sizes[1:], strict=True):
            if ctx.env is not DECLARING or (isinstance(a, int) and isinstance(b, int)):
                ctx.equal(a, b)
        last = dims.fresh() if index is None else index[0] + 1
        return [TensorType(ctx.dtype(0), (dims.maximum(sizes[0], last), *sizes[1:]))]

    def can_fail(self, op: Operation) -> bool:
        """Where the index is checked."""
        return bool(op.attrs["checked"])

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient's row; the others are those of ``x``.

        What is behind the end of ``x`` may be left in: see :func:`array_gradient`.
        """
        grad = grads[0]
        _, index, row = op.inputs
        rest = call("PutRow", grad, index, call("ZerosLike", row))
        taken = call("TakeRow", grad, index, checked=False)
        return [array_gradient(rest, op.inputs[0]), None, taken]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """A copy with one row changed."""
        x, index, row = inputs
        if int(index) < 0:
            if attrs["checked"]:
                raise InvalidArgumentError(None, None, f"index {int(index)} is negative")
            return np.array(x)
        out = np.zeros((max(len(x), int(index) + 1), *np.shape(row)), x.dtype)
        out[: len(x)] = x
        out[int(index)] = row
        return out

    def samples(self) -> Iterable[Sample]:
        """Inside, at the end, behind it; scalars, nothing."""
        yield Sample((grid(3, 4), np.int64(1), grid(4)), grad=(2,))
        yield Sample((grid(3, 4), np.int64(3), grid(4)), grad=(2,))
        yield Sample((grid(2), np.int64(5), grid()), grad=(2,))
        yield Sample((np.zeros((0, 2)), np.int64(0), grid(2)), grad=(2,))
        yield Sample((grid(2, 3), np.int64(-1), grid(3)), {"checked": False}, grad=())


KEEPERS = frozenset({"Case", "Parameter", "PutRow", "PutRowGrowing", "While"})
"""Ops whose gradients can do with more rows than an array of theirs has."""


def array_gradient(grad: Tensor, array: Tensor) -> Tensor:
    """The gradient of an array that has grown since, which may have more rows.

    In a loop they are left in, where what comes next can do with that: the loop that goes back has
    the array at its last length all the time, and nothing reads what was not there yet.
    """
    source = array.op
    while source.type == "Identity":
        source = source.inputs[0].op
    if array.op.region is not None and source.type in KEEPERS:
        return grad
    return call("FitLike", grad, array)


@register
class FitLike(ElementOp):
    """``x`` with the sizes of ``like``: cut, or with zeros behind it, in every dimension.

    It says that ``x`` has the sizes of ``like`` where only a run can tell that it has: of the
    gradient of a branch's result, say, in that branch.
    """

    name = "FitLike"
    inputs = "x: T, like: Tlike"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tlike": dtypes.ALL}
    shape_operands: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes of ``like``."""
        sizes, like = ctx.sizes(0), ctx.sizes(1)
        if sizes is not None and like is not None and len(sizes) != len(like):
            raise ctx.error(f"Shape must be rank {len(like)} but is rank {len(sizes)}")
        return [TensorType(ctx.dtype(0), like)]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The element at the same place, zero where there is none."""
        given, wanted = ctx.sizes(0), ctx.out_sizes()
        inside = [
            i < ctx.size(a)
            for i, a, b in zip(index, given, wanted, strict=True)
            if a != b and not (isinstance(a, int) and isinstance(b, int) and a >= b)
        ]
        if not inside:
            return ctx.operand(0, index)
        value = ctx.operand(0, index)
        return guarded(all_of(inside), value, zero_of(value.dtype))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient with the sizes of ``x``."""
        return [call("FitLike", grads[0], op.inputs[0]), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """A slice into zeros."""
        x, like = inputs
        out = np.zeros(np.shape(like), np.asarray(x).dtype)
        common = tuple(slice(min(a, b)) for a, b in zip(np.shape(x), out.shape, strict=True))
        out[common] = np.asarray(x)[common]
        return out

    def samples(self) -> Iterable[Sample]:
        """Shorter, longer, equal, a scalar, nothing."""
        yield Sample((grid(4, 3), grid(2, 3)), grad=(0,))
        yield Sample((grid(2, 3), grid(4, 2)), grad=(0,))
        yield Sample((grid(5), grid(5)), grad=(0,))
        yield Sample((grid(), grid()), grad=(0,))
        yield Sample((grid(3), np.zeros(0)), grad=(0,))
        yield Sample((np.zeros((0, 2)), grid(3, 2)), grad=())
