"""What the tests of the examples share: processes that know graphc and nothing of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., str]


@pytest.fixture
def python(tmp_path: Path) -> Run:
    """``python(*arguments)`` runs an interpreter in an empty folder; its standard output."""

    def run(*arguments: object) -> str:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        # NumPy's threads spin, which costs more than it gives where tests share the CPUs.
        environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-W", "error", *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def example(python: Run) -> Run:
    """``example(name, *arguments)`` runs a file of examples/; its standard output."""
    return lambda name, *arguments: python(ROOT / "examples" / name, *arguments)
