"""Cells over time by a loop in the graph: the graph does not grow with the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc import nest
from graphc.build import constant, convert_to_tensor
from graphc.control_flow import while_loop
from graphc.dtypes import int32
from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.graph import Tensor
from graphc.nn.rnn_cell_base import assert_like_rnncell, static_shape, zeros_of
from graphc.nn.rnn_step import (
    as_tensors,
    batch_of,
    first_state,
    lengths_of,
    reversed_time,
    state_dtype,
    step_within,
    transposed,
)
from graphc.ops.array import identity
from graphc.ops.math import (
    logical_not,
    logical_or,
    maximum,
    minimum,
    reduce_all,
    reduce_max,
    where,
)
from graphc.ops.shaping import stack
from graphc.ops.shaping_make import shape as shape_of
from graphc.shapes import TensorShape
from graphc.tensor_array import TensorArray
from graphc.variable_scope import variable_scope


def dynamic_rnn(
    cell: Any,
    inputs: Any,
    sequence_length: Any = None,
    initial_state: Any = None,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: Any = None,
) -> tuple[Any, Any]:
    """The cell over the time axis of ``inputs``, by a loop.

    Args:
      cell: an RNNCell.
      inputs: ``[batch, time, ...]``, or a structure of such tensors.
      sequence_length: integers ``[batch]``: after so many steps the outputs of a sequence are
        zeros, and its state stays.
      initial_state: the state before the first step; the cell's zeros by default.
      dtype: the dtype of that, and of the outputs; needed without an initial state.
      parallel_iterations, swap_memory: accepted; steps run one after the other.
      time_major: whether inputs and outputs are ``[time, batch, ...]``, which saves
        transposing them.
      scope: a variable scope or its name; ``"rnn"`` by default.
    Returns:
      The outputs ``[batch, time, *output_size]``, structured like ``cell.output_size``, and the
      final state.
    Raises:
      TypeError: ``cell`` is no cell.
      ValueError: inputs of unknown depth or below rank 3, or that do not go together; neither a
        state nor a dtype; lengths that are no vector.
    """
    assert_like_rnncell("cell", cell)
    with variable_scope(scope or "rnn"):
        given = as_tensors(inputs)
        flat = nest.flatten(given)
        if not time_major:
            flat = [transposed(x) for x in flat]
        lengths = lengths_of(sequence_length)
        if lengths is not None:
            lengths = identity(lengths, name="sequence_length")
        batch_size = batch_of(flat, 1)
        _check_inputs(flat)
        message = "If there is no initial_state, you must give a dtype."
        state = first_state(cell, initial_state, batch_size, dtype, message)
        outputs, state = _loop(
            cell, given, flat, state, lengths, batch_size, dtype,
            parallel_iterations=parallel_iterations or 32, swap_memory=swap_memory,
        )  # fmt: skip
        if not time_major:
            outputs = nest.map_structure(transposed, outputs)
    return outputs, state


def _check_inputs(inputs: Sequence[Tensor]) -> None:
    """Refuse inputs that are not ``[time, batch, known sizes...]``, all of one time and batch."""
    first = inputs[0].shape.with_rank_at_least(3)[:2]
    for tensor in inputs:
        found = tensor.shape.with_rank_at_least(3)
        if not found[2:].is_fully_defined():
            raise ShapeError(
                "Input size (depth of inputs) must be accessible via shape inference, but saw "
                "value None."
            )
        if found[0].value != first[0].value:
            raise ShapeError(
                "Time steps is not the same for all the elements in the input in a batch."
            )
        if found[1].value != first[1].value:
            raise ShapeError("Batch_size is not the same for all the elements in the input.")


def _loop(
    cell: Any,
    structure: Any,
    inputs: Sequence[Tensor],
    state: Any,
    lengths: Tensor | None,
    batch_size: Any,
    dtype: Any,
    **options: Any,
) -> tuple[Any, Any]:
    """The outputs ``[time, batch, *output_size]`` and the final state."""
    shape: Any = shape_of(inputs[0])
    steps = shape[0]
    sizes, out_dtype = nest.flatten(cell.output_size), state_dtype(dtype, state)
    known = TensorShape(inputs[0].shape[:2])
    rows = [
        TensorArray(x.dtype, size=steps, element_shape=x.shape[1:], name="input").unstack(x)
        for x in inputs
    ]
    outs = [_zeros_array(steps, batch_size, known, size, out_dtype) for size in sizes]

    def body(time: Tensor, outs: Any, state: Any) -> Any:
        step = nest.pack_sequence_as(structure, [array.read(time) for array in rows])
        output, state = step_within(cell, time, step, state, lengths, batch_size)
        leaves = nest.flatten(output)
        written = [array.write(time, x) for array, x in zip(outs, leaves, strict=True)]
        time_: Any = time
        return time_ + 1, written, state

    # At least one step, as in TensorFlow, so that an array's elements have a shape.
    bound = steps if lengths is None else minimum(steps, maximum(1, reduce_max(lengths)))
    _, outs, state = while_loop(
        lambda time, *_: time < bound,
        body,
        (constant(0, int32, name="time"), outs, state),
        **options,
    )
    stacked = []
    for array, size in zip(outs, sizes, strict=True):
        output = array.stack()
        output.set_shape(static_shape(known, size))
        stacked.append(output)
    return nest.pack_sequence_as(cell.output_size, stacked), state


def _zeros_array(
    steps: Any, batch_size: Any, known: TensorShape, size: Any, dtype: Any
) -> TensorArray:
    """An array for ``steps`` outputs, which are zeros where nothing is written.

    Its elements' shape is known before anything is written, even if the run decides the batch.
    """
    flow = zeros_of(stack([steps, batch_size]), size, dtype)
    flow.set_shape(static_shape(known, size))
    return TensorArray(dtype, flow=flow)


def bidirectional_dynamic_rnn(
    cell_fw: Any,
    cell_bw: Any,
    inputs: Any,
    sequence_length: Any = None,
    initial_state_fw: Any = None,
    initial_state_bw: Any = None,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: Any = None,
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Two cells over the time axis of ``inputs``, one from each end, by two loops.

    Args:
      cell_fw, cell_bw: RNNCells, for the inputs in order and in reverse.
      inputs: ``[batch, time, ...]``, or a structure of such tensors.
      sequence_length: integers ``[batch]``: a sequence is reversed within its length.
      initial_state_fw, initial_state_bw: their states at the start; zeros by default.
      dtype: the dtype of those; needed without initial states.
      parallel_iterations, swap_memory: accepted; steps run one after the other.
      time_major: whether inputs and outputs are ``[time, batch, ...]``.
      scope: a variable scope or its name; ``"bidirectional_rnn"`` by default.
    Returns:
      The pair of the cells' outputs, both in the order of the inputs, and the pair of their
      final states.
    Raises:
      TypeError, ValueError: as :func:`dynamic_rnn`.
    """
    assert_like_rnncell("cell_fw", cell_fw)
    assert_like_rnncell("cell_bw", cell_bw)
    axes = (0, 1) if time_major else (1, 0)
    options: dict[str, Any] = dict(
        sequence_length=sequence_length, dtype=dtype, parallel_iterations=parallel_iterations,
        swap_memory=swap_memory, time_major=time_major,
    )  # fmt: skip

    def turned(x: Any) -> Tensor:
        return reversed_time(x, sequence_length, *axes)

    with variable_scope(scope or "bidirectional_rnn"):
        with variable_scope("fw") as around:
            forward, state_fw = dynamic_rnn(
                cell_fw, inputs, initial_state=initial_state_fw, scope=around, **options
            )
        with variable_scope("bw") as around:
            backward, state_bw = dynamic_rnn(
                cell_bw,
                nest.map_structure(turned, as_tensors(inputs)),
                initial_state=initial_state_bw,
                scope=around,
                **options,
            )
    return (forward, nest.map_structure(turned, backward)), (state_fw, state_bw)


# --- loops that a function drives -----------------------------------------------------------------


def raw_rnn(
    cell: Any,
    loop_fn: Callable[..., Any],
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    scope: Any = None,
) -> tuple[Any, Any, Any]:
    """The cell in a loop whose inputs, states, outputs and end a function decides.

    ``loop_fn(time, cell_output, cell_state, loop_state)`` is called once with ``time`` 0 and None
    for the others, then after every step.  It gives a tuple of five:

    - ``finished``: bools ``[batch]``: which sequences are over; the loop ends when all are.
    - ``next_input``: what the cell is called with next, ``[batch, ...]`` or a structure.
    - ``next_cell_state``: the state that it is called with; the first gives the initial state.
    - ``emit_output``: what is put out, ``[batch, ...]`` or a structure.  The first gives an
      example without the batch, or None if it is like the cell's output.
    - ``next_loop_state``: passed to the next call; None for none.

    Args:
      cell: an RNNCell.
      loop_fn: the function.
      parallel_iterations, swap_memory: accepted; steps run one after the other.
      scope: a variable scope or its name; ``"rnn"`` by default.
    Returns:
      The TensorArrays of what was put out (zeros for sequences that were over), the final state
      of the cell, and the last loop state.
    Raises:
      TypeError: ``cell`` is no cell, or ``loop_fn`` no function.
      ValueError, TypeError: ``loop_fn`` gives structures that do not go together.
    """
    assert_like_rnncell("cell", cell)
    if not callable(loop_fn):
        raise DTypeError("loop_fn must be a callable")
    with variable_scope(scope or "rnn"):
        time = constant(0, int32, name="time")
        finished, inputs, state, emit, loop_state = loop_fn(time, None, None, None)
        inputs, state = as_tensors(inputs), as_tensors(state)
        nest.assert_same_structure(state, cell.state_size)
        batch_size = _common_batch(nest.flatten(inputs))
        arrays, nothing = _emitted(cell, emit, state, batch_size)
        with_state = loop_state is not None
        carried = as_tensors(loop_state) if with_state else constant(0, int32)
        *_, arrays, state, carried = while_loop(
            lambda _, over, *_rest: logical_not(reduce_all(over)),
            _raw_body(cell, loop_fn, nothing),
            [time, convert_to_tensor(finished), inputs, arrays, state, carried],
            parallel_iterations=parallel_iterations or 32,
            swap_memory=swap_memory,
        )
    return arrays, state, carried if with_state else None


def _common_batch(inputs: Sequence[Tensor]) -> Any:
    batch = TensorShape([None])
    for tensor in inputs:
        batch = batch.merge_with(TensorShape(tensor.shape[:1]))
    known = batch[0].value
    return batch_of(inputs, 0) if known is None else known


def _emitted(cell: Any, emit: Any, state: Any, batch_size: Any) -> tuple[Any, Any]:
    """The empty arrays for what is put out, and the zeros put out for what is over."""
    if emit is None:
        structure, dtype = cell.output_size, nest.flatten(state)[0].dtype
        sizes = [(size, dtype) for size in nest.flatten(structure)]
    else:
        structure = as_tensors(emit)
        sizes = [
            (e.shape if e.shape.is_fully_defined() else shape_of(e), e.dtype)
            for e in nest.flatten(structure)
        ]
    arrays, nothing = [], []
    for i, (size, dtype) in enumerate(sizes):
        element = static_shape(batch_size, size)
        arrays.append(
            TensorArray(
                dtype, size=0, dynamic_size=True, element_shape=element, name=f"rnn_output_{i}"
            )
        )
        nothing.append(zeros_of(batch_size, size, dtype))
    return nest.pack_sequence_as(structure, arrays), nest.pack_sequence_as(structure, nothing)


def _raw_body(cell: Any, loop_fn: Callable[..., Any], nothing: Any) -> Callable[..., Any]:
    def body(time: Any, over: Tensor, inputs: Any, arrays: Any, state: Any, carried: Any) -> Any:
        output, cell_state = cell(inputs, state)
        nest.assert_same_structure(state, cell_state)
        nest.assert_same_structure(cell.output_size, output)
        after = loop_fn(time + 1, output, cell_state, carried)
        if not isinstance(after, (list, tuple)) or len(after) != 5:
            raise GraphError("loop_fn must return a tuple of five")
        finished, next_input, next_state, emit, next_carried = after
        nest.assert_same_structure(state, next_state)
        nest.assert_same_structure(inputs, next_input)
        nest.assert_same_structure(arrays, emit)

        def kept(old: Any, new: Any) -> Any:
            if isinstance(new, TensorArray) or old.sizes == ():
                return new
            return where(over, old, new)

        emit = nest.map_structure(kept, nothing, emit)
        return [
            time + 1,
            logical_or(over, finished),
            next_input,
            nest.map_structure(lambda array, value: array.write(time, value), arrays, emit),
            nest.map_structure(kept, state, next_state),
            carried if next_carried is None else next_carried,
        ]

    return body
