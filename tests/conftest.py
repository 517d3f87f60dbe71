"""What all tests share: data sets, golden texts, a cache of their own, hypothesis profiles."""

from __future__ import annotations

import difflib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import graphc.data

_OWN_CACHE = pytest.StashKey[str]()

settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write golden texts instead of comparing them"
    )
    parser.addoption(
        "--emulate-avx512",
        action="store_true",
        help="run what is compiled for AVX-512 by AVX2, on a CPU that has no AVX-512",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--emulate-avx512"):
        _load("emulate").install()
    # The workers of pytest-xdist inherit the variable, and share one cache.
    if not hasattr(config, "workerinput"):
        cache = tempfile.mkdtemp(prefix="graphc-tests-")
        config.stash[_OWN_CACHE] = cache
        os.environ["GRAPHC_CACHE"] = cache


def _load(name: str) -> Any:
    """A module beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_unconfigure(config: pytest.Config) -> None:
    cache = config.stash.get(_OWN_CACHE, None)
    if cache is not None:
        shutil.rmtree(cache, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if any(item.get_closest_marker("cuda") for item in items) and not _has_cuda():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device or no cupy"))


def _has_cuda() -> bool:
    try:
        import cupy
    except ImportError:
        return False
    return bool(cupy.is_available())


@pytest.fixture(scope="session")
def data_dir() -> Path | None:
    """The folder that GRAPHC_DATA names, or None."""
    named = os.environ.get("GRAPHC_DATA")
    return Path(named) if named and Path(named).is_dir() else None


@pytest.fixture(scope="session")
def digits() -> graphc.data.Dataset:
    """The 8x8 digits of the package."""
    return graphc.data.digits()


@pytest.fixture(scope="session")
def mnist(data_dir: Path | None) -> graphc.data.Dataset:
    """MNIST from GRAPHC_DATA; the test is skipped where it is not there. Never downloads."""
    if data_dir is None:
        pytest.skip("GRAPHC_DATA names no folder with MNIST")
    try:
        return graphc.data.mnist(data_dir)
    except graphc.data.DataNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)`` compares with ``golden/<name>.txt`` in the folder of the test."""
    folder = request.path.parent / "golden"
    update = request.config.getoption("--update-golden")

    def compare(name: str, text: str) -> None:
        path = folder / f"{name}.txt"
        found = text.rstrip("\n") + "\n"
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found, encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"no golden text {path}: run with --update-golden and read it")
        expected = path.read_text(encoding="utf-8")
        if found != expected:
            difference = difflib.unified_diff(
                expected.splitlines(), found.splitlines(), str(path), "this run", lineterm=""
            )
            text_of_it = "\n".join(difference)
            pytest.fail(f"differs from its golden text (--update-golden accepts):\n{text_of_it}")

    return compare
