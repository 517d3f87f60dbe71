"""Loading a model where its source was never seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.errors import FileFormatError, GraphcError
from graphc.formats import safetensors
from graphc.formats.closure import operation_of
from graphc.formats.decode import GraphDecoder
from graphc.formats.kernels import load_kernels
from graphc.formats.model import Model
from graphc.formats.safetensors import parse_json, shown
from graphc.formats.save import FORMAT, FORMAT_VERSION
from graphc.graph import Graph, Operation, Tensor
from graphc.session import Session
from graphc.variables import Variable, VariableDef

_KEYS = {
    "format_version", "operations", "sources", "inputs", "outputs", "variables", "collections",
    "seed",
}  # fmt: skip
_VARIABLE_KEYS = {"handle", "initial_value", "initializer", "snapshot", "trainable"}


def load(
    path: Any, mode: str = "static", device: Any = "cpu", kernels: Any = None
) -> Model:
    """Load a model that :func:`~graphc.formats.save.save` wrote.

    Nothing in the file is executed, and everything it claims is checked first.

    Args:
      path: the file.
      mode, device: how and where its session runs; see :class:`~graphc.Session`.
      kernels: a file of :func:`~graphc.save_kernels`: GPUs that it is for need not compile.
    Raises:
      FileFormatError: (a ValueError) a file that is truncated, altered, hostile or too new.
      OSError: it cannot be read.
    """
    if kernels is not None:
        load_kernels(kernels)
    arrays, metadata = safetensors.read(path)
    description = _description(path, metadata, arrays)
    graph = Graph()
    decoder = GraphDecoder(path, graph, arrays)
    regions = description.get("regions", [])
    decoder.operations(description["operations"], description["sources"], regions)
    seed = description["seed"]
    if seed is not None:
        graph.seed = decoder.integer(seed, "the seed")
    with graph.as_default():
        variables = _variables(decoder, description["variables"])
    _collections(decoder, variables, description["collections"])
    session = Session(graph=graph, mode=mode, device=device)
    for op, v in variables.items():
        _load_value(decoder, session, v, arrays.get(f"variable:{op.name}"))
    inputs = _signature(decoder, description["inputs"], "the inputs")
    outputs = _signature(decoder, description["outputs"], "the outputs")
    if not all(isinstance(t, Tensor) for t in inputs.values()):
        raise decoder.fail("an input is an operation, not a tensor")
    return Model(graph, session, inputs, outputs, list(variables.values()))


def _description(
    path: Any, metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    text = metadata.get("graphc")
    if text is None or metadata.get("format") != FORMAT:
        raise FileFormatError(f"{path}: a safetensors file, but not one with a graphc graph")
    description = parse_json(path, text, "the graph")
    if not isinstance(description, dict):
        raise FileFormatError(f"{path}: the metadata is not a graphc graph")
    # The version first: what else a newer file holds is not for this graphc to judge.
    version = description.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise FileFormatError(
            f"{path}: its format version is {shown(version)}; this graphc reads up to "
            f"{FORMAT_VERSION}: upgrade graphc to read it"
        )
    if metadata.get("sha256") != safetensors.checksum(arrays, text):
        raise FileFormatError(f"{path}: the checksum is wrong: the file was altered")
    keys = _KEYS if version == 1 else _KEYS | {"regions"}
    if set(description) != keys:
        odd = sorted(set(description) ^ keys)
        raise FileFormatError(f"{path}: the graph's fields {shown(odd)} are unknown or missing")
    return description


def _variables(decoder: GraphDecoder, entries: Any) -> dict[Operation, Variable]:
    found: dict[Operation, Variable] = {}
    for entry in decoder.typed(entries, list, "the variables"):
        if not isinstance(entry, dict) or set(entry) != _VARIABLE_KEYS:
            raise decoder.fail(f"a variable is malformed: {shown(entry)}")
        variable = _variable(decoder, entry)
        if variable.op in found:
            raise decoder.fail(f"the variable {variable.op.name} stands twice")
        found[variable.op] = variable
    handles = {op for op in decoder.graph.get_operations() if op.type == "VariableV2"}
    if missing := handles - found.keys():
        raise decoder.fail(f"the handles {sorted(op.name for op in missing)} are of no variable")
    return found


def _variable(decoder: GraphDecoder, entry: dict[str, Any]) -> Variable:
    handle, initializer = decoder.tensor(entry["handle"]), decoder.element(entry["initializer"])
    initial, snapshot = decoder.tensor(entry["initial_value"]), decoder.tensor(entry["snapshot"])
    right = (
        handle.op.type == "VariableV2"
        and initializer.type == "Assign"
        and initializer.inputs[0] is handle
        and snapshot.op.type == "Identity"
        and snapshot.op.inputs[0] is handle
        and initial.dtype.base_dtype is handle.dtype.base_dtype
        and {e.region for e in (initializer, initial.op, snapshot.op)} == {None}
    )
    if not right:
        raise decoder.fail(f"{handle.name} is no variable with an initializer and a read")
    names = VariableDef(
        entry["handle"], entry["initial_value"], entry["initializer"], entry["snapshot"],
        decoder.typed(entry["trainable"], bool, f"whether {handle.name} is trainable"),
    )  # fmt: skip
    try:
        return Variable.from_proto(names)
    except (GraphcError, KeyError, ValueError) as e:
        raise decoder.fail(f"the variable {handle.name} is malformed: {e}") from e


def _collections(
    decoder: GraphDecoder, variables: Mapping[Operation, Variable], entries: Any
) -> None:
    for key, items in decoder.typed(entries, dict, "the collections").items():
        for item in decoder.typed(items, list, f"the collection {shown(key)}"):
            if not isinstance(item, list) or len(item) != 2:
                raise decoder.fail(f"the collection {shown(key)} holds {shown(item)}")
            kind, ref = item
            value: Any = None
            if kind == "variable":
                value = variables.get(decoder.element(ref))
            elif kind == "tensor":
                value = decoder.tensor(ref)
            elif kind == "operation":
                value = decoder.element(ref)
            if value is None:
                raise decoder.fail(f"the collection {shown(key)} holds {shown(item)}")
            decoder.graph.add_to_collection(key, value)


def _load_value(
    decoder: GraphDecoder, session: Session, v: Variable, value: np.ndarray | None
) -> None:
    if value is None:
        return
    if value.dtype != v.dtype.base_dtype.numpy or not v.shape.is_compatible_with(value.shape):
        raise decoder.fail(
            f"variable {v.op.name} is {v.dtype.base_dtype.name}{v.shape}, its value is "
            f"{value.dtype}{value.shape}"
        )
    session.load_variable(v.op, value)


def _signature(decoder: GraphDecoder, entry: Any, what: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, ref in decoder.typed(entry, dict, what).items():
        is_tensor = isinstance(ref, str) and ":" in ref
        found[name] = decoder.tensor(ref) if is_tensor else decoder.element(ref)
        decoder.bodies.check_visible([operation_of(found[name])], None, f"{what} {shown(name)}")
    return found
