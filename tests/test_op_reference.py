"""The op reference: generated, complete, up to date."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import graphc as gc
from graphc.op import REGISTRY

DOCS = Path(gc.__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_op_reference_is_up_to_date(generator):
    found = (DOCS / "ops.md").read_text(encoding="utf-8")
    if found != generator.reference():
        pytest.fail(f"docs/ops.md is not what the registry gives: run `{generator.COMMAND}`")


def test_every_op_has_its_entry(generator):
    page = generator.reference()
    for name, op in REGISTRY.items():
        entry = page.split(f"\n### {name}\n")[1].split("\n### ")[0]
        assert f"`{generator.signature(op)}`" in entry
        assert ("no gradient" in entry) is not op.differentiable
        assert all(f"- attribute `{key}`" in entry for key in op.attrs)
        assert ("\n→ " in entry) is (next(iter(op.samples()), None) is not None)
    assert "Infinity" not in page
    assert max(map(len, page.split("```text")[1].splitlines())) < 300


def test_the_page_is_the_same_every_time(generator):
    assert generator.reference() == generator.reference()


def test_check_says_what_to_run(generator, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generator, "TARGET", tmp_path / "ops.md")
    monkeypatch.setattr("sys.argv", ["generate.py", "--check"])
    assert generator.main() == 1
    assert "run `make docs`" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["generate.py"])
    assert generator.main() == 0
    monkeypatch.setattr("sys.argv", ["generate.py", "--check"])
    assert generator.main() == 0
