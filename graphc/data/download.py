"""Fetching a file into the cache: several mirrors, a checksum, an atomic last step."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphc.data.files import DataNotFoundError
from graphc.data.progress import Progress
from graphc.errors import DataError

_PIECE = 1 << 16
_TIMEOUT_SECONDS = 20


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A gzipped file that mirrors offer, known by what it unpacks to.

    Mirrors compress the same content differently, so the checksum is of the unpacked bytes.
    """

    name: str
    size: int
    sha256: str


def fetch(remote: RemoteFile, mirrors: Sequence[str], folder: Path) -> Path:
    """Download ``remote`` from the first mirror that gives the right bytes; return its path.

    The file appears in ``folder`` complete and checked, or not at all.

    Raises:
      DataNotFoundError: no mirror gave it; the message says what each one answered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for mirror in mirrors:
        url = mirror + remote.name
        try:
            return _fetch_from(url, remote, folder)
        except (OSError, zlib.error, DataError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            failures.append(f"  {url}: {reason}")
    raise DataNotFoundError(f"{remote.name} could not be downloaded:\n" + "\n".join(failures))


def _fetch_from(url: str, remote: RemoteFile, folder: Path) -> Path:
    handle, temporary = tempfile.mkstemp(prefix=remote.name + ".", suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "wb") as output:
            _copy_checked(url, remote, output.write)
        target = folder / remote.name
        os.replace(temporary, target)
        return target
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _copy_checked(url: str, remote: RemoteFile, write: Callable[[bytes], object]) -> None:
    digest = hashlib.sha256()
    unpacker = zlib.decompressobj(wbits=31)
    unpacked = 0
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
        length = int(response.headers.get("Content-Length") or 0) or None
        with Progress(length, label=remote.name, unit="B") as progress:
            while piece := response.read(_PIECE):
                write(piece)
                content = unpacker.decompress(piece, remote.size + 1 - unpacked)
                digest.update(content)
                unpacked += len(content)
                if unpacked > remote.size:
                    raise DataError(f"unpacks to more than the expected {remote.size} bytes")
                progress.update(len(piece))
    if digest.hexdigest() != remote.sha256:
        raise DataError(f"wrong SHA-256 {digest.hexdigest()}, expected {remote.sha256}")
