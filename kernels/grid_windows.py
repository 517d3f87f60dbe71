"""On a GPU: images that are sums of products with the taps of windows, as a product."""

from __future__ import annotations

from collections.abc import Callable

from graphc.kernels.grid import contraction_grid
from graphc.kernels.problem import Contraction, Indices, accumulator
from graphc.kernels.windows import Element, Windows
from graphc.loop import ir
from graphc.loop.gpu_grid import GpuTarget
from graphc.loop.ir import Buffer, Expr, Guard, Kernel, Stmt, Store, Var


def windows_grid(
    name: str,
    params: tuple[Buffer, ...],
    scalars: tuple[Var, ...],
    *,
    windows: Windows,
    gradient: Element,
    weight: Callable[[Expr, Expr, Expr], Expr],
    out: Buffer,
    target: GpuTarget,
) -> Kernel:
    """The images as a product: of a pixel, all places of windows with a tap on it are summed up."""
    w = windows
    (height, width), channels = w.size, w.channels

    def lhs(_: Indices, m: Indices, k: Indices) -> Expr:
        (image, y, x), (down, right, depth) = m, k
        above = ir.sub(ir.add(y, w.before[0]), ir.mul(down, w.dilation))
        left = ir.sub(ir.add(x, w.before[1]), right)
        inside: Expr = ir.TRUE
        place = []
        for at, stride, count in zip((above, left), w.strides, w.places, strict=True):
            found = ir.index_div(at, stride)
            on_place = ir.apply("eq", ir.mul(found, stride), at)
            for cond in (at >= 0, on_place, found < count):
                inside = ir.logical_and(inside, cond)
            place.append(found)
        value = gradient(image, place[0], place[1], depth)
        return Guard(inside, value, ir.Const(0, value.dtype))

    def rhs(_: Indices, k: Indices, n: Expr) -> Expr:
        down, right, depth = k
        return weight(down, depth, ir.add(ir.mul(right, channels), n))

    def store(_: Indices, m: Indices, n: Expr, value: Expr) -> tuple[Stmt, ...]:
        image, y, x = m
        row = ir.add(ir.mul(ir.add(ir.mul(image, height), y), width), x)
        return (Store(out, ir.add(ir.mul(row, channels), n), ir.cast(value, out.dtype)),)

    problem = Contraction(
        batch=(), m=(w.images, height, width), n=channels, k=(*w.taps, w.depth),
        acc=accumulator(out.dtype), lhs=lhs, rhs=rhs, epilogue=store,
    )  # fmt: skip
    return contraction_grid(name, params, scalars, problem, target)
