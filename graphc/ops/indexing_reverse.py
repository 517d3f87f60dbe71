"""ReverseSequence: the beginnings of sequences of different lengths, reversed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
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
)
from graphc.ops.base import call, grid
from graphc.ops.movement_value import INDEX, all_of, known_ints, result


def _axis(ctx: InferContext, name: str, rank: int) -> int:
    axis = int(ctx.attrs[name])
    if not -rank <= axis < rank:
        raise ctx.error(f"{name} must be < input rank: {axis} vs. {rank}")
    return axis % rank


@register
class ReverseSequence(ElementOp):
    """``input`` with its first ``seq_lengths[b]`` elements along ``seq_dim`` in reverse order,
    for each ``b`` along ``batch_dim``; the rest stays.

    A length that is negative or larger than the dimension fails the run.
    """

    name = "ReverseSequence"
    inputs = "input: T, seq_lengths: Tlen"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tlen": INDEX}
    attrs: ClassVar[dict[str, Attr]] = {"seq_dim": Attr("int"), "batch_dim": Attr("int", 0)}
    fallible = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes of ``input``; that along ``batch_dim`` is the number of lengths."""
        (count,), sizes = ctx.rank(1, 1), ctx.sizes(0)
        if sizes is None:
            return result(ctx, None)
        axis, batch = (_axis(ctx, name, len(sizes)) for name in ("seq_dim", "batch_dim"))
        if axis == batch:
            raise ctx.error(f"batch_dim == seq_dim == {axis}")
        common = ctx.equal(sizes[batch], count)
        return result(ctx, (*sizes[:batch], common, *sizes[batch + 1 :]))

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The element as far from the end of the sequence as this one is from its start."""
        sizes = ctx.sizes(0)
        axis, batch = (ctx.op.attrs[n] % len(sizes) for n in ("seq_dim", "batch_dim"))
        length, at = ir.cast(ctx.operand(1, (index[batch],)), dtypes.int64), index[axis]
        there = ir.select(at < length, length - 1 - at, at)
        value = ctx.operand(0, (*index[:axis], there, *index[axis + 1 :]))
        if not self.can_fail(ctx.op):
            return value
        size = sizes[axis]
        limit = str(size) if isinstance(size, int) else f"input.shape[{axis}]"
        site = ctx.site(f"seq_lengths[%d] = %d is not in [0, {limit}]")
        inside = all_of([length >= 0, length <= ctx.size(size)])
        return ir.Require(inside, value, site, (index[batch], length))

    def can_fail(self, op: Operation) -> bool:
        """Unless the lengths are known and in range."""
        known, sizes = known_ints(op.inputs[1]), op.inputs[0].sizes
        if known is None or sizes is None:
            return True
        size = sizes[op.attrs["seq_dim"] % len(sizes)]
        return not (isinstance(size, int) and all(0 <= n <= size for n in known))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient reversed in the same way."""
        return [call("ReverseSequence", grads[0], op.inputs[1], **op.attrs), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's take_along_axis of the reversed places."""
        x, lengths = (np.asarray(v) for v in inputs)
        axis, batch = attrs["seq_dim"] % x.ndim, attrs["batch_dim"] % x.ndim
        place = np.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        lengths = lengths.reshape([-1 if i == batch else 1 for i in range(x.ndim)])
        there = np.where(place < lengths, lengths - 1 - place, place).astype(np.int64)
        return np.take_along_axis(x, np.broadcast_to(there, x.shape), axis)

    def samples(self) -> Iterable[Sample]:
        """Both orders of the two dimensions, none and all of a sequence, bools, nothing."""
        lengths = np.array([2, 0, 4])
        yield Sample((grid(3, 4), lengths), {"seq_dim": 1})
        yield Sample((grid(4, 3), lengths), {"seq_dim": 0, "batch_dim": 1})
        yield Sample((grid(4, 2, 3), lengths), {"seq_dim": -3, "batch_dim": -1})
        yield Sample((grid(3, 4) > 0, lengths), {"seq_dim": 1}, (), (dtypes.bool_,))
        yield Sample((np.zeros((3, 4, 0)), lengths), {"seq_dim": 1}, (), note="empty")
        yield Sample((np.zeros((0, 4)), np.zeros((0,), np.int64)), {"seq_dim": 1}, ())
