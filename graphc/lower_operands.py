"""What the kernels of one program share, and how a group's kernel reads and writes elements."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.dims import DimLike, Symbol, product, substitute
from graphc.errors import CompileError
from graphc.graph import Operation, Tensor
from graphc.loop import ir
from graphc.loop.ir import ZERO, Buffer, Expr, Let, Stmt, Store, Var
from graphc.op import ElementContext, ElementOp
from graphc.passes.plan import Group, Member, Plan, is_literal

Index = tuple[Expr, ...]


@dataclass(frozen=True)
class Site:
    """A place in a kernel where a run can fail."""

    message: str
    op: Operation

    def text(self, details: Sequence[int]) -> str:
        """The message with the details of a failure; ``%%`` is a percent sign."""
        wanted = self.message.replace("%%", "").count("%d")
        return self.message % tuple(details[:wanted])


@dataclass
class Lowering:
    """State that the kernels of one program share.

    ``inplace`` maps a tensor to the storage root that it is written into instead of its own;
    ``hints`` are the sizes seen first; ``origin`` gives the user's operation for a name.
    """

    plan: Plan
    target: Any
    sites: list[Site] = field(default_factory=list)
    inplace: dict[Tensor, Tensor] = field(default_factory=dict)
    hints: dict[Symbol, int] = field(default_factory=dict)
    scheduled: bool = True
    verify: bool = False
    origin: dict[str, Operation] = field(default_factory=dict)
    _known_sites: dict[tuple[Operation, str], int] = field(default_factory=dict)

    def site(self, message: str, op: Operation) -> int:
        """The number of an error site; the same for the same message of the same operation."""
        number = self._known_sites.get((op, message))
        if number is None:
            number = self._known_sites[(op, message)] = len(self.sites)
            self.sites.append(Site(message, self.origin.get(op.name, op)))
        return number

    def storage(self, tensor: Tensor) -> Tensor:
        """The tensor whose buffer holds ``tensor``."""
        root = self.plan.root(tensor)
        return self.inplace.get(root, root)


class GroupOperands:
    """The parameters of a group's kernel, and the values of tensors in terms of them."""

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

    def index_of(self, member: Member, at: Index) -> Index:
        """The member's output index in the current iteration."""
        return tuple(ZERO if k is None else at[k] for k in member.place)

    def remember(self, member: Member, index: Index, var: Expr) -> None:
        """Later reads of the member's element in this iteration are ``var``."""
        self.memo[(member.tensor, tuple(id(x) for x in index))] = var
        self.keep.append(index)

    def let(self, value: Expr, into: list[Stmt]) -> Expr:
        """A variable for a value that is used more than once."""
        if isinstance(value, (ir.Const, Var)):
            return value
        var = Var(f"v{len(self.keep)}", value.dtype)
        self.keep.append(var)
        into.append(Let(var, value))
        return var

    def store_stage(self, members: Sequence[Member], at: Index) -> list[Stmt]:
        """Evaluate every member's element, then store the outputs among them."""
        lets: list[Stmt] = []
        stores: list[Stmt] = []
        for m in members:
            index = self.index_of(m, at)
            value = self.element(m.tensor, index)
            if m.tensor in self.group.outputs:
                if len(members) > 1:
                    value = self.let(value, lets)
                stores.append(self.store(m.tensor, index, value))
            self.remember(m, index, value)
        return [*lets, *stores]


class Reader(ElementContext):
    """What an op's definition reads, while its group is lowered."""

    def __init__(self, lowering: GroupOperands, op: Operation, output_index: int) -> None:
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
