"""Activations, biases and what else is done to one tensor."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import dtypes
from graphc.build import convert_to_tensor, create, single
from graphc.errors import GraphError
from graphc.graph import Tensor, name_scope
from graphc.ops.base import call
from graphc.ops.contraction_functions import matmul
from graphc.ops.math import cast, maximum, multiply, not_equal, rsqrt, square
from graphc.ops.reduction_functions import reduce_sum, renamed_argument


def relu(features: Any, name: str | None = None) -> Tensor:
    """``max(x, 0)``, element by element."""
    return single(create("Relu", [features], None, name))


def relu6(features: Any, name: str | None = None) -> Tensor:
    """``min(max(x, 0), 6)``, element by element."""
    with name_scope(name, "Relu6", [features]) as scope:
        return single(create("Relu6", [convert_to_tensor(features, name="features")], None, scope))


def elu(features: Any, name: str | None = None) -> Tensor:
    """``x`` where it is positive, ``exp(x) - 1`` elsewhere."""
    return single(create("Elu", [features], None, name))


def selu(features: Any, name: str | None = None) -> Tensor:
    """The scaled exponential linear function of self-normalising networks."""
    return single(create("Selu", [features], None, name))


def leaky_relu(features: Any, alpha: float = 0.2, name: str | None = None) -> Tensor:
    """``x`` where it is positive, ``alpha * x`` elsewhere; integers become float32."""
    with name_scope(name, "LeakyRelu", [features]) as scope:
        x = convert_to_tensor(features, name="features")
        if x.dtype.is_integer:
            x = cast(x, dtypes.float32)
        slope = float(np.asarray(alpha))
        return single(create("LeakyRelu", [x], {"alpha": slope}, scope))


def crelu(features: Any, name: str | None = None, axis: int = -1) -> Tensor:
    """The positive parts of ``x`` and of ``-x``, side by side along ``axis``."""
    with name_scope(name, "CRelu", [features]) as scope:
        x = convert_to_tensor(features, name="features")
        both = single(create("ConcatV2", [[x, -x], axis], None, scope))  # type: ignore[operator]
        return call("Relu", both)


def softplus(features: Any, name: str | None = None) -> Tensor:
    """``log(exp(x) + 1)``, without overflow."""
    return single(create("Softplus", [features], None, name))


def softsign(features: Any, name: str | None = None) -> Tensor:
    """``x / (|x| + 1)``."""
    return single(create("Softsign", [features], None, name))


def swish(features: Any) -> Tensor:
    """``x * sigmoid(x)``."""
    x = convert_to_tensor(features, name="features")
    return multiply(x, call("Sigmoid", x))


def _softmax(op_name: str, logits: Any, axis: int | None, name: str | None, dim: Any) -> Tensor:
    axis = renamed_argument("axis", axis, "dim", dim)
    logits = convert_to_tensor(logits)
    rank = None if logits.sizes is None else len(logits.sizes)
    at = -1 if axis is None or (rank is not None and axis == rank - 1) else int(axis)
    return single(create(op_name, [logits], {"axis": at}, name))


def softmax(
    logits: Any, axis: int | None = None, name: str | None = None, dim: int | None = None
) -> Tensor:
    """``exp(x) / sum(exp(x))`` along ``axis``, the last by default.

    Raises:
      ValueError: an axis out of range, or both ``axis`` and its older name ``dim``.
    """
    return _softmax("Softmax", logits, axis, name, dim)


def log_softmax(
    logits: Any, axis: int | None = None, name: str | None = None, dim: int | None = None
) -> Tensor:
    """The logarithm of :func:`softmax`."""
    return _softmax("LogSoftmax", logits, axis, name, dim)


def bias_add(
    value: Any, bias: Any, data_format: str | None = None, name: str | None = None
) -> Tensor:
    """``value`` plus the vector ``bias`` along the channels.

    Args:
      value: a tensor of at least two dimensions.
      bias: a vector with an element for each channel.
      data_format: ``N...C`` (the default) or ``NC...``: where the channels are.
      name: a name for the operation.
    """
    with name_scope(name, "BiasAdd", [value, bias]) as scope:
        layout = "NHWC"
        if data_format is not None:
            if data_format.startswith("NC"):
                layout = "NCHW"
            elif not (data_format.startswith("N") and data_format.endswith("C")):
                raise GraphError("data_format must be of the form `N...C` or `NC...`")
        value = convert_to_tensor(value, name="input")
        bias = convert_to_tensor(bias, dtype=value.dtype, name="bias")
        return single(create("BiasAdd", [value, bias], {"data_format": layout}, scope))


def xw_plus_b(x: Any, weights: Any, biases: Any, name: str | None = None) -> Tensor:
    """``matmul(x, weights) + biases``."""
    with name_scope(name, "xw_plus_b", [x, weights, biases]) as scope:
        product = matmul(convert_to_tensor(x, name="x"), weights)
        return single(create("BiasAdd", [product, biases], None, scope))


def relu_layer(x: Any, weights: Any, biases: Any, name: str | None = None) -> Tensor:
    """``relu(matmul(x, weights) + biases)``."""
    with name_scope(name, "relu_layer", [x, weights, biases]) as scope:
        product = matmul(convert_to_tensor(x, name="x"), weights)
        return single(create("Relu", [bias_add(product, biases)], None, scope))


def l2_loss(t: Any, name: str | None = None) -> Tensor:
    """Half the sum of the squares of all elements."""
    return single(create("L2Loss", [t], None, name))


def l2_normalize(
    x: Any, axis: Any = None, epsilon: float = 1e-12, name: str | None = None, dim: Any = None
) -> Tensor:
    """``x / sqrt(max(sum(x**2), epsilon))`` along ``axis``."""
    axis = renamed_argument("axis", axis, "dim", dim)
    with name_scope(name, "l2_normalize", [x]) as scope:
        x = convert_to_tensor(x, name="x")
        total = reduce_sum(square(x), axis, keepdims=True)
        return multiply(x, rsqrt(maximum(total, epsilon)), name=scope)


def zero_fraction(value: Any, name: str | None = None) -> Tensor:
    """How large a part of the elements is 0, as float32."""
    with name_scope(name, "zero_fraction", [value]):
        value = convert_to_tensor(value, name="value")
        size: Any = cast(call("Size", value, out_type=dtypes.int64), dtypes.float32)
        zero = convert_to_tensor(np.zeros((), value.dtype.base_dtype.numpy))
        nonzero = reduce_sum(cast(not_equal(value, zero), dtypes.int64))
        rest: Any = size - cast(nonzero, dtypes.float32)
        return single(create("Identity", [rest / size], None, "fraction"))
