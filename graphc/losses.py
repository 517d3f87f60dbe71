"""Losses that are kept in a collection, under the names of ``tf.losses`` of TensorFlow 1.15."""

from __future__ import annotations

from typing import Any

from graphc import dtypes, nn
from graphc.build import constant, convert_to_tensor, create, single
from graphc.errors import GraphError
from graphc.graph import (
    GraphKeys,
    Tensor,
    add_to_collection,
    get_collection,
    name_scope,
)
from graphc.ops.base import call
from graphc.ops.math import (
    abs,
    add_n,
    cast,
    div_no_nan,
    equal,
    log,
    minimum,
    multiply,
    squared_difference,
    subtract,
    where,
)
from graphc.ops.reduction_functions import reduce_sum, renamed_argument


class Reduction:
    """How the losses of the elements become one."""

    NONE = "none"
    SUM = "weighted_sum"
    SUM_OVER_BATCH_SIZE = "weighted_sum_over_batch_size"
    MEAN = "weighted_mean"
    SUM_BY_NONZERO_WEIGHTS = "weighted_sum_by_nonzero_weights"
    SUM_OVER_NONZERO_WEIGHTS = SUM_BY_NONZERO_WEIGHTS

    @classmethod
    def all(cls) -> tuple[str, ...]:
        """All of them."""
        return (
            cls.NONE, cls.SUM, cls.MEAN, cls.SUM_OVER_BATCH_SIZE, cls.SUM_OVER_NONZERO_WEIGHTS,
            cls.SUM_BY_NONZERO_WEIGHTS,
        )  # fmt: skip

    @classmethod
    def validate(cls, key: str) -> None:
        """Raise unless ``key`` is one of them."""
        if key not in cls.all():
            raise GraphError(f"Invalid Reduction Key {key}.")


def add_loss(loss: Tensor, loss_collection: str | None = GraphKeys.LOSSES) -> None:
    """Add a loss to the collection."""
    if loss_collection:
        add_to_collection(loss_collection, loss)


def get_losses(scope: str | None = None, loss_collection: str = GraphKeys.LOSSES) -> list[Any]:
    """The losses in the collection; with ``scope``, those whose names match it."""
    return get_collection(loss_collection, scope)


def get_regularization_losses(scope: str | None = None) -> list[Any]:
    """What the regularizers of variables made."""
    return get_collection(GraphKeys.REGULARIZATION_LOSSES, scope)


def get_regularization_loss(
    scope: str | None = None, name: str = "total_regularization_loss"
) -> Tensor:
    """The sum of the regularization losses; 0 for none."""
    found = get_regularization_losses(scope)
    return add_n(found, name=name) if found else constant(0.0)


def get_total_loss(
    add_regularization_losses: bool = True, name: str = "total_loss", scope: str | None = None
) -> Tensor:
    """The sum of the losses in the collection and of the regularization losses."""
    found = get_losses(scope)
    if add_regularization_losses:
        found += get_regularization_losses(scope)
    return add_n(found, name=name)


def compute_weighted_loss(
    losses: Any,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Tensor:
    """The losses of the elements, weighted and reduced, added to the collection.

    Args:
      losses: a tensor.
      weights: a scalar, or a tensor of the same rank whose dimensions are equal or 1.
      scope: a name scope for the operations.
      loss_collection: the collection; None for none.
      reduction: one of :class:`Reduction`.
    Raises:
      ValueError: weights that cannot be broadcast to the losses, an unknown reduction.
    """
    Reduction.validate(reduction)
    with name_scope(scope, "weighted_loss", [losses, weights]):
        losses = convert_to_tensor(losses)
        _check_broadcastable(weights, losses)
        dtype = losses.dtype.base_dtype
        losses = cast(losses, dtypes.float32)
        known = weights if isinstance(weights, float) else None
        weights = cast(weights, dtypes.float32)
        weighted = multiply(losses, weights)
        loss = weighted if reduction == Reduction.NONE else reduce_sum(weighted)
        if reduction == Reduction.MEAN:
            spread: Any = call("OnesLike", losses)
            loss = _safe_mean(loss, reduce_sum(spread * weights))
        elif reduction == Reduction.SUM_BY_NONZERO_WEIGHTS:
            loss = _safe_mean(loss, _count_present(losses, weights, known))
        elif reduction == Reduction.SUM_OVER_BATCH_SIZE:
            loss = _safe_mean(loss, _count(losses))
        loss = cast(loss, dtype)
        add_loss(loss, loss_collection)
        return loss


def _safe_mean(total: Tensor, count: Tensor) -> Tensor:
    return div_no_nan(total, count, name="value")


def _count(losses: Tensor) -> Tensor:
    with name_scope(None, "num_elements", [losses]) as scope:
        size = single(create("Size", [losses], None, scope))
        return cast(size, losses.dtype.base_dtype)


def _count_present(losses: Tensor, weights: Tensor, known: float | None = None) -> Tensor:
    """How many losses have a weight that is not 0."""
    if known:
        return _count(losses)
    with name_scope(None, "num_present", [losses, weights]) as scope:
        zeros, ones = call("ZerosLike", weights), call("OnesLike", weights)
        present = where(equal(weights, 0.0), zeros, ones)
        spread = call("BroadcastLike", present, losses)
        return reduce_sum(spread, name=scope)


_NOT_BROADCASTABLE = "weights can not be broadcast to values."


def _check_broadcastable(weights: Any, losses: Tensor) -> None:
    """Raise where the static shapes show that the weights do not fit."""
    given, values = convert_to_tensor(weights).get_shape(), losses.get_shape()
    if given.ndims in (None, 0) or values.ndims is None:
        return
    if given.ndims != values.ndims:
        raise GraphError(
            f"{_NOT_BROADCASTABLE} values.rank={values.ndims}. weights.rank={given.ndims}. "
            f"values.shape={values}. weights.shape={given}."
        )
    for i, (a, b) in enumerate(zip(given.as_list(), values.as_list(), strict=True)):
        if a is not None and b is not None and a not in (1, b):
            raise GraphError(
                f"{_NOT_BROADCASTABLE} Mismatch at dim {i}. values.shape={values.as_list()} "
                f"weights.shape={given.as_list()}."
            )


def _check_given(**values: Any) -> None:
    for name, value in values.items():
        if value is None:
            raise GraphError(f"{name} must not be None.")


def _pair(labels: Any, predictions: Any) -> tuple[Any, Any]:
    """Labels and predictions as float32, which must have compatible shapes."""
    predictions = cast(predictions, dtypes.float32)
    labels = cast(labels, dtypes.float32)
    predictions.get_shape().assert_is_compatible_with(labels.get_shape())
    return labels, predictions


def absolute_difference(
    labels: Any,
    predictions: Any,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``|predictions - labels|``; see :func:`compute_weighted_loss`."""
    _check_given(labels=labels, predictions=predictions)
    with name_scope(scope, "absolute_difference", [predictions, labels, weights]) as scope:
        labels, predictions = _pair(labels, predictions)
        losses = abs(subtract(predictions, labels))
        return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def mean_squared_error(
    labels: Any,
    predictions: Any,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``(predictions - labels)**2``; see :func:`compute_weighted_loss`."""
    _check_given(labels=labels, predictions=predictions)
    with name_scope(scope, "mean_squared_error", [predictions, labels, weights]) as scope:
        labels, predictions = _pair(labels, predictions)
        losses = squared_difference(predictions, labels)
        return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def huber_loss(
    labels: Any,
    predictions: Any,
    weights: Any = 1.0,
    delta: float = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Tensor:
    """Half the squared error where it is at most ``delta``, linear beyond."""
    _check_given(labels=labels, predictions=predictions)
    with name_scope(scope, "huber_loss", [predictions, labels, weights]) as scope:
        labels, predictions = _pair(labels, predictions)
        error = abs(subtract(predictions, labels))
        quadratic = minimum(error, delta)
        # The same as max(error - delta, 0), but with no gradient of its own at delta.
        linear = subtract(error, quadratic)
        half = multiply(0.5, multiply(quadratic, quadratic))
        losses: Any = half + multiply(delta, linear)  # type: ignore[operator]
        return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def log_loss(
    labels: Any,
    predictions: Any,
    weights: Any = 1.0,
    epsilon: float = 1e-7,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Tensor:
    """The negative logarithm of the probability that ``predictions`` give the labels."""
    _check_given(labels=labels, predictions=predictions)
    with name_scope(scope, "log_loss", [predictions, labels, weights]) as scope:
        labels, predictions = _pair(labels, predictions)
        positive: Any = multiply(labels, log(predictions + epsilon))
        negative: Any = multiply(1 - labels, log(1 - predictions + epsilon))
        losses = -positive - negative
        return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def hinge_loss(
    labels: Any,
    logits: Any,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``max(0, 1 - s * logits)``, with s = 1 for labels of 1 and -1 for labels of 0."""
    _check_given(labels=labels, logits=logits)
    with name_scope(scope, "hinge_loss", [logits, labels, weights]) as scope:
        labels, logits = _pair(labels, logits)
        ones = call("OnesLike", labels)
        sign = subtract(2 * labels, ones)
        losses = nn.relu(subtract(ones, multiply(sign, logits)))
        return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def cosine_distance(
    labels: Any,
    predictions: Any,
    axis: int | None = None,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
    dim: int | None = None,
) -> Tensor:
    """1 less the inner product along ``axis`` of vectors of length 1."""
    axis = renamed_argument("axis", axis, "dim", dim)
    if axis is None:
        raise GraphError("You must specify 'axis'.")
    _check_given(labels=labels, predictions=predictions)
    with name_scope(scope, "cosine_distance_loss", [predictions, labels, weights]) as scope:
        labels, predictions = _pair(labels, predictions)
        products = reduce_sum(multiply(predictions, labels), axis=(axis,), keepdims=True)
        losses: Any = 1 - products  # type: ignore[operator]
        return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def sigmoid_cross_entropy(
    multi_class_labels: Any,
    logits: Any,
    weights: Any = 1.0,
    label_smoothing: float = 0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``nn.sigmoid_cross_entropy_with_logits``, of smoothed labels where asked."""
    _check_given(multi_class_labels=multi_class_labels, logits=logits)
    operands = [logits, multi_class_labels, weights]
    with name_scope(scope, "sigmoid_cross_entropy_loss", operands) as scope:
        logits = convert_to_tensor(logits)
        labels: Any = cast(multi_class_labels, logits.dtype)
        logits.get_shape().assert_is_compatible_with(labels.get_shape())
        if label_smoothing > 0:
            labels = labels * (1 - label_smoothing) + 0.5 * label_smoothing
        losses = nn.sigmoid_cross_entropy_with_logits(
            labels=labels, logits=logits, name="xentropy"
        )
        return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def softmax_cross_entropy(
    onehot_labels: Any,
    logits: Any,
    weights: Any = 1.0,
    label_smoothing: float = 0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``nn.softmax_cross_entropy_with_logits``, of smoothed labels where asked."""
    _check_given(onehot_labels=onehot_labels, logits=logits)
    operands = [logits, onehot_labels, weights]
    with name_scope(scope, "softmax_cross_entropy_loss", operands) as scope:
        logits = convert_to_tensor(logits)
        labels: Any = cast(onehot_labels, logits.dtype)
        logits.get_shape().assert_is_compatible_with(labels.get_shape())
        if label_smoothing > 0:
            shape: Any = call("Shape", labels)
            classes = cast(shape[-1], logits.dtype)
            labels = labels * (1.0 - label_smoothing) + label_smoothing / classes  # type: ignore[operator]
        labels = single(create("StopGradient", [labels], None, "labels_stop_gradient"))
        losses = nn.softmax_cross_entropy_with_logits_v2(labels, logits, name="xentropy")
        return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def sparse_softmax_cross_entropy(
    labels: Any,
    logits: Any,
    weights: Any = 1.0,
    scope: str | None = None,
    loss_collection: str | None = GraphKeys.LOSSES,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Tensor:
    """``nn.sparse_softmax_cross_entropy_with_logits``; labels may have a last dimension of 1."""
    _check_given(labels=labels, logits=logits)
    operands = [logits, labels, weights]
    with name_scope(scope, "sparse_softmax_cross_entropy_loss", operands) as scope:
        labels, logits = convert_to_tensor(labels), convert_to_tensor(logits)
        rank = logits.get_shape().ndims
        labels = _squeezed(labels, None if rank is None else rank - 1)
        if not isinstance(weights, float):
            weights = _squeezed(convert_to_tensor(weights), labels.get_shape().ndims)
        losses = nn.sparse_softmax_cross_entropy_with_logits(
            labels=labels, logits=logits, name="xentropy"
        )
        return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def _squeezed(x: Tensor, rank: int | None) -> Tensor:
    """``x`` without its last dimension where it has one more than ``rank``."""
    if x.sizes is None or rank is None or len(x.sizes) != rank + 1 or not x.sizes:
        return x
    last = x.sizes[-1]
    return x if isinstance(last, int) and last != 1 else call("Squeeze", x, squeeze_dims=(-1,))
