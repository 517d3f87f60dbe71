"""Public functions that move and reshape tensors, with the signatures of TensorFlow 1.15."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import build, dtypes
from graphc.build import constant, convert_to_tensor, create, is_symbolic
from graphc.dtypes import DType
from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.graph import Tensor, get_default_graph, graph_of, name_scope
from graphc.ops.base import call
from graphc.shapes import Dimension, TensorShape, as_shape


def reshape(tensor: Any, shape: Any, name: str | None = None) -> Tensor:
    """The elements of ``tensor`` in another shape; one entry of ``shape`` may be -1."""
    return call("Reshape", tensor, shape, name=name)


def transpose(a: Any, perm: Any = None, name: str = "transpose", conjugate: bool = False) -> Tensor:
    """``a`` with its dimensions in the order ``perm``; reversed by default.

    ``conjugate`` makes no difference: there are no complex tensors.
    """
    del conjugate
    with name_scope(name, "transpose", [a]) as scope:
        if perm is None:
            a = convert_to_tensor(a, name="a")
            if a.sizes is None:
                rank = call("Rank", a)
                last = call("Sub", rank, 1, name="sub")
                steps = call("Range", 0, rank, 1)
                perm = call("Sub", last, steps, name="sub_1")
            else:
                perm = np.arange(len(a.sizes) - 1, -1, -1, dtype=np.int32)
        return call("Transpose", a, perm, name=scope)


def matrix_transpose(a: Any, name: str = "matrix_transpose", conjugate: bool = False) -> Tensor:
    """``a``, a matrix or a batch of matrices, with its last two dimensions exchanged."""
    with name_scope(name, "matrix_transpose", [a]):
        a = convert_to_tensor(a, name="a")
        if a.sizes is None:
            rank = call("Rank", a)
            left, last = call("Sub", rank, 2, name="sub"), call("Sub", rank, 1, name="sub_1")
            batch = call("Range", 0, left, 1)
            ends = call("Pack", [last, left], axis=0)
            perm: Any = call("ConcatV2", [batch, ends], 0)
        else:
            if len(a.sizes) < 2:
                raise ShapeError(
                    f"Argument 'a' should be a (batch) matrix, with rank >= 2.  Found: {a.shape}"
                )
            count = len(a.sizes)
            perm = np.array([*range(count - 2), count - 1, count - 2], np.int32)
        return transpose(a, perm, conjugate=conjugate)


def expand_dims(input: Any, axis: Any = None, name: str | None = None, dim: Any = None) -> Tensor:
    """``input`` with a dimension of size 1 put in at ``axis`` (``dim`` is its old name)."""
    axis = _renamed("axis", axis, "dim", dim)
    if axis is None:
        raise GraphError("Must specify an axis argument to tf.expand_dims()")
    return call("ExpandDims", input, axis, name=name)


def squeeze(
    input: Any, axis: Any = None, name: str | None = None, squeeze_dims: Any = None
) -> Tensor:
    """``input`` without its dimensions of size 1, or only those in ``axis``."""
    axis = _renamed("axis", axis, "squeeze_dims", squeeze_dims)
    axes = () if axis is None else tuple(int(a) for a in np.reshape(axis, -1))
    return call("Squeeze", input, name=name, squeeze_dims=axes)


def _renamed(new: str, value: Any, old: str, old_value: Any) -> Any:
    if old_value is None:
        return value
    if value is not None:
        raise GraphError(f"Cannot specify both '{old}' and '{new}'")
    return old_value


# --- joining and splitting ------------------------------------------------------------------------


def concat(values: Any, axis: Any, name: str = "concat") -> Tensor:
    """The tensors ``values``, one after the other along dimension ``axis``."""
    if not isinstance(values, (list, tuple)):
        values = [values]
    if len(values) == 1:
        with name_scope(name, "concat", values):
            at = convert_to_tensor(axis, dtypes.int32, name="concat_dim")
            at.get_shape().assert_has_rank(0)
            return call("Identity", values[0], name=name)
    return call("ConcatV2", list(values), axis, name=name)


def stack(values: Any, axis: int = 0, name: str = "stack") -> Tensor:
    """The tensors ``values``, all of one shape, along a new dimension ``axis``."""
    if axis == 0:
        try:
            return convert_to_tensor(values, name=name)
        except (TypeError, ValueError):
            pass
    first = convert_to_tensor(values[0], name=name)
    if first.sizes is not None:
        rank = len(first.sizes) + 1
        if not -rank <= axis < rank:
            raise GraphError(f"axis = {axis} not in [{-rank}, {rank})")
    return call("Pack", list(values), name=name, axis=axis)


def unstack(value: Any, num: int | None = None, axis: int = 0, name: str = "unstack") -> list[Any]:
    """The slices of ``value`` along ``axis``, as many as the dimension has (or ``num``)."""
    if num is None:
        value = convert_to_tensor(value)
        shape = value.get_shape()
        if shape.ndims is not None:
            if not -shape.ndims <= axis < shape.ndims:
                raise GraphError(f"axis = {axis} not in [{-shape.ndims}, {shape.ndims})")
            num = shape[axis].value
        if num is None:
            raise ShapeError(f"Cannot infer num from shape {shape}")
    return list(create("Unpack", [value], {"num": num, "axis": axis}, name).outputs)


def split(
    value: Any, num_or_size_splits: Any, axis: Any = 0, num: int | None = None, name: str = "split"
) -> list[Any]:
    """``value`` in equal parts (a number) or in parts of given sizes (a list) along ``axis``."""
    sizes = convert_to_tensor(num_or_size_splits)
    if isinstance(num_or_size_splits, (int, np.integer, Dimension)):
        attrs = {"num_split": int(num_or_size_splits)}
        return list(create("Split", [axis, value], attrs, name).outputs)
    if sizes.sizes == ():
        raise ShapeError(
            "Rank-0 tensors are not supported as the num_or_size_splits argument to split. "
            f"Argument provided: {num_or_size_splits}"
        )
    if num is None:
        num = None if sizes.sizes is None else sizes.shape[0].value
        if num is None:
            raise ShapeError(f"Cannot infer num from shape {num_or_size_splits}")
    return list(create("SplitV", [value, sizes, axis], {"num_split": num}, name).outputs)


def tile(input: Any, multiples: Any, name: str | None = None) -> Tensor:
    """``input`` repeated ``multiples[i]`` times along each dimension ``i``."""
    return call("Tile", input, multiples, name=name)


def pad(
    tensor: Any,
    paddings: Any,
    mode: str = "CONSTANT",
    name: str | None = None,
    constant_values: Any = 0,
) -> Tensor:
    """``tensor`` with ``paddings[i]`` = (before, after) elements added along dimension ``i``.

    ``mode`` says what is added: CONSTANT (``constant_values``), REFLECT (a mirror image without
    the edge) or SYMMETRIC (with it).
    """
    mode = mode.upper()
    if mode == "CONSTANT":
        if not is_symbolic(constant_values) and np.all(np.equal(constant_values, 0)):
            return call("Pad", tensor, paddings, name=name)
        return call("PadV2", tensor, paddings, constant_values, name=name)
    if mode not in ("REFLECT", "SYMMETRIC"):
        raise GraphError(f"Unknown padding mode: {mode}")
    return call("MirrorPad", tensor, paddings, name=name, mode=mode)


def broadcast_to(input: Any, shape: Any, name: str | None = None) -> Tensor:
    """``input`` repeated up to ``shape`` by the rules of broadcasting."""
    return call("BroadcastTo", input, shape, name=name)


def reverse(tensor: Any, axis: Any, name: str | None = None) -> Tensor:
    """``tensor`` with the order of its elements reversed along the dimensions ``axis``."""
    return call("ReverseV2", tensor, axis, name=name)


def invert_permutation(x: Any, name: str | None = None) -> Tensor:
    """The vector ``y`` with ``y[x[i]] = i``."""
    return call("InvertPermutation", x, name=name)


# --- picking --------------------------------------------------------------------------------------


def gather(
    params: Any,
    indices: Any,
    validate_indices: Any = None,
    name: str | None = None,
    axis: Any = None,
    batch_dims: int = 0,
) -> Tensor:
    """The slices of ``params`` along ``axis`` (by default ``batch_dims``) that ``indices`` name."""
    del validate_indices
    axis = batch_dims if axis is None else axis
    return call("GatherV2", params, indices, axis, name=name, batch_dims=int(batch_dims))


def gather_nd(params: Any, indices: Any, name: str | None = None, batch_dims: int = 0) -> Tensor:
    """The elements or slices of ``params`` at the index vectors in the last axis of ``indices``."""
    if batch_dims:
        raise GraphError(f"gather_nd has no batch_dims yet: {batch_dims}")
    return call("GatherNd", params, indices, name=name)


def one_hot(
    indices: Any,
    depth: Any,
    on_value: Any = None,
    off_value: Any = None,
    axis: int | None = None,
    dtype: Any = None,
    name: str | None = None,
) -> Tensor:
    """``on_value`` (1) at the place that each index names along a new axis, else ``off_value``."""
    given = [indices, depth, on_value, off_value]
    with name_scope(name, "one_hot", given) as scope:
        kinds = {
            label: convert_to_tensor(v).dtype.base_dtype
            for label, v in (("on_value", on_value), ("off_value", off_value))
            if v is not None
        }
        wanted = None if dtype is None else dtypes.as_dtype(dtype)
        for label, kind in kinds.items():
            if wanted is not None and kind is not wanted:
                raise DTypeError(f"dtype {kind} of {label} does not match dtype parameter {wanted}")
        wanted = wanted or next(iter(kinds.values()), dtypes.float32)
        if on_value is None:
            on_value = convert_to_tensor(_number(1, wanted), wanted, name="on_value")
        if off_value is None:
            off_value = convert_to_tensor(_number(0, wanted), wanted, name="off_value")
        if len(set(kinds.values()) | {wanted}) > 1:
            raise DTypeError(
                f"dtype {kinds['on_value']} of on_value does not match dtype {kinds['off_value']} "
                "of off_value"
            )
        at = -1 if axis is None else int(axis)
        return call("OneHot", indices, depth, on_value, off_value, name=scope, axis=at)


def _number(value: int, dtype: DType) -> Any:
    return bool(value) if dtype.is_bool else value


# --- shapes that broadcast ------------------------------------------------------------------------


def broadcast_static_shape(shape_x: Any, shape_y: Any) -> TensorShape:
    """The shape that two shapes broadcast to, as far as they are known."""
    x, y = as_shape(shape_x), as_shape(shape_y)
    if x.dims is None or y.dims is None:
        return TensorShape(None)
    rank = max(len(x), len(y))
    pairs = zip(
        [1] * (rank - len(x)) + x.as_list(), [1] * (rank - len(y)) + y.as_list(), strict=True
    )
    out: list[int | None] = []
    for a, b in pairs:
        if a is not None and b is not None and a != b and 1 not in (a, b):
            raise ShapeError(f"Incompatible shapes for broadcasting: {x} and {y}")
        if a is None or b is None:
            known = b if a is None else a
            out.append(known if known is not None and known > 1 else None)
        else:
            out.append(b if a == 1 else a)
    return TensorShape(out)


def broadcast_dynamic_shape(shape_x: Any, shape_y: Any) -> Tensor:
    """The shape, as a tensor, that two shapes given as tensors broadcast to."""
    return call("BroadcastArgs", shape_x, shape_y)


# --- lists that contain tensors -------------------------------------------------------------------


def pack_list(values: Any, dtype: DType | None, name: str | None) -> Tensor:
    """A (nested) list that contains tensors as one tensor."""
    dtype = dtype or _first_dtype(values)
    with graph_of(_leaves(values)).as_default():
        packed = _pack(values, dtype, name or "packed")
    assert isinstance(packed, Tensor)
    return packed


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [leaf for v in value for leaf in _leaves(v)]
    return [value]


def _first_dtype(values: Any) -> DType:
    return next(dtypes.as_dtype(v.dtype).base_dtype for v in _leaves(values) if is_symbolic(v))


def _pack(values: Sequence[Any], dtype: DType, name: str) -> Any:
    with get_default_graph().name_scope(name) as scope:
        parts: list[Any] = []
        for i, value in enumerate(values):
            if is_symbolic(value):
                found = dtypes.as_dtype(value.dtype).base_dtype
                if found is not dtype:
                    raise DTypeError(
                        f"Cannot convert a list containing a tensor of dtype {found} to {dtype} "
                        f"(Tensor is: {value!r})"
                    )
                parts.append(value)
            elif isinstance(value, (list, tuple)):
                parts.append(_pack(value, dtype, str(i)))
            else:
                parts.append(value)
        if not any(is_symbolic(p) for p in parts):
            return parts
        tensors = [
            p if is_symbolic(p) else constant(p, dtype, name=str(i)) for i, p in enumerate(parts)
        ]
        return call("Pack", tensors, name=scope, axis=0)


build.set_packer(pack_list)
