"""Python operators and public functions declare what TensorFlow 1.15 declares, by its names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc.ops.math as gm
from graphc import dtypes
from graphc.build import constant
from graphc.errors import DTypeError
from graphc.graph import Graph, Tensor
from graphc.interpret import interpret
from graphc.ops import elementwise_operators
from graphc.ops.array import placeholder
from graphc.ops.elementwise_operators import set_matmul
from graphc.ops.shaping_mask import where


def declared(build: Any) -> tuple[str, list[tuple[str, str]]]:
    """The result's name, and the name and type of what was declared but a, b and i."""
    graph = Graph()
    with graph.as_default():
        a = constant([1.0, 2.0], name="a")
        b = constant([2.0, 3.0], name="b")
        i = constant([5], name="i")
        out = build(a, b, i)
    ops = [(op.name, op.type) for op in graph.get_operations()]
    return out.name, [op for op in ops if op[0] not in "abi"]


# What TensorFlow 1.15.5 printed for the same lines.
NAMES: list[tuple[Any, str, list[tuple[str, str]]]] = [
    (lambda a, b, i: gm.add(a, b), "Add:0", [("Add", "Add")]),
    (lambda a, b, i: a + 1, "add:0", [("add/y", "Const"), ("add", "AddV2")]),
    (lambda a, b, i: 1 + a, "add:0", [("add/x", "Const"), ("add", "AddV2")]),
    (lambda a, b, i: 1 - a, "sub:0", [("sub/x", "Const"), ("sub", "Sub")]),
    (lambda a, b, i: a * 2, "mul:0", [("mul/y", "Const"), ("mul", "Mul")]),
    (lambda a, b, i: gm.multiply(a, 2), "Mul:0", [("Mul/y", "Const"), ("Mul", "Mul")]),
    (lambda a, b, i: a / b, "truediv:0", [("truediv", "RealDiv")]),
    (lambda a, b, i: 2 / a, "truediv:0", [("truediv/x", "Const"), ("truediv", "RealDiv")]),
    (
        lambda a, b, i: i / i,
        "truediv:0",
        [("truediv/Cast", "Cast"), ("truediv/Cast_1", "Cast"), ("truediv", "RealDiv")],
    ),
    (lambda a, b, i: gm.div(a, b), "div:0", [("div", "RealDiv")]),
    (lambda a, b, i: gm.divide(a, b), "truediv:0", [("truediv", "RealDiv")]),
    (lambda a, b, i: a // b, "floordiv:0", [("floordiv", "FloorDiv")]),
    (lambda a, b, i: a % b, "mod:0", [("mod", "FloorMod")]),
    (lambda a, b, i: gm.mod(a, b), "FloorMod:0", [("FloorMod", "FloorMod")]),
    (lambda a, b, i: a**2, "pow:0", [("pow/y", "Const"), ("pow", "Pow")]),
    (lambda a, b, i: gm.pow(a, 2), "Pow:0", [("Pow/y", "Const"), ("Pow", "Pow")]),
    (lambda a, b, i: -a, "Neg:0", [("Neg", "Neg")]),
    (lambda a, b, i: abs(a), "Abs:0", [("Abs", "Abs")]),
    (lambda a, b, i: a < 1, "Less:0", [("Less/y", "Const"), ("Less", "Less")]),
    (lambda a, b, i: gm.cast(a, "int32"), "Cast:0", [("Cast", "Cast")]),
    (lambda a, b, i: gm.to_bfloat16(i), "ToBFloat16:0", [("ToBFloat16", "Cast")]),
    (lambda a, b, i: gm.to_float(i), "ToFloat:0", [("ToFloat", "Cast")]),
    (lambda a, b, i: gm.cast(a, "float32"), "a:0", []),
    (lambda a, b, i: gm.reduce_sum(a), "Sum:0", [("Const", "Const"), ("Sum", "Sum")]),
    (
        lambda a, b, i: gm.reduce_mean(a, 0),
        "Mean:0",
        [("Mean/reduction_indices", "Const"), ("Mean", "Mean")],
    ),
    (
        lambda a, b, i: gm.argmax(a),
        "ArgMax:0",
        [("ArgMax/dimension", "Const"), ("ArgMax", "ArgMax")],
    ),
    (
        lambda a, b, i: gm.clip_by_value(a, 0, 1),
        "clip_by_value:0",
        [
            ("clip_by_value/Minimum/y", "Const"),
            ("clip_by_value/Minimum", "Minimum"),
            ("clip_by_value/y", "Const"),
            ("clip_by_value", "Maximum"),
        ],
    ),
    (
        lambda a, b, i: gm.log_sigmoid(a),
        "LogSigmoid:0",
        [("LogSigmoid/Neg", "Neg"), ("LogSigmoid/Softplus", "Softplus"), ("LogSigmoid", "Neg")],
    ),
    (
        lambda a, b, i: gm.norm(a),
        "norm/Squeeze:0",
        [
            ("norm/mul", "Mul"),
            ("norm/Const", "Const"),
            ("norm/Sum", "Sum"),
            ("norm/Sqrt", "Sqrt"),
            ("norm/Squeeze", "Squeeze"),
        ],
    ),
    (
        lambda a, b, i: gm.reduce_std(a),
        "reduce_std/Sqrt:0",
        [
            ("reduce_std/reduce_variance/Const", "Const"),
            ("reduce_std/reduce_variance/Mean", "Mean"),
            ("reduce_std/reduce_variance/sub", "Sub"),
            ("reduce_std/reduce_variance/Square", "Square"),
            ("reduce_std/reduce_variance/Const_1", "Const"),
            ("reduce_std/reduce_variance/Mean_1", "Mean"),
            ("reduce_std/Sqrt", "Sqrt"),
        ],
    ),
    (
        lambda a, b, i: gm.where(a > b, a, b),
        "Select:0",
        [("Greater", "Greater"), ("Select", "Select")],
    ),
    (
        lambda a, b, i: (a > b) ^ (b > a),
        "xor:0",
        [
            ("Greater", "Greater"),
            ("Greater_1", "Greater"),
            ("xor/LogicalOr", "LogicalOr"),
            ("xor/LogicalAnd", "LogicalAnd"),
            ("xor/LogicalNot", "LogicalNot"),
            ("xor", "LogicalAnd"),
        ],
    ),
    (
        lambda a, b, i: ~((a > b) & (b > a)),
        "LogicalNot:0",
        [
            ("Greater", "Greater"),
            ("Greater_1", "Greater"),
            ("and", "LogicalAnd"),
            ("LogicalNot", "LogicalNot"),
        ],
    ),
]


@pytest.mark.parametrize(("build", "name", "ops"), NAMES, ids=lambda v: v if type(v) is str else "")
def test_names(build: Any, name: str, ops: list[tuple[str, str]]):
    assert declared(build) == (name, ops)


def value(build: Any) -> Any:
    with Graph().as_default():
        return interpret([build()])[0].tolist()


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: constant(-7) // 2, -4),
        (lambda: constant(-7) % 3, 2),
        (lambda: constant(7) / 2, 3.5),
        (lambda: gm.div(-7, 2), -4),
        (lambda: gm.floordiv(-7, 2), -4),
        (lambda: gm.truediv(7, 2), 3.5),
        (lambda: gm.mod(-7.0, 3.0), 2.0),
        (lambda: gm.truncatediv(-7, 2), -3),
        (lambda: gm.round([0.5, 1.5, 2.5, -0.5]), [0.0, 2.0, 2.0, -0.0]),
        (lambda: gm.cast([1.9, -1.9], dtypes.int32), [1, -1]),
        (lambda: gm.cast([2.0, 0.0], dtypes.bool_), [True, False]),
        (lambda: gm.argmax([1, 3, 3]), 1),
        (lambda: gm.sign([-0.0, 2.0]), [0.0, 1.0]),
        (lambda: gm.squared_difference(1.0, 3.0), 4.0),
        (lambda: gm.where([True, False], [1, 2], [3, 4]), [1, 4]),
        (lambda: gm.where([True, False], [[1, 1], [2, 2]], [[3, 3], [4, 4]]), [[1, 1], [4, 4]]),
        (lambda: gm.where(True, [1, 2], [3, 4]), [1, 2]),
        (lambda: gm.reduce_mean([1, 2]), 1),
        (lambda: gm.reduce_mean([-1, -2]), -1),
        (lambda: gm.reduce_mean([[1.0, 2.0], [3.0, 4.0]], 0, keep_dims=True), [[2.0, 3.0]]),
        (lambda: gm.reduce_logsumexp([1.0, 2.0]), 2.3132617473602295),
        (lambda: gm.reduce_logsumexp([[1000.0, 1000.0]], 1, keepdims=True), [[1000.693115234375]]),
        (lambda: gm.norm([3.0, 4.0]), 5.0),
        (lambda: gm.norm([[3.0, -4.0], [1.0, 1.0]], 1, [0, 1]), 5.0),
        (lambda: gm.norm([[3.0, -4.0], [1.0, 1.0]], np.inf, [0, 1]), 7.0),
        (lambda: gm.norm([[3.0, -4.0]], 1, 1), [7.0]),
        (lambda: gm.norm([1.0, 2.0, 2.0], 3), 2.5712814331054688),
        (lambda: gm.count_nonzero([0.0, 1.0, 2.0]), 2),
        (lambda: gm.saturate_cast([300.0, -5.0], dtypes.uint8), [255, 0]),
        (lambda: gm.add_n([[1.0], [2.0], [3.0]]), [6.0]),
        (lambda: gm.accumulate_n([[1, 2], [3, 4]]), [4, 6]),
        (lambda: gm.scalar_mul(2, [1.0, 2.0]), [2.0, 4.0]),
        (lambda: gm.left_shift(1, 4), 16),
        (lambda: gm.div_no_nan(1.0, 0.0), 0.0),
        (lambda: constant([True, False]) ^ constant([True, True]), [False, True]),
        (lambda: constant([1.0]) + np.array([2.0]), [3.0]),
        (lambda: np.array([2.0]) - constant([1.0]), [1.0]),
        (lambda: 2 // constant([1.5]), [1.0]),
    ],
)
def test_values(build: Any, expected: Any):
    np.testing.assert_allclose(value(build), expected, rtol=2e-7)


def test_int_division_gives_floats_as_wide_as_numpy_has_them():
    with Graph().as_default():
        assert (constant(7) / 2).dtype is dtypes.float64
        assert (placeholder("int8") / placeholder("int8")).dtype is dtypes.float32


def test_wrong_operands():
    with Graph().as_default():
        a = constant([1.0])
        with pytest.raises(TypeError):
            a + "x"
        with pytest.raises(TypeError):
            constant([1]) + 1.5
        with pytest.raises(DTypeError, match="must have the same dtype"):
            a / constant([1])
        with pytest.raises(ValueError, match="both"):
            where([True], x=[1])
        with pytest.raises(ValueError, match="Cannot specify both 'axis' and 'reduction_indices'"):
            gm.reduce_sum(a, 0, reduction_indices=0)
        with pytest.raises(ValueError, match="Only scalar multiply works"):
            gm.scalar_mul([1.0, 2.0], a)
        with pytest.raises(ValueError, match=r"rank|Dimension"):
            gm.clip_by_value(a, [0.0, 0.0], 1.0)
        with pytest.raises(ValueError, match="same dtype and shape"):
            gm.add_n([])
        with pytest.raises(ValueError, match="vector norm"):
            gm.norm(a, -1)


class Partner:
    """Something that knows how to work with tensors."""

    def __radd__(self, other: Any) -> str:
        return "mine"


def test_an_operand_that_knows_tensors_is_asked():
    with Graph().as_default():
        assert constant([1.0]) + Partner() == "mine"


def test_matmul_is_late_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(elementwise_operators, "_MATMUL", [])
    seen: list[Any] = []

    def product(x: Tensor, y: Tensor, name: str) -> Tensor:
        seen.append(name)
        return x

    with Graph().as_default():
        a = constant([[1.0]])
        set_matmul(product)
        assert (a @ [[2.0]]) is a
    assert seen == ["matmul/"]


def test_reductions_of_unknown_rank():
    with Graph().as_default():
        x = placeholder("float32")
        assert str(gm.reduce_sum(x).shape) == "()"
        assert gm.reduce_sum(x, 0).shape.ndims is None
        assert gm.reduce_sum(x, 0, keepdims=True).shape.ndims is None
        total = gm.reduce_sum(x)
        assert interpret([total], {x: np.ones((2, 3))})[0] == 6.0
        y = placeholder("float32", [None, 3])
        assert gm.reduce_sum(y, 0).shape.as_list() == [3]
        assert gm.reduce_sum(y, [1], keepdims=True).shape.as_list() == [None, 1]
        axis = placeholder("int32", [1])
        assert gm.reduce_sum(y, axis).shape.ndims is None
        assert gm.reduce_sum(y, axis, keepdims=True).shape.as_list() == [None, None]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (2, "Invalid reduction dimension 2 for input with 2 dimensions"),
        (-3, "Invalid reduction dimension -3"),
        ([0, 0], "duplicate dimension: 0"),
        ([0, -2], "duplicate dimension: 0"),
        ([[0]], "scalar or a vector"),
    ],
)
def test_wrong_axes(axes: Any, message: str):
    with Graph().as_default(), pytest.raises(ValueError, match=message):
        gm.reduce_sum(constant([[1.0, 2.0]]), axes)


def test_argmax_of_a_wrong_axis():
    with Graph().as_default(), pytest.raises(ValueError, match=r"must be in the range \[-1, 1\)"):
        gm.argmax(constant([1.0]), 1)
