"""The registry: every op class once, complete or refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dtypes import DType
from graphc.errors import CompileError, DTypeError
from graphc.graph import Operation, Tensor
from graphc.op.definition import (
    Arg,
    CompositeOp,
    ContractionOp,
    ElementOp,
    Op,
    ReductionOp,
    SpecialOp,
    TemplateOp,
)

REGISTRY: dict[str, Op] = {}

_ARG = re.compile(r"^\s*(\w+)\s*:\s*(N\*)?(Ref\()?([\w|]+)\)?\s*$")


def _parse_args(cls: type[Op]) -> tuple[Arg, ...]:
    args = []
    for part in filter(None, (p.strip() for p in cls.inputs.split(","))):
        match = _ARG.match(part)
        if match is None:
            raise CompileError(f"op {cls.name}: operand {part!r} is not 'name: type'")
        name, variadic, ref, kind = match.groups()
        if kind in cls.types:
            arg = Arg(name, kind, cls.types[kind], bool(variadic), bool(ref))
        else:
            types = tuple(dtypes.as_dtype(t) for t in kind.split("|"))
            arg = Arg(name, None, types, bool(variadic), bool(ref))
        args.append(arg)
    return tuple(args)


def register(cls: type[Op]) -> type[Op]:
    """Class decorator: check that the op is complete and add it to the registry.

    Raises:
      CompileError: naming everything that the class leaves out.
    """
    missing = []
    if not cls.name or cls.name in REGISTRY:
        missing.append(f"a name of its own ({cls.name!r})")
    if not (cls.__doc__ or "").strip() or cls.__doc__ == cls.__base__.__doc__:
        missing.append("a docstring")
    needed = ["infer", "reference", "samples"]
    if cls.differentiable:
        needed.append("gradient")
    for base, method in (
        (ElementOp, "element"), (ReductionOp, "reduction"), (CompositeOp, "decompose"),
        (ContractionOp, "contraction"),
    ):  # fmt: skip
        if issubclass(cls, base):
            needed.append(method)
            if getattr(cls, method) is getattr(base, method):
                missing.append(method)
    missing += [m for m in needed if getattr(cls, m, None) is getattr(Op, m, None)]
    if issubclass(cls, TemplateOp) and not cls.template:
        missing.append("template")
    if not issubclass(cls, (ElementOp, ReductionOp, CompositeOp, TemplateOp, SpecialOp)):
        missing.append("a family (ElementOp, ReductionOp, TemplateOp, CompositeOp)")
    if missing:
        raise CompileError(f"op class {cls.__name__} lacks: {', '.join(dict.fromkeys(missing))}")
    cls.args = _parse_args(cls)
    REGISTRY[cls.name] = cls()
    return cls


def get_op(name: str) -> Op:
    """The registered op of that name.

    Raises:
      CompileError: when there is none.
    """
    try:
        return REGISTRY[name]
    except KeyError:
        raise CompileError(f"there is no op named {name!r}") from None


def bind_args(definition: Op, inputs: Sequence[Tensor]) -> list[tuple[Arg, Sequence[Tensor]]]:
    """Each declared operand with the tensors given for it."""
    return definition.bind(inputs)


def check_dtype(definition: Op, arg: Arg, dtype: DType) -> None:
    """Raise a DTypeError unless the operand admits the dtype."""
    if dtype.base_dtype not in arg.types:
        allowed = ", ".join(t.name for t in arg.types)
        raise DTypeError(
            f"Value passed to parameter '{arg.name}' has DataType {dtype.base_dtype.name} not in "
            f"list of allowed values: {allowed} (op: '{definition.name}')"
        )


def evaluate_reference(op: Operation, inputs: Sequence[Any]) -> tuple[np.ndarray, ...]:
    """The outputs of one operation by its NumPy reference, in the declared dtypes."""
    definition = op.definition
    with np.errstate(all="ignore"):
        result = definition.reference(op.attrs, *inputs)
    values = result if isinstance(result, tuple) else (result,)
    return tuple(
        dtypes.converted(v, t.dtype.base_dtype)
        for v, t in zip(values, op.outputs, strict=True)
    )
