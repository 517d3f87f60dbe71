"""Cells over a list of inputs, one copy of the cell's operations for each step."""

from __future__ import annotations

from typing import Any

from graphc import nest
from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.graph import Tensor
from graphc.nn.rnn_cell_base import assert_like_rnncell
from graphc.nn.rnn_step import (
    as_tensors,
    batch_of,
    first_state,
    lengths_of,
    reversed_steps,
    step_within,
)
from graphc.ops.shaping import concat
from graphc.variable_scope import variable_scope


def _steps(inputs: Any) -> list[Any]:
    if not nest.is_nested(inputs):
        raise DTypeError("inputs must be a sequence")
    if not inputs:
        raise GraphError("inputs must not be empty")
    return [as_tensors(step) for step in inputs]


def _check_sizes(inputs: list[Tensor]) -> None:
    """Refuse inputs whose sizes after the batch are not known, or batches of different sizes."""
    if inputs[0].sizes is not None and len(inputs[0].sizes) == 1:
        return
    batch = inputs[0].shape.with_rank_at_least(2)[:1]
    for tensor in inputs:
        sizes = tensor.shape.with_rank_at_least(2)
        batch = batch.merge_with(sizes[:1])
        for i, size in enumerate(sizes[1:]):
            if size.value is None:
                raise ShapeError(
                    f"Input size (dimension {i} of inputs) must be accessible via shape "
                    "inference, but saw value None."
                )


def static_rnn(
    cell: Any,
    inputs: Any,
    initial_state: Any = None,
    dtype: Any = None,
    sequence_length: Any = None,
    scope: Any = None,
) -> tuple[list[Any], Any]:
    """The cell over a list of inputs; the graph grows with the list.

    Args:
      cell: an RNNCell.
      inputs: the steps: tensors ``[batch, size]``, or structures of them.
      initial_state: the state before the first step; the cell's zeros by default.
      dtype: the dtype of that; needed without an initial state.
      sequence_length: integers ``[batch]``: after so many steps the outputs of a sequence are
        zeros, and its state stays.
      scope: a variable scope or its name; ``"rnn"`` by default.
    Returns:
      The list of outputs, each structured like ``cell.output_size``, and the final state.
    Raises:
      TypeError: ``cell`` is no cell, or ``inputs`` no list.
      ValueError: no inputs, inputs of unknown size, neither a state nor a dtype, lengths that are
        no vector.
    """
    assert_like_rnncell("cell", cell)
    steps = _steps(inputs)
    outputs = []
    with variable_scope(scope or "rnn") as inner:
        first = nest.flatten(steps)
        _check_sizes(first)
        batch_size = batch_of(first[:1], 0)
        message = "If no initial_state is provided, dtype must be specified"
        state = first_state(cell, initial_state, batch_size, dtype, message)
        lengths = lengths_of(sequence_length)
        for time, step in enumerate(steps):
            if time:
                inner.reuse_variables()
            output, state = step_within(cell, time, step, state, lengths, batch_size)
            outputs.append(output)
    return outputs, state


def static_bidirectional_rnn(
    cell_fw: Any,
    cell_bw: Any,
    inputs: Any,
    initial_state_fw: Any = None,
    initial_state_bw: Any = None,
    dtype: Any = None,
    sequence_length: Any = None,
    scope: Any = None,
) -> tuple[list[Any], Any, Any]:
    """Two cells over a list of inputs, one from each end.

    Args:
      cell_fw, cell_bw: RNNCells, for the inputs in order and in reverse.
      inputs: the steps: tensors ``[batch, size]``, or structures of them.
      initial_state_fw, initial_state_bw: their states at the start; zeros by default.
      dtype: the dtype of those; needed without initial states.
      sequence_length: integers ``[batch]``: a sequence is reversed within its length.
      scope: a variable scope or its name; ``"bidirectional_rnn"`` by default.
    Returns:
      The list of outputs, the two cells' joined along axis 1; the final states of both.
    Raises:
      TypeError, ValueError: as :func:`static_rnn`.
    """
    assert_like_rnncell("cell_fw", cell_fw)
    assert_like_rnncell("cell_bw", cell_bw)
    steps = _steps(inputs)
    with variable_scope(scope or "bidirectional_rnn"):
        with variable_scope("fw") as around:
            forward, state_fw = static_rnn(
                cell_fw, steps, initial_state_fw, dtype, sequence_length, scope=around
            )
        with variable_scope("bw") as around:
            turned = reversed_steps(steps, sequence_length)
            backward, state_bw = static_rnn(
                cell_bw, turned, initial_state_bw, dtype, sequence_length, scope=around
            )
    back = reversed_steps(backward, sequence_length)
    pairs = zip(nest.flatten(forward), nest.flatten(back), strict=True)
    joined = [concat([fw, bw], 1) for fw, bw in pairs]
    return nest.pack_sequence_as(forward, joined), state_fw, state_bw
