"""The public reductions: ``reduce_sum`` and its relatives, ``argmax``, norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.build import constant, convert_to_tensor, create, single
from graphc.dtypes import as_dtype
from graphc.errors import GraphError
from graphc.graph import Tensor, name_scope
from graphc.ops.base import call


def renamed_argument(new_name: str, new: Any, old_name: str, old: Any) -> Any:
    """The value of an argument that has an older name too.

    Raises:
      GraphError: (a ValueError) both names were used.
    """
    if old is None:
        return new
    if new is not None:
        raise GraphError(f"Cannot specify both '{new_name}' and '{old_name}'")
    return old


def _all_axes(x: Tensor) -> Tensor:
    if x.sizes is not None:
        return constant(np.arange(len(x.sizes), dtype=np.int32))
    return call("Range", 0, call("Rank", x), 1)


def _reduce(
    op_name: str, input_tensor: Any, axis: Any, keepdims: Any, name: str | None, old: Sequence[Any]
) -> Tensor:
    """The reduction; ``old`` are the values of ``reduction_indices`` and ``keep_dims``."""
    axis = renamed_argument("axis", axis, "reduction_indices", old[0])
    keep = bool(renamed_argument("keepdims", keepdims, "keep_dims", old[1]))
    if axis is None:
        input_tensor = convert_to_tensor(input_tensor)
        axes: Any = _all_axes(input_tensor)
    else:
        axes = list(axis) if isinstance(axis, (range, set, frozenset)) else axis
    out = single(create(op_name, [input_tensor, axes], {"keep_dims": keep}, name))
    if axis is None and not keep:
        out.set_shape(())
    return out


def reduce_sum(
    input_tensor: Any,
    axis: Any = None,
    keepdims: bool | None = None,
    name: str | None = None,
    reduction_indices: Any = None,
    keep_dims: bool | None = None,
) -> Tensor:
    """The sum over ``axis`` (one, several, or None for all); 0 over nothing."""
    old = (reduction_indices, keep_dims)
    return _reduce("Sum", input_tensor, axis, keepdims, name, old)


def reduce_mean(
    input_tensor: Any,
    axis: Any = None,
    keepdims: bool | None = None,
    name: str | None = None,
    reduction_indices: Any = None,
    keep_dims: bool | None = None,
) -> Tensor:
    """The mean over ``axis``; of integers rounded towards zero, in their own type."""
    old = (reduction_indices, keep_dims)
    return _reduce("Mean", input_tensor, axis, keepdims, name, old)


def reduce_prod(
    input_tensor: Any,
    axis: Any = None,
    keepdims: bool | None = None,
    name: str | None = None,
    reduction_indices: Any = None,
    keep_dims: bool | None = None,
) -> Tensor:
    """The product over ``axis``; 1 over nothing."""
    old = (reduction_indices, keep_dims)
    return _reduce("Prod", input_tensor, axis, keepdims, name, old)


def reduce_max(
    input_tensor: Any,
    axis: Any = None,
    keepdims: bool | None = None,
    name: str | None = None,
    reduction_indices: Any = None,
    keep_dims: bool | None = None,
) -> Tensor:
    """The largest element over ``axis``; NaN if one is."""
    old = (reduction_indices, keep_dims)
    return _reduce("Max", input_tensor, axis, keepdims, name, old)


def reduce_min(
    input_tensor: Any,
    axis: Any = None,
    keepdims: bool | None = None,
    name: str | None = None,
    reduction_indices: Any = None,
    keep_dims: bool | None = None,
) -> Tensor:
    """The smallest element over ``axis``; NaN if one is."""
    old = (reduction_indices, keep_dims)
    return _reduce("Min", input_tensor, axis, keepdims, name, old)


def reduce_any(
    input_tensor: Any,
    axis: Any = None,
    keepdims: bool | None = None,
    name: str | None = None,
    reduction_indices: Any = None,
    keep_dims: bool | None = None,
) -> Tensor:
    """Whether one element over ``axis`` is true."""
    old = (reduction_indices, keep_dims)
    return _reduce("Any", input_tensor, axis, keepdims, name, old)


def reduce_all(
    input_tensor: Any,
    axis: Any = None,
    keepdims: bool | None = None,
    name: str | None = None,
    reduction_indices: Any = None,
    keep_dims: bool | None = None,
) -> Tensor:
    """Whether every element over ``axis`` is true."""
    old = (reduction_indices, keep_dims)
    return _reduce("All", input_tensor, axis, keepdims, name, old)


def reduce_logsumexp(
    input_tensor: Any,
    axis: Any = None,
    keepdims: bool | None = None,
    name: str | None = None,
    reduction_indices: Any = None,
    keep_dims: bool | None = None,
) -> Tensor:
    """``log(sum(exp(x)))`` over ``axis``, without overflow: the largest element is taken out."""
    axis = renamed_argument("axis", axis, "reduction_indices", reduction_indices)
    keep = bool(renamed_argument("keepdims", keepdims, "keep_dims", keep_dims))
    x = convert_to_tensor(input_tensor)
    with name_scope(name, "ReduceLogSumExp", [x]):
        largest = reduce_max(x, axis, keepdims=True)
        finite = call("IsFinite", largest)
        shift = call("StopGradient", call("Select", finite, largest, call("ZerosLike", largest)))
        out = call("Log", reduce_sum(call("Exp", call("Sub", x, shift)), axis, keepdims=keep))
        if not keep:
            shift = call("Reshape", shift, call("Shape", out))
        out = call("Add", out, shift)
    if axis is None and not keep:
        out.set_shape(())
    return out


def reduce_euclidean_norm(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None
) -> Tensor:
    """The square root of the sum of squares over ``axis``."""
    return _reduce("EuclideanNorm", input_tensor, axis, keepdims, name, (None, None))


def reduce_variance(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None
) -> Tensor:
    """The mean of the squared differences from the mean over ``axis``."""
    with name_scope(name or "reduce_variance"):
        x = convert_to_tensor(input_tensor)
        difference = call("Sub", x, reduce_mean(x, axis, keepdims=True), name="sub")
        return reduce_mean(call("Square", difference), axis, keepdims=keepdims)


def reduce_std(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None
) -> Tensor:
    """The square root of the variance over ``axis``."""
    with name_scope(name or "reduce_std"):
        return call("Sqrt", reduce_variance(input_tensor, axis, keepdims))


def count_nonzero(
    input_tensor: Any = None,
    axis: Any = None,
    keepdims: bool | None = None,
    dtype: Any = dtypes.int64,
    name: str | None = None,
    reduction_indices: Any = None,
    keep_dims: bool | None = None,
    input: Any = None,
) -> Tensor:
    """How many elements over ``axis`` are not 0 (False)."""
    value = renamed_argument("input", input, "input_tensor", input_tensor)
    axis = renamed_argument("axis", axis, "reduction_indices", reduction_indices)
    keep = renamed_argument("keepdims", keepdims, "keep_dims", keep_dims)
    with name_scope(name, "count_nonzero", [value]):
        x = convert_to_tensor(value, name="input")
        zero = constant(np.zeros((), x.dtype.base_dtype.numpy), name="zeros")
        ones = call("Cast", call("NotEqual", x, zero), DstT=dtypes.int64)
        total = reduce_sum(ones, axis, keepdims=keep)
        wanted = as_dtype(dtype)
        return total if wanted is dtypes.int64 else call("Cast", total, DstT=wanted)


def argmax(
    input: Any,
    axis: Any = None,
    name: str | None = None,
    dimension: Any = None,
    output_type: Any = dtypes.int64,
) -> Tensor:
    """The index of the largest element along ``axis`` (0 by default); of several, the first."""
    at = renamed_argument("axis", axis, "dimension", dimension)
    attrs = {"output_type": as_dtype(output_type)}
    return single(create("ArgMax", [input, 0 if at is None else at], attrs, name))


def argmin(
    input: Any,
    axis: Any = None,
    name: str | None = None,
    dimension: Any = None,
    output_type: Any = dtypes.int64,
) -> Tensor:
    """The index of the smallest element along ``axis`` (0 by default); of several, the first."""
    at = renamed_argument("axis", axis, "dimension", dimension)
    attrs = {"output_type": as_dtype(output_type)}
    return single(create("ArgMin", [input, 0 if at is None else at], attrs, name))


def arg_max(
    input: Any, dimension: Any, output_type: Any = dtypes.int64, name: str | None = None
) -> Tensor:
    """``argmax`` under its older name."""
    return argmax(input, dimension, name, output_type=output_type)


def arg_min(
    input: Any, dimension: Any, output_type: Any = dtypes.int64, name: str | None = None
) -> Tensor:
    """``argmin`` under its older name."""
    return argmin(input, dimension, name, output_type=output_type)


def _check_norm(ord: Any, axis: Any) -> Any:
    """The axes as a tuple, for a norm that exists for them."""
    if isinstance(axis, (list, tuple)) and len(axis) == 2:
        axes = tuple(axis)
        if not all(isinstance(a, int) for a in axes) or axes[0] == axes[1]:
            raise GraphError("'axis' must be None, an integer, or a tuple of 2 unique integers")
        if ord not in ("euclidean", "fro", 1, np.inf):
            raise GraphError(
                f"'ord' must be a supported matrix norm in ['euclidean', 'fro', 1, inf], got {ord}"
            )
        return axes
    if not (isinstance(axis, int) or axis is None):
        raise GraphError("'axis' must be None, an integer, or a tuple of 2 unique integers")
    if ord != "euclidean" and (isinstance(ord, str) or ord <= 0):
        raise GraphError(f"'ord' must be a supported vector norm, got {ord}")
    return None if axis is None else (axis,)


def _one_or_infinity(x: Tensor, one: bool, axes: Any) -> Tensor:
    if axes is None or len(axes) == 1:
        return (reduce_sum if one else reduce_max)(x, axes, keepdims=True)
    summed, kept = axes if one else axes[::-1]
    return reduce_max(reduce_sum(x, summed, keepdims=True), kept, keepdims=True)


def norm(
    tensor: Any,
    ord: Any = "euclidean",
    axis: Any = None,
    keepdims: bool | None = None,
    name: str | None = None,
    keep_dims: bool | None = None,
) -> Tensor:
    """The norm of vectors (one axis, or None for all elements) or matrices (two axes).

    Args:
      tensor: floats.
      ord: ``"euclidean"``, ``"fro"`` (matrices), 1, ``inf``, or any positive number (vectors).
      axis: None, an axis, or a pair of axes for matrix norms.
      keepdims, keep_dims: whether the axes stay, with size 1.
      name: the name scope.
    Raises:
      ValueError: there is no such norm.
    """
    keep = bool(renamed_argument("keepdims", keepdims, "keep_dims", keep_dims))
    axes = _check_norm(ord, axis)
    with name_scope(name, "norm", [tensor]):
        x = convert_to_tensor(tensor)
        if ord in ("fro", "euclidean", 2):
            out = call("Sqrt", reduce_sum(call("Mul", x, x, name="mul"), axes, keepdims=True))
        elif ord in (1, np.inf):
            out = _one_or_infinity(call("Abs", x), ord == 1, axes)
        else:
            total = reduce_sum(call("Pow", call("Abs", x), ord), axes, keepdims=True)
            out = call("Pow", total, 1.0 / ord)
        if keep:
            return out
        out = call("Squeeze", out, squeeze_dims=axes or ())
        if axes is None:
            out.set_shape(())
        return out
