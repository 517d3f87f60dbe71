"""Where data files lie on this machine: the user's own folder, the cache, and the error if not."""

from __future__ import annotations

import os
from pathlib import Path

from graphc.errors import DataError

ENVIRONMENT = "GRAPHC_DATA"


class DataNotFoundError(DataError, FileNotFoundError):
    """A data set that is neither on this machine nor to be had from the network."""


def cache_folder(name: str) -> Path:
    """The folder for downloaded files of the data set ``name``; not created.

    It lies beside the compiled code: under ``GRAPHC_CACHE`` where that names a folder, else in
    ``graphc`` under the user's cache directory. (``off`` there turns off the cache of code only.)
    """
    chosen = os.environ.get("GRAPHC_CACHE", "")
    if chosen and chosen.lower() not in ("0", "off"):
        return Path(chosen).expanduser() / "data" / name
    shared = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    return base / "graphc" / "data" / name


def user_folders(name: str) -> list[Path]:
    """The folders in which ``GRAPHC_DATA`` lets the data set ``name`` be, nearest first."""
    chosen = os.environ.get(ENVIRONMENT)
    return [Path(chosen), Path(chosen) / name] if chosen else []
