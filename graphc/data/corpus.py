"""Text as a row of characters, for character-level language models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graphc.data.files import ENVIRONMENT, DataNotFoundError, user_folders
from graphc.errors import DataError


@dataclass(frozen=True, eq=False)
class Text:
    """A text as numbers.

    Attributes:
      ids: for each character its place in the vocabulary, int32 of shape [N].
      vocabulary: the distinct characters in code-point order.
    """

    ids: NDArray[np.int32]
    vocabulary: str
    _places: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        places = {character: place for place, character in enumerate(self.vocabulary)}
        object.__setattr__(self, "_places", places)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"<Text of {len(self.ids)} characters, {len(self.vocabulary)} distinct>"

    def encode(self, string: str) -> NDArray[np.int32]:
        """The numbers of the characters of ``string``; DataError for one that is not known."""
        try:
            return np.array([self._places[character] for character in string], np.int32)
        except KeyError as error:
            raise DataError(f"the character {error} is not in the vocabulary") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The characters of the numbers ``ids``."""
        return "".join(self.vocabulary[place] for place in ids)


def text(path: str | PathLike[str] | None = None) -> Text:
    """Read a UTF-8 text file: ``path``, or ``tinyshakespeare/input.txt`` in ``GRAPHC_DATA``.

    Raises:
      DataNotFoundError: there is no such file.
      DataError: the file is empty or not UTF-8.

    Example:
      >>> import pathlib, tempfile, graphc as gc
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = pathlib.Path(folder, "a.txt")
      ...     _ = file.write_text("abba", encoding="utf-8")
      ...     gc.data.text(file).ids
      array([0, 1, 1, 0], dtype=int32)
    """
    folders = user_folders("tinyshakespeare")
    candidates = [Path(path)] if path is not None else [place / "input.txt" for place in folders]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        looked = " or ".join(map(str, candidates)) or f"{ENVIRONMENT}, which is not set"
        raise DataNotFoundError(f"no text file at {looked}")
    try:
        content = found.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{found}: not UTF-8 text: {error}") from error
    if not content:
        raise DataError(f"{found}: the file is empty")
    points, ids = np.unique(np.frombuffer(content.encode("utf-32-le"), "<u4"), return_inverse=True)
    return Text(ids.astype(np.int32), "".join(map(chr, points)))
