"""What an op's definition reads: the elements of its operands that one element needs."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.dims import DimLike, Symbol
from graphc.graph import Operation, Tensor
from graphc.loop import ir
from graphc.loop.ir import ZERO, Expr, Var
from graphc.loop.scalar import FUNCTIONS
from graphc.op import ElementContext, ElementOp, ReductionOp

Index = tuple[Expr, ...]


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
    """What one output of an operation reads, in terms of index variables of its own.

    ``symbols`` are those of the sizes that it counts with, be they in its type or not.
    """

    out: tuple[Var, ...]
    inner: tuple[Var, ...]
    extents: tuple[DimLike, ...]
    reads: list[tuple[Tensor, Index]]
    cost: int
    moves: bool
    guarded: bool
    symbols: frozenset[Symbol]


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
    symbols = frozenset(tracer.symbols)
    return Trace(out, inner, extents, tracer.reads, cost, moves, guarded, symbols)
