"""Reverse-mode differentiation: :func:`gradients` extends the graph with the chain rule."""

from __future__ import annotations

import enum
from typing import Any

from graphc.backward import Backward, is_trainable
from graphc.build import constant, convert_to_tensor, create, single
from graphc.errors import DTypeError, GraphError
from graphc.graph import Tensor, graph_of, name_scope

__all__ = ["AggregationMethod", "UnconnectedGradients", "gradients", "is_trainable"]


class UnconnectedGradients(enum.Enum):
    """What :func:`gradients` gives for an ``x`` that no ``y`` depends on."""

    NONE = "none"
    ZERO = "zero"


class AggregationMethod:
    """How several contributions to one gradient are added up; accepted, all do the same."""

    ADD_N = 0
    DEFAULT = ADD_N
    EXPERIMENTAL_TREE = 1
    EXPERIMENTAL_ACCUMULATE_N = 2


def gradients(
    ys: Any,
    xs: Any,
    grad_ys: Any = None,
    name: str = "gradients",
    colocate_gradients_with_ops: bool = False,
    gate_gradients: bool = False,
    aggregation_method: Any = None,
    stop_gradients: Any = None,
    unconnected_gradients: Any = UnconnectedGradients.NONE,
) -> list[Tensor | None]:
    """The derivatives of the sum of ``ys`` with respect to each of ``xs``, as new operations.

    Args:
      ys: a tensor or a list of tensors to differentiate.
      xs: a tensor or Variable, or a list of them, to differentiate with respect to.
      grad_ys: what each ``y`` is weighted with (None: ones), of the shape of the ``y``.
      name: the name scope of the new operations.
      colocate_gradients_with_ops: accepted; placement follows the data.
      gate_gradients: accepted; nothing races, so there is nothing to gate.
      aggregation_method: accepted; several contributions are added by one ``AddN``.
      stop_gradients: tensors that count as constants.
      unconnected_gradients: ``"none"`` or ``"zero"``, for an ``x`` that no ``y`` depends on.
    Returns:
      One tensor per ``x``, of its shape; None where there is no path, or only paths through
      integers, bools or operations without a derivative.  The gradient of a gather is dense.
    Raises:
      ValueError: ``grad_ys`` that do not fit ``ys``; an unknown ``unconnected_gradients``.
      TypeError: a ``grad_y`` that is not numeric.
    """
    # What TensorFlow's placement and scheduling need and ours do not.
    del colocate_gradients_with_ops, gate_gradients, aggregation_method
    try:
        unconnected = UnconnectedGradients(unconnected_gradients)
    except ValueError:
        raise GraphError(
            f"Unknown value for unconnected_gradients: {unconnected_gradients!r}"
        ) from None
    y_list, x_list, stops = _as_list(ys), _as_list(xs), _as_list(stop_gradients)
    given = [None] * len(y_list) if grad_ys is None else _as_list(grad_ys)
    if len(given) != len(y_list):
        raise GraphError(f"Passed {len(given)} grad_ys for {len(y_list)} ys")
    values = [*y_list, *x_list, *stops, *(g for g in given if g is not None)]
    graph = graph_of(values)
    with graph.as_default(), name_scope(name, "gradients", values):
        sources = [convert_to_tensor(y, name="y") for y in y_list]
        targets = [_target(x) for x in x_list]
        seeds = [_seed(i, y, g) for i, (y, g) in enumerate(zip(sources, given, strict=True))]
        backward = Backward(sources, targets, [_target(s) for s in stops])
        found = backward.run(seeds)
        if unconnected is UnconnectedGradients.ZERO:
            return [_zeros(x) if g is None else g for x, g in zip(targets, found, strict=True)]
        return found


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _target(value: Any) -> Tensor:
    """``value`` as the tensor to differentiate by: of a Variable, its handle."""
    handle = getattr(value, "_ref", None)
    if callable(handle):
        tensor: Tensor = handle()
        return tensor
    return convert_to_tensor(value, name="x")


def _zeros(tensor: Tensor) -> Tensor:
    return single(create("ZerosLike", [tensor]))


def _seed(i: int, y: Tensor, grad_y: Any) -> Tensor:
    dtype = y.dtype.base_dtype
    if grad_y is None:
        if not (dtype.is_floating or dtype.is_integer):
            raise DTypeError(
                f"Tensor {y} with type {dtype.name} must be numeric to obtain a default gradient"
            )
        shape = single(create("Shape", [y]))
        return single(create("Fill", [shape, constant(1, dtype, name=f"grad_ys_{i}")]))
    grad = convert_to_tensor(grad_y, name="grad_y", preferred_dtype=dtype)
    kind = grad.dtype.base_dtype
    if not (kind.is_floating or kind.is_integer):
        raise DTypeError(
            f"Gradient type {kind.name} generated for real or integer-valued tensor {y} with type "
            f"{dtype.name} must be real or integer"
        )
    return single(create("Identity", [grad], None, f"grad_ys_{i}"))
