"""Random numbers once more: what the way back through a loop needs to draw them again.

A nested loop or branch runs again on the way back.  The numbers that its random operations gave are
a function of their keys, of the element, and of a counter; with the counter that they had, the
operations of :mod:`graphc.ops.random_stateless` give the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from graphc import dtypes
from graphc.errors import CompileError
from graphc.graph import Operation, TensorType
from graphc.op import Attr, InferContext, Sample, SpecialOp, register
from graphc.ops.random import RandomOp


@register
class RandomCounter(SpecialOp):
    """How often a random operation had run when a turn began, or a branch: an int64 scalar.

    ``of`` is the output of the operation, which is in a loop or branch inside of this one.
    """

    name = "RandomCounter"
    family = "random"
    inputs = ""
    attrs: ClassVar[dict[str, Attr]] = {"of": Attr("tensors", ())}
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A scalar."""
        if len(ctx.attrs["of"]) != 1 or not counts(ctx.attrs["of"][0].op):
            raise ctx.error("'of' must be the output of one random operation")
        return [TensorType(dtypes.int64, ())]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """Extraction knows it."""
        raise CompileError("RandomCounter has no value of its own")

    def samples(self) -> Iterable[Sample]:
        """None: there is nothing to compute."""
        return ()


@register
class CountFrom(SpecialOp):
    """The number ``start``, and one more every time it runs again in the region of ``start``."""

    name = "CountFrom"
    family = "random"
    inputs = "start: int64"
    pure = False
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """A scalar."""
        ctx.rank(0, 0)
        return [TensorType(dtypes.int64, ())]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """What the first run gives."""
        return inputs[0]

    def samples(self) -> Iterable[Sample]:
        """None: the tests of control flow cover it."""
        return ()


def counts(op: Operation) -> bool:
    """Whether the operation reads a counter and advances it."""
    return isinstance(op.definition, RandomOp) or op.type == "CountFrom"
