"""Handwritten digits: MNIST from the user's files, the cache or the network; 8x8 ones built in."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphc.data.download import RemoteFile, fetch
from graphc.data.files import ENVIRONMENT, DataNotFoundError, cache_folder, user_folders
from graphc.data.idx import read_idx
from graphc.errors import DataError

MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
MNIST_FILES = (
    RemoteFile(
        "train-images-idx3-ubyte.gz",
        47040016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    RemoteFile(
        "train-labels-idx1-ubyte.gz",
        60008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    RemoteFile(
        "t10k-images-idx3-ubyte.gz",
        7840016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    RemoteFile(
        "t10k-labels-idx1-ubyte.gz",
        10008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
_DIGITS_TEST_SIZE = 360


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one purpose with their labels.

    Attributes:
      images: unsigned bytes of shape [N, height, width].
      labels: the classes, int64 of shape [N].
      white: the value of a fully set pixel.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    white: int = 255

    def __len__(self) -> int:
        return len(self.labels)

    def as_float(self) -> NDArray[np.float32]:
        """The images as float32 in [0, 1] of shape [N, height, width, 1], what a network reads."""
        return self.images[..., np.newaxis].astype(np.float32) / np.float32(self.white)

    def one_hot(self, classes: int = 10) -> NDArray[np.float32]:
        """The labels as float32 rows of shape [N, classes] with a one at the class."""
        return np.eye(classes, dtype=np.float32)[self.labels]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named set of images: one split to train on and one to test with."""

    name: str
    train: Split
    test: Split

    def __repr__(self) -> str:
        height, width = self.train.images.shape[1:]
        return (
            f"<Dataset {self.name}: {len(self.train)} training and {len(self.test)} test images "
            f"of {height}x{width}>"
        )


def mnist(path: str | PathLike[str] | None = None, *, download: bool = True) -> Dataset:
    """MNIST: 60,000 training and 10,000 test images of 28x28 pixels.

    The four IDX files are read, gzipped or not, under either of their usual names
    (``train-images-idx3-ubyte`` and ``train-images.idx3-ubyte``), from the first of

    1. ``path``, a folder with the files or with a folder ``mnist`` that has them;
    2. the folder that the environment variable ``GRAPHC_DATA`` names, likewise;
    3. the cache, into which they are downloaded and checked when they are not there.

    Args:
      path: where to read; nothing else is tried when it is given.
      download: False to raise where a download would be needed.

    Raises:
      DataNotFoundError: the files are not to be had (also a ``FileNotFoundError``).
      DataError: a file is truncated or not what its name says (also a ``ValueError``).

    Example:
      >>> import graphc as gc
      >>> try:
      ...     gc.data.mnist("no/such/folder")
      ... except FileNotFoundError:
      ...     print("not there")
      not there
    """
    if path is not None:
        found = _find([Path(path), Path(path) / "mnist"])
        if found is None:
            raise DataNotFoundError(
                f"no MNIST files in {path} or its folder mnist: expected {_expected_names()}"
            )
        return _load("MNIST", found)
    found = _find(user_folders("mnist"))
    return _load("MNIST", found) if found is not None else _mnist_from_cache(download)


def digits() -> Dataset:
    """The UCI handwritten digits: 1,437 training and 360 test images of 8x8 pixels, built in.

    Pixels are from 0 to 16. The split is a fixed shuffle. Source: E. Alpaydin and C. Kaynak, UCI
    Machine Learning Repository, CC BY 4.0.

    Example:
      >>> import graphc as gc
      >>> gc.data.digits()
      <Dataset digits: 1437 training and 360 test images of 8x8>
    """
    folder = importlib.resources.files("graphc.data") / "builtin"
    with (
        importlib.resources.as_file(folder / "digits-images-idx3-ubyte.gz") as images_path,
        importlib.resources.as_file(folder / "digits-labels-idx1-ubyte.gz") as labels_path,
    ):
        images = read_idx(images_path, rank=3)
        labels = read_idx(labels_path, rank=1).astype(np.int64)
    # RandomState's streams are frozen: the same split with every version of NumPy.
    order = np.random.RandomState(0).permutation(len(labels))
    test, train = order[:_DIGITS_TEST_SIZE], order[_DIGITS_TEST_SIZE:]
    return Dataset(
        "digits", Split(images[train], labels[train], 16), Split(images[test], labels[test], 16)
    )


def _names(remote: RemoteFile) -> list[str]:
    plain = remote.name.removesuffix(".gz")
    dotted = plain.replace("-idx", ".idx")
    return [plain, dotted, plain + ".gz", dotted + ".gz"]


def _expected_names() -> str:
    return ", ".join(remote.name for remote in MNIST_FILES) + " (or without .gz)"


def _find(folders: Sequence[Path]) -> list[Path] | None:
    """The four files in the first folder that has any of them; None where no folder has."""
    for folder in folders:
        found = {
            remote.name: path
            for remote in MNIST_FILES
            for name in reversed(_names(remote))
            if (path := folder / name).is_file()
        }
        missing = [remote.name for remote in MNIST_FILES if remote.name not in found]
        if found and missing:
            raise DataNotFoundError(
                f"{folder} has {', '.join(path.name for path in found.values())} "
                f"but lacks {', '.join(missing)}"
            )
        if found:
            return [found[remote.name] for remote in MNIST_FILES]
    return None


def _mnist_from_cache(download: bool) -> Dataset:
    folder = cache_folder("mnist")
    paths = [folder / remote.name for remote in MNIST_FILES]
    if all(path.is_file() for path in paths):
        try:
            return _load("MNIST", paths)
        except DataError:
            if not download:
                raise
            for path in paths:
                path.unlink()
    advice = (
        f"Set {ENVIRONMENT} to a folder that has {_expected_names()}, "
        f"or use digits(), which needs no download."
    )
    if not download:
        raise DataNotFoundError(f"no MNIST files in {ENVIRONMENT} or {folder}. {advice}")
    for remote, path in zip(MNIST_FILES, paths, strict=True):
        if not path.is_file():
            try:
                fetch(remote, MIRRORS, folder)
            except DataNotFoundError as error:
                raise DataNotFoundError(f"{error}\n{advice}") from error
    return _load("MNIST", paths)


def _load(name: str, paths: Sequence[Path]) -> Dataset:
    train_images, train_labels, test_images, test_labels = paths
    return Dataset(name, _split(train_images, train_labels), _split(test_images, test_labels))


def _split(images_path: Path, labels_path: Path) -> Split:
    images = read_idx(images_path, rank=3)
    labels = read_idx(labels_path, rank=1)
    if images.shape[1:] != (28, 28):
        height, width = images.shape[1:]
        raise DataError(f"{images_path}: images of {height}x{width} pixels, expected 28x28")
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} has {len(images)} images and {labels_path} has {len(labels)} labels"
        )
    if len(labels) and labels.max() > 9:
        raise DataError(f"{labels_path}: a label of {labels.max()}, expected 0 to 9")
    return Split(images, labels.astype(np.int64))
