"""The errors of extraction, in TensorFlow's words."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.dims import DimLike
from graphc.errors import FailedPreconditionError, InvalidArgumentError
from graphc.graph import Operation
from graphc.shapes import shape_text


def missing_feed(op: Operation) -> InvalidArgumentError:
    """A placeholder that was not fed."""
    dtype = {"float32": "float", "float64": "double"}.get(
        op.outputs[0].dtype.name, op.outputs[0].dtype.name
    )
    shape = "" if op.outputs[0].sizes is None else f" and shape {shape_text(op.outputs[0].sizes)}"
    return InvalidArgumentError(
        op.node_def,
        op,
        f"You must feed a value for placeholder tensor '{op.name}' with dtype {dtype}{shape}",
    )


def uninitialized(variable: Operation) -> Exception:
    """A variable that was read before it had a value."""
    return FailedPreconditionError(
        variable.node_def, variable, f"Attempting to use uninitialized value {variable.name}"
    )


def shape_mismatch(
    op: Operation, declared: Sequence[DimLike], given: Sequence[DimLike]
) -> InvalidArgumentError:
    """An assignment of a value of another shape."""
    return InvalidArgumentError(
        op.node_def,
        op,
        "Assign requires shapes of both tensors to match. lhs shape= "
        f"{shape_text(declared)} rhs shape= {shape_text(given)}",
    )


def fed_variable_assigned(op: Operation, variable: Operation) -> InvalidArgumentError:
    """An assignment to a variable that is fed."""
    name, dtype = variable.name, variable.outputs[0].dtype.base_dtype.name
    return InvalidArgumentError(
        op.node_def,
        op,
        f"Input 0 of node {op.name} was passed {dtype} from the feed of {name}:0, which is no "
        f"variable that could be assigned to: expected {dtype}_ref.",
    )
