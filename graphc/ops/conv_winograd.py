"""Convolutions of 3x3 taps with fewer products: Winograd's F(2x2, 3x3).

Y = A' [(G f G') * (B' d B)] A for a tile of 2x2 results and the 4x4 pixels d that they see (Lavin
and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, section 4.1): 16 products
instead of 36.  The filter's part depends on the filter alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dtypes import DType
from graphc.graph import TensorType
from graphc.loop import ir
from graphc.op import (
    Attr,
    ContractionForm,
    ContractionOp,
    ElementContext,
    ElementOp,
    InferContext,
    Sample,
    register,
)
from graphc.ops.base import grid
from graphc.ops.conv_window import Index, only_where
from graphc.ops.movement_value import all_of

FILTER = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])  # G
INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])  # B'
OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])  # A'

FLOATS: dict[str, tuple[DType, ...]] = {"T": dtypes.FLOATS}


def _numbers(*shape: int) -> np.ndarray:
    """Small whole numbers: what is taken apart and added up again comes out exactly."""
    return (np.arange(np.prod(shape)) * 7 % 11 - 5.0).reshape(shape)


def _placed(tile: ir.Expr, tiles: Sequence[int]) -> Index:
    """The image, row and column of a tile."""
    row, image = ir.index_div(tile, tiles[1]), ir.index_div(tile, tiles[0] * tiles[1])
    return image, ir.index_mod(row, tiles[0]), ir.index_mod(tile, tiles[1])


def _either(condition: ir.Expr, yes: float, no: float, dtype: DType) -> ir.Expr:
    return ir.select(condition, ir.Const(yes, dtype), ir.Const(no, dtype))


def _coefficient(row: ir.Expr, column: int, dtype: DType) -> ir.Expr:
    """``FILTER[row, column]`` for a row that is a loop variable."""
    middle = _either(ir.apply("eq", row, 2), -0.5, 0.5, dtype) if column == 1 else None
    inner = middle or ir.Const(0.5, dtype)
    first, last = FILTER[0, column], FILTER[3, column]
    edge = _either(ir.apply("eq", row, 0), float(first), float(last), dtype)
    outside = all_of([row >= 1, row <= 2])
    return ir.select(outside, inner, edge)


@register
class WinogradFilter(ElementOp):
    """A filter (HWIO, 3x3 taps) as the 4x4 factors of its products: ``G f G'``."""

    name = "WinogradFilter"
    inputs = "filter: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = FLOATS
    differentiable = False
    prepared = True

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """4x4 factors for every pair of channels."""
        kh, kw, ic, oc = ctx.rank(0, 4)
        for size in (kh, kw):
            ctx.equal(size, 3, "A filter must have 3x3 taps")
        return [TensorType(ctx.dtype(0), (4, 4, ic, oc))]

    def element(self, ctx: ElementContext, index: Index) -> ir.Expr:
        """A sum over the taps."""
        a, b, i, o = index
        dtype = ctx.op.inputs[0].dtype.base_dtype
        total: ir.Expr | None = None
        for h in range(3):
            row: ir.Expr | None = None
            for w in range(3):
                tap = ctx.operand(0, (ir.const(h), ir.const(w), i, o))
                part = _coefficient(b, w, dtype) * tap
                row = part if row is None else row + part
            assert row is not None
            part = _coefficient(a, h, dtype) * row
            total = part if total is None else total + part
        assert total is not None
        return total

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The formula, in float64."""
        f = np.asarray(inputs[0])
        wide = np.einsum("ah,bw,hwio->abio", FILTER, FILTER, f.astype(np.float64))
        return wide.astype(f.dtype)

    def samples(self) -> Iterable[Sample]:
        """Several channels, one, none."""
        yield Sample((grid(3, 3, 4, 5),), rtol=1e-5)
        yield Sample((grid(3, 3, 1, 1),), rtol=1e-5, note="size 1")
        yield Sample((np.zeros((3, 3, 0, 2)),), note="empty")


@register
class WinogradInput(ElementOp):
    """The 4x4 factors of every tile of an image (NHWC): ``B' d B``, as ``[4, 4, tile, channel]``.

    Tile ``(i, j)`` of an image sees the pixels from ``(2 i, 2 j) - before`` on; there are zeros
    around the image. ``tiles`` counts rows and columns of tiles.
    """

    name = "WinogradInput"
    inputs = "input: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = FLOATS
    attrs: ClassVar[dict[str, Attr]] = {
        "before": Attr("ints", (0, 0)), "tiles": Attr("ints"),
    }  # fmt: skip
    differentiable = False
    # All factors of a tile while its pixels are in the cache.
    loop_order = (2, 0, 1, 3)

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """For each tile the factors of all channels."""
        image = ctx.rank(0, 4)
        for key in ("before", "tiles"):
            if len(ctx.attrs[key]) != 2:
                raise ctx.error(f"{key} must be two numbers, not {ctx.attrs[key]}")
        if any(count < 1 for count in ctx.attrs["tiles"]):
            raise ctx.error(f"tiles must be positive, not {ctx.attrs['tiles']}")
        count = dims.product((image[0], *ctx.attrs["tiles"]))
        return [TensorType(ctx.dtype(0), (4, 4, count, image[3]))]

    def element(self, ctx: ElementContext, index: Index) -> ir.Expr:
        """Two rows and two columns of the tile, added or subtracted."""
        a, b, tile, c = index
        n, *place = _placed(tile, ctx.op.attrs["tiles"])
        attrs, sizes = ctx.op.attrs, ctx.sizes(0)[1:3]
        dtype = ctx.op.inputs[0].dtype.base_dtype
        taps = []
        for axis, factor in enumerate((a, b)):
            before, size = attrs["before"][axis], sizes[axis]
            first = ir.sub(ir.mul(place[axis], 2), ctx.size(before))
            found = []
            for nth in range(2):
                # Rows 0 and 2, 1 and 2, 1 and 2, 1 and 3.
                offset = ir.apply("max" if nth else "min", factor, 1 + nth)
                at = ir.add(first, offset)
                conditions = [at >= 0] if before != 0 else []
                last = 2 * attrs["tiles"][axis] + 1 - before
                if not dims.is_nonnegative(size - 1 - last):
                    conditions.append(at < ctx.size(size))
                found.append((at, conditions))
            taps.append(found)
        rows = []
        for h, over in taps[0]:
            pixels = []
            for w, beside in taps[1]:
                value = ctx.operand(0, (n, h, w, c))
                pixels.append(only_where(all_of([*over, *beside]), value, 0))
            rows.append(self._combined(b, pixels, dtype))
        return self._combined(a, rows, dtype)

    def _combined(self, factor: ir.Expr, two: list[ir.Expr], dtype: DType) -> ir.Expr:
        first = _either(ir.apply("eq", factor, 2), -1.0, 1.0, dtype)
        inner = all_of([factor >= 1, factor <= 2])
        second = _either(inner, 1.0, -1.0, dtype)
        return first * two[0] + second * two[1]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The formula for tiles cut out of a padded image, in float64."""
        x = np.asarray(inputs[0])
        th, tw = attrs["tiles"]
        padded = np.zeros((x.shape[0], 2 * th + 2, 2 * tw + 2, x.shape[3]))
        bh, bw = attrs["before"]
        part = x[:, max(-bh, 0) : 2 * th + 2 - bh, max(-bw, 0) : 2 * tw + 2 - bw]
        h, w = max(bh, 0), max(bw, 0)
        padded[:, h : h + part.shape[1], w : w + part.shape[2]] = part
        out = np.zeros((4, 4, x.shape[0], th, tw, x.shape[3]))
        for i, j in np.ndindex(th, tw):
            tile = padded[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
            out[:, :, :, i, j] = np.einsum("ah,bw,nhwc->abnc", INPUT, INPUT, tile)
        return out.reshape(4, 4, -1, x.shape[3]).astype(x.dtype)

    def samples(self) -> Iterable[Sample]:
        """Padding on no side, on one, on all; odd sizes; nothing."""
        x = _numbers(2, 4, 6, 3)
        yield Sample((x,), {"tiles": (1, 2)}, rtol=1e-5)
        yield Sample((x,), {"before": (1, 1), "tiles": (2, 3)}, rtol=1e-5)
        yield Sample((x,), {"before": (0, 2), "tiles": (3, 5)}, rtol=1e-5)
        yield Sample((x,), {"before": (-1, 0), "tiles": (1, 2)}, rtol=1e-5)
        yield Sample((np.zeros((0, 3, 3, 2)),), {"before": (1, 1), "tiles": (2, 2)}, note="empty")


@register
class WinogradProduct(ContractionOp):
    """For each of the 4x4 factors a product over the channels."""

    name = "WinogradProduct"
    inputs = "input: T, filter: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = FLOATS
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """Factors, tiles, output channels."""
        tiles, factors = ctx.rank(0, 4), ctx.rank(1, 4)
        for a, b in zip((*tiles[:2], tiles[3]), factors[:3], strict=True):
            ctx.equal(a, b, "Factors and channels must be equal")
        return [TensorType(ctx.dtype(0), (*tiles[:3], factors[3]))]

    def contraction(self, ctx: ElementContext) -> ContractionForm:
        """Rows are the tiles, columns the output channels; sums run over the input's."""
        tiles, factors = ctx.sizes(0), ctx.sizes(1)

        def lhs(b: Index, m: Index, k: Index) -> ir.Expr:
            return ctx.operand(0, (*b, *m, *k))

        def rhs(b: Index, k: Index, n: ir.Expr) -> ir.Expr:
            return ctx.operand(1, (*b, *k, n))

        def index(b: Index, m: Index, n: ir.Expr) -> Index:
            return (*b, *m, n)

        return ContractionForm(tiles[:2], (tiles[2],), factors[3], (factors[2],), lhs, rhs, index)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """NumPy's products, in float64."""
        x, f = (np.asarray(v) for v in inputs)
        return (x.astype(np.float64) @ f.astype(np.float64)).astype(x.dtype)

    def samples(self) -> Iterable[Sample]:
        """Several tiles, one, none."""
        yield Sample((grid(4, 4, 12, 5), grid(4, 4, 5, 6)), rtol=1e-5)
        yield Sample((grid(4, 4, 1, 1), grid(4, 4, 1, 1)), rtol=1e-5, note="size 1")
        yield Sample((np.zeros((4, 4, 0, 2)), grid(4, 4, 2, 3)), note="empty")


@register
class WinogradOutput(ElementOp):
    """The results of all tiles as images (NHWC) of ``sizes`` rows and columns: ``A' m A``."""

    name = "WinogradOutput"
    inputs = "input: T"
    types: ClassVar[dict[str, tuple[DType, ...]]] = FLOATS
    attrs: ClassVar[dict[str, Attr]] = {"sizes": Attr("ints")}
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The rows and columns asked for, of as many images as the tiles make."""
        _, _, tiles, c = ctx.rank(0, 4)
        sizes = ctx.attrs["sizes"]
        if len(sizes) != 2 or any(not isinstance(s, int) or s < 1 for s in sizes):
            raise ctx.error(f"sizes must be two positive numbers, not {sizes}")
        images = dims.floordiv(tiles, dims.product(tiles_of(sizes)))
        return [TensorType(ctx.dtype(0), (images, *sizes, c))]

    def element(self, ctx: ElementContext, index: Index) -> ir.Expr:
        """Nine of the factors, added or subtracted."""
        n, h, w, c = index
        dtype = ctx.op.inputs[0].dtype.base_dtype
        th, tw = tiles_of(ctx.op.attrs["sizes"])
        (i, p), (j, q) = ((ir.index_div(x, 2), ir.index_mod(x, 2)) for x in (h, w))
        tile = ir.add(ir.mul(ir.add(ir.mul(n, th), i), tw), j)

        def combined(parity: ir.Expr, three: list[ir.Expr]) -> ir.Expr:
            # The second row of A' is 0 1 -1 -1: the first of its three has the sign +.
            sign = _either(ir.apply("eq", parity, 1), -1.0, 1.0, dtype)
            return three[0] + sign * (three[1] + three[2])

        rows = []
        for k in range(3):
            factors = (ctx.operand(0, (ir.add(p, k), ir.add(q, m), tile, c)) for m in range(3))
            rows.append(combined(q, list(factors)))
        return combined(p, rows)

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The formula, in float64."""
        x = np.asarray(inputs[0])
        h, w = attrs["sizes"]
        th, tw = tiles_of((h, w))
        wide = x.astype(np.float64).reshape(4, 4, -1, th, tw, x.shape[3])
        tiles = np.einsum("pa,qb,abntsc->ntpsqc", OUTPUT, OUTPUT, wide)
        return tiles.reshape(-1, 2 * th, 2 * tw, x.shape[3])[:, :h, :w].astype(x.dtype)

    def samples(self) -> Iterable[Sample]:
        """Even and odd sizes, nothing."""
        x = _numbers(4, 4, 12, 5)
        yield Sample((x,), {"sizes": (6, 4)}, rtol=1e-5)
        yield Sample((x,), {"sizes": (5, 3)}, rtol=1e-5, note="odd")
        yield Sample((x,), {"sizes": (1, 1)}, rtol=1e-5, note="single")
        yield Sample((np.zeros((4, 4, 0, 2)),), {"sizes": (2, 1)}, note="empty")


def tiles_of(sizes: Sequence[Any]) -> tuple[int, int]:
    """Rows and columns of tiles of 2x2 results that cover an image."""
    return -(-sizes[0] // 2), -(-sizes[1] // 2)
