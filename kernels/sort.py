"""The first elements of rows in order: a heap of those kept so far, then heap sort.

Of all elements, short rows are sorted by :mod:`graphc.kernels.sort_ranks`, long ones by
:mod:`graphc.kernels.sort_radix`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphc.dtypes import float32, int64
from graphc.kernels import emit
from graphc.kernels.sort_radix import has_radix_sort, radix_sort
from graphc.kernels.sort_ranks import LONGEST, rank_sort
from graphc.kernels.sort_row import Row
from graphc.loop import ir
from graphc.loop.ir import ONE, ZERO, Buffer, Expr, Guard, If, Kernel, LoopKind, Stmt, Store

STEPS = 1 << 14
"""Elements of one chunk of work."""


class Item(NamedTuple):
    """An element, and where it stands in its row."""

    value: Expr
    place: Expr


def first_sorted_kernel(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[ir.Var],
    *,
    rows: Expr,
    columns: Expr,
    count: Expr,
    site: int | None,
    element: Callable[[Expr, Expr], Expr],
    descending: bool,
    values: Buffer,
    places: Buffer,
) -> Kernel:
    """``values[rows, count]`` and ``places[rows, count]``: the first of each row in order.

    Elements that are equal stay in the order of their places, and NaN counts as the largest, so
    there is one right answer.  A row takes ``columns * log(count)`` steps and no memory besides
    the results, which hold a heap of the elements kept so far, the last in order at its root.  All
    elements of a row are sorted by their ranks, or by their bytes.

    A count above ``columns`` fails the run at ``site``.
    """
    stmts: list[Stmt] = []
    if site is not None:
        fits = ir.logical_and(count <= columns, count >= 0)
        count = emit.let(stmts, "count", ir.Require(fits, count, site, (columns, count)))
    depth = _bits(stmts, count)

    def row(r: Expr) -> list[Stmt]:
        heap = _Heap(values, places, count, depth, descending)
        body = heap.begin(r)
        take = emit.loop(count, lambda i: heap.put(i, Item(element(r, i), i)))
        body += take + emit.loop(ir.index_div(count, ir.const(2)), heap.ordered_from)

        def offer(e: Expr) -> list[Stmt]:
            inner: list[Stmt] = []
            place = emit.let(inner, "at", count + e)
            item = Item(emit.let(inner, "x", element(r, place)), place)
            better = heap.before(item, heap.get(ZERO))
            return [*inner, If(better, ir.block(*heap.sift(ZERO, count, item)))]

        rest = emit.loop(columns - count, offer)
        last = emit.loop(count - 1, heap.last_out)
        body.append(If(count > 0, ir.block(*rest, *last)))
        whole = ir.apply("eq", count, columns)
        base = ir.mul(r, count)
        sorted_ = Row(values, places, base, columns, lambda i: element(r, i), descending)
        if has_radix_sort(values.dtype):
            body = emit.where(whole, radix_sort(sorted_), body)
        short = ir.logical_and(whole, columns <= ir.const(LONGEST))
        return emit.where(short, rank_sort(sorted_), body)

    stmts += emit.loop(rows, row, LoopKind.PARALLEL)
    grain = ir.add(ir.index_div(ir.const(STEPS), ir.add(columns, ONE)), ONE)
    return Kernel(name, tuple(params), tuple(scalars), ir.block(*stmts), grain)


def larger(a: Expr, b: Expr) -> Expr:
    """Whether ``a`` is larger; NaN is larger than everything else."""
    if not a.dtype.is_floating:
        return a > b
    if a.dtype.accumulator is not a.dtype:
        a, b = ir.cast(a, float32), ir.cast(b, float32)
    number = ir.apply("not", ir.apply("isnan", b))
    return ir.apply("or", a > b, ir.logical_and(ir.apply("isnan", a), number))


def comes_before(a: Item, b: Item, descending: bool) -> Expr:
    """Whether ``a`` comes before ``b``; of equal ones, the one that stands before."""
    first, second = (a, b) if descending else (b, a)
    equal = ir.apply("not", larger(second.value, first.value))
    earlier = ir.logical_and(equal, a.place < b.place)
    return ir.apply("or", larger(first.value, second.value), earlier)


def _bits(stmts: list[Stmt], count: Expr) -> Expr:
    """How many levels a heap of ``count`` elements has, declared in ``stmts``."""
    total: Expr = ZERO
    rest = count
    for width in (32, 16, 8, 4, 2, 1):
        high = emit.let(stmts, "high", ir.apply("lshr", rest, ir.const(width)))
        some = high > 0
        total = emit.let(stmts, "bits", ir.add(total, ir.select(some, ir.const(width), ZERO)))
        rest = emit.let(stmts, "rest", ir.select(some, high, rest))
    return emit.let(stmts, "depth", ir.add(total, rest))


class _Heap:
    """A heap in a row of the results."""

    def __init__(
        self, values: Buffer, places: Buffer, count: Expr, depth: Expr, descending: bool
    ) -> None:
        self.values, self.places = values, places
        self.count, self.depth = count, depth
        self.descending = descending
        self.hole, self.next = ir.local("hole", int64, 1), ir.local("next", int64, 1)
        self.base: Expr = ZERO

    def begin(self, r: Expr) -> list[Stmt]:
        """Declare what the work on row ``r`` needs."""
        stmts: list[Stmt] = [ir.Alloc(self.hole), ir.Alloc(self.next)]
        self.base = emit.let(stmts, "base", ir.mul(r, self.count))
        return stmts

    def get(self, i: Expr) -> Item:
        """Item ``i``."""
        at = ir.add(self.base, i)
        return Item(ir.Load(self.values, at), ir.cast(ir.Load(self.places, at), int64))

    def read(self, i: Expr, into: list[Stmt]) -> Item:
        """Item ``i`` in variables, which later stores do not change."""
        return Item(*(emit.let(into, "item", e) for e in self.get(i)))

    def put(self, i: Expr, item: Item) -> list[Stmt]:
        """Make ``item`` item ``i``."""
        at = ir.add(self.base, i)
        place = ir.cast(item.place, self.places.dtype)
        return [Store(self.values, at, item.value), Store(self.places, at, place)]

    def before(self, a: Item, b: Item) -> Expr:
        """Whether ``a`` comes before ``b``."""
        return comes_before(a, b, self.descending)

    def sift(self, root: Expr, size: Expr, item: Item) -> list[Stmt]:
        """Put ``item`` at ``root`` or below it, where it keeps the order of the heap."""
        stmts: list[Stmt] = [Store(self.hole, ZERO, root), Store(self.next, ZERO, root)]

        def level(_: Expr) -> list[Stmt]:
            body: list[Stmt] = []
            left = emit.let(body, "left", ir.add(ir.mul(ir.Load(self.next, ZERO), 2), 1))
            inner: list[Stmt] = []
            right = emit.let(inner, "right", ir.add(left, 1))
            later = Guard(right < size, self.before(self.get(left), self.get(right)), ir.FALSE)
            child = emit.let(inner, "child", ir.select(later, right, left))
            found = self.read(child, inner)
            up = self.put(ir.Load(self.hole, ZERO), found)
            down: list[Stmt] = [Store(self.hole, ZERO, child), Store(self.next, ZERO, child)]
            end = Store(self.next, ZERO, size)  # It has no children.
            inner.append(If(self.before(item, found), ir.block(*up, *down), ir.block(end)))
            return [*body, If(left < size, ir.Block(tuple(inner)))]

        return [*stmts, *emit.loop(self.depth, level), *self.put(ir.Load(self.hole, ZERO), item)]

    def ordered_from(self, e: Expr) -> list[Stmt]:
        """Let the heap's order hold from the ``e``-th item with children, counted from the end."""
        stmts: list[Stmt] = []
        root = emit.let(stmts, "root", ir.index_div(self.count, ir.const(2)) - 1 - e)
        item = self.read(root, stmts)
        return [*stmts, *self.sift(root, self.count, item)]

    def last_out(self, e: Expr) -> list[Stmt]:
        """Move the root, the last in order of what is left, to the end of what is left."""
        stmts: list[Stmt] = []
        end = emit.let(stmts, "end", self.count - 1 - e)
        item, root = self.read(end, stmts), self.read(ZERO, stmts)
        return [*stmts, *self.put(end, root), *self.sift(ZERO, end, item)]
