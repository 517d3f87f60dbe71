"""Attention over many keys as one kernel, which stores no matrix of scores.

``softmax(q @ k^T * scale + bias) @ v``, where nothing else reads the scores.  The gradient reads
them, so this is for graphs that are only run forward.

Of 16-bit floats, the scores may be cast to float32 anywhere before the softmax, and its weights
back to 16 bits: the op computes what is between the products in float32 anyway.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc import dims
from graphc.dtypes import SHORT_FLOATS, DType, float32, float64
from graphc.function import Function, Rebuilder
from graphc.graph import Operation, Tensor
from graphc.ops.base import call
from graphc.ops.contraction import TRANSPOSED
from graphc.ops.movement_value import int_tensor
from graphc.passes.plan import is_literal

LEAST_BYTES = 1 << 20
"""Scores of one pair of matrices that take less stay in a cache: stored, they are as fast."""
MOST_DEPTH = 256
"""Columns of queries and of values that a block's buffers are made for."""


@dataclass(frozen=True)
class Found:
    """What makes up attention: the two products, the factor, and what is added to the scores."""

    scores: Operation
    mixed: Operation
    scale: float
    bias: Tensor | None


@dataclass(frozen=True)
class FuseAttention:
    """Replace the products and the softmax by the one op.

    Attributes:
      short: whether those of 16-bit floats, too: on a GPU with tensor cores for them. A CPU would
        lose its dot products of bfloat16.
    """

    short: bool = False
    name: str = "attention"

    def run(self, fn: Function) -> Function:
        """The function with attention as an op; what it replaces is dead."""
        search = _Search(fn, self.short)
        found = {op: part for op in fn.operations if (part := search.attention(op)) is not None}
        if not found:
            return fn
        rebuilder = Rebuilder(fn)
        for op in fn.operations:
            part = found.get(op)
            if part is None:
                rebuilder.copy(op)
                continue
            operands = [*part.scores.inputs, op.inputs[1]]
            operands += [] if part.bias is None else [part.bias]
            mapped = [rebuilder.map[t] for t in operands]
            build = functools.partial(_fused, part, mapped)
            rebuilder.map.update(zip(op.outputs, rebuilder.declared(op, build), strict=True))
        return rebuilder.finish()


def _fused(part: Found, operands: Sequence[Tensor]) -> list[Tensor]:
    query, key, value, *bias = operands
    if not part.scores.attrs[TRANSPOSED[part.scores.type][1]]:
        return [call("Attention", query, key, value, bias, scale=part.scale)]
    rank = len(key.sizes or ())
    order = [*range(rank - 2), rank - 1, rank - 2]
    key = call("Transpose", key, int_tensor(order))
    return [call("Attention", query, key, value, bias, scale=part.scale)]


class _Search:
    """Finds attention in a function."""

    def __init__(self, fn: Function, short: bool) -> None:
        self.dtypes = (float32, float64, *(SHORT_FLOATS if short else ()))
        self.readers: dict[Tensor, int] = dict.fromkeys(fn.results(), 1)
        for op in fn.operations:
            for t in op.inputs:
                self.readers[t] = self.readers.get(t, 0) + 1

    def made(self, tensor: Tensor, *types: str) -> Operation | None:
        """The operation of one of these types that gives a tensor, which is read once."""
        return tensor.op if tensor.op.type in types and self.readers[tensor] == 1 else None

    def before_cast(self, tensor: Tensor, source: DType, target: DType) -> Tensor:
        """What a tensor is cast from, if it is from one dtype to the other; else the tensor."""
        if self.made(tensor, "Cast") is None or tensor.dtype.base_dtype is not target:
            return tensor
        (found,) = tensor.op.inputs
        return found if found.dtype.base_dtype is source else tensor

    def attention(self, mixed: Operation) -> Found | None:
        """What makes up attention, if an operation is its last product."""
        if mixed.type not in TRANSPOSED or any(mixed.attrs[f] for f in TRANSPOSED[mixed.type]):
            return None
        dtype = mixed.outputs[0].dtype.base_dtype
        if dtype not in self.dtypes:
            return None
        weights = self.before_cast(mixed.inputs[0], float32, dtype)
        softmax = self.made(weights, "Softmax")
        if softmax is None or softmax.outputs[0].dtype.base_dtype not in (dtype, float32):
            return None
        rank = len(softmax.outputs[0].sizes or ())
        if softmax.attrs["axis"] not in (-1, rank - 1):
            return None
        bias, tensor = None, self.before_cast(softmax.inputs[0], dtype, float32)
        added = self.made(tensor, "Add", "AddV2")
        if added is not None:
            sides = [t for t in added.inputs if self._scores(t, dtype) is not None]
            if len(sides) == 1:
                tensor = sides[0]
                bias = added.inputs[1 if added.inputs[0] is tensor else 0]
        scores = self._scores(tensor, dtype)
        if scores is None:
            return None
        product, scale = scores
        found = Found(product, mixed, scale, bias)
        return found if _suits(found) else None

    def _scores(self, tensor: Tensor, dtype: DType) -> tuple[Operation, float] | None:
        """The product of ``dtype`` that gives scores, and the number that they are multiplied by.

        A cast to float32 may stand behind either.
        """
        scale = 1.0
        tensor = self.before_cast(tensor, dtype, float32)
        scaled = self.made(tensor, "Mul", "RealDiv")
        if scaled is not None:
            sides = [t for t in scaled.inputs if not is_literal(t)]
            numbers = [t for t in scaled.inputs if is_literal(t)]
            if len(sides) != 1 or (scaled.type == "RealDiv" and sides[0] is not scaled.inputs[0]):
                return None
            number = float(np.asarray(numbers[0].op.attrs["value"]).reshape(-1)[0])
            scale = number if scaled.type == "Mul" else 1.0 / number if number else np.inf
            tensor = self.before_cast(sides[0], dtype, float32)
        product = self.made(tensor, *TRANSPOSED)
        if product is None or tensor.dtype.base_dtype is not dtype:
            return None
        return product, scale


def _suits(found: Found) -> bool:
    """Whether the shapes are those of attention, and the scores too many to be stored."""
    scores, mixed = found.scores, found.mixed
    if scores.attrs[TRANSPOSED[scores.type][0]] or not np.isfinite(found.scale):
        return False
    query, key, value, out = (
        t.sizes for t in (*scores.inputs, mixed.inputs[1], mixed.outputs[0])
    )
    matrix = scores.outputs[0].sizes
    if query is None or key is None or value is None or matrix is None or out is None:
        return False
    batch = query[:-2]
    if key[:-2] != batch or value[:-2] != batch or matrix[:-2] != batch or out[:-2] != batch:
        return False
    if found.bias is not None:
        bias = found.bias.sizes
        if bias is None or len(bias) > len(matrix):
            return False
        if any(s not in (1, m) for s, m in zip(bias[::-1], matrix[::-1], strict=False)):
            return False
    depths = (query[-1], value[-1])
    if not all(isinstance(s, int) and 0 < s <= MOST_DEPTH for s in depths):
        return False
    count = dims.product(matrix[-2:])
    size = scores.outputs[0].dtype.base_dtype.size
    return not isinstance(count, int) or count * size >= LEAST_BYTES
