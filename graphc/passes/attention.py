"""Attention over many keys as one kernel, which stores no matrix of scores.

``softmax(q @ k^T * scale + bias) @ v``, where nothing else reads the scores but its gradient: in a
training step that is a kernel of its own, which computes them again.

Of 16-bit floats the scores may be cast to float32 anywhere before the softmax, and its weights back
to 16 bits: the op computes what is between the products in float32 anyway.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphc import dims
from graphc.build import create
from graphc.dims import Symbol
from graphc.dtypes import SHORT_FLOATS, DType, float32, float64
from graphc.function import Function, Rebuilder
from graphc.graph import Operation, Tensor
from graphc.ops.base import call
from graphc.ops.contraction import TRANSPOSED
from graphc.passes.attention_gradient import (
    ITERATIONS,
    Descent,
    Found,
    Readers,
    factor,
    flags,
    parts_of,
    transposed,
    uncast,
)

LEAST_BYTES = 1 << 20
"""Scores of one pair of matrices that take less stay in a cache: stored, they are as fast."""
LEAST_QUERIES = 64
"""In a training step, fewer make less of scores than computing them again costs."""
LEAST_SEEN_BYTES = 1 << 16
"""In a training step, scores of sizes that were first seen to take less are stored."""
MOST_DEPTH = 256
"""Columns of queries and of values that a block's buffers are made for."""
MOST_SHORT_DEPTH = 128
"""In a training step, those of 16-bit floats that tensor cores' registers have room for."""


@dataclass(frozen=True)
class FuseAttention:
    """Replace the products and the softmax by one op, and what their gradient is by another.

    Attributes:
      iterations: into how many the latter is divided at least.
      short: whether those of 16-bit floats, too: on a GPU with tensor cores for them. A CPU would
        lose its dot products of bfloat16.
      hints: sizes that a run decides, as they were first seen.
    """

    iterations: int = ITERATIONS
    short: bool = False
    hints: Mapping[Symbol, int] = field(default_factory=dict)
    name: str = "attention"

    def run(self, fn: Function) -> Function:
        """The function with attention as an op; what it replaces is dead."""
        search = _Search(fn, self.short, self.hints)
        found = {op: made for op in fn.operations if (made := search.attention(op)) is not None}
        if not found:
            return fn
        rebuilding = _Rebuilding(Rebuilder(fn), self.iterations)
        for part, descent in found.values():
            if descent is not None:
                rebuilding.gradients |= dict.fromkeys(descent.products, (part, descent))
        for op in fn.operations:
            if op in found:
                rebuilding.forward(op, *found[op])
            elif op in rebuilding.gradients:
                rebuilding.backward(op, *rebuilding.gradients[op])
            else:
                rebuilding.rebuilder.copy(op)
        return rebuilding.rebuilder.finish()


class _Rebuilding:
    """Puts the new operations where the replaced ones were."""

    def __init__(self, rebuilder: Rebuilder, iterations: int) -> None:
        self.rebuilder, self.iterations = rebuilder, iterations
        self.gradients: dict[Operation, tuple[Found, Descent]] = {}
        self.results: dict[Operation, Sequence[Tensor]] = {}
        self.done: dict[Operation, Tensor] = {}

    def forward(self, op: Operation, part: Found, descent: Descent | None) -> None:
        """Attention in the place of its last product."""
        rebuilder = self.rebuilder
        mapped = [rebuilder.map[t] for t in part.operands()]
        build = functools.partial(_fused, part, mapped, descent is not None)
        made = rebuilder.declared(op, build)
        self.results[op] = made[1:]
        rebuilder.map[op.outputs[0]] = made[0]

    def backward(self, op: Operation, part: Found, descent: Descent) -> None:
        """One of the gradients, all of which are made in the place of the first one."""
        rebuilder = self.rebuilder
        if op not in self.done:
            mapped = [rebuilder.map[t] for t in part.operands()]
            grad, results = rebuilder.map[descent.grad], self.results[part.mixed]

            def build() -> list[Tensor]:
                parts = parts_of(mapped[2].sizes or (), self.iterations)
                self.done |= descent.declare(part, mapped, (grad, *results), parts)
                return []

            rebuilder.declared(op, build)
        rebuilder.map[op.outputs[0]] = self.done[op]


def _fused(part: Found, operands: Sequence[Tensor], with_sum: bool) -> Sequence[Tensor]:
    """The result in the products' dtype, and what the operation gives."""
    query, key, value, *bias = operands
    key = transposed(key) if part.turned else key
    name = "AttentionWithStatistics" if with_sum else "Attention"
    made = create(name, [query, key, value, bias], {"scale": part.scale}).outputs
    result = made[0]
    if result.dtype.base_dtype is not part.dtype:
        result = call("Cast", result, DstT=part.dtype)
    return [result, *made]


class _Search:
    """Finds attention in a function."""

    def __init__(self, fn: Function, short: bool, hints: Mapping[Symbol, int]) -> None:
        self.hints = hints
        self.short = SHORT_FLOATS if short else ()
        self.readers = Readers(fn)
        self.places = {op: k for k, op in enumerate(fn.operations)}

    def attention(self, mixed: Operation) -> tuple[Found, Descent | None] | None:
        """What makes up attention, if an operation is its last product; and its gradient."""
        if mixed.type not in TRANSPOSED or any(flags(mixed)):
            return None
        dtype = mixed.outputs[0].dtype.base_dtype
        if dtype not in (float32, float64, *self.short):
            return None
        weights = uncast(mixed.inputs[0], float32, dtype)
        softmax = weights.op
        if softmax.type != "Softmax" or weights.dtype.base_dtype not in (dtype, float32):
            return None
        rank = len(weights.sizes or ())
        if softmax.attrs["axis"] not in (-1, rank - 1):
            return None
        found = self._found(softmax, mixed, dtype)
        if found is None or not _suits(found):
            return None
        if self.readers.once(weights) and self.readers.once(mixed.inputs[0]):
            return found, None
        if not self._worth(found):
            return None
        descent = self.readers.descent(found)
        if descent is None or any(self.places[o] < self.places[mixed] for o in descent.products):
            return None
        return found, descent

    def _worth(self, found: Found) -> bool:
        """Whether a training step gains by computing scores again, for the sizes first seen."""
        queries, keys = (
            dims.substitute(s, self.hints) for s in (found.scores.outputs[0].sizes or ())[-2:]
        )
        if isinstance(queries, int) and queries < LEAST_QUERIES:
            return False
        if found.dtype in SHORT_FLOATS and _depth(found) > MOST_SHORT_DEPTH:
            return False
        count = dims.product((queries, keys))
        return not isinstance(count, int) or count * found.score_bytes >= LEAST_SEEN_BYTES

    def _found(self, softmax: Operation, mixed: Operation, dtype: DType) -> Found | None:
        """What is before a softmax, if it is the scores, with a bias or without."""
        bias, tensor = None, self.readers.before_cast(softmax.inputs[0], dtype, float32)
        added = self.readers.made(tensor, "Add", "AddV2")
        if added is not None:
            sides = [t for t in added.inputs if self._scores(t, dtype) is not None]
            if len(sides) == 1:
                tensor = sides[0]
                bias = added.inputs[1 if added.inputs[0] is tensor else 0]
        scores = self._scores(tensor, dtype)
        return None if scores is None else Found(scores[0], softmax, mixed, scores[1], bias)

    def _scores(self, tensor: Tensor, dtype: DType) -> tuple[Operation, float] | None:
        """The product of ``dtype`` that gives scores, and the number that they are multiplied by.

        A cast to float32 may stand behind either.
        """
        scale = 1.0
        tensor = self.readers.before_cast(tensor, dtype, float32)
        scaled = self.readers.made(tensor, "Mul", "RealDiv")
        if scaled is not None:
            by = factor(scaled)
            if by is None:
                return None
            tensor, scale = self.readers.before_cast(by[0], dtype, float32), by[1]
        product = self.readers.made(tensor, *TRANSPOSED)
        if product is None or tensor.dtype.base_dtype is not dtype:
            return None
        return product, scale


def _suits(found: Found) -> bool:
    """Whether the shapes are those of attention, and the scores too many to be stored."""
    scores, mixed = found.scores, found.mixed
    if flags(scores)[0] or not np.isfinite(found.scale):
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
    if not 0 < _depth(found) <= MOST_DEPTH:
        return False
    count = dims.product(matrix[-2:])
    return not isinstance(count, int) or count * found.score_bytes >= LEAST_BYTES


def _depth(found: Found) -> int:
    """Columns of queries or of values, the more of them; 0 where they are not known or none."""
    sizes = [(t.sizes or (0,))[-1] for t in (found.scores.inputs[0], found.mixed.inputs[1])]
    known = [s for s in sizes if isinstance(s, int) and s > 0]
    return max(known) if len(known) == len(sizes) else 0
