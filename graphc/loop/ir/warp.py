"""The statements of a GPU's warps: copies that nobody waits for, and products of tensor cores."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.dtypes import DType, bfloat16, float16, float32, int8, int32, uint8
from graphc.loop.ir.exprs import Buffer, Expr, Load
from graphc.loop.ir.stmts import Stmt

WARP = 32
"""Threads that do the same at the same time."""
SHARED_BYTES = 48 << 10
"""Shared memory that a block has without asking for more."""
COPIED_BYTES = (4, 8, 16)
"""What one copy may have."""
PRODUCTS: dict[tuple[DType, DType], DType] = {
    (float16, float16): float32, (bfloat16, bfloat16): float32, (float32, float32): float32,
    (int8, int8): int32, (uint8, int8): int32,
}  # fmt: skip
"""The dtypes of two factors that tensor cores multiply, and of their sums."""


@dataclass(frozen=True, eq=False, slots=True)
class AsyncCopy(Stmt):
    """A thread begins to copy ``count`` elements that lie side by side.

    From ``value`` on, an element of a GLOBAL buffer, to ``buffer``, a SHARED one, from ``index``
    on; zeros where ``cond`` does not hold, and nothing is read there. Both places begin at a
    multiple of the copy's bytes. What is copied is there for the thread behind an ``AsyncWait``,
    and for others behind a Barrier after that.
    """

    buffer: Buffer
    index: Expr
    value: Load
    cond: Expr
    count: int


@dataclass(frozen=True, eq=False, slots=True)
class AsyncCommit(Stmt):
    """The copies that the thread has begun since the last one of these are a group."""


@dataclass(frozen=True, eq=False, slots=True)
class AsyncWait(Stmt):
    """The thread waits for all its groups but the last ``pending`` ones."""

    pending: int


@dataclass(frozen=True, eq=False, slots=True)
class WarpProduct(Stmt):
    """The threads of every warp together add a product of two matrices.

    ``shape`` is (m, n, k). Element (i, t) of the left matrix is ``left_steps[0] * i +
    left_steps[1] * t`` elements behind ``left``, element (t, j) of the right one ``right_steps[0] *
    t + right_steps[1] * j`` behind ``right``; one step of either is 1, and matrices in SHARED
    memory begin at multiples of 16 bytes. ``total``, a LOCAL buffer of m * n / 32 elements, is what
    a thread holds of the sums: of lane ``l``, element e of tile (p, q) of 16 x 8, at (p * (n // 8)
    + q) * 4 + e, is that of row p * 16 + l // 4 + e // 2 * 8 and column q * 8 + l % 4 * 2 + e % 2.
    With two thread loops, lanes are numbered row by row of threads.

    The right matrix is in SHARED memory, the left one there too, or in a LOCAL buffer: floats of 16
    bits, held as the sums of a product of m x k are. ``left`` is then its first element, and
    ``left_steps`` are (0, 0).

    Factors of float32 count with 10 bits behind the point (TF32). The order of additions is the
    device's.
    """

    total: Buffer
    left: Load
    right: Load
    left_steps: tuple[int, int]
    right_steps: tuple[int, int]
    shape: tuple[int, int, int]
