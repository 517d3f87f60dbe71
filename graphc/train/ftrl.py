"""FTRL-Proximal (McMahan et al., 2013)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.build import constant
from graphc.errors import GraphError
from graphc.ops.array import group
from graphc.ops.math import abs, pow, sign, sqrt, square, where
from graphc.ops.shaping_make import zeros_like
from graphc.train.optimizer import Optimizer, parameter


class FtrlOptimizer(Optimizer):
    """Follow the regularized leader: sparse solutions under an L1 penalty.

    Per step, with ``p = -learning_rate_power``::

        new = accum + gradient ** 2
        linear += gradient - (new ** p - accum ** p) / learning_rate * variable
        quadratic = new ** p / learning_rate + 2 * l2
        variable = (sign(linear) * l1 - linear) / quadratic where abs(linear) > l1, else 0
        accum = new

    Args:
      learning_rate: a number or a tensor.
      learning_rate_power: at most 0.
      initial_accumulator_value: what ``accum`` starts from; at least 0.
      l1_regularization_strength, l2_regularization_strength: at least 0.
      use_locking: recorded.
      name: the name of the operations and of the slots.
      accum_name, linear_name: names for the slots, instead of ``name``.
      l2_shrinkage_regularization_strength: a magnitude penalty on the gradient; at least 0.
    """

    def __init__(
        self,
        learning_rate: Any,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        use_locking: bool = False,
        name: str = "Ftrl",
        accum_name: str | None = None,
        linear_name: str | None = None,
        l2_shrinkage_regularization_strength: float = 0.0,
    ) -> None:
        super().__init__(use_locking, name)
        if learning_rate_power > 0.0:
            raise GraphError(
                f"learning_rate_power {learning_rate_power:f} needs to be negative or zero"
            )
        for key, value in (
            ("initial_accumulator_value", initial_accumulator_value),
            ("l1_regularization_strength", l1_regularization_strength),
            ("l2_regularization_strength", l2_regularization_strength),
            ("l2_shrinkage_regularization_strength", l2_shrinkage_regularization_strength),
        ):
            if value < 0.0:
                raise GraphError(f"{key} {value:f} needs to be positive or zero")
        self._learning_rate = learning_rate
        self._learning_rate_power = learning_rate_power
        self._initial_accumulator_value = initial_accumulator_value
        self._l1 = l1_regularization_strength
        self._l2 = l2_regularization_strength
        self._l2_shrinkage = l2_shrinkage_regularization_strength
        self._accum_name = accum_name
        self._linear_name = linear_name
        self._tensors: tuple[Any, ...] = ()

    def _create_slots(self, var_list: Sequence[Any]) -> None:
        for v in var_list:
            start = constant(self._initial_accumulator_value, v.dtype.base_dtype, v.shape)
            self._get_or_make_slot(v, start, "accum", self._accum_name or self._name)
            self._zeros_slot(v, "linear", self._linear_name or self._name)

    def _prepare(self) -> None:
        self._tensors = (
            parameter(self._learning_rate, "learning_rate"),
            parameter(self._l1, "l1_regularization_strength"),
            parameter(self._l2, "l2_regularization_strength"),
            parameter(self._l2_shrinkage, "l2_shrinkage_regularization_strength"),
            parameter(self._learning_rate_power, "learning_rate_power"),
        )

    def _apply_dense(self, grad: Any, var: Any) -> Any:
        accum, linear = self.get_slot(var, "accum"), self.get_slot(var, "linear")
        rate, l1, l2, shrinkage, power = self._for(var, *self._tensors)

        def root(x: Any) -> Any:
            if self._learning_rate_power == -0.5:
                return sqrt(x)
            return pow(x, -power)

        shrunk = grad + 2 * shrinkage * var if self._l2_shrinkage > 0.0 else grad
        new = accum + square(grad)
        new_linear = linear + shrunk - (root(new) - root(accum)) / rate * var
        quadratic = root(new) / rate + 2 * l2
        solution = (sign(new_linear) * l1 - new_linear) / quadratic
        value = where(abs(new_linear) > l1, solution, zeros_like(solution))
        updates = [accum.assign(new), linear.assign(new_linear)]
        return group(*updates, var.assign(value, self._use_locking), name="ApplyFtrl")
