"""Assertions about dtypes, ranks and shapes, and checks of whole tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphc import dtypes
from graphc.build import constant, convert_to_tensor, create, single
from graphc.check_ops import Data, constant_value
from graphc.dtypes import as_dtype
from graphc.errors import DTypeError, GraphError
from graphc.graph import (
    Operation,
    Tensor,
    control_dependencies,
    get_default_graph,
    name_scope,
)
from graphc.logging_ops import Assert
from graphc.ops import math
from graphc.ops.array import group, identity, no_op
from graphc.ops.shaping import reshape
from graphc.ops.shaping_make import rank as rank_of
from graphc.ops.shaping_make import shape as shape_of


def assert_rank(
    x: Any, rank: Any, data: Data = None, summarize: int | None = None,
    message: str | None = None, name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails if ``x`` has another rank than ``rank``.

    Args:
      x: a tensor.
      rank: an int32 scalar.
      data, summarize, message, name: as in :func:`graphc.assert_equal`.
    Raises:
      ValueError: both ranks are known, and differ. TypeError: a rank that is no int32.
    """
    return _rank("assert_rank", "", int.__eq__, x, rank, data, summarize, message, name)


def assert_rank_at_least(
    x: Any, rank: Any, data: Data = None, summarize: int | None = None,
    message: str | None = None, name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails if ``x`` has a lower rank than ``rank``: as :func:`assert_rank`."""
    return _rank(
        "assert_rank_at_least", " at least", int.__ge__, x, rank, data, summarize, message, name
    )


def _rank(
    op_name: str, words: str, holds: Callable[[int, int], bool], x: Any, rank: Any, data: Data,
    summarize: int | None, message: str | None, name: str | None,
) -> Operation:  # fmt: skip
    """An assertion about a rank."""
    with name_scope(name, op_name, [x, rank]):
        x = convert_to_tensor(x, name="x")
        wanted = _int32(convert_to_tensor(rank, name="rank"), message)
        value = constant_value(wanted)
        if value is not None and value.ndim:
            raise GraphError("Rank must be a scalar.")
        if x.sizes is not None and value is not None:
            if holds(len(x.sizes), int(value)):
                return no_op("static_checks_determined_all_ok")
            raise GraphError(
                f"{message or ''}.  Tensor {x.name} must have rank{words} {value}.  Received rank "
                f"{len(x.sizes)}, shape {x.shape}"
            )
        shown = data or [
            message or "", f"Tensor {x.name} must have rank{words}", wanted, "Received shape: ",
            shape_of(x),
        ]  # fmt: skip
        compare = math.greater_equal if words else math.equal
        return Assert(compare(rank_of(x), wanted), shown, summarize)


def assert_rank_in(
    x: Any, ranks: Sequence[Any], data: Data = None, summarize: int | None = None,
    message: str | None = None, name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails if the rank of ``x`` is none of ``ranks``: as :func:`assert_rank`."""
    with name_scope(name, "assert_rank_in", [x, *ranks]):
        x = convert_to_tensor(x, name="x")
        wanted = [_int32(convert_to_tensor(r, name="rank"), message) for r in ranks]
        values = [constant_value(r) for r in wanted]
        if any(v is not None and v.ndim for v in values):
            raise GraphError("Rank must be a scalar.")
        known = [int(v) for v in values if v is not None]
        if x.sizes is not None and len(known) == len(wanted):
            if len(x.sizes) in known:
                return no_op("static_checks_determined_all_ok")
            raise GraphError(
                f"{message or ''}.  Tensor {x.name} must have rank in {tuple(known)}.  Received "
                f"rank {len(x.sizes)}, shape {x.shape}"
            )
        found = rank_of(x)
        good = constant(False)
        for r in wanted:
            good = math.logical_or(good, math.equal(found, r))
        shown = data or [
            message or "", f"Tensor {x.name} must have rank in", *wanted, "Received shape: ",
            shape_of(x),
        ]  # fmt: skip
        return Assert(good, shown, summarize)


def _int32(rank: Tensor, message: str | None) -> Tensor:
    return _typed(rank, dtypes.int32, message)


def _typed(tensor: Tensor, dtype: Any, message: str | None) -> Tensor:
    if tensor.dtype.base_dtype is not dtype:
        raise DTypeError(f"{message or ''}  {tensor.name} must be of type {dtype!r}")
    return tensor


def assert_type(
    tensor: Any, tf_type: Any, message: str | None = None, name: str | None = None
) -> Operation:
    """Checks, at once, that a tensor has this dtype; an operation that does nothing.

    Raises:
      TypeError: it has another one.
    """
    with name_scope(name, "assert_type", [tensor]):
        _typed(convert_to_tensor(tensor, name="tensor"), as_dtype(tf_type), message)
        return no_op("statically_determined_correct_type")


def assert_integer(x: Any, message: str | None = None, name: str | None = None) -> Operation:
    """Checks, at once, that a tensor has an integer dtype; an operation that does nothing.

    Raises:
      TypeError: it has none.
    """
    with name_scope(name, "assert_integer", [x]):
        x = convert_to_tensor(x, name="x")
        if not x.dtype.base_dtype.is_integer:
            raise DTypeError(
                f'{message or ""}  Expected "x" to be integer type.  Found: {x.name} of dtype '
                f"{x.dtype!r}"
            )
        return no_op("statically_determined_was_integer")


def assert_scalar(tensor: Any, name: str | None = None, message: str | None = None) -> Tensor:
    """``tensor``, checked at once to be a scalar as far as is known.

    Raises:
      ValueError: its shape is known, and is none of a scalar.
    """
    with name_scope(name, "assert_scalar", [tensor]):
        found = convert_to_tensor(tensor, name="tensor")
        if found.sizes not in (None, ()):
            raise GraphError(
                f"{message or ''}Expected scalar shape for {found.name}, saw shape: {found.shape}."
            )
        return found


def assert_same_float_dtype(tensors: Any = None, dtype: Any = None) -> Any:
    """The floating dtype that all tensors (and ``dtype``, if given) have; float32 for none.

    Raises:
      ValueError: dtypes that differ, or are no floats.
    """
    wanted = None if dtype is None else as_dtype(dtype)
    for tensor in tensors or ():
        found = convert_to_tensor(tensor).dtype.base_dtype
        if wanted is not None and found is not wanted:
            raise GraphError(
                f"Tensor type {found.name} of {tensor} does not match type {wanted.name}."
            )
        wanted = found
    wanted = wanted or dtypes.float32
    if not wanted.is_floating:
        raise GraphError(f"Expected floating point type, got {wanted.name}.")
    return wanted


def assert_proper_iterable(values: Any) -> None:
    """Refuse what can be iterated over but is no collection of values: tensors, strings, arrays.

    Raises:
      TypeError: it is one of those, or cannot be iterated over.
    """
    wrong = isinstance(values, (Tensor, str, bytes)) or hasattr(values, "__array__")
    if wrong or not isinstance(values, Iterable):
        raise DTypeError(
            f'Expected argument "values" to be a "proper" iterable.  Found: {type(values)}'
        )


def is_numeric_tensor(tensor: Any) -> bool:
    """Whether it is a tensor of numbers."""
    return isinstance(tensor, Tensor) and (
        tensor.dtype.base_dtype.is_floating or tensor.dtype.base_dtype.is_integer
    )


def is_non_decreasing(x: Any, name: str | None = None) -> Tensor:
    """Whether every element, in row-major order, is at least as large as the one before."""
    with name_scope(name, "is_non_decreasing", [x]):
        first, second = _neighbours(x)
        return math.reduce_all(math.less_equal(first, second))


def is_strictly_increasing(x: Any, name: str | None = None) -> Tensor:
    """Whether every element, in row-major order, is larger than the one before."""
    with name_scope(name, "is_strictly_increasing", [x]):
        first, second = _neighbours(x)
        return math.reduce_all(math.less(first, second))


def _neighbours(x: Any) -> tuple[Tensor, Tensor]:
    x = convert_to_tensor(x, name="x")
    if not is_numeric_tensor(x):
        raise DTypeError(f"Expected x to be numeric, instead found: {x}")
    flat: Any = reshape(x, [-1])
    return flat[:-1], flat[1:]


def assert_shapes(
    shapes: Any, data: Data = None, summarize: int | None = None, message: str | None = None,
    name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails if the sizes of tensors are not what is said of them.

    Args:
      shapes: a list of (tensor, sizes) pairs, or a dict: a size is a number, a name that stands
        for the same size everywhere, or None (or ``"."``) for any.
      data, summarize, message, name: as in :func:`graphc.assert_equal`.
    Raises:
      ValueError: a rank that is known to be another one.
    """
    pairs = list(shapes.items() if isinstance(shapes, dict) else shapes)
    with name_scope(name, "assert_shapes", [x for x, _ in pairs]):
        known: dict[Any, tuple[Any, str]] = {}
        checks = []
        for x, stated in pairs:
            x = convert_to_tensor(x)
            sizes = tuple(stated) if isinstance(stated, (list, tuple)) else (stated,)
            checks.append(assert_rank(x, len(sizes), data, summarize, message))
            found: Any = shape_of(x)
            for d, size in enumerate(sizes):
                if size is None or size == ".":
                    continue
                by = "Specified explicitly"
                wanted = size
                if not isinstance(size, int):
                    own = f"Specified by tensor {x.name} dimension {d}"
                    if size not in known:
                        known[size] = (found[d], own)
                        continue
                    wanted, by = known[size]
                shown = data or [
                    message or "", by, f"Tensor {x.name} dimension", d, "must have size", wanted,
                    "Received shape: ", found,
                ]  # fmt: skip
                checks.append(Assert(math.equal(found[d], wanted), shown, summarize))
        return group(*checks)


# --- finite numbers -------------------------------------------------------------------------------


def check_numerics(tensor: Any, message: str, name: str | None = None) -> Tensor:
    """``tensor`` as it is; a run fails if some element is infinite or no number.

    Args:
      tensor: a floating tensor.
      message: comes first in the error.
      name: a name for the operation.
    """
    return single(create("CheckNumerics", [tensor], {"message": message}, name))


def verify_tensor_all_finite(
    t: Any = None, msg: str | None = None, name: str | None = None, x: Any = None,
    message: str | None = None,
) -> Tensor:  # fmt: skip
    """``t`` (or ``x``) as it is; a run fails with ``msg`` if some element is not finite."""
    value = x if t is None else t
    text = message if msg is None else msg
    with name_scope(name, "VerifyFinite", [value]):
        tensor = convert_to_tensor(value, name="x")
        check = check_numerics(tensor, text or "")
        with control_dependencies([check]):
            return identity(tensor)


def add_check_numerics_ops() -> Operation:
    """An operation that checks every floating tensor of the graph so far, in order.

    Raises:
      ValueError: the graph has loops or branches, whose tensors cannot be reached.
    """
    checks: list[Tensor] = []
    for op in get_default_graph().get_operations():
        for output in op.outputs:
            if output.dtype not in dtypes.FLOATS:
                continue
            if op.region is not None:
                raise GraphError(
                    "`tf.add_check_numerics_ops() is not compatible with TensorFlow control flow "
                    "operations such as `tf.cond()` or `tf.while_loop()`."
                )
            with control_dependencies(checks[-1:]):
                checks.append(check_numerics(output, f"{op.name}:{output.index}"))
    return group(*checks)
