"""Convolutions of 3x3 taps by Winograd's tiles, where that is less work.

On a CPU it is where the filter can be prepared: the weights are of variables that the run does not
change. On a GPU, which does more operations for each byte it moves, it is where moving the factors
takes less than the products save, by a model of both; in training, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from graphc import dims
from graphc.dims import DimLike, Symbol
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
GPU_OPERATIONS = 16
"""Operations of float32 that a GPU does while it moves a byte: by the datasheets 13 on an A100, 20
on an H100, 14 on an H200."""
GPU_BYTES = 1 << 30
"""The most memory that the factors of one convolution may take on a GPU."""


@dataclass(frozen=True)
class Winograd:
    """Replace convolutions by four ops: factors of filter and tiles, products, results."""

    name: str = "winograd"
    outermost: bool = True

    def run(self, fn: Function) -> Function:
        """The function with other convolutions."""
        return with_expanded(fn, over_stable(fn, pays_on_cpu), by_tiles)


@dataclass(frozen=True)
class GpuWinograd:
    """The same where a GPU is expected to gain by it, whatever the filter is made of.

    Attributes:
      hints: sizes that a run decides, as they were first seen.
    """

    hints: Mapping[Symbol, int] = field(default_factory=dict)
    name: str = "winograd"

    def run(self, fn: Function) -> Function:
        """The function with other convolutions."""
        found = [op for op in fn.operations if pays_on_gpu(op, self.hints)]
        return with_expanded(fn, found, by_tiles)


def pays_on_cpu(op: Operation) -> bool:
    """Whether a convolution suits and has tiles enough."""
    if not suits(op):
        return False
    images, *sides = (op.outputs[0].sizes or ())[:3]
    rows, columns = tiles_of(sides)
    return (images if isinstance(images, int) else 1) * rows * columns >= TILES


def pays_on_gpu(op: Operation, hints: Mapping[Symbol, int]) -> bool:
    """Whether one suits whose saved operations take a GPU longer than factors to and fro do."""
    if not suits(op):
        return False
    images, *fixed = (*(op.outputs[0].sizes or ()), (op.inputs[1].sizes or ())[2])
    h, w, out, into = (s for s in fixed if isinstance(s, int))
    n = max(dims.lower_bound(dims.substitute(images, hints)), 1)
    rows, columns = tiles_of((h, w))
    saved = 2 * n * (9 * h * w - 16 * rows * columns) * into * out
    factors = 4 * 16 * (n * rows * columns * (into + out) + into * out)
    # They are written and read.
    return saved > GPU_OPERATIONS * 2 * factors and factors <= GPU_BYTES


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
    return len(fixed) == 5 and min(fixed[2:]) >= CHANNELS


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
