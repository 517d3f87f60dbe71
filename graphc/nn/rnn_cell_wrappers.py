"""Cells made of other cells: stacks, dropout, residual connections, devices."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import nest
from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.graph import Tensor, device, name_scope
from graphc.nn.layer import Layer
from graphc.nn.rnn_cell_base import LSTMStateTuple, RNNCell, assert_like_rnncell
from graphc.ops.dropout import dropout
from graphc.ops.math import add, floor, multiply
from graphc.ops.random import random_uniform
from graphc.ops.shaping import concat, split
from graphc.shapes import TensorShape
from graphc.variable_scope import variable_scope

_LOG = logging.getLogger(__name__)


class MultiRNNCell(RNNCell):
    """Cells on top of each other: each takes the output of the one before.

    Args:
      cells: the cells, the lowest first.
      state_is_tuple: whether a state is a tuple of the cells' states; else they are joined along
        the last axis.
    Raises:
      ValueError: no cells; or a state is a structure although ``state_is_tuple`` is False.
      TypeError: ``cells`` is no list or tuple.
    """

    def __init__(self, cells: Any, state_is_tuple: bool = True) -> None:
        super().__init__()
        if not cells:
            raise GraphError("Must specify at least one cell for MultiRNNCell.")
        if not nest.is_nested(cells):
            raise DTypeError(f"cells must be a list or tuple, but saw: {cells}.")
        if len({id(cell) for cell in cells}) < len(cells):
            _LOG.warning(
                "At least two cells provided to MultiRNNCell are the same object and will share "
                "weights."
            )
        self._cells = list(cells)
        self._state_is_tuple = state_is_tuple
        if not state_is_tuple and any(nest.is_nested(c.state_size) for c in self._cells):
            raise GraphError(
                "Some cells return tuples of states, but the flag state_is_tuple is not set.  "
                f"State sizes are: {[c.state_size for c in self._cells]}"
            )

    @property
    def state_size(self) -> Any:
        """The tuple of the cells' state sizes, or their sum."""
        sizes = [cell.state_size for cell in self._cells]
        return tuple(sizes) if self._state_is_tuple else sum(sizes)

    @property
    def output_size(self) -> Any:
        """The size of the last cell's output."""
        return self._cells[-1].output_size

    @property
    def trainable_weights(self) -> list[Any]:
        """The trainable weights of the cells, unless this is not trainable."""
        return self._weights("trainable_weights") if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The other weights of the cells."""
        frozen = [] if self.trainable else self._weights("trainable_weights")
        return [*frozen, *self._weights("non_trainable_weights")]

    def _weights(self, kind: str) -> list[Any]:
        lists = [getattr(cell, kind) for cell in self._cells if isinstance(cell, Layer)]
        return list(dict.fromkeys(itertools.chain.from_iterable(lists)))

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        """The cells' states of zeros; see :meth:`RNNCell.zero_state`."""
        if not self._state_is_tuple:
            return super().zero_state(batch_size, dtype)
        with name_scope(f"{type(self).__name__}ZeroState"):
            return tuple(cell.zero_state(batch_size, dtype) for cell in self._cells)

    def call(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        """The last cell's output, and the new states of all.

        Raises:
          ValueError: ``state`` is no tuple although states are.
        """
        if not self._state_is_tuple:
            state = split(state, [cell.state_size for cell in self._cells], 1)
        elif not nest.is_nested(state):
            raise GraphError(
                f"Expected state to be a tuple of length {len(self._cells)}, but received: {state}"
            )
        states = []
        for i, cell in enumerate(self._cells):
            with variable_scope(f"cell_{i}"):
                inputs, new = cell(inputs, state[i])
            states.append(new)
        return inputs, tuple(states) if self._state_is_tuple else concat(states, 1)


class _Wrapper(RNNCell):
    """A cell around a cell: the same sizes, the same weights."""

    def __init__(self, cell: Any, dtype: Any = None, **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)
        assert_like_rnncell("cell", cell)
        self.cell = cell

    @property
    def wrapped_cell(self) -> Any:
        """The cell inside."""
        return self.cell

    @property
    def state_size(self) -> Any:
        """The state size of the cell inside."""
        return self.cell.state_size

    @property
    def output_size(self) -> Any:
        """The output size of the cell inside."""
        return self.cell.output_size

    @property
    def trainable_weights(self) -> list[Any]:
        """The trainable weights of the cell inside."""
        return list(getattr(self.cell, "trainable_weights", ())) if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The other weights of the cell inside."""
        frozen = [] if self.trainable else list(getattr(self.cell, "trainable_weights", ()))
        return [*frozen, *getattr(self.cell, "non_trainable_weights", ())]

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        """The state of zeros of the cell inside."""
        with name_scope(f"{type(self).__name__}ZeroState"):
            return self.cell.zero_state(batch_size, dtype)

    def __call__(self, inputs: Any, state: Any, scope: Any = None, **kwargs: Any) -> Any:
        """One step; the weights are in the scope of the cell inside; see :class:`RNNCell`."""
        return self.step(inputs, state, scope=scope, **kwargs)

    def step(self, inputs: Any, state: Any, **kwargs: Any) -> Any:
        """What a call does around the call of the cell inside."""
        return self.cell(inputs, state, **kwargs)


def _drops_all_but_memories(part: Any) -> Any:
    """Whether dropout enters a part of a state: not the memory ``c`` of an LSTM."""
    if isinstance(part, LSTMStateTuple):
        return LSTMStateTuple(c=False, h=True)
    return nest.is_nested(part) or isinstance(part, Tensor)


class DropoutWrapper(_Wrapper):
    """A cell with dropout on its inputs, outputs and states.

    With ``variational_recurrent`` one decision is made per run for all steps and the whole batch,
    as Gal and Ghahramani do (https://arxiv.org/abs/1512.05287); else every step has its own.

    Args:
      cell: the cell.
      input_keep_prob, output_keep_prob, state_keep_prob: how likely an element is kept: numbers
        in [0, 1], or scalar tensors.
      variational_recurrent: one decision for all steps.
      input_size: a structure of TensorShapes of the inputs, without the batch; needed where
        inputs are dropped and ``variational_recurrent``.
      dtype: the dtype of inputs, states and outputs; needed with ``variational_recurrent``.
      seed: makes the decisions repeatable.
      dropout_state_filter_visitor: a function from any part of a state to a bool, or to a
        structure of bools for its elements: what may be dropped.  By default all but the ``c`` of
        LSTMStateTuples.
      kwargs: see :class:`graphc.nn.layer.Layer`.
    Raises:
      TypeError: ``cell`` is no cell, or the visitor cannot be called.
      ValueError: a number that is not in [0, 1]; no ``dtype`` or ``input_size`` where needed.
    """

    def __init__(
        self,
        cell: Any,
        input_keep_prob: Any = 1.0,
        output_keep_prob: Any = 1.0,
        state_keep_prob: Any = 1.0,
        variational_recurrent: bool = False,
        input_size: Any = None,
        dtype: Any = None,
        seed: int | None = None,
        dropout_state_filter_visitor: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cell, dtype=dtype, **kwargs)
        visitor = dropout_state_filter_visitor
        if visitor is not None and not callable(visitor):
            raise DTypeError("dropout_state_filter_visitor must be callable")
        self._filter: Callable[[Any], Any] = visitor or _drops_all_but_memories
        self._input_keep_prob = _probability("input_keep_prob", input_keep_prob)
        self._state_keep_prob = _probability("state_keep_prob", state_keep_prob)
        self._output_keep_prob = _probability("output_keep_prob", output_keep_prob)
        self._variational = variational_recurrent
        self._seed = seed
        self._noise: dict[str, Any] = {"input": None, "state": None, "output": None}
        if variational_recurrent:
            self._draw(input_size, dtype)

    def _draw(self, input_size: Any, dtype: Any) -> None:
        """The decisions that all steps share: uniform numbers ``[1, *size]``."""
        if dtype is None:
            raise GraphError("When variational_recurrent=True, dtype must be provided")
        sizes = {"state": self.cell.state_size, "output": self.cell.output_size}
        if _drops(self._input_keep_prob):
            if input_size is None:
                raise GraphError(
                    "When variational_recurrent=True and input_keep_prob < 1.0 or is unknown, "
                    "input_size must be provided"
                )
            sizes["input"] = input_size
        with name_scope("DropoutWrapperInit"):
            for part, structure in sizes.items():
                drawn = [
                    random_uniform(
                        [1, *TensorShape(size).as_list()], dtype=dtype, seed=self._seed_of(part, i)
                    )
                    for i, size in enumerate(nest.flatten(structure))
                ]
                self._noise[part] = nest.pack_sequence_as(structure, drawn)

    def _seed_of(self, part: str, index: int) -> int | None:
        """The seed of one element, as TensorFlow derives it: MD5 of the seed and the place."""
        if self._seed is None:
            return None
        digest = hashlib.md5(f"{self._seed}{part}_{index}".encode(), usedforsecurity=False)
        return int.from_bytes(digest.digest()[:4], "big") % 2**31

    def step(self, inputs: Any, state: Any, **kwargs: Any) -> Any:
        """The inputs dropped, the cell called, then its state and its output dropped."""
        if _drops(self._input_keep_prob):
            inputs = self._dropped("input", inputs, self._input_keep_prob)
        output, new_state = self.cell(inputs, state, **kwargs)
        if _drops(self._state_keep_prob):
            where = nest.get_traverse_shallow_structure(self._filter, new_state)
            new_state = self._dropped("state", new_state, self._state_keep_prob, where)
        if _drops(self._output_keep_prob):
            output = self._dropped("output", output, self._output_keep_prob)
        return output, new_state

    def _dropped(self, part: str, values: Any, keep: Any, where: Any = None) -> Any:
        """``values`` with dropout at the leaves of ``where`` that are not False."""
        where = nest.map_structure(lambda _: True, values) if where is None else where
        counter = itertools.count()

        def one(chosen: bool, value: Any, noise: Any = None) -> Any:
            index = next(counter)
            if not chosen:
                return value
            if not self._variational:
                return dropout(value, rate=1.0 - keep, seed=self._seed_of(part, index))
            kept = multiply(value / keep, floor(add(noise, keep)))
            kept.set_shape(value.get_shape())
            return kept

        trees = [where, values] + ([self._noise[part]] if self._variational else [])
        return nest.map_structure_up_to(where, one, *trees)


def _probability(name: str, value: Any) -> Any:
    """A float where the value is known, else the tensor.

    Raises:
      ValueError: a number that is not in [0, 1].
    """
    if isinstance(value, Tensor):
        if value.op.type != "Const":
            return value
        value = np.asarray(value.op.attrs["value"]).item()
    elif hasattr(value, "_to_tensor"):
        return value
    number = float(value)
    if not 0 <= number <= 1:
        raise GraphError(f"Parameter {name} must be between 0 and 1: {number:g}")
    return number


def _drops(probability: Any) -> bool:
    return not isinstance(probability, float) or probability < 1


class ResidualWrapper(_Wrapper):
    """A cell whose inputs are added to its outputs.

    Args:
      cell: the cell.
      residual_fn: a function of the inputs and the cell's outputs instead of their sum.
      kwargs: see :class:`graphc.nn.layer.Layer`.
    Raises:
      TypeError: ``cell`` is no cell.
    """

    def __init__(self, cell: Any, residual_fn: Any = None, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)
        self._residual_fn = residual_fn

    def step(self, inputs: Any, state: Any, **kwargs: Any) -> Any:
        """The cell called, and its inputs added.

        Raises:
          ValueError, TypeError: inputs and outputs are of different structures or shapes.
        """
        outputs, new_state = self.cell(inputs, state, **kwargs)
        return (self._residual_fn or _added)(inputs, outputs), new_state


def _added(inputs: Any, outputs: Any) -> Any:
    nest.assert_same_structure(inputs, outputs)
    for a, b in zip(nest.flatten(inputs), nest.flatten(outputs), strict=True):
        if not a.get_shape().is_compatible_with(b.get_shape()):
            raise ShapeError(f"Shapes {a.get_shape()} and {b.get_shape()} are incompatible")
    return nest.map_structure(add, inputs, outputs)


class DeviceWrapper(_Wrapper):
    """A cell whose operations are declared under a device.

    Args:
      cell: the cell.
      device: a device's name, or a function from an operation to one.
      kwargs: see :class:`graphc.nn.layer.Layer`.
    Raises:
      TypeError: ``cell`` is no cell.
    """

    def __init__(self, cell: Any, device: Any, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)
        self._device = device

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        """The state of zeros of the cell inside, on the device."""
        with device(self._device):
            return super().zero_state(batch_size, dtype)

    def step(self, inputs: Any, state: Any, **kwargs: Any) -> Any:
        """The cell called on the device."""
        with device(self._device):
            return self.cell(inputs, state, **kwargs)
