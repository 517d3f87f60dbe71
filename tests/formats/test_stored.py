"""Files of released format versions: read for ever, with the same results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.formats import load, safetensors

DATA = Path(__file__).parent / "data"


def stored(version: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The inputs, and the outputs of each call."""
    with np.load(DATA / f"v{version}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    inputs = {k[3:]: v for k, v in arrays.items() if k.startswith("in/")}
    outputs = [
        {k[5:]: v for k, v in arrays.items() if k.startswith(f"out{call}/")} for call in range(2)
    ]
    return inputs, outputs


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
def test_version_1(mode):
    inputs, calls = stored(1)
    model = load(DATA / "v1.graphc", mode)
    for expected in calls:
        found = model.run(**inputs)
        assert found.keys() == expected.keys() | {"names", "train"}
        for name, value in expected.items():
            assert found[name].dtype == value.dtype, name
            np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=1e-6, err_msg=name)
        assert found["names"].tolist() == [[b"a", "\u00fc".encode()]]
    assert found["steps"] == 2


def test_version_1_is_whole():
    model = load(DATA / "v1.graphc")
    assert [v.op.name for v in model.variables] == [
        "net/filters", "net/weights", "net/bias", "steps",
    ]  # fmt: skip
    assert [v.trainable for v in model.variables] == [True, True, True, False]
    assert model.inputs["image"].shape.as_list() == [None, 6, 6, 2]
    assert model.inputs["anything"].sizes is None
    assert model.inputs["label"].sizes[0] != model.inputs["image"].sizes[0]
    picked = model.graph.get_operation_by_name("picked")
    assert picked.device == "/device:CPU:0"
    assert [op.name for op in picked.control_inputs] == ["probabilities"]
    assert picked.location.file == "make_v1.py"
    with model.graph.as_default():
        assert [v.op.name for v in gc.trainable_variables()] == [
            "net/filters", "net/weights", "net/bias",
        ]  # fmt: skip
    ops = {op.type for op in model.graph.get_operations()}
    assert len(ops) > 40


def test_a_stored_file_says_its_version():
    _, metadata = safetensors.read(DATA / "v1.graphc")
    assert json.loads(metadata["graphc"])["format_version"] == 1
    assert (DATA / "v1.graphc").stat().st_size < 100_000
