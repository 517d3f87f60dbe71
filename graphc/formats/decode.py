"""Operations from plain JSON values, trusting nothing: every claim is checked before it is used."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphc import dims
from graphc.build import complete_attrs
from graphc.dims import Dim, DimLike, fresh
from graphc.dtypes import DType, as_dtype
from graphc.errors import FileFormatError, GraphError, Location
from graphc.formats.decode_regions import RegionDecoder
from graphc.formats.encode import OPERATION_KEYS, writes_files
from graphc.formats.safetensors import MAX_DIMS, shown
from graphc.graph import Graph, Operation, Tensor, TensorType, parse_device
from graphc.op import REGISTRY, Attr, InferContext, Op, bind_args, check_dtype
from graphc.ops.control import ControlOp

_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\-/]*", re.ASCII)
_SYMBOL = re.compile(r"[sn][0-9]{1,9}", re.ASCII)
_OUTPUT = re.compile(r"[0-9]{1,9}", re.ASCII)
_LIMIT = 1 << 63
_INT32 = 1 << 31
_DEPTH = 16
_SIZE_FUNCTIONS: dict[str, Callable[[DimLike, DimLike], DimLike]] = {
    "floordiv": dims.floordiv, "mod": dims.mod, "max": dims.maximum, "min": dims.minimum,
}  # fmt: skip

# How an operation that was saved by an older version of its op becomes one of today's:
# (op, saved version) -> a function of the attributes that gives those of the next version.
UPGRADES: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}


class GraphDecoder:
    """Rebuilds operations in a graph.

    Attributes:
      path: the file, for messages.
      graph: where the operations go.
      arrays: the file's tensors.
      sources: (file, function) of the declarations.
      bodies: the file's regions.
    """

    def __init__(self, path: Any, graph: Graph, arrays: Mapping[str, np.ndarray]) -> None:
        self.path = path
        self.graph = graph
        self.arrays = arrays
        self.sources: list[tuple[str, str]] = []
        self.bodies = RegionDecoder(self, [])
        self._symbols: dict[str, Dim] = {}
        self._found: dict[str, Operation] = {}

    def fail(self, message: str) -> FileFormatError:
        """An error that names the file."""
        return FileFormatError(f"{self.path}: {message}")

    def typed(self, value: Any, type_: type, what: str) -> Any:
        """The value, which must be of exactly that type."""
        if type(value) is not type_:
            raise self.fail(f"{what} must be {type_.__name__}, not {shown(value)}")
        return value

    def names(self, entry: dict[str, Any], key: str) -> list[str]:
        """A list of strings of an entry; empty where it is left out."""
        found: list[str] = self.typed(entry.get(key, []), list, key)
        return [self.typed(v, str, key) for v in found]

    # --- operations -------------------------------------------------------------------------------

    def operations(self, entries: Any, sources: Any, regions: Any) -> None:
        """Add all operations, each after those it uses."""
        self.bodies = RegionDecoder(self, regions)
        for pair in self.typed(sources, list, "the sources"):
            if len(self.typed(pair, list, "a source")) != 2:
                raise self.fail(f"a source is a file and a function, not {shown(pair)}")
            file, function = (self.typed(v, str, "a source") for v in pair)
            self.sources.append((file, function))
        for number, entry in enumerate(self.typed(entries, list, "the operations")):
            self.operation(entry, number)
        self.bodies.finish()

    def operation(self, entry: Any, number: int) -> None:
        """Add one operation."""
        if not isinstance(entry, dict) or not entry.keys() <= set(OPERATION_KEYS):
            raise self.fail(f"operation number {number} is malformed: {shown(entry)}")
        name, type_ = entry.get("name"), entry.get("op")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith("/"):
            raise self.fail(f"{shown(name)} is not a valid operation name")
        if name in self._found:
            raise self.fail(f"operation {name!r} stands twice")
        definition = REGISTRY.get(type_) if isinstance(type_, str) else None
        if definition is None:
            raise self.fail(f"operation {name!r} is of the unknown op {shown(type_)}")
        # Host is what a compilation makes of such operations; no graph of a user has one.
        if definition.name == "Host" or not getattr(definition, "portable", True):
            raise self.fail(f"operation {name!r} ({type_}) calls Python code, which no file may")
        try:
            self._add(entry, name, definition, number)
        except FileFormatError:
            raise
        # Whatever an op's inference makes of attributes that no script could have declared.
        except Exception as e:
            raise self.fail(
                f"operation {name!r} ({type_}) is malformed: {type(e).__name__}: {e}"
            ) from e

    def _add(self, entry: dict[str, Any], name: str, definition: Op, number: int) -> None:
        inputs = [self.tensor(ref) for ref in self.names(entry, "inputs")]
        control = [self.element(ref) for ref in self.names(entry, "control_inputs")]
        here = self.bodies.home(entry, name, definition)
        self.bodies.check_visible([*(t.op for t in inputs), *control], here, repr(name))
        self._check_operands(definition, inputs, name)
        given = self.typed(entry.get("attrs", {}), dict, f"the attributes of {name!r}")
        attrs = {}
        for key, value in self._upgraded(definition, entry, given, name).items():
            attr = definition.attrs.get(key)
            if attr is None:
                raise self.fail(f"operation {name!r} has the unknown attribute {shown(key)}")
            attrs[key] = self.attr(attr, value, f"attribute {key!r} of {name!r}")
        full = complete_attrs(definition, attrs)
        if writes_files(full):
            raise self.fail(f"operation {name!r} writes to a file when it runs")
        if isinstance(definition, ControlOp):
            self.bodies.check_owner(definition, name, inputs, full, here)
        inferred = definition.infer(InferContext(definition, name, inputs, full))
        types = self._types(entry.get("types", []), inferred, name)
        location = self._location(entry.get("at"), number)
        device = self.typed(entry.get("device", ""), str, f"the device of {name!r}")
        graph = self.graph
        try:
            parse_device(device)
        except GraphError as e:
            raise self.fail(f"the device of {name!r} is malformed: {e}") from None
        with (
            graph.within(here),
            graph.control_dependencies(control),
            graph.device(device or None),
        ):
            op = graph.add_operation(definition, inputs, full, types, name, location)
        if op.device != device or op.control_inputs != control:
            raise self.fail(f"the device or the control inputs of {name!r} are malformed")
        for body in full.get("bodies", ()):
            body.owner = op
        self._found[name] = op
        graph._names_in_use.setdefault(name.lower(), 1)

    def _upgraded(
        self, definition: Op, entry: dict[str, Any], attrs: dict[str, Any], name: str
    ) -> dict[str, Any]:
        version = self.typed(entry.get("version"), int, f"the version of {name!r}")
        while version != definition.version:
            upgrade = UPGRADES.get((definition.name, version))
            if upgrade is None:
                raise self.fail(
                    f"operation {name!r} is of version {version} of op {definition.name}; this "
                    f"graphc reads {definition.version}"
                )
            attrs, version = upgrade(attrs), version + 1
        return attrs

    def _check_operands(self, definition: Op, inputs: list[Tensor], name: str) -> None:
        args = definition.args
        variadic = sum(a.variadic for a in args)
        if len(inputs) < len(args) - variadic or (not variadic and len(inputs) != len(args)):
            raise self.fail(
                f"operation {name!r} ({definition.name}) has {len(inputs)} operands, expected "
                f"{len(args)}"
            )
        first: dict[str, DType] = {}
        for arg, tensors in bind_args(definition, inputs):
            for t in tensors:
                check_dtype(definition, arg, t.dtype)
                dtype = t.dtype.base_dtype
                if arg.type_var and first.setdefault(arg.type_var, dtype) is not dtype:
                    raise self.fail(f"the operands of {name!r} differ in dtype")
                if arg.ref and not t.dtype.is_ref:
                    raise self.fail(f"operand {arg.name!r} of {name!r} must be a variable's handle")

    def _location(self, at: Any, number: int) -> Location:
        if at is None:
            return Location(str(self.path), number, "<model>")
        pair = self.typed(at, list, "a location")
        if len(pair) != 2 or not all(type(v) is int and 0 <= v < _LIMIT for v in pair):
            raise self.fail(f"{shown(at)} is not a location")
        if pair[0] >= len(self.sources):
            raise self.fail(f"there is no source number {pair[0]}")
        file, function = self.sources[pair[0]]
        return Location(file, pair[1], function)

    # --- references -------------------------------------------------------------------------------

    def tensor(self, ref: Any) -> Tensor:
        """A tensor of an operation that is already there."""
        if isinstance(ref, str):
            name, _, index = ref.rpartition(":")
            op = self._found.get(name)
            number = int(index) if _OUTPUT.fullmatch(index) else -1
            if op is not None and 0 <= number < len(op.outputs):
                return op.outputs[number]
        raise self.fail(f"there is no tensor {shown(ref)} where it is used")

    def element(self, ref: Any) -> Operation:
        """An operation that is already there."""
        op = self._found.get(ref) if isinstance(ref, str) else None
        if op is None:
            raise self.fail(f"there is no operation {shown(ref)} where it is used")
        return op

    # --- types ------------------------------------------------------------------------------------

    def _types(self, saved: Any, inferred: Any, name: str) -> list[TensorType]:
        """What inference gives, with what the saved types know better (``set_shape``)."""
        what = f"the types of {name!r}"
        if len(self.typed(saved, list, what)) != len(inferred):
            raise self.fail(f"{what} are {len(saved)}, expected {len(inferred)}")
        types = []
        for pair, found in zip(saved, inferred, strict=True):
            if len(self.typed(pair, list, what)) != 2:
                raise self.fail(f"{what}: {shown(pair)} is not a dtype and a shape")
            if pair[0] != found.dtype.name:
                raise self.fail(f"{what}: {shown(pair[0])} is saved, it is {found.dtype.name}")
            sizes = None if pair[1] is None else self.shape(pair[1], what)
            types.append(TensorType(found.dtype, self._merged(sizes, found.sizes, what)))
        return types

    def _merged(
        self, saved: tuple[DimLike, ...] | None, inferred: tuple[DimLike, ...] | None, what: str
    ) -> tuple[DimLike, ...] | None:
        if saved is None or inferred is None:
            return inferred if saved is None else saved
        wrong = len(saved) != len(inferred) or any(
            isinstance(a, int) and isinstance(b, int) and a != b
            for a, b in zip(saved, inferred, strict=True)
        )
        if wrong:
            raise self.fail(f"{what}: the shape {shown(saved)} is saved, it is {shown(inferred)}")
        return tuple(self._merged_size(a, b) for a, b in zip(saved, inferred, strict=True))

    def _merged_size(self, saved: DimLike, inferred: DimLike) -> DimLike:
        if isinstance(saved, int) or isinstance(inferred, int):
            return saved if isinstance(saved, int) else inferred
        new, named = inferred.as_symbol, saved.as_symbol
        # More may have been known than inference finds: that two sizes are equal.  The compiler
        # infers by itself, and believes no file.
        same_kind = new is not None and named is not None and new.positive == named.positive
        return saved if same_kind else inferred

    def shape(self, value: Any, what: str) -> tuple[DimLike, ...]:
        """A shape of known rank."""
        sizes = tuple(self.size(s, what) for s in self.typed(value, list, what))
        if len(sizes) > MAX_DIMS or any(isinstance(s, int) and s < 0 for s in sizes):
            raise self.fail(f"{what} has the shape {shown(value)}")
        return sizes

    def size(self, value: Any, what: str, depth: int = 0) -> DimLike:
        """A size: a number, None, a symbol by name, or a sum of terms."""
        if type(value) is int and -_LIMIT <= value < _LIMIT:
            return value
        if value is None:
            return fresh()
        if isinstance(value, str) and _SYMBOL.fullmatch(value):
            return self.symbol(value)
        if not isinstance(value, list) or depth > _DEPTH or len(value) > 1000:
            raise self.fail(f"{what} has the size {shown(value)}")
        total: DimLike = 0
        for term in value:
            factors = self.typed(term, list, what)
            if not factors or type(factors[0]) is not int or len(factors) > 100:
                raise self.fail(f"{what} has the size {shown(value)}")
            product = self.size(factors[0], what)
            for factor in factors[1:]:
                product = product * self.atom(factor, what, depth)
            total = total + product
        return total

    def atom(self, value: Any, what: str, depth: int) -> DimLike:
        """A factor of a term: a symbol, or a function of two sizes."""
        if isinstance(value, str):
            return self.size(value, what)
        if isinstance(value, dict) and set(value) == {"fn", "a", "b"}:
            fn = _SIZE_FUNCTIONS.get(value["fn"]) if isinstance(value["fn"], str) else None
            if fn is not None:
                a, b = (self.size(value[k], what, depth + 1) for k in ("a", "b"))
                return fn(a, b)
        raise self.fail(f"{what} has the size {shown(value)}")

    def symbol(self, name: str) -> Dim:
        """The symbol that the file calls so; the same one for the same name."""
        found = self._symbols.get(name)
        if found is None:
            found = fresh("v", positive=False) if name[0] == "n" else fresh()
            self._symbols[name] = found
        return found

    # --- attributes -------------------------------------------------------------------------------

    def attr(self, attr: Attr, value: Any, what: str) -> Any:
        """An attribute's value, checked against its kind."""
        if value is None:
            if attr.default is not None:
                raise self.fail(f"{what} is null")
            return None
        if attr.kind == "array":
            return self.array(value, what)
        if attr.kind == "dtype":
            dtype = as_dtype(self.typed(value, str, what))
            if dtype.is_ref:
                raise self.fail(f"{what} is {dtype.name}")
            return dtype
        if attr.kind == "shape":
            return self.shape(value, what)
        if attr.kind == "ints":
            # Strides, windows, paddings, axes: 32 bits, so that products of two stay exact.
            return tuple(self.integer(v, what, _INT32) for v in self.typed(value, list, what))
        if attr.kind == "int":
            return self.integer(value, what)
        if attr.kind == "float":
            return self.number(value, what)
        if attr.kind == "any":
            return self._handles(value, what)
        if attr.kind == "regions":
            return self.bodies.listed(value, what)
        if attr.kind == "tensors":
            return [self.tensor(ref) for ref in self.typed(value, list, what)]
        return self.typed(value, {"bool": bool, "str": str}[attr.kind], what)

    def integer(self, value: Any, what: str, limit: int = 1 << 63) -> int:
        """An integer of 64 bits, or of fewer."""
        if not -limit <= self.typed(value, int, what) < limit:
            raise self.fail(f"{what} is out of range: {shown(value)}")
        return int(value)

    def number(self, value: Any, what: str) -> float:
        """A float; what JSON has no name for is ``{"float": "nan"}``."""
        if type(value) is int:
            return float(self.integer(value, what))
        if isinstance(value, dict) and value in ({"float": n} for n in ("nan", "inf", "-inf")):
            return float(value["float"])
        return float(self.typed(value, float, what))

    def _handles(self, value: Any, what: str) -> tuple[Operation, ...]:
        if not isinstance(value, dict) or set(value) != {"operations"}:
            raise self.fail(f"{what} is malformed: {shown(value)}")
        found = tuple(self.element(name) for name in self.names(value, "operations"))
        if any(op.type != "VariableV2" for op in found):
            raise self.fail(f"{what} names operations that are no variables")
        return found

    def array(self, value: Any, what: str) -> np.ndarray:
        """A constant."""
        if isinstance(value, dict) and set(value) == {"tensor"}:
            found = self.arrays.get(self.typed(value["tensor"], str, what))
            if found is None:
                raise self.fail(f"{what} is missing from the file's tensors")
            return found
        if isinstance(value, dict) and set(value) == {"strings", "shape"}:
            texts = [self.typed(t, str, what) for t in self.typed(value["strings"], list, what)]
            shape = [self.integer(s, what) for s in self.typed(value["shape"], list, what)]
            if any(s < 0 for s in shape):
                raise self.fail(f"{what} has the shape {shown(shape)}")
            out = np.empty(len(texts), object)
            out[:] = [t.encode("utf-8", "surrogateescape") for t in texts]
            return out.reshape(shape)
        raise self.fail(f"{what} is not an array: {shown(value)}")
