""":class:`Variable`: a value that lives from one run of a Session to the next."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from graphc.build import convert_to_tensor, create, single
from graphc.dtypes import DType
from graphc.errors import DTypeError, FeedError, GraphError
from graphc.graph import (
    Graph,
    GraphKeys,
    Operation,
    Tensor,
    control_dependencies,
    device,
    get_default_graph,
    get_default_session,
    name_scope,
)
from graphc.ops.array import identity
from graphc.shapes import TensorShape
from graphc.variables.guard import variables_by_op, without_uninitialized_reads


class VariableSynchronization(enum.Enum):
    """When a distributed variable is brought together."""

    AUTO = 0
    NONE = 1
    ON_WRITE = 2
    ON_READ = 3


class VariableAggregation(enum.Enum):
    """How a distributed variable is brought together."""

    NONE = 0
    SUM = 1
    MEAN = 2
    ONLY_FIRST_REPLICA = 3


class VariableDef(NamedTuple):
    """The names of a variable's operations: what makes a Variable of a graph that was loaded."""

    variable_name: str
    initial_value_name: str
    initializer_name: str
    snapshot_name: str
    trainable: bool = True


class Variable:
    """A value that lives from one run of a Session to the next.

    A variable is four operations: its initial value, a handle (``v``), an assignment of the one to
    the other (``v/Assign``) and a read (``v/read``).  Used as an operand it stands for the read.

    Args:
      initial_value: a tensor, anything that converts to one, or a function that returns one.
      trainable: whether optimizers train it; None stands for True.
      collections: the collections it joins; ``[GraphKeys.GLOBAL_VARIABLES]`` by default.
      validate_shape: False allows values of any shape, now and later.
      caching_device: a device for the read.
      name: ``"Variable"`` by default; made unique.
      variable_def: the names of operations that exist, instead of ``initial_value``.
      dtype: what the initial value is converted to.
      expected_shape: ignored, as in TensorFlow.
      import_scope: a name scope put before the names of ``variable_def``.
      constraint: a function from the updated value to the one to keep, used by optimizers.
      use_resource: accepted; reads and assignments have a defined order in graphc anyway.
      synchronization, aggregation: recorded for distributed training.
      shape: the variable's shape when it is not the initial value's.
    Raises:
      ValueError: no initial value, or one whose shape is not known.
    """

    __array_priority__ = 100

    def __init__(
        self,
        initial_value: Any = None,
        trainable: bool | None = None,
        collections: Any = None,
        validate_shape: bool = True,
        caching_device: Any = None,
        name: str | None = None,
        variable_def: Any = None,
        dtype: Any = None,
        expected_shape: Any = None,
        import_scope: str | None = None,
        constraint: Any = None,
        use_resource: bool | None = None,
        synchronization: Any = VariableSynchronization.AUTO,
        aggregation: Any = VariableAggregation.NONE,
        shape: Any = None,
    ) -> None:
        self._synchronization = synchronization or VariableSynchronization.AUTO
        self._aggregation = aggregation or VariableAggregation.NONE
        self._constraint = constraint
        self._caching_device = caching_device
        if variable_def is not None:
            if initial_value is not None:
                raise GraphError("variable_def and initial_value are mutually exclusive.")
            self._take(variable_def, import_scope)
            return
        if initial_value is None:
            raise GraphError("initial_value must be specified.")
        if constraint is not None and not callable(constraint):
            raise GraphError("The `constraint` argument must be a callable.")
        if trainable is None:
            trainable = synchronization is not VariableSynchronization.ON_READ
        self._trainable = bool(trainable)
        keys = _collection_keys(collections, self._trainable)
        values = [] if callable(initial_value) else [initial_value]
        with name_scope(name, "Variable", values) as scope, get_default_graph().within(None):
            self._initial_value = _initial_tensor(initial_value, dtype)
            self._declare(scope, shape, validate_shape)
        self.graph.add_to_collections(keys, self)

    def _declare(self, scope: str, shape: Any, validate_shape: bool) -> None:
        value = self._initial_value
        if validate_shape and not value.shape.is_fully_defined():
            raise GraphError(f"initial_value must have a shape specified: {value}")
        if shape is None and validate_shape:
            shape = value.shape
        attrs = {"dtype": value.dtype.base_dtype, "shape": TensorShape(shape).sizes}
        self._variable = single(create("VariableV2", (), attrs, scope))
        self._safe_initial_value = without_uninitialized_reads(value, scope)
        self._initializer_op = create(
            "Assign", [self._variable, self._safe_initial_value], {"validate_shape": validate_shape}
        )
        if self._caching_device is None:
            self._snapshot = identity(self._variable, name="read")
        else:
            with device(self._caching_device):
                self._snapshot = identity(self._variable, name="read")
        variables_by_op(self.graph)[self.op] = self

    def _take(self, names: Any, import_scope: str | None) -> None:
        graph = get_default_graph()
        prefix = f"{import_scope}/" if import_scope else ""
        self._variable = graph.get_tensor_by_name(prefix + names.variable_name)
        self._initial_value = graph.get_tensor_by_name(prefix + names.initial_value_name)
        self._initializer_op = graph.get_operation_by_name(prefix + names.initializer_name)
        self._snapshot = graph.get_tensor_by_name(prefix + names.snapshot_name)
        self._safe_initial_value = self._initializer_op.inputs[1]
        self._trainable = bool(names.trainable)
        variables_by_op(graph).setdefault(self.op, self)

    # --- what it is ---------------------------------------------------------------------------

    @property
    def op(self) -> Operation:
        """The operation of the handle."""
        return self._variable.op

    @property
    def graph(self) -> Graph:
        """The graph that it belongs to."""
        return self._variable.graph

    @property
    def name(self) -> str:
        """The name of the handle: ``"v:0"``."""
        return self._variable.name

    @property
    def dtype(self) -> DType:
        """The reference type of its elements' type: ``float32_ref``."""
        return self._variable.dtype

    @property
    def shape(self) -> TensorShape:
        """The static shape."""
        return self._variable.shape

    @property
    def device(self) -> str:
        """The device that was asked for; empty for none."""
        return self._variable.device

    @property
    def trainable(self) -> bool:
        """Whether optimizers train it."""
        return self._trainable

    @property
    def synchronization(self) -> Any:
        """When a distributed variable is brought together."""
        return self._synchronization

    @property
    def aggregation(self) -> Any:
        """How a distributed variable is brought together."""
        return self._aggregation

    @property
    def constraint(self) -> Any:
        """The function that optimizers pass updated values through, or None."""
        return self._constraint

    @property
    def initializer(self) -> Operation:
        """The operation that gives it its initial value."""
        return self._initializer_op

    @property
    def initial_value(self) -> Tensor:
        """The tensor that it is initialized with."""
        return self._initial_value

    def get_shape(self) -> TensorShape:
        """The static shape."""
        return self.shape

    def set_shape(self, shape: Any) -> None:
        """State more about the static shape than is known."""
        self._variable.set_shape(shape)
        self._snapshot.set_shape(shape)

    def to_proto(self, export_scope: str | None = None) -> VariableDef | None:
        """The names of its operations; None for a variable outside of ``export_scope``."""
        prefix = f"{export_scope}/" if export_scope else ""
        if not self.name.startswith(prefix):
            return None
        return VariableDef(
            self.name.removeprefix(prefix),
            self._initial_value.name.removeprefix(prefix),
            self._initializer_op.name.removeprefix(prefix),
            self._snapshot.name.removeprefix(prefix),
            self._trainable,
        )

    @staticmethod
    def from_proto(variable_def: Any, import_scope: str | None = None) -> Variable:
        """The Variable of operations that exist, by their names."""
        return Variable(variable_def=variable_def, import_scope=import_scope)

    # --- reading ------------------------------------------------------------------------------

    def value(self) -> Tensor:
        """The read that was declared with the variable; what it stands for as an operand."""
        return self._snapshot

    def read_value(self) -> Tensor:
        """A read declared now, so that the control dependencies of this place hold for it."""
        return identity(self._variable, name="read")

    def initialized_value(self) -> Tensor:
        """Its value if it has one before the run, else its initial value."""
        with control_dependencies(None):
            return single(create("InitializedValue", [self._variable, self._safe_initial_value]))

    def eval(self, session: Any = None) -> Any:
        """Its value in ``session`` or in the default session."""
        return self._variable.eval(session=session)

    def _ref(self) -> Tensor:
        return self._variable

    def _as_graph_element(self) -> Tensor:
        return self._variable

    def _to_tensor(self, dtype: DType | None = None, name: str | None = None) -> Tensor:
        if dtype is not None and not dtype.is_compatible_with(self.dtype):
            raise GraphError(
                f"Incompatible type conversion requested to type '{dtype.name}' for variable of "
                f"type '{self.dtype.name}'"
            )
        return self._snapshot

    # --- writing ------------------------------------------------------------------------------

    def assign(
        self,
        value: Any,
        use_locking: bool = False,
        name: str | None = None,
        read_value: bool = True,
    ) -> Any:
        """Give it the value ``value``.

        Returns:
          The handle after the assignment; with ``read_value=False`` the operation.
        """
        return self._change("Assign", value, use_locking, name, read_value)

    def assign_add(
        self,
        delta: Any,
        use_locking: bool = False,
        name: str | None = None,
        read_value: bool = True,
    ) -> Any:
        """Add ``delta`` to it; returns what :meth:`assign` returns."""
        return self._change("AssignAdd", delta, use_locking, name, read_value)

    def assign_sub(
        self,
        delta: Any,
        use_locking: bool = False,
        name: str | None = None,
        read_value: bool = True,
    ) -> Any:
        """Subtract ``delta`` from it; returns what :meth:`assign` returns."""
        return self._change("AssignSub", delta, use_locking, name, read_value)

    def _change(self, op: str, value: Any, locking: bool, name: str | None, read: bool) -> Any:
        changed = create(op, [self._variable, value], {"use_locking": bool(locking)}, name)
        return single(changed) if read else changed

    def load(self, value: Any, session: Any = None) -> None:
        """Store ``value`` in ``session`` or in the default session, without running the graph.

        Raises:
          ValueError: there is no session, or the value has another shape.
        """
        session = session if session is not None else get_default_session()
        if session is None:
            raise GraphError(
                "Either session argument should be provided or default session should be "
                "established"
            )
        array = np.asarray(value, self.dtype.base_dtype.numpy)
        if not self.shape.is_compatible_with(array.shape):
            raise FeedError(
                f"Cannot feed value of shape {array.shape} for Tensor "
                f"'{self._initial_value.name}', which has shape '{self.shape}'"
            )
        session.load_variable(self.op, array)

    def __iter__(self) -> Iterator[Any]:
        raise DTypeError("'Variable' object is not iterable.")

    def __repr__(self) -> str:
        return f"<tf.Variable '{self.name}' shape={self.shape} dtype={self.dtype.name}>"


def _collection_keys(collections: Any, trainable: bool) -> list[Any]:
    if collections is None:
        collections = [GraphKeys.GLOBAL_VARIABLES]
    if not isinstance(collections, (list, tuple, set)):
        raise GraphError(
            "collections argument to Variable constructor must be a list, tuple, or set. Got "
            f"{collections} of type {type(collections)}"
        )
    keys = list(collections)
    if trainable and GraphKeys.TRAINABLE_VARIABLES not in keys:
        keys.append(GraphKeys.TRAINABLE_VARIABLES)
    return keys


def _initial_tensor(initial_value: Any, dtype: Any) -> Tensor:
    if not callable(initial_value):
        return convert_to_tensor(initial_value, dtype, name="initial_value")
    with name_scope("Initializer"), device(None):
        return convert_to_tensor(initial_value(), dtype, name="initial_value")


# The operators are Tensor's, applied to the read.  Tensor's own are set by the modules of the ops.
_OPERATORS = (
    "add radd sub rsub mul rmul truediv rtruediv div rdiv floordiv rfloordiv mod rmod pow rpow "
    "matmul rmatmul and rand or ror xor rxor lt le gt ge neg abs invert getitem"
)


def _delegate(operator: str) -> None:
    def method(self: Variable, *operands: Any) -> Any:
        return getattr(self._snapshot, operator)(*operands)

    method.__name__ = operator
    setattr(Variable, operator, method)


for _name in _OPERATORS.split():
    _delegate(f"__{_name}__")
