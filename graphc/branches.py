"""Branches: cond and switch_case, as in TensorFlow 1.15."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc import dtypes, nest
from graphc.build import constant, convert_to_tensor, create, single
from graphc.errors import DTypeError, GraphError, ShapeError
from graphc.graph import (
    Operation,
    Region,
    Tensor,
    control_dependencies,
    get_default_graph,
    name_scope,
)
from graphc.ops.control_build import make_owner, region
from graphc.tensor_array import TensorArray, like_result

Branch = Callable[[], Any]


def cond(
    pred: Any,
    true_fn: Branch | None = None,
    false_fn: Branch | None = None,
    strict: bool = False,
    name: str | None = None,
    fn1: Branch | None = None,
    fn2: Branch | None = None,
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
    first = _function(true_fn, fn1, "true_fn", "fn1")
    second = _function(false_fn, fn2, "false_fn", "fn2")
    with name_scope(name, "cond", [pred]) as scope:
        if isinstance(pred, bool):
            raise DTypeError("pred must not be a Python bool")
        tensor = _scalar(pred, "pred", dtypes.bool_, "Switch", scope)
        return choose(tensor, (first, second), strict, ("true_fn", "false_fn"))


def _function(new: Any, old: Any, name: str, old_name: str) -> Branch:
    """A function of :func:`cond`, which has an old name too."""
    if new is not None and old is not None:
        raise DTypeError(f"cond(): {name} and {old_name} may not be set simultaneously.")
    found = old if new is None else new
    if found is None:
        raise DTypeError(f"cond(): {name} argument required")
    if not callable(found):
        raise DTypeError(f"{name} must be callable.")
    return found  # type: ignore[no-any-return]


def _scalar(value: Any, name: str, dtype: dtypes.DType, op: str, scope: str) -> Tensor:
    """What chooses a branch: a scalar of a dtype."""
    tensor = convert_to_tensor(value, name=name, preferred_dtype=dtype)
    found = tensor.dtype.base_dtype
    if found is not dtype:
        raise DTypeError(
            f"Input '{name}' of '{op}' Op has type {found.name} that does not match expected type "
            f"of {dtype.name}."
        )
    if tensor.sizes not in (None, ()):
        raise ShapeError(
            f"Shape must be rank 0 but is rank {tensor.shape.ndims} for '{scope}{op}' (op: '{op}') "
            f"with input shapes: {tensor.shape.as_list()}."
        )
    return tensor


def switch_case(
    branch_index: Any,
    branch_fns: Any,
    default: Branch | None = None,
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
    names = [f"branches[{k}]" for k in range(len(branches))]
    if default is not None:
        if not callable(default):
            raise DTypeError("default must be callable.")
        branches.append(default)
        names.append("default")
    with name_scope(name, "switch_case", [branch_index]) as scope:
        index = _scalar(branch_index, "branch_index", dtypes.int32, "Case", scope)
        with name_scope("indexed_case"):
            return choose(index, branches, True, names, "Identity")


def _numbered(branch_fns: Any) -> list[Branch]:
    """The functions of :func:`switch_case` in the order of their numbers."""
    if not isinstance(branch_fns, (list, tuple, dict)):
        raise DTypeError("branch_fns must be a list, tuple, or dict")
    if not branch_fns:
        raise GraphError("Must provide at least one item in branch_fns")
    if isinstance(branch_fns, dict):
        pairs = list(branch_fns.items())
    elif all(callable(f) for f in branch_fns):
        pairs = list(enumerate(branch_fns))
    else:
        pairs = list(branch_fns)
    pair: Any
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise DTypeError("Each entry in branch_fns must be a 2-tuple")
        key, fn = pair
        if not isinstance(key, int):
            raise DTypeError(f"key must be a Python `int`, got {type(key)}")
        if not callable(fn):
            raise DTypeError(f"fn for key {key} must be callable.")
    keys = sorted(k for k, _ in pairs)
    if keys != list(range(len(pairs))):
        listed = ",".join(map(str, keys))
        raise GraphError(
            f"branch indices (keys) must form contiguous range of [0 to {len(pairs)}) but found "
            f"{{{listed}}}"
        )
    found = dict(pairs)
    return [found[k] for k in keys]


def choose(
    selector: Tensor, functions: Sequence[Branch], strict: bool, names: Sequence[str],
    result: str = "Merge",
) -> Any:  # fmt: skip
    """Declare the branches and the operation that chooses one; the values of that."""
    made: list[Region] = []
    found: list[Any] = []
    for fn, name in zip(functions, names, strict=True):
        with region("branch") as branch:
            value = fn()
            if value is None:
                raise GraphError(f"{name} must have a return value.")
            if not strict and isinstance(value, (list, tuple)) and len(value) == 1:
                value = value[0]
            branch.results = [_result(leaf, not made) for leaf in nest.flatten(value)]
        found.append(value)
        made.append(branch)
    first = found[0]
    for k in range(1, len(made)):
        nest.assert_same_structure(first, found[k])
        for a, b in zip(made[0].results, made[k].results, strict=True):
            if a.dtype.base_dtype is not b.dtype.base_dtype:
                raise GraphError(
                    f"Outputs of {names[0]} and {names[k]} must have the same type: "
                    f"{a.dtype.base_dtype.name}, {b.dtype.base_dtype.name}"
                )
    if not made[0].results:
        raise GraphError(f"{names[0]} and {names[1]} must return at least one result.")
    op = make_owner("Case", made, [selector], get_default_graph().unique_name("Case"))
    outputs = [single(create("Identity", [t], None, result)) for t in op.outputs]
    leaves = nest.flatten(first)
    packed = [like_result(t, leaf) for t, leaf in zip(outputs, leaves, strict=True)]
    return nest.pack_sequence_as(first, packed)


def _result(leaf: Any, first: bool) -> Tensor:
    """What a branch hands back: of an operation, whether it is the first one's, once it has run."""
    if isinstance(leaf, TensorArray):
        return leaf.flow
    if isinstance(leaf, Operation):
        with control_dependencies([leaf]):
            return single(create("Identity", [constant(first, dtypes.bool_)]))
    return convert_to_tensor(leaf)
