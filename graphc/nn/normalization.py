"""Moments and normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.build import constant, convert_to_tensor, create, single
from graphc.errors import GraphError
from graphc.graph import Tensor, name_scope
from graphc.ops.base import call
from graphc.ops.math import cast, rsqrt, squared_difference
from graphc.ops.reduction_functions import reduce_mean, renamed_argument

MIN_EPSILON = 1.001e-5


def moments(
    x: Any,
    axes: Any,
    shift: Any = None,
    name: str | None = None,
    keep_dims: bool | None = None,
    keepdims: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """The mean and the (biased) variance over ``axes``.

    Args:
      x: a tensor; one of 16 bits is computed in float32.
      axes: fixed axes.
      shift: accepted.
      name: a name scope for the operations.
      keep_dims, keepdims: whether the axes stay, with size 1.
    """
    del shift
    keep = bool(renamed_argument("keepdims", keepdims, "keep_dims", keep_dims))
    with name_scope(name, "moments", [x]):
        x = convert_to_tensor(x, name="x")
        dtype = x.dtype.base_dtype
        y = cast(x, dtype.accumulator)
        dims = [int(a) for a in np.reshape(np.asarray(axes), -1)]
        mean = reduce_mean(y, dims, keepdims=True, name="mean")
        spread = squared_difference(y, call("StopGradient", mean))
        variance = reduce_mean(spread, dims, keepdims=True, name="variance")
        if not keep:
            mean = call("Squeeze", mean, squeeze_dims=tuple(dims))
            variance = call("Squeeze", variance, squeeze_dims=tuple(dims))
        return cast(mean, dtype), cast(variance, dtype)


def batch_normalization(
    x: Any,
    mean: Any,
    variance: Any,
    offset: Any,
    scale: Any,
    variance_epsilon: Any,
    name: str | None = None,
) -> Tensor:
    """``(x - mean) / sqrt(variance + variance_epsilon) * scale + offset``.

    ``offset`` and ``scale`` may be None.
    """
    with name_scope(name, "batchnorm", [x, mean, variance, scale, offset]):
        x, mean = convert_to_tensor(x, name="x"), convert_to_tensor(mean)
        spread: Any = convert_to_tensor(variance)
        inverse: Any = rsqrt(spread + variance_epsilon)
        if scale is not None:
            inverse = inverse * scale
        shift = offset - mean * inverse if offset is not None else -mean * inverse
        scaled: Any = x * cast(inverse, x.dtype)
        out: Tensor = scaled + cast(shift, x.dtype)
        return out


def fused_batch_norm(
    x: Any,
    scale: Any,
    offset: Any,
    mean: Any = None,
    variance: Any = None,
    epsilon: float = 0.001,
    data_format: str = "NHWC",
    is_training: bool = True,
    name: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Images normalised over everything but their channels; the mean; the variance.

    Args:
      x: images.
      scale, offset: vectors over the channels.
      mean, variance: the statistics to use where ``is_training`` is false, else None.
      epsilon: added to the variance; at least 1.001e-5.
      data_format: ``"NHWC"`` or ``"NCHW"``.
      is_training: whether the statistics are those of ``x``; the variance that is returned then
        is unbiased.
      name: a name for the operation.
    """
    x = convert_to_tensor(x, name="input")
    scale = convert_to_tensor(scale, name="scale")
    offset = convert_to_tensor(offset, name="offset")
    if is_training and (mean is not None or variance is not None):
        raise GraphError("Both 'mean' and 'variance' must be None if is_training is True.")
    dtype = scale.dtype.base_dtype
    mean = constant([], dtype) if mean is None else mean
    variance = constant([], dtype) if variance is None else variance
    attrs = {
        "epsilon": max(float(epsilon), MIN_EPSILON),
        "data_format": data_format,
        "is_training": bool(is_training),
    }
    op = create("FusedBatchNormV3", [x, scale, offset, mean, variance], attrs, name)
    return op.outputs[0], op.outputs[1], op.outputs[2]


def layer_normalization(
    x: Any,
    gamma: Any,
    beta: Any,
    epsilon: float = 1e-5,
    begin_norm_axis: int = -1,
    name: str | None = None,
) -> Tensor:
    """``x`` normalised over its dimensions from ``begin_norm_axis`` on, scaled and shifted.

    ``gamma`` and ``beta`` have the sizes of those dimensions.
    """
    attrs = {"epsilon": float(epsilon), "begin_norm_axis": int(begin_norm_axis)}
    return single(create("LayerNorm", [x, gamma, beta], attrs, name))
