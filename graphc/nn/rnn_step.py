"""What the functions that run a cell over time share: batches, states, lengths, reversal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import nest
from graphc.build import convert_to_tensor
from graphc.dtypes import int32
from graphc.errors import GraphError, ShapeError
from graphc.graph import Tensor
from graphc.nn.rnn_cell_base import static_shape
from graphc.ops.math import cast, greater_equal, where
from graphc.ops.shaping import concat, stack, transpose, unstack
from graphc.ops.shaping import reverse as reverse_axes
from graphc.ops.shaping_make import range as range_of
from graphc.ops.shaping_make import rank as rank_of
from graphc.ops.shaping_make import shape as shape_of
from graphc.ops.shaping_make import zeros_like
from graphc.ops.shaping_slice import reverse_sequence
from graphc.tensor_array import TensorArray


def as_tensors(structure: Any) -> Any:
    """The structure with what is no TensorArray as tensors."""
    return nest.map_structure(
        lambda leaf: leaf if isinstance(leaf, TensorArray) else convert_to_tensor(leaf), structure
    )


def transposed(x: Tensor) -> Tensor:
    """``x`` with its first two dimensions, batch and time, exchanged; as it is below rank 2."""
    if x.sizes is None:
        return transpose(x, concat([[1, 0], range_of(2, rank_of(x))], 0))
    if len(x.sizes) < 2:
        return x
    return transpose(x, [1, 0, *range(2, len(x.sizes))])


def batch_of(inputs: Sequence[Tensor], axis: int) -> Any:
    """The size along ``axis``: an int where one of the inputs tells it, else a scalar tensor.

    Raises:
      ValueError: an input without that axis.
    """
    for tensor in inputs:
        if tensor.sizes is not None and len(tensor.sizes) <= axis:
            raise ShapeError(f"Expected input tensor {tensor} to have rank at least {axis + 1}")
    known = [t.shape[axis].value for t in inputs if t.sizes is not None]
    found = next((size for size in known if size is not None), None)
    sizes: Any = shape_of(inputs[0])
    return sizes[axis] if found is None else found


def state_dtype(dtype: Any, state: Any) -> Any:
    """The dtype that was asked for, else the one of all of ``state``.

    Raises:
      ValueError: none was asked for, and the state has several, or no tensors.
    """
    if dtype is not None:
        return dtype
    found = {leaf.dtype.base_dtype for leaf in nest.flatten(state)}
    if not found:
        raise GraphError("Unable to infer dtype from empty state.")
    if len(found) > 1:
        raise GraphError(
            "State has tensors of different inferred_dtypes. Unable to infer a single "
            "representative dtype."
        )
    return found.pop()


def first_state(cell: Any, initial_state: Any, batch_size: Any, dtype: Any, message: str) -> Any:
    """The state that was given, as tensors; else the cell's zeros.

    Raises:
      ValueError: no state and no dtype, in the words of ``message``.
    """
    if initial_state is not None:
        return as_tensors(initial_state)
    if not dtype:
        raise GraphError(message)
    if hasattr(cell, "get_initial_state"):
        return cell.get_initial_state(inputs=None, batch_size=batch_size, dtype=dtype)
    return cell.zero_state(batch_size, dtype)


def lengths_of(sequence_length: Any) -> Tensor | None:
    """The lengths as an int32 vector; None stays None.

    Raises:
      ValueError: they are no vector.
    """
    if sequence_length is None:
        return None
    lengths = cast(convert_to_tensor(sequence_length, name="sequence_length"), int32)
    if lengths.sizes is not None and len(lengths.sizes) != 1:
        raise ShapeError(
            f"sequence_length must be a vector of length batch_size, but saw shape: {lengths.shape}"
        )
    return lengths


def step_within(
    cell: Any, time: Any, inputs: Any, state: Any, lengths: Tensor | None, batch_size: Any
) -> tuple[Any, Any]:
    """One step of the cell; for sequences that are over, zeros and the state as it was.

    Args:
      cell: the cell.
      time: the number of the step: an int or an int32 scalar.
      inputs, state: what the cell is called with.
      lengths: the sequences' lengths, int32 ``[batch]``; None: none is over.
      batch_size: an int or an int32 scalar.
    Returns:
      The output, structured like ``cell.output_size``, and the new state, like ``state``.
    Raises:
      ValueError, TypeError: the cell's output or new state is structured otherwise.
    """
    output, new_state = cell(inputs, state)
    nest.assert_same_structure(cell.output_size, output)
    nest.assert_same_structure(state, new_state)
    for size, leaf in zip(nest.flatten(cell.output_size), nest.flatten(output), strict=True):
        if isinstance(leaf, Tensor):
            leaf.set_shape(static_shape(batch_size, size))
    if lengths is None:
        return output, new_state
    over = greater_equal(time, lengths)
    output = nest.map_structure(lambda new: _chosen(over, None, new), output)
    return output, nest.map_structure(lambda old, new: _chosen(over, old, new), state, new_state)


def _chosen(over: Tensor, old: Any, new: Any) -> Any:
    """The old value (None: zeros) of the sequences that are over, the new one of the others."""
    if isinstance(new, TensorArray):
        return new
    new = convert_to_tensor(new)
    if new.sizes == ():
        return new
    chosen = where(over, zeros_like(new) if old is None else old, new)
    assert isinstance(chosen, Tensor)
    return chosen


def reversed_time(x: Any, lengths: Any, time_axis: int, batch_axis: int) -> Tensor:
    """``x`` with time running backwards; within the lengths where there are any."""
    if lengths is None:
        return reverse_axes(x, [time_axis])
    return reverse_sequence(x, lengths, seq_axis=time_axis, batch_axis=batch_axis)


def reversed_steps(steps: Sequence[Any], lengths: Any) -> list[Any]:
    """A list of structures, one for each step, in reverse order; within the lengths if any."""
    if lengths is None:
        return list(reversed(steps))
    rows = []
    for leaves in zip(*(nest.flatten(step) for step in steps), strict=True):
        turned = reverse_sequence(stack(list(leaves)), lengths, seq_axis=0, batch_axis=1)
        rows.append(unstack(turned, len(steps)))
    return [nest.pack_sequence_as(step, [row[t] for row in rows]) for t, step in enumerate(steps)]
