"""Dropout, made of a random tensor, a comparison and two products."""

from __future__ import annotations

import numbers
from typing import Any

from graphc.build import convert_to_tensor, create, single
from graphc.errors import GraphError, ShapeError
from graphc.graph import Tensor, name_scope
from graphc.ops.random import random_uniform
from graphc.ops.reduction_functions import renamed_argument
from graphc.shapes import TensorShape


def dropout(
    x: Any,
    keep_prob: Any = None,
    noise_shape: Any = None,
    seed: int | None = None,
    name: str | None = None,
    rate: Any = None,
) -> Tensor:
    """``x`` with elements set to 0 at random, and the others scaled so that the mean stays.

    Args:
      x: a floating point tensor.
      keep_prob: the older way to say ``1 - rate``.
      noise_shape: the shape of the random decisions, which is broadcast to that of ``x``.
      seed: makes the decisions repeatable.
      name: a name scope for the operations.
      rate: how likely an element is to be dropped: a number in [0, 1), or a scalar tensor.
    Raises:
      ValueError: no rate, two rates, or one out of range; ``x`` is of integers.
    """
    try:
        keep = None if keep_prob is None else 1.0 - keep_prob
    except TypeError:
        raise GraphError(
            f"keep_prob must be a floating point number or Tensor (got {keep_prob!r})"
        ) from None
    rate = renamed_argument("rate", rate, "keep_prob", keep)
    if rate is None:
        raise GraphError("You must provide a rate to dropout.")
    with name_scope(name, "dropout", [x]):
        tensor = convert_to_tensor(x, name="x")
        if not tensor.dtype.is_floating:
            raise GraphError(
                "x has to be a floating point tensor since it's going to be scaled. Got a "
                f"{tensor.dtype} tensor instead."
            )
        if isinstance(rate, numbers.Real):
            if not 0 <= float(rate) < 1:
                raise GraphError(
                    f"rate must be a scalar tensor or a float in the range [0, 1), got {rate:g}"
                )
            if rate == 0:
                return tensor
        return _dropped(tensor, rate, noise_shape, seed)


def _dropped(x: Tensor, rate: Any, noise_shape: Any, seed: int | None) -> Tensor:
    dtype = x.dtype.base_dtype
    rate = convert_to_tensor(rate, dtype=dtype, name="rate")
    if rate.sizes not in (None, ()):
        raise ShapeError(f"Shape {rate.shape} must have rank 0")
    noise = random_uniform(_noise_shape(x, noise_shape), seed=seed, dtype=dtype)
    scale = 1 / (1 - rate)
    kept = single(create("Cast", [noise >= rate], {"DstT": dtype}))
    out: Tensor = x * scale * kept
    out.set_shape(x.get_shape())
    return out


def _noise_shape(x: Tensor, noise_shape: Any) -> Any:
    """The shape of the decisions; sizes left out of it are those of ``x``."""
    if noise_shape is None:
        return single(create("Shape", [x]))
    try:
        asked = TensorShape(noise_shape).sizes
    except (TypeError, ValueError):
        return noise_shape
    given = noise_shape.as_list() if isinstance(noise_shape, TensorShape) else list(noise_shape)
    if x.sizes is None or asked is None or len(asked) != len(x.sizes):
        return noise_shape
    known = zip(given, TensorShape(x.sizes).as_list(), strict=True)
    return [size if size is not None else own for size, own in known]
