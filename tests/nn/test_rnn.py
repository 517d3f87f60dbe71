"""Cells over time: shapes, scopes, structures, lengths, errors (numbers: test_rnn_oracle.py)."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.errors import GraphcError

cells = nn.rnn_cell
X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)


def run(fetches, feeds=None):
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        return session.run(fetches, feeds)


class Sum(cells.RNNCell):
    """Adds its inputs up; puts out the sum and twice the sum."""

    @property
    def state_size(self):
        return {"sum": 4}

    output_size = (4, 4)

    def call(self, inputs, state):
        total = state["sum"] + inputs
        return (total, 2 * total), {"sum": total}


class Pair(cells.RNNCell):
    """Takes two inputs; its state is a matrix."""

    state_size = gc.TensorShape([4, 2])
    output_size = gc.TensorShape([4, 2])

    def call(self, inputs, state):
        new = state + inputs["a"][:, :, None] * inputs["b"][:, None, :]
        return new, new


def test_structures_of_outputs_and_states():
    (one, two), state = nn.dynamic_rnn(Sum(), gc.constant(X), [2, 5, 0], dtype=gc.float32)
    one, two, state = run([one, two, state])
    expected = X.cumsum(1)
    expected[0, 2:] = expected[2] = 0
    np.testing.assert_allclose(one, expected, rtol=1e-5)
    np.testing.assert_allclose(two, 2 * expected, rtol=1e-5)
    np.testing.assert_allclose(state["sum"], [X[0, :2].sum(0), X[1].sum(0), X[2, 0] * 0], rtol=1e-5)


def test_structures_of_inputs():
    inputs = {"a": gc.constant(X), "b": gc.constant(X[..., :2])}
    outputs, state = nn.dynamic_rnn(Pair(), inputs, dtype=gc.float32)
    assert outputs.shape.as_list() == [3, 5, 4, 2]
    products = np.einsum("bti,btj->btij", X, X[..., :2]).cumsum(1)
    outputs, state = run([outputs, state])
    np.testing.assert_allclose(outputs, products, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state, products[:, -1], rtol=1e-4, atol=1e-5)
    steps = [{"a": X[:, t], "b": X[:, t, :2]} for t in range(5)]
    static, _ = nn.static_rnn(Pair(), steps, dtype=gc.float32)
    np.testing.assert_allclose(run(static)[3], products[:, 3], rtol=1e-4, atol=1e-5)


def test_static_shapes():
    x = gc.placeholder("float", [None, None, 4])
    outputs, state = nn.dynamic_rnn(cells.BasicLSTMCell(6), x, dtype=gc.float32)
    assert outputs.shape.as_list() == [None, None, 6]
    assert type(state) is cells.LSTMStateTuple
    assert state.c.shape.as_list() == [None, 6]
    x = gc.placeholder("float", [7, 2, 4])
    with gc.variable_scope("second"):
        outputs, state = nn.dynamic_rnn(cells.GRUCell(6), x, dtype="float32", time_major=True)
    assert (outputs.shape, state.shape) == ([7, 2, 6], [2, 6])
    assert [v.name for v in gc.trainable_variables()][-1] == "second/rnn/gru_cell/candidate/bias:0"


def test_one_compilation_serves_all_lengths():
    x = gc.placeholder("float", [None, None, 4])
    outputs, state = nn.dynamic_rnn(cells.BasicRNNCell(6), x, dtype=gc.float32)
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        long, _ = session.run([outputs, state], {x: np.tile(X, (1, 40, 1))})
        for steps in (1, 3, 5):
            found, last = session.run([outputs, state], {x: X[:, :steps]})
            np.testing.assert_allclose(found, long[:, :steps], rtol=1e-5)
            np.testing.assert_allclose(last, long[:, steps - 1], rtol=1e-5)
    assert long.shape == (3, 200, 6)


def test_no_steps():
    x = gc.placeholder("float", [3, None, 4])
    start = np.full((3, 6), 0.5, np.float32)
    outputs, state = nn.dynamic_rnn(cells.GRUCell(6), x, initial_state=start)
    outputs, state = run([outputs, state], {x: X[:, :0]})
    assert outputs.shape == (3, 0, 6)
    assert (state == 0.5).all()


@pytest.mark.parametrize("lengths", [[0, 0, 0], [1, 0, 1], [5, 5, 5]])
def test_lengths_that_a_run_decides(lengths):
    x, given = gc.placeholder("float", [None, None, 4]), gc.placeholder("int64", [None])
    outputs, state = nn.dynamic_rnn(Sum(), x, given, dtype=gc.float32)
    (one, _), state = run([outputs, state], {x: X, given: lengths})
    expected = X.cumsum(1) * (np.arange(5) < np.array(lengths)[:, None])[..., None]
    np.testing.assert_allclose(one, expected, rtol=1e-5)
    totals = [X[b, :n].sum(0) for b, n in enumerate(lengths)]
    np.testing.assert_allclose(state["sum"], totals, rtol=1e-5, atol=1e-6)


def test_gradients_stop_at_the_lengths():
    x = gc.constant(X)
    (one, _), _ = nn.dynamic_rnn(Sum(), x, [2, 5, 0], dtype=gc.float32)
    found = run(gc.gradients(one, x)[0])
    counts = [[2, 1, 0, 0, 0], [5, 4, 3, 2, 1], [0] * 5]
    np.testing.assert_array_equal(found, np.repeat(np.array(counts)[..., None], 4, 2))


def test_dynamic_and_static_agree_to_second_order():
    x = gc.constant(X)
    with gc.variable_scope("a"):
        dynamic, _ = nn.dynamic_rnn(cells.LSTMCell(3), x, [4, 5, 2], dtype=gc.float32)
    with gc.variable_scope("b"):
        static, _ = nn.static_rnn(
            cells.LSTMCell(3), gc.unstack(x, axis=1), dtype=gc.float32, sequence_length=[4, 5, 2]
        )
    a, b = gc.trainable_variables("a/"), gc.trainable_variables("b/")
    found = []
    for y, own in ((dynamic, a), (gc.stack(static, 1), b)):
        first = gc.gradients(gc.reduce_sum(y * y), [x, *own])
        second = gc.gradients(gc.add_n([gc.reduce_sum(g * g) for g in first]), [x, *own])
        found.append([y, *first, *second])
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        session.run([v.assign(w) for v, w in zip(b, a, strict=True)])
        for one, other in zip(*session.run(found), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_training_lowers_a_loss():
    x = gc.placeholder("float", [None, None, 4])
    outputs, _ = nn.dynamic_rnn(cells.GRUCell(8), x, dtype=gc.float32)
    loss = gc.reduce_mean(gc.square(outputs[:, -1, 0] - gc.reduce_mean(x, [1, 2])))
    step = gc.train.AdamOptimizer(0.02).minimize(loss)
    with gc.Session() as session:
        session.run(gc.global_variables_initializer())
        first = session.run(loss, {x: X})
        for _ in range(50):
            session.run(step, {x: X})
        assert session.run(loss, {x: X}) < first / 10


def test_dropout_draws_anew_at_each_step():
    class Passing(cells.RNNCell):
        state_size = output_size = 40

        def call(self, inputs, state):
            return inputs, state

    x = gc.ones([2, 30, 40])
    for variational in (False, True):
        cell = cells.DropoutWrapper(
            Passing(), output_keep_prob=0.5, variational_recurrent=variational, dtype=gc.float32
        )
        with gc.variable_scope(f"v{variational}"):
            found = run(nn.dynamic_rnn(cell, x, dtype=gc.float32)[0])
        assert set(np.unique(found)) == {0.0, 2.0}
        assert (found == found[:, :1]).all() == variational


def test_two_cells_from_both_ends():
    outputs, states = nn.bidirectional_dynamic_rnn(
        Sum(), Sum(), gc.constant(X), [2, 5, 0], dtype=gc.float32
    )
    ((forward, _), (backward, _)), (_, last) = run([outputs, states])
    expected = X[:, ::-1].cumsum(1)[:, ::-1].copy()
    expected[0, :2] = X[0, 1::-1].cumsum(0)[::-1]
    expected[0, 2:] = expected[2] = 0
    np.testing.assert_allclose(backward, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(forward[1], X[1].cumsum(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last["sum"][0], X[0, :2].sum(0), rtol=1e-5)


def test_raw_rnn_feeds_back_what_it_put_out():
    start = np.ones((2, 3), np.float32)

    def loop_fn(time, output, state, loop_state):
        if output is None:
            return gc.constant([False, False]), start, cell.zero_state(2, gc.float32), None, None
        over = gc.stack([time >= 4, time >= 2])
        return over, output * 0.5, state, output, None

    cell = Passing3()
    arrays, state, loop_state = nn.raw_rnn(cell, loop_fn)
    assert loop_state is None
    emitted, last = run([arrays.stack(), state])
    wanted = np.array([[1, 0.5, 0.25, 0.125], [1, 0.5, 0, 0]]).T
    np.testing.assert_array_equal(emitted[:, :, 0], wanted)
    np.testing.assert_array_equal(last[:, 0], [4, 2])


class Passing3(cells.RNNCell):
    """Puts out its input, counts the steps."""

    state_size = output_size = 3

    def call(self, inputs, state):
        return inputs, state + 1


def test_raw_rnn_puts_out_what_it_is_told():
    example = {"n": gc.zeros([2], "int32"), "x": gc.zeros([])}

    def loop_fn(time, output, state, log):
        ones = gc.ones([2, 3])
        if output is None:
            return gc.zeros([2], "bool"), ones, cell.zero_state(2, "float32"), example, 0.0
        emit = {"n": gc.fill([2, 2], time), "x": gc.cast(gc.fill([2], time), "float32")}
        return gc.fill([2], time >= 3), ones, state, emit, log + 1.0

    cell = Passing3()
    arrays, _, log = nn.raw_rnn(cell, loop_fn)
    n, x, log = run([arrays["n"].stack(), arrays["x"].stack(), log])
    assert n.tolist() == [[[t] * 2] * 2 for t in (1, 2, 3)]
    assert x.tolist() == [[t] * 2 for t in (1.0, 2.0, 3.0)]
    assert log == 3


GRU = cells.GRUCell


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: nn.dynamic_rnn(3, X, dtype="float"), TypeError, "'cell' .* is not an RNNCell"),
        (lambda: nn.dynamic_rnn(GRU(3), X), ValueError, "you must give a dtype"),
        (lambda: nn.dynamic_rnn(GRU(3), X[0], dtype="float32"), ValueError, "rank"),
        (lambda: nn.dynamic_rnn(GRU(3), gc.placeholder("float", [3, 5, None]), dtype="float32"),
         ValueError, "Input size .* must be accessible"),
        (lambda: nn.dynamic_rnn(GRU(3), X, [[2, 5, 0]], dtype="float32"), ValueError,
         "must be a vector of length batch_size"),
        (lambda: nn.dynamic_rnn(GRU(3), X, [2, 5], dtype="float32"), ValueError, "equal"),
        (lambda: nn.dynamic_rnn(Pair(), {"a": X, "b": X[:, :4]}, dtype="float32"), ValueError,
         "Time steps is not the same"),
        (lambda: nn.dynamic_rnn(Pair(), {"a": X, "b": X[:2]}, dtype="float32"), ValueError,
         "Batch_size is not the same"),
        (lambda: nn.dynamic_rnn(cells.LSTMCell(3), X, initial_state=(X[:, 0, :3], X[:, 0, :3])),
         TypeError, "don't have the same sequence type"),
        (lambda: nn.static_rnn(3, [X[:, 0]], dtype="float"), TypeError, "is not an RNNCell"),
        (lambda: nn.static_rnn(GRU(3), gc.constant(X), dtype="float"), TypeError,
         "inputs must be a sequence"),
        (lambda: nn.static_rnn(GRU(3), [], dtype="float"), ValueError, "must not be empty"),
        (lambda: nn.static_rnn(GRU(3), [X[:, 0]]), ValueError, "dtype must be specified"),
        (lambda: nn.static_rnn(GRU(3), [gc.placeholder("float", [3, None])], dtype="float32"),
         ValueError, r"Input size \(dimension 0 of inputs\) must be accessible"),
        (lambda: nn.static_rnn(GRU(3), [X[:, 0], X[:2, 0]], dtype="float32"), ValueError,
         "must be equal"),
        (lambda: nn.static_bidirectional_rnn(GRU(3), 3, [X[:, 0]]), TypeError, "'cell_bw'"),
        (lambda: nn.bidirectional_dynamic_rnn(GRU(3), 3, X), TypeError, "'cell_bw'"),
        (lambda: nn.raw_rnn(3, lambda *a: a), TypeError, "'cell'"),
        (lambda: nn.raw_rnn(GRU(3), 3), TypeError, "loop_fn must be a callable"),
    ],
)  # fmt: skip
def test_errors(call, kind, text):
    with pytest.raises(kind, match=text) as caught:
        call()
    assert isinstance(caught.value, GraphcError)


SIGNATURES = {
    "dynamic_rnn": "cell inputs sequence_length=None initial_state=None dtype=None "
    "parallel_iterations=None swap_memory=False time_major=False scope=None",
    "static_rnn": "cell inputs initial_state=None dtype=None sequence_length=None scope=None",
    "bidirectional_dynamic_rnn": "cell_fw cell_bw inputs sequence_length=None "
    "initial_state_fw=None initial_state_bw=None dtype=None parallel_iterations=None "
    "swap_memory=False time_major=False scope=None",
    "static_bidirectional_rnn": "cell_fw cell_bw inputs initial_state_fw=None "
    "initial_state_bw=None dtype=None sequence_length=None scope=None",
    "raw_rnn": "cell loop_fn parallel_iterations=None swap_memory=False scope=None",
    "embedding_lookup": "params ids partition_strategy=mod name=None validate_indices=True "
    "max_norm=None",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_as_tensorflow(name):
    found = [
        p.name if p.default is p.empty else f"{p.name}={p.default}"
        for p in inspect.signature(getattr(nn, name)).parameters.values()
    ]
    assert " ".join(found) == SIGNATURES[name]
