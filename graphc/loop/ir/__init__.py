"""The loop IR: what one kernel does, as loops over flat buffers.

The grammar, on one page::

    Kernel    = name(params: Buffer*, scalars: Var*) Block
    Stmt      = Block(Stmt*)
              | For(var, extent, kind, body)         kind: serial parallel vectorized unrolled
                                                           block thread
              | Store(buffer, index, value)
              | Reduce(buffer, index, op, value)     buffer[index] = op(buffer[index], value)
              | If(cond, then, otherwise)
              | Let(var, value)                      in scope for the rest of the Block
              | Alloc(buffer)                        likewise; a SHARED or LOCAL buffer
              | Prefetch(buffer, index)              its line will be read soon; any index will do
              | Barrier()                            every thread of a block waits here
              | AllReduce(buffer, index, op)         threads combine what each has in a LOCAL buffer
              | AsyncCopy(buffer, index, value, cond, count)   into a SHARED buffer, not waited for
              | AsyncCommit() | AsyncWait(pending)             groups of these, and waiting for them
              | WarpProduct(total, left, right, ...)           tensor cores (``warp.py``)
    Expr      = Const | Var | Load(buffer, index)
              | Apply(fn, args)                      fn: a row of ``scalar.py``
              | Cast(value)
              | Guard(cond, value, otherwise)        value is evaluated only where cond holds
              | Require(cond, value, site, details)  likewise; where cond fails the run reports
                                                     ``site`` and the value counts as 0

Buffers are one-dimensional: an index is a single int64 expression, row-major offsets are written
out by whoever builds the kernel.  Expressions are immutable and may share nodes (a DAG); a printer
emits a shared node once.  Every scalar parameter is an int64 symbol of the graph's shapes.

A ``vectorized`` loop of constant extent W stands for W lanes at once.  A LOCAL buffer allocated
inside its body is private to the lane.  A ``Reduce`` inside it whose buffer was allocated outside
and whose index does not depend on the lane combines all lanes (in an order fixed by W alone).
An ``If`` whose condition depends on the lane is a mask.
A ``parallel`` loop may only be the outermost statement of the kernel, alone or below Lets; its
iterations are independent.

``block`` and ``thread`` loops are the CUDA grid.  A grid kernel is Lets and then block loops, each
of which is one launch; in one stand SHARED buffers, Lets and thread loops, at most two of which
are nested.  Threads see each other's stores behind a Barrier, blocks in the next launch.
"""

from __future__ import annotations

from graphc.dtypes import bool_, int64
from graphc.loop.ir.exprs import (
    FALSE,
    ONE,
    TRUE,
    ZERO,
    Apply,
    Buffer,
    Cast,
    Const,
    Expr,
    Guard,
    Load,
    Require,
    Scope,
    Var,
    add,
    apply,
    bitcast,
    cast,
    const,
    dim_expr,
    index_div,
    index_mod,
    local,
    logical_and,
    logical_or,
    mul,
    select,
    sub,
    wrap,
)
from graphc.loop.ir.stmts import (
    LINE_BYTES,
    REDUCE_OPS,
    Alloc,
    AllReduce,
    Barrier,
    Block,
    For,
    If,
    Kernel,
    Let,
    LoopKind,
    Prefetch,
    Reduce,
    Stmt,
    Store,
    block,
    reduce_identity,
)
from graphc.loop.ir.walk import (
    rebuild,
    stmt_exprs,
    stored_buffers,
    substitute,
    walk_expr,
    walk_stmt,
)
from graphc.loop.ir.warp import (
    COPIED_BYTES,
    PRODUCTS,
    SHARED_BYTES,
    WARP,
    AsyncCommit,
    AsyncCopy,
    AsyncWait,
    WarpProduct,
)

__all__ = [
    "COPIED_BYTES",
    "FALSE",
    "LINE_BYTES",
    "ONE",
    "PRODUCTS",
    "REDUCE_OPS",
    "SHARED_BYTES",
    "TRUE",
    "WARP",
    "ZERO",
    "AllReduce",
    "Alloc",
    "Apply",
    "AsyncCommit",
    "AsyncCopy",
    "AsyncWait",
    "Barrier",
    "Block",
    "Buffer",
    "Cast",
    "Const",
    "Expr",
    "For",
    "Guard",
    "If",
    "Kernel",
    "Let",
    "Load",
    "LoopKind",
    "Prefetch",
    "Reduce",
    "Require",
    "Scope",
    "Stmt",
    "Store",
    "Var",
    "WarpProduct",
    "add",
    "apply",
    "bitcast",
    "block",
    "bool_",
    "cast",
    "const",
    "dim_expr",
    "index_div",
    "index_mod",
    "int64",
    "local",
    "logical_and",
    "logical_or",
    "mul",
    "rebuild",
    "reduce_identity",
    "select",
    "stmt_exprs",
    "stored_buffers",
    "sub",
    "substitute",
    "walk_expr",
    "walk_stmt",
    "wrap",
]
