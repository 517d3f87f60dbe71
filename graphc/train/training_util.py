"""The global step: the one variable that counts training steps."""

from __future__ import annotations

from typing import Any

from graphc import dtypes
from graphc.errors import DTypeError, GraphError
from graphc.graph import Graph, GraphKeys, Tensor, get_default_graph
from graphc.initializers import Zeros
from graphc.variable_scope import get_variable
from graphc.variables import Variable, VariableAggregation


def get_global_step(graph: Graph | None = None) -> Any:
    """The global step of a graph (the default one), or None if it has none."""
    graph = graph or get_default_graph()
    found = graph.get_collection(GraphKeys.GLOBAL_STEP)
    if len(found) > 1:
        return None
    if found:
        step = found[0]
    else:
        try:
            step = graph.get_tensor_by_name("global_step:0")
        except KeyError:
            return None
    assert_global_step(step)
    return step


def create_global_step(graph: Graph | None = None) -> Any:
    """A new global step: an int64 variable called ``global_step``.

    Raises:
      ValueError: the graph has one.
    """
    graph = graph or get_default_graph()
    if get_global_step(graph) is not None:
        raise GraphError('"global_step" already exists.')
    with graph.as_default(), graph.name_scope(None):
        return get_variable(
            GraphKeys.GLOBAL_STEP,
            shape=[],
            dtype=dtypes.int64,
            initializer=Zeros(),
            trainable=False,
            aggregation=VariableAggregation.ONLY_FIRST_REPLICA,
            collections=[GraphKeys.GLOBAL_VARIABLES, GraphKeys.GLOBAL_STEP],
        )


def get_or_create_global_step(graph: Graph | None = None) -> Any:
    """The global step of a graph (the default one), created if it has none."""
    found = get_global_step(graph)
    return create_global_step(graph) if found is None else found


def assert_global_step(global_step_tensor: Any) -> None:
    """Raise a TypeError unless it can be a global step: an integer scalar."""
    step = global_step_tensor
    if not isinstance(step, (Variable, Tensor)):
        raise DTypeError(f'Existing "global_step" must be a Variable or Tensor: {step}.')
    if not step.dtype.base_dtype.is_integer:
        raise DTypeError(f'Existing "global_step" does not have integer type: {step.dtype}')
    if step.shape.ndims != 0 and step.shape.is_fully_defined():
        raise DTypeError(f'Existing "global_step" is not scalar: {step.shape}')


def global_step(sess: Any, global_step_tensor: Any) -> int:
    """The value of the global step in a session."""
    return int(sess.run(global_step_tensor))
