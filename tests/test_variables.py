"""Variables: names, reads, assignments, initialization; as TensorFlow 1.15 has them."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc


@pytest.fixture(autouse=True)
def graph():
    with gc.Graph().as_default() as g:
        yield g


@pytest.fixture
def run(graph):
    """Runs in one session; the variables are initialized by the test."""
    with gc.Session() as session:
        yield session.run


def op_names(graph):
    return [op.name for op in graph.get_operations()]


def initialized(run, *fetches):
    run(gc.global_variables_initializer())
    return run(list(fetches))


# --- names and types ----------------------------------------------------------------------------


def test_a_variable_is_four_operations_in_tensorflows_order(graph):
    gc.Variable(1.0)
    gc.Variable(np.zeros((2, 2), np.float32))
    assert [(op.name, op.type) for op in graph.get_operations()] == [
        ("Variable/initial_value", "Const"),
        ("Variable", "VariableV2"),
        ("Variable/Assign", "Assign"),
        ("Variable/read", "Identity"),
        ("Variable_1/initial_value", "Const"),
        ("Variable_1", "VariableV2"),
        ("Variable_1/Assign", "Assign"),
        ("Variable_1/read", "Identity"),
    ]


def test_the_initial_value_may_be_a_function(graph):
    v = gc.Variable(lambda: gc.zeros([3]), name="f")
    assert op_names(graph) == ["f/Initializer/zeros", "f", "f/Assign", "f/read"]
    assert v.initial_value.name == "f/Initializer/zeros:0"


def test_the_initial_value_of_a_function_is_converted(graph):
    v = gc.Variable(lambda: [1, 2], name="f", dtype="float64")
    assert op_names(graph)[0] == "f/Initializer/initial_value"
    assert v.dtype == gc.float64.as_ref


def test_attributes():
    v = gc.Variable([[1.0, 2.0]], name="v")
    assert repr(v) == "<tf.Variable 'v:0' shape=(1, 2) dtype=float32_ref>"
    assert (v.name, v.op.name, v.op.type) == ("v:0", "v", "VariableV2")
    assert (v.value().name, v._ref().name) == ("v/read:0", "v:0")
    assert v.initial_value.name == "v/initial_value:0"
    assert v.initializer.name == "v/Assign"
    assert v.value() is v.value()
    assert v.dtype.name == "float32_ref"
    assert v.shape.as_list() == v.get_shape().as_list() == [1, 2]
    assert v.trainable is True
    assert v.graph is gc.get_default_graph()


def test_a_variable_takes_the_name_scope_and_unique_names():
    with gc.name_scope("s"):
        assert gc.Variable(1.0, name="v").name == "s/v:0"
        assert gc.Variable(1.0, name="v").name == "s/v_1:0"


def test_device_is_recorded_and_the_read_may_have_its_own():
    with gc.device("/cpu:0"):
        v = gc.Variable(1.0, caching_device="/gpu:0")
    assert (v.device, v.value().device) == ("/device:CPU:0", "/device:GPU:0")


def test_control_dependencies_around_it_do_not_hold_for_a_variable():
    first = gc.Variable(1.0)
    with gc.control_dependencies([first.assign(2.0)]):
        v = gc.Variable(3.0)
    assert v.value().op.control_inputs == []
    assert v.initializer.control_inputs == []


def test_identity_decides_equality():
    v, w = gc.Variable(1.0), gc.Variable(1.0)
    assert v == v
    assert v != w
    assert {v: 1, w: 2}[w] == 2


def test_it_cannot_be_iterated():
    with pytest.raises(TypeError, match="'Variable' object is not iterable"):
        list(gc.Variable([1.0, 2.0]))


def test_set_shape_holds_for_the_handle_and_the_read():
    v = gc.Variable(gc.placeholder(gc.float32), validate_shape=False)
    assert v.shape.ndims is None
    v.set_shape([None, 2])
    assert v.shape.as_list() == v.value().shape.as_list() == [None, 2]


# --- arguments ----------------------------------------------------------------------------------


def test_collections():
    v = gc.Variable(1.0)
    gc.Variable(1, trainable=False)
    local = gc.Variable(1.0, collections=[gc.GraphKeys.LOCAL_VARIABLES], trainable=False)
    assert [x.name for x in gc.global_variables()] == ["Variable:0", "Variable_1:0"]
    assert gc.trainable_variables() == [v]
    assert gc.local_variables() == [local]
    assert gc.model_variables() == gc.moving_average_variables() == []
    assert gc.all_variables() == gc.global_variables()
    assert gc.global_variables("Variable_") == [gc.global_variables()[1]]


def test_integers_are_trainable_too_unless_told_otherwise():
    assert gc.Variable(1) in gc.trainable_variables()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (gc.Variable, ValueError, "initial_value must be specified."),
        (
            lambda: gc.Variable(gc.placeholder(gc.float32, [None])),
            ValueError,
            "initial_value must have a shape specified: Tensor(",
        ),
        (
            lambda: gc.Variable(1.0, collections="variables"),
            ValueError,
            "collections argument to Variable constructor must be a list, tuple, or set. Got",
        ),
        (
            lambda: gc.Variable(1.0, constraint=3),
            ValueError,
            "The `constraint` argument must be a callable.",
        ),
        (lambda: gc.assign(gc.constant(1.0), 2.0), TypeError, "Assign changes a Variable"),
        (
            lambda: gc.convert_to_tensor(gc.Variable(1.0), gc.int32),
            ValueError,
            "Incompatible type conversion requested to type 'int32' for variable of type",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value).startswith(message)


def test_an_assignment_of_another_shape_is_refused():
    v = gc.Variable(1.0, name="u")
    with pytest.raises(ValueError, match="Shapes must be equal rank") as caught:
        v.assign([1.0, 2.0])
    assert str(caught.value) == (
        "Shapes must be equal rank, but are 0 and 1 for 'Assign' (op: 'Assign') with input shapes: "
        "[], [2]."
    )


# --- values -------------------------------------------------------------------------------------


def test_assignments_return_the_new_value(run):
    v = gc.Variable(2.0, name="u")
    run(v.initializer)
    assert run(v.assign(5.0)) == 5.0
    assert run(gc.assign_add(v, 1)) == 6.0
    assert run(v.assign_sub(2)) == 4.0
    assert run(gc.assign_sub(v, 1)) == 3.0
    assert run(v) == 3.0


def test_the_names_of_assignments():
    v = gc.Variable(2.0)
    changed = v.assign(1.0)
    assert (type(changed), changed.name, changed.op.type) == (gc.Tensor, "Assign:0", "Assign")
    assert v.assign(1.0).name == "Assign_1:0"
    assert v.assign_add(1.0, name="more").name == "more:0"
    operation = v.assign(1.0, read_value=False)
    assert (type(operation), operation.type) == (gc.Operation, "Assign")
    assert gc.assign(changed, 3.0).op.inputs[0] is changed


def test_another_shape_where_it_is_allowed(run):
    v = gc.Variable(2.0, validate_shape=False)
    run(v.initializer)
    assert run(gc.assign(v, [[9.0]], validate_shape=False)).shape == (1, 1)


def test_reads_see_the_assignments_before_them(run):
    v = gc.Variable(2.0)
    with gc.control_dependencies([v.assign_add(10.0)]):
        read, again, sum_ = v.read_value(), gc.identity(v), v + 0
    run(v.initializer)
    assert run(read) == 12.0
    assert run(again) == 22.0
    assert run(sum_) == 32.0
    assert run(v) == 32.0
    assert run(v.value()) == 32.0


def test_operators_are_those_of_the_read(run):
    v = gc.Variable([1.0, 2.0, 3.0])
    three = np.array([3.0, 3.0, 3.0], np.float32)
    fetches = [v + 1, 1 - v, v * v, 6.0 / v, v**2, -v, abs(-v), v > 1.5, v[1:], three - v]
    got = initialized(run, *fetches)
    x = np.array([1.0, 2.0, 3.0])
    wanted = [x + 1, 1 - x, x * x, 6 / x, x**2, -x, x, x > 1.5, x[1:], 3 - x]
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b)
    assert (v + 1).op.inputs[0] is v.value()


def test_initial_values_that_use_other_variables(run):
    a = gc.Variable(2.0, name="a")
    b = gc.Variable(a * 3.0, name="b")
    c = gc.Variable(b.initialized_value() + a, name="c")
    assert initialized(run, a, b, c) == [2.0, 6.0, 8.0]


def test_an_initialized_variable_gives_its_value_not_its_initial_value(run):
    a = gc.Variable(2.0)
    start = a.initialized_value()
    assert run(start) == 2.0
    run(a.initializer)
    run(a.assign(7.0))
    assert run(start) == 7.0


def test_uninitialized_variables(run):
    v = gc.Variable(2.0, name="u")
    w = gc.Variable(1, name="w")
    report, flag = gc.report_uninitialized_variables(), gc.is_variable_initialized(v)
    for fetch in (v, v + 1):
        with pytest.raises(gc.errors.FailedPreconditionError) as caught:
            run(fetch)
        assert str(caught.value).startswith("Attempting to use uninitialized value u")
        assert caught.value.op is v.op
    assert run(report).tolist() == [b"u", b"w"]
    assert not run(flag)
    run(v.initializer)
    assert run(report).tolist() == [b"w"]
    assert run(flag)
    run(gc.variables_initializer([w]))
    assert run(report).tolist() == []


def test_initializers_of_lists_of_variables(run):
    v = gc.Variable(2.0)
    w = gc.Variable(3.0, collections=[gc.GraphKeys.LOCAL_VARIABLES], trainable=False)
    names = [
        gc.global_variables_initializer().name,
        gc.local_variables_initializer().name,
        gc.initialize_all_variables().name,
        gc.initialize_local_variables().name,
        gc.initialize_variables([v]).name,
        gc.variables_initializer([], name="nothing").name,
    ]
    assert names == ["init", "init_1", "init_2", "init_3", "init_4", "nothing"]
    run("init")
    run("init_1")
    assert run([v, w]) == [2.0, 3.0]


def test_load_and_eval(graph):
    v = gc.Variable([1.0, 2.0], name="v")
    with pytest.raises(ValueError, match="Either session argument should be provided"):
        v.load([3.0, 4.0])
    with gc.Session() as session:
        assert v.load([3.0, 4.0], session) is None
        assert v.eval(session).tolist() == [3.0, 4.0]
        v.load([5, 6])
        assert v.eval().tolist() == [5.0, 6.0]
        with pytest.raises(ValueError, match=r"Cannot feed value of shape \(3,\) for Tensor"):
            v.load([1.0, 2.0, 3.0])
    assert len(graph.get_operations()) == 4


def test_a_variable_of_operations_that_exist(run):
    v = gc.Variable(4.0, name="v", trainable=False)
    again = gc.Variable.from_proto(v.to_proto())
    assert repr(again) == repr(v)
    assert again.value() is v.value()
    assert again.trainable is False
    run(again.initializer)
    assert run(again) == 4.0
    with pytest.raises(ValueError, match="mutually exclusive"):
        gc.Variable(1.0, variable_def=v.to_proto())


def test_scopes_of_variable_definitions():
    with gc.name_scope("s"):
        v = gc.Variable(1.0, name="v")
    assert v.to_proto(export_scope="other") is None
    names = v.to_proto(export_scope="s")
    assert names.variable_name == "v:0"
    assert gc.Variable.from_proto(names, import_scope="s").op is v.op
