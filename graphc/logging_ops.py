"""Print, print and Assert, as in TensorFlow 1.15."""

from __future__ import annotations

import pprint
import random
import sys
from collections.abc import Sequence
from typing import Any

from graphc import dtypes, logging, nest
from graphc.branches import cond
from graphc.build import convert_to_tensor, create, is_symbolic, single
from graphc.errors import DTypeError, GraphError
from graphc.graph import Operation, Tensor, name_scope
from graphc.ops.array import no_op

Inputs = Sequence[Any]


def Print(
    input_: Any,
    data: Inputs,
    message: str | None = None,
    first_n: int | None = None,
    summarize: int | None = None,
    name: str | None = None,
) -> Tensor:
    """``input_`` as it is; a run that needs it shows ``data`` on the standard error stream.

    Args:
      input_: a tensor.
      data: what to show: a list of tensors, strings, ...
      message: what comes first in the line.
      first_n: how many times to show it; None or a negative number for always.
      summarize: how many elements of each tensor to show, 3 by default; -1 for all.
      name: a name for the operation.
    """
    attrs = {
        "message": message or "",
        "first_n": -1 if first_n is None else first_n,
        "summarize": 3 if summarize is None else summarize,
    }
    values = [convert_to_tensor(d) for d in data]
    return single(create("Print", [convert_to_tensor(input_), values], attrs, name))


def print_(*inputs: Any, **kwargs: Any) -> Operation:
    """An operation that, when it is run, writes the inputs.

    Args:
      *inputs: tensors, other Python values, nested structures of them.
      output_stream: ``sys.stderr`` (the default), ``sys.stdout``, ``gc.logging.info``, ``warning``
        or ``error``, or ``"file://<path>"``.
      summarize: how many elements to show at the beginning and the end of every dimension, 3 by
        default; -1 for all.
      sep, end: what stands between the inputs, and behind the last.
      name: a name for the operation.
    Raises:
      ValueError: unknown arguments or streams.
    """
    stream = kwargs.pop("output_stream", sys.stderr)
    name = kwargs.pop("name", None)
    summarize = kwargs.pop("summarize", 3)
    sep, end = kwargs.pop("sep", " "), kwargs.pop("end", "\n")
    if kwargs:
        raise GraphError(f"Unrecognized keyword arguments for tf.print: {kwargs}")
    attrs = {
        "output_stream": _stream(stream),
        "end": "\n" if end is None else end,
        "summarize": 3 if summarize is None else summarize,
    }
    with name_scope(None, "print", []):
        tensors, template, placeholder = _template(inputs, sep)
    first = inputs[0] if len(inputs) == 1 else None
    # A single string is written as it is, without quotes.
    raw = isinstance(first, Tensor) and first.dtype is dtypes.string and first.sizes == ()
    attrs |= {"template": template, "placeholder": placeholder, "raw": raw}
    return create("PrintV2", [tensors], attrs, name)


def _template(inputs: Inputs, sep: str) -> tuple[list[Tensor], str, str]:
    """The tensors of a print, and the text with a placeholder for each."""
    plain = [
        nest.map_structure(lambda x: "" if is_symbolic(x) else x, i) if nest.is_nested(i)
        else "" if is_symbolic(i) else i
        for i in inputs
    ]  # fmt: skip
    text = " ".join(map(pprint.pformat, plain))
    placeholder = "{}"
    while placeholder in text:
        placeholder += random.choice("abcdefgh")
    tensors = []
    templates = []
    for value in inputs:
        if isinstance(value, str):
            templates.append(value)
            continue
        leaves: list[Any] = []
        for leaf in nest.flatten(value) if nest.is_nested(value) else [value]:
            if is_symbolic(leaf):
                tensors.append(convert_to_tensor(leaf))
                leaves.append(placeholder)
            else:
                leaves.append(leaf)
        packed = nest.pack_sequence_as(value, leaves) if nest.is_nested(value) else leaves[0]
        templates.append(pprint.pformat(packed))
    joined = sep.join(templates)
    return tensors, joined.replace(f"'{placeholder}'", placeholder), placeholder


def _stream(stream: Any) -> str:
    """The name of an output stream."""
    known = {
        id(sys.stdout): "stdout", id(sys.stderr): "stderr", id(logging.info): "log(info)",
        id(logging.warning): "log(warning)",
        id(logging.error): "log(error)",
    }  # fmt: skip
    if id(stream) in known:
        return known[id(stream)]
    if stream in (logging.INFO, logging.WARN, logging.ERROR):
        names = {logging.INFO: "info", logging.WARN: "warning", logging.ERROR: "error"}
        return f"log({names[stream]})"
    if isinstance(stream, str) and stream.startswith("file://"):
        return stream
    raise GraphError(
        f"Unsupported output stream, logging level, or file.{stream}. Supported streams are "
        "sys.stdout, sys.stderr, tf.logging.info, tf.logging.warning, tf.logging.error. File "
        "needs to be in the form of 'file://<filepath>'."
    )


def Assert(
    condition: Any, data: Inputs, summarize: int | None = None, name: str | None = None
) -> Operation:
    """An operation that fails, showing ``data``, when it is run and ``condition`` is false.

    Nothing depends on it by itself: run it, or declare what relies on it under
    ``control_dependencies``.  The condition is tested in native code.

    Args:
      condition: a bool scalar.
      data: what to show: a list of tensors, strings, ...
      summarize: how many elements of each tensor to show, 3 by default; -1 for all.
      name: the name scope, "Assert" by default.
    Raises:
      TypeError: ``data`` that is no list. ValueError: an empty list.
    """
    if not isinstance(data, (list, tuple)):
        raise DTypeError(f"Expected list for 'data' argument to 'Assert' Op, not {data}.")
    if not data:
        raise GraphError(
            "Attr 'T' of 'Assert' Op passed list of length 0 less than minimum 1."
        )
    with name_scope(name, "Assert", [condition, *data]):
        values = [convert_to_tensor(d) for d in data]
        test = convert_to_tensor(condition, name="Condition", preferred_dtype=dtypes.bool_)
        attrs = {"summarize": 3 if summarize is None else summarize}

        def fail() -> Operation:
            return create("Assert", [test, values], attrs)

        guard: Tensor = cond(test, no_op, fail, name="AssertGuard")
        return guard.op
