"""Optimizers: the names of what they declare, and their errors, as in TensorFlow 1.15."""

from __future__ import annotations

import pytest

import graphc as gc


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default() as g:
        yield g


# --- names --------------------------------------------------------------------------------------

NAMES = [
    (lambda: gc.train.GradientDescentOptimizer(0.1), "GradientDescent", [], []),
    (
        lambda: gc.train.AdamOptimizer(0.1),
        "Adam",
        ["Variable/Adam:0", "Variable/Adam_1:0", "beta1_power:0", "beta2_power:0"],
        ["m", "v"],
    ),
    (
        lambda: gc.train.MomentumOptimizer(0.1, 0.9),
        "Momentum",
        ["Variable/Momentum:0"],
        ["momentum"],
    ),
    (lambda: gc.train.AdagradOptimizer(0.1), "Adagrad", ["Variable/Adagrad:0"], ["accumulator"]),
    (
        lambda: gc.train.RMSPropOptimizer(0.1),
        "RMSProp",
        ["Variable/RMSProp:0", "Variable/RMSProp_1:0"],
        ["momentum", "rms"],
    ),
    (
        lambda: gc.train.AdadeltaOptimizer(0.1),
        "Adadelta",
        ["Variable/Adadelta:0", "Variable/Adadelta_1:0"],
        ["accum", "accum_update"],
    ),
    (
        lambda: gc.train.FtrlOptimizer(0.1),
        "Ftrl",
        ["Variable/Ftrl:0", "Variable/Ftrl_1:0"],
        ["accum", "linear"],
    ),
]


@pytest.mark.parametrize(("make", "name", "variables", "slots"), NAMES)
def test_names(graph, make, name, variables, slots):
    v = gc.Variable([1.0, -2.0])
    optimizer = make()
    step = optimizer.minimize(gc.reduce_sum(v * v))
    assert (step.name, step.type, optimizer.get_name()) == (name, "NoOp", name)
    assert [x.name for x in optimizer.variables()] == variables
    assert optimizer.get_slot_names() == slots
    assert gc.trainable_variables() == [v]
    assert gc.get_collection("train_op") == [step]
    assert graph.get_operation_by_name(f"{name}/update_Variable/Apply{name}") is not None
    again = optimizer.minimize(gc.reduce_sum(v * v))
    assert again.name == f"{name}_1"
    assert [x.name for x in optimizer.variables()] == variables


def test_the_operations_of_gradient_descent(graph):
    v = gc.Variable(1.0, name="w")
    before = len(graph.get_operations())
    gc.train.GradientDescentOptimizer(0.1).apply_gradients([(gc.constant(2.0), v)])
    assert [(op.name, op.type) for op in graph.get_operations()[before + 1 :]] == [
        ("GradientDescent/learning_rate", "Const"),
        ("GradientDescent/update_w/mul", "Mul"),
        ("GradientDescent/update_w/ApplyGradientDescent", "AssignSub"),
        ("GradientDescent", "NoOp"),
    ]


def test_slots_are_named_after_the_scope_around_and_the_variable():
    with gc.variable_scope("s"):
        v = gc.get_variable("w", [2], gc.float64)
        optimizer = gc.train.AdamOptimizer()
        step = optimizer.minimize(gc.reduce_sum(v * v))
    assert step.name == "s/Adam"
    assert optimizer.get_slot(v, "m").name == "s/s/w/Adam:0"
    assert optimizer.get_slot(v, "v").name == "s/s/w/Adam_1:0"
    assert optimizer.get_slot(v, "m").dtype == gc.float64.as_ref
    assert optimizer.get_slot(v, "other") is None
    assert not optimizer.get_slot(v, "m").trainable


# --- errors -------------------------------------------------------------------------------------


def test_a_loss_that_depends_on_no_variable():
    v = gc.Variable(1.0)
    optimizer = gc.train.GradientDescentOptimizer(0.1)
    loss = gc.constant(1.0)
    with pytest.raises(ValueError, match="No gradients provided for any variable") as caught:
        optimizer.minimize(loss, var_list=[v])
    assert str(caught.value) == (
        "No gradients provided for any variable, check your graph for ops that do not support "
        f"gradients, between variables [{str(v)!r}] and loss {loss}."
    )
    with pytest.raises(ValueError, match=r"No gradients provided for any variable: \["):
        optimizer.apply_gradients([(None, v)])


@pytest.mark.parametrize(
    ("act", "error", "text"),
    [
        (lambda o, v: o.minimize(gc.constant(1.0)), ValueError, "No variables to optimize."),
        (lambda o, v: o.apply_gradients([]), ValueError, "No variables provided."),
        (
            lambda o, v: o.minimize(gc.cast(v, gc.int32), var_list=[v]),
            ValueError,
            (
                "Invalid type tf.int32 for Cast:0, expected: "
                "[tf.bfloat16, tf.float16, tf.float32, tf.float64]."
            ),
        ),
        (
            lambda o, v: o.compute_gradients(v * v, [v], gate_gradients=7),
            ValueError,
            "gate_gradients must be one of: Optimizer.GATE_NONE, Optimizer.GATE_OP, ",
        ),
        (
            lambda o, v: o.compute_gradients(v * v, ["v"]),
            TypeError,
            "Trying to optimize unsupported type 'v'",
        ),
        (
            lambda o, v: o.apply_gradients([(gc.constant(1.0), v.value())]),
            TypeError,
            "Trying to update a Tensor",
        ),
        (lambda o, v: gc.train.AdamOptimizer(name=""), ValueError, "Must specify the optimizer"),
        (lambda o, v: gc.train.AdagradOptimizer(1.0, 0.0), ValueError, "initial_accumulator_value"),
        (
            lambda o, v: gc.train.FtrlOptimizer(0.1, learning_rate_power=0.5),
            ValueError,
            "learning_rate_power 0.500000 needs to be negative or zero",
        ),
        (
            lambda o, v: gc.train.FtrlOptimizer(0.1, l1_regularization_strength=-1.0),
            ValueError,
            "l1_regularization_strength -1.000000 needs to be positive or zero",
        ),
    ],
)
def test_errors(act, error, text):
    v = gc.Variable(1.0, trainable=False)
    with pytest.raises(error) as caught:
        act(gc.train.GradientDescentOptimizer(0.1), v)
    assert str(caught.value).startswith(text)
