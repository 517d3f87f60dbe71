"""Slots: variables that an optimizer keeps for another variable, named after it."""

from __future__ import annotations

from typing import Any

from graphc.initializers import Zeros
from graphc.ops.shaping_make import shape, zeros
from graphc.shapes import TensorShape
from graphc.variable_scope import get_variable, variable_scope
from graphc.variables import Variable


def create_slot(primary: Any, val: Any, name: str) -> Any:
    """A slot ``<primary>/<name>`` that starts as the tensor ``val``."""
    return _create(primary, name, val, None, None, val.shape.is_fully_defined())


def create_slot_with_initializer(
    primary: Any, initializer: Any, sizes: Any, dtype: Any, name: str
) -> Any:
    """A slot ``<primary>/<name>`` of the given shape and dtype that ``initializer`` starts."""
    defined = TensorShape(sizes).is_fully_defined()
    return _create(primary, name, initializer, sizes, dtype, defined)


def create_zeros_slot(primary: Any, name: str, dtype: Any = None) -> Any:
    """A slot ``<primary>/<name>`` of the primary's shape that starts as zeros."""
    dtype = primary.dtype if dtype is None else dtype
    if primary.shape.is_fully_defined():
        return create_slot_with_initializer(primary, Zeros(), primary.shape, dtype, name)
    start = primary.initialized_value() if isinstance(primary, Variable) else primary
    return create_slot(primary, zeros(shape(start), dtype), name)


def _create(primary: Any, name: str, val: Any, sizes: Any, dtype: Any, validate_shape: bool) -> Any:
    with variable_scope(None, f"{primary.op.name}/{name}", [primary]) as scope:
        scope.set_partitioner(None)
        return get_variable(
            "",
            sizes if callable(val) else None,
            dtype if callable(val) else None,
            val,
            trainable=False,
            validate_shape=validate_shape,
        )
