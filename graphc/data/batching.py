"""Mini-batches of arrays that belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Key = TypeVar("Key")


@overload
def batches(
    arrays: Mapping[Key, Array],
    batch_size: int,
    *,
    seed: int | Sequence[int] | None,
    shuffle: bool = ...,
    drop_remainder: bool = ...,
) -> Iterator[dict[Key, Array]]: ...
@overload
def batches(
    arrays: Array,
    batch_size: int,
    *,
    seed: int | Sequence[int] | None,
    shuffle: bool = ...,
    drop_remainder: bool = ...,
) -> Iterator[Array]: ...
@overload
def batches(
    arrays: Sequence[Array],
    batch_size: int,
    *,
    seed: int | Sequence[int] | None,
    shuffle: bool = ...,
    drop_remainder: bool = ...,
) -> Iterator[tuple[Array, ...]]: ...
def batches(
    arrays: Mapping[Key, Array] | Array | Sequence[Array],
    batch_size: int,
    *,
    seed: int | Sequence[int] | None,
    shuffle: bool = True,
    drop_remainder: bool = False,
) -> Iterator[dict[Key, Array]] | Iterator[Array] | Iterator[tuple[Array, ...]]:
    """Cut arrays into batches along their first axis, once through.

    Args:
      arrays: one array; several, which are cut alike and come as tuples; or a dictionary of
        them, which come as dictionaries. With placeholders as keys these are feed dictionaries.
      batch_size: how many rows a batch has.
      seed: what the order is made of; the same seed gives the same order on every machine.
        ``[seed, epoch]`` gives every epoch its own. ``None`` gives another order each time.
      shuffle: False to keep the order of the rows.
      drop_remainder: True to leave out a last batch that is not full.

    Raises:
      ValueError: the arrays differ in their number of rows, or there are none.

    Example:
      >>> import numpy as np, graphc as gc
      >>> [len(batch) for batch in gc.data.batches(np.arange(10), 4, seed=0)]
      [4, 4, 2]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1")
    named: dict[Any, Array]
    if isinstance(arrays, Mapping):
        named = {key: np.asarray(array) for key, array in arrays.items()}
    elif isinstance(arrays, np.ndarray):
        named = {0: arrays}
    else:
        named = {place: np.asarray(array) for place, array in enumerate(arrays)}
    if not named:
        raise ValueError("no arrays to cut into batches")
    if any(array.ndim == 0 for array in named.values()):
        raise ValueError("a scalar has no rows to cut into batches")
    counts = {key: len(array) for key, array in named.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"the arrays differ in their number of rows: {counts}")
    count = next(iter(counts.values()))
    order = _order(count, seed) if shuffle else np.arange(count)
    stop = count - count % batch_size if drop_remainder else count
    cuts = (order[start : start + batch_size] for start in range(0, stop, batch_size))
    cut_up = ({key: array[rows] for key, array in named.items()} for rows in cuts)
    if isinstance(arrays, Mapping):
        return cut_up
    if isinstance(arrays, np.ndarray):
        return (batch[0] for batch in cut_up)
    return (tuple(batch.values()) for batch in cut_up)


def _order(count: int, seed: int | Sequence[int] | None) -> NDArray[np.intp]:
    # RandomState's streams are frozen, those of default_rng() may change with NumPy.
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    return generator.permutation(count)
