"""Log messages, under the names of ``tf.logging``: Python's logger ``graphc``, to stderr."""

from __future__ import annotations

import logging
import sys
from itertools import count
from typing import Any

DEBUG = logging.DEBUG
INFO = logging.INFO
WARN = logging.WARNING
ERROR = logging.ERROR
FATAL = logging.CRITICAL

_logger = logging.getLogger("graphc")
_counters: dict[Any, count[int]] = {}


class _ToStderr(logging.StreamHandler[Any]):
    """To what ``sys.stderr`` is when a message comes, and only where nobody else takes it."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            self.setStream(sys.stderr)
            super().emit(record)


_handler = _ToStderr()
_handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
_logger.addHandler(_handler)
_logger.setLevel(WARN)


def log(level: int, msg: str, *args: Any) -> None:
    """A message of a level; ``args`` are put in by ``%``."""
    _logger.log(level, msg, *args)


def debug(msg: str, *args: Any) -> None:
    """A message for whoever looks for a fault."""
    log(DEBUG, msg, *args)


def info(msg: str, *args: Any) -> None:
    """A message of progress."""
    log(INFO, msg, *args)


def warning(msg: str, *args: Any) -> None:
    """A message of something that may be wrong."""
    log(WARN, msg, *args)


warn = warning


def error(msg: str, *args: Any) -> None:
    """A message of something that is wrong."""
    log(ERROR, msg, *args)


def fatal(msg: str, *args: Any) -> None:
    """A message of something that nothing can go on after."""
    log(FATAL, msg, *args)


def vlog(level: int, msg: str, *args: Any) -> None:
    """A message of a level, as :func:`log`."""
    log(level, msg, *args)


def log_if(level: int, msg: str, condition: Any, *args: Any) -> None:
    """A message where a condition holds."""
    if condition:
        log(level, msg, *args)


def log_every_n(level: int, msg: str, n: int, *args: Any) -> None:
    """The first of every ``n`` calls with the same message."""
    log_if(level, msg, next(_counters.setdefault(msg, count())) % n == 0, *args)


def log_first_n(level: int, msg: str, n: int, *args: Any) -> None:
    """The first ``n`` calls with the same message."""
    log_if(level, msg, next(_counters.setdefault(msg, count())) < n, *args)


def flush() -> None:
    """Write out what is waiting."""
    _handler.flush()


def get_verbosity() -> int:
    """The least level whose messages are written; WARN at first."""
    return _logger.getEffectiveLevel()


def set_verbosity(v: int | str) -> None:
    """Write messages of level ``v`` and above."""
    _logger.setLevel(v)
