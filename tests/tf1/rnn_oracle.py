"""Recurrent networks as TensorFlow 1.15 computes them: values, gradients and names.

The same functions declare every case with TensorFlow 1.15 and with graphc.  Run as a script under
TensorFlow 1.15.5 it writes what tests/nn/test_rnn_oracle.py compares with:

    <python with tensorflow 1.15.5> tests/tf1/rnn_oracle.py tests/nn/data

Weights are not stored: they come from a generator that is seeded with the variable's name.
"""

from __future__ import annotations

import importlib
import json
import sys
import zlib
from pathlib import Path

import numpy as np

BATCH, STEPS, INPUTS, UNITS = 3, 5, 4, 6
LENGTHS = [2, 5, 0]
X = np.random.RandomState(1).uniform(-1, 1, [BATCH, STEPS, INPUTS]).astype(np.float32)


def weight(name, shape):
    """The value that a variable (or the loss's factor) of this name has."""
    seed = zlib.crc32(name.encode())
    return np.random.RandomState(seed).uniform(-0.7, 0.7, shape).astype(np.float32)


# --- cells ----------------------------------------------------------------------------------------


def _stack(c):
    return c.MultiRNNCell(
        [c.LSTMCell(UNITS), c.ResidualWrapper(c.GRUCell(UNITS)), c.BasicRNNCell(3)]
    )


def _joined_stack(c):
    return c.MultiRNNCell([c.GRUCell(UNITS), c.BasicRNNCell(3)], state_is_tuple=False)


def _full_lstm(c, **options):
    return c.LSTMCell(
        UNITS,
        use_peepholes=True,
        cell_clip=0.4,
        num_proj=4,
        proj_clip=0.25,
        forget_bias=0.5,
        **options,
    )


def _wrapped(c):
    shared = c.DropoutWrapper(c.GRUCell(INPUTS), input_keep_prob=1.0, state_keep_prob=1.0)
    return c.ResidualWrapper(shared, residual_fn=lambda i, o: i * o + o)


CELLS = {
    "basic_rnn": lambda c: c.BasicRNNCell(UNITS),
    "basic_rnn_softsign": lambda c: c.BasicRNNCell(UNITS, activation="softsign"),
    "basic_lstm": lambda c: c.BasicLSTMCell(UNITS),
    "basic_lstm_joined": lambda c: c.BasicLSTMCell(UNITS, 0.3, state_is_tuple=False),
    "lstm": lambda c: c.LSTMCell(UNITS),
    "lstm_peepholes": lambda c: c.LSTMCell(UNITS, use_peepholes=True),
    "lstm_projected": lambda c: c.LSTMCell(UNITS, num_proj=4),
    "lstm_full": _full_lstm,
    "lstm_full_joined": lambda c: _full_lstm(c, state_is_tuple=False),
    "gru": lambda c: c.GRUCell(UNITS),
    "stack": _stack,
    "stack_joined": _joined_stack,
    "wrapped": _wrapped,
}


# --- ways to run them -----------------------------------------------------------------------------


def _steps(tf, x):
    return tf.unstack(x, axis=1)


def _start(tf, cell):
    """An initial state that is not zero."""
    zeros = cell.zero_state(BATCH, tf.float32)
    flat = zeros if isinstance(zeros, tuple) else (zeros,)
    made = [v + weight("state", [BATCH, v.shape.as_list()[1]]) for v in flat]
    return type(zeros)(*made) if isinstance(zeros, tuple) else made[0]


def static(tf, make, x, **options):
    return tf.nn.static_rnn(make(), _steps(tf, x), dtype=tf.float32, **options)


def dynamic(tf, make, x, **options):
    return tf.nn.dynamic_rnn(make(), x, dtype=tf.float32, **options)


def static_lengths(tf, make, x):
    return static(tf, make, x, sequence_length=LENGTHS)


def dynamic_lengths(tf, make, x):
    return dynamic(tf, make, x, sequence_length=LENGTHS)


def static_scoped(tf, make, x):
    cell = make()
    with tf.variable_scope("outer"):
        return tf.nn.static_rnn(cell, _steps(tf, x), _start(tf, cell), scope="mine")


def dynamic_scoped(tf, make, x):
    cell = make()
    with tf.variable_scope("outer") as scope:
        return tf.nn.dynamic_rnn(
            cell,
            tf.transpose(x, [1, 0, 2]),
            [4, 0, 3],
            _start(tf, cell),
            time_major=True,
            scope=scope,
        )


def static_both(tf, make, x, **options):
    return tf.nn.static_bidirectional_rnn(
        make(), make(), _steps(tf, x), dtype=tf.float32, **options
    )


def static_both_lengths(tf, make, x):
    return static_both(tf, make, x, sequence_length=LENGTHS)


def dynamic_both(tf, make, x, **options):
    return tf.nn.bidirectional_dynamic_rnn(make(), make(), x, dtype=tf.float32, **options)


def dynamic_both_lengths(tf, make, x):
    return dynamic_both(tf, make, x, sequence_length=LENGTHS)


def dynamic_both_time_major(tf, make, x):
    x = tf.transpose(x, [1, 0, 2])
    return dynamic_both(tf, make, x, sequence_length=LENGTHS, time_major=True)


def raw(tf, make, x, lengths=LENGTHS):
    cell = make()
    rows = tf.TensorArray(tf.float32, STEPS).unstack(tf.transpose(x, [1, 0, 2]))

    def loop_fn(time, output, state, loop_state):
        over = time >= tf.constant(lengths)
        ended = tf.reduce_all(time >= STEPS)
        following = tf.cond(ended, lambda: tf.zeros([BATCH, INPUTS]), lambda: rows.read(time))
        if output is None:
            return over, following, cell.zero_state(BATCH, tf.float32), None, tf.constant(0.5)
        return over, following, state, output, loop_state * 2.0

    arrays, state, loop_state = tf.nn.raw_rnn(cell, loop_fn)
    return tf.transpose(arrays.stack(), [1, 0, 2]), state, loop_state


def raw_to_the_end(tf, make, x):
    return raw(tf, make, x, [STEPS] * BATCH)


EVERY = [static, static_lengths, dynamic, dynamic_lengths]
MORE = [static_scoped, dynamic_scoped]
BOTH = [
    static_both,
    static_both_lengths,
    dynamic_both,
    dynamic_both_lengths,
    dynamic_both_time_major,
]

CASES = [(cell, run) for cell in CELLS for run in EVERY]
CASES += [(cell, run) for cell in ("basic_lstm", "gru", "lstm_full") for run in MORE]
CASES += [(cell, run) for cell in ("basic_lstm", "gru") for run in BOTH]
CASES += [(cell, run) for cell in ("lstm", "gru") for run in (raw, raw_to_the_end)]
NAMES = [f"{cell}-{run.__name__}" for cell, run in CASES]


def leaves(structure):
    """The tensors of a structure of lists, tuples and tensors."""
    if isinstance(structure, (list, tuple)):
        return [leaf for part in structure for leaf in leaves(part)]
    return [structure]


def declare(tf, name, x=None):
    """The input, the results, the variables, and the gradients of a loss by input and variables."""
    cell, run = CASES[NAMES.index(name)]
    if x is None:
        x = tf.placeholder(tf.float32, [BATCH, STEPS, INPUTS], name="x")
    results = leaves(run(tf, lambda: CELLS[cell](tf.nn.rnn_cell), x))
    loss = 0.0
    for i, result in enumerate(results):
        sizes = [BATCH, *result.shape.as_list()[1:]] if result.shape.ndims else []
        if len(sizes) == 3:
            sizes = (
                [STEPS, BATCH, sizes[2]]
                if "time_major" in name or (run is dynamic_scoped)
                else [BATCH, STEPS, sizes[2]]
            )
        loss += tf.reduce_sum(result * weight(f"loss{i}", sizes))
    variables = tf.global_variables()
    return x, results, variables, tf.gradients(loss, [x, *variables])


def values(tf, session, name, x=None):
    """The results and the gradients of a case: arrays, in order; the variables."""
    x, results, variables, gradients = declare(tf, name, x)
    assigned = [v.assign(weight(v.op.name, v.shape.as_list())) for v in variables]
    session.run(assigned)
    return session.run(results + gradients, {x: X}), variables


def main(folder):
    tf = importlib.import_module("tensorflow")
    tf.logging.set_verbosity(tf.logging.ERROR)
    described, arrays = {}, {}
    for name in NAMES:
        with tf.Graph().as_default(), tf.Session() as session:
            found, variables = values(tf, session, name)
        arrays[name] = np.concatenate([np.ravel(a) for a in found]).astype(np.float32)
        described[name] = {
            "variables": [[v.name, v.shape.as_list()] for v in variables],
            "shapes": [list(np.shape(a)) for a in found],
        }
    np.savez_compressed(str(Path(folder) / "rnn.npz"), **arrays)
    lines = ",\n".join(json.dumps(k) + ": " + json.dumps(v) for k, v in described.items())
    (Path(folder) / "rnn.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1])
