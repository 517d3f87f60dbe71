"""The wheel and the source archive are complete: a user gets what the repository has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

NEEDED = (
    "graphc/__init__.py",
    "graphc/kernels/__init__.py",
    "graphc/data/builtin/digits-images-idx3-ubyte.gz",
    "graphc/data/builtin/digits-labels-idx1-ubyte.gz",
    "graphc/data/builtin/digits.txt",
)
LEFT_OUT = (".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", "out")


def shipped(root: Path) -> set[str]:
    """The files of the package in the repository, kernels through the symlink."""
    found = set()
    for folder, _, names in os.walk(root / "graphc", followlinks=True):
        for name in names:
            if name.endswith((".py", ".ll", ".gz", ".txt", ".typed")):
                found.add((Path(folder) / name).relative_to(root).as_posix())
    return found


def test_kernels_is_a_symlink_that_git_can_carry(root):
    assert os.readlink(root / "graphc" / "kernels") == "../kernels"
    assert set(NEEDED) <= shipped(root)


@pytest.fixture(scope="module")
def built(root, tmp_path_factory) -> Path:
    """A folder with the archives that `python -m build` makes of a copy of the repository."""
    folder = tmp_path_factory.mktemp("build")
    copy = folder / "source"
    shutil.copytree(root, copy, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(copy)],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return folder / "dist"


@pytest.mark.slow
def test_the_wheel_is_complete(root, built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert sorted(shipped(root) - names) == []
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"graphc"}


@pytest.mark.slow
def test_the_source_archive_is_complete(root, built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sorted(shipped(root) - names) == []
    assert {"pyproject.toml", "LICENSE", "README.md"} <= names


@pytest.mark.slow
def test_the_wheel_works_away_from_the_repository(built, tmp_path):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import graphc.data, graphc.kernels\n"
        "print(graphc.__file__, graphc.data.digits())"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", script],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.startswith(str(tmp_path))
    assert "1437 training" in run.stdout
