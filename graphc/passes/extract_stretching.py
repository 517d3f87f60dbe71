"""Extraction that lets late sizes be 1 where they are broadcast; see `graphc.ops.stretching`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.dims import DimLike
from graphc.function import Guard
from graphc.graph import Operation, Tensor
from graphc.passes.extractor import Extractor


class StretchingExtractor(Extractor):
    """Extraction that puts what looks at sizes in front of what broadcasts."""

    def operands(self, op: Operation) -> list[Tensor]:
        """The operands of an operation; those that may have to be repeated, repeated."""
        inputs = super().operands(op)
        if not self.env.stretch:
            return inputs
        if op.type == "SumToShape":
            return [self.summed(op, *inputs), inputs[1]]
        if op.type == "BroadcastLike":
            return [self.stretched(op, inputs[0], inputs[1], joint=False), inputs[1]]
        if not op.definition.broadcasts:
            return inputs
        whole = inputs[0]
        for other in inputs[1:]:
            longer = len(other.sizes or ()) > len(whole.sizes or ())
            first, second = (other, whole) if longer else (whole, other)
            whole = self.stretched(op, first, second, joint=True)
        return [self.stretched(op, t, whole, joint=False) for t in inputs]

    def apart(self, x: Tensor, like: Tensor) -> list[tuple[int, DimLike, DimLike]]:
        """The dimensions, counted from the last one, of which a run tells whether one is 1."""
        found = []
        pairs = zip(reversed(x.sizes or ()), reversed(like.sizes or ()), strict=False)
        for k, sizes in enumerate(pairs, 1):
            a, b = (self.env.canonical(s) for s in sizes)
            if a != b and 1 not in (a, b) and self.env.is_late(a, b):
                found.append((k, a, b))
        return found

    def stretched(self, op: Operation, x: Tensor, like: Tensor, joint: bool) -> Tensor:
        """``x`` with the sizes that both broadcast to; ``like`` has these, if not ``joint``."""
        if x is like:
            return x
        found = self.apart(x, like)
        self.guard(found)
        if all(isinstance(a, int) for _, a, _ in found):
            return x
        return self.emit("Stretch", op, [x, like], {"joint": joint})

    def guard(self, found: Sequence[tuple[int, DimLike, DimLike]]) -> None:
        """Sizes that meet are equal, or one of them is 1."""
        for _, a, b in found:
            stated = Guard((a - b) * (a - 1) * (b - 1), 0, self.env.reason())
            if stated not in self.env.guards:
                self.env.guards.append(stated)

    def summed(self, op: Operation, grad: Tensor, like: Tensor) -> Tensor:
        """A gradient summed along the dimensions in which ``like`` turns out to be 1."""
        rank = len(grad.sizes or ())
        found = self.apart(grad, like)
        self.guard(found)
        for k, _, _ in found:
            axis = rank - k
            axes = self.emit("Const", op, [], {"value": np.array([axis], np.int32)})
            total = self.emit("Sum", op, [grad, axes], {"keep_dims": True})
            grad = self.emit("Unstretch", op, [grad, total, like], {"axis": axis})
        return grad
