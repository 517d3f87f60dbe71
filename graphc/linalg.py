"""Matrices, under the names of ``tf.linalg`` of TensorFlow 1.15."""

from __future__ import annotations

from graphc.nn.activations import l2_normalize
from graphc.ops.contraction_einsum import einsum, tensordot
from graphc.ops.contraction_functions import matmul, matvec
from graphc.ops.math import norm
from graphc.ops.shaping import matrix_transpose
from graphc.ops.shaping import matrix_transpose as transpose
from graphc.ops.shaping_make import eye
from graphc.train.clip import global_norm

__all__ = [
    "einsum", "eye", "global_norm", "l2_normalize", "matmul", "matrix_transpose", "matvec", "norm",
    "tensordot", "transpose",
]  # fmt: skip
