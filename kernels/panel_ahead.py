"""What the epilogue of a register tile reads, asked for while its products are added up.

A gradient's product often ends in the update of a variable and its slots, which lie in a slower
cache or in memory, for each tile elsewhere.  The loop over ``k`` leaves the memory idle: with
every step it asks for a line of what the tile's epilogue will read.
"""

from __future__ import annotations

from graphc.kernels import emit, index
from graphc.kernels.problem import Contraction, Indices
from graphc.kernels.tiles import Panel, RowTile, Steps
from graphc.kernels.tiling import volume
from graphc.loop import ir
from graphc.loop.cpu_ahead import known_before
from graphc.loop.ir import Expr, For, Let, Load, Prefetch, Scope, Stmt, Var

LEAST_BYTES = 64 * 1024
"""A parameter that is smaller stays in a cache that is near."""
MOST_BYTES = 16 * 1024
"""What of a tile is asked for: more would push the operands out of the first cache."""
LATE = 8
"""The last of so many parts of the steps asks for nothing new: it would come too late."""
_SCALE = 1 << 16


def asked(
    problem: Contraction, batch: Indices, tile: RowTile, panel: Panel, steps: Steps, number: Expr
) -> list[Stmt]:
    """What step ``number`` of ``k`` asks for, so that all steps ask for all lines once or more."""
    count = volume(steps.extents)
    row, part = Var("row"), Var("part")
    if tile.clamp is not None or count is None or count < LATE:
        return []
    loads = _of_epilogue(problem, batch, tile, panel, row)
    lines = max((_lines(panel.width * load.dtype.size) for load in loads), default=0)
    total = lines * tile.count
    if not 0 < len(loads) * total * ir.LINE_BYTES <= MOST_BYTES:
        return []
    used = count - count // LATE
    each = -(-total // used)
    out: list[Stmt] = []
    rate = ir.const(-(-total // each) * _SCALE // used + 1)
    turn = ir.index_div(ir.mul(number, rate), ir.const(_SCALE))
    first = emit.let(out, "line", ir.mul(turn, each))
    for line in (ir.add(first, i) for i in range(each)):
        place: dict[Var, Expr] = {
            row: emit.let(out, "row", ir.index_div(line, ir.const(lines))),
            part: emit.let(out, "part", ir.index_mod(line, ir.const(lines))),
        }
        for load in loads:
            at = ir.add(load.index, ir.mul(part, ir.LINE_BYTES // load.dtype.size))
            out.append(Prefetch(load.buffer, ir.substitute(at, place)))
    return out


def _of_epilogue(
    problem: Contraction, batch: Indices, tile: RowTile, panel: Panel, row: Expr
) -> list[Load]:
    """The loads of large parameters at a row of the tile and the first column, one for a place."""
    n = Var("n")
    sums = ir.local("sum", problem.acc, 1)
    epilogue = problem.epilogue(batch, _row(tile, row), n, Load(sums, ir.ZERO))
    stmts = [inner for stmt in epilogue for inner in ir.walk_stmt(stmt)]
    own = {stmt.var for stmt in stmts if isinstance(stmt, (Let, For))}
    found: dict[tuple[ir.Buffer, Expr], Load] = {}
    for node in ir.walk_expr(*(expr for stmt in stmts for expr in ir.stmt_exprs(stmt))):
        if isinstance(node, Load) and _far(node) and index.stride(node.index, n) == 1:
            at = ir.substitute(node.index, {n: panel.start})
            if known_before(at, own):
                found.setdefault((node.buffer, node.index), Load(node.buffer, at))
    return list(found.values())


def _lines(size: int) -> int:
    """The lines of the cache that so many bytes are in."""
    return -(-size // ir.LINE_BYTES) + (size % ir.LINE_BYTES > 0)


def _far(load: Load) -> bool:
    """Whether it is of a parameter that is known to be large."""
    size = volume((load.buffer.size,))
    return (
        load.buffer.scope is Scope.GLOBAL
        and size is not None
        and size * load.dtype.size >= LEAST_BYTES
    )


def _row(tile: RowTile, row: Expr) -> Indices:
    """The index of a row of the tile."""
    inner: list[Expr] = []
    for extent in reversed(tile.inner):
        inner.insert(0, ir.index_mod(row, ir.const(extent)))
        row = ir.index_div(row, ir.const(extent))
    return (*tile.outer, ir.add(tile.start, row), *inner)
