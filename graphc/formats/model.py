"""Saving a model to one file and loading it where its source was never seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError, FeedError, FileFormatError, GraphcError, GraphError
from graphc.formats import safetensors
from graphc.formats.graph_json import GraphDecoder, encode_operation
from graphc.graph import Graph, GraphKeys, Operation, Tensor
from graphc.passes.extract import reachable
from graphc.session import Session
from graphc.variables import Variable, VariableDef

FORMAT = "graphc"
FORMAT_VERSION = 1

Signature = dict[str, Tensor]


def save(path: Any, sess: Session, inputs: Any, outputs: Any) -> None:
    """Save what computes ``outputs`` from ``inputs``, with the session's variables, to one file.

    The file is in the safetensors format: variables and constants as tensors, the graph as JSON in
    the metadata.  It holds no code.

    Args:
      path: the file to write; an existing one is replaced in one step.
      sess: the session whose values of the variables are saved.
      inputs: the tensors to feed: a dict by name, a list (named like their operations) or one.
      outputs: the tensors to compute, likewise.
    Raises:
      ValueError, TypeError: inputs or outputs that are no tensors of the session's graph.
      FailedPreconditionError: a variable that is needed has no value.
      OSError: the file cannot be written.
    """
    graph = sess.graph
    ins, outs = _signature(graph, inputs, "inputs"), _signature(graph, outputs, "outputs")
    arrays: dict[str, np.ndarray] = {}
    feeds = {t: None for t in ins.values()}
    needed = reachable([t.op for t in outs.values()], {})
    _check_inputs(needed, outs, feeds)
    variables = _variables(graph, needed)
    roots = [t.op for t in (*outs.values(), *ins.values())]
    for v in variables:
        roots += [v.op, v.initializer, v.value().op, v.initial_value.op]
    operations = reachable(roots, {})
    for v in _variables(graph, operations):
        if v not in variables:
            variables.append(v)
    entries = [encode_operation(op, arrays) for op in operations]
    for v in variables:
        arrays[f"variable:{v.op.name}"] = sess.read_variable(v.op)
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "operations": entries,
        "inputs": {name: t.name for name, t in ins.items()},
        "outputs": {name: t.name for name, t in outs.items()},
        "variables": [_describe(v) for v in variables],
        "seed": graph.seed,
    }
    text = json.dumps(description, separators=(",", ":"), allow_nan=False)
    safetensors.write(path, arrays, {"format": FORMAT, "graphc": text})


def _describe(v: Variable) -> dict[str, Any]:
    names = v.to_proto()
    assert names is not None
    keys = [
        k for k in v.graph.get_all_collection_keys()
        if isinstance(k, str) and any(item is v for item in v.graph.get_collection(k))
    ]  # fmt: skip
    return {
        "handle": names.variable_name,
        "initial_value": names.initial_value_name,
        "initializer": names.initializer_name,
        "snapshot": names.snapshot_name,
        "trainable": v.trainable,
        "collections": keys,
    }


def _variables(graph: Graph, operations: Sequence[Operation]) -> list[Variable]:
    handles = {op for op in operations if op.type == "VariableV2"}
    found = {}
    for key in graph.get_all_collection_keys():
        for item in graph.get_collection(key):
            if isinstance(item, Variable) and item.op in handles:
                found.setdefault(item.op, item)
    from graphc.variables.guard import variables_by_op

    for op, v in variables_by_op(graph).items():
        if op in handles:
            found.setdefault(op, v)
    missing = [op.name for op in handles if op not in found]
    if missing:
        raise GraphError(f"the handles {missing} belong to no Variable")
    return [found[op] for op in sorted(found, key=lambda o: o.serial)]


def _check_inputs(needed: Sequence[Operation], outs: Signature, feeds: Any) -> None:
    cut = set(reachable([t.op for t in outs.values() if t not in feeds], feeds))
    unfed = [op.name for op in cut if op.type == "Placeholder" and op.outputs[0] not in feeds]
    if unfed:
        raise GraphError(
            f"the outputs depend on the placeholders {sorted(unfed)}, which are not among the "
            "inputs"
        )
    _ = needed


def _signature(graph: Graph, value: Any, what: str) -> Signature:
    if isinstance(value, Mapping):
        items = list(value.items())
    else:
        single = not isinstance(value, (list, tuple))
        items = [(None, v) for v in ((value,) if single else value)]
    found: Signature = {}
    for name, item in items:
        try:
            tensor = graph.as_graph_element(item, allow_operation=False)
        except (TypeError, KeyError) as e:
            raise DTypeError(f"{what}: {e}") from None
        assert isinstance(tensor, Tensor)
        key = name if name is not None else tensor.op.name.rsplit("/", 1)[-1]
        if not isinstance(key, str) or not key:
            raise DTypeError(f"{what}: names must be strings, not {key!r}")
        if key in found:
            raise GraphError(f"{what}: two tensors are named {key!r}; pass a dict")
        found[key] = tensor
    return found


class Model:
    """A loaded model: a graph, a session with its variables, and named inputs and outputs.

    Attributes:
      graph: the graph; it can be extended like any other.
      session: a session that holds the variables.
      inputs, outputs: tensors by name.
      variables: the Variables, in the order of their creation.
    """

    def __init__(
        self, graph: Graph, session: Session, inputs: Signature, outputs: Signature,
        variables: list[Variable],
    ) -> None:  # fmt: skip
        self.graph = graph
        self.session = session
        self.inputs = inputs
        self.outputs = outputs
        self.variables = variables

    def __call__(self, *args: Any, **feeds: Any) -> Any:
        """The outputs for named inputs (or positional ones, in the order they were saved).

        Returns:
          The array of the only output, or a dict of arrays by name.
        Raises:
          FeedError: (a ValueError) inputs that are unknown, missing or of the wrong shape.
        """
        values = self.run(*args, **feeds)
        return next(iter(values.values())) if len(values) == 1 else values

    def run(self, *args: Any, **feeds: Any) -> dict[str, Any]:
        """The outputs by name."""
        if len(args) > len(self.inputs):
            raise FeedError(f"{len(args)} inputs were given, the model has {list(self.inputs)}")
        given = dict(zip(self.inputs, args, strict=False))
        if twice := given.keys() & feeds.keys():
            raise FeedError(f"the inputs {sorted(twice)} were given twice")
        given |= feeds
        if unknown := given.keys() - self.inputs.keys():
            raise FeedError(
                f"there is no input {sorted(unknown)}; the model has {list(self.inputs)}"
            )
        values: dict[str, Any] = self.session.run(
            self.outputs, {self.inputs[name]: value for name, value in given.items()}
        )
        return values

    def __repr__(self) -> str:
        ins = ", ".join(f"{n}: {t.dtype.name}{t.shape}" for n, t in self.inputs.items())
        outs = ", ".join(f"{n}: {t.dtype.name}{t.shape}" for n, t in self.outputs.items())
        return f"<graphc.Model ({ins}) -> ({outs}), {len(self.variables)} variables>"


def load(path: Any, mode: str = "static") -> Model:
    """Load a model that :func:`save` wrote.

    Args:
      path: the file.
      mode: how its session runs; see :class:`~graphc.Session`.
    Raises:
      FileFormatError: (a ValueError) a file that is truncated, altered, hostile or too new.
      OSError: it cannot be read.
    """
    arrays, metadata = safetensors.read(path)
    description = _description(path, metadata)
    graph = Graph()
    decoder = GraphDecoder(path, graph, arrays)
    decoder.operations(description.get("operations"))
    seed = description.get("seed")
    graph.seed = seed if type(seed) is int else None
    with graph.as_default():
        variables = [_variable(decoder, entry) for entry in _list(decoder, description)]
    session = Session(graph=graph, mode=mode)
    for v in variables:
        _load_value(decoder, session, v, arrays)
    inputs = _tensors(decoder, description.get("inputs"))
    outputs = _tensors(decoder, description.get("outputs"))
    return Model(graph, session, inputs, outputs, variables)


def _description(path: Any, metadata: Mapping[str, str]) -> dict[str, Any]:
    text = metadata.get("graphc")
    if text is None:
        raise FileFormatError(f"{path}: a safetensors file, but without a graphc graph")
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise FileFormatError(f"{path}: the graph is not valid JSON: {e}") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise FileFormatError(f"{path}: the metadata is not a graphc graph")
    version = description.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise FileFormatError(
            f"{path}: format version {version!r}; this graphc reads up to {FORMAT_VERSION}"
        )
    return description


def _list(decoder: GraphDecoder, description: dict[str, Any]) -> list[dict[str, Any]]:
    found = description.get("variables", [])
    if not isinstance(found, list) or not all(isinstance(v, dict) for v in found):
        raise decoder.fail("the variables are not a list of objects")
    return found


def _variable(decoder: GraphDecoder, entry: dict[str, Any]) -> Variable:
    handle = decoder.tensor(entry.get("handle"))
    decoder.tensor(entry.get("initial_value"))
    decoder.tensor(entry.get("snapshot"))
    initializer = decoder.element(entry.get("initializer"))
    if handle.op.type != "VariableV2" or initializer.type != "Assign":
        raise decoder.fail(f"{handle.name} is not a variable")
    names = VariableDef(
        entry["handle"], entry["initial_value"], entry["initializer"], entry["snapshot"],
        entry.get("trainable") is not False,
    )  # fmt: skip
    try:
        variable = Variable.from_proto(names)
    except (GraphcError, KeyError, ValueError) as e:
        raise decoder.fail(f"the variable {handle.name} is malformed: {e}") from e
    keys = entry.get("collections", [GraphKeys.GLOBAL_VARIABLES])
    if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys):
        raise decoder.fail(f"the collections of {handle.name} are not a list of names")
    handle.graph.add_to_collections(tuple(keys), variable)
    return variable


def _load_value(
    decoder: GraphDecoder, session: Session, v: Variable, arrays: Mapping[str, np.ndarray]
) -> None:
    value = arrays.get(f"variable:{v.op.name}")
    if value is None:
        raise decoder.fail(f"the value of variable {v.op.name} is missing")
    if value.dtype != v.dtype.base_dtype.numpy or not v.shape.is_compatible_with(value.shape):
        raise decoder.fail(
            f"variable {v.op.name} is {v.dtype.base_dtype.name}{v.shape}, its value is "
            f"{value.dtype}{value.shape}"
        )
    session.load_variable(v.op, value)


def _tensors(decoder: GraphDecoder, entry: Any) -> Signature:
    if not isinstance(entry, dict):
        raise decoder.fail("the signature is not an object")
    return {name: decoder.tensor(ref) for name, ref in entry.items()}
