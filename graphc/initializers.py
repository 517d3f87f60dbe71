"""Initializers: what a variable of a given shape starts from.

An initializer is called with a shape and a dtype and declares the operations that compute the
value.  The classes, their arguments and their aliases are those of TensorFlow 1.15.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.build import constant as constant_tensor
from graphc.dtypes import DType, as_dtype
from graphc.errors import DTypeError, GraphError
from graphc.graph import Tensor, get_default_graph, name_scope
from graphc.ops import random as random_ops
from graphc.ops.math import multiply
from graphc.ops.shaping_make import eye, fill
from graphc.ops.shaping_make import ones as ones_tensor
from graphc.ops.shaping_make import zeros as zeros_tensor
from graphc.shapes import TensorShape

# The least number of elements for which a value is computed rather than kept in the graph.
_LARGE = 1000
# The standard deviation of a standard normal distribution truncated at two deviations.
_TRUNCATED_STDDEV = 0.87962566103423978


class Initializer:
    """Base of the initializers."""

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        """Declare a tensor of the given shape; the initializer's own dtype unless one is given."""
        raise GraphError(f"{type(self).__name__} does not say what it initializes with")

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal initializer."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Initializer:
        """The initializer with the arguments ``config``."""
        return cls(**config)


class Zeros(Initializer):
    """All elements zero (False, the empty string)."""

    def __init__(self, dtype: Any = dtypes.float32) -> None:
        self.dtype = as_dtype(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        """A tensor of zeros."""
        dtype = _chosen(dtype, self.dtype)
        return zeros_tensor(shape, dtype)

    def get_config(self) -> dict[str, Any]:
        """The dtype."""
        return {"dtype": self.dtype.name}


class Ones(Initializer):
    """All elements one."""

    def __init__(self, dtype: Any = dtypes.float32) -> None:
        self.dtype = as_dtype(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        """A tensor of ones."""
        dtype = _chosen(dtype, self.dtype)
        return ones_tensor(shape, dtype)

    def get_config(self) -> dict[str, Any]:
        """The dtype."""
        return {"dtype": self.dtype.name}


class Constant(Initializer):
    """A given value: one number for all elements, or a list that is continued with its last.

    Args:
      value: a number, (nested) lists of them or an array.
      dtype: the dtype where the call gives none.
      verify_shape: whether ``value`` must have exactly the variable's shape.
    """

    def __init__(
        self, value: Any = 0, dtype: Any = dtypes.float32, verify_shape: bool = False
    ) -> None:
        if not (np.isscalar(value) or isinstance(value, (list, tuple, np.ndarray))):
            raise DTypeError(
                f"Invalid type for initial value: {type(value)} (expected Python scalar, list or "
                "tuple of values, or numpy.ndarray)."
            )
        self.value = value
        self.dtype = as_dtype(dtype)
        self._verify_shape = verify_shape

    def __call__(
        self,
        shape: Any,
        dtype: Any = None,
        partition_info: Any = None,
        verify_shape: bool | None = None,
    ) -> Tensor:
        """A constant."""
        dtype = _chosen(dtype, self.dtype)
        verify = self._verify_shape if verify_shape is None else verify_shape
        if np.isscalar(self.value) and not verify:
            return _constant(self.value, shape, dtype)
        return constant_tensor(self.value, dtype, shape, verify_shape=verify)

    def get_config(self) -> dict[str, Any]:
        """The value and the dtype."""
        return {"value": self.value, "dtype": self.dtype.name}


class RandomUniform(Initializer):
    """Uniform in ``[minval, maxval)``; ``maxval`` None is 1 for floats."""

    def __init__(
        self, minval: Any = 0, maxval: Any = None, seed: Any = None, dtype: Any = dtypes.float32
    ) -> None:
        self.minval = minval
        self.maxval = maxval
        self.seed = seed
        self.dtype = as_dtype(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        """A random tensor, drawn anew by every run of the variable's initializer."""
        dtype = _chosen(dtype, self.dtype)
        return random_ops.random_uniform(shape, self.minval, self.maxval, dtype, seed=self.seed)

    def get_config(self) -> dict[str, Any]:
        """The bounds, the seed and the dtype."""
        return {
            "minval": self.minval,
            "maxval": self.maxval,
            "seed": self.seed,
            "dtype": self.dtype.name,
        }


class RandomNormal(Initializer):
    """Normally distributed."""

    def __init__(
        self, mean: Any = 0.0, stddev: Any = 1.0, seed: Any = None, dtype: Any = dtypes.float32
    ) -> None:
        self.mean = mean
        self.stddev = stddev
        self.seed = seed
        self.dtype = _floating(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        """A random tensor, drawn anew by every run of the variable's initializer."""
        dtype = _chosen(dtype, self.dtype)
        return random_ops.random_normal(shape, self.mean, self.stddev, dtype, seed=self.seed)

    def get_config(self) -> dict[str, Any]:
        """The distribution, the seed and the dtype."""
        return {
            "mean": self.mean,
            "stddev": self.stddev,
            "seed": self.seed,
            "dtype": self.dtype.name,
        }


class TruncatedNormal(RandomNormal):
    """Normally distributed, without what is more than two standard deviations from the mean."""

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        """A random tensor, drawn anew by every run of the variable's initializer."""
        dtype = _chosen(dtype, self.dtype)
        return random_ops.truncated_normal(shape, self.mean, self.stddev, dtype, seed=self.seed)


class UniformUnitScaling(Initializer):
    """Uniform, with bounds that keep the scale of inputs; ``variance_scaling`` is its successor."""

    def __init__(self, factor: float = 1.0, seed: Any = None, dtype: Any = dtypes.float32) -> None:
        self.factor = factor
        self.seed = seed
        self.dtype = _floating(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        """A random tensor, drawn anew by every run of the variable's initializer."""
        dtype = _chosen(dtype, self.dtype)
        inputs = max(float(math.prod(_full_shape(shape, partition_info)[:-1])), 1.0)
        limit = math.sqrt(3 / inputs) * self.factor
        return random_ops.random_uniform(shape, -limit, limit, dtype, seed=self.seed)

    def get_config(self) -> dict[str, Any]:
        """The factor, the seed and the dtype."""
        return {"factor": self.factor, "seed": self.seed, "dtype": self.dtype.name}


class VarianceScaling(Initializer):
    """Random, with a variance of ``scale`` over the number of inputs, outputs or their mean.

    Args:
      scale: a positive factor.
      mode: ``fan_in``, ``fan_out`` or ``fan_avg``.
      distribution: ``truncated_normal`` (or ``normal``), ``untruncated_normal`` or ``uniform``.
      seed: the seed of the random operation.
      dtype: the dtype where the call gives none.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: Any = None,
        dtype: Any = dtypes.float32,
    ) -> None:
        if scale <= 0.0:
            raise GraphError("`scale` must be positive float.")
        if mode not in {"fan_in", "fan_out", "fan_avg"}:
            raise GraphError(f"Invalid `mode` argument: {mode}")
        distribution = distribution.lower()
        if distribution not in {"normal", "uniform", "truncated_normal", "untruncated_normal"}:
            raise GraphError(f"Invalid `distribution` argument: {distribution}")
        self.scale = scale
        self.mode = mode
        self.distribution = distribution
        self.seed = seed
        self.dtype = _floating(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        """A random tensor, drawn anew by every run of the variable's initializer."""
        dtype = _chosen(dtype, self.dtype)
        inputs, outputs = _fans(_full_shape(shape, partition_info))
        fan = {"fan_in": inputs, "fan_out": outputs, "fan_avg": (inputs + outputs) / 2.0}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return random_ops.random_uniform(shape, -limit, limit, dtype, seed=self.seed)
        stddev = math.sqrt(variance)
        if self.distribution == "untruncated_normal":
            return random_ops.random_normal(shape, 0.0, stddev, dtype, seed=self.seed)
        stddev /= _TRUNCATED_STDDEV
        return random_ops.truncated_normal(shape, 0.0, stddev, dtype, seed=self.seed)

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {
            "scale": self.scale,
            "mode": self.mode,
            "distribution": self.distribution,
            "seed": self.seed,
            "dtype": self.dtype.name,
        }


class GlorotUniform(VarianceScaling):
    """Uniform with the variance of Glorot and Bengio (2010); what ``get_variable`` starts from."""

    def __init__(self, seed: Any = None, dtype: Any = dtypes.float32) -> None:
        super().__init__(1.0, "fan_avg", "uniform", seed, dtype)

    def get_config(self) -> dict[str, Any]:
        """The seed and the dtype."""
        return {"seed": self.seed, "dtype": self.dtype.name}


class GlorotNormal(VarianceScaling):
    """Truncated normal with the variance of Glorot and Bengio (2010)."""

    def __init__(self, seed: Any = None, dtype: Any = dtypes.float32) -> None:
        super().__init__(1.0, "fan_avg", "truncated_normal", seed, dtype)

    def get_config(self) -> dict[str, Any]:
        """The seed and the dtype."""
        return {"seed": self.seed, "dtype": self.dtype.name}


class Identity(Initializer):
    """The identity matrix times ``gain``."""

    def __init__(self, gain: float = 1.0, dtype: Any = dtypes.float32) -> None:
        self.gain = gain
        self.dtype = _floating(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        """A constant."""
        sizes = _full_shape(shape, partition_info)
        if len(sizes) != 2:
            raise GraphError("Identity matrix initializer can only be used for 2D matrices.")
        dtype = _chosen(dtype, self.dtype)
        matrix = eye(sizes[0], sizes[1], dtype=dtype)
        return multiply(self.gain, matrix, name="mul")

    def get_config(self) -> dict[str, Any]:
        """The gain and the dtype."""
        return {"gain": self.gain, "dtype": self.dtype.name}


class Orthogonal(Initializer):
    """An orthogonal matrix times ``gain``, drawn when it is declared; the last dimension has the
    columns."""

    def __init__(self, gain: float = 1.0, seed: Any = None, dtype: Any = dtypes.float32) -> None:
        self.gain = gain
        self.seed = seed
        self.dtype = _floating(dtype)

    def __call__(self, shape: Any, dtype: Any = None, partition_info: Any = None) -> Tensor:
        """A constant."""
        sizes = _full_shape(shape, partition_info)
        if len(sizes) < 2:
            raise GraphError("The tensor to initialize must be at least two-dimensional")
        first, second = random_ops.get_seed(self.seed)
        seeds = [first or 0, get_default_graph().version if second is None else second]
        rows, columns = math.prod(sizes[:-1]), sizes[-1]
        shape = (max(rows, columns), min(rows, columns))
        q, r = np.linalg.qr(np.random.default_rng(seeds).standard_normal(shape))
        q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
        matrix = self.gain * (q if rows >= columns else q.T).reshape(sizes)
        return constant_tensor(matrix, _chosen(dtype, self.dtype), name="orthogonal")

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {"gain": self.gain, "seed": self.seed, "dtype": self.dtype.name}


def lecun_normal(seed: Any = None) -> VarianceScaling:
    """Truncated normal with variance 1 / inputs (LeCun et al., 1998)."""
    return VarianceScaling(1.0, "fan_in", "truncated_normal", seed)


def lecun_uniform(seed: Any = None) -> VarianceScaling:
    """Uniform with variance 1 / inputs (LeCun et al., 1998)."""
    return VarianceScaling(1.0, "fan_in", "uniform", seed)


def he_normal(seed: Any = None) -> VarianceScaling:
    """Truncated normal with variance 2 / inputs (He et al., 2015)."""
    return VarianceScaling(2.0, "fan_in", "truncated_normal", seed)


def he_uniform(seed: Any = None) -> VarianceScaling:
    """Uniform with variance 2 / inputs (He et al., 2015)."""
    return VarianceScaling(2.0, "fan_in", "uniform", seed)


def _chosen(dtype: Any, own: DType) -> DType:
    return own if dtype is None else as_dtype(dtype).base_dtype


def _floating(dtype: Any) -> DType:
    found = as_dtype(dtype)
    if not found.is_floating:
        raise GraphError(f"Expected floating point type, got {found}.")
    return found


def _full_shape(shape: Any, partition_info: Any) -> list[int]:
    sizes = shape if partition_info is None else partition_info.full_shape
    return [int(s) for s in TensorShape(sizes)]


def _fans(shape: Sequence[int]) -> tuple[int, int]:
    """How many inputs and outputs a weight of the given shape connects."""
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    receptive_field = math.prod(shape[:-2])
    return shape[-2] * receptive_field, shape[-1] * receptive_field


def _constant(value: Any, shape: Any, dtype: DType) -> Tensor:
    """One value in every element: a constant, a Fill where it would be large."""
    sizes = None if isinstance(shape, Tensor) else TensorShape(shape)
    count = None if sizes is None else sizes.num_elements()
    if sizes is not None and ((count or 0) < _LARGE or dtype is dtypes.string):
        return constant_tensor(value, dtype, sizes)
    with name_scope("Const") as scope:
        return fill(shape, constant_tensor(value, dtype, name="value"), name=scope)


zeros = zeros_initializer = Zeros
ones = ones_initializer = Ones
constant = constant_initializer = Constant
random_uniform = random_uniform_initializer = RandomUniform
random_normal = random_normal_initializer = RandomNormal
truncated_normal = truncated_normal_initializer = TruncatedNormal
uniform_unit_scaling = uniform_unit_scaling_initializer = UniformUnitScaling
variance_scaling = variance_scaling_initializer = VarianceScaling
glorot_uniform = glorot_uniform_initializer = GlorotUniform
glorot_normal = glorot_normal_initializer = GlorotNormal
identity = identity_initializer = Identity
orthogonal = orthogonal_initializer = Orthogonal
