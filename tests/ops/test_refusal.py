"""The registry refuses an op class that leaves something out, and says what."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np
import pytest

from graphc import dtypes
from graphc.errors import CompileError, DTypeError, GraphError
from graphc.graph import Graph, TensorType
from graphc.op import REGISTRY, ElementOp, Op, Sample, register
from graphc.ops.array import placeholder
from graphc.ops.base import call


def complete() -> dict[str, Any]:
    """The members of an op class that lacks nothing."""
    return {
        "__doc__": "Adds nothing.",
        "name": "CompleteForTest",
        "inputs": "x: T",
        "types": {"T": dtypes.FLOATS},
        "infer": lambda self, ctx: [TensorType(ctx.dtype(0), ctx.sizes(0))],
        "element": lambda self, ctx, index: ctx.operand(0, index),
        "gradient": lambda self, op, *grads: [grads[0]],
        "reference": lambda self, attrs, *inputs: inputs[0],
        "samples": lambda self: [Sample((np.zeros(2),))],
    }


def test_a_complete_op_is_taken():
    try:
        register(type("Complete", (ElementOp,), complete()))
        assert REGISTRY["CompleteForTest"].doc == "Adds nothing."
    finally:
        REGISTRY.pop("CompleteForTest", None)


@pytest.mark.parametrize(
    ("member", "word"),
    [
        ("__doc__", "docstring"),
        ("name", "name of its own"),
        ("infer", "infer"),
        ("element", "element"),
        ("gradient", "gradient"),
        ("reference", "reference"),
        ("samples", "samples"),
    ],
)
def test_an_incomplete_op_is_refused(member: str, word: str):
    members = complete()
    del members[member]
    with pytest.raises(CompileError, match=word):
        register(type("Incomplete", (ElementOp,), members))
    assert "CompleteForTest" not in REGISTRY


def test_a_second_op_of_one_name_is_refused():
    with pytest.raises(CompileError, match="name of its own"):
        register(type("Again", (ElementOp,), {**complete(), "name": "Add"}))


def test_an_op_without_a_family_is_refused():
    with pytest.raises(CompileError, match="family"):
        register(type("Stray", (Op,), complete()))


def test_every_op_is_documented():
    bare = [op.name for op in REGISTRY.values() if not re.match(r"\S.*\S", op.doc)]
    assert not bare


class _Probe:
    attrs: ClassVar[dict[str, Any]] = {"alpha": 0.1, "beta": 2}


def test_operands_of_a_wrong_type_are_refused():
    with Graph().as_default():
        ints, floats = placeholder("int32", [2]), placeholder("float32", [2])
        with pytest.raises(DTypeError, match="'x' has DataType int32 not in list of allowed"):
            call("Exp", ints)
        with pytest.raises(DTypeError, match="does not match type int32 of argument 'x'"):
            call("Add", ints, floats)
        with pytest.raises(DTypeError, match="Expected int32"):
            call("Add", ints, 1.5)
        with pytest.raises(GraphError, match="no attribute"):
            call("LeakyRelu", floats, **_Probe.attrs)
