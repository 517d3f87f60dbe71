"""On a GPU: the first elements of rows in order, a block of threads for each row.

The network is Batcher's bitonic sorter in the form whose comparisons all put the earlier element
first, so that it sorts any number of elements: those behind the last count as the last in order.
Short rows, and what is kept of long ones, are sorted in shared memory; long rows that are kept
whole, where the results are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphc.kernels import emit
from graphc.kernels.sort import Item, comes_before
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.affine import equal
from graphc.loop.gpu_grid import GpuTarget, grid_stride
from graphc.loop.ir import (
    Barrier,
    Block,
    Buffer,
    Expr,
    If,
    Kernel,
    Load,
    Scope,
    Stmt,
    Store,
    Var,
)

_SLOTS = 2048  # elements in shared memory
_SHORT = 32  # columns that a thread sorts as fast alone


def first_sorted_grid(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    *,
    rows: Expr,
    columns: Expr,
    count: Expr,
    site: int | None,
    element: Callable[[Expr, Expr], Expr],
    descending: bool,
    values: Buffer,
    places: Buffer,
    target: GpuTarget,
) -> Kernel | None:
    """``values[rows, count]`` and ``places[rows, count]``; None where a thread is to do a row."""
    width, kept = known(columns), known(count)
    if width is not None and width <= _SHORT:
        return None
    threads = target.threads
    whole = equal(columns, count)
    shared: Sequence[Buffer] = ()
    if width is not None and width <= _SLOTS:
        slots = max(1 << (width - 1).bit_length(), 64)
        held = _Held(values, places, slots, descending, min(threads, slots // 2))
        shared, threads = held.buffers, held.threads
        body = held.row(columns, count, 0, element)
    elif kept is not None and kept <= _SLOTS // 2:
        held = _Held(values, places, _SLOTS, descending, threads)
        shared, body = held.buffers, held.row(columns, count, kept, element)
    elif whole:
        body = _InPlace(values, places, descending, threads).row(columns, element)
    else:
        return None

    def item(number: Var, x: Var) -> Block:
        out: list[Stmt] = []
        if site is not None:
            fits = ir.logical_and(count <= columns, count >= 0)
            # The check alone: the sizes are what they are.
            asked = ir.Require(fits, count, site, (columns, count))
            emit.let(out, "count", asked)
        return Block((*out, *body(number, x)))

    launch = grid_stride(rows, target, (1, threads), item, shared)
    kernel = Kernel(name, tuple(params), tuple(scalars), Block(()))
    return replace(kernel, body=launch)


Row = Callable[[Expr, Expr], list[Stmt]]


class _Network:
    """The comparisons of the sorter, by the threads of a block."""

    def __init__(self, values: Buffer, places: Buffer, descending: bool, threads: int) -> None:
        self.values, self.places = values, places
        self.descending, self.threads = descending, threads

    def get(self, at: Expr, out: list[Stmt]) -> Item:
        """An item in variables."""
        value = emit.let(out, "v", Load(self.values, at))
        return Item(value, emit.let(out, "p", Load(self.places, at)))

    def before(self, a: Item, b: Item) -> Expr:
        """Whether ``a`` comes before ``b``."""
        return comes_before(a, b, self.descending)

    def put(self, at: Expr, item: Item) -> list[Stmt]:
        """Make ``item`` the one at a place."""
        return [Store(self.values, at, item.value), Store(self.places, at, item.place)]

    def exchange(self, base: Expr, first: Expr, second: Expr, size: Expr) -> list[Stmt]:
        """Put two items in order, if there are both."""
        inner: list[Stmt] = []
        i, j = emit.let(inner, "i", ir.add(base, first)), emit.let(inner, "j", ir.add(base, second))
        a, b = self.get(i, inner), self.get(j, inner)
        inner.append(If(self.before(b, a), ir.block(*self.put(i, b), *self.put(j, a))))
        return [If(second < size, Block(tuple(inner)))]

    def sort(self, base: Expr, size: Expr, levels: Expr, pairs: Expr, x: Expr) -> list[Stmt]:
        """Sort ``size`` items from ``base`` on; ``pairs`` is half of two to ``levels``."""

        def every(pair: Callable[[Expr], tuple[Expr, Expr, list[Stmt]]]) -> list[Stmt]:
            def turn(t: Expr) -> list[Stmt]:
                out: list[Stmt] = []
                number = emit.let(out, "n", ir.add(ir.mul(t, self.threads), x))
                first, second, lets = pair(number)
                done = [*lets, *self.exchange(base, first, second, size)]
                return [*out, If(number < pairs, Block(tuple(done)))]

            return [*emit.loop(emit.ceil_div(pairs, self.threads), turn), Barrier()]

        def level(s: Expr) -> list[Stmt]:
            out: list[Stmt] = []
            half = emit.let(out, "half", ir.apply("shl", ir.ONE, s))

            def flipped(n: Expr) -> tuple[Expr, Expr, list[Stmt]]:
                lets: list[Stmt] = []
                among = emit.let(lets, "a", ir.apply("and", n, ir.sub(half, ir.ONE)))
                first = emit.let(lets, "f", ir.mul(ir.apply("lshr", n, s), ir.mul(half, 2)))
                last = ir.add(first, ir.sub(ir.sub(ir.mul(half, 2), ir.ONE), among))
                return ir.add(first, among), emit.let(lets, "s", last), lets

            def closer(t: Expr) -> list[Stmt]:
                inner: list[Stmt] = []
                shift = emit.let(inner, "shift", ir.sub(ir.sub(s, ir.ONE), t))
                step = emit.let(inner, "step", ir.apply("shl", ir.ONE, shift))

                def apart(n: Expr) -> tuple[Expr, Expr, list[Stmt]]:
                    lets: list[Stmt] = []
                    among = ir.apply("and", n, ir.sub(step, ir.ONE))
                    group = ir.mul(ir.apply("lshr", n, shift), ir.mul(step, 2))
                    first = emit.let(lets, "f", ir.add(group, among))
                    return first, emit.let(lets, "s", ir.add(first, step)), lets

                return [*inner, *every(apart)]

            return [*out, *every(flipped), *emit.loop(s, closer)]

        return emit.loop(levels, level)


class _Held(_Network):
    """Items in shared memory; a place of ``missing`` is that of none."""

    def __init__(
        self, values: Buffer, places: Buffer, slots: int, descending: bool, threads: int
    ) -> None:
        self.out = (values, places)
        size = ir.const(slots)
        self.buffers = (
            Buffer("held", values.dtype, size, Scope.SHARED),
            Buffer("places", places.dtype, size, Scope.SHARED),
        )
        super().__init__(*self.buffers, descending, threads)
        self.slots = slots
        self.missing = ir.Const(places.dtype.max, places.dtype)

    def before(self, a: Item, b: Item) -> Expr:
        """Those that are missing come last."""
        there, gone = (ir.apply(fn, i.place, self.missing) for fn, i in (("ne", a), ("eq", b)))
        return ir.logical_and(there, ir.apply("or", gone, super().before(a, b)))

    def row(
        self, columns: Expr, count: Expr, kept: int, element: Callable[[Expr, Expr], Expr]
    ) -> Row:
        """A row; ``kept`` items stay for the next turn, if one is not enough."""
        more = self.slots - kept
        turns = emit.ceil_div(columns, more) if kept else ir.ONE
        levels, pairs = ir.const(self.slots.bit_length() - 1), ir.const(self.slots // 2)
        values, places = self.out
        dtype = places.dtype

        def row(r: Expr, x: Expr) -> list[Stmt]:
            def slots(first: int, end: int, body: Callable[[Expr], list[Stmt]]) -> list[Stmt]:
                def one(t: Expr) -> list[Stmt]:
                    out: list[Stmt] = []
                    at = emit.let(out, "at", ir.add(ir.mul(t, self.threads), ir.add(x, first)))
                    return [*out, If(at < end, ir.block(*body(at)))]

                return emit.loop(ir.const(-(-(end - first) // self.threads)), one)

            def turn(t: Expr) -> list[Stmt]:
                def fill(at: Expr) -> list[Stmt]:
                    out: list[Stmt] = []
                    i = emit.let(out, "e", ir.add(ir.mul(t, more), ir.sub(at, kept)))
                    held = [
                        Store(self.values, at, element(r, i)),
                        Store(self.places, at, ir.cast(i, dtype)),
                    ]
                    none = Store(self.places, at, self.missing)
                    gone = ir.block(none, self.nothing(at))
                    return [*out, If(i < columns, ir.block(*held), gone)]

                size = ir.const(self.slots)
                sort = self.sort(ir.ZERO, size, levels, pairs, x)
                return [*slots(kept, self.slots, fill), Barrier(), *sort]

            def clear(at: Expr) -> list[Stmt]:
                return [Store(self.places, at, self.missing), self.nothing(at)]

            def write(at: Expr) -> list[Stmt]:
                place = ir.add(ir.mul(r, count), at)
                put = [
                    Store(values, place, Load(self.values, at)),
                    Store(places, place, Load(self.places, at)),
                ]
                return [If(at < count, ir.block(*put))]

            end = kept or self.slots
            begun = slots(0, kept, clear) if kept else []
            return [*begun, *emit.loop(turns, turn), *slots(0, end, write), Barrier()]

        return row

    def nothing(self, at: Expr) -> Stmt:
        """A value for an item that is missing: it is moved about, but never looked at."""
        return Store(self.values, at, ir.Const(0, self.values.dtype))


class _InPlace(_Network):
    """Items where the results are."""

    def row(self, columns: Expr, element: Callable[[Expr, Expr], Expr]) -> Row:
        """A row."""

        def row(r: Expr, x: Expr) -> list[Stmt]:
            out: list[Stmt] = []
            base = emit.let(out, "base", ir.mul(r, columns))

            def fill(t: Expr) -> list[Stmt]:
                inner: list[Stmt] = []
                i = emit.let(inner, "e", ir.add(ir.mul(t, self.threads), x))
                item = Item(element(r, i), ir.cast(i, self.places.dtype))
                put = self.put(ir.add(base, i), item)
                return [*inner, If(i < columns, ir.block(*put))]

            out += [*emit.loop(emit.ceil_div(columns, self.threads), fill), Barrier()]
            levels = _levels(out, columns)
            pairs = emit.let(
                out, "pairs", ir.apply("lshr", ir.apply("shl", ir.ONE, levels), ir.ONE)
            )
            return [*out, *self.sort(base, columns, levels, pairs, x)]

        return row


def _levels(out: list[Stmt], size: Expr) -> Expr:
    """The least power to which two is at least ``size``."""
    total: Expr = ir.ZERO
    rest = emit.let(out, "rest", ir.apply("max", ir.sub(size, ir.ONE), ir.ZERO))
    for width in (32, 16, 8, 4, 2, 1):
        high = emit.let(out, "high", ir.apply("lshr", rest, ir.const(width)))
        some = high > 0
        total = emit.let(out, "bits", ir.add(total, ir.select(some, ir.const(width), ir.ZERO)))
        rest = emit.let(out, "rest", ir.select(some, high, rest))
    return emit.let(out, "levels", ir.add(total, rest))
