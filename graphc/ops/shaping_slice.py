"""Indexing: ``x[1:, ..., None]``, slice, strided_slice."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.build import constant
from graphc.dtypes import as_dtype
from graphc.errors import DTypeError, GraphError
from graphc.graph import Tensor, name_scope, overload
from graphc.ops.base import call
from graphc.ops.reduction_functions import renamed_argument
from graphc.ops.shaping import stack
from graphc.ops.shaping_make import ones_like
from graphc.shapes import Dimension, TensorShape

newaxis = None

_INDEX_ERROR = (
    "Only integers, slices (`:`), ellipsis (`...`), tf.newaxis (`None`) and scalar "
    "tf.int32/tf.int64 tensors are valid indices"
)


def slice_(input_: Any, begin: Any, size: Any, name: str | None = None) -> Tensor:
    """The part of ``input_`` that starts at ``begin`` and has ``size``; -1: up to the end."""
    return call("Slice", input_, begin, size, name=name)


def strided_slice(
    input_: Any,
    begin: Any,
    end: Any,
    strides: Any = None,
    begin_mask: int = 0,
    end_mask: int = 0,
    ellipsis_mask: int = 0,
    new_axis_mask: int = 0,
    shrink_axis_mask: int = 0,
    var: Any = None,
    name: str | None = None,
) -> Tensor:
    """The part of ``input_`` from ``begin`` to ``end`` in steps of ``strides`` (1).

    The masks say by their bits which entries have no begin or end, are ``...``, add a dimension or
    take a single index.  ``var`` is accepted for TensorFlow scripts.
    """
    del var
    if strides is None:
        strides = ones_like(begin)
    return call(
        "StridedSlice", input_, begin, end, strides, name=name, begin_mask=begin_mask,
        end_mask=end_mask, ellipsis_mask=ellipsis_mask, new_axis_mask=new_axis_mask,
        shrink_axis_mask=shrink_axis_mask,
    )  # fmt: skip


def _checked(index: Any) -> Any:
    if isinstance(index, bool):
        raise DTypeError(f"{_INDEX_ERROR}, got {index!r}")
    if isinstance(index, (int, np.integer, Dimension)):
        return int(index)
    dtype = getattr(index, "dtype", None)
    shape = getattr(index, "shape", None)
    is_index = dtype is not None and as_dtype(dtype).base_dtype in (dtypes.int32, dtypes.int64)
    rank = shape.ndims if isinstance(shape, TensorShape) else len(shape or ())
    if not is_index or rank == 1:
        raise DTypeError(f"{_INDEX_ERROR}, got {index!r}")
    return index


class _Spec:
    """The parts of an index expression, one column for each entry."""

    def __init__(self) -> None:
        self.begin: list[Any] = []
        self.end: list[Any] = []
        self.strides: list[Any] = []
        self.masks = dict.fromkeys(
            ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"), 0
        )

    def add(self, begin: Any, end: Any, stride: Any, *masks: str) -> None:
        """One more entry."""
        for mask in masks:
            self.masks[mask] |= 1 << len(self.begin)
        self.begin.append(begin)
        self.end.append(end)
        self.strides.append(stride)

    def entry(self, s: Any) -> None:
        """An entry as Python gives it."""
        if isinstance(s, slice):
            masks = []
            if s.start is None or _is_maxsize(s.start):
                masks.append("begin_mask")
            if s.stop is None or _is_maxsize(s.stop):
                masks.append("end_mask")
            begin = 0 if "begin_mask" in masks else _checked(s.start)
            end = 0 if "end_mask" in masks else _checked(s.stop)
            self.add(begin, end, 1 if s.step is None else _checked(s.step), *masks)
        elif s is Ellipsis:
            self.add(0, 0, 1, "ellipsis_mask")
        elif s is newaxis:
            self.add(0, 0, 1, "new_axis_mask")
        else:
            index = _checked(s)
            after = index + 1 if isinstance(index, int) else call("AddV2", index, 1, name="add")
            self.add(index, after, 1, "shrink_axis_mask")


def _is_maxsize(value: Any) -> bool:
    return isinstance(value, int) and value == sys.maxsize


def getitem(tensor: Tensor, slice_spec: Any) -> Tensor:
    """``tensor[slice_spec]`` as NumPy's basic indexing; scalar tensors may stand for numbers."""
    if _is_mask(slice_spec):
        raise GraphError("Indexing by a mask: the size of its result is not known yet")
    spec = _Spec()
    entries = slice_spec if isinstance(slice_spec, (list, tuple)) else [slice_spec]
    for s in entries:
        spec.entry(s)
    with name_scope(None, "strided_slice", [tensor, *spec.begin, *spec.end]) as scope:
        if spec.begin:
            columns = [stack(c) for c in (spec.begin, spec.end, spec.strides)]
            if any(c.dtype == dtypes.int64 for c in columns):
                columns = [
                    c if c.dtype == dtypes.int64 else call("Cast", c, DstT=dtypes.int64)
                    for c in columns
                ]
        else:
            columns = [constant([], dtypes.int32)] * 3
        return call("StridedSlice", tensor, *columns, name=scope, **spec.masks)


def _is_mask(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    return isinstance(value, bool) or (dtype is not None and as_dtype(dtype).is_bool)


overload("__getitem__", getitem)


def reverse_sequence(
    input: Any,
    seq_lengths: Any,
    seq_axis: int | None = None,
    batch_axis: int | None = None,
    name: str | None = None,
    seq_dim: int | None = None,
    batch_dim: int | None = None,
) -> Tensor:
    """``input`` with the beginning of each of its sequences in reverse order.

    Args:
      input: sequences along ``seq_axis``, one for each place along ``batch_axis``.
      seq_lengths: int32 or int64 ``[batch]``: how many elements of each are reversed.
      seq_axis, batch_axis: the axes; ``batch_axis`` 0 by default.
      name: a name for the operation.
      seq_dim, batch_dim: the older names of the axes.
    Returns:
      A tensor of the shape and dtype of ``input``.
    Raises:
      TypeError: no ``seq_axis``, or lengths that are not integers.
      ValueError: both names of an axis; axes or shapes that do not go together.
      InvalidArgumentError: (in a run) a length below 0 or above the dimension.
    """
    seq_axis = renamed_argument("seq_axis", seq_axis, "seq_dim", seq_dim)
    batch_axis = renamed_argument("batch_axis", batch_axis, "batch_dim", batch_dim)
    if seq_axis is None:
        raise DTypeError("Expected int for argument 'seq_dim' not None.")
    attrs = {"seq_dim": int(seq_axis), "batch_dim": int(batch_axis or 0)}
    return call("ReverseSequence", input, seq_lengths, name=name, **attrs)
