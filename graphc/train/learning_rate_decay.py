"""Learning rates that fall as the training goes on: functions of the global step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.build import constant, convert_to_tensor
from graphc.errors import GraphError
from graphc.graph import Tensor, name_scope
from graphc.ops.array import identity
from graphc.ops.math import (
    add,
    cast,
    ceil,
    cos,
    equal,
    exp,
    floor,
    less_equal,
    log,
    minimum,
    multiply,
    negative,
    pow,
    realdiv,
    where,
)
from graphc.ops.shaping_make import ones_like


def exponential_decay(
    learning_rate: Any,
    global_step: Any,
    decay_steps: Any,
    decay_rate: Any,
    staircase: bool = False,
    name: str | None = None,
) -> Tensor:
    """``learning_rate * decay_rate ** (global_step / decay_steps)``.

    Args:
      learning_rate: the rate at step 0; its dtype is the result's.
      global_step: the step, a variable or a tensor.
      decay_steps: after how many steps the rate is multiplied by ``decay_rate``.
      decay_rate: the factor.
      staircase: divide as integers, so that the rate changes every ``decay_steps`` steps only.
      name: a name for the operations.
    """
    with name_scope(name, "ExponentialDecay") as scope:
        rate, steps, factor, step = _operands(learning_rate, decay_steps, decay_rate, global_step)
        p = step / steps
        if staircase:
            p = floor(p)
        return multiply(rate, pow(factor, p), name=scope)


def natural_exp_decay(
    learning_rate: Any,
    global_step: Any,
    decay_steps: Any,
    decay_rate: Any,
    staircase: bool = False,
    name: str | None = None,
) -> Tensor:
    """``learning_rate * exp(-decay_rate * global_step / decay_steps)``.

    Args: those of :func:`exponential_decay`.
    """
    factor = exp(negative(decay_rate))
    return exponential_decay(learning_rate, global_step, decay_steps, factor, staircase, name)


def inverse_time_decay(
    learning_rate: Any,
    global_step: Any,
    decay_steps: Any,
    decay_rate: Any,
    staircase: bool = False,
    name: str | None = None,
) -> Tensor:
    """``learning_rate / (1 + decay_rate * global_step / decay_steps)``.

    Args: those of :func:`exponential_decay`.
    """
    with name_scope(name, "InverseTimeDecay") as scope:
        rate, steps, factor, step = _operands(learning_rate, decay_steps, decay_rate, global_step)
        p = step / steps
        if staircase:
            p = floor(p)
        return realdiv(rate, 1 + factor * p, name=scope)


def polynomial_decay(
    learning_rate: Any,
    global_step: Any,
    decay_steps: Any,
    end_learning_rate: Any = 0.0001,
    power: Any = 1.0,
    cycle: bool = False,
    name: str | None = None,
) -> Tensor:
    """A polynomial from ``learning_rate`` down to ``end_learning_rate`` in ``decay_steps`` steps.

    Args:
      learning_rate: the rate at step 0; its dtype is the result's.
      global_step: the step, a variable or a tensor.
      decay_steps: how many steps the way down takes.
      end_learning_rate: the rate from then on.
      power: the polynomial's power; 1 is a line.
      cycle: start again, a longer way each time, instead of staying at ``end_learning_rate``.
      name: a name for the operations.
    """
    with name_scope(name, "PolynomialDecay") as scope:
        rate, end, exponent, step, steps = _operands(
            learning_rate, end_learning_rate, power, global_step, decay_steps
        )
        if cycle:
            cycles = ceil(step / steps)
            steps = steps * where(equal(step, 0), ones_like(cycles), cycles)
        else:
            step = minimum(step, steps)
        p = step / steps
        return add((rate - end) * pow(1 - p, exponent), end, name=scope)


def cosine_decay(
    learning_rate: Any,
    global_step: Any,
    decay_steps: Any,
    alpha: Any = 0.0,
    name: str | None = None,
) -> Tensor:
    """Half a cosine from ``learning_rate`` down to ``alpha * learning_rate``.

    Loshchilov and Hutter (2016).

    Args:
      learning_rate: the rate at step 0; its dtype is the result's.
      global_step: the step, a variable or a tensor.
      decay_steps: how many steps the way down takes.
      alpha: the part of the rate that remains.
      name: a name for the operations.
    """
    with name_scope(name, "CosineDecay"):
        rate, steps, step = _operands(learning_rate, decay_steps, global_step)
        return multiply(rate, _cosine(minimum(step, steps) / steps, alpha))


def cosine_decay_restarts(
    learning_rate: Any,
    global_step: Any,
    first_decay_steps: Any,
    t_mul: float = 2.0,
    m_mul: float = 1.0,
    alpha: Any = 0.0,
    name: str | None = None,
) -> Tensor:
    """:func:`cosine_decay` again and again.

    Args:
      learning_rate, global_step, alpha, name: those of :func:`cosine_decay`.
      first_decay_steps: how many steps the first way down takes.
      t_mul: how many times longer each way down is than the one before.
      m_mul: how many times higher it starts.
    """
    with name_scope(name, "SGDRDecay") as scope:
        rate, steps, step = _operands(learning_rate, first_decay_steps, global_step)
        done = step / steps
        if t_mul == 1.0:
            restarts: Any = floor(done)
            fraction = done - restarts
        else:
            position: Any = log(1 - done * (1 - t_mul))
            restarts = floor(position / math.log(t_mul))
            length = t_mul**restarts
            fraction = (done - (1 - length) / (1 - t_mul)) / length
        return multiply(rate, _cosine(fraction, alpha, m_mul**restarts), name=scope)


def linear_cosine_decay(
    learning_rate: Any,
    global_step: Any,
    decay_steps: Any,
    num_periods: Any = 0.5,
    alpha: Any = 0.0,
    beta: Any = 0.001,
    name: str | None = None,
) -> Tensor:
    """``learning_rate * ((alpha + falling line) * cosine + beta)``; Bello et al. (2017).

    Args:
      learning_rate, global_step, decay_steps, name: those of :func:`cosine_decay`.
      num_periods: the periods of the cosine.
      alpha, beta: see the formula.
    """
    with name_scope(name, "LinearCosineDecay") as scope:
        rate, steps, step = _operands(learning_rate, decay_steps, global_step)
        step = minimum(step, steps)
        line = (steps - step) / steps
        cosine = _cosine(2.0 * num_periods * (step / steps), 0.0)
        return multiply(rate, (alpha + line) * cosine + beta, name=scope)


def piecewise_constant(
    x: Any, boundaries: Sequence[Any], values: Sequence[Any], name: str | None = None
) -> Tensor:
    """``values[0]`` while ``x <= boundaries[0]``, ``values[1]`` while ``x <= boundaries[1]``, ...

    Args:
      x: the global step, or any scalar.
      boundaries: increasing numbers, of the dtype of ``x``.
      values: one more than there are boundaries, all of one dtype.
      name: a name for the operations.
    Raises:
      ValueError: dtypes that differ, or the wrong number of values.
    """
    if len(boundaries) != len(values) - 1:
        raise GraphError("The length of boundaries should be 1 less than the length of values")
    with name_scope(name, "PiecewiseConstant"):
        at = convert_to_tensor(x)
        limits = [_boundary(b, at) for b in boundaries]
        tensors = [convert_to_tensor(v) for v in values]
        for v in tensors[1:]:
            if v.dtype.base_dtype is not tensors[0].dtype.base_dtype:
                raise GraphError(
                    "Values must have elements all with the same dtype "
                    f"({tensors[0].dtype.base_dtype} vs {v.dtype.base_dtype})."
                )
        result = tensors[-1] if limits else identity(tensors[-1])
        for limit, value in zip(reversed(limits), reversed(tensors[:-1]), strict=True):
            result = where(less_equal(at, limit), value, result)
        return result


piecewise_constant_decay = piecewise_constant


def _boundary(value: Any, x: Tensor) -> Tensor:
    dtype, limit = x.dtype.base_dtype, convert_to_tensor(value)
    if limit.dtype.base_dtype is dtype:
        return limit
    if limit.dtype.base_dtype.name == "int32" and dtype.name == "int64":
        return cast(limit, dtype)
    raise GraphError(
        f"Boundaries ({limit.dtype.base_dtype}) must have the same dtype as x ({dtype})."
    )


def _operands(learning_rate: Any, *others: Any) -> list[Any]:
    """The learning rate as a tensor and the other operands in its dtype."""
    if any(value is None for value in others):
        raise GraphError("global_step and the parameters of a decay must not be None")
    rate = convert_to_tensor(learning_rate, name="initial_learning_rate")
    return [rate, *(cast(value, rate.dtype) for value in others)]


def _cosine(fraction: Any, alpha: Any, scale: Any = 1.0) -> Any:
    """Half a cosine from 1 (times ``scale``) at fraction 0 to ``alpha`` at fraction 1."""
    curve: Any = cos(constant(math.pi, fraction.dtype) * fraction)
    return (1 - alpha) * (0.5 * scale * (1.0 + curve)) + alpha
