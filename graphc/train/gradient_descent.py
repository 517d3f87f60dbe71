"""Gradient descent, with and without momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.ops.array import group
from graphc.train.optimizer import Optimizer, parameter


class GradientDescentOptimizer(Optimizer):
    """``variable -= learning_rate * gradient``.

    Args:
      learning_rate: a number, a tensor or a function that returns one of them.
      use_locking: recorded.
      name: the name of the operations.
    """

    def __init__(
        self, learning_rate: Any, use_locking: bool = False, name: str = "GradientDescent"
    ) -> None:
        super().__init__(use_locking, name)
        self._learning_rate = learning_rate
        self._learning_rate_tensor: Any = None

    def _prepare(self) -> None:
        self._learning_rate_tensor = parameter(self._learning_rate, "learning_rate")

    def _apply_dense(self, grad: Any, var: Any) -> Any:
        (rate,) = self._for(var, self._learning_rate_tensor)
        return var.assign_sub(grad * rate, self._use_locking, "ApplyGradientDescent").op


class MomentumOptimizer(Optimizer):
    """``momentum = momentum * factor + gradient; variable -= learning_rate * momentum``.

    Args:
      learning_rate: a number, a tensor or a function that returns one of them.
      momentum: the factor; likewise.
      use_locking: recorded.
      name: the name of the operations and of the slots.
      use_nesterov: look one step ahead, after Sutskever et al. (2013).
    """

    def __init__(
        self,
        learning_rate: Any,
        momentum: Any,
        use_locking: bool = False,
        name: str = "Momentum",
        use_nesterov: bool = False,
    ) -> None:
        super().__init__(use_locking, name)
        self._learning_rate = learning_rate
        self._momentum = momentum
        self._use_nesterov = use_nesterov
        self._learning_rate_tensor: Any = None
        self._momentum_tensor: Any = None

    def _create_slots(self, var_list: Sequence[Any]) -> None:
        for v in var_list:
            self._zeros_slot(v, "momentum", self._name)

    def _prepare(self) -> None:
        self._learning_rate_tensor = parameter(self._learning_rate, "learning_rate")
        self._momentum_tensor = parameter(self._momentum, "momentum")

    def _apply_dense(self, grad: Any, var: Any) -> Any:
        slot = self.get_slot(var, "momentum")
        rate, factor = self._for(var, self._learning_rate_tensor, self._momentum_tensor)
        new = slot * factor + grad
        step = grad * rate + new * factor * rate if self._use_nesterov else new * rate
        updates = [slot.assign(new, self._use_locking), var.assign_sub(step, self._use_locking)]
        return group(*updates, name="ApplyMomentum")
