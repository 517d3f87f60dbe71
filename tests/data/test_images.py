"""MNIST is read from wherever it lies, and wrong files get clear errors; the digits are there."""

from __future__ import annotations

import gzip
import hashlib
import struct

import numpy as np
import pytest

from graphc.data import DataNotFoundError, digits, download, images, mnist
from graphc.data.idx import read_idx
from graphc.errors import DataError, GraphcError


def idx(array, magic=None):
    magic = 0x800 | array.ndim if magic is None else magic
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def small_mnist():
    """The contents of four small files, by their usual names without .gz."""
    numbers = np.random.RandomState(0)
    contents = {}
    for prefix, count in (("train", 6), ("t10k", 4)):
        pixels = numbers.randint(0, 256, (count, 28, 28)).astype(np.uint8)
        contents[f"{prefix}-images-idx3-ubyte"] = idx(pixels)
        contents[f"{prefix}-labels-idx1-ubyte"] = idx(np.arange(count, dtype=np.uint8))
    return contents


@pytest.fixture
def contents():
    return small_mnist()


@pytest.fixture
def folder(tmp_path, contents):
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No data of the user's, an empty cache, no network."""
    monkeypatch.delenv("GRAPHC_DATA", raising=False)
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "MIRRORS", ((tmp_path / "no-mirror").as_uri() + "/",))
    return tmp_path / "cache" / "data" / "mnist"


@pytest.fixture
def mirror(tmp_path, monkeypatch, contents, nowhere):
    """A mirror that offers the small files, after one that offers nothing."""
    served = tmp_path / "mirror"
    served.mkdir()
    remotes = []
    for name, content in contents.items():
        (served / f"{name}.gz").write_bytes(gzip.compress(content))
        digest = hashlib.sha256(content).hexdigest()
        remotes.append(download.RemoteFile(f"{name}.gz", len(content), digest))
    monkeypatch.setattr(images, "MNIST_FILES", tuple(remotes))
    monkeypatch.setattr(images, "MIRRORS", (*images.MIRRORS, served.as_uri() + "/"))
    return served


def check_small(dataset):
    assert dataset.train.images.shape == (6, 28, 28)
    assert dataset.train.images.dtype == np.uint8
    assert dataset.test.labels.tolist() == [0, 1, 2, 3]
    assert dataset.test.labels.dtype == np.int64
    assert len(dataset.test) == 4
    assert repr(dataset) == "<Dataset MNIST: 6 training and 4 test images of 28x28>"


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_all_names_are_read_from_an_argument(tmp_path, contents, dotted, packed, nested):
    place = tmp_path / "mnist" if nested else tmp_path
    place.mkdir(exist_ok=True)
    for name, content in contents.items():
        stored = name.replace("-idx", ".idx") if dotted else name
        if packed:
            stored, content = stored + ".gz", gzip.compress(content)
        (place / stored).write_bytes(content)
    check_small(mnist(tmp_path))
    check_small(mnist(str(tmp_path)))


@pytest.mark.parametrize("nested", [False, True])
def test_the_environment_is_read(folder, nowhere, monkeypatch, nested):
    if nested:
        (folder / "mnist").mkdir()
        for path in list(folder.glob("*-ubyte")):
            path.rename(folder / "mnist" / path.name)
    monkeypatch.setenv("GRAPHC_DATA", str(folder))
    check_small(mnist(download=False))


def test_an_argument_is_the_only_place_that_is_tried(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHC_DATA", str(folder))
    with pytest.raises(DataNotFoundError, match="train-images-idx3-ubyte"):
        mnist(tmp_path / "elsewhere")


def test_the_errors_are_of_both_kinds(nowhere):
    with pytest.raises(FileNotFoundError, match=r"GRAPHC_DATA.*digits\(\)") as caught:
        mnist(download=False)
    assert isinstance(caught.value, GraphcError)
    assert isinstance(caught.value, ValueError)
    assert not nowhere.exists()


def test_a_folder_with_some_of_the_files_is_refused(folder):
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataNotFoundError, match=r"lacks t10k-labels-idx1-ubyte\.gz"):
        mnist(folder)


def cut(content):
    return content[:-1]


def longer(content):
    return content + b"\0"


def cut_header(content):
    return content[:9]


def other_magic(content):
    return b"\0\0\x0d\x03" + content[4:]


def hostile_count(content):
    return content[:4] + b"\xff" * 12 + content[16:]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, "wrong length"),
        (longer, "wrong length"),
        (cut_header, "truncated"),
        (other_magic, "wrong magic number 0x00000d03.*0x00000803"),
        (hostile_count, "wrong length"),
        (lambda content: b"", "truncated"),
    ],
)
def test_wrong_files_are_refused(folder, packed, change, message):
    path = folder / "train-images-idx3-ubyte"
    content = change(path.read_bytes())
    path.unlink()
    target = folder / (path.name + ".gz") if packed else path
    target.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=f"train-images.*{message}"):
        mnist(folder)


@pytest.mark.parametrize(
    "damage", [lambda packed: packed[:-20], lambda packed: packed[:-8] + b"8 bytes."]
)
def test_a_damaged_gzip_stream_is_refused(folder, contents, damage):
    name = "train-images-idx3-ubyte"
    (folder / name).unlink()
    (folder / f"{name}.gz").write_bytes(damage(gzip.compress(contents[name])))
    with pytest.raises(DataError, match="truncated or damaged"):
        mnist(folder)


def test_contents_that_do_not_belong_together_are_refused(folder):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(DataError, match=r"6 images.*5 labels"):
        mnist(folder)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.full(6, 10, np.uint8)))
    with pytest.raises(DataError, match="a label of 10"):
        mnist(folder)
    (folder / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((6, 8, 8), np.uint8)))
    with pytest.raises(DataError, match="images of 8x8 pixels, expected 28x28"):
        mnist(folder)


def test_a_download_fills_the_cache_once(mirror, nowhere, monkeypatch):
    check_small(mnist())
    assert sorted(path.name for path in nowhere.iterdir()) == sorted(
        path.name for path in mirror.iterdir()
    )
    monkeypatch.setattr(images, "MIRRORS", ())
    check_small(mnist())
    check_small(mnist(download=False))


def test_a_damaged_cache_is_downloaded_again(mirror, nowhere):
    mnist()
    broken = nowhere / "train-labels-idx1-ubyte.gz"
    broken.write_bytes(broken.read_bytes()[:-3])
    with pytest.raises(DataError, match="truncated"):
        mnist(download=False)
    check_small(mnist())


def test_a_download_with_wrong_bytes_is_refused(mirror, nowhere):
    other = gzip.compress(idx(np.ones((6, 28, 28), np.uint8)))
    (mirror / "train-images-idx3-ubyte.gz").write_bytes(other)
    with pytest.raises(DataNotFoundError, match=r"wrong SHA-256.*\n.*GRAPHC_DATA"):
        mnist()
    assert list(nowhere.iterdir()) == []


def test_a_download_that_unpacks_without_end_is_stopped(mirror, nowhere):
    (mirror / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(1 << 20)))
    with pytest.raises(DataNotFoundError, match="more than the expected 4720 bytes"):
        mnist()
    assert list(nowhere.iterdir()) == []


def test_a_download_that_is_cut_off_is_refused(mirror, nowhere):
    served = mirror / "train-images-idx3-ubyte.gz"
    served.write_bytes(served.read_bytes()[:-100])
    with pytest.raises(DataNotFoundError, match="wrong SHA-256"):
        mnist()


def test_no_mirror_says_what_each_answered(nowhere):
    with pytest.raises(DataNotFoundError, match=r"could not be downloaded:\n  file:.*no-mirror"):
        mnist()


def test_the_digits():
    first, second = digits(), digits()
    assert first.train.images.shape == (1437, 8, 8)
    assert first.test.images.shape == (360, 8, 8)
    assert first.train.images.max() == first.train.white == 16
    np.testing.assert_array_equal(first.test.images, second.test.images)
    # The counts of the data set's own description.
    labels = np.concatenate([first.train.labels, first.test.labels])
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert first.test.labels[:5].tolist() == second.test.labels[:5].tolist()
    assert np.bincount(first.test.labels).min() > 20


def test_floats_and_one_hot(digits):
    pixels = digits.test.as_float()
    assert pixels.shape == (360, 8, 8, 1)
    assert pixels.dtype == np.float32
    assert pixels.min() == 0
    assert pixels.max() == 1
    rows = digits.test.one_hot()
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows.argmax(axis=1), digits.test.labels)
    assert rows.sum() == 360


@pytest.mark.mnist
def test_the_real_mnist(mnist):
    assert mnist.train.images.shape == (60000, 28, 28)
    assert mnist.test.images.shape == (10000, 28, 28)
    assert np.bincount(mnist.train.labels)[:3].tolist() == [5923, 6742, 5958]


@pytest.mark.mnist
def test_the_checksums_are_those_of_the_real_files(mnist):
    arrays = {
        "train-images-idx3-ubyte.gz": mnist.train.images,
        "train-labels-idx1-ubyte.gz": mnist.train.labels.astype(np.uint8),
        "t10k-images-idx3-ubyte.gz": mnist.test.images,
        "t10k-labels-idx1-ubyte.gz": mnist.test.labels.astype(np.uint8),
    }
    for remote in images.MNIST_FILES:
        content = idx(arrays[remote.name])
        assert len(content) == remote.size
        assert hashlib.sha256(content).hexdigest() == remote.sha256


def test_an_idx_file_may_be_empty(tmp_path):
    (tmp_path / "none").write_bytes(idx(np.zeros((0, 3), np.uint8)))
    assert read_idx(tmp_path / "none", rank=2).shape == (0, 3)
