"""Every derived scalar function: importing this module registers them all."""

from graphc.loop import (
    scalar_math_arc,
    scalar_math_bytes,
    scalar_math_erf,
    scalar_math_exp,
    scalar_math_hyperbolic,
    scalar_math_log,
    scalar_math_pairs,
    scalar_math_pow,
    scalar_math_random,
    scalar_math_simple,
    scalar_math_special,
    scalar_math_trig,
)

__all__ = [
    "scalar_math_arc",
    "scalar_math_bytes",
    "scalar_math_erf",
    "scalar_math_exp",
    "scalar_math_hyperbolic",
    "scalar_math_log",
    "scalar_math_pairs",
    "scalar_math_pow",
    "scalar_math_random",
    "scalar_math_simple",
    "scalar_math_special",
    "scalar_math_trig",
]
