"""A text becomes numbers and back; wrong files get clear errors."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.data import DataNotFoundError, text
from graphc.errors import DataError


def test_a_text_becomes_numbers_and_back(tmp_path):
    (tmp_path / "a.txt").write_bytes("über b\r\n€𝄞".encode())
    found = text(tmp_path / "a.txt")
    assert found.decode(found.ids) == "über b\r\n€𝄞"
    assert found.vocabulary == "".join(sorted(set("über b\r\n€𝄞")))
    assert found.ids.dtype == np.int32
    assert found.encode("reb").tolist() == [found.vocabulary.index(c) for c in "reb"]
    assert repr(found) == "<Text of 10 characters, 9 distinct>"
    with pytest.raises(DataError, match="'x' is not in the vocabulary"):
        found.encode("x")


def test_the_environment_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHC_DATA", str(tmp_path))
    with pytest.raises(DataNotFoundError, match="tinyshakespeare"):
        text()
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text("abc", encoding="utf-8")
    assert len(text()) == 3
    monkeypatch.delenv("GRAPHC_DATA")
    with pytest.raises(DataNotFoundError, match="GRAPHC_DATA, which is not set"):
        text()


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"\xff\xfe", "not UTF-8")])
def test_wrong_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        text(tmp_path / "a.txt")
