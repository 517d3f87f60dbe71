"""Second derivatives as matrices."""

from __future__ import annotations

from typing import Any

from graphc.errors import ShapeError
from graphc.gradients import UnconnectedGradients, gradients
from graphc.graph import Tensor, name_scope
from graphc.ops.shaping import reshape, stack, unstack
from graphc.ops.shaping_make import zeros


def hessians(
    ys: Any,
    xs: Any,
    name: str = "hessians",
    colocate_gradients_with_ops: bool = False,
    gate_gradients: bool = False,
    aggregation_method: Any = None,
) -> list[Tensor]:
    """The second derivatives of the sum of ``ys`` with respect to each of ``xs`` with itself.

    Args:
      ys: a tensor or a list of tensors.
      xs: a tensor or Variable, or a list of them, whose shapes are known: each element gets
        operations of its own.
      name: the name scope.
      colocate_gradients_with_ops, gate_gradients, aggregation_method: accepted.
    Returns:
      One tensor per ``x``, of shape ``x.shape + x.shape``.
    Raises:
      ValueError: an ``x`` whose shape is not known.
    """
    x_list = list(xs) if isinstance(xs, (list, tuple)) else [xs]
    options = (colocate_gradients_with_ops, gate_gradients, aggregation_method)
    found: list[Tensor] = []
    with name_scope(name, "hessians", x_list):
        for x in x_list:
            shape = x.shape.as_list() if x.shape.is_fully_defined() else None
            if shape is None:
                raise ShapeError(f"The shape of {x} must be known for its second derivatives")
            (first,) = gradients(ys, x, None, "gradients", *options,
                                 unconnected_gradients=UnconnectedGradients.ZERO)  # fmt: skip
            assert first is not None
            elements = unstack(reshape(first, [-1]))
            rows = [
                gradients(e, x, unconnected_gradients=UnconnectedGradients.ZERO)[0]
                for e in elements
            ]
            sizes = [*shape, *shape]
            found.append(reshape(stack(rows), sizes) if rows else zeros(sizes, first.dtype))
    return found
