"""case: the function of the first predicate that is true, as in TensorFlow 1.15."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc import dtypes, nest
from graphc.branches import Branch, choose
from graphc.build import constant, create, single
from graphc.errors import DTypeError, GraphError
from graphc.graph import Operation, Tensor, control_dependencies, name_scope
from graphc.logging_ops import Assert
from graphc.ops.array import identity
from graphc.ops.math import cast, less_equal, reduce_any, reduce_sum
from graphc.ops.shaping import stack


def case(
    pred_fn_pairs: Any,
    default: Branch | None = None,
    exclusive: bool = False,
    strict: bool = False,
    name: str = "case",
) -> Any:
    """What the function of the first true predicate gives, else what ``default`` gives.

    Args:
      pred_fn_pairs: (bool scalar, function) pairs, or a dict of them.
      default: for when none is true; without it such a run fails.
      exclusive: whether a run in which several are true fails; else the first one counts.
      strict: as in :func:`cond`.
      name: the name scope.
    Raises:
      TypeError: pairs or functions that are none. ValueError: no pairs.
      InvalidArgumentError: in a run, the predicates are not as they should be.
    """
    pairs = _checked_pairs(pred_fn_pairs)
    predicates, functions = [p for p, _ in pairs], [fn for _, fn in pairs]
    if default is not None and not callable(default):
        raise DTypeError("default must be callable.")
    with name_scope(name, "case", predicates):
        if default is None:
            functions[-1] = _needs_a_true_one(predicates, functions[-1])
        else:
            functions.append(default)
        checks = [_at_most_one(predicates)] if exclusive else []
        index = constant(len(functions) - 1, dtypes.int32)
        for k in reversed(range(len(pairs))):
            index = single(create("SelectV2", [predicates[k], constant(k, dtypes.int32), index]))
        with control_dependencies(checks), name_scope("cond"):
            names = [f"fns[{k}]" for k in range(len(functions))]
            return choose(index, functions, strict, names)


def _checked_pairs(pred_fn_pairs: Any) -> list[tuple[Tensor, Branch]]:
    """The predicates and functions in order."""
    if not isinstance(pred_fn_pairs, (list, tuple, dict)):
        raise DTypeError("fns must be a list, tuple, or dict")
    pairs = list(pred_fn_pairs.items() if isinstance(pred_fn_pairs, dict) else pred_fn_pairs)
    if not pairs:
        raise GraphError("Must provide at least one item in pred_fn_pairs")
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise DTypeError("Each entry in pred_fn_pairs must be a 2-tuple")
        pred, fn = pair
        if not isinstance(pred, Tensor):
            raise DTypeError(f"pred must be a Tensor, got: {pred}")
        if pred.dtype.base_dtype is not dtypes.bool_:
            raise DTypeError(f"pred must be Tensor of type bool: {pred.name}")
        if not callable(fn):
            raise DTypeError(f"fn for pred {pred.name} must be callable.")
    return pairs


def _at_most_one(predicates: Sequence[Tensor]) -> Operation:
    """Fails when it is run and several predicates are true."""
    every = stack(predicates, name="preds_c")
    count = reduce_sum(cast(every, dtypes.int32), name="num_true_conds")
    names = ", ".join(p.name for p in predicates)
    message = f"Input error: exclusive=True: more than 1 conditions ({names}) evaluated as True:"
    one = constant(1, name="n_true_conds")
    return Assert(less_equal(count, one), [message, every], summarize=len(predicates))


def _needs_a_true_one(predicates: Sequence[Tensor], fn: Branch) -> Callable[[], Any]:
    """``fn``, which is taken where the predicates before its own are false: its own must hold."""

    def checked() -> Any:
        every = stack(predicates, name="preds_c")
        message = "Input error: None of conditions evaluated as True:"
        with control_dependencies([Assert(reduce_any(every), [message, every])]):
            value = fn()
            # Tensors from around do not wait for the check by themselves.
            return value if value is None else nest.map_structure(_after_checks, value)

    return checked


def _after_checks(leaf: Any) -> Any:
    return identity(leaf) if isinstance(leaf, Tensor) else leaf
