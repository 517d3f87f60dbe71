"""Cells one step at a time: names, states, weights, wrappers, errors.

The names, sizes and error texts are what TensorFlow 1.15.5 gave for the same calls.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

from graphc import nn
from graphc.build import constant
from graphc.errors import GraphcError
from graphc.graph import Graph
from graphc.ops.array import placeholder
from graphc.ops.contraction_functions import matmul
from graphc.ops.shaping_make import ones, shape, zeros
from graphc.session import Session
from graphc.variable_scope import get_variable, variable_scope
from graphc.variables import global_variables, global_variables_initializer

cells = nn.rnn_cell
X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


class Plain(cells.RNNCell):
    """A cell that gets its variable as it is called."""

    state_size = 3
    output_size = 3

    def call(self, inputs, state, scope=None):
        self.seen = scope.name
        out = matmul(inputs, get_variable("w", [4, 3])) + state
        return out, out


def names(variables):
    return [v.name for v in variables]


def values(fetches, feeds=None):
    with Session() as session:
        session.run(global_variables_initializer())
        return session.run(fetches, feeds)


def test_names_and_weights_of_a_cell():
    cell = cells.BasicLSTMCell(3)
    assert (cell.name, cell.dtype, cell.built, cell.weights) == (
        "basic_lstm_cell_1", None, False, []
    )  # fmt: skip
    assert cells.BasicLSTMCell(3).name == "basic_lstm_cell_2"
    assert cells.LSTMCell(3, name="foo").name == "foo"
    x = placeholder("float", [None, 4])
    output, state = cell(x, cell.zero_state(2, "float32"))
    assert cell.dtype == "float32"
    assert cell.scope_name == "basic_lstm_cell"
    assert output.name == "basic_lstm_cell/Mul_2:0"
    assert state.c.name == "basic_lstm_cell/Add_1:0"
    assert state.h is output
    assert names(cell.variables) == ["basic_lstm_cell/kernel:0", "basic_lstm_cell/bias:0"]
    assert cell.trainable_variables == cell.trainable_weights == cell.weights
    again, _ = cell(x, cell.zero_state(shape(x)[0], "float32"))
    assert again.name == "basic_lstm_cell/Mul_5:0"
    assert len(global_variables()) == 2
    cells.BasicLSTMCell(3)(x, state)
    assert names(global_variables())[2:] == [
        "basic_lstm_cell_1/kernel:0",
        "basic_lstm_cell_1/bias:0",
    ]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: cells.BasicRNNCell(3),
            {"basic_rnn_cell/kernel": (7, 3), "basic_rnn_cell/bias": (3,)},
        ),
        (
            lambda: cells.GRUCell(3),
            {
                "gru_cell/gates/kernel": (7, 6), "gru_cell/gates/bias": (6,),
                "gru_cell/candidate/kernel": (7, 3), "gru_cell/candidate/bias": (3,),
            },
        ),
        (
            lambda: cells.LSTMCell(3, use_peepholes=True, num_proj=2),
            {
                "lstm_cell/kernel": (6, 12), "lstm_cell/bias": (12,),
                "lstm_cell/w_f_diag": (3,), "lstm_cell/w_i_diag": (3,),
                "lstm_cell/w_o_diag": (3,), "lstm_cell/projection/kernel": (3, 2),
            },
        ),
        (
            lambda: cells.MultiRNNCell([Plain(), cells.BasicRNNCell(2)]),
            {
                "multi_rnn_cell/cell_0/plain/w": (4, 3),
                "multi_rnn_cell/cell_1/basic_rnn_cell/kernel": (5, 2),
                "multi_rnn_cell/cell_1/basic_rnn_cell/bias": (2,),
            },
        ),
        (lambda: cells.DropoutWrapper(Plain(), 0.5), {"plain/w": (4, 3)}),
    ],
)  # fmt: skip
def test_variables_of_cells(make, expected):
    cell = make()
    cell(constant(X), cell.zero_state(2, "float32"))
    found = {v.op.name: tuple(v.shape.as_list()) for v in global_variables()}
    assert found == expected
    assert list(found) == [v.op.name for v in cell.weights]


def test_scopes_of_a_cell_of_ones_own():
    x, state, cell = constant(X), zeros([2, 3]), Plain()
    assert [cell(x, state)[0].name for _ in range(2)] == ["plain/add:0", "plain/add_1:0"]
    assert cell(x, state, scope="hello")[0].name == "plain/add_2:0"
    with variable_scope("outer"):
        cell = Plain()
        assert cell(x, state, scope="hello")[0].name == "outer/hello/add:0"
        assert cell.seen == "outer/hello"
        cell = Plain(name="given")
        assert cell(x, state)[0].name == "outer/outer/given/add:0"
        assert cell.seen == "outer/given"
        wrapped = cells.DropoutWrapper(Plain(), 0.5)
        wrapped(x, state)
        assert names(wrapped.variables) == ["outer/plain/w:0"]


def test_weights_are_shared_where_asked_for():
    x = constant(X)
    first = cells.GRUCell(3, name="g", bias_initializer="ones")
    second = cells.GRUCell(3, name="g", reuse=True)
    outputs = [cell(x, cell.zero_state(2, "float32"))[0] for cell in (first, second)]
    assert first.weights == second.weights
    one, other = values(outputs)
    np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="does not exist"):
        cells.GRUCell(3, name="h", reuse=True)(x, zeros([2, 3]))


def test_a_cell_that_is_not_trained():
    cell = cells.BasicRNNCell(3, trainable=False)
    cell(constant(X), cell.zero_state(2, "float32"))
    assert cell.trainable_weights == []
    assert names(cell.non_trainable_weights) == names(global_variables())
    assert not any(v.trainable for v in global_variables())


def test_zero_states():
    x = placeholder("float", [None, 4])
    stack = cells.MultiRNNCell([cells.LSTMCell(3, num_proj=2), cells.GRUCell(5)])
    assert stack.state_size == (cells.LSTMStateTuple(3, 2), 5)
    assert stack.output_size == 5
    state = stack.zero_state(shape(x)[0], "float64")
    assert type(state[0]) is cells.LSTMStateTuple
    assert state[0].dtype == "float64"
    assert state[0].h.sizes == (x.sizes[0], 2)
    found = values(list(stack.zero_state(shape(x)[0], "float32")), {x: X})
    assert found[0].c.shape == (2, 3)
    assert found[1].tolist() == [[0.0] * 5] * 2
    assert cells.GRUCell(3).get_initial_state(x).sizes == (x.sizes[0], 3)
    assert cells.GRUCell(3).get_initial_state(batch_size=7, dtype="float32").shape == [7, 3]


def test_joined_states():
    x = constant(X)
    joined = cells.LSTMCell(3, num_proj=2, state_is_tuple=False, initializer="ones")
    apart = cells.LSTMCell(3, num_proj=2, initializer="ones")
    state = joined.zero_state(2, "float32")
    assert (joined.state_size, state.shape) == (5, [2, 5])
    output, new = joined(x, state + 0.5)
    expected, (c, h) = apart(x, [zeros([2, 3]) + 0.5, zeros([2, 2]) + 0.5])
    output, new, expected, c, h = values([output, new, expected, c, h])
    np.testing.assert_array_equal(output, expected)
    np.testing.assert_array_equal(new, np.concatenate([c, h], 1))
    stack = cells.MultiRNNCell([cells.GRUCell(3), cells.GRUCell(4)], state_is_tuple=False)
    assert stack.state_size == 7
    assert stack(x, stack.zero_state(2, "float32"))[1].shape == [2, 7]


@pytest.mark.parametrize("activation", [None, "tanh", "relu", "linear", "hard_sigmoid", np.abs])
def test_activations(activation):
    cell = cells.BasicRNNCell(3, activation=None if activation is np.abs else activation)
    if activation is np.abs:
        cell = cells.BasicRNNCell(3, activation=nn.relu)
    output, _ = cell(constant(X), ones([2, 3]))
    found, kernel, bias = values([output, *cell.weights])
    total = np.concatenate([X, np.ones((2, 3), np.float32)], 1) @ kernel + bias
    expected = {
        None: np.tanh, "tanh": np.tanh, "linear": lambda v: v,
        "hard_sigmoid": lambda v: np.clip(0.2 * v + 0.5, 0, 1),
    }.get(activation, lambda v: np.maximum(v, 0))  # fmt: skip
    np.testing.assert_allclose(found, expected(total), rtol=1e-5, atol=1e-6)


def test_a_copy_before_the_first_call_has_weights_of_its_own():
    cell = cells.DropoutWrapper(cells.GRUCell(3), output_keep_prob=constant(0.5))
    twin = copy.deepcopy(cell)
    assert twin.wrapped_cell is not cell.wrapped_cell
    for c in (cell, twin):
        c(constant(X), zeros([2, 3]))
    assert len(global_variables()) == 8
    assert not set(cell.weights) & set(twin.weights)


def test_residual_wrapper():
    cell = cells.ResidualWrapper(cells.GRUCell(4))
    plain = cells.GRUCell(4, name="gru_cell", reuse=True)
    added, _ = cell(constant(X), zeros([2, 4]))
    output, _ = plain(constant(X), zeros([2, 4]))
    product, _ = cells.ResidualWrapper(plain, lambda i, o: i * o)(constant(X), zeros([2, 4]))
    added, output, product = values([added, output, product])
    np.testing.assert_allclose(added, output + X, rtol=1e-6)
    np.testing.assert_allclose(product, output * X, rtol=1e-6)


def test_device_wrapper():
    cell = cells.DeviceWrapper(cells.GRUCell(4), "/cpu:0")
    output, _ = cell(constant(X), cell.zero_state(2, "float32"))
    assert output.device == "/device:CPU:0"


class Passing(cells.RNNCell):
    """Hands its input on and keeps an LSTM's state."""

    state_size = cells.LSTMStateTuple(40, 40)
    output_size = 40

    def call(self, inputs, state):
        return inputs, state


@pytest.mark.parametrize("part", ["input", "output", "state"])
@pytest.mark.parametrize("variational", [False, True])
def test_dropout_wrapper(part, variational):
    cell = cells.DropoutWrapper(
        Passing(), **{f"{part}_keep_prob": 0.5}, variational_recurrent=variational, input_size=40,
        dtype="float32" if variational else None,
    )  # fmt: skip
    x = ones([30, 40])
    runs = [cell(x, cells.LSTMStateTuple(x, x)) for _ in range(2)]
    for output, state in (found := values(runs)):
        dropped = {"state": state.h}.get(part, output)
        assert set(np.unique(dropped)) == {0.0, 2.0}
        assert (state.c == 1).all()
        assert ((output == 1).all()) == (part == "state")
        assert ((state.h == 1).all()) == (part != "state")
        assert (dropped == dropped[0]).all() == variational
    first, second = ({"state": s.h}.get(part, o) for o, s in found)
    assert (first == second).all() == variational


def test_a_seed_makes_every_call_drop_the_same():
    x = ones([30, 40])
    state = cells.LSTMStateTuple(x, x)
    cell = cells.DropoutWrapper(Passing(), 0.5, 0.5, 0.5, seed=3)
    (one, a), (other, b) = values([cell(x, state), cell(x, state)])
    again = values(cell(x, state)[0])
    assert (one == other).all()
    assert (one == again).all()
    assert (a.h == b.h).all()
    assert not (a.h * 2 == one).all()
    other = values(cells.DropoutWrapper(Passing(), 0.5, 0.5, 0.5, seed=4)(x, state)[0])
    assert not (one == other).all()


def test_what_dropout_may_touch():
    def visitor(part):
        return cells.LSTMStateTuple(True, False) if isinstance(part, tuple) else True

    cell = cells.DropoutWrapper(
        Passing(), state_keep_prob=constant(0.5), dropout_state_filter_visitor=visitor
    )
    x = ones([30, 40])
    state = values(cell(x, cells.LSTMStateTuple(x, x))[1])
    assert (state.h == 1).all()
    assert set(np.unique(state.c)) == {0.0, 2.0}


def test_dropout_of_a_fed_probability():
    keep = placeholder("float", [])
    cell = cells.DropoutWrapper(Passing(), output_keep_prob=keep)
    x = ones([30, 40])
    output, _ = cell(x, cells.LSTMStateTuple(x, x))
    assert (values(output, {keep: 1.0}) == 1).all()
    assert set(np.unique(values(output, {keep: 0.25}))) == {0.0, 4.0}


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: cells.GRUCell(3)(zeros([2, 3, 4]), None), ValueError,
         "incompatible with the layer: expected ndim=2, found ndim=3"),
        (lambda: cells.GRUCell(3)(zeros([2, 4], "int32"), zeros([2, 3])), ValueError,
         "only supports floating point inputs, but saw dtype"),
        (lambda: cells.GRUCell(3)(placeholder("float", [2, None]), zeros([2, 3])), ValueError,
         r"Expected inputs.shape\[-1\] to be known, saw shape: \(2, None\)"),
        (lambda: cells.GRUCell(3, dtype="int32"), ValueError, "only supports floating point"),
        (lambda: cells.GRUCell(3, foo=2), TypeError, "Keyword argument not understood: 'foo'"),
        (lambda: cells.GRUCell(3, activation="foo"), ValueError, "Unknown activation"),
        (lambda: cells.GRUCell(3, activation=4), TypeError, "Could not interpret activation"),
        (lambda: cells.GRUCell(3, kernel_initializer="foo"), ValueError, "Unknown initializer"),
        (lambda: cells.LSTMCell(3, num_unit_shards=2), ValueError, "no partitioned variables"),
        (lambda: cells.MultiRNNCell([]), ValueError, "at least one cell"),
        (lambda: cells.MultiRNNCell(cells.GRUCell(3)), TypeError, "must be a list or tuple"),
        (lambda: cells.MultiRNNCell([cells.LSTMCell(3)], state_is_tuple=False), ValueError,
         "state_is_tuple is not set"),
        (lambda: cells.MultiRNNCell([cells.GRUCell(3)])(zeros([2, 4]), zeros([2, 3])), ValueError,
         "Expected state to be a tuple of length 1"),
        (lambda: cells.DropoutWrapper(Plain(), 2.0), ValueError,
         "Parameter input_keep_prob must be between 0 and 1: 2"),
        (lambda: cells.DropoutWrapper(Plain(), state_keep_prob=constant(-1.0)), ValueError,
         "Parameter state_keep_prob must be between 0 and 1"),
        (lambda: cells.DropoutWrapper(3), TypeError, "is not an RNNCell: 'output_size' property"),
        (lambda: cells.DropoutWrapper(Plain(), 0.5, variational_recurrent=True), ValueError,
         "dtype must be provided"),
        (lambda: cells.DropoutWrapper(
            Plain(), 0.5, variational_recurrent=True, dtype="float32"), ValueError,
         "input_size must be provided"),
        (lambda: cells.DropoutWrapper(Plain(), dropout_state_filter_visitor=3), TypeError,
         "dropout_state_filter_visitor must be callable"),
        (lambda: cells.ResidualWrapper(Plain())(zeros([2, 4]), zeros([2, 3])), ValueError,
         r"Shapes \(2, 4\) and \(2, 3\) are incompatible"),
        (lambda: cells.GRUCell(3).get_initial_state(), ValueError, "cannot be None"),
        (lambda: cells.GRUCell(3).get_initial_state(zeros([2, 4]), 3), ValueError,
         "batch size from input tensor is different"),
        (lambda: cells.GRUCell(3).get_initial_state(zeros([2, 4]), dtype="float64"), ValueError,
         "dtype from input tensor is different"),
        (lambda: cells.GRUCell(3).zero_state(None, "float32"), ValueError,
         "Provided a prefix or suffix of None"),
        (lambda: cells.GRUCell(3).scope_name, ValueError, "has not been used yet"),
        (lambda: cells.RNNCell().state_size, NotImplementedError, "state_size"),
        (lambda: cells.LSTMStateTuple(zeros([]), zeros([], "int32")).dtype, TypeError,
         "Inconsistent internal state"),
    ],
)  # fmt: skip
def test_errors(call, kind, text):
    with pytest.raises(kind, match=text) as caught:
        call()
    assert isinstance(caught.value, GraphcError)


def test_cells_of_two_graphs_count_apart():
    first = cells.GRUCell(3).name
    with Graph().as_default():
        assert cells.GRUCell(3).name == first == "gru_cell_1"


def test_variational_dropout_of_doubles():
    cell = cells.DropoutWrapper(
        Passing(), output_keep_prob=0.4, variational_recurrent=True, dtype="float64", seed=3
    )
    x = ones([5, 40], "float64")
    output, _ = values(cell(x, cells.LSTMStateTuple(x, x)))
    assert output.dtype == np.float64
    assert set(np.unique(output)) == {0.0, 1 / 0.4}
