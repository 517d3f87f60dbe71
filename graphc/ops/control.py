"""The ops that own regions: While repeats a body, Case runs one of several branches.

While the user declares, a body is a :class:`~graphc.graph.Region` of the same graph; in a compiled
function it is a function of its own (:mod:`graphc.passes.extract_control`).  Both say what they
carry around a loop (``carried``) and what they give back (``given``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from graphc import dims, dtypes
from graphc.dims import DimLike, Symbol
from graphc.errors import CompileError
from graphc.graph import Operation, Tensor, TensorType
from graphc.op import Attr, Gradients, InferContext, Sample, SpecialOp, register
from graphc.ops.control_gradient import case_gradient, while_gradient

_ANY = "|".join(t.name for t in (*dtypes.ALL, dtypes.string))


class ControlOp(SpecialOp):
    """An op that runs its ``bodies``.

    ``symbols``: sizes that a run of it decides (in a compiled function).  ``saved``: tensors of the
    regions whose values it hands out besides its results.
    """

    family = "control"
    attrs: ClassVar[dict[str, Attr]] = {
        "bodies": Attr("regions"),
        "symbols": Attr("any", ()),
        "saved": Attr("tensors", ()),
    }

    def can_fail(self, op: Operation) -> bool:
        """Whether something in a body can."""
        return any(
            o.definition.can_fail(o) for body in op.attrs["bodies"] for o in body.operations
        )

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """The interpreters run the bodies."""
        raise CompileError(f"{self.name} is run by the interpreter, not by a reference")

    def samples(self) -> Iterable[Sample]:
        """None: the tests of control flow cover it."""
        return ()


@register
class Parameter(SpecialOp):
    """Stands in a region for a value that the region's owner passes in.

    Attributes ``dtype`` and ``shape`` (sizes, or None for unknown rank).
    """

    name = "Parameter"
    attrs: ClassVar[dict[str, Attr]] = {"dtype": Attr("dtype"), "shape": Attr("shape", None)}
    differentiable = False

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """What the attributes say."""
        return [TensorType(ctx.attrs["dtype"], ctx.attrs["shape"])]

    def reference(self, attrs: dict[str, Any], *inputs: Any) -> Any:
        """Never computed: it is passed in."""
        raise CompileError("a parameter has no value of its own")

    def samples(self) -> Iterable[Sample]:
        """None: there is nothing to compute."""
        return ()


@register
class While(ControlOp):
    """Repeats a body while a condition holds.

    ``bodies`` are the condition, which gives a bool scalar, and the body, which gives the next
    value of every loop variable.  The operands are the initial values of the loop variables, then
    what the bodies use from around.  The outputs are the final values; the number of turns
    (an int32 scalar); and for each of ``saved`` its values in all turns, stacked.
    """

    name = "While"
    inputs = f"values: N*{_ANY}"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The types of the loop variables; of what is saved, with the number of turns in front."""
        _, body = ctx.attrs["bodies"]
        _, last, turns = loop_symbols(ctx.attrs["symbols"])
        types = [_final(ctx, t, last) for t in body.carried]
        types.append(TensorType(dtypes.int32, ()))
        saved = body.given[len(body.carried) :] if turns is not None else ctx.attrs["saved"]
        return types + [stacked(t, turns) for t in saved]

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """A loop that goes back from the last turn to the first."""
        return while_gradient(op, grads)


def loop_symbols(
    symbols: Sequence[Symbol],
) -> tuple[Sequence[Symbol], dict[Symbol, DimLike], Symbol | None]:
    """The sizes that change from turn to turn; what they are after the last; the number of turns.

    A loop of a function has for each such size one symbol for the course of it and another one
    for the end, and last the number of turns; one of a user's graph has none.
    """
    if not symbols:
        return (), {}, None
    count = len(symbols) // 2
    during, after = symbols[:count], symbols[count : 2 * count]
    last: dict[Symbol, DimLike] = {
        a: dims.Dim((((b,), 1),)) for a, b in zip(during, after, strict=True)
    }
    return during, last, symbols[-1]


def _final(ctx: InferContext, tensor: Tensor, last: dict[Symbol, DimLike]) -> TensorType:
    sizes = tensor.sizes
    if sizes is not None and last:
        sizes = tuple(dims.substitute(ctx.env.canonical(s), last) for s in sizes)
    return TensorType(tensor.dtype.base_dtype, sizes)


def stacked(tensor: Tensor, turns: Any = None) -> TensorType:
    """The type of a tensor's values in all turns of a loop."""
    first: DimLike = dims.fresh() if turns is None else dims.Dim((((turns,), 1),))
    sizes = None if tensor.sizes is None else (first, *tensor.sizes)
    return TensorType(tensor.dtype.base_dtype, sizes)


@register
class Case(ControlOp):
    """Runs one of its branches.

    The first operand chooses: a bool (the first of two branches if it is true) or an int32 (the
    last branch for every number that names none).  The other operands are what the branches use
    from around.  The outputs are what the branch gives, then ``saved``: tensors of branches, zeros
    where another branch has run.
    """

    name = "Case"
    inputs = f"selector: bool|int32, values: N*{_ANY}"

    def infer(self, ctx: InferContext) -> Sequence[TensorType]:
        """The types that all branches agree on; sizes in which they differ are unknown."""
        branches = ctx.attrs["bodies"]
        left = list(ctx.attrs["symbols"])
        types = [
            TensorType(given[0].dtype.base_dtype, self._common(ctx, given, left))
            for given in zip(*(b.given for b in branches), strict=True)
        ]
        return types + [TensorType(t.dtype.base_dtype, t.sizes) for t in ctx.attrs["saved"]]

    def _common(
        self, ctx: InferContext, given: Sequence[Tensor], left: list[Any]
    ) -> tuple[DimLike, ...] | None:
        shapes = [t.sizes for t in given]
        # The order of the symbols is that of :func:`differing`.
        if any(s is None or len(s) != len(shapes[0] or ()) for s in shapes):
            return None
        sizes: list[DimLike] = []
        for options in zip(*(s for s in shapes if s is not None), strict=True):
            if len({ctx.env.canonical(s) for s in options}) == 1:
                sizes.append(options[0])
            else:
                sizes.append(dims.Dim((((left.pop(0),), 1),)) if left else dims.fresh())
        return tuple(sizes)

    def gradient(self, op: Operation, *grads: Tensor | None) -> Gradients:
        """A choice among the gradients of the branches."""
        return case_gradient(op, grads)


def differing(branches: Sequence[Any]) -> list[tuple[int, int]]:
    """Where the branches of a compiled Case differ in a size: result and dimension."""
    found = []
    for k, given in enumerate(zip(*(b.given for b in branches), strict=True)):
        for d, options in enumerate(zip(*(t.sizes or () for t in given), strict=True)):
            if len(set(options)) > 1:
                found.append((k, d))
    return found


def is_control(op: Operation) -> bool:
    """Whether the operation owns bodies."""
    return isinstance(op.definition, ControlOp)


def branch_number(selector: Any, count: int) -> int:
    """The branch that the value of a selector, a bool or a number, chooses among so many."""
    value = np.asarray(selector)
    number = 1 - int(value) if value.dtype == bool else int(value)
    return number if 0 <= number < count else count - 1
