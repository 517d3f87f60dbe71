"""Optimizers that scale every element's step by its past gradients: Adagrad, RMSProp, Adadelta."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import GraphError
from graphc.initializers import Constant, Ones
from graphc.ops.array import group
from graphc.ops.math import rsqrt, sqrt, square
from graphc.ops.shaping_make import shape
from graphc.train.optimizer import Optimizer, parameter


class AdagradOptimizer(Optimizer):
    """``sum += gradient ** 2; variable -= learning_rate * gradient / sqrt(sum)``.

    Duchi et al. (2011).

    Args:
      learning_rate: a number, a tensor or a function that returns one of them.
      initial_accumulator_value: what the sum starts from; positive.
      use_locking: recorded.
      name: the name of the operations and of the slots.
    """

    def __init__(
        self,
        learning_rate: Any,
        initial_accumulator_value: float = 0.1,
        use_locking: bool = False,
        name: str = "Adagrad",
    ) -> None:
        if initial_accumulator_value <= 0.0:
            raise GraphError(
                f"initial_accumulator_value must be positive: {initial_accumulator_value}"
            )
        super().__init__(use_locking, name)
        self._learning_rate = learning_rate
        self._initial_accumulator_value = initial_accumulator_value
        self._learning_rate_tensor: Any = None

    def _create_slots(self, var_list: Sequence[Any]) -> None:
        start = Constant(self._initial_accumulator_value)
        for v in var_list:
            _filled_slot(self, v, start, "accumulator")

    def _prepare(self) -> None:
        self._learning_rate_tensor = parameter(self._learning_rate, "learning_rate")

    def _apply_dense(self, grad: Any, var: Any) -> Any:
        slot = self.get_slot(var, "accumulator")
        (rate,) = self._for(var, self._learning_rate_tensor)
        new = slot + square(grad)
        step = grad * rate * rsqrt(new)
        updates = [slot.assign(new, self._use_locking), var.assign_sub(step, self._use_locking)]
        return group(*updates, name="ApplyAdagrad")


class RMSPropOptimizer(Optimizer):
    """Steps over the root of a moving average of the gradient's square; Hinton (2012).

    Per step::

        mean_square = decay * mean_square + (1 - decay) * gradient ** 2
        momentum = momentum_factor * momentum + learning_rate * gradient / sqrt(
            mean_square + epsilon)
        variable -= momentum

    Args:
      learning_rate, decay, momentum, epsilon: numbers, tensors or functions that return them.
      use_locking: recorded.
      centered: subtract the square of a moving average of the gradient from ``mean_square``.
      name: the name of the operations and of the slots.
    """

    def __init__(
        self,
        learning_rate: Any,
        decay: Any = 0.9,
        momentum: Any = 0.0,
        epsilon: Any = 1e-10,
        use_locking: bool = False,
        centered: bool = False,
        name: str = "RMSProp",
    ) -> None:
        super().__init__(use_locking, name)
        self._learning_rate = learning_rate
        self._decay = decay
        self._momentum = momentum
        self._epsilon = epsilon
        self._centered = centered
        self._tensors: tuple[Any, ...] = ()

    def _create_slots(self, var_list: Sequence[Any]) -> None:
        for v in var_list:
            _filled_slot(self, v, Ones(), "rms")
            if self._centered:
                self._zeros_slot(v, "mg", self._name)
            self._zeros_slot(v, "momentum", self._name)

    def _prepare(self) -> None:
        self._tensors = (
            parameter(self._learning_rate, "learning_rate"),
            parameter(self._decay, "decay"),
            parameter(self._momentum, "momentum"),
            parameter(self._epsilon, "epsilon"),
        )

    def _apply_dense(self, grad: Any, var: Any) -> Any:
        rms, mom = self.get_slot(var, "rms"), self.get_slot(var, "momentum")
        rate, decay, factor, epsilon = self._for(var, *self._tensors)
        new_rms = rms + (square(grad) - rms) * (1 - decay)
        updates = [rms.assign(new_rms)]
        spread = new_rms + epsilon
        if self._centered:
            mg = self.get_slot(var, "mg")
            new_mg = mg + (grad - mg) * (1 - decay)
            updates.append(mg.assign(new_mg))
            spread = new_rms - square(new_mg) + epsilon
        new_mom = mom * factor + grad * rate / sqrt(spread)
        updates += [mom.assign(new_mom), var.assign_sub(new_mom, self._use_locking)]
        return group(*updates, name=f"Apply{'Centered' if self._centered else ''}RMSProp")


class AdadeltaOptimizer(Optimizer):
    """Steps in the ratio of past steps to past gradients; Zeiler (2012).

    Per step::

        accum = rho * accum + (1 - rho) * gradient ** 2
        step = sqrt(accum_update + epsilon) / sqrt(accum + epsilon) * gradient
        accum_update = rho * accum_update + (1 - rho) * step ** 2
        variable -= learning_rate * step

    Args:
      learning_rate, rho, epsilon: numbers, tensors or functions that return them.
      use_locking: recorded.
      name: the name of the operations and of the slots.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: Any = 0.95,
        epsilon: Any = 1e-8,
        use_locking: bool = False,
        name: str = "Adadelta",
    ) -> None:
        super().__init__(use_locking, name)
        self._lr = learning_rate
        self._rho = rho
        self._epsilon = epsilon
        self._tensors: tuple[Any, ...] = ()

    def _create_slots(self, var_list: Sequence[Any]) -> None:
        for v in var_list:
            self._zeros_slot(v, "accum", self._name)
            self._zeros_slot(v, "accum_update", self._name)

    def _prepare(self) -> None:
        self._tensors = (
            parameter(self._lr, "lr"),
            parameter(self._rho, "rho"),
            parameter(self._epsilon, "epsilon"),
        )

    def _apply_dense(self, grad: Any, var: Any) -> Any:
        accum, steps = self.get_slot(var, "accum"), self.get_slot(var, "accum_update")
        rate, rho, epsilon = self._for(var, *self._tensors)
        new = accum * rho + square(grad) * (1 - rho)
        ratio: Any = sqrt(steps + epsilon)
        step = ratio * rsqrt(new + epsilon) * grad
        new_steps = steps * rho + square(step) * (1 - rho)
        change = var.assign_sub(step * rate, self._use_locking)
        return group(accum.assign(new), steps.assign(new_steps), change, name="ApplyAdadelta")


def _filled_slot(optimizer: Optimizer, var: Any, initializer: Any, slot_name: str) -> None:
    """A slot of one value, whether or not the variable's shape is known."""
    name, dtype = optimizer.get_name(), var.dtype.base_dtype
    if var.shape.is_fully_defined():
        optimizer._get_or_make_slot_with_initializer(
            var, initializer, var.shape, dtype, slot_name, name
        )
    elif optimizer.get_slot(var, slot_name) is None:
        value = initializer(shape(var.initialized_value()), dtype)
        optimizer._get_or_make_slot(var, value, slot_name, name)
