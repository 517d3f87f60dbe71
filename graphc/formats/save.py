"""Saving a model to one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError, FailedPreconditionError, GraphError
from graphc.formats import safetensors
from graphc.formats.closure import Element, closure, needed_operations, operation_of
from graphc.formats.encode import GraphEncoder
from graphc.graph import Graph, Operation, Tensor
from graphc.session import Session
from graphc.variables import Variable

FORMAT = "graphc"
FORMAT_VERSION = 2


def save(path: Any, sess: Session, inputs: Any, outputs: Any) -> None:
    """Save what computes ``outputs`` from ``inputs``, with the session's variables, to one file.

    The file is in the safetensors format: variables and constants as tensors, the graph as JSON in
    the metadata.  It holds no code.  ``docs/file_format.md`` describes it.

    Args:
      path: the file to write; an existing one is replaced in one step.
      sess: the session whose values of the variables are saved.
      inputs: the tensors to feed: a dict by name, a list (named like their operations) or one.
      outputs: the tensors to compute, and operations to run (a training step, say), likewise.
    Raises:
      ValueError, TypeError: inputs or outputs that are no tensors of the session's graph, or
        outputs that depend on a placeholder that is not among the inputs; tensors inside of
        loops and branches.
      FailedPreconditionError: a variable that the outputs need has no value.
      OSError: the file cannot be written; an old one is left as it was.
    """
    if not isinstance(sess, Session):
        raise DTypeError(f"save(path, sess, inputs, outputs): {sess!r} is not a Session")
    graph = sess.graph
    ins = signature(graph, inputs, "inputs", operations=False)
    outs = signature(graph, outputs, "outputs", operations=True)
    if len(set(ins.values())) < len(ins):
        raise GraphError(f"inputs: one tensor has several of the names {list(ins)}")
    needed = needed_operations(ins.values(), outs.values())
    check_inputs(needed, ins)
    operations, variables = closure(
        graph, [operation_of(e) for e in (*outs.values(), *ins.values())]
    )
    encoder = GraphEncoder()
    entries = [encoder.operation(op) for op in operations]
    arrays = encoder.arrays
    for v, value in zip(variables, _values(sess, variables, set(needed)), strict=True):
        if value is not None:
            arrays[f"variable:{v.op.name}"] = value
    description = {
        # The first version that can say it, so that an older graphc reads what it understands.
        "format_version": FORMAT_VERSION if encoder.regions else 1,
        "operations": entries,
        "sources": encoder.sources,
        "inputs": {name: e.name for name, e in ins.items()},
        "outputs": {name: e.name for name, e in outs.items()},
        "variables": [_describe(v) for v in variables],
        "collections": _collections(graph, set(operations), variables),
        "seed": None if graph.seed is None else int(graph.seed),
    }
    if encoder.regions:
        description["regions"] = encoder.regions
    text = json.dumps(description, separators=(",", ":"), allow_nan=False)
    metadata = {"format": FORMAT, "graphc": text, "sha256": safetensors.checksum(arrays, text)}
    safetensors.write(path, arrays, metadata)


def signature(graph: Graph, value: Any, what: str, operations: bool) -> dict[str, Any]:
    """Tensors (and operations) by name, from what a user gave.

    Raises:
      TypeError: something that is none. ValueError: of another graph, inside of a body, or two of
        one name.
    """
    if isinstance(value, Mapping):
        items = list(value.items())
    else:
        several = isinstance(value, (list, tuple))
        items = [(None, v) for v in (value if several else (value,))]
    found: dict[str, Element] = {}
    for name, item in items:
        try:
            element = graph.as_graph_element(item, allow_operation=operations)
        except KeyError as e:
            raise GraphError(f"{what}: {e.args[0]}") from None
        except TypeError as e:
            raise DTypeError(f"{what}: {e}") from None
        except ValueError as e:
            raise GraphError(f"{what}: {e}") from None
        region = operation_of(element).region
        if region is not None:
            raise GraphError(
                f"{what}: {element.name} (declared at {operation_of(element).location}) is inside "
                f"'{region.name}': return it from there"
            )
        key = name if name is not None else operation_of(element).name.rsplit("/", 1)[-1]
        if not isinstance(key, str) or not key:
            raise DTypeError(f"{what}: names must be strings, not {key!r}")
        if key in found:
            raise GraphError(f"{what}: two tensors are named {key!r}; pass a dict by name")
        found[key] = element
    return found


def check_inputs(needed: Sequence[Operation], ins: Mapping[str, Tensor]) -> None:
    """Refuse outputs that depend on placeholders that are not inputs."""
    fed = set(ins.values())
    unfed = [op for op in needed if op.type == "Placeholder" and op.outputs[0] not in fed]
    if unfed:
        listed = ", ".join(f"{op.name} (declared at {op.location})" for op in unfed)
        raise GraphError(
            f"the outputs depend on placeholders that are not among the inputs {list(ins)}: "
            f"{listed}"
        )


def _values(
    sess: Session, variables: Sequence[Variable], needed: set[Operation]
) -> list[np.ndarray | None]:
    # All at once: what another thread trains meanwhile must not be torn.
    values = sess.read_variables([v.op for v in variables])
    for v, value in zip(variables, values, strict=True):
        # A training step may initialize what it needs; what is only read must be there.
        if value is None and v.op in needed:
            raise FailedPreconditionError(
                v.op.node_def, v.op, f"Attempting to use uninitialized value {v.op.name}"
            )
    return values


def _describe(v: Variable) -> dict[str, Any]:
    names = v.to_proto()
    assert names is not None
    return {
        "handle": names.variable_name,
        "initial_value": names.initial_value_name,
        "initializer": names.initializer_name,
        "snapshot": names.snapshot_name,
        "trainable": v.trainable,
    }


def _collections(
    graph: Graph, saved: set[Operation], variables: Sequence[Variable]
) -> dict[str, list[list[str]]]:
    """Variables, tensors and operations of the named collections, so far as they are saved."""
    known = set(map(id, variables))
    found: dict[str, list[list[str]]] = {}
    for key in graph.get_all_collection_keys():
        if not isinstance(key, str):
            continue
        for item in graph.get_collection(key):
            if id(item) in known:
                found.setdefault(key, []).append(["variable", item.op.name])
            elif isinstance(item, Tensor) and item.op in saved:
                found.setdefault(key, []).append(["tensor", item.name])
            elif isinstance(item, Operation) and item in saved:
                found.setdefault(key, []).append(["operation", item.name])
    return found
