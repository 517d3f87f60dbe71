"""top_k, in_top_k, sort and argsort, as in TensorFlow 1.15."""

from __future__ import annotations

from typing import Any, NamedTuple

from graphc.build import convert_to_tensor, create, single
from graphc.errors import GraphError, ShapeError
from graphc.graph import Tensor, name_scope
from graphc.ops.movement_value import dim_tensor, in_range, known_ints
from graphc.ops.shaping import transpose


class TopKV2(NamedTuple):
    """The largest elements of rows, and their places in them."""

    values: Tensor
    indices: Tensor


def top_k(input: Any, k: Any = 1, sorted: bool = True, name: str | None = None) -> TopKV2:
    """The ``k`` largest elements of each row of the last dimension, and their int32 places.

    Of equal elements the one at the lower place comes first; NaN counts as the largest.

    Args:
      input: numbers, of rank 1 or more.
      k: an int32 scalar, which may be computed.
      sorted: accepted; the elements are in descending order in any case.
      name: a name for the operation.
    Raises:
      ValueError: ``k`` is negative or larger than a row, or ``input`` is a scalar.
      InvalidArgumentError: the same, found in a run.
    """
    op = create("TopKV2", [input, k], {"sorted": bool(sorted)}, name)
    return TopKV2(*op.outputs)


def in_top_k(predictions: Any, targets: Any, k: Any, name: str | None = None) -> Tensor:
    """Whether the target's prediction is among the ``k`` largest of its row; ties count as in.

    Args:
      predictions: float32 ``[batch, classes]``.
      targets: int32 or int64 ``[batch]``: a class of each row.  One that is none is not among them,
        nor is any where a prediction of the row is not finite.
      k: a scalar of the dtype of ``targets``.
      name: the name scope, "in_top_k" by default.
    Returns:
      bools ``[batch]``.
    """
    with name_scope(name, "in_top_k"):
        return single(create("InTopKV2", [predictions, targets, k]))


_DESCENDING = {"ASCENDING": False, "DESCENDING": True}


def sort(
    values: Any, axis: Any = -1, direction: str = "ASCENDING", name: str | None = None
) -> Tensor:
    """The elements along ``axis`` in order.

    NaN counts as the largest.

    Args:
      values: numbers, of rank 1 or more.
      axis: an int, or a constant.
      direction: "ASCENDING" or "DESCENDING".
      name: the name scope, "sort" by default.
    Raises:
      ValueError: another direction, an axis that is out of range or not constant, a scalar.
    """
    with name_scope(name, "sort"):
        return _sorted(values, axis, direction, 0)


def argsort(
    values: Any,
    axis: Any = -1,
    direction: str = "ASCENDING",
    stable: bool = False,
    name: str | None = None,
) -> Tensor:
    """The int32 places that the elements in order have along ``axis``: see :func:`sort`.

    Args:
      values, axis, direction, name: as for :func:`sort`.
      stable: accepted; equal elements stay in the order of their places in any case.
    """
    del stable
    with name_scope(name, "argsort"):
        return _sorted(values, axis, direction, 1)


def _sorted(values: Any, axis: Any, direction: str, output: int) -> Tensor:
    if direction not in _DESCENDING:
        raise GraphError(f"{direction} should be one of {', '.join(_DESCENDING)}")
    where = known_ints(convert_to_tensor(axis, name="axis"))
    if where is None or len(where) != 1:
        raise GraphError("axis must be a constant scalar")
    x = convert_to_tensor(values, name="values")
    rank = None if x.sizes is None else len(x.sizes)
    if rank is None and where[0] != -1:
        raise ShapeError("sorting along another axis than the last needs a known rank: set_shape")
    perm = None
    if rank is not None:
        try:
            at = in_range(where[0], rank)
        except IndexError:
            raise ShapeError(
                f"axis {where[0]} is not in the range [{-rank}, {rank}) of {x.name}, which is of "
                f"rank {rank}"
            ) from None
        if at != rank - 1:
            perm = list(range(rank))
            perm[at], perm[-1] = perm[-1], at
            x = transpose(x, perm)
    op = create("TopKV2", [x, dim_tensor(x, -1)], {"descending": _DESCENDING[direction]})
    found = op.outputs[output]
    return found if perm is None else transpose(found, perm)
