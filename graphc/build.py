"""Building graphs: Python values become tensors, ops become operations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dims import Dim
from graphc.dtypes import DType, as_dtype
from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.graph import Graph, Operation, Tensor, get_default_graph, graph_of
from graphc.op import (
    DECLARING,
    REQUIRED,
    Arg,
    InferContext,
    Op,
    ShapeEnv,
    bind_args,
    check_dtype,
    get_op,
)
from graphc.shapes import Dimension, TensorShape


def create(
    op_name: str,
    inputs: Sequence[Any] = (),
    attrs: dict[str, Any] | None = None,
    name: str | None = None,
) -> Operation:
    """Declare an operation in the graph of its inputs (or the default graph).

    Args:
      op_name: a registered op.
      inputs: one entry per declared operand: a tensor or anything ``convert_to_tensor`` takes; a
        list for a variadic operand.
      attrs: attributes; those left out take their defaults.
      name: a name for the operation; the op's name by default.
    Raises:
      DTypeError, ShapeError: naming the operands and what was expected.
    """
    definition = get_op(op_name)
    flat = [v for i in inputs for v in (i if isinstance(i, (list, tuple)) else (i,))]
    graph = graph_of(flat)
    with contextlib.ExitStack() as stack:
        if graph is not get_default_graph():
            stack.enter_context(graph.as_default())
        full_name = graph.op_name(name or op_name)
        if all(type(v) is Tensor for v in flat) and all(
            isinstance(i, (list, tuple)) == a.variadic
            for i, a in zip(inputs, definition.args, strict=True)
        ):
            tensors = flat
        else:
            stack.enter_context(graph.name_scope(full_name + "/"))
            tensors = _convert_operands(definition, inputs)
        _check_dtypes(definition, tensors)
        full_attrs = complete_attrs(definition, attrs or {})
        ctx = InferContext(definition, full_name, tensors, full_attrs, graph.env or DECLARING)
        types = definition.infer(ctx)
    return graph.add_operation(definition, tensors, full_attrs, types, full_name)


def copy_operation(
    graph: Graph,
    op: Operation,
    inputs: Sequence[Tensor],
    env: ShapeEnv = DECLARING,
    attrs: dict[str, Any] | None = None,
) -> Operation:
    """The same operation in another graph over other inputs, with types inferred anew."""
    attrs = op.attrs if attrs is None else attrs
    types = op.definition.infer(InferContext(op.definition, op.name, inputs, attrs, env))
    return graph.add_operation(op.definition, inputs, attrs, types, op.name, op.location)


def complete_attrs(definition: Op, attrs: dict[str, Any]) -> dict[str, Any]:
    """Attributes with defaults filled in; unknown or missing ones are refused."""
    full = {}
    for key, attr in definition.attrs.items():
        if key in attrs:
            value = attrs[key]
            full[key] = as_dtype(value) if attr.kind == "dtype" and value is not None else value
        elif attr.default is REQUIRED:
            raise GraphError(f"op '{definition.name}' needs the attribute '{key}'")
        else:
            full[key] = attr.default
    unknown = attrs.keys() - definition.attrs.keys()
    if unknown:
        raise GraphError(f"op '{definition.name}' has no attribute {sorted(unknown)}")
    return full


def _convert_operands(definition: Op, inputs: Sequence[Any]) -> list[Tensor]:
    known = _known_types(definition, inputs)
    tensors: list[Tensor] = []
    for arg, value in zip(definition.args, inputs, strict=True):
        values = list(value) if arg.variadic else [value]
        for i, v in enumerate(values):
            label = f"{arg.name}_{i}" if arg.variadic else arg.name
            tensor = _convert_operand(arg, v, label, known)
            if arg.type_var is not None:
                known.setdefault(arg.type_var, tensor.dtype.base_dtype)
            tensors.append(tensor)
    return tensors


def _known_types(definition: Op, inputs: Sequence[Any]) -> dict[str, DType]:
    known: dict[str, DType] = {}
    for arg, value in zip(definition.args, inputs, strict=True):
        for v in value if arg.variadic else (value,):
            if arg.type_var is not None and hasattr(v, "dtype") and is_symbolic(v):
                known.setdefault(arg.type_var, as_dtype(v.dtype).base_dtype)
    return known


def _convert_operand(arg: Arg, value: Any, label: str, known: dict[str, DType]) -> Tensor:
    if arg.ref:
        handle = getattr(value, "_ref", None)
        tensor: Tensor = handle() if handle is not None else value
        return tensor
    if is_symbolic(value):
        return convert_to_tensor(value, name=label)
    dtype = known.get(arg.type_var) if arg.type_var else None
    if dtype is None and len(arg.types) == 1:
        dtype = arg.types[0]
    preferred = None
    if dtype is None and set(arg.types) == {dtypes.int32, dtypes.int64}:
        preferred = dtypes.int32  # TensorFlow's default for axes and shapes
    return convert_to_tensor(value, dtype=dtype, name=label, preferred_dtype=preferred)


def _check_dtypes(definition: Op, tensors: Sequence[Tensor]) -> None:
    first: dict[str, tuple[str, DType]] = {}
    for arg, values in bind_args(definition, tensors):
        for t in values:
            dtype = t.dtype.base_dtype
            if arg.type_var is not None:
                name, expected = first.setdefault(arg.type_var, (arg.name, dtype))
                if dtype is not expected and arg.variadic and name == arg.name:
                    listed = ", ".join(v.dtype.base_dtype.name for v in values)
                    raise DTypeError(
                        f"Tensors in list passed to '{arg.name}' of '{definition.name}' Op have "
                        f"types [{listed}] that don't all match."
                    )
                if dtype is not expected:
                    raise DTypeError(
                        f"Input '{arg.name}' of '{definition.name}' Op has type {dtype.name} that "
                        f"does not match type {expected.name} of argument '{name}'."
                    )
            check_dtype(definition, arg, dtype)


def is_symbolic(value: Any) -> bool:
    """Whether ``value`` stands for a tensor: a Tensor, a Variable, IndexedSlices."""
    return isinstance(value, Tensor) or hasattr(value, "_to_tensor")


# --- conversion ---------------------------------------------------------------------------------

_PACK: list[Callable[..., Tensor]] = []


def set_packer(fn: Callable[..., Tensor]) -> None:
    """Tell how a list that contains tensors is packed; :mod:`graphc.ops.movement` does."""
    _PACK[:] = [fn]


def convert_to_tensor(
    value: Any,
    dtype: Any = None,
    name: str | None = None,
    preferred_dtype: Any = None,
    dtype_hint: Any = None,
) -> Tensor:
    """``value`` as a tensor: tensors stay, Variables are read, everything else is a constant.

    Args:
      value: a tensor, a Variable, a number, a string, (nested lists of) those, or an array.
      dtype: the dtype to have; None keeps or infers it (Python floats are float32, ints int32).
      name: a name for the constant, if one is made.
      preferred_dtype, dtype_hint: the dtype if the value can have it.
    Raises:
      TypeError, ValueError: the value has no such dtype or is no tensor.
    """
    wanted = None if dtype is None else as_dtype(dtype).base_dtype
    hint = preferred_dtype if preferred_dtype is not None else dtype_hint
    if isinstance(value, Tensor):
        return _checked(value, wanted)
    to_tensor = getattr(value, "_to_tensor", None)
    if to_tensor is not None:
        return _checked(to_tensor(wanted, name), wanted)
    if isinstance(value, (list, tuple)) and _contains_symbolic(value):
        return _PACK[0](value, wanted, name)
    if wanted is None and hint is not None:
        try:
            return constant(value, hint, name=name or "Const")
        except (TypeError, ValueError):
            pass
    return constant(value, wanted, name=name or "Const")


def _checked(tensor: Tensor, wanted: DType | None) -> Tensor:
    if wanted is not None and tensor.dtype.base_dtype is not wanted:
        raise GraphError(
            f"Tensor conversion requested dtype {wanted.name} for Tensor with dtype "
            f"{tensor.dtype.base_dtype.name}: {tensor!r}"
        )
    return tensor


def _contains_symbolic(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_contains_symbolic(v) for v in value)
    if isinstance(value, Dimension):
        return False
    return is_symbolic(value)


def constant(
    value: Any,
    dtype: Any = None,
    shape: Any = None,
    name: str = "Const",
    verify_shape: bool = False,
) -> Tensor:
    """A constant tensor.

    Args:
      value: a number, a string, (nested) lists of them or an array.
      dtype: its dtype; inferred when None.
      shape: its shape; one number fills it, fewer elements are continued with the last.
      name: a name for the operation.
      verify_shape: whether ``value`` must have exactly ``shape``.
    Raises:
      TypeError: the value does not fit ``dtype``. ValueError: it does not fit ``shape``.
    """
    array = as_array(value, None if dtype is None else as_dtype(dtype).base_dtype)
    if shape is not None:
        array = _reshaped(array, tuple(TensorShape(shape).as_list()), verify_shape)
    return constant_of(array, name)


def constant_of(array: np.ndarray, name: str = "Const") -> Tensor:
    """A constant that holds ``array`` (not copied: the caller gives it away)."""
    array.flags.writeable = False
    return create("Const", (), {"value": array}, name).outputs[0]


def _reshaped(array: np.ndarray, shape: tuple[Any, ...], verify: bool) -> np.ndarray:
    if array.shape == shape:
        return array
    if verify:
        raise ShapeError(f"Expected Tensor's shape: {shape}, got {array.shape}.")
    count = int(np.prod(shape, dtype=np.int64))
    if array.size > count:
        raise ShapeError(
            f"Too many elements provided. Needed at most {count}, but received {array.size}"
        )
    flat = array.reshape(-1)
    if array.size < count:
        if array.size == 0:
            raise ShapeError(f"Cannot fill shape {shape} from no elements")
        flat = np.concatenate([flat, np.repeat(flat[-1:], count - array.size)])
    return flat.reshape(shape)


def as_array(value: Any, dtype: DType | None = None) -> np.ndarray:
    """``value`` as a contiguous array of its own, by TensorFlow's rules for Python values."""
    value = _plain(value)
    if isinstance(value, (np.ndarray, np.generic)):
        found = as_dtype(value.dtype)
        target = dtype or found
        if (target is dtypes.string) != (found is dtypes.string):
            raise DTypeError(f"Expected {target.name}, got {value!r} of type '{found.name}'.")
        return np.array(dtypes.converted(value, target), order="C")
    try:
        array = np.array(value)
    except ValueError as e:
        raise ShapeError(f"setting an array element with a sequence. ({e})") from None
    if array.dtype.kind in "USO":
        return _string_array(value, dtype)
    if dtype is None:
        return _default_typed(array)
    _check_python_value(value, array, dtype)
    return np.array(dtypes.converted(array, dtype), order="C")


def _plain(value: Any) -> Any:
    if isinstance(value, TensorShape):
        if not value.is_fully_defined():
            raise ShapeError(f"Cannot convert a partially known TensorShape to a Tensor: {value}")
        return np.array(value.as_list(), dtype=np.int32)
    if isinstance(value, Dimension):
        return int(value)
    if isinstance(value, Dim):
        raise ShapeError(f"The symbolic size {value} is not known while the graph is declared")
    if isinstance(value, DType):
        raise DTypeError(f"Cannot convert {value!r} to a tensor")
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "__array__") and not isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)
    return value


def _default_typed(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.float64:
        return array.astype(np.float32)
    if array.dtype == np.int64 and array.size:
        limits = np.iinfo(np.int32)
        if limits.min <= int(array.min()) and int(array.max()) <= limits.max:
            return array.astype(np.int32)
        return array
    if array.dtype == np.int64:
        return array.astype(np.int32)
    as_dtype(array.dtype)
    return array


def _check_python_value(value: Any, array: np.ndarray, dtype: DType) -> None:
    kind = array.dtype.kind
    wrong = (
        dtype is dtypes.string
        or (kind == "f" and array.size > 0 and not dtype.is_floating)
        or (kind in "iu" and dtype.is_bool)
    )
    if wrong:
        culprit = array.reshape(-1)[0].item() if array.size else value
        raise DTypeError(
            f"Expected {dtype.name}, got {culprit!r} of type '{type(culprit).__name__}' instead."
        )
    if dtype.is_integer and kind in "iu" and array.size:
        low, high = dtype.limits
        if int(array.min()) < low or int(array.max()) > high:
            raise GraphError(f"A value of {value!r} is out of the range of {dtype.name}")


def _string_array(value: Any, dtype: DType | None) -> np.ndarray:
    flat = np.array(value, dtype=object)
    leaves = flat.reshape(-1)
    if not all(isinstance(v, (str, bytes)) for v in leaves):
        culprit = next(v for v in leaves if not isinstance(v, (str, bytes)))
        raise GraphError(
            f"Attempt to convert a value ({culprit!r}) with an unsupported type "
            f"({type(culprit)}) to a Tensor."
        )
    if dtype is not None and dtype is not dtypes.string:
        raise DTypeError(f"Expected {dtype.name}, got {leaves[0]!r} of type 'str' instead.")
    out = np.empty(flat.shape, dtype=object)
    out.reshape(-1)[:] = [v.encode() if isinstance(v, str) else v for v in leaves]
    return out


def single(op: Operation) -> Tensor:
    """The only output of an operation."""
    (out,) = op.outputs
    return out
