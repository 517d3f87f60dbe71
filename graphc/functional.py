"""Functions over the elements of tensors: map_fn, scan, foldl and foldr, as in TensorFlow 1.15.

The elements of a tensor are its slices along the first dimension.  All four are loops over
TensorArrays: the graph does not grow with the elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from graphc import nest
from graphc.build import constant, convert_to_tensor
from graphc.control_flow import while_loop
from graphc.dtypes import int32
from graphc.errors import DTypeError, ShapeError
from graphc.graph import Tensor, name_scope
from graphc.ops.shaping_make import shape as shape_of
from graphc.shapes import TensorShape
from graphc.tensor_array import TensorArray


class _Elements(NamedTuple):
    """The elements of a structure of tensors.

    Attributes:
      structure: what the user gave.
      arrays: the elements of each of its tensors.
      count: how many there are: an int, or an int32 scalar.
      length: the static shape of one dimension: how many there are, where it is known.
    """

    structure: Any
    arrays: list[TensorArray]
    count: Any
    length: TensorShape

    def read(self, i: Any) -> Any:
        """Element ``i`` in the user's structure."""
        return nest.pack_sequence_as(self.structure, [array.read(i) for array in self.arrays])


def _elements(fn: Any, elems: Any) -> _Elements:
    if not callable(fn):
        raise DTypeError("fn must be callable.")
    flat = [convert_to_tensor(e, name="elem") for e in nest.flatten(elems)]
    for tensor in flat:
        if tensor.sizes == ():
            raise ShapeError(
                "elems must be a 1+ dimensional Tensor, not a scalar"
                if len(flat) == 1
                else "elements in elems must be 1+ dimensional Tensors, not scalars"
            )
    length = TensorShape(flat[0].shape[:1]) if flat[0].sizes else TensorShape([None])
    for tensor in flat[1:]:
        length.merge_with(tensor.shape[:1] if tensor.sizes else [None])
    count = length[0].value
    if count is None:
        sizes: Any = shape_of(flat[0])
        count = sizes[0]
    arrays = [
        TensorArray(t.dtype, size=count, element_shape=t.shape[1:] if t.sizes else None).unstack(t)
        for t in flat
    ]
    return _Elements(elems, arrays, count, length)


def _stacked(arrays: Sequence[TensorArray], length: TensorShape) -> list[Tensor]:
    found = []
    for array in arrays:
        tensor = array.stack()
        if tensor.sizes is not None:
            tensor.set_shape(length.concatenate(tensor.shape[1:]))
        found.append(tensor)
    return found


def _first(initializer: Any) -> Any:
    return nest.map_structure(convert_to_tensor, initializer)


# --- one value for each element -------------------------------------------------------------------


def map_fn(
    fn: Callable[[Any], Any],
    elems: Any,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    back_prop: bool = True,
    swap_memory: bool = False,
    infer_shape: bool = True,
    name: str | None = None,
) -> Any:
    """``fn`` of each element, stacked.

    Args:
      fn: takes an element, structured like ``elems``; gives a structure like ``dtype``.
      elems: a tensor ``[n, ...]``, or a structure of tensors of one ``n``.
      dtype: the dtypes of what ``fn`` gives, in its structure; those of ``elems`` by default.
      parallel_iterations, swap_memory: accepted; the elements are taken one after the other.
      back_prop: False makes the results constants for gradients.
      infer_shape: accepted; what ``fn`` gives has one shape for all elements in any case.
      name: the name scope, "map" by default.
    Returns:
      A structure like ``dtype`` of tensors ``[n, ...]``.
    Raises:
      TypeError: ``fn`` cannot be called, or gives sequences of another kind.
      ValueError: a scalar among ``elems``, lengths that differ, or ``fn`` gives another structure.
    """
    del infer_shape
    with name_scope(name, "map", _tensors(elems)):
        given = _elements(fn, elems)
        if dtype is None:
            like, dtypes = elems, [array.dtype for array in given.arrays]
        else:
            like, dtypes = dtype, nest.flatten(dtype)
        outs = [TensorArray(kind, size=given.count) for kind in dtypes]
        shapes: list[TensorShape] = []

        def body(i: Any, outs: Any) -> Any:
            value = fn(given.read(i))
            nest.assert_same_structure(like, value)
            leaves = [convert_to_tensor(v) for v in nest.flatten(value)]
            shapes[:] = [v.shape for v in leaves]
            return i + 1, [out.write(i, v) for out, v in zip(outs, leaves, strict=True)]

        _, outs = while_loop(
            lambda i, _: i < given.count, body, (constant(0, int32), outs),
            parallel_iterations=parallel_iterations or 10, back_prop=back_prop,
            swap_memory=swap_memory,
        )  # fmt: skip
        results = _stacked(outs, given.length)
        for tensor, shape in zip(results, shapes, strict=True):
            if shape.ndims is not None:
                tensor.set_shape(given.length.concatenate(shape.as_list()))
        return nest.pack_sequence_as(like, results)


def scan(
    fn: Callable[[Any, Any], Any],
    elems: Any,
    initializer: Any = None,
    parallel_iterations: int = 10,
    back_prop: bool = True,
    swap_memory: bool = False,
    infer_shape: bool = True,
    reverse: bool = False,
    name: str | None = None,
) -> Any:
    """The values of ``a = fn(a, element)`` after each element, stacked.

    Args:
      fn: takes the value so far, structured like ``initializer`` (``elems`` if there is none),
        and an element, structured like ``elems``; gives the next value.
      elems: a tensor ``[n, ...]``, or a structure of tensors of one ``n``.
      initializer: the value before the first element; by default the first element is the first
        value, and ``fn`` is called from the second on.
      parallel_iterations, swap_memory: accepted; the elements are taken one after the other.
      back_prop: False makes the results constants for gradients.
      infer_shape: accepted; the values have one shape in any case.
      reverse: whether to begin at the last element; the values stay at their elements' places.
      name: the name scope, "scan" by default.
    Returns:
      A structure like the value's of tensors ``[n, ...]``.
    Raises:
      TypeError: ``fn`` cannot be called, or gives sequences of another kind.
      ValueError: a scalar among ``elems``, lengths that differ, or ``fn`` gives another structure
        or shape.
    """
    del infer_shape
    with name_scope(name, "scan", _tensors(elems)):
        given = _elements(fn, elems)
        last: Any = given.count - 1
        start: Any = last if reverse else 0
        step = -1 if reverse else 1
        like = elems if initializer is None else initializer
        value = given.read(start) if initializer is None else _first(initializer)
        outs = [
            TensorArray(t.dtype, size=given.count, element_shape=t.shape)
            for t in nest.flatten(value)
        ]
        if initializer is None:
            first = nest.flatten(value)
            outs = [out.write(start, v) for out, v in zip(outs, first, strict=True)]
            start = start + step

        def body(i: Any, value: Any, outs: Any) -> Any:
            value = fn(value, given.read(i))
            nest.assert_same_structure(like, value)
            leaves = nest.flatten(value)
            written = [out.write(i, v) for out, v in zip(outs, leaves, strict=True)]
            return i + step, value, written

        _, _, outs = while_loop(
            lambda i, *_: i >= 0 if reverse else i < given.count,
            body, (convert_to_tensor(start), value, outs),
            parallel_iterations=parallel_iterations, back_prop=back_prop, swap_memory=swap_memory,
        )  # fmt: skip
        return nest.pack_sequence_as(like, _stacked(outs, given.length))


# --- one value for all elements -------------------------------------------------------------------


def foldl(
    fn: Callable[[Any, Any], Any],
    elems: Any,
    initializer: Any = None,
    parallel_iterations: int = 10,
    back_prop: bool = True,
    swap_memory: bool = False,
    name: str | None = None,
) -> Any:
    """The last value of ``a = fn(a, element)``, from the first element to the last.

    Args:
      fn: takes the value so far and an element, structured like ``elems``; gives the next value.
      elems: a tensor ``[n, ...]``, or a structure of tensors of one ``n``.
      initializer: the value before the first element; by default that is the first element, and
        ``fn`` is called from the second on.
      parallel_iterations, swap_memory: accepted; the elements are taken one after the other.
      back_prop: False makes the result a constant for gradients.
      name: the name scope, "foldl" by default.
    Returns:
      The last value.
    Raises:
      TypeError: ``fn`` cannot be called, or gives sequences of another kind.
      ValueError: a scalar among ``elems``, lengths that differ, or ``fn`` gives another structure
        or shape.
    """
    with name_scope(name, "foldl", _tensors(elems)):
        given = _elements(fn, elems)
        value = given.read(0) if initializer is None else _first(initializer)

        def body(i: Any, value: Any) -> Any:
            return i + 1, fn(value, given.read(i))

        _, value = while_loop(
            lambda i, _: i < given.count, body, (constant(int(initializer is None), int32), value),
            parallel_iterations=parallel_iterations, back_prop=back_prop, swap_memory=swap_memory,
        )  # fmt: skip
        return value


def foldr(
    fn: Callable[[Any, Any], Any],
    elems: Any,
    initializer: Any = None,
    parallel_iterations: int = 10,
    back_prop: bool = True,
    swap_memory: bool = False,
    name: str | None = None,
) -> Any:
    """The last value of ``a = fn(a, element)``, from the last element to the first.

    Args:
      fn: takes the value so far and an element, structured like ``elems``; gives the next value.
      elems: a tensor ``[n, ...]``, or a structure of tensors of one ``n``.
      initializer: the value before the last element; by default that is the last element, and
        ``fn`` is called from the one before it on.
      parallel_iterations, swap_memory: accepted; the elements are taken one after the other.
      back_prop: False makes the result a constant for gradients.
      name: the name scope, "foldr" by default.
    Returns:
      The last value.
    Raises:
      TypeError: ``fn`` cannot be called, or gives sequences of another kind.
      ValueError: a scalar among ``elems``, lengths that differ, or ``fn`` gives another structure
        or shape.
    """
    with name_scope(name, "foldr", _tensors(elems)):
        given = _elements(fn, elems)
        last: Any = given.count - 1
        value = given.read(last) if initializer is None else _first(initializer)
        start = last - 1 if initializer is None else last

        def body(i: Any, value: Any) -> Any:
            return i - 1, fn(value, given.read(i))

        _, value = while_loop(
            lambda i, _: i >= 0, body, (convert_to_tensor(start), value),
            parallel_iterations=parallel_iterations, back_prop=back_prop, swap_memory=swap_memory,
        )  # fmt: skip
        return value


def _tensors(elems: Any) -> list[Any]:
    return [e for e in nest.flatten(elems) if isinstance(e, Tensor)]
