"""A loop group as a naive kernel: plain nested loops over its frame, stages in order."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from graphc.dims import DimLike, Symbol, product, substitute
from graphc.graph import Tensor
from graphc.loop import ir
from graphc.loop.ir import (
    ZERO,
    Alloc,
    Block,
    Buffer,
    Expr,
    For,
    Let,
    LoopKind,
    Reduce,
    Stmt,
    Store,
    Var,
)
from graphc.lower_operands import GroupOperands, Index, Lowering, Reader
from graphc.op import ReductionOp
from graphc.passes.plan import Group, Member

LONGEST_ROW = 4096
"""Elements of a row that is kept aside while it is worked on."""


class LoopLowering(GroupOperands):
    """Lowers a loop group.

    Attributes:
      scratch: members that are kept in the buffer of an output until that is stored.
      streamed: outputs that are written past the caches: nothing can be kept in their buffers.
      rows: instead of these, buffers for a row of what would be kept in ``streamed`` ones.
      read_by: what each member reads of the group.
    """

    def __init__(
        self, lowering: Lowering, group: Group, name: str,
        hints: dict[Symbol, int] | None = None, streamed: Collection[Tensor] = (),
    ) -> None:  # fmt: skip
        super().__init__(lowering, group, name, hints)
        self.scratch: dict[Tensor, Tensor] = {}
        self.streamed = streamed
        self.rows: dict[Tensor, Buffer] = {}
        self.read_by: dict[Tensor, set[Tensor]] = {}

    def loops(self) -> Block:
        """The naive kernel's body."""
        group = self.group
        variables = tuple(Var(f"i{k}") for k in range(len(group.frame)))
        at = tuple(ZERO if s == 1 else v for s, v in zip(group.frame, variables, strict=True))
        outer = [k for k in self.order() if k not in group.reduced]
        body: list[Stmt] = []
        if not any(m.role == "reduce" for m in group.members):
            body += self.store_stage(group.members, at)
        else:
            stages = self.stages()
            self.scratch = self.borrowed(stages)
            self.rows = self.row_buffers()
            body += [Alloc(b) for b in self.rows.values()]
            points: list[Member] = []
            for role, members in stages:
                if role == "point":
                    # In one nest with the reductions that follow.
                    points += members
                elif role == "row":
                    body += self.row_stage(members, at)
                else:
                    body += self.reduce_stage(members, points, variables, at)
                    points = []
            body += self.reduce_stage((), points, variables, at)
        return ir.block(self.nest(outer, variables, body))

    def order(self) -> Sequence[int]:
        """The loops, outermost first."""
        wanted = [
            order
            for m in self.group.members
            if (order := getattr(m.tensor.op.definition, "loop_order", None)) is not None
        ]
        return wanted[0] if len(self.group.members) == len(wanted) == 1 else range(
            len(self.group.frame)
        )

    def borrowed(self, stages: Sequence[tuple[str, list[Member]]]) -> dict[Tensor, Tensor]:
        """Outputs whose buffers hold what later nests need, until they are written themselves.

        A later nest cannot see an earlier one's variables: what is expensive and is not stored
        anyway would be computed again.
        """
        found: dict[Tensor, Tensor] = {}
        nests = numbered(stages)
        outputs = set(self.group.outputs)
        points = [m.tensor for role, members in stages if role == "point" for m in members]
        for tensor in points:
            if tensor in outputs:
                continue
            uses = self.evaluated_with(tensor, {*outputs, *found})
            if all(nests[t] == nests[tensor] for t in uses):
                continue
            for output in points:
                free = output in outputs and output not in found.values() and self.unread(output)
                fits = output.dtype.base_dtype is tensor.dtype.base_dtype
                if free and fits and all(in_time(t, output, nests, points) for t in uses):
                    found[tensor] = output
                    break
        return found

    def row_buffers(self) -> dict[Tensor, Buffer]:
        """Buffers of the kernel's own, if the rows are short enough for the first cache."""
        length = product([self.group.frame[k] for k in self.group.reduced])
        if self.hints:
            length = substitute(length, self.hints)
        if not isinstance(length, int) or length > LONGEST_ROW:
            return {}
        chosen = [t for t, output in self.scratch.items() if output in self.streamed]
        return {
            t: ir.local(f"row{k}", t.dtype.base_dtype, length) for k, t in enumerate(chosen)
        }

    def place_in_row(self, at: Index) -> Expr:
        """Where in a row's buffer an element is."""
        reduced = self.group.reduced
        sizes = [self.group.frame[k] for k in reduced]
        return self.flat(sizes, tuple(at[k] for k in reduced))

    def evaluated_with(self, tensor: Tensor, stored: set[Tensor]) -> set[Tensor]:
        """The members in whose evaluation the element of ``tensor`` is read.

        A member that is not stored is evaluated again wherever it is read, and reads it there.
        """
        found: set[Tensor] = set()
        stack = [tensor]
        while stack:
            source = stack.pop()
            for m in self.group.members:
                if m.tensor not in found and source in self.sources(m.tensor):
                    found.add(m.tensor)
                    if m.role == "point" and m.tensor not in stored:
                        stack.append(m.tensor)
        return found

    def unread(self, output: Tensor) -> bool:
        """Whether the group reads nothing of what is in the output's buffer before."""
        return self.lowering.storage(output) is output

    def stages(self) -> list[tuple[str, list[Member]]]:
        """Members in order, neighbours of one role that can share a loop nest together."""
        stages: list[tuple[str, list[Member]]] = []
        depth: dict[Tensor, int] = {}
        order: dict[tuple[int, str], list[Member]] = {}
        for m in self.group.members:
            level = 0
            for source in self.sources(m.tensor):
                if source in depth:
                    role = next(x.role for x in self.group.members if x.tensor is source)
                    same = role == m.role and role != "reduce"
                    level = max(level, depth[source] + (0 if same else 1))
            depth[m.tensor] = level
            order.setdefault((level, m.role), []).append(m)
        rank = {"reduce": 0, "row": 1, "point": 2}
        for level, role in sorted(order, key=lambda k: (k[0], rank[k[1]])):
            stages.append((role, order[(level, role)]))
        return stages

    def sources(self, tensor: Tensor) -> set[Tensor]:
        """The group's own tensors that ``tensor`` reads, through inlined ones and aliases."""
        known = self.read_by.get(tensor)
        if known is not None:
            return known
        plan = self.lowering.plan
        found: set[Tensor] = set()
        self.read_by[tensor] = found
        stack = list(tensor.op.inputs)
        own = self.own
        while stack:
            t = stack.pop()
            if t in own:
                found.add(t)
            elif t in plan.inlined:
                stack.extend(t.op.inputs)
            elif t in plan.aliases:
                stack.append(plan.aliases[t])
        return found

    def nest(self, dims: Sequence[int], variables: Sequence[Var], stmts: Sequence[Stmt]) -> Block:
        """Serial loops over some frame dimensions around statements."""
        body = Block(tuple(stmts))
        for k in reversed(dims):
            size = self.group.frame[k]
            if size != 1:
                body = Block((For(variables[k], self.size(size), LoopKind.SERIAL, body),))
        return body

    def row_stage(self, members: Sequence[Member], at: Index) -> list[Stmt]:
        """What is computed once for each row."""
        lets: list[Stmt] = []
        stores: list[Stmt] = []
        for m in members:
            index = self.index_of(m, at)
            value = self.let(self.element(m.tensor, index), lets)
            self.remember(m, index, value)
            if m.tensor in self.group.outputs:
                stores.append(self.store(m.tensor, index, value))
        return [*lets, *stores]

    def point_statements(self, members: Sequence[Member], at: Index) -> list[Stmt]:
        """The elements that outputs and borrowed buffers take in one iteration of a nest."""
        lets: list[Stmt] = []
        stores: list[Stmt] = []
        for m in members:
            index = self.index_of(m, at)
            value = self.element(m.tensor, index)
            target = m.tensor if m.tensor in self.group.outputs else self.scratch.get(m.tensor)
            if m.tensor in self.rows:
                value = self.let(value, lets)
                stores.append(Store(self.rows[m.tensor], self.place_in_row(at), value))
            elif target is not None:
                value = self.let(value, lets)
                stores.append(self.store(target, index, value))
            self.remember(m, index, value)
        return [*lets, *stores]

    def after_nest(self, members: Sequence[Member], at: Index) -> None:
        """Later nests do not see the variables of this one: they load, or compute again."""
        for m in members:
            index = self.index_of(m, at)
            target = m.tensor if m.tensor in self.group.outputs else self.scratch.get(m.tensor)
            if m.tensor in self.rows:
                self.remember(m, index, ir.Load(self.rows[m.tensor], self.place_in_row(at)))
            elif target is None:
                self.remember(m, index, self.element(m.tensor, index))
            else:
                assert m.tensor.sizes is not None
                self.remember(
                    m, index, ir.Load(self.buffer(target), self.flat(m.tensor.sizes, index))
                )

    def reduce_stage(
        self, members: Sequence[Member], points: Sequence[Member], variables: Sequence[Var],
        at: Index,
    ) -> list[Stmt]:  # fmt: skip
        """Accumulators, one loop nest that feeds them all, and what is done with the results."""
        before: list[Stmt] = []
        known = dict(self.memo)
        inside = self.point_statements(points, at)
        after: list[Stmt] = []
        results: list[tuple[Member, Index, Expr]] = []
        for m in members:
            definition = m.tensor.op.definition
            assert isinstance(definition, ReductionOp)
            reader = Reader(self, m.tensor.op, m.tensor.index)
            index = self.index_of(m, at)
            reduction = definition.reduction(reader, index)
            inner = self.inner_index(m, reduction.extents, at)
            value = reduction.body(inner)
            dtype = reduction.dtype or value.dtype
            acc = ir.local(f"acc{len(self.keep)}", dtype, 1)
            self.keep.append(acc)
            before += [Alloc(acc), Store(acc, ZERO, ir.reduce_identity(reduction.op, dtype))]
            inside.append(Reduce(acc, ZERO, reduction.op, ir.cast(value, dtype)))
            result = reduction.finish(ir.Load(acc, ZERO))
            result = ir.cast(result, m.tensor.dtype.base_dtype)
            var = Var(f"v{len(self.keep)}", result.dtype)
            after.append(Let(var, result))
            results.append((m, index, var))
            if m.tensor in self.group.outputs:
                after.append(self.store(m.tensor, index, var))
        # What was said in terms of the nest's variables is not known behind it.
        self.memo = known
        for m, index, known_result in results:
            self.remember(m, index, known_result)
        self.after_nest(points, at)
        if inside:
            before += self.nest(self.group.reduced, variables, inside).stmts
        return [*before, *after]

    def inner_index(self, member: Member, extents: Sequence[DimLike], at: Index) -> Index:
        """The reduced indices in the op's own order."""
        if self.group.plain:
            return tuple(at[k] for k in self.group.reduced)
        found: list[Expr] = []
        reduced = list(self.group.reduced)
        for extent in extents:
            if extent == 1 and not (reduced and self.group.frame[reduced[0]] == 1):
                found.append(ZERO)
            else:
                found.append(at[reduced.pop(0)])
        return tuple(found)


def numbered(stages: Sequence[tuple[str, list[Member]]]) -> dict[Tensor, int]:
    """The number of the loop nest that each member is computed in (or, for a row, before)."""
    found: dict[Tensor, int] = {}
    nest = 0
    for role, members in stages:
        found.update((m.tensor, nest) for m in members)
        nest += role == "reduce"
    return found


def in_time(
    use: Tensor, output: Tensor, nests: dict[Tensor, int], points: Sequence[Tensor]
) -> bool:
    """Whether ``use`` is evaluated before ``output`` is stored.

    In one nest, what is stored is evaluated before the first store, and reductions after the last.
    """
    return nests[use] < nests[output] or (nests[use] == nests[output] and use in points)
