"""What products over packed words share: of pairs (``pairs``) and of four bytes (``vnni``)."""

from __future__ import annotations

import math

from graphc.kernels import tiling
from graphc.kernels.problem import Contraction
from graphc.kernels.tiling import Depth, known
from graphc.loop import ir
from graphc.loop.ir import Expr

WORD_BYTES = 4
"""Bytes of a word."""
K_WORDS = 256
"""Words of ``k`` in a block, where ``k`` is blocked."""
PANEL_BYTES = 256 * 1024
"""The most that the packed panels of a block may take: a part of the second cache."""
SUMS_BYTES = 256 * 1024
"""The most that the sums of a block may take, where ``k`` is blocked."""
BLOCK_ROWS = 512
"""The most rows of a block: what packing the right operand costs is shared by so many."""
BLOCK_COLUMNS = 256
"""The most columns of a block: likewise for the left operand."""
SERIAL_BYTES = 512 * 1024
"""A right operand that lies in words and is larger comes to two cores faster than to one."""
CHUNK_BYTES = 128 * 1024
"""What one chunk reads of it, about 2 µs."""


def block_of(
    problem: Contraction, rows: int, width: int, tiles: int | None, depth: Depth
) -> tuple[int, int]:
    """Panels and row tiles of an iteration of the parallel loop.

    Args:
      problem: the product, over words.
      rows, width: of a tile.
      tiles: how many tiles of rows there are, if that is known.
      depth: how ``k`` is blocked.
    """
    most = min(BLOCK_COLUMNS, PANEL_BYTES // (4 * max(1, depth.size)))
    n = known(problem.n)
    panels = max(1, most // width)
    if n is not None:
        panels = tiling.balanced(math.ceil(n / width), panels)
    block = max(1, BLOCK_ROWS // rows)
    if depth.blocked:
        block = max(1, min(block, SUMS_BYTES // (4 * rows * width * panels)))
    if tiles is None:
        return panels, block
    block = tiling.balanced(tiles, block)
    if n is not None and tiling.volume(problem.batch) == 1:
        # Two threads and more want pieces enough.
        while panels > 1 and math.ceil(tiles / block) * math.ceil(n / (panels * width)) < 4:
            panels = math.ceil(panels / 2)
    return panels, block


def reading(problem: Contraction, size: int) -> tuple[bool, Expr]:
    """Whether a product of few rows is serial, and its grain: it takes as long as reading takes.

    Args:
      problem: the product, over words, its right operand's already made.
      size: the bytes of a word where it lies.
    """
    n, words = known(problem.n) or 0, tiling.volume(problem.k) or 0
    read = size * n * words
    serial = (tiling.volume(problem.batch) or 1) * read <= SERIAL_BYTES
    return serial, ir.const(max(1, CHUNK_BYTES // max(1, read)))


def operations_of(problem: Contraction, steps: int | None) -> int | None:
    """Products and sums of words, if the sizes are known; many, where only the batch is not."""
    total, n = tiling.volume(problem.m), known(problem.n)
    if total is None or n is None or steps is None:
        return None
    return 2 * total * n * steps * (tiling.volume(problem.batch) or 1 << 20)
