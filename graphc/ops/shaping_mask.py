"""What is as long as the data say: where of one argument, boolean_mask, unique, partitions."""

from __future__ import annotations

from typing import Any, NamedTuple

from graphc import dtypes
from graphc.build import convert_to_tensor, create, single
from graphc.dtypes import as_dtype
from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.graph import Tensor, name_scope
from graphc.ops.elementwise_functions import (
    equal,
    floordiv,
    floormod,
    logical_or,
    maximum,
    not_equal,
)
from graphc.ops.math import cast
from graphc.ops.math import where as select
from graphc.ops.math import where_v2 as choose
from graphc.ops.reduction_functions import reduce_prod, reduce_sum
from graphc.ops.reduction_scan import cumsum
from graphc.ops.shaping import concat, gather, reshape, stack
from graphc.ops.shaping_make import ones_like, shape, zeros
from graphc.ops.shaping_make import range as range_
from graphc.ops.shaping_slice import getitem
from graphc.shapes import TensorShape


def positions(condition: Tensor) -> Tensor:
    """The flat positions of the true elements of a bool tensor, in order: an int64 vector."""
    count = reduce_sum(cast(condition, dtypes.int64))
    return single(create("Positions", [condition, count]))


def nonzero(condition: Any, name: str | None = None) -> Tensor:
    """The indices of the true elements of ``condition``, in row-major order: int64 [count, rank].

    Raises:
      TypeError: ``condition`` is not numeric or bool. ValueError: its rank is not known.
    """
    with name_scope(name, "Where", [condition]):
        tensor = convert_to_tensor(condition, name="condition")
        if tensor.dtype.base_dtype is not dtypes.bool_:
            if not (tensor.dtype.is_floating or tensor.dtype.is_integer):
                raise DTypeError(f"where: {tensor.dtype.name} elements are neither true nor false")
            tensor = single(create("NotEqual", [tensor, single(create("ZerosLike", [tensor]))]))
        if tensor.sizes is None:
            raise ShapeError("where(condition) needs a condition of known rank: use set_shape")
        rank = len(tensor.sizes)
        flat = positions(tensor)
        if rank == 0:
            return zeros(concat([shape(flat), [0]], 0), dtypes.int64)
        sizes = shape(tensor, out_type=dtypes.int64)
        columns = []
        for axis in range(rank):
            rest = reduce_prod(getitem(sizes, slice(axis + 1, None)))
            column = flat if axis == rank - 1 else floordiv(flat, rest)
            if axis:
                column = floormod(column, getitem(sizes, axis))
            columns.append(column)
        return stack(columns, axis=1)


def where(
    condition: Any, x: Any = None, y: Any = None, name: str | None = None
) -> Tensor:
    """Elements of ``x`` where ``condition`` holds, of ``y`` elsewhere.

    Args:
      condition: bools, of the shape of ``x``; a scalar; or a vector that chooses whole rows.
      x, y: tensors of one shape; with neither, the result is :func:`nonzero` of the condition.
      name: a name for the operation.
    Raises:
      ValueError: only one of ``x`` and ``y`` is given.
    """
    if x is None and y is None:
        return nonzero(condition, name)
    if x is None or y is None:
        raise GraphError("x and y must both be non-None or both be None.")
    return select(condition, x, y, name)


def where_v2(
    condition: Any, x: Any = None, y: Any = None, name: str | None = None
) -> Tensor:
    """As :func:`where`; condition, ``x`` and ``y`` broadcast."""
    if x is None and y is None:
        return nonzero(condition, name)
    if x is None or y is None:
        raise GraphError("x and y must both be non-None or both be None.")
    return choose(condition, x, y, name)


def boolean_mask(
    tensor: Any, mask: Any, name: str = "boolean_mask", axis: int | None = None
) -> Tensor:
    """The slices of ``tensor`` at which ``mask`` is true, one after the other.

    Args:
      tensor: of rank N.
      mask: bools of rank K, 1 <= K <= N, as large as ``tensor`` from dimension ``axis`` on.
      name: the name scope.
      axis: the first dimension that is masked, 0 by default.
    Returns:
      A tensor of rank N - K + 1.
    Raises:
      ValueError: a scalar mask, one of unknown rank, or one whose shape does not fit.
    """
    with name_scope(name, "boolean_mask", [tensor, mask]):
        x = convert_to_tensor(tensor, name="tensor")
        chosen = convert_to_tensor(mask, name="mask")
        if chosen.dtype.base_dtype is not dtypes.bool_:
            raise DTypeError(f"mask must be bool, not {chosen.dtype.name}")
        if chosen.sizes is None or x.sizes is None:
            raise ShapeError(
                "Number of mask dimensions must be specified, even if some dimensions are None.  "
                "E.g. shape=[None] is ok, but shape=None is not."
            )
        rank, first = len(chosen.sizes), 0 if axis is None else int(axis)
        first = first + len(x.sizes) if first < 0 else first
        if rank == 0:
            raise ShapeError("mask cannot be scalar.")
        if not chosen.shape.is_compatible_with(TensorShape(x.sizes[first : first + rank])):
            raise ShapeError(
                f"Shapes {x.shape[first : first + rank]} and {chosen.shape} are incompatible"
            )
        if rank > 1:
            sizes = shape(x)
            before = getitem(sizes, slice(0, first))
            after = getitem(sizes, slice(first + rank, None))
            x = reshape(x, concat([before, [-1], after], 0))
        return gather(x, positions(chosen), axis=first)


class Unique(NamedTuple):
    """The distinct elements, and for each element the place of its like among them."""

    y: Tensor
    idx: Tensor


class UniqueWithCounts(NamedTuple):
    """As :class:`Unique`, and how often each occurs."""

    y: Tensor
    idx: Tensor
    count: Tensor  # type: ignore[assignment]


def unique(x: Any, out_idx: Any = dtypes.int32, name: str | None = None) -> Unique:
    """The distinct elements of a vector, in the order in which they first occur.

    The vector is sorted once: n log(n) steps for n elements.

    Args:
      x: a vector.
      out_idx: int32 or int64, the dtype of ``idx``.
      name: the name scope.
    Raises:
      ValueError: ``x`` is no vector. TypeError: another ``out_idx``.
    """
    kind = as_dtype(out_idx)
    if kind not in (dtypes.int32, dtypes.int64):
        raise DTypeError(f"out_idx must be int32 or int64, not {kind.name}")
    with name_scope(name, "Unique", [x]):
        values = convert_to_tensor(x, name="x")
        if values.sizes is not None and len(values.sizes) != 1:
            raise ShapeError("unique expects a 1D vector.")
        if values.dtype.base_dtype is dtypes.bool_:
            keys = cast(values, dtypes.uint8)
        else:
            keys = values
        count = getitem(shape(values), 0)
        op = create("TopKV2", [keys, count], {"descending": False})
        ordered, source = op.outputs
        # What is equal stands together, in the order of the vector; NaN equals nothing.
        number = range_(count)
        previous = gather(ordered, maximum(number - 1, 0))  # type: ignore[operator]
        starts = logical_or(equal(number, 0), not_equal(ordered, previous))
        first = gather(source, positions(starts))
        new = _spread(count, first, cast(ones_like(first), dtypes.int32))
        place = cumsum(new) - 1  # type: ignore[operator]
        kind_of = cumsum(cast(starts, dtypes.int32)) - 1  # type: ignore[operator]
        kinds = gather(gather(place, first), kind_of)
        idx = _spread(count, source, kinds)
        return Unique(gather(values, positions(equal(new, 1))), cast(idx, kind))


def _spread(count: Any, places: Tensor, values: Tensor) -> Tensor:
    """A vector of ``count`` zeros with the values added to the elements at ``places``."""
    return single(create("ScatterAddRows", [reshape(count, [1]), places, values]))


def unique_with_counts(
    x: Any, out_idx: Any = dtypes.int32, name: str | None = None
) -> UniqueWithCounts:
    """As :func:`unique`, with the number of times that each distinct element occurs."""
    with name_scope(name, "UniqueWithCounts", [x]):
        y, idx = unique(x, out_idx)
        count = _spread(getitem(shape(y), 0), idx, ones_like(idx))
        return UniqueWithCounts(y, idx, count)


def dynamic_partition(
    data: Any, partitions: Any, num_partitions: int, name: str | None = None
) -> list[Tensor]:
    """The slices of ``data`` sorted into ``num_partitions`` tensors by ``partitions``.

    Args:
      data: a tensor whose shape begins with that of ``partitions``.
      partitions: int32 numbers in [0, num_partitions); slices of other numbers are left out.
      num_partitions: how many tensors to give.
      name: the name scope.
    """
    if num_partitions < 1:
        raise GraphError("num_partitions must be at least 1")
    with name_scope(name, "DynamicPartition", [data, partitions]):
        where = convert_to_tensor(partitions, name="partitions", preferred_dtype=dtypes.int32)
        x = convert_to_tensor(data, name="data")
        return [boolean_mask(x, equal(where, k)) for k in range(num_partitions)]
