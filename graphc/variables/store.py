"""What ``get_variable`` finds variables in, and how it creates them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from graphc import dtypes
from graphc.dtypes import DType, as_dtype
from graphc.errors import GraphError
from graphc.graph import GraphKeys, add_to_collection, get_default_graph, name_scope
from graphc.initializers import GlorotUniform, Zeros
from graphc.shapes import TensorShape
from graphc.variables.variable import Variable, VariableAggregation, VariableSynchronization


class VariableStore:
    """The variables of one graph that were created by ``get_variable``, by name."""

    def __init__(self) -> None:
        self._vars: dict[str, Any] = {}

    def get_variable(
        self,
        name: str,
        *,
        custom_getter: Any,
        dtype: Any,
        constraint: Any,
        trainable: bool | None = None,
        **options: Any,
    ) -> Any:
        """Find or create a variable, through ``custom_getter`` if there is one."""
        if trainable is None:
            trainable = options.get("synchronization") is not VariableSynchronization.ON_READ
        options |= {"dtype": as_dtype(dtype).base_dtype, "trainable": trainable}
        if custom_getter is None:
            return self._get(name, constraint=constraint, **options)
        if not callable(custom_getter):
            raise GraphError(f"Passed a custom_getter which is not callable: {custom_getter}")
        if _accepts(custom_getter, "constraint"):
            options["constraint"] = constraint
        return custom_getter(getter=self._get, name=name, **options)

    def _get(
        self,
        name: str,
        shape: Any = None,
        dtype: Any = dtypes.float32,
        initializer: Any = None,
        regularizer: Any = None,
        reuse: Any = None,
        trainable: bool | None = None,
        collections: Any = None,
        caching_device: Any = None,
        partitioner: Any = None,
        validate_shape: bool = True,
        use_resource: bool | None = None,
        constraint: Any = None,
        synchronization: Any = VariableSynchronization.AUTO,
        aggregation: Any = VariableAggregation.NONE,
    ) -> Any:
        dtype, sizes = as_dtype(dtype), TensorShape(shape)
        if partitioner is not None and sizes.ndims != 0:
            raise GraphError(f"Variable {name}: graphc has no partitioned variables")
        if shape is not None and initializer is not None and not callable(initializer):
            raise GraphError("If initializer is a constant, do not specify shape.")
        if name in self._vars:
            return self._shared(name, sizes, dtype, reuse)
        if reuse is True:
            raise GraphError(
                f"Variable {name} does not exist, or was not created with tf.get_variable(). Did "
                "you mean to set reuse=tf.AUTO_REUSE in VarScope?"
            )
        # In a loop or a branch too, a variable is one of the whole graph.
        with get_default_graph().within(None):
            value, value_dtype = _initial_value(name, sizes, dtype, initializer)
            variable = Variable(
                value, trainable, collections, validate_shape, caching_device, name,
                dtype=value_dtype, constraint=constraint, use_resource=use_resource,
                synchronization=synchronization, aggregation=aggregation,
            )  # fmt: skip
            self._vars[name] = variable
            if regularizer:
                with name_scope(f"{name}/Regularizer/"):
                    loss = regularizer(variable)
                if loss is not None:
                    add_to_collection(GraphKeys.REGULARIZATION_LOSSES, loss)
        return variable

    def _shared(self, name: str, shape: TensorShape, dtype: DType, reuse: Any) -> Any:
        found = self._vars[name]
        if reuse is False:
            where = found.op.location
            raise GraphError(
                f"Variable {name} already exists, disallowed. Did you mean to set reuse=True or "
                "reuse=tf.AUTO_REUSE in VarScope? Originally defined at:\n\n"
                f'  File "{where.file}", line {where.line}, in {where.function}\n'
            )
        if not shape.is_compatible_with(found.shape):
            raise GraphError(
                f"Trying to share variable {name}, but specified shape {shape} and found shape "
                f"{found.shape}."
            )
        if not dtype.is_compatible_with(found.dtype):
            raise GraphError(
                f"Trying to share variable {name}, but specified dtype {dtype.name} and found "
                f"dtype {found.dtype.name}."
            )
        return found


def _initial_value(
    name: str, shape: TensorShape, dtype: DType, initializer: Any
) -> tuple[Any, DType | None]:
    """What to create a variable from: a value, or a function and the dtype of its result."""
    if initializer is None:
        initializer = GlorotUniform() if dtype.is_floating else Zeros()
    elif inspect.isclass(initializer):
        initializer = initializer()
    elif not callable(initializer):
        return initializer, None
    if shape.is_fully_defined():
        sizes = shape.as_list()
        return lambda: initializer(sizes, dtype=dtype, partition_info=None), dtype
    parameters = inspect.signature(initializer).parameters.values()
    if all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in parameters):
        return initializer, None
    raise GraphError(
        "The initializer passed is not valid. It should be a callable with no arguments and the "
        "shape should not be provided or an instance of `tf.keras.initializers.*' and `shape` "
        f"should be fully defined. (Variable {name}, shape {shape})"
    )


def _accepts(fn: Callable[..., Any], argument: str) -> bool:
    parameters = inspect.signature(fn).parameters
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
