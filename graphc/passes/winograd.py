"""Convolutions of 3x3 taps by Winograd's tiles, where that is less work.

It is where the filter can be prepared: the weights are of variables that the run does not change.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.dims import DimLike
from graphc.dtypes import float32
from graphc.function import Function, Rebuilder
from graphc.graph import Operation, Tensor
from graphc.ops.base import call
from graphc.passes.prepare import stable_tensors

CHANNELS = 32
"""With fewer channels on either side moving the factors costs more than the products save."""
TILES = 24
"""With fewer tiles reading the factors of the filter, 16/9 of it, takes longer than products do."""


@dataclass(frozen=True)
class Winograd:
    """Replace convolutions by four ops: factors of filter and tiles, products, results."""

    name: str = "winograd"

    def run(self, fn: Function) -> Function:
        """The function with other convolutions."""
        candidates = [op for op in fn.operations if op.type == "Conv2DCore" and suits(op)]
        if candidates:
            stable = stable_tensors(fn)
            candidates = [op for op in candidates if op.inputs[1] in stable]
        if not candidates:
            return fn
        rebuilder = Rebuilder(fn)
        for op in fn.operations:
            if op in candidates:
                rebuilder.expand(op, functools.partial(by_tiles, op))
            else:
                rebuilder.copy(op)
        return rebuilder.finish()


def suits(op: Operation) -> bool:
    """Whether the convolution has the form and the sizes for it."""
    image, kernel = (t.sizes or () for t in op.inputs)
    plain = {"strides": (1, 1), "dilations": (1, 1), "groups": 1}
    if op.outputs[0].dtype.base_dtype is not float32 or tuple(kernel[:2]) != (3, 3):
        return False
    if any(tuple_of(op.attrs[k]) != tuple_of(v) for k, v in plain.items()):
        return False
    fixed = [s for s in (*image[1:], *kernel[2:]) if isinstance(s, int)]
    if len(fixed) < 5 or min(fixed[2:]) < CHANNELS:
        return False
    batch = image[0] if isinstance(image[0], int) else 1
    th, tw = tiles_of(op)
    return batch * th * tw >= TILES


def tuple_of(value: object) -> tuple[object, ...]:
    """A pair from a file may be a list."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def tiles_of(op: Operation) -> tuple[int, int]:
    """Rows and columns of tiles of 2x2 results."""
    height, width = (op.outputs[0].sizes or ())[1:3]
    assert isinstance(height, int)
    assert isinstance(width, int)
    return -(-height // 2), -(-width // 2)


def by_tiles(op: Operation, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """The ops in the place of a convolution."""
    x, kernel = inputs
    before: tuple[DimLike, ...] = (0, 0)
    source = x.op
    if source.type == "SpreadImage" and tuple_of(source.attrs["strides"]) == (1, 1):
        x, before = source.inputs[0], tuple(source.attrs["before"])
    tiles = call("WinogradInput", x, before=before, tiles=tiles_of(op))
    found = call("WinogradProduct", tiles, call("WinogradFilter", kernel))
    return [call("WinogradOutput", found, sizes=(op.outputs[0].sizes or ())[1:3])]
