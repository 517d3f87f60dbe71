"""Python functions as operations: py_func and numpy_function, as in TensorFlow 1.15."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.build import convert_to_tensor, create
from graphc.dtypes import as_dtype
from graphc.errors import GraphError
from graphc.graph import Operation, Tensor, get_default_graph
from graphc.ops.host import keep_function


def py_func(
    func: Callable[..., Any], inp: Sequence[Any], Tout: Any, stateful: bool = True,
    name: str | None = None,
) -> Any:  # fmt: skip
    """What a Python function of NumPy arrays gives, called in the course of every run.

    Args:
      func: takes an array (a NumPy scalar for rank 0) for each of ``inp``, which it may keep and
        change, and gives an array, a list of arrays, or None.
      inp: tensors, or what ``convert_to_tensor`` takes.
      Tout: the dtype of the result, or a list of those of the results.  The function must give
        exactly these: a Python float is a float64.
      stateful: False says that a second call with the same arrays would give the same and do no
        harm.
      name: a name for the operation.
    Returns:
      A tensor if ``Tout`` is a dtype; a list of tensors if it is a list; the operation if that is
      empty.  The shapes are unknown: ``set_shape`` states them, and must do so wherever another
      operation needs the rank.
    Raises:
      ValueError: ``func`` cannot be called.
    """
    if not callable(func):
        raise GraphError(f"Expected func to be callable, got func of type {type(func)}")
    several = isinstance(Tout, (list, tuple))
    types = tuple(as_dtype(t) for t in (Tout if several else (Tout,)))
    values = [convert_to_tensor(v) for v in inp]
    attrs = {"token": keep_function(get_default_graph(), func), "Tout": types}
    op = create("PyFunc" if stateful else "PyFuncStateless", [values], attrs, name)
    if several:
        return list(op.outputs) if op.outputs else op
    return op.outputs[0]


def numpy_function(
    func: Callable[..., Any], inp: Sequence[Any], Tout: Any, name: str | None = None
) -> Any:
    """:func:`py_func` of a function that may have an effect."""
    result: Tensor | list[Tensor] | Operation = py_func(func, inp, Tout, stateful=True, name=name)
    return result
