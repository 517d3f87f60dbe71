"""From a fused group to a loop kernel: the only bridge between graph and loop.

A loop group becomes a *naive* kernel (plain nested loops over its frame, stages in order) that the
target's schedule makes fast; a template's group is built by :mod:`graphc.kernels` with the group's
inlined operands as prologue and its members as epilogue.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.dims import DimLike, Symbol, product, substitute
from graphc.errors import CompileError, VerifyError
from graphc.graph import Operation, Tensor
from graphc.kernels.contraction import contraction_kernel
from graphc.kernels.problem import Contraction, accumulator
from graphc.kernels.scatter import scatter_add_kernel
from graphc.loop import ir
from graphc.loop.cpu import schedule_cpu
from graphc.loop.ir import ZERO, Alloc, Block, Buffer, Expr, For, Kernel, Let, LoopKind
from graphc.loop.ir import Reduce, Stmt, Store, Var
from graphc.loop.verify import verify_kernel
from graphc.op import ContractionOp, ElementContext, ElementOp, ReductionOp
from graphc.passes.plan import Group, Member, Plan, is_literal

Index = tuple[Expr, ...]


@dataclass(frozen=True)
class Site:
    """A place in a kernel where a run can fail."""

    message: str
    op: Operation


class Lowered:
    """A kernel and what to bind its parameters to.

    The kernel itself is built when it is first asked for: a program whose code is in the cache
    never asks.

    Attributes:
      name: the kernel's name.
      buffers: the storage root of each parameter, in order.
      writes: those that the kernel writes.
      symbols: the sizes of the kernel's scalar parameters, in order.
      fallible: whether a run of it can fail.
      work: roughly the bytes and operations of one run.
      has_fast: whether there is a version for the sizes that were seen first.
    """

    def __init__(self, lowering: Lowering, group: Group, name: str) -> None:
        self.name = name
        self._lowering = lowering
        self._group = group
        first = GroupLowering(lowering, group, name)
        self._build = first.prepare()
        self.buffers = list(first.buffers)
        self.writes = list(first.writes)
        self.symbols = list(first.symbols)
        self.fallible = first.fallible
        self.work = first.work()
        hints = lowering.hints
        self.has_fast = (
            group.template is not None
            and bool(self.symbols)
            and all(s in hints for s in self.symbols)
        )

    @functools.cached_property
    def kernel(self) -> Kernel:
        """The scheduled kernel."""
        return self._verified(self._build())

    @functools.cached_property
    def fast(self) -> Kernel | None:
        """The kernel for the sizes that were seen first, as constants: it takes no scalars."""
        if not self.has_fast:
            return None
        hints = self._lowering.hints
        second = GroupLowering(self._lowering, self._group, f"{self.name}_fast", hints)
        build = second.prepare()
        if list(second.buffers) != self.buffers or second.symbols:
            raise CompileError(f"kernel {self.name}: its fast version has other parameters")
        return self._verified(build())

    def _verified(self, kernel: Kernel) -> Kernel:
        if self._lowering.verify:
            try:
                verify_kernel(kernel)
            except VerifyError as e:
                operations = ", ".join(t.op.name for t in self._group.tensors)
                raise VerifyError(f"lowering of {operations}: {e}") from e
        return kernel


@dataclass
class Lowering:
    """State that the kernels of one program share.

    ``inplace`` maps a tensor to the storage root that it is written into instead of its own;
    ``hints`` are the sizes seen first.
    """

    plan: Plan
    target: Any
    sites: list[Site] = field(default_factory=list)
    inplace: dict[Tensor, Tensor] = field(default_factory=dict)
    hints: dict[Symbol, int] = field(default_factory=dict)
    scheduled: bool = True
    verify: bool = False
    _known_sites: dict[tuple[Operation, str], int] = field(default_factory=dict)

    def site(self, message: str, op: Operation) -> int:
        """The number of an error site; the same for the same message of the same operation."""
        number = self._known_sites.get((op, message))
        if number is None:
            number = self._known_sites[(op, message)] = len(self.sites)
            self.sites.append(Site(message, op))
        return number

    def storage(self, tensor: Tensor) -> Tensor:
        """The tensor whose buffer holds ``tensor``."""
        root = self.plan.root(tensor)
        return self.inplace.get(root, root)


class GroupLowering:
    """Lowers one group."""

    def __init__(
        self, lowering: Lowering, group: Group, name: str, hints: dict[Symbol, int] | None = None
    ) -> None:
        self.lowering = lowering
        self.group = group
        self.name = name
        self.hints = hints
        self.symbols: dict[Symbol, Var] = {}
        self.buffers: dict[Tensor, Buffer] = {}
        self.writes: dict[Tensor, None] = {}
        self.memo: dict[tuple[Tensor, tuple[int, ...]], Expr] = {}
        self.keep: list[Any] = []
        self.fallible = False

    # --- operands -----------------------------------------------------------------------------

    def size(self, value: DimLike) -> Expr:
        """A size over the kernel's scalar parameters."""
        if self.hints:
            value = substitute(value, self.hints)
        return ir.dim_expr(value, self.symbols)

    def buffer(self, tensor: Tensor) -> Buffer:
        """The parameter that holds the tensor's storage."""
        root = self.lowering.storage(tensor)
        found = self.buffers.get(root)
        if found is None:
            assert root.sizes is not None
            size = self.size(product(root.sizes))
            dtype = root.dtype.base_dtype
            found = self.buffers[root] = Buffer(f"b{len(self.buffers)}", dtype, size)
        return found

    def flat(self, sizes: Sequence[DimLike], index: Index) -> Expr:
        """The row-major offset of an index."""
        total: Expr = ZERO
        for k, (size, at) in enumerate(zip(sizes, index, strict=True)):
            if size == 1 or at is ZERO:
                continue
            stride = self.size(product(sizes[k + 1 :]))
            total = ir.add(total, ir.mul(at, stride))
        return total

    def value(self, tensor: Tensor, index: Index) -> Expr:
        """The tensor's element at an index: computed by this group, inlined or loaded."""
        assert tensor.sizes is not None
        index = tuple(ZERO if s == 1 else x for s, x in zip(tensor.sizes, index, strict=True))
        key = (tensor, tuple(id(x) for x in index))
        found = self.memo.get(key)
        if found is None:
            found = self.compute(tensor, index)
            self.memo[key] = found
            self.keep.append(index)
        return found

    def compute(self, tensor: Tensor, index: Index) -> Expr:
        """The value, the first time it is asked for."""
        if is_literal(tensor):
            value = tensor.op.attrs["value"].reshape(-1)[0]
            return ir.Const(value, tensor.dtype.base_dtype)
        if tensor in self.lowering.plan.inlined:
            return self.element(tensor, index)
        if self.lowering.plan.root(tensor) in self.own:
            raise CompileError(
                f"kernel {self.name} reads {tensor.name} elsewhere than where it computes it"
            )
        assert tensor.sizes is not None
        return ir.Load(self.buffer(tensor), self.flat(tensor.sizes, index))

    def element(self, tensor: Tensor, index: Index) -> Expr:
        """The op's own definition of the element."""
        definition = tensor.op.definition
        assert isinstance(definition, ElementOp), tensor
        return definition.element(Reader(self, tensor.op, tensor.index), index)

    @functools.cached_property
    def own(self) -> set[Tensor]:
        """The tensors that the group computes."""
        return set(self.group.tensors)

    def store(self, tensor: Tensor, index: Index, value: Expr) -> Stmt:
        """Write an element of an output."""
        assert tensor.sizes is not None
        buffer = self.buffer(tensor)
        self.writes[self.lowering.storage(tensor)] = None
        return Store(buffer, self.flat(tensor.sizes, index), value)

    # --- loop groups ----------------------------------------------------------------------------

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
            elif role == "row":
                body += self.store_stage(members, at)
            elif not group.reduced:
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

    def index_of(self, member: Member, at: Index) -> Index:
        """The member's output index in the current iteration."""
        return tuple(ZERO if k is None else at[k] for k in member.place)

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
        found = []
        reduced = list(self.group.reduced)
        for extent in extents:
            if extent == 1 and not (reduced and self.group.frame[reduced[0]] == 1):
                found.append(ZERO)
            else:
                found.append(at[reduced.pop(0)])
        return tuple(found)

    def remember(self, member: Member, index: Index, var: Expr) -> None:
        """Later reads of the member's element in this iteration are ``var``."""
        self.memo[(member.tensor, tuple(id(x) for x in index))] = var
        self.keep.append(index)

    def store_stage(self, members: Sequence[Member], at: Index) -> list[Stmt]:
        """Evaluate every member's element, then store the outputs among them."""
        lets: list[Stmt] = []
        stores: list[Stmt] = []
        for m in members:
            index = self.index_of(m, at)
            value = stored = self.element(m.tensor, index)
            if m.tensor in self.group.outputs:
                if len(members) > 1 and not isinstance(value, ir.Const):
                    stored = Var(f"v{len(self.keep)}", value.dtype)
                    self.keep.append(stored)
                    lets.append(Let(stored, value))
                stores.append(self.store(m.tensor, index, stored))
            # A later loop nest of the group cannot see this nest's Let: it computes again.
            visible = m.role == "row" or not self.group.reduced
            self.remember(m, index, stored if visible else value)
        return [*lets, *stores]

    # --- templates --------------------------------------------------------------------------------

    def contraction(self) -> Callable[[], Kernel]:
        """The group's anchor as a contraction with prologue and epilogue."""
        op = self.group.template
        assert op is not None and isinstance(op.definition, ContractionOp)
        form = op.definition.contraction(Reader(self, op, 0))
        out = op.outputs[0]
        dtype = op.inputs[0].dtype.base_dtype

        def epilogue(b: Index, m: Index, n: Expr, acc: Expr) -> tuple[Stmt, ...]:
            self.memo.clear()
            index = form.index(b, m, n)
            value = ir.cast(acc, out.dtype.base_dtype)
            self.remember(Member(out, "point", ()), index, value)
            stores = []
            if out in self.group.outputs:
                stores.append(self.store(out, index, value))
            return (*stores, *self.epilogue_stores(index))

        problem = Contraction(
            batch=tuple(self.size(s) for s in form.batch),
            m=tuple(self.size(s) for s in form.m),
            n=self.size(form.n),
            k=tuple(self.size(s) for s in form.k),
            acc=accumulator(dtype),
            lhs=form.lhs,
            rhs=form.rhs,
            epilogue=epilogue,
        )
        self.declare(form, epilogue)
        params, scalars = tuple(self.buffers.values()), tuple(self.symbols.values())
        target = self.lowering.target
        return lambda: contraction_kernel(self.name, params, scalars, problem, target)

    def scatter_add(self, op: Operation) -> Callable[[], Kernel]:
        """Rows of updates added to zeros; nothing may be fused behind it."""
        reader, out = Reader(self, op, 0), op.outputs[0]
        assert out.sizes is not None and op.inputs[2].sizes is not None
        rows, columns = out.sizes[0], product(out.sizes[1:])
        shape = op.inputs[2].sizes

        def update(i: Expr, column: Expr) -> Expr:
            index = [column] if len(shape) == 2 else delinearize(self, column, shape[1:])
            return reader.operand(2, (i, *index) if len(shape) > 1 else (i,))

        buffer = self.buffer(out)
        self.writes[self.lowering.storage(out)] = None
        probe = Var("i")
        reader.operand(1, (probe,))
        update(probe, Var("c"))
        sizes = {
            "rows": self.size(rows), "count": self.size(shape[0]), "columns": self.size(columns)
        }  # fmt: skip
        self.memo.clear()
        params, scalars = tuple(self.buffers.values()), tuple(self.symbols.values())
        return lambda: scatter_add_kernel(
            self.name, params, scalars, **sizes, index=lambda i: reader.operand(1, (i,)),
            update=update, out=buffer,
        )  # fmt: skip

    def epilogue_stores(self, index: Index) -> list[Stmt]:
        """The group's members at an index of the output domain."""
        at = tuple(index)
        frame = self.group.frame
        at = tuple(ZERO if s == 1 else x for s, x in zip(frame, at, strict=True))
        if at != tuple(index):
            assert self.group.template is not None
            out = self.group.template.outputs[0]
            self.memo[(out, tuple(id(x) for x in at))] = self.memo[
                (out, tuple(id(x) for x in index))
            ]
            self.keep.append(at)
        return self.store_stage(self.group.members, at)

    def declare(self, form: Any, epilogue: Callable[..., Any]) -> None:
        """Touch every operand and output once, so that all parameters are known beforehand."""
        b = tuple(Var("b") for _ in form.batch)
        m, k = tuple(Var("m") for _ in form.m), tuple(Var("k") for _ in form.k)
        n = Var("n")
        form.lhs(b, m, k)
        form.rhs(b, k, n)
        assert self.group.template is not None
        dtype = accumulator(self.group.template.inputs[0].dtype.base_dtype)
        epilogue(b, m, n, Var("acc", dtype))
        self.memo.clear()

    # --- the result -------------------------------------------------------------------------------

    def prepare(self) -> Callable[[], Kernel]:
        """Settle the parameters; what is returned builds the kernel."""
        group = self.group
        if group.template is not None:
            if isinstance(group.template.definition, ContractionOp):
                return self.contraction()
            if group.template.definition.template == "scatter_add":  # type: ignore[attr-defined]
                return self.scatter_add(group.template)
            raise CompileError(f"no template computes {group.template.type}")
        body = self.loops()
        params, scalars = tuple(self.buffers.values()), tuple(self.symbols.values())
        kernel = Kernel(self.name, params, scalars, body)
        if not self.lowering.scheduled:
            return lambda: kernel
        return lambda: schedule_cpu(kernel, self.lowering.target)

    def work(self) -> DimLike:
        """Roughly the bytes and operations of one run, for choosing how to run it."""
        op = self.group.template
        if op is not None and isinstance(op.definition, ContractionOp):
            form = op.definition.contraction(Reader(self, op, 0))
            return product((*form.batch, *form.m, form.n, *form.k)) // 8
        return product(self.group.frame) * 4 * (1 + len(self.group.members))


def delinearize(lowering: GroupLowering, flat: Expr, sizes: Sequence[DimLike]) -> Index:
    """The index whose row-major offset is ``flat``."""
    index: list[Expr] = []
    for k, size in enumerate(sizes):
        stride = lowering.size(product(sizes[k + 1 :]))
        at = ir.index_div(flat, stride)
        index.append(at if k == 0 else ir.index_mod(at, lowering.size(size)))
    return tuple(index)


class Reader(ElementContext):
    """What an op's definition reads, while its group is lowered."""

    def __init__(self, lowering: GroupLowering, op: Operation, output_index: int) -> None:
        self.lowering = lowering
        self.op = op
        self.output_index = output_index

    def operand(self, i: int, index: Index) -> Expr:
        """The operand's element."""
        return self.lowering.value(self.op.inputs[i], index)

    def size(self, value: DimLike) -> Expr:
        """The size over the kernel's parameters."""
        return self.lowering.size(value)

    def site(self, message: str, op: Operation | None = None) -> int:
        """A new error site of the program."""
        self.lowering.fallible = True
        return self.lowering.lowering.site(message, op or self.op)


def lower_group(lowering: Lowering, group: Group, name: str) -> Lowered:
    """The kernel of one group; a template gets a fast version for the sizes seen first, too."""
    return Lowered(lowering, group, name)
