"""Tile sizes of a contraction: what is kept in registers, what is packed, what runs in parallel."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from graphc.kernels.problem import Access, Contraction, Target
from graphc.loop import ir
from graphc.loop.ir import Const, Expr

K_BLOCK = 256
"""Steps of ``k`` between two passes over the accumulators of a block, where ``k`` is blocked."""
K_LONG = 512
"""The same from MANY_K_ROWS rows on: a packed panel serves many of them."""
MANY_K_ROWS = 512
K_RUN = 1024
"""The same where the right operand is read in one run: it need not stay in the first cache."""
LEAST_STEPS = 64
"""Of a block of them, to be worth the sums that are read and stored."""
FIRST_CACHE = 24 * 1024
"""What a block of two operands takes of the first cache, where both move by whole lines with each
step of ``k`` and vectors are shorter than lines: the second cache is too slow for both."""
PANEL_BYTES = 512 * 1024
"""A panel of the right operand that is larger is packed, block by block."""
FAR_BYTES = 8 * 1024 * 1024
"""A right operand that is larger is packed, however few the rows are."""
MANY_ROWS = 256
"""From so many rows, one that is larger than PANEL_BYTES is packed."""
NARROW_TILES = 4
"""From so many row tiles, so is one that is larger than NARROW_BYTES, where vectors are shorter
than lines of the caches: of panels of a line or two, few rows stay in the first cache at most
distances."""
NARROW_BYTES = 32 * 1024
"""What the first cache holds."""
NARROW_PANELS = 4
"""Such panels are packed so many at once."""
FEW_VECTORS = 3
"""The most vectors of a panel of several rows where there are 16 registers."""
AHEAD_BYTES = 8 * 1024
"""How far in front of what is read a right operand is asked for: it comes in its time, and a
CPU's own prefetchers do not look beyond a page of memory."""
NEAR_BYTES = (128 * 1024, 512 * 1024)
"""A right operand that is smaller stays in a cache: one that is read in one run, and one that is
read row by row."""
WAY_BYTES = 4096
"""Lines this far apart share the few places (8 or 12) of one set of the first cache."""
COLLIDING_ROWS = 10
"""The most rows of a tile that are so far apart: 12 and 14 take up to 1.4 times as long."""
PANEL_ROW_BYTES = 512
"""Rows of at most so many bytes, one behind the other, are one run."""
PACKED_ROWS = (256, 1024)
"""Rows of an iteration that packs operands or walks ``k`` in blocks: at least, and where there are
many."""
ITERATIONS = 64
"""So many are enough for any machine."""
FEW_ITERATIONS = 8
"""Of fewer, one that is left over makes all other threads wait."""
SCRATCH_BYTES = 128 * 1024
"""The most that the accumulators of a block may take."""
SERIAL_FLOPS = 4_000_000
"""A problem below this runs on one thread."""
SERIAL_BYTES = 1024 * 1024
"""So does a product of few rows whose right operand is smaller; a larger one comes to two cores
faster than to one."""
CHUNK_BYTES = 256 * 1024
"""What a chunk of such a product reads of it."""
ROW_PANELS = 4
"""Panels of a product of one row that is not done on one thread, at least."""
CHUNK_FLOPS = 3_000_000
"""Work of one chunk, about 30 µs."""
ITERATION_FLOPS = 1_000_000
"""Work of one iteration of the parallel loop, if nothing else decides."""


@dataclass(frozen=True)
class Rows:
    """The tile of rows: ``tile`` steps of dimension ``split`` by all of the dimensions after it."""

    split: int
    tile: int
    inner: tuple[int, ...]

    @property
    def count(self) -> int:
        """Rows in a tile."""
        return self.tile * math.prod(self.inner)


@dataclass(frozen=True)
class Depth:
    """How ``k`` is walked: blocks of ``chunk`` steps of dimension ``dim`` by all after it.

    The dimensions before ``dim`` are loops around the blocks. Without a chunk there is one block,
    which is all of ``k``.
    """

    dim: int
    chunk: int | None
    size: int  # steps in a block; 0 where that is not known

    @property
    def blocked(self) -> bool:
        """Whether the accumulators live through several blocks."""
        return self.chunk is not None


@dataclass(frozen=True)
class Schedule:
    """Every choice of one kernel.

    Attributes:
      lanes: elements in a vector; vectors: of them in a panel.
      tiles: row tiles, and panels: column panels, of one iteration of the parallel loop.
      ahead: how many elements in front of what is read the right operand is asked for; None for
        one that is at hand.
    """

    lanes: int
    vectors: int
    rows: Rows
    depth: Depth
    pack_lhs: bool
    pack_rhs: bool
    tiles: int
    panels: int
    parallel: bool
    grain: Expr
    ahead: int | None = None

    @property
    def width(self) -> int:
        """Columns in a full panel."""
        return self.lanes * self.vectors


@dataclass(frozen=True)
class Tiles:
    """What may be chosen otherwise than :func:`choose` estimates.

    Attributes:
      vectors: of a panel.
      rows: the most of a tile; None for what the registers hold.
      blocks: row tiles of an iteration, by how many times as many.
    """

    vectors: int
    rows: int | None = None
    blocks: float = 1.0


def known(expr: Expr) -> int | None:
    """The value of an extent that is a constant."""
    return int(expr.value) if isinstance(expr, Const) else None


def volume(extents: tuple[Expr, ...]) -> int | None:
    """The product of extents, if all are constants."""
    sizes = [known(e) for e in extents]
    return None if None in sizes else math.prod(s for s in sizes if s is not None)


def max_rows(target: Target, vectors: int, collide: bool = False) -> int:
    """Rows of a tile whose accumulators, one panel row and a broadcast fit the registers.

    If rows ``collide``, fewer of them stay in the first cache.
    """
    registers = 32 if target.has_avx512 else 16
    spare = vectors + (1 if target.has_fma else 2)
    if not target.has_avx512 and vectors == FEW_VECTORS:
        # They are walked in two pieces, between which the elements of all rows are kept.
        return (registers - 2) // (vectors + 1)
    most = COLLIDING_ROWS if collide else 28 if target.has_avx512 else 12
    return max(1, min(most, (registers - spare) // vectors))


def rows_collide(problem: Contraction, found: Access) -> bool:
    """Whether rows of the left operand, read where they lie, share the places of one set."""
    size = problem.acc.size
    return found.lhs_plain and any(
        step is not None and step * size % WAY_BYTES == 0 for step in found.lhs_m
    )


def balanced(extent: int, most: int) -> int:
    """The tile size of the fewest tiles, all of nearly one size."""
    return max(1, math.ceil(extent / math.ceil(extent / most))) if extent else 1


def row_tile(m: tuple[Expr, ...], most: int) -> Rows:
    """As many rows as fit, innermost dimensions first."""
    inner: list[int] = []
    room = most
    for dim in reversed(range(len(m))):
        extent = known(m[dim])
        if extent is None or extent > room or dim == 0:
            return Rows(dim, room if extent is None else balanced(extent, room), tuple(inner))
        inner.insert(0, max(1, extent))
        room //= max(1, extent)
    raise AssertionError("a contraction has a dimension of rows")


def _tile_cycles(rows: int, vectors: int, fma_cost: float) -> float:
    """Cycles of one step of ``k``: arithmetic, loads, and the latency of an accumulation."""
    return max(rows * vectors * fma_cost, (rows + vectors) / 2, 4.0) + 0.5


def _cycles(
    m: tuple[Expr, ...], n: int, lanes: int, vectors: int, target: Target, collide: bool
) -> float:
    """Estimated cycles of one step of ``k`` over all tiles, for known extents."""
    rows = row_tile(m, max_rows(target, vectors, collide))
    extent = known(m[rows.split])
    extent = 8 * rows.tile if extent is None else extent
    fma_cost = 0.5 if target.has_fma else 1.0
    inner = math.prod(rows.inner)
    full, rest = divmod(n, lanes * vectors)
    panels = [(full, vectors)] + ([(1, math.ceil(rest / lanes))] if rest else [])
    whole, left = divmod(extent, rows.tile)
    tiles = [(whole, rows.tile)] + ([(1, left)] if left else [])
    return sum(
        p * t * _tile_cycles(r * inner, v, fma_cost) for p, v in panels for t, r in tiles
    ) / max(1, extent * inner)


def vectors_of_panel(
    problem: Contraction, lanes: int, target: Target, collide: bool = False
) -> int:
    """Vectors in a panel: the cheapest count for known extents, else two.

    With 16 registers, few: more would leave room for two rows only, each of which reads all of the
    panel.
    """
    n = known(problem.n)
    if n is None:
        return 2
    # A single row leaves all registers to its columns.
    most, whole = 8, max(1, math.ceil(n / lanes))
    if volume(problem.m) == 1:
        most = max_rows(target, 1) - 4
        if _read(problem) > SERIAL_BYTES:
            most = min(most, math.ceil(whole / ROW_PANELS))
    most = min(most, whole)
    total = volume(problem.m)
    if not target.has_avx512 and (total is None or total > 2):
        most = min(most, FEW_VECTORS)
    # An estimate within 2 % of another is no better: fewer vectors make less code.
    costs = {v: _cycles(problem.m, n, lanes, v, target, collide) for v in range(1, most + 1)}
    best = min(costs.values())
    return min(v for v, cost in costs.items() if cost <= best * 1.02)


def _read(problem: Contraction) -> int:
    """The bytes of the right operand; 0 where a size is not known."""
    sizes = (volume(problem.batch), known(problem.n), volume(problem.k))
    return math.prod(size or 0 for size in sizes) * problem.acc.size


def blocks(k: tuple[Expr, ...], most: int) -> Depth:
    """Blocks of about ``most`` steps."""
    size = 1
    for dim in reversed(range(len(k))):
        extent = known(k[dim])
        if extent is None or extent * size > most or dim == 0:
            chunk = max(1, most // size)
            chunk = chunk if extent is None else balanced(extent, chunk)
            return Depth(dim, chunk, chunk * size)
        size *= max(1, extent)
    raise AssertionError("a contraction has a dimension of k")


def _depth(
    problem: Contraction, pack: bool, panel_bytes: int, tiles: int | None, in_a_run: bool
) -> Depth:
    steps, rows = volume(problem.k), volume(problem.m) or 0
    most = K_RUN if in_a_run and not pack else K_LONG if rows >= MANY_K_ROWS else K_BLOCK
    whole = Depth(0, None, steps or 0)
    if steps is not None and steps <= most:
        return whole
    large = steps is None or steps * panel_bytes > PANEL_BYTES
    if pack or (large and tiles != 1):
        return blocks(problem.k, most)
    return whole


def _near_steps(
    problem: Contraction, found: Access, target: Target, tiles: int | None
) -> int | None:
    """Steps whose rows of both operands the first cache holds for all tiles; None if it needs not.

    That is the gradient of a convolution's filter: both operands are images.
    """
    n, size = known(problem.n), problem.acc.size
    several = len(problem.k) > 1 and tiles is not None and tiles > 1
    images = found.lhs_m == {1} and found.rhs_n == {1} and found.rhs_k == {n}
    if n is None or not several or not images or len(found.lhs_k) != 1:
        return None
    (stride,) = found.lhs_k
    if target.vector_bytes >= ir.LINE_BYTES or stride is None or stride * size < ir.LINE_BYTES:
        return None
    return max(LEAST_STEPS, FIRST_CACHE // ((stride + n) * size))


def tile_count(m: tuple[Expr, ...], rows: Rows) -> int | None:
    """Row tiles in all, if known."""
    extents = volume(m[: rows.split + 1])
    if extents is None:
        return None
    split = known(m[rows.split]) or 0
    return (extents // max(1, split)) * math.ceil(split / rows.tile)


def grain(problem: Contraction, rows: int, columns: int) -> Expr:
    """Iterations that make one chunk."""
    steps = volume(problem.k)
    if steps is not None:
        return ir.const(max(1, CHUNK_FLOPS // max(1, 2 * rows * columns * steps)))
    flops: Expr = ir.const(2 * rows * columns)
    for extent in problem.k:
        flops = ir.mul(flops, ir.apply("max", extent, ir.ONE))
    return ir.add(ir.index_div(ir.const(CHUNK_FLOPS), flops), ir.ONE)


def _strains_cache(problem: Contraction, tiles: int | None, narrow: bool) -> bool:
    """Whether a contiguous right operand is too large to be read where it lies.

    Its panels are narrow and its rows are far apart: few of them fit, and none is prefetched.
    """
    n, steps, rows = known(problem.n), volume(problem.k), volume(problem.m)
    if tiles is not None and tiles <= 1:
        return False
    size = None if n is None or steps is None else n * steps * problem.acc.size
    if narrow and (tiles or 0) >= NARROW_TILES and size is not None and size > NARROW_BYTES:
        return True
    if len(problem.k) != 1:
        return False
    if size is None:
        return True
    return size > FAR_BYTES or (size > PANEL_BYTES and rows is not None and rows > MANY_ROWS)


def choose(
    problem: Contraction, found: Access, target: Target, tiles_like: Tiles | None = None
) -> Schedule:
    """The schedule of a problem on a target; by the estimates, if no tiles are given."""
    lanes = max(1, target.vector_bytes // problem.acc.size)
    n, steps = known(problem.n), volume(problem.k)
    if n is not None and n < lanes:
        lanes = 1 << max(0, n - 1).bit_length()
    collide = rows_collide(problem, found)
    wanted = tiles_like or Tiles(vectors_of_panel(problem, lanes, target, collide))
    vectors = wanted.vectors
    rows = row_tile(problem.m, wanted.rows or max_rows(target, vectors, collide))
    width = lanes * vectors
    tiles, total = tile_count(problem.m, rows), volume(problem.m)
    few = tiles is not None and tiles <= 1
    single = n is not None and n <= width
    pack_lhs = not found.lhs_plain and not (single and not found.lhs_k <= {1})
    plain = found.rhs_plain and found.rhs_n <= {1}
    panel_bytes = width * problem.acc.size
    in_a_run = plain and n is not None and found.rhs_k == {n}
    lies_well = in_a_run and n is not None and n <= 2 * width
    narrow = target.vector_bytes < ir.LINE_BYTES and not lies_well
    pack_rhs = (not plain and not few) or (plain and _strains_cache(problem, tiles, narrow))
    depth = _depth(problem, pack_lhs or pack_rhs, panel_bytes, tiles, in_a_run)
    near = _near_steps(problem, found, target, tiles)
    if near is not None and not (pack_lhs or pack_rhs):
        depth = blocks(problem.k, near)
    panels = _panels(problem, width, lanes, pack_lhs, target)
    if pack_rhs and narrow and n is not None:
        panels = max(panels, min(NARROW_PANELS, math.ceil(n / width)))
    block = _tiles(problem, rows, panels * width, depth, pack_rhs)
    block = max(1, int(block * wanted.blocks))
    flops = None
    if total is not None and n is not None and steps is not None:
        flops = 2 * total * n * steps * (volume(problem.batch) or 1 << 20)
    serial = flops is not None and flops <= SERIAL_FLOPS
    if tiles is not None:
        block = balanced(tiles, block)
        if not serial:
            block = _shared(problem, tiles, block, panels * width, pack_lhs or pack_rhs)
    chunk = grain(problem, block * rows.count, panels * width)
    if serial and few and _read(problem) > SERIAL_BYTES:
        each = min(panels * width, n or 1) * (steps or 1) * problem.acc.size
        serial, chunk = False, ir.const(max(1, CHUNK_BYTES // max(1, each)))
    return Schedule(
        lanes, vectors, rows, depth, pack_lhs, pack_rhs, block, panels, not serial, chunk,
        None if pack_rhs else ahead(problem, found, width),
    )  # fmt: skip


def _shared(problem: Contraction, tiles: int, block: int, columns: int, packs: bool) -> int:
    """Row tiles of an iteration, so that two threads share a few iterations evenly.

    Where operands are packed for each of them there is one more than needed, at most.
    """
    n, batch = known(problem.n), volume(problem.batch)
    parts = math.ceil(tiles / block)
    if n is None or batch is None or not tiles:
        return block
    others = math.ceil(n / columns) * batch
    if parts * others >= FEW_ITERATIONS:
        return block
    most, least = block, math.ceil(tiles / (parts + 1))
    if parts * others == 1 and not packs:
        most, least = math.ceil(2 * tiles / FEW_ITERATIONS), 1

    def longest(size: int) -> int:
        """What one of two threads does, in row tiles."""
        return math.ceil(math.ceil(tiles / size) * others / 2) * size

    return min(range(most, least - 1, -1), key=longest)


def ahead(problem: Contraction, found: Access, width: int) -> int | None:
    """How many elements ahead a right operand that is read where it lies is asked for."""
    n, steps = known(problem.n), volume(problem.k)
    if n is None or steps is None or len(found.rhs_k) != 1 or not found.rhs_n <= {1}:
        return None
    (stride,), size = found.rhs_k, found.rhs_size
    in_a_run = stride == n and n * size <= PANEL_ROW_BYTES
    several = volume(problem.batch) if in_a_run else 1
    far = AHEAD_BYTES // (width * size)
    near = several is not None and several * n * steps * size < NEAR_BYTES[not in_a_run]
    if stride is None or near or not found.rhs_plain or (steps <= far and not in_a_run):
        return None
    return far * stride


def as_one_block(
    problem: Contraction, found: Access, target: Target, rows: int, columns: int, pack: bool
) -> Schedule:
    """All tiles and panels in one block, of at most so many rows and columns, ``k`` in one piece.

    ``pack``: the right operand is brought into panels; else operands are read where they are.
    """
    chosen = choose(problem, found, target)
    steps = known(problem.k[0])
    return replace(
        chosen, depth=Depth(0, None, columns if steps is None else steps), pack_lhs=False,
        pack_rhs=pack, ahead=None, tiles=math.ceil(rows / chosen.rows.count),
        panels=math.ceil((known(problem.n) or columns) / chosen.width),
    )  # fmt: skip


def _panels(problem: Contraction, width: int, lanes: int, pack: bool, target: Target) -> int:
    """Panels of an iteration.

    Several where the left operand is packed, to pack it once; and where there may be a single
    row, to make them one wide panel.
    """
    n, most = known(problem.n), 1
    if pack:
        most = max(1, 256 // width)
    elif volume(problem.m) is None and len(problem.m) == 1:
        most = max(1, (max_rows(target, 1) - 4) * lanes // width)
    return most if n is None else min(most, max(1, math.ceil(n / width)))


def _packed_rows(problem: Contraction, columns: int) -> int:
    """Rows of such an iteration: many, if enough iterations are left for all threads."""
    least, most = PACKED_ROWS
    total, n, batch = volume(problem.m), known(problem.n), volume(problem.batch)
    if total is None or n is None:
        return least
    others = (batch or 1) * math.ceil(n / columns)
    return max(least, min(most, total * others // ITERATIONS))


def _tiles(problem: Contraction, rows: Rows, columns: int, depth: Depth, pack_rhs: bool) -> int:
    """Row tiles of an iteration."""
    steps = volume(problem.k)
    flops = 2 * rows.count * columns * max(1, steps or 256)
    count = max(1, round(ITERATION_FLOPS / flops))
    if pack_rhs or depth.blocked:
        count = max(count, math.ceil(_packed_rows(problem, columns) / rows.count))
    if depth.blocked:
        count = min(count, max(1, SCRATCH_BYTES // (rows.count * columns * problem.acc.size)))
    return count
