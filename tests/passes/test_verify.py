"""The graph verifier: what compiles passes, and every planted mistake is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import dims, dtypes
from graphc.dims import Dim, Symbol
from graphc.errors import VerifyError
from graphc.function import Function, Guard, Input, Late, Output
from graphc.graph import Graph, Operation, Tensor, TensorType
from graphc.op import get_op
from graphc.passes.extract import VariableState, extract
from graphc.passes.pipeline import default_pipeline
from graphc.passes.verify import verify_function

S0 = Dim.symbol("s0")


def state(op: Operation) -> VariableState:
    return VariableState(op.outputs[0].dtype.base_dtype, tuple(op.outputs[0].shape.as_list()), True)


def trained() -> Function:
    """A training step of a small network, for any batch."""
    with gc.Graph().as_default():
        x = gc.placeholder(gc.float32, [None, 3], name="x")
        t = gc.placeholder(gc.float32, [None, 2], name="t")
        w = gc.Variable(np.ones((3, 2), np.float32), name="w")
        loss = gc.reduce_mean(gc.square(gc.tanh(gc.matmul(x, w)) - t), name="loss")
        step = gc.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
        return extract([loss], [step], {x: (None, 3), t: (None, 2)}, state)


@pytest.fixture
def fn() -> Function:
    return trained()


def test_every_pass_keeps_the_rules(fn):
    assert verify_function(fn) is fn
    for p in default_pipeline():
        fn = verify_function(p.run(fn))


def test_assumptions_are_part_of_the_rules():
    with gc.Graph().as_default():
        x, y = (gc.placeholder(gc.float32, [None], name=n) for n in "xy")
        fn = extract([gc.add(x, y)], [], {x: (None,), y: (None,)}, state)
    assert [str(g) for g in fn.guards] == ["s0 == s1"]
    verify_function(fn)
    fn.guards.clear()
    fn.env.binding.clear()
    with pytest.raises(VerifyError, match="s0"):
        verify_function(fn)


def find(fn: Function, type_: str) -> Operation:
    return next(op for op in fn.operations if op.type == type_)


def retype(tensor: Tensor, dtype: Any, sizes: Any) -> None:
    tensor._type = TensorType(dtype, sizes)


def shape_of(type_: str, sizes: Any, dtype: Any = dtypes.float32) -> Callable[[Function], None]:
    return lambda fn: retype(find(fn, type_).outputs[0], dtype, sizes)


def add(fn: Function, type_: str, inputs: Any, attrs: Any, types: Any, name: str = "new") -> Any:
    return fn.graph.add_operation(get_op(type_), inputs, attrs, types, name)


def backwards(fn: Function) -> None:
    op = find(fn, "Tanh")
    op.inputs = (fn.operations[-1].outputs[0],)


def stranger(fn: Function) -> None:
    find(fn, "Tanh").inputs = find(trained(), "Tanh").inputs


def one_name(fn: Function) -> None:
    find(fn, "Tanh")._name = find(fn, "MatMul").name


def twice(fn: Function) -> None:
    fn.graph._ops["another"] = find(fn, "Tanh")


def effect(fn: Function) -> None:
    attrs = {"dtype": dtypes.float32, "seed": 1, "seed2": 2}
    shape = add(fn, "Const", [], {"value": np.array([2], np.int32)},
                [TensorType(dtypes.int32, (1,))], "shape").outputs[0]  # fmt: skip
    add(fn, "RandomUniform", [shape], attrs, [TensorType(dtypes.float32, (2,))])


def special(fn: Function) -> None:
    add(fn, "NoOp", [], {}, [])


def placeholder(fn: Function) -> None:
    attrs = {"dtype": dtypes.float32, "shape": (2,)}
    add(fn, "Placeholder", [], attrs, [TensorType(dtypes.float32, (2,))])


def mixed(fn: Function) -> None:
    one = add(fn, "Const", [], {"value": np.array(1)}, [TensorType(dtypes.int64, ())], "one")
    loss = fn.outputs[0].tensor
    add(fn, "AddV2", [loss, one.outputs[0]], {}, [TensorType(dtypes.float32, ())])


def contradiction(fn: Function) -> None:
    x = fn.inputs[0].tensor
    w = next(i.tensor for i in fn.inputs if i.key == "w")
    add(fn, "AddV2", [x, w], {}, [x.type])


def replace_input(fn: Function, at: int, **changes: Any) -> None:
    old = fn.inputs[at]
    fields = {k: getattr(old, k) for k in ("kind", "tensor", "source", "key", "raw")}
    fn.inputs[at] = Input(**(fields | changes))


def replace_output(fn: Function, at: int, **changes: Any) -> None:
    old = fn.outputs[at]
    fields = {k: getattr(old, k) for k in ("kind", "tensor", "source", "key")}
    fn.outputs[at] = Output(**(fields | changes))


def update_number(fn: Function, key: str) -> int:
    return next(k for k, o in enumerate(fn.outputs) if o.key == key)


MISTAKES: dict[str, tuple[Callable[[Function], Any], str]] = {
    "backwards": (backwards, "is made by later"),
    "stranger": (stranger, "is made by no operation of this graph"),
    "name": (one_name, "its name or its graph is not its own"),
    "twice": (twice, "it stands twice"),
    "effect": (effect, "no such op: it is state or control"),
    "special": (special, "no such op: it is state or control"),
    "placeholder": (placeholder, "a placeholder that is no input"),
    "rank": (shape_of("Tanh", (S0,)), r"output 0 is f32\[s0\], inference says f32\[s\d, 2\]"),
    "size": (shape_of("Tanh", (S0, 3)), r"output 0 is f32\[s0, 3\], inference says"),
    "dtype": (shape_of("Tanh", (S0, 2), dtypes.float64), r"is f64\[s0, 2\], inference says f32"),
    "unknown rank": (shape_of("Tanh", None), r"f32\[\*\]: a compiled graph knows every rank"),
    "negative": (shape_of("Tanh", (-1, 2)), "a negative size"),
    "unbound": (shape_of("Tanh", (dims.fresh(), 2)), r"no input binds d\d+"),
    "reference": (shape_of("Tanh", (S0, 2), dtypes.float32.as_ref), "a reference"),
    "mixed": (mixed, "the operands of T are"),
    "contradiction": (contradiction, r"inference needs s\d == 3, which no guard states"),
    "attributes": (lambda fn: find(fn, "MatMul").attrs.pop("transpose_a"), "transpose_a"),
    "operands": (lambda fn: setattr(find(fn, "Tanh"), "inputs", ()), "0 operands, expected 1"),
    "control": (
        lambda fn: setattr(find(fn, "Tanh"), "_control_inputs", (fn.operations[0],)), "control"
    ),
    "definition": (
        lambda fn: setattr(find(fn, "Tanh"), "definition", type(get_op("Tanh"))()),
        "not in the registry",
    ),
    "input": (lambda fn: replace_input(fn, 0, tensor=fn.outputs[0].tensor), "is no placeholder"),
    "input twice": (lambda fn: fn.inputs.append(fn.inputs[0]), "stands twice"),
    "raw rank": (lambda fn: replace_input(fn, 0, raw=(S0,)), "is bound from sizes"),
    "raw size": (lambda fn: replace_input(fn, 0, raw=(S0, 4)), "is bound from 4, it has 3"),
    "raw sum": (lambda fn: replace_input(fn, 0, raw=(S0 + 1, 3)), "is bound from 1|no symbol|s0"),
    "output": (
        lambda fn: replace_output(fn, 0, tensor=trained().outputs[0].tensor), "not of this graph"
    ),
    "two updates": (
        lambda fn: fn.outputs.append(fn.outputs[update_number(fn, "w")]), "gets two values"
    ),
    "update of nothing": (
        lambda fn: replace_output(fn, update_number(fn, "w"), key="v"), "v is no input"
    ),
    "update of another shape": (
        lambda fn: replace_output(fn, update_number(fn, "w"), tensor=fn.outputs[0].tensor),
        r"the update of w is f32\[\], the variable f32\[3, 2\]",
    ),
    "guard": (lambda fn: fn.guards.append(Guard(dims.fresh(), 3)), "guard .*no input binds"),
    "guard of numbers": (lambda fn: fn.guards.append(Guard(2, 3)), "between numbers"),
    "late": (
        lambda fn: fn.late.append(Late(Symbol("v"), fn.outputs[0].tensor, 0, None)),
        "no integer element",
    ),
}


@pytest.mark.parametrize(("plant", "match"), MISTAKES.values(), ids=MISTAKES)
def test_planted_mistakes_are_found(plant, match, fn):
    verify_function(fn)
    plant(fn)
    with pytest.raises(VerifyError, match=match):
        verify_function(fn)


def test_the_message_shows_the_place(fn):
    op = find(fn, "Tanh")
    retype(op.outputs[0], dtypes.float32, (S0, 7))
    with pytest.raises(VerifyError) as error:
        verify_function(fn)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("operation 'Tanh' (Tanh): output 0 is f32[s0, 7]")
    at = next(k for k, line in enumerate(lines) if line.startswith("  ^ output 0 is"))
    assert lines[at - 1].startswith("  %Tanh = Tanh(%MatMul)")
    assert any("%MatMul" in line for line in lines[1 : at - 1])


def test_a_function_for_one_op_of_a_graph_of_its_own():
    graph = Graph()
    type_ = TensorType(dtypes.float32, (2,))
    attrs = {"dtype": dtypes.float32, "shape": (2,)}
    x = graph.add_operation(get_op("Placeholder"), (), attrs, [type_], "x").outputs[0]
    y = graph.add_operation(get_op("Tanh"), [x], {}, [type_], "y").outputs[0]
    fn = Function(graph, [Input("feed", x, x, "x:0", (2,))], [Output("fetch", y, y, "y:0")])
    verify_function(fn)
