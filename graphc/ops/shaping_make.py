"""Public functions that make tensors of sizes and numbers, with TensorFlow 1.15's signatures."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.build import constant, convert_to_tensor
from graphc.dtypes import DType, as_dtype
from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.graph import Tensor, name_scope
from graphc.ops.base import call
from graphc.ops.shaping import concat, expand_dims, reshape, stack
from graphc.shapes import TensorShape

SMALL = 1000
"""Tensors of one value with fewer elements than this are constants, larger ones are filled."""


def shape(input: Any, name: str | None = None, out_type: Any = dtypes.int32) -> Tensor:
    """The sizes of ``input`` as a vector; a constant where all are known."""
    return _shape(input, name, True, out_type)


def _shape(input: Any, name: str | None, optimize: bool, out_type: Any = dtypes.int32) -> Tensor:
    with name_scope(name, "Shape", [input]) as scope:
        tensor, wanted = convert_to_tensor(input), as_dtype(out_type)
        if optimize and tensor.shape.is_fully_defined():
            return constant(tensor.shape.as_list(), wanted, name=scope)
        return call("Shape", tensor, name=scope, out_type=wanted)


def size(input: Any, name: str | None = None, out_type: Any = dtypes.int32) -> Tensor:
    """The number of elements of ``input``; a constant where it is known."""
    with name_scope(name, "Size", [input]) as scope:
        tensor, wanted = convert_to_tensor(input), as_dtype(out_type)
        count = tensor.shape.num_elements()
        if count is None and tensor.sizes is not None and 0 in tensor.sizes:
            count = 0
        if count is not None:
            return constant(count, wanted, name=scope)
        return call("Size", tensor, name=scope, out_type=wanted)


def rank(input: Any, name: str | None = None) -> Tensor:
    """The number of dimensions of ``input``; a constant where it is known."""
    with name_scope(name, "Rank", [input]) as scope:
        tensor = convert_to_tensor(input)
        if tensor.sizes is not None:
            return constant(len(tensor.sizes), dtypes.int32, name=scope)
        return call("Rank", tensor, name=scope)


# --- one value ------------------------------------------------------------------------------------


def fill(dims: Any, value: Any, name: str | None = None) -> Tensor:
    """A tensor of shape ``dims`` whose every element is the scalar ``value``."""
    return call("Fill", dims, value, name=name)


def zeros(shape: Any, dtype: Any = dtypes.float32, name: str | None = None) -> Tensor:
    """A tensor of zeros (False, empty strings)."""
    return _filled(shape, dtype, 0, name, "zeros")


def ones(shape: Any, dtype: Any = dtypes.float32, name: str | None = None) -> Tensor:
    """A tensor of ones (True)."""
    return _filled(shape, dtype, 1, name, "ones")


def _filled(shape: Any, dtype: Any, number: int, name: str | None, default: str) -> Tensor:
    wanted = as_dtype(dtype).base_dtype
    value: Any = _value(number, wanted)
    with name_scope(name, default, [shape]) as scope:
        if not isinstance(shape, Tensor):
            known = _static(shape)
            if known is not None:
                listed = isinstance(shape, (list, tuple, TensorShape, np.ndarray))
                if listed and int(np.prod(known)) < SMALL and min(known, default=0) >= 0:
                    filled = np.full(known, value, object if isinstance(value, str) else None)
                    return constant(filled, wanted, name=scope)
                shape = constant(list(known), dtypes.int32, name="shape_as_tensor")
            else:
                shape = convert_to_tensor(shape, dtypes.int32)
        if shape.sizes == () or shape.sizes is None:
            shape = reshape(shape, [-1])
        if wanted is dtypes.string:
            raise GraphError("Strings of a size that is not known yet are not supported")
        return call("Fill", shape, constant(value, wanted), name=scope)


def _value(number: int, dtype: DType) -> Any:
    if dtype is dtypes.string:
        return ""
    return bool(number) if dtype.is_bool else number


def _static(shape: Any) -> tuple[int, ...] | None:
    try:
        if isinstance(shape, TensorShape):
            return tuple(int(s) for s in shape)
        return tuple(int(s) for s in np.reshape(np.asarray(shape), -1))
    except (TypeError, ValueError):
        return None


def zeros_like(
    tensor: Any, dtype: Any = None, name: str | None = None, optimize: bool = True
) -> Tensor:
    """Zeros in the shape (and dtype, unless given) of ``tensor``."""
    with name_scope(name, "zeros_like", [tensor]) as scope:
        tensor = convert_to_tensor(tensor, name="tensor")
        wanted = tensor.dtype.base_dtype if dtype is None else as_dtype(dtype)
        if optimize and tensor.shape.is_fully_defined():
            return zeros(tensor.shape, wanted, name=scope)
        if wanted is not tensor.dtype.base_dtype:
            return zeros(_shape(tensor, None, optimize), wanted, name=scope)
        return call("ZerosLike", tensor, name=scope)


def ones_like(
    tensor: Any, dtype: Any = None, name: str | None = None, optimize: bool = True
) -> Tensor:
    """Ones in the shape (and dtype, unless given) of ``tensor``."""
    with name_scope(name, "ones_like", [tensor]) as scope:
        tensor = convert_to_tensor(tensor, name="tensor")
        sizes = _shape(tensor, None, optimize)
        wanted = tensor.dtype.base_dtype if dtype is None else as_dtype(dtype)
        return ones(sizes, wanted, name=scope)


# --- sequences ------------------------------------------------------------------------------------

_HIERARCHY = (dtypes.int32, dtypes.int64, dtypes.float32, dtypes.float64)


def range(
    start: Any, limit: Any = None, delta: Any = 1, dtype: Any = None, name: str = "range"
) -> Tensor:
    """The numbers from ``start`` (0) up to ``limit``, without it, in steps of ``delta``."""
    if limit is None:
        start, limit = 0, start
    with name_scope(name, "Range", [start, limit, delta]) as scope:
        values = [
            convert_to_tensor(v, dtype=dtype, name=label)
            for v, label in ((start, "start"), (limit, "limit"), (delta, "delta"))
        ]
        if dtype is None:
            kinds = [v.dtype.base_dtype for v in values]
            if not all(k in _HIERARCHY for k in kinds):
                raise DTypeError(f"range takes int32, int64, float32 and float64, got {kinds}")
            widest = max(kinds, key=_HIERARCHY.index)
            values = [v if v.dtype == widest else call("Cast", v, DstT=widest) for v in values]
        return call("Range", *values, name=scope)


def linspace(start: Any, stop: Any, num: Any, name: str | None = None) -> Tensor:
    """``num`` evenly spaced numbers from ``start`` to ``stop``, both included."""
    return call("LinSpace", start, stop, num, name=name)


lin_space = linspace


def meshgrid(*args: Any, indexing: str = "xy", name: str = "meshgrid") -> list[Tensor]:
    """The coordinates of a grid: for each vector a tensor with one dimension for every vector.

    ``indexing`` "xy" has the first two dimensions exchanged, "ij" has not.
    """
    if indexing not in ("xy", "ij"):
        raise GraphError("indexing parameter must be either 'xy' or 'ij'")
    with name_scope(name, "meshgrid", args):
        count = len(args)
        one = (1,) * count
        output = [reshape(stack(x), (*one[:i], -1, *one[i + 1 :])) for i, x in enumerate(args)]
        sizes: list[Any] = [size(x) for x in args]
        dtype = convert_to_tensor(args[0]).dtype.base_dtype
        if indexing == "xy" and count > 1:
            output[0] = reshape(output[0], (1, -1, *one[2:]))
            output[1] = reshape(output[1], (-1, 1, *one[2:]))
            sizes[0], sizes[1] = sizes[1], sizes[0]
        factor = ones(sizes, dtype)
        return [call("Mul", x, factor, name="mul") for x in output]


def sequence_mask(
    lengths: Any, maxlen: Any = None, dtype: Any = dtypes.bool_, name: str | None = None
) -> Tensor:
    """For each length a row of ``maxlen`` (the longest) values, True before the length."""
    with name_scope(name, "SequenceMask", [lengths, maxlen]):
        lengths = convert_to_tensor(lengths)
        if maxlen is None:
            if lengths.sizes is None:
                axes = call("Range", 0, rank(lengths), 1)
            else:
                axes = constant(list(builtins.range(len(lengths.sizes))), dtypes.int32)
            longest = call("Max", lengths, axes, keep_dims=False)
            longest.set_shape(())
            maxlen = call("Maximum", constant(0, longest.dtype), longest)
        else:
            maxlen = convert_to_tensor(maxlen)
        if maxlen.sizes:
            raise ShapeError("maxlen must be scalar for sequence_mask")
        kind = maxlen.dtype.base_dtype
        row = call("Range", constant(0, kind), maxlen, constant(1, kind))
        matrix = call("Cast", expand_dims(lengths, -1), DstT=kind)
        result = call("Less", row, matrix)
        wanted = dtypes.bool_ if dtype is None else as_dtype(dtype)
        return result if wanted is dtypes.bool_ else call("Cast", result, DstT=wanted)


def eye(
    num_rows: Any,
    num_columns: Any = None,
    batch_shape: Any = None,
    dtype: Any = dtypes.float32,
    name: str | None = None,
) -> Tensor:
    """An identity matrix, or a batch of them."""
    with name_scope(name, "eye", [num_rows, num_columns, batch_shape]):
        square = num_columns is None
        columns = num_rows if num_columns is None else num_columns
        batch: Any = [] if batch_shape is None else batch_shape
        symbolic = isinstance(num_rows, Tensor) or isinstance(columns, Tensor)
        if symbolic:
            diagonal = call("Minimum", num_rows, columns)
        else:
            for number in (num_rows, columns):
                if not isinstance(number, (int, np.integer)):
                    raise DTypeError("num_rows and num_columns must be positive integer values.")
            square = num_rows == columns
            diagonal = min(num_rows, columns)
        if symbolic or isinstance(batch, Tensor):
            batch = convert_to_tensor(batch, dtypes.int32, name="shape")
            ones_shape: Any = concat([batch, [diagonal]], 0)
            full: Any = None if square else concat([batch, [num_rows, columns]], 0)
        else:
            ones_shape = [*batch, diagonal]
            full = [*batch, num_rows, columns]
        diag = ones(ones_shape, dtype)
        if square:
            return call("MatrixDiag", diag, name="diag")
        return call("MatrixSetDiag", zeros(full, dtype), diag, name="set_diag")
