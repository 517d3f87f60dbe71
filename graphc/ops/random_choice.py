"""Random choices: a category for each row of logits, the rows of a tensor in another order."""

from __future__ import annotations

from typing import Any

from graphc import dtypes
from graphc.build import convert_to_tensor
from graphc.dtypes import as_dtype
from graphc.errors import ShapeError
from graphc.graph import Tensor, name_scope
from graphc.ops.base import INF
from graphc.ops.math import (
    argmax,
    cast,
    exp,
    greater,
    greater_equal,
    is_finite,
    logical_or,
    multiply,
    reduce_max,
    subtract,
    where_v2,
)
from graphc.ops.movement_value import dim_tensor
from graphc.ops.random import random_uniform
from graphc.ops.reduction_scan import cumsum
from graphc.ops.shaping import expand_dims, gather, stack
from graphc.ops.sorting_functions import argsort


def multinomial(
    logits: Any, num_samples: Any, seed: int | None = None, name: str | None = None,
    output_dtype: Any = None,
) -> Tensor:  # fmt: skip
    """Categories drawn with probabilities proportional to ``exp(logits)``, row by row.

    Args:
      logits: ``[rows, categories]``, floats.
      num_samples: how many to draw for each row.
      seed: the operation's seed.
      name: the name scope.
      output_dtype: int32 or int64 (the default).

    Of logits that are not finite the probability is 0; if none is, the first is drawn.
    Returns:
      ``[rows, num_samples]``.
    Raises:
      ValueError: ``logits`` that is no matrix.
    """
    with name_scope(name, "multinomial", [logits]) as scope:
        logits = convert_to_tensor(logits, name="logits")
        if logits.sizes is not None and len(logits.sizes) != 2:
            raise ShapeError(f"Shape must be rank 2 but is rank {len(logits.sizes)}: {logits}")
        wide = dtypes.float64 if logits.dtype.base_dtype is dtypes.float64 else dtypes.float32
        samples = convert_to_tensor(num_samples, dtype=dtypes.int32, name="num_samples")
        logits = cast(logits, wide)
        # As in TensorFlow, what is not finite is never drawn.
        known = where_v2(is_finite(logits), logits, -INF)
        chances = exp(subtract(known, reduce_max(known, 1, keepdims=True)))
        sums = expand_dims(cumsum(cast(chances, dtypes.float64), 1), 1)
        total = reduce_max(sums, 2, keepdims=True)
        shape = stack([dim_tensor(logits, 0), samples, 1])
        place = multiply(random_uniform(shape, dtype=dtypes.float64, seed=seed), total)
        # The first whose sum is beyond; the product may have been rounded up to the total.
        beyond = logical_or(greater(sums, place), greater_equal(sums, total))
        kind = as_dtype(output_dtype or dtypes.int64)
        return argmax(cast(beyond, dtypes.int8), 2, output_type=kind, name=scope)


def random_shuffle(value: Any, seed: int | None = None, name: str | None = None) -> Tensor:
    """``value`` with its rows (along the first dimension) in a random order."""
    with name_scope(name, "RandomShuffle", [value]) as scope:
        value = convert_to_tensor(value, name="value")
        if value.sizes == ():
            raise ShapeError("random_shuffle needs rows: a scalar has none")
        keys = random_uniform(stack([dim_tensor(value, 0)]), dtype=dtypes.float64, seed=seed)
        return gather(value, argsort(keys), name=scope)
