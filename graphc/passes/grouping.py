"""Groups: operations that one loop nest computes, and when two groups can be one."""

from __future__ import annotations

from graphc import dims
from graphc.function import Function
from graphc.graph import Operation, Tensor
from graphc.loop.ir import ZERO, Expr
from graphc.op import ContractionOp, ElementOp, ReductionOp, TemplateOp
from graphc.ops.host import calls_host
from graphc.passes.basic import symbols_in
from graphc.passes.inline import Inliner
from graphc.passes.plan import Group, Member, only_unit_dims

MAX_ROW = 1 << 16

Place = tuple[int | None, ...]


class Grouper:
    """Makes and joins groups over what an :class:`Inliner` has decided to store."""

    def __init__(self, inliner: Inliner) -> None:
        self.inliner = inliner
        self.binders = inliner.fn.binders()
        self.after = run_after(inliner.fn)

    def initial_groups(self) -> list[Group]:
        """One group per stored operation."""
        groups = []
        for op in self.inliner.fn.operations:
            if isinstance(op.definition, TemplateOp):
                sizes = op.outputs[0].sizes
                assert sizes is not None
                groups.append(Group(sizes, (), [], op, list(op.outputs)))
            elif "bodies" in op.attrs or op.type == "Host":
                groups.append(Group((), (), [], op, list(op.outputs)))
            elif isinstance(op.definition, (ElementOp, ReductionOp)):
                elsewhere = (self.inliner.inlined, self.inliner.aliases)
                stored = [t for t in op.outputs if not any(t in found for found in elsewhere)]
                groups += map(self.group_of, stored)
        return groups

    def group_of(self, tensor: Tensor) -> Group:
        """The group of one tensor."""
        sizes = tensor.sizes
        assert sizes is not None
        if not isinstance(tensor.op.definition, ReductionOp):
            place = tuple(None if s == 1 else k for k, s in enumerate(sizes))
            return Group(sizes, (), [Member(tensor, "point", place)], None, [tensor])
        info = self.inliner.trace(tensor)
        first, index = info.reads[0]
        simple = any(s != 1 for s in info.extents) and info.reads_all(sizes, first)
        if not simple:
            frame = sizes + info.extents
            reduced = tuple(range(len(sizes), len(frame)))
            place = tuple(None if s == 1 else k for k, s in enumerate(sizes))
            member = Member(tensor, "reduce", place)
            return Group(frame, reduced, [member], None, [tensor], plain=True)
        assert first.sizes is not None
        position = {x: k for k, x in enumerate(index) if x is not ZERO}
        reduced = tuple(position[r] for r in info.inner if r in position)
        place = tuple(position.get(v) for v in info.out)
        reduced = tuple(sorted(reduced))
        return Group(first.sizes, reduced, [Member(tensor, "reduce", place)], None, [tensor])

    def member_for(self, group: Group, tensor: Tensor) -> Member | None:
        """How ``tensor`` (elementwise) would fit the group's frame, or None."""
        sizes = tensor.sizes
        assert sizes is not None
        if sizes == group.frame:
            return Member(
                tensor, "point", tuple(None if s == 1 else k for k, s in enumerate(sizes))
            )
        kept = [k for k in range(len(group.frame)) if k not in group.reduced]
        if not group.reduced:
            return None
        if len(sizes) == len(group.frame) and all(
            s == (1 if k in group.reduced else group.frame[k]) for k, s in enumerate(sizes)
        ):
            place = tuple(
                None if k in group.reduced or s == 1 else k for k, s in enumerate(sizes)
            )
            return Member(tensor, "row", place)
        if list(sizes) == [group.frame[k] for k in kept]:
            return Member(
                tensor, "row", tuple(None if group.frame[k] == 1 else k for k in kept)
            )
        return None

    def group_reads(self, group: Group) -> set[Tensor]:
        """The storage roots that the group reads, its own tensors left out."""
        inliner = self.inliner
        found: set[Tensor] = set()
        if group.template is not None:
            for t in inliner.operands(group.template):
                for read, _ in inliner.expand(t, tuple(ZERO for _ in t.sizes or ())):
                    found.add(inliner.root(read))
        for m in group.members:
            found |= {inliner.root(read) for read, _ in inliner.reads(m.tensor)}
        if self.after:
            found |= {inliner.root(r) for t in group.tensors for r in self.after.get(t.op, ())}
        found -= set(group.tensors)
        if self.binders:
            found |= self.sizes_from(group) - set(group.tensors)
        return found

    def sizes_from(self, group: Group) -> set[Tensor]:
        """The stored tensors whose computation tells sizes that the group's kernel needs."""
        symbols = {s for size in group.frame for s in dims.symbols_of(size)}
        for t in self.touched(group):
            symbols |= t.symbols
            if isinstance(t.op.definition, (ElementOp, ReductionOp)):
                # Where a part begins that is cut off is in no type.
                symbols |= self.inliner.trace(t).symbols
        for op in {t.op for t in group.tensors}:
            if "bodies" in op.attrs:
                symbols |= symbols_in(op)
        return {self.inliner.root(self.binders[s]) for s in symbols if s in self.binders}

    def touched(self, group: Group) -> set[Tensor]:
        """The group's tensors and all that it reads, what is inlined or an alias seen through."""
        found = set(group.tensors)
        stack = [t for op in {t.op for t in group.tensors} for t in op.inputs]
        while stack:
            t = stack.pop()
            if t not in found:
                found.add(t)
                if t in self.inliner.inlined or t in self.inliner.aliases:
                    stack.extend(t.op.inputs)
        return found

    def bound_within(self, first: Group, second: Group) -> bool:
        """Whether a kernel of both would need a size that it computes itself."""
        if not self.binders:
            return False
        own = {self.inliner.root(t) for t in (*first.tensors, *second.tensors)}
        return bool((self.sizes_from(first) | self.sizes_from(second)) & own)

    def aligned(self, computed: dict[Tensor, Place], member: Member) -> bool:
        """Whether the member reads what its group computes at its own iteration only.

        ``computed`` gives the frame dimensions that index each tensor of the group.
        """
        inliner = self.inliner
        info = inliner.trace(member.tensor)
        position: dict[Expr, int | None] = dict(zip(info.out, member.place, strict=True))
        if member.role == "reduce":
            position = {x: k for k, x in enumerate(info.reads[0][1]) if x is not ZERO}
        for read, index in inliner.reads(member.tensor):
            if inliner.root(read) not in computed:
                continue
            source = read
            while source not in computed and only_unit_dims(source.op):
                source = inliner.aliases[source]
            # Through an alias, the iteration's own value is at another index.
            if source is not read or source not in computed:
                return False
            if tuple(position.get(x) if x is not ZERO else None for x in index) != computed[read]:
                return False
        return True

    def merge(self, first: Group, second: Group) -> Group | None:
        """One group that computes both, ``first`` before ``second``; None where that is not so."""
        if second.template is not None or second.plain:
            return None
        if first.plain:
            return self.merge_after(first, second)
        if first.template is not None:
            return self.merge_epilogue(first, second)
        if first.frame != second.frame and has_reduction(second):
            return self.merge_rows(first, second)
        reduced = first.reduced
        if has_reduction(second):
            if has_reduction(first) and first.reduced != second.reduced:
                return None
            reduced = second.reduced
        return self.joined(Group(first.frame, reduced, list(first.members)), first, second)

    def merge_after(self, first: Group, second: Group) -> Group | None:
        """What is computed of each sum over a window goes behind it, where no loop is shared."""
        merged = Group(first.frame, first.reduced, list(first.members), plain=True)
        if has_reduction(second) or any(
            (member := self.member_for(merged, m.tensor)) is None or member.role != "row"
            for m in second.members
        ):
            return None
        return self.joined(merged, first, second)

    def merge_rows(self, first: Group, second: Group) -> Group | None:
        """What is computed once for each row goes in front of the reductions of the rows."""
        if has_reduction(first):
            return None
        merged = Group(second.frame, second.reduced, [])
        for m in first.members:
            member = self.member_for(merged, m.tensor)
            if member is None or not self.aligned(places(merged), member):
                return None
            merged.members.append(member)
        return self.joined(merged, first, second)

    def joined(self, merged: Group, first: Group, second: Group) -> Group | None:
        """``merged``, which has the members of ``first``, with those of ``second``."""
        computed = places(merged)
        for m in second.members:
            member = m if m.role == "reduce" else self.member_for(merged, m.tensor)
            if member is None or not self.aligned(computed, member):
                return None
            merged.members.append(member)
            computed[member.tensor] = member.place
        if not worthwhile(merged):
            return None
        merged.outputs = first.outputs + second.outputs
        return merged

    def merge_epilogue(self, first: Group, second: Group) -> Group | None:
        """Elementwise operations over a contraction's output become its epilogue."""
        assert first.template is not None
        if not isinstance(first.template.definition, ContractionOp):
            return None
        if second.reduced or second.frame != first.frame:
            return None
        merged = Group(first.frame, (), list(first.members), first.template)
        computed = places(first)
        place = tuple(None if s == 1 else k for k, s in enumerate(first.frame))
        computed[first.template.outputs[0]] = place
        for m in second.members:
            if not self.aligned(computed, m):
                return None
            merged.members.append(m)
            computed[m.tensor] = m.place
        merged.outputs = first.outputs + second.outputs
        return merged


def run_after(fn: Function) -> dict[Operation, list[Tensor]]:
    """What operations must run after, though they do not read it.

    Host steps run in the order of the function; what can fail before one has done so by then, and
    what can fail after one waits for it.
    """
    found: dict[Operation, list[Tensor]] = {}
    if not any(calls_host(op) for op in fn.operations):
        return found
    last: list[Tensor] = []
    since: list[Tensor] = []
    for op in fn.operations:
        if calls_host(op):
            found[op] = last + since
            last, since = list(op.outputs), []
        elif op.definition.can_fail(op):
            found[op] = last
            since += op.outputs
    return found


def places(group: Group) -> dict[Tensor, Place]:
    """The frame dimensions that index each member."""
    return {m.tensor: m.place for m in group.members}


def has_reduction(group: Group) -> bool:
    """Whether some member is a reduction, be it over dimensions of size 1 only."""
    return any(m.role == "reduce" for m in group.members)


def worthwhile(group: Group) -> bool:
    """Whether the merged loops still run well: rows must be trailing and not too long."""
    if not group.reduced:
        return True
    stages = {m.role for m in group.members}
    if "point" not in stages:
        return True
    trailing = tuple(range(len(group.frame) - len(group.reduced), len(group.frame)))
    row = dims.product([group.frame[k] for k in group.reduced])
    outer = dims.product([s for k, s in enumerate(group.frame) if k not in group.reduced])
    if group.reduced != trailing or (isinstance(row, int) and row > MAX_ROW):
        return False
    return outer != 1 or (isinstance(row, int) and row <= 4096)
