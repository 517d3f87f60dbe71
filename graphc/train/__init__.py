"""Training: optimizers, learning rates that fall, moving averages, the global step."""

from __future__ import annotations

from graphc.train.adam import AdamOptimizer
from graphc.train.adaptive import AdadeltaOptimizer, AdagradOptimizer, RMSPropOptimizer
from graphc.train.ftrl import FtrlOptimizer
from graphc.train.gradient_descent import GradientDescentOptimizer, MomentumOptimizer
from graphc.train.learning_rate_decay import (
    cosine_decay,
    cosine_decay_restarts,
    exponential_decay,
    inverse_time_decay,
    linear_cosine_decay,
    natural_exp_decay,
    piecewise_constant,
    piecewise_constant_decay,
    polynomial_decay,
)
from graphc.train.moving_averages import ExponentialMovingAverage
from graphc.train.optimizer import Optimizer
from graphc.train.training_util import (
    assert_global_step,
    create_global_step,
    get_global_step,
    get_or_create_global_step,
    global_step,
)

__all__ = [
    "AdadeltaOptimizer",
    "AdagradOptimizer",
    "AdamOptimizer",
    "ExponentialMovingAverage",
    "FtrlOptimizer",
    "GradientDescentOptimizer",
    "MomentumOptimizer",
    "Optimizer",
    "RMSPropOptimizer",
    "assert_global_step",
    "cosine_decay",
    "cosine_decay_restarts",
    "create_global_step",
    "exponential_decay",
    "get_global_step",
    "get_or_create_global_step",
    "global_step",
    "inverse_time_decay",
    "linear_cosine_decay",
    "natural_exp_decay",
    "piecewise_constant",
    "piecewise_constant_decay",
    "polynomial_decay",
]
