"""Tensors kept from getting too long."""

from __future__ import annotations

from typing import Any

from graphc.build import convert_to_tensor
from graphc.graph import Tensor, name_scope
from graphc.ops.array import identity
from graphc.ops.math import greater, maximum, reduce_sum, sqrt, where
from graphc.ops.shaping_make import ones_like


def clip_by_norm(t: Any, clip_norm: Any, axes: Any = None, name: str | None = None) -> Tensor:
    """``t`` scaled down to an L2 norm of at most ``clip_norm``.

    Args:
      t: a tensor.
      clip_norm: a positive scalar.
      axes: the axes that the norm is over; all by default.
      name: a name for the operation.
    """
    with name_scope(name, "clip_by_norm", [t, clip_norm]) as scope:
        values: Any = convert_to_tensor(t, name="t")
        squares = reduce_sum(values * values, axes, keepdims=True)
        positive = greater(squares, 0)
        # The root of a safe number, so that the gradient at zero is no NaN.
        norm = where(positive, sqrt(where(positive, squares, ones_like(squares))), squares)
        return identity(values * clip_norm / maximum(norm, clip_norm), name=scope)
