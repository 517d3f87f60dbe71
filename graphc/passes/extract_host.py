"""Extraction of host steps: what Python computes becomes one operation with known ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dims import Dim, DimLike, Symbol
from graphc.errors import InvalidArgumentError
from graphc.graph import Operation, Tensor, TensorType
from graphc.op import InferContext
from graphc.ops.host import HostOp

VECTOR = dtypes.int64
"""The dtype of the sizes of what has no stated rank."""


def extract_host(extractor: Any, op: Operation) -> None:
    """Put a Host operation for the user's ``op`` into the extractor's function.

    Args:
      extractor: the :class:`~graphc.passes.extractor.Extractor`.
      op: an operation of a :class:`~graphc.ops.host.HostOp`.
    """
    definition = op.definition
    assert isinstance(definition, HostOp)
    env = extractor.env
    given = [extractor.operand(t, op) for t in op.inputs]
    strings = tuple(
        (k, text_value(op, t)) for k, t in enumerate(op.inputs) if is_text(t)
    )
    operands = [t for t, user in zip(given, op.inputs, strict=True) if not is_text(user)]
    shaped = [k for k, t in enumerate(operands) if t in env.flat]
    operands += [env.flat[operands[k]] for k in shaped]
    results = op.outputs[1:] if definition.passes else op.outputs
    ctx = InferContext(definition, op.name, given, op.attrs, env)
    inferred = list(definition.result_types(ctx))[len(op.outputs) - len(results) :]
    types = _Types(env)
    for out, (dtype, sizes) in zip(results, inferred, strict=True):
        if dtype is dtypes.string:
            raise InvalidArgumentError(
                op.node_def, op, f"{op.type} cannot give strings to a compiled run"
            )
        types.add(dtype, sizes, out)
    types.finish()
    attrs = {
        "source": op, "strings": strings, "types": tuple(types.types), "flat": tuple(types.flat),
        "symbols": tuple(types.symbols), "shaped": tuple(shaped),
    }  # fmt: skip
    made = extractor.emit("Host", op, operands, attrs).op
    if definition.passes:
        extractor.map[op.outputs[0]] = given[0]
    for out, new in zip(results, made.outputs, strict=False):
        extractor.map[out] = new
        env.user.setdefault(new, out)
    for k, number in enumerate(types.flat):
        env.flat[made.outputs[number]] = made.outputs[len(results) + k]


class _Types:
    """The types of the results, with symbols for what a run decides."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.types: list[TensorType] = []
        self.symbols: list[Symbol] = []
        self.flat: list[int] = []

    def new(self) -> Dim:
        """A size that the call decides."""
        size: Dim = self.env.new_symbol()
        symbol = size.as_symbol
        assert symbol is not None
        self.symbols.append(symbol)
        return size

    def add(self, dtype: Any, sizes: tuple[DimLike | None, ...] | None, user: Tensor) -> None:
        """One result, with what the user has stated of it."""
        stated = user.sizes
        if sizes is None and stated is None:
            self.flat.append(len(self.types))
            self.types.append(TensorType(dtype, (self.new(),)))
            return
        if sizes is None:
            assert stated is not None
            sizes = (None,) * len(stated)
        found: list[DimLike] = []
        for k, size in enumerate(sizes):
            mine = stated[k] if stated is not None and len(stated) == len(sizes) else None
            if size is None:
                size = mine if isinstance(mine, int) else self.new()
            found.append(self.env.canonical(size))
        self.types.append(TensorType(dtype, tuple(found)))

    def finish(self) -> None:
        """The sizes of results of unknown rank."""
        for _ in self.flat:
            self.types.append(TensorType(VECTOR, (self.new(),)))


def is_text(tensor: Tensor) -> bool:
    """Whether the elements are strings."""
    return tensor.dtype.base_dtype is dtypes.string


def text_value(op: Operation, tensor: Tensor) -> np.ndarray:
    """The value of an operand of strings, which must be a constant.

    Raises:
      InvalidArgumentError: it is none.
    """
    source = tensor.op
    while source.type in ("Identity", "StopGradient"):
        source = source.inputs[0].op
    if source.type != "Const":
        raise InvalidArgumentError(
            op.node_def, op,
            f"{tensor.name} is a string that is no constant: a run computes with numbers only",
        )  # fmt: skip
    value: np.ndarray = source.attrs["value"]
    return value


def needs_rank(op: Operation, tensor: Tensor) -> InvalidArgumentError:
    """The error of an operation over a tensor whose rank nobody has stated."""
    source = tensor.op
    return InvalidArgumentError(
        op.node_def, op,
        f"the rank of {tensor.name} ({source.type}, declared at {source.location}) is not known: "
        "state its shape by set_shape, with None for sizes that are not known",
    )  # fmt: skip


def not_beforehand(op: Operation, tensor: Tensor) -> InvalidArgumentError:
    """The error of an operation that needs a host step's result before the run."""
    return InvalidArgumentError(
        op.node_def, op,
        f"{tensor.name} must be known before the run (a rank or an axis depends on it), and comes "
        "from a Python function that may be called only once: declare it with stateful=False, or "
        "feed the value",
    )  # fmt: skip
