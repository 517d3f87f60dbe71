"""Lists of variables, assignments and initialization, under TensorFlow's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.build import create, single
from graphc.errors import DTypeError
from graphc.graph import GraphKeys, Operation, Tensor, get_collection, get_default_graph
from graphc.ops.array import group, no_op

# --- lists ----------------------------------------------------------------------------------------


def global_variables(scope: str | None = None) -> list[Any]:
    """The variables of the default graph, but for local ones.

    Args:
      scope: a regular expression that the names must match at their beginning.
    """
    return get_collection(GraphKeys.GLOBAL_VARIABLES, scope)


def local_variables(scope: str | None = None) -> list[Any]:
    """The local variables: those that are not saved, counters of metrics for example."""
    return get_collection(GraphKeys.LOCAL_VARIABLES, scope)


def trainable_variables(scope: str | None = None) -> list[Any]:
    """The variables that optimizers train."""
    return get_collection(GraphKeys.TRAINABLE_VARIABLES, scope)


def model_variables(scope: str | None = None) -> list[Any]:
    """The variables in the collection ``GraphKeys.MODEL_VARIABLES``."""
    return get_collection(GraphKeys.MODEL_VARIABLES, scope)


def moving_average_variables(scope: str | None = None) -> list[Any]:
    """The variables whose moving averages are kept."""
    return get_collection(GraphKeys.MOVING_AVERAGE_VARIABLES, scope)


def all_variables() -> list[Any]:
    """An old name of :func:`global_variables`."""
    return global_variables()


# --- assignments ----------------------------------------------------------------------------------


def assign(
    ref: Any,
    value: Any,
    validate_shape: bool | None = None,
    use_locking: bool | None = None,
    name: str | None = None,
) -> Tensor:
    """Give the variable ``ref`` the value ``value``.

    Args:
      ref: a Variable, or the handle that another assignment returned.
      value: its new value.
      validate_shape: False allows a value of another shape.
      use_locking: recorded; assignments are atomic in graphc.
      name: a name for the operation.
    Returns:
      The handle after the assignment.
    """
    attrs = {} if validate_shape is None else {"validate_shape": bool(validate_shape)}
    return _change("Assign", ref, value, attrs, use_locking, name)


def assign_add(
    ref: Any, value: Any, use_locking: bool | None = None, name: str | None = None
) -> Tensor:
    """Add ``value`` to the variable ``ref``; returns the handle after the assignment."""
    return _change("AssignAdd", ref, value, {}, use_locking, name)


def assign_sub(
    ref: Any, value: Any, use_locking: bool | None = None, name: str | None = None
) -> Tensor:
    """Subtract ``value`` from the variable ``ref``; returns the handle after the assignment."""
    return _change("AssignSub", ref, value, {}, use_locking, name)


def _change(
    op: str, ref: Any, value: Any, attrs: dict[str, Any], locking: bool | None, name: str | None
) -> Tensor:
    handle = ref._ref() if hasattr(ref, "_ref") else ref
    if not isinstance(handle, Tensor) or not handle.dtype.is_ref:
        raise DTypeError(f"{op} changes a Variable, but was given {ref!r}")
    if locking is not None:
        attrs["use_locking"] = bool(locking)
    return single(create(op, [handle, value], attrs, name))


# --- initialization -------------------------------------------------------------------------------


def variables_initializer(var_list: Sequence[Any], name: str = "init") -> Operation:
    """An operation that initializes the given variables."""
    if var_list:
        return group(*[v.initializer for v in var_list], name=name)
    return no_op(name=name)


def global_variables_initializer() -> Operation:
    """An operation that initializes the global variables declared so far."""
    return variables_initializer(global_variables())


def local_variables_initializer() -> Operation:
    """An operation that initializes the local variables declared so far."""
    return variables_initializer(local_variables())


def initialize_variables(var_list: Sequence[Any], name: str = "init") -> Operation:
    """An old name of :func:`variables_initializer`."""
    return variables_initializer(var_list, name)


def initialize_all_variables() -> Operation:
    """An old name of :func:`global_variables_initializer`."""
    return global_variables_initializer()


def initialize_local_variables() -> Operation:
    """An old name of :func:`local_variables_initializer`."""
    return local_variables_initializer()


def is_variable_initialized(variable: Any) -> Tensor:
    """A bool scalar: whether the variable has a value before the run."""
    return single(create("IsVariableInitialized", [variable]))


def report_uninitialized_variables(
    var_list: Sequence[Any] | None = None, name: str = "report_uninitialized_variables"
) -> Tensor:
    """A vector of strings: the names of those variables that have no value before the run.

    Args:
      var_list: the variables to ask for; all global and local ones by default.
      name: a name for the operation.
    """
    if var_list is None:
        var_list = global_variables() + local_variables()
    graph = var_list[0].graph if var_list else get_default_graph()
    handles = tuple(v.op for v in var_list)
    with graph.as_default():
        return single(create("ReportUninitialized", (), {"variables": handles}, name))
