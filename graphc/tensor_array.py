"""TensorArray: tensors of one shape by number, written and read in loops.

As in TensorFlow 1.15, a write gives a new TensorArray.  The elements are the rows of one tensor,
the *flow*; where nobody needs the array before a write any more, the row is written in place.
"""

from __future__ import annotations

import copy
from typing import Any

from graphc import dtypes
from graphc.build import convert_to_tensor, create, single
from graphc.dims import DimLike
from graphc.dtypes import as_dtype
from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.graph import Operation, Tensor, get_default_graph, name_scope
from graphc.op import value_sizes
from graphc.ops import shaping_make
from graphc.ops.elementwise_functions import greater, maximum
from graphc.ops.math import where_v2
from graphc.ops.reduction_functions import reduce_max
from graphc.ops.shaping import concat, expand_dims, gather, reshape
from graphc.ops.shaping_make import ones, shape, zeros
from graphc.ops.shaping_slice import getitem
from graphc.shapes import TensorShape


def _call(name: str, *inputs: Any, **attrs: Any) -> Tensor:
    return single(create(name, inputs, attrs))


class TensorArray:
    """An array of tensors of one dtype and shape.

    Args:
      dtype: of the elements.
      size: how many elements there are at first; an int or an int32 scalar tensor.
      dynamic_size: whether a write past the end makes the array longer.
      clear_after_read: accepted; an element may be read any number of times.
      tensor_array_name, name: a name for the operations.
      handle: not supported: an array is its flow.
      flow: the tensor of the elements, where there is one already.
      infer_shape: whether all elements must have one shape; they must in any case.
      element_shape: the shape of an element, where it is known.
      colocate_with_first_write_call: accepted.
    Raises:
      ValueError: neither a size nor a flow; an element of another shape.
      TypeError: an element of another dtype.
    """

    def __init__(
        self,
        dtype: Any,
        size: Any = None,
        dynamic_size: bool | None = None,
        clear_after_read: bool | None = None,
        tensor_array_name: str | None = None,
        handle: Any = None,
        flow: Any = None,
        infer_shape: bool = True,
        element_shape: Any = None,
        colocate_with_first_write_call: bool = True,
        name: str | None = None,
    ) -> None:
        del clear_after_read, infer_shape, colocate_with_first_write_call, tensor_array_name
        if handle is not None:
            raise GraphError("TensorArray has no handle: pass its flow")
        if size is None and flow is None:
            raise GraphError("Size must be provided if handle is not provided")
        if size is not None and flow is not None:
            raise GraphError("Cannot provide both a flow and a size to TensorArray")
        self._dtype = as_dtype(dtype).base_dtype
        self._dynamic = bool(dynamic_size)
        self._shape = TensorShape(element_shape)
        if flow is None:
            with name_scope(name, "TensorArray", [size]):
                count = convert_to_tensor(size, name="size", preferred_dtype=dtypes.int32)
                known = self._shape.is_fully_defined()
                row = self._shape.sizes if known else None
                flow = _call("EmptyRows", count, dtype=self._dtype, row=row)
        self._flow: Tensor = flow

    @classmethod
    def _of(cls, flow: Tensor, like: TensorArray) -> TensorArray:
        """An array of these elements, otherwise like another one."""
        made = cls.__new__(cls)
        made._dtype, made._dynamic, made._flow = like._dtype, like._dynamic, flow
        made._shape = like._shape
        sizes = flow.sizes
        if sizes is not None:
            made._shape = made._shape.merge_with(TensorShape(sizes[1:]))
        return made

    # --- what it is -------------------------------------------------------------------------------

    @property
    def flow(self) -> Tensor:
        """The tensor of the elements."""
        return self._flow

    @property
    def handle(self) -> Tensor:
        """The flow: there is no other handle."""
        return self._flow

    @property
    def dtype(self) -> Any:
        """The dtype of the elements."""
        return self._dtype

    @property
    def dynamic_size(self) -> bool:
        """Whether a write past the end makes the array longer."""
        return self._dynamic

    @property
    def element_shape(self) -> TensorShape:
        """What is known of the shape of an element."""
        return self._shape

    def __repr__(self) -> str:
        return f"<TensorArray of {self._dtype.name}{self._shape} in {self._flow.name}>"

    def identity(self) -> TensorArray:
        """The same array, its flow behind the current control dependencies."""
        return TensorArray._of(_call("Identity", self._flow), self)

    def size(self, name: str | None = None) -> Tensor:
        """The number of elements, an int32 scalar."""
        with name_scope(name, "TensorArraySize", [self._flow]):
            if self._flow.op.type == "EmptyRows" and self._flow.sizes is None:
                count = self._flow.op.inputs[0]
                return count if count.dtype is dtypes.int32 else _call(
                    "Cast", count, DstT=dtypes.int32
                )
            return getitem(shape(self._flow), 0)

    # --- elements ---------------------------------------------------------------------------------

    def read(self, index: Any, name: str | None = None) -> Tensor:
        """Element ``index`` (an integer scalar); a run whose index is out of range fails."""
        value = create("TakeRow", [self._flow, _index(index)], None, name or "TensorArrayReadV3")
        single(value).set_shape(self._shape)
        return single(value)

    def write(self, index: Any, value: Any, name: str | None = None) -> TensorArray:
        """The array with element ``index`` (an integer scalar) replaced by ``value``."""
        with name_scope(name, "TensorArrayWrite", [self._flow]):
            tensor = self._element(value)
            like = self._with_elements(tensor.shape)
            if self._dynamic:
                flow = _call("PutRowGrowing", self._flow, _index(index), tensor)
            else:
                flow = _call("PutRow", self._flow, _index(index), tensor, checked=True)
        return TensorArray._of(flow, like)

    def _with_elements(self, shape: TensorShape) -> TensorArray:
        """This array with what is known of its elements by ``shape``, that of one of them."""
        if not self._shape.is_compatible_with(shape):
            raise ShapeError(f"Inconsistent shapes: saw {shape} but expected {self._shape}")
        made = copy.copy(self)
        made._shape = self._shape.merge_with(shape)
        return made

    def _element(self, value: Any) -> Tensor:
        tensor = convert_to_tensor(value, name="value", preferred_dtype=self._dtype)
        if tensor.dtype.base_dtype is not self._dtype:
            raise DTypeError(
                f"TensorArray dtype is {self._dtype.name} but Op is trying to write dtype "
                f"{tensor.dtype.base_dtype.name}"
            )
        return tensor

    # --- all at once ------------------------------------------------------------------------------

    def stack(self, name: str | None = None) -> Tensor:
        """All elements as one tensor, of shape [size, *element_shape]."""
        with name_scope(name, "TensorArrayStack", [self._flow]):
            rows = single(create("Identity", [self._flow], None, "TensorArrayGatherV3"))
        return self._rows(rows)

    def _rows(self, rows: Tensor) -> Tensor:
        """``rows``, elements of the array, with what is known of the shape of one."""
        if self._shape.ndims is not None:
            rows.set_shape(TensorShape([None]).concatenate(self._shape))
        return rows

    def unstack(self, value: Any, name: str | None = None) -> TensorArray:
        """The array whose elements are the rows of ``value``."""
        with name_scope(name, "TensorArrayUnstack", [value]):
            flow = self._element(value)
            if flow.sizes == ():
                raise ShapeError("TensorArray.unstack: a scalar has no rows")
            like = self
            if flow.sizes is not None:
                like = self._with_elements(flow.shape[1:])
                flow = self._filled(flow)
        return TensorArray._of(flow, like)

    def _filled(self, rows: Tensor) -> Tensor:
        """The rows, and zeros up to the array's size where that may be larger.

        A run fails that has more rows than an array has that does not grow.
        """
        assert rows.sizes is not None
        count, size = rows.sizes[0], self._known_size()
        grows_to_any = self._dynamic and size == 0
        if count == size or grows_to_any:
            return rows
        if isinstance(count, int) and isinstance(size, int) and count > size:
            if self._dynamic:
                return rows
            raise GraphError(f"Max scatter index must be < array size ({count - 1} vs. {size})")
        sizes = shape(rows)
        taken, total = getitem(sizes, 0), self.size()
        missing: Tensor = total - taken  # type: ignore[operator]
        checks = []
        if self._dynamic:
            missing = maximum(missing, 0)
        elif not (isinstance(count, int) and isinstance(size, int)):
            places = shaping_make.range(total + 1)  # type: ignore[operator]
            checks.append(_call("TakeRow", places, taken, checked=True))
        more = concat([reshape(missing, [1]), getitem(sizes, slice(1, None))], 0)
        with get_default_graph().control_dependencies(checks):
            return concat([rows, zeros(more, self._dtype)], 0)

    def _known_size(self) -> DimLike | None:
        """The number of elements, as far as the declaration tells it."""
        if self._flow.sizes is not None:
            return self._flow.sizes[0]
        count = self._flow.op.inputs[0] if self._flow.op.type == "EmptyRows" else None
        known = None if count is None else value_sizes(count)
        return known[0] if known else None

    def gather(self, indices: Any, name: str | None = None) -> Tensor:
        """The elements of the given numbers (a vector), stacked."""
        return self._rows(gather(self._flow, indices, name=name or "TensorArrayGatherV3"))

    def scatter(self, indices: Any, value: Any, name: str | None = None) -> TensorArray:
        """The array with the elements of the given numbers replaced by the rows of ``value``.

        A number that stands twice is refused by TensorFlow; here the rows are added.  An array of
        dynamic size grows as far as the numbers reach.
        """
        with name_scope(name, "TensorArrayScatter", [indices, value]):
            rows = self._element(value)
            like = self if rows.sizes is None else self._with_elements(rows.shape[1:])
            numbers = convert_to_tensor(indices, name="indices", preferred_dtype=dtypes.int32)
            if numbers.dtype.base_dtype is not dtypes.int32:
                numbers = _call("Cast", numbers, DstT=dtypes.int32)
            old = self._flow
            size = count = self.size()
            if self._dynamic:
                count = reduce_max(concat([numbers + 1, reshape(size, [1])], 0))  # type: ignore[operator]
            # Taken from all the numbers there are, one that is out of range fails the run.
            places = expand_dims(gather(shaping_make.range(count), numbers), -1)
            inner = getitem(shape(rows), slice(1, None))
            whole = concat([reshape(count, [1]), inner], 0)
            flow = _call("ScatterNd", places, rows, whole)
            if old.op.type != "EmptyRows" or old.sizes is not None:
                if self._dynamic:
                    old = _call("FitLike", old, flow)
                mask = _call("ScatterNd", places, ones(shape(rows), dtypes.int32), whole)
                flow = where_v2(greater(mask, 0), flow, old)
        return TensorArray._of(flow, like)

    def concat(self, name: str | None = None) -> Tensor:
        """The elements one after the other along their first dimension."""
        with name_scope(name, "TensorArrayConcat", [self._flow]):
            sizes = shape(self._flow)
            joined = reshape(self._flow, concat([[-1], getitem(sizes, slice(2, None))], 0))
        if self._shape.ndims:
            joined.set_shape(TensorShape([None]).concatenate(self._shape[1:]))
        return joined

    def split(self, value: Any, lengths: Any, name: str | None = None) -> TensorArray:
        """The array of the parts of ``value`` along its first dimension; all of one length."""
        with name_scope(name, "TensorArraySplit", [value, lengths]):
            rows = self._element(value)
            counts = convert_to_tensor(lengths, name="lengths", preferred_dtype=dtypes.int32)
            known = counts.op.type == "Const"
            if known and len(set(counts.op.attrs["value"].tolist())) > 1:
                raise GraphError(
                    "TensorArray.split: the elements of an array have one shape, the lengths are "
                    f"{counts.op.attrs['value'].tolist()}"
                )
            if counts.dtype.base_dtype is not dtypes.int32:
                counts = _call("Cast", counts, DstT=dtypes.int32)
            # The longest: with others that are shorter, the numbers of elements do not agree.
            longest = counts[:1] if known else reduce_max(counts, keepdims=True)  # type: ignore[index]
            inner = getitem(shape(rows), slice(1, None))
            # An array that does not grow has as many elements as it was declared with.
            count = shape(counts) if self._dynamic else reshape(self.size(), [1])
            flow = reshape(rows, concat([count, longest, inner], 0))
        return TensorArray._of(flow, self)

    def close(self, name: str | None = None) -> Operation:
        """Nothing: the array is freed with the run."""
        return create("NoOp", (), None, name or "TensorArrayClose")


def _index(index: Any) -> Tensor:
    tensor = convert_to_tensor(index, name="index", preferred_dtype=dtypes.int32)
    if not tensor.dtype.base_dtype.is_integer:
        raise DTypeError(f"the index of a TensorArray must be an integer, not {tensor.dtype.name}")
    if tensor.dtype.base_dtype not in (dtypes.int32, dtypes.int64):
        return _call("Cast", tensor, DstT=dtypes.int64)
    return tensor


def like_result(tensor: Tensor, like: Any) -> Any:
    """A tensor of a loop or a branch as the user sees it: an array, where ``like`` is one."""
    return TensorArray._of(tensor, like) if isinstance(like, TensorArray) else tensor
