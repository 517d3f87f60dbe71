"""A loop group as a naive kernel: plain nested loops over its frame, stages in order."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.dims import DimLike
from graphc.graph import Tensor
from graphc.loop import ir
from graphc.loop.ir import ZERO, Alloc, Block, Expr, For, Let, LoopKind, Reduce, Stmt, Store, Var
from graphc.lower_operands import GroupOperands, Index, Reader
from graphc.op import ReductionOp
from graphc.passes.plan import Member


class LoopLowering(GroupOperands):
    """Lowers a loop group."""

    def loops(self) -> Block:
        """The naive kernel's body."""
        group = self.group
        variables = tuple(Var(f"i{k}") for k in range(len(group.frame)))
        at = tuple(ZERO if s == 1 else v for s, v in zip(group.frame, variables, strict=True))
        outer = [k for k in range(len(group.frame)) if k not in group.reduced]
        body: list[Stmt] = []
        stages = self.stages()
        for role, members in stages:
            if role == "reduce":
                body += self.reduce_stage(members, variables, at)
            elif role == "row" or not group.reduced:
                body += self.store_stage(members, at)
            else:
                stmts = self.store_stage(members, at)
                body.append(self.nest(group.reduced, variables, stmts))
        inner = ir.Block(tuple(body))
        return ir.block(self.nest(outer, variables, inner.stmts))

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
        plan = self.lowering.plan
        found: set[Tensor] = set()
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

    def reduce_stage(
        self, members: Sequence[Member], variables: Sequence[Var], at: Index
    ) -> list[Stmt]:
        """Accumulators, one loop nest that feeds them all, and what is done with the results."""
        before: list[Stmt] = []
        inside: list[Stmt] = []
        after: list[Stmt] = []
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
            self.remember(m, index, var)
            if m.tensor in self.group.outputs:
                after.append(self.store(m.tensor, index, var))
        return [*before, *self.nest(self.group.reduced, variables, inside).stmts, *after]

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
