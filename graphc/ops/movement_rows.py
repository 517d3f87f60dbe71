"""AsRows and LikeParts: rows that turns of a loop have handed out, one behind the other.

A loop hands out a stack: for every turn, the rows of that turn.  As rows of one tensor they can be
handed on by a loop around it.  Where turns have different numbers of rows, the stack is ragged, and
:mod:`graphc.passes.extract_ragged` looks at the vector of its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.op import DECLARING, Gradients, InferContext, Sample, register
from graphc.ops.base import call, grid
from graphc.ops.movement_reshape import View


@register
class AsRows(View):
    """The elements of ``x``, in the same order, as rows of the shape that rows of ``like`` have.

    There are as many rows as ``x`` has elements for; none, where a row has none.
    """

    name = "AsRows"
    inputs = "x: T, like: Tlike"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tlike": dtypes.ALL}
    shape_operands: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape of a row, and in front of it how many there are."""
        x, like = ctx.sizes(0), ctx.sizes(1)
        if like is None:
            return [TensorType(ctx.dtype(0), None)]
        if not like:
            raise ctx.error("Shape must be at least rank 1 but is rank 0")
        row = tuple(ctx.env.canonical(s) for s in like[1:])
        total = None if x is None else dims.product(ctx.env.canonical(s) for s in x)
        each = dims.product(row)
        known = isinstance(total, int) and isinstance(each, int)
        if total is None or (ctx.env is DECLARING and not known):
            return [TensorType(ctx.dtype(0), (dims.fresh(), *row))]
        if each == 0:
            return [TensorType(ctx.dtype(0), (0, *row))]
        rows = dims.exact_div(total, each)
        if rows is None:
            rows = dims.floordiv(total, dims.maximum(each, 1))
            ctx.env.assume_equal(total, rows * each)
        return [TensorType(ctx.dtype(0), (rows, *row))]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The elements where they came from."""
        return [call("LikeParts", grads[0], op.inputs[0]), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's reshape."""
        x, like = (np.asarray(v) for v in inputs)
        each = int(np.prod(like.shape[1:]))
        return x.reshape((x.size // each if each else 0, *like.shape[1:]))

    def samples(self) -> Iterable[Sample]:
        """Of rows, of parts of rows, of scalars; no rows, empty rows."""
        yield Sample((grid(4, 2, 3), np.zeros((7, 3))))
        yield Sample((grid(12), np.zeros((1, 2, 3))))
        yield Sample((grid(4, 5), np.zeros(3)))
        yield Sample((grid(0, 2, 3), np.zeros((2, 3))))
        yield Sample((grid(4, 2, 0), np.zeros((2, 0))), grad=())


@register
class LikeParts(View):
    """The elements of ``x`` in the shape of ``like``, which has as many: :class:`AsRows` undone."""

    name = "LikeParts"
    inputs = "x: T, like: Tlike"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tlike": dtypes.ALL}
    shape_operands: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes of ``like``."""
        x, like = ctx.sizes(0), ctx.sizes(1)
        if x is not None and like is not None and ctx.env is not DECLARING:
            # Sizes that a run decides are compared as numbers of rows, which may be symbols.
            each = dims.product(x[1:])
            mine, wanted = dims.product(x), dims.product(like)
            rows = None if each == 0 else dims.exact_div(wanted, each)
            if x and rows is not None:
                mine, wanted = x[0], rows
            if isinstance(mine, int) and isinstance(wanted, int) and mine != wanted:
                raise ctx.error(f"{mine} elements are not the {wanted} of the other operand")
            ctx.env.assume_equal(mine, wanted)
        return [TensorType(ctx.dtype(0), like)]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The elements as they were."""
        return [call("AsRows", grads[0], op.inputs[0]), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's reshape."""
        return np.reshape(inputs[0], np.shape(inputs[1]))

    def samples(self) -> Iterable[Sample]:
        """Rows to parts of rows, to a vector; none."""
        yield Sample((grid(8, 3), np.zeros((4, 2, 3))))
        yield Sample((grid(6, 2), np.zeros(12)))
        yield Sample((grid(0, 3), np.zeros((2, 0, 3))))
