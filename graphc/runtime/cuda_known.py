"""What the host knows of a run on a device: few integers, computed here instead of read back.

Numbers of turns, conditions that depend on them and sizes decide which way a run goes.  Where they
are made of what the host knows, it computes them itself: a run waits for the device only where what
is decided depends on the device's results, and one that never does can be recorded.  What only the
host needs is not computed on the device at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from graphc.dims import DimLike, Symbol
from graphc.lower_host import FEW
from graphc.program import Call, Program

MOST_ROWS = 1024
"""Elements that are kept, at most, of a tensor with a row for each turn."""


class Known:
    """The slots of a run whose elements the host knows.

    Args:
      program: what is run.
      given: elements of inputs.

    Attributes:
      values: flat arrays, by slot.
      stale: those slots that are not what the device has in their memory.
      decided: the slots of inputs that something was decided by.
    """

    def __init__(self, program: Program, given: Mapping[int, np.ndarray]) -> None:
        self._slots = program.slots
        self.values: dict[int, np.ndarray] = {
            s.number: s.source.reshape(-1)
            for s in program.slots
            if s.kind == "const" and s.source.dtype.kind in "iub" and s.source.size <= FEW
        }
        self.values.update(given)
        self.stale: set[int] = set()
        self.decided: set[int] = set()
        self._from = {number: frozenset((number,)) for number in given}

    def told(self, step: Call, sizes: Mapping[Symbol, DimLike]) -> dict[int, np.ndarray]:
        """What the host can tell of a call's results, by slot."""
        part = step.lowered.host_part
        if not part.results:
            return {}
        pairs = list(zip(step.lowered.buffers, step.slots, strict=True))
        known = {t: self.values[n] for t, n in pairs if n in self.values}
        found = part.values(known, sizes)
        told = {n: found[t] for t, n in pairs if t in found}
        self._follow(told, [n for n in step.slots if n in self.values])
        return told

    def decide(self, number: int) -> np.ndarray | None:
        """The elements of a slot that something is decided by, if they are known."""
        value = self.values.get(number)
        if value is not None:
            self.decided |= self._from.get(number, frozenset())
        return value

    def _follow(self, targets: Iterable[int], sources: Iterable[int]) -> None:
        """What targets are depends on the inputs that sources do."""
        origin = frozenset[int]().union(*(self._from.get(n, frozenset()) for n in sources))
        for number in targets:
            self._from[number] = origin

    def keep(self, values: Mapping[int, np.ndarray], turns: Mapping[int, int]) -> bool:
        """Note what the host has computed and the device has not, if that can wait.

        Args:
          values: flat arrays, by slot.
          turns: the turns of loops, by the slots that count them.
        Returns:
          Whether it is noted; if not, the device has to compute it.
        """
        found = dict(values)
        for number, value in values.items():
            slot = self._slots[number]
            if slot.kind == "row":
                stack, count = slot.source
                rows = self._rows(stack, value, turns[count])
                if rows is None:
                    return False
                found[stack] = rows
                self._follow([stack], [stack, number])
            elif slot.kind not in ("temp", "grown", "output"):
                return False
        self.values.update(found)
        self.stale.update(n for n in found if self._slots[n].kind != "row")
        return True

    def written(self, slots: Sequence[int], told: Mapping[int, np.ndarray]) -> None:
        """The device has written to these slots, of some of which it is known what."""
        for number in slots:
            slot = self._slots[number]
            if slot.kind == "row":
                self.written([slot.source[0]], {})
            self.stale.discard(number)
            if number in told:
                self.values[number] = told[number]
            else:
                self.values.pop(number, None)

    def append(self, target: int, source: int, size: int, turn: int) -> bool:
        """Whether a turn's values and those of the turns before are known; if so, they are kept."""
        row = self.values.get(source)
        if row is None or row.size < size:
            return False
        rows = self._rows(target, row[:size], turn)
        self._follow([target], [target, source])
        return rows is not None and self.keep({target: rows}, {})

    def copied(self, target: int, source: int, size: int) -> dict[int, np.ndarray]:
        """What is known of a slot that gets another one's elements."""
        value = self.values.get(source)
        if value is None or value.size < size:
            return {}
        self._follow([target], [source])
        return {target: value[:size]}

    def _rows(self, stack: int, row: np.ndarray, turn: int) -> np.ndarray | None:
        """The values of all turns so far, if those before are known and they are few."""
        rows = self.values.get(stack) if turn else row[:0]
        if rows is None or rows.size != turn * row.size or (turn + 1) * row.size > MOST_ROWS:
            return None
        return np.concatenate([rows, row])

    def rotate(self, slots: Sequence[int]) -> None:
        """Each of these slots becomes the next one, and the last the first."""
        after = [*slots[1:], slots[0]]
        values = {a: self.values.pop(b) for a, b in zip(slots, after, strict=True)
                  if b in self.values}  # fmt: skip
        origins = {a: self._from.pop(b) for a, b in zip(slots, after, strict=True)
                   if b in self._from}  # fmt: skip
        stale = {a for a, b in zip(slots, after, strict=True) if b in self.stale}
        self.stale = self.stale.difference(slots) | stale
        self.values.update(values)
        self._from.update(origins)
