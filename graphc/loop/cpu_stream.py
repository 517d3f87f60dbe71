"""Stores past the caches, for results that are larger than what these hold.

A plain store to memory first reads the line that it changes; one that streams does not, and leaves
the caches to what is read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from graphc.loop.ir import (
    Block,
    Buffer,
    For,
    If,
    Kernel,
    Load,
    Stmt,
    Store,
    stmt_exprs,
    walk_expr,
    walk_stmt,
)

STREAM_BYTES = 8 << 20
"""From this size on a result that nothing reads in the same run is streamed."""


def stream(kernel: Kernel, buffers: Collection[Buffer]) -> Kernel:
    """The kernel with streaming stores to some of its parameters.

    What it reads back itself is stored as before: that must stay in the caches.
    """
    read = {
        node.buffer
        for stmt in walk_stmt(kernel.body)
        for node in walk_expr(*stmt_exprs(stmt))
        if isinstance(node, Load)
    }
    chosen = {b for b in buffers if b not in read}
    return replace(kernel, body=_block(kernel.body, chosen))


def _block(block: Block, chosen: Collection[Buffer]) -> Block:
    return Block(tuple(_streamed(s, chosen) for s in block.stmts))


def _streamed(stmt: Stmt, chosen: Collection[Buffer]) -> Stmt:
    if isinstance(stmt, Store) and stmt.buffer in chosen:
        return replace(stmt, streaming=True)
    if isinstance(stmt, Block):
        return _block(stmt, chosen)
    if isinstance(stmt, For):
        return replace(stmt, body=_block(stmt.body, chosen))
    if isinstance(stmt, If):
        other = stmt.otherwise and _block(stmt.otherwise, chosen)
        return replace(stmt, then=_block(stmt.then, chosen), otherwise=other)
    return stmt
