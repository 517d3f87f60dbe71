"""The arena: a block for every temporary; blocks of dead temporaries are used again."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.dims import DimLike
from graphc.program_steps import Loop, Publish, Slot, Step, slots_of, walk


def lifetimes(steps: Sequence[Step], slots: Sequence[Slot]) -> dict[int, tuple[int, int]]:
    """The first and the last step (in the order of the text) of each temporary.

    What a loop needs from before it is needed in every turn: it lives to the end of the loop.
    """
    found: dict[int, tuple[int, int]] = {}
    ends: dict[int, int] = {}
    order = list(walk(steps))
    place = {id(step): n for n, step in enumerate(order)}
    for step in order:
        if isinstance(step, Loop):
            inner = list(walk([*step.test, *step.body]))
            ends[place[id(step)]] = place[id(inner[-1])] if inner else place[id(step)]
    open_loops: list[tuple[int, int]] = []
    for n, step in enumerate(order):
        open_loops = [(a, b) for a, b in open_loops if b >= n]
        if isinstance(step, Loop):
            open_loops.append((n, ends[n]))
        for number in slots_of(step):
            if slots[number].kind != "temp":
                continue
            first = found.get(number, (n, n))[0]
            # What is published is copied behind the last step.
            end = len(order) if isinstance(step, Publish) else n
            last = max([end, *(b for a, b in open_loops if first <= a)])
            found[number] = (first, max(last, found.get(number, (0, 0))[1]))
    return found


def plan_arena(steps: Sequence[Step], slots: Sequence[Slot]) -> list[tuple[DimLike, int]]:
    """Give every temporary a block.

    Returns (size in elements, bytes per element) of each block.
    """
    lives = lifetimes(steps, slots)
    begin: dict[int, list[int]] = {}
    end: dict[int, list[int]] = {}
    for number, (first, last) in lives.items():
        begin.setdefault(first, []).append(number)
        end.setdefault(last, []).append(number)
    blocks = Blocks()
    for n in sorted({*begin, *end}):
        for number in begin.get(n, ()):
            slots[number].block = blocks.take(slots[number])
        blocks.free += [slots[number].block for number in end.get(n, ())]
    return blocks.sizes


class Blocks:
    """The blocks of an arena, each by its elements and their bytes, and which are free."""

    def __init__(self) -> None:
        self.sizes: list[tuple[DimLike, int]] = []
        self.free: list[int] = []
        self._bytes: list[DimLike] = []

    def take(self, slot: Slot) -> int:
        """The least free block that is surely large enough, else a new one."""
        need = slot.size * slot.dtype.size
        best, least = -1, 0
        for b in self.free:
            have = self._bytes[b]
            if isinstance(have, int) and isinstance(need, int):
                if have >= need and (best < 0 or have < least):
                    best, least = b, have
            elif best < 0 and have == need:
                best = b
        if best >= 0:
            self.free.remove(best)
            return best
        self.sizes.append((slot.size, slot.dtype.size))
        self._bytes.append(need)
        return len(self.sizes) - 1
