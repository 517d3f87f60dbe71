"""Below AddressSanitizer: no kernel of the registry's samples reads or writes beside its memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_support import COMPILER

HERE = Path(__file__).parent
OPTIONS = "detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1"
READ_BESIDE = """
import sys
sys.path.insert(0, {here!r})
import memory
sys.modules["cuda_memory"] = memory
import support
from graphc.codegen.cuda import print_kernel, translation_unit
from graphc.loop.parser import parse_kernel

lines = ["kernel k(x: f32[9], y: f32[9]):", "block b in 1:", "thread i in 9:", "y[i] = x[i]"]
text = "".join("  " * depth + line + "\\n" for depth, line in enumerate(lines))
source = translation_unit([print_kernel(parse_kernel(text))]).replace("= x[i]", "= x[i + {more}]")
device = support.ShimDevice()
(function,) = device.load(source, ["k"])
x, y, status = (device.allocate(n) for n in (36, 36, 24))
device.launch(function, 1, (9, 1), (x.address, y.address, status.address))
"""


@pytest.fixture(scope="module")
def environment():
    """What runs Python below the sanitizer."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"no C++ compiler: {COMPILER}")
    ask = [COMPILER, "-print-file-name=libasan.so"]
    library = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(library).is_absolute():
        pytest.skip("the compiler has no AddressSanitizer")
    return {
        **os.environ, "LD_PRELOAD": library, "ASAN_OPTIONS": OPTIONS, "GRAPHC_SHIM_SANITIZED": "1",
    }  # fmt: skip


@pytest.mark.parametrize("more", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_planted_read_beside_the_memory_is_found(more, environment):
    code = READ_BESIDE.format(here=str(HERE), more=more)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert ("heap-buffer-overflow" in done.stderr) == bool(more), done.stderr
    assert (done.returncode != 0) == bool(more)


@pytest.mark.slow
def test_the_registry_is_clean(environment):
    command = [
        sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "-k", "shim",
        *(str(HERE / f"test_{n}.py") for n in ("ops", "products", "tensor_cores", "attention")),
        str(HERE / "test_attention_tensor.py"), str(HERE / "test_rows.py"),
        str(HERE / "test_attention_gradient_tensor.py"),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
