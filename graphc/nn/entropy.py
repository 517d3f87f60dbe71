"""Cross entropies under TensorFlow 1.15's signatures and names."""

from __future__ import annotations

from typing import Any

from graphc import dtypes
from graphc.build import convert_to_tensor, create, single
from graphc.errors import GraphError
from graphc.graph import Tensor, name_scope
from graphc.ops.base import call
from graphc.ops.math import abs, add, cast, exp, log1p, where
from graphc.ops.reduction_functions import renamed_argument


def _check_named(name: str, sentinel: Any, labels: Any, logits: Any) -> None:
    if sentinel is not None:
        raise GraphError(
            f"Only call `{name}` with named arguments (labels=..., logits=..., ...)"
        )
    if labels is None or logits is None:
        raise GraphError("Both labels and logits must be provided.")


def _matrix(x: Tensor) -> Tensor:
    """A tensor as a matrix with its last dimension."""
    last = None if x.sizes is None else x.sizes[-1]
    if isinstance(last, int) and last:
        return call("Reshape", x, [-1, last])
    shape: Any = call("Shape", x)
    return call("Reshape", x, call("ConcatV2", [convert_to_tensor([-1]), shape[-1:]], 0))


def _moved_to_end(x: Tensor, axis: int) -> Tensor:
    if x.sizes is None:
        raise GraphError(f"The rank of {x} must be known where axis is not -1")
    order = list(range(len(x.sizes)))
    order.append(order.pop(axis))
    return call("Transpose", x, order)


def softmax_cross_entropy_with_logits_v2(
    labels: Any, logits: Any, axis: int | None = None, name: str | None = None, dim: Any = None
) -> Tensor:
    """The cross entropy of ``labels`` with the softmax of ``logits`` along ``axis``.

    Args:
      labels: distributions over the classes, of the shape of ``logits``; gradients pass to them.
      logits: unscaled logarithms of probabilities.
      axis: where the classes are, the last by default; ``dim`` is its older name.
      name: a name scope for the operations.
    Returns:
      A tensor of the shape of ``logits`` without ``axis``.
    """
    axis = renamed_argument("axis", axis, "dim", dim)
    axis = -1 if axis is None else int(axis)
    with name_scope(name, "softmax_cross_entropy_with_logits", [logits, labels]) as scope:
        logits = convert_to_tensor(logits, name="logits")
        labels = convert_to_tensor(labels, name="labels")
        dtype = logits.dtype.base_dtype
        precise = cast(logits, dtype.accumulator)
        labels = cast(labels, precise.dtype.base_dtype)
        if axis != -1:
            precise, labels = _moved_to_end(precise, axis), _moved_to_end(labels, axis)
        rows, targets = _matrix(precise), _matrix(labels)
        op = create("SoftmaxCrossEntropyWithLogits", [rows, targets], None, scope)
        cost = call("Reshape", op.outputs[0], _outer_shape(precise))
        if precise.sizes is not None:
            cost.set_shape(precise.shape[:-1])
        return cast(cost, dtype)


def _outer_shape(x: Tensor) -> Any:
    """The shape without the last dimension, for a reshape."""
    sizes = x.sizes
    if sizes is not None and sum(not isinstance(s, int) for s in sizes[:-1]) <= 1:
        return [s if isinstance(s, int) else -1 for s in sizes[:-1]] or convert_to_tensor(
            [], dtypes.int32
        )
    shape: Any = call("Shape", x)
    return shape[:-1]


def softmax_cross_entropy_with_logits(
    _sentinel: Any = None,
    labels: Any = None,
    logits: Any = None,
    dim: int = -1,
    name: str | None = None,
    axis: int | None = None,
) -> Tensor:
    """Like :func:`softmax_cross_entropy_with_logits_v2`, but no gradient passes to ``labels``.

    Raises:
      ValueError: arguments that are not named.
    """
    place = dim if axis is None else axis
    _check_named("softmax_cross_entropy_with_logits", _sentinel, labels, logits)
    with name_scope(name, "softmax_cross_entropy_with_logits_sg", [logits, labels]) as scope:
        labels = single(create("StopGradient", [labels], None, "labels_stop_gradient"))
    return softmax_cross_entropy_with_logits_v2(labels, logits, place, scope)


def sparse_softmax_cross_entropy_with_logits(
    _sentinel: Any = None, labels: Any = None, logits: Any = None, name: str | None = None
) -> Tensor:
    """The cross entropy of the classes ``labels`` with the softmax of ``logits``.

    Args:
      _sentinel: keeps the other arguments from being given without their names.
      labels: integers, of the shape of ``logits`` without its last dimension; one that is no
        class fails the run.
      logits: unscaled logarithms of probabilities, the classes last.
      name: a name scope for the operations.
    Returns:
      A tensor of the shape of ``labels`` and the dtype of ``logits``.
    """
    _check_named("sparse_softmax_cross_entropy_with_logits", _sentinel, labels, logits)
    with name_scope(name, "SparseSoftmaxCrossEntropyWithLogits", [labels, logits]):
        labels, logits = convert_to_tensor(labels), convert_to_tensor(logits)
        dtype = logits.dtype.base_dtype
        precise = cast(logits, dtype.accumulator)
        _check_sparse(labels, logits)
        op_name = "SparseSoftmaxCrossEntropyWithLogits"
        if logits.sizes is not None and len(logits.sizes) == 2:
            cost = create(op_name, [precise, labels], None, name).outputs[0]
            return cast(cost, dtype)
        rows, numbers = _matrix(precise), call("Reshape", labels, [-1])
        cost = create(op_name, [rows, numbers], None, name).outputs[0]
        cost = call("Reshape", cost, call("Shape", labels))
        cost.set_shape(labels.get_shape())
        return cast(cost, dtype)


def _check_sparse(labels: Tensor, logits: Tensor) -> None:
    given, shape = labels.get_shape(), logits.get_shape()
    if shape.ndims == 0:
        raise GraphError(f"Logits cannot be scalars - received shape {shape}.")
    if shape.ndims is None or given.ndims is None:
        return
    if given.ndims != shape.ndims - 1:
        raise GraphError(
            f"Rank mismatch: Rank of labels (received {given.ndims}) should equal rank of logits "
            f"minus 1 (received {shape.ndims})."
        )
    outer = shape[:-1]
    if given.is_fully_defined() and outer.is_fully_defined() and given != outer:
        raise GraphError(
            f"Shape mismatch: The shape of labels (received {given}) should equal the shape of "
            f"logits except for the last dimension (received {shape})."
        )


def _same_shape(labels: Tensor, logits: Tensor, what: str) -> None:
    try:
        labels.get_shape().merge_with(logits.get_shape())
    except ValueError:
        raise GraphError(
            f"logits and {what} must have the same shape ({logits.get_shape()} vs "
            f"{labels.get_shape()})"
        ) from None


def sigmoid_cross_entropy_with_logits(
    _sentinel: Any = None, labels: Any = None, logits: Any = None, name: str | None = None
) -> Tensor:
    """The cross entropy of ``labels`` with ``sigmoid(logits)``, element by element.

    ``max(x, 0) - x * z + log(1 + exp(-|x|))`` for a logit x and a label z.
    """
    _check_named("sigmoid_cross_entropy_with_logits", _sentinel, labels, logits)
    with name_scope(name, "logistic_loss", [logits, labels]) as scope:
        x: Any = convert_to_tensor(logits, name="logits")
        z: Any = convert_to_tensor(labels, name="labels")
        _same_shape(z, x, "labels")
        zeros = call("ZerosLike", x)
        positive = x >= zeros
        above, below = where(positive, x, zeros), where(positive, -x, x)
        linear: Any = above - x * z
        return add(linear, log1p(exp(below)), name=scope)


def weighted_cross_entropy_with_logits(
    labels: Any = None,
    logits: Any = None,
    pos_weight: Any = None,
    name: str | None = None,
    targets: Any = None,
) -> Tensor:
    """Like :func:`sigmoid_cross_entropy_with_logits`, with positive labels weighted."""
    labels = renamed_argument("labels", labels, "targets", targets)
    with name_scope(name, "logistic_loss", [logits, labels]) as scope:
        x: Any = convert_to_tensor(logits, name="logits")
        z: Any = convert_to_tensor(labels, name="labels")
        _same_shape(z, x, "labels")
        weight = 1 + (pos_weight - 1) * z
        tail: Any = log1p(exp(-abs(x)))  # type: ignore[operator]
        return add((1 - z) * x, weight * (tail + call("Relu", -x)), name=scope)


def log_poisson_loss(
    targets: Any, log_input: Any, compute_full_loss: bool = False, name: str | None = None
) -> Tensor:
    """The negative log likelihood of counts ``targets`` under rates ``exp(log_input)``."""
    with name_scope(name, "log_poisson_loss", [log_input, targets]):
        rate: Any = convert_to_tensor(log_input, name="log_input")
        counts: Any = convert_to_tensor(targets, name="targets")
        _same_shape(counts, rate, "targets")
        loss: Any = exp(rate) - rate * counts
        if compute_full_loss:
            tail: Any = call("Log", 6.283185307179586 * counts)
            stirling = counts * call("Log", counts) - counts + 0.5 * tail
            zeros = call("ZerosLike", counts)
            few = call("LogicalAnd", counts >= zeros, counts <= call("OnesLike", counts))
            loss = loss + where(few, zeros, stirling)
        return convert_to_tensor(loss)
