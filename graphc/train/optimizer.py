"""The base of the optimizers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graphc import dtypes
from graphc.build import convert_to_tensor
from graphc.errors import DTypeError, GraphError
from graphc.gradients import gradients
from graphc.graph import (
    GraphKeys,
    Operation,
    Tensor,
    control_dependencies,
    get_collection_ref,
    get_default_graph,
    graph_of,
    name_scope,
)
from graphc.ops.array import group, tuple_
from graphc.ops.math import cast
from graphc.train import slot_creator
from graphc.variables import Variable, assign_add, trainable_variables


class Optimizer:
    """Base of the optimizers: gradients of a loss, and operations that update variables by them.

    A subclass declares its hyperparameters in ``_prepare``, its slots in ``_create_slots`` and one
    variable's update in ``_apply_dense``.  An update is declared from ordinary operations that end
    in assignments, so that the compiler makes one sweep of it.
    """

    GATE_NONE = 0
    GATE_OP = 1
    GATE_GRAPH = 2

    def __init__(self, use_locking: bool, name: str) -> None:
        if not name:
            raise GraphError("Must specify the optimizer name")
        self._use_locking = use_locking
        self._name = name
        self._slots: dict[str, dict[Operation, Any]] = {}
        self._non_slot_dict: dict[Any, Any] = {}

    def get_name(self) -> str:
        """The name given to the constructor."""
        return self._name

    # --- the two steps --------------------------------------------------------------------------

    def minimize(
        self,
        loss: Any,
        global_step: Any = None,
        var_list: Any = None,
        gate_gradients: int = GATE_OP,
        aggregation_method: Any = None,
        colocate_gradients_with_ops: bool = False,
        name: str | None = None,
        grad_loss: Any = None,
    ) -> Operation:
        """An operation that takes one step towards a smaller ``loss``.

        Args:
          loss: a tensor.
          global_step: an integer variable to count the steps in.
          var_list: the variables to change; all trainable ones by default.
          gate_gradients, aggregation_method, colocate_gradients_with_ops: accepted.
          name: a name for the operation; the optimizer's by default.
          grad_loss: what the loss is weighted with.
        Raises:
          ValueError: the loss depends on none of the variables.
        """
        pairs = self.compute_gradients(
            loss, var_list, gate_gradients, aggregation_method, colocate_gradients_with_ops,
            grad_loss,
        )  # fmt: skip
        if all(grad is None for grad, _ in pairs):
            raise GraphError(
                "No gradients provided for any variable, check your graph for ops that do not "
                f"support gradients, between variables {[str(v) for _, v in pairs]} and loss "
                f"{loss}."
            )
        return self.apply_gradients(pairs, global_step, name)

    def compute_gradients(
        self,
        loss: Any,
        var_list: Any = None,
        gate_gradients: int = GATE_OP,
        aggregation_method: Any = None,
        colocate_gradients_with_ops: bool = False,
        grad_loss: Any = None,
    ) -> list[tuple[Any, Any]]:
        """A list of (gradient, variable); the gradient is None where the loss does not depend.

        Args: those of :meth:`minimize`.
        """
        if callable(loss):
            loss = loss()
        if gate_gradients not in (self.GATE_NONE, self.GATE_OP, self.GATE_GRAPH):
            raise GraphError(
                "gate_gradients must be one of: Optimizer.GATE_NONE, Optimizer.GATE_OP, "
                f"Optimizer.GATE_GRAPH.  Not {gate_gradients}"
            )
        self._assert_valid_dtypes([t for t in (loss, grad_loss) if hasattr(t, "dtype")])
        variables = trainable_variables() if var_list is None else _flat(var_list)
        for v in variables:
            if not isinstance(v, (Variable, Tensor)):
                raise DTypeError(f"Trying to optimize unsupported type {v!r}")
        if not variables:
            raise GraphError("No variables to optimize.")
        grads: list[Any] = gradients(
            loss,
            [v._ref() if isinstance(v, Variable) else v for v in variables],
            grad_ys=grad_loss,
            gate_gradients=gate_gradients == self.GATE_OP,
            aggregation_method=aggregation_method,
            colocate_gradients_with_ops=colocate_gradients_with_ops,
        )
        if gate_gradients == self.GATE_GRAPH:
            grads = tuple_(grads)
        pairs = list(zip(grads, variables, strict=True))
        self._assert_valid_dtypes([v for g, v in pairs if g is not None])
        return pairs

    def apply_gradients(
        self,
        grads_and_vars: Iterable[tuple[Any, Any]],
        global_step: Any = None,
        name: str | None = None,
    ) -> Operation:
        """An operation that updates variables by their gradients.

        Args:
          grads_and_vars: (gradient, variable); variables whose gradient is None stay.
          global_step: an integer variable to add one to, after the updates.
          name: a name for the operation; the optimizer's by default.
        Raises:
          ValueError: there is no gradient at all.
        """
        pairs = tuple(grads_and_vars)
        if not pairs:
            raise GraphError("No variables provided.")
        with graph_of([v for _, v in pairs]).as_default():
            found = [(_gradient(g), v) for g, v in pairs if g is not None]
            if not found:
                raise GraphError(
                    f"No gradients provided for any variable: {[str(v) for _, v in pairs]}."
                )
            with control_dependencies(None):
                self._create_slots([v for _, v in found])
            with name_scope(name, self._name) as scope:
                train_op = self._declare_updates(found, global_step, scope)
            collection = get_collection_ref(GraphKeys.TRAIN_OP)
            if train_op not in collection:
                collection.append(train_op)
            return train_op

    def _declare_updates(
        self, pairs: Sequence[tuple[Any, Any]], global_step: Any, scope: str
    ) -> Operation:
        self._prepare()
        updates = []
        for grad, var in pairs:
            with name_scope(f"update_{var.op.name}"):
                updates.append(self._update(grad, var))
        if global_step is None:
            return self._finish(updates, scope)
        with control_dependencies([self._finish(updates, "update")]):
            return assign_add(global_step, 1, name=scope).op

    def _update(self, grad: Any, var: Any) -> Any:
        if not isinstance(var, Variable):
            raise DTypeError(f"Trying to update a Tensor {var}")
        update = self._apply_dense(grad, var)
        if var.constraint is None:
            return update
        with control_dependencies([update]):
            return var.assign(var.constraint(var))

    # --- slots ----------------------------------------------------------------------------------

    def get_slot(self, var: Any, name: str) -> Any:
        """The slot called ``name`` of a variable, or None."""
        return self._slots.get(name, {}).get(var.op)

    def get_slot_names(self) -> list[str]:
        """The names of the slots that variables have."""
        return sorted(self._slots)

    def variables(self) -> list[Any]:
        """The optimizer's own variables in the default graph, by name."""
        slots = [s for named in self._slots.values() for s in named.values()]
        graph = get_default_graph()
        own = [v for v in (*self._non_slot_dict.values(), *slots) if v.graph is graph]
        return sorted(own, key=lambda v: str(v.name))

    def _slot_dict(self, slot_name: str) -> dict[Operation, Any]:
        return self._slots.setdefault(slot_name, {})

    def _get_or_make_slot(self, var: Any, val: Any, slot_name: str, op_name: str) -> Any:
        slots = self._slot_dict(slot_name)
        if var.op not in slots:
            slots[var.op] = slot_creator.create_slot(var, val, op_name)
        return slots[var.op]

    def _get_or_make_slot_with_initializer(
        self, var: Any, initializer: Any, shape: Any, dtype: Any, slot_name: str, op_name: str
    ) -> Any:
        slots = self._slot_dict(slot_name)
        if var.op not in slots:
            slots[var.op] = slot_creator.create_slot_with_initializer(
                var, initializer, shape, dtype, op_name
            )
        return slots[var.op]

    def _zeros_slot(self, var: Any, slot_name: str, op_name: str) -> Any:
        slots = self._slot_dict(slot_name)
        if var.op not in slots:
            slots[var.op] = slot_creator.create_zeros_slot(var, op_name)
        return slots[var.op]

    def _create_non_slot_variable(self, initial_value: Any, name: str, colocate_with: Any) -> Any:
        key = (name, colocate_with.graph)
        if key not in self._non_slot_dict:
            self._non_slot_dict[key] = Variable(initial_value, trainable=False, name=name)
        return self._non_slot_dict[key]

    def _get_non_slot_variable(self, name: str, graph: Any = None) -> Any:
        return self._non_slot_dict.get((name, graph))

    # --- what subclasses say --------------------------------------------------------------------

    def _create_slots(self, var_list: Sequence[Any]) -> None:
        """Create the variables that the updates of ``var_list`` need."""

    def _prepare(self) -> None:
        """Declare the hyperparameters as tensors."""

    def _apply_dense(self, grad: Any, var: Any) -> Any:
        """Declare the update of one variable; returns its last operation."""
        raise GraphError(f"{type(self).__name__} has no _apply_dense")

    def _finish(self, update_ops: Sequence[Any], name_scope: str) -> Operation:
        return group(*update_ops, name=name_scope)

    def _valid_dtypes(self) -> set[Any]:
        return set(dtypes.FLOATS)

    def _assert_valid_dtypes(self, tensors: Iterable[Any]) -> None:
        valid = self._valid_dtypes()
        for t in tensors:
            if t.dtype.base_dtype not in valid:
                expected = sorted(valid, key=lambda d: str(d.name))
                raise GraphError(
                    f"Invalid type {t.dtype.base_dtype!r} for {t.name}, expected: {expected}."
                )

    def _call_if_callable(self, param: Any) -> Any:
        return param() if callable(param) else param

    def _for(self, var: Any, *parameters: Any) -> list[Any]:
        """The hyperparameters in the dtype of a variable."""
        return [cast(p, var.dtype.base_dtype) for p in parameters]


def _flat(values: Any) -> list[Any]:
    if isinstance(values, dict):
        return [v for key in sorted(values) for v in _flat(values[key])]
    if isinstance(values, (list, tuple)):
        return [v for item in values for v in _flat(item)]
    return [values]


def parameter(value: Any, name: str) -> Any:
    """A hyperparameter as a tensor: ``value`` is a number, a tensor or a function of nothing.

    It is typed ``Any``, as slots are: arithmetic is written with Python's operators, which tensors
    get from the modules of the ops.
    """
    return convert_to_tensor(value() if callable(value) else value, name=name)


def _gradient(value: Any) -> Tensor:
    try:
        return convert_to_tensor(value)
    except TypeError:
        raise DTypeError(
            f"Gradient must be convertible to a Tensor or IndexedSlices, or None: {value}"
        ) from None
