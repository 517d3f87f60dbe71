"""Loops and branches: while_loop, cond, case and switch_case, as in TensorFlow 1.15."""

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
    control_dependencies,
    get_default_graph,
    name_scope,
)
from graphc.ops.control_build import make_owner, parameter, region
from graphc.shapes import TensorShape
from graphc.tensor_array import TensorArray


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
    del parallel_iterations, swap_memory
    if not callable(cond):
        raise DTypeError("cond must be callable.")
    if not callable(body):
        raise DTypeError("body must be callable.")
    if not loop_vars:
        raise GraphError("No loop variables provided")
    with name_scope(name, "while", nest.flatten(loop_vars)):
        if maximum_iterations is not None:
            return _limited(
                cond, body, loop_vars, shape_invariants, back_prop, maximum_iterations,
                return_same_structure,
            )  # fmt: skip
        variables = _Variables(loop_vars, shape_invariants)
        with region("while") as test:
            values = variables.declare(test)
            test.results = [_condition(cond(*values))]
        with region("while") as step:
            values = variables.declare(step)
            found = body(*values)
            if not nest.is_nested(found) or isinstance(found, TensorArray):
                found = [found]
            step.results = variables.results(found)
        full_name = get_default_graph().unique_name("Exit")
        op = make_owner("While", (test, step), variables.tensors, full_name)
        outputs = op.outputs[: len(variables.tensors)]
        for out, result in zip(outputs, step.results, strict=True):
            if out.sizes is None and result.sizes is not None:
                out.set_shape(TensorShape(result.sizes))
        if not back_prop:
            outputs = [single(create("StopGradient", [t])) for t in outputs]
        packed = variables.pack(outputs)
    if return_same_structure or len(packed) > 1 or not isinstance(packed, (list, tuple)):
        return packed
    return packed[0]


def _limited(
    cond: Callable[..., Any],
    body: Callable[..., Any],
    loop_vars: Any,
    shape_invariants: Any,
    back_prop: bool,
    limit: Any,
    return_same_structure: bool,
) -> Any:
    """The loop with a counter in front that ends it."""
    most = convert_to_tensor(limit, name="maximum_iterations", preferred_dtype=dtypes.int32)
    if most.sizes not in (None, ()):
        raise ShapeError(
            f"maximum_iterations must be a scalar, saw shape: {most.shape}"
        )
    if not most.dtype.base_dtype.is_integer:
        raise DTypeError(f"maximum_iterations must be an integer, not {most.dtype.name}")
    single_ = len(loop_vars) == 1
    counter = constant(0, dtype=most.dtype.base_dtype, name="iteration_counter")

    def test(i: Tensor, values: Any) -> Tensor:
        return single(create("LogicalAnd", [single(create("Less", [i, most])), cond(*values)]))

    def step(i: Tensor, values: Any) -> Any:
        found = body(*values)
        if single_ and (not nest.is_nested(found) or isinstance(found, TensorArray)):
            found = type(values)([found]) if type(values) in (list, tuple) else [found]
        return i + 1, found  # type: ignore[operator]

    invariants = None
    if shape_invariants is not None:
        invariants = (TensorShape([]), shape_invariants)
    _, values = while_loop(
        test, step, (counter, loop_vars), invariants, back_prop=back_prop, name="limited",
        return_same_structure=True,
    )  # fmt: skip
    if return_same_structure or not single_ or not isinstance(values, (list, tuple)):
        return values
    return values[0]


def _condition(value: Any) -> Tensor:
    tensor = convert_to_tensor(value, name="pred")
    if tensor.dtype.base_dtype is not dtypes.bool_:
        raise DTypeError(
            f"The loop condition must be a bool, not {tensor.dtype.base_dtype.name} ({tensor.name})"
        )
    if tensor.sizes not in (None, ()):
        raise ShapeError(f"The loop condition must be a scalar, not of shape {tensor.shape}")
    return tensor


class _Variables:
    """The loop variables: flat tensors, and the structure that the user sees."""

    def __init__(self, loop_vars: Any, shape_invariants: Any) -> None:
        self.structure = loop_vars
        self.like = nest.flatten(loop_vars)
        self.tensors = [_tensor(v, f"loop_var_{k}") for k, v in enumerate(self.like)]
        self.types = [_type(t, like) for t, like in zip(self.tensors, self.like, strict=True)]
        self.free = [False] * len(self.tensors)
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
            self.free[k] = True

    def declare(self, into: Region) -> Any:
        """Parameters for the loop variables, in the user's structure."""
        found = []
        for like, type_ in zip(self.like, self.types, strict=True):
            found.append(_like(parameter(into, type_, "Identity"), like))
        packed = nest.pack_sequence_as(self.structure, found)
        return packed if isinstance(packed, (list, tuple)) else [packed]

    def results(self, found: Any) -> list[Tensor]:
        """What the body gives, checked against the loop variables."""
        structure = self.structure
        nest.assert_same_structure(list(structure), list(found))
        leaves = nest.flatten(found)
        tensors = []
        for k, (leaf, type_) in enumerate(zip(leaves, self.types, strict=True)):
            tensor = _tensor(leaf, f"body_result_{k}", type_.dtype)
            name = self.tensors[k].name
            if tensor.dtype.base_dtype is not type_.dtype:
                raise DTypeError(
                    f"Loop variable {name} enters the loop with dtype {type_.dtype.name}, but has "
                    f"dtype {tensor.dtype.base_dtype.name} after one iteration."
                )
            if not _keeps(tensor.sizes, type_.sizes):
                hint = (
                    "" if self.free[k] else " To allow the shape to vary across iterations, use "
                    "the `shape_invariants` argument of tf.while_loop to specify a less-specific "
                    "shape."
                )  # fmt: skip
                raise GraphError(
                    f"Input tensor '{name}' enters the loop with shape "
                    f"{TensorShape(type_.sizes)}, but has shape {tensor.shape} after one "
                    f"iteration.{hint}"
                )
            tensors.append(tensor)
        return tensors

    def pack(self, tensors: Sequence[Tensor]) -> Any:
        """The user's structure with the given values."""
        leaves = [_like(t, like) for t, like in zip(tensors, self.like, strict=True)]
        return nest.pack_sequence_as(self.structure, leaves)


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


def _tensor(value: Any, name: str, dtype: Any = None) -> Tensor:
    if isinstance(value, TensorArray):
        return value.flow
    if isinstance(value, Operation):
        raise DTypeError(f"{name} is an operation, not a tensor: {value.name}")
    return convert_to_tensor(value, name=name, preferred_dtype=dtype)


def _like(tensor: Tensor, like: Any) -> Any:
    return TensorArray._of(tensor, like) if isinstance(like, TensorArray) else tensor


# --- branches -------------------------------------------------------------------------------------


def cond(
    pred: Any,
    true_fn: Callable[[], Any] | None = None,
    false_fn: Callable[[], Any] | None = None,
    strict: bool = False,
    name: str | None = None,
    fn1: Callable[[], Any] | None = None,
    fn2: Callable[[], Any] | None = None,
) -> Any:
    """What ``true_fn`` gives where ``pred`` is true, else what ``false_fn`` gives.

    Only the operations that the chosen function declares are run.  Tensors and variables from
    around may be used in both as they are.

    Args:
      pred: a bool scalar.
      true_fn, false_fn: functions without arguments; both give the same structure of tensors, of
        the same dtypes.
      strict: True keeps a list of one element a list.
      name: the name scope, "cond" by default.
      fn1, fn2: old names of ``true_fn`` and ``false_fn``.
    Raises:
      TypeError: a ``pred`` that is a Python bool or no bool scalar; functions that cannot be
        called. ValueError: branches that give different structures or dtypes.
    """
    true_fn, false_fn = true_fn or fn1, false_fn or fn2
    if not callable(true_fn):
        raise DTypeError("true_fn must be callable.")
    if not callable(false_fn):
        raise DTypeError("false_fn must be callable.")
    if isinstance(pred, bool):
        raise DTypeError("pred must not be a Python bool")
    with name_scope(name, "cond", [pred]):
        tensor = convert_to_tensor(pred, name="pred")
        if tensor.dtype.base_dtype is not dtypes.bool_ or tensor.sizes not in (None, ()):
            raise DTypeError(f"pred must be a bool scalar, not {tensor}")
        return _choose(tensor, (true_fn, false_fn), strict)


def switch_case(
    branch_index: Any,
    branch_fns: Any,
    default: Callable[[], Any] | None = None,
    name: str = "switch_case",
) -> Any:
    """What the function number ``branch_index`` gives.

    Args:
      branch_index: an int32 scalar.
      branch_fns: functions without arguments: a list, a list of (number, function), or a dict by
        number; the numbers are 0 to n - 1.
      default: for every number that names no function; the last function if there is none.
      name: the name scope.
    Raises:
      TypeError: an index that is no int32 scalar, functions that cannot be called.
      ValueError: numbers that are not 0 to n - 1; branches that differ in structure or dtype.
    """
    branches = _numbered(branch_fns)
    if default is not None:
        if not callable(default):
            raise DTypeError("default must be callable.")
        branches.append(default)
    with name_scope(name, "switch_case", [branch_index]):
        index = convert_to_tensor(branch_index, name="branch_index", preferred_dtype=dtypes.int32)
        if index.dtype.base_dtype is not dtypes.int32 or index.sizes not in (None, ()):
            raise DTypeError(f"branch_index must be an int32 scalar, not {index}")
        return _choose(index, branches, False)


def _numbered(branch_fns: Any) -> list[Callable[[], Any]]:
    if isinstance(branch_fns, dict):
        pairs = list(branch_fns.items())
    elif isinstance(branch_fns, (list, tuple)):
        pairs = [f if isinstance(f, tuple) else (k, f) for k, f in enumerate(branch_fns)]
    else:
        raise DTypeError("branch_fns must be a dict or a list of functions")
    if not pairs:
        raise GraphError("Must provide at least one item in branch_fns")
    if any(not isinstance(k, int) for k, _ in pairs):
        raise DTypeError("the keys of branch_fns must be Python ints")
    found = dict(pairs)
    if sorted(found) != list(range(len(pairs))):
        raise GraphError(f"branch indices must form contiguous range of [0 to {len(pairs)})")
    functions = [found[k] for k in range(len(pairs))]
    if not all(callable(f) for f in functions):
        raise DTypeError("branch_fns must be callable.")
    return functions


def case(
    pred_fn_pairs: Any,
    default: Callable[[], Any] | None = None,
    exclusive: bool = False,
    strict: bool = False,
    name: str = "case",
) -> Any:
    """What the function of the first true predicate gives, else what ``default`` gives.

    Args:
      pred_fn_pairs: (bool scalar, function) pairs, or a dict of them.
      default: for when none is true; without it the last function is taken then.
      exclusive: accepted; the first true one counts.
      strict: as in :func:`cond`.
      name: the name scope.
    Raises:
      TypeError: pairs or functions that are none. ValueError: no pairs.
    """
    del exclusive
    pairs = list(pred_fn_pairs.items() if isinstance(pred_fn_pairs, dict) else pred_fn_pairs)
    if not pairs:
        raise GraphError("Must provide at least one item in pred_fn_pairs")
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise DTypeError("Each entry in pred_fn_pairs must be a 2-tuple.")
        if not isinstance(pair[0], Tensor):
            raise DTypeError(f"pred must be Tensor: {pair[0]}")
        if not callable(pair[1]):
            raise DTypeError(f"fn for pred {pair[0].name} must be callable.")
    functions = [fn for _, fn in pairs]
    if default is not None:
        if not callable(default):
            raise DTypeError("default must be callable.")
        functions.append(default)
    with name_scope(name, "case", [p for p, _ in pairs]):
        index = constant(len(functions) - 1, dtypes.int32)
        for k in reversed(range(len(pairs))):
            index = single(create("SelectV2", [pairs[k][0], constant(k, dtypes.int32), index]))
        return _choose(index, functions, strict)


def _choose(selector: Tensor, functions: Sequence[Callable[[], Any]], strict: bool) -> Any:
    made, found = [], []
    for fn in functions:
        with region("branch") as branch:
            value = fn()
            found.append(value)
            branch.results = [_result(leaf) for leaf in _leaves(value)]
        made.append(branch)
    first = found[0]
    for other, branch in zip(found[1:], made[1:], strict=True):
        if len(_leaves(other)) != len(_leaves(first)):
            raise GraphError(
                f"true_fn and false_fn must return the same number of results: {first!r} and "
                f"{other!r}"
            )
        if nest.is_nested(first) or nest.is_nested(other):
            nest.assert_same_structure(first, other)
        for a, b in zip(made[0].results, branch.results, strict=True):
            if a.dtype.base_dtype is not b.dtype.base_dtype:
                raise GraphError(
                    "Outputs of true_fn and false_fn must have the same type: "
                    f"{a.dtype.base_dtype.name}, {b.dtype.base_dtype.name}"
                )
    op = make_owner("Case", made, [selector], get_default_graph().unique_name("Merge"))
    outputs = iter(op.outputs)
    if first is None or isinstance(first, Operation):
        return op.outputs[0].op if first is not None else None
    leaves = [_like_result(next(outputs), leaf) for leaf in _leaves(first)]
    if not nest.is_nested(first):
        return leaves[0]
    packed = nest.pack_sequence_as(first, leaves)
    if not strict and isinstance(packed, (list, tuple)) and len(packed) == 1:
        return packed[0]
    return packed


def _leaves(value: Any) -> list[Any]:
    return nest.flatten(value) if nest.is_nested(value) else [value]


def _result(leaf: Any) -> Tensor:
    """What a branch hands back: of an operation, a constant that waits for it."""
    if isinstance(leaf, TensorArray):
        return leaf.flow
    if leaf is None:
        return constant(False, dtypes.bool_)
    if isinstance(leaf, Operation):
        with control_dependencies([leaf]):
            return single(create("Identity", [constant(False, dtypes.bool_)]))
    return convert_to_tensor(leaf, name="branch_result")


def _like_result(tensor: Tensor, like: Any) -> Any:
    if isinstance(like, Operation):
        return tensor.op
    return None if like is None else _like(tensor, like)
