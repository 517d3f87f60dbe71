"""The public mathematics: ``add`` ... ``clip_by_value``, under TensorFlow 1.15's signatures.

The names of one op each come from :mod:`graphc.ops.elementwise_functions`, the reductions from
:mod:`graphc.ops.reduction_functions`; here are those that are made of several.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import dtypes
from graphc.build import constant, convert_to_tensor, create, is_symbolic, single
from graphc.dtypes import as_dtype
from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.graph import Tensor, name_scope
from graphc.ops.array import identity
from graphc.ops.base import call
from graphc.ops.elementwise_functions import (
    abs,
    acos,
    acosh,
    add,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    bitwise_and,
    bitwise_or,
    bitwise_xor,
    ceil,
    cos,
    cosh,
    div_no_nan,
    equal,
    erf,
    erfc,
    exp,
    expm1,
    floor,
    floordiv,
    floormod,
    greater,
    greater_equal,
    invert,
    is_finite,
    is_inf,
    is_nan,
    left_shift,
    less,
    less_equal,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    multiply,
    multiply_no_nan,
    negative,
    not_equal,
    pow,
    realdiv,
    reciprocal,
    right_shift,
    rint,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    squared_difference,
    subtract,
    tan,
    tanh,
    truncatediv,
    truncatemod,
    xdivy,
    xlogy,
)
from graphc.ops.elementwise_operators import logical_xor, truediv
from graphc.ops.reduction_functions import (
    arg_max,
    arg_min,
    argmax,
    argmin,
    count_nonzero,
    norm,
    reduce_all,
    reduce_any,
    reduce_euclidean_norm,
    reduce_logsumexp,
    reduce_max,
    reduce_mean,
    reduce_min,
    reduce_prod,
    reduce_std,
    reduce_sum,
    reduce_variance,
)

mod = floormod


def floor_div(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x / y`` rounded down, as ``floordiv``, under the name of the op."""
    return single(create("FloorDiv", [x, y], None, name))


def divide(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x / y`` as the Python operator has it; of what is no tensor too."""
    if name is None and isinstance(x, (int, float)) and not is_symbolic(y):
        return convert_to_tensor(x / y)
    if name is None and not is_symbolic(x):
        dtype = as_dtype(y.dtype).base_dtype if is_symbolic(y) else None
        return truediv(convert_to_tensor(x, dtype=dtype), y)
    if name is None and not is_symbolic(y):
        return truediv(x, convert_to_tensor(y, dtype=as_dtype(x.dtype).base_dtype))
    return truediv(x, y, name)


def div(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x / y`` as Python 2 has it: of integers rounded down, of floats exact."""
    with name_scope(name, "div", [x, y]) as scope:
        x = convert_to_tensor(x, name="x")
        y = convert_to_tensor(y, dtype=x.dtype.base_dtype, name="y")
        op_name = "RealDiv" if x.dtype.is_floating else "FloorDiv"
        return single(create(op_name, [x, y], None, scope))


def round(x: Any, name: str | None = None) -> Tensor:
    """The nearest whole number; of two, the even one. Integers are returned as they are."""
    value = convert_to_tensor(x, name="x")
    return value if value.dtype.is_integer else single(create("Round", [value], None, name))


def cast(x: Any, dtype: Any, name: str | None = None) -> Tensor:
    """``x`` converted to ``dtype``: floats towards zero, saturating; integers wrapping around."""
    target = as_dtype(dtype).base_dtype
    if isinstance(x, Tensor) and x.dtype == target:
        return x
    with name_scope(name, "Cast", [x]) as scope:
        value = convert_to_tensor(x, name="x")
        if value.dtype.base_dtype is target:
            return value
        return single(create("Cast", [value], {"DstT": target}, scope))


def to_bfloat16(x: Any, name: str = "ToBFloat16") -> Tensor:
    """``x`` as bfloat16."""
    return cast(x, dtypes.bfloat16, name)


def to_float(x: Any, name: str = "ToFloat") -> Tensor:
    """``x`` as float32."""
    return cast(x, dtypes.float32, name)


def to_double(x: Any, name: str = "ToDouble") -> Tensor:
    """``x`` as float64."""
    return cast(x, dtypes.float64, name)


def to_int32(x: Any, name: str = "ToInt32") -> Tensor:
    """``x`` as int32."""
    return cast(x, dtypes.int32, name)


def to_int64(x: Any, name: str = "ToInt64") -> Tensor:
    """``x`` as int64."""
    return cast(x, dtypes.int64, name)


def saturate_cast(value: Any, dtype: Any, name: str | None = None) -> Tensor:
    """``value`` converted to ``dtype``, what is out of its range put at its limits."""
    with name_scope(name, "saturate_cast", [value]) as scope:
        x, target = convert_to_tensor(value, name="value"), as_dtype(dtype).base_dtype
        low, high = x.dtype.base_dtype.limits
        if low < target.min:
            x = maximum(x, constant(_limit(target.min, x), name="min"))
        if high > target.max:
            x = minimum(x, constant(_limit(target.max, x), name="max"))
        return cast(x, target, scope)


def _limit(value: Any, x: Tensor) -> np.ndarray:
    return np.asarray(value, dtype=x.dtype.base_dtype.numpy)


def where(condition: Any, x: Any, y: Any, name: str | None = None) -> Tensor:
    """Elements of ``x`` where ``condition`` holds, of ``y`` elsewhere.

    Args:
      condition: bools, of the shape of ``x``; a scalar; or a vector that chooses whole rows.
      x, y: tensors of one shape.
      name: a name for the operation.
    """
    return single(create("Select", [condition, x, y], None, name))


def where_v2(condition: Any, x: Any, y: Any, name: str | None = None) -> Tensor:
    """Elements of ``x`` where ``condition`` holds, of ``y`` elsewhere; all three broadcast."""
    return single(create("SelectV2", [condition, x, y], None, name))


def clip_by_value(
    t: Any, clip_value_min: Any, clip_value_max: Any, name: str | None = None
) -> Tensor:
    """``t`` with what is below ``clip_value_min`` or above ``clip_value_max`` put there.

    Raises:
      ValueError: the limits would broadcast ``t`` to a larger shape.
    """
    with name_scope(name, "clip_by_value", [t, clip_value_min, clip_value_max]) as scope:
        x = convert_to_tensor(t, name="t")
        low = minimum(x, clip_value_max)
        x.shape.merge_with(low.shape)
        out = single(create("Maximum", [low, clip_value_min], None, scope))
        x.shape.merge_with(out.shape)
    return out


def _same_kind(inputs: Any) -> list[Tensor]:
    message = "inputs must be a list of at least one Tensor with the same dtype and shape"
    if not isinstance(inputs, (list, tuple)) or not inputs:
        raise GraphError(message)
    tensors = [convert_to_tensor(i) for i in inputs]
    if any(t.dtype.base_dtype is not tensors[0].dtype.base_dtype for t in tensors):
        raise GraphError(message)
    return tensors


def add_n(inputs: Any, name: str | None = None) -> Tensor:
    """The sum of a list of tensors of one shape and dtype."""
    tensors = _same_kind(inputs)
    if len(tensors) == 1:
        return identity(tensors[0], name=name) if name else tensors[0]
    return single(create("AddN", [tensors], None, name))


def accumulate_n(
    inputs: Any, shape: Any = None, tensor_dtype: Any = None, name: str | None = None
) -> Tensor:
    """The sum of a list of tensors, whose shape and dtype may be stated to be checked."""
    tensors = _same_kind(inputs)
    if tensor_dtype is not None and as_dtype(tensor_dtype) is not tensors[0].dtype.base_dtype:
        raise DTypeError(
            f"tensor_dtype is {tensor_dtype}, but input is of type {tensors[0].dtype.base_dtype}"
        )
    out = add_n(tensors, name) if len(tensors) == 1 else add_n(tensors, name or "AccumulateNV2")
    if shape is not None:
        out.set_shape(shape)
    return out


def scalar_mul(scalar: Any, x: Any, name: str | None = None) -> Tensor:
    """``x`` times a scalar.

    Raises:
      ValueError: ``scalar`` is known to be no scalar.
    """
    x = convert_to_tensor(x)
    factor = convert_to_tensor(scalar, dtype=x.dtype.base_dtype, name="scalar")
    if factor.sizes != ():
        raise ShapeError(f"Only scalar multiply works, got shape {factor.shape}")
    return multiply(factor, x, name)


def log_sigmoid(x: Any, name: str | None = None) -> Tensor:
    """``log(sigmoid(x))``, without overflow."""
    with name_scope(name, "LogSigmoid", [x]) as scope:
        x = convert_to_tensor(x, name="x")
        return negative(call("Softplus", negative(x)), name=scope)


__all__ = [
    "abs", "accumulate_n", "acos", "acosh", "add", "add_n", "arg_max", "arg_min", "argmax",
    "argmin", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and", "bitwise_or",
    "bitwise_xor", "cast", "ceil", "clip_by_value", "cos", "cosh", "count_nonzero", "div",
    "div_no_nan", "divide", "equal", "erf", "erfc", "exp", "expm1", "floor", "floor_div",
    "floordiv", "floormod", "greater", "greater_equal", "invert", "is_finite", "is_inf", "is_nan",
    "left_shift", "less", "less_equal", "log", "log1p", "log_sigmoid", "logical_and",
    "logical_not", "logical_or", "logical_xor", "maximum", "minimum", "mod", "multiply",
    "multiply_no_nan", "negative", "norm", "not_equal", "pow", "realdiv", "reciprocal",
    "reduce_all", "reduce_any", "reduce_euclidean_norm", "reduce_logsumexp", "reduce_max",
    "reduce_mean", "reduce_min", "reduce_prod", "reduce_std", "reduce_sum", "reduce_variance",
    "right_shift", "rint", "round", "rsqrt", "saturate_cast", "scalar_mul", "sigmoid", "sign",
    "sin", "sinh", "sqrt", "square", "squared_difference", "subtract", "tan", "tanh",
    "to_bfloat16", "to_double", "to_float", "to_int32", "to_int64", "truediv", "truncatediv",
    "truncatemod", "where", "where_v2", "xdivy", "xlogy",
]  # fmt: skip
