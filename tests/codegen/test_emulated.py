"""Code for AVX-512 on CPUs that have none: some tests of it run everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from graphc.runtime.jit import named_target

TESTS = Path(__file__).parents[1]


@pytest.mark.skipif(not named_target("avx2").is_host, reason="the CPU has no AVX2")
def test_instructions_of_avx512() -> None:
    """Dot products of bytes and of bfloat16, powers of two: all that is emulated."""
    chosen = [
        "bytes.py::test_machine_code", "pairs.py::test_machine_code",
        "scalar.py::test_scalef_of_any_width",
    ]  # fmt: skip
    command = [
        sys.executable, "-m", "pytest", "-q", "--emulate-avx512", "-p", "no:cacheprovider",
        "-k", "avx512", *(f"{TESTS}/codegen/test_llvm_{name}" for name in chosen),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"\d passed", run.stdout)
    assert "skipped" not in run.stdout
