"""Every cell, run in every way: values, gradients and names are TensorFlow 1.15.5's.

tests/tf1/rnn_oracle.py declares the cases, and wrote the data files under TensorFlow.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import graphc as gc

HERE = Path(__file__).parent


def oracle_module():
    path = HERE.parent / "tf1" / "rnn_oracle.py"
    spec = importlib.util.spec_from_file_location("rnn_oracle", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ORACLE = oracle_module()


@pytest.fixture(scope="module")
def described():
    return json.loads((HERE / "data" / "rnn.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def stored():
    with np.load(HERE / "data" / "rnn.npz") as file:
        return dict(file)


def expected(flat, shapes):
    """The arrays that one long array is made of."""
    at, found = 0, []
    for shape in shapes:
        count = int(np.prod(shape))
        found.append(flat[at : at + count].reshape(shape))
        at += count
    assert at == flat.size
    return found


def compare(name, described, stored, x=None):
    with gc.Session() as session:
        found, variables = ORACLE.values(gc, session, name, x)
    assert [[v.name, v.shape.as_list()] for v in variables] == described[name]["variables"]
    wanted = expected(stored[name], described[name]["shapes"])
    assert [a.shape for a in found] == [a.shape for a in wanted]
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=f"array {i} of {name}")


def test_the_data_files_hold_every_case(described, stored):
    assert list(described) == ORACLE.NAMES
    assert set(stored) == set(ORACLE.NAMES)


@pytest.mark.parametrize("name", ORACLE.NAMES)
def test_as_tensorflow(name, described, stored):
    compare(name, described, stored)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in ORACLE.NAMES
        if name.split("-")[1] in ("dynamic", "dynamic_lengths", "dynamic_both_lengths")
    ],
)
def test_sizes_that_a_run_decides(name, described, stored):
    x = gc.placeholder(gc.float32, [None, None, ORACLE.INPUTS], name="x")
    compare(name, described, stored, x)


@pytest.mark.parametrize("name", ["lstm-static_lengths", "gru-static", "stack-static"])
def test_a_batch_that_a_run_decides(name, described, stored):
    x = gc.placeholder(gc.float32, [None, ORACLE.STEPS, ORACLE.INPUTS], name="x")
    compare(name, described, stored, x)
