"""What an op's definition reads: the elements of its operands that one element needs."""

from __future__ import annotations

from collections.abc import Sequence
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

    ``symbols`` are those of the sizes that it counts with, be they in its type or not;
    ``depends``: whether the value depends on each read, whatever others are.
    """

    out: tuple[Var, ...]
    inner: tuple[Var, ...]
    extents: tuple[DimLike, ...]
    reads: list[tuple[Tensor, Index]]
    cost: int
    moves: bool
    guarded: bool
    symbols: frozenset[Symbol]
    depends: bool

    def reads_all(self, sizes: Sequence[DimLike], tensor: Tensor) -> bool:
        """Whether all that is read is each element of ``tensor`` once, for results of ``sizes``."""
        variables = (*self.out, *self.inner)
        extents: dict[Expr, DimLike] = dict(zip(variables, (*sizes, *self.extents), strict=True))
        if len(self.reads) != 1 or self.reads[0][0] is not tensor:
            return False
        index = self.reads[0][1]
        read = {x for x in index if x is not ZERO}
        moving = {v for v, s in extents.items() if s != 1}
        return (
            moving <= read <= extents.keys()
            and len(read) == sum(x is not ZERO for x in index)
            and all(
                s == (1 if x is ZERO else extents[x])
                for x, s in zip(index, tensor.sizes or (), strict=True)
            )
        )


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
    # Where literals choose, or absorb, the rest of the value goes when it is lowered.
    folds = any(isinstance(n, ir.Apply) and n.fn in ("select", "and", "or") for n in nodes)
    depends = value.dtype.is_floating and not guarded and not folds
    return Trace(out, inner, extents, tracer.reads, cost, moves, guarded, symbols, depends)
