"""Rows of tables by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.build import constant, convert_to_tensor, create, single
from graphc.errors import GraphError
from graphc.graph import Tensor, name_scope
from graphc.ops.base import call
from graphc.ops.clip import clip_by_norm
from graphc.ops.math import (
    add_n,
    cast,
    equal,
    floordiv,
    floormod,
    less,
    logical_and,
    maximum,
    where_v2,
)
from graphc.ops.shaping import expand_dims, gather
from graphc.ops.shaping_make import range as range_of
from graphc.ops.shaping_make import rank as rank_of
from graphc.ops.shaping_make import shape as shape_of


def embedding_lookup(
    params: Any,
    ids: Any,
    partition_strategy: str = "mod",
    name: str | None = None,
    validate_indices: bool = True,
    max_norm: float | None = None,
) -> Tensor:
    """The rows of ``params`` that ``ids`` name.

    Args:
      params: a tensor or Variable ``[n, ...]``, or a list of them that holds the rows in parts.
      ids: integers of any shape; one that is out of range fails the run.
      partition_strategy: where the rows are, in several parts: ``"mod"`` puts row ``i`` into part
        ``i % parts``; ``"div"`` cuts the rows in order, the first parts one row longer where they
        do not divide.
      name: a name scope for the operations.
      validate_indices: accepted; ids are checked.
      max_norm: rows of a larger L2 norm are scaled down to it.
    Returns:
      A tensor ``[*ids.shape, ...]`` of the dtype of ``params``.
    Raises:
      ValueError: no ``params``, or an unknown strategy.
    """
    del validate_indices
    if params is None:
        raise GraphError("params must be specified")
    parts = list(params) if isinstance(params, (list, tuple)) else [params]
    if not parts:
        raise GraphError("Need at least one param")
    with name_scope(name, "embedding_lookup", [*parts, ids]) as scope:
        ids = convert_to_tensor(ids, name="ids")
        if len(parts) == 1:
            rows = single(create("GatherV2", [parts[0], ids, 0], None, scope))
        else:
            tables = [convert_to_tensor(p, name="params") for p in parts]
            rows = _from_parts(tables, ids, _places(tables, ids, partition_strategy))
        if max_norm is not None:
            rows = clip_by_norm(rows, max_norm, _inner_axes(ids, rows))
        return call("Identity", rows)


def _places(parts: Sequence[Tensor], ids: Any, strategy: str) -> tuple[Any, Any]:
    """The number of the part that each id is in, and its row there."""
    count = len(parts)
    if strategy == "mod":
        return floormod(ids, count), floordiv(ids, count)
    if strategy != "div":
        raise GraphError(f"Unrecognized partition strategy: {strategy}")
    total: Any = _total(parts, ids.dtype.base_dtype)
    least, extras = total // count, total % count
    # The first ``extras`` parts have a row more than the others.
    part: Any = maximum(ids // (least + 1), (ids - extras) // maximum(least, 1))
    return part, where_v2(less(part, extras), ids % (least + 1), (ids - extras) % maximum(least, 1))


def _total(parts: Sequence[Tensor], dtype: Any) -> Tensor:
    sizes = [p.shape[0].value for p in parts]
    if all(size is not None for size in sizes):
        return constant(sum(sizes), dtype)
    counted: list[Any] = [shape_of(p) for p in parts]
    return cast(add_n([shape[0] for shape in counted]), dtype)


def _from_parts(parts: Sequence[Tensor], ids: Tensor, places: tuple[Any, Any]) -> Tensor:
    """Each row from its part; of the others, row 0 is read and not used."""
    part, row = places
    rank = None if parts[0].sizes is None else len(parts[0].sizes)
    if rank is None:
        raise GraphError("embedding_lookup: the ranks of params in several parts must be known")
    # An id that is in no part is looked up as it is, in the last one: it is out of range there.
    inside = logical_and(less(-1, part), less(part, len(parts)))
    row = where_v2(inside, row, where_v2(less(ids, 0), ids, maximum(ids, _rows(parts[-1], ids))))
    part = where_v2(inside, part, len(parts) - 1)
    found: Any = None
    for k, table in enumerate(parts):
        here: Any = equal(part, k)
        rows = gather(table, where_v2(here, row, 0))
        for _ in range(1, rank):
            here = expand_dims(here, -1)
        found = rows if found is None else where_v2(here, rows, found)
    assert isinstance(found, Tensor)
    return found


def _rows(table: Tensor, ids: Tensor) -> Tensor:
    sizes: Any = shape_of(table)
    return cast(sizes[0], ids.dtype.base_dtype)


def _inner_axes(ids: Tensor, rows: Tensor) -> Any:
    if ids.sizes is None or rows.sizes is None:
        return range_of(rank_of(ids), rank_of(rows))
    return list(range(len(ids.sizes), len(rows.sizes)))
