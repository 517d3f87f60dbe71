"""Convolutions of 3x3 taps by Winograd's tiles, where that is less work.

It is where the filter can be prepared: the weights are of variables that the run does not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.dims import DimLike
from graphc.dtypes import float32
from graphc.function import Function, with_expanded
from graphc.graph import Operation, Tensor
from graphc.ops.base import call
from graphc.ops.conv_winograd import tiles_of
from graphc.passes.prepare import over_stable

CHANNELS = 32
"""With fewer channels on either side moving the factors costs more than the products save."""
TILES = 16
"""With fewer tiles reading the factors of the filter, 16/9 of it, takes longer than products do."""


@dataclass(frozen=True)
class Winograd:
    """Replace convolutions by four ops: factors of filter and tiles, products, results."""

    name: str = "winograd"
    outermost: bool = True

    def run(self, fn: Function) -> Function:
        """The function with other convolutions."""
        return with_expanded(fn, over_stable(fn, suits), by_tiles)


def suits(op: Operation) -> bool:
    """Whether the convolution has the form and the sizes for it."""
    if op.type != "Conv2DCore":
        return False
    image, kernel = (t.sizes or () for t in op.inputs)
    if op.outputs[0].dtype.base_dtype is not float32 or tuple(kernel[:2]) != (3, 3):
        return False
    steps = (*op.attrs["strides"], *op.attrs["dilations"], op.attrs["groups"])
    if steps != (1, 1, 1, 1, 1):
        return False
    fixed = [s for s in (*image[1:], *kernel[2:]) if isinstance(s, int)]
    if len(fixed) < 5 or min(fixed[2:]) < CHANNELS:
        return False
    batch = image[0] if isinstance(image[0], int) else 1
    th, tw = tiles_of((op.outputs[0].sizes or ())[1:3])
    return batch * th * tw >= TILES


def by_tiles(op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """The ops in the place of a convolution."""
    x, kernel = inputs
    sizes = (op.outputs[0].sizes or ())[1:3]
    before: tuple[DimLike, ...] = (0, 0)
    source = x.op
    if source.type == "SpreadImage" and tuple(source.attrs["strides"]) == (1, 1):
        x, before = source.inputs[0], tuple(source.attrs["before"])
    tiles = call("WinogradInput", x, before=before, tiles=tiles_of(sizes))
    found = call("WinogradProduct", tiles, call("WinogradFilter", kernel))
    return [call("WinogradOutput", found, sizes=sizes)]
