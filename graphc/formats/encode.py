"""A graph as plain JSON values: operations, attributes, types, symbolic sizes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from graphc.dims import Dim, DimLike, Func, Symbol
from graphc.errors import FileFormatError, Location
from graphc.graph import Operation, Region, Tensor, TensorType
from graphc.op import Attr

OPERATION_KEYS = (
    "name", "op", "version", "inputs", "control_inputs", "attrs", "types", "device", "at",
    "region",
)  # fmt: skip

MAX_DEPTH = 100
"""How deep regions may be nested in a file."""


class GraphEncoder:
    """Describes operations one by one.

    Attributes:
      arrays: the arrays that were met among the attributes, by their names in the file.
      sources: (file, function) of the declarations; operations refer to them by number.
      regions: the bodies that were met, each after the one around it.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.sources: list[list[str]] = []
        self.regions: list[dict[str, Any]] = []
        self._numbers: dict[Region, int] = {}
        self._symbols: dict[Symbol, str] = {}

    def operation(self, op: Operation) -> dict[str, Any]:
        """One operation.

        Raises:
          FileFormatError: one that calls a Python function, writes to a file, or has an attribute
            of no known kind.
        """
        if not getattr(op.definition, "portable", True):
            raise FileFormatError(
                f"'{op.name}' ({op.type}, declared at {op.location}) calls a Python function, "
                "which no file can hold"
            )
        if writes_files(op.attrs):
            raise FileFormatError(
                f"'{op.name}' ({op.type}, declared at {op.location}) writes to a file when it "
                "runs, which no loaded model may"
            )
        entry: dict[str, Any] = {
            "name": op.name,
            "op": op.type,
            "version": op.definition.version,
            "inputs": [t.name for t in op.inputs],
            "control_inputs": [c.name for c in op.control_inputs],
            "attrs": {k: self.attr(op, k, a) for k, a in op.definition.attrs.items()},
            "types": [self.type(t.type) for t in op.outputs],
            "device": op.device,
            "at": self.location(op.location),
        }
        entry = {k: v for k, v in entry.items() if v or k == "version"}
        if op.region is not None:
            entry["region"] = self.region(op.region)
        return entry

    def region(self, region: Region) -> int:
        """The number of a region, which is described the first time.

        Raises:
          FileFormatError: it is nested too deeply.
        """
        around: list[Region] = []
        found: Region | None = region
        while found is not None:
            around.append(found)
            found = found.parent
        if len(around) > MAX_DEPTH:
            raise FileFormatError(
                f"'{region.name}' is nested {len(around)} deep; files hold up to {MAX_DEPTH}"
            )
        for r in reversed(around):
            if r in self._numbers:
                continue
            entry = {
                "name": r.name,
                "parent": None if r.parent is None else self._numbers[r.parent],
                "params": [t.name for t in r.params],
                "results": [t.name for t in r.results],
            }
            self._numbers[r] = len(self.regions)
            self.regions.append({k: v for k, v in entry.items() if v not in (None, [])})
        return self._numbers[region]

    def location(self, location: Location) -> list[int]:
        """Where it was declared: the file without its folders, the function and the line."""
        source = [os.path.basename(location.file), location.function]
        if source not in self.sources:
            self.sources.append(source)
        return [self.sources.index(source), location.line]

    # --- types ------------------------------------------------------------------------------------

    def type(self, type_: TensorType) -> list[Any]:
        """``["float32", ["s0", 3]]``; the shape is None for unknown rank."""
        return [type_.dtype.name, self.shape(type_.sizes)]

    def shape(self, sizes: Iterable[DimLike] | None) -> list[Any] | None:
        """The sizes, or None for unknown rank."""
        return None if sizes is None else [self.size(s) for s in sizes]

    def size(self, size: DimLike) -> Any:
        """A number, the name of a symbol, or a sum of terms: ``[[2, "s0"], [1]]`` is 2*s0 + 1."""
        if not isinstance(size, Dim):
            return int(size)
        if size.as_symbol is not None:
            return self.symbol(size.as_symbol)
        terms = [(sorted((self.atom(a) for a in mono), key=_order), c) for mono, c in size.terms]
        # Symbols have other names, and another order, in the process that loads the file.
        terms.sort(key=lambda t: (-len(t[0]), [_order(a) for a in t[0]]))
        return [[coef, *factors] for factors, coef in terms]

    def atom(self, atom: Symbol | Func) -> Any:
        """A factor of a term."""
        if isinstance(atom, Symbol):
            return self.symbol(atom)
        return {"fn": atom.fn, "a": self.size(atom.a), "b": self.size(atom.b)}

    def symbol(self, symbol: Symbol) -> str:
        """The symbol's name in the file: the next number; ``n`` for what may be negative."""
        letter = "s" if symbol.positive else "n"
        return self._symbols.setdefault(symbol, f"{letter}{len(self._symbols)}")

    # --- attributes -------------------------------------------------------------------------------

    def attr(self, op: Operation, key: str, attr: Attr) -> Any:
        """An attribute's value, by its kind."""
        value = op.attrs[key]
        if value is None:
            return None
        if attr.kind == "array":
            return self.array(op, key, value)
        if attr.kind == "dtype":
            return value.name
        if attr.kind == "shape":
            return self.shape(value)
        if attr.kind == "regions":
            return [self.region(r) for r in value]
        try:
            return _PLAIN[attr.kind](value)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise FileFormatError(
                f"the attribute {key!r} of {op.name} ({op.type}) cannot be saved as {attr.kind}: "
                f"{value!r}"
            ) from e

    def array(self, op: Operation, key: str, value: np.ndarray) -> Any:
        """A constant: numbers go to the file's tensors, strings are written out."""
        if value.dtype == object:
            texts = [_text(v) for v in value.reshape(-1)]
            return {"strings": texts, "shape": list(value.shape)}
        name = f"constant:{op.name}" + ("" if key == "value" else f":{key}")
        self.arrays[name] = value
        return {"tensor": name}


def _order(factor: Any) -> tuple[int, int, str]:
    """Symbols by their numbers, then functions."""
    if isinstance(factor, str):
        return 0, int(factor[1:]), factor
    return 1, 0, repr(factor)


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _float(value: Any) -> Any:
    number = float(value)
    return number if math.isfinite(number) else {"float": repr(number)}


def _operations(value: Any) -> Any:
    if not all(isinstance(v, Operation) for v in value):
        raise TypeError("only tuples of operations")
    return {"operations": [v.name for v in value]}


_PLAIN: dict[str, Any] = {
    "int": int,
    "bool": bool,
    "str": str,
    "float": _float,
    "ints": lambda value: [int(v) for v in value],
    "any": _operations,
    "tensors": lambda value: [t.name for t in value],
}


def writes_files(attrs: Mapping[str, Any]) -> bool:
    """Whether an operation with these attributes prints to a file of its own choice."""
    return str(attrs.get("output_stream", "")).startswith("file:")


def attr_operations(op: Operation) -> list[Operation]:
    """The operations that are named in the attributes."""
    values = [op.attrs[k] for k, a in op.definition.attrs.items() if a.kind == "any"]
    return [o for value in values if isinstance(value, tuple) for o in value]


def element_name(element: Tensor | Operation) -> str:
    """``"name:0"`` of a tensor, ``"name"`` of an operation."""
    return element.name
