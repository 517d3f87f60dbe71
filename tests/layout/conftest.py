"""The source files of the project, read and parsed once for the layout tests."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("graphc", "kernels", "tests", "examples", "benchmarks", "docs", "tools")


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the root, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def module(self) -> str | None:
        """Its name inside the package (kernels/ is graphc.kernels), None outside of it."""
        parts = list(Path(self.path).with_suffix("").parts)
        if parts[0] == "kernels":
            parts.insert(0, "graphc")
        if parts[0] != "graphc":
            return None
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    """Every Python file of the project; the symlink graphc/kernels is not followed."""
    paths = sorted(
        Path(folder, name)
        for top in FOLDERS
        for folder, _, names in os.walk(ROOT / top)
        for name in names
        if name.endswith(".py")
    )
    found = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        found.append(Source(path.relative_to(ROOT).as_posix(), text, ast.parse(text, str(path))))
    return found


@pytest.fixture(scope="session")
def package(sources: list[Source]) -> list[Source]:
    """The files that ship: graphc and kernels."""
    return [source for source in sources if source.module is not None]


@pytest.fixture
def make_source():
    """A source of made-up text, for tests of the checks themselves."""
    return lambda path, text: Source(path, text, ast.parse(text))
