"""Gradients of the user's own: custom_gradient, RegisterGradient, no_gradient."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from graphc import nest
from graphc.backward import GRADIENTS
from graphc.build import convert_to_tensor, create, single
from graphc.errors import DTypeError, GraphcError, GraphError
from graphc.graph import Operation, Tensor
from graphc.op import REGISTRY
from graphc.variables import Variable
from graphc.variables.guard import variables_by_op


class DuplicateGradientError(GraphcError, KeyError):
    """A second gradient is registered under one name."""


class RegisterGradient:
    """A decorator that registers a gradient: for an op that has none, or under a name of its own.

    The function takes the operation and the gradient of each of its outputs, and gives one for
    each of its inputs (None where there is none).  ``Graph.gradient_override_map`` says which
    operations have a gradient that is registered under another name than their type.

    Args:
      op_type: the type of an op, or a name.
    Raises:
      TypeError: a name that is no string. KeyError: one that has a gradient already.
    """

    def __init__(self, op_type: str) -> None:
        if not isinstance(op_type, str):
            raise DTypeError("op_type must be a string")
        self.op_type = op_type

    def __call__(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Register ``f``; the function itself."""
        op = REGISTRY.get(self.op_type)
        if self.op_type in GRADIENTS or (op is not None and op.differentiable):
            raise DuplicateGradientError(
                f"Registering two gradient with name '{self.op_type}'!"
            )
        GRADIENTS[self.op_type] = f
        return f


def no_gradient(op_type: str) -> None:
    """Say that an op has no derivative: operations of that type pass no gradient on.

    Raises:
      TypeError: a name that is no string.
    """
    if not isinstance(op_type, str):
        raise DTypeError("op_type must be a string")
    GRADIENTS[op_type] = _nothing


def _nothing(op: Operation, *grads: Tensor) -> list[None]:
    del grads
    return [None] * len(op.inputs)


def custom_gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: a function of tensors that says its gradient itself.

    ``f(*args)`` gives ``(y, grad_fn)``: ``y`` is a tensor or a nested structure of tensors,
    ``grad_fn(*dy)`` takes the gradient of each of them and gives one for each of ``args``.  Where
    ``f`` uses variables, ``grad_fn`` must take them as the keyword ``variables``, and give a pair:
    the gradients of ``args`` and those of the variables.

    Gradients of gradients are those of what ``grad_fn`` declares.
    """

    @functools.wraps(f)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            raise GraphError(
                "The custom_gradient decorator currently supports keywords arguments only when "
                "eager execution is enabled."
            )
        given = [single(create("Identity", [convert_to_tensor(a)])) for a in args]
        result, grad_fn = f(*given)
        leaves = [convert_to_tensor(t) for t in nest.flatten(result)]
        variables = _variables_between(leaves, given)
        _check_takes_variables(grad_fn, variables)
        handles = [v._ref() for v in variables]
        op = create("IdentityN", [[*leaves, *given, *handles]])
        op.gradient_rule = functools.partial(
            _input_gradients, grad_fn, len(leaves), len(given), variables
        )
        return nest.pack_sequence_as(result, op.outputs[: len(leaves)])

    return decorated


def _input_gradients(
    grad_fn: Callable[..., Any], results: int, count: int, variables: list[Variable],
    op: Operation, *grads: Tensor,
) -> list[Any]:  # fmt: skip
    """What the IdentityN behind a function gives: nothing for the results themselves."""
    if variables:
        answer, of_variables = grad_fn(*grads[:results], variables=variables)
    else:
        answer, of_variables = grad_fn(*grads[:results]), []
    found = nest.flatten(answer) if nest.is_nested(answer) else [answer]
    if len(found) != count or len(of_variables) != len(variables):
        raise GraphError(
            f"Num gradients {len(found) + len(of_variables)} generated for '{op.name}' do not "
            f"match num inputs {count + len(variables)}"
        )
    return [None] * results + found + list(of_variables)


def _check_takes_variables(grad_fn: Callable[..., Any], variables: list[Variable]) -> None:
    parameters = inspect.signature(grad_fn).parameters.values()
    takes = any(p.name == "variables" or p.kind is p.VAR_KEYWORD for p in parameters)
    if variables and not takes:
        raise DTypeError(
            "If using @custom_gradient with a function that uses variables, then grad_fn must "
            "accept a keyword argument 'variables'."
        )


def _variables_between(results: list[Tensor], args: list[Tensor]) -> list[Variable]:
    """The trainable variables that the results depend on otherwise than through the arguments."""
    found: dict[Operation, None] = {}
    seen = {t.op for t in args}
    stack = [t.op for t in results]
    while stack:
        op = stack.pop()
        if op in seen:
            continue
        seen.add(op)
        if op.type == "VariableV2":
            found[op] = None
        stack.extend(t.op for t in op.inputs)
    if not found:
        return []
    known = variables_by_op(results[0].graph)
    ordered = sorted(found, key=lambda op: op.serial)
    return [known[op] for op in ordered if op in known and known[op].trainable]
