"""Contractions: sums of products, the one template under matrix products and convolutions.

A template knows nothing of graphs: operands come as functions from indices to expressions, and
the result goes out through a function from indices and a value to statements, so that whatever
was fused before or behind is just a bigger expression.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from graphc.dtypes import SHORT_FLOATS, DType, int32, int64, uint32
from graphc.kernels import index
from graphc.loop import ir
from graphc.loop.ir import Apply, Cast, Expr, Load, Stmt, Var
from graphc.loop.scalar import FUNCTIONS

Indices = tuple[Expr, ...]


class Target(Protocol):
    """What a schedule needs to know of a CPU; the JIT's ``CpuTarget`` is one."""

    @property
    def vector_bytes(self) -> int:
        """Bytes in a vector register."""

    @property
    def has_fma(self) -> bool:
        """Whether a product and a sum are one instruction."""

    @property
    def has_avx512(self) -> bool:
        """Whether there are 32 vector registers and masks."""

    @property
    def has_vnni(self) -> bool:
        """Whether a dot product of four bytes is one instruction, on all lanes."""

    @property
    def has_bf16(self) -> bool:
        """Whether a dot product of two bfloat16 is one instruction, on all lanes."""

    @property
    def has_madd(self) -> bool:
        """Whether a dot product of two int16 is one instruction, on all lanes."""


@dataclass(frozen=True)
class Contraction:
    """``out[b.., m.., n] = sum over k.. of lhs(b, m, k) * rhs(b, k, n)``.

    Extents are int64 expressions: constants, or expressions of the kernel's scalars. The
    innermost dimension of ``m`` and of ``k`` stands last. ``lhs`` and ``rhs`` may be any
    expressions; their products are added up in ``acc``, which is also the type of the value that
    ``epilogue`` is given. ``m`` and ``k`` have one dimension at least.

    ``nonzero(b, m, k)``, if given, are conditions without which the left operand is zero (the
    operand itself checks them too): where one fails for a whole tile, the tile is skipped.
    """

    batch: Indices
    m: Indices
    n: Expr
    k: Indices
    acc: DType
    lhs: Callable[[Indices, Indices, Indices], Expr]
    rhs: Callable[[Indices, Indices, Expr], Expr]
    epilogue: Callable[[Indices, Indices, Expr, Expr], tuple[Stmt, ...]]
    nonzero: Callable[[Indices, Indices, Indices], tuple[Expr, ...]] | None = None

    def lhs_value(self, batch: Indices, m: Indices, k: Indices) -> Expr:
        """An element of the left operand, in the type of the accumulator."""
        return ir.cast(self.lhs(batch, m, k), self.acc)

    def rhs_value(self, batch: Indices, k: Indices, n: Expr) -> Expr:
        """An element of the right operand, in the type of the accumulator."""
        return ir.cast(self.rhs(batch, k, n), self.acc)


def accumulator(dtype: DType) -> DType:
    """The type that products of ``dtype`` are added up in."""
    if dtype.is_integer and dtype.size < 4:
        return uint32 if dtype.is_unsigned else int32
    return dtype.accumulator


def swapped(problem: Contraction) -> Contraction:
    """The transposed problem: ``m`` and ``n``, left and right change places. One ``m`` only."""
    (rows,) = problem.m
    return replace(
        problem,
        m=(problem.n,),
        n=rows,
        lhs=lambda b, m, k: problem.rhs(b, k, m[0]),
        rhs=lambda b, k, n: problem.lhs(b, (n,), k),
        epilogue=lambda b, m, n, value: problem.epilogue(b, (n,), m[0], value),
    )


@dataclass(frozen=True)
class Access:
    """How the operands move through memory: strides of the innermost dimensions.

    A set of strides, one for each load that moves with the dimension; ``{1}`` is contiguous, the
    empty set a broadcast, and None stands for a stride that is no constant. ``*_plain``: the
    operand is one load in the accumulator's type; on the right, where a vector serves a whole tile,
    also one that is widened. ``rhs_size``: the bytes of an element of the right one where it lies.
    """

    lhs_m: frozenset[int | None]
    lhs_k: frozenset[int | None]
    rhs_k: frozenset[int | None]
    rhs_n: frozenset[int | None]
    lhs_plain: bool
    rhs_plain: bool
    rhs_size: int


def access(problem: Contraction) -> Access:
    """Look at the operands at symbolic indices."""
    batch = tuple(Var("b") for _ in problem.batch)
    m, k, n = tuple(Var("m") for _ in problem.m), tuple(Var("k") for _ in problem.k), Var("n")
    lhs, rhs = problem.lhs_value(batch, m, k), problem.rhs_value(batch, k, n)
    return Access(
        lhs_m=frozenset(index.strides(lhs, m[-1])),
        lhs_k=frozenset(index.strides(lhs, k[-1])),
        rhs_k=frozenset(index.strides(rhs, k[-1])),
        rhs_n=frozenset(index.strides(rhs, n)),
        lhs_plain=isinstance(lhs, Load),
        rhs_plain=_plain(rhs),
        rhs_size=(rhs.value if isinstance(rhs, Cast) else rhs).dtype.size,
    )


def _plain(operand: Expr) -> bool:
    """Whether vectors of the operand cost a load, and at most one conversion from 16 bits."""
    if isinstance(operand, Cast) and operand.value.dtype in SHORT_FLOATS:
        operand = operand.value
    return isinstance(operand, Load)


def epilogue_cost(problem: Contraction) -> int:
    """The arithmetic of the epilogue, in additions for each element."""
    batch = tuple(Var("b") for _ in problem.batch)
    m, n = tuple(Var("m") for _ in problem.m), Var("n")
    value = Load(ir.local("sum", problem.acc, 1), ir.ZERO)
    roots = [
        expr
        for stmt in problem.epilogue(batch, m, n, value)
        for inner in ir.walk_stmt(stmt)
        for expr in ir.stmt_exprs(inner)
    ]
    nodes = (e for e in ir.walk_expr(*roots) if isinstance(e, Apply) and e.dtype is not int64)
    return sum(FUNCTIONS[e.fn].cost for e in nodes)
