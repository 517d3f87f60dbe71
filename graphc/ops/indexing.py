"""StridedSlice and its gradient, Slice: parts of a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike
from graphc.dtypes import DType
from graphc.errors import CompileError
from graphc.graph import Operation, Tensor, TensorType
from graphc.loop import ir
from graphc.op import (
    DECLARING,
    Attr,
    Element,
    ElementContext,
    ElementOp,
    Gradients,
    InferContext,
    Sample,
    register,
)
from graphc.ops.base import call, grid
from graphc.ops.indexing_spec import MASKS, Entry, entries, from_front, output_sizes
from graphc.ops.movement_value import (
    INDEX,
    Sizes,
    all_of,
    flat_value,
    guarded,
    known_ints,
    operand_error,
    operand_ints,
    operand_values,
    result,
    run_error,
    shape_tensor,
    value_exprs,
    zero_of,
)

_ATTRS = {mask: Attr("int", 0) for mask in MASKS}


class _Strided(ElementOp):
    """What a strided slice and its gradient share: the operands from ``begin_operand`` on."""

    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.ALL, "Index": INDEX}
    attrs: ClassVar[dict[str, Attr]] = _ATTRS
    begin_operand: ClassVar[int] = 1

    def spec(self, ctx: InferContext, sizes: Sizes) -> tuple[list[Entry], Sizes, Sizes] | None:
        """Entries, begin and end; None where the number of entries or strides is not known."""
        at = self.begin_operand
        counts = [ctx.rank(k, 1)[0] for k in (at, at + 1, at + 2)]
        count = next((c for c in counts if isinstance(c, int)), None)
        strides = operand_ints(ctx, at + 2, "strides") if count != 0 else ()
        if strides is None or not isinstance(count, int):
            return None
        try:
            found = entries(ctx.attrs, strides, len(sizes))
        except ValueError as e:
            raise operand_error(ctx, str(e), at + 2) from None
        begin, end = operand_values(ctx, at, count), operand_values(ctx, at + 1, count)
        return found, begin, end

    def source_index(
        self, ctx: ElementContext, index: tuple[ir.Expr, ...], sizes: Sizes
    ) -> tuple[list[ir.Expr], list[tuple[ir.Expr, ir.Expr, int]]]:
        """The input's index for an output's, and what must hold: (condition, index, dimension)."""
        at = self.begin_operand
        found = entry_list(ctx.op, at, len(sizes))
        begin = value_exprs(ctx, at, (_count(ctx.op, at),))
        known = flat_value(ctx.op.inputs[at]) or ()
        source: list[ir.Expr] = []
        required: list[tuple[ir.Expr, ir.Expr, int]] = []
        position = 0
        for e in found:
            if e.source is None:
                position += 1
                continue
            size = sizes[e.source]
            if e.position is None:
                source.append(index[position])
                position += 1
                continue
            first = known[e.position] if known else None
            start = _start(ctx, e, begin[e.position], first, size)
            if e.shrink:
                source.append(start)
                required += _bounds(ctx, start, first, size, e.source)
                continue
            source.append(start + index[position] * e.stride)
            position += 1
        return source, required


def _count(op: Operation, at: int) -> int:
    sizes = op.inputs[at].sizes
    if not sizes or not isinstance(sizes[0], int):
        raise CompileError(f"the number of slices of '{op.name}' is not known")
    return sizes[0]


def entry_list(op: Operation, at: int, rank: int) -> list[Entry]:
    """The entries of a slicing operation whose strides are fixed."""
    strides = known_ints(op.inputs[at + 2])
    if strides is None:
        raise CompileError(f"the strides of '{op.name}' are not known")
    return entries(op.attrs, strides, rank)


def _start(
    ctx: ElementContext, e: Entry, begin: ir.Expr, known: DimLike | Element | None, size: DimLike
) -> ir.Expr:
    """The input's index that an entry starts at."""
    if e.begin_masked:
        return ir.ZERO if e.stride > 0 else ctx.size(size - 1)
    if known is None or isinstance(known, Element):
        n = ctx.size(size)
        start = begin + ir.select(begin < 0, n, ir.ZERO)
        if e.shrink:
            return start
        return ir.apply("max", start, 0) if e.stride > 0 else ir.apply("min", start, n - 1)
    front = from_front(known, size)
    if not e.shrink:
        front = dims.maximum(front, 0) if e.stride > 0 else dims.minimum(front, size - 1)
    return ctx.size(front)


def _bounds(
    ctx: ElementContext, start: ir.Expr, known: DimLike | Element | None, size: DimLike, axis: int
) -> list[tuple[ir.Expr, ir.Expr, int]]:
    """What must hold for one index, where it is not seen to."""
    low, high = in_range(known, size)
    if low and high:
        return []
    below = start < ctx.size(size)
    return [(below if low else ir.logical_and(start >= 0, below), start, axis)]


def in_range(index: DimLike | Element | None, size: DimLike) -> tuple[bool, bool]:
    """Whether one index is known not to be before the first, not behind the last element."""
    if index is None or isinstance(index, Element):
        return False, False
    front = from_front(index, size)
    return bool(dims.is_nonnegative(front)), bool(dims.is_nonnegative(size - 1 - front))


@register
class StridedSlice(_Strided):
    """A part of ``input``: from ``begin`` to ``end`` in steps of ``strides``, as in NumPy.

    Bit ``i`` of a mask says of entry ``i``: its begin (end) is not given (``begin_mask``,
    ``end_mask``); it stands for all dimensions that no entry speaks of (``ellipsis_mask``); it
    adds a dimension of size 1 (``new_axis_mask``); it takes one index and its dimension goes
    (``shrink_axis_mask``).  The strides must be known when the graph is compiled.
    """

    name = "StridedSlice"
    inputs = "input: T, begin: Index, end: Index, strides: Index"
    value_operands: ClassVar[tuple[int, ...]] = (1, 2, 3)
    constant_operands: ClassVar[tuple[int, ...]] = (3,)
    fallible = True

    def can_fail(self, op: Operation) -> bool:
        """Unless every single index is known to be in range."""
        sizes, known = op.inputs[0].sizes, flat_value(op.inputs[1])
        if sizes is None or known_ints(op.inputs[3]) is None:
            return True
        return any(
            e.shrink and not all(in_range(known[e.position] if known else None, sizes[e.source]))
            for e in entry_list(op, 1, len(sizes))
            if e.source is not None and e.position is not None
        )

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The sizes of the part."""
        sizes = ctx.sizes(0)
        if sizes is None:
            return result(ctx, None)
        sizes = tuple(ctx.env.canonical(s) for s in sizes)
        spec = self.spec(ctx, sizes)
        if spec is None:
            return result(ctx, None)
        found, begin, end = spec
        for e in found:
            if e.shrink and e.source is not None and e.position is not None:
                self._check(ctx, begin[e.position], sizes[e.source], e.source)
        return result(ctx, output_sizes(found, sizes, begin, end))

    def _check(self, ctx: InferContext, index: DimLike, size: DimLike, axis: int) -> None:
        if isinstance(index, int) and isinstance(size, int) and not -size <= index < size:
            at = index + size if index < 0 else index
            text = f"slice index {at} of dimension {axis} out of bounds."
            raise run_error(ctx, operand_error(ctx, text, 1, 2, 3), text)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The operand's element at ``begin + index * stride``."""
        source, required = self.source_index(ctx, index, ctx.sizes(0))
        value = ctx.operand(0, tuple(source))
        for condition, at, axis in required:
            site = ctx.site(f"slice index %d of dimension {axis} out of bounds.")
            value = ir.Require(condition, value, site, (at,))
        return value

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The gradient, with zeros where nothing was taken."""
        x, begin, end, strides = op.inputs
        shape = shape_tensor(x, begin.dtype.base_dtype)
        back = call("StridedSliceGrad", shape, begin, end, strides, grads[0], **op.attrs)
        return [back, None, None, None]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's own indexing."""
        return inputs[0][numpy_key(attrs, *inputs[1:4])]

    def samples(self) -> Iterable[Sample]:
        """Steps both ways, limits beyond the ends, every mask, nothing."""
        return slice_samples(lambda x, begin, end, strides, _: (x, begin, end, strides))

    def sizes_of_value(self, op: Operation, index: int) -> tuple[DimLike | Element, ...] | None:
        """The elements taken, of an operand of fixed shape."""
        x, limits = flat_value(op.inputs[0]), [known_ints(t) for t in op.inputs[1:4]]
        sizes = op.inputs[0].sizes or ()
        if x is None or any(v is None for v in limits):
            return None
        if not all(isinstance(s, int) for s in sizes):
            return None
        places = np.arange(len(x)).reshape([int(s) for s in sizes if isinstance(s, int)])
        taken = places[numpy_key(op.attrs, *[np.array(v) for v in limits])]
        return tuple(x[int(p)] for p in np.reshape(taken, -1))


def numpy_key(attrs: dict[str, Any], begin: Any, end: Any, strides: Any) -> tuple[Any, ...]:
    """The slice as an index of a NumPy array."""
    key: list[Any] = []
    for i in range(len(begin)):
        bit = {m: attrs[m] >> i & 1 for m in MASKS}
        if bit["ellipsis_mask"]:
            key.append(Ellipsis)
        elif bit["new_axis_mask"]:
            key.append(None)
        elif bit["shrink_axis_mask"]:
            key.append(int(begin[i]))
        else:
            low = None if bit["begin_mask"] else int(begin[i])
            high = None if bit["end_mask"] else int(end[i])
            key.append(slice(low, high, int(strides[i])))
    return tuple(key)


_SLICES: tuple[tuple[tuple[int, ...], Any, Any, Any, dict[str, int]], ...] = (
    ((6,), [1], [5], [2], {}),
    ((6,), [-2], [-5], [-1], {}),
    ((6,), [0], [0], [-1], {"begin_mask": 1, "end_mask": 1}),
    ((6,), [-9], [99], [4], {}),
    ((6,), [4], [2], [1], {}),
    ((3, 4), [1, 0], [2, 0], [1, 1], {"shrink_axis_mask": 1, "end_mask": 2}),
    ((3, 4), [0, -1], [0, 0], [1, 1], {"ellipsis_mask": 1, "shrink_axis_mask": 2}),
    ((3, 4), [0, 0, 1], [0, 0, 3], [1, 1, 1], {"new_axis_mask": 2, "begin_mask": 1, "end_mask": 1}),
    ((2, 3, 4), [0, 0, 3], [0, 0, 0], [1, 1, -2], {"ellipsis_mask": 2, "end_mask": 4}),
    ((2, 3, 4), [1], [2], [1], {}),
    ((0, 3), [0, 1], [0, 3], [1, 1], {"end_mask": 1}),
    ((1,), [0], [1], [1], {"shrink_axis_mask": 1}),
    ((2, 3), [], [], [], {}),
)


def slice_samples(operands: Callable[..., tuple[Any, ...]]) -> Iterable[Sample]:
    """The rows of slices, as the operands of an op."""
    for shape, begin, end, strides, masks in _SLICES:
        limits = [np.array(v, np.int64) for v in (begin, end, strides)]
        attrs = dict.fromkeys(MASKS, 0) | masks
        yield Sample(operands(grid(*shape), *limits, attrs), attrs)


@register
class StridedSliceGrad(_Strided):
    """Zeros of ``shape``, but ``dy`` where StridedSlice with the same operands would read."""

    name = "StridedSliceGrad"
    inputs = "shape: Index, begin: Index, end: Index, strides: Index, dy: T"
    value_operands: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)
    constant_operands: ClassVar[tuple[int, ...]] = (3,)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The shape asked for."""
        sizes, dy = ctx.value(0), ctx.sizes(4)
        if sizes is not None and dy is not None:
            spec = self.spec(ctx, sizes)
            expected = None if spec is None else output_sizes(spec[0], sizes, spec[1], spec[2])
            if expected is not None:
                self._check(ctx, expected, dy)
        return [TensorType(ctx.dtype(4), sizes)]

    def _check(self, ctx: InferContext, expected: Sizes, dy: Sizes) -> None:
        if len(expected) != len(dy):
            raise ctx.error(f"The gradient must have rank {len(expected)} but has {len(dy)}")
        for a, b in zip(expected, dy, strict=True):
            if ctx.env is not DECLARING or (isinstance(a, int) and isinstance(b, int)):
                ctx.equal(a, b)

    def element(self, ctx: ElementContext, index: tuple[ir.Expr, ...]) -> ir.Expr:
        """The gradient's element that the index was taken to, or zero."""
        sizes = ctx.out_sizes()
        begin = value_exprs(ctx, 1, (_count(ctx.op, 1),))
        known = flat_value(ctx.op.inputs[1]) or ()
        conditions: list[ir.Expr] = []
        at: list[ir.Expr] = []
        for e in entry_list(ctx.op, 1, len(sizes)):
            if e.source is None:
                at.append(ir.ZERO)
                continue
            i, size = index[e.source], sizes[e.source]
            if e.position is None:
                at.append(i)
                continue
            first = known[e.position] if known else None
            start = _start(ctx, e, begin[e.position], first, size)
            if e.shrink:
                if size != 1:
                    conditions.append(ir.apply("eq", i, start))
                continue
            step = abs(e.stride)
            distance = i - start if e.stride > 0 else start - i
            taken = ctx.sizes(4)[len(at)]
            if taken == size and step == 1:
                at.append(distance)
                continue
            conditions.append(distance >= 0)
            if step > 1:
                conditions.append(ir.apply("eq", ir.apply("irem", distance, step), 0))
            place = ir.index_div(distance, step)
            conditions.append(place < ctx.size(taken))
            at.append(place)
        value = ctx.operand(4, tuple(at))
        return guarded(all_of(conditions), value, zero_of(value.dtype))

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """The slice of the gradient."""
        sliced = call("StridedSlice", grads[0], *op.inputs[1:4], **op.attrs)
        return [None, None, None, None, sliced]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's assignment to a slice of zeros."""
        out = np.zeros(tuple(int(s) for s in inputs[0]), np.asarray(inputs[4]).dtype)
        out[numpy_key(attrs, *inputs[1:4])] = inputs[4]
        return out

    def samples(self) -> Iterable[Sample]:
        """The rows of StridedSlice."""
        return slice_samples(
            lambda x, b, e, s, attrs: (
                np.array(x.shape, np.int64),
                b,
                e,
                s,
                np.asarray(x[numpy_key(attrs, b, e, s)]),
            )
        )
