"""Functions on the default graph, with the names of TensorFlow 1.x."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from graphc.errors import DTypeError, GraphError
from graphc.graph.graph import Graph
from graphc.graph.nodes import Operation, Tensor
from graphc.graph.stacks import STACKS

_GLOBAL: list[Graph] = [Graph()]


def get_default_graph() -> Graph:
    """The graph that declarations go to: the innermost ``as_default``, else the global one."""
    return STACKS.graphs[-1] if STACKS.graphs else _GLOBAL[0]


def reset_default_graph() -> None:
    """Replace the global default graph by an empty one.

    Raises:
      GraphError: (an AssertionError in TensorFlow) inside a ``with graph.as_default()``.
    """
    if STACKS.graphs:
        raise GraphError(
            "Do not use tf.reset_default_graph() to clear nested graphs. If you need a cleared "
            "graph, exit the nesting and create a new graph."
        )
    _GLOBAL[0] = Graph()


def graph_of(values: Iterable[Any]) -> Graph:
    """The one graph that all tensors among ``values`` belong to; the default graph for none.

    Raises:
      GraphError: (a ValueError) when two tensors are of different graphs.
    """
    graph: Graph | None = None
    first: Any = None
    for value in values:
        if isinstance(value, (Tensor, Operation)) or hasattr(value, "_as_graph_element"):
            if graph is None:
                graph, first = value.graph, value
            elif value.graph is not graph:
                raise GraphError(f"{value} must be from the same graph as {first}.")
    return graph or get_default_graph()


class name_scope(contextlib.ContextDecorator):
    """Prefix the names of operations declared inside.

    Args:
      name: the scope; None uses ``default_name``; a trailing slash re-enters a scope.
      default_name: used when ``name`` is None.
      values: tensors whose graph the scope is opened in.
    """

    def __init__(self, name: str | None, default_name: str | None = None, values: Any = None):
        if name is not None and not isinstance(name, str):
            raise DTypeError("name for name_scope must be a string.")
        self._name = default_name if name is None else name
        self._values = values
        self._stack: list[contextlib.ExitStack] = []

    @property
    def name(self) -> str | None:
        """The scope's name as it was asked for."""
        return self._name

    def __enter__(self) -> str:
        graph = graph_of(self._values or ())
        with contextlib.ExitStack() as stack:
            if graph is not get_default_graph():
                stack.enter_context(graph.as_default())
            scope = stack.enter_context(graph.name_scope(self._name))
            self._stack.append(stack.pop_all())
        return scope

    def __exit__(self, *exc: Any) -> None:
        self._stack.pop().close()


def control_dependencies(control_inputs: Iterable[Any] | None) -> Any:
    """Operations declared inside run after ``control_inputs``."""
    return get_default_graph().control_dependencies(control_inputs)


def device(device_name_or_function: Any) -> Any:
    """Record a device for the operations declared inside."""
    return get_default_graph().device(device_name_or_function)


def add_to_collection(name: Any, value: Any) -> None:
    """Append ``value`` to a collection of the default graph."""
    get_default_graph().add_to_collection(name, value)


def add_to_collections(names: Any, value: Any) -> None:
    """Append ``value`` to several collections of the default graph."""
    get_default_graph().add_to_collections(names, value)


def get_collection(key: Any, scope: str | None = None) -> list[Any]:
    """A copy of a collection of the default graph."""
    return get_default_graph().get_collection(key, scope)


def get_collection_ref(key: Any) -> list[Any]:
    """A collection of the default graph itself."""
    return get_default_graph().get_collection_ref(key)


class GraphKeys:
    """Names of the standard collections, as in TensorFlow."""

    GLOBAL_VARIABLES = "variables"
    LOCAL_VARIABLES = "local_variables"
    METRIC_VARIABLES = "metric_variables"
    MODEL_VARIABLES = "model_variables"
    TRAINABLE_VARIABLES = "trainable_variables"
    MOVING_AVERAGE_VARIABLES = "moving_average_variables"
    SUMMARIES = "summaries"
    QUEUE_RUNNERS = "queue_runners"
    TABLE_INITIALIZERS = "table_initializer"
    ASSET_FILEPATHS = "asset_filepaths"
    REGULARIZATION_LOSSES = "regularization_losses"
    LOSSES = "losses"
    WEIGHTS = "weights"
    BIASES = "biases"
    ACTIVATIONS = "activations"
    UPDATE_OPS = "update_ops"
    TRAIN_OP = "train_op"
    GLOBAL_STEP = "global_step"
    INIT_OP = "init_op"
    LOCAL_INIT_OP = "local_init_op"
    READY_OP = "ready_op"
    SAVERS = "savers"
    SAVEABLE_OBJECTS = "saveable_objects"
    SUMMARY_OP = "summary_op"
    COND_CONTEXT = "cond_context"
    WHILE_CONTEXT = "while_context"
