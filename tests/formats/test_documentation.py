"""The code in docs/file_format.md does what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import graphc as gc

PAGE = Path(gc.__file__).parents[1] / "docs" / "file_format.md"


def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102
