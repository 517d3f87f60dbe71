"""A graph as JSON: operations with attributes, and back, trusting nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from graphc.build import complete_attrs
from graphc.dims import Dim, DimLike, fresh
from graphc.dtypes import as_dtype
from graphc.errors import FileFormatError, GraphcError, Location
from graphc.graph import _OP_NAME, Graph, Operation, Tensor
from graphc.op import (
    REGISTRY,
    InferContext,
    Op,
    check_dtype,
)


def tensor_ref(tensor: Tensor) -> str:
    """``"name:index"``."""
    return tensor.name


def encode_operation(op: Operation, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """One operation; arrays among its attributes go to ``arrays``."""
    entry: dict[str, Any] = {"name": op.name, "op": op.type, "version": op.definition.version}
    if op.inputs:
        entry["inputs"] = [t.name for t in op.inputs]
    if op.control_inputs:
        entry["control_inputs"] = [c.name for c in op.control_inputs]
    attrs = {
        key: _encode(op, key, attr.kind, op.attrs[key], arrays)
        for key, attr in op.definition.attrs.items()
    }
    if attrs:
        entry["attrs"] = attrs
    if op.device:
        entry["device"] = op.device
    return entry


def _encode(
    op: Operation, key: str, kind: str, value: Any, arrays: dict[str, np.ndarray]
) -> Any:
    if kind == "array":
        if value.dtype == object:
            texts = [_text(v) for v in value.reshape(-1)]
            return {"strings": texts, "shape": list(value.shape)}
        name = f"constant:{op.name}"
        arrays[name] = value
        return {"tensor": name}
    if value is None:
        return None
    if kind == "dtype":
        return value.name
    if kind == "shape":
        return [_encode_size(s) for s in value]
    return _plain(value, f"attribute {key!r} of {op.name}")


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _encode_size(size: DimLike) -> Any:
    if isinstance(size, Dim):
        symbol = size.as_symbol
        return None if symbol is None else symbol.name
    return size


def _plain(value: Any, what: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(v, what) for v in value]
    raise FileFormatError(f"{what} cannot be saved: {value!r}")


class GraphDecoder:
    """Rebuilds operations in a graph; every claim of the file is checked."""

    def __init__(self, path: Any, graph: Graph, arrays: Mapping[str, np.ndarray]) -> None:
        self.path = path
        self.graph = graph
        self.arrays = arrays
        self.symbols: dict[str, Dim] = {}

    def fail(self, message: str) -> FileFormatError:
        """An error that names the file."""
        return FileFormatError(f"{self.path}: {message}")

    def operations(self, entries: Any) -> None:
        """Add all operations, each after those it uses."""
        if not isinstance(entries, list):
            raise self.fail("the graph's operations are not a list")
        for entry in entries:
            self.operation(entry)

    def operation(self, entry: Any) -> None:
        """Add one operation."""
        if not isinstance(entry, dict):
            raise self.fail(f"an operation is not an object: {str(entry)[:100]}")
        name, type_ = entry.get("name"), entry.get("op")
        if not isinstance(name, str) or not _OP_NAME.match(name) or name.endswith("/"):
            raise self.fail(f"{str(name)[:100]!r} is not a valid operation name")
        if name in self.graph._ops:
            raise self.fail(f"operation {name!r} stands twice")
        definition = REGISTRY.get(type_) if isinstance(type_, str) else None
        if definition is None:
            raise self.fail(f"operation {name!r} is of the unknown op {str(type_)[:100]!r}")
        version = entry.get("version", 1)
        if type(version) is not int or version > definition.version:
            raise self.fail(
                f"operation {name!r} needs version {version} of op {type_}; this graphc has "
                f"{definition.version}"
            )
        try:
            self.add(entry, name, definition)
        except FileFormatError:
            raise
        except (GraphcError, ValueError, TypeError, KeyError, IndexError, OverflowError,
                AssertionError, AttributeError) as e:  # fmt: skip
            raise self.fail(f"operation {name!r} ({type_}) is malformed: {e}") from e

    def add(self, entry: dict[str, Any], name: str, definition: Op) -> None:
        """Add an operation whose name and op are known to be good."""
        inputs = [self.tensor(ref) for ref in self.strings(entry, "inputs")]
        control = [self.element(ref) for ref in self.strings(entry, "control_inputs")]
        self.check_inputs(definition, inputs, name)
        given = entry.get("attrs", {})
        if not isinstance(given, dict):
            raise self.fail(f"the attributes of {name!r} are not an object")
        attrs = {}
        for key, value in given.items():
            attr = definition.attrs.get(key)
            if attr is None:
                raise self.fail(f"operation {name!r} has the unknown attribute {key!r}")
            attrs[key] = self.decode(attr.kind, value, f"attribute {key!r} of {name!r}")
        full = complete_attrs(definition, attrs)
        types = definition.infer(InferContext(definition, name, inputs, full))
        graph = self.graph
        with graph.control_dependencies(None), graph.control_dependencies(control):
            with graph.device(entry.get("device") or None):
                location = Location(str(self.path), 0, name)
                graph.add_operation(definition, inputs, full, types, name, location)
        graph._names_in_use[name.lower()] = 1

    def check_inputs(self, definition: Op, inputs: list[Tensor], name: str) -> None:
        """The number and the dtypes of operands."""
        args = definition.args
        variadic = sum(a.variadic for a in args)
        if len(inputs) < len(args) - variadic or (not variadic and len(inputs) != len(args)):
            raise self.fail(
                f"operation {name!r} ({definition.name}) has {len(inputs)} operands, expected "
                f"{len(args)}"
            )
        from graphc.op import bind_args

        first: dict[str, Any] = {}
        for arg, tensors in bind_args(definition, inputs):
            for t in tensors:
                check_dtype(definition, arg, t.dtype)
                if arg.ref and not t.dtype.is_ref:
                    raise self.fail(f"operand {arg.name!r} of {name!r} must be a variable")
                dtype = t.dtype.base_dtype
                if arg.type_var and first.setdefault(arg.type_var, dtype) is not dtype:
                    raise self.fail(f"operands of {name!r} differ in dtype")

    def strings(self, entry: dict[str, Any], key: str) -> Iterable[str]:
        """A list of strings of an entry."""
        found = entry.get(key, [])
        if not isinstance(found, list) or not all(isinstance(v, str) for v in found):
            raise self.fail(f"{key} of {entry.get('name')!r} is not a list of names")
        return found

    def tensor(self, ref: Any) -> Tensor:
        """A tensor that is already there."""
        if isinstance(ref, str) and ":" in ref:
            name, _, index = ref.rpartition(":")
            op = self.graph._ops.get(name)
            if op is not None and index.isdecimal() and int(index) < len(op.outputs):
                return op.outputs[int(index)]
        raise self.fail(f"there is no tensor {str(ref)[:100]!r} where it is used")

    def element(self, ref: Any) -> Operation:
        """An operation that is already there."""
        op = self.graph._ops.get(ref) if isinstance(ref, str) else None
        if op is None:
            raise self.fail(f"there is no operation {str(ref)[:100]!r} where it is used")
        return op

    def decode(self, kind: str, value: Any, what: str) -> Any:
        """An attribute's value, checked against its kind."""
        if kind == "array":
            return self.array(value, what)
        if value is None:
            return None
        if kind == "dtype":
            return as_dtype(self.typed(value, str, what))
        if kind == "shape":
            return tuple(self.size(s, what) for s in self.typed(value, list, what))
        decoded = self.plain(value, what)
        wanted: dict[str, tuple[type, ...]] = {
            "int": (int,), "bool": (bool,), "str": (str,), "float": (float, int),
        }  # fmt: skip
        if kind in wanted and type(decoded) not in wanted[kind]:
            raise self.fail(f"{what} must be {kind}, not {str(value)[:100]}")
        return decoded

    def typed(self, value: Any, type_: type, what: str) -> Any:
        """The value, which must be of a type."""
        if type(value) is not type_:
            raise self.fail(f"{what} must be {type_.__name__}, not {str(value)[:100]}")
        return value

    def array(self, value: Any, what: str) -> np.ndarray:
        """A constant."""
        if isinstance(value, dict) and isinstance(value.get("tensor"), str):
            found = self.arrays.get(value["tensor"])
            if found is None:
                raise self.fail(f"{what} is missing from the file's tensors")
            return found
        if isinstance(value, dict) and isinstance(value.get("strings"), list):
            shape = value.get("shape")
            texts = [self.typed(t, str, what) for t in value["strings"]]
            sizes = [self.typed(s, int, what) for s in self.typed(shape, list, what)]
            out = np.empty(len(texts), object)
            out[:] = [t.encode("utf-8", "surrogateescape") for t in texts]
            return out.reshape(sizes)
        raise self.fail(f"{what} is not an array")

    def size(self, value: Any, what: str) -> DimLike:
        """A size: a number, None, or a symbol by name."""
        if type(value) is int and value >= 0:
            return value
        if value is None:
            return fresh()
        if isinstance(value, str):
            return self.symbols.setdefault(value, fresh())
        raise self.fail(f"{what} has the size {str(value)[:100]}")

    def plain(self, value: Any, what: str) -> Any:
        """A plain value."""
        if isinstance(value, list):
            return tuple(self.plain(v, what) for v in value)
        if isinstance(value, dict):
            if set(value) == {"float"} and value["float"] in ("nan", "inf", "-inf"):
                return float(value["float"])
            raise self.fail(f"{what} is malformed: {str(value)[:100]}")
        return value
