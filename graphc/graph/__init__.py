"""The graph: named, typed operations and the tensors that they produce.

A :class:`Graph` is append-only while the user declares it.  Names, scopes, control dependencies,
devices and collections follow TensorFlow 1.15.  The compiler works on copies
(:class:`~graphc.function.Function`), never on the user's graph.
"""

from __future__ import annotations

from graphc.graph.devices import DeviceName, parse_device
from graphc.graph.graph import (
    OP_NAME,
    Graph,
)
from graphc.graph.nodes import (
    NodeDef,
    Operation,
    Tensor,
    TensorType,
    overload,
)
from graphc.graph.region import Region
from graphc.graph.scope import (
    GraphKeys,
    add_to_collection,
    add_to_collections,
    control_dependencies,
    device,
    get_collection,
    get_collection_ref,
    get_default_graph,
    graph_of,
    name_scope,
    reset_default_graph,
)
from graphc.graph.stacks import (
    get_default_session,
    pop_session,
    push_session,
    session_context,
)

__all__ = [
    "OP_NAME",
    "DeviceName",
    "Graph",
    "GraphKeys",
    "NodeDef",
    "Operation",
    "Region",
    "Tensor",
    "TensorType",
    "add_to_collection",
    "add_to_collections",
    "control_dependencies",
    "device",
    "get_collection",
    "get_collection_ref",
    "get_default_graph",
    "get_default_session",
    "graph_of",
    "name_scope",
    "overload",
    "parse_device",
    "pop_session",
    "push_session",
    "reset_default_graph",
    "session_context",
]
