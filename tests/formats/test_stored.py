"""Files of released format versions: read for ever, with the same results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.formats import load, safetensors, save

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


@pytest.mark.parametrize("mode", ["static", "eager", "reference"])
def test_version_2(mode):
    inputs, calls = stored(2)
    model = load(DATA / "v2.graphc", mode)
    for expected in calls:
        found = model.run(**inputs)
        assert found.keys() == expected.keys() | {"train"}
        for name, value in expected.items():
            assert found[name].dtype == value.dtype, name
            np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=2e-6, err_msg=name)
    assert found["visits"] == 10
    assert found["powers"].tolist() == [1, 2, 4, 8, 16, 32, 64]
    assert not np.array_equal(calls[0]["noise"], calls[1]["noise"])
    assert not np.array_equal(calls[0]["of_w"], calls[1]["of_w"])


def test_version_2_is_whole():
    model = load(DATA / "v2.graphc")
    assert [v.op.name for v in model.variables] == ["w", "visits"]
    operations = model.graph.get_operations()
    assert {"While", "Case", "PutRow", "PutRowGrowing", "TakeRow"} <= {op.type for op in operations}
    loops = [op for op in operations if op.type == "While"]
    assert {op.name.split("/")[0] for op in loops} > {"loop", "map", "noise", "gradients"}
    assert any(op.attrs["saved"] for op in loops)
    depth = 0
    for op in operations:
        around, region = 0, op.region
        while region is not None:
            around, region = around + 1, region.parent
        depth = max(depth, around)
    assert depth == 3


@pytest.mark.parametrize("version", [1, 2])
def test_a_stored_file_says_its_version(version):
    path = DATA / f"v{version}.graphc"
    _, metadata = safetensors.read(path)
    assert json.loads(metadata["graphc"])["format_version"] == version
    assert path.stat().st_size < 200_000


def test_version_1_is_written_as_it_was(tmp_path):
    """What needs nothing of version 2 is the same file, byte for byte."""
    model = load(DATA / "v1.graphc")
    save(tmp_path / "again", model.session, model.inputs, model.outputs)
    assert (tmp_path / "again").read_bytes() == (DATA / "v1.graphc").read_bytes()
