"""Loops: while_loop, as in TensorFlow 1.15."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc import dims, dtypes, nest
from graphc.build import constant, convert_to_tensor, create, single
from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.graph import (
    Operation,
    Region,
    Tensor,
    TensorType,
    get_default_graph,
    name_scope,
)
from graphc.ops.control_build import make_owner, parameter, region
from graphc.shapes import TensorShape, shape_text
from graphc.tensor_array import TensorArray, like_result

_Parts = tuple[Callable[..., Any], Callable[..., Any], Any, Any]
"""The condition, the body, the loop variables, the shape invariants."""


def while_loop(
    cond: Callable[..., Any],
    body: Callable[..., Any],
    loop_vars: Any,
    shape_invariants: Any = None,
    parallel_iterations: int = 10,
    back_prop: bool = True,
    swap_memory: bool = False,
    name: str | None = None,
    maximum_iterations: Any = None,
    return_same_structure: bool = False,
) -> Any:
    """Repeat ``body`` while ``cond`` is true.

    Args:
      cond: a function of the loop variables that gives a bool scalar.
      body: a function of the loop variables that gives their next values, in the same structure.
      loop_vars: the initial values: a nested structure of tensors, TensorArrays and what
        ``convert_to_tensor`` takes.
      shape_invariants: shapes that the loop variables keep, in the same structure; sizes that are
        None there may change from turn to turn.
      parallel_iterations, swap_memory: accepted; turns run one after the other.
      back_prop: False makes the results constants for :func:`gradients`.
      name: the name scope, "while" by default.
      maximum_iterations: an integer scalar; the loop ends after so many turns in any case.
      return_same_structure: False gives a single loop variable as it is, not in a list.
    Returns:
      The loop variables after the last turn.
    Raises:
      TypeError: ``cond`` or ``body`` that cannot be called; a condition that is no bool scalar.
      ValueError: no loop variables; a body that gives another structure, dtype or shape.
    """
    del swap_memory
    if not callable(cond):
        raise DTypeError("cond must be callable.")
    if not callable(body):
        raise DTypeError("body must be callable.")
    if parallel_iterations < 1:
        raise DTypeError("parallel_iterations must be a positive integer.")
    if not loop_vars:
        raise GraphError("No loop variables provided")
    with name_scope(name, "while", nest.flatten(loop_vars)):
        parts: _Parts = cond, body, loop_vars, shape_invariants
        if maximum_iterations is None:
            return _loop(parts, back_prop, return_same_structure)
        parts = _limited(parts, maximum_iterations, return_same_structure)
        return _loop(parts, back_prop, return_same_structure)[1]


def _loop(parts: _Parts, back_prop: bool, same_structure: bool) -> Any:
    """The loop itself, in the current name scope."""
    cond, body, loop_vars, shape_invariants = parts
    variables = _Variables(loop_vars, shape_invariants)
    with region("while") as test:
        values = variables.declare(test, "Merge")
        test.results = [_condition(cond(*values))]
    with region("while") as step:
        values = variables.declare(step, "Identity")
        found = body(*values)
        if not nest.is_nested(found):
            found = [found]
        step.results = variables.results(found)
    full_name = get_default_graph().unique_name("While")
    op = make_owner("While", (test, step), variables.tensors, full_name)
    outputs = []
    for value, result in zip(op.outputs, step.results, strict=False):
        out = single(create("Identity" if back_prop else "StopGradient", [value], None, "Exit"))
        if out.sizes is None and result.sizes is not None:
            out.set_shape(TensorShape(result.sizes))
        outputs.append(out)
    # As in TensorFlow, lists and tuples come back as the body gives them.
    structure = loop_vars if same_structure else found
    leaves = [like_result(t, leaf) for t, leaf in zip(outputs, nest.flatten(found), strict=True)]
    packed = nest.pack_sequence_as(structure, leaves)
    if same_structure or len(leaves) > 1 or not isinstance(packed, (list, tuple)):
        return packed
    return packed[0]


def _limited(parts: _Parts, limit: Any, same_structure: bool) -> _Parts:
    """The loop's parts with a counter in front that ends it."""
    cond, body, loop_vars, shape_invariants = parts
    most = convert_to_tensor(limit, name="maximum_iterations", preferred_dtype=dtypes.int32)
    if most.sizes not in (None, ()):
        raise ShapeError(f"maximum_iterations must be a scalar, saw shape: {most.shape}")
    if not most.dtype.base_dtype.is_integer:
        raise DTypeError(f"maximum_iterations must be an integer, not {most.dtype.name}")
    counter = constant(0, dtype=most.dtype.base_dtype, name="iteration_counter")
    bare = isinstance(loop_vars, (list, tuple)) and len(loop_vars) == 1 and not same_structure

    def spread(values: Any) -> Any:
        return (values,) if bare or not isinstance(values, (list, tuple)) else values

    def test(i: Tensor, values: Any) -> Tensor:
        below = single(create("Less", [i, most]))
        return single(create("LogicalAnd", [below, _condition(cond(*spread(values)))]))

    def step(i: Tensor, values: Any) -> Any:
        found = body(*spread(values))
        if bare:
            # The one loop variable may come back by itself or in a list.
            alone = isinstance(found, (list, tuple)) and len(found) == 1
            found = found[0] if alone and not _alike(values, found) else found
        elif not nest.is_nested(found):
            found = [found]
        elif type(found) in (list, tuple) and type(values) in (list, tuple):
            found = type(values)(found)
        return i + 1, found  # type: ignore[operator]

    inner = loop_vars[0] if bare else loop_vars
    invariants = None
    if shape_invariants is not None:
        invariants = (TensorShape([]), shape_invariants[0] if bare else shape_invariants)
    return test, step, (counter, inner), invariants


def _alike(a: Any, b: Any) -> bool:
    """Whether two structures are the same."""
    try:
        nest.assert_same_structure(a, b)
    except (TypeError, ValueError):
        return False
    return True


def _condition(value: Any) -> Tensor:
    tensor = convert_to_tensor(value, name="pred")
    if tensor.dtype.base_dtype is not dtypes.bool_:
        raise DTypeError(
            f"Input 'input' of 'LoopCond' Op has type {tensor.dtype.base_dtype.name} that does not "
            f"match expected type of bool: the loop condition is {tensor.name}"
        )
    if tensor.sizes not in (None, ()):
        name = get_default_graph().unique_name("LoopCond", mark_as_used=False)
        raise ShapeError(
            f"Shape must be rank 0 but is rank {tensor.shape.ndims} for '{name}' (op: 'LoopCond') "
            f"with input shapes: {shape_text(tensor.sizes)}."
        )
    return tensor


class _Variables:
    """The loop variables: flat tensors, and the structure that the user sees."""

    def __init__(self, loop_vars: Any, shape_invariants: Any) -> None:
        self.structure = loop_vars
        self.like = nest.flatten(loop_vars)
        self.tensors = [_tensor(v) for v in self.like]
        self.types = [_type(t, like) for t, like in zip(self.tensors, self.like, strict=True)]
        if shape_invariants is not None:
            self._invariants(nest.flatten_up_to(loop_vars, shape_invariants, check_types=False))

    def _invariants(self, shapes: Sequence[Any]) -> None:
        for k, (stated, t) in enumerate(zip(shapes, self.tensors, strict=True)):
            if isinstance(self.like[k], TensorArray) or stated is None:
                continue
            wanted = TensorShape(stated)
            if not wanted.is_compatible_with(t.shape):
                raise GraphError(
                    f"The shape invariant specified for {t.name} is not compatible with the "
                    f"initial shape of the loop variable. It enters the loop with shape {t.shape}, "
                    f"but the specified shape invariant is {wanted}."
                )
            self.types[k] = TensorType(t.dtype.base_dtype, wanted.sizes)

    def declare(self, into: Region, name: str) -> Any:
        """Parameters for the loop variables, in the user's structure."""
        found = []
        for like, type_ in zip(self.like, self.types, strict=True):
            found.append(like_result(parameter(into, type_, name), like))
        packed = nest.pack_sequence_as(self.structure, found)
        return packed if isinstance(packed, (list, tuple)) else [packed]

    def results(self, found: Any) -> list[Tensor]:
        """What the body gives, checked against the loop variables."""
        structure = self.structure
        nest.assert_same_structure(list(structure), list(found))
        leaves = nest.flatten(found)
        tensors = []
        for k, (leaf, type_) in enumerate(zip(leaves, self.types, strict=True)):
            tensor = _tensor(leaf, type_.dtype)
            name = self.tensors[k].name
            if tensor.dtype.base_dtype is not type_.dtype:
                raise DTypeError(
                    f"Loop variable {name} enters the loop with dtype {type_.dtype.name}, but has "
                    f"dtype {tensor.dtype.base_dtype.name} after one iteration."
                )
            if not _keeps(tensor.sizes, type_.sizes):
                raise GraphError(
                    f"Input tensor '{name}' enters the loop with shape {self.tensors[k].shape}, "
                    f"but has shape {tensor.shape} after one iteration. To allow the shape to vary "
                    "across iterations, use the `shape_invariants` argument of tf.while_loop to "
                    "specify a less-specific shape."
                )
            tensors.append(tensor)
        return tensors


def _type(tensor: Tensor, like: Any) -> TensorType:
    """The type of a loop variable: an array that grows may have any length."""
    sizes = tensor.sizes
    if isinstance(like, TensorArray) and like.dynamic_size and sizes is not None:
        sizes = (dims.fresh(), *sizes[1:])
    return TensorType(tensor.dtype.base_dtype, sizes)


def _keeps(found: Any, invariant: Any) -> bool:
    """Whether a shape is at least as specific as another one."""
    if invariant is None:
        return True
    if found is None or len(found) != len(invariant):
        return False
    return all(not isinstance(b, int) or a == b for a, b in zip(found, invariant, strict=True))


def _tensor(value: Any, dtype: Any = None) -> Tensor:
    if isinstance(value, TensorArray):
        return value.flow
    if isinstance(value, Operation):
        raise DTypeError(f"a loop variable is a tensor, not an operation: {value.name}")
    return convert_to_tensor(value, preferred_dtype=dtype)
