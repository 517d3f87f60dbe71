"""A progress bar for loops and downloads, on one line that is written again and again."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TextIO, TypeVar

Item = TypeVar("Item")

_SECONDS_BETWEEN_DRAWS = 0.1
_SECONDS_BETWEEN_LOG_LINES = 5.0
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class Progress:
    """How far a loop has come: a bar, the count, the time gone and left, the rate, and notes.

    It is silent where the stream is not a terminal, so that logs and pipes stay clean; with
    ``force`` it writes a line there every few seconds instead.

    Args:
      total: how many steps there are; None where nobody knows.
      label: what is being done.
      unit: what one step is; ``"B"`` counts bytes and prints MB.
      stream: where to write; standard error by default.
      force: write although the stream is not a terminal.

    Example:
      >>> with Progress(3, label="training") as progress:
      ...     for _ in range(3):
      ...         progress.update(loss=0.5)
    """

    def __init__(
        self,
        total: int | None = None,
        *,
        label: str = "",
        unit: str = "it",
        stream: TextIO | None = None,
        force: bool = False,
    ) -> None:
        self.total = total
        self.count = 0
        self._label = label
        self._unit = unit
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._visible = self._terminal or force
        self._notes: dict[str, object] = {}
        self._started = self._drawn = time.monotonic()
        self._drawn_width = 0
        self._tail_width = 0
        self._finished = False

    def update(self, steps: int = 1, **notes: object) -> None:
        """Count ``steps`` more; ``notes`` (a loss, say) are shown at the end of the line."""
        self.count += steps
        if notes:
            self._notes.update(notes)
        if not self._visible:
            return
        now = time.monotonic()
        pause = _SECONDS_BETWEEN_DRAWS if self._terminal else _SECONDS_BETWEEN_LOG_LINES
        if now - self._drawn >= pause:
            self._drawn = now
            self._draw(now)

    def close(self) -> None:
        """Draw the last state and end the line."""
        if self._visible and not self._finished:
            self._draw(time.monotonic())
            if self._terminal:
                self._stream.write("\n")
                self._stream.flush()
        self._finished = True

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def line(self, now: float, width: int) -> str:
        """The text of the bar at the moment ``now`` for a terminal of ``width`` columns."""
        elapsed = max(now - self._started, 1e-9)
        rate = self.count / elapsed
        known = self.total is not None and self.total > 0
        counted = self._amount(self.count) + (f"/{self._amount(self.total or 0)}" if known else "")
        left = f"<{_clock((self.total - self.count) / rate)}" if self.total and rate > 0 else ""
        timed = f"{_clock(elapsed)}{left}, {self._rate(rate)}"
        notes = "  ".join(f"{name} {_note(value)}" for name, value in self._notes.items())
        tail = f" {counted} [{timed}]" + (f"  {notes}" if notes else "")
        head = f"{self._label} " if self._label else ""
        if not known:
            return (head + tail.lstrip())[:width]
        fraction = min(self.count / (self.total or 1), 1.0)
        head += f"{fraction:4.0%} "
        # A tail that was once longer keeps its room, so that the bar does not jump about.
        self._tail_width = max(self._tail_width, len(tail))
        room = min(width - len(head) - self._tail_width, 40)
        return (head + (self._bar(fraction, room) if room >= 5 else "") + tail)[:width]

    def _draw(self, now: float) -> None:
        if not self._terminal:
            self._stream.write(self.line(now, 120) + "\n")
            self._stream.flush()
            return
        # The last column stays free: some terminals break the line there.
        line = self.line(now, shutil.get_terminal_size().columns - 1)
        self._stream.write("\r" + line + " " * (self._drawn_width - len(line)))
        self._stream.flush()
        self._drawn_width = len(line)

    def _bar(self, fraction: float, width: int) -> str:
        encoding = getattr(self._stream, "encoding", None) or "ascii"
        if not encoding.lower().replace("-", "").startswith("utf"):
            done = int(fraction * (width - 2))
            return "[" + "#" * done + "." * (width - 2 - done) + "]"
        eighths = int(fraction * (width - 2) * 8)
        full, part = divmod(eighths, 8)
        bar = "█" * full + (_EIGHTHS[part] if part else "")
        return "│" + bar.ljust(width - 2) + "│"

    def _amount(self, count: float) -> str:
        return f"{count / 1e6:.1f} MB" if self._unit == "B" else f"{count:.0f}"

    def _rate(self, rate: float) -> str:
        if self._unit == "B":
            return f"{rate / 1e6:.1f} MB/s"
        if 0 < rate < 1:
            return f"{1 / rate:.1f} s/{self._unit}"
        return f"{rate:.0f} {self._unit}/s" if rate >= 10 else f"{rate:.1f} {self._unit}/s"


def track(
    items: Iterable[Item],
    *,
    total: int | None = None,
    label: str = "",
    unit: str = "it",
    force: bool = False,
) -> Iterator[Item]:
    """Iterate over ``items`` with a progress bar.

    Example:
      >>> sum(track(range(4), label="adding"))
      6
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(total, label=label, unit=unit, force=force) as progress:
        for item in items:
            yield item
            progress.update()


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"


def _note(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
