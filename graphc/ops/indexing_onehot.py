"""OneHot, InvertPermutation and the matrices with given diagonals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    Attr,
    Element,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Reduction,
    ReductionOp,
    Sample,
    register,
)
from graphc.ops.base import call, grid
from graphc.ops.movement_value import (
    INDEX,
    axis_of,
    int_tensor,
    known_ints,
    operand_error,
    operand_values,
    result,
    summed,
    zero_of,
)


@register
class OneHot(ElementOp):
    """``on_value`` where the place along the new ``axis`` is the index, else ``off_value``.

    The axis has ``depth`` elements; an index out of range gives ``off_value`` everywhere.
    """

    name = "OneHot"
    inputs = "indices: TI, depth: int32, on_value: T, off_value: T"
    value_operands: ClassVar[tuple[int, ...]] = (1,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {
        "TI": (dtypes.uint8, dtypes.int32, dtypes.int64), "T": dtypes.ALL,
    }  # fmt: skip
    attrs: ClassVar[dict[str, Attr]] = {"axis": Attr("int", -1)}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes of the indices with the depth put in."""
        sizes = ctx.sizes(0)
        for i in (1, 2, 3):
            ctx.rank(i, 0)
        if ctx.attrs["axis"] < -1:
            raise ctx.error(f"axis must be >= -1, but is {ctx.attrs['axis']}")
        depth = operand_values(ctx, 1, 1)[0]
        if isinstance(depth, int) and depth < 0:
            raise operand_error(
                ctx,
                f"Dimension size, given by scalar input 1, must be non-negative but is {depth}",
                1,
            )
        if sizes is None:
            return [TensorType(ctx.dtype(2), None)]
        axis = axis_of(ctx, ctx.attrs["axis"], len(sizes) + 1)
        return [TensorType(ctx.dtype(2), (*sizes[:axis], depth, *sizes[axis:]))]

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """One of the two values."""
        axis = ctx.op.attrs["axis"] % len(index)
        hot = ir.cast(ctx.operand(0, (*index[:axis], *index[axis + 1 :])), dtypes.int64)
        same = ir.apply("eq", hot, index[axis])
        return ir.select(same, ctx.operand(2, ()), ctx.operand(3, ()))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The sums of the gradient where it is on and where it is off."""
        dtype = op.inputs[2].dtype.base_dtype
        if not dtype.is_floating:
            return [None] * 4
        one, zero = (call("Cast", int_tensor(v), DstT=dtype) for v in (1, 0))
        hot = call("OneHot", *op.inputs[:2], one, zero, axis=op.attrs["axis"])
        on = call("Mul", grads[0], hot)
        return [None, None, summed(on), summed(call("Sub", grads[0], on))]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's comparison with an arange."""
        indices, depth, on, off = (np.asarray(v) for v in inputs)
        hot = np.expand_dims(indices.astype(np.int64), attrs["axis"])
        places = np.arange(int(depth)).reshape(
            [-1 if i == attrs["axis"] % hot.ndim else 1 for i in range(hot.ndim)]
        )
        return np.where(hot == places, on, off)

    def samples(self) -> Iterable[Sample]:
        """Each axis, a scalar, out of range, other values, depth 0 and 1."""
        i = np.array([0, 2, 1, 5, 1])
        on, off = np.float64(1.0), np.float64(0.0)
        for axis in (-1, 0, 1):
            yield Sample((i, np.int64(3), on, off), {"axis": axis})
        yield Sample((np.array([[0, 1], [2, 0]]), np.int64(2), on * 5, off - 1), {"axis": 1})
        yield Sample((np.int64(1), np.int64(4), on, off))
        yield Sample((i, np.int64(0), on, off), note="no depth")
        yield Sample((i[:0], np.int64(2), on, off), note="empty")


@register
class InvertPermutation(ReductionOp):
    """The vector ``y`` with ``y[x[i]] = i``, for a permutation ``x`` of 0, 1, 2, ..."""

    name = "InvertPermutation"
    inputs = "x: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": INDEX}
    fallible = True
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's type."""
        sizes = ctx.rank(0, 1)
        known = known_ints(ctx.tensors[0])
        if known is not None and sorted(known) != list(range(len(known))):
            raise ctx.error(f"{list(known)} is not a permutation")
        return result(ctx, sizes)

    def can_fail(self, op: Operation) -> bool:
        """Unless the permutation is known: it has been checked."""
        return known_ints(op.inputs[0]) is None

    def reduction(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> Reduction:
        """The place where the operand is the index: as many as there are, none is missing."""
        dtype, nowhere = ctx.op.outputs[0].dtype, ir.const(dtypes.int64.max)

        def body(inner: tuple[ir.Expr, ...]) -> ir.Expr:
            here = ir.cast(ctx.operand(0, inner), dtypes.int64)
            return ir.select(ir.apply("eq", here, index[0]), inner[0], nowhere)

        def finish(first: ir.Expr) -> ir.Expr:
            if not self.can_fail(ctx.op):
                return ir.cast(first, dtype)
            site = ctx.site("The input is not a permutation: %d is missing")
            return ir.cast(ir.Require(first < nowhere, first, site, (index[0],)), dtype)

        return Reduction("min", ctx.sizes(0), body, finish, dtypes.int64)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's argsort."""
        missing = np.setdiff1d(np.arange(np.size(inputs[0])), inputs[0])
        if missing.size:
            raise ValueError(f"The input is not a permutation: {missing[0]} is missing")
        return np.argsort(inputs[0])

    def samples(self) -> Iterable[Sample]:
        """Permutations of 4, 1 and 0 numbers."""
        for row in ([2, 0, 3, 1], [0], []):
            yield Sample((np.array(row, np.int64),))

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The inverse of a fixed permutation."""
        known = known_ints(op.inputs[0])
        return None if known is None else tuple(int(i) for i in np.argsort(known))


class _Diagonal(ElementOp):
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL}


@register
class MatrixDiag(_Diagonal):
    """Square matrices with ``diagonal`` on the diagonal, zeros elsewhere."""

    name = "MatrixDiag"
    inputs = "diagonal: T"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The last size twice."""
        sizes = ctx.sizes(0)
        if sizes == ():
            raise ctx.error("Shape must be at least rank 1 but is rank 0")
        return result(ctx, None if sizes is None else (*sizes, sizes[-1]))

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element on the diagonal."""
        value = ctx.operand(0, index[:-1])
        return ir.select(ir.apply("eq", index[-2], index[-1]), value, zero_of(value.dtype))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The diagonal of the gradient."""
        return [call("MatrixDiagPart", grads[0])]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's eye times the diagonal."""
        x = np.asarray(inputs[0])
        return np.where(np.eye(x.shape[-1], dtype=bool), x[..., None], np.zeros((), x.dtype))

    def samples(self) -> Iterable[Sample]:
        """One matrix, several, none."""
        for shape in ((3,), (2, 3), (1,), (0,), (2, 0)):
            yield Sample((grid(*shape),))


@register
class MatrixDiagPart(_Diagonal):
    """The diagonals of the matrices ``input``."""

    name = "MatrixDiagPart"
    inputs = "input: T"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The smaller of the last two sizes."""
        sizes = ctx.sizes(0)
        if sizes is None:
            return result(ctx, None)
        if len(sizes) < 2:
            raise ctx.error(f"Shape must be at least rank 2 but is rank {len(sizes)}")
        return result(ctx, (*sizes[:-2], dims.minimum(sizes[-2], sizes[-1])))

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element on the diagonal."""
        return ctx.operand(0, (*index, index[-1]))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """Zeros with the gradient on the diagonal."""
        return [call("MatrixSetDiag", call("ZerosLike", op.inputs[0]), grads[0])]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's diagonal."""
        return np.diagonal(inputs[0], axis1=-2, axis2=-1)

    def samples(self) -> Iterable[Sample]:
        """Square, wide, high, several, none."""
        for shape in ((3, 3), (2, 3), (3, 2), (2, 2, 3), (0, 2)):
            yield Sample((grid(*shape),))


@register
class MatrixSetDiag(_Diagonal):
    """The matrices ``input`` with ``diagonal`` on their diagonals."""

    name = "MatrixSetDiag"
    inputs = "input: T, diagonal: T"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The matrices' shape."""
        sizes, diagonal = ctx.sizes(0), ctx.sizes(1)
        if sizes is not None and diagonal is not None:
            if len(sizes) < 2 or len(diagonal) != len(sizes) - 1:
                raise ctx.error(f"Shape must be rank {len(sizes) - 1} but is rank {len(diagonal)}")
            wanted = (*sizes[:-2], dims.minimum(sizes[-2], sizes[-1]))
            for a, b in zip(wanted, diagonal, strict=True):
                ctx.equal(a, b)
        return result(ctx, sizes)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The diagonal's element on the diagonal, the matrix's elsewhere."""
        on = ir.apply("eq", index[-2], index[-1])
        value = ctx.operand(0, index)
        diagonal = ir.Guard(on, ctx.operand(1, index[:-1]), zero_of(value.dtype))
        return ir.select(on, diagonal, value)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient without, and on, its diagonal."""
        zeros = call("ZerosLike", op.inputs[1])
        return [call("MatrixSetDiag", grads[0], zeros), call("MatrixDiagPart", grads[0])]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's assignment to the diagonal."""
        out = np.array(inputs[0])
        i = np.arange(min(out.shape[-2:]))
        out[..., i, i] = inputs[1]
        return out

    def samples(self) -> Iterable[Sample]:
        """Square, wide, high, several."""
        for shape in ((3, 3), (2, 3), (3, 2), (2, 2, 3)):
            yield Sample((grid(*shape), grid(*shape[:-2], min(shape[-2:])) + 5))
