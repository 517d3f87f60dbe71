"""Object code on disk, found by the content that it was compiled from.

A cache is an optimization only: whatever the disk does, ``get`` answers
``None`` and ``put`` does nothing. Entries are machine code, so one is loaded
only if this user wrote it, nobody else can, and its checksum agrees.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["CacheStats", "ObjectCache", "cache_key", "default_cache"]

DEFAULT_LIMIT = 512 << 20

# magic, SHA-256 of (key, data), length of data
_HEADER = struct.Struct("<8s32sQ")
_MAGIC = b"graphco1"
_SUFFIX = ".o"
_TEMPORARY = ".tmp"
_STALE_SECONDS = 3600.0
_RESCAN_SECONDS = 86400
_SIZE_FILE = "size"
_KEEP = 0.8
_MOST_TRIES = 250  # of a millisecond each

# Held across fork, so that a child never inherits it locked.
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


@dataclass(frozen=True)
class CacheStats:
    """Counters of this process and what lies on the disk now."""

    hits: int
    misses: int
    stores: int
    damaged: int
    evicted: int
    entries: int
    bytes: int


def cache_key(payload: str, target: str, version: str) -> str:
    """The name of what ``payload`` compiles to for ``target`` by compiler ``version``."""
    digest = hashlib.sha256()
    for part in (payload, target, version):
        text = part.encode()
        digest.update(len(text).to_bytes(8, "little"))
        digest.update(text)
    return digest.hexdigest()


def _checksum(key: str, data: bytes) -> bytes:
    # The key is part of it: an intact entry under another's name is damage too.
    return hashlib.sha256(key.encode() + data).digest()


class ObjectCache:
    """A directory of objects, bounded in size; shared by threads and processes.

    ``directory`` of ``None`` makes a cache that never holds anything.
    """

    def __init__(self, directory: Path | None, limit: int = DEFAULT_LIMIT) -> None:
        self.directory = directory
        self.limit = limit
        self._counts = dict.fromkeys(("hits", "misses", "stores", "damaged", "evicted"), 0)

    def get(self, key: str) -> bytes | None:
        """The object stored under ``key``, or ``None``."""
        data = self._read(key)
        self._count("misses" if data is None else "hits")
        return data

    def put(self, key: str, data: bytes) -> None:
        """Store an object; makes room by dropping what was used least recently."""
        if self.directory is None or len(data) + _HEADER.size > self.limit:
            return
        with contextlib.suppress(OSError):
            self._write(self.directory, key, data)
            self._count("stores")
            self._bound(self.directory, len(data) + _HEADER.size)

    def fetch(self, payload: str, target: str, version: str, build: Callable[[], bytes]) -> bytes:
        """The object for these three, built and stored unless it is there."""
        key = cache_key(payload, target, version)
        data = self.get(key)
        if data is None:
            data = build()
            self.put(key, data)
        return data

    def stats(self) -> CacheStats:
        """Counters of this process and what lies on the disk now."""
        sizes = [status.st_size for _, status in self._entries()]
        with _lock:
            return CacheStats(**self._counts, entries=len(sizes), bytes=sum(sizes))

    def clear(self) -> None:
        """Delete every entry."""
        for path, _ in self._entries():
            with contextlib.suppress(OSError):
                path.unlink()
        if self.directory is not None:
            with contextlib.suppress(OSError):
                (self.directory / _SIZE_FILE).unlink()

    def _count(self, name: str) -> None:
        with _lock:
            self._counts[name] += 1

    def _path(self, directory: Path, key: str) -> Path:
        return directory / (key + _SUFFIX)

    def _read(self, key: str) -> bytes | None:
        if self.directory is None:
            return None
        path = self._path(self.directory, key)
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            with open(os.open(path, flags), "rb") as file:
                if not _is_ours(os.fstat(file.fileno())):
                    return None
                content = file.read()
                data = _checked(key, content)
                if data is not None:
                    with contextlib.suppress(OSError):
                        os.utime(file.fileno() if os.utime in os.supports_fd else path)
                    return data
        except OSError:
            return None
        self._count("damaged")
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def _write(self, directory: Path, key: str, data: bytes) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = directory / f".{os.getpid()}-{secrets.token_hex(8)}{_TEMPORARY}"
        header = _HEADER.pack(_MAGIC, _checksum(key, data), len(data))
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(header + data)
            os.replace(temporary, self._path(directory, key))
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def _bound(self, directory: Path, added: int) -> None:
        """Evict when the directory may have outgrown the limit.

        The size is kept in a file, for looking at many entries takes long.  It may be too large,
        for entries are replaced; an apparent overflow or a day's age triggers a scan that makes it
        exact again.
        """
        with _alone(directory), _lock:
            noted = self._noted(directory)
            if noted is not None:
                size, scanned = noted
                size += added
                if size <= self.limit and 0 <= time.time() - scanned < _RESCAN_SECONDS:
                    self._note(directory, size, scanned)
                    return
            entries = sorted(self._entries(), key=lambda entry: entry[1].st_mtime)
            size = sum(status.st_size for _, status in entries)
            if size > self.limit:
                for path, status in entries:
                    if size <= self.limit * _KEEP:
                        break
                    # Another process may have been quicker: the room is there all the same.
                    with contextlib.suppress(FileNotFoundError):
                        path.unlink()
                        self._counts["evicted"] += 1
                    size -= status.st_size
                _drop_stale(directory)
            self._note(directory, size, int(time.time()))

    def _noted(self, directory: Path) -> tuple[int, int] | None:
        """The size that was written down, and when it was exact."""
        try:
            size, scanned = (directory / _SIZE_FILE).read_bytes().split()
            return int(size), int(scanned)
        except (OSError, ValueError):
            return None

    def _note(self, directory: Path, size: int, scanned: int) -> None:
        (directory / _SIZE_FILE).write_bytes(b"%d %d" % (size, scanned))

    def _entries(self) -> Iterator[tuple[Path, os.stat_result]]:
        if self.directory is not None:
            yield from _scan(self.directory, _SUFFIX)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep others from the note of the size meanwhile; not from what a stopped process has."""
    descriptor = -1
    with contextlib.suppress(OSError):
        descriptor = os.open(directory / _SIZE_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for _ in range(_MOST_TRIES):
            if descriptor < 0 or _locked(descriptor):
                break
            time.sleep(0.001)
        yield
    finally:
        if descriptor >= 0:
            _unlock(descriptor)
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Whether nobody else has the file's lock now, where there are such locks."""
    if sys.platform == "win32":
        return True  # processes that write at once lose some of the size until the next scan
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True


def _unlock(descriptor: int) -> None:
    """Give up the lock; to close the file is not enough while a fork has it open, too."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _scan(directory: Path, suffix: str) -> Iterator[tuple[Path, os.stat_result]]:
    with contextlib.suppress(OSError), os.scandir(directory) as found:
        for entry in found:
            if entry.name.endswith(suffix):
                with contextlib.suppress(FileNotFoundError):
                    yield Path(entry.path), entry.stat(follow_symlinks=False)


def _drop_stale(directory: Path) -> None:
    """Remove what writers left behind that died before they could rename."""
    before = time.time() - _STALE_SECONDS
    for path, status in _scan(directory, _TEMPORARY):
        if status.st_mtime < before:
            with contextlib.suppress(OSError):
                path.unlink()


def _is_ours(status: os.stat_result) -> bool:
    if not stat.S_ISREG(status.st_mode):
        return False
    if not hasattr(os, "geteuid"):
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _checked(key: str, content: bytes) -> bytes | None:
    if len(content) < _HEADER.size:
        return None
    magic, checksum, length = _HEADER.unpack_from(content)
    data = content[_HEADER.size :]
    if magic != _MAGIC or length != len(data) or checksum != _checksum(key, data):
        return None
    return data


def default_cache() -> ObjectCache:
    """The cache that ``GRAPHC_CACHE`` and ``GRAPHC_CACHE_SIZE`` (bytes) describe now."""
    return _cache_for(
        os.environ.get("GRAPHC_CACHE", ""),
        os.environ.get("XDG_CACHE_HOME", ""),
        os.environ.get("GRAPHC_CACHE_SIZE", ""),
    )


@functools.cache
def _cache_for(choice: str, xdg: str, size: str) -> ObjectCache:
    if choice.lower() in ("0", "off"):
        return ObjectCache(None)
    try:
        limit = int(size) if size else DEFAULT_LIMIT
    except ValueError:
        raise ValueError(f"GRAPHC_CACHE_SIZE={size!r} is not a number of bytes") from None
    if choice:
        return ObjectCache(Path(choice).expanduser(), limit)
    # The XDG specification says to ignore a relative path.
    base = Path(xdg) if os.path.isabs(xdg) else _home_cache()
    return ObjectCache(base / "graphc" if base else None, limit)


def _home_cache() -> Path | None:
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        return None
