"""Fetches and feeds: what the user wrote, resolved against the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc import dtypes
from graphc.errors import DTypeError, FeedError, FetchError, GraphError, InvalidArgumentError
from graphc.graph import Graph, Operation, Tensor
from graphc.ops.control import branch_number
from graphc.passes.extract_errors import missing_feed
from graphc.runtime.cuda_arrays import DeviceArray
from graphc.runtime.cuda_device import Device as CudaDevice


class Device(NamedTuple):
    """A device of ``Session.list_devices``."""

    name: str
    device_type: str


def feed_key(fetches: Any) -> Any:
    """A hashable key of the structure and the elements of ``fetches``."""
    if isinstance(fetches, (list, tuple)):
        return (type(fetches), *(feed_key(f) for f in fetches))
    if isinstance(fetches, dict):
        return (type(fetches), *((k, feed_key(v)) for k, v in fetches.items()))
    return id(fetches) if isinstance(fetches, np.ndarray) else fetches


class FetchTree:
    """The structure of ``fetches`` with its leaves resolved to tensors and operations."""

    def __init__(self, graph: Graph, fetches: Any) -> None:
        self.graph = graph
        self.tensors: list[Tensor] = []
        self.operations: list[Operation] = []
        self.root = self._resolve(fetches)
        self.tensors = list(dict.fromkeys(self.tensors))
        self.operations = list(dict.fromkeys(self.operations))
        self.simple = True

    def _resolve(self, item: Any) -> Any:
        if item is None:
            raise DTypeError(f"Fetch argument {item!r} has invalid type {type(item)!r}")
        if isinstance(item, (list, tuple)):
            return (sequence_maker(item), [self._resolve(i) for i in item])
        if isinstance(item, dict):
            return (dict_maker(item), [self._resolve(i) for i in item.values()])
        parts = getattr(item, "_fetch_parts", None)
        if parts is not None:
            tensors, build = parts()
            return (build, [self._resolve(t) for t in tensors])
        try:
            element = self.graph.as_graph_element(item)
        except DTypeError as e:
            raise DTypeError(
                f"Fetch argument {item!r} has invalid type {type(item)!r}, must be a string or "
                f"Tensor. ({e})"
            ) from None
        except (ValueError, KeyError) as e:
            raise FetchError(
                f"Fetch argument {item!r} cannot be interpreted as a Tensor. ({e})"
            ) from None
        if not self.graph.is_fetchable(element):
            name = (element.op if isinstance(element, Tensor) else element).name
            raise FetchError(f"Operation {name!r} has been marked as not fetchable.")
        if isinstance(element, Tensor):
            self.tensors.append(element)
        else:
            self.operations.append(element)
        return element

    def build(self, values: dict[Tensor, Any]) -> Any:
        """The structure with values for tensors and None for operations."""
        root = self.root
        return values[root] if type(root) is Tensor else self._build(root, values)

    def _build(self, node: Any, values: dict[Tensor, Any]) -> Any:
        if isinstance(node, Tensor):
            return values[node]
        if isinstance(node, Operation):
            return None
        make, children = node
        return make([self._build(c, values) for c in children])


def sequence_maker(item: Any) -> Callable[[list[Any]], Any]:
    """How a list, tuple or namedtuple like ``item`` is made of its elements."""
    kind = type(item)
    if hasattr(item, "_fields"):
        return lambda built: kind(*built)
    return list if kind is list else kind


def dict_maker(item: Any) -> Callable[[list[Any]], Any]:
    """How a dict like ``item`` is made of its values."""
    keys, kind = list(item), type(item)
    factory = getattr(item, "default_factory", None)

    def make(built: list[Any]) -> Any:
        made = kind() if factory is None else kind(factory)
        made.update(zip(keys, built, strict=True))
        return made

    return make


def resolve_feed(graph: Graph, key: Any) -> Tensor:
    """The tensor that a feed's key stands for.

    Raises:
      TypeError: not a tensor of the graph, nor a name of one.
    """
    try:
        tensor = graph.as_graph_element(key, allow_operation=False)
    except (ValueError, TypeError, KeyError) as e:
        text = e.args[0] if e.args else str(e)
        raise DTypeError(f"Cannot interpret feed_dict key as Tensor: {text}") from None
    assert isinstance(tensor, Tensor)
    if not graph.is_feedable(tensor):
        raise FeedError(f"Tensor {tensor} may not be fed.")
    return tensor


def expand_feeds(graph: Graph, feed_dict: Any) -> tuple[list[Tensor], list[Any]]:
    """The fed tensors and their values."""
    found: dict[Tensor, Any] = {}
    for key, value in feed_dict.items():
        if isinstance(key, tuple):
            if not isinstance(value, (tuple, list)) or len(value) != len(key):
                raise FeedError(f"the feed key {key!r} needs a value for each of its tensors")
            for k, v in zip(key, value, strict=True):
                found[resolve_feed(graph, k)] = v
        else:
            found[resolve_feed(graph, key)] = value
    for tensor, value in found.items():
        check_value(tensor, value)
    return list(found), list(found.values())


def check_value(tensor: Tensor, value: Any) -> None:
    """Refuse symbolic values and None."""
    if value is None:
        raise DTypeError(
            f"The value of a feed cannot be None: it was passed to the feed with key {tensor}."
        )
    if isinstance(value, Tensor) or hasattr(value, "_to_tensor"):
        raise DTypeError(
            "The value of a feed cannot be a tf.Tensor object. Acceptable feed values include "
            "Python scalars, strings, lists, numpy ndarrays, or TensorHandles. For reference, the "
            f"tensor object was {value} which was passed to the feed with key {tensor}."
        )


def taken_where_it_is(device: CudaDevice, tensor: Tensor, value: Any) -> Any:
    """A ``DeviceArray`` for a value that is on the device, or on another one of its kind.

    Raises:
      FeedError: (a ValueError) it is on another device than the session.
    """
    if isinstance(value, HOST) or not is_device_like(value):
        return value
    try:
        found = device.taken(value, tensor.dtype.base_dtype.numpy)
    except ValueError as e:
        raise FeedError(
            f"Cannot feed {type(value).__name__} for Tensor {tensor.name!r}: {e}"
            f"\n(declared at {tensor.op.location})"
        ) from None
    return value if found is None else found


def is_device_like(value: Any) -> bool:
    """Whether a value may be on a device: it says so, by one of the two protocols."""
    kind = type(value)
    return hasattr(kind, "__cuda_array_interface__") or hasattr(kind, "__dlpack__") or (
        "__cuda_array_interface__" in getattr(value, "__dict__", ())
    )


HOST = (np.ndarray, np.generic, list, tuple, int, float, complex, str, bytes)


def feed_array(tensor: Tensor, value: Any) -> Any:
    """The value as a C-contiguous, aligned array of the tensor's dtype; device arrays as they are.

    Raises:
      FeedError: (a ValueError) it is no array of numbers, or its shape does not fit.
      DTypeError: (a TypeError) a number out of the dtype's range, or no value at all.
    """
    dtype = tensor.dtype.base_dtype
    check_value(tensor, value)
    array: Any
    if isinstance(value, DeviceArray):
        array = value
    elif dtype is dtypes.string:
        array = string_array(value)
    else:
        check_range(tensor, value)
        array = numeric_array(tensor, value)
    sizes = tensor.sizes
    if sizes is not None and not fits(array.shape, sizes):
        raise FeedError(
            f"Cannot feed value of shape {array.shape} for Tensor {tensor.name!r}, which has shape "
            f"'{tensor.shape}'\n(declared at {tensor.op.location})"
        )
    return array


def numeric_array(tensor: Tensor, value: Any) -> np.ndarray:
    """The value converted to the tensor's dtype, laid out as native code reads it."""
    dtype = tensor.dtype.base_dtype.numpy
    short = dtype == dtypes.bfloat16.numpy
    where = f"\n(fed to Tensor {tensor.name!r}, declared at {tensor.op.location})"
    try:
        array = np.asarray(value, dtype=None if short else dtype, order="C")
        if short and array.dtype != dtype:
            array = dtypes.rounded(array, dtype)
        elif array.dtype is not dtype:  # an equal one, which native code does not know
            array = array.view(dtype)
    except (ValueError, OverflowError) as e:
        raise FeedError(f"{e}{where}") from None
    except TypeError as e:
        raise DTypeError(f"{e}{where}") from None
    if array.flags.aligned and array.flags.c_contiguous:
        return array
    return np.array(array, order="C")


def check_range(tensor: Tensor, value: Any) -> None:
    """Refuse a Python int that the tensor's integer dtype cannot hold."""
    dtype = tensor.dtype.base_dtype
    if isinstance(value, int) and not isinstance(value, bool) and dtype.is_integer:
        low, high = dtype.limits
        if not low <= value <= high:
            raise DTypeError(
                f"Type of feed value {value} with type {type(value)} is not compatible with "
                f"Tensor type {dtype.as_numpy_dtype}. Try explicitly setting the type of the "
                "feed tensor to a larger type (e.g. int64)."
            )


def fits(shape: Sequence[int], sizes: Sequence[Any]) -> bool:
    """Whether a concrete shape fits a symbolic one."""
    return len(shape) == len(sizes) and all(
        not isinstance(s, int) or s == n for n, s in zip(shape, sizes, strict=True)
    )


def string_array(value: Any) -> np.ndarray:
    """Strings as an object array, as they were given."""
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "USO" else array


def wrong_count(wanted: int, given: int) -> Exception:
    """A callable was called with too few or too many values."""
    return GraphError(f"Expected {wanted} values for the feed list, got {given}.")


def host_value(
    is_set: Callable[[str], bool], tensor: Tensor, values: dict[Tensor, Any]
) -> Any:
    """The value of a tensor of strings, which is computed in Python.

    ``is_set`` tells whether a variable has a value.
    """
    op = tensor.op
    if tensor in values:
        return values[tensor]
    if op.type == "Const":
        array = op.attrs["value"]
        return array[()] if array.ndim == 0 else array.copy()
    if op.type in ("Identity", "StopGradient", "PlaceholderWithDefault"):
        return host_value(is_set, op.inputs[0], values)
    if op.type == "Case":
        branches = op.attrs["bodies"]
        branch = branches[branch_number(values[op.inputs[0]], len(branches))]
        return host_value(is_set, branch.results[tensor.index], values)
    if op.type == "ReportUninitialized":
        names = [v.name for v in op.attrs["variables"] if not is_set(v.name)]
        out = np.empty(len(names), object)
        out[:] = [n.encode() for n in names]
        return out
    if op.type == "Placeholder":
        raise missing_feed(op)
    raise InvalidArgumentError(
        op.node_def, op, f"{op.type} cannot compute tensors of strings"
    )


def selectors(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What chooses among branches that give tensors of strings: a program has to compute it."""
    found: dict[Tensor, None] = {}
    stack = [t for t in tensors if t.dtype.base_dtype is dtypes.string]
    while stack:
        op = stack.pop().op
        if op.type == "Case":
            found[op.inputs[0]] = None
            stack += [t for b in op.attrs["bodies"] for t in b.results if t.dtype is dtypes.string]
        elif op.type in ("Identity", "StopGradient", "PlaceholderWithDefault"):
            stack.append(op.inputs[0])
    return list(found)
