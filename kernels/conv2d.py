"""Two-dimensional convolutions as contractions: forward, and both gradients.

Images are NHWC, filters HWIO; with groups, output channel ``g * oc + j`` sees input channels
``g * ic`` to ``g * ic + ic - 1``. All three kernels have vectors along channels. Padding is a
guard on the image, evaluated once for each element while rows are packed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.dtypes import DType
from graphc.kernels import emit, index
from graphc.kernels.contraction import contraction_kernel
from graphc.kernels.problem import Contraction, Indices, Target, accumulator
from graphc.loop import ir
from graphc.loop.ir import Buffer, Expr, Guard, If, Kernel, Load, Stmt, Store, Var

Element = Callable[[Expr, Expr, Expr, Expr], Expr]
"""``element(n, h, w, c)`` of an image, or ``element(kh, kw, ic, oc)`` of a filter."""
Finish = Callable[[Indices, Expr], tuple[Stmt, ...]]
"""``finish(the four indices, sum)``: what is done with an element of the result."""


@dataclass(frozen=True)
class Geometry:
    """Extents of a convolution; ``ic`` and ``oc`` are the channels of one group.

    ``pad`` is what stands before the image (top, left); what stands behind follows from the
    output's extents.
    """

    n: Expr
    ih: Expr
    iw: Expr
    ic: Expr
    oh: Expr
    ow: Expr
    oc: Expr
    kh: Expr
    kw: Expr
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pad: tuple[Expr, Expr] = (ir.ZERO, ir.ZERO)
    groups: int = 1
    padded: bool = True

    @property
    def batch(self) -> Indices:
        """Groups are a batch dimension, where there are some."""
        return (ir.const(self.groups),) if self.groups > 1 else ()

    def channel(self, batch: Indices, c: Expr, per_group: Expr) -> Expr:
        """A channel of a group, among all."""
        return ir.add(ir.mul(batch[0], per_group), c) if self.groups > 1 else c

    def source(self, axis: int, out: Expr, tap: Expr) -> Expr:
        """Where on the image a tap of the filter falls."""
        at = ir.add(ir.mul(out, self.strides[axis]), ir.mul(tap, self.dilations[axis]))
        return ir.sub(at, self.pad[axis]) if self.padded else at


def geometry(
    image: Sequence[Expr | int],
    kernel: Sequence[Expr | int],
    output: Sequence[Expr | int],
    strides: tuple[int, int] = (1, 1),
    dilations: tuple[int, int] = (1, 1),
    pad: tuple[Expr | int, Expr | int] = (0, 0),
    groups: int = 1,
    padded: bool = True,
) -> Geometry:
    """From the shapes: image ``(n, ih, iw, channels)``, kernel ``(kh, kw, ic, channels)``, output.

    ``padded=False`` promises that every tap falls onto the image, so that nothing is checked.
    """
    n, ih, iw, _ = (_expr(s) for s in image)
    kh, kw, ic, oc = (_expr(s) for s in kernel)
    oh, ow = (_expr(s) for s in output[1:3])
    top, left = (_expr(p) for p in pad)
    oc = ir.index_div(oc, groups)
    return Geometry(
        n, ih, iw, ic, oh, ow, oc, kh, kw, strides, dilations, (top, left), groups, padded
    )


def _expr(size: Expr | int) -> Expr:
    return ir.wrap(size, ir.ZERO.dtype)


def dense(buffer: Buffer, shape: Sequence[Expr | int]) -> Element:
    """The element function of a dense array of four dimensions."""
    sizes = tuple(_expr(s) for s in shape)

    def element(*indices: Expr) -> Expr:
        return Load(buffer, _flat(indices, sizes))

    return element


def store_dense(buffer: Buffer, shape: Sequence[Expr | int]) -> Finish:
    """Stores the result, converted to the buffer's type, as a dense array."""
    sizes = tuple(_expr(s) for s in shape)

    def finish(indices: Indices, value: Expr) -> tuple[Stmt, ...]:
        return (Store(buffer, _flat(indices, sizes), ir.cast(value, buffer.dtype)),)

    return finish


def _flat(indices: Indices, sizes: Indices) -> Expr:
    at: Expr = ir.ZERO
    for i, size in zip(indices, sizes, strict=True):
        at = ir.add(ir.mul(at, size), i)
    return at


def _between(at: Expr, extent: Expr) -> list[Expr]:
    return [ir.apply("ge", at, ir.ZERO), ir.apply("lt", at, extent)]


def _guarded(conds: Sequence[Expr], value: Expr) -> Expr:
    cond: Expr = ir.TRUE
    for c in conds:
        cond = ir.logical_and(cond, c)
    return Guard(cond, value, ir.const(0, value.dtype))


def _image(g: Geometry, x: Element) -> Element:
    """The image with zeros around it."""
    if not g.padded:
        return x

    def element(n: Expr, h: Expr, w: Expr, c: Expr) -> Expr:
        return _guarded((*_between(h, g.ih), *_between(w, g.iw)), x(n, h, w, c))

    return element


def _merges_taps(g: Geometry, x: Element, filters: Element) -> bool:
    """Whether the taps of one filter row and their channels lie side by side in both operands."""
    if g.dilations[1] != 1 or g.groups > 1 or not isinstance(g.ic, ir.Const):
        return False
    channels = int(g.ic.value)
    probes = tuple(Var(name) for name in "abcd")
    image, weights = x(*probes), filters(*probes)
    if not isinstance(image, Load) or not isinstance(weights, Load):
        return False
    _, second, third, fourth = probes
    width = index.stride(image.index, third), index.stride(image.index, fourth)
    taps = index.stride(weights.index, second), index.stride(weights.index, third)
    return width == (channels, 1) and taps[1] is not None and taps[0] == channels * taps[1]


def forward(g: Geometry, x: Element, filters: Element, finish: Finish, acc: DType) -> Contraction:
    """``out[n, oh, ow, oc]``: rows are pixels, columns are output channels."""
    image = _image(g, x)

    def rhs(b: Indices, k: Indices, n: Expr) -> Expr:
        return filters(k[0], k[1], k[2], g.channel(b, n, g.oc))

    def lhs(b: Indices, m: Indices, k: Indices) -> Expr:
        h, w = g.source(0, m[1], k[0]), g.source(1, m[2], k[1])
        return image(m[0], h, w, g.channel(b, k[2], g.ic))

    def epilogue(b: Indices, m: Indices, n: Expr, value: Expr) -> tuple[Stmt, ...]:
        return finish((*m, g.channel(b, n, g.oc)), value)

    def nonzero(_: Indices, m: Indices, k: Indices) -> tuple[Expr, ...]:
        return tuple(_between(g.source(0, m[1], k[0]), g.ih)) if g.padded else ()

    m, taps = (g.n, g.oh, g.ow), (g.kh, g.kw, g.ic)
    if not _merges_taps(g, x, filters):
        return Contraction(g.batch, m, g.oc, taps, acc, lhs, rhs, epilogue, nonzero)
    row = ir.mul(g.iw, g.ic)

    def merged_lhs(_: Indices, m: Indices, k: Indices) -> Expr:
        # Beyond the last channel of a pixel stands the first of the next.
        h, w = g.source(0, m[1], k[0]), g.source(1, m[2], ir.ZERO)
        value = x(m[0], h, w, k[1])
        if not g.padded:
            return value
        column = ir.add(ir.mul(w, g.ic), k[1])
        return _guarded((*_between(h, g.ih), *_between(column, row)), value)

    def merged_rhs(_: Indices, k: Indices, n: Expr) -> Expr:
        return filters(k[0], ir.ZERO, k[1], n)

    k = (g.kh, ir.mul(g.kw, g.ic))
    return Contraction(g.batch, m, g.oc, k, acc, merged_lhs, merged_rhs, epilogue, nonzero)


def input_gradient(
    g: Geometry, dy: Element, filters: Element, finish: Finish, acc: DType
) -> Contraction:
    """``dx[n, ih, iw, ic]``: rows are pixels of the image, columns are input channels.

    A tap reaches a pixel from the output position ``(pixel + pad - tap * dilation) / stride``, if
    that is whole and on the output. With a stride ``s``, only every ``s``-th tap reaches a given
    pixel, so that pixels are sorted by the remainder of their coordinates: each pair of
    remainders is one item of the batch, with its own taps.
    """
    axes = (_Phases(g, 0), _Phases(g, 1))

    def places(
        b: Indices, m: Indices, k: Indices
    ) -> tuple[list[tuple[Expr, Expr]], tuple[Expr, ...]]:
        found = [axis.reached(_phase(b, axis), m[1 + i], k[i]) for i, axis in enumerate(axes)]
        return [(at, tap) for at, tap, _ in found], tuple(c for _, _, cs in found for c in cs)

    def nonzero(b: Indices, m: Indices, k: Indices) -> tuple[Expr, ...]:
        return places(b, m, k)[1]

    def lhs(b: Indices, m: Indices, k: Indices) -> Expr:
        ((h, _), (w, _)), conds = places(b, m, k)
        return _guarded(conds, dy(m[0], h, w, g.channel(b, k[2], g.oc)))

    def rhs(b: Indices, k: Indices, n: Expr) -> Expr:
        taps = [axis.tap(_phase(b, axis), k[i]) for i, axis in enumerate(axes)]
        value = filters(taps[0], taps[1], n, g.channel(b, k[2], g.oc))
        conds = [c for axis, tap in zip(axes, taps, strict=True) for c in axis.exists(tap)]
        return _guarded(conds, value) if conds else value

    def epilogue(b: Indices, m: Indices, n: Expr, value: Expr) -> tuple[Stmt, ...]:
        pixel = [axis.pixel(_phase(b, axis), m[1 + i]) for i, axis in enumerate(axes)]
        stmts = finish((m[0], *pixel, g.channel(b, n, g.ic)), value)
        conds = [ir.apply("lt", at, a.size) for at, a in zip(pixel, axes, strict=True) if a.ragged]
        for cond in conds:
            stmts = (If(cond, ir.block(*stmts)),)
        return stmts

    batch = (*g.batch, *(ir.const(axis.count) for axis in axes if axis.count > 1))
    m = (g.n, axes[0].rows, axes[1].rows)
    k = (axes[0].taps, axes[1].taps, g.oc)
    return Contraction(batch, m, g.ic, k, acc, lhs, rhs, epilogue, nonzero)


class _Phases:
    """One axis of an input gradient: pixels ``row * count + phase``."""

    def __init__(self, g: Geometry, axis: int) -> None:
        self.stride, self.dilation = g.strides[axis], g.dilations[axis]
        self.size, self.output = (g.ih, g.iw)[axis], (g.oh, g.ow)[axis]
        self.kernel, self.pad = (g.kh, g.kw)[axis], g.pad[axis]
        # Where taps are dilated, too, which of them reach a pixel is checked one by one.
        self.count = self.stride if self.dilation == 1 else 1
        self.rows = emit.ceil_div(self.size, self.count)
        self.taps = emit.ceil_div(self.kernel, self.count)
        self.ragged = not emit.is_const(ir.index_mod(self.size, self.count), 0)
        first = (1 if g.groups > 1 else 0) + (axis if _phase_count(g, 0) > 1 else 0)
        self.place = first if self.count > 1 else None

    def pixel(self, phase: Expr, row: Expr) -> Expr:
        """The coordinate on the image."""
        return ir.add(ir.mul(row, self.count), phase)

    def tap(self, phase: Expr, k: Expr) -> Expr:
        """The tap of the filter."""
        first = ir.index_mod(ir.add(phase, self.pad), self.count)
        return ir.add(ir.mul(k, self.count), first)

    def exists(self, tap: Expr) -> list[Expr]:
        """The condition that the filter has the tap, if some phase lacks one."""
        if emit.is_const(ir.index_mod(self.kernel, self.count), 0):
            return []
        return [ir.apply("lt", tap, self.kernel)]

    def reached(self, phase: Expr, row: Expr, k: Expr) -> tuple[Expr, Expr, list[Expr]]:
        """The position on the output, the tap, and the conditions that both exist."""
        tap = self.tap(phase, k)
        if self.count > 1:
            first = ir.index_div(ir.add(phase, self.pad), self.count)
            at = ir.sub(ir.add(row, first), k)
            return at, tap, [*self.exists(tap), *_between(at, self.output)]
        at = ir.add(ir.sub(row, ir.mul(k, self.dilation)), self.pad)
        if self.stride == 1:
            return at, tap, _between(at, self.output)
        place = ir.apply("floordiv", at, self.stride)
        whole = ir.apply("eq", ir.mul(place, self.stride), at)
        return place, tap, [whole, *_between(place, self.output)]


def _phase_count(g: Geometry, axis: int) -> int:
    return g.strides[axis] if g.dilations[axis] == 1 else 1


def _phase(b: Indices, axis: _Phases) -> Expr:
    return ir.ZERO if axis.place is None else b[axis.place]


def weight_gradient(
    g: Geometry, x: Element, dy: Element, finish: Finish, acc: DType
) -> Contraction:
    """``dw[kh, kw, ic, oc]``: rows are taps and input channels, sums run over the output."""
    image = _image(g, x)

    def lhs(b: Indices, m: Indices, k: Indices) -> Expr:
        h, w = g.source(0, k[1], m[0]), g.source(1, k[2], m[1])
        return image(k[0], h, w, g.channel(b, m[2], g.ic))

    def rhs(b: Indices, k: Indices, n: Expr) -> Expr:
        return dy(k[0], k[1], k[2], g.channel(b, n, g.oc))

    def epilogue(b: Indices, m: Indices, n: Expr, value: Expr) -> tuple[Stmt, ...]:
        return finish((*m, g.channel(b, n, g.oc)), value)

    m, k = (g.kh, g.kw, g.ic), (g.n, g.oh, g.ow)
    return Contraction(g.batch, m, g.oc, k, acc, lhs, rhs, epilogue)


Problem = Callable[[Geometry, Element, Element, Finish, DType], Contraction]


def conv2d_kernel(
    name: str,
    params: Sequence[Buffer],
    scalars: Sequence[Var],
    problem: Problem,
    g: Geometry,
    left: Element,
    right: Element,
    finish: Finish,
    *,
    dtype: DType,
    target: Target,
    acc: DType | None = None,
) -> Kernel:
    """A kernel for ``forward``, ``input_gradient`` or ``weight_gradient``.

    ``left`` and ``right`` are that function's operands, of type ``dtype``; sums are in ``acc``,
    by default ``accumulator(dtype)``.
    """
    contraction = problem(g, left, right, finish, acc or accumulator(dtype))
    return contraction_kernel(name, tuple(params), tuple(scalars), contraction, target)
