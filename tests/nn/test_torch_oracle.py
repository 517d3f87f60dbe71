"""Recurrent networks on PyTorch's weights: outputs, final states and gradients are PyTorch's.

torch_oracle.py says how they are computed there, and wrote the data file.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import graphc as gc

HERE = Path(__file__).parent


def oracle_module():
    spec = importlib.util.spec_from_file_location("torch_oracle", HERE / "torch_oracle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ORACLE = oracle_module()
UNITS = ORACLE.UNITS


def made(cell):
    cells = gc.nn.rnn_cell
    forget = ORACLE.FORGET_BIAS.get(cell)
    return {
        "basic_rnn": lambda: cells.BasicRNNCell(UNITS),
        "basic_lstm": lambda: cells.BasicLSTMCell(UNITS, forget),
        "lstm": lambda: cells.LSTMCell(UNITS, forget_bias=forget),
        "lstm_projected": lambda: cells.LSTMCell(
            UNITS, num_proj=ORACLE.PROJECTED, forget_bias=forget
        ),
        "lstm_peepholes": lambda: cells.LSTMCell(UNITS, use_peepholes=True, forget_bias=forget),
        "gru": lambda: cells.GRUCell(UNITS),
    }[cell]()


def dynamic(name, x, lengths, time_major=False):
    cell = name.split("-")[0]
    options = dict(dtype=gc.float32, sequence_length=lengths, time_major=time_major)
    x = gc.transpose(x, [1, 0, 2]) if time_major else x
    if "-both" in name:
        outputs, states = gc.nn.bidirectional_dynamic_rnn(made(cell), made(cell), x, **options)
        outputs = gc.concat(outputs, 2)
    else:
        outputs, states = gc.nn.dynamic_rnn(made(cell), x, **options)
    return gc.transpose(outputs, [1, 0, 2]) if time_major else outputs, states


def dynamic_time_major(name, x, lengths):
    return dynamic(name, x, lengths, time_major=True)


def static(name, x, lengths):
    cell = name.split("-")[0]
    steps, options = gc.unstack(x, axis=1), dict(dtype=gc.float32, sequence_length=lengths)
    if "-both" in name:
        found = gc.nn.static_bidirectional_rnn(made(cell), made(cell), steps, **options)
    else:
        found = gc.nn.static_rnn(made(cell), steps, **options)
    return gc.stack(found[0], 1), found[1:]


def leaves(structure):
    if isinstance(structure, (list, tuple)):
        return [leaf for part in structure for leaf in leaves(part)]
    return [structure]


def weight_name(variable):
    """``fw/gates/kernel`` of ``bidirectional_rnn/fw/gru_cell/gates/kernel``."""
    scope, name = variable.op.name.split("_cell/")
    return ("bw/" if "/bw/" in scope else "fw/") + name


@pytest.fixture(scope="module")
def stored():
    with np.load(HERE / "data" / "torch_rnn.npz") as file:
        return dict(file)


def test_the_data_file_holds_every_case(stored):
    assert {key.split(":")[0] for key in stored} == set(ORACLE.NAMES)


@pytest.mark.parametrize("sizes", [[ORACLE.BATCH, ORACLE.STEPS], [None, None]], ids=str)
@pytest.mark.parametrize("name", ORACLE.NAMES)
def test_dynamic(name, sizes, stored):
    compare(name, dynamic, sizes, stored)


@pytest.mark.parametrize("name", [n for n in ORACLE.NAMES if n.split("-")[0] in ("lstm", "gru")])
def test_dynamic_time_major(name, stored):
    compare(name, dynamic_time_major, [ORACLE.BATCH, ORACLE.STEPS], stored)


@pytest.mark.parametrize("name", ORACLE.NAMES)
def test_static(name, stored):
    compare(name, static, [ORACLE.BATCH, ORACLE.STEPS], stored)


def compare(name, way, sizes, stored):
    x = gc.placeholder(gc.float32, [*sizes, ORACLE.INPUTS])
    lengths = ORACLE.LENGTHS if name.endswith("_lengths") else None
    outputs, states = way(name, x, lengths)
    results = [outputs, *leaves(states)]
    wanted = {k.split(":")[1]: v for k, v in stored.items() if k.split(":")[0] == name}
    factors = ORACLE.loss_factors([wanted[f"result{i}"].shape for i in range(len(results))])
    loss = gc.add_n([gc.reduce_sum(r * f) for r, f in zip(results, factors, strict=True)])
    variables = {weight_name(v): v for v in gc.global_variables()}
    gradients = gc.gradients(loss, [x, *variables.values()])
    fetched = {f"result{i}": r for i, r in enumerate(results)}
    fetched.update(zip(["x", *variables], gradients, strict=True))
    assert set(fetched) == set(wanted)
    with gc.Session() as session:
        session.run([v.assign(ORACLE.weight(k, v.shape.as_list())) for k, v in variables.items()])
        found = session.run(fetched, {x: ORACLE.X})
    for key, array in wanted.items():
        np.testing.assert_allclose(
            found[key], array, rtol=1e-5, atol=1e-5, err_msg=f"{key} of {name}"
        )
