"""Moving averages of variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import dtypes
from graphc.build import convert_to_tensor
from graphc.errors import DTypeError
from graphc.graph import (
    GraphKeys,
    Operation,
    add_to_collection,
    control_dependencies,
    get_default_graph,
    name_scope,
)
from graphc.initializers import Zeros
from graphc.ops.array import group
from graphc.ops.math import cast, minimum
from graphc.train import slot_creator
from graphc.variables import (
    Variable,
    assign,
    assign_add,
    assign_sub,
    global_variables,
    moving_average_variables,
    trainable_variables,
)


class ExponentialMovingAverage:
    """Keeps averages of variables: ``average -= (1 - decay) * (average - variable)``.

    Args:
      decay: a number near 1.
      num_updates: a count of the updates; while it is small, less weight is given to the past.
      zero_debias: for averages of tensors: undo the bias towards their start at zero.
      name: the name of the averages and of the operations.
    """

    def __init__(
        self,
        decay: Any,
        num_updates: Any = None,
        zero_debias: bool = False,
        name: str = "ExponentialMovingAverage",
    ) -> None:
        self._decay = decay
        self._num_updates = num_updates
        self._zero_debias = zero_debias
        self._name = name
        self._averages: dict[Any, Any] = {}
        self._debiased: set[Any] = set()

    @property
    def name(self) -> str:
        """The name given to the constructor."""
        return self._name

    def apply(self, var_list: Sequence[Any] | None = None) -> Operation:
        """An operation that updates the averages, which are created.

        Args:
          var_list: variables (averages start at their initial values) or tensors (averages start
            at zero); all trainable variables by default.
        """
        variables = trainable_variables() if var_list is None else list(var_list)
        for var in variables:
            if not var.dtype.base_dtype.is_floating:
                raise DTypeError(f"The variables must be half, float, or double: {var.name}")
            if var not in self._averages:
                with control_dependencies(None):
                    self._averages[var] = self._create(var)
        with name_scope(self._name) as scope:
            decay: Any = convert_to_tensor(self._decay, name="decay")
            if self._num_updates is not None:
                count: Any = cast(self._num_updates, dtypes.float32, name="num_updates")
                decay = minimum(decay, (1.0 + count) / (10.0 + count))
            updates = [
                assign_moving_average(self._averages[var], var, decay, var in self._debiased)
                for var in variables
            ]
            return group(*updates, name=scope)

    def _create(self, var: Any) -> Any:
        if isinstance(var, Variable):
            add_to_collection(GraphKeys.MOVING_AVERAGE_VARIABLES, var)
            return slot_creator.create_slot(var, var.initialized_value(), self._name)
        if self._zero_debias:
            self._debiased.add(var)
        return slot_creator.create_zeros_slot(var, self._name)

    def average(self, var: Any) -> Any:
        """The variable that holds the average of ``var``, or None."""
        return self._averages.get(var)

    def average_name(self, var: Any) -> str:
        """The name of the variable that holds, or would hold, the average of ``var``."""
        if var in self._averages:
            return str(self._averages[var].op.name)
        return get_default_graph().unique_name(f"{var.op.name}/{self._name}", mark_as_used=False)

    def variables_to_restore(self, moving_avg_variables: Any = None) -> dict[str, Any]:
        """Variables by the names to restore them from: averages where there are averages."""
        if moving_avg_variables is None:
            moving_avg_variables = trainable_variables() + moving_average_variables()
        averaged = dict.fromkeys(moving_avg_variables)
        names = {self.average_name(v): v for v in averaged}
        averaged_names = {v.name for v in averaged}
        for v in global_variables():
            if v.name not in averaged_names:
                names.setdefault(v.op.name, v)
        return names


def assign_moving_average(
    variable: Any, value: Any, decay: Any, zero_debias: bool = True, name: str | None = None
) -> Any:
    """Move ``variable`` towards ``value`` by the part ``1 - decay`` of the way.

    Args:
      variable: the average.
      value: what is averaged.
      decay: a number near 1.
      zero_debias: count the updates, and divide by the weight that they have had so far.
      name: a name for the operations.
    Returns:
      The handle of ``variable`` after the assignment.
    """
    with name_scope(name, "AssignMovingAvg", [variable, value, decay]) as scope:
        part: Any = cast(convert_to_tensor(1.0 - decay, name="decay"), variable.dtype.base_dtype)
        if not zero_debias:
            return assign_sub(variable, (variable - value) * part, name=scope)
        with control_dependencies(None):
            biased = slot_creator.create_zeros_slot(variable, "biased")
            steps = slot_creator.create_slot_with_initializer(
                variable, Zeros(), [], variable.dtype, "local_step"
            )
        new_biased: Any = assign_sub(biased, (biased - value) * part)
        new_steps: Any = assign_add(steps, 1)
        weight = 1 - (1.0 - part) ** new_steps
        return assign(variable, new_biased / weight, name=scope)
