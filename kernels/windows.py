"""Products with the taps of windows, added up where the taps fall on the image.

The gradient of a convolution's input, where windows overlap much: for every place of the window
and every row of its taps, the products for all taps and channels of that row lie side by side on
the image.  Each image is worked on by one thread, in a buffer that stays in the cache, so that
the products are never stored by themselves; its sums come in the same order with any number of
threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.kernels import emit, tiling
from graphc.kernels.panel import one_block
from graphc.kernels.problem import Contraction, Indices, Target, access
from graphc.kernels.tiling import known
from graphc.loop import ir
from graphc.loop.ir import (
    Alloc,
    Block,
    Buffer,
    Expr,
    Kernel,
    Load,
    LoopKind,
    Reduce,
    Stmt,
    Store,
    Var,
)

IMAGE_BYTES = 128 << 10
"""The most that the sums of an image may take, to be kept apart and in the second cache."""

Pair = tuple[Expr, Expr]


@dataclass(frozen=True)
class Windows:
    """Windows on images; pairs are of height and width.

    Attributes:
      images: how many.
      size, channels: of an image.
      before: rows and columns of zeros in front of it.
      places: of the window on the image; depth: channels of the gradient at each.
      taps: of the window; strides: from place to place; dilation: from a row of taps to the next.
    """

    images: Expr
    size: Pair
    channels: Expr
    before: tuple[int, int]
    places: Pair
    depth: Expr
    taps: Pair
    strides: tuple[int, int]
    dilation: int = 1

    def row(self, place: Expr, tap: Expr) -> Expr:
        """The row, from the first that windows reach, on which a tap falls."""
        return ir.add(ir.mul(place, self.strides[0]), ir.mul(tap, self.dilation))

    def column(self, place: Expr) -> Expr:
        """The column on which the first tap falls, in channels from the first one."""
        return ir.mul(ir.mul(place, self.strides[1]), self.channels)

    @property
    def run(self) -> Expr:
        """The taps of a row and their channels."""
        return ir.mul(self.taps[1], self.channels)

    def padded(self) -> tuple[int, int] | None:
        """Rows, and columns times channels, of the image and all that windows reach.

        None where some size is not known, or nothing.
        """
        extents = (*self.size, *self.places, *self.taps, self.channels, self.depth)
        sizes = [s for e in extents if (s := known(e))]
        if len(sizes) < len(extents):
            return None
        height, width, down, across, kh, kw, channels, _ = sizes
        rows = (down - 1) * self.strides[0] + (kh - 1) * self.dilation + 1
        columns = (across - 1) * self.strides[1] + kw
        return (
            max(rows, self.before[0] + height),
            max(columns, self.before[1] + width) * channels,
        )


Element = Callable[[Expr, Expr, Expr, Expr], Expr]


def windows_kernel(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    *,
    windows: Windows,
    gradient: Element,
    weight: Callable[[Expr, Expr, Expr], Expr],
    out: Buffer,
    target: Target,
) -> Kernel:
    """Images that are sums of ``gradient(image, row, column, c) * weight(tap row, c, at)``.

    ``at`` counts the taps of a row and their channels; ``out`` holds the images, dense.
    """
    padded = windows.padded()
    if padded is not None and padded[0] * padded[1] * out.dtype.size <= IMAGE_BYTES:
        images: _Plain = _Tiled(windows, gradient, weight, out, target, padded)
    else:
        images = _Plain(windows, gradient, weight, out)
    body = emit.loop(windows.images, images.image, LoopKind.PARALLEL)
    return Kernel(name, tuple(params), tuple(scalars), Block(tuple(body)))


class _Plain:
    """One product after the other, added to the image where that is."""

    def __init__(
        self, windows: Windows, gradient: Element, weight: Callable[[Expr, Expr, Expr], Expr],
        out: Buffer,
    ) -> None:  # fmt: skip
        self.w, self.gradient, self.weight, self.out = windows, gradient, weight, out
        self.width = ir.mul(windows.size[1], windows.channels)

    def at(self, image: Expr, row: Expr, column: Expr) -> Expr:
        """Where an element of a row of an image is."""
        row = ir.add(ir.mul(image, self.w.size[0]), row)
        return ir.add(ir.mul(row, self.width), column)

    def image(self, number: Expr) -> list[Stmt]:
        """The statements that make an image."""
        w = self.w
        zero = ir.const(0, self.out.dtype)
        size = (w.size[0], self.width)
        out = emit.nest(size, lambda i: [Store(self.out, self.at(number, *i), zero)])
        steps = (w.taps[0], *w.places, w.depth, w.run)
        return out + emit.nest(steps, lambda i: self.product(number, *i))

    def product(
        self, number: Expr, tap: Expr, h: Expr, x: Expr, c: Expr, at: Expr
    ) -> list[Stmt]:
        """One product, if its tap falls on the image."""
        out: list[Stmt] = []
        w = self.w
        row = emit.let(out, "row", ir.sub(w.row(h, tap), w.before[0]))
        before = ir.mul(w.channels, w.before[1])
        column = emit.let(out, "column", ir.sub(ir.add(w.column(x), at), before))
        inside = ir.logical_and(row >= 0, row < w.size[0])
        inside = ir.logical_and(inside, ir.logical_and(column >= 0, column < self.width))
        value = ir.mul(self.gradient(number, h, x, c), self.weight(tap, c, at))
        added = Reduce(self.out, self.at(number, row, column), "add", value)
        return out + emit.where(inside, [added])


class _Tiled(_Plain):
    """Products of register tiles, added to an image with what is around it."""

    def __init__(
        self, windows: Windows, gradient: Element, weight: Callable[[Expr, Expr, Expr], Expr],
        out: Buffer, target: Target, padded: tuple[int, int],
    ) -> None:  # fmt: skip
        super().__init__(windows, gradient, weight, out)
        self.padded = padded
        self.lanes = target.vector_bytes // out.dtype.size
        self.sums = ir.local("image", out.dtype, padded[0] * padded[1])
        self.problem = Contraction(
            batch=(windows.images, windows.taps[0]),
            # Places of one column follow each other: what they add does not overlap, and no
            # addition waits for the one before it.
            m=(windows.places[1], windows.places[0]),
            n=windows.run,
            k=(windows.depth,),
            acc=out.dtype,
            lhs=lambda b, m, k: gradient(b[0], m[1], m[0], k[0]),
            rhs=lambda b, k, n: weight(b[1], k[0], n),
            epilogue=self.add,
        )
        rows = (known(windows.places[0]) or 0) * (known(windows.places[1]) or 0)
        columns = known(windows.run) or 0
        self.schedule = tiling.as_one_block(
            self.problem, access(self.problem), target, rows, columns, pack=False
        )

    def add(self, batch: Indices, m: Indices, n: Expr, value: Expr) -> tuple[Stmt, ...]:
        """A sum over the channels, added where its tap falls."""
        row = ir.mul(self.w.row(m[1], batch[1]), self.padded[1])
        at = ir.add(ir.add(row, self.w.column(m[0])), n)
        return (Store(self.sums, at, ir.add(Load(self.sums, at), value)),)

    def image(self, number: Expr) -> list[Stmt]:
        """The statements that make an image."""
        zero = ir.const(0, self.out.dtype)

        def clear(at: Expr, _: Expr, mask: Expr | None) -> list[Stmt]:
            return emit.where(mask, [Store(self.sums, at, zero)])

        size = ir.const(self.padded[0] * self.padded[1])
        out: list[Stmt] = [Alloc(self.sums), *emit.chunks(size, self.lanes, clear)]
        out += emit.loop(self.w.taps[0], lambda tap: self.products(number, tap))
        return out + emit.loop(self.w.size[0], lambda row: self.finished(number, row))

    def products(self, number: Expr, tap: Expr) -> list[Stmt]:
        """The products with a row of taps, of all places."""
        return one_block(self.problem, (number, tap), self.schedule)

    def finished(self, number: Expr, row: Expr) -> list[Stmt]:
        """A row of the image, without what is around it."""
        first = ir.mul(ir.add(row, self.w.before[0]), self.padded[1])
        first = ir.add(first, ir.mul(self.w.channels, self.w.before[1]))

        def element(at: Expr, _: Expr, mask: Expr | None) -> list[Stmt]:
            value = Load(self.sums, ir.add(first, at))
            return emit.where(mask, [Store(self.out, self.at(number, row, at), value)])

        return emit.chunks(self.width, self.lanes, element)

