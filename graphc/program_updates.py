"""In which order groups run, and which variables are updated in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from graphc import dims
from graphc.function import Function
from graphc.graph import Operation, Tensor
from graphc.loop.ir import ZERO
from graphc.op import TemplateOp
from graphc.passes.fuse import Fuser
from graphc.passes.plan import Group, Plan


class Updates:
    """Chooses the updates that are done in place, and an order in which that is right.

    Args:
      fn: the function.
      fuser: what has grouped its operations, into ``plan``.
      given: of a branch, the results that belong where a captured tensor is, with that tensor.

    Attributes:
      inplace: new values of variables, with the old ones whose storage they are written to.
      reads: the storage that each group reads.
    """

    def __init__(
        self, fn: Function, fuser: Fuser, plan: Plan, given: Mapping[int, Tensor]
    ) -> None:
        self.fn = fn
        self.given = given
        #: What nobody else sees any more: a run that fails may leave it as it likes.
        self.own = {*fn.carried, *given.values()}
        self.plan = plan
        self.inliner = fuser.inliner
        self.reads = {g: fuser.grouper.group_reads(g) for g in plan.groups}
        self.inplace: dict[Tensor, Tensor] = {}

    def ordered(self) -> list[Group]:
        """The groups in order; ``inplace`` is filled."""
        groups = self.plan.groups
        owner = {t: k for k, g in enumerate(groups) for t in g.tensors}
        reads = [self.reads[g] for g in groups]
        deps = [{owner[r] for r in rs if r in owner} - {k} for k, rs in enumerate(reads)]
        # A loop variable is no state of the session: a run that fails leaves it to nobody.
        fallible = (
            set() if self.own else {k for k, g in enumerate(groups) if self.group_fallible(g)}
        )
        for value, old in self.update_candidates():
            k = owner.get(value)
            if k is None or k in fallible or not self.reads_in_step(groups[k], old, value):
                continue
            if old in owner and old not in self.inplace:
                continue  # What comes before it in a chain is not in place.
            extra = {j for j, rs in enumerate(reads) if old in rs and j != k} | fallible
            if not depends(deps, extra, k):
                deps[k] |= extra
                self.inplace[value] = self.inplace.get(old, old)
        return [groups[k] for k in topological(deps)]

    def group_fallible(self, group: Group) -> bool:
        """Whether some operation of the group, or inlined into it, can make a run fail."""
        stack = list(group.tensors)
        late = {s.tensor for s in self.fn.late}
        if not late.isdisjoint(group.outputs):
            return True
        seen: set[Tensor] = set()
        while stack:
            t = stack.pop()
            if t.op.definition.can_fail(t.op) or "bodies" in t.op.attrs:
                return True
            for i in t.op.inputs:
                if i in self.plan.inlined and i not in seen:
                    seen.add(i)
                    stack.append(i)
        return False

    def update_candidates(self) -> list[tuple[Tensor, Tensor]]:
        """New values of variables, with the old ones whose storage they may be written to."""
        before = {i.key: i.tensor for i in self.fn.inputs if i.kind in ("variable", "carry")}
        turned = rotated(self.fn)
        before |= {str(k): self.fn.carried[j] for k, j in turned.items()}
        carried = set(self.fn.carried)
        roots = [self.plan.root(o.tensor) for o in self.fn.outputs]
        # What a loop saves of its variables it saves before the turn changes them.
        saved = [self.plan.root(o.tensor) for o in self.fn.outputs if o.kind == "result"]
        for t in saved:
            if t in carried:
                roots.remove(t)
        found = []
        claimed: set[Tensor] = set()
        results = [o.tensor for o in self.fn.outputs if o.kind == "result"]
        changes = [(o.tensor, before.get(o.key)) for o in self.fn.outputs if o.kind == "update"]
        for tensor, old in [*changes, *((results[k], t) for k, t in self.given.items())]:
            value = self.plan.root(tensor)
            if old is None or old in roots or value in claimed or value is old:
                continue
            steps = self.chain(value, old, {*roots, *claimed})
            if all(self.fits(a, b) for a, b in steps):
                claimed |= {a for a, _ in steps}
                found += steps
        return found

    def chain(self, value: Tensor, old: Tensor, taken: set[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The changes that make a loop variable its next value, each of a part of the one before.

        Of other new values, the one change that they are.
        """
        steps: list[tuple[Tensor, Tensor]] = []
        last = value
        while old in self.own:
            part = overwritten(last)
            if part is None or (steps and last in taken):
                break
            before = self.plan.root(last.op.inputs[part])
            steps.append((last, before))
            if before is old:
                return steps[::-1]
            last = before
        return [(value, old)]

    def fits(self, value: Tensor, old: Tensor) -> bool:
        """Whether a value can be where an older one is."""
        same = value.dtype.base_dtype is old.dtype.base_dtype
        return same and (same_size(value, old) or self.grows(value, old))

    def grows(self, value: Tensor, old: Tensor) -> bool:
        """Whether a new value is the old one made longer, in a loop whose memory can grow."""
        part = overwritten(value)
        if part is None or not self.own or self.plan.root(value.op.inputs[part]) is not old:
            return False
        return grows_in_place(value)

    def template_reads_in_step(self, op: Operation, old: Tensor, value: Tensor) -> bool:
        """Whether a template, a loop or a choice reads the old value only as what it changes."""
        inputs = list(op.inputs)
        part = overwritten(value) if value in op.outputs else None
        if part is not None:
            # The op changes a part of this operand, and reads no more of it.
            whole = inputs.pop(part)
            if self.plan.root(whole) is not old or whole in self.plan.inlined:
                return False
        elif not isinstance(op.definition, TemplateOp):
            return False
        reads = (self.inliner.expand(t, tuple(ZERO for _ in t.sizes or ())) for t in inputs)
        return all(self.plan.root(read) is not old for found in reads for read, _ in found)

    def reads_in_step(self, group: Group, old: Tensor, value: Tensor) -> bool:
        """Whether the group reads the old value only where it then writes the new one."""
        if value not in group.outputs:
            return False
        if group.template is not None:
            changed = value in group.template.outputs and overwritten(value) is not None
            if not self.template_reads_in_step(group.template, old, value):
                return False
            if changed:
                return True
        member_of = {m.tensor: m for m in group.members}
        if value not in member_of:
            return old not in self.reads[group]
        place, role = member_of[value].place, member_of[value].role
        # Where there are reductions, a group has several loop nests: a later one would see the
        # new value.
        single = not any(m.role == "reduce" for m in group.members)
        for m in group.members:
            info = self.inliner.trace(m.tensor)
            position: dict[Any, int | None] = dict(zip(info.out, m.place, strict=True))
            for read, index in self.inliner.reads(m.tensor):
                if self.plan.root(read) is not old:
                    continue
                if m.role != role or read is not old:
                    return False
                if not single and (role != "row" or m.tensor is not value):
                    return False
                at = tuple(position.get(x) if x is not ZERO else None for x in index)
                if at != place:
                    return False
        return len({m.role for m in group.members if m.tensor in group.outputs}) <= 1


def overwritten(tensor: Tensor) -> int | None:
    """The operand of the operation that gives ``tensor`` whose place the tensor can take.

    Of a loop, the initial value; of a choice, what all branches give back, changed in parts or
    as it is.
    """
    op = tensor.op
    if op.type == "While":
        body = op.attrs["bodies"][1]
        stays = tensor.index < len(body.carried) and tensor.index not in rotated(body)
        return tensor.index if stays else None
    if op.type != "Case":
        return getattr(op.definition, "overwrites", None) if tensor.index == 0 else None
    found = set()
    for body in op.attrs["bodies"]:
        changes = changes_of(body.given[tensor.index])
        source = changes[-1] if changes else None
        found.add(next((int(i.key) for i in body.inputs if i.tensor is source), None))
    return found.pop() if len(found) == 1 else None


WORTH = 1024
"""From so many bytes on, memory of loop variables changes places and is not copied."""


def rotated(body: Function) -> dict[int, int]:
    """The loop variables that change places: in whose memory the next value of each of them is.

    Where ``a`` becomes what ``b`` was, both have memory of their own, which ``a`` takes over.
    Whatever ``b`` becomes is written to what ``a`` leaves.  The map takes these variables, and no
    others, to one another; it is empty where nothing changes places.
    """
    known = _ROTATED.get(body)
    if known is None:
        known = _ROTATED[body] = _rotated(body)
    return known


# Every loop around asks for what is in it.
_ROTATED: WeakKeyDictionary[Function, dict[int, int]] = WeakKeyDictionary()


def _rotated(body: Function) -> dict[int, int]:
    carried = body.carried
    place = {t: k for k, t in enumerate(carried)}
    results = [o.tensor for o in body.outputs if o.kind == "update"]
    found: dict[int, int] = {}
    for k, tensor in enumerate(results[: len(carried)]):
        changes = changes_of(tensor)
        source = place.get(changes[-1]) if changes else None
        if source is not None and source not in found.values() and _alike(carried, k, source):
            found[k] = source
    for first in [k for k in found if k not in found.values()]:
        # It leaves its memory to the last one of those that hand theirs on.
        last = first
        while last in found:
            last = found[last]
        found[last] = first
    return {k: j for k, j in found.items() if k != j}


def _alike(carried: Sequence[Tensor], a: int, b: int) -> bool:
    """Whether two loop variables could have one another's memory, and it is worth while."""
    first, second = carried[a], carried[b]
    if a == b:
        return True
    size = dims.product(first.sizes or ())
    nbytes = size * first.dtype.size
    worth = not isinstance(nbytes, int) or nbytes >= WORTH
    return worth and bool(first.sizes) and first.dtype.base_dtype is second.dtype.base_dtype


def changes_of(result: Tensor) -> list[Tensor]:
    """What a result of a body was before changes of its parts: the input that it was comes last.

    Nothing, if it comes of something else.
    """
    found = [result]
    while found[-1].op.type != "Placeholder":
        part = overwritten(found[-1])
        if part is None:
            return []
        found.append(found[-1].op.inputs[part])
    return found


def grows_in_place(tensor: Tensor) -> bool:
    """Whether a tensor that takes the place of an operand is that operand, made longer."""
    op = tensor.op
    if "bodies" not in op.attrs:
        return getattr(op.definition, "grows", False)
    bodies = op.attrs["bodies"][1:] if op.type == "While" else op.attrs["bodies"]
    changes = [changes_of(body.given[tensor.index]) for body in bodies]
    return all(changes) and any(grows_in_place(t) for steps in changes for t in steps[:-1])


def same_size(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same number of elements for sure."""
    assert a.sizes is not None
    assert b.sizes is not None
    return dims.product(a.sizes) == dims.product(b.sizes)


def depends(deps: Sequence[set[int]], some: Iterable[int], on: int) -> bool:
    """Whether some of the groups depend on group ``on``, directly or not."""
    stack, seen = list(some), set(some)
    while stack:
        k = stack.pop()
        if k == on:
            return True
        fresh = deps[k] - seen
        seen |= fresh
        stack.extend(fresh)
    return False


def topological(deps: Sequence[set[int]]) -> list[int]:
    """Group numbers, dependencies first, otherwise in the given order."""
    done: set[int] = set()
    order: list[int] = []
    stack = [(k, False) for k in reversed(range(len(deps)))]
    while stack:
        k, expanded = stack.pop()
        if k in done:
            continue
        if expanded:
            done.add(k)
            order.append(k)
            continue
        stack.append((k, True))
        stack.extend((d, False) for d in sorted(deps[k], reverse=True) if d not in done)
    return order
