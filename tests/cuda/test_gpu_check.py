"""`make gpu-check`, from one end to the other, on a device that is none."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

import graphc as gc
from graphc.errors import UnavailableError

PATH = Path(gc.__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RUNS", 1)
    monkeypatch.setattr(module, "ROUNDS", 1)
    return module


def test_from_one_end_to_the_other(script, shim, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "cuda_device", lambda: shim)
    monkeypatch.setattr(script, "has_torch", lambda: False)
    monkeypatch.setattr(script, "run_tests", lambda: ("all of them passed", True))
    monkeypatch.setattr("sys.argv", ["gpu.py", "--small", "--out", str(tmp_path / "gpu.json")])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert (found["device"], found["arch"]) == ("cuda:0", "sm_80")
    assert found["tests"] == "all of them passed"
    table = found["table"]
    names = ["copy", *script.memory_rows(), "product 32", "small run", "MLP step", "MLP, first run"]
    assert list(table) == names
    assert all(value > 0 for row in table.values() for value in row.values())
    assert set(table["MLP, first run"]) == {"s, cold", "s, cached"}
    assert "GRAPHC_CACHE" in script.os.environ
    assert shim.graphs > 10  # runs were replayed
    # The rows by name and unit, behind the line of the tests and before that of the file.
    assert len(capsys.readouterr().out.splitlines()) == len(names) + 2


def test_pytorchs_times_are_put_beside(script):
    table = {"softmax": {"ms": 2.0}}
    script.beside(table, {"softmax": {"eager": 0.004, "compiled": 0.001}})
    assert table["softmax"] == {
        "ms": 2.0, "ms, torch eager": 4.0, "x torch eager": 2.0, "ms, torch compiled": 1.0,
        "x torch compiled": 0.5,
    }  # fmt: skip


def test_the_tests_are_run_and_a_failure_is_told(script, capsys):
    line, passed = script.run_tests(["-k", "what_is_no_name and shim_or_not"])
    assert not passed  # there is no such test
    assert "deselected" in line
    line, passed = script.run_tests(["-k", "names_are_those_of_tensorflow"])
    assert passed, line
    assert "passed" in line


def test_without_a_gpu_it_says_so(script, monkeypatch):
    def none():
        raise UnavailableError(None, None, "there is no device")

    monkeypatch.setattr(script, "cuda_device", none)
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="there is no device"):
        script.main()
