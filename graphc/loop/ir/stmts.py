"""The statements of the loop IR and a kernel; the grammar is in the package's text."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from graphc import dtypes
from graphc.dtypes import DType
from graphc.loop.ir.exprs import ONE, Buffer, Const, Expr, Var


class LoopKind(enum.Enum):
    """How the iterations of a loop are carried out."""

    SERIAL = "serial"
    PARALLEL = "parallel"
    VECTORIZED = "vectorized"
    UNROLLED = "unrolled"
    BLOCK = "block"
    THREAD = "thread"


class Stmt:
    """A statement of a kernel."""

    __slots__ = ()


@dataclass(frozen=True, eq=False, slots=True)
class Block(Stmt):
    """Statements in order; a scope for Let and Alloc."""

    stmts: tuple[Stmt, ...]


@dataclass(frozen=True, eq=False, slots=True)
class For(Stmt):
    """``body`` for each value of ``var`` from 0 to ``extent`` - 1."""

    var: Var
    extent: Expr
    kind: LoopKind
    body: Block


@dataclass(frozen=True, eq=False, slots=True)
class Store(Stmt):
    """``buffer[index] = value``.

    ``streaming``: the data will not be read again soon, and the buffer begins on a line of the
    cache (64 bytes), so that it can be stored past the caches.
    """

    buffer: Buffer
    index: Expr
    value: Expr
    streaming: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Reduce(Stmt):
    """``buffer[index] = op(buffer[index], value)``; ``op`` is add, mul, max, min, and, or."""

    buffer: Buffer
    index: Expr
    op: str
    value: Expr


LINE_BYTES = 64
"""The bytes of a line of the cache: what one access brings there."""


@dataclass(frozen=True, eq=False, slots=True)
class Prefetch(Stmt):
    """``buffer[index]`` will be read soon: the line of the cache that it is in is asked for.

    The index may be outside of the buffer; loads in it are loads as all others. It changes no
    value.
    """

    buffer: Buffer
    index: Expr


@dataclass(frozen=True, eq=False, slots=True)
class If(Stmt):
    """``then`` where ``cond`` holds, else ``otherwise``."""

    cond: Expr
    then: Block
    otherwise: Block | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Let(Stmt):
    """``var = value`` for the rest of the enclosing Block."""

    var: Var
    value: Expr


@dataclass(frozen=True, eq=False, slots=True)
class Alloc(Stmt):
    """A SHARED or LOCAL buffer of constant size, uninitialised, for the rest of the Block."""

    buffer: Buffer


@dataclass(frozen=True, eq=False, slots=True)
class Barrier(Stmt):
    """Every thread of the CUDA block has done what stands before, before any goes on."""


@dataclass(frozen=True, eq=False, slots=True)
class AllReduce(Stmt):
    """Threads combine what each has in a LOCAL buffer; then every one of them has the result.

    The threads are those of the innermost thread loop; the order in which they are combined
    depends on its extent alone. ``op`` is one of ``Reduce``.
    """

    buffer: Buffer
    index: Expr
    op: str


@dataclass(frozen=True, eq=False, slots=True)
class Kernel:
    """One kernel: ``params`` are GLOBAL buffers, ``scalars`` int64 symbols, bound by the caller.

    ``grain`` (over the scalars) is how many iterations of the outermost PARALLEL loop make one
    chunk of work; it depends on the problem alone, never on the number of threads.
    """

    name: str
    params: tuple[Buffer, ...]
    scalars: tuple[Var, ...]
    body: Block
    grain: Expr = ONE

    @property
    def parallel(self) -> For | None:
        """The outermost PARALLEL loop, or None for a kernel that runs on one thread."""
        for stmt in self.body.stmts:
            if isinstance(stmt, For) and stmt.kind is LoopKind.PARALLEL:
                return stmt
        return None


def block(*stmts: Stmt) -> Block:
    """Statements as one Block; nested Blocks without declarations are flattened."""
    flat: list[Stmt] = []
    for s in stmts:
        if isinstance(s, Block) and not any(isinstance(i, (Let, Alloc)) for i in s.stmts):
            flat.extend(s.stmts)
        else:
            flat.append(s)
    return Block(tuple(flat))


REDUCE_OPS = ("add", "mul", "max", "min", "and", "or")


def reduce_identity(op: str, dtype: DType) -> Const:
    """The value that ``op`` leaves every other value unchanged with."""
    if op in ("and", "or"):
        return Const(op == "and", dtypes.bool_)
    if op == "add":
        return Const(0, dtype)
    if op == "mul":
        return Const(1, dtype)
    if dtype.is_floating:
        return Const(float("-inf") if op == "max" else float("inf"), dtype)
    return Const(dtype.min if op == "max" else dtype.max, dtype)
