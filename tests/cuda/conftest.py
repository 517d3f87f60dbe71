"""Lets the tests of this folder import ``support.py``, and what other folders' tests share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from graphc.runtime.cuda_cupy import cuda_device

_HERE = Path(__file__).parent
for _name, _path in (
    ("ops_support", _HERE.parent / "ops" / "support.py"),
    ("cuda_memory", _HERE / "memory.py"),
    ("cuda_support", _HERE / "support.py"),
    ("cuda_rows", _HERE / "rows.py"),
    ("cuda_races", _HERE / "races.py"),
    ("cuda_fake_cublas", _HERE / "fake_cublas.py"),
    ("cuda_fake_cupy", _HERE / "fake_cupy.py"),
    *((n, _HERE.parent / "fuzz" / f"{n}.py") for n in ("graph_builder", "random_graphs")),
    ("control_graphs", _HERE.parent / "fuzz" / "control_graphs.py"),
):
    if _name not in sys.modules:
        _spec = importlib.util.spec_from_file_location(_name, _path)
        assert _spec is not None
        assert _spec.loader is not None
        sys.modules[_name] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules[_name])


@pytest.fixture(params=["shim", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    """A device whose kernels run on this CPU, and a real one where there is one."""
    if request.param == "shim":
        return request.getfixturevalue("shim")
    return cuda_device()


@pytest.fixture
def shim():
    """A device whose kernels run on this CPU."""
    import cuda_support

    if not cuda_support.has_compiler():
        pytest.skip(f"no C++ compiler: {cuda_support.COMPILER} (CXX names another)")
    return cuda_support.ShimDevice()


@pytest.fixture
def late():
    """A device that does what it is asked for as late as it may."""
    import cuda_support

    found = cuda_support.LateDevice()
    yield found
    with found.active():
        found.wait()
