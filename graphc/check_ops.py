"""Assertions about tensors, as in TensorFlow 1.15: assert_equal, assert_less, assert_positive, ...

What is known while the graph is declared is checked then; what is not, by an operation that fails
when it is run (see :func:`graphc.Assert`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.build import convert_to_tensor
from graphc.dtypes import finfo
from graphc.errors import GraphError, InvalidArgumentError
from graphc.graph import Operation, Tensor, name_scope
from graphc.logging_ops import Assert
from graphc.ops import math
from graphc.ops.array import no_op

Data = Sequence[Any] | None


def assert_equal(
    x: Any, y: Any, data: Data = None, summarize: int | None = None, message: str | None = None,
    name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails where ``x == y`` does not hold for every element.

    Args:
      x, y: tensors that broadcast together.
      data: what the error shows; by default the condition and both tensors.
      summarize: how many elements of each tensor the error shows, 3 by default.
      message: comes first in the error.
      name: the name scope.
    Raises:
      InvalidArgumentError: both are constants, and it does not hold.
    """
    checks = (math.equal, np.equal)
    return _binary("assert_equal", "==", checks, x, y, data, summarize, message, name)


def assert_none_equal(
    x: Any, y: Any, data: Data = None, summarize: int | None = None, message: str | None = None,
    name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails where ``x != y`` does not hold for every element: as assert_equal."""
    checks = (math.not_equal, np.not_equal)
    return _binary("assert_none_equal", "!=", checks, x, y, data, summarize, message, name)


def assert_less(
    x: Any, y: Any, data: Data = None, summarize: int | None = None, message: str | None = None,
    name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails where ``x < y`` does not hold for every element: as assert_equal."""
    checks = (math.less, np.less)
    return _binary("assert_less", "<", checks, x, y, data, summarize, message, name)


def assert_less_equal(
    x: Any, y: Any, data: Data = None, summarize: int | None = None, message: str | None = None,
    name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails where ``x <= y`` does not hold for every element: as assert_equal."""
    checks = (math.less_equal, np.less_equal)
    return _binary("assert_less_equal", "<=", checks, x, y, data, summarize, message, name)


def assert_greater(
    x: Any, y: Any, data: Data = None, summarize: int | None = None, message: str | None = None,
    name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails where ``x > y`` does not hold for every element: as assert_equal."""
    checks = (math.greater, np.greater)
    return _binary("assert_greater", ">", checks, x, y, data, summarize, message, name)


def assert_greater_equal(
    x: Any, y: Any, data: Data = None, summarize: int | None = None, message: str | None = None,
    name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails where ``x >= y`` does not hold for every element: as assert_equal."""
    checks = (math.greater_equal, np.greater_equal)
    return _binary("assert_greater_equal", ">=", checks, x, y, data, summarize, message, name)


def assert_negative(
    x: Any, data: Data = None, summarize: int | None = None, message: str | None = None,
    name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails where some element is not negative: as assert_equal."""
    checks = (math.less, np.less)
    return _sign("assert_negative", "<", checks, x, data, summarize, message, name)


def assert_positive(
    x: Any, data: Data = None, summarize: int | None = None, message: str | None = None,
    name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails where some element is not positive: as assert_equal."""
    checks = (math.greater, np.greater)
    return _sign("assert_positive", ">", checks, x, data, summarize, message, name)


def assert_non_negative(
    x: Any, data: Data = None, summarize: int | None = None, message: str | None = None,
    name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails where some element is negative: as assert_equal."""
    checks = (math.greater_equal, np.greater_equal)
    return _sign("assert_non_negative", ">=", checks, x, data, summarize, message, name)


def assert_non_positive(
    x: Any, data: Data = None, summarize: int | None = None, message: str | None = None,
    name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails where some element is positive: as assert_equal."""
    checks = (math.less_equal, np.less_equal)
    return _sign("assert_non_positive", "<=", checks, x, data, summarize, message, name)


def assert_near(
    x: Any, y: Any, rtol: Any = None, atol: Any = None, data: Data = None,
    summarize: int | None = None, message: str | None = None, name: str | None = None,
) -> Operation:  # fmt: skip
    """An operation that fails where ``|x - y| <= atol + rtol * |y|`` does not hold.

    Args:
      x, y: floating tensors that broadcast together.
      rtol, atol: the tolerances, ten times the dtype's precision by default.
      data, summarize, message, name: as in :func:`assert_equal`.
    Raises:
      ValueError: tensors of no floating dtype.
    """
    with name_scope(name, "assert_near", [x, y, rtol, atol]):
        x = convert_to_tensor(x, name="x")
        y = convert_to_tensor(y, name="y", dtype=x.dtype.base_dtype)
        dtype = x.dtype.base_dtype
        if not dtype.is_floating:
            raise GraphError(f"data type {dtype.numpy} not inexact")
        eps = 10 * float(finfo(dtype.numpy).eps)
        rtol = convert_to_tensor(eps if rtol is None else rtol, name="rtol", dtype=dtype)
        atol = convert_to_tensor(eps if atol is None else atol, name="atol", dtype=dtype)
        shown = data or [
            message or "", f"x and y not equal to tolerance rtol = {rtol}, atol = {atol}",
            f"x ({x.name}) = ", x, f"y ({y.name}) = ", y,
        ]  # fmt: skip
        apart = math.abs(math.subtract(x, y))
        allowed = math.add(atol, math.multiply(rtol, math.abs(y)))
        return Assert(math.reduce_all(math.less_equal(apart, allowed)), shown, summarize)


Checks = tuple[Callable[..., Tensor], Callable[..., Any]]


def _binary(
    op_name: str, sign: str, checks: Checks, x: Any, y: Any, data: Data, summarize: int | None,
    message: str | None, name: str | None,
) -> Operation:  # fmt: skip
    """An assertion that compares two tensors."""
    with name_scope(name, op_name, [x, y, data]):
        x = convert_to_tensor(x, name="x")
        y = convert_to_tensor(y, name="y", preferred_dtype=x.dtype.base_dtype)
        shown: list[Any] = [message] if message else []
        shown.append(f"Condition x {sign} y did not hold element-wise:")
        shown += [f"x ({x.name}) = ", x, f"y ({y.name}) = ", y]
        return _checked(checks, (x, y), shown, data, summarize)


def _sign(
    op_name: str, sign: str, checks: Checks, x: Any, data: Data, summarize: int | None,
    message: str | None, name: str | None,
) -> Operation:  # fmt: skip
    """An assertion that compares a tensor with 0."""
    with name_scope(name, op_name, [x, data]):
        x = convert_to_tensor(x, name="x")
        zero = convert_to_tensor(0, dtype=x.dtype.base_dtype, name="zero")
        shown = [
            message or "", f"Condition x {sign} 0 did not hold element-wise:", f"x ({x.name}) = ",
            x,
        ]  # fmt: skip
        return _checked(checks, (x, zero), shown, data, summarize)


def _checked(
    checks: Checks, operands: tuple[Tensor, Tensor], shown: list[Any], data: Data,
    summarize: int | None,
) -> Operation:  # fmt: skip
    """The assertion, decided at once where everything is known."""
    symbolic, plain = checks
    values = [constant_value(t) for t in operands]
    if all(v is not None for v in values):
        if plain(*values).all():
            return no_op("static_checks_determined_all_ok")
        known = dict(zip(operands, values, strict=True))
        lines = [
            str(known.get(line) if isinstance(line, Tensor) else line)
            for line in shown if not isinstance(line, str) or line
        ]  # fmt: skip
        raise InvalidArgumentError(None, None, "\n".join(lines))
    return Assert(math.reduce_all(symbolic(*operands)), data or shown, summarize)


def constant_value(tensor: Tensor) -> np.ndarray | None:
    """The value of a constant; None for anything else."""
    if tensor.op.type != "Const":
        return None
    value: np.ndarray = tensor.op.attrs["value"]
    return value
