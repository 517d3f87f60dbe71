"""The rules of copies into shared memory and of products of warps."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from graphc.loop.affine import known
from graphc.loop.ir import (
    COPIED_BYTES,
    PRODUCTS,
    WARP,
    AsyncCopy,
    Buffer,
    For,
    Scope,
    Var,
    WarpProduct,
)

_ROW = 16  # bytes of a row that tensor cores are given at once


def copy_fault(stmt: AsyncCopy, scope: Collection[Var | Buffer]) -> str | None:
    """What is wrong with a copy."""
    target, source = stmt.buffer, stmt.value.buffer
    if target not in scope or target.scope is not Scope.SHARED:
        return f"a copy is into a shared buffer in scope, not {target.name!r}"
    if source.scope is not Scope.GLOBAL or source.dtype is not target.dtype:
        return f"a copy into {target.name!r} is of a global buffer of {target.dtype.code}"
    if stmt.count * target.dtype.size not in COPIED_BYTES:
        return f"a copy has {COPIED_BYTES} bytes, not {stmt.count * target.dtype.size}"
    return None


def product_fault(
    stmt: WarpProduct, scope: Collection[Var | Buffer], loops: Sequence[For]
) -> str | None:
    """What is wrong with a product of a warp."""
    left, right, total = stmt.left.buffer, stmt.right.buffer, stmt.total
    if math.prod(known(loop.extent) or 0 for loop in loops) % WARP:
        return f"a warp's product needs whole warps of {WARP} threads"
    held = left.scope is Scope.LOCAL
    if left.scope is Scope.GLOBAL or right.scope is not Scope.SHARED:
        return "a warp multiplies what is in shared memory, or on the left what its threads hold"
    if PRODUCTS.get((left.dtype, right.dtype)) is not total.dtype:
        codes = f"{left.dtype.code} by {right.dtype.code}"
        return f"no tensor core multiplies {codes} with sums of {total.dtype.code}"
    m, n, k = stmt.shape
    if total not in scope or total.scope is not Scope.LOCAL:
        return f"the sums are in a local buffer in scope, not {total.name!r}"
    size = left.dtype.size
    if m < 16 or n < 16 or k < 1 or m % 16 or n % 16 or k % (2 * _ROW // size):
        return f"a product of {m} x {n} x {k} is no multiple of 16 x 16 x {2 * _ROW // size}"
    if known(total.size) != m * n // WARP:
        return f"a thread has {m * n // WARP} sums, {total.name!r} holds {known(total.size)}"
    if held and (size != 2 or known(left.size) != m * k // WARP):
        return f"a thread holds {m * k // WARP} floats of 16 bits of the left matrix"
    if held and (stmt.left_steps != (0, 0) or known(stmt.left.index) != 0):
        return f"the left matrix {left.name!r} is held from its first element on, by 0 0"
    sides = (("left", stmt.left_steps, 1), ("right", stmt.right_steps, 0))
    for name, steps, along in sides[held:]:
        other = steps[0] if steps[1] == 1 else steps[1]
        if 1 not in steps or other % (_ROW // size):
            return f"the steps {steps} of the {name} matrix are not 1 and rows of {_ROW} bytes"
        if size == 1 and steps[along] != 1:
            return f"bytes of the {name} matrix that are multiplied lie side by side"
    return None
