"""The recurrent cells: BasicRNN, GRU, BasicLSTM and LSTM, with TensorFlow 1.15's weights."""

from __future__ import annotations

from typing import Any

from graphc.dtypes import float32
from graphc.errors import GraphError
from graphc.graph import Tensor
from graphc.initializers import Constant, Zeros
from graphc.nn.activations import bias_add
from graphc.nn.layer import last_size
from graphc.nn.rnn_cell_base import (
    LayerRNNCell,
    LSTMStateTuple,
    activation_of,
    check_floating,
    check_inputs,
    initializer_of,
)
from graphc.ops.contraction_functions import matmul
from graphc.ops.math import add, clip_by_value, multiply, sigmoid
from graphc.ops.shaping import concat, split


def _gates(inputs: Tensor, h: Tensor, kernel: Any, bias: Any) -> Tensor:
    """``[inputs, h] kernel + bias``."""
    return bias_add(matmul(concat([inputs, h], 1), kernel), bias)


class _Cell(LayerRNNCell):
    """What the cells here share: a number of units and an activation."""

    def __init__(
        self, num_units: int, activation: Any, reuse: Any, name: Any, dtype: Any, **kwargs: Any
    ) -> None:
        super().__init__(_reuse=reuse, name=name, dtype=dtype, **kwargs)
        check_floating(self.dtype)
        self._num_units = num_units
        self._activation = activation_of(activation)

    @property
    def state_size(self) -> Any:
        """The number of units."""
        return self._num_units

    @property
    def output_size(self) -> Any:
        """The number of units."""
        return self._num_units

    def _zeros(self) -> Zeros:
        return Zeros(self.dtype or float32)


class BasicRNNCell(_Cell):
    """``output = state = activation([input, state] kernel + bias)``.

    Args:
      num_units: the size of the state and of the output.
      activation: a function or a Keras name of one; tanh by default.
      reuse: True finds the weights that another cell of this name made.
      name, dtype, kwargs: see :class:`graphc.nn.layer.Layer`.
    Raises:
      ValueError: a dtype that is not of floats.
    """

    def __init__(
        self,
        num_units: int,
        activation: Any = None,
        reuse: Any = None,
        name: Any = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_units, activation, reuse, name, dtype, **kwargs)

    def build(self, input_shape: Any) -> None:
        """``kernel [input + units, units]``, ``bias [units]``."""
        depth, units = last_size(input_shape), self._num_units
        check_floating(self.dtype)
        self._kernel = self.add_variable("kernel", [depth + units, units])
        self._bias = self.add_variable("bias", [units], initializer=self._zeros())
        self.built = True

    def call(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The output twice: it is the new state."""
        check_inputs(inputs, state)
        output = self._activation(_gates(inputs, state, self._kernel, self._bias))
        return output, output


class GRUCell(_Cell):
    """The gated recurrent unit of Cho et al. 2014 (https://arxiv.org/abs/1406.1078).

    ``r, u = sigmoid([x, h] gates)``, ``c = activation([x, r h] candidate)``,
    ``h' = u h + (1 - u) c``.

    Args:
      num_units: the size of the state and of the output.
      activation: a function or a Keras name of one; tanh by default.
      reuse: True finds the weights that another cell of this name made.
      kernel_initializer: for both kernels.
      bias_initializer: for both biases; by default ones for the gates, zeros for the candidate.
      name, dtype, kwargs: see :class:`graphc.nn.layer.Layer`.
    Raises:
      ValueError: a dtype that is not of floats.
    """

    def __init__(
        self,
        num_units: int,
        activation: Any = None,
        reuse: Any = None,
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        name: Any = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_units, activation, reuse, name, dtype, **kwargs)
        self._kernel_initializer = initializer_of(kernel_initializer)
        self._bias_initializer = initializer_of(bias_initializer)

    def build(self, input_shape: Any) -> None:
        """``gates/kernel``, ``gates/bias``, ``candidate/kernel``, ``candidate/bias``."""
        depth, units = last_size(input_shape), self._num_units
        check_floating(self.dtype)
        kernel, bias = self._kernel_initializer, self._bias_initializer
        ones, none = Constant(1.0, self.dtype or float32), self._zeros()
        self._gate_kernel = self.add_variable(
            "gates/kernel", [depth + units, 2 * units], initializer=kernel
        )
        self._gate_bias = self.add_variable(
            "gates/bias", [2 * units], initializer=ones if bias is None else bias
        )
        self._candidate_kernel = self.add_variable(
            "candidate/kernel", [depth + units, units], initializer=kernel
        )
        self._candidate_bias = self.add_variable(
            "candidate/bias", [units], initializer=none if bias is None else bias
        )
        self.built = True

    def call(self, inputs: Tensor, state: Any) -> tuple[Tensor, Tensor]:
        """The output twice: it is the new state."""
        check_inputs(inputs, state)
        value = sigmoid(_gates(inputs, state, self._gate_kernel, self._gate_bias))
        r, u = split(value, 2, 1)
        candidate = _gates(inputs, r * state, self._candidate_kernel, self._candidate_bias)
        h = u * state + (1 - u) * self._activation(candidate)
        return h, h


class _LSTM(_Cell):
    """What the two LSTM cells share: the form of the state, the bias of the forget gate."""

    def __init__(
        self, num_units: int, forget_bias: float, state_is_tuple: bool, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(num_units, *args, **kwargs)
        self._forget_bias = forget_bias
        self._state_is_tuple = state_is_tuple

    @property
    def state_size(self) -> Any:
        """The sizes of ``c`` and ``h``: an LSTMStateTuple, or their sum."""
        c, h = self._num_units, self.output_size
        return LSTMStateTuple(c, h) if self._state_is_tuple else c + h

    def _split(self, state: Any) -> Any:
        if self._state_is_tuple:
            return state
        return split(state, [self._num_units, self.output_size], 1)

    def _joined(self, c: Tensor, h: Tensor) -> Any:
        return LSTMStateTuple(c, h) if self._state_is_tuple else concat([c, h], 1)


class BasicLSTMCell(_LSTM):
    """The plain LSTM of Zaremba et al. 2014 (https://arxiv.org/abs/1409.2329).

    ``i, j, f, o = [x, h] kernel + bias``,
    ``c' = c sigmoid(f + forget_bias) + sigmoid(i) activation(j)``,
    ``h' = activation(c') sigmoid(o)``.

    Args:
      num_units: the size of ``c``, of ``h`` and of the output.
      forget_bias: added to the forget gate, so that a cell begins by remembering.
      state_is_tuple: whether states are LSTMStateTuples; else ``c`` and ``h`` are joined along
        the last axis.
      activation: a function or a Keras name of one; tanh by default.
      reuse: True finds the weights that another cell of this name made.
      name, dtype, kwargs: see :class:`graphc.nn.layer.Layer`.
    Raises:
      ValueError: a dtype that is not of floats.
    """

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Any = None,
        reuse: Any = None,
        name: Any = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_units, forget_bias, state_is_tuple, activation, reuse, name, dtype, **kwargs
        )

    def build(self, input_shape: Any) -> None:
        """``kernel [input + units, 4 units]``, ``bias [4 units]``."""
        depth, units = last_size(input_shape), self._num_units
        check_floating(self.dtype)
        self._kernel = self.add_variable("kernel", [depth + units, 4 * units])
        self._bias = self.add_variable("bias", [4 * units], initializer=self._zeros())
        self.built = True

    def call(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The new ``h``, and the new state."""
        check_inputs(inputs, state)
        c, h = self._split(state)
        i, j, f, o = split(_gates(inputs, h, self._kernel, self._bias), 4, 1)
        kept = multiply(c, sigmoid(add(f, self._forget_bias)))
        c = add(kept, multiply(sigmoid(i), self._activation(j)))
        h = multiply(self._activation(c), sigmoid(o))
        return h, self._joined(c, h)


class LSTMCell(_LSTM):
    """The LSTM with peepholes, clipping and a projection, each if asked for.

    Peepholes after Sak, Senior and Beaufays, "Long short-term memory recurrent neural network
    architectures for large scale acoustic modeling", INTERSPEECH 2014:
    ``c' = sigmoid(f + forget_bias + w_f c) c + sigmoid(i + w_i c) activation(j)``,
    ``h' = sigmoid(o + w_o c') activation(c')``, then ``h' projection``.

    Args:
      num_units: the size of ``c``.
      use_peepholes: whether the gates see ``c``, by the weights ``w_f_diag``, ``w_i_diag`` and
        ``w_o_diag``.
      cell_clip: a bound on the absolute values of ``c``.
      initializer: for the kernels and the peepholes.
      num_proj: the size of ``h`` and of the output, by a projection; ``num_units`` without one.
      proj_clip: a bound on the absolute values of a projected ``h``.
      num_unit_shards, num_proj_shards: deprecated in TensorFlow; only None or 1.
      forget_bias: added to the forget gate.
      state_is_tuple: whether states are LSTMStateTuples; else ``c`` and ``h`` are joined along
        the last axis.
      activation: a function or a Keras name of one; tanh by default.
      reuse: True finds the weights that another cell of this name made.
      name, dtype, kwargs: see :class:`graphc.nn.layer.Layer`.
    Raises:
      ValueError: a dtype that is not of floats, or shards.
    """

    def __init__(
        self,
        num_units: int,
        use_peepholes: bool = False,
        cell_clip: float | None = None,
        initializer: Any = None,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        num_unit_shards: int | None = None,
        num_proj_shards: int | None = None,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Any = None,
        reuse: Any = None,
        name: Any = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_units, forget_bias, state_is_tuple, activation, reuse, name, dtype, **kwargs
        )
        for shards in (num_unit_shards, num_proj_shards):
            if shards not in (None, 1):
                raise GraphError("graphc has no partitioned variables: shards must be None or 1")
        self._use_peepholes = use_peepholes
        self._cell_clip = cell_clip
        self._initializer = initializer_of(initializer)
        self._num_proj = num_proj or None
        self._proj_clip = proj_clip

    @property
    def output_size(self) -> Any:
        """The size of ``h``."""
        return self._num_proj or self._num_units

    def build(self, input_shape: Any) -> None:
        """``kernel``, ``bias``; ``w_f_diag``, ``w_i_diag``, ``w_o_diag``; ``projection/kernel``."""
        depth, units, init = last_size(input_shape), self._num_units, self._initializer
        check_floating(self.dtype)
        shape = [depth + self.output_size, 4 * units]
        self._kernel = self.add_variable("kernel", shape, initializer=init)
        self._bias = self.add_variable("bias", [4 * units], initializer=self._zeros())
        if self._use_peepholes:
            self._f_peep, self._i_peep, self._o_peep = (
                self.add_variable(f"w_{gate}_diag", [units], initializer=init) for gate in "fio"
            )
        if self._num_proj is not None:
            shape = [units, self._num_proj]
            self._proj_kernel = self.add_variable("projection/kernel", shape, initializer=init)
        self.built = True

    def call(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The new ``h``, and the new state."""
        check_inputs(inputs, state)
        c, h = self._split(state)
        i, j, f, o = split(_gates(inputs, h, self._kernel, self._bias), 4, 1)
        f = f + self._forget_bias
        if self._use_peepholes:
            f, i = f + self._f_peep * c, i + self._i_peep * c
        c = sigmoid(f) * c + sigmoid(i) * self._activation(j)
        if self._cell_clip is not None:
            c = clip_by_value(c, -self._cell_clip, self._cell_clip)
        if self._use_peepholes:
            o = o + self._o_peep * c
        h = sigmoid(o) * self._activation(c)
        if self._num_proj is not None:
            h = matmul(h, self._proj_kernel)
            if self._proj_clip is not None:
                h = clip_by_value(h, -self._proj_clip, self._proj_clip)
        return h, self._joined(c, h)
