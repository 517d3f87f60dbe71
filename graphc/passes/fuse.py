"""Fusion: which tensors are stored, and which operations share a kernel.

Two steps.  First, every elementwise tensor is either *inlined* (computed again wherever it is
used) or *stored*.  Second, operations that are stored become groups, and groups are merged where
one loop nest can compute both: elementwise siblings and chains over one domain, reductions of one
frame, rows (softmax, layer norm: reductions over trailing axes and what follows them on the same
row), and elementwise epilogues of templates.

Legality is never guessed from op names: the pass asks each op for the elements it reads
(:func:`trace`) and merges only if those are the elements that the same iteration computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.function import Function
from graphc.graph import Tensor
from graphc.passes.grouping import Grouper
from graphc.passes.inline import Inliner
from graphc.passes.plan import Group, Plan


class Merger:
    """Joins groups, pair by pair, while their order stays one in which they can be run.

    Attributes:
      groups: what is left, in an order of execution.
      reads: the storage that each group reads.
      sources: the groups that compute what each group reads.
    """

    def __init__(self, grouper: Grouper, groups: Sequence[Group]) -> None:
        self.grouper = grouper
        self.groups = list(groups)
        self.reads = {g: grouper.group_reads(g) for g in groups}
        owner = {t: g for g in groups for t in g.tensors}
        self.sources = {g: {owner[t] for t in self.reads[g] if t in owner} for g in groups}
        self.place = {g: k for k, g in enumerate(self.groups)}
        self.refused: set[tuple[Group, Group]] = set()

    def run(self) -> list[Group]:
        """The groups when no two can be joined any more."""
        changed = True
        while changed:
            changed = False
            j = 0
            while j < len(self.groups):
                at = self.join_at(j)
                changed = changed or at is not None
                # The joined group may be joined again with what it reads.
                j = j + 1 if at is None else at
        return self.groups

    def join_at(self, j: int) -> int | None:
        """Join group ``j`` with one before it; the place of the joined group."""
        second = self.groups[j]
        for first in self.candidates(j):
            if (first, second) in self.refused:
                continue
            merged = None
            if not self.between(first, second) and not self.grouper.bound_within(first, second):
                merged = self.grouper.merge(first, second)
            if merged is not None:
                return self.replace(first, second, merged)
            self.refused.add((first, second))
        return None

    def candidates(self, j: int) -> Iterable[Group]:
        """Groups that group ``j`` may join: its producers, then siblings that read the same."""
        second = self.groups[j]
        producers = self.sources[second]
        yield from sorted(producers, key=self.place.__getitem__, reverse=True)
        if second.template is not None:
            return
        reads = self.reads[second]
        for first in self.groups[j - 1 :: -1] if j else ():
            if first.frame != second.frame or first.reduced != second.reduced:
                continue
            if first.template is None and first not in producers and reads & self.reads[first]:
                yield first

    def between(self, first: Group, second: Group) -> bool:
        """Whether ``second`` depends on ``first`` through some third group."""
        least = self.place[first]
        stack = [g for g in self.sources[second] if g is not first]
        seen: set[Group] = set()
        while stack:
            group = stack.pop()
            if group is first:
                return True
            if group not in seen and self.place[group] > least:
                seen.add(group)
                stack.extend(self.sources[group])
        return False

    def replace(self, first: Group, second: Group, merged: Group) -> int:
        """Put the joined group where both can run; what depends on it goes behind."""
        start, end = self.place[first], self.place[second]
        ahead: list[Group] = []
        behind: list[Group] = []
        later = {first}
        for group in self.groups[start + 1 : end]:
            if not later.isdisjoint(self.sources[group]):
                later.add(group)
                behind.append(group)
            else:
                ahead.append(group)
        self.groups[start : end + 1] = [*ahead, merged, *behind]
        self.place = {g: k for k, g in enumerate(self.groups)}
        tensors = set(merged.tensors)
        self.reads[merged] = (self.reads.pop(first) | self.reads.pop(second)) - tensors
        pair = {first, second}
        self.sources[merged] = (self.sources.pop(first) | self.sources.pop(second)) - pair
        for sources in self.sources.values():
            if not sources.isdisjoint(pair):
                sources -= pair
                sources.add(merged)
        return start + len(ahead)


class Fuser:
    """One run of the pass; see the module's text."""

    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self.inliner = Inliner(fn)
        self.grouper = Grouper(self.inliner)

    def run(self) -> Plan:
        """What is stored, and which operations share a kernel."""
        self.inliner.decide()
        merger = Merger(self.grouper, self.grouper.initial_groups())
        groups = merger.run()
        groups = self.trimmed(groups, merger.reads)
        return Plan(groups, self.inliner.inlined, self.inliner.aliases)

    def trimmed(self, groups: Sequence[Group], reads: dict[Group, set[Tensor]]) -> list[Group]:
        """The groups that are needed, each storing what others need of it."""
        root = self.inliner.root
        needed = {root(t) for t in self.inliner.results}
        failing = {self.inliner.checked(t) for op in self.fn.operations
                   if op.definition.can_fail(op) for t in op.outputs}  # fmt: skip
        kept = []
        for group in reversed(groups):
            outputs = list(dict.fromkeys(group.outputs))
            wanted = {t for t in outputs if t in needed}
            for t in reversed(outputs):
                if t in failing and t not in self.computed_for(group, wanted):
                    wanted.add(t)
            group.outputs = [t for t in outputs if t in wanted]
            if group.outputs:
                needed |= reads[group]
                kept.append(group)
        return kept[::-1]

    def computed_for(self, group: Group, wanted: Iterable[Tensor]) -> set[Tensor]:
        """What of a group is computed wherever it would be stored, since this depends on it."""
        found = set(wanted)
        if group.template is not None:
            return found
        roles = {m.tensor: "row" if m.role == "row" else "point" for m in group.members}
        sums = {m.tensor for m in group.members if m.role == "reduce"}
        stack = [t for t in found if t in roles]
        while stack:
            t = stack.pop()
            for read in self.inliner.surely(t):
                # Of a row that has no elements what is computed once for it would be computed, too.
                level = "row" if read in sums else roles.get(read)
                if read not in found and level == roles[t]:
                    found.add(read)
                    stack.append(read)
        return found


def fuse(fn: Function) -> Plan:
    """Decide what is stored and which operations share a kernel."""
    return Fuser(fn).run()
