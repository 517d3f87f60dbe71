"""Random choices: a category for each row of logits, the rows of a tensor in another order."""

from __future__ import annotations

from typing import Any

from graphc import dtypes
from graphc.build import convert_to_tensor
from graphc.dtypes import as_dtype
from graphc.errors import ShapeError
from graphc.graph import Tensor, name_scope
from graphc.ops.math import (
    add,
    argmax,
    cast,
    equal,
    less,
    log,
    logical_and,
    logical_or,
    negative,
    reduce_sum,
)
from graphc.ops.movement_value import dim_tensor
from graphc.ops.random import random_uniform
from graphc.ops.shaping import expand_dims, gather, stack
from graphc.ops.shaping_make import range as range_tensor


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
        shape = stack([dim_tensor(logits, 0), samples, dim_tensor(logits, 1)])
        # The largest of the logits plus Gumbel's noise is at each with its probability.
        noise = negative(log(negative(log(random_uniform(shape, dtype=wide, seed=seed)))))
        kind = as_dtype(output_dtype or dtypes.int64)
        chances = add(expand_dims(cast(logits, wide), 1), noise)
        return argmax(chances, 2, output_type=kind, name=scope)


def random_shuffle(value: Any, seed: int | None = None, name: str | None = None) -> Tensor:
    """``value`` with its rows (along the first dimension) in a random order."""
    with name_scope(name, "RandomShuffle", [value]) as scope:
        value = convert_to_tensor(value, name="value")
        if value.sizes == ():
            raise ShapeError("random_shuffle needs rows: a scalar has none")
        count = dim_tensor(value, 0)
        keys = random_uniform(stack([count]), dtype=dtypes.float64, seed=seed)
        at = range_tensor(count)
        row, column = expand_dims(keys, 1), expand_dims(keys, 0)
        earlier = logical_and(equal(column, row), less(expand_dims(at, 0), expand_dims(at, 1)))
        # How many keys come before each: a permutation, every one of them equally likely.
        order = reduce_sum(cast(logical_or(less(column, row), earlier), dtypes.int32), 1)
        return gather(value, order, name=scope)
