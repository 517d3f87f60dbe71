"""Random numbers and their seeds, under the names of ``tf.random`` of TensorFlow 1.15."""

from __future__ import annotations

from graphc.ops.random import (
    get_seed,
    set_random_seed,
    truncated_normal,
)
from graphc.ops.random import (
    random_normal as normal,
)
from graphc.ops.random import (
    random_uniform as uniform,
)
from graphc.ops.random_choice import multinomial
from graphc.ops.random_choice import random_shuffle as shuffle

__all__ = [
    "get_seed", "multinomial", "normal", "set_random_seed", "shuffle", "truncated_normal",
    "uniform",
]  # fmt: skip
