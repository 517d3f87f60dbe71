"""Ops on variables: the handle, assignments, whether it is initialized.

A variable's handle is the output of ``VariableV2``, a tensor of a reference type.  The compiler's
``state`` pass (:mod:`graphc.passes.extract`) turns handles and assignments into plain values: a
read becomes an input or an assigned tensor, the last assignment becomes an update.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from graphc import dtypes
from graphc.dtypes import DType
from graphc.graph import Operation, Tensor, TensorType
from graphc.op import Attr, Gradients, InferContext, Sample, SpecialOp, register
from graphc.ops.array import ANY
from graphc.shapes import TensorShape, shape_text


class _StateOp(SpecialOp):
    family = "state"
    pure = False
    differentiable = False

    def samples(self) -> Iterable[Sample]:
        """None: the tests of variables cover it."""
        return ()

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The interpreter keeps the state itself."""
        return inputs[-1]


@register
class VariableV2(_StateOp):
    """A variable's handle: the state lives in the Session.

    Attributes ``shape`` and ``dtype`` are the declared type; ``container`` and ``shared_name`` are
    kept for TensorFlow's files.
    """

    name = "VariableV2"
    attrs: ClassVar[dict[str, Attr]] = {
        "dtype": Attr("dtype"),
        "shape": Attr("shape", None),
        "container": Attr("str", ""),
        "shared_name": Attr("str", ""),
    }

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The declared type, as a reference."""
        return [TensorType(ctx.attrs["dtype"].as_ref, ctx.attrs["shape"])]


class _Assignment(_StateOp):
    inputs = "ref: Ref(T), value: T"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The variable's type; the value must have its shape."""
        ref, value = ctx.sizes(0), ctx.sizes(1)
        if not ctx.attrs.get("validate_shape", True):
            return [TensorType(ctx.inputs[0].dtype, value)]
        if ref is None or value is None:
            return [TensorType(ctx.inputs[0].dtype, ref)]
        if len(ref) != len(value):
            raise ctx.error(
                f"Shapes must be equal rank, but are {len(ref)} and {len(value)}"
            )
        for i, (a, b) in enumerate(zip(ref, value, strict=True)):
            shapes = f"Shapes are {shape_text(ref)} and {shape_text(value)}."
            if isinstance(a, int) and isinstance(b, int) and a != b:
                raise ctx.error(
                    f"Dimension {i} in both shapes must be equal, but are {a} and {b}. {shapes}"
                )
        return [TensorType(ctx.inputs[0].dtype, TensorShape(ref).merge_with(value).sizes)]


@register
class Assign(_Assignment):
    """Give the variable ``ref`` the value ``value``; the output is the variable, afterwards.

    With ``validate_shape=False`` the variable takes the value's shape.
    """

    name = "Assign"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": ANY}
    attrs: ClassVar[dict[str, Attr]] = {
        "validate_shape": Attr("bool", True),
        "use_locking": Attr("bool", True),
    }


@register
class AssignAdd(_Assignment):
    """Add ``value`` to the variable ``ref``; the output is the variable, afterwards."""

    name = "AssignAdd"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    attrs: ClassVar[dict[str, Attr]] = {"use_locking": Attr("bool", False)}


@register
class AssignSub(_Assignment):
    """Subtract ``value`` from the variable ``ref``; the output is the variable, afterwards."""

    name = "AssignSub"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"T": dtypes.NUMERIC}
    attrs: ClassVar[dict[str, Attr]] = {"use_locking": Attr("bool", False)}


@register
class IsVariableInitialized(_StateOp):
    """Whether the variable has been given a value before the run."""

    name = "IsVariableInitialized"
    inputs = "ref: Ref(dtype)"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"dtype": ANY}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A bool scalar."""
        return [TensorType(dtypes.bool_, ())]


@register
class InitializedValue(_StateOp):
    """The variable's value if it had one before the run, else ``initial_value``."""

    name = "InitializedValue"
    inputs = "ref: Ref(dtype), initial_value: dtype"
    types: ClassVar[dict[str, tuple[DType, ...]]] = {"dtype": ANY}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The variable's type."""
        return [TensorType(ctx.dtype(0), TensorShape(ctx.sizes(0)).merge_with(ctx.sizes(1)).sizes)]


@register
class ReportUninitialized(_StateOp):
    """The names of those of the handles ``refs`` that had no value before the run."""

    name = "ReportUninitialized"
    inputs = ""
    attrs: ClassVar[dict[str, Attr]] = {"variables": Attr("any", ())}

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A vector of strings."""
        return [TensorType(dtypes.string, TensorShape([None]).sizes)]


def assigned_variable(op: Operation) -> Operation:
    """The ``VariableV2`` operation that an assignment changes, however long the chain of refs."""
    source: Tensor = op.inputs[0]
    while source.op.type != "VariableV2":
        source = source.op.inputs[0]
    return source.op


def is_assignment(op: Operation) -> bool:
    """Whether the operation changes a variable."""
    return isinstance(op.definition, _Assignment)


__all__ = [
    "Assign", "AssignAdd", "AssignSub", "Gradients", "InitializedValue", "IsVariableInitialized",
    "VariableV2", "assigned_variable", "is_assignment",
]  # fmt: skip
