"""Transpose, BroadcastTo, Tile, ReverseV2: elements at other places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import ShapeError
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    DECLARING,
    Element,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Sample,
    register,
)
from graphc.ops.base import call, grid
from graphc.ops.movement_value import (
    INDEX,
    flat_value,
    fresh_sizes,
    in_range,
    int_tensor,
    joined,
    known_ints,
    operand_error,
    operand_ints,
    operand_values,
    pick,
    result,
    run_error,
    shape_tensor,
)
from graphc.shapes import shape_text


@register
class Transpose(ElementOp):
    """``x`` with its dimensions in another order: output dimension ``i`` is ``perm[i]`` of ``x``.

    The permutation must be known when the graph is compiled.
    """

    name = "Transpose"
    inputs = "x: T, perm: Tperm"
    value_operands: ClassVar[tuple[int, ...]] = (1,)
    constant_operands: ClassVar[tuple[int, ...]] = (1,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tperm": INDEX}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's sizes, permuted."""
        sizes, perm_sizes = ctx.sizes(0), ctx.sizes(1)
        if sizes is None:
            rank = perm_sizes[0] if perm_sizes else None
            return result(ctx, fresh_sizes(rank) if isinstance(rank, int) else None)
        perm = operand_ints(ctx, 1, "permutation") if sizes else ()
        if perm is None:
            return result(ctx, fresh_sizes(len(sizes)))
        if len(perm) != len(sizes):
            raise ctx.error(f"Dimension must be {len(sizes)} but is {len(perm)}")
        rank = len(sizes)
        for p in perm:
            if not -rank <= p < rank:
                raise operand_error(ctx, f"perm dim {p} is out of range of input rank {rank}", 1)
        perm = tuple(p % rank for p in perm)
        if len(set(perm)) != rank:
            raise ctx.error(f"{perm} is not a permutation of the dimensions of the input")
        return result(ctx, tuple(sizes[p] for p in perm))

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element at the index permuted back."""
        source: list[ir.Expr] = [ir.ZERO] * len(index)
        for p, i in zip(permutation(ctx.op), index, strict=True):
            source[p] = i
        return ctx.operand(0, tuple(source))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient, permuted back."""
        if known_ints(op.inputs[1]) is None:
            return [call("Transpose", grads[0], call("InvertPermutation", op.inputs[1])), None]
        return [call("Transpose", grads[0], int_tensor(np.argsort(permutation(op)))), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's transpose."""
        return np.transpose(inputs[0], [int(p) for p in np.reshape(inputs[1], -1)])

    def samples(self) -> Iterable[Sample]:
        """Two and three dimensions, the identity, nothing, scalars."""
        for shape, perm in (
            ((3, 4), (1, 0)), ((2, 3, 4), (2, 0, 1)), ((2, 3, 4), (0, 2, 1)),
            ((2, 3), (0, 1)), ((0, 3), (1, 0)), ((1, 5), (1, 0)), ((), ()),
            ((2, 1, 3, 2), (0, 2, 3, 1)),
        ):  # fmt: skip
            yield Sample((grid(*shape), np.array(perm, np.int64)))

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The operand's elements, which has at most one dimension."""
        return flat_value(op.inputs[0])


def permutation(op: Operation) -> tuple[int, ...]:
    """The fixed permutation of a Transpose."""
    perm = known_ints(op.inputs[1]) or ()
    return tuple(in_range(p, len(perm)) for p in perm)


@register
class BroadcastTo(ElementOp):
    """``input`` repeated along its dimensions of size 1, and new ones in front, up to ``shape``."""

    name = "BroadcastTo"
    inputs = "input: T, shape: Tidx"
    value_operands: ClassVar[tuple[int, ...]] = (1,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tidx": INDEX}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape asked for."""
        ctx.rank(1, 1)
        wanted, sizes = ctx.value(1), ctx.sizes(0)
        if wanted is None or sizes is None:
            return result(ctx, wanted)
        if len(sizes) > len(wanted):
            raise operand_error(
                ctx, f"Shape must be at most rank {len(wanted)} but is rank {len(sizes)}"
            )
        if any(isinstance(w, int) and w < 0 for w in wanted):
            raise operand_error(ctx, "Dimensions to broadcast to must be >= 0", partial=(1,))
        out = list(wanted)
        front = len(wanted) - len(sizes)
        for i, size in enumerate(ctx.env.canonical(s) for s in sizes):
            target = ctx.env.canonical(wanted[front + i])
            if size == 1 or size == target:
                continue
            if isinstance(size, int) and isinstance(target, int):
                raise self._incompatible(ctx, i, target)
            if ctx.env is not DECLARING:
                out[front + i] = ctx.env.assume_equal(size, target)
        return result(ctx, tuple(out))

    def _incompatible(self, ctx: InferContext, i: int, target: int) -> ShapeError:
        sizes, wanted = ctx.sizes(0) or (), ctx.value(1) or ()
        text = f"Dimensions must be equal, but are {sizes[i]} and {target}"
        shapes = f"{shape_text(sizes)} vs. {shape_text(wanted)}"
        declaring = operand_error(ctx, text, partial=(1,))
        return run_error(ctx, declaring, f"Incompatible shapes: {shapes}")

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element at the broadcast index."""
        return ctx.broadcast_operand(0, index)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient summed over the repetitions."""
        return [call("SumToShape", grads[0], op.inputs[0]), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's broadcast_to."""
        return np.broadcast_to(inputs[0], tuple(int(s) for s in inputs[1]))

    def samples(self) -> Iterable[Sample]:
        """Rows, columns, scalars, new dims, nothing."""
        for source, shape in (
            ((3,), (2, 3)), ((2, 1), (2, 3)), ((), (2, 2)), ((1, 1), (4, 3, 2)),
            ((2, 3), (2, 3)), ((1, 3), (0, 3)), ((), ()),
        ):  # fmt: skip
            yield Sample((grid(*source), np.array(shape, np.int64)))


@register
class Tile(ElementOp):
    """``input`` repeated ``multiples[i]`` times along each dimension ``i``."""

    name = "Tile"
    inputs = "input: T, multiples: Tmultiples"
    value_operands: ClassVar[tuple[int, ...]] = (1,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tmultiples": INDEX}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """Each size times its multiple."""
        sizes, count = ctx.sizes(0), ctx.rank(1, 1)[0]
        if sizes is None:
            return result(ctx, fresh_sizes(count) if isinstance(count, int) else None)
        if isinstance(count, int) and count != len(sizes):
            raise ctx.error(f"Shape must be rank {len(sizes)} but is rank {count}")
        multiples = operand_values(ctx, 1, len(sizes))
        for m in multiples:
            if isinstance(m, int) and m < 0:
                at = multiples.index(m)
                raise operand_error(ctx, f"Expected multiples[{at}] >= 0, but got {m}", 1)
        return result(ctx, tuple(s * m for s, m in zip(sizes, multiples, strict=True)))

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element at the index modulo its size."""
        source: list[ir.Expr] = []
        for i, size, out in zip(index, ctx.sizes(0), ctx.out_sizes(), strict=True):
            if size == 1:
                source.append(ir.ZERO)
            else:
                source.append(i if size == out else ir.index_mod(i, ctx.size(size)))
        return ctx.operand(0, tuple(source))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient with the repetitions as dimensions of their own, summed over those."""
        x, multiples = op.inputs
        dtype = multiples.dtype.base_dtype
        rank = (multiples.sizes or (None,))[0] if x.sizes is None else len(x.sizes)
        if rank == 0:
            return [grads[0], None]
        if not isinstance(rank, int):
            pairs = call("Pack", [multiples, shape_tensor(x, dtype)], axis=1)
            split = call("Reshape", grads[0], call("Reshape", pairs, int_tensor([-1])))
            twice = call("Range", int_tensor(0), call("Size", pairs), int_tensor(2))
            return [call("Sum", split, twice, keep_dims=False), None]
        both = joined(multiples, shape_tensor(x, dtype))
        order = [k for axis in range(rank) for k in (axis, rank + axis)]
        split = call("Reshape", grads[0], pick(both, order))
        return [call("Sum", split, int_tensor(range(0, 2 * rank, 2)), keep_dims=False), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's tile."""
        return np.tile(inputs[0], tuple(int(m) for m in inputs[1]))

    def samples(self) -> Iterable[Sample]:
        """Each dimension, both, once, never."""
        for source, multiples in (
            ((2, 3), (2, 1)), ((2, 3), (1, 2)), ((2, 3), (3, 2)), ((1, 3), (4, 1)),
            ((3,), (0,)), ((0, 2), (2, 2)), ((), ()), ((2,), (1,)),
        ):  # fmt: skip
            yield Sample((grid(*source), np.array(multiples, np.int64)))


@register
class ReverseV2(ElementOp):
    """``tensor`` with the order of the elements reversed along the dimensions in ``axis``.

    The dimensions must be known when the graph is compiled.
    """

    name = "ReverseV2"
    inputs = "tensor: T, axis: Tidx"
    value_operands: ClassVar[tuple[int, ...]] = (1,)
    constant_operands: ClassVar[tuple[int, ...]] = (1,)
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Tidx": INDEX}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The operand's shape."""
        sizes, axes = ctx.sizes(0), operand_ints(ctx, 1, "axes")
        if sizes is not None and axes is not None:
            rank = len(sizes)
            for k, a in enumerate(axes):
                if not -rank <= a < rank:
                    text = f"'axis'[{k}] = {a} is out of valid range [0, {rank - 1}]"
                    raise operand_error(ctx, text, 1)
                if a % rank in [b % rank for b in axes[:k]]:
                    raise operand_error(ctx, f"axis {a % rank} specified more than once.", 1)
        return result(ctx, sizes)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element counted from the other end."""
        source = list(index)
        for axis in known_ints(ctx.op.inputs[1]) or ():
            source[axis] = ctx.size(ctx.sizes(0)[axis] - 1) - index[axis]
        return ctx.operand(0, tuple(source))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient, reversed."""
        return [call("ReverseV2", grads[0], op.inputs[1]), None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's flip."""
        return np.flip(inputs[0], tuple(int(a) for a in inputs[1]))

    def samples(self) -> Iterable[Sample]:
        """Each dimension, all, none, nothing to reverse."""
        for shape, axes in (
            ((3, 4), (0,)), ((3, 4), (-1,)), ((2, 3, 4), (0, 2)), ((3,), ()), ((0, 2), (0, 1)),
            ((1, 3), (0,)),
        ):  # fmt: skip
            yield Sample((grid(*shape), np.array(axes, np.int64)))

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The operand's elements, the other way round."""
        found, axes = flat_value(op.inputs[0]), known_ints(op.inputs[1])
        if found is None or axes is None:
            return None
        return found[::-1] if axes else found
