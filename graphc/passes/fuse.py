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
from dataclasses import dataclass, field

from graphc import dims
from graphc.dims import DimLike, Symbol
from graphc.function import Function, format_operation, format_tensor
from graphc.graph import Operation, Tensor
from graphc.loop import ir
from graphc.loop.ir import ZERO, Expr, Var
from graphc.loop.scalar import FUNCTIONS
from graphc.op import ContractionOp, ElementContext, ElementOp, ReductionOp, TemplateOp

Index = tuple[Expr, ...]

CHEAP = 2
MAX_INLINE_COST = 160
MAX_ROW = 1 << 16


class Tracer(ElementContext):
    """Records which elements of its operands an op's definition reads."""

    def __init__(self, op: Operation, output_index: int = 0) -> None:
        self.op = op
        self.output_index = output_index
        self.reads: list[tuple[Tensor, Index]] = []
        self.symbols: dict[Symbol, Var] = {}

    def operand(self, i: int, index: Index) -> Expr:
        """A variable that stands for the element."""
        tensor = self.op.inputs[i]
        self.reads.append((tensor, index))
        return Var(f"operand{i}", tensor.dtype.base_dtype)

    def size(self, value: DimLike) -> Expr:
        """The size over this tracer's own symbols."""
        return ir.dim_expr(value, self.symbols)

    def site(self, message: str, op: Operation | None = None) -> int:
        """Sites do not matter here."""
        return 0


@dataclass
class Trace:
    """What one output of an operation reads, in terms of index variables of its own."""

    out: tuple[Var, ...]
    inner: tuple[Var, ...]
    extents: tuple[DimLike, ...]
    reads: list[tuple[Tensor, Index]]
    cost: int
    moves: bool
    guarded: bool


def trace(tensor: Tensor) -> Trace:
    """Ask the op that makes ``tensor`` how one element is computed."""
    op = tensor.op
    assert tensor.sizes is not None
    out = tuple(Var(f"i{k}") for k in range(len(tensor.sizes)))
    tracer = Tracer(op, tensor.index)
    index = tuple(ZERO if s == 1 else v for s, v in zip(tensor.sizes, out, strict=True))
    inner: tuple[Var, ...] = ()
    extents: tuple[DimLike, ...] = ()
    if isinstance(op.definition, ReductionOp):
        reduction = op.definition.reduction(tracer, index)
        extents = reduction.extents
        inner = tuple(Var(f"r{k}") for k in range(len(extents)))
        at = tuple(ZERO if s == 1 else v for s, v in zip(extents, inner, strict=True))
        value = reduction.body(at)
        reduction.finish(value)
        cost = 1
    else:
        assert isinstance(op.definition, ElementOp)
        value = op.definition.element(tracer, index)
        cost = 0
    nodes = list(ir.walk_expr(value))
    cost += sum(FUNCTIONS[n.fn].cost for n in nodes if isinstance(n, ir.Apply)
                and n.dtype is not ir.int64)  # fmt: skip
    cost += sum(1 for n in nodes if isinstance(n, ir.Cast))
    moves = isinstance(value, Var)
    guarded = any(isinstance(n, (ir.Guard, ir.Require)) for n in nodes)
    return Trace(out, inner, extents, tracer.reads, cost, moves, guarded)


@dataclass
class Member:
    """An operation in a loop group.

    ``role``: ``point`` computes one element per iteration of the full frame, ``reduce`` one per
    row from all of the row, ``row`` one per row.  ``place`` maps each dimension of the output to
    the frame dimension that indexes it, None where the size is 1.
    """

    tensor: Tensor
    role: str
    place: tuple[int | None, ...]


@dataclass
class Group:
    """Operations computed by one kernel.

    Attributes:
      template: the operation computed by a template, or None for a loop group.
      frame: sizes of the loops; ``reduced`` marks those that reductions run over.
      members: in dependency order (for a template: the epilogue).
      outputs: the tensors that are stored.
      plain: the frame is of one operation whose loops cannot be shared (a pooling window, say).
    """

    frame: tuple[DimLike, ...]
    reduced: tuple[int, ...]
    members: list[Member]
    template: Operation | None = None
    outputs: list[Tensor] = field(default_factory=list)
    plain: bool = False

    @property
    def tensors(self) -> list[Tensor]:
        """The stored-candidate tensors that the group computes."""
        own = list(self.template.outputs) if self.template is not None else []
        return own + [m.tensor for m in self.members]


@dataclass
class Plan:
    """The result of fusion: groups in execution order, and what is inlined or an alias."""

    groups: list[Group]
    inlined: set[Tensor]
    aliases: dict[Tensor, Tensor]

    def root(self, tensor: Tensor) -> Tensor:
        """The tensor whose storage ``tensor`` uses."""
        while tensor in self.aliases:
            tensor = self.aliases[tensor]
        return tensor


def is_source(tensor: Tensor) -> bool:
    """A constant or an input of the function."""
    return tensor.op.type in ("Const", "Placeholder")


def is_literal(tensor: Tensor) -> bool:
    """A constant of one element, which every kernel spells out."""
    return tensor.op.type == "Const" and tensor.op.attrs["value"].size == 1


def is_view(op: Operation) -> bool:
    """Whether the output has the input's elements in the same order."""
    return bool(getattr(op.definition, "view", False))


def only_unit_dims(op: Operation) -> bool:
    """A view that only adds or drops dimensions of size 1."""
    a, b = op.inputs[0].sizes, op.outputs[0].sizes
    assert a is not None and b is not None
    return [s for s in a if s != 1] == [s for s in b if s != 1]


class Fuser:
    """One run of the pass; see the module's text."""

    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self.results = set(fn.results())
        self.consumers: dict[Tensor, list[Operation]] = {}
        for op in fn.operations:
            for t in dict.fromkeys(op.inputs):
                self.consumers.setdefault(t, []).append(op)
        self.traces: dict[Tensor, Trace] = {}
        self.inlined: set[Tensor] = set()
        self.aliases: dict[Tensor, Tensor] = {}
        self.costs: dict[Tensor, int] = {}
        self.deep: dict[Tensor, list[tuple[Tensor, Index]]] = {}

    def trace(self, tensor: Tensor) -> Trace:
        """The trace of a tensor, computed once."""
        found = self.traces.get(tensor)
        if found is None:
            found = self.traces[tensor] = trace(tensor)
        return found

    # --- step 1: inline or store --------------------------------------------------------------

    def decide(self) -> None:
        """Choose for every elementwise tensor whether it is inlined, an alias or stored."""
        for op in self.fn.operations:
            if not isinstance(op.definition, ElementOp):
                continue
            for tensor in op.outputs:
                source = op.inputs[0] if op.inputs else None
                if is_view(op) and source is not None and source not in self.inlined:
                    if not is_literal(source):
                        self.aliases[tensor] = source
                        continue
                self.costs[tensor] = self.trace(tensor).cost + sum(
                    self.costs.get(t, 1) if t in self.inlined else 1 for t in op.inputs
                    if not is_literal(t)
                )  # fmt: skip
                if self.may_inline(tensor):
                    self.inlined.add(tensor)

    def may_inline(self, tensor: Tensor) -> bool:
        """Whether computing ``tensor`` at its uses is right and cheaper than storing it."""
        uses = self.consumers.get(tensor, [])
        if tensor in self.results or tensor.op.definition.fallible:
            return False
        cost = self.costs[tensor]
        if cost > MAX_INLINE_COST:
            return False
        free = cost - len([t for t in tensor.op.inputs if not is_literal(t)]) <= 0
        for op in uses:
            if isinstance(op.definition, TemplateOp):
                if not (free and self.trace(tensor).moves and self.stored_inputs(tensor)):
                    return False
            elif is_view(op) and not only_unit_dims(op):
                return False
            elif self.repeats(tensor, op) and cost > CHEAP:
                return False
        return len(uses) <= 1 or cost <= CHEAP

    def stored_inputs(self, tensor: Tensor) -> bool:
        """Whether the operands are all in memory."""
        return all(t not in self.inlined for t in tensor.op.inputs)

    def repeats(self, tensor: Tensor, op: Operation) -> bool:
        """Whether ``op`` reads elements of ``tensor`` more than once."""
        assert tensor.sizes is not None
        size = dims.product(tensor.sizes)
        for out in op.outputs:
            if isinstance(op.definition, (ElementOp, ReductionOp)):
                info = self.trace(out)
                domain = dims.product((*(out.sizes or ()), *info.extents))
                if domain != size and not (
                    isinstance(domain, int) and isinstance(size, int) and domain < size
                ):
                    return True
        return False

    # --- reads through inlined tensors -----------------------------------------------------------

    def reads(self, tensor: Tensor) -> list[tuple[Tensor, Index]]:
        """The stored elements that one element of ``tensor`` needs, inlined tensors seen through.

        The indices are over the variables of ``trace(tensor)``.
        """
        found = self.deep.get(tensor)
        if found is None:
            found = []
            for read, index in self.trace(tensor).reads:
                found += self.expand(read, index)
            self.deep[tensor] = found
        return found

    def expand(self, tensor: Tensor, index: Index) -> list[tuple[Tensor, Index]]:
        """One read, expanded until it meets stored tensors."""
        if tensor not in self.inlined:
            return [(tensor, index)]
        info = self.trace(tensor)
        binding = dict(zip(info.out, index, strict=True))
        found = []
        for read, at in self.reads(tensor):
            found.append((read, tuple(ir.substitute(x, binding) for x in at)))
        return found

    # --- step 2: groups ---------------------------------------------------------------------------

    def initial_groups(self) -> list[Group]:
        """One group per stored operation."""
        groups = []
        for op in self.fn.operations:
            if isinstance(op.definition, TemplateOp):
                sizes = op.outputs[0].sizes
                assert sizes is not None
                groups.append(Group(sizes, (), [], op, list(op.outputs)))
            elif isinstance(op.definition, (ElementOp, ReductionOp)):
                for t in op.outputs:
                    if t not in self.inlined and t not in self.aliases:
                        groups.append(self.group_of(t))
        return groups

    def group_of(self, tensor: Tensor) -> Group:
        """The group of one tensor."""
        sizes = tensor.sizes
        assert sizes is not None
        if not isinstance(tensor.op.definition, ReductionOp):
            place = tuple(None if s == 1 else k for k, s in enumerate(sizes))
            return Group(sizes, (), [Member(tensor, "point", place)], None, [tensor])
        info = self.trace(tensor)
        variables = info.out + info.inner
        first, index = info.reads[0]
        known = {v: k for k, v in enumerate(variables)}
        needed = {v for v, s in zip(info.out, sizes, strict=True) if s != 1}
        needed |= {v for v, s in zip(info.inner, info.extents, strict=True) if s != 1}
        simple = (
            len(info.reads) == 1
            and needed <= set(index)
            and all(isinstance(x, Var) and x in known or x is ZERO for x in index)
            and len({x for x in index if x is not ZERO}) == sum(x is not ZERO for x in index)
        )
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

    def aligned(self, group: Group, member: Member) -> bool:
        """Whether the member reads what the group computes at its own iteration only."""
        info = self.trace(member.tensor)
        position: dict[Expr, int | None] = dict(zip(info.out, member.place, strict=True))
        if member.role == "reduce":
            position = {x: k for k, x in enumerate(info.reads[0][1]) if x is not ZERO}
        computed = {m.tensor: m for m in group.members}
        if group.template is not None:
            out = group.template.outputs[0]
            place = tuple(None if s == 1 else k for k, s in enumerate(group.frame))
            computed[out] = Member(out, "point", place)
        for read, index in self.reads(member.tensor):
            root = read
            while root in self.aliases:
                if not only_unit_dims(root.op):
                    break
                root = self.aliases[root]
            if self.root(read) in computed and root is not read:
                return False
            source = computed.get(root)
            if source is None:
                if self.root(read) in computed:
                    return False
                continue
            at = tuple(position.get(x) if x is not ZERO else None for x in index)
            if at != source.place:
                return False
        return True

    def root(self, tensor: Tensor) -> Tensor:
        """The tensor whose storage this one uses."""
        while tensor in self.aliases:
            tensor = self.aliases[tensor]
        return tensor

    def merge(self, first: Group, second: Group) -> Group | None:
        """One group that computes both, ``first`` before ``second``; None where that is not so."""
        if second.template is not None or first.plain or second.plain:
            return None
        if first.template is not None:
            return self.merge_epilogue(first, second)
        frame, reduced = first.frame, first.reduced
        if second.reduced:
            if first.reduced and first.reduced != second.reduced:
                return None
            reduced = second.reduced
            if second.frame != frame:
                return None
        merged = Group(frame, reduced, list(first.members))
        if second.reduced and not first.reduced:
            merged.members = list(first.members)
        for m in second.members:
            member: Member | None = m
            if m.role != "reduce":
                member = self.member_for(merged, m.tensor)
            if member is None or not self.aligned(merged, member):
                return None
            merged.members.append(member)
        if not self.worthwhile(merged):
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
        for m in second.members:
            if not self.aligned(merged, m):
                return None
            merged.members.append(m)
        merged.outputs = first.outputs + second.outputs
        return merged

    def worthwhile(self, group: Group) -> bool:
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


def fuse(fn: Function) -> Plan:
    """Decide what is stored and which operations share a kernel."""
    fuser = Fuser(fn)
    fuser.decide()
    groups = merge_groups(fuser, fuser.initial_groups())
    plan = Plan(groups, fuser.inlined, fuser.aliases)
    trim_outputs(fuser, plan)
    return plan


def dependencies(fuser: Fuser, groups: Sequence[Group]) -> list[set[int]]:
    """For each group the groups that it reads directly."""
    owner = {t: k for k, g in enumerate(groups) for t in g.tensors}
    return [
        {owner[r] for r in group_reads(fuser, g) if r in owner} - {k}
        for k, g in enumerate(groups)
    ]


def group_reads(fuser: Fuser, group: Group) -> set[Tensor]:
    """The storage roots that the group reads, its own tensors left out."""
    found: set[Tensor] = set()
    if group.template is not None:
        for t in group.template.inputs:
            for read, _ in fuser.expand(t, tuple(ZERO for _ in t.sizes or ())):
                found.add(fuser.root(read))
    for m in group.members:
        found |= {fuser.root(read) for read, _ in fuser.reads(m.tensor)}
    return found - set(group.tensors)


def merge_groups(fuser: Fuser, groups: list[Group]) -> list[Group]:
    """Merge pairs of groups while that is legal, keeping the order of groups a valid one."""
    groups = list(groups)
    changed = True
    while changed:
        changed = False
        deps = dependencies(fuser, groups)
        reach = closure(deps)
        reads = [group_reads(fuser, g) for g in groups]
        for j in range(len(groups)):
            for i in candidates(groups, deps, reads, j):
                if any(i in reach[k] for k in reach[j] if k != i):
                    continue
                if i > j or j in reach[i]:
                    continue
                merged = fuser.merge(groups[i], groups[j])
                if merged is None:
                    continue
                groups = place_merged(fuser, groups, i, j, merged)
                changed = True
                break
            if changed:
                break
    return groups


def candidates(
    groups: Sequence[Group], deps: Sequence[set[int]], reads: Sequence[set[Tensor]], j: int
) -> Iterable[int]:
    """Groups that group ``j`` may join: its producers, then siblings that read the same data."""
    producers = sorted(deps[j], reverse=True)
    yield from producers
    group = groups[j]
    if group.template is not None:
        return
    shared = set(producers)
    for i in range(j - 1, -1, -1):
        other = groups[i]
        if i in shared or other.template is not None or other.frame != group.frame:
            continue
        if other.reduced == group.reduced and reads[i] & reads[j]:
            yield i


def closure(deps: Sequence[set[int]]) -> list[set[int]]:
    """All groups that each group depends on, directly or not."""
    order = topological(deps)
    reach: list[set[int]] = [set() for _ in deps]
    for k in order:
        for d in deps[k]:
            reach[k] |= reach[d] | {d}
    return reach


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


def place_merged(
    fuser: Fuser, groups: list[Group], i: int, j: int, merged: Group
) -> list[Group]:
    """The groups with ``i`` and ``j`` replaced by their merger, in a valid order."""
    rest = [g for k, g in enumerate(groups) if k not in (i, j)]
    rest.insert(min(j - 1, len(rest)), merged)
    deps = dependencies(fuser, rest)
    return [rest[k] for k in topological(deps)]


def trim_outputs(fuser: Fuser, plan: Plan) -> None:
    """Drop stores of tensors that only their own group reads."""
    needed: set[Tensor] = {plan.root(t) for t in fuser.results}
    for group in plan.groups:
        needed |= group_reads(fuser, group)
    for group in plan.groups:
        group.outputs = [t for t in dict.fromkeys(group.outputs) if t in needed]


def format_plan(plan: Plan) -> str:
    """The plan as text, one block per kernel."""
    lines = []
    for k, g in enumerate(plan.groups):
        frame = "x".join(str(s) for s in g.frame) or "scalar"
        reduced = f" reduced {list(g.reduced)}" if g.reduced else ""
        lines.append(f"kernel {k}: [{frame}]{reduced}")
        if g.template is not None:
            lines.append(f"  template {format_operation(g.template)}")
        for m in g.members:
            lines.append(f"  {m.role:6} {format_operation(m.tensor.op)}")
        lines.append("  store " + ", ".join(format_tensor(t) for t in g.outputs))
    return "\n".join(lines) + "\n"
