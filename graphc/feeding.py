"""Fetches and feeds: what the user wrote, resolved against the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc import dtypes
from graphc.errors import DTypeError, FeedError, FetchError, GraphError, InvalidArgumentError
from graphc.graph import Graph, Operation, Tensor


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
        self._root = self._resolve(fetches)
        self.tensors = list(dict.fromkeys(self.tensors))
        self.operations = list(dict.fromkeys(self.operations))
        self.simple = True
        self._kept = fetches

    def _resolve(self, item: Any) -> Any:
        if item is None:
            raise DTypeError(f"Fetch argument {item!r} has invalid type {type(item)!r}")
        if isinstance(item, (list, tuple)):
            return (item, [self._resolve(i) for i in item])
        if isinstance(item, dict):
            return (item, [self._resolve(i) for i in item.values()])
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
            text = str(e) if isinstance(e, KeyError) else str(e)
            raise FetchError(
                f"Fetch argument {item!r} cannot be interpreted as a Tensor. ({text})"
            ) from None
        if not self.graph.is_fetchable(element):
            raise FetchError(f"Operation {element!r} has been marked as not fetchable.")
        if isinstance(element, Tensor):
            self.tensors.append(element)
        else:
            self.operations.append(element)
        return element

    def build(self, values: dict[Tensor, Any]) -> Any:
        """The structure with values for tensors and None for operations."""
        root = self._root
        return values[root] if type(root) is Tensor else self._build(root, values)

    def _build(self, node: Any, values: dict[Tensor, Any]) -> Any:
        if isinstance(node, Tensor):
            return values[node]
        if isinstance(node, Operation):
            return None
        shape, children = node
        built = [self._build(c, values) for c in children]
        if callable(shape):
            return shape(built)
        if isinstance(shape, dict):
            made = type(shape)()
            made.update(zip(shape, built, strict=True))
            return made
        if hasattr(shape, "_fields"):
            return type(shape)(*built)
        return type(shape)(built)


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
    if not hasattr(feed_dict, "items"):
        raise DTypeError(f"feed_dict must be a dict, not {type(feed_dict).__name__}")
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
    """Refuse symbolic values."""
    if isinstance(value, Tensor) or hasattr(value, "_to_tensor"):
        raise DTypeError(
            "The value of a feed cannot be a tf.Tensor object. Acceptable feed values include "
            "Python scalars, strings, lists, numpy ndarrays, or TensorHandles. For reference, the "
            f"tensor object was {value} which was passed to the feed with key {tensor}."
        )


def feed_array(tensor: Tensor, value: Any) -> np.ndarray:
    """The value as a C-contiguous, aligned array of the tensor's dtype.

    Raises:
      FeedError: (a ValueError) the shape does not fit. ValueError, TypeError: not convertible.
    """
    dtype = tensor.dtype.base_dtype
    check_value(tensor, value)
    if dtype is dtypes.string:
        array = string_array(value)
    else:
        if isinstance(value, int) and not isinstance(value, bool) and dtype.is_integer:
            low, high = dtype.limits
            if not low <= value <= high:
                raise DTypeError(
                    f"Type of feed value {value} with type {type(value)} is not compatible with "
                    f"Tensor type {dtype.as_numpy_dtype}. Try explicitly setting the type of the "
                    "feed tensor to a larger type (e.g. int64)."
                )
        array = np.asarray(value, dtype=dtype.numpy, order="C")
        if not (array.flags.c_contiguous and array.flags.aligned):
            array = np.require(array, requirements=["C", "A"])
            array = np.array(array, order="C") if not array.flags.aligned else array
    sizes = tensor.sizes
    if sizes is not None and not fits(array.shape, sizes):
        raise FeedError(
            f"Cannot feed value of shape {array.shape} for Tensor {tensor.name!r}, which has shape "
            f"'{tensor.shape}'\n(declared at {tensor.op.location})"
        )
    return array


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


def host_value(session: Any, tensor: Tensor, values: dict[Tensor, Any]) -> Any:
    """The value of a tensor of strings, which is computed in Python."""
    op = tensor.op
    if tensor in values:
        return values[tensor]
    if op.type == "Const":
        array = op.attrs["value"]
        return array[()] if array.ndim == 0 else array
    if op.type in ("Identity", "StopGradient", "PlaceholderWithDefault"):
        return host_value(session, op.inputs[0], values)
    if op.type == "ReportUninitialized":
        names = [v.name for v in op.attrs["variables"] if not session._is_set(v.name)]
        out = np.empty(len(names), object)
        out[:] = [n.encode() for n in names]
        return out
    if op.type == "Placeholder":
        from graphc.passes.extract import missing_feed

        raise missing_feed(op)
    raise InvalidArgumentError(
        op.node_def, op, f"{op.type} cannot compute tensors of strings"
    )
