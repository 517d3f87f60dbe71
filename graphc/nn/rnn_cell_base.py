"""The base of recurrent cells, their states, and the checks that they share.

A *cell* computes one step: ``output, new_state = cell(input, state)``.  Its ``state_size`` is a
structure of sizes (ints or TensorShapes without the batch); a state is the same structure of
tensors ``[batch, *size]``.  Names and rules are those of TensorFlow 1.15.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from graphc import initializers, nest
from graphc.build import constant, convert_to_tensor
from graphc.dtypes import DType, as_dtype, int32
from graphc.errors import AbstractMethodError, DTypeError, GraphError, ShapeError
from graphc.graph import Tensor, name_scope
from graphc.nn.activations import elu, relu, selu, softmax, softplus, softsign
from graphc.nn.layer import Layer
from graphc.op import partial_value
from graphc.ops.math import clip_by_value, exp, sigmoid, tanh
from graphc.ops.shaping import concat, expand_dims
from graphc.ops.shaping_make import shape as shape_of
from graphc.ops.shaping_make import zeros
from graphc.shapes import TensorShape
from graphc.variable_scope import get_variable_scope, variable_scope


class _States(NamedTuple):
    c: Any
    h: Any


class LSTMStateTuple(_States):
    """The state of an LSTM cell: what it remembers, ``c``, and what it put out last, ``h``."""

    __slots__ = ()

    @property
    def dtype(self) -> Any:
        """The dtype of both.

        Raises:
          TypeError: they have different ones.
        """
        if self.c.dtype != self.h.dtype:
            raise DTypeError(f"Inconsistent internal state: {self.c.dtype} vs {self.h.dtype}")
        return self.c.dtype


# --- sizes and zeros ------------------------------------------------------------------------------


def _vector(value: Any, what: str) -> Tensor | None:
    """``value`` (an int, a shape, a scalar or vector tensor) as a vector; None if unknown."""
    if isinstance(value, Tensor):
        if value.sizes is not None and len(value.sizes) > 1:
            raise ShapeError(
                f"{what} tensor must be either a scalar or vector, but saw tensor: {value}"
            )
        return expand_dims(value, 0) if value.sizes == () else value
    known = TensorShape(value)
    return constant(known.as_list(), int32) if known.is_fully_defined() else None


def _static(value: Any) -> TensorShape:
    """What is known of ``value`` as a shape before a run; symbolic sizes stay symbols."""
    if not isinstance(value, Tensor):
        return TensorShape(value)
    known = partial_value(value)
    if known is None:
        rank = value.shape.num_elements()
        return TensorShape(None if rank is None else [None] * rank)
    return TensorShape([v if isinstance(v, int) else None for v in known])


def full_shape(prefix: Any, suffix: Any) -> Any:
    """``prefix`` and ``suffix`` as one shape: a list of ints where both are known, else a tensor.

    Args:
      prefix, suffix: ints, TensorShapes, or integer tensors (scalars or vectors).
    Raises:
      ValueError: a tensor of a higher rank, or a shape that is not fully known.
    """
    if not isinstance(prefix, Tensor) and not isinstance(suffix, Tensor):
        static = TensorShape(prefix).concatenate(suffix)
        if static.is_fully_defined():
            return static.as_list()
    first, rest = _vector(prefix, "prefix"), _vector(suffix, "suffix")
    if first is None or rest is None:
        raise ShapeError(f"Provided a prefix or suffix of None: {prefix} and {suffix}")
    return concat([first, rest], 0)


def static_shape(prefix: Any, suffix: Any) -> TensorShape:
    """What is known of :func:`full_shape` before a run."""
    return _static(prefix).concatenate(_static(suffix))


def zeros_of(prefix: Any, suffix: Any, dtype: Any) -> Tensor:
    """Zeros of the shape ``prefix`` and ``suffix`` make, see :func:`full_shape`."""
    made = zeros(full_shape(prefix, suffix), dtype=dtype)
    made.set_shape(static_shape(prefix, suffix))
    return made


# --- checks ---------------------------------------------------------------------------------------


def assert_like_rnncell(name: str, cell: Any) -> None:
    """Refuse what is no cell, naming the argument ``name`` that it was given as.

    Raises:
      TypeError: no ``output_size``, ``state_size``, ``zero_state`` or ``get_initial_state``, or
        it cannot be called.
    """
    faults = [
        text
        for ok, text in (
            (hasattr(cell, "output_size"), "'output_size' property is missing"),
            (hasattr(cell, "state_size"), "'state_size' property is missing"),
            (
                hasattr(cell, "zero_state") or hasattr(cell, "get_initial_state"),
                "either 'zero_state' or 'get_initial_state' method is required",
            ),
            (callable(cell), "is not callable"),
        )
        if not ok
    ]
    if faults:
        raise DTypeError(f"The argument {name!r} ({cell}) is not an RNNCell: {', '.join(faults)}.")


def check_floating(dtype: Any) -> None:
    """Refuse a dtype that no cell computes with.

    Raises:
      ValueError: not of floats; None passes.
    """
    if dtype is not None and not as_dtype(dtype).is_floating:
        raise GraphError(
            f"RNN cell only supports floating point inputs, but saw dtype: {as_dtype(dtype)!r}"
        )


def check_inputs(*values: Any) -> None:
    """Refuse structures with tensors that are not of floats (a ValueError)."""
    for tensor in nest.flatten(values):
        check_floating(tensor.dtype.base_dtype)


_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "elu": elu,
    "exponential": exp,
    "hard_sigmoid": lambda x: clip_by_value(0.2 * x + 0.5, 0.0, 1.0),
    "linear": lambda x: x,
    "relu": relu,
    "selu": selu,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "softplus": softplus,
    "softsign": softsign,
    "tanh": tanh,
}


def activation_of(activation: Any) -> Callable[..., Any]:
    """The function that a cell's argument ``activation`` names; tanh for None.

    Raises:
      ValueError: an unknown name.
      TypeError: neither a name nor a function.
    """
    if not activation:
        return tanh
    if isinstance(activation, str):
        if activation not in _ACTIVATIONS:
            raise GraphError(f"Unknown activation function:{activation}")
        return _ACTIVATIONS[activation]
    if not callable(activation):
        raise DTypeError(f"Could not interpret activation function identifier: {activation}")
    found: Callable[..., Any] = activation
    return found


# Keras's names of initializers that have no parameters to disagree on.
_INITIALIZERS = frozenset({
    "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "identity", "lecun_normal",
    "lecun_uniform", "ones", "zeros",
})  # fmt: skip


def initializer_of(initializer: Any) -> Any:
    """What a cell's argument ``initializer`` names; anything but a string as it is.

    Raises:
      ValueError: an unknown name.
    """
    if not isinstance(initializer, str):
        return initializer
    if initializer not in _INITIALIZERS:
        raise GraphError(f"Unknown initializer: {initializer}")
    return getattr(initializers, initializer)()


# --- the base -------------------------------------------------------------------------------------


class RNNCell(Layer):
    """Base of the recurrent cells.

    A subclass has the properties ``state_size`` and ``output_size`` and the method
    ``call(inputs, state)``, which gives the output ``[batch, output_size]`` and the new state.
    Variables that ``call`` gets by ``get_variable`` count among the cell's weights.

    Args:
      trainable, name, dtype, kwargs: see :class:`graphc.nn.layer.Layer`.
    """

    def __init__(
        self, trainable: bool = True, name: Any = None, dtype: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(trainable, name, dtype, **kwargs)
        self._around: Any = None

    def __call__(self, inputs: Any, state: Any, scope: Any = None, **kwargs: Any) -> Any:
        """One step.

        Args:
          inputs: ``[batch, size]`` (cells of one's own may take structures).
          state: a structure like ``state_size`` of tensors ``[batch, *size]``.
          scope: the variable scope of the weights, or its name; by default one is opened that is
            named after the cell.
        Returns:
          The output, ``[batch, output_size]``, and the new state, structured like ``state``.
        """
        if scope is not None:
            with variable_scope(scope, custom_getter=self._got_variable) as inner:
                return super().__call__(inputs, state, scope=inner, **kwargs)
        if self._around is None:
            self._around = get_variable_scope()
        with variable_scope(self._around, custom_getter=self._got_variable):
            return super().__call__(inputs, state, **kwargs)

    def _got_variable(self, getter: Any, *args: Any, **kwargs: Any) -> Any:
        variable = getter(*args, **kwargs)
        self._track(variable)
        return variable

    @property
    def state_size(self) -> Any:
        """The sizes of the state: a structure of ints or TensorShapes, without the batch."""
        raise AbstractMethodError(f"{type(self).__name__} does not define state_size")

    @property
    def output_size(self) -> Any:
        """The size of the output: an int or a TensorShape, without the batch."""
        raise AbstractMethodError(f"{type(self).__name__} does not define output_size")

    def build(self, input_shape: Any) -> None:
        """Nothing: ``call`` gets its variables."""

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        """The state of zeros.

        Args:
          batch_size: an int or a scalar integer tensor.
          dtype: the dtype of all of it.
        Returns:
          A structure like ``state_size`` of tensors ``[batch_size, *size]``.
        Raises:
          ValueError: a batch size or state size that is neither known nor a tensor.
        """
        with name_scope(f"{type(self).__name__}ZeroState", values=_tensors(batch_size)):
            return nest.map_structure(lambda s: zeros_of(batch_size, s, dtype), self.state_size)

    def get_initial_state(
        self, inputs: Any = None, batch_size: Any = None, dtype: Any = None
    ) -> Any:
        """The state of zeros for the batch of ``inputs``, or for ``batch_size`` and ``dtype``.

        Raises:
          ValueError: neither ``inputs`` nor both others, or they contradict each other.
        """
        if inputs is not None:
            batch_size, dtype = self._batch_of(convert_to_tensor(inputs), batch_size, dtype)
        if batch_size is None or dtype is None:
            raise GraphError(
                "batch_size and dtype cannot be None while constructing initial state: "
                f"batch_size={batch_size}, dtype={dtype}"
            )
        return self.zero_state(batch_size, dtype)

    @staticmethod
    def _batch_of(inputs: Tensor, batch_size: Any, dtype: Any) -> tuple[Any, DType]:
        size = inputs.shape[0].value
        if batch_size is not None:
            given = _static(batch_size).as_list()[0]
            if given != size:
                raise GraphError(
                    "batch size from input tensor is different from the input param. Input tensor "
                    f"batch: {size}, batch_size: {batch_size}"
                )
        if dtype is not None and inputs.dtype != as_dtype(dtype):
            raise GraphError(
                "dtype from input tensor is different from the input param. Input tensor dtype: "
                f"{inputs.dtype}, dtype: {dtype}"
            )
        return (shape_of(inputs)[0] if size is None else size), inputs.dtype  # type: ignore[index]


class LayerRNNCell(RNNCell):
    """Base of the cells that make their weights in ``build``, as layers do."""

    input_rank = 2

    def __call__(self, inputs: Any, state: Any, scope: Any = None, **kwargs: Any) -> Any:
        """One step; see :class:`RNNCell`."""
        return Layer.__call__(self, inputs, state, scope=scope, **kwargs)


def _tensors(*values: Any) -> list[Any]:
    return [v for v in values if isinstance(v, Tensor)]
