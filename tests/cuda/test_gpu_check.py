"""`make gpu-check`, from one end to the other, on a device that is none."""

from __future__ import annotations

import importlib.util
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


def test_the_table(script, shim, capsys):
    table = script.measure(shim, 4096, [32])
    names = ["copy", *script.memory_rows(), "product 32"]
    assert list(table) == names
    assert all(value > 0 for row in table.values() for value in row.values())
    script.show(table)
    assert len(capsys.readouterr().out.splitlines()) == len(names)


def test_without_a_gpu_it_says_so(script, monkeypatch):
    def none():
        raise UnavailableError(None, None, "there is no device")

    monkeypatch.setattr(script, "cuda_device", none)
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="there is no device"):
        script.main()
