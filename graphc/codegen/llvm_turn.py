"""A square tile turned in registers: rows in, columns out, by shuffles of two registers each.

The first stages work within 16 bytes, where x86 interleaves the low or the high halves of two
registers in one instruction; the others move pieces of 16 bytes as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.llvm_text import Emitter, Val

PIECE_BYTES = 16


def column(e: Emitter, rows: Sequence[Val], size: int, number: int) -> Val:
    """Lane ``number`` of every row; elements have ``size`` bytes.

    There are as many rows as lanes, a power of two. What columns share is written once.
    """
    lanes = len(rows)
    piece = min(lanes, PIECE_BYTES // size)
    turned = [_within(e, rows[g : g + piece], piece, number % piece, 1)
              for g in range(0, lanes, piece)]  # fmt: skip
    return _across(e, turned, piece, number // piece)


def _within(e: Emitter, rows: Sequence[Val], piece: int, number: int, chunk: int) -> Val:
    """Of every piece, the chunk ``number`` of all rows, in the order of the rows."""
    if len(rows) == 1:
        return rows[0]
    lanes, half = rows[0].n, piece // 2
    first = half if number >= half // chunk else 0
    picks = [
        side + start + first + at + lane
        for start in range(0, lanes, piece)
        for at in range(0, half, chunk)
        for side in (0, lanes)
        for lane in range(chunk)
    ]
    joined = [e.shuffle(a, b, picks) for a, b in zip(rows[::2], rows[1::2], strict=True)]
    return _within(e, joined, piece, number % (half // chunk), 2 * chunk)


def _across(e: Emitter, vectors: Sequence[Val], piece: int, number: int) -> Val:
    """The piece ``number`` of every vector, in their order."""
    if len(vectors) == 1:
        return vectors[0]
    lanes = vectors[0].n
    starts = range(number % 2 * piece, lanes, 2 * piece)
    picks = [side + start + at for side in (0, lanes) for start in starts for at in range(piece)]
    joined = [e.shuffle(a, b, picks) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    return _across(e, joined, piece, number // 2)
