"""Adam (Kingma and Ba, 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.graph import Operation, control_dependencies, get_default_graph
from graphc.ops.array import group
from graphc.ops.math import sqrt, square
from graphc.train.optimizer import Optimizer, parameter


class AdamOptimizer(Optimizer):
    """Steps scaled by estimates of the gradient's mean and of its mean square.

    With ``t`` the number of the step::

        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient ** 2
        rate = learning_rate * sqrt(1 - beta2 ** t) / (1 - beta1 ** t)
        variable -= rate * m / (sqrt(v) + epsilon)

    ``epsilon`` is therefore the "epsilon hat" of the paper.  The powers of the betas are variables
    of their own, updated after everything else.

    Args:
      learning_rate, beta1, beta2, epsilon: numbers, tensors or functions that return them.
      use_locking: recorded.
      name: the name of the operations and of the slots.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta1: Any = 0.9,
        beta2: Any = 0.999,
        epsilon: Any = 1e-8,
        use_locking: bool = False,
        name: str = "Adam",
    ) -> None:
        super().__init__(use_locking, name)
        self._lr = learning_rate
        self._beta1 = beta1
        self._beta2 = beta2
        self._epsilon = epsilon
        self._lr_t: Any = None
        self._beta1_t: Any = None
        self._beta2_t: Any = None
        self._epsilon_t: Any = None

    def _get_beta_accumulators(self) -> tuple[Any, Any]:
        graph = get_default_graph()
        return (
            self._get_non_slot_variable("beta1_power", graph),
            self._get_non_slot_variable("beta2_power", graph),
        )

    def _create_slots(self, var_list: Sequence[Any]) -> None:
        first = min(var_list, key=lambda v: str(v.name))
        self._create_non_slot_variable(self._beta1, "beta1_power", first)
        self._create_non_slot_variable(self._beta2, "beta2_power", first)
        for v in var_list:
            self._zeros_slot(v, "m", self._name)
            self._zeros_slot(v, "v", self._name)

    def _prepare(self) -> None:
        self._lr_t = parameter(self._lr, "learning_rate")
        self._beta1_t = parameter(self._beta1, "beta1")
        self._beta2_t = parameter(self._beta2, "beta2")
        self._epsilon_t = parameter(self._epsilon, "epsilon")

    def _apply_dense(self, grad: Any, var: Any) -> Any:
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        power1, power2, lr, beta1, beta2, epsilon = self._for(
            var, *self._get_beta_accumulators(), self._lr_t, self._beta1_t, self._beta2_t,
            self._epsilon_t,
        )  # fmt: skip
        rate = lr * sqrt(1 - power2) / (1 - power1)
        new_m = m + (grad - m) * (1 - beta1)
        new_v = v + (square(grad) - v) * (1 - beta2)
        step = (new_m * rate) / (sqrt(new_v) + epsilon)
        updates = [m.assign(new_m), v.assign(new_v), var.assign_sub(step, self._use_locking)]
        return group(*updates, name="ApplyAdam")

    def _finish(self, update_ops: Sequence[Any], name_scope: str) -> Operation:
        with control_dependencies(update_ops):
            power1, power2 = self._get_beta_accumulators()
            update1 = power1.assign(power1 * self._beta1_t, self._use_locking)
            update2 = power2.assign(power2 * self._beta2_t, self._use_locking)
        return group(*update_ops, update1, update2, name=name_scope)
