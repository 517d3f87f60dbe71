"""Gradients kept from getting too large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import dtypes
from graphc.build import constant, convert_to_tensor
from graphc.errors import DTypeError
from graphc.graph import Tensor, name_scope
from graphc.ops.array import identity
from graphc.ops.base import call
from graphc.ops.clip import clip_by_norm
from graphc.ops.math import (
    cast,
    is_finite,
    minimum,
    reduce_sum,
    rsqrt,
    sqrt,
    where,
)
from graphc.ops.shaping import stack
from graphc.ops.shaping_make import size

__all__ = ["clip_by_average_norm", "clip_by_global_norm", "clip_by_norm", "global_norm"]


def clip_by_average_norm(t: Any, clip_norm: Any, name: str | None = None) -> Tensor:
    """``t`` scaled down to an L2 norm of at most ``clip_norm`` per element."""
    with name_scope(name, "clip_by_average_norm", [t, clip_norm]) as scope:
        values: Any = convert_to_tensor(t, name="t")
        count = cast(size(values), dtypes.float32)
        inverse: Any = rsqrt(reduce_sum(values * values))
        one: Any = constant(1.0)
        factor = minimum(inverse * count, one / clip_norm)
        return identity(values * clip_norm * factor, name=scope)


def global_norm(t_list: Sequence[Any], name: str | None = None) -> Tensor:
    """The L2 norm of all tensors of a list together; None entries do not count."""
    with name_scope(name, "global_norm", _listed(t_list)):
        half_squares = [call("L2Loss", t) for t in _converted(t_list) if t is not None]
        half: Any = reduce_sum(stack(half_squares))
        return sqrt(half * constant(2.0, half.dtype), name="global_norm")


def clip_by_global_norm(
    t_list: Sequence[Any], clip_norm: Any, use_norm: Any = None, name: str | None = None
) -> tuple[list[Any], Any]:
    """All tensors of a list scaled down by one factor, to a norm of at most ``clip_norm``.

    Args:
      t_list: tensors; None entries stay None.
      clip_norm: a positive scalar.
      use_norm: the norm of the list; :func:`global_norm` by default.
      name: a name for the operations.
    Returns:
      The list of clipped tensors, and the norm.  They are NaN where the norm is not finite.
    """
    norm: Any = global_norm(t_list, name) if use_norm is None else convert_to_tensor(use_norm)
    with name_scope(name, "clip_by_global_norm", [*_listed(t_list), clip_norm]) as scope:
        one: Any = constant(1.0, norm.dtype)
        finite = clip_norm * minimum(1.0 / norm, one / clip_norm)
        scale = where(is_finite(norm), finite, constant(float("nan"), norm.dtype))
        clipped = [
            None if t is None else identity(t * scale, name=f"{scope}_{i}")
            for i, t in enumerate(_converted(t_list))
        ]
    return clipped, norm


def _listed(t_list: Any) -> list[Any]:
    if isinstance(t_list, str) or not isinstance(t_list, Sequence):
        raise DTypeError("t_list should be a sequence")
    return [t for t in t_list if t is not None]


def _converted(t_list: Sequence[Any]) -> list[Any]:
    return [
        None if t is None else convert_to_tensor(t, name=f"t_{i}") for i, t in enumerate(t_list)
    ]
