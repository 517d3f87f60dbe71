"""How files are written: in one step, for any safetensors reader, with the right permissions."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import graphc as gc
from graphc import dtypes
from graphc.errors import FileFormatError
from graphc.formats import load, safetensors, save


def test_any_safetensors_reader_opens_a_model(small):
    with safe_open(small, "np") as file:
        assert set(file.keys()) >= {"variable:w", "constant:w/initial_value"}
        np.testing.assert_array_equal(file.get_tensor("variable:w"), [[1, 2], [3, 4]])
        assert file.metadata()["format"] == "graphc"
        assert file.metadata()["graphc"].startswith('{"format_version":1,')


def test_arrays_of_every_dtype_are_exchanged(tmp_path):
    arrays = {}
    for t in dtypes.ALL:
        for shape in ((), (3,), (0, 2), (2, 3)):
            count = int(np.prod(shape))
            value = np.arange(count).astype(t.numpy).reshape(shape)
            arrays[f"{t.name}{shape}"] = value
    arrays["strided"] = np.arange(12).reshape(3, 4)[::2, ::-1]
    arrays["big endian"] = np.arange(3, dtype=">i4")
    safetensors.write(tmp_path / "ours", arrays, {"a": "b"})
    found, metadata = safetensors.read(tmp_path / "ours")
    theirs = load_file(tmp_path / "ours")
    assert metadata == {"a": "b"}
    assert found.keys() == theirs.keys() == arrays.keys()
    for name, value in arrays.items():
        for other in (found[name], theirs[name]):
            assert other.shape == value.shape
            assert other.dtype == value.dtype.newbyteorder("=")
            np.testing.assert_array_equal(other, value)
        assert found[name].ctypes.data % 64 == 0 or not value.size
        assert not found[name].flags.writeable
    save_file(theirs, tmp_path / "theirs", {"c": "d"})
    again, metadata = safetensors.read(tmp_path / "theirs")
    assert metadata == {"c": "d"}
    assert again.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(again[name], value)


def test_tensors_are_aligned_in_the_file(tmp_path):
    arrays = {"a": np.array([True]), "b": np.ones(1, np.float64), "c": np.ones(1, np.float16)}
    safetensors.write(tmp_path / "m", arrays, {})
    content = (tmp_path / "m").read_bytes()
    assert (8 + int.from_bytes(content[:8], "little")) % 8 == 0
    assert content[-11:-3] == np.ones(1, np.float64).tobytes()


def test_what_a_container_cannot_hold(tmp_path, monkeypatch):
    for array in (np.array(["a"]), np.array([1j]), np.array([None])):
        with pytest.raises(FileFormatError, match=r"x: arrays of .* cannot be saved"):
            safetensors.write(tmp_path / "m", {"x": array}, {})
    with pytest.raises(FileFormatError, match="__metadata__"):
        safetensors.write(tmp_path / "m", {"__metadata__": np.ones(1)}, {})
    monkeypatch.setattr(safetensors, "MAX_HEADER", 100)
    with pytest.raises(FileFormatError, match="is the most that a safetensors header can hold"):
        safetensors.write(tmp_path / "m", {}, {"a": "b" * 100})
    assert os.listdir(tmp_path) == []


KILLED = """
import os, signal, sys
import numpy as np
from graphc.formats import safetensors
def die(*args): os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], die)
safetensors.write(sys.argv[1], {"new": np.ones(1000)}, {})
"""


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_killed_writer_leaves_the_old_file(moment, small):
    before = small.read_bytes()
    root = Path(gc.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", KILLED, small, moment], cwd=root, check=False)
    assert done.returncode == -9
    assert small.read_bytes() == before
    load(small)


def test_a_failing_writer_leaves_nothing_behind(small, monkeypatch):
    before = small.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        safetensors.write(small, {"new": np.ones(1000)}, {})
    assert small.read_bytes() == before
    assert os.listdir(small.parent) == [small.name]


def test_permissions(tmp_path):
    path = tmp_path / "m"
    old = os.umask(0o027)
    try:
        safetensors.write(path, {}, {})
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        safetensors.write(path, {}, {})
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(old)


def test_links_are_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "m")
    safetensors.write(tmp_path / "link", {}, {"a": "b"})
    assert (tmp_path / "link").is_symlink()
    assert safetensors.read(tmp_path / "there" / "m")[1] == {"a": "b"}


def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null", tmp_path):
        with pytest.raises(FileFormatError, match="is not a regular file"):
            safetensors.write(path, {}, {})
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(FileNotFoundError):
        safetensors.write(tmp_path / "nowhere" / "m", {}, {})


def test_a_relative_path_and_a_long_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = gc.placeholder(gc.float32, [2], name="x")
    for name in ("m.graphc", "n" * 250):
        save(name, gc.Session(), x, gc.identity(x, name="y"))
        np.testing.assert_array_equal(load(name)([1, 2]), [1, 2])
    assert sorted(os.listdir(tmp_path)) == ["m.graphc", "n" * 250]
