"""The IDX format of the MNIST files: a magic number, sizes, and unsigned bytes.

Nothing is allocated from a number in the file: bytes are read in pieces until the count that the
header promises is reached, so that a hostile header costs no more than the file is long.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DataError

_UNSIGNED_BYTE = 0x08
_PIECE = 1 << 20


def read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """Read the ``rank``-dimensional array of unsigned bytes in ``path``, gzipped or plain.

    Raises:
      DataError: the file is truncated, too long, or of another kind than was asked for.
    """
    try:
        with path.open("rb") as plain:
            compressed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if not compressed:
                return _read(plain, path, rank)
            with gzip.GzipFile(fileobj=plain) as unpacked:
                return _read(unpacked, path, rank)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the gzip stream is truncated or damaged: {error}") from error


def _read(stream: BinaryIO | gzip.GzipFile, path: Path, rank: int) -> NDArray[np.uint8]:
    header_size = 4 + 4 * rank
    header = stream.read(header_size)
    if len(header) < header_size:
        raise DataError(
            f"{path}: truncated: an IDX header of {rank} dimension(s) has {header_size} bytes, "
            f"the file has {len(header)}"
        )
    magic, *shape = struct.unpack(f">{1 + rank}I", header)
    expected = _UNSIGNED_BYTE << 8 | rank
    if magic != expected:
        raise DataError(
            f"{path}: wrong magic number 0x{magic:08x}: an IDX file of unsigned bytes with {rank} "
            f"dimension(s) begins with 0x{expected:08x}"
        )
    size = math.prod(shape)
    content = bytearray()
    while len(content) <= size:
        piece = stream.read(min(_PIECE, size + 1 - len(content)))
        if not piece:
            break
        content += piece
    if len(content) != size:
        found = "more" if len(content) > size else f"{len(content)}"
        raise DataError(
            f"{path}: wrong length: the header says {tuple(shape)}, which is {size} bytes, "
            f"and there are {found}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)
