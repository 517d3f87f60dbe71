"""Long rows side by side, but few of them: many blocks share each, in several launches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from graphc.dtypes import int64
from graphc.loop.affine import known
from graphc.loop.gpu_columns import combined
from graphc.loop.gpu_grid import GpuTarget, grid_stride
from graphc.loop.gpu_rows import begin_with_identities, loaded, shared_out, stored
from graphc.loop.ir import (
    ONE,
    SHARED_BYTES,
    ZERO,
    Apply,
    Barrier,
    Block,
    Buffer,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Reduce,
    Scope,
    Stmt,
    Store,
    Var,
    add,
    apply,
    block,
    const,
    index_div,
    index_mod,
    logical_and,
    mul,
    sub,
)
from graphc.loop.transform import close_nest, instance, open_nest
from graphc.loop.transform_vector import accumulators, vector_count

_WARP = 32
_BLOCKS = 256  # that are wanted of a launch: about two for each multiprocessor
_PARTS = 64  # of a row, at most: each thread adds them up
_TURNS = 32  # of a thread, at least
_UNKNOWN = 16  # parts of rows whose length is not known


def few_columns(
    kernel: Kernel, count: Expr, lets: Callable[[Var], list[Stmt]], body: Block, target: GpuTarget
) -> Kernel | None:
    """A launch for each nest, whose blocks leave totals of a part of 32 items in a workspace.

    What a launch needs of nests before its own it adds up from these; the last one, a thread for
    each item, stores the results.  None where there are items enough, or the body is another.
    """
    nests = [s for s in body.stmts if isinstance(s, For)]
    parts = _parts(known(count), nests, target.threads // _WARP)
    if parts < 2 or not _may_be_repeated(body, nests):
        return None
    made = _FewColumns(count, lets, body, target, parts)
    if made.shared_bytes() > SHARED_BYTES:
        return None
    launches = [made.launch(k) for k in range(len(nests))]
    params = (*kernel.params, *made.spaces.values())
    return replace(kernel, params=params, body=Block((*launches, made.results())))


def _parts(count: int | None, nests: list[For], warps: int) -> int:
    if not count:
        return 0
    most = min(_PARTS, _BLOCKS // -(-count // _WARP))
    for nest in nests:
        length: int | None = 1
        for _, extent in open_nest(nest)[0]:
            size = known(extent)
            length = None if size is None or length is None else length * size
        most = min(most, _UNKNOWN if length is None else length // (warps * _TURNS))
    return most


def _may_be_repeated(body: Block, nests: list[For]) -> bool:
    """Whether nests only reduce, and no launch but the last reads a result that it would store."""
    others = [s for s in body.stmts if not isinstance(s, For) and not _is_result(s)]
    reduces: dict[Buffer, Reduce] = {}
    for nest in nests:
        if stored(nest):
            return False
        found = accumulators(open_nest(nest)[1])
        if not found or found.keys() & reduces.keys():
            return False
        reduces |= found
    first = body.stmts[: max(at for at, s in enumerate(body.stmts) if isinstance(s, For)) + 1]
    early = {s.buffer for s in first if isinstance(s, Store) and _is_result(s)}
    return begin_with_identities(others, reduces) and not early & loaded(first)


def _is_result(stmt: Stmt) -> bool:
    return isinstance(stmt, Store) and stmt.buffer.scope is Scope.GLOBAL


class _FewColumns:
    """The launches of one kernel.

    Attributes:
      spaces: where parts leave their totals, by what these belong to; shared: where the warps of a
        block do.
    """

    def __init__(
        self, count: Expr, lets: Callable[[Var], list[Stmt]], body: Block, target: GpuTarget,
        parts: int,
    ) -> None:  # fmt: skip
        self.count, self.lets, self.body, self.target, self.parts = (
            count, lets, body, target, parts
        )  # fmt: skip
        self.warps = target.threads // _WARP
        self.nests = [at for at, s in enumerate(body.stmts) if isinstance(s, For)]
        self.reduces = [accumulators(open_nest(body.stmts[at])[1]) for at in self.nests]
        size, held = mul(count, parts), const(self.warps * _WARP)
        accs = [acc for found in self.reduces for acc in found]
        self.spaces = {a: Buffer(f"{a.name}w", a.dtype, size) for a in accs}
        self.shared = {a: Buffer(f"{a.name}s", a.dtype, held, Scope.SHARED) for a in accs}

    def shared_bytes(self) -> int:
        """What a block of a launch takes of shared memory, at most."""
        return max(
            sum((known(self.shared[a].size) or 0) * a.dtype.size for a in found)
            for found in self.reduces
        )

    def before(self, at: int, number: Expr, last: bool) -> list[Stmt]:
        """The statements up to one, nests as sums of the parts; results are stored by the last."""
        stmts: list[Stmt] = []
        for stmt in self.body.stmts[:at]:
            if isinstance(stmt, For):
                for acc, reduce in accumulators(open_nest(stmt)[1]).items():
                    part = Var("part")
                    value = Load(self.spaces[acc], add(mul(part, self.count), number))
                    again = block(replace(reduce, value=value))
                    stmts += close_nest([(part, const(self.parts))], again).stmts
            elif last or not _is_result(stmt):
                stmts.append(stmt)
        return stmts

    def launch(self, k: int) -> Block:
        """The launch of nest ``k``."""
        at, parts = self.nests[k], self.parts
        nest = self.body.stmts[at]
        assert isinstance(nest, For)

        def item(number: Var, thread: Var) -> Block:
            part, lane, warp, place, n = (Var(s) for s in ("part", "lane", "warp", "place", "n"))
            inside = place < self.count
            stmts: list[Stmt] = [
                Let(part, index_mod(number, const(parts))),
                Let(lane, index_mod(thread, const(_WARP))),
                Let(warp, index_div(thread, const(_WARP))),
                Let(place, add(mul(index_div(number, const(parts)), _WARP), lane)),
                # Threads behind the last item do the last one's work, and store nothing.
                Let(n, Apply("min", (place, sub(self.count, ONE)), int64)),
                *self.lets(n), *self.before(at, n, False),
            ]  # fmt: skip
            mine = add(mul(part, self.warps), warp)
            found, totals = shared_out(nest, mine, parts * self.warps, inside)
            stmts += [*found, *combined(totals, self.shared, thread, lane, self.warps)]
            to = add(mul(part, self.count), place)
            puts = [Store(self.spaces[r.buffer], to, Load(r.buffer, r.index)) for _, r in totals]
            stmts.append(If(logical_and(inside, apply("eq", warp, ZERO)), block(*puts)))
            # The next item's totals come where these are.
            return instance(Block((*stmts, Barrier())), {})

        groups = mul(vector_count(self.count, _WARP), parts)
        shared = [self.shared[acc] for acc in self.reduces[k]]
        return grid_stride(groups, self.target, (1, self.target.threads), item, shared)

    def results(self) -> Block:
        """The last launch."""

        def item(number: Var, _: Var) -> Block:
            every = len(self.body.stmts)
            return instance(Block((*self.lets(number), *self.before(every, number, True))), {})

        return grid_stride(self.count, self.target, (_WARP, 1), item)
