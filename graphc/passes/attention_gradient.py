"""The gradient of attention, as gradients declare it: what it reads, and what it gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.build import create
from graphc.dims import DimLike
from graphc.dtypes import SHORT_FLOATS, DType, float32
from graphc.function import Function
from graphc.graph import Operation, Tensor
from graphc.ops.base import call
from graphc.ops.contraction import TRANSPOSED
from graphc.ops.movement_value import int_tensor
from graphc.ops.reduction import axes_of
from graphc.passes.plan import is_literal

ITERATIONS = 16
"""The keys are shared out where there are fewer pairs of matrices, to be done in parallel."""
LEAST_KEYS = 256
"""Keys of a part, at least."""
UNKNOWN_PAIRS, UNKNOWN_KEYS = 8, 1024
"""What sizes that a run decides are taken for."""


@dataclass(frozen=True)
class Found:
    """What makes up attention: two products, the softmax between them, and what scores become.

    The softmax of 16-bit floats may be one of float32: casts stand between it and the products.
    """

    scores: Operation
    softmax: Operation
    mixed: Operation
    scale: float
    bias: Tensor | None

    @property
    def dtype(self) -> DType:
        """The one that is multiplied."""
        return self.mixed.outputs[0].dtype.base_dtype

    @property
    def score_bytes(self) -> int:
        """What a score takes where the softmax reads it."""
        return self.softmax.inputs[0].dtype.base_dtype.size

    @property
    def turned(self) -> bool:
        """Whether the keys lie in rows, and the product turns them."""
        return bool(flags(self.scores)[1])

    def operands(self) -> list[Tensor]:
        """The query, the key, the value, and the bias if there is one."""
        bias = [] if self.bias is None else [self.bias]
        return [*self.scores.inputs, self.mixed.inputs[1], *bias]


@dataclass(frozen=True)
class Descent:
    """The gradient of the result, and the products that give those of the operands, if they do."""

    grad: Tensor
    query: Operation | None
    key: Operation | None
    value: Operation | None

    @property
    def products(self) -> list[Operation]:
        """Those that there are."""
        return [op for op in (self.query, self.key, self.value) if op is not None]

    def declare(
        self, found: Found, operands: Sequence[Tensor], computed: Sequence[Tensor], parts: int
    ) -> dict[Operation, Tensor]:
        """What stands for each of the products, as one operation's results.

        ``computed`` are the gradient, and the results of ``AttentionWithStatistics`` over the same
        operands.
        """
        grad, result, statistics = computed
        query, key, value, *bias = operands
        key = key if found.turned else transposed(key)
        wide = result.dtype.base_dtype
        wider = grad if wide is found.dtype else call("Cast", grad, DstT=wide)
        mean = call("Sum", call("Mul", wider, result), int_tensor([-1]), keep_dims=True)
        attrs = {"scale": found.scale, "parts": parts}
        inputs = [query, key, value, grad, statistics, mean, bias]
        of_parts, of_key, of_value = create("AttentionGradient", inputs, attrs).outputs
        if parts == 1:
            of_query = call("Squeeze", of_parts, squeeze_dims=(0,))
        else:
            of_query = call("Sum", of_parts, int_tensor([0]))
        of_key = of_key if found.turned else transposed(of_key)
        pairs = (self.query, of_query), (self.key, of_key), (self.value, of_value)
        return {op: t for op, t in pairs if op is not None}


def transposed(tensor: Tensor) -> Tensor:
    """The matrices in the last two dimensions, each transposed."""
    rank = len(tensor.sizes or ())
    return call("Transpose", tensor, int_tensor([*range(rank - 2), rank - 1, rank - 2]))


def flags(product: Operation) -> tuple[bool, bool]:
    """Which operands of a product of matrices are transposed."""
    left, right = TRANSPOSED[product.type]
    return product.attrs[left], product.attrs[right]


def parts_of(value: Sequence[DimLike], iterations: int) -> int:
    """Into how many the keys are divided, given the sizes of the values."""
    pairs = math.prod(s if isinstance(s, int) else UNKNOWN_PAIRS for s in value[:-2])
    keys = value[-2] if isinstance(value[-2], int) else UNKNOWN_KEYS
    return max(1, min(-(-iterations // max(1, pairs)), keys // LEAST_KEYS))


class Readers:
    """Who reads the tensors of a function."""

    def __init__(self, fn: Function) -> None:
        self.results = set(fn.results())
        self.of: dict[Tensor, list[Operation]] = {}
        for op in fn.operations:
            for t in op.inputs:
                self.of.setdefault(t, []).append(op)

    def all_of(self, tensor: Tensor) -> list[Operation]:
        """The operations that read a tensor; none if it goes out of the function, too."""
        return [] if tensor in self.results else self.of.get(tensor, [])

    def once(self, tensor: Tensor) -> bool:
        """Whether a tensor is read in one place."""
        return len(self.of.get(tensor, [])) + (tensor in self.results) == 1

    def made(self, tensor: Tensor, *types: str) -> Operation | None:
        """The operation of one of these types that gives a tensor, which is read once."""
        return tensor.op if tensor.op.type in types and self.once(tensor) else None

    def before_cast(self, tensor: Tensor, source: DType, target: DType) -> Tensor:
        """What a tensor is cast from, as ``uncast`` tells, if nothing else reads it."""
        return uncast(tensor, source, target) if self.once(tensor) else tensor

    def descent(self, found: Found) -> Descent | None:
        """The gradient of attention, if it is all that reads the weights besides the result."""
        mixed = found.mixed
        factors, weights = mixed.inputs[0], found.softmax.outputs[0]
        readers = [op for op in self.all_of(factors) if op is not mixed]
        products = [op for op in readers if op.type in TRANSPOSED]
        others = [op for op in readers if op not in products]
        if factors is not weights:
            if others or factors in self.results:
                return None
            others = [op for op in self.all_of(weights) if op is not factors.op]
        inner = self._weighted(weights, found.dtype, others)
        if inner is None or len(products) > 1:
            return None
        grad, slopes = inner
        if mixed.inputs[1] is not grad.inputs[1] or flags(grad) != (False, True):
            return None
        value = products[0] if products else None
        if value is not None and not _is(value, (factors, grad.inputs[0]), (True, False)):
            return None
        if grad.inputs[0].sizes != mixed.outputs[0].sizes:
            return None
        ends = self._ends(found, slopes)
        return None if ends is None else Descent(grad.inputs[0], *ends, value)

    def _weighted(
        self, weights: Tensor, dtype: DType, readers: Sequence[Operation]
    ) -> tuple[Operation, Tensor] | None:
        """The gradient ``g`` of the weights ``y``, and that of what they are the softmax of.

        ``(g - sum(g y)) y``, where nothing else reads what it is computed by. ``g`` is a product of
        ``dtype``, behind a cast if ``y`` is.
        """
        if len(readers) != 2 or any(op.type != "Mul" for op in readers):
            return None
        for first, last in (readers, readers[::-1]):
            less, by = _other(last, weights), _other(first, weights)
            if less is None or by is None or self.made(less, "Sub") is None:
                continue
            total = self.made(less.op.inputs[1], "Sum")
            if total is None or less.op.inputs[0] is not by:
                continue
            if total.inputs[0] is not first.outputs[0] or not _of_rows(total):
                continue
            if self.once(first.outputs[0]) and len(self.all_of(by)) == 2:
                product = uncast(by, dtype, float32)
                if product is not by and not self.once(product):
                    return None
                return (product.op, last.outputs[0]) if product.op.type in TRANSPOSED else None
        return None

    def _ends(
        self, found: Found, slopes: Tensor
    ) -> tuple[Operation | None, Operation | None] | None:
        """The products that give the gradients of query and key, if nothing else reads these."""
        slopes, scale = self._scaled(slopes)
        readers = self.all_of(slopes)
        if len(readers) == 1 and readers[0].type == "Cast":
            narrow = readers[0].outputs[0]
            if uncast(narrow, float32, found.dtype) is not slopes:
                return None
            slopes, more = self._scaled(narrow)
            readers, scale = self.all_of(slopes), scale * more
        if scale != found.scale or not readers:
            return None
        query, key = found.scores.inputs
        of_query = of_key = None
        for op in readers:
            if of_query is None and _is(op, (slopes, key), (False, not found.turned)):
                of_query = op
            elif of_key is None and _is(
                op, (slopes, query) if found.turned else (query, slopes), (True, False)
            ):
                of_key = op
            else:
                return None
        return of_query, of_key


    def _scaled(self, tensor: Tensor) -> tuple[Tensor, float]:
        """A tensor multiplied by a number, if that is all that reads it, and the number."""
        readers = self.all_of(tensor)
        by = factor(readers[0]) if len(readers) == 1 else None
        return (tensor, 1.0) if by is None else (readers[0].outputs[0], by[1])


def uncast(tensor: Tensor, source: DType, target: DType) -> Tensor:
    """What a tensor is cast from, if it is from or to 16 bits as told; else the tensor."""
    if source not in SHORT_FLOATS and target not in SHORT_FLOATS:
        return tensor
    if tensor.op.type != "Cast" or tensor.dtype.base_dtype is not target:
        return tensor
    (found,) = tensor.op.inputs
    return found if found.dtype.base_dtype is source else tensor


def factor(op: Operation) -> tuple[Tensor, float] | None:
    """What an operation multiplies by a number, and the number."""
    if op.type not in ("Mul", "RealDiv"):
        return None
    sides = [t for t in op.inputs if not is_literal(t)]
    numbers = [t for t in op.inputs if is_literal(t)]
    if len(sides) != 1 or (op.type == "RealDiv" and sides[0] is not op.inputs[0]):
        return None
    number = float(np.asarray(numbers[0].op.attrs["value"]).reshape(-1)[0])
    return sides[0], number if op.type == "Mul" else 1.0 / number if number else np.inf


def _is(op: Operation, inputs: tuple[Tensor, Tensor], turned: tuple[bool, bool]) -> bool:
    """Whether an operation is this product of matrices."""
    return op.type in TRANSPOSED and tuple(op.inputs) == inputs and flags(op) == turned


def _of_rows(total: Operation) -> bool:
    """Whether a sum is along the last dimension, which stays."""
    rank = len(total.inputs[0].sizes or ())
    known = total.attrs["keep_dims"] and total.inputs[1].op.type == "Const"
    return bool(known) and axes_of(total, 1, rank) == (rank - 1,)


def _other(op: Operation, tensor: Tensor) -> Tensor | None:
    """The operand beside a tensor."""
    found = [t for t in op.inputs if t is not tensor]
    return found[0] if len(found) == 1 else None
